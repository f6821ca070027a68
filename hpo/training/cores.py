"""Large matrix products: idle cores help with them, and half precision makes them faster. All else
runs on one thread, so that the bits of a training do not depend on the number of cores."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hpo.study.names import BFLOAT16, FLOAT32

# A thread's least share of a product's columns, and the least rows: below them it does not pay.
COLUMNS, ROWS = 128, 16

# A product of a layer is computed in bfloat16 from so many multiplications on, if the layer has at
# least so many inputs and units. Measured on a Xeon with AMX, one thread: a step of 64 rows through
# 784 to 128 units takes longer in bfloat16, 784 to 256 as long, and 512 to 512 less. A rule by
# shape, and no stopwatch: results do not depend on the load.
LEAST, SIDE = 16_000_000, 128
INSTRUCTIONS = ("avx512_bf16", "amx_tile")
# oneDNN's own limit of the instructions that it uses; with these it imitates bfloat16, slowly.
LIMIT, TOO_LOW = "ONEDNN_MAX_CPU_ISA", ("AVX512_CORE", "AVX512_CORE_VNNI")

_matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)  # older versions have none

Shape = tuple[int, int, int, int]  # replicates, rows, inputs, units of a layer

_count = 1


def use(count: int) -> None:
    """Lets the large products of this process run on `count` cores from now on."""
    global _count  # as torch.set_num_threads, which it adds to
    _count = count


Product = Callable[[Tensor, Tensor, Tensor], Tensor]
# The products of a layer, of inputs x (R, rows, inputs), weights w (R, inputs, units) and the
# gradient d of its sums (R, rows, units): the sums (here d serves as the biases), the gradient of
# the inputs, and the weights after a step.
PRODUCTS: dict[str, Product] = {
    "forward": lambda x, w, d: torch.baddbmm(d[:, :1], x, w),
    "to_inputs": lambda x, w, d: torch.bmm(d, w.mT),
    "to_weights": lambda x, w, d: torch.baddbmm(w, x.mT, d, alpha=-0.1),
}


@cache
def same_bits(product: Product, shape: Shape, most: int, precision: str = FLOAT32) -> int:
    """Returns the greatest number of threads, at most `most`, that gives the bits of one thread.
    precision: in which this process computes at the moment.

    The product is tried out. MKL computes most large products in the same order for any number of
    threads, but not all: with AVX-512, (64, 784) times (784, 512) has other bits on two threads.
    """
    replicates, rows, inputs, units = shape
    generator = torch.Generator().manual_seed(0)
    sizes = ((rows, inputs), (inputs, units), (rows, units))
    tensors = [torch.randn(replicates, *size, generator=generator) for size in sizes]
    torch.set_num_threads(1)
    alone = product(*tensors)
    for count in range(most, 1, -1):
        torch.set_num_threads(count)
        if torch.equal(product(*tensors), alone):
            return count
    return 1


@dataclass(frozen=True)
class _Threads:
    """Within it, torch uses the cores of `use`, but at most so many, and only with the same
    bits."""

    product: Product
    shape: Shape
    most: int
    precision: str

    def __enter__(self) -> None:
        if _count > 1:
            most = min(_count, self.most)
            torch.set_num_threads(same_bits(self.product, self.shape, most, self.precision))

    def __exit__(self, *error: object) -> None:
        if _count > 1:
            torch.set_num_threads(1)


def for_product(
    product: Product, shape: Shape, precision: str = FLOAT32
) -> AbstractContextManager[None]:
    """Returns the context to compute the product in. Training sets torch's number of threads to 1
    before. precision: of products for which it pays."""
    most = min(shape[2:]) // COLUMNS
    precision = precision if pays(shape) else FLOAT32
    usable = most > 1 and shape[1] >= ROWS and torch.backends.mkl.is_available()
    threads = _Threads(product, shape, most, precision) if usable else nullcontext()
    return threads if precision == FLOAT32 else Bfloat16(threads)


# --- half precision: oneDNN rounds the factors of a product and adds up in float32 --------------


def pays(shape: Shape) -> bool:
    """Whether a layer's products are computed in bfloat16. shape: replicates, rows, inputs, units.
    Networks that are trained in stacks are too narrow."""
    replicates, rows, inputs, units = shape
    return replicates == 1 and min(inputs, units) >= SIDE and rows * inputs * units >= LEAST


@dataclass(frozen=True)
class Bfloat16:
    """Within it, products are computed in bfloat16. inner: a context for the same product."""

    inner: AbstractContextManager[None]

    def __enter__(self) -> None:
        _matmul.fp32_precision = "bf16"
        self.inner.__enter__()

    def __exit__(self, *error: object) -> None:
        self.inner.__exit__(None, None, None)
        _matmul.fp32_precision = "ieee"


def bfloat16_fault(device: torch.device) -> str:
    """Returns why this process cannot compute products in bfloat16 on the device; empty if it
    can."""
    if device.type != "cpu":
        return f"{BFLOAT16} is for products on the CPU, and networks are trained on {device.type}"
    if not hasattr(_matmul, "fp32_precision"):
        return f"torch {torch.__version__} has no {BFLOAT16} products"
    has = [getattr(torch.cpu, f"_is_{name}_supported", bool) for name in INSTRUCTIONS]
    if not any(each() for each in has) or os.environ.get(LIMIT, "").upper() in TOO_LOW:
        return "this processor has no AMX and no AVX512-BF16"
    factor = torch.linspace(-1, 1, 4 * SIDE * SIDE).reshape(2 * SIDE, 2 * SIDE)
    with Bfloat16(nullcontext()):
        found = factor @ factor
    # oneDNN may ignore the setting and add up in another order than MKL, as it does on processors
    # with AVX512-BF16 and without AMX. The product is then near that of the factors themselves.
    to_exact, to_rounded = (
        float((found - each @ each).abs().max()) for each in (factor, factor.bfloat16().float())
    )
    if to_rounded < to_exact:
        return ""
    return f"torch computes no {BFLOAT16} products on this processor"
