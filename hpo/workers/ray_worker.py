"""The actor that trains tasks on a node of a Ray cluster. Torch is loaded where it runs."""

import platform
import warnings
from collections.abc import Iterator

from hpo.data.datasets import Dataset
from hpo.workers.machine import hardware, versions
from hpo.workers.messages import Done, EpochDone, Failed, Ready, Task


class RayWorker:
    """Trains one task at a time with `threads` torch threads. `stop` runs beside `train`, so the
    actor needs max_concurrency=2.

    dataset: read-only arrays in the node's object store, which the tensors share.
    """

    def __init__(self, dataset: Dataset, device: str, threads: int) -> None:
        import torch

        from hpo.training.tensors import choose_device

        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        torch.set_num_threads(threads)
        self.dataset = dataset
        self.device = choose_device(device)
        self.stopped = 0  # a task's id

    def ready(self) -> Ready:
        """Returns the worker's device and its machine's host, hardware and versions."""
        machine = {"host": platform.node(), "hardware": hardware(), "versions": versions()}
        return Ready(device=self.device.type, machine=machine)

    def train(self, task: Task) -> Iterator[EpochDone | Done | Failed]:
        """Trains a task; yields an EpochDone for each epoch, and then Done or Failed."""
        from hpo.workers.worker import answers

        self.stopped = 0  # an earlier pool's tasks had the same numbers
        yield from answers(task, self.dataset, self.device, lambda: self.stopped == task.id)

    def stop(self, task: int) -> None:
        """Ends a task within its epoch."""
        self.stopped = task
