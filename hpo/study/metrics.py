"""The metrics of an epoch, as training gives them, messages carry them and trials store them."""

import base64
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The metrics of an epoch, one value per replicate.

    number: from 1. Training loss and accuracy are running means while the weights change. seconds:
    a replicate's share of the epoch's training and validation. diagnostics: {measure: one list per
    layer}, None if they were not asked for.
    """

    number: int
    train_loss: list[float]
    train_accuracy: list[float]
    valid_loss: list[float]
    valid_accuracy: list[float]
    seconds: float
    diagnostics: dict[str, list[list[float]] | None] | None = None

    def metrics(self) -> dict[str, Any]:
        """Returns these fields, to pass them on."""
        return {f.name: getattr(self, f.name) for f in fields(EpochMetrics)}


def fails_below(chance: float) -> float:
    """Returns the accuracy below which a network has learned nothing: two ninths of the way from a
    guess to 1, which is three times the guess among ten classes. chance: accuracy of a guess."""
    return round(chance + (1 - chance) * 2 / 9, 4)


def packed(right: NDArray[np.bool_]) -> str:
    """Returns a bit per image as base64: 1.7 kB for 10,000 images."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """Returns the bits of `count` images that `packed` wrote."""
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(bits, count=count).astype(bool)
