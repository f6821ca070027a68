"""A saved network: loaded from a safetensors file and asked for probabilities."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.model.folder import CONFIG, MODEL, REMEDY, Description, read
from hpo.training.modules import mlp

# Examples answered at a time: a wide network's hidden units for all of MNIST would fill a machine.
CHUNK = 1024


class Normalized(nn.Module):
    """A network with the normalization before it: features as in the data, pixels of 0 … 1, to
    logits. Numbers of a table are normalized in double precision, as for the training."""

    def __init__(self, network: nn.Module, schema: Schema) -> None:
        super().__init__()
        self.network, self.schema = network, schema

    def forward(self, features: Tensor) -> Tensor:
        schema: Any = self.schema
        if schema.pixels:
            fed = (features.float() - schema.mean) / schema.std
        else:
            fed = schema.transformed(features.double(), torch).float()
        logits: Tensor = self.network(fed)
        return logits


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A saved network and its description."""

    network: nn.Sequential
    description: Description

    def module(self) -> Normalized:
        """Returns the network with the normalization before it, for evaluation."""
        return Normalized(self.network, self.description.schema).eval()

    def probabilities(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the probabilities (n, classes) for rows (n, features) that the schema made."""
        with torch.inference_mode():
            parts = torch.from_numpy(rows).split(CHUNK)
            answers = torch.cat([self.network(part).softmax(1) for part in parts])
        if not answers.isfinite().all():
            raise InputError(
                "the network gives no numbers for these examples: its weights, its scale or the "
                f"examples are out of all proportion; {REMEDY}, or other examples"
            )
        return answers.numpy()


def load(folder: Path) -> Saved:
    """Loads the network in a `best/` folder. Raises InputError that names the file if hpo did not
    write it.

    Names, shapes and types of the weights are compared before any of them is read.
    """
    about = read(folder)
    with torch.device("meta"):  # without weights
        network = mlp(about.config, about.schema.features, len(about.schema.classes))
    path = folder / MODEL
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file; {REMEDY}")
    try:
        _check_header(path, network.state_dict())
        content = path.read_bytes()
        weights = safetensors.torch.load(content)
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is missing or damaged ({reason}); {REMEDY}") from error
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise InputError(f"{path}: not all of its weights are numbers; {REMEDY}")
    if about.weights and hashlib.sha256(content).hexdigest() != about.weights:
        raise InputError(f"{path}: is not the file that {CONFIG} was written with; {REMEDY}")
    network.load_state_dict(weights, assign=True)
    return Saved(network=network.eval(), description=about)


def _check_header(path: Path, expected: dict[str, Tensor]) -> None:
    """Raises InputError unless the file declares tensors like these, as 32-bit floats or, for a
    batch norm's steps, 64-bit integers."""
    with safetensors.safe_open(path, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        declared = {name: f"{tuple(p.get_shape())} {p.get_dtype()}" for name, p in parts.items()}
    wanted = {
        name: f"{tuple(weight.shape)} {'F32' if weight.is_floating_point() else 'I64'}"
        for name, weight in expected.items()
    }
    for name in sorted({*wanted, *declared}, key=repr):
        has, needs = declared.get(name, "nothing"), wanted.get(name, "nothing")
        if has != needs:
            raise InputError(
                f"{path}: is not the network that {CONFIG} describes ({name!r}: {has}, not "
                f"{needs}); {REMEDY}"
            )
