"""A dataset in anonymous memory that worker processes map instead of copying."""

import mmap
import os
import pickle
import tempfile
from multiprocessing import reduction
from typing import Any

from hpo.data.datasets import Dataset

ALIGNMENT = 64


class SharedDataset:
    """Holds a Dataset's arrays in a file without a name, of which nothing stays after a kill.

    Can be pickled only to a process that is being started.
    """

    def __init__(self, dataset: Dataset) -> None:
        arrays: list[pickle.PickleBuffer] = []
        self.pickled = pickle.dumps(dataset, protocol=5, buffer_callback=arrays.append)
        self.places: list[slice] = []  # of the arrays in the file
        size = 0
        for array in arrays:
            self.places.append(slice(size, size + array.raw().nbytes))
            size += -(-array.raw().nbytes // ALIGNMENT) * ALIGNMENT
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("hpo-dataset")
        else:  # macOS
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.ftruncate(self.fd, size)
        memory = mmap.mmap(self.fd, size)
        for place, array in zip(self.places, arrays, strict=True):
            memory[place] = array.raw()

    def open(self) -> Dataset:
        """Returns the dataset in the shared memory; do not write to it."""
        memory = memoryview(mmap.mmap(self.fd, 0))
        dataset: Dataset = pickle.loads(self.pickled, buffers=[memory[p] for p in self.places])
        return dataset

    def close(self) -> None:
        """Closes the file in this process; the workers' mappings stay."""
        os.close(self.fd)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "fd": reduction.DupFd(self.fd)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.fd = state["fd"].detach()
