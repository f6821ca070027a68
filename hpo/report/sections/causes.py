"""The report's section on causes: whether the diagnostics show what a publication presumes."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.language import marked, t
from hpo.report.blocks.grid_tables import data_text
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.figures import causes as figures
from hpo.results.study import StoredGrid
from hpo.study.claims import Cause
from hpo.study.config import Config
from hpo.study.file import Cell

# Conventions of ours: a gradient has vanished where the first layer's is under a hundredth of the
# last one's; steps are too long where they are ten times those of a network that learns.
VANISHED = 0.01
TOO_LONG = 10.0
RULE_OF_THUMB = 0.001  # update over weight: https://cs231n.github.io/neural-networks-3/#ratio
# measure: what is counted.
UNITS = {"dead": marked("dead units"), "saturated": marked("saturated outputs")}

Floats = NDArray[np.float64]
Measures = dict[str, Floats]


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on presumed causes: what was presumed, whether it is seen, a figure."""
    blocks = [block for cause in study.file.causes for block in _blocks(study, cause)]
    return [Section(title=t("Why networks fail"), blocks=blocks)] if blocks else []


def _blocks(study: StoredGrid, cause: Cause) -> list[Block]:
    cell, works = (study.cell(name) for name in (cause.cell, cause.beside))
    where = f" ({cause.where})" if cause.where else ""
    quotation = f"“{t(cause.quote)}”{where}"
    if not cause.quote:
        quotation = f"{cell.label}: {t(cause.presumes)}{where}."
    ours, theirs = (_measured(study, each) for each in (cell, works))
    if not ours or not theirs:
        missing = marked(
            "There are no diagnostics of {network}, so this cannot be checked: it was trained "
            "without `diagnostics = true`, or none of its runs has finished."
        )
        return [f"{quotation} {t(missing, network=(works if ours else cell).label)}"]
    names = {"network": cell.label, "beside": works.label}
    if cause.presumes == "vanishing gradients":
        sentences = [_vanishing(ours, theirs, **names)]
    else:
        units = _units(_ends(study, cell), _ends(study, works), **names)
        steps = _too_long(ours, theirs, **names)
        sentences = [steps, *units, _intervention(study, cell)]
    alt = marked(
        "Gradients, updates and quiet units of {network} beside {other}, by epoch and layer."
    )
    caption = marked("Of each layer, the median over the seeds after each epoch. {data}.")
    picture = Picture(
        file=f"causes-{cause.cell}.svg",
        draw=partial(figures.causes, [(cell.label, ours), (works.label, theirs)]),
        alt=t(alt, network=cell.label, other=works.label),
        caption=t(caption, data=data_text(study)),
    )
    return [" ".join([quotation, *sentences]), picture]


def _measured(study: StoredGrid, cell: Cell) -> Measures:
    """Returns {measure: (seeds, epochs, layers)} of the cell's finished trials, NaN where a number
    was not finite; empty without diagnostics. A training that ended early stays as it ended."""
    found = [trial["diagnostics"] for trial in _diagnosed(study, cell)]
    names = found[0] if found else {}
    longest = max((len(measures[name]) for measures in found for name in names), default=0)
    return {
        name: np.array([m[name] + m[name][-1:] * (longest - len(m[name])) for m in found], float)
        for name in names
    }


def _ends(study: StoredGrid, cell: Cell) -> Measures:
    """Returns {measure: (seeds, layers)} as _measured, after the epoch that counts."""
    found = _diagnosed(study, cell)
    places = [trial["kept"]["epoch"] - 1 if "kept" in trial else -1 for trial in found]
    names = found[0]["diagnostics"] if found else {}
    pairs = list(zip(found, places, strict=True))
    return {name: np.array([t["diagnostics"][name][p] for t, p in pairs], float) for name in names}


def _diagnosed(study: StoredGrid, cell: Cell) -> list[dict[str, Any]]:
    """Returns the attributes of the cell's finished trials that have diagnostics."""
    stored = [study.frozen[int(number)].user_attrs for number in study.of(cell)["number"]]
    return [attributes for attributes in stored if attributes.get("diagnostics")]


def _vanishing(ours: Measures, theirs: Measures, **names: str) -> str:
    """Says whether in epoch 1 the gradient of the first layer vanishes beside that of the last
    layer, while it does not in the network that learns."""
    norms = [measures["gradient_norm"][:, 0] for measures in (ours, theirs)]
    with np.errstate(divide="ignore", invalid="ignore"):  # a network that is dead, or not finite
        shares, others = (np.asarray(norm[:, 0] / norm[:, -1]) for norm in norms)
    text = marked(
        "in epoch 1 the gradient of {network}'s first layer has {share} of its last layer's norm; "
        "in {beside}, which works, it has {other}. Under {limit:g} counts as vanished here."
    )
    text = t(text, share=_range(shares), other=_range(others), limit=VANISHED, **names)
    seen = (shares < VANISHED) & (_median(others) >= VANISHED)
    return f"{_verdict(seen)}: {text}"


def _too_long(ours: Measures, theirs: Measures, **names: str) -> str:
    """Says whether the longest step in epoch 1 is TOO_LONG times that of one that learns."""
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
    known = {"step": _range(steps), "other": _range(others), **names}
    text = t(text, thumb=RULE_OF_THUMB, times=TOO_LONG, **known)
    return f"{_verdict(steps > TOO_LONG * _median(others))}: {text}"


def _units(ours: Measures, theirs: Measures, **names: str) -> list[str]:
    """Says how many percent of the worst layer's units do nothing at the end."""
    for measure, counted in UNITS.items():
        if measure in ours and measure in theirs:
            share, other = (_percent(m[measure].max(axis=1)) for m in (ours, theirs))
            text = marked(
                "At the end the share of {units} in its worst layer is {share}, against {other} "
                "in {beside} (medians)."
            )
            return [t(text, share=share, other=other, units=t(counted), **names)]
    return []


def _percent(values: Floats) -> str:
    """25% (2 not finite): the median of the seeds whose shares are finite, and how many are not."""
    missing = int((~np.isfinite(values)).sum())
    if missing == len(values):
        return t("not finite")
    middle = f"{100 * _median(values):.0f}%"
    return t("{share} ({n} not finite)", share=middle, n=missing) if missing else middle


def _verdict(seen: NDArray[np.bool_]) -> str:
    """Says with how many seeds a cause is seen."""
    if seen.all():
        return t("It is seen with every seed")
    if not seen.any():
        return t("It is not seen")
    return t("It is seen with {k} of {n} seeds", k=int(seen.sum()), n=len(seen))


def _median(values: Floats) -> float:
    """Returns the median of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _range(values: Floats) -> str:
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


def _intervention(study: StoredGrid, cell: Cell) -> str:
    """Looks for a cell that differs only by a lower learning rate and learns: only such an
    intervention proves the cause."""
    for other in study.file.cells:
        same = _without_lr(other.config) == _without_lr(cell.config)
        learns = len(study.of(other)) and not study.fails(other)
        if same and learns and other.config.lr < cell.config.lr:
            return t("At {lr:g} the same network learns with every seed.", lr=other.config.lr)
    return t("Only a run at a lower rate would prove it the cause; this study has none.")


def _without_lr(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.as_dict().items() if key != "lr"}
