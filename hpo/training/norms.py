"""Batch norm and layer norm: forward and backward over reused buffers.

The gradients are those of Ioffe and Szegedy (2015), "Batch Normalization", and of Ba, Kiros and
Hinton (2016), "Layer Normalization". Both have one form; they differ in the axis of the means.
"""

import torch
from torch import Tensor

BATCH, LAYER, NONE = 1, 2, 0  # the axis of (R, B, units) that is normalized over
EPS, MOMENTUM = 1e-5, 0.1  # the defaults of torch.nn


class Running:
    """The running means and variances of a batch norm, (R, 1, units) each; for evaluation.

    steps: how many batches they are of. alike: whether all batches count alike, or later ones more,
    as in torch.nn.BatchNorm1d with momentum None and by default.
    """

    def __init__(self, replicates: int, units: int, device: torch.device) -> None:
        self.mean = torch.zeros(replicates, 1, units, device=device)
        self.var = torch.ones(replicates, 1, units, device=device)
        self.steps, self.alike = 0, False

    def take(self, mean: Tensor, var: Tensor, rows: int) -> None:
        """Moves towards a batch's mean and variance, as torch.nn.BatchNorm1d does."""
        self.steps += 1
        share = 1 / self.steps if self.alike else MOMENTUM
        self.mean.lerp_(mean, share)
        self.var.lerp_(var * (rows / max(rows - 1, 1)), share)


class NormPass:
    """The buffers of one layer's norm in a pass.

    like: a tensor of the shape of the layer's sums, (R, B, units). sums: filled by the caller
    before forward, and used up by it.
    running: None for layer norm. training: whether to use the batch's own statistics.
    """

    def __init__(self, axis: int, like: Tensor, running: Running | None, *, training: bool) -> None:
        self.axis, self.running = axis, running
        self.sums, self.standard = torch.zeros_like(like), torch.zeros_like(like)
        self.frozen = running is not None and not training
        self.rstd = self.sums

    def forward(self, scale: Tensor, shift: Tensor, out: Tensor) -> None:
        """Writes the standardized sums times scale plus shift, (R, 1, units) each, to `out`."""
        if self.frozen:
            assert self.running
            mean, self.rstd = self.running.mean, (self.running.var + EPS).rsqrt_()
            torch.sub(self.sums, mean, out=self.standard)
        else:
            mean = self.sums.mean(self.axis, keepdim=True)
            torch.sub(self.sums, mean, out=self.standard)
            torch.mul(self.standard, self.standard, out=self.sums)
            var = self.sums.mean(self.axis, keepdim=True)
            self.rstd = (var + EPS).rsqrt_()
            if self.running:
                self.running.take(mean, var, self.sums.shape[1])
        self.standard.mul_(self.rstd)
        torch.mul(self.standard, scale, out=out)
        out.add_(shift)

    def products(self, delta: Tensor) -> Tensor:
        """Returns the products whose sums over the batch are the gradient of scale, in a buffer.
        delta: the gradient of forward's output."""
        return torch.mul(delta, self.standard, out=self.sums)

    def backward(self, delta: Tensor, scale: Tensor) -> None:
        """Turns the gradient of forward's output into that of the sums, in place."""
        delta.mul_(scale)
        mean = delta.mean(self.axis, keepdim=True)
        along = self.products(delta).mean(self.axis, keepdim=True)
        torch.mul(self.standard, along, out=self.sums)
        delta.sub_(mean).sub_(self.sums).mul_(self.rstd)
