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


def generators(seeds: Sequence[int], device: torch.device) -> list[torch.Generator]:
    """Returns a generator per replicate. seeds: of the batch order."""
    return [torch.Generator(device).manual_seed(OFFSET + seed) for seed in seeds]


class Dropout:
    """Sets a share of the values to 0 and divides the others by the rest, as torch.nn.Dropout does.

    mask: (R, B, units): 0, or 1 / (1 - share).
    """

    def __init__(
        self, share: float, shape: Sequence[int], drawn_by: Sequence[torch.Generator]
    ) -> None:
        self.kept = 1 - share
        self.generators = drawn_by
        self.mask = torch.zeros(*shape, device=drawn_by[0].device)

    def draw(self) -> Tensor:
        """Draws and returns the mask."""
        for mask, generator in zip(self.mask, self.generators, strict=True):
            mask.bernoulli_(self.kept, generator=generator)
        return self.mask.div_(self.kept)


class InputNoise:
    """Normal noise of a standard deviation, (R, B, features)."""

    def __init__(
        self, std: float, shape: Sequence[int], drawn_by: Sequence[torch.Generator]
    ) -> None:
        self.std = std
        self.generators = drawn_by
        self.values = torch.zeros(*shape, device=drawn_by[0].device)

    def draw(self) -> Tensor:
        """Draws and returns the noise."""
        for values, generator in zip(self.values, self.generators, strict=True):
            values.normal_(0.0, self.std, generator=generator)
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
