"""How long a study will take yet, from what its trainings have taken so far."""

from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH_SECONDS = 2.0  # of training, before there is anything to tell
ENOUGH_TRIALS = 4
ALL_IMAGES = 1.25  # times the images of a trial, whose split leaves a fifth out


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a training has taken of a worker: its cost as it was estimated, the share of its epochs
    that is done, and its seconds so far."""

    cost: float
    share: float
    seconds: float


def by_cost(
    spent: Sequence[Spent], waiting: Sequence[float], workers: int, after: float = 0.0
) -> float | None:
    """Seconds left where every training's cost was estimated; None until there is enough to tell.

    spent: those that ended or are under way. waiting: the costs of the others. after: the cost of
    what one worker trains when all are done.
    """
    done = sum(of.cost * of.share for of in spent)
    seconds = sum(of.seconds for of in spent)
    if done <= 0 or seconds < ENOUGH_SECONDS:
        return None
    under_way = [of.cost * (1 - of.share) for of in spent if of.share < 1]
    longest = max([*under_way, *waiting], default=0.0)
    work = (sum(under_way) + sum(waiting)) / workers
    return (max(work, longest) + after) * seconds / done


def by_count(
    ended: Sequence[float], under_way: Sequence[float], missing: int, workers: int
) -> float | None:
    """Seconds left where trials are like those before them; None until there is enough to tell.

    ended: the seconds of the ended trials, in their order; the later half says more, for a sampler
    moves towards networks that are trained to their end. under_way: the seconds of the others so
    far. missing: how many are not begun.
    """
    if len(ended) < ENOUGH_TRIALS:
        return None
    recent = ended[len(ended) // 2 :]
    each = sum(recent) / len(recent)
    left = sum(max(each - seconds, 0.0) for seconds in under_way)
    return (left + missing * each) / workers


@dataclass(frozen=True, kw_only=True, order=True)
class Sound:
    """A trial that was trained to its end: its value, its seconds, and on how many of the fresh
    seeds it has been trained already."""

    value: float
    seconds: float
    trained: int = 0


def finalists(sound: Sequence[Sound], k: int, seeds: int, workers: int) -> float:
    """Seconds of the k best on all the seeds that they lack, and of the winner's training on all
    images; 0 where nothing is lacking."""
    best = sorted(sound, reverse=True)[:k]
    missing = sum(trial.seconds * max(seeds - trial.trained, 0) for trial in best)
    if not missing:
        return 0.0
    return missing / workers + ALL_IMAGES * max(trial.seconds for trial in best)
