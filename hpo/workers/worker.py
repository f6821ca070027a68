"""A worker process: takes tasks, trains, sends every epoch. Loaded once, in the fork server."""

import os
import threading
from contextlib import suppress
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection

import safetensors.torch
import torch
from torch import Tensor

from hpo.data import datasets as data
from hpo.training import confusion
from hpo.training.network import Network
from hpo.training.tensors import all_rows, choose_device, examples, split_rows
from hpo.training.train import evaluate, train
from hpo.workers.messages import Done, EpochDone, Failed, Ready, Stop, Task
from hpo.workers.shared_data import SharedDataset


def work(channel: Connection, shared: SharedDataset, device_name: str) -> None:
    """Trains the tasks that come through the channel until it closes. Ends with the parent
    process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    device = choose_device(device_name)
    dataset = shared.open()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the runner is gone
        channel.send(Ready(device=device.type))
        while True:
            message = channel.recv()
            if isinstance(message, Task):
                channel.send(_answer(channel, message, dataset, device))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _answer(
    channel: Connection, task: Task, dataset: data.Dataset, device: torch.device
) -> Done | Failed:
    try:
        return _trained(channel, task, dataset, device)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # the trial's reason to fail; the worker is well
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return Failed(task=task.id, reason=reason)


def _trained(channel: Connection, task: Task, dataset: data.Dataset, device: torch.device) -> Done:
    """Trains a task and sends every epoch. Returns the last message."""
    images = examples(dataset.train_images, dataset.train_labels, device)
    splits = [all_rows(dataset) if task.all_images else split_rows(dataset, s) for s in task.seeds]
    stopped, network = False, None

    def should_stop() -> bool:
        nonlocal stopped
        stopped = stopped or (channel.poll() and _is_stop(channel, task))
        return stopped

    epochs = train(
        task.config, images, splits, task.seeds, device, should_stop, diagnose=task.diagnose
    )
    for epoch in epochs:
        network = epoch.network
        channel.send(EpochDone(task=task.id, **epoch.metrics()))
    if stopped or network is None:
        return Done(task=task.id)
    model = _packed(network) if task.all_images else None
    if not task.test:
        return Done(task=task.id, model=model)
    return _tested(network, task, dataset, device)


def _is_stop(channel: Connection, task: Task) -> bool:
    message = channel.recv()
    return isinstance(message, Stop) and message.task == task.id


def _tested(network: Network, task: Task, dataset: data.Dataset, device: torch.device) -> Done:
    """Tests the trained networks: the only function that reads the test images."""
    images = examples(dataset.test_images, dataset.test_labels, device)
    rows: Tensor = torch.arange(len(images.labels), device=device)
    loss, accuracy = evaluate(network, images, rows.expand(network.replicates, -1))
    matrices = confusion.inspect(network, images) if task.inspect else None
    return Done(task=task.id, test_loss=loss, test_accuracy=accuracy, confusion=matrices)


def _packed(network: Network) -> bytes:
    """Returns the first replicate's parameters as a safetensors file."""
    return safetensors.torch.save(network.state_dict(), {"format": "pt"})
