"""Reads all trials of a study from a database by a few selects, five times as fast as Optuna.

Uses Optuna's private models of Optuna 5.0. Where another version has others, Optuna reads the
trials.
"""

import json
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache, partial
from itertools import chain
from typing import Any

import optuna
import sqlalchemy.orm
from optuna.distributions import json_to_distribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.storage.open import database_of
from hpo.storage.retry import RetryingStorage

# What the use of models that differ raises.
DIFFERENT = (ImportError, AttributeError, TypeError, KeyError, sqlalchemy.exc.ArgumentError)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
Rows = dict[int, list[Any]]  # {trial id: rows of a table}


def all_trials(study: optuna.Study, storage: BaseStorage) -> list[FrozenTrial]:
    """Returns the study's trials as study.get_trials does; do not change them."""
    if isinstance(storage, RetryingStorage):
        backend = storage.backend
        trials: list[FrozenTrial] = storage.retry(lambda _: all_trials(study, backend))
        return trials
    if database := database_of(storage):
        try:
            with database.engine.connect() as connection:
                return _select_all(connection, study._study_id)
        except DIFFERENT:
            pass
    return study.get_trials(deepcopy=False)


def _select_all(connection: sqlalchemy.Connection, study: int) -> list[FrozenTrial]:
    from optuna.storages._rdb import models

    trial = models.TrialModel
    times = (trial._datetime_start_utc, trial._datetime_complete_utc)
    query: Any = sqlalchemy.select(trial.trial_id, trial.number, trial.state, *times)
    trials = connection.execute(query.where(trial.study_id == study).order_by(trial.trial_id)).all()
    read = partial(_rows, connection, trial, study)
    values = read(models.TrialValueModel, "objective", "value", "value_type")
    step_columns = ("step", "intermediate_value", "intermediate_value_type")
    steps = read(models.TrialIntermediateValueModel, *step_columns)
    params = read(models.TrialParamModel, "param_name", "param_value", "distribution_json")
    user = read(models.TrialUserAttributeModel, "key", "value_json")
    system = read(models.TrialSystemAttributeModel, "key", "value_json")
    to_value = models.TrialValueModel.stored_repr_to_value
    to_step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    distribution = cache(json_to_distribution)
    return [
        FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[to_value(v, kind) for _, v, kind in sorted(values[key])] or None,
            datetime_start=_local(start),
            datetime_complete=_local(complete),
            params={n: distribution(d).to_external_repr(v) for n, v, d in params[key]},
            distributions={n: distribution(d) for n, _, d in params[key]},
            user_attrs={name: json.loads(text) for name, text in user[key]},
            system_attrs={name: json.loads(text) for name, text in system[key]},
            intermediate_values={step: to_step(v, kind) for step, v, kind in steps[key]},
            trial_id=key,
        )
        for key, number, state, start, complete in trials
    ]


def finished_counts(storage: BaseStorage) -> dict[int, int]:
    """Returns {study id: its COMPLETE and PRUNED trials}; reads no trial of a database."""
    if database := database_of(storage):
        try:
            with database.engine.connect() as connection:
                return _count_finished(connection)
        except DIFFERENT:
            pass
    ids = [study._study_id for study in storage.get_all_studies()]
    return {i: len(storage.get_all_trials(i, deepcopy=False, states=FINISHED)) for i in ids}


def _count_finished(connection: sqlalchemy.Connection) -> dict[int, int]:
    from optuna.storages._rdb import models

    trial = models.TrialModel
    query: Any = sqlalchemy.select(trial.study_id, sqlalchemy.func.count())
    query = query.where(trial.state.in_(FINISHED)).group_by(trial.study_id)
    return dict(connection.execute(query).all())


def _rows(
    connection: sqlalchemy.Connection, trial: Any, study: int, model: Any, *columns: str
) -> Rows:
    """Reads a table's rows of the study's trials in the order in which they were written."""
    chosen = [getattr(model, column) for column in columns]
    query: Any = sqlalchemy.select(model.trial_id, *chosen)
    query = query.join(trial, trial.trial_id == model.trial_id).where(trial.study_id == study)
    rows: Rows = defaultdict(list)
    for key, *row in connection.execute(query.order_by(sqlalchemy.inspect(model).primary_key[0])):
        rows[key].append(row)
    return rows


def unreadable(storage: BaseStorage, name: str) -> str:
    """Returns which attribute of which study cannot be read, as text; only the study's name if the
    storage is no database."""
    if database := database_of(storage):
        from optuna.storages._rdb import models

        kinds: Any = (
            models.StudyUserAttributeModel, models.StudySystemAttributeModel,
            models.TrialUserAttributeModel, models.TrialSystemAttributeModel,
        )  # fmt: skip
        with sqlalchemy.orm.Session(database.engine) as session:
            for stored in chain.from_iterable(map(session.query, kinds)):
                try:
                    json.loads(stored.value_json)
                except (RecursionError, ValueError):
                    trial = getattr(stored, "trial", None)
                    where = f"trial {trial.number}, " if trial else ""
                    study = (trial or stored).study.study_name
                    return f"study {study!r}: {where}attribute {stored.key}"
    return f"study {name!r}: an attribute"


def _local(time: datetime | None) -> datetime | None:
    """Converts UTC without a zone, as stored, to local time without a zone, as Optuna does."""
    return time and time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
