"""Summaries and paired differences against scipy's and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from hpo.analysis.statistics import estimate, summarize


def test_summary_of_known_values():
    summary = summarize([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert summary is not None
    assert (summary.n, summary.mean, summary.median) == (8, 5.0, 4.5)
    assert summary.sd == pytest.approx(math.sqrt(32 / 7))
    assert (summary.low, summary.high) == (2.0, 9.0)


def test_summary_leaves_out_what_is_not_finite():
    summary = summarize([1.0, math.nan, 3.0, math.inf])
    assert summary is not None
    assert (summary.n, summary.mean) == (2, 2.0)
    assert summarize([math.nan]) is None


def test_one_value_has_no_deviation():
    summary = summarize([1.0])
    assert summary is not None
    assert math.isnan(summary.sd)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_an_interval_over_folds_is_that_of_nadeau_and_bengio(folds: int):
    values = np.random.default_rng(folds).normal(90, 2, folds)
    found = estimate(values, share=1 / (folds - 1))
    error = math.sqrt((1 / folds + 1 / (folds - 1)) * values.var(ddof=1))
    ends = stats.t(folds - 1, values.mean(), error).interval(0.95)
    assert (found.low, found.high) == pytest.approx(ends)
    plain = estimate(values)
    assert (plain.low, plain.high) == pytest.approx(
        stats.t(folds - 1, values.mean(), stats.sem(values)).interval(0.95)
    )


def test_it_covers_where_folds_are_as_alike_as_they_assume():
    """They assume that two folds correlate by the share of rows that judge. Without the correction
    the interval covers too seldom."""
    rng, folds, draws = np.random.default_rng(0), 5, 4000
    common = math.sqrt(1 / folds) * rng.normal(size=(draws, 1))
    values = common + math.sqrt(1 - 1 / folds) * rng.normal(size=(draws, folds))

    def covered(share: float) -> float:
        found = [estimate(row, share=share) for row in values]
        return float(np.mean([each.low < 0 < each.high for each in found]))

    assert covered(1 / (folds - 1)) == pytest.approx(0.95, abs=0.015)
    assert covered(0.0) < 0.88
