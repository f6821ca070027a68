"""Idle cores help with large matrix products. All else runs on one thread, so that the bits of a
training do not depend on the number of cores."""

from contextlib import AbstractContextManager, nullcontext

import torch

# A thread's least share of a product's columns, and the least rows. With these, MKL computes each
# number in one thread and in the same order, for any number of threads: seen for 1,175 pairs of a
# random shape and a count, and tested in tests/test_training.py. Below them, its kernels differ.
COLUMNS, ROWS = 128, 16

_count = 1


def use(count: int) -> None:
    """Lets the large products of this process run on `count` cores from now on."""
    global _count  # as torch.set_num_threads, which it adds to
    _count = count


class _Threads:
    """Within it, torch uses the cores of `use`, but at most so many."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __enter__(self) -> None:
        torch.set_num_threads(min(_count, self.most))

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(1)


_ONE: AbstractContextManager[None] = nullcontext()


def for_product(rows: int, fan_in: int, fan_out: int) -> AbstractContextManager[None]:
    """Returns the context to compute (rows, fan_in) times (fan_in, fan_out) in, and the products of
    its backward pass. Training sets torch's number of threads to 1 before."""
    most = min(fan_in, fan_out) // COLUMNS
    usable = most > 1 and rows >= ROWS and torch.backends.mkl.is_available()
    return _Threads(most) if usable else _ONE
