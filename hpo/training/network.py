"""The multilayer perceptron: layers, initial weights, forward and backward pass, reused buffers.

Every tensor has a leading replicate dimension R: R networks of one shape, each with its own
weights, are trained at once. A single network has R = 1. Derivatives are written out with torch's
own backward kernels; tests/test_training.py compares them with autograd.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from hpo.study.names import ACTIVATIONS
from hpo.training.activations import Activation

# Vector kernels compute LANES numbers (or a divisor of it) at a time and round the rest of a vector
# differently. Vectors are padded to a multiple, so that a replicate's numbers do not depend on the
# size of its stack.
LANES = 64


def _padded_size(count: int) -> int:
    return -(-count // LANES) * LANES


def _padded(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns a tensor of zeros, and the padded vector that begins with it."""
    count = math.prod(shape)
    vector = torch.zeros(_padded_size(count), device=device)
    return vector[:count].view(shape), vector


@dataclass(frozen=True)
class Layers:
    """The parameters: weights[l] (R, in, out) and biases[l] (R, 1, out), views of one flat vector.

    bias_vectors[l]: the padded part of the vector that begins with biases[l].
    """

    flat: Tensor
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    bias_vectors: tuple[Tensor, ...]

    @classmethod
    def zeros(cls, sizes: Sequence[int], replicates: int, device: torch.device) -> "Layers":
        shapes = [
            shape
            for fan_in, fan_out in pairwise(sizes)
            for shape in ((replicates, fan_in, fan_out), (replicates, 1, fan_out))
        ]
        lengths = [_padded_size(math.prod(shape)) for shape in shapes]
        flat = torch.zeros(sum(lengths), device=device)
        parts = flat.split(lengths)
        views = [p[: math.prod(s)].view(s) for p, s in zip(parts, shapes, strict=True)]
        return cls(flat, tuple(views[::2]), tuple(views[1::2]), tuple(parts[1::2]))


class Network:
    """R perceptrons with the layer sizes (inputs, hidden …, classes), initialized as nn.Linear is.

    generators: one per replicate, on the CPU. Each draws the replicate's weights and biases in the
    order and the shapes in which torch.nn.Linear draws them.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        self.sizes = tuple(sizes)
        self.activation = activation
        self.replicates = len(generators)
        self.layers = Layers.zeros(sizes, self.replicates, device)
        for replicate, generator in enumerate(generators):
            self._initialize(replicate, generator)

    def _initialize(self, replicate: int, generator: torch.Generator) -> None:
        for weight, bias in zip(self.layers.weights, self.layers.biases, strict=True):
            fan_in, fan_out = weight.shape[1:]
            bound = 1 / math.sqrt(fan_in)
            drawn = torch.empty(fan_out, fan_in).uniform_(-bound, bound, generator=generator)
            weight[replicate] = drawn.T
            bias[replicate] = torch.empty(fan_out).uniform_(-bound, bound, generator=generator)

    @property
    def parameters(self) -> int:
        """Returns the number of weights and biases of one replicate."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(self.sizes))

    def state_dict(self, replicate: int = 0) -> dict[str, Tensor]:
        """Returns one replicate's parameters, named as in nn.Sequential(Linear, activation, Linear,
        …)."""
        state = {}
        layers = zip(self.layers.weights, self.layers.biases, strict=True)
        for index, (weight, bias) in enumerate(layers):
            state[f"{2 * index}.weight"] = weight[replicate].T.contiguous()
            state[f"{2 * index}.bias"] = bias[replicate, 0].clone()
        return state


class Pass:
    """Buffers for a forward and backward pass of B rows per replicate.

    inputs: (R, B, features), filled by the caller before forward. Logits, targets and the last
    delta have the classes first, (R, classes, B): a softmax over ten neighbours in memory takes six
    times as long.
    """

    def __init__(self, network: Network, batch: int) -> None:
        device = network.layers.flat.device
        rows = (network.replicates, batch)
        self.network = network
        self.activation: Activation = ACTIVATIONS[network.activation].load()
        outputs = [_padded((*rows, size), device) for size in network.sizes[:-1]]
        keep = self.activation.keeps_input
        kept = [_padded(view.shape, device) for view, _ in outputs] if keep else outputs
        deltas = [_padded((*rows, size), device) for size in network.sizes[1:-1]]
        self.last_delta = torch.zeros(rows[0], network.sizes[-1], batch, device=device)
        self.outputs, self._output_vectors = zip(*outputs, strict=True)
        self.kept, self._kept_vectors = zip(*kept, strict=True)
        self._delta_vectors = [vector for _, vector in deltas]
        self.deltas = [*(view for view, _ in deltas), self.last_delta.mT]
        self.inputs: Tensor = self.outputs[0]
        self._outputs_t = [h.mT for h in self.outputs]
        self._weights_t = [w.mT for w in network.layers.weights]
        sums = [_padded(bias.shape, device) for bias in network.layers.biases]
        self._sums, self._sum_vectors = zip(*sums, strict=True)
        self._last_bias_t = network.layers.biases[-1].mT
        self._zero = torch.zeros((), device=device)

    def forward(self, logits: Tensor) -> None:
        """Computes the logits of self.inputs and writes them to `logits`, (R, classes, B)."""
        weights, biases = self.network.layers.weights, self.network.layers.biases
        last = len(weights) - 1
        for layer in range(last):
            kept, above = self.kept[layer + 1], layer + 1
            torch.baddbmm(biases[layer], self.outputs[layer], weights[layer], out=kept)
            self.activation.forward(self._kept_vectors[above], out=self._output_vectors[above])
        weight_t, output_t = self._weights_t[last], self._outputs_t[last]
        torch.baddbmm(self._last_bias_t, weight_t, output_t, out=logits)

    def backward(
        self, logits: Tensor, targets: Tensor, into: Layers, *, step: float, keep: float
    ) -> None:
        """Computes into = keep · into + step · gradient of the cross entropy summed over the batch.

        targets: (R, classes, B), one-hot. keep: 0 or 1. With the network's own layers and keep = 1
        this is a step of gradient descent: each weight is used before it is changed.
        """
        deltas = self.deltas
        torch.softmax(logits, 1, out=self.last_delta)
        self.last_delta.sub_(targets)
        for layer in range(len(deltas) - 1, -1, -1):
            delta = deltas[layer]
            if layer:
                torch.bmm(delta, self._weights_t[layer], out=deltas[layer - 1])
                below = self._delta_vectors[layer - 1]
                self.activation.backward(below, self._kept_vectors[layer], below)
            into.weights[layer].baddbmm_(self._outputs_t[layer], delta, beta=keep, alpha=step)
            # By a sum and not by a product with ones: MKL's rounding of so thin a product depends
            # on the size of the stack, and a replicate must not feel its neighbours.
            torch.sum(delta, 1, keepdim=True, out=self._sums[layer])
            bias, total = into.bias_vectors[layer], self._sum_vectors[layer]
            torch.add(bias if keep else self._zero, total, alpha=step, out=bias)
