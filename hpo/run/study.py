"""A run's study in the storage: made, bound to its study file, cleaned up."""

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import Trial, TrialState

from hpo.data.datasets import Dataset, check, split
from hpo.errors import InputError
from hpo.storage import trial as record
from hpo.study.config import SOURCES
from hpo.study.file import SearchStudy, StudyFile
from hpo.study.space import spelled


def binding(study_file: StudyFile, dataset: Dataset) -> dict[str, Any]:
    """What a stored study is bound to: all that its results depend on, budget and seeds aside."""
    if isinstance(study_file, SearchStudy):
        chosen = {f"space.{name}": spelled(domain) for name, domain in study_file.space.items()}
        chosen |= {"sampler": study_file.sampler, "pruner": study_file.pruner}
    else:
        chosen = {
            f"cells.{cell.name}.{key}": value
            for cell in study_file.cells
            for key, value in cell.config.as_dict().items()
            if (key, value) != ("schedule", "constant")  # older studies knew no other
        }
        chosen |= {
            f"cells.{cell.name}.varies": ", ".join(cell.varies)
            for cell in study_file.cells
            if cell.varies != SOURCES
        }
    return {
        "dataset": dataset.name,
        "dataset checksum": dataset.checksum,
        "split": f"{len(dataset.train_labels)} training images, 8:2 by seed",
        **chosen,
    }


def describe(dataset: Dataset) -> dict[str, Any]:
    """The dataset in numbers, for the report."""
    train_rows, valid_rows = split(dataset, 0)
    return {
        "name": dataset.name,
        "features": dataset.train_images.shape[1],
        "checksum": dataset.checksum,
        "train": len(train_rows),
        "valid": len(valid_rows),
        "test": len(dataset.test_labels),
    }


def open_study(
    storage: BaseStorage,
    study_file: StudyFile,
    dataset: Dataset,
    name: str,
    bound: Mapping[str, Any],
) -> optuna.Study:
    """The stored study of that name, made if it is not there.

    Raises InputError, a line a difference, where a stored one is bound to other things, and for a
    dataset that nothing can be trained on.
    """
    check(dataset)
    bound = dict(bound)
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )
    stored = study.user_attrs.get("binding")
    if stored is None and study.get_trials(deepcopy=False):
        raise InputError(f"study {name!r}: was not made by hpo; give --name another one")
    if stored is not None and stored != bound:
        raise InputError("\n".join(_differences(name, stored, bound)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["validation accuracy"])
    study.set_user_attr("binding", bound)
    study.set_user_attr("kind", "search" if isinstance(study_file, SearchStudy) else "grid")
    study.set_user_attr("data", describe(dataset))
    study.set_user_attr("study_file", dict(study_file.raw))
    return study


def _differences(name: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in dict.fromkeys([*stored, *given]):
        if stored.get(key) != given.get(key):
            was, is_now = stored.get(key, "nothing"), given.get(key, "nothing")
            lines.append(f"study {name!r}: {key}: stored with {was!r}, now {is_now!r}")
    lines[-1] += "; give --name for a new study, or --fresh to delete the stored one"
    return lines


def clean_up(study: optuna.Study) -> None:
    """Fails what a killed run left RUNNING: only a runner writes here, and this one just began."""
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        handle = Trial(study, trial._trial_id)
        handle.set_user_attr("fail_reason", record.KILLED)
        study.tell(handle, state=TrialState.FAIL)
