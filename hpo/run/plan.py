"""Jobs of a run, the interfaces of plans and watchers, and the size of stacks."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from hpo.data.datasets import Dataset, split
from hpo.run.forecast import Spent
from hpo.run.progress import Progress
from hpo.storage.trial import WORST
from hpo.study.config import SEED, Config
from hpo.workers.messages import EpochDone, Task

# Replicates of a network trained at once. Measured on 2 cores of an AMD EPYC (Zen 4), one thread
# each, batch 64, two hidden layers: at 32 units a stack of 5 takes 0.73 of the time of 5 alone, at
# 64 units 0.83, and stacks of 10 are no better; from 128 units on a stack gains nothing.
STACK = 5
STACKED_PARAMETERS = 60_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of the data: features of an image, classes, and rows of the training split."""

    features: int
    classes: int
    train_rows: int

    @classmethod
    def of(cls, dataset: Dataset) -> "Shape":
        features, rows = dataset.train_images.shape[1], len(split(dataset, SEED)[0])
        return cls(features=features, classes=dataset.classes, train_rows=rows)


def parameter_count(config: Config, shape: Shape) -> int:
    """Returns the number of weights and biases of the configuration's network."""
    sizes = [shape.features, *config.hidden, shape.classes]
    linear = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    return linear + (2 * sum(config.hidden) if config.norm != "none" else 0)


def stack_size(config: Config, shape: Shape) -> int:
    """Returns how many replicates of a network are trained at once.

    The size depends on network and data alone, so that results do not depend on the machine. MKL
    rounds by position where rows are not full cache lines: a replicate's last bits would depend on
    its place in the stack. Such a network is trained alone.
    """
    batches = (config.batch_size, shape.train_rows % config.batch_size)
    aligned = all(units % 16 == 0 for units in config.hidden) and all(
        rows % 8 == 0 for rows in batches
    )
    return STACK if aligned and parameter_count(config, shape) <= STACKED_PARAMETERS else 1


def cost(config: Config, shape: Shape) -> float:
    """Estimates the seconds that a training takes on one core; only ratios are used."""
    steps = math.ceil(shape.train_rows / config.batch_size)
    arithmetic = 6 * parameter_count(config, shape) * config.batch_size / 85e9
    return config.epochs * steps * (arithmetic + 2.5e-5 * (config.depth + 1))


class EarlyStop(Enum):
    """Why a training ends before its last epoch."""

    PRUNED = "pruned"
    DIVERGED = "diverged"


@dataclass
class Job:
    """A task, its trials (one per seed), and what the worker has sent back.

    trials: ids in the storage. reported: epochs that the storage has. began: when a worker got the
    job, by the monotonic clock. model: see messages.Done.
    """

    task: Task
    label: str
    trials: list[int]
    names: list[str]
    cost: float
    epochs: list[EpochDone] = field(default_factory=list)
    attempts: int = 1
    reported: int = 0
    early_stop: EarlyStop | None = None
    model: bytes | None = None
    began: float = 0.0

    def spent(self) -> Spent:
        """Returns the time that the job has taken so far."""
        share = len(self.epochs) / self.task.config.epochs
        return Spent(cost=self.cost, share=share, seconds=time.monotonic() - self.began)

    def values(self) -> list[float]:
        """Returns each trial's value: the last validation accuracy, or WORST if it diverged."""
        if self.early_stop is EarlyStop.DIVERGED:
            return [WORST] * len(self.trials)
        return self.epochs[-1].valid_accuracy


class Plan(Protocol):
    """What is trained, in which order, and which trainings end early."""

    @property
    def jobs(self) -> int:
        """How many jobs are not started yet, at most."""

    def progress(self, title: str, started: float) -> Progress:
        """Returns the progress at the start. started: of the run, by the monotonic clock."""

    def next(self) -> Job | None:
        """Returns the next job to start; None if there is none, now or for good."""

    def judge(self, job: Job) -> EarlyStop | None:
        """Returns why the job should end after its last epoch; None if it should go on."""

    def ended(self, job: Job, state: TrialState) -> None:
        """Takes note that the job's trials have ended in this state."""

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        """Forecasts the seconds until all is done; None until enough is known.

        limit: seconds after which the plan starts no job and stops those that run.
        """


class Watcher:
    """Is told what happens in a run; does nothing where a subclass does not override a method.

    The order of calls: on_open once, then for each plan that has something to train on_start,
    on_epoch, on_trial, on_end and on_tick, on_finish.
    """

    def on_open(self, study: optuna.Study) -> None:
        """The study is in the storage; nothing of this run is written yet."""

    def on_start(self, study: optuna.Study | None, progress: Progress) -> None:
        """A plan starts. study: None if its training is no trial. progress: kept up to date."""

    def on_epoch(self, job: Job) -> None:
        """A job has ended an epoch."""

    def on_trial(self, trial: int, curve: Mapping[str, Any], epochs: int) -> None:
        """A trial (its id) is about to end. curve: see storage.trial.attributes. epochs: of a
        complete training."""

    def on_end(self, job: Job, outcome: str) -> None:
        """A job has ended; outcome: in words."""

    def on_notice(self, text: str) -> None:
        """Something that the user must see."""

    def on_tick(self) -> None:
        """Called at least every TICK_SECONDS of a plan, see run.loop."""

    def on_finish(self) -> None:
        """The plan is over, however it ended."""
