"""The hyperparameters of a training: their names, types, bounds and defaults."""

import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, WithJsonSchema, WrapValidator, model_validator

from hpo.study.columns import RESERVED
from hpo.study.fields import Between, Flag, Table, fault, faulty, one_of, read_or_faults
from hpo.study.names import ACTIVATIONS, INITS, NORMS, OPTIMIZERS, SCHEDULES, label
from hpo.text import printable, quoted

# --- the user's own network ----------------------------------------------------------------------

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
# Hyperparameters of hpo's own perceptron, which a factory does not get.
PERCEPTRON = (
    "depth", "width", "activation", "widths", "pyramid", "norm", "residual", "init", "dropout",
    "input_dropout", "noise", "max_norm", "ema",
)  # fmt: skip
PLACEHOLDERS = {"depth": 1, "width": 1, "activation": "relu"}
CELL_KEYS = ("name", "varies", "crossed", "precision", "reported")  # of a [[cells]] table
GIVEN = ("shape", "classes")  # arguments that every factory gets
MOST_TEXT = 100


def name_fault(name: str) -> str | None:
    """Returns what is wrong with the name of a hyperparameter of the user's own network."""
    if name in PERCEPTRON:
        return "belongs to hpo's own perceptron; give your network's another name"
    if name in CELL_KEYS:
        return "is a key of a grid's cells, as finalists are; rename it"
    if name in RESERVED or name == "model":
        return "is a name of hpo's own columns and attributes of trials; rename it"
    if name in GIVEN or not name.isidentifier() or keyword.iskeyword(name):
        return "cannot be an argument's name; choose another"
    return None


def own_value(value: Any, handler: Any) -> Any:
    """Accepts a value of a hyperparameter of the user's own network."""
    number = isinstance(value, (bool, int, float)) and abs(value) < 1e300
    if not number and not (isinstance(value, str) and len(value) <= MOST_TEXT):
        raise fault(f"must be a number, true, false or text, got {quoted(value)}")
    return value


class OwnNames(Table):
    """A table with hyperparameters of the user's own network, which may have any name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, WrapValidator(own_value)]]

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, table: Any) -> Any:
        names = table if isinstance(table, dict) else ()
        theirs = [name for name in names if name in PERCEPTRON or name not in cls.model_fields]
        if faults := [((name,), text) for name in theirs if (text := name_fault(name))]:
            raise faulty(*faults)
        return table


def hyperparameters(table: Table) -> dict[str, Any]:
    """Returns the hyperparameters that a table gives, the user's own network's among them."""
    known = {n: getattr(table, n) for n in HYPERPARAMETERS if n in table.model_fields_set}
    return {**known, **(table.model_extra or {})}


# --- hyperparameters ---------------------------------------------------------------------------

SEED = 0  # of every trial of a search; finalists use the seeds after it


def _factory(value: Any, handler: Any) -> str:
    if isinstance(value, str) and (value == "" or FACTORY.fullmatch(value)):
        return value
    raise fault(f'must be "module:function", got {quoted(value)}')


Factory = Annotated[str, WrapValidator(_factory)]


def _widths(value: Any, handler: Any) -> str:
    """Accepts widths as text ("512-256") or as a list of whole numbers."""
    if isinstance(value, str):
        parts: list[Any] = [int(p) if p.isdecimal() else p for p in value.split("-") if value]
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else [value]
    whole = all(type(part) is int and 1 <= part <= 65_536 for part in parts)
    if not whole or len(parts) > 100 or (not parts and value != ""):
        raise fault(
            f"must be up to 100 widths of 1 to 65536, such as [512, 256], got {quoted(value)}"
        )
    return "-".join(map(str, parts))


_WIDTHS_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^(\d+(-\d+)*)?$"},
        {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
    ]
}


KEEPS = ("last", "best")


# The upper bounds keep a typing error from taking all memory.
@dataclass(frozen=True, kw_only=True)
class Config:
    """The hyperparameters of one training, as declared for study files. Raises
    ValueError for a value out of its bounds, and for values that do not go together.

    depth: hidden layers. width: units of each. momentum and nesterov belong to the SGD family;
    `sgd_momentum` is SGD with momentum 0.9 unless momentum is given. weight_decay: decoupled in
    adamw. schedule: how lr changes over the steps of the training. warmup: the share of the steps
    in which lr rises to the schedule's.

    widths: units of each hidden layer, as text ("512-256"); depth and width follow from it.
    pyramid: a layer's width over that of the layer before. norm: after each hidden layer's sum.
    residual: from the second hidden layer on, a layer's input is added to its output. init: of the
    weights. dropout and input_dropout: the share of units, and of features, set to 0 in a training
    step. input_noise: standard deviation of the noise added to normalized features; noise: of that
    added before each hidden activation, after the norm. huber: of a regression, the error from
    which on the training loss rises linearly (Huber 1964), in standard deviations of the target; 0
    means squared error. 0 means none for clip_norm, the most of a step's gradient norm, and for
    max_norm, the most of the norm of the weights into a hidden unit.
    ema: the decay, in each step, of a moving average of the weights; 0 means no average.

    keep: which epoch's network counts, the last one's, or that of the best validation, the first of
    equals. patience: a training ends after so many epochs in a row without a better validation; 0
    means never.

    model: the factory of the user's own network, "module:function"; depth, width and activation
    mean nothing then. own: its hyperparameters.
    """

    depth: Annotated[int, Between(1, 100)]
    width: Annotated[int, Between(1, 65_536)]
    activation: Annotated[str, *one_of(ACTIVATIONS)]
    optimizer: Annotated[str, *one_of(OPTIMIZERS)]
    lr: Annotated[float, Between(0, 1e6, above=True)]
    batch_size: Annotated[int, Between(1, 65_536)] = 64
    epochs: Annotated[int, Between(1, 100_000)] = 10
    momentum: Annotated[float, Between(0, 1)] = 0.0
    nesterov: Flag = False
    weight_decay: Annotated[float, Between(0, 1e6)] = 0.0
    schedule: Annotated[str, *one_of(SCHEDULES)] = "constant"
    warmup: Annotated[float, Between(0, 1)] = 0.0
    widths: Annotated[str, WrapValidator(_widths), WithJsonSchema(_WIDTHS_SCHEMA)] = ""
    pyramid: Annotated[float, Between(0, 4, above=True)] = 1.0
    norm: Annotated[str, *one_of(NORMS)] = "none"
    residual: Flag = False
    init: Annotated[str, *one_of(INITS)] = "default"
    dropout: Annotated[float, Between(0, 0.99)] = 0.0
    input_dropout: Annotated[float, Between(0, 0.99)] = 0.0
    input_noise: Annotated[float, Between(0, 100)] = 0.0
    noise: Annotated[float, Between(0, 100)] = 0.0
    label_smoothing: Annotated[float, Between(0, 0.99)] = 0.0
    huber: Annotated[float, Between(0, 1e6)] = 0.0
    clip_norm: Annotated[float, Between(0, 1e6)] = 0.0
    max_norm: Annotated[float, Between(0, 1e6)] = 0.0
    ema: Annotated[float, Between(0, 0.999999)] = 0.0
    keep: Annotated[str, *one_of(KEEPS)] = "last"
    patience: Annotated[int, Between(0, 100_000)] = 0
    model: Factory = ""
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        values = self.as_dict()
        faults = {name: text for name, v in values.items() if (text := check(name, v))}
        if faults := faults or combination_faults(values):
            raise ValueError("; ".join(f"{name}: {fault}" for name, fault in faults.items()))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Config":
        """Returns the configuration of {hyperparameter: value}; those that hpo does not know are
        the user's own network's."""
        if not values.get("model"):
            return cls(**values)
        known = {name: v for name, v in values.items() if name in HYPERPARAMETERS}
        own = {name: v for name, v in values.items() if name not in known}
        return cls(**{**PLACEHOLDERS, **known, "own": own})

    @property
    def hidden(self) -> tuple[int, ...]:
        """Returns the width of each hidden layer."""
        if self.widths:
            return tuple(map(int, self.widths.split("-")))
        return tuple(max(round(self.width * self.pyramid**i), 1) for i in range(self.depth))

    @property
    def validated(self) -> bool:
        """Whether validation decides which epoch counts, or which one is the last."""
        return self.keep == "best" or self.patience > 0

    @property
    def sure_epochs(self) -> int:
        """Returns how many epochs a training has at least: with patience it may end early."""
        return min(self.epochs, self.patience + 1) if self.patience else self.epochs

    @property
    def layers(self) -> str:
        """3 × 512, or 512-256-128; of the user's own network its hyperparameters."""
        if self.model:
            return ", ".join(f"{n} {_short(v)}" for n, v in self.own.items()) or self.model
        if len(set(self.hidden)) == 1:
            return f"{self.depth} × {self.width}"
        return "-".join(map(str, self.hidden))

    @property
    def brief(self) -> str:
        """3 × 512 ReLU, Adam, lr 0.00123."""
        network = (
            self.layers if self.model else f"{self.layers} {label(ACTIVATIONS, self.activation)}"
        )
        return f"{network}, {label(OPTIMIZERS, self.optimizer)}, lr {self.lr:.3g}"

    def extras(self, but: Collection[str] = ()) -> str:
        """dropout 0.2, batch norm: what a table of layers, activation, optimizer and lr leaves out;
        empty if all of it has its default. but: hyperparameters that are left out, too."""
        said = {"norm": f"{self.norm} norm", "residual": "residual", "nesterov": "nesterov"}
        shown = (*MOSTLY_SHARED, "momentum", "nesterov", "weight_decay", *OPTIONAL)
        elsewhere = ("widths", "pyramid", "model", *but)
        values = {name: getattr(self, name) for name in shown if name not in elsewhere}
        given = {name: value for name, value in values.items() if value != DEFAULTS[name]}
        return ", ".join(
            said.get(name) or f"{name.replace('_', ' ')} {_short(value)}"
            for name, value in given.items()
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns {hyperparameter: value}, the user's own ones among them."""
        left_out = PERCEPTRON if self.model else ()
        known = {n: getattr(self, n) for n in HYPERPARAMETERS if n not in left_out}
        return {**known, **self.own}

    def given(self) -> dict[str, Any]:
        """Returns {hyperparameter: value} without those of OPTIONAL that have their default."""
        return {k: v for k, v in self.as_dict().items() if k not in OPTIONAL or v != DEFAULTS[k]}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if value < 0.99 or value >= 1 else f"{value:.6g}"  # 0.9999 is not 1
    return printable(str(value))


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
HYPERPARAMETERS = tuple(f.name for f in fields(Config) if f.name != "own")
REQUIRED = ("depth", "width", "activation", "optimizer", "lr")
FROM_WIDTHS = ("depth", "width")  # follow from widths
REQUIRED_BY_ANY = ("optimizer", "lr")  # also with the user's own network
DEFAULTS = {f.name: f.default for f in fields(Config) if f.name not in (*REQUIRED, "own")}
MOSTLY_SHARED = ("batch_size", "epochs", "schedule")  # tables name those that differ by row
# Stored only where they differ from their defaults: older studies do not name these.
OPTIONAL = HYPERPARAMETERS[HYPERPARAMETERS.index("warmup") :]


# {hyperparameter: its type for pydantic}
TYPES = {n: h for n, h in get_type_hints(Config, include_extras=True).items() if n != "own"}
# {hyperparameter: (int or float, least, most)} of those that are numbers.
BOUNDS = {
    name: (hint.__origin__, declared.low, declared.high)
    for name, hint in TYPES.items()
    if isinstance(declared := hint.__metadata__[0], Between)
}


def kind_of(name: str) -> Any:
    """Returns the type of a hyperparameter's values for pydantic, the user's own among them."""
    return TYPES.get(name, Annotated[Any, WrapValidator(own_value), WithJsonSchema(_OWN)])


_OWN = {"type": ["number", "boolean", "string"]}
_adapter = cache(lambda name: TypeAdapter(kind_of(name), config=Table.model_config))


def checked(name: str, value: Any) -> Any:
    """Returns a value of a hyperparameter, widths as text. Raises ValidationError."""
    return _adapter(name if name in TYPES else "").validate_python(value)


def check(name: str, value: Any) -> str | None:
    """Returns what is wrong with a value of a hyperparameter; None if nothing is."""
    _, faults = read_or_faults(lambda value: checked(name, value), value)
    return faults[0][1] if faults else None


def with_widths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with widths as text, and the depth and width that follow from it."""
    if not values.get("widths"):
        return dict(values)
    widths = _widths(values["widths"], None)
    first = int(widths.partition("-")[0])
    return {**values, "widths": widths, "depth": widths.count("-") + 1, "width": first}


# The hyperparameters whose values have to go together.
COMBINED = (
    "optimizer", "momentum", "nesterov", "residual", "depth", "width", "widths", "pyramid",
    "schedule", "warmup",
)  # fmt: skip
LEAST_DEPTH = 3  # with residual connections


def combination_faults(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns {hyperparameter: what is wrong} for sound values that do not go together."""
    widths, pyramid = values.get("widths"), values.get("pyramid", 1.0)
    given = any(name in values for name in FROM_WIDTHS)
    if widths and given and with_widths(values) != dict(values):
        return {"widths": "depth and width follow from it, so leave them out"}
    if widths and pyramid != 1:
        return {"pyramid": "is 1 where widths are given"}
    if values.get("residual"):
        if values.get("depth", LEAST_DEPTH) < LEAST_DEPTH:
            return {"residual": f"needs a depth of {LEAST_DEPTH} or more"}
        if pyramid != 1 or len(set((widths or "").split("-"))) > 1:
            return {"residual": "needs hidden layers of one width"}
    if values.get("warmup") and values.get("schedule") == "one_cycle":
        return {"warmup": "is part of the schedule one_cycle already"}
    optimizer, momentum = OPTIMIZERS[values["optimizer"]], values.get("momentum")
    if values.get("nesterov"):
        if "nesterov" not in optimizer.takes or not (momentum or optimizer.momentum):
            return {"nesterov": "needs optimizer sgd with a momentum above 0"}
    elif momentum and "momentum" not in optimizer.takes:
        return {"momentum": f"is no hyperparameter of {values['optimizer']}"}
    return {}
