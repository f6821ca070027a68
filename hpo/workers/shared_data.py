"""A dataset in anonymous memory that worker processes map instead of copying."""

import mmap
import os
import tempfile
from dataclasses import fields
from multiprocessing import reduction
from typing import Any

import numpy as np

from hpo.data.datasets import Dataset

ALIGNMENT = 64


class SharedDataset:
    """Holds a Dataset's arrays in a file without a name, of which nothing stays after a kill.

    Can be pickled only to a process that is being started.
    """

    def __init__(self, dataset: Dataset) -> None:
        values = {f.name: getattr(dataset, f.name) for f in fields(dataset)}
        arrays = {name: v for name, v in values.items() if isinstance(v, np.ndarray)}
        self.plain = {name: v for name, v in values.items() if name not in arrays}
        self.layout: dict[str, tuple[int, tuple[int, ...], str]] = {}
        self.size = 0
        for name, array in arrays.items():
            self.layout[name] = (self.size, array.shape, array.dtype.str)
            self.size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        self.fd = _anonymous_file(self.size)
        for name, target in self._map().items():
            target[...] = arrays[name]

    def _map(self) -> dict[str, np.ndarray[Any, Any]]:
        memory = mmap.mmap(self.fd, self.size)
        return {
            name: np.ndarray(shape, dtype, buffer=memory, offset=offset)
            for name, (offset, shape, dtype) in self.layout.items()
        }

    def open(self) -> Dataset:
        """Returns the dataset in the shared memory; do not write to it."""
        arrays: dict[str, Any] = self._map()
        return Dataset(**arrays, **self.plain)

    def close(self) -> None:
        """Closes the file in this process; the workers' mappings stay."""
        os.close(self.fd)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "fd": reduction.DupFd(self.fd)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.fd = state["fd"].detach()


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("hpo-dataset")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
