"""Half precision where it pays: oneDNN rounds the factors of a large product to bfloat16 and adds
up in float32. All tensors stay float32."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from hpo.study.names import BFLOAT16

# A product of a layer is computed in bfloat16 from so many multiplications on, if the layer has at
# least so many inputs and units. Measured on a Xeon with AMX, one thread: a step of 64 rows through
# 784 to 128 units takes longer in bfloat16, 784 to 256 as long, and 512 to 512 less. A rule by
# shape, and no stopwatch: results do not depend on the load.
LEAST, SIDE = 16_000_000, 128
INSTRUCTIONS = ("avx512_bf16", "amx_tile")
# oneDNN's own limit of the instructions that it uses; with these it imitates bfloat16, slowly.
LIMIT, TOO_LOW = "ONEDNN_MAX_CPU_ISA", ("AVX512_CORE", "AVX512_CORE_VNNI")

_matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)  # older versions have none


def pays(shape: tuple[int, int, int, int]) -> bool:
    """Whether a layer's products are computed in bfloat16. shape: replicates, rows, inputs, units.
    Networks that are trained in stacks are too narrow."""
    replicates, rows, inputs, units = shape
    return replicates == 1 and min(inputs, units) >= SIDE and rows * inputs * units >= LEAST


@dataclass(frozen=True)
class Bfloat16:
    """Within it, products are computed in bfloat16. inner: a context for the same product."""

    inner: AbstractContextManager[Any]

    def __enter__(self) -> None:
        _matmul.fp32_precision = "bf16"
        self.inner.__enter__()

    def __exit__(self, *error: object) -> None:
        self.inner.__exit__(None, None, None)
        _matmul.fp32_precision = "ieee"


def fault(device: torch.device) -> str:
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
    with Bfloat16(torch.no_grad()):
        rounded = factor @ factor
    exact = torch.equal(rounded, factor @ factor)
    return f"torch computes no {BFLOAT16} products on this processor" if exact else ""
