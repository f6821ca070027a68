"""Evidence that may be looked at after every seed: against quadrature, tables and simulation."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from hpo.analysis import evidence
from hpo.analysis.evidence import mean_above, mean_within, mostly, mostly_above


def by_quadrature(values: np.ndarray) -> float:
    """The mixture of noncentral t over a half-normal effect, without the closed form; R's safestats
    integrates the same for type eGauss with g = 1."""
    n, degrees = len(values), len(values) - 1
    t = values.mean() / values.std(ddof=1) * math.sqrt(n)

    def ratio(effect: float) -> float:
        likelihoods = stats.nct.logpdf(t, degrees, effect * math.sqrt(n)) - stats.t.logpdf(
            t, degrees
        )
        return float(2 * stats.norm.pdf(effect) * math.exp(likelihoods))

    return float(integrate.quad(ratio, 0, np.inf, epsabs=1e-13, epsrel=1e-12)[0])


# --- means -------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [-0.5, 0.0, 0.7, 3.0])
def test_the_evidence_on_a_mean_is_the_mixture_of_noncentral_t(effect):
    values = np.random.default_rng(1).normal(effect, 1, 12)
    found = mean_above(values)
    for n in (2, 3, 6, 12):
        assert found.path_for[n - 1] == pytest.approx(by_quadrature(values[:n]), rel=1e-9)
        assert found.path_against[n - 1] == pytest.approx(by_quadrature(-values[:n]), rel=1e-9)


def test_both_sides_make_the_two_sided_mixture():
    """E = sqrt(φ/(φ+n)) · [(1 + t²/ν) / (1 + φ/(φ+n) · t²/ν)]^(n/2), φ = 1, ν = n - 1."""
    values = np.random.default_rng(2).normal(0.4, 1, 9)
    n, share = 9, 1 / 10
    t = values.mean() / values.std(ddof=1) * 3
    two_sided = math.sqrt(share) * ((1 + t**2 / 8) / (1 + share * t**2 / 8)) ** (n / 2)
    found = mean_above(values)
    assert (found.path_for[-1] + found.path_against[-1]) / 2 == pytest.approx(two_sided)


def test_scale_and_order_of_the_seeds_leave_the_last_evidence_as_it_is():
    values = np.random.default_rng(3).normal(0.5, 1, 10)
    plain = mean_above(values).path_for[-1]
    assert mean_above(1e-4 * values).path_for[-1] == pytest.approx(plain)
    assert mean_above(values[::-1]).path_for[-1] == pytest.approx(plain)


def test_an_interval_ends_where_the_two_sided_evidence_is_20():
    values = np.random.default_rng(4).normal(2, 1, 10)
    found = mean_above(values)
    for bound in (found.low, found.high):
        shifted = mean_above(values - bound)
        assert (shifted.path_for[-1] + shifted.path_against[-1]) / 2 == pytest.approx(20)
    assert mean_above(values[:3]).high == math.inf


def test_a_mean_within_a_margin_needs_both_ends():
    values = np.random.default_rng(5).normal(0.1, 0.3, 30)
    found = mean_within(values, 1.0)
    ends = mean_above(values + 1).p_for, mean_above(1 - values).p_for
    assert found.p_for == pytest.approx(max(ends))
    assert mean_within(values + 9, 1.0).p_against < 1e-6 < 0.5 < mean_within(values, 1.0).p_against


def test_a_difference_below_what_matters_is_shown_to_be_so():
    values = np.random.default_rng(6).normal(0, 0.001, 20)
    assert mean_above(values, matters=0.01).p_small < 1e-6
    assert mean_above(values).p_small == 1.0


@pytest.mark.parametrize("values", [[2.0], [0.5, 0.5, 0.5], [0.0, 0.0]])
def test_one_value_or_values_all_alike_test_nothing(values):
    found = mean_above(values)
    assert (found.test, found.p_for, found.p_against) == ("", 1.0, 1.0)
    assert math.isnan(found.low)


@pytest.mark.parametrize("test", [mean_above, lambda values: mean_within(values, 1.0)])
@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_values_that_are_not_finite_are_refused(test, values):
    with pytest.raises(ValueError, match="needs finite values"):
        test(values)


# --- shares ------------------------------------------------------------------------------------


def test_the_evidence_on_a_share_is_a_mixture_over_one_half_to_one():
    hits = [True] * 7 + [False] * 2
    mixed = integrate.quad(lambda p: 2 * p**7 * (1 - p) ** 2 / 0.5**9, 0.5, 1)[0]
    assert mostly(hits).path_for[-1] == pytest.approx(mixed)
    assert mostly([not hit for hit in hits]).path_against[-1] == pytest.approx(mixed)
    assert mostly([True] * 10).path_for[-1] == pytest.approx(2 * 1024 / 11 * (1 - 0.5**11))


def test_signs_count_infinite_differences_and_leave_out_zeros():
    found = mostly_above([1.0, math.inf, 0.0, -1.0, 2.0])
    assert (found.n, found.effect) == (5, 0.75)
    assert found.path_for[-1] == mostly([True, True, False, True]).path_for[-1]
    assert mostly_above([0.0, 0.0]).test == ""
    with pytest.raises(ValueError, match="no NaN"):
        mostly_above([math.nan])


def test_a_shares_interval_ends_where_the_mixture_is_20():
    low, high = evidence.share_interval(7, 10)
    for share in (low, high):
        mixed = integrate.quad(lambda p: p**7 * (1 - p) ** 3, 0, 1)[0]
        assert mixed / (share**7 * (1 - share) ** 3) == pytest.approx(20, rel=1e-6)
    assert evidence.share_interval(10, 10)[1] == 1.0
    assert math.isnan(evidence.share_interval(0, 0)[0])


def test_no_failure_in_ten_still_allows_a_quarter():
    """Clopper and Pearson: 1 - 0.05^(1/10) = 25.9%; 3 of 10: 60.7%."""
    assert evidence.most_failures(0, 10) == pytest.approx(1 - 0.05**0.1)
    assert evidence.most_failures(3, 10) == pytest.approx(0.6066, abs=1e-4)
    assert evidence.most_failures(4, 4) == 1.0


# --- the planned look --------------------------------------------------------------------------


def p_of_t(values: np.ndarray) -> float:
    """Student's one-sided test with one degree of freedom fewer, for skewed differences."""
    return float(stats.t.sf(stats.ttest_1samp(values, 0).statistic, len(values) - 2))


def test_a_planned_look_is_students_test_of_the_first_values_with_half_of_the_error():
    values = np.random.default_rng(10).normal(0.9, 1, 14)
    found = mean_above(values, matters=2.0, planned=10)
    p = p_of_t(values[:10])
    assert found.looks[:2] == pytest.approx((p, 1 - p))
    assert found.looks[2] == pytest.approx(p_of_t(2 - values[:10]))
    assert found.p_for == pytest.approx(min(2 * p, 2 / found.path_for.max()))
    plain = mean_above(values)
    assert (found.path_for == plain.path_for).all()


def test_before_the_planned_number_only_the_e_process_counts_with_its_half():
    values = np.random.default_rng(11).normal(2, 1, 6)
    found = mean_above(values, planned=0)
    assert found.p_for == pytest.approx(2 / mean_above(values).path_for.max())
    assert found.looks == (1.0, 1.0, 1.0)
    hits = [True] * 9
    assert mostly(hits, planned=0).p_for == pytest.approx(2 / mostly(hits).path_for.max())


def test_a_planned_look_at_shares_is_the_binomial_test():
    hits = [True] * 9 + [False] + [True] * 3
    found = mostly(hits, planned=10)
    assert found.looks[0] == pytest.approx(stats.binomtest(9, 10, alternative="greater").pvalue)
    assert found.looks[1] == pytest.approx(stats.binomtest(1, 10, alternative="greater").pvalue)
    assert mostly_above([0.0, 1.0, 2.0], planned=3).looks[0] == pytest.approx(0.25)


def test_similarity_is_two_one_sided_tests_at_the_planned_look():
    values = np.random.default_rng(12).normal(0.1, 0.3, 12)
    ends = [p_of_t(values[:8] + 1), p_of_t(1 - values[:8])]
    assert mean_within(values, 1.0, planned=8).looks[0] == pytest.approx(max(ends))


def test_the_interval_is_what_neither_the_look_nor_the_sequence_rejects():
    values = np.random.default_rng(13).normal(2, 1, 10)
    found = mean_above(values, planned=10)
    half = stats.t.ppf(1 - 0.025 / 2, 8) * values.std(ddof=1) / math.sqrt(10)
    low, high = evidence.confidence_sequence(values, 0.025)
    cut = max(values.mean() - half, low), min(values.mean() + half, high)
    assert found.interval == pytest.approx(cut)
    exact = stats.binomtest(7, 10).proportion_ci(0.975, method="exact")
    low, high = evidence.share_interval(7, 10, 0.025)
    found = mostly([True] * 7 + [False] * 3, planned=10)
    assert found.interval == pytest.approx((max(exact.low, low), min(exact.high, high)))


def test_a_look_and_the_e_process_together_err_as_seldom_as_they_say(amount):
    rng, studies = np.random.default_rng(14), amount(1_000, 20_000)
    reached = [mean_above(rng.normal(0, 1, 60), planned=10).p_for < 0.05 for _ in range(studies)]
    assert np.mean(reached) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


# --- statements of parts, and looking again and again ------------------------------------------


def test_a_statement_of_parts_is_as_weak_as_its_weakest():
    rng = np.random.default_rng(7)
    parts = [mean_above(rng.normal(mean, 1, 10), matters=0.1) for mean in (2, 1, -0.2)]
    weakest, against, small = evidence.combine(parts)
    assert weakest == max(part.p_for for part in parts)
    assert against == min(1.0, 3 * min(part.p_against for part in parts))
    assert small == min(1.0, 3 * min(part.p_small for part in parts))
    assert len(evidence.combine([mean_above(rng.normal(0, 1, 10))])) == 2


def test_a_true_null_is_seldom_rejected_however_often_it_is_looked_at(amount):
    """Ville: the evidence reaches 20 at any of 60 looks with a chance of at most 5%."""
    rng, studies = np.random.default_rng(8), amount(1_000, 20_000)
    for test, draw in (
        (mean_above, lambda: rng.normal(0, 1, 60)),
        (mean_above, lambda: rng.normal(-0.1, 1, 60)),
        (lambda values: mean_within(values, 1.0), lambda: rng.normal(1, 1, 60)),
        (mostly_above, lambda: rng.normal(0, 1, 60)),
    ):
        reached = [test(draw()).p_for < 0.05 for _ in range(studies)]
        assert np.mean(reached) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


def test_a_confidence_sequence_covers_at_all_looks(amount):
    rng, studies = np.random.default_rng(9), amount(300, 2_000)
    missed = 0
    for _ in range(studies):
        values = rng.normal(0.3, 1, 40)
        bounds = [evidence.confidence_sequence(values[:n]) for n in range(2, 41)]
        missed += not all(low <= 0.3 <= high for low, high in bounds)
    assert missed <= 0.05 * studies
