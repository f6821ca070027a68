"""Workers whose machine says that it has GPUs; they train on the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from unittest.mock import patch

import torch

from hpo.workers import worker
from hpo.workers.gpus import VISIBLE
from hpo.workers.messages import Ready
from hpo.workers.shared_data import SharedDataset

MACHINE = 4  # GPUs


def seen() -> list[str]:
    """The GPUs that CUDA would see: those of CUDA_VISIBLE_DEVICES up to a wrong one."""
    everything = [str(number) for number in range(MACHINE)]
    listed = os.environ.get(VISIBLE, ",".join(everything)).split(",")
    wrong = [place for place, entry in enumerate(listed) if entry.strip() not in everything]
    return [entry.strip() for entry in listed[: wrong[0] if wrong else None]]


@contextmanager
def faked() -> Iterator[None]:
    """Within it, torch says that CUDA has the GPUs of `seen`."""
    with (
        patch.object(torch.cuda, "is_available", lambda: bool(seen())),
        patch.object(torch.cuda, "device_count", lambda: len(seen())),
        patch.object(torch.cuda, "get_device_name", lambda number: f"Fake {seen()[number]}"),
    ):
        yield


class Channel:
    """Says of a worker that it trains on CUDA."""

    def __init__(self, channel: Connection) -> None:
        self.recv, self.poll, self._channel = channel.recv, channel.poll, channel

    def send(self, message: object) -> None:
        if isinstance(message, Ready):
            message = Ready(device="cuda", gpu=worker.gpu_label())
        self._channel.send(message)


def work(channel: Connection, shared: SharedDataset, device: str, gpu: str) -> None:
    """As worker.work, which sets CUDA_VISIBLE_DEVICES."""
    assert device in ("auto", "cuda")
    with faked():
        worker.work(Channel(channel), shared, "cpu", gpu)  # type: ignore[arg-type]


def gpu_names(device: str, visible: str | None) -> str:
    with faked():
        return worker.gpu_names(device, visible)
