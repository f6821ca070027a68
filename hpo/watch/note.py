"""The note of a study in optuna-dashboard: what the study is, and its results."""

import hashlib
import importlib
from functools import cache
from importlib import util
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from hpo.results.load import load_study
from hpo.results.study import StoredGrid, StoredSearch
from hpo.runs.plan import Watcher
from hpo.runs.progress import Progress
from hpo.study.file import SECOND
from hpo.study.names import PRUNERS, SAMPLERS, label
from hpo.study.space import spelled
from hpo.text import count, limit_text

# The report's modules are imported in functions, once the workers train: matplotlib takes a while.

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


def _budget(study: StoredGrid | StoredSearch) -> list[tuple[str, str]]:
    if isinstance(study, StoredGrid):
        cells = [f"{cell.name} ({cell.config.brief})" for cell in study.file.cells]
        trials = count(len(cells) * study.seeds, "trial")
        seeds = count(study.seeds, "seed")
        budget = f"{trials}: {count(len(cells), 'cell')}, {seeds} each"
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
