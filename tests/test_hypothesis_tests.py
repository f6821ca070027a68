"""Statements put to the test: against published figures, other libraries and simulation."""

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from hpo.analysis.hypothesis_tests import (
    Evidence,
    Verdict,
    greater,
    greater_unpaired,
    judge,
    prediction_interval,
)

# Student (1908), "The probable error of a mean": hours of sleep gained by two drugs.
SLEEP_A = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_B = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
# Darwin's maize (Fisher 1935, The Design of Experiments, section 21): eighths of an inch.
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def two_sided(found: Evidence) -> float:
    return 2 * min(found.p_for, found.p_against)


# --- one statement -----------------------------------------------------------------------------


def test_students_sleep():
    found = greater(SLEEP_A - SLEEP_B)
    assert found.test == "paired t"
    assert two_sided(found) == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((-2.459886, -0.7001142), abs=1e-6)
    assert found.p_against < 0.01 < found.p_for


def test_fishers_maize():
    """863 of 32768 flips give a sum as great as the one seen."""
    found = greater(MAIZE, bimodal=True)
    assert found.test == "sign flips"
    assert found.p_for == 863 / 32768
    assert found.effect == pytest.approx(314 / 15)


@pytest.mark.parametrize("n", [6, 10, 14])
def test_sign_flips_are_scipys_permutation_test(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    by_scipy = scipy.stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf,
        alternative="greater",
    )  # fmt: skip
    assert greater(differences, bimodal=True).p_for == pytest.approx(by_scipy.pvalue)


def test_many_sign_flips_are_sampled_and_come_close():
    differences = np.random.default_rng(1).normal(0.3, 1, 40)
    found = greater(differences, bimodal=True)
    assert found.p_for == pytest.approx(greater(differences).p_for, abs=0.01)
    again = greater(differences, bimodal=True)
    assert (found.p_for, found.low, found.high) == (again.p_for, again.low, again.high)


@pytest.mark.parametrize("bimodal", [False, True])
def test_an_interval_leaves_zero_out_where_its_test_rejects(bimodal):
    rng = np.random.default_rng(2)
    for n in (6, 8, 10):
        for _ in range(60):
            found = greater(rng.normal(0.6, 1, n), bimodal=bimodal)
            assert (found.low > 0) == (found.p_for <= 0.025)
            assert (found.high < 0) == (found.p_against <= 0.025)


def test_five_values_give_sign_flips_no_bound():
    found = greater([1.0, 2.0, 3.0, 4.0, 5.0], bimodal=True)
    assert (found.low, found.high, found.p_for) == (-np.inf, np.inf, 1 / 32)


def test_values_all_alike_are_no_certainty():
    assert greater([0.5, 0.5]).p_for == 0.25
    found = greater([0.0, 0.0, 0.0])
    assert (found.test, found.low, found.high, found.p_for) == ("", 0.0, 0.0, 1.0)


def test_one_value_tests_nothing():
    for found in (greater([2.0]), greater_unpaired([1.0], [2.0])):
        assert (found.test, found.p_for, found.p_against) == ("", 1.0, 1.0)
        assert np.isnan(found.low)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf, 1.0]])
def test_what_is_not_finite_is_refused(values):
    with pytest.raises(ValueError, match="needs finite values"):
        greater(values)


def test_a_single_value_of_a_bimodal_side_is_not_tested():
    found = greater_unpaired([1.0], [2.0, 3.0], bimodal=True)
    assert (found.n, found.test, found.p_for) == (3, "", 1.0)


def test_unpaired_is_students_test_for_two_samples():
    found = greater_unpaired(SLEEP_A, SLEEP_B[:7])
    by_scipy = scipy.stats.ttest_ind(SLEEP_A, SLEEP_B[:7])
    interval = by_scipy.confidence_interval()
    assert two_sided(found) == pytest.approx(by_scipy.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_one_more_run_falls_into_its_interval_19_times_of_20():
    rng = np.random.default_rng(4)
    hits = []
    for values in rng.normal(0, 1, (4000, 6)):
        low, high = prediction_interval(values[:5])
        hits.append(low <= values[5] <= high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.01)
    assert np.isnan(prediction_interval([1.0])).all()


# --- many statements ---------------------------------------------------------------------------


def test_holms_correction_by_hand():
    """0.01, 0.02 and 0.04 become 0.03, 0.04 and 0.04."""
    found = judge([(0.02, 0.98), (0.96, 0.04), (0.01, 0.99)])
    assert [of.p for of in found] == pytest.approx([0.04, 0.04, 0.03])
    assert [of.verdict for of in found] == [Verdict.HOLDS, Verdict.REFUTED, Verdict.HOLDS]
    assert [of.factor for of in found] == [2, 1, 3]
    assert judge([]) == []


def test_holms_correction_is_that_of_statsmodels():
    p_values = np.random.default_rng(0).uniform(0, 0.1, (12, 3))
    doubled = [min(1.0, 2 * min(each)) for each in p_values]
    by_statsmodels = multipletests([*doubled, 1.0, 1.0], method="holm")[1]
    found = judge(p_values, more=2)
    assert [of.p for of in found] == pytest.approx(by_statsmodels[:12])


def test_a_small_difference_is_a_verdict_of_its_own():
    [found] = judge([(0.3, 0.6, 0.001)])
    assert (found.verdict, found.p, found.factor) == (Verdict.TOO_SMALL, 0.002, 2)


def null_study(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Ten comparisons of two stored studies whose networks are alike: paired, unpaired, and of
    networks that fail or learn by the toss of a coin."""
    runs = np.where(rng.random((6, 10)) < 0.5, 0.1, 0.96) + rng.normal(0, 0.002, (6, 10))
    found = [greater(rng.normal(0, 1, 10)) for _ in range(5)]
    found += [greater(a - b, bimodal=True) for a, b in zip(runs[::2], runs[1::2], strict=True)]
    found += [greater_unpaired(rng.normal(0, 1, 10), rng.normal(0, 1, 2)) for _ in range(2)]
    return [(2 * f.p_for, 2 * f.p_against) for f in found]  # both directions are wrong


def test_at_most_one_null_study_in_twenty_has_a_false_verdict(amount):
    studies = amount(200, 2000)
    rng = np.random.default_rng(5)
    found = [judge(null_study(rng)) for _ in range(studies)]
    false = sum(any(of.verdict is not Verdict.UNRESOLVED for of in judged) for judged in found)
    assert 0 < false <= 0.05 * studies
