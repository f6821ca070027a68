"""The hyperparameters of a training: their names, types, bounds and defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hpo.study.fields import Flag, bounds, explained_number, one_of
from hpo.study.names import ACTIVATIONS, OPTIMIZERS, SCHEDULES

CLASSES = 10  # of every dataset here
SEED = 0  # of every trial of a search; finalists use the seeds after it


# The upper bounds keep a typing error from taking all memory.
@dataclass(frozen=True, kw_only=True)
class Config:
    """The hyperparameters of one training. Raises ValueError for a value out of its bounds.

    depth: hidden layers. width: units of each. momentum and nesterov belong to the SGD family;
    `sgd_momentum` is SGD with momentum 0.9 unless momentum is given. weight_decay: decoupled in
    adamw. schedule: how lr changes over the steps of the training.
    """

    depth: Annotated[int, Field(ge=1, le=100)]
    width: Annotated[int, Field(ge=1, le=65_536)]
    activation: Annotated[str, *one_of(ACTIVATIONS)]
    optimizer: Annotated[str, *one_of(OPTIMIZERS)]
    lr: Annotated[float, Field(gt=0, le=1e6)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.0
    nesterov: Flag = False
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    schedule: Annotated[str, *one_of(SCHEDULES)] = "constant"

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
        """Returns {hyperparameter: value}."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The seeds of a training's split, initial weights and batch order."""

    split: int
    weights: int
    order: int

    @classmethod
    def of(cls, seed: int, varies: Sequence[str] = ("split", "weights", "order")) -> "Seeds":
        """Returns `seed` for the sources that vary, and 0 for the others."""
        return cls(**{name: seed if name in varies else 0 for name in SOURCES})


SOURCES = tuple(f.name for f in fields(Seeds))
HYPERPARAMETERS = tuple(f.name for f in fields(Config))
REQUIRED = ("depth", "width", "activation", "optimizer", "lr")
DEFAULTS = {f.name: f.default for f in fields(Config) if f.name not in REQUIRED}


_HINTS = get_type_hints(Config, include_extras=True)
# {hyperparameter: (int or float, least, most)} of those that are numbers.
BOUNDS = {name: bounds(h) for name, h in _HINTS.items() if h.__origin__ in (int, float)}
# {hyperparameter: its type for pydantic, with errors in plain words}
TYPES = {name: explained_number(h) if name in BOUNDS else h for name, h in _HINTS.items()}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    return TypeAdapter(TYPES[name], config=strict)


def check(name: str, value: Any) -> str | None:
    """Returns what is wrong with a value of a hyperparameter; None if nothing is."""
    try:
        _adapter(name).validate_python(value)
    except ValidationError as error:
        return error.errors(include_url=False)[0]["msg"]
    return None


def faults_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns {hyperparameter: what is wrong}, also for values that do not go together."""
    faults = {name: fault for name, v in values.items() if (fault := check(name, v))}
    return faults or _combination_faults(values)


def _combination_faults(values: Mapping[str, Any]) -> dict[str, str]:
    optimizer, momentum = OPTIMIZERS[values["optimizer"]], values.get("momentum")
    if values.get("nesterov"):
        if "nesterov" not in optimizer.takes or not (momentum or optimizer.momentum):
            return {"nesterov": "needs optimizer sgd with a momentum above 0"}
    elif momentum and "momentum" not in optimizer.takes:
        return {"momentum": f"is no hyperparameter of {values['optimizer']}"}
    return {}
