"""Summaries and paired differences against scipy's and by hand."""

import math

import numpy as np
import pytest
import scipy.stats

from hpo.analysis.statistics import paired_difference, summarize


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


def test_paired_difference_is_scipys_paired_t_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 10), rng.normal(0, 1, 10)
    ours = paired_difference(a.tolist(), b.tolist())
    theirs = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.mean == pytest.approx((a - b).mean())


def test_a_single_pair_resolves_nothing():
    difference = paired_difference([2.0], [1.0])
    assert difference.mean == 1.0
    assert not difference.resolved


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference([1.0, 2.0], [1.0])
