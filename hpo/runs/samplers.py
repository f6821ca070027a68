"""Optuna's samplers and pruners behind the names of study files, and what they need."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from optuna import Study, pruners, samplers
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers._tpe import _truncnorm
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from scipy.special import log_ndtr

from hpo.errors import InputError
from hpo.runs.halving import REDUCTION
from hpo.study.config import DEFAULTS, Config
from hpo.study.file import SearchStudy
from hpo.study.names import PRUNERS, SAMPLERS
from hpo.study.space import Choices, Domain, Fixed, Range, around, is_conditional, suggest_one

# Parameters of every grid's trials: the dashboard plots cells over them, also where all have one.
ALWAYS_STORED = ("depth", "width", "activation", "optimizer", "lr", "batch_size", "epochs")
STARTUP_TRIALS = 5
# Median and percentile judge from this epoch on: after the first one alone, slow starters (a small
# learning rate, sigmoids) stand behind networks that they will overtake.
FIRST_JUDGED = 2
CANDIDATES = 24  # of which TPE suggests the best, as Optuna has it
RUNNING_EACH = 50  # running trials for each suggestion that a fit of TPE gives

# Optuna goes without scipy and computes the normal distribution's logarithm in a loop of Python,
# which is four fifths of the time of TPE. This is the same function.
_truncnorm._log_ndtr = log_ndtr


class SharedTPE(samplers.TPESampler):
    """TPE whose fit gives several suggestions where many trials run: one for each RUNNING_EACH.

    A fit takes longer than all else of a suggestion. It knows the trials that run as constant
    liars, but not those that it suggests itself: 2% of them. Each suggestion is the best of its own
    CANDIDATES. With fewer than twice RUNNING_EACH trials running it is Optuna's sampler.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(n_ei_candidates=CANDIDATES, **options)
        self._ahead: dict[tuple[str, ...], list[dict[str, Any]]] = {}  # by parameters

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        ahead = self._ahead.setdefault(tuple(search_space), [])
        if ahead:
            return ahead.pop()
        running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        self._n_ei_candidates = CANDIDATES * max(running // RUNNING_EACH, 1)
        best = super()._sample(study, trial, search_space)
        values, gains = self._seen
        for first in range(0, len(gains), CANDIDATES):
            place = first + int(np.argmax(gains[first : first + CANDIDATES]))
            ahead.append(
                {n: d.to_external_repr(values[n][place].item()) for n, d in search_space.items()}
            )
        ahead.remove(best)
        return best

    def _compute_acquisition_func(self, samples: Any, *densities: Any) -> Any:
        self._seen = samples, super()._compute_acquisition_func(samples, *densities)
        return self._seen[1]


def _plain(
    sampler: Callable[..., samplers.BaseSampler], **options: Any
) -> Callable[[int, Mapping[str, Any]], samplers.BaseSampler]:
    return lambda seed, best: sampler(seed=seed, **options)


# The samplers of study.names: (seed, best parameters so far) -> sampler.
tpe = _plain(SharedTPE)
random = _plain(samplers.RandomSampler)
gp = _plain(samplers.GPSampler, warn_independent_sampling=False)
qmc = _plain(
    samplers.QMCSampler,
    scramble=True,
    warn_asynchronous_seeding=False,
    warn_independent_sampling=False,
)
# With generations of 20: a search has hundreds of trials, not thousands.
nsga2 = _plain(samplers.NSGAIISampler, population_size=20)


def cmaes(seed: int, best: Mapping[str, Any]) -> samplers.BaseSampler:
    """Starts from the best trial: Optuna would keep its state as a pickle in the storage."""
    return samplers.CmaEsSampler(seed=seed, x0=dict(best) or None, warn_independent_sampling=False)


def grouped_tpe(seed: int) -> samplers.BaseSampler:
    """For a space with conditions: one multivariate density for each group of hyperparameters that
    occur together (https://optuna.readthedocs.io, TPESampler, group)."""
    with _without_warnings():
        return SharedTPE(seed=seed, multivariate=True, group=True)


def _any_length(
    pruner: Callable[..., pruners.BasePruner], *values: Any, **options: Any
) -> Callable[[int], pruners.BasePruner]:
    return lambda epochs: pruner(*values, **options)


# The pruners of study.names: epochs of a complete training -> pruner.
no_pruner = _any_length(pruners.NopPruner)
asha = no_pruner  # SearchPlan itself pauses trials
median = _any_length(pruners.MedianPruner, STARTUP_TRIALS, FIRST_JUDGED)
percentile = _any_length(pruners.PercentilePruner, 25.0, STARTUP_TRIALS, FIRST_JUDGED)
successive_halving = _any_length(
    pruners.SuccessiveHalvingPruner, min_resource=1, reduction_factor=REDUCTION
)
# Compares a trial with the best one seed by seed; p below 0.1, after two seeds.
wilcoxon = _any_length(pruners.WilcoxonPruner, p_threshold=0.1, n_startup_steps=2)


def hyperband(epochs: int) -> pruners.BasePruner:
    return pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=REDUCTION)


def mark_diverged(trial: BaseTrial, sampler: samplers.BaseSampler) -> None:
    """Makes TPE rank a diverged trial below pruned ones. TPE ranks any COMPLETE trial above PRUNED
    ones, but infeasible trials below both."""
    if isinstance(sampler, samplers.TPESampler):
        trial.set_constraint("diverged", 1.0)


def _without_warnings() -> AbstractContextManager[None]:
    """Silences Optuna's warning that QMC and Wilcoxon's pruner are experimental."""
    return warnings.catch_warnings(action="ignore", category=ExperimentalWarning)


def make_sampler(file: SearchStudy, stored: int, best: Mapping[str, Any]) -> samplers.BaseSampler:
    """Returns the study's sampler. stored: how many trials the study holds.

    A sampler's state is not stored. It gets another seed when a study is resumed, or it would draw
    the same values again; QMC continues its sequence.
    """
    seed = file.sampler_seed if file.sampler == "qmc" else file.sampler_seed + 1_000_003 * stored
    numeric = {name: best[name] for name in _ranges(file) if name in best}
    if file.sampler == "tpe" and is_conditional(file.space):
        return grouped_tpe(seed % 2**32)
    with _without_warnings():
        return SAMPLERS[file.sampler].load()(seed % 2**32, numeric)  # type: ignore[no-any-return]


def make_pruner(file: SearchStudy) -> pruners.BasePruner:
    with _without_warnings():
        return PRUNERS[file.pruner].load()(most_epochs(file))  # type: ignore[no-any-return]


def distributions(space: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """Returns the distributions that hold every configuration of a space, the same for each grid of
    its finalists. A hyperparameter with a condition may also have its default."""
    return {
        name: distribution(name, _with_default(name, domain))
        for name, domain in space.items()
        if not isinstance(domain, Fixed) or domain.when
    }


def cell_distributions(configs: Sequence[Config]) -> dict[str, BaseDistribution]:
    """Returns the smallest distributions that hold all cells of a grid, for the dashboard."""
    rows = [config.as_dict() for config in configs]
    smallest = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = {row[name] for row in rows if name in row}
        if name in ALWAYS_STORED or values != {DEFAULTS.get(name)}:
            # Without its name: a grid's lr = 1 has always been stored as a whole number.
            smallest[name] = distribution("", around(values, log=name == "lr"))
    return smallest


def distribution(name: str, domain: Domain) -> BaseDistribution:
    """Returns the distribution of a domain that is not fixed."""
    return suggest_one(_Distributions(), name, domain)  # type: ignore[no-any-return]


class _Distributions:
    """Suggests distributions in place of values, so that space.suggest_one alone says which
    distribution a domain has."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> BaseDistribution:
        return CategoricalDistribution(choices)

    def suggest_int(self, name: str, low: int, high: int, **how: Any) -> BaseDistribution:
        return IntDistribution(low, high, **how)

    def suggest_float(self, name: str, low: float, high: float, **how: Any) -> BaseDistribution:
        return FloatDistribution(low, high, **how)


def _with_default(name: str, domain: Domain) -> Domain:
    """Returns the domain with the hyperparameter's default, if a condition may leave it that."""
    if not domain.when:
        return domain
    default: Any = DEFAULTS[name]
    if isinstance(domain, Range):
        return Range(low=min(default, domain.low), high=max(default, domain.high))
    values = (domain.value,) if isinstance(domain, Fixed) else domain.values
    return Choices(values=values if default in values else (*values, default))


def most_epochs(file: SearchStudy) -> int:
    """Returns the epochs of the longest training in the space."""
    domain = file.space.get("epochs", Fixed(value=Config.epochs))
    if isinstance(domain, Choices):
        return int(max(domain.values))
    return int(domain.high if isinstance(domain, Range) else domain.value)


def check_together(file: SearchStudy, where: str) -> None:
    """Raises InputError, one line per fault, for a sampler or pruner that cannot work on the
    space."""
    faults = []
    if file.sampler == "cmaes" and len(_ranges(file)) < 2:
        ranges = ", ".join(_ranges(file)) or "none"
        faults.append(f"sampler cmaes needs two ranges or more in the space, it has {ranges}")
    if all(isinstance(domain, Fixed) for domain in file.space.values()):
        faults = ["the space has nothing to choose: every value is fixed"]
    if file.pruner == "wilcoxon" and file.seeds_per_trial < 3:
        faults.append("pruner wilcoxon needs seeds_per_trial of 3 or more")
    if file.second and file.sampler not in ("tpe", "nsga2", "random", "qmc"):
        faults.append(f"sampler {file.sampler} works for one objective, not for two")
    if file.second and file.pruner != "none":
        faults.append(f"pruner {file.pruner} works for one objective, not for two")
    if file.pruner not in ("none", "wilcoxon") and most_epochs(file) == 1:
        faults.append(f"pruner {file.pruner} has nothing to prune: a training is one epoch")
    if file.pruner == "hyperband" and 1 < most_epochs(file) < REDUCTION:
        faults.append(f"pruner hyperband needs {REDUCTION} epochs or more, a training has 2")
    if faults:
        raise InputError("\n".join(f"{where}: {fault}; choose another" for fault in faults))


def _ranges(file: SearchStudy) -> list[str]:
    return [n for n, d in file.space.items() if isinstance(d, Range) and d.low < d.high]
