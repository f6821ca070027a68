"""Forecasts of the time left, from the times that trainings have taken so far."""

from collections.abc import Sequence
from dataclasses import dataclass

# Before that there is no forecast.
ENOUGH_SECONDS = 2.0
ENOUGH_TRIALS = 4
ALL_IMAGES = 1.25  # the winner trains on all images, a trial on four fifths of them


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
    """A COMPLETE trial: its accuracy, its seconds, on how many finalist seeds it was trained, and
    its value of a second objective."""

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
