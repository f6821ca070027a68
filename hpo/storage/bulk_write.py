"""Adds many attributes to a study at once: Optuna takes a transaction for each.

Uses private parts of Optuna 5.0. Where another version has others, Optuna adds them one by one.
"""

import json
from collections.abc import Mapping

import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage

from hpo.storage.bulk_read import DIFFERENT
from hpo.storage.open import database_of
from hpo.storage.retry import RetryingStorage


def add_system_attributes(
    storage: BaseStorage, study: int, attributes: Mapping[str, object]
) -> None:
    """Adds those of the attributes that the study (its id) does not have: in one transaction of a
    database, in one write to a journal."""
    if isinstance(storage, RetryingStorage):
        backend = storage.backend
        storage.retry(lambda _: add_system_attributes(backend, study, attributes))
        return
    known = storage.get_study_system_attrs(study)
    new = {key: value for key, value in attributes.items() if key not in known}
    if not new:
        return
    try:
        if database := database_of(storage):
            _insert(database.engine, study, new)
            return
        if isinstance(storage, JournalStorage):
            _append(storage, study, new)
            return
    except (*DIFFERENT, sqlalchemy.exc.IntegrityError):  # the last: somebody else added one
        pass
    for key, value in new.items():
        storage.set_study_system_attr(study, key, value)  # type: ignore[arg-type]


def _insert(engine: sqlalchemy.Engine, study: int, attributes: Mapping[str, object]) -> None:
    from optuna.storages._rdb.models import StudySystemAttributeModel

    rows = [
        {"study_id": study, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]
    with engine.begin() as connection:
        connection.execute(sqlalchemy.insert(StudySystemAttributeModel), rows)


def _append(storage: JournalStorage, study: int, attributes: Mapping[str, object]) -> None:
    from optuna.storages.journal._storage import JournalOperation

    log = {
        "op_code": JournalOperation.SET_STUDY_SYSTEM_ATTR,
        "worker_id": storage._replay_result.worker_id,
        "study_id": study,
    }
    logs = [{**log, "system_attr": {key: value}} for key, value in attributes.items()]
    with storage._thread_lock:
        storage._backend.append_logs(logs)
        storage._sync_with_backend()
