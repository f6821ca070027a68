"""The trials of a stored study as runs of MLflow and TensorBoard; a second export adds what is new.

A run is written once its trial has ended: trials that run are left for the next export.
"""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from hpo.errors import InputError
from hpo.storage.results import StoredGrid, StoredSearch
from hpo.study.metrics import METRICS
from hpo.study.space import completed

FINAL = ("test_loss", "test_accuracy", "test_balanced_accuracy", "train_seconds", "parameters")
NUMBER = "hpo.trial"  # tag of a run in MLflow: the trial's number


@dataclass(frozen=True, kw_only=True)
class Run:
    """An ended trial: its name, hyperparameters, curves by metric, last figures and facts."""

    number: int
    name: str
    params: Mapping[str, Any]
    curves: Mapping[str, list[float | None]]
    figures: Mapping[str, float]
    facts: Mapping[str, str]


def runs(study: StoredGrid | StoredSearch) -> Iterator[Run]:
    """Yields the trials that have ended with a curve."""
    for trial in study.frozen:
        if trial.state.is_finished() and "curve" in trial.user_attrs:
            yield _run(study, trial)


def _run(study: StoredGrid | StoredSearch, trial: FrozenTrial) -> Run:
    known = trial.user_attrs
    params: Mapping[str, Any] = trial.params
    if isinstance(study, StoredSearch):
        params = completed(study.file.space, trial.params)
    name = f"trial-{trial.number}"
    if "cell" in known:
        name = f"{known['cell']}-seed-{known['seed']}"
    kept = [key for key in ("cell", "seed", "diverged") if key in known]
    facts: dict[str, str] = {key: str(known[key]) for key in kept}
    return Run(
        number=trial.number,
        name=name,
        params=params,
        curves={metric: known["curve"].get(metric, []) for metric in METRICS},
        figures={key: known[key] for key in FINAL if known.get(key) is not None},
        facts={"state": trial.state.name, "study": study.name, **facts},
    )


# --- TensorBoard -------------------------------------------------------------------------------


def to_tensorboard(study: StoredGrid | StoredSearch, folder: Path) -> list[Path]:
    """Writes a folder of event files per trial, unless it is there, with its curves and its
    hyperparameters. Raises InputError if tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--to tensorboard: needs tensorboard: pip install 'hpo-studies[tensorboard]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs(study):
        target, beside = folder / run.name, folder / f".{run.name}"
        if target.exists():
            continue
        shutil.rmtree(beside, ignore_errors=True)  # a killed export left it
        with SummaryWriter(str(beside)) as writer:
            for metric, values in run.curves.items():
                for epoch, value in enumerate(values, 1):
                    if value is not None:
                        writer.add_scalar(metric.replace("_", "/", 1), value, epoch)
            final = {f"final/{name}": value for name, value in run.figures.items()}
            writer.add_hparams(dict(run.params), final, run_name=".")
        beside.rename(target)
    return [folder]


# --- MLflow ------------------------------------------------------------------------------------


def to_mlflow(study: StoredGrid | StoredSearch, folder: Path) -> list[Path]:
    """Writes a run per trial to the experiment of the study's name, unless it is there.

    The tracking server is MLFLOW_TRACKING_URI, or a SQLite file in `folder`. Raises InputError if
    MLflow is not installed, or if the server cannot be reached.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError("--to mlflow: needs mlflow: pip install 'hpo-studies[mlflow]'") from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    try:
        _log(mlflow.MlflowClient(tracking_uri=uri), study, folder)
    except MlflowException as error:
        said = " ".join(str(error).split())
        raise InputError(f"--to mlflow: {said}") from error
    return [folder]


def _log(client: Any, study: StoredGrid | StoredSearch, folder: Path) -> None:
    from mlflow.entities import Metric, Param, RunTag

    experiment = client.get_experiment_by_name(study.name)
    if experiment is None:
        artifacts = (folder / "artifacts").absolute().as_uri()
        key = client.create_experiment(study.name, artifact_location=artifacts)
    else:
        key = experiment.experiment_id
    there = {run.data.tags.get(NUMBER) for run in _complete_runs(client, key)}
    for run in runs(study):
        if str(run.number) in there:
            continue
        own = client.create_run(key, run_name=run.name).info.run_id
        metrics = [
            Metric(metric, value, 0, epoch)
            for metric, values in run.curves.items()
            for epoch, value in enumerate(values, 1)
            if value is not None and math.isfinite(value)
        ]
        metrics += [Metric(name, float(value), 0, 0) for name, value in run.figures.items()]
        params = [Param(name, str(value)) for name, value in run.params.items()]
        tags = [RunTag(f"hpo.{name}", value) for name, value in run.facts.items()]
        client.log_batch(own, metrics, params, tags)
        client.set_terminated(own)
        client.set_tag(own, NUMBER, str(run.number))  # last: a killed export leaves none


def _complete_runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
