"""What a worker process does: takes tasks, trains, sends back every epoch. Loaded with torch once,
in the server that workers are forked from."""

import os
import signal
import threading
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from hpo import data
from hpo.config import Seeds
from hpo.messages import Done, EpochDone, Failed, Ready, Stop, Task
from hpo.network import Network
from hpo.shared_data import SharedDataset
from hpo.training import Examples, Split, evaluate, train


def work(channel: Connection, shared: SharedDataset, device_name: str) -> None:
    """Trains what comes through the channel until it closes; ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    device = choose_device(device_name)
    dataset = shared.open()
    channel.send(Ready(device=device.type))
    while True:
        try:
            message = channel.recv()
        except EOFError:
            return
        if isinstance(message, Task):
            _train(channel, message, dataset, device)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def choose_device(name: str) -> torch.device:
    """auto is CUDA where there is one, else the CPU: networks this small gain nothing on MPS.

    Raises ValueError for a device that this machine or this build of torch does not have.
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[name]:
        has = ", ".join(device for device, usable in there.items() if usable)
        raise ValueError(f"--device {name}: not usable here; this machine has {has}")
    return torch.device(name)


def _train(channel: Connection, task: Task, dataset: data.Dataset, device: torch.device) -> None:
    try:
        examples = _examples(dataset.train_images, dataset.train_labels, device)
        splits = [_split(dataset, seeds) for seeds in task.seeds]
        network = None
        for epoch in train(task.config, examples, splits, task.seeds, device):
            network = epoch.network
            channel.send(
                EpochDone(
                    task=task.id,
                    number=epoch.number,
                    train_loss=epoch.train_loss,
                    train_accuracy=epoch.train_accuracy,
                    valid_loss=epoch.valid_loss,
                    valid_accuracy=epoch.valid_accuracy,
                    seconds=epoch.seconds,
                )
            )
            if channel.poll() and _is_stop(channel, task):
                channel.send(Done(task=task.id, parameters=network.parameters))
                return
        assert network is not None
        test_loss, test_accuracy = _test(network, dataset, device) if task.test else (None, None)
        channel.send(
            Done(
                task=task.id,
                parameters=network.parameters,
                test_loss=test_loss,
                test_accuracy=test_accuracy,
            )
        )
    except (RuntimeError, MemoryError) as error:
        channel.send(Failed(task=task.id, reason=f"{type(error).__name__}: {error}"))


def _is_stop(channel: Connection, task: Task) -> bool:
    message = channel.recv()
    return isinstance(message, Stop) and message.task == task.id


def _examples(images: data.Floats, labels: data.Integers, device: torch.device) -> Examples:
    return Examples(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))


def _split(dataset: data.Dataset, seeds: Seeds) -> Split:
    train_rows, valid_rows = data.split(dataset, seeds.split)
    return Split(torch.from_numpy(train_rows), torch.from_numpy(valid_rows))


def _test(
    network: Network, dataset: data.Dataset, device: torch.device
) -> tuple[list[float], list[float]]:
    """The trained networks on the test images: the one place that reads them."""
    examples = _examples(dataset.test_images, dataset.test_labels, device)
    rows: Tensor = torch.arange(len(examples.labels), device=device)
    return evaluate(network, examples, rows.expand(network.replicates, -1))
