"""Summaries and paired differences against scipy's and by hand."""

import math

import pytest

from hpo.analysis.statistics import summarize


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
