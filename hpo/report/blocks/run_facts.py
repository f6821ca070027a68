"""How a study was run: trials, time, command, machine, versions."""

import shlex
from collections import Counter
from collections.abc import Sequence

from hpo.data import card
from hpo.language import marked, t
from hpo.report.blocks.table import Table, facts
from hpo.results.study import StoredGrid, StoredSearch, StoredStudy, seconds_of
from hpo.text import seconds_text


def run_table(study: StoredStudy, more: Sequence[list[str]] = ()) -> Table:
    """Returns a row per fact, and then the rows `more`."""
    counts = study.trials["state"].value_counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items()) or t("none yet")
    rows = [[t("Trials"), states], [t("Trained in"), trained_in(study)]]
    rows += _session_facts(study)
    rows += [[t("Data checksum"), f"SHA-256 {study.data['checksum']}"]]
    if "about" in study.data:  # the user's own files have a data card
        rows += [[what, value] for what, value in card.rows(study.data)[:-1]]
        rows += [[t("Note"), text] for text in card.warnings(study.data)]
    return facts((t("What"), t("Value")), [*rows, *more])


def other_data(study: StoredGrid | StoredSearch) -> list[str]:
    """Returns a sentence if the study was run on another dataset than its file names."""
    if study.data["name"] == study.file.dataset.short:
        return []
    text = marked(
        "These figures are of {data}, not of {asked}; they cannot be compared with its figures."
    )
    return [t(text, data=study.data_name, asked=study.file.dataset.short)]


def one_line_each(paragraphs: Sequence[str]) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def _session_facts(study: StoredStudy) -> list[list[str]]:
    if not study.sessions:
        return []
    last = study.sessions[-1]
    hardware, versions = last["hardware"], last["versions"]
    machine = t("{processor}, {n} cores", processor=hardware["processor"], n=hardware["cores"])
    memory = f", {hardware['memory_gib']} GiB" if hardware["memory_gib"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    workers = t("{n} on {device}, one thread each", n=last["workers"], device=last["device"])
    if last.get("machines"):
        workers = t("{n} on {device}", n=last["workers"], device=last["device"])
    facts = [[t("Command"), last["command"]], [t("Workers"), workers]]
    facts += [[t("Machine"), machine + memory], *_cluster_facts(study), [t("Versions"), packages]]
    return facts + ([[t("Commit"), last["git_commit"]]] if last["git_commit"] else [])


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
        text = t("{nodes}; the last bits of a curve depend on the processor", nodes=text)
    return [[t("Nodes"), text]]


def trained_in(study: StoredStudy) -> str:
    """Returns the time by the clock and the training time, as text."""
    core_seconds = study.trials["train_seconds"].sum()
    runs = len(study.sessions)
    parts = [t("{time} by the clock", time=seconds_text(seconds_of(study.sessions)))]
    parts += [t("over {n} runs", n=runs)] if runs > 1 else []
    cut = sum(not {"seconds", "counted"} & set(session) for session in study.sessions)
    parts += [t("({n} of them killed, its time unknown)", n=cut)] if cut else []
    return t(
        "{clock}, {time} of training time", clock=" ".join(parts), time=seconds_text(core_seconds)
    )


def repeatable(typed: str) -> str:
    """Returns the command without the options that delete the study."""
    return shlex.join(word for word in shlex.split(typed) if word not in ("--fresh", "--yes"))
