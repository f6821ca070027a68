"""The metrics of an epoch, as training gives them, messages carry them and trials store them."""

import base64
import zlib
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")


# --- what is stored of a trial -----------------------------------------------------------------


class TrialAttributes(TypedDict, total=False):
    """The user attributes of a trial.

    seeds: how many seeds its value is the mean of. first: the entry of [[search.first]] that it
    comes from. over_limit: 1 if its time limit ended it. For the others see storage.trial and
    runs.loop.
    """

    cell: str
    seed: int
    seeds: int
    stack: int
    first: str
    parameters: int | None
    fail_reason: str
    curve: dict[str, list[float | None]]
    diagnostics: dict[str, list[list[float | None]]]
    train_seconds: float
    train_valid_gap: float
    diverged: int
    over_limit: int
    valid_by_seed: list[float]
    test_loss: float | None
    test_accuracy: float
    test_balanced_accuracy: float
    test_recall: list[float | None]
    mistakes: dict[str, Any]


TRIAL_COLUMNS = (
    "number", "state", "cell", "seed", "depth", "width", "activation", "optimizer", "lr",
    "batch_size", "epochs", *METRICS, "test_loss", "test_accuracy", "train_seconds", "diverged",
    "momentum", "nesterov", "weight_decay", "schedule", "parameters", "stack", "started",
    "ended", "fail_reason",
)  # fmt: skip
SOME_COLUMNS = ("test_balanced_accuracy", "over_limit")  # of studies that have them
PARAMS = "params"  # the names of the hyperparameters that a row of trials has a value of
# Hyperparameters of one's own network are columns beside these, so they cannot be called so.
RESERVED = {*TRIAL_COLUMNS, *SOME_COLUMNS, *TrialAttributes.__annotations__, PARAMS}


# --- metrics -----------------------------------------------------------------------------------


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
