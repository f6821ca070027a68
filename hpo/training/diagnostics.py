"""Diagnostics of training: gradients, updates, dead and saturated units."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hpo.study.names import ACTIVATIONS
from hpo.training.activations import Activation
from hpo.training.network import Layers, Network, Pass, class_major_zeros
from hpo.training.tensors import CHUNK, Examples, batches

# Steps of an epoch that are measured, evenly spread. Each makes a second backward pass: of MNIST's
# 750 steps they are a hundredth.
PROBES = 8
ROWS = 1_024  # on which units are looked at after an epoch: a twelfth of MNIST's validation

# Of each measure, a list a layer from the input on, with a number a replicate.
Measures = dict[str, list[list[float]] | None]


class Diagnosis:
    """Measures single steps of training, and units at the end of an epoch; changes nothing.

    gradient_norm: norm of the gradient of a layer's weight matrix, mean over the probed steps.
    update_ratio: norm of a step's change of that matrix over the matrix's norm. largest_update: the
    largest of these; in epoch 1 also over its first PROBES steps. dead: share of a hidden layer's
    ReLU units that are 0 on up to ROWS rows. saturated: share of a hidden layer's sigmoid or
    tanh outputs, over units and rows, where the slope is nearly 0.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.gradient, self.change = network.zeros(), network.zeros()
        self.beginning = True
        self._forget()

    def _forget(self) -> None:
        self.count = 0
        shape = (len(self.network.sizes) - 1, self.network.replicates)
        zeros = torch.zeros(3, *shape, dtype=torch.float64)
        self.gradient_norm, self.update_ratio, self.largest_update = zeros

    def wants(self, step: int, steps: int) -> bool:
        """Whether this step of an epoch is measured."""
        return _even(step, steps) or (self.beginning and step < PROBES)

    def probe(
        self,
        step: tuple[int, int],
        buffers: Pass,
        logits: Tensor,
        targets: Tensor,
        update: Callable[[], None],
    ) -> None:
        """Makes a step by update() and measures it. step: its number, and the number of steps. The
        buffers are used twice."""
        layers = self.network.layers
        buffers.backward(logits, targets, self.gradient, 1 / logits.shape[2])
        weights = _norms(layers)
        self.change.flat.copy_(layers.flat)
        update()
        torch.sub(layers.flat, self.change.flat, out=self.change.flat)
        ratio = _norms(self.change) / weights
        self.largest_update = torch.maximum(self.largest_update, ratio)
        if _even(*step):
            self.count += 1
            self.gradient_norm += _norms(self.gradient)
            self.update_ratio += ratio

    def measures(self, examples: Examples, rows: Tensor) -> Measures:
        """Returns the measures since the last call. rows: (R, n), the first ROWS of which the units
        are looked at on."""
        measures: Measures = {
            "gradient_norm": (self.gradient_norm / self.count).tolist(),
            "update_ratio": (self.update_ratio / self.count).tolist(),
            "largest_update": self.largest_update.tolist(),
            **self._quiet(examples, rows[:, :ROWS]),
        }
        self._forget()
        self.beginning = False
        return measures

    def _quiet(self, examples: Examples, rows: Tensor) -> Measures:
        """Returns dead and saturated, where the activation can be; NaN for a network of NaNs."""
        activation: Activation = ACTIVATIONS[self.network.config.activation].load()
        shares: Measures = {"dead": None, "saturated": None}
        if activation.dies:
            chunks = self._chunks(examples, rows, lambda h: h.amax(1))
            greatest = [torch.stack(layer).amax(0) for layer in chunks]
            dead = [((most <= 0).double() + _unknown(most)).mean(1) for most in greatest]
            shares["dead"] = [share.tolist() for share in dead] or None
        elif flat := activation.saturated:
            chunks = self._chunks(
                examples, rows, lambda h: (flat(h).double() + _unknown(h)).mean(2).sum(1)
            )
            sums = [sum(layer, torch.zeros(())) for layer in chunks]
            shares["saturated"] = [(total / rows.shape[1]).tolist() for total in sums] or None
        return shares

    def _chunks(
        self, examples: Examples, rows: Tensor, measure: Callable[[Tensor], Tensor]
    ) -> Iterable[tuple[Tensor, ...]]:
        """Returns for each hidden layer the measure of its activations, (R, rows, units), in each
        chunk of the rows."""
        chunks = []
        for part in batches(rows, CHUNK):
            logits = class_major_zeros(part, examples.classes)
            for buffers in self.network.passes(examples.images, part, logits):
                chunks.append([measure(hidden.active.values) for hidden in buffers.hidden])
        return zip(*chunks, strict=True)


def _even(step: int, steps: int) -> bool:
    """Whether the step is one of PROBES evenly spread steps."""
    every = max(steps // PROBES, 1)
    return step % every == every // 2


def _norms(layers: Layers) -> Tensor:
    """Returns the norm of each weight matrix, (layers, R), in double precision: squares of a
    vanished gradient are not lost."""
    norm, double = torch.linalg.vector_norm, torch.float64
    return torch.stack([norm(w.flatten(1), dim=1, dtype=double) for w in layers.weights]).cpu()


def _unknown(values: Tensor) -> Tensor:
    """Returns NaN where a value is NaN, and 0 elsewhere."""
    return torch.where(values.isnan(), torch.nan, 0.0).double()
