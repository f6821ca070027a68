"""The plan of a grid: its missing trials as stacks, the longest first."""

from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from hpo.data.datasets import Dataset
from hpo.run.forecast import ALL_IMAGES, Spent, by_cost
from hpo.run.plan import Job, Shape, cost, parameter_count, stack_size
from hpo.study.config import DEFAULTS, HYPERPARAMETERS, Config, Seeds
from hpo.study.file import Cell, GridStudy
from hpo.workers.messages import Task

ALWAYS_STORED = ("depth", "width", "activation", "optimizer", "lr", "batch_size", "epochs")


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
