"""Measures of training that tell why a network fails: gradients, steps, quiet units."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.language import marked, t
from hpo.results.study import StoredGrid
from hpo.study.file import Cell

# Conventions of ours: a gradient has vanished where the first layer's is under a hundredth of the
# last one's; steps are too long where they are ten times those of a network that learns.
VANISHED = 0.01
TOO_LONG = 10.0
RULE_OF_THUMB = 0.001  # update over weight: https://cs231n.github.io/neural-networks-3/#ratio
# measure: what is said of the network that fails, and of it beside the one that learns.
QUIET = {
    "dead": (
        marked("At the end {share:.0f}% of its worst layer's units are dead (medians)."),
        marked(
            "At the end {share:.0f}% of its worst layer's units are dead, against {other:.0f}% in "
            "{beside} (medians)."
        ),
    ),
    "saturated": (
        marked("At the end {share:.0f}% of its worst layer's outputs are saturated (medians)."),
        marked(
            "At the end {share:.0f}% of its worst layer's outputs are saturated, against "
            "{other:.0f}% in {beside} (medians)."
        ),
    ),
}

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
            return t("It is seen with every seed")
        if not self.count:
            return t("It is not seen")
        return t("It is seen with {k} of {n} seeds", k=self.count, n=self.n)


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
    norms = [measures["gradient_norm"][:, 0] for measures in (ours, theirs)]
    with np.errstate(divide="ignore", invalid="ignore"):  # a network that is dead, or not finite
        shares, others = (np.asarray(norm[:, 0] / norm[:, -1]) for norm in norms)
    text = marked(
        "in epoch 1 the gradient of {network}'s first layer has {share} of its last layer's norm; "
        "in {beside}, which works, it has {other}. Under {limit:g} counts as vanished here."
    )
    names = {"network": cell.label, "beside": beside.label}
    text = t(text, share=_range(shares), other=_range(others), limit=VANISHED, **names)
    works = _median(others) >= VANISHED
    return Seen(count=int((shares < VANISHED).sum()) if works else 0, n=len(shares), text=text)


def too_long(ours: Measures, theirs: Measures, cell: Cell, beside: Cell) -> Seen:
    """Whether the longest step in epoch 1 is TOO_LONG times that of the network that learns; and
    the state of the units at the end."""
    # A step that is not finite is one without bound: the run diverged.
    steps, others = (
        np.nan_to_num(measures["largest_update"][:, 0], nan=np.inf, posinf=np.inf).max(axis=1)
        for measures in (ours, theirs)
    )
    text = marked(
        "in epoch 1 the longest step measured changes a layer of {network} by {step} times its "
        "weights' norm; in {beside}, which works, by {other}. (A rule of thumb for all steps is "
        "{thumb:g}.) {times:g} times as much counts as too long here."
    )
    known = {"network": cell.label, "beside": beside.label, "step": _range(steps)}
    text = t(text, other=_range(others), thumb=RULE_OF_THUMB, times=TOO_LONG, **known)
    text, usual = f"{text} {_quiet(ours, theirs, beside)}".strip(), _median(others)
    return Seen(count=int((steps > TOO_LONG * usual).sum()), n=len(steps), text=text)


def _quiet(ours: Measures, theirs: Measures, beside: Cell) -> str:
    """Describes dead or saturated units in the last epoch."""
    for measure, (alone, compared) in QUIET.items():
        if measure in ours:
            share = _worst_layer(ours[measure])
            if measure not in theirs:
                return t(alone, share=share)
            other = _worst_layer(theirs[measure])
            return t(compared, share=share, other=other, beside=beside.label)
    return ""


def _worst_layer(quiet: NDArray[np.float64]) -> float:
    """Returns the percentage of quiet units in the worst layer at the end, the seeds' median."""
    return 100 * float(np.median(quiet[:, -1].max(axis=1)))


def _median(values: NDArray[np.float64]) -> float:
    """Returns the median of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _range(values: NDArray[np.float64]) -> str:
    """0.0021 (0.0015 to 0.0034; 1 not finite): median and range over the seeds."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return t("no finite share")
    missing = len(values) - finite.size
    lost = t("; {n} not finite", n=missing) if missing else ""
    middle, low, high = (f"{v:.2g}" for v in (np.median(finite), finite.min(), finite.max()))
    if finite.size == 1:
        return f"{middle}{lost}"
    return t("{middle} ({low} to {high}{lost})", middle=middle, low=low, high=high, lost=lost)
