"""How far a plan is, and forecasts of the time left from the times that trainings have taken."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hpo.study.metrics import ACCURACY, BY_NAME
from hpo.text import seconds_text

# Before that there is no forecast.
ENOUGH_SECONDS = 2.0
ENOUGH_TRIALS = 4
ALL_IMAGES = 1.25  # the winner trains on all images, a trial on four fifths of them


@dataclass
class Progress:
    """How far a plan is.

    noun: what is counted, trial or training. done: those that are COMPLETE or PRUNED. diverged: of
    a search, whose diverged trials are PRUNED, too; pruned: the others. paused: those that wait
    for others. workers: what each worker
    trains. objective, and deviation of a regression's target: of best_value. waiting: for what
    workers or machines the run waits while it trains, empty for none. started and finish: times of
    the monotonic clock; finish is a forecast, None while it is unknown. seconds: how long the run
    took, None while it runs.
    """

    title: str
    total: int
    done: int = 0
    pruned: int = 0
    paused: int = 0
    diverged: int = 0
    failed: int = 0
    noun: str = "trial"
    workers: list[str] = field(default_factory=list)
    waiting: str = ""
    best: str = ""
    best_value: float | None = None
    objective: str = ACCURACY
    deviation: float = 1.0
    started: float = field(default_factory=time.monotonic)
    finish: float | None = None
    seconds: float | None = None

    def expect(self, seconds: float | None) -> None:
        """Sets the forecast: so many seconds from now, or None for unknown."""
        self.finish = None if seconds is None else time.monotonic() + seconds

    def take_best(self, name: str, value: float, cost: str = "") -> None:
        """Takes a trial as the best if it is better than the one so far: its name, its value of
        the objective, and that of a second objective in words."""
        metric = BY_NAME[self.objective].of(self.deviation)
        if self.best_value is None or metric.gain(value) > metric.gain(self.best_value):
            self.best_value = value
            self.best = ", ".join(filter(None, (metric.text(value), cost, name)))

    @property
    def counts(self) -> str:
        """34/50 trials, 12 pruned, 1 failed."""
        parts = [f"{self.done}/{self.total} {self.noun}s"]
        parts += [f"{self.paused} paused"] if self.paused else []
        parts += [f"{self.pruned} pruned"] if self.pruned else []
        parts += [f"{self.diverged} diverged"] if self.diverged else []
        parts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(parts)

    @property
    def elapsed(self) -> float:
        """Seconds since the start, or that the run took."""
        return time.monotonic() - self.started if self.seconds is None else self.seconds

    @property
    def left(self) -> str:
        """about 2 min 05 s left; empty if unknown or if the run is over."""
        if self.finish is None or self.seconds is not None:
            return ""
        return f"about {seconds_text(max(self.finish - time.monotonic(), 0.0))} left"

    def as_json(self) -> dict[str, Any]:
        """Returns the fields with times of the wall clock, for other processes."""
        offset = time.time() - time.monotonic()
        finish = None if self.finish is None else self.finish + offset
        return {**asdict(self), "started": self.started + offset, "finish": finish}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Progress":
        """Reads what as_json wrote, in this process or another one."""
        offset = time.time() - time.monotonic()
        finish = None if stored["finish"] is None else stored["finish"] - offset
        return cls(**{**stored, "started": stored["started"] - offset, "finish": finish})


@dataclass(frozen=True, kw_only=True)
class TimeTaken:
    """The time that a training has taken: its estimated cost, the share of its epochs that is
    done, and the seconds so far."""

    cost: float
    share: float
    seconds: float


def by_cost(
    taken: Sequence[TimeTaken], waiting: Sequence[float], workers: int, after: float = 0.0
) -> float | None:
    """Forecasts the seconds left from estimated costs; None until enough is known.

    taken: by trainings that ended or run. waiting: costs of the others. after: the cost of the one
    training that follows when all have ended.
    """
    done = sum(training.cost * training.share for training in taken)
    seconds = sum(training.seconds for training in taken)
    if done <= 0 or seconds < ENOUGH_SECONDS:
        return None
    running = [t.cost * (1 - t.share) for t in taken if t.share < 1]
    longest = max([*running, *waiting], default=0.0)
    work = (sum(running) + sum(waiting)) / workers
    return (max(work, longest) + after) * seconds / done


def by_count(
    ended: Sequence[float], running: Sequence[float], missing: int, workers: int
) -> float | None:
    """Forecasts the seconds left from the mean of the trials so far; None until enough is known.

    ended: seconds of the ended trials in their order; only the later half counts, because a sampler
    moves towards networks that are not pruned. running: seconds so far. missing: trials to start.
    """
    if len(ended) < ENOUGH_TRIALS:
        return None
    recent = ended[len(ended) // 2 :]
    each = sum(recent) / len(recent)
    left = sum(max(each - seconds, 0.0) for seconds in running)
    return (left + missing * each) / workers


@dataclass(frozen=True, kw_only=True, order=True)
class Candidate:
    """A COMPLETE trial: the gain of its value, its seconds, on how many finalist seeds it was
    trained, and its value of a second objective."""

    value: float
    seconds: float
    trained: int = 0
    second: float = 0.0


def finalists(candidates: Sequence[Candidate], k: int, seeds: int, workers: int) -> float:
    """Forecasts the seconds of the k best candidates on the seeds that they lack and of the
    winner's training; 0 if they lack none."""
    best = sorted(candidates, reverse=True)[:k]
    missing = sum(trial.seconds * max(seeds - trial.trained, 0) for trial in best)
    if not missing:
        return 0.0
    return missing / workers + ALL_IMAGES * max(trial.seconds for trial in best)
