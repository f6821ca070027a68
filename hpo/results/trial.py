"""What a trial stores of its training: plain JSON, everything that a report needs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.study.columns import INTERNAL, METRICS, TrialAttributes
from hpo.study.config import Config
from hpo.study.metrics import USELESS_LOSS, EpochMetrics, Metric

RIGHT = "right"  # system attribute: {test or valid: which are right, see study.metrics.packed}
NO_EPOCH = "ended no epoch within its time limit"  # why a trial FAILs, then the limit
# Why trials FAIL that the next run trains again.
KILLED, STOPPED, OUT_OF_TIME = "interrupted: its run was killed", "stopped", "out of time"
RETRIED = (KILLED, STOPPED, OUT_OF_TIME)


def outcome(epochs: Sequence[EpochMetrics], replicate: int) -> dict[str, float]:
    """Returns the metrics of the epoch that counts of one replicate, and its number."""
    kept = epochs[-1].kept
    number = kept[replicate] if kept else len(epochs)
    epoch = epochs[number - 1]
    names = (*METRICS, *epoch.scores)
    return {"epoch": number} | {name: epoch.values(name)[replicate] for name in names}


def attributes(
    epochs: Sequence[EpochMetrics], replicate: int, kept: Mapping[str, float] | None = None
) -> TrialAttributes:
    """Returns one replicate's curve (NaN and Inf as null), seconds, gap between training and
    validation accuracy, and whether it diverged, as 0 or 1: the dashboard sorts only numbers.

    kept: see outcome; None where only the last epoch can count.
    """
    if lengths := epochs[-1].lengths:
        epochs = epochs[: lengths[replicate]]
    names = (*METRICS, *epochs[0].scores)
    curve = {name: [epoch.values(name)[replicate] for epoch in epochs] for name in names}
    end = kept or {name: values[-1] for name, values in curve.items()}
    diagnostics = _diagnostics(epochs, replicate)
    found: TrialAttributes = {
        "train_seconds": sum(epoch.seconds for epoch in epochs),
        "diverged": int(any(diverged(epoch, replicate) for epoch in epochs)),
        "curve": {metric: [finite(v) for v in values] for metric, values in curve.items()},
    }
    gap = end["train_accuracy"] - end["valid_accuracy"]
    if math.isfinite(gap):  # a regression has no accuracy
        found["train_valid_gap"] = gap
    if kept:
        found["kept"] = {name: finite(value) for name, value in kept.items()}
    if diagnostics:
        found["diagnostics"] = diagnostics
    return found


def store(storage: BaseStorage, trial: int, attributes: TrialAttributes) -> None:
    """Stores the attributes of a trial, given by its id."""
    for key, value in attributes.items():
        internal = key in INTERNAL
        to = storage.set_trial_system_attr if internal else storage.set_trial_user_attr
        to(trial, key, value)  # type: ignore[arg-type]


def whole(trial: FrozenTrial) -> FrozenTrial:
    """Returns a stored trial with all of its attributes as user attributes."""
    found = {key: trial.system_attrs[key] for key in INTERNAL if key in trial.system_attrs}
    if found:
        trial = copy(trial)
        trial.user_attrs = {**found, **trial.user_attrs}
    return trial


def _diagnostics(
    epochs: Sequence[EpochMetrics], replicate: int
) -> dict[str, list[list[float | None]]]:
    """Returns {measure: a number per epoch and layer}, to four digits; empty without any."""
    curves: dict[str, list[list[float | None]]] = {}
    for epoch in epochs:
        for measure, layers in (epoch.diagnostics or {}).items():
            if layers is not None:
                numbers = [finite(float(f"{layer[replicate]:.4g}")) for layer in layers]
                curves.setdefault(measure, []).append(numbers)
    return curves


def diverged(epoch: EpochMetrics, replicate: int) -> bool:
    """Whether a loss of the epoch is NaN, infinite, or at least USELESS_LOSS."""
    losses = (epoch.train_loss[replicate], epoch.valid_loss[replicate])
    return not all(map(is_useful, losses))


def is_useful(loss: float | None) -> bool:
    """Whether a loss is a number below USELESS_LOSS. None stands for NaN and Inf."""
    return loss is not None and loss < USELESS_LOSS


def trial_name(number: int, config: Config) -> str:
    """Returns what a search's trial is called where a person reads it."""
    return f"trial {number} ({config.brief})"


def run_name(cell: str, seed: int) -> str:
    """Returns what a grid's trial is called where a person reads it."""
    return f"{cell} seed {seed}"


def is_sound(trial: FrozenTrial) -> bool:
    """Whether a trial is a result: COMPLETE, and not diverged."""
    return trial.state is TrialState.COMPLETE and not trial.user_attrs.get("diverged")


def ranked(trials: Iterable[FrozenTrial], metric: Metric) -> list[FrozenTrial]:
    """Returns the sound trials, the best by the objective first; of equal ones the earlier
    first."""
    return sorted(filter(is_sound, trials), key=lambda t: (-gain_of(t, metric), t.number))


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the places of the points (gain, cost) that no other one beats in both, the greatest
    gain first."""
    kept, least = [], math.inf
    for _, cost, place in sorted((-a, cost, place) for place, (a, cost) in enumerate(points)):
        if cost < least:
            kept.append(place)
            least = cost
    return kept


def by_rule(trial: FrozenTrial) -> FrozenTrial:
    """Returns a search's trial by the rule that a diverged one is PRUNED; earlier versions stored
    it as COMPLETE with the worst value."""
    if trial.state is not TrialState.COMPLETE or is_sound(trial):
        return trial
    pruned = copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned


def last_epoch(
    curve: Mapping[str, Sequence[float | None]], *, sound: bool = False
) -> dict[str, float | None]:
    """Returns the metrics of a curve's last epoch; empty without one. sound: of the last one in
    which the training had not diverged."""
    rows = [dict(zip(curve, values, strict=True)) for values in zip(*curve.values(), strict=True)]
    if sound:
        losses = ("train_loss", "valid_loss")
        rows = [row for row in rows if all(is_useful(row[loss]) for loss in losses)]
    return rows[-1] if rows else {}


def value_of(trial: FrozenTrial, metric: Metric) -> float:
    """Returns a trial's first value, the objective's; the worst without one."""
    return trial.values[0] if trial.values else metric.worst


def gain_of(trial: FrozenTrial, metric: Metric) -> float:
    """Returns the gain of a trial's value."""
    return float(metric.gain(value_of(trial, metric)))


def paused_value(trial: FrozenTrial, metric: Metric) -> float:
    """Returns the objective's value of a paused trial in the epoch that counts."""
    step = trial.user_attrs["paused_at"]
    kept = trial.user_attrs.get("kept", {})
    return float(kept.get(metric.name, trial.intermediate_values[step]))


def finite(value: float) -> float | None:
    """Returns the value, or None for NaN and Inf, which JSON does not have."""
    return value if math.isfinite(value) else None
