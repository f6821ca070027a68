"""The study files that can be run and the stored studies, as tables for the terminal."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import TrialState

from hpo.errors import InputError
from hpo.report.blocks.table import NOTHING, Column, Table
from hpo.results.load import file_of
from hpo.results.trial import is_sound
from hpo.storage.bulk_read import finished_counts
from hpo.study.file import SearchStudy, StudyFile, cost_text
from hpo.study.finalists import noun_of
from hpo.study.names import DATASETS, label
from hpo.text import count, printable
from hpo.watch.fitted import Fitted


def study_files(titles: Mapping[str, str]) -> Fitted:
    """Returns a row per study file. titles: by name."""
    columns = [
        Column("name", "name", lambda row: row[0]),
        Column("title", "title", lambda row: row[1], wraps=True),
    ]
    return Fitted(Table(columns=columns, rows=list(titles.items())))


def data_columns(rows: Sequence[tuple[str, str, str]]) -> Fitted:
    """Returns a row per column of the user's own table. rows: see data.card.columns."""
    columns = [
        Column("column", "column", lambda row: printable(row[0])),
        Column("kind", "kind", lambda row: row[1]),
        Column("values", "values", lambda row: printable(row[2]), wraps=True),
    ]
    return Fitted(Table(columns=columns, rows=rows))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A stored study in a line. finished: how many trials or trainings. best: the best one's
    objective. last_run: the day when it began."""

    name: str
    kind: str
    finished: str
    best: str = NOTHING
    dataset: str = NOTHING
    last_run: str = NOTHING


def stored_studies(storage: BaseStorage, running: Callable[[str], bool]) -> Fitted:
    """Returns a row per stored study. Of its trials, only the best is read. running: whether a
    process of this machine runs the study of that name."""
    finished = finished_counts(storage)
    rows = [
        _listed(storage, study, finished.get(study._study_id, 0), running)
        for study in storage.get_all_studies()
    ]
    return Fitted(table_of(rows))


def table_of(rows: Sequence[Listed]) -> Table:
    """Returns the table of stored studies."""
    columns = [
        Column("name", "name", lambda row: row.name),
        Column("kind", "kind", lambda row: row.kind),
        Column("finished", "finished", lambda row: row.finished),
        Column("best", "best", lambda row: row.best, priority=1),
        Column("dataset", "dataset", lambda row: row.dataset, priority=2),
        Column("last_run", "last run", lambda row: row.last_run, priority=3),
    ]
    return Table(columns=columns, rows=rows)


def _listed(
    storage: BaseStorage, study: FrozenStudy, finished: int, running: Callable[[str], bool]
) -> Listed:
    name, attributes = study.study_name, study.user_attrs
    known: dict[str, Any] = {"name": printable(name), "finished": count(finished, noun_of(name))}
    if "study_file" not in attributes:
        return Listed(kind="not of hpo", **known)
    try:
        file = file_of(name, attributes)
    except InputError:  # which `hpo show` explains
        return Listed(kind="damaged", **known)
    kind = "search" if isinstance(file, SearchStudy) else "grid"
    kind = "finalists" if noun_of(name) != "trial" else kind
    known["dataset"] = printable(label(DATASETS, attributes["data"]["name"]))
    known["best"] = _best(storage, study, file)
    for session in attributes.get("sessions", [])[-1:]:
        known["last_run"] = time.strftime("%Y-%m-%d", time.localtime(session["started"]))
        kind += ", running" if "seconds" not in session and running(name) else ""
    return Listed(kind=kind, **known)


def _best(storage: BaseStorage, study: FrozenStudy, file: StudyFile) -> str:
    """Returns the objective's best value in words, with the same trial's second one."""
    if not (second := getattr(file, "second", None)):
        try:
            trial = storage.get_best_trial(study._study_id)
        except ValueError:  # none is COMPLETE
            return NOTHING
        return file.metric.text(trial.values[0]) if is_sound(trial) else NOTHING
    ended = storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
    sound = [trial.values for trial in ended if is_sound(trial)]
    if not sound:
        return NOTHING
    value, cost = max(sound, key=lambda values: (file.metric.gain(values[0]), -values[1]))
    return f"{file.metric.text(value)}, {cost_text(second, cost)}"
