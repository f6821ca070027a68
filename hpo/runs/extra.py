"""Plans whose trainings are no trials: training times, and the winner on all training images."""

import random
from collections.abc import Sequence
from dataclasses import replace

from optuna.trial import TrialState

from hpo.runs.forecast import by_cost
from hpo.runs.plan import Job, ListedPlan, Shape, cost
from hpo.study.config import SEED, Config, Seeds
from hpo.study.file import Cell
from hpo.workers.messages import Task

ROUNDS = 8
SAMPLE_SECONDS = 0.1  # of an estimated epoch: longer ones are measured at their beginning


class TimingPlan(ListedPlan):
    """Measures training times: trains an epoch of each cell, or the beginning of one, alone on the
    machine, in ROUNDS rounds and in one before them that does not count; in each round the cells
    are in another order. For a pool of one worker.

    rounds: {cell: seconds, scaled to all images and all of the cell's epochs}, a dictionary per
    round.
    """

    def __init__(self, cells: Sequence[Cell], shape: Shape, folder: str = "") -> None:
        super().__init__()
        rng = random.Random(SEED)
        self.cells, self.folder = cells, folder
        self.rounds: list[dict[str, float]] = [{} for _ in range(ROUNDS + 1)]
        for number in range(ROUNDS + 1):
            self.waiting += [(number, cell) for cell in rng.sample(cells, len(cells))]
        self.waiting.reverse()
        each = {cell.name: cost(replace(cell.config, epochs=1), shape) for cell in cells}
        self.shares = {name: min(SAMPLE_SECONDS / value, 1.0) for name, value in each.items()}
        self.costs = {name: value * self.shares[name] for name, value in each.items()}
        self.running: dict[int, tuple[int, Cell]] = {}

    def next(self) -> Job | None:
        if not self.waiting:
            return None
        number, cell = self.waiting.pop()
        key = len(self.waiting) + 1
        self.running[key] = number, cell
        config = replace(cell.config, epochs=1)
        seeds, share = (Seeds.of(SEED),), self.shares[cell.name]
        task = Task(id=key, config=config, seeds=seeds, share=share, folder=self.folder)
        label = f"time of {cell.name}, round {number} of {ROUNDS}"
        return Job(task=task, label=label, trials=[], names=[label], cost=self.costs[cell.name])

    def ended(self, job: Job, state: TrialState) -> None:
        number, cell = self.running.pop(job.task.id)
        super().ended(job, state)
        if state is TrialState.COMPLETE:
            scale = cell.config.epochs / job.task.share
            self.rounds[number][cell.name] = job.epochs[-1].seconds * scale

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        waiting = [self.costs[cell.name] for _, cell in self.waiting]
        return by_cost(self.spent_with(running), waiting, 1)

    def measured(self) -> list[dict[str, float]] | None:
        """Returns the rounds that count; None unless all are complete."""
        complete = all(len(times) == len(self.cells) for times in self.rounds)
        return self.rounds[1:] if complete else None


class WinnerPlan(ListedPlan):
    """Trains one network on all training images. It is no trial: no image validates it."""

    def __init__(self, config: Config, label: str, folder: str = "") -> None:
        """folder: where the module of the user's own network lies."""
        super().__init__()
        seeds = (Seeds.of(SEED),)
        task = Task(id=1, config=config, seeds=seeds, all_images=True, folder=folder)
        self.job = Job(task=task, label=label, trials=[], names=[label], cost=1.0)
        self.waiting = [self.job]

    def next(self) -> Job | None:
        return self.waiting.pop() if self.waiting else None

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        return by_cost(self.spent_with(running), [], workers)
