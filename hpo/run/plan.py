"""What a run has to train, in which order, and what is trained together."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Protocol

from optuna.trial import TrialState

from hpo.data.datasets import VALID_SHARE, Dataset
from hpo.run.forecast import Spent
from hpo.storage.trial import WORST
from hpo.study.config import CLASSES, Config
from hpo.workers.messages import EpochDone, Task

# Replicates of a network trained at once. Measured on 2 cores of an AMD EPYC (Zen 4), one thread
# each, batch 64, two hidden layers: at 32 units a stack of 5 takes 0.73 of the time of 5 alone, at
# 64 units 0.83, and stacks of 10 are no better; from 128 units on a stack gains nothing.
STACK = 5
STACKED_PARAMETERS = 60_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large the data is: features of an image, and images trained on."""

    features: int
    train_rows: int

    @classmethod
    def of(cls, dataset: Dataset) -> "Shape":
        images, features = dataset.train_images.shape
        return cls(features=features, train_rows=images - int(images * VALID_SHARE))


def parameter_count(config: Config, shape: Shape) -> int:
    """Weights and biases of the configuration's network."""
    sizes = [shape.features, *[config.width] * config.depth, CLASSES]
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


def stack_size(config: Config, shape: Shape) -> int:
    """How many replicates of a network are trained at once: a matter of network and data alone, so
    that results never depend on the machine's size.

    Where rows do not come in full cache lines MKL rounds by position, and a replicate's last bits
    would depend on its place in the stack; such a network is trained alone.
    """
    batches = (config.batch_size, shape.train_rows % config.batch_size)
    aligned = config.width % 16 == 0 and all(rows % 8 == 0 for rows in batches)
    return STACK if aligned and parameter_count(config, shape) <= STACKED_PARAMETERS else 1


def cost(config: Config, shape: Shape) -> float:
    """About how many seconds of a core a training takes: only ratios matter (order, time left)."""
    steps = math.ceil(shape.train_rows / config.batch_size)
    arithmetic = 6 * parameter_count(config, shape) * config.batch_size / 85e9
    return config.epochs * steps * (arithmetic + 2.5e-5 * (config.depth + 1))


class Early(Enum):
    """Why a training ends before its last epoch."""

    PRUNED = "pruned"
    DIVERGED = "diverged"


@dataclass
class Job:
    """A task with its trials (ids in the storage, and names; one a seed), and what came back."""

    task: Task
    label: str
    trials: list[int]
    names: list[str]
    cost: float
    epochs: list[EpochDone] = field(default_factory=list)
    attempts: int = 1
    reported: int = 0  # epochs that the storage has
    early: Early | None = None
    model: bytes | None = None
    began: float = 0.0  # when a worker got it, by the monotonic clock

    def spent(self) -> Spent:
        """What it has taken so far."""
        share = len(self.epochs) / self.task.config.epochs
        return Spent(cost=self.cost, share=share, seconds=time.monotonic() - self.began)

    def values(self) -> list[float]:
        """The value of each trial: its last validation accuracy, the worst if it diverged."""
        if self.early is Early.DIVERGED:
            return [WORST] * len(self.trials)
        return self.epochs[-1].valid_accuracy


class Plan(Protocol):
    """Where jobs come from and who judges them on their way."""

    def next(self) -> Job | None:
        """The next job to start; None when there is none (now, or for good)."""

    def judge(self, job: Job) -> Early | None:
        """Why the job should end after its last epoch, if it should."""

    def ended(self, job: Job, state: TrialState) -> None:
        """The job's trials have come to this end."""

    def seconds_left(self, jobs: Sequence[Job], workers: int, limit: float) -> float | None:
        """Until all is done, where these jobs are under way and the plan's own trainings end after
        `limit` seconds at the latest; None until there is enough to tell."""
