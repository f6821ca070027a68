"""Pools of workers that train tasks: what all share, and the pool of this machine's processes."""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Self, TypeVar

from hpo.data.datasets import Dataset
from hpo.errors import InputError
from hpo.study.config import Config
from hpo.study.file import Head
from hpo.study.names import BFLOAT16, FLOAT32
from hpo.workers import gpus, server
from hpo.workers.messages import Cores, Died, Done, Event, Failed, Paused, Ready, Stop, Task
from hpo.workers.shared_data import SharedDataset

WORK = "hpo.workers.worker:work"  # by name: it brings torch, which this process does without
START_SECONDS = 120.0  # for the first worker
DEATHS = 3  # of each worker, before any has started
LISTENED_SECONDS = 5.0  # the most that counts between two waits: the caller may have been busy
ROWS = 2  # of the dataset, to try a network of the user's own
PATIENCE_SECONDS = 10.0  # for the user's own network to be built, then a note says so


F = TypeVar("F", bound=Head)


class PoolLost(Exception):  # noqa: N818
    """No worker can be had any more, such as after the death of a cluster's head node."""


class Lost(Exception):  # noqa: N818
    """A worker is gone. The text says why, such as "died (exit code 1)"."""


@dataclass(eq=False, kw_only=True)
class Place:
    """A worker, and what is known of it. ready: it takes tasks."""

    task: Task | None = None
    ready: bool = True
    silent: float = 0.0  # seconds since it got its task or said something
    hung: bool = False


class Pool(ABC):
    """Workers that train tasks, on this machine or on a cluster. A context manager.

    A worker whose process is lost is replaced, and so is one that ends no epoch of its task in
    time, `epoch_limit` seconds; the task comes back as Died. device: the kind of device of the
    first worker. machines: host, hardware and versions of each machine but this one. waiting: what
    the user should know about workers that are still to come. gpus: the numbers and names of those
    that train.
    """

    kind = "local"
    not_started = "no worker process started"

    def __init__(self, workers: int, epoch_limit: float) -> None:
        """workers: at most."""
        self.device = ""
        self.waiting = ""
        self.gpus: set[str] = set()
        self.machines: list[dict[str, Any]] = []
        self._most = workers
        self._places: list[Any] = []  # of a kind of Place
        self._limit = epoch_limit
        self._listened = time.monotonic()

    @abstractmethod
    def _new_place(self) -> Place:
        """Starts a worker."""

    @abstractmethod
    def _give(self, place: Any, message: Task | Stop) -> None:
        """Sends a message to a worker."""

    @abstractmethod
    def _heard(self, seconds: float) -> Iterable[Any]:
        """Returns the places of the workers that have said something, as soon as there is one or
        after `seconds`."""

    @abstractmethod
    def _next(self, place: Any) -> Ready | Event:
        """Returns what a worker has said. Raises Lost if it is gone."""

    @abstractmethod
    def _kill(self, place: Any) -> None:
        """Ends a worker at once, if it is not gone."""

    @abstractmethod
    def share(self, cores: int) -> None:
        """Lets the trainings that run use so many cores in all, until another one starts."""

    @abstractmethod
    def close(self) -> None:
        """Ends all workers at once, whatever they do. A second call does nothing."""

    def __enter__(self) -> Self:
        """Starts the workers and waits for the first one."""
        try:
            self._fill(self._most)
            self._await_first()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fill(self, workers: int) -> None:
        while self.size < min(workers, self._most):
            self._places.append(self._new_place())

    def _await_first(self) -> None:
        started, deaths = time.monotonic(), 0
        while not self.device:
            if time.monotonic() > started + START_SECONDS:
                raise RuntimeError(f"{self.not_started} within {START_SECONDS:.0f} s")
            for event in self.wait(0.2):
                deaths += isinstance(event, Died)
                if isinstance(event, Died) and deaths > DEATHS * self.size:
                    option = f"--pool {self.kind}"
                    raise InputError(f"{option}: workers die as they start: {event.reason}")

    @property
    def size(self) -> int:
        """How many workers there are; a cluster's may grow."""
        return len(self._places)

    @property
    def idle(self) -> list[int]:
        """Returns the numbers of the workers without a task."""
        places = enumerate(self._places)
        return [i for i, place in places if place.ready and place.task is None]

    def start(self, worker: int, task: Task) -> None:
        """Gives a task to an idle worker."""
        place = self._places[worker]
        assert place.task is None
        place.task, place.silent = task, 0.0
        self._give(place, task)

    def stop(self, task: int) -> None:
        """Asks for a task to end within its epoch; its Done message comes as usual."""
        for place in self._places:
            if place.task and place.task.id == task:
                self._give(place, Stop(task=task))

    def wait(self, seconds: float) -> list[Event]:
        """Returns the events so far, as soon as there is one or after `seconds`."""
        received = [self._receive(place) for place in self._heard(seconds)]
        now = time.monotonic()
        passed, self._listened = min(now - self._listened, LISTENED_SECONDS), now
        for place in self._places:
            place.silent += passed if place.task else 0.0
            if place.silent > self._limit and not place.hung:
                place.hung = True
                self._kill(place)  # the next wait replaces it
        return [event for event in received if event is not None]

    def _receive(self, place: Any) -> Event | None:
        place.silent = 0.0
        try:
            message = self._next(place)
        except Lost as lost:
            return self._replace(place, str(lost))
        if isinstance(message, Ready):
            self._welcome(place, message)
            return None
        if isinstance(message, (Done, Paused, Failed)):
            place.task = None
        return message

    def _welcome(self, place: Any, ready: Ready) -> None:
        """Notes a worker that has started."""
        place.ready = True
        self.device = self.device or ready.device
        if ready.gpu:
            self.gpus.add(f"{ready.machine['host']} {ready.gpu}" if ready.machine else ready.gpu)

    def _replace(self, place: Any, reason: str) -> Died:
        number = self._places.index(place)
        del self._places[number]  # its GPU is free again
        self._places.insert(number, self._new_place())
        if place.hung:
            reason = f"ended no epoch in {self._limit:g} s (see --epoch-limit)"
        return Died(task=place.task.id if place.task else None, reason=reason)


# Makes a pool of at most so many workers: (workers, dataset, device, epoch limit in seconds).
MakePool = Callable[[int, Dataset, str, float], Pool]


# --- processes on this machine -----------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class _Worker(Place):
    process: BaseProcess
    channel: Connection
    cores: int = 1
    gpu: str = ""


class LocalPool(Pool):
    """A Pool of `workers` processes with one torch thread each that share a dataset in memory. Each
    of them uses one GPU, the next after its neighbour's."""

    def __init__(self, workers: int, dataset: Dataset, device: str, epoch_limit: float) -> None:
        super().__init__(workers, epoch_limit)
        self._asked_device, _ = gpus.parts(device)
        self._gpus = machine_gpus(device)
        self._shared = SharedDataset(dataset)

    def _new_place(self) -> _Worker:
        gpu = gpus.least_used(self._gpus, [worker.gpu for worker in self._places])
        process, channel = server.start(WORK, self._shared, self._asked_device, gpu)
        return _Worker(process=process, channel=channel, gpu=gpu)

    def start(self, worker: int, task: Task) -> None:
        for place in self._places:
            self._set_cores(place, 1)
        super().start(worker, task)

    def share(self, cores: int) -> None:
        busy = [worker for worker in self._places if worker.task]
        for number, worker in enumerate(busy):
            more = number < cores % len(busy)
            self._set_cores(worker, max(cores // len(busy) + more, 1))

    def _set_cores(self, worker: _Worker, count: int) -> None:
        if worker.cores != count:
            worker.cores = count
            self._give(worker, Cores(count=count))

    def _give(self, worker: _Worker, message: Task | Stop | Cores) -> None:
        """A worker that has just died takes no message; wait() will find it and report its task
        lost."""
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.channel.send(message)

    def _heard(self, seconds: float) -> Iterable[_Worker]:
        talking = connection.wait([worker.channel for worker in self._places], seconds)
        return [worker for worker in self._places if worker.channel in talking]

    def _next(self, worker: _Worker) -> Ready | Event:
        try:
            message: Ready | Event = worker.channel.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join(5)
            worker.channel.close()
            code = worker.process.exitcode
            memory = "; the system may be out of memory" if code == -signal.SIGKILL else ""
            raise Lost(f"died (exit code {code}{memory})") from None
        return message

    def _kill(self, worker: _Worker) -> None:
        worker.process.kill()

    def close(self) -> None:
        for worker in self._places:
            worker.process.kill()
        for worker in self._places:
            worker.process.join()
            worker.channel.close()
        if self._places:
            self._shared.close()
        self._places = []


# --- questions to a process that has torch ------------------------------------------------------


def require_device(device: str) -> None:
    """Raises InputError unless a worker can train on the device."""
    if device != "auto":
        try:
            machine_gpus(device)
        except InputError as error:
            raise InputError(f"--device: {error}") from error


def machine_gpus(device: str) -> list[str]:
    """Returns the entries of CUDA_VISIBLE_DEVICES of the GPUs that workers share on this device.
    Raises InputError if one is not there."""
    kind, _ = gpus.parts(device)
    visible = os.environ.get(gpus.VISIBLE)
    names = () if kind == "cpu" else _gpu_names(kind, visible)
    return gpus.chosen(device, len(names), visible) if names else []


@cache
def _gpu_names(kind: str, visible: str | None) -> tuple[str, ...]:
    try:
        with _asked("hpo.workers.worker:gpu_names", kind, visible) as channel:
            return tuple(_answer_of(channel).splitlines())
    except EOFError:  # torch cannot be loaded: the workers die, too, and are told of
        return ()


def in_possible_precision(file: F, device: str, say: Callable[[str], None]) -> F:
    """Returns the study in float32 if workers of this machine cannot compute as it asks, and says
    why. Raises InputError if single cells ask for it: in float32 they would be compared with
    themselves."""
    if not file.halved:
        return file
    kind, _ = gpus.parts(device)
    with _asked("hpo.workers.worker:bfloat16_fault", kind) as channel:
        fault = _answer_of(channel)
    if not fault:
        return file
    if own := [cell.name for cell in getattr(file, "cells", ()) if cell.precision == BFLOAT16]:
        raise InputError(
            f"cells.{own[0]}.precision: {fault}; give --precision {FLOAT32} to train all cells so"
        )
    say(f"precision: {fault}; this run trains in {FLOAT32}")
    return file.in_precision(FLOAT32)


def require_model(
    config: Config, folder: str, dataset: Dataset, seconds: float, say: Callable[[str], None]
) -> None:
    """Raises InputError unless the user's own network can be trained on the dataset.

    seconds: that building it and a training step may take. say: told what the user should know.
    """
    model, rows = f"model {config.model}", slice(ROWS)
    images, labels = dataset.train_images[rows], dataset.train_labels[rows]
    question = (config, folder, dataset.shape, images, labels, dataset.classes)
    patience = min(PATIENCE_SECONDS, seconds)
    with _asked("hpo.training.own:try_model", *question) as channel:
        if not channel.poll(patience):
            say(f"{model}: is still being built and tried; Ctrl-C stops it")
        if not channel.poll(seconds - patience):
            raise InputError(
                f"{model}: takes more than {seconds:g} s to be built and to train a step; make it "
                "faster, or raise --epoch-limit"
            )
        try:
            note = _answer_of(channel)
        except EOFError:
            raise InputError(f"{model}: ends the process that builds it") from None
    if note:
        say(note)


@contextmanager
def _asked(function: str, *arguments: Any) -> Iterator[Connection]:
    """Asks a process that has torch to call "module:function"; yields the channel of its answer.
    Ends the process."""
    process, channel = server.start("hpo.workers.server:answer", function, *arguments)
    try:
        channel.recv()  # it has torch now
        yield channel
    finally:
        process.kill()
        process.join()
        channel.close()


def _answer_of(channel: Connection) -> str:
    """Returns the answer. Raises InputError if it is one."""
    answer, fault = channel.recv()
    if fault:
        raise InputError(fault)
    return str(answer)
