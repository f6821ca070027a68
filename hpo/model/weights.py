"""A saved network: loaded from a safetensors file and asked for probabilities."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpo.errors import InputError
from hpo.model import folder as description
from hpo.model.folder import CONFIG, MODEL, REMEDY, Description
from hpo.training.modules import mlp

# Images answered at a time: a wide network's hidden units for all of MNIST would fill a machine.
CHUNK = 1024


class Normalized(nn.Module):
    """A network with the normalization before it: features as in the data, pixels of 0 … 1, to
    logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.network((features - self.mean) / self.std)
        return logits


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A saved network and its description."""

    network: nn.Sequential
    description: Description

    def module(self) -> Normalized:
        """Returns the network with the normalization before it, for evaluation."""
        scales = (torch.tensor(v) for v in (self.description.mean, self.description.std))
        return Normalized(self.network, *scales).eval()

    def probabilities(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the probabilities (n, classes) for features (n, features); pixels of 0 … 1."""
        network = self.module()
        with torch.inference_mode():
            parts = torch.from_numpy(pixels).split(CHUNK)
            answers = [network(part).softmax(1) for part in parts]
            return torch.cat(answers).numpy()


def load(folder: Path) -> Saved:
    """Loads the network in a `best/` folder. Raises InputError that names the file if hpo did not
    write it.

    Names, shapes and types of the weights are compared before any of them is read.
    """
    about = description.read(folder)
    network = _without_weights(about)
    path = folder / MODEL
    try:
        _check_header(path, network.state_dict())
        weights = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is missing or damaged ({reason}); {REMEDY}") from error
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise InputError(f"{path}: not all of its weights are numbers; {REMEDY}")
    network.load_state_dict(weights, assign=True)
    return Saved(network=network.eval(), description=about)


def _without_weights(about: Description) -> nn.Sequential:
    with torch.device("meta"):
        return mlp(about.config, about.features, len(about.classes))


def _check_header(path: Path, expected: dict[str, Tensor]) -> None:
    """Raises InputError unless the file declares tensors like these, as 32-bit floats or, for a
    batch norm's steps, 64-bit integers."""
    with safetensors.safe_open(path, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        declared = {name: (tuple(p.get_shape()), p.get_dtype()) for name, p in parts.items()}
    wanted = {
        name: (tuple(weight.shape), "F32" if weight.is_floating_point() else "I64")
        for name, weight in expected.items()
    }
    for name in sorted({*wanted, *declared}, key=repr):
        if wanted.get(name) != declared.get(name):
            raise InputError(
                f"{path}: is not the network that {CONFIG} describes ({name!r}: "
                f"{_shown(declared.get(name))}, not {_shown(wanted.get(name))}); {REMEDY}"
            )


def _shown(kind: tuple[tuple[int, ...], str] | None) -> str:
    return f"{kind[0]} {kind[1]}" if kind else "nothing"
