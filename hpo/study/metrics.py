"""The metrics of an epoch, as training gives them, messages carry them and trials store them."""

import base64
import zlib
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


def packed_shares(shares: NDArray[np.floating[Any]]) -> str:
    """Returns probabilities (images, classes), rounded to 1/255, compressed as base64: about 20 kB
    for 10,000 images of a network that is sure of most."""
    levels = np.round(np.asarray(shares) * 255).astype(np.uint8)
    return base64.b64encode(zlib.compress(levels.tobytes())).decode()


def unpacked_shares(text: str, classes: int) -> NDArray[np.float64]:
    """Returns the probabilities that packed_shares wrote."""
    levels = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return levels.reshape(-1, classes) / 255


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """Returns the bits of `count` images that `packed` wrote."""
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(bits, count=count).astype(bool)
