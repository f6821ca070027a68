"""What is written down of a training in its trial: plain JSON, everything a report needs."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")


class EpochFigures(Protocol):
    """training.Epoch, or the message that carries it: a figure a replicate."""

    @property
    def train_loss(self) -> list[float]: ...
    @property
    def train_accuracy(self) -> list[float]: ...
    @property
    def valid_loss(self) -> list[float]: ...
    @property
    def valid_accuracy(self) -> list[float]: ...
    @property
    def seconds(self) -> float: ...


def attributes(epochs: Sequence[EpochFigures], replicate: int, parameters: int) -> dict[str, Any]:
    """One replicate's curve, seconds, size, and whether it diverged (NaN and Inf become null)."""
    curve = {metric: [getattr(e, metric)[replicate] for e in epochs] for metric in METRICS}
    return {
        "parameters": parameters,
        "train_seconds": sum(epoch.seconds for epoch in epochs),
        "diverged": not all(map(math.isfinite, curve["train_loss"] + curve["valid_loss"])),
        "curve": {metric: [finite(v) for v in values] for metric, values in curve.items()},
    }


def finite(value: float) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None
