"""The multilayer perceptron: layers, initial weights, forward and backward pass, reused buffers.

Every tensor has a leading replicate dimension R: R networks of one shape, each with its own
weights, are trained at once. A single network has R = 1. Derivatives are written out with torch's
own backward kernels; tests/test_training.py compares them with autograd.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, zip_longest

import torch
from torch import Tensor, nn

from hpo.study.config import Config
from hpo.study.names import ACTIVATIONS, INITS, NORMS
from hpo.training import cores
from hpo.training.activations import Activation
from hpo.training.modules import mlp
from hpo.training.noise import Noise
from hpo.training.norms import BATCH, NormPass, Running

# Vector kernels compute LANES numbers (or a divisor of it) at a time and round the rest of a vector
# differently. Vectors are padded to a multiple, so that a replicate's numbers do not depend on the
# size of its stack.
LANES = 64


def _padded_size(shape: Sequence[int]) -> int:
    return -(-math.prod(shape) // LANES) * LANES


@dataclass(frozen=True)
class Padded:
    """A tensor, and the padded vector that begins with it."""

    values: Tensor
    vector: Tensor

    @classmethod
    def split(cls, vector: Tensor, shapes: Sequence[Sequence[int]]) -> "tuple[Padded, ...]":
        """Returns tensors of these shapes, which lie in the vector one after another."""
        parts = vector.split([_padded_size(shape) for shape in shapes])
        views = [p[: math.prod(s)].view(*s) for p, s in zip(parts, shapes, strict=True)]
        return tuple(map(cls, views, parts))

    @classmethod
    def zeros(cls, shape: Sequence[int], device: torch.device) -> "Padded":
        return cls.split(torch.zeros(_padded_size(shape), device=device), [shape])[0]


def class_major_zeros(rows: Tensor, classes: int) -> Tensor:
    """Returns zeros for the logits of rows, (steps, R, B): (steps, R, classes, B)."""
    steps, replicates, batch = rows.shape
    return torch.zeros(steps, replicates, classes, batch, device=rows.device)


@dataclass(frozen=True)
class Layers:
    """The parameters, views of one flat vector: weights[l] (R, in, out), biases[l], and of a hidden
    layer's norm scales[l] and shifts[l]; none without norm. bias_vector: all biases, padded."""

    flat: Tensor
    bias_vector: Tensor
    weights: tuple[Tensor, ...]
    biases: tuple[Padded, ...]
    scales: tuple[Padded, ...]
    shifts: tuple[Padded, ...]

    @property
    def tensors(self) -> list[Tensor]:
        """Returns all parameters."""
        rows = (*self.biases, *self.scales, *self.shifts)
        return [*self.weights, *(row.values for row in rows)]


class Network:
    """R perceptrons of one configuration.

    generators: one per replicate, on the CPU. Each draws the replicate's weights and biases in the
    order and the shapes in which torch.nn.Linear, or torch.nn.init, draws them.
    """

    def __init__(
        self,
        config: Config,
        features: int,
        classes: int,
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        self.config = config
        self.sizes = (features, *config.hidden, classes)
        self.norm: int = NORMS[config.norm].load()
        self.replicates = len(generators)
        self.layers = self.zeros(device)
        normed = self.sizes[1:-1] if self.norm == BATCH else ()
        self.running = [Running(self.replicates, units, device) for units in normed]
        for scale in self.layers.scales:
            scale.values.fill_(1.0)
        initialize = INITS[config.init].load()
        for replicate, generator in enumerate(generators):
            for weight, bias in zip(self.layers.weights, self.layers.biases, strict=True):
                fan_in, fan_out = weight.shape[1:]
                drawn = initialize(fan_in, fan_out, generator)
                weight[replicate], bias.values[replicate] = drawn[0].T, drawn[1]

    def zeros(self, device: torch.device | None = None) -> Layers:
        """Returns layers of the network's shape, such as for gradients."""
        device = device or self.layers.flat.device
        weights = [(self.replicates, *fans) for fans in pairwise(self.sizes)]
        biases = [(self.replicates, 1, units) for units in self.sizes[1:]]
        normed = biases[:-1] if self.norm else []
        groups = (weights, biases, normed, normed)
        lengths = [sum(map(_padded_size, shapes)) for shapes in groups]
        flat = torch.zeros(sum(lengths), device=device)
        vectors = flat.split(lengths)
        padded, *rows = map(Padded.split, vectors, groups)
        return Layers(flat, vectors[1], tuple(part.values for part in padded), *rows)

    def logits(self, images: Tensor, rows: Tensor, classes: int) -> Tensor:
        """Returns the logits of rows, (steps, R, B), of images, (steps, R, classes, B)."""
        logits = class_major_zeros(rows, classes)
        for _ in self.passes(images, rows, logits):
            pass
        return logits

    def passes(self, images: Tensor, rows: Tensor, logits: Tensor) -> "Iterator[Pass]":
        """Yields a pass after each step over rows, (steps, R, B), of images, which writes its
        logits; all in the same buffers."""
        buffers = Pass(self, rows.shape[2])
        inputs = buffers.inputs.flatten(0, 1)
        for index, answer in zip(rows.flatten(1), logits, strict=True):
            torch.index_select(images, 0, index, out=inputs)
            buffers.forward(answer)
            yield buffers

    @property
    def parameters(self) -> int:
        """Returns the number of parameters of one replicate."""
        return sum(tensor[0].numel() for tensor in self.layers.tensors)

    def state_dict(self, replicate: int = 0) -> dict[str, Tensor]:
        """Returns one replicate's parameters, named as in training.modules.mlp."""
        with torch.device("meta"):
            names = mlp(self.config, self.sizes[0], self.sizes[-1]).state_dict()
        values: list[Tensor] = []
        groups = (self.layers.biases, self.layers.scales, self.layers.shifts)
        for layer, weight in enumerate(self.layers.weights):
            values.append(weight[replicate].T.contiguous())
            rows = [group[layer].values for group in groups if layer < len(group)]
            running = self.running[layer : layer + 1]  # none after the last layer
            rows += [row for norm in running for row in (norm.mean, norm.var)]
            values += [row[replicate, 0].clone() for row in rows]
            values += [torch.tensor(norm.steps) for norm in running]
        return dict(zip(names, values, strict=True))


# The initializations of study.names: (inputs, units, generator) -> weight (units, inputs), bias.


def default(fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As torch.nn.Linear."""
    bound = 1 / math.sqrt(fan_in)
    weight = torch.empty(fan_out, fan_in).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(fan_out).uniform_(-bound, bound, generator=generator)


def _without_bias(
    fill: Callable[..., Tensor], fan_in: int, fan_out: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    return fill(torch.empty(fan_out, fan_in), generator=generator), torch.zeros(fan_out)


# Normal, variance 2 / inputs (He et al. 2015, "Delving Deep into Rectifiers"); biases 0.
kaiming = partial(_without_bias, partial(nn.init.kaiming_normal_, nonlinearity="relu"))
# Uniform, variance 2 / (inputs + units) (Glorot and Bengio 2010); biases 0.
xavier = partial(_without_bias, nn.init.xavier_uniform_)


class Pass:
    """Buffers for a forward and backward pass of B rows per replicate.

    inputs: (R, B, features), filled by the caller before forward. active: the hidden layers'
    activations, (R, B, units) each. kept: what the activation's backward needs of each. Logits,
    targets and the last delta have the classes first, (R, classes, B): a softmax over ten
    neighbours in memory takes six times as long.
    """

    def __init__(
        self, network: Network, batch: int, generators: Sequence[torch.Generator] | None = None
    ) -> None:
        """generators: one per replicate, for the noise of training; None: a pass without dropout
        and with the running statistics of a batch norm."""
        device = network.layers.flat.device
        rows = (network.replicates, batch)
        config, hidden = network.config, network.sizes[1:-1]

        def buffers(units: Sequence[int]) -> list[Padded]:
            return [Padded.zeros((*rows, each), device) for each in units]

        def noise(amount: float, values: Tensor) -> Noise | None:
            return Noise(amount, values.shape, generators) if generators and amount else None

        self.network = network
        self.activation: Activation = ACTIVATIONS[config.activation].load()
        self.residual = config.residual
        outputs = buffers(network.sizes[:-1])
        self.outputs = [output.values for output in outputs]
        self.inputs = self.outputs[0]
        self.input_noise = noise(config.input_noise, self.inputs)
        self.input_dropout = noise(config.input_dropout, self.inputs)
        dropouts = [noise(config.dropout, output) for output in self.outputs[1:]]
        self.dropouts = [dropout for dropout in dropouts if dropout]
        apart = self.residual or self.dropouts
        self.active = buffers(hidden) if apart else outputs[1:]
        self.kept = buffers(hidden) if self.activation.keeps_input else self.active
        self._hidden_deltas = buffers(hidden)
        self.last_delta = torch.zeros(rows[0], network.sizes[-1], batch, device=device)
        hidden_deltas = [delta.values for delta in self._hidden_deltas]
        self.deltas = [*hidden_deltas, self.last_delta.mT]
        self._skipped = list(map(torch.zeros_like, hidden_deltas)) if self.residual else []
        training = generators is not None
        self.norms = [
            NormPass(network.norm, delta, statistics, training=training)
            for delta, statistics in zip_longest(hidden_deltas, network.running)
            if network.norm
        ]
        shapes = [(*rows, *fans) for fans in pairwise(network.sizes)]
        products = (cores.forward, cores.to_inputs, cores.to_weights)
        self._forward, self._to_inputs, self._to_weights = (
            [cores.for_product(product, shape) for shape in shapes] for product in products
        )
        layers = network.layers
        self._outputs_t = [h.mT for h in self.outputs]
        self._weights_t = [w.mT for w in layers.weights]
        self._bias_sums = torch.zeros_like(layers.bias_vector)
        self._sums = Padded.split(self._bias_sums, [row.values.shape for row in layers.biases])
        self._norm_sums = [Padded.zeros(row.values.shape, device) for row in layers.scales]
        self._last_bias_t = layers.biases[-1].values.mT
        self._zero = torch.zeros((), device=device)

    def forward(self, logits: Tensor) -> None:
        """Computes the logits of self.inputs and writes them to `logits`, (R, classes, B)."""
        layers = self.network.layers
        if self.input_noise:
            self.inputs.add_(self.input_noise.normal())
        if self.input_dropout:
            self.inputs.mul_(self.input_dropout.dropout())
        for layer, kept in enumerate(self.kept):
            inputs, weight, bias = self.outputs[layer], layers.weights[layer], layers.biases[layer]
            summed = self.norms[layer].sums if self.norms else kept.values
            with self._forward[layer]:
                torch.baddbmm(bias.values, inputs, weight, out=summed)
            if self.norms:
                scale, shift = layers.scales[layer].values, layers.shifts[layer].values
                self.norms[layer].forward(scale, shift, kept.values)
            self.activation.forward(kept.vector, out=self.active[layer].vector)
            if self.dropouts or self.residual:
                self._after_activation(layer)
        torch.baddbmm(self._last_bias_t, self._weights_t[-1], self._outputs_t[-1], out=logits)

    def _after_activation(self, layer: int) -> None:
        """Computes a hidden layer's output: dropout, then the residual connection."""
        active, output = self.active[layer].values, self.outputs[layer + 1]
        if self.dropouts:
            torch.mul(active, self.dropouts[layer].dropout(), out=output)
            active = output
        if self.residual and layer:
            torch.add(active, self.outputs[layer], out=output)
        elif not self.dropouts:
            output.copy_(active)

    def backward(
        self, logits: Tensor, targets: Tensor, into: Layers, *, step: float, keep: float
    ) -> None:
        """Computes into = keep · into + step · gradient of the cross entropy summed over the batch.

        targets: (R, classes, B), probabilities. keep: 0 or 1. With the network's own layers and
        keep = 1 this is a step of gradient descent: each parameter is used before it is changed.
        """
        deltas = self.deltas
        torch.softmax(logits, 1, out=self.last_delta)
        self.last_delta.sub_(targets)
        for layer in range(len(deltas) - 1, -1, -1):
            delta = deltas[layer]
            hidden = layer < len(deltas) - 1
            if hidden:
                self._to_sums(layer, into, step, keep)
            if layer:
                below, weights_t = deltas[layer - 1], self._weights_t[layer]
                with self._to_inputs[layer]:
                    if hidden and self.residual:
                        torch.baddbmm(self._skipped[layer], delta, weights_t, out=below)
                    else:
                        torch.bmm(delta, weights_t, out=below)
            with self._to_weights[layer]:
                into.weights[layer].baddbmm_(self._outputs_t[layer], delta, beta=keep, alpha=step)
            # By a sum and not by a product with ones: MKL's rounding of so thin a product depends
            # on the size of the stack, and a replicate must not feel its neighbours.
            torch.sum(delta, 1, keepdim=True, out=self._sums[layer].values)
        self._add(self._bias_sums, into.bias_vector, step, keep)

    def _to_sums(self, layer: int, into: Layers, step: float, keep: float) -> None:
        """Turns the gradient of a hidden layer's output into that of its sums, in place."""
        delta = self.deltas[layer]
        if self.residual and layer:
            self._skipped[layer].copy_(delta)
        if self.dropouts:
            delta.mul_(self.dropouts[layer].values)
        vector = self._hidden_deltas[layer].vector
        self.activation.backward(vector, self.kept[layer].vector, vector)
        if self.norms:
            norm, sums = self.norms[layer], self._norm_sums[layer]
            scale = self.network.layers.scales[layer].values.clone()
            torch.sum(norm.products(delta), 1, keepdim=True, out=sums.values)
            self._add(sums.vector, into.scales[layer].vector, step, keep)
            torch.sum(delta, 1, keepdim=True, out=sums.values)
            self._add(sums.vector, into.shifts[layer].vector, step, keep)
            norm.backward(delta, scale)

    def _add(self, sums: Tensor, into: Tensor, step: float, keep: float) -> None:
        """Computes into = keep · into + step · sums, of padded vectors."""
        torch.add(into if keep else self._zero, sums, alpha=step, out=into)
