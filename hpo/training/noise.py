"""The noise of training: dropout and noise on the inputs, drawn for each replicate by itself."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Added to the seed of the batch order. torch's generator takes the lower 32 bits of a seed.
OFFSET = 2**31


class Noise:
    """Values of a tensor's shape, (R, B, units), that are drawn anew for each step.

    amount: of dropout, the share of the values to drop; of noise, the standard deviation.
    """

    def __init__(
        self, amount: float, shape: Sequence[int], drawn_by: Sequence[torch.Generator]
    ) -> None:
        self.amount, self.generators = amount, drawn_by
        self.values = torch.zeros(*shape, device=drawn_by[0].device)

    def dropout(self) -> Tensor:
        """Draws and returns 0 or 1 / (1 - share), as torch.nn.Dropout does."""
        for values, generator in zip(self.values, self.generators, strict=True):
            values.bernoulli_(1 - self.amount, generator=generator)
        return self.values.div_(1 - self.amount)

    def normal(self) -> Tensor:
        """Draws and returns normal noise."""
        for values, generator in zip(self.values, self.generators, strict=True):
            values.normal_(0.0, self.amount, generator=generator)
        return self.values


class Generators:
    """States of the generators that the user's own network draws from: Python's, NumPy's and
    torch's global ones. They are kept apart from those of the process and of other replicates."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
        before = self._current()
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        self.states = self._current()
        self._set(before)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within it, the global generators draw from these states, which go on."""
        before = self._current()
        self._set(self.states)
        try:
            yield
        finally:
            self.states = self._current()
            self._set(before)

    def _current(self) -> tuple[Any, Any, Tensor, Tensor | None]:
        device = self.device.get_rng_state() if self.device else None
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), device  # noqa: NPY002

    def _set(self, states: tuple[Any, Any, Tensor, Tensor | None]) -> None:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if self.device:
            self.device.set_rng_state(states[3])

    def next_draws(self) -> dict[str, float]:
        """Draws a number of each generator. Returns {what seeds the generator: number}."""
        with self.used():
            return {
                "torch.manual_seed": torch.rand((), dtype=torch.float64).item(),
                "numpy.random.seed": np.random.random(),  # noqa: NPY002
                "random.seed": random.random(),
            }
