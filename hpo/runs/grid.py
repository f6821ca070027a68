"""The plans of a grid: stacks of missing trials, the longest first; and its training times."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from hpo.results import trial as record
from hpo.runs.plan import Job, Plan, Shape, cost, parameter_count, stack_size
from hpo.runs.progress import ALL_IMAGES, Progress
from hpo.runs.samplers import cell_distributions
from hpo.runs.study import Run
from hpo.study.claims import ROUNDS
from hpo.study.columns import TrialAttributes
from hpo.study.config import DEFAULTS, SEED, Seeds
from hpo.study.file import Cell, GridStudy
from hpo.study.finalists import noun_of
from hpo.workers.messages import Task

MOST_ROUNDS = 5 * ROUNDS  # where `--until-resolved` measures again
SAMPLE_SECONDS = 0.1  # of an estimated epoch: longer ones are measured at their beginning


class GridPlan(Plan):
    """Trains the missing trials of a grid as stacks, the longest first; all of them to their
    last epoch, for equal curves.

    stacks: {task: its cell and its seeds}.
    """

    def __init__(
        self,
        run: Run,
        optuna_study: optuna.Study,
        seeds: Sequence[int],
        *,
        cells: Sequence[Cell] | None = None,
        ranges: Mapping[str, BaseDistribution] | None = None,
        title: str = "",
    ) -> None:
        """cells: those to train; None: all. ranges: of a search's finalists, the distributions that
        replace those made from the cells; finalists are tested with a confusion matrix. title: the
        study's name if it is empty."""
        assert isinstance(run.file, GridStudy)
        cells = run.file.cells if cells is None else cells
        costs = [cost(cell.config, run.shape) for cell in cells]
        super().__init__(title or run.name, optuna_study)
        self.run, self.study_id = run, optuna_study._study_id
        self.cost_after = 0.0 if ranges is None else ALL_IMAGES * max(costs)
        made = cell_distributions([cell.config for cell in run.file.cells])
        self.distributions = {**made, **(ranges or {})}
        self.stored = optuna_study.get_trials(deepcopy=False)
        self.stacks: dict[int, tuple[Cell, list[int]]] = {}
        finished = finished_seeds(optuna_study)
        for cell, each in zip(cells, costs, strict=True):
            missing = [s for s in seeds if (cell.name, s) not in finished]
            size = stack_size(cell.config, run.shape)
            for start in range(0, len(missing), size):
                stack = missing[start : start + size]
                task = Task(
                    id=len(self.stacks) + 1,
                    config=cell.config,
                    seeds=tuple(cell.draw(seed) for seed in stack),
                    test=run.dataset.tested,
                    inspect=ranges is not None,
                    calibrate=ranges is not None,
                    diagnose=run.file.diagnostics,
                    **cell.training(run.training),
                )
                self.stacks[task.id] = cell, stack
                names = [record.run_name(cell.name, seed) for seed in stack]
                label = f"{cell.name} {'seeds' if stack[1:] else 'seed'} {str(stack)[1:-1]}"
                job = Job(task=task, label=label, trials=[], names=names, cost=each * len(stack))
                self.waiting.append(job)
        self.waiting.sort(key=lambda job: -job.cost)
        self.total = len(cells) * len(seeds)

    def progress(self, started: float) -> Progress:
        done = self.total - sum(len(job.names) for job in self.waiting)
        metric = self.run.file.metric
        progress = Progress(
            title=self.title,
            noun=noun_of(self.run.name),
            total=self.total,
            done=done,
            objective=metric.name,
            deviation=self.run.dataset.schema.deviation,
            started=started,
        )
        for trial in record.ranked(self.stored, metric)[:1]:
            name = record.run_name(trial.user_attrs["cell"], trial.user_attrs["seed"])
            progress.take_best(name, record.value_of(trial, metric))
        return progress

    def next(self, worker: int = 0, left: float = math.inf) -> Job | None:
        if job := super().next(worker, left):
            cell, seeds = self.stacks[job.task.id]
            job.trials = [self._create_trial(cell, seed, len(seeds)) for seed in seeds]
        return job

    def _create_trial(self, cell: Cell, seed: int, stack: int) -> int:
        """Stores a RUNNING trial with its parameters, cell and seed in one transaction; its id."""
        values = {**DEFAULTS, **cell.config.as_dict()}
        known = {n: d for n, d in self.distributions.items() if n in values}
        attributes: TrialAttributes = {
            "cell": cell.name,
            "seed": seed,
            "stack": stack,
            "parameters": parameter_count(cell.config, self.run.shape),
        }
        template = create_trial(
            state=TrialState.RUNNING,
            params={name: values[name] for name in known},
            distributions=known,
            user_attrs={**attributes},
        )
        return self.run.storage.create_new_trial(self.study_id, template)


def finished_seeds(optuna_study: optuna.Study) -> set[tuple[str, int]]:
    """Returns the (cell, seed) pairs that have a COMPLETE trial."""
    complete = optuna_study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return {(trial.user_attrs["cell"], trial.user_attrs["seed"]) for trial in complete}


class TimingPlan(Plan):
    """Measures training times: trains an epoch of each cell, or the beginning of one, alone on the
    machine, in ROUNDS rounds and in one before them that does not count; in each round the cells
    are in another order. For a pool of one worker.

    before: rounds that were measured earlier.
    rounds: {cell: seconds, scaled to all images and all of the cell's epochs}, a dictionary per
    round. places: round and cell of each task.
    """

    def __init__(
        self,
        title: str,
        cells: Sequence[Cell],
        shape: Shape,
        before: int = 0,
        training: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """training: see Run."""
        super().__init__(title)
        rng, self.cells = random.Random(SEED + before), cells
        self.rounds: list[dict[str, float]] = [{} for _ in range(ROUNDS + 1)]
        order = [(n, cell) for n in range(ROUNDS + 1) for cell in rng.sample(cells, len(cells))]
        self.places = dict(enumerate(order, 1))
        for key, (number, cell) in self.places.items():
            config = replace(cell.config, epochs=1)
            epoch = cost(config, shape)
            share, seeds = min(SAMPLE_SECONDS / epoch, 1.0), (Seeds.of(SEED),)
            shared = cell.training(training)
            task = Task(id=key, config=config, seeds=seeds, share=share, **shared)
            label = f"time of {cell.name}, round {before + number} of {before + ROUNDS}"
            job = Job(task=task, label=label, trials=[], names=[label], cost=epoch * share)
            self.waiting.append(job)

    def ended(self, job: Job, state: TrialState) -> None:
        super().ended(job, state)
        if state is TrialState.COMPLETE:
            number, cell = self.places[job.task.id]
            scale = cell.config.epochs / job.task.share
            self.rounds[number][cell.name] = job.epochs[-1].seconds * scale

    def measured(self) -> list[dict[str, float]] | None:
        """Returns the rounds that count; None unless all are complete."""
        complete = all(len(times) == len(self.cells) for times in self.rounds)
        return self.rounds[1:] if complete else None
