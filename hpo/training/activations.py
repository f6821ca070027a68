"""The activations: forward and derivative by torch's own kernels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Activation:
    """forward(z, out=h); backward(d, kept, d) multiplies d by the derivative, in place.

    kept: the output h, or the input z if keeps_input. dies: whether a unit can be 0 for all inputs.
    saturated: which outputs lie where the slope is nearly 0.
    """

    forward: Callable[..., Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    keeps_input: bool = False
    dies: bool = False
    saturated: Callable[[Tensor], Tensor] | None = None


# Saturated: where a sigmoid has less than 4% of its greatest slope; tanh at the same input, for
# tanh(z) = 2 sigmoid(2z) - 1. On saturation: Glorot and Bengio (2010), "Understanding the
# difficulty of training deep feedforward neural networks".
SIGMOID = Activation(
    forward=torch.sigmoid,
    backward=lambda d, h, out: aten.sigmoid_backward.grad_input(d, h, grad_input=out),
    saturated=lambda h: (h - 0.5).abs() > 0.49,
)
TANH = Activation(
    forward=torch.tanh,
    backward=lambda d, h, out: aten.tanh_backward.grad_input(d, h, grad_input=out),
    saturated=lambda h: h.abs() > 0.98,
)
RELU = Activation(
    forward=lambda z, out: torch.clamp_min(z, 0, out=out),
    backward=lambda d, h, out: aten.threshold_backward.grad_input(d, h, 0, grad_input=out),
    dies=True,
)
GELU = Activation(
    forward=aten.gelu.out,
    backward=lambda d, z, out: aten.gelu_backward.grad_input(d, z, grad_input=out),
    keeps_input=True,
)
SILU = Activation(
    forward=aten.silu.out,
    backward=lambda d, z, out: aten.silu_backward.grad_input(d, z, grad_input=out),
    keeps_input=True,
)
ELU = Activation(
    forward=aten.elu.out,
    backward=lambda d, h, out: aten.elu_backward.grad_input(
        d, 1.0, 1.0, 1.0, True, h, grad_input=out
    ),
)
LEAKY_RELU = Activation(
    forward=aten.leaky_relu.out,
    backward=lambda d, h, out: aten.leaky_relu_backward.grad_input(
        d, h, 0.01, True, grad_input=out
    ),
)
