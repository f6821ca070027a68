"""A study as it stands in the storage, as tables: a row a trial, a row an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import pandas as pd
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpo.errors import InputError
from hpo.record import METRICS
from hpo.study_file import FIGURES, Cell, GridStudy, parse

TRIAL_COLUMNS = (
    "number", "state", "cell", "seed", "depth", "width", "activation", "optimizer", "lr",
    "batch_size", "epochs", *METRICS, "test_loss", "test_accuracy", "train_seconds", "diverged",
    "parameters", "stack", "started", "fail_reason",
)  # fmt: skip
NAMES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "kmnist": "KMNIST"}


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """What the storage holds of a study. trials: a row a trial, curves: a row a trial and epoch,
    with the columns that INTERFACE promises for trials.csv and curves.csv."""

    name: str
    file: GridStudy
    seeds: int
    data: dict[str, Any]
    sessions: list[dict[str, Any]]
    trials: pd.DataFrame
    curves: pd.DataFrame

    @property
    def finished(self) -> pd.DataFrame:
        return self.trials[self.trials["state"] == "COMPLETE"]

    def of(self, cell: Cell) -> pd.DataFrame:
        """The cell's finished trials, a row a seed."""
        rows = self.finished[self.finished["cell"] == cell.name]
        return rows.drop_duplicates("seed").sort_values("seed")

    @property
    def data_name(self) -> str:
        return NAMES.get(self.data["name"], str(self.data["name"]))


def load_study(storage: RDBStorage, name: str) -> StoredStudy:
    """The study of that name; InputError, with the names that there are, if it is not stored."""
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        known = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise InputError(f"study {name!r}: is not in the storage; there are: {known}") from error
    attributes = study.user_attrs
    if "study_file" not in attributes:
        raise InputError(f"study {name!r}: was not made by hpo")
    file = parse(attributes["study_file"], name, f"stored study {name}")
    assert isinstance(file, GridStudy)
    trials = study.get_trials(deepcopy=False)
    return StoredStudy(
        name=name,
        file=file,
        seeds=attributes["seeds"],
        data=attributes["data"],
        sessions=attributes.get("sessions", []),
        trials=_trials_frame(trials),
        curves=_curves_frame(trials),
    )


def _trials_frame(trials: Sequence[optuna.trial.FrozenTrial]) -> pd.DataFrame:
    rows = []
    for trial in trials:
        last = {m: values[-1] for m, values in trial.user_attrs.get("curve", {}).items()}
        started = trial.datetime_start.isoformat() if trial.datetime_start else None
        known = {**trial.params, **trial.user_attrs, **last, "started": started}
        rows.append({"number": trial.number, "state": trial.state.name, **known})
    frame = pd.DataFrame(rows).reindex(columns=list(TRIAL_COLUMNS))
    numeric = [*METRICS, *FIGURES]
    frame[numeric] = frame[numeric].astype(float)
    return frame


def _curves_frame(trials: Sequence[optuna.trial.FrozenTrial]) -> pd.DataFrame:
    rows = []
    for trial in trials:
        attributes = trial.user_attrs
        curve = attributes.get("curve")
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not curve:
            continue
        for epoch, values in enumerate(zip(*(curve[m] for m in METRICS), strict=True), 1):
            key = (trial.number, attributes.get("cell"), attributes.get("seed"), epoch)
            rows.append((*key, *values))
    frame = pd.DataFrame(rows, columns=["number", "cell", "seed", "epoch", *METRICS])
    frame[list(METRICS)] = frame[list(METRICS)].astype(float)
    return frame
