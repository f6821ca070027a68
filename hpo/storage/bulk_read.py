"""A study's trials out of a database by plain selects: in a fraction of the time that Optuna's
objects a row take, which is what one waits for with thousands of trials."""

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial

from hpo.storage.retry import RetryingStorage


def all_trials(study: optuna.Study, storage: BaseStorage) -> list[FrozenTrial]:
    """The study's trials as study.get_trials gives them; not to be changed."""
    if isinstance(storage, RetryingStorage):
        behind = storage.backend
        return storage.retry(lambda _: all_trials(study, behind))
    if isinstance(storage, _CachedStorage):
        storage = storage._backend
    if not isinstance(storage, RDBStorage):
        return study.get_trials(deepcopy=False)
    with storage.engine.connect() as connection:
        return _select_all(connection, study._study_id)


def _select_all(connection: sqlalchemy.Connection, study: int) -> list[FrozenTrial]:
    trial = models.TrialModel
    times = (trial._datetime_start_utc, trial._datetime_complete_utc)
    query: Any = sqlalchemy.select(trial.trial_id, trial.number, trial.state, *times)
    trials = connection.execute(query.where(trial.study_id == study).order_by(trial.trial_id)).all()

    def parts(model: Any, *columns: Any) -> dict[int, list[Any]]:
        """{trial: its rows}, in the order in which they were written."""
        query: Any = sqlalchemy.select(model.trial_id, *columns)
        query = query.join(trial, trial.trial_id == model.trial_id)
        order = sqlalchemy.inspect(model).primary_key[0]
        found = defaultdict(list)
        for key, *row in connection.execute(query.where(trial.study_id == study).order_by(order)):
            found[key].append(row)
        return found

    value, step = models.TrialValueModel, models.TrialIntermediateValueModel
    values = parts(value, value.objective, value.value, value.value_type)
    steps = parts(step, step.step, step.intermediate_value, step.intermediate_value_type)
    params = parts(
        models.TrialParamModel,
        models.TrialParamModel.param_name,
        models.TrialParamModel.param_value,
        models.TrialParamModel.distribution_json,
    )
    user, system = (
        parts(model, model.key, model.value_json)
        for model in (models.TrialUserAttributeModel, models.TrialSystemAttributeModel)
    )
    distribution = cache(json_to_distribution)  # few are told apart
    return [
        FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=_values(values[key], value.stored_repr_to_value),
            datetime_start=_local(start),
            datetime_complete=_local(complete),
            params={n: distribution(d).to_external_repr(v) for n, v, d in params[key]},
            distributions={n: distribution(d) for n, _, d in params[key]},
            user_attrs={name: json.loads(text) for name, text in user[key]},
            system_attrs={name: json.loads(text) for name, text in system[key]},
            intermediate_values={
                number: step.stored_repr_to_intermediate_value(v, kind)
                for number, v, kind in steps[key]
            },
            trial_id=key,
        )
        for key, number, state, start, complete in trials
    ]


def _local(time: datetime | None) -> datetime | None:
    """Stored without a zone in UTC, told without a zone in local time, as Optuna does."""
    return time and time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _values(rows: list[Any], stored: Callable[[Any, Any], float]) -> list[float] | None:
    return [stored(value, kind) for _, value, kind in sorted(rows, key=lambda r: r[0])] or None
