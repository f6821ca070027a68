"""A worker process: takes tasks, trains, sends every epoch. Loaded once, in the fork server."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from hpo.data import datasets as data
from hpo.errors import InputError
from hpo.study.metrics import BY_NAME, packed
from hpo.study.names import BFLOAT16, FLOAT32
from hpo.text import error_line
from hpo.training import cores
from hpo.training.evaluation import calibration, evaluate, inspect, predictions, score_together
from hpo.training.network import Network
from hpo.training.own import OwnNetwork
from hpo.training.tensors import (
    Examples,
    all_rows,
    choose_device,
    class_weights,
    denormals_as_zero,
    examples,
    split_rows,
)
from hpo.training.train import Epoch, train
from hpo.workers.gpus import VISIBLE
from hpo.workers.messages import Cores, Done, EpochDone, Failed, Paused, Ready, Stop, Task
from hpo.workers.shared_data import SharedDataset

# Trainings that a worker keeps while they are paused: weights and what its optimizer has of them,
# 30 MB for a network of two million parameters. Another one is trained again up to its epoch.
KEPT = 16


def work(channel: Connection, shared: SharedDataset, device_name: str, gpu: str) -> None:
    """Trains the tasks that come through the channel until it closes. gpu: the entry of
    CUDA_VISIBLE_DEVICES of this worker's GPU, empty for none."""
    os.environ |= {VISIBLE: gpu} if gpu else {}  # before torch uses CUDA
    torch.set_num_threads(1)
    device = choose_device(device_name)
    trainer = Trainer(shared.open(), device)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the runner is gone
        label = gpu_label() if device.type == "cuda" else ""
        channel.send(Ready(device=device.type, gpu=label))
        while True:
            task = channel.recv()
            if isinstance(task, Cores):
                cores.use(task.count)
            elif isinstance(task, Task):
                for answer in trainer.answers(task, partial(_is_stopped, channel, task)):
                    channel.send(answer)


def bfloat16_fault(device: str) -> str:
    """Returns why workers on this kind of device cannot compute products in bfloat16; empty if they
    can."""
    return cores.bfloat16_fault(choose_device(device))


def gpu_names(device: str, visible: str | None) -> str:
    """Returns the names of the CUDA devices, a line each; empty if the device is not CUDA.

    visible: CUDA_VISIBLE_DEVICES of the process that asks, None if it has none; this process must
    not have used CUDA before. Raises InputError as choose_device does.
    """
    os.environ.pop(VISIBLE, None)
    os.environ |= {} if visible is None else {VISIBLE: visible}
    if choose_device(device).type != "cuda":
        return ""
    return "\n".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))


def gpu_label() -> str:
    """Returns the first CUDA device's entry in CUDA_VISIBLE_DEVICES, and its name."""
    entry = os.environ.get(VISIBLE, "0").split(",")[0]
    return f"{entry}: {torch.cuda.get_device_name(0)}"


def _is_stopped(channel: Connection, task: Task) -> bool:
    if not channel.poll():
        return False
    message = channel.recv()
    if isinstance(message, Cores):
        cores.use(message.count)
    return isinstance(message, Stop) and message.task == task.id


class Trainer:
    """Trains the tasks of a worker, and keeps the last KEPT trainings that have paused."""

    def __init__(self, dataset: data.Dataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self.kept: dict[int, tuple[Task, Iterator[EpochDone | Done | Failed]]] = {}  # by task

    def answers(
        self, task: Task, should_stop: Callable[[], bool]
    ) -> Iterator[EpochDone | Done | Paused | Failed]:
        """Trains a task. Yields an EpochDone for each epoch, and then Done, Paused or Failed. A
        task that has paused here goes on; one that is not kept is trained from its beginning.

        should_stop: asked every few steps; if it is true, the training ends at once, without a
        test.
        """
        before, training = self.kept.pop(task.id, (None, None))
        if training is None or replace(task, until=0) != before:
            training = self._training(task, should_stop)
        with denormals_as_zero():  # around each part: others are trained between them
            for message in training:
                yield message
                if not isinstance(message, EpochDone) or message.last:
                    continue
                if message.number == task.until:
                    self.kept[task.id] = replace(task, until=0), training
                    while len(self.kept) > KEPT:
                        del self.kept[next(iter(self.kept))]  # the oldest
                    yield Paused(task=task.id)
                    return

    def _training(
        self, task: Task, should_stop: Callable[[], bool]
    ) -> Iterator[EpochDone | Done | Failed]:
        try:
            yield from _trained(task, self.dataset, self.device, should_stop)
        except (EOFError, BrokenPipeError, ConnectionResetError):  # the runner is gone
            raise
        except Exception as error:  # the trial's reason to fail; the worker is well
            yield Failed(task=task.id, reason=error_line(error))


def _trained(
    task: Task, dataset: data.Dataset, device: torch.device, should_stop: Callable[[], bool]
) -> Iterator[EpochDone | Done]:
    if task.precision == BFLOAT16 and (fault := cores.bfloat16_fault(device)):
        raise InputError(f"precision {BFLOAT16}: {fault}")
    images = examples(dataset.train_images, dataset.train_labels, *_form(dataset, device))
    stopped, last = False, None

    def stops() -> bool:
        nonlocal stopped
        stopped = stopped or should_stop()
        return stopped

    at_once = [(seed,) for seed in task.seeds] if task.one_by_one else [task.seeds]
    for place, seeds in enumerate(at_once):
        rows = [split_rows(dataset, seed, task.folds) for seed in seeds]
        if task.all_images:
            rows = [all_rows(dataset)] * len(seeds)
        if task.share < 1:
            rows = [split.part(task.share) for split in rows]
        before = place * task.config.epochs
        weights = class_weights(task.class_weight, images, rows, dataset.schema.classes)
        more: Any = {n: getattr(task, n) for n in ("diagnose", "folder", "objective", "cut")}
        more |= {"weights": weights, "precision": task.precision}
        for epoch in train(task.config, images, rows, seeds, device, stops, **more):
            last = epoch
            number = before + epoch.number
            yield EpochDone(task=task.id, **{**epoch.metrics(), "number": number})
        if stopped:
            break
    if stopped or last is None:
        yield Done(task=task.id, parameters=last.network.parameters if last else None)
        return
    last.network.precision = FLOAT32  # from here on: as whoever loads it has it
    if task.test:
        done = _tested(last, task, dataset, device)
    else:
        saved = _saved(last.network, dataset, device) if task.all_images else {}
        done = Done(task=task.id, **saved, parameters=last.network.parameters)
    if task.calibrate and not images.regression:
        valid = torch.stack([split.valid for split in rows]).to(device)
        done = replace(done, calibration=calibration(last.network, images, valid))
    yield done


def _tested(last: Epoch, task: Task, dataset: data.Dataset, device: torch.device) -> Done:
    """Tests the trained networks."""
    network, images = last.network, _test_images(dataset, device)
    rows: Tensor = torch.arange(len(images.labels), device=device)
    everywhere = rows.expand(network.replicates, -1)
    metric = BY_NAME[task.objective].tested
    found = evaluate(network, images, everywhere, right=True, metric=metric)
    return Done(
        task=task.id,
        test_loss=found.loss,
        test_accuracy=found.accuracy,
        test_scores=found.scores,
        test_right=_bits(found.right),
        test_recall=None if found.right is None else [_recall(b, images) for b in found.right],
        valid_right=_bits(last.valid_right),
        parameters=network.parameters,
        **_inspected(network, images, dataset) if task.inspect else {},
    )


def _inspected(
    network: Network | OwnNetwork, images: Examples, dataset: data.Dataset
) -> dict[str, Any]:
    """Returns what Done has of the answers to single images."""
    if not images.regression:
        return {"confusion": inspect(network, images, dataset.shape)}
    found, unit = predictions(network, images), dataset.schema.in_unit
    return {
        "predictions": [{key: unit(np.array(v)).tolist() for key, v in of.items()} for of in found]
    }


def _recall(right: Tensor, images: Examples) -> list[float | None]:
    """Returns the share of each class that is right; None for a class without images."""
    labels = images.labels.cpu()
    found = torch.bincount(labels[right], minlength=images.classes).tolist()
    there = torch.bincount(labels, minlength=images.classes).tolist()
    return [f / n if n else None for f, n in zip(found, there, strict=True)]


def _bits(right: Tensor | None) -> list[str] | None:
    return None if right is None else [packed(bits) for bits in right.numpy()]


def _test_images(dataset: data.Dataset, device: torch.device) -> Examples:
    """Returns the test images, for trained networks: the only function that reads them."""
    return examples(dataset.test_images, dataset.test_labels, *_form(dataset, device))


def _form(dataset: data.Dataset, device: torch.device) -> tuple[Any, ...]:
    return dataset.classes, device, dataset.shape, dataset.schema.deviation


def _saved(
    network: Network | OwnNetwork, dataset: data.Dataset, device: torch.device
) -> dict[str, Any]:
    """Returns what Done has of networks to be saved: the first, and all of them as an ensemble."""
    saved: dict[str, Any] = {"model": _packed(network)}
    if network.replicates > 1:
        saved["ensemble"] = _packed(network, *range(network.replicates))
    if network.replicates > 1 and dataset.tested:
        saved["ensemble_score"] = score_together(network, _test_images(dataset, device))
    return saved


def _packed(network: Network | OwnNetwork, *members: int) -> bytes:
    """Returns the first replicate's parameters as a safetensors file; those of members as "0.NAME"
    and so on."""
    state = {f"{m}.{k}": v for m in members for k, v in network.state_dict(m).items()}
    return safetensors.torch.save(state or network.state_dict(), {"format": "pt"})
