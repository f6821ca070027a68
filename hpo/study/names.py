"""The table of names: what a study file may name, how a report calls it, and where its code is.

A new activation, optimizer, schedule, dataset, sampler or pruner is one entry here. The code is
loaded when it is first used, so that this table imports neither torch nor Optuna.
"""

import pkgutil
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Named:
    """label: the name in reports. code: the object behind it, as "module:object"."""

    label: str
    code: str

    def load(self) -> Any:
        """Imports and returns the object behind the name."""
        return pkgutil.resolve_name(self.code)


@dataclass(frozen=True, kw_only=True)
class Activation(Named):
    """code: a training.activations.Activation. module: the class of torch.nn that computes it."""

    module: str


@dataclass(frozen=True, kw_only=True)
class Optimizer(Named):
    """code: makes the step function, see training.optimizers. takes: its own hyperparameters.
    momentum: the momentum where a study file gives none."""

    takes: tuple[str, ...] = ("weight_decay",)
    momentum: float = 0.0


_TRAINING, _SAMPLERS, _CATALOG = "hpo.training", "hpo.run.samplers", "hpo.data.catalog"
_SGD = ("momentum", "nesterov", "weight_decay")

ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(
        label="Sigmoid", module="Sigmoid", code=f"{_TRAINING}.activations:SIGMOID"
    ),
    "tanh": Activation(label="Tanh", module="Tanh", code=f"{_TRAINING}.activations:TANH"),
    "relu": Activation(label="ReLU", module="ReLU", code=f"{_TRAINING}.activations:RELU"),
    "gelu": Activation(label="GELU", module="GELU", code=f"{_TRAINING}.activations:GELU"),
    "silu": Activation(label="SiLU", module="SiLU", code=f"{_TRAINING}.activations:SILU"),
    "elu": Activation(label="ELU", module="ELU", code=f"{_TRAINING}.activations:ELU"),
    "leaky_relu": Activation(
        label="Leaky ReLU", module="LeakyReLU", code=f"{_TRAINING}.activations:LEAKY_RELU"
    ),
}

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(label="SGD", code=f"{_TRAINING}.optimizers:sgd", takes=_SGD),
    "sgd_momentum": Optimizer(
        label="SGD, momentum", code=f"{_TRAINING}.optimizers:sgd", takes=_SGD, momentum=0.9
    ),
    "adam": Optimizer(label="Adam", code=f"{_TRAINING}.optimizers:adam"),
    "adamw": Optimizer(label="AdamW", code=f"{_TRAINING}.optimizers:adamw"),
    "rmsprop": Optimizer(
        label="RMSprop", code=f"{_TRAINING}.optimizers:rmsprop", takes=("momentum", "weight_decay")
    ),
}

# label: how the learning rate changes, as the end of a sentence.
SCHEDULES: dict[str, Named] = {
    "constant": Named(label="constant", code=f"{_TRAINING}.schedules:constant"),
    "linear": Named(label="falling linearly to 0", code=f"{_TRAINING}.schedules:linear"),
    "cosine": Named(label="falling to 0 along a cosine", code=f"{_TRAINING}.schedules:cosine"),
}

DATASETS: dict[str, Named] = {
    "mnist": Named(label="MNIST", code=f"{_CATALOG}:MNIST"),
    "fashion-mnist": Named(label="Fashion-MNIST", code=f"{_CATALOG}:FASHION_MNIST"),
    "kmnist": Named(label="KMNIST", code=f"{_CATALOG}:KMNIST"),
    "mnist-5k": Named(label="mnist-5k", code=f"{_CATALOG}:MNIST_5K"),
}

SAMPLERS: dict[str, Named] = {
    "tpe": Named(label="TPE", code=f"{_SAMPLERS}:tpe"),
    "random": Named(label="random search", code=f"{_SAMPLERS}:random"),
    "gp": Named(label="a Gaussian process", code=f"{_SAMPLERS}:gp"),
    "cmaes": Named(label="CMA-ES", code=f"{_SAMPLERS}:cmaes"),
    "qmc": Named(label="a quasi-random sequence", code=f"{_SAMPLERS}:qmc"),
}

PRUNERS: dict[str, Named] = {
    "none": Named(label="no pruning", code=f"{_SAMPLERS}:no_pruner"),
    "median": Named(label="the median rule", code=f"{_SAMPLERS}:median"),
    "hyperband": Named(label="Hyperband", code=f"{_SAMPLERS}:hyperband"),
    "sha": Named(label="successive halving", code=f"{_SAMPLERS}:successive_halving"),
    "percentile": Named(label="the 25% rule", code=f"{_SAMPLERS}:percentile"),
}


def label(table: dict[str, Any], name: str) -> str:
    """The label of a name; the name itself where the table does not have it."""
    return str(table[name].label) if name in table else name
