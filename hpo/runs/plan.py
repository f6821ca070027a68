"""Jobs of a run, the interfaces of plans and watchers, and the size of stacks."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from hpo.data.datasets import Dataset, split
from hpo.results.study import StoredGrid, StoredSearch
from hpo.results.trial import outcome
from hpo.runs.progress import Progress, TimeTaken, by_cost
from hpo.study.columns import METRICS
from hpo.study.config import SEED, Config
from hpo.study.metrics import Metric
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
    alone: bool = False  # whether parts differ in size from seed to seed

    @classmethod
    def of(cls, dataset: Dataset) -> "Shape":
        features, rows = dataset.train_images.shape[1], len(split(dataset, SEED)[0])
        alone = len(dataset.groups) > 0
        return cls(features=features, classes=dataset.classes, train_rows=rows, alone=alone)


def parameter_count(config: Config, shape: Shape) -> int:
    """Returns the number of parameters of the configuration's network; 0 for the user's own."""
    if config.model:
        return 0  # known once a worker has built it
    sizes = [shape.features, *config.hidden, shape.classes]
    linear = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    return linear + (2 * sum(config.hidden) if config.norm != "none" else 0)


def stack_size(config: Config, shape: Shape) -> int:
    """Returns how many replicates of a network are trained at once.

    The size depends on network and data alone, so that results do not depend on the machine. MKL
    rounds by position where rows are not full cache lines: a replicate's last bits would depend on
    its place in the stack. Such a network is trained alone.
    """
    if config.model or shape.alone:
        return 1
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
    LIMIT = "over its time limit"


@dataclass
class Job:
    """A task, its trials, and what the worker has sent back.

    trials: ids in the storage, one per seed; or one for all seeds, whose means it has.
    reported: epochs that the storage has.
    worker: the number of the one that has or had the job; -1 for none. began: when it got it, by
    the monotonic clock; 0 while it is paused.
    spent: seconds before it paused. limit: the most seconds of a job, these among them.
    paused_at: the epoch after which it paused last; 0: none.
    second: the second objective, None without one.
    parameters: of the network. model, ensemble and ensemble_score: see messages.Done.
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
    ensemble: bytes | None = None
    ensemble_score: tuple[str, float] | None = None
    worker: int = -1
    began: float = 0.0
    spent: float = 0.0
    limit: float = math.inf
    paused_at: int = 0
    second: str | None = None
    parameters: int = 0

    @property
    def averages(self) -> bool:
        """Whether the job's one trial is the mean over several seeds."""
        return 0 < len(self.trials) < len(self.task.seeds)

    @property
    def metric(self) -> Metric:
        """Returns the objective."""
        return self.task.metric

    def taken(self) -> TimeTaken:
        """Returns the time that the job has taken so far."""
        share = 1.0 if self.complete else len(self.epochs) / self.task.epochs
        seconds = self.spent + (time.monotonic() - self.began if self.began else 0.0)
        return TimeTaken(cost=self.cost, share=share, seconds=seconds)

    def curve(self, *, sound: bool = False) -> list[EpochDone]:
        """Returns the epochs of the job's trials: means over the seeds if it averages. sound:
        without the epoch in which a job diverged."""
        if not self.averages:
            diverged = sound and self.early_stop is EarlyStop.DIVERGED
            return self.epochs[:-1] if diverged else self.epochs
        runs = self.runs(sound=sound)
        longest = max((len(epochs) for epochs, _ in runs), default=0)
        return [mean_epoch(runs, place) for place in range(longest)]

    def runs(self, *, sound: bool = False) -> list[tuple[list[EpochDone], int]]:
        """Returns the epochs of each seed, and the seed's place in them; empty without epochs. Of
        seeds trained one by one, those that have ended, or else the first. sound: see curve."""
        diverged = sound and self.early_stop is EarlyStop.DIVERGED
        epochs = self.epochs[:-1] if diverged else self.epochs
        if not self.task.one_by_one:
            return [(epochs, seed) for seed in range(len(self.task.seeds)) if epochs]
        each = [list(group) for _, group in groupby(epochs, self._seed)]
        ended = [group for group in each if self._is_last(group[-1])]
        return [(group, 0) for group in ended or each]

    def _seed(self, epoch: EpochDone) -> int:
        """Returns the place of the seed whose epoch it is, where they are trained one by one."""
        return (epoch.number - 1) // self.task.config.epochs

    def _is_last(self, epoch: EpochDone) -> bool:
        return epoch.last or epoch.number % self.task.config.epochs == 0

    @property
    def complete(self) -> bool:
        """Whether the job has all its epochs, which are fewer where patience has ended it."""
        if not self.epochs or not self._is_last(self.epochs[-1]):
            return False
        return not self.task.one_by_one or self._seed(self.epochs[-1]) == len(self.task.seeds) - 1

    def step(self) -> tuple[int, float] | None:
        """Returns the trial's new intermediate value, the objective's mean in the last epoch, and
        its step; one_by_one: the value of a seed that has ended, and its place from 1 on."""
        last = self.epochs[-1]
        if not self.task.one_by_one:
            values = self.sought(last)
            return last.number, sum(values) / len(values)
        if not self._is_last(last):
            return None
        return self._seed(last) + 1, self.counted(outcome(*self.runs()[-1]))

    def sought(self, epoch: EpochDone) -> list[float]:
        """Returns the objective's values in an epoch."""
        return [self.metric.finite(value) for value in epoch.values(self.task.objective)]

    def counted(self, outcome: Mapping[str, float]) -> float:
        """Returns the objective's value of what results.trial.outcome returns."""
        return self.metric.finite(outcome[self.task.objective])

    def seconds(self) -> float:
        """Returns the seconds of all epochs, of all seeds."""
        return sum(epoch.seconds * len(epoch.valid_accuracy) for epoch in self.epochs)

    def second_values(self) -> list[float]:
        """Returns the value of the second objective; empty without one."""
        if self.second is None:
            return []
        return [self.seconds() if self.second == "train_seconds" else float(self.parameters)]

    def outcomes(self) -> list[dict[str, float]]:
        """Returns the metrics of the epoch that counts of each trial, see results.trial.outcome:
        means over the seeds if the job averages, each with its own epoch. Of a diverged trial, only
        the epochs before count; empty without any."""
        found = [outcome(*run) for run in self.runs(sound=True)]
        if not found or not self.averages:
            return found
        return [{name: sum(each[name] for each in found) / len(found) for name in found[0]}]

    def values(self) -> list[float]:
        """Returns the value of each trial's objective that counts; the worst without one."""
        found = [self.counted(each) for each in self.outcomes()]
        return found or [self.metric.worst] * len(self.trials)


def mean_epoch(runs: Sequence[tuple[Sequence[EpochDone], int]], place: int) -> EpochDone:
    """Returns the means over the seeds of the epochs at this place; of a seed that has ended, its
    last epoch counts. runs: see Job.runs."""
    same = [(epochs[min(place, len(epochs) - 1)], seed) for epochs, seed in runs]

    def mean(metric: str) -> list[float]:
        values = [epoch.values(metric)[seed] for epoch, seed in same]
        return [sum(values) / len(values)]

    means: dict[str, Any] = {metric: mean(metric) for metric in METRICS}
    means["scores"] = {metric: mean(metric) for metric in same[0][0].scores}
    seconds = sum(epochs[place].seconds for epochs, _ in runs if place < len(epochs))
    return EpochDone(task=same[0][0].task, number=place + 1, seconds=seconds, **means)


class Plan:
    """What is trained, in which order, and which trainings end early: here a list of jobs that all
    run to their last epoch.

    optuna_study: None if the trainings are no trials. waiting: jobs that are not started yet.
    paused: jobs that wait for others, by task. cost_after: of the training that follows this plan.
    """

    def __init__(
        self, title: str, optuna_study: optuna.Study | None = None, jobs: Sequence[Job] = ()
    ) -> None:
        self.title, self.optuna_study = title, optuna_study
        self.waiting, self.cost_after = list(jobs), 0.0
        self.taken: list[TimeTaken] = []  # by the jobs that have ended
        self.paused: dict[int, Job] = {}

    @property
    def jobs(self) -> int:
        """How many jobs are not started yet, at most."""
        return len(self.waiting)

    def progress(self, started: float) -> Progress:
        """Returns the progress at the start. started: of the run, by the monotonic clock."""
        return Progress(title=self.title, noun="training", total=self.jobs, started=started)

    def next(self, worker: int = 0, left: float = math.inf) -> Job | None:
        """Returns the next job for a worker; None if there is none, now or for good. left: seconds
        after which no job will be started, and those that run will be stopped."""
        return self.waiting.pop(0) if self.waiting else None

    def judge(self, job: Job) -> EarlyStop | None:
        """Returns why the job should end after its last epoch; None if it should go on."""
        return None

    def pause(self, job: Job) -> None:
        """Takes note that a job has paused. It goes on when `next` returns it."""
        self.paused[job.task.id] = job

    def ended(self, job: Job, state: TrialState) -> None:
        """Takes note that the job's trials have ended in this state."""
        self.taken.append(job.taken())

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        """Forecasts the seconds until all is done; None until enough is known.

        limit: seconds after which the plan starts no job and stops those that run.
        """
        taken = [*self.taken, *(job.taken() for job in running)]
        left = by_cost(taken, [job.cost for job in self.waiting], workers, self.cost_after)
        return None if left is None else min(left, limit)


class Watcher:
    """Is told what happens in a run; does nothing where a subclass does not override a method.

    The order of calls: on_open once, then for each plan that has something to train on_start,
    on_epoch, on_trial, on_end and on_tick, on_finish.
    """

    def on_open(self, optuna_study: optuna.Study) -> None:
        """The study is in the storage; nothing of this run is written yet."""

    def on_start(self, optuna_study: optuna.Study | None, progress: Progress) -> None:
        """A plan starts. optuna_study: None if its trainings are no trials. progress: kept up to
        date."""

    def on_epoch(self, job: Job) -> None:
        """A job has ended an epoch."""

    def on_trial(self, trial: int, curve: Mapping[str, Any], epochs: int) -> None:
        """A trial (its id) is about to end. curve: see storage.trial.attributes. epochs: of a
        complete training."""

    def on_end(self, job: Job, outcome: str) -> None:
        """A job has ended or paused; outcome: in words."""

    def on_notice(self, text: str) -> None:
        """Something that the user must see."""

    def on_tick(self) -> None:
        """Called at least every TICK_SECONDS of a plan, see runs.loop."""

    def on_finish(self) -> None:
        """The plan is over, however it ended."""

    def on_report(self, stored: StoredGrid | StoredSearch, report: Path | None) -> None:
        """The run is over. report: where its report is, None if it could not be written."""
