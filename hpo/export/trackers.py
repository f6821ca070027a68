"""The trials of a stored study as runs of MLflow and TensorBoard; a second export adds what is new.

A run is written once its trial has ended: trials that run are left for the next export. Each run
carries the token of its study, so that runs of a deleted study of that name are recognised.
"""

import logging
import math
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from hpo.analysis.statistics import estimate
from hpo.errors import InputError
from hpo.passwords import remove_passwords, without_password
from hpo.process import replacing
from hpo.results.study import StoredGrid, StoredSearch
from hpo.study.columns import METRICS, SCORES, TESTED
from hpo.study.config import Config
from hpo.text import shortened

FINAL = ("test_loss", "test_accuracy", *TESTED, "train_seconds", "parameters")
TOKEN, NUMBER = "hpo.token", "hpo.trial"  # tags of a run in MLflow: the study's, the trial's number
OLD_RUN = re.compile(r"trial-\d+|.+-seed-\d+")  # a folder of TensorBoard that has no token
STUDY = "hpo.study"  # a tag that earlier versions set, too
CELL, SEED = "hpo.cell", "hpo.seed"  # of a grid; the run of a cell has no seed
PARENT = "mlflow.parentRunId"  # MLflow shows a run below this one
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}  # of a run in MLflow
BATCH, MOST_RUNS = 1000, 50_000  # how many metrics MLflow takes at once, and how many runs it gives
# For a tracking server that does not answer. MLflow's own values wait for minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """An ended trial."""

    number: int
    name: str
    started: float  # seconds since 1970
    ended: float
    params: Mapping[str, Any]  # the hyperparameters with the defaults
    curves: Mapping[str, list[float | None]]  # by metric
    kept: Mapping[str, float]  # by metric, of the epoch that counts, where it is not the last
    results: Mapping[str, float]  # of the end, see FINAL
    facts: Mapping[str, str]


def runs(study: StoredGrid | StoredSearch) -> Iterator[Run]:
    """Yields the trials that have ended. Leaves out what kills of earlier versions left incomplete:
    today `parameters` is stored together with all that is known at a trial's start."""
    for trial in study.frozen:
        known, name = trial.user_attrs, f"trial-{trial.number}"
        if not trial.state.is_finished() or not {"curve", "parameters"} & set(known):
            continue
        if isinstance(study, StoredSearch):
            config = study.config(trial.number)
        else:
            config = study.cell(known["cell"]).config
            name = f"{known['cell']}-seed-{known['seed']}"
        curve = known.get("curve", {})
        names = [*METRICS, *(name for name in SCORES if name in curve)]
        facts = [key for key in ("cell", "seed", "diverged", "fail_reason") if key in known]
        times = (trial.datetime_start, trial.datetime_complete)
        started, ended = (when.timestamp() for when in times if when)
        yield Run(
            number=trial.number,
            name=name,
            started=started,
            ended=ended,
            params=set_values(config),
            curves={name: curve.get(name, []) for name in names},
            kept={
                key: value
                for key, value in known.get("kept", {}).items()
                if key in curve and value is not None
            },
            results={key: known[key] for key in FINAL if known.get(key) is not None},
            facts={"state": trial.state.name, "study": study.name}
            | {key: str(known[key]) for key in facts},
        )


def set_values(config: Config) -> dict[str, Any]:
    """Returns the hyperparameters with the defaults, without empty texts."""
    return {key: value for key, value in config.as_dict().items() if value != ""}


def token_of(study: StoredGrid | StoredSearch) -> str:
    """Returns what tells the study from another one of its name. Studies of earlier versions have
    no token; the start of their first trial stands for it."""
    return study.token or next((str(trial.datetime_start) for trial in study.frozen), "")


# --- TensorBoard -------------------------------------------------------------------------------


def to_tensorboard(study: StoredGrid | StoredSearch, folder: Path) -> Sequence[Path | str]:
    """Writes a folder of event files per trial with a curve, unless it is there, with its curves
    and its hyperparameters. Removes those of another study of this name.

    Raises InputError if tensorboard is not installed, and OSError.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--to tensorboard: needs tensorboard: pip install 'hpo-studies[tensorboard]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for old in [path for path in folder.iterdir() if path.is_dir()]:
        if (old / TOKEN).exists():
            another = (old / TOKEN).read_text(encoding="utf-8") != token_of(study)
        else:  # a run that an older hpo exported
            found = [path.name.startswith("events.out.") for path in old.iterdir()]
            another = bool(OLD_RUN.fullmatch(old.name) and found) and all(found)
        if another:
            shutil.rmtree(old)
    for run in runs(study):
        target, scratch = folder / run.name, folder / f".{run.name}"
        if target.exists() or not any(run.curves.values()):
            continue
        shutil.rmtree(scratch, ignore_errors=True)  # a killed export left it
        # TensorBoard's thread prints a trace of an error that is raised here as well.
        with redirect_stderr(StringIO()), SummaryWriter(str(scratch)) as writer:
            for metric, values in run.curves.items():
                for epoch, value in enumerate(values, 1):
                    at = run.started + (run.ended - run.started) * epoch / len(values)
                    if value is not None:
                        writer.add_scalar(metric.replace("_", "/", 1), value, epoch, at)
            ends = {name: values[-1] for name, values in run.curves.items() if values}
            last = {**ends, **run.kept, **run.results}
            final = {f"final/{name}": v for name, v in last.items() if v is not None}
            writer.add_hparams(dict(run.params), final, run_name=".")
        (scratch / TOKEN).write_text(token_of(study), encoding="utf-8")
        scratch.rename(target)
    return [folder]


# --- MLflow ------------------------------------------------------------------------------------


def to_mlflow(study: StoredGrid | StoredSearch, folder: Path) -> Sequence[Path | str]:
    """Writes a run per trial to the experiment of the study's name, unless it is there; of a grid
    below a run per cell, which has the mean over the seeds and its 95% interval.

    The tracking server is MLFLOW_TRACKING_URI, or a SQLite file in `folder`. In the file, runs of
    another study of this name are deleted. Raises InputError if MLflow is not installed, if the
    server cannot be reached, or has runs of another study of this name; and OSError.
    """
    for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", **PATIENCE}.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError("--to mlflow: needs mlflow: pip install 'hpo-studies[mlflow]'") from error
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server, file = os.environ.get("MLFLOW_TRACKING_URI", ""), folder / "mlflow.db"
    try:
        _log(mlflow.MlflowClient(tracking_uri=server or _database(file)), study, folder)
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        said = remove_passwords(" ".join(str(error).split()), server)
        place = without_password(server) or file
        raise InputError(f"--to mlflow: {place}: cannot be used: {shortened(said)}") from error
    return [without_password(server) or folder]


def _database(file: Path) -> str:
    """Returns the URI of MLflow's SQLite file, which is there with all its tables or not at all.
    Raises sqlite3.Error for another file."""
    import mlflow

    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        with replacing(file) as empty:
            mlflow.MlflowClient(tracking_uri=f"sqlite:///{empty.absolute()}").search_experiments()
    with closing(sqlite3.connect(file)) as connection:  # MLflow itself would try for an hour
        connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return f"sqlite:///{file.absolute()}"


def _log(client: Any, study: StoredGrid | StoredSearch, folder: Path) -> None:
    experiment, token = client.get_experiment_by_name(study.name), token_of(study)
    if experiment is None:
        artifacts = (folder / "artifacts").absolute().as_uri()
        key = client.create_experiment(study.name, artifact_location=artifacts)
    else:
        key = experiment.experiment_id
    logged, parents = _complete_runs(client, key, token)
    if isinstance(study, StoredGrid):
        parents = _log_cells(client, key, study, parents)
    for run in runs(study):
        if str(run.number) not in logged:
            above = {PARENT: parents[run.facts["cell"]]} if "cell" in run.facts else {}
            _log_run(client, key, run, {TOKEN: token, **above})


def _log_run(client: Any, experiment: str, run: Run, tags: Mapping[str, str]) -> None:
    from mlflow.entities import Metric

    start, end = int(1000 * run.started), int(1000 * run.ended)
    tags = {**tags, **{f"hpo.{name}": value for name, value in run.facts.items()}}
    run_id = client.create_run(experiment, start, tags, run.name).info.run_id
    metrics = [
        Metric(metric, value, end, epoch)
        for metric, values in run.curves.items()
        for epoch, value in enumerate(values, 1)
        if value is not None and math.isfinite(value)
    ]
    # After the last epoch once more: MLflow takes the last value for that of the run.
    metrics += [
        Metric(name, value, end, len(run.curves[name]) + 1) for name, value in run.kept.items()
    ]
    metrics += [Metric(name, float(value), end, 0) for name, value in run.results.items()]
    _log_params(client, run_id, run.params)
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics[first : first + BATCH])
    client.set_terminated(run_id, STATUS[run.facts["state"]], end)
    client.set_tag(run_id, NUMBER, str(run.number))  # last: a killed export leaves none


def _log_cells(
    client: Any, experiment: str, study: StoredGrid, known: Mapping[str, str]
) -> dict[str, str]:
    """Writes a run per cell, or what is new in those that are there. known, and returned: the runs'
    ids by cell."""
    from mlflow.entities import Metric

    metric, ids, now = study.metric.tested.name, dict(known), int(1000 * time.time())
    for cell in study.file.cells:
        if cell.name not in ids:
            tags = {TOKEN: token_of(study), STUDY: study.name, CELL: cell.name}
            ids[cell.name] = client.create_run(experiment, now, tags, cell.name).info.run_id
            _log_params(client, ids[cell.name], set_values(cell.config))
        values = study.values(cell, metric).dropna()
        found: dict[str, float] = {"seeds": len(values)}
        if len(values):
            of = estimate(values.to_numpy(float))
            found |= {metric: of.mean, f"{metric}_low": of.low, f"{metric}_high": of.high}
        finite = {name: value for name, value in found.items() if math.isfinite(value)}
        metrics = [Metric(name, float(value), now, 0) for name, value in finite.items()]
        client.log_batch(ids[cell.name], metrics)
        client.set_terminated(ids[cell.name], "FINISHED", now)
    return ids


def _log_params(client: Any, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])


def _complete_runs(client: Any, experiment: str, token: str) -> tuple[set[str], dict[str, str]]:
    """Returns the numbers of the trials that are there, and the ids of the cells' runs. Deletes
    runs that a killed export left, and runs of another study; on a server these may be somebody's:
    InputError."""
    complete, cells = set(), {}
    for run in client.search_runs([experiment], max_results=MOST_RUNS):
        tags = run.data.tags
        another = tags.get(TOKEN) != token
        if STUDY not in tags:
            continue  # no export of a study
        if another and (server := os.environ.get("MLFLOW_TRACKING_URI")):
            raise InputError(
                f"--to mlflow: {without_password(server)}: experiment {tags[STUDY]!r} has runs of "
                "another study of this name, or of an earlier hpo; delete them there"
            )
        if not another and NUMBER in tags:
            complete.add(tags[NUMBER])
        elif not another and SEED not in tags and CELL in tags:
            cells[tags[CELL]] = run.info.run_id
        else:
            client.delete_run(run.info.run_id)
    return complete, cells
