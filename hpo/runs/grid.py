"""The plan of a grid: stacks of missing trials, the longest first."""

from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from hpo.data.datasets import Dataset
from hpo.results import trial as record
from hpo.runs.forecast import ALL_IMAGES, by_cost
from hpo.runs.plan import Job, ListedPlan, Shape, cost, parameter_count, stack_size
from hpo.runs.progress import Progress
from hpo.runs.samplers import cell_distributions
from hpo.study.columns import TrialAttributes
from hpo.study.config import DEFAULTS
from hpo.study.file import Cell, GridStudy
from hpo.workers.messages import Task


class GridPlan(ListedPlan):
    """Trains the missing trials of a grid as stacks, the longest first; all of them to their
    last epoch, for equal curves."""

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        study_file: GridStudy,
        seeds: Sequence[int],
        dataset: Dataset,
        *,
        cells: Sequence[Cell] | None = None,
        ranges: Mapping[str, BaseDistribution] | None = None,
        finalists: bool = False,
    ) -> None:
        """cells: those to train; None: all. ranges: distributions that replace those made from the
        cells. finalists: whether the cells are a search's finalists, which are tested with a
        confusion matrix."""
        super().__init__()
        cells = study_file.cells if cells is None else cells
        self.storage = storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self.finalists = finalists
        self.diagnose, self.folder = study_file.diagnostics, study_file.folder
        own = cell_distributions([cell.config for cell in study_file.cells])
        self.distributions = {**own, **(ranges or {})}
        self.shape = shape = Shape.of(dataset)
        self.stored = study.get_trials(deepcopy=False)
        finished = finished_seeds(study)
        for cell in cells:
            missing = [s for s in seeds if (cell.name, s) not in finished]
            size, each = stack_size(cell.config, shape), cost(cell.config, shape)
            for start in range(0, len(missing), size):
                stack = missing[start : start + size]
                self.waiting.append((each * len(stack), cell, stack))
        self.waiting.sort(key=lambda entry: -entry[0])
        self.total = len(cells) * len(seeds)
        costs = [cost(cell.config, shape) for cell in cells]
        self.winner_cost = ALL_IMAGES * max(costs) if finalists else 0.0
        self.started = 0

    def progress(self, title: str, started: float) -> Progress:
        done = self.total - sum(len(stack) for _, _, stack in self.waiting)
        progress = Progress(title=title, total=self.total, done=done, started=started)
        for trial in record.ranked(self.stored)[:1]:
            name = record.run_name(trial.user_attrs["cell"], trial.user_attrs["seed"])
            progress.take_best(name, record.accuracy_of(trial))
        return progress

    def next(self) -> Job | None:
        if not self.waiting:
            return None
        stack_cost, cell, seeds = self.waiting.pop(0)
        trials = [self._create_trial(cell, seed, len(seeds)) for seed in seeds]
        self.started += 1
        task = Task(
            id=self.started,
            config=cell.config,
            seeds=tuple(cell.draw(seed) for seed in seeds),
            test=True,
            inspect=self.finalists,
            diagnose=self.diagnose,
            folder=self.folder,
        )
        label = f"{cell.name} {_seeds_text(seeds)}"
        names = [record.run_name(cell.name, seed) for seed in seeds]
        return Job(task=task, label=label, trials=trials, names=names, cost=stack_cost)

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        waiting = [stack_cost for stack_cost, _, _ in self.waiting]
        left = by_cost(self.spent_with(running), waiting, workers, self.winner_cost)
        return None if left is None else min(left, limit)

    def _create_trial(self, cell: Cell, seed: int, stack: int) -> int:
        """Stores a RUNNING trial with its parameters, cell and seed in one transaction; its id."""
        values = {**DEFAULTS, **cell.config.as_dict()}
        known = {n: d for n, d in self.distributions.items() if n in values}
        attributes: TrialAttributes = {
            "cell": cell.name,
            "seed": seed,
            "stack": stack,
            "parameters": parameter_count(cell.config, self.shape),
        }
        template = create_trial(
            state=TrialState.RUNNING,
            params={name: values[name] for name in known},
            distributions=known,
            user_attrs={**attributes},
        )
        return self.storage.create_new_trial(self.study_id, template)


def _seeds_text(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]}–{seeds[-1]}"
    return "seeds " + ", ".join(map(str, seeds))


def finished_seeds(study: optuna.Study) -> set[tuple[str, int]]:
    """Returns the (cell, seed) pairs that have a COMPLETE trial."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return {(trial.user_attrs["cell"], trial.user_attrs["seed"]) for trial in complete}
