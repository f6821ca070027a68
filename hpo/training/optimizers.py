"""The optimizers, the moving average of weights, and schedules.

Steps are torch.optim's, by its functional interface.

A class of torch.optim imports torch's compiler when it is created, 1.5 s of CPU in every worker,
and costs Adam 20 to 30 µs a step. The functions that it calls do neither. Each function here takes
the flat weights, their gradient (filled before every step) and the configuration.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam as functional_adam
from torch.optim.adamw import adamw as functional_adamw
from torch.optim.rmsprop import rmsprop as functional_rmsprop
from torch.optim.sgd import sgd as functional_sgd

from hpo.study.config import Config
from hpo.study.names import OPTIMIZERS

# Changes the weights by one step at a learning rate.
Step = Callable[[float], None]

# The defaults of torch.optim's classes.
BETA1, BETA2, ALPHA, EPS = 0.9, 0.999, 0.99, 1e-8


def _step(function: Callable[..., None], *lists: list[Tensor], **options: Any) -> Step:
    """Returns a step of one of torch's functions. lists: of the weights, the gradient and the
    function's own state, which it changes."""
    return lambda lr: function(*lists, lr=lr, **options)


def sgd(weights: Tensor, gradient: Tensor, config: Config) -> Step:
    momentum = config.momentum or OPTIMIZERS[config.optimizer].momentum
    velocity: list[Any] = [None]  # the function puts a tensor there
    return _step(
        functional_sgd, [weights], [gradient], velocity, fused=True, momentum=momentum,
        dampening=0.0, weight_decay=config.weight_decay, nesterov=config.nesterov, maximize=False,
    )  # fmt: skip


def _adam(function: Callable[..., None], weights: Tensor, gradient: Tensor, config: Config) -> Step:
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    steps = torch.zeros((), device=weights.device)
    return _step(
        function, [weights], [gradient], [mean], [square], [], [steps], fused=True, beta1=BETA1,
        beta2=BETA2, eps=EPS, weight_decay=config.weight_decay, amsgrad=False, maximize=False,
    )  # fmt: skip


adam, adamw = partial(_adam, functional_adam), partial(_adam, functional_adamw)


def rmsprop(weights: Tensor, gradient: Tensor, config: Config) -> Step:
    square, velocity = torch.zeros_like(weights), torch.zeros_like(weights)
    return _step(
        functional_rmsprop, [weights], [gradient], [square], [], [velocity], [torch.zeros(())],
        foreach=True, alpha=ALPHA, eps=EPS, weight_decay=config.weight_decay,
        momentum=config.momentum, centered=False,
    )  # fmt: skip


class Average:
    """The moving average of flat weights over the steps of a training: after t steps, those after
    step i count decay^(t - i), over the sum of all such shares. So it has no bias at its start.

    show: puts the average in the place of the weights; hide puts the weights back.
    """

    def __init__(self, weights: Tensor, decay: float) -> None:
        self.weights, self.decay, self.rest = weights, decay, 1.0
        self.mean, self.hidden = weights.clone(), weights.clone()

    def take(self) -> None:
        """Takes the weights after a step."""
        self.rest *= self.decay
        self.mean.lerp_(self.weights, (1 - self.decay) / (1 - self.rest))

    def show(self) -> None:
        self.hidden.copy_(self.weights)
        self.weights.copy_(self.mean)

    def hide(self) -> None:
        self.weights.copy_(self.hidden)


# --- schedules: the learning rate as a share of `lr`, by the share of the steps that are done -----


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
