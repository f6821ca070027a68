"""Numbers in words and in tables: means, spreads, intervals, ends of intervals."""

import math

from hpo.analysis.statistics import Estimate, Summary
from hpo.language import marked, t
from hpo.report.blocks.table import NOTHING, Entry


def bounded(percent: float) -> float:
    """Returns an end of an accuracy's interval as it is shown: not below 0%, not above 100%."""
    return min(max(percent, 0.0), 100.0)


def summary_text(summary: Summary, digits: int, *, collapsed: bool = False) -> str:
    """mean ± standard deviation, or median (range) where runs fail; one value as it is."""
    if summary.n == 1:
        return f"{summary.mean:.{digits}f}"
    if collapsed:
        texts = {key: f"{getattr(summary, key):.{digits}f}" for key in ("median", "low", "high")}
        return t("median {median} ({low}–{high})", **texts)
    return f"{summary.mean:.{digits}f} ± {summary.sd:.{digits}f}"


def interval_entry(estimate: Estimate | None) -> Entry:
    """98.54 (98.49 to 98.58): a mean in percent with its interval."""
    if estimate is None:
        return Entry(NOTHING)
    if estimate.n == 1:
        return Entry(f"{estimate.mean:.2f}", estimate.mean)
    text = marked("{mean:.2f} ({low:.2f} to {high:.2f})")
    low, high = bounded(estimate.low), bounded(estimate.high)
    return Entry(t(text, mean=estimate.mean, low=low, high=high), estimate.mean)


def ends_entry(text: str, low: float, high: float) -> Entry:
    """98.49 to 98.58: an interval alone, nothing if it is NaN. text: its message."""
    return Entry(NOTHING) if math.isnan(low) else Entry(t(text, low=low, high=high), low)


def p_text(p: float) -> str:
    """0.024; < 0.001; 1 from 0.9995 on."""
    return "< 0.001" if p < 0.001 else "1" if p >= 0.9995 else f"{p:.3f}"


def spelled_estimate(estimate: Estimate) -> str:
    """98.54% (95% interval 98.49 to 98.58, 5 fresh seeds)."""
    if estimate.n == 1:
        return t("{mean:.2f}% with a single seed", mean=estimate.mean)
    text = marked("{mean:.2f}% (95% interval {low:.2f} to {high:.2f}, {n} fresh seeds)")
    ends = {"low": bounded(estimate.low), "high": bounded(estimate.high)}
    return t(text, mean=estimate.mean, n=estimate.n, **ends)
