"""The notes in optuna-dashboard: of a study, what it is and its results; of a trial, what it is,
its curve, and why it ended."""

import hashlib
import importlib
from collections.abc import Sequence
from functools import cache
from importlib import util
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.results import trial as record
from hpo.results.load import load_study
from hpo.results.study import StoredGrid, StoredSearch
from hpo.runs.plan import Watcher
from hpo.runs.progress import Progress
from hpo.storage.bulk_read import FINISHED
from hpo.storage.bulk_write import add_system_attributes
from hpo.study.file import SECOND
from hpo.study.finalists import noun_of
from hpo.study.metrics import ACCURACY, RMSE, Metric
from hpo.study.names import PRUNERS, SAMPLERS, label
from hpo.study.space import spelled
from hpo.text import count, limit_text

# The report's modules are imported in functions, once the workers train: matplotlib takes a while.

# The dashboard compares each trial with all notes: with this many a study opens in a second.
MOST_NOTED = 1_000
MOST_EPOCHS = 10  # of a curve in a note
NOTHING = "–"
WRITTEN = "note"  # attribute of the study: the digest of the note that hpo wrote last


class Notes(Watcher):
    """Writes the notes of the studies of a run. A note that a person wrote or changed stays."""

    def __init__(self, storage: BaseStorage, command: str) -> None:
        self.storage = storage
        self.command = command

    def on_start(self, study: optuna.Study | None, progress: Progress) -> None:
        if study:
            stored = load_study(self.storage, study.study_name)
            self._write(study, markdown(stored, self.command, None, ended=False))

    def on_report(self, stored: StoredGrid | StoredSearch, report: Path | None) -> None:
        """Adds the results and the report's path to the note of a study and of its finalists."""
        for part in stored.parts:
            optuna_study = optuna.load_study(study_name=part.name, storage=self.storage)
            self._write(optuna_study, markdown(part, self.command, report, ended=True))
            self._write_trials(optuna_study, part)

    def _write_trials(self, optuna_study: optuna.Study, stored: StoredGrid | StoredSearch) -> None:
        """Writes notes of the best trials that have none, all at once."""
        library, study = _library(), optuna_study._study_id
        if not hasattr(library, "split_body"):
            return  # another version of it
        known = self.storage.get_study_system_attrs(study)
        found: dict[str, object] = {}
        for trial in noted(stored):
            if (version := library.note_ver_key(trial._trial_id)) not in known:
                text = trial_markdown(stored, trial)
                found |= {version: 1, **library.split_body(text, trial._trial_id)}
        add_system_attributes(self.storage, study, found)

    def _write(self, optuna_study: optuna.Study, text: str) -> None:
        library = _library()
        before = library.get_note(optuna_study)
        if not before or optuna_study.user_attrs.get(WRITTEN) == _digest(before):
            library.save_note(optuna_study, text)
            optuna_study.set_user_attr(WRITTEN, _digest(text))


@cache
def _library() -> Any:
    """Returns optuna-dashboard's module of notes. It is imported without the package around it,
    which imports scikit-learn and takes as long as torch."""
    package = util.find_spec("optuna_dashboard")
    folders = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("optuna_dashboard._note", folders)
    if spec is None or spec.loader is None:
        return importlib.import_module("optuna_dashboard")  # another version of it
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def markdown(
    study: StoredGrid | StoredSearch, command: str, report: Path | None, *, ended: bool
) -> str:
    """Returns the note. ended: whether the run is over; then the note has the main table. report:
    the report's path, None if it could not be written."""
    from hpo.report.blocks import page
    from hpo.report.blocks.search_tables import gain_sentence, winner_sentence
    from hpo.report.sections.protocol import one_line_each, repeatable

    train, valid, test = (f"{study.data[part]:,}" for part in ("train", "valid", "test"))
    sizes = f"{train} {study.things} to train on, {valid} to validate on, {test} to test on"
    data = ("Data", f"{study.data_name}: {sizes}")
    facts = [data, *_budget(study), ("Command", repeatable(command))]
    facts += [("Report", str(report.absolute()))] if report else []
    lead = [study.file.text] if study.file.text else []
    table = None
    if ended:  # these import matplotlib
        from hpo.report.sections import finalists, glance

        if isinstance(study, StoredGrid):
            table = glance.main_table(study)
        else:
            lead += filter(None, (winner_sentence(study), gain_sentence(study)))
            table = finalists.main_table(study) if study.tested else None
    title, lead = study.file.title, one_line_each(lead)
    return page.render("note.md.j2", title, lead, facts=facts, block=table)


# --- a trial -----------------------------------------------------------------------------------


def noted(study: StoredGrid | StoredSearch) -> Sequence[FrozenTrial]:
    """Returns the trials that have notes: MOST_NOTED finished ones, the best first."""
    ended = [trial for trial in study.frozen if trial.state in FINISHED]
    if isinstance(study, StoredGrid):  # earlier finalists may have been replaced
        names = {cell.name for cell in study.file.cells}
        ended = [trial for trial in ended if trial.user_attrs["cell"] in names]
    best = record.ranked(ended, study.metric)
    others = {trial.number: trial for trial in ended}
    for trial in best:
        del others[trial.number]
    return [*best, *others.values()][:MOST_NOTED]


def trial_markdown(study: StoredGrid | StoredSearch, trial: FrozenTrial) -> str:
    """Returns a finished trial's note."""
    from hpo.report.blocks.page import markdown as escaped

    if isinstance(study, StoredGrid):
        cell = study.cell(trial.user_attrs["cell"])
        title, config = f"{cell.label}, seed {trial.user_attrs['seed']}", cell.config
    else:
        title, config = f"Trial {trial.number}", study.config(trial.number)
    network = ", ".join(filter(None, (config.brief, config.extras())))
    ended = _end(study, trial, config.epochs)
    return f"**{escaped(title)}**: {escaped(network)}\n\n{ended}\n\n{_curve_table(study, trial)}\n"


def _end(study: StoredGrid | StoredSearch, trial: FrozenTrial, epochs: int) -> str:
    """Says why a trial ended, and with what. epochs: of a complete training."""
    attributes, reached = trial.user_attrs, study.metric.text(trial.values[0])
    last = f"epoch {len(attributes['curve']['train_loss'])} of {epochs}"
    if attributes["diverged"]:
        return f"Diverged in {last}: a loss is not finite, or a hundred times that of a guess."
    if attributes.get("over_limit"):
        return f"Stopped at its time limit after {last}: {reached}."
    if trial.state is TrialState.PRUNED:
        rule = f" by {label(PRUNERS, study.file.pruner)}" if isinstance(study, StoredSearch) else ""
        return f"Pruned{rule} after {last}: {reached}."
    kept, seeds = attributes.get("kept", {}).get("epoch"), attributes.get("seeds", 1)
    which = f" (that of epoch {kept:g})" if kept else ""
    which = f" (mean over {seeds} seeds)" if seeds > 1 else which
    return f"Ended after {last}: {reached}{which}."


def _curve_table(study: StoredGrid | StoredSearch, trial: FrozenTrial) -> str:
    """Returns the curve as a table of at most MOST_EPOCHS rows."""
    curve = trial.user_attrs["curve"]
    compared = RMSE if study.regression else ACCURACY
    names = dict.fromkeys(["train_loss", "valid_loss", compared, study.metric.name])
    metrics = [study.named(name) for name in names if name in curve]
    length = len(curve["train_loss"])
    places = sorted({round(i * (length - 1) / (MOST_EPOCHS - 1)) for i in range(MOST_EPOCHS)})
    rows = [
        [str(place + 1), *(_number(metric, curve[metric.name][place]) for metric in metrics)]
        for place in places
    ]
    header = ["Epoch", *(metric.header for metric in metrics)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---:"] * len(header), *rows))


def _number(metric: Metric, value: float | None) -> str:
    return NOTHING if value is None else metric.number(metric.gain(value))


# --- a study -----------------------------------------------------------------------------------


def _budget(study: StoredGrid | StoredSearch) -> list[tuple[str, str]]:
    if isinstance(study, StoredGrid):
        cells = [f"{cell.name} ({cell.config.brief})" for cell in study.file.cells]
        trainings = count(len(cells) * study.seeds, noun_of(study.name))
        seeds = count(study.seeds, "seed")
        budget = f"{trainings}: {count(len(cells), 'cell')}, {seeds} each"
        return [("Budget", budget), ("Cells", "; ".join(cells))]
    file = study.file
    chosen = f"chosen by {label(SAMPLERS, file.sampler)}, with {label(PRUNERS, file.pruner)}"
    tested = f"the best {file.finalists}"
    if study.second:
        front = f"the Pareto front of {study.metric.words} and {SECOND[study.second]}"
        tested = f"{file.finalists} finalists, spread over {front},"
    tested += f" again on {count(file.finalist_seeds, 'fresh seed')} each"
    limit = f" of at most {limit_text(file.trial_limit)} each" if file.trial_limit else ""
    limit += "" if study.timeout is None else f" or {limit_text(study.timeout)} of searching"
    return [
        ("Objective", study.metric.words),
        *([("Class weights", file.weights_text)] if file.class_weight else []),
        ("Budget", f"{count(study.n_trials, 'trial')}{limit}, {chosen}; then {tested}"),
        ("Space", "; ".join(f"{name}: {spelled(d)}" for name, d in file.space.items())),
    ]
