"""Numbers in words and in tables: means, spreads, intervals, ends of intervals."""

import math

from hpo.analysis.statistics import Estimate, Summary
from hpo.language import marked, printed, t
from hpo.report.blocks.table import NOTHING, Entry
from hpo.results.study import StoredGrid, StoredStudy
from hpo.study.metrics import ACCURACY, BY_NAME, Metric

STATES = {
    "COMPLETE": marked("complete"),
    "PRUNED": marked("pruned"),
    "FAIL": marked("failed"),
    "STOPPED": marked("stopped"),
    "RUNNING": marked("running"),
}


def grid_states_text(study: StoredGrid) -> str:
    """80 complete, 2 stopped: the states of a grid's trainings; empty without any."""
    counts = study.trials["state"].mask(study.stopped, "STOPPED").value_counts()
    known = {text: counts[state] for state, text in STATES.items() if state in counts}
    return ", ".join(t("{n} {state}", n=n, state=t(text)) for text, n in known.items())


def summary_text(summary: Summary, digits: int, *, collapsed: bool = False) -> str:
    """mean ± standard deviation, or median (range) where runs fail; one value as it is."""
    keys = ("mean", "sd", "median", "low", "high")
    texts = {key: printed(f"{{:.{digits}f}}", getattr(summary, key) + 0.0) for key in keys}
    if summary.n == 1:
        return texts["mean"]
    if collapsed:
        return t("median {median} ({low}–{high})", **texts)
    return f"{texts['mean']} ± {texts['sd']}"


def interval_entry(estimate: Estimate | None, metric: Metric = BY_NAME[ACCURACY]) -> Entry:
    """98.54 (98.49 to 98.58): a mean gain with its interval."""
    if estimate is None:
        return Entry(NOTHING)
    mean, value = metric.number(estimate.mean), metric.sign * estimate.mean
    if estimate.n == 1:
        return Entry(mean, value)
    text = marked("{mean} ({low} to {high})")
    return Entry(t(text, mean=mean, **metric.ends(estimate.low, estimate.high)), value)


def span_entry(metric: Metric, low: float, high: float) -> Entry:
    """98.49 to 98.58: an interval of gains, nothing if it is NaN."""
    if math.isnan(low):
        return Entry(NOTHING)
    ends, worst = metric.ends(low, high), metric.gain(metric.worst)
    text = t("{first} to {last}", first=ends["low"], last=ends["high"])
    return Entry(text, min(metric.sign * min(max(e, worst), metric.most) for e in (low, high)))


def ends_entry(text: str, low: float, high: float) -> Entry:
    """98.49 to 98.58: an interval alone, nothing if it is NaN. text: its message."""
    return Entry(NOTHING) if math.isnan(low) else Entry(t(text, low=low, high=high), low)


def p_text(p: float) -> str:
    """0.024; < 0.001; 1 from 0.9995 on."""
    return "< 0.001" if p < 0.001 else "1" if p >= 0.9995 else f"{p:.3f}"


def guess_text(study: StoredStudy) -> str:
    """; a guess, always the largest class, gets 95.72%: the end of a report's first sentence."""
    metric, accuracy = study.metric.tested, BY_NAME[ACCURACY].tested
    if study.regression:
        text = marked("; a guess, always the training rows' mean, gets {value}")
        if metric.kind == "mae":
            text = marked("; a guess, always the training rows' median, gets {value}")
        guess = metric.guess(study.data)
        named = isinstance(study, StoredGrid)  # a search's sentence has named the metric before
        return t(text, value=metric.text(guess) if named else metric.spelled(metric.gain(guess)))
    value, share = (of.spelled(of.gain(of.guess(study.data))) for of in (metric, accuracy))
    text = marked("; a guess gets {value}, with test accuracy {share} (always the largest class)")
    if metric == accuracy:
        text = marked("; a guess, always the largest class, gets {share}")
    return t(text, value=value, share=share)


def spelled_estimate(estimate: Estimate, metric: Metric) -> str:
    """98.54% (95% interval 98.49 to 98.58, 5 fresh seeds)."""
    mean = metric.spelled(estimate.mean)
    if estimate.n == 1:
        return t("{mean} with a single seed", mean=mean)
    text = marked("{mean} (95% interval {low} to {high}, {n} fresh seeds)")
    return t(text, mean=mean, n=estimate.n, **metric.ends(estimate.low, estimate.high))
