"""Diagnostics of training: gradients, updates, dead and saturated units."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hpo.study.names import ACTIVATIONS
from hpo.training.activations import Activation
from hpo.training.network import Layers, Network, Pass

PROBES = 8  # steps of an epoch that are measured, evenly spread
IMAGES = 1_024  # on which units are looked at after an epoch

# Of each measure, a list a layer from the input on, with a figure a replicate.
Figures = dict[str, list[list[float]] | None]


class Diagnosis:
    """Measures single steps of training, and units at the end of an epoch; changes nothing.

    gradient_norm: norm of the gradient of a layer's weight matrix, mean over the probed steps.
    update_ratio: norm of a step's change of that matrix over the matrix's norm. largest_update: the
    largest of these; in epoch 1 also over its first PROBES steps. dead: share of a hidden layer's
    ReLU units that are 0 on up to IMAGES images. saturated: share of a hidden layer's sigmoid or
    tanh outputs, over units and images, where the slope is nearly 0.
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
        buffers.backward(logits, targets, self.gradient, step=1 / logits.shape[2], keep=0)
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

    def figures(self, chunks: Iterable[Pass], images: int) -> Figures:
        """Returns the measures since the last call. chunks: passes after a forward pass over so
        many images."""
        figures: Figures = {
            "gradient_norm": (self.gradient_norm / self.count).tolist(),
            "update_ratio": (self.update_ratio / self.count).tolist(),
            "largest_update": self.largest_update.tolist(),
            **_quiet(ACTIVATIONS[self.network.config.activation].load(), chunks, images),
        }
        self._forget()
        self.beginning = False
        return figures


def _even(step: int, steps: int) -> bool:
    """Whether the step is one of PROBES evenly spread steps."""
    every = max(steps // PROBES, 1)
    return step % every == every // 2


def _norms(layers: Layers) -> Tensor:
    """Returns the norm of each weight matrix, (layers, R), in double precision: squares of a
    vanished gradient are not lost."""
    norm, double = torch.linalg.vector_norm, torch.float64
    return torch.stack([norm(w.flatten(1), dim=1, dtype=double) for w in layers.weights]).cpu()


def _quiet(activation: Activation, chunks: Iterable[Pass], images: int) -> Figures:
    """Returns dead and saturated, where the activation can be; NaN for a network of NaNs."""
    shares: Figures = {"dead": None, "saturated": None}
    if activation.dies:
        greatest = _over(chunks, torch.maximum, lambda h: h.amax(1))
        dead = [((most <= 0).double() + _unknown(most)).mean(1) for most in greatest]
        shares["dead"] = [share.tolist() for share in dead] or None
    elif flat := activation.saturated:
        sums = _over(chunks, torch.add, lambda h: (flat(h).double() + _unknown(h)).mean(2).sum(1))
        shares["saturated"] = [(total / images).tolist() for total in sums] or None
    return shares


def _over(
    chunks: Iterable[Pass],
    combine: Callable[[Tensor, Tensor], Tensor],
    measure: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """Returns a measure of each hidden layer's activations, (R, images, units), over all chunks."""
    layers: list[Tensor] = []
    for buffers in chunks:
        here = [measure(h.values) for h in buffers.active]
        layers = list(map(combine, layers, here)) if layers else here
    return layers


def _unknown(values: Tensor) -> Tensor:
    """Returns NaN where a value is NaN, and 0 elsewhere."""
    return torch.where(values.isnan(), torch.nan, 0.0).double()
