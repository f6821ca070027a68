"""The schedules: the learning rate as a share of `lr`, by the share of the steps that are done."""

import math


def constant(done: float) -> float:
    """1 for all steps."""
    return 1.0


def linear(done: float) -> float:
    """1 at the start, 0 at the end. The best of ten schedules on a range of problems in Defazio et
    al., "Optimal Linear Decay Learning Rate Schedules and Further Refinements"
    (https://arxiv.org/abs/2310.07831)."""
    return 1.0 - done


def cosine(done: float) -> float:
    """Half a cosine from 1 to 0."""
    return (1.0 + math.cos(math.pi * done)) / 2
