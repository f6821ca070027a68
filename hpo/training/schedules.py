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


def step(done: float) -> float:
    """1, then 0.1 from half of the steps on, and 0.01 from three quarters on (He et al. 2016, "Deep
    Residual Learning for Image Recognition", 4.2)."""
    return 0.1 ** ((done >= 0.5) + (done >= 0.75))


RISE, START, END = 0.3, 1 / 25, 1 / 25e4  # the defaults of torch.optim.lr_scheduler.OneCycleLR


def one_cycle(done: float) -> float:
    """From 1/25 up to 1 in the first 30% of the steps, then down to 1/250,000, along cosines (Smith
    and Topin 2018, "Super-Convergence"). The momentum stays as it is."""
    if done < RISE:
        return START + (1 - START) * (1 - math.cos(math.pi * done / RISE)) / 2
    return END + (1 - END) * (1 + math.cos(math.pi * (done - RISE) / (1 - RISE))) / 2
