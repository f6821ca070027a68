"""The table of names: what a study file may name, how a report calls it, and where its code is.

A new activation, optimizer, schedule, dataset, sampler or pruner is one entry here. The code is
loaded when it is first used, so that this table imports neither torch nor Optuna.
"""

import pkgutil
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hpo.language import marked

ColumnKind = Literal["number", "category", "date", "ignore"]  # that a study file may ask for
Scaling = Literal["standard", "robust", "quantile"]  # of a table's numbers, see data.schema
TaskKind = Literal["classification", "regression"]  # what is learned: classes, or a number
Precision = Literal["float32", "bfloat16"]  # of large products in training
FLOAT32, BFLOAT16 = get_args(Precision)


@dataclass(frozen=True)
class Named:
    """label: the name in reports. code: the object behind it, as "module:object"."""

    label: str
    code: str

    def load(self) -> Any:
        """Imports and returns the object behind the name."""
        return pkgutil.resolve_name(self.code)


@dataclass(frozen=True)
class Activation(Named):
    """code: a training.activations.Activation. module: the class of torch.nn that computes it."""

    module: str


@dataclass(frozen=True)
class Optimizer(Named):
    """code: makes the step function, see training.optimizers. takes: its own hyperparameters.
    momentum: the momentum where a study file gives none."""

    takes: tuple[str, ...] = ("weight_decay",)
    momentum: float = 0.0


_SAMPLERS, _CATALOG = "hpo.runs.samplers", "hpo.data.catalog"
_ACTIVATIONS, _OPTIMIZERS = "hpo.training.activations", "hpo.training.optimizers"
_SGD = ("momentum", "nesterov", "weight_decay")
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation("Sigmoid", f"{_ACTIVATIONS}:SIGMOID", "Sigmoid"),
    "tanh": Activation("Tanh", f"{_ACTIVATIONS}:TANH", "Tanh"),
    "relu": Activation("ReLU", f"{_ACTIVATIONS}:RELU", "ReLU"),
    "gelu": Activation("GELU", f"{_ACTIVATIONS}:GELU", "GELU"),
    "silu": Activation("SiLU", f"{_ACTIVATIONS}:SILU", "SiLU"),
    "elu": Activation("ELU", f"{_ACTIVATIONS}:ELU", "ELU"),
    "leaky_relu": Activation("Leaky ReLU", f"{_ACTIVATIONS}:LEAKY_RELU", "LeakyReLU"),
}

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer("SGD", f"{_OPTIMIZERS}:sgd", takes=_SGD),
    "sgd_momentum": Optimizer("SGD, momentum", f"{_OPTIMIZERS}:sgd", takes=_SGD, momentum=0.9),
    "adam": Optimizer("Adam", f"{_OPTIMIZERS}:adam"),
    "adamw": Optimizer("AdamW", f"{_OPTIMIZERS}:adamw"),
    "rmsprop": Optimizer("RMSprop", f"{_OPTIMIZERS}:rmsprop", takes=("momentum", "weight_decay")),
}

# label: how the learning rate changes, as the end of a sentence.
SCHEDULES: dict[str, Named] = {
    "constant": Named("constant", "hpo.training.optimizers:constant"),
    "step": Named(
        marked("falling by ten after half and three quarters"), "hpo.training.optimizers:step"
    ),
    "linear": Named(marked("falling linearly to 0"), "hpo.training.optimizers:linear"),
    "cosine": Named(marked("falling to 0 along a cosine"), "hpo.training.optimizers:cosine"),
    "one_cycle": Named(
        marked("rising and falling in one cycle"), "hpo.training.optimizers:one_cycle"
    ),
}


@dataclass(frozen=True)
class Norm(Named):
    """code: the axis of (R, B, units) that is normalized over. module: its class of torch.nn."""

    module: str = ""


NORMS: dict[str, Norm] = {
    "none": Norm("none", "hpo.training.norms:NONE"),
    "batch": Norm("batch norm", "hpo.training.norms:BATCH", "BatchNorm1d"),
    "layer": Norm("layer norm", "hpo.training.norms:LAYER", "LayerNorm"),
}

INITS: dict[str, Named] = {
    "default": Named("torch's default", "hpo.training.network:default"),
    "kaiming": Named("Kaiming", "hpo.training.network:kaiming"),
    "xavier": Named("Xavier", "hpo.training.network:xavier"),
}

DATASETS: dict[str, Named] = {
    "mnist": Named("MNIST", f"{_CATALOG}:MNIST"),
    "fashion-mnist": Named("Fashion-MNIST", f"{_CATALOG}:FASHION_MNIST"),
    "kmnist": Named("KMNIST", f"{_CATALOG}:KMNIST"),
    "qmnist": Named("QMNIST", f"{_CATALOG}:QMNIST"),
    "emnist-digits": Named("EMNIST digits", f"{_CATALOG}:EMNIST_DIGITS"),
    "emnist-letters": Named("EMNIST letters", f"{_CATALOG}:EMNIST_LETTERS"),
    "mnist-5k": Named("mnist-5k", f"{_CATALOG}:MNIST_5K"),
    "digits": Named(marked("digits of 8 × 8 pixels"), f"{_CATALOG}:SKLEARN_DIGITS"),
    "breast-cancer": Named(marked("breast cancer"), f"{_CATALOG}:BREAST_CANCER"),
    "wine": Named(marked("wine"), f"{_CATALOG}:WINE"),
}

FILES = Named("the user's own files", "hpo.data.files:load")
FORMS = "the path of an .npz, .csv or .parquet file or of a folder of images (./folder)"

SAMPLERS: dict[str, Named] = {
    "tpe": Named("TPE", f"{_SAMPLERS}:tpe"),
    "random": Named(marked("random search"), f"{_SAMPLERS}:random"),
    "gp": Named(marked("a Gaussian process"), f"{_SAMPLERS}:gp"),
    "cmaes": Named("CMA-ES", f"{_SAMPLERS}:cmaes"),
    "qmc": Named(marked("a quasi-random sequence"), f"{_SAMPLERS}:qmc"),
    "nsga2": Named("NSGA-II", f"{_SAMPLERS}:nsga2"),
}

ASHA = "asha"  # whose trials pause and go on; the others are Optuna's
PRUNERS: dict[str, Named] = {
    "none": Named(marked("no pruning"), f"{_SAMPLERS}:no_pruner"),
    "median": Named(marked("the median rule"), f"{_SAMPLERS}:median"),
    "hyperband": Named("Hyperband", f"{_SAMPLERS}:hyperband"),
    "sha": Named(marked("successive halving"), f"{_SAMPLERS}:successive_halving"),
    ASHA: Named(marked("asynchronous successive halving"), f"{_SAMPLERS}:asha"),
    "percentile": Named(marked("the 25% rule"), f"{_SAMPLERS}:percentile"),
    "wilcoxon": Named(marked("Wilcoxon's test over seeds"), f"{_SAMPLERS}:wilcoxon"),
}


TABLES: tuple[dict[str, Any], ...] = (
    ACTIVATIONS,
    OPTIMIZERS,
    SCHEDULES,
    NORMS,
    INITS,
    DATASETS,
    SAMPLERS,
    PRUNERS,
)
_SHIPPED = [dict(table) for table in TABLES]


def added() -> list[dict[str, Any]]:
    """Returns of each table the entries that a program has added or replaced: its worker processes
    do not run that program."""
    pairs = zip(TABLES, _SHIPPED, strict=True)
    return [{k: v for k, v in table.items() if v != shipped.get(k)} for table, shipped in pairs]


def add(entries: list[dict[str, Any]]) -> None:
    """Adds to each table what added() has returned in another process."""
    for table, more in zip(TABLES, entries, strict=True):
        table.update(more)


def label(table: dict[str, Any], name: str) -> str:
    """The label of a name; the name itself where the table does not have it."""
    return str(table[name].label) if name in table else name


def choices(hyperparameter: str) -> dict[str, str]:
    """Returns {value: its label} of an activation or optimizer; nothing of other hyperparameters,
    whose values reports show as they are."""
    tables: dict[str, Any] = {"activation": ACTIVATIONS, "optimizer": OPTIMIZERS}
    return {name: entry.label for name, entry in tables.get(hyperparameter, {}).items()}
