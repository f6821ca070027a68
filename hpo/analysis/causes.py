"""Measures of training that tell why a network fails: gradients, steps, quiet units."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.storage.results import StoredGrid
from hpo.study.file import Cell

# Conventions of ours: a gradient has vanished where the first layer's is under a hundredth of the
# last one's; steps are too long where they are ten times those of a network that learns.
VANISHED = 0.01
TOO_LONG = 10.0
RULE_OF_THUMB = 0.001  # update over weight: https://cs231n.github.io/neural-networks-3/#ratio

Measures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A cause that was looked for: in how many of n seeds it is seen, and in words."""

    count: int
    n: int
    text: str

    @property
    def verdict(self) -> str:
        if self.count == self.n:
            return "It is seen with every seed"
        return f"It is seen with {self.count} of {self.n} seeds" if self.count else "It is not seen"


def measured(study: StoredGrid, cell: Cell) -> Measures:
    """Returns {measure: (seeds, epochs, layers)} of the cell's finished trials, NaN where a figure
    was not finite; empty without diagnostics."""
    stored = [study.frozen[int(n)].user_attrs.get("diagnostics") for n in study.of(cell)["number"]]
    there: list[dict[str, Any]] = [diagnostics for diagnostics in stored if diagnostics]
    if not there:
        return {}
    return {measure: np.array([f[measure] for f in there], float) for measure in there[0]}


def vanishing(ours: Measures, theirs: Measures, cell: Cell, beside: Cell) -> Seen:
    """Whether in epoch 1 the gradient of the first layer vanishes beside that of the last layer,
    while it does not in the network that learns."""
    shares, others = (_first_over_last(of) for of in (ours, theirs))
    text = (
        f"in epoch 1 the gradient of {cell.label}'s first layer has {_range(shares)} of its last "
        f"layer's norm; in {beside.label}, which works, it has {_range(others)}. Under "
        f"{VANISHED:g} counts as vanished here."
    )
    works = _median(others) >= VANISHED
    return Seen(count=int((shares < VANISHED).sum()) if works else 0, n=len(shares), text=text)


def _first_over_last(of: Measures) -> NDArray[np.float64]:
    first = of["gradient_norm"][:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):  # a network that is dead, or not finite
        return np.asarray(first[:, 0] / first[:, -1])


def too_long(ours: Measures, theirs: Measures, cell: Cell, beside: Cell) -> Seen:
    """Whether the longest step in epoch 1 is TOO_LONG times that of the network that learns; and
    the state of the units at the end."""
    steps, others = (_longest(of["largest_update"][:, 0]) for of in (ours, theirs))
    text = (
        f"in epoch 1 the longest step measured changes a layer of {cell.label} by {_range(steps)} "
        f"times its weights' norm; in {beside.label}, which works, by {_range(others)}. (A rule of "
        f"thumb for all steps is {RULE_OF_THUMB:g}.) {TOO_LONG:g} times as much counts as too long "
        "here."
    )
    text += _quiet(ours, theirs, beside)
    usual = _median(others)
    return Seen(count=int((steps > TOO_LONG * usual).sum()), n=len(steps), text=text)


def _longest(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns each seed's longest step over the layers; infinite if one was not finite, which is a
    step without bound: the run diverged."""
    return np.asarray(np.where(np.isnan(steps), np.inf, steps).max(axis=1))


def _quiet(ours: Measures, theirs: Measures, beside: Cell) -> str:
    """Describes dead or saturated units in the last epoch."""
    for measure, words in (("dead", "units are dead"), ("saturated", "outputs are saturated")):
        if measure in ours:
            last = np.median(ours[measure][:, -1].max(axis=1))
            text = f" At the end {100 * last:.0f}% of its worst layer's {words}"
            if measure in theirs:
                other = np.median(theirs[measure][:, -1].max(axis=1))
                text += f", against {100 * other:.0f}% in {beside.label}"
            return f"{text} (medians)."
    return ""


def _median(values: NDArray[np.float64]) -> float:
    """Returns the median of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _range(values: NDArray[np.float64]) -> str:
    """0.0021 (0.0015 to 0.0034; 1 not finite): median and range over the seeds."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "no finite share"
    lost = f"; {len(values) - finite.size} not finite" if finite.size < len(values) else ""
    middle, low, high = (f"{v:.2g}" for v in (np.median(finite), finite.min(), finite.max()))
    return middle + lost if finite.size == 1 else f"{middle} ({low} to {high}{lost})"
