"""What a run has to train, in which order, and what is trained together."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Protocol

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from hpo.data.datasets import VALID_SHARE, Dataset
from hpo.run.forecast import ALL_IMAGES, Spent, by_cost
from hpo.storage.trial import WORST
from hpo.study.config import CLASSES, DEFAULTS, HYPERPARAMETERS, Config, Seeds
from hpo.study.file import Cell, GridStudy
from hpo.workers.messages import EpochDone, Task

# Replicates of a network trained at once. Measured on 2 cores of an AMD EPYC (Zen 4), one thread
# each, batch 64, two hidden layers: at 32 units a stack of 5 takes 0.73 of the time of 5 alone, at
# 64 units 0.83, and stacks of 10 are no better; from 128 units on a stack gains nothing.
STACK = 5
STACKED_PARAMETERS = 60_000
ALWAYS_STORED = ("depth", "width", "activation", "optimizer", "lr", "batch_size", "epochs")


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


class GridPlan:
    """The missing trials of a grid as stacks, the longest first."""

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        study_file: GridStudy,
        seeds: Sequence[int],
        dataset: Dataset,
        *,
        ranges: Mapping[str, BaseDistribution] | None = None,
        finalists: bool = False,
    ) -> None:
        """ranges: distributions in place of those that just hold the cells. finalists: their tests
        say what was mistaken, and after them one is trained once more, on all images."""
        self.storage = storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self.finalists = finalists
        self.diagnose = study_file.diagnostics
        own = distributions([cell.config for cell in study_file.cells])
        self.distributions = {**own, **(ranges or {})}
        self.shape = shape = Shape.of(dataset)
        finished = finished_seeds(study)
        self.waiting: list[tuple[float, Cell, list[int]]] = []
        for cell in study_file.cells:
            missing = [s for s in seeds if (cell.name, s) not in finished]
            size, each = stack_size(cell.config, shape), cost(cell.config, shape)
            for start in range(0, len(missing), size):
                stack = missing[start : start + size]
                self.waiting.append((each * len(stack), cell, stack))
        self.waiting.sort(key=lambda entry: -entry[0])
        self.missing = sum(len(stack) for _, _, stack in self.waiting)
        self.after = 0.0
        if finalists:
            costs = [cost(cell.config, shape) for cell in study_file.cells]
            self.after = ALL_IMAGES * max(costs)
        self.started = 0
        self.spent: list[Spent] = []

    def next(self) -> Job | None:
        if not self.waiting:
            return None
        spent, cell, seeds = self.waiting.pop(0)
        trials = [self._create_trial(cell, seed, len(seeds)) for seed in seeds]
        self.started += 1
        task = Task(
            id=self.started,
            config=cell.config,
            seeds=tuple(Seeds.of(seed, cell.varies) for seed in seeds),
            test=True,
            inspect=self.finalists,
            diagnose=self.diagnose,
        )
        label = f"{cell.name} {_seeds_text(seeds)}"
        names = [f"{cell.name} seed {seed}" for seed in seeds]
        return Job(task=task, label=label, trials=trials, names=names, cost=spent)

    def judge(self, job: Job) -> None:
        """A grid's trainings run to their last epoch, so that their curves can be compared."""

    def ended(self, job: Job, state: TrialState) -> None:
        self.spent.append(job.spent())

    def seconds_left(self, jobs: Sequence[Job], workers: int, limit: float) -> float | None:
        spent = [*self.spent, *(job.spent() for job in jobs)]
        left = by_cost(spent, [cost for cost, _, _ in self.waiting], workers, self.after)
        return None if left is None else min(left, limit)

    def _create_trial(self, cell: Cell, seed: int, stack: int) -> int:
        """A RUNNING trial with its parameters and its key, in one transaction."""
        values = cell.config.as_dict()
        template = create_trial(
            state=TrialState.RUNNING,
            params={name: values[name] for name in self.distributions},
            distributions=self.distributions,
            user_attrs={
                "cell": cell.name,
                "seed": seed,
                "stack": stack,
                "parameters": parameter_count(cell.config, self.shape),
            },
        )
        return self.storage.create_new_trial(self.study_id, template)


def _seeds_text(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]}–{seeds[-1]}"
    return "seeds " + ", ".join(map(str, seeds))


def finished_seeds(study: optuna.Study) -> set[tuple[str, int]]:
    """The (cell, seed) pairs that have a COMPLETE trial."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return {(trial.user_attrs["cell"], trial.user_attrs["seed"]) for trial in complete}


def distributions(configs: list[Config]) -> dict[str, BaseDistribution]:
    """Distributions that just hold the cells: for the dashboard and for importances."""
    rows = [config.as_dict() for config in configs]
    found: dict[str, BaseDistribution] = {}
    for name in HYPERPARAMETERS:
        values = sorted({row[name] for row in rows})
        if name not in ALWAYS_STORED and values == [DEFAULTS[name]]:
            continue
        if isinstance(values[0], (str, bool)):
            found[name] = CategoricalDistribution(values)
        elif isinstance(values[0], int):
            found[name] = IntDistribution(values[0], values[-1])
        else:
            found[name] = FloatDistribution(values[0], values[-1], log=name == "lr")
    return found
