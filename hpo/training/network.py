"""The multilayer perceptron: layers, initial weights, forward and backward pass, reused buffers.

Every tensor has a leading replicate dimension R: R networks of one shape, each with its own
weights, are trained at once. A single network has R = 1. Derivatives are written out with torch's
own backward kernels; tests/test_training.py compares them with autograd.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from hpo.study.config import Config, Seeds
from hpo.study.names import ACTIVATIONS, FLOAT32, INITS, NORMS
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
    """R perceptrons of one configuration, one per seed.

    A replicate's weights and biases are drawn on the CPU, in the order and the shapes in which
    torch.nn.Linear, or torch.nn.init, draws them.
    """

    def __init__(
        self,
        config: Config,
        features: int,
        classes: int,
        seeds: Sequence[Seeds],
        device: torch.device,
    ) -> None:
        self.config, self.precision = config, FLOAT32
        self.sizes = (features, *config.hidden, classes)
        self.norm: int = NORMS[config.norm].load()
        self.replicates = len(seeds)
        self.layers = self.zeros(device)
        normed = self.sizes[1:-1] if self.norm == BATCH else ()
        self.running = [Running(self.replicates, units, device) for units in normed]
        for scale in self.layers.scales:
            scale.values.fill_(1.0)
        initialize = INITS[config.init].load()
        for replicate, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed.weights)
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

    def passes(
        self, images: Tensor, rows: Tensor, logits: Tensor, buffers: "Pass | None" = None
    ) -> "Iterator[Pass]":
        """Yields a pass after each step over rows, (steps, R, B), of images, which writes its
        logits; all in the same buffers, of evaluation unless they are given."""
        buffers = buffers or Pass(self, rows.shape[2])
        inputs = buffers.inputs.flatten(0, 1)
        for index, answer in zip(rows.flatten(1), logits, strict=True):
            torch.index_select(images, 0, index, out=inputs)
            buffers.forward(answer)
            yield buffers

    @property
    def parameters(self) -> int:
        """Returns the number of parameters of one replicate."""
        return sum(tensor[0].numel() for tensor in self.layers.tensors)

    def copied(self, replicate: int) -> list[Tensor]:
        """Returns copies of what training changes in one replicate, see restore."""
        return [tensor.clone() for tensor in self._trained(replicate)]

    def restore(self, replicate: int, copied: Sequence[Tensor]) -> None:
        """Makes one replicate what it was when it was copied."""
        for tensor, values in zip(self._trained(replicate), copied, strict=True):
            tensor.copy_(values)

    def _trained(self, replicate: int) -> list[Tensor]:
        running = [tensor for norm in self.running for tensor in (norm.mean, norm.var)]
        return [tensor[replicate] for tensor in (*self.layers.tensors, *running)]

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


def _add(into: Tensor, sums: Tensor, step: float, keep: float) -> None:
    """Computes into = keep · into + step · sums. keep: 0 or 1."""
    if keep:
        into.add_(sums, alpha=step)
    else:
        torch.mul(sums, step, out=into)


class Hidden:
    """A hidden layer in a pass, from its sums to its output and back; (R, B, units) each.

        sums, norm and noise: kept, activation: active, dropout and residual connection: output

    Buffers share memory where nothing that is still needed is overwritten:

        sums    is kept,     without a norm
        kept    is active,   unless the activation's derivative needs its input
        active  is output,   without dropout and residual connection

    delta: the gradient of output, which `backward` turns into that of sums, in place. skipped: the
    gradient of output, kept for the residual connection.
    """

    def __init__(
        self, network: Network, layer: int, batch: int, generators: Sequence[torch.Generator] | None
    ) -> None:
        config, device = network.config, network.layers.flat.device
        shape = (network.replicates, batch, network.sizes[layer + 1])
        self.layers, self.layer = network.layers, layer
        self.activation: Activation = ACTIVATIONS[config.activation].load()
        self.noise, self.dropout = (
            Noise(amount, shape, generators) if generators and amount else None
            for amount in (config.noise, config.dropout)
        )
        self.residual = config.residual and layer > 0
        self.active = self.kept = Padded.zeros(shape, device)
        if self.activation.keeps_input:
            self.kept = Padded.zeros(shape, device)
        self.output, self.sums = self.active.values, self.kept.values
        if self.dropout or self.residual:
            self.output = torch.zeros_like(self.output)
        self.delta = Padded.zeros(shape, device)
        self.skipped = torch.zeros_like(self.output) if self.residual else None
        self.norm = None
        if network.norm:
            running = network.running[layer] if network.running else None
            training = generators is not None
            self.norm = NormPass(network.norm, self.output, running, training=training)
            self.sums = self.norm.sums
            self.norm_sums = Padded.zeros((shape[0], 1, shape[2]), device)

    def forward(self, inputs: Tensor) -> None:
        """Computes output from sums. inputs: of the layer."""
        if self.norm:
            scale, shift = self.layers.scales[self.layer], self.layers.shifts[self.layer]
            self.norm.forward(scale.values, shift.values, self.kept.values)
        if self.noise:
            self.kept.values.add_(self.noise.normal())
        self.activation.forward(self.kept.vector, out=self.active.vector)
        shown = self.active.values
        if self.dropout:
            shown = torch.mul(shown, self.dropout.dropout(), out=self.output)
        if self.residual:
            torch.add(shown, inputs, out=self.output)

    def backward(self, into: Layers, step: float, keep: float) -> None:
        """Turns delta into the gradient of sums, and adds that of the norm to `into`."""
        delta = self.delta.values
        if self.skipped is not None:
            self.skipped.copy_(delta)
        if self.dropout:
            delta.mul_(self.dropout.values)
        self.activation.backward(self.delta.vector, self.kept.vector, self.delta.vector)
        if self.norm:
            scale, sums = self.layers.scales[self.layer].values.clone(), self.norm_sums
            torch.sum(self.norm.products(delta), 1, keepdim=True, out=sums.values)
            _add(into.scales[self.layer].vector, sums.vector, step, keep)
            torch.sum(delta, 1, keepdim=True, out=sums.values)
            _add(into.shifts[self.layer].vector, sums.vector, step, keep)
            self.norm.backward(delta, scale)


class Pass:
    """Buffers for a forward and backward pass of B rows per replicate.

    inputs: (R, B, features), filled by the caller before forward. Logits, targets and the last
    delta have the classes first, (R, classes, B): a softmax over ten neighbours in memory takes six
    times as long.
    """

    def __init__(
        self,
        network: Network,
        batch: int,
        generators: Sequence[torch.Generator] | None = None,
        *,
        weighted: bool = False,
    ) -> None:
        """generators: one per replicate, for the noise of training; None: a pass without dropout
        and with the running statistics of a batch norm. weighted: whether rows have weights."""
        config, layers = network.config, network.layers
        rows, sizes, device = (network.replicates, batch), network.sizes, layers.flat.device
        self.layers, self.weighted = layers, weighted
        self.regression, self.huber = sizes[-1] == 1, config.huber  # of classes there are two
        self.inputs = torch.zeros(*rows, sizes[0], device=device)
        self.input_noise, self.input_dropout = (
            Noise(amount, self.inputs.shape, generators) if generators and amount else None
            for amount in (config.input_noise, config.input_dropout)
        )
        self.hidden = [Hidden(network, i, batch, generators) for i in range(len(sizes) - 2)]
        self.last_delta = torch.zeros(rows[0], sizes[-1], batch, device=device)
        self._deltas = [*(hidden.delta.values for hidden in self.hidden), self.last_delta.mT]
        self._bias_sums = torch.zeros_like(layers.bias_vector)
        self._sums = Padded.split(self._bias_sums, [row.values.shape for row in layers.biases])
        # Views, which cost a microsecond each time they are made.
        self._weights_t = [weight.mT for weight in layers.weights]
        self._outputs_t = [self.inputs.mT, *(hidden.output.mT for hidden in self.hidden)]
        self._last_bias_t = layers.biases[-1].values.mT
        shapes = [(*rows, *fans) for fans in pairwise(sizes)]
        self._forward, self._to_inputs, self._to_weights = (
            [cores.for_product(product, shape, network.precision) for shape in shapes]
            for product in cores.PRODUCTS.values()
        )

    def forward(self, logits: Tensor) -> None:
        """Computes the logits of self.inputs and writes them to `logits`, (R, classes, B)."""
        weights, biases, inputs = self.layers.weights, self.layers.biases, self.inputs
        if self.input_noise:
            inputs.add_(self.input_noise.normal())
        if self.input_dropout:
            inputs.mul_(self.input_dropout.dropout())
        for layer, hidden in enumerate(self.hidden):
            with self._forward[layer]:
                torch.baddbmm(biases[layer].values, inputs, weights[layer], out=hidden.sums)
            hidden.forward(inputs)
            inputs = hidden.output
        if self.regression:  # by sums, see backward
            sums = torch.sum(inputs * self._weights_t[-1], 2).unsqueeze(1)
            torch.add(sums, self._last_bias_t, out=logits)
            return
        torch.baddbmm(self._last_bias_t, self._weights_t[-1], self._outputs_t[-1], out=logits)

    def _differentiate(self, logits: Tensor, targets: Tensor) -> None:
        """Writes the derivative of each row's loss by its logits to last_delta."""
        if not self.regression:
            torch.softmax(logits, 1, out=self.last_delta)
            if self.weighted:
                self.last_delta.mul_(targets.sum(1, keepdim=True))
            self.last_delta.sub_(targets)
            return
        torch.sub(logits, targets, out=self.last_delta)
        if self.huber:
            self.last_delta.clamp_(-self.huber, self.huber)
        else:
            self.last_delta.mul_(2)

    def backward(self, logits: Tensor, targets: Tensor, into: Layers, step: float) -> None:
        """Writes step · gradient of the loss, summed over the batch, to `into`; adds it if these
        are the network's own layers.

        targets: (R, classes, B), probabilities, or their multiples by the weights of rows; of a
        regression (R, 1, B), numbers. The loss is cross entropy, or squared or Huber's error.
        Added to the network this is a step of gradient descent: each parameter is used before it
        is changed.
        """
        keep = float(into is self.layers)
        self._differentiate(logits, targets)
        skipped = None
        for layer in range(len(self.hidden), -1, -1):
            delta = self._deltas[layer]
            if layer < len(self.hidden):
                self.hidden[layer].backward(into, step, keep)
                skipped = self.hidden[layer].skipped
            if layer:
                below, weights_t = self._deltas[layer - 1], self._weights_t[layer]
                with self._to_inputs[layer]:
                    if skipped is None:
                        torch.bmm(delta, weights_t, out=below)
                    else:
                        torch.baddbmm(skipped, delta, weights_t, out=below)
            # By sums where a product would be thin: MKL's rounding of it depends on the size of the
            # stack, and a replicate must not feel its neighbours.
            if self.regression and layer == len(self.hidden):
                sums = torch.sum(self._outputs_t[layer].mT * delta, 1).unsqueeze(2)
                _add(into.weights[layer], sums, step, keep)
            else:
                with self._to_weights[layer]:
                    into.weights[layer].baddbmm_(
                        self._outputs_t[layer], delta, beta=keep, alpha=step
                    )
            torch.sum(delta, 1, keepdim=True, out=self._sums[layer].values)
        _add(into.bias_vector, self._bias_sums, step, keep)
