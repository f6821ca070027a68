"""How a study was run: trials, time, command, machine, versions."""

import shlex
from collections import Counter
from collections.abc import Sequence

from hpo.report.blocks.page import Table
from hpo.storage.results import StoredGrid, StoredSearch, StoredStudy
from hpo.text import seconds_text


def run_table(study: StoredStudy, more: Sequence[list[str]] = ()) -> Table:
    """Returns a row per fact, and then the rows `more`."""
    counts = study.trials["state"].value_counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items()) or "none yet"
    facts = [["Trials", states], ["Trained in", trained_in(study)]]
    facts += _session_facts(study)
    facts += [["Data checksum", f"SHA-256 {study.data['checksum']}"], *more]
    return Table(headers=["What", "Value"], rows=facts)


def other_data(study: StoredGrid | StoredSearch) -> list[str]:
    """Returns a sentence if the study was run on another dataset than its file names."""
    if study.data["name"] == study.file.dataset.short:
        return []
    return [
        f"These figures are of {study.data_name}, not of {study.file.dataset.short}; they "
        "cannot be compared with its figures."
    ]


def one_line_each(paragraphs: Sequence[str]) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def _session_facts(study: StoredStudy) -> list[list[str]]:
    if not study.sessions:
        return []
    last = study.sessions[-1]
    hardware, versions = last["hardware"], last["versions"]
    machine = f"{hardware['processor']}, {hardware['cores']} cores"
    memory = f", {hardware['memory_gib']} GiB" if hardware["memory_gib"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    workers = f"{last['workers']} on {last['device']}"
    workers += "" if last.get("machines") else ", one thread each"
    facts = [["Command", last["command"]], ["Workers", workers]]
    facts += [["Machine", machine + memory], *_cluster_facts(study), ["Versions", packages]]
    return facts + ([["Commit", last["git_commit"]]] if last["git_commit"] else [])


def _cluster_facts(study: StoredStudy) -> list[list[str]]:
    """Returns the processors of the nodes that trained; a warning if there are several kinds."""
    nodes = {
        node["host"]: node["hardware"]["processor"]
        for session in study.sessions
        for node in session.get("machines", ())
    }
    if not nodes:
        return []
    counts = Counter(nodes.values())
    text = ", ".join(f"{n} × {processor}" for processor, n in counts.items())
    if len(counts) > 1:
        text += "; the last bits of a curve depend on the processor"
    return [["Nodes", text]]


def trained_in(study: StoredStudy) -> str:
    """Returns the time by the clock and the training time, as text."""
    seconds = sum(session.get("seconds", 0) for session in study.sessions)
    core_seconds = study.trials["train_seconds"].sum()
    runs = len(study.sessions)
    parts = [f"{seconds_text(seconds)} by the clock"]
    parts += [f"over {runs} runs"] if runs > 1 else []
    cut = sum("seconds" not in session for session in study.sessions)
    parts += [f"({cut} of them killed, its time unknown)"] if cut else []
    return f"{' '.join(parts)}, {seconds_text(core_seconds)} of training time"


def repeatable(typed: str) -> str:
    """Returns the command without the options that delete the study."""
    return shlex.join(word for word in shlex.split(typed) if word not in ("--fresh", "--yes"))
