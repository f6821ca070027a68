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
from torch import Tensor, nn

from hpo.study.config import Config
from hpo.study.names import ACTIVATIONS, INITS, NORMS
from hpo.training import cores
from hpo.training.activations import Activation
from hpo.training.modules import mlp
from hpo.training.noise import Dropout, InputNoise
from hpo.training.norms import BATCH, NormPass, Running

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
class Row:
    """A parameter of (R, 1, units), and the padded vector that begins with it."""

    values: Tensor
    vector: Tensor


def _length(units: Sequence[int], replicates: int) -> int:
    """Returns the length of the vector that `_rows` splits."""
    return sum(_padded_size(replicates * size) for size in units)


def _rows(vector: Tensor, units: Sequence[int], replicates: int) -> tuple[Row, ...]:
    """Returns rows of so many units, which lie in the vector one after another."""
    counts = [replicates * size for size in units]
    parts = vector.split([_padded_size(count) for count in counts])
    views = [
        part[:count].view(replicates, 1, -1) for part, count in zip(parts, counts, strict=True)
    ]
    return tuple(map(Row, views, parts))


@dataclass(frozen=True)
class Layers:
    """The parameters, views of one flat vector: weights[l] (R, in, out), biases[l], and of a hidden
    layer's norm scales[l] and shifts[l]; none without norm. bias_vector: all biases, padded."""

    flat: Tensor
    bias_vector: Tensor
    weights: tuple[Tensor, ...]
    biases: tuple[Row, ...]
    scales: tuple[Row, ...]
    shifts: tuple[Row, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Returns all parameters but the weights."""
        return (*self.biases, *self.scales, *self.shifts)

    @classmethod
    def zeros(
        cls, sizes: Sequence[int], replicates: int, device: torch.device, *, norm: bool = False
    ) -> "Layers":
        shapes = [(replicates, fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
        lengths = [_padded_size(math.prod(shape)) for shape in shapes]
        normed = sizes[1:-1] if norm else ()
        units = [sizes[1:], normed, normed]
        lengths += [_length(each, replicates) for each in units]
        flat = torch.zeros(sum(lengths), device=device)
        parts = flat.split(lengths)
        weights = [p[: math.prod(s)].view(s) for p, s in zip(parts, shapes, strict=False)]
        vectors = parts[len(shapes) :]
        rows = [_rows(v, each, replicates) for v, each in zip(vectors, units, strict=True)]
        return cls(flat, vectors[0], tuple(weights), *rows)


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
        self.activation = config.activation
        self.norm: int = NORMS[config.norm].load()
        self.replicates = len(generators)
        self.layers = self.zeros(device)
        self.running = [
            Running(self.replicates, units, device)
            for units in self.sizes[1:-1]
            if self.norm == BATCH
        ]
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
        return Layers.zeros(self.sizes, self.replicates, device, norm=bool(self.norm))

    def logits(self, images: Tensor, rows: Tensor, classes: int) -> Tensor:
        """Returns the logits of rows, (steps, R, B), of images, (steps, R, classes, B)."""
        steps, replicates, batch = rows.shape
        buffers = Pass(self, batch)
        inputs = buffers.inputs.flatten(0, 1)
        logits = torch.zeros(steps, replicates, classes, batch, device=rows.device)
        for index, answer in zip(rows.flatten(1), logits, strict=True):
            torch.index_select(images, 0, index, out=inputs)
            buffers.forward(answer)
        return logits

    @property
    def parameters(self) -> int:
        """Returns the number of parameters of one replicate."""
        linear = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(self.sizes))
        return linear + 2 * sum(scale.values.shape[2] for scale in self.layers.scales)

    def state_dict(self, replicate: int = 0) -> dict[str, Tensor]:
        """Returns one replicate's parameters, named as in training.modules.mlp."""
        with torch.device("meta"):
            names = mlp(self.config, self.sizes[0], self.sizes[-1]).state_dict()
        values: list[Tensor] = []
        for layer, weight in enumerate(self.layers.weights):
            rows = [self.layers.biases[layer].values]
            if self.norm and layer < len(self.layers.scales):
                rows += [of[layer].values for of in (self.layers.scales, self.layers.shifts)]
            if layer < len(self.running):
                rows += [self.running[layer].mean, self.running[layer].var]
            values.append(weight[replicate].T.contiguous())
            values += [row[replicate, 0].clone() for row in rows]
            if layer < len(self.running):
                values.append(torch.tensor(self.running[layer].steps))
        return dict(zip(names, values, strict=True))


# The initializations of study.names: (inputs, units, generator) -> weight (units, inputs), bias.


def default(fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As torch.nn.Linear."""
    bound = 1 / math.sqrt(fan_in)
    weight = torch.empty(fan_out, fan_in).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(fan_out).uniform_(-bound, bound, generator=generator)


def kaiming(fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal, variance 2 / inputs (He et al. 2015, "Delving Deep into Rectifiers"); biases 0."""
    weight = torch.empty(fan_out, fan_in)
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    return weight, torch.zeros(fan_out)


def xavier(fan_in: int, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Uniform, variance 2 / (inputs + units) (Glorot and Bengio 2010); biases 0."""
    weight = torch.empty(fan_out, fan_in)
    nn.init.xavier_uniform_(weight, generator=generator)
    return weight, torch.zeros(fan_out)


class Pass:
    """Buffers for a forward and backward pass of B rows per replicate.

    inputs: (R, B, features), filled by the caller before forward. activated: the hidden layers'
    activations, (R, B, units) each. Logits, targets and the last delta have the classes first,
    (R, classes, B): a softmax over ten neighbours in memory takes six times as long.
    """

    def __init__(
        self, network: Network, batch: int, generators: Sequence[torch.Generator] | None = None
    ) -> None:
        """generators: one per replicate, for the noise of training; None: a pass without dropout
        and with the running statistics of a batch norm."""
        device = network.layers.flat.device
        rows = (network.replicates, batch)
        config = network.config
        self.network = network
        self.activation: Activation = ACTIVATIONS[network.activation].load()
        self.residual = config.residual
        outputs = [_padded((*rows, size), device) for size in network.sizes[:-1]]
        self._set_noise(outputs, generators)
        like_outputs = [view.shape for view, _ in outputs]
        apart = self.residual or bool(self.dropouts)
        active = outputs
        if apart:
            active = [outputs[0], *(_padded(shape, device) for shape in like_outputs[1:])]
        keep = self.activation.keeps_input
        kept = [_padded(shape, device) for shape in like_outputs] if keep else active
        deltas = [_padded((*rows, size), device) for size in network.sizes[1:-1]]
        self.last_delta = torch.zeros(rows[0], network.sizes[-1], batch, device=device)
        self.outputs = [view for view, _ in outputs]
        self.activated = [view for view, _ in active[1:]]
        self.active, self._active_vectors = zip(*active, strict=True)
        self.kept, self._kept_vectors = zip(*kept, strict=True)
        self.norms = self._norms(rows, device, training=generators is not None)
        self._delta_vectors = [vector for _, vector in deltas]
        self.deltas = [*(view for view, _ in deltas), self.last_delta.mT]
        skips = len(deltas) if self.residual else 0
        self._skipped = [torch.zeros_like(view) for view, _ in deltas[:skips]]
        self.inputs: Tensor = self.outputs[0]
        shapes = [(*rows, *fans) for fans in pairwise(network.sizes)]
        products = (cores.forward, cores.to_inputs, cores.to_weights)
        self._forward, self._to_inputs, self._to_weights = (
            [cores.for_product(product, shape) for shape in shapes] for product in products
        )
        self._outputs_t = [h.mT for h in self.outputs]
        self._weights_t = [w.mT for w in network.layers.weights]
        self._bias_sums = torch.zeros_like(network.layers.bias_vector)
        self._sums = _rows(self._bias_sums, network.sizes[1:], network.replicates)
        self._norm_sums = [_padded(row.values.shape, device) for row in network.layers.scales]
        self._last_bias_t = network.layers.biases[-1].values.mT
        self._zero = torch.zeros((), device=device)

    def _set_noise(
        self,
        outputs: Sequence[tuple[Tensor, Tensor]],
        generators: Sequence[torch.Generator] | None,
    ) -> None:
        config, shapes = self.network.config, [view.shape for view, _ in outputs]
        self.input_noise = self.input_dropout = None
        self.dropouts: list[Dropout] = []
        if generators is None:
            return
        if config.input_noise:
            self.input_noise = InputNoise(config.input_noise, shapes[0], generators)
        if config.input_dropout:
            self.input_dropout = Dropout(config.input_dropout, shapes[0], generators)
        if config.dropout:
            self.dropouts = [Dropout(config.dropout, shape, generators) for shape in shapes[1:]]

    def _norms(
        self, rows: tuple[int, int], device: torch.device, *, training: bool
    ) -> list[NormPass]:
        network, norms = self.network, []
        for layer in range(len(network.layers.scales)):
            shape = (*rows, network.sizes[layer + 1])
            sums, standard = (_padded(shape, device)[0] for _ in range(2))
            running = network.running[layer] if network.running else None
            norms.append(NormPass(network.norm, sums, standard, running, training=training))
        return norms

    def forward(self, logits: Tensor) -> None:
        """Computes the logits of self.inputs and writes them to `logits`, (R, classes, B)."""
        weights, biases = self.network.layers.weights, self.network.layers.biases
        last = len(weights) - 1
        if self.input_noise:
            self.inputs.add_(self.input_noise.draw())
        if self.input_dropout:
            self.inputs.mul_(self.input_dropout.draw())
        for layer in range(last):
            above = layer + 1
            summed = self.norms[layer].sums if self.norms else self.kept[above]
            with self._forward[layer]:
                torch.baddbmm(biases[layer].values, self.outputs[layer], weights[layer], out=summed)
            if self.norms:
                layers = self.network.layers
                scale, shift = layers.scales[layer].values, layers.shifts[layer].values
                self.norms[layer].forward(scale, shift, self.kept[above])
            self.activation.forward(self._kept_vectors[above], out=self._active_vectors[above])
            if self.dropouts or self.residual:
                self._after_activation(layer)
        weight_t, output_t = self._weights_t[last], self._outputs_t[last]
        torch.baddbmm(self._last_bias_t, weight_t, output_t, out=logits)

    def _after_activation(self, layer: int) -> None:
        """Computes a hidden layer's output: dropout, then the residual connection."""
        active, output = self.active[layer + 1], self.outputs[layer + 1]
        if self.dropouts:
            torch.mul(active, self.dropouts[layer].draw(), out=output)
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
            delta.mul_(self.dropouts[layer].mask)
        vector = self._delta_vectors[layer]
        self.activation.backward(vector, self._kept_vectors[layer + 1], vector)
        if self.norms:
            norm, (sums, vector) = self.norms[layer], self._norm_sums[layer]
            scale = self.network.layers.scales[layer].values.clone()
            torch.sum(norm.products(delta), 1, keepdim=True, out=sums)
            self._add(vector, into.scales[layer].vector, step, keep)
            torch.sum(delta, 1, keepdim=True, out=sums)
            self._add(vector, into.shifts[layer].vector, step, keep)
            norm.backward(delta, scale)

    def _add(self, sums: Tensor, into: Tensor, step: float, keep: float) -> None:
        """Computes into = keep · into + step · sums, of padded vectors."""
        torch.add(into if keep else self._zero, sums, alpha=step, out=into)
