"""A saved network: loaded from a safetensors file and asked for probabilities, or numbers."""

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
from hpo.model.folder import CONFIG, ENSEMBLE, MODEL, REMEDY, Description, read
from hpo.training.modules import mlp

# Examples answered at a time: a wide network's hidden units for all of MNIST would fill a machine.
CHUNK = 1024


class Normalized(nn.Module):
    """A network with the normalization before it: features as in the data, pixels of 0 … 1, to
    logits, divided by the temperature that calibrates their probabilities; of a regression to
    numbers in the target's unit, in double precision. Numbers of a table are normalized in double
    precision, as for the training."""

    def __init__(self, network: nn.Module, schema: Schema, temperature: float = 1.0) -> None:
        super().__init__()
        self.network, self.schema, self.temperature = network, schema, temperature

    def forward(self, features: Tensor) -> Tensor:
        schema: Any = self.schema
        if schema.pixels:
            fed = (features.float() - schema.mean) / schema.std
        else:
            fed = schema.transformed(features.double(), torch).float()
        logits: Tensor = self.network(fed)
        if schema.target:
            mean, deviation = schema.target
            logits = logits.double() * deviation + mean
        return logits if self.temperature == 1 else logits / self.temperature


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A saved network, or the networks of an ensemble, and the description."""

    networks: tuple[nn.Sequential, ...]
    description: Description

    @property
    def network(self) -> nn.Sequential:
        return self.networks[0]

    def module(self) -> Normalized:
        """Returns the network with the normalization before it, for evaluation."""
        schema = self.description.schema
        if schema.scale == "quantile":
            raise InputError('scale = "quantile": is not a part of a torch module; use hpo predict')
        return Normalized(self.network, schema, self.description.temperature).eval()

    def answers(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        """Returns the probabilities (n, classes) for rows (n, features) that the schema made; of a
        regression the numbers (n, 1) in the target's unit. Of an ensemble, the mean over its
        networks, whose logits have no temperature: that is of one network, and a mean of several is
        less certain than each."""
        with torch.inference_mode():
            parts = torch.from_numpy(rows).split(CHUNK)
            answers = torch.cat([self._together(part) for part in parts])
        if not answers.isfinite().all():
            raise InputError(
                "the network gives no numbers for these examples: its weights, its scale or the "
                f"examples are out of all proportion; {REMEDY}, or other examples"
            )
        found = answers.numpy()
        schema = self.description.schema
        return schema.in_unit(found) if schema.target else found

    def _together(self, rows: Tensor) -> Tensor:
        answers = torch.stack([network(rows) for network in self.networks])
        if self.description.schema.target:
            return answers.double().mean(0)
        temperature = self.description.temperature
        if len(self.networks) == 1 and temperature != 1:  # exact: no two classes become equal
            return (answers[0].double() / temperature).softmax(1)
        return answers.softmax(2).mean(0)


def load(folder: Path, *, ensemble: bool = False) -> Saved:
    """Loads the network in a `best/` folder, or its ensemble. Raises InputError that names the file
    if hpo did not write it.

    Names, shapes and types of the weights are compared before any of them is read.
    """
    about = read(folder)
    if ensemble and about.members == 1:
        raise InputError(
            f"{folder}: has no ensemble; members = 8 under [finalists] makes one, and the same run "
            "saves it"
        )
    with torch.device("meta"):  # without weights
        sizes = (about.schema.features, about.schema.outputs)
        networks = [mlp(about.config, *sizes) for _ in range(about.members if ensemble else 1)]
    path = folder / (ENSEMBLE if ensemble else MODEL)
    starts = [f"{place}." if ensemble else "" for place in range(len(networks))]
    named = dict(zip(starts, networks, strict=True))
    expected = {f"{s}{k}": v for s, net in named.items() for k, v in net.state_dict().items()}
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no file; {REMEDY}")
    try:
        _check_header(path, expected)
        content = path.read_bytes()
        weights = safetensors.torch.load(content)
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is missing or damaged ({reason}); {REMEDY}") from error
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise InputError(f"{path}: not all of its weights are numbers; {REMEDY}")
    digest = about.ensemble if ensemble else about.weights
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: is not the file that {CONFIG} was written with; {REMEDY}")
    for start, network in named.items():
        state = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        network.load_state_dict(state, assign=True)
    return Saved(networks=tuple(network.eval() for network in networks), description=about)


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
