"""The winner's folder: trained on all training images, saved without pickle, said in TOML."""

import os
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from optuna.trial import TrialState

from hpo.data.datasets import normalization
from hpo.model.description import CONFIG, MODEL
from hpo.run.forecast import by_cost
from hpo.run.plan import Early, Job
from hpo.study.config import Config, Seeds
from hpo.workers.messages import Task

SEED = 0


class Unsaved(Exception):  # noqa: N818
    """The winner is trained, but its folder could not be written."""


class BestPlan:
    """One training on all training images; it is no trial, for nothing validates it."""

    def __init__(self, config: Config, label: str) -> None:
        task = Task(id=1, config=config, seeds=(Seeds.of(SEED),), whole=True)
        self.job = Job(task=task, label=label, trials=[], names=[label], cost=1.0)
        self.waiting = [self.job]

    def next(self) -> Job | None:
        return self.waiting.pop() if self.waiting else None

    def judge(self, job: Job) -> Early | None:
        return None

    def ended(self, job: Job, state: TrialState) -> None:
        """Its network is in the job."""

    def seconds_left(self, jobs: Sequence[Job], workers: int, limit: float) -> float | None:
        return by_cost([job.spent() for job in jobs], [], workers)


def said_of(study: str, trial: int, config: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    """What config.toml says: which network this is, and what it takes. data: runner.describe's."""
    mean, deviation = normalization(data["name"])
    return {
        "study": study,
        "trial": trial,
        "dataset": data["name"],
        "dataset_checksum": data["checksum"],
        "trained_on": data["train"] + data["valid"],
        "seed": SEED,
        "features": data["features"],
        "mean": mean,
        "deviation": deviation,
        "config": config.as_dict(),
    }


def is_there(folder: Path, said: Mapping[str, Any]) -> bool:
    """Whether the folder holds just this network already."""
    try:
        found = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == said and (folder / MODEL).is_file()


def write(folder: Path, model: bytes, said: Mapping[str, Any]) -> None:
    """Model and description, each whole; config.toml last, for it says that the model is there.

    Raises Unsaved.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        _replace(folder / MODEL, model)
        _replace(folder / CONFIG, tomli_w.dumps(said).encode())
    except OSError as error:
        reason = f"{folder}: the winner could not be saved ({error.strerror or error})"
        raise Unsaved(f"{reason}; the same command trains and saves it again") from error


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as beside:
        try:
            beside.write(content)
            beside.close()
            os.chmod(beside.name, 0o644)
            os.replace(beside.name, path)
        except BaseException:
            os.unlink(beside.name)
            raise
