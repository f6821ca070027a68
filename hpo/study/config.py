"""What one training is: its hyperparameters, their names and their bounds (no torch here)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hpo.study.names import ACTIVATIONS, OPTIMIZERS, SCHEDULES, Named
from hpo.text import quoted

CLASSES = 10  # of every dataset here
SEED = 0  # of every trial of a search; finalists use the seeds after it
CHOICES: dict[str, Mapping[str, Named]] = {
    "activation": ACTIVATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
# name: (type, least, most). The upper bounds only keep a slip of the pen from taking the machine.
BOUNDS: dict[str, tuple[type, float, float]] = {
    "depth": (int, 1, 100),
    "width": (int, 1, 65_536),
    "lr": (float, 0.0, 1e6),
    "batch_size": (int, 1, 65_536),
    "epochs": (int, 1, 100_000),
    "momentum": (float, 0.0, 1.0),
    "weight_decay": (float, 0.0, 1e6),
}
POSITIVE = ("lr",)


def check(name: str, value: Any) -> str | None:
    """What is wrong with `value` for the hyperparameter `name`, in words; None if nothing is."""
    if name in CHOICES:
        known = ", ".join(CHOICES[name])
        found = isinstance(value, str) and value in CHOICES[name]
        return None if found else f"must be one of {known}, got {quoted(value)}"
    if name == "nesterov":
        return None if isinstance(value, bool) else f"must be true or false, got {quoted(value)}"
    kind, low, high = BOUNDS[name]
    accepted = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted):
        return f"must be {'a whole number' if kind is int else 'a number'}, got {quoted(value)}"
    if name in POSITIVE and value <= low:
        return f"must be greater than {low:g}, got {quoted(value)}"
    if not low <= value <= high:  # so is NaN
        return f"must be between {low:g} and {high:g}, got {quoted(value)}"
    return None


@dataclass(frozen=True, kw_only=True)
class Config:
    """The hyperparameters of one training.

    depth counts hidden layers, width their units. momentum and nesterov belong to the sgd family
    (`sgd_momentum` is SGD at momentum 0.9 unless momentum says otherwise); weight_decay to all
    optimizers, decoupled in adamw. schedule is how lr falls to 0 over all steps of the training, if
    at all. Raises ValueError for a value out of its bounds.
    """

    depth: int
    width: int
    activation: str
    optimizer: str
    lr: float
    batch_size: int = 64
    epochs: int = 10
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        faults = faults_in(self.as_dict())
        if faults:
            raise ValueError("; ".join(f"{name}: {fault}" for name, fault in faults.items()))

    @property
    def brief(self) -> str:
        """3 × 512 relu, adam at 0.0012."""
        layers = f"{self.depth} × {self.width} {self.activation}"
        return f"{layers}, {self.optimizer} at {self.lr:.2g}"

    def as_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Where a training's randomness comes from: its split, its initial weights, its batch order."""

    split: int
    weights: int
    order: int

    @classmethod
    def of(cls, seed: int, varies: Sequence[str] = ("split", "weights", "order")) -> "Seeds":
        """Seed k of what varies; the rest stays at seed 0."""
        return cls(**{name: seed if name in varies else 0 for name in SOURCES})


SOURCES = tuple(f.name for f in fields(Seeds))
HYPERPARAMETERS = tuple(f.name for f in fields(Config))
REQUIRED = ("depth", "width", "activation", "optimizer", "lr")
DEFAULTS = {f.name: f.default for f in fields(Config) if f.name not in REQUIRED}


def faults_in(values: Mapping[str, Any]) -> dict[str, str]:
    """{hyperparameter: what is wrong with it}; also where two values do not go together."""
    faults = {name: fault for name, v in values.items() if (fault := check(name, v))}
    if faults:
        return faults
    optimizer = OPTIMIZERS[values["optimizer"]]
    momentum = values.get("momentum")
    if values.get("nesterov") and not (
        "nesterov" in optimizer.takes and (momentum or optimizer.momentum)
    ):
        faults["nesterov"] = "needs optimizer sgd with a momentum above 0"
    elif momentum and "momentum" not in optimizer.takes:
        faults["momentum"] = f"is no hyperparameter of {values['optimizer']}"
    return faults
