"""How networks were trained or searched, and how the study was run: time, machine, versions."""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hpo.data import card
from hpo.language import marked, nt, t
from hpo.report.blocks.page import Block, Section
from hpo.report.blocks.table import Table, facts
from hpo.report.blocks.words import grid_states_text
from hpo.report.figures.axis import beyond
from hpo.results.study import StoredGrid, StoredSearch, StoredStudy, seconds_of
from hpo.study.config import DEFAULTS, SOURCES, Config
from hpo.study.fields import BALANCED
from hpo.study.file import Cell, SearchStudy
from hpo.study.names import BFLOAT16, SCHEDULES, label
from hpo.study.space import Fixed, spelled
from hpo.text import count, limit_text, quoted, seconds_text

MOST_COLUMNS = 20  # of a table that the report lists

# --- a grid -------------------------------------------------------------------------------------


def of_grid(study: StoredGrid) -> list[Section]:
    data, cells = study.data, study.file.cells
    text = marked(
        "Every training splits the {all:,} training {things} of {data} into {train} to train on "
        "and {valid} to validate on, starts from {weights}, and minimizes {loss} {batches}, "
        "shuffled every epoch, {epochs}{schedule}. The network of the last epoch is tested on the "
        "{test:,} test {things}."
    )
    sizes: dict[str, Any] = {n: card.examples_of(data, n) for n in ("train", "valid")}
    sizes |= {"all": data["train"] + data["valid"], "test": data["test"]}
    batches, epochs = t("in its cell's batches"), t("for as long as its cell says")
    if len({cell.config.batch_size for cell in cells}) == 1:
        batches = t("in batches of {n}", n=cells[0].config.batch_size)
    if len({cell.config.epochs for cell in cells}) == 1:
        epochs = nt("for {n} epoch", "for {n} epochs", cells[0].config.epochs)
    ways = {"weights": _initial(cells), "batches": batches, "epochs": epochs}
    ways |= {"schedule": _schedule(cells), "things": t(study.things), "data": study.data_name}
    ways["loss"] = _loss(study)
    meaning = marked(
        "Training loss and accuracy are running means over an epoch while the weights change, so "
        "early in training they lag behind validation. Training time covers training and "
        "validation, not the test. A run fails to learn if its {metric} ends {below}, two ninths "
        "of the way from a guess ({guess}) to {best}."
    )
    if study.regression:
        meaning = marked(
            "The training loss is a running mean over an epoch while the weights change, so early "
            "in training it lags behind validation. Training time covers training and validation, "
            "not the test. A run fails to learn if its {metric} ends {below}, a twentieth of the "
            "way from a guess ({guess}) to {best}."
        )
    seeding = _seeding(cells)
    if first := study.file.first:
        seeding += " " + t("The seeds count from {first} on.", first=first)
    tested = study.metric.tested
    below = beyond(tested, tested.gain(tested.learned(data)))
    ends = {"guess": tested.spelled(tested.gain(tested.chance(data)))}
    ends |= {"best": tested.spelled(tested.most)}
    sentences = [t(text, **sizes, **ways), *_training(study), seeding]
    blocks: list[Block] = [" ".join(sentences)]
    blocks += fixed_part(study)
    blocks.append(t(meaning, metric=t(tested.words), below=below, **ends))
    return [Section(title=t("How the networks were trained"), blocks=blocks)]


def _loss(study: StoredGrid) -> str:
    """Says what a training minimizes."""
    if not study.regression:
        return t("cross entropy")
    if any(cell.config.huber for cell in study.file.cells):
        return t("the squared error of the standardized label, or Huber's where a cell has huber,")
    return t("the squared error of the standardized label")


def _initial(cells: Sequence[Cell]) -> str:
    """Says where the initial weights come from."""
    if cells[0].config.model:
        return t("the weights that {model} gives", model=cells[0].config.model)
    if any(cell.config.init != "default" for cell in cells):
        return t("the initial weights of its cell")
    return t("the weights that PyTorch's Linear layers start from")


def _schedule(cells: Sequence[Cell]) -> str:
    """Says how the learning rate changes, as the end of a sentence; empty if it does not."""
    if len({cell.config.schedule for cell in cells}) > 1:
        return t(", by its cell's schedule")
    schedule = cells[0].config.schedule
    if schedule == "constant":
        return ""
    return t(", its learning rate {falling}", falling=t(label(SCHEDULES, schedule)))


def _seeding(cells: Sequence[Cell]) -> str:
    if all(cell.crossed for cell in cells):
        return t(
            "Eight runs make a block: two splits, two initial weights and two batch orders, in all "
            "combinations. Each block draws them anew, alike for every network."
        )
    if all(cell.varies == SOURCES for cell in cells):
        return t(
            "Seed k fixes split, initial weights and batch order alike for every network, so "
            "networks are compared in pairs of seeds."
        )
    return t(
        "Seed k fixes what a cell draws anew (of split, initial weights and batch order) alike for "
        "every network; the rest is drawn from seed 0."
    )


def unsaid(study: StoredGrid) -> list[Section]:
    """Returns the section on what a publication leaves open, if the study file lists it."""
    unsaid = [(entry.what, entry.chosen) for entry in study.file.unsaid]
    rows = [[t(" ".join(text.split())) for text in entry] for entry in unsaid]
    if not rows:
        return []
    table = facts((t("Not said"), t("Chosen here")), rows)
    return [Section(title=t("What the report leaves unsaid"), blocks=[table])]


def run_of_grid(study: StoredGrid) -> list[Section]:
    times = t(
        "Small networks are trained several seeds at a time, beside other trainings; a seed's "
        "training time in the tables is its share."
    )
    if study.timings:
        times += " " + t(
            "Conclusions on times come from {n} rounds of their own: each network alone on the "
            "machine, one seed, one epoch or the beginning of one, scaled to all epochs, in random "
            "order.",
            n=len(study.timings),
        )
    if study.published:
        times += " " + t(
            "Reported times are of another machine and another program, in which loading and "
            "transforming the images takes most of an epoch whatever the network is; here only "
            "arithmetic is left, so a wide network costs many times as much. Neither seconds nor "
            "ratios of times can be compared with the report's."
        )
    more = []
    if set(study.trials["state"]) - {"COMPLETE"}:
        more.append([t("Trials"), grid_states_text(study)])
    if study.file.source:
        more.append([t("Source"), t(" ".join(study.file.source.split()))])
    return [Section(title=t("How it was run"), blocks=[run_table(study, more), times])]


# --- a search -----------------------------------------------------------------------------------


def own_text(study: StoredStudy) -> str:
    """Returns what each seed has of its own, as the end of a sentence."""
    if fixed_part(study):
        return t("its own initial weights and batch order")
    return t("its own split, initial weights and batch order")


def of_search(study: StoredSearch) -> list[Section]:
    data, file = study.data, study.file
    space = [f"{name}: {spelled(domain)}" for name, domain in file.space.items()]
    text = marked(
        "Each trial trains {networks} on {train} {things} of {data} and is judged by {metric} on "
        "{valid} others {when}. All trials share splits, seeds and batch orders. The search "
        "chooses {free}. A trial that diverges (a loss that is not finite, or a "
        "hundred times that of a guess) ends at once, as the worst. No configuration is trained "
        "twice."
    )
    free = sum(not isinstance(domain, Fixed) for domain in file.space.values())
    known = {part: card.examples_of(data, part) for part in ("train", "valid")}
    if file.folds:
        every = data["train"] + data["valid"]
        fold = every // file.folds
        known = {"valid": f"{fold:,}", "train": f"{every - fold:,}"}
    known["test"] = data["test"]
    known |= {"data": study.data_name, "things": t(study.things), "metric": t(study.metric.words)}
    known["networks"] = nt("{n} network", "{n} networks", file.seeds_per_trial)
    validated = _differs(study, "keep") or _differs(study, "patience")
    known["when"] = t("after the epoch that counts") if validated else t("after its last epoch")
    known["own"] = own_text(study)
    known["fresh"] = nt(
        "The {n} finalist is trained again", "The {n} finalists are trained again", file.finalists
    )
    again = marked(
        "{fresh} on {seeds}, each with {own}. Their validation names the winner; the "
        "{test:,} test {things} are used once for each finalist and seed, for the figures above "
        "and for no choice."
    )
    if not data["test"]:
        again = marked(
            "{fresh} on {seeds}, each with {own}. Their validation names the winner; "
            "no {things} were given to test on."
        )
    finalists = t(again, seeds=count(file.finalist_seeds, "fresh seed"), **known)
    if study.reference:
        finalists += f" {_reference(study.reference.config)}"
    blocks: list[Block] = [
        t(text, free=count(free, "hyperparameter"), **known),
        *_also(study),
        *fixed_part(study),
        space,
        finalists,
    ]
    return [Section(title=t("How it was searched"), blocks=blocks)]


def _reference(config: Config) -> str:
    """Says which network tuning is compared with."""
    text = marked(
        "On the same seeds, a reference is trained: {network}. It is no finalist and has no part "
        "in any choice; the search is measured by it."
    )
    extras = config.extras()
    return t(text, network=f"{config.brief} ({extras})" if extras else config.brief)


def _also(study: StoredSearch) -> list[str]:
    """Returns sentences on seeds per trial, limits, and where the search began."""
    file, sentences = study.file, _training(study)
    if file.seeds_per_trial > 1:
        text = marked(
            "A trial's value is the mean over {n} seeds, each with {own}; finalists get others."
        )
        if file.folds:
            text = marked(
                "A trial's value is the mean over {n} folds of the training rows: each fold is "
                "validated on once, by a network trained on the others. Finalists get splits of "
                "their own."
            )
        sentences.append(t(text, n=file.seeds_per_trial, own=own_text(study)))
    if file.first_seed:
        sentences.append(t("The seeds count from {first} on.", first=file.first_seed))
    if file.trial_limit:
        sentences.append(t("A trial may take {time}.", time=limit_text(file.trial_limit)))
    if file.first:
        sentences.append(
            nt(
                "{n} configuration of the study file came first.",
                "{n} configurations of the study file came first.",
                len(file.first),
            )
        )
    if study.like:
        text = marked(
            "The sampler knew {known} of {of} finished trials of study {study} from the start: "
            "those that lie in this space. The best of them was trained here as well."
        )
        sentences.append(t(text, known=study.like["trials"], **study.like))
    return [" ".join(sentences)] if sentences else []


def fixed_part(study: StoredStudy) -> list[str]:
    """Says that all seeds validate on the same rows, where that is so."""
    about = study.data.get("about", {})
    if about.get("time"):
        text = t(
            "Rows are in the order of {column}: the last of them are the test part, and all seeds "
            "validate on the last rows before it.",
            column=quoted(about["time"]),
        )
    elif about.get("valid_file"):
        text = t("All seeds validate on the same rows, those of {file}.", file=about["valid_file"])
    else:
        return []
    return [f"{text} {t('So the intervals do not cover other splits.')}"]


def run_of_search(study: StoredSearch) -> list[Section]:
    blocks: list[Block] = [run_table(study)]
    if study.tested is not None:
        seconds = seconds_of(study.tested.sessions)
        blocks.append(t("The finalists took {time} more.", time=seconds_text(seconds)))
    return [Section(title=t("How it was run"), blocks=blocks)]


# --- both ---------------------------------------------------------------------------------------


def run_table(study: StoredStudy, more: Sequence[list[str]] = ()) -> Table:
    """Returns a row per fact, and then the rows `more`."""
    rows = [*_session_facts(study), [t("Data checksum"), f"SHA-256 {study.data['checksum']}"]]
    if "about" in study.data:  # the user's own files have a data card
        folds = study.file.folds or 0 if isinstance(study.file, SearchStudy) else 0
        rows += [[what, value] for what, value in card.rows(study.data, folds)[:-1]]
        columns = card.columns(study.data)
        rows += [[quoted(name), f"{kind}: {held}"] for name, kind, held in columns[:MOST_COLUMNS]]
        rows += [[t("Note"), text] for text in card.warnings(study.data)]
    return facts((t("What"), t("Value")), [*rows, *more])


def weights_text(study: StoredGrid | StoredSearch) -> str:
    """Says how the classes are weighted in training; empty if they are not."""
    if not study.file.class_weight:
        return ""
    text = marked(
        "In training, rows are weighted by their class ({weights}), and the loss of a batch is "
        "divided by the sum of its weights. All losses shown are without weights."
    )
    weights = study.file.weights_text
    if weights == BALANCED:
        weights = t("balanced: all rows, over the number of classes times the rows of the class")
    return t(text, weights=weights)


def _training(study: StoredGrid | StoredSearch) -> list[str]:
    """Says how classes are weighted, in which precision products are computed, and which epoch
    counts where validation decides that."""
    sentences = [said] if (said := weights_text(study)) else []
    if study.file.halved:
        cells = getattr(study.file, "cells", ())
        names = [c.name for c in cells if (c.precision or study.file.precision) == BFLOAT16]
        text = marked(
            "In training and validation{some}, products of large layers are computed in bfloat16. "
            "Tests, and networks that are saved, are in float32."
        )
        some = t(" of {names}", names=", ".join(names)) if len(names) < len(cells) else ""
        sentences.append(t(text, some=some))
    if _differs(study, "keep"):
        text = marked(
            'Where keep is "best", the network, its validation and its test are those of the epoch '
            "with the best validation, the first of equals; curves show all epochs."
        )
        sentences.append(t(text))
    if _differs(study, "patience"):
        text = marked(
            "Where patience is given, a training ends after so many epochs in a row without a "
            "better validation; in a mean curve it stays at its last epoch."
        )
        sentences.append(t(text))
    return sentences


def _differs(study: StoredGrid | StoredSearch, name: str) -> bool:
    """Whether a hyperparameter may have another value than its default."""
    usual = DEFAULTS[name]
    if isinstance(study, StoredGrid):
        return any(getattr(cell.config, name) != usual for cell in study.file.cells)
    return study.file.space.get(name, Fixed(value=usual)) != Fixed(value=usual)


def other_data(study: StoredGrid | StoredSearch) -> list[str]:
    """Returns a sentence if the study was run on another dataset than its file names."""
    if study.data["name"] == study.file.dataset.short:
        return []
    text = marked(
        "These results are of {data}, not of {asked}, so they cannot be compared with results on "
        "{asked}."
    )
    if isinstance(study, StoredGrid) and any(cell.reported for cell in study.file.cells):
        text = marked(
            "These results are of {data}. What was published is of {asked}, so its numbers are "
            "left out."
        )
    return [t(text, data=study.data_name, asked=study.asked_name)]


def one_line_each(paragraphs: Sequence[str]) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def _session_facts(study: StoredStudy) -> list[list[str]]:
    if not study.sessions:
        return []
    last = study.sessions[-1]
    hardware, versions = last["hardware"], last["versions"]
    machine = f"{hardware['processor']}, {count(hardware['cores'], 'core')}"
    memory = f", {hardware['memory_gib']} GiB" if hardware["memory_gib"] else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    gpus = ", ".join(last.get("gpus", ()))
    device = f"{last['device']} ({gpus})" if gpus else last["device"]
    workers = t("{n} on {device}, one thread each", n=last["workers"], device=device)
    if last.get("machines"):
        workers = t("{n} on {device}", n=last["workers"], device=device)
    facts = [[t("Command"), repeatable(last["command"])], [t("Workers"), workers]]
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
