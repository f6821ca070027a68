"""Importance of hyperparameters in a search, by two evaluators, with bootstrap intervals.

PED-ANOVA is Optuna's (Watanabe, Bansal & Hutter, arXiv 2304.10255). fANOVA (Hutter, Hoos & Leyton-
Brown, ICML 2014) gives Optuna's numbers to rounding, fast enough to be resampled. optuna.importance
takes 1 to 3 s to import (scikit-learn), so it is imported when used.
"""

import copy
import math
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.analysis.fanova import (
    Estimate,
    Floats,
    Pair,
    Rows,
    fanova,
    normalized,
    strongest_pair,
    value_of,
)
from hpo.language import marked, nt, t
from hpo.text import listed, minus

# PED-ANOVA needs 5 trials or more in its best part, and the best part should be at most half of all
# trials. So fewer than 10 trials get no interval.
BEST, FEWEST = 5, 10
# Simulated: 30 TPE searches over depth, width, activation, optimizer and lr. PED-ANOVA put the same
# hyperparameter first in 50% of the searches with 15 trials, 67% with 30 and 73% with 60. In random
# searches over four inputs, one three times as strong as the next: 93% and more from 15 trials on.
FEW = 30
# All of it takes 1 to 2 s of a core with 400 trials, about 10 s with 5,000. A resample's forest has
# 8 trees: the standard deviation of a share is about a tenth larger than with 16.
BELOW_ALL = -1.0  # the value of a pruned trial for PED-ANOVA; accuracies are 0 and more
RESAMPLES, TREES, RESAMPLED_TREES = 100, 64, 8


@dataclass(frozen=True, kw_only=True)
class Share:
    """A hyperparameter's share of a total importance of 1, with its 95% bootstrap interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of one evaluator: a share per hyperparameter, the largest first.

    lead: the 95% bootstrap interval of the first share minus the second; None without resamples.
    """

    evaluator: str
    shares: Mapping[str, Share]
    resamples: int
    lead: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Importances:
    """The evaluations of PED-ANOVA on the trials that ended, and of fANOVA on the COMPLETE ones.

    pair: the two that interact most by fANOVA, None if only one varies. notes: sentences that a
    reader needs.
    """

    evaluations: tuple[Evaluation, ...]
    pair: Pair | None
    notes: tuple[str, ...]


def evaluate(
    trials: Sequence[FrozenTrial],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    log_scale: bool = False,
) -> Importances | None:
    """Evaluates importances from a search's trials, whose value is maximized.

    PED-ANOVA compares the best trials with all that ended; pruned trials are never among the best.
    fANOVA explains the ranks of the complete trials, so that one very bad value does not outweigh
    all others. None for fewer than 2 COMPLETE trials, and if no hyperparameter has two values.

    resamples: of the trials with replacement, for PED-ANOVA; fANOVA takes two fifths as many. An
    interval is widened to hold its share. log_scale: whether fANOVA sees log ranges in logarithms;
    Optuna's does not, and gives 0.1 to 1 nine times the weight of 0.01 to 0.1.
    """
    complete = _bare(trials)
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    below = [_copy(p, i, BELOW_ALL, p.distributions) for i, p in enumerate(pruned, len(complete))]
    ended = [*complete, *below]
    domains = [item for trial in complete for item in trial.distributions.items()]
    names = sorted({name for name, domain in domains if not domain.single()})
    if len(complete) < 2 or not names:
        return None
    count, rng = resamples if len(complete) >= FEWEST else 0, np.random.default_rng(seed)
    rows = rng.integers(len(ended), size=(count, len(ended)))
    quantile = target_quantile(len(ended))
    with _without_warnings():
        ped_anova = _ped_anova(ended, names, quantile)
        evaluations = [_evaluation("PED-ANOVA", names, ped_anova, rows, seed)]
    space = {n: d for n, d in intersection_search_space(complete).items() if n in names}
    pair = None
    if space:
        ranked_trials = _ranked(complete)
        forests = fanova(ranked_trials, space, log_scale)
        rows = rng.integers(len(complete), size=(math.ceil(count * 0.4), len(complete)))
        evaluations.append(_evaluation("fANOVA", list(space), forests, rows, seed))
        pair = strongest_pair(ranked_trials, space, log_scale, seed)
    logs = [] if log_scale else [n for n, d in space.items() if getattr(d, "log", False)]
    notes = (
        *_basis(ended, complete, evaluations, quantile, limited=_limited(trials)),
        *_unseen(trials),
        *_undecided(complete, evaluations),
        *_together(pair),
        *_fanova_alone(names, list(space), logs),
    )
    return Importances(evaluations=tuple(evaluations), pair=pair, notes=notes)


def target_quantile(trials: int) -> float:
    """Returns PED-ANOVA's best part: a tenth of the trials, at least BEST of them, at most half."""
    return min(max(0.1, BEST / trials), 0.5)


def ranked(importances: Importances) -> tuple[str, ...]:
    """Returns the hyperparameters in the first evaluator's order, the most important first."""
    return tuple(importances.evaluations[0].shares)


def most_important_pair(importances: Importances) -> tuple[str, str] | None:
    """Returns the two that interact most, the first evaluator's first two where that is not known;
    None if only one hyperparameter varies."""
    if importances.pair:
        return importances.pair.names
    first, *others = ranked(importances)
    return (first, others[0]) if others else None


def _bare(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Copies COMPLETE trials with what evaluators need: own ids, by which PED-ANOVA finds the best,
    and one object per equal distribution, which is faster to compare."""
    one: dict[BaseDistribution, BaseDistribution] = {}
    bare: list[FrozenTrial] = []
    for trial in trials:
        if trial.state is TrialState.COMPLETE and math.isfinite(value_of(trial)):
            own = {name: one.setdefault(d, d) for name, d in trial.distributions.items()}
            bare.append(_copy(trial, len(bare), value_of(trial), own))
    return bare


def _copy(
    trial: FrozenTrial, number: int, value: float, distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
    """Returns the trial as a COMPLETE one of that number and id, without attributes."""
    times = (trial.datetime_start, trial.datetime_complete)
    known = (TrialState.COMPLETE, value, *times, trial.params, distributions)
    return FrozenTrial(number, *known, {}, {}, {}, trial_id=number)


def _ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Copies trials with ranks in place of values; equal values share their mean rank."""
    from scipy.stats import rankdata

    copies = [copy.copy(trial) for trial in trials]
    for trial, rank in zip(copies, rankdata([value_of(of) for of in trials]), strict=True):
        trial.value = float(rank)
    return copies


def _evaluation(
    evaluator: str, names: Sequence[str], estimate: Estimate, rows: Rows, seed: int
) -> Evaluation:
    """Returns the estimate on all trials, and the middle 95% of the estimates on resamples."""
    estimates = estimate(np.arange(rows.shape[1]), TREES, seed)
    low, high, lead = np.zeros(len(names)), np.ones(len(names)), None
    if len(rows):
        drawn = np.array([estimate(r, RESAMPLED_TREES, seed + i) for i, r in enumerate(rows, 1)])
        low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
        if len(names) > 1:
            first, second = sorted(range(len(names)), key=lambda i: (-estimates[i], names[i]))[:2]
            ends = np.percentile(drawn[:, first] - drawn[:, second], (2.5, 97.5))
            lead = float(ends[0]), float(ends[1])
    bounds = zip(estimates, np.minimum(low, estimates), np.maximum(high, estimates), strict=True)
    shares = [Share(share=float(s), low=float(a), high=float(b)) for s, a, b in bounds]
    pairs = sorted(zip(names, shares, strict=True), key=lambda pair: (-pair[1].share, pair[0]))
    return Evaluation(evaluator=evaluator, shares=dict(pairs), resamples=len(rows), lead=lead)


class _Resampled(Study):
    """A study to be maximized whose trials are `drawn`, without a storage."""

    def __init__(self) -> None:
        storage = optuna.storages.InMemoryStorage()
        storage.create_new_study([StudyDirection.MAXIMIZE], "resampled")
        super().__init__("resampled", storage)
        self.drawn: list[FrozenTrial] = []

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self.drawn


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silences Optuna's line about a new study, and warnings that the notes give."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Target and region quantiles select the same set")
            warnings.filterwarnings("ignore", "Some regimes for parameter")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _ped_anova(trials: list[FrozenTrial], names: Sequence[str], quantile: float) -> Estimate:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study, evaluator = _Resampled(), PedAnovaImportanceEvaluator(target_quantile=quantile)

    def estimate(rows: Rows, _trees: int, _seed: int) -> Floats:
        study.drawn = [trials[row] for row in rows]
        importances = get_param_importances(study, evaluator=evaluator)
        return normalized(np.array([importances.get(name, 0.0) for name in names]))

    return estimate


def _basis(
    ended: list[FrozenTrial],
    complete: list[FrozenTrial],
    evaluations: Sequence[Evaluation],
    quantile: float,
    *,
    limited: bool,
) -> Iterator[str]:
    """Describes the trials that the shares and intervals are based on. limited: whether trials were
    stopped at their time limit."""
    n, values = len(complete), sorted(map(value_of, ended), reverse=True)
    best = sum(value >= values[math.ceil(quantile * len(ended)) - 1] for value in values)
    asked = marked(
        "PED-ANOVA asks what sets the best {best} of {of} trials apart from all; fANOVA asks "
        "what explains the ranks of the {n} complete ones."
    )
    if len(ended) > n and limited:
        asked = marked(
            "PED-ANOVA asks what sets the best {best} of {of} trials apart from all, those stopped "
            "early included; fANOVA asks what explains the ranks of the {n} complete ones."
        )
    elif len(ended) > n:
        asked = marked(
            "PED-ANOVA asks what sets the best {best} of {of} trials apart from all, pruned ones "
            "included; fANOVA asks what explains the ranks of the {n} complete ones."
        )
    yield t(asked, best=best, of=len(ended), n=n)
    yield t(
        "Both judge each hyperparameter by itself, so what matters only together with another is "
        "partly missed; the shares add up to 1, whatever stays unexplained."
    )
    if n < FEWEST:
        yield t(
            "With fewer than {n} complete trials the shares mean nothing yet; their intervals are "
            "set to 0 to 1.",
            n=FEWEST,
        )
        return
    if n < FEW:
        yield t(
            "With fewer than {n} complete trials the ranking is weak: more may well change it.",
            n=FEW,
        )
    counts = [t("{n} for {evaluator}", n=e.resamples, evaluator=e.evaluator) for e in evaluations]
    yield t(
        "The intervals hold 95% of the shares from resamples of these trials ({counts}); another "
        "search, whose sampler would take another way, may differ by more.",
        counts=listed(counts),
    )


def _unseen(trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """Describes the effect of pruned and failed trials."""
    states = [trial.state for trial in trials]
    pruned, failed = states.count(TrialState.PRUNED), states.count(TrialState.FAIL)
    if pruned and _limited(trials):
        yield nt(
            "fANOVA does not see the {n} trial that was stopped early.",
            "fANOVA does not see the {n} trials that were stopped early.",
            pruned,
        )
    elif pruned:
        yield t(
            "fANOVA does not see the {n} pruned trials, and so not what made them bad.", n=pruned
        )
    if failed:
        yield nt(
            "{n} failed trial is invisible to both.",
            "{n} failed trials are invisible to both.",
            failed,
        )


def _limited(trials: Sequence[FrozenTrial]) -> bool:
    """Whether any trial was stopped for another reason than a pruner: it diverged, or reached its
    time limit."""
    reasons = ("diverged", "over_limit")
    return any(trial.user_attrs.get(reason) for trial in trials for reason in reasons)


def _undecided(complete: list[FrozenTrial], evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Says where an order is not settled."""
    if len({value_of(trial) for trial in complete}) == 1:
        yield t("All complete trials have the same value, so no hyperparameter can be ranked.")
    for evaluation in evaluations:
        (first, a), *others = evaluation.shares.items()
        evaluator = evaluation.evaluator
        if not others:
            text = marked("For {evaluator} only {first} varies, so its share is 1 in any case.")
            yield t(text, evaluator=evaluator, first=first)
        elif a.share == others[-1][1].share:
            text = marked("{evaluator} finds no difference: equal shares stand in for its own.")
            yield t(text, evaluator=evaluator)
        elif evaluation.lead and evaluation.lead[0] <= 0:
            low, high = (minus(f"{100 * value:.0f}") for value in evaluation.lead)
            text = marked(
                "By {evaluator} it is not settled whether {first} or {second} matters more: their "
                "difference is {low} to {high} points of share in the resamples."
            )
            yield t(text, evaluator=evaluator, first=first, second=others[0][0], low=low, high=high)


def _together(pair: Pair | None) -> Iterator[str]:
    """Says which two hyperparameters act together most."""
    if pair and pair.share > 0:
        text = marked(
            "The strongest pair is {a} × {b}: by fANOVA, what the two do only together explains "
            "{both:.0f}% of the variance of the ranks; {a} alone explains {alone_a:.0f}% and {b} "
            "alone {alone_b:.0f}%."
        )
        (a, b), (alone_a, alone_b) = pair.names, (100 * share for share in pair.alone)
        yield t(text, a=a, b=b, both=100 * pair.share, alone_a=alone_a, alone_b=alone_b)


def _fanova_alone(names: Sequence[str], taken: Sequence[str], logs: Sequence[str]) -> Iterator[str]:
    """Says where fANOVA sees another space than the search."""
    if left := [name for name in names if name not in taken]:
        yield t(
            "fANOVA leaves out {names}, which not every trial has, or not with one range.",
            names=listed(left),
        )
    if logs:
        yield t(
            "fANOVA weighs {names} evenly on the plain scale, though searched on a logarithmic "
            "one, so it hardly sees anything but the upper end.",
            names=listed(logs),
        )
