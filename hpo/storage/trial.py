"""What a trial stores of its training: plain JSON, everything that a report needs."""

import math
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial

from hpo.study.metrics import METRICS, EpochMetrics

# A hundred times the loss of a guess among ten classes: nothing useful comes after it.
USELESS_LOSS = 230.0
WORST = 0.0  # a diverged trial's value: finite, so that samplers learn from it
RIGHT = "right"  # system attribute: {test or valid: which images are right, see
# study.metrics.packed}
PROBABILITIES = "probabilities"  # system attribute of a finalist: of the test images
NO_EPOCH = "ended no epoch within its time limit"  # why a trial FAILs, then the limit
# Why trials FAIL that the next run trains again.
KILLED, STOPPED, OUT_OF_TIME = "interrupted: its run was killed", "stopped", "out of time"


def attributes(epochs: Sequence[EpochMetrics], replicate: int) -> dict[str, Any]:
    """Returns one replicate's curve (NaN and Inf as null), seconds, gap between the last training
    and validation accuracy, and whether it diverged, as 0 or 1: the dashboard sorts only numbers.
    """
    curve = {metric: [getattr(e, metric)[replicate] for e in epochs] for metric in METRICS}
    diagnostics = _diagnostics(epochs, replicate)
    return {
        "train_seconds": sum(epoch.seconds for epoch in epochs),
        "train_valid_gap": curve["train_accuracy"][-1] - curve["valid_accuracy"][-1],
        "diverged": int(any(diverged(epoch, replicate) for epoch in epochs)),
        "curve": {metric: [finite(v) for v in values] for metric, values in curve.items()},
        **({"diagnostics": diagnostics} if diagnostics else {}),
    }


def _diagnostics(
    epochs: Sequence[EpochMetrics], replicate: int
) -> dict[str, list[list[float | None]]]:
    """Returns {measure: figures per epoch and layer}, to four digits; empty without diagnostics."""
    curves: dict[str, list[list[float | None]]] = {}
    for epoch in epochs:
        for measure, layers in (epoch.diagnostics or {}).items():
            if layers is not None:
                figures = [finite(float(f"{layer[replicate]:.4g}")) for layer in layers]
                curves.setdefault(measure, []).append(figures)
    return curves


def diverged(epoch: EpochMetrics, replicate: int) -> bool:
    """Whether a loss of the epoch is NaN, infinite, or at least USELESS_LOSS."""
    losses = (epoch.train_loss[replicate], epoch.valid_loss[replicate])
    return not all(loss < USELESS_LOSS for loss in losses)


def accuracy_of(trial: FrozenTrial) -> float:
    """Returns a trial's first value; 0 without one."""
    return trial.values[0] if trial.values else 0.0


def finite(value: float) -> float | None:
    """Returns the value, or None for NaN and Inf, which JSON does not have."""
    return value if math.isfinite(value) else None
