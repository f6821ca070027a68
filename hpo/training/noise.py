"""The noise of training: dropout and noise on the inputs, drawn for each replicate by itself."""

from collections.abc import Sequence

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
