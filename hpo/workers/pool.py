"""Worker processes on this machine: start a task, wait for an event, stop a task."""

import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Protocol, Self

from hpo import defaults
from hpo.data.datasets import Dataset
from hpo.errors import InputError
from hpo.study.config import Config
from hpo.workers.messages import Cores, Died, Done, Event, Failed, Ready, Stop, Task
from hpo.workers.server import preload
from hpo.workers.shared_data import SharedDataset

START_SECONDS = 120
LISTENED_SECONDS = 5.0  # the most that counts between two waits: the caller may have been busy


def _work(channel: Connection, shared: SharedDataset, device: str) -> None:
    from hpo.workers.worker import work

    work(channel, shared, device)


def require_device(device: str) -> None:
    """Raises InputError unless a worker can train on the device; asks a process that has torch."""
    if device in ("auto", "cpu"):
        return
    preload()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_try_device, args=(theirs, device), daemon=True)
    process.start()
    theirs.close()
    if fault := ours.recv():
        raise InputError(f"--device: {fault}")


def require_model(config: Config, folder: str, dataset: Dataset) -> None:
    """Raises InputError unless the factory of the user's own network gives a module that takes the
    dataset's images; asks a process that has torch."""
    preload()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    form = (dataset.shape, dataset.train_images.shape[1], dataset.classes)
    process = context.Process(target=_try_model, args=(theirs, config, folder, *form), daemon=True)
    process.start()
    theirs.close()
    try:
        fault = ours.recv()
    except EOFError:
        fault = f"model {config.model}: ends the process that builds it"
    if fault:
        raise InputError(fault)


def _try_model(channel: Connection, *arguments: Any) -> None:
    from hpo.training.own import try_model

    channel.send(try_model(*arguments))


def _try_device(channel: Connection, device: str) -> None:
    from hpo.training.tensors import choose_device

    try:
        choose_device(device)
    except InputError as error:
        channel.send(str(error))
    else:
        channel.send("")


class PoolLost(Exception):  # noqa: N818
    """No worker can be had any more, such as after the death of a cluster's head node."""


class Pool(Protocol):
    """Workers that train tasks, on this machine or on a cluster. A context manager.

    A worker whose process is lost is replaced, and so is one that ends no epoch of its task in
    time; the task comes back as Died. device: the kind of device of the first worker. machines:
    host, hardware and versions of each machine but this one.
    """

    device: str
    machines: list[dict[str, Any]]

    def __enter__(self) -> Self:
        """Waits for the first worker."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """How many workers there are; a cluster's may grow."""

    @property
    def idle(self) -> list[int]:
        """Returns the numbers of the workers without a task."""

    def start(self, worker: int, task: Task) -> None:
        """Gives a task to an idle worker."""

    def stop(self, task: int) -> None:
        """Asks for a task to end within its epoch; its Done message comes as usual."""

    def share(self, cores: int) -> None:
        """Lets the trainings that run use so many cores in all, until another one starts."""

    def wait(self, seconds: float) -> list[Event]:
        """Returns the events so far, as soon as there is one or after `seconds`."""

    def close(self) -> None:
        """Ends all workers at once, whatever they do. A second call does nothing."""


# Makes a pool of at most so many workers: (workers, dataset, device, epoch limit in seconds).
MakePool = Callable[[int, Dataset, str, float], Pool]


def hung(limit: float) -> str:
    """Returns why a worker that ended no epoch in time is replaced."""
    return f"ended no epoch in {limit:g} s (see --epoch-limit)"


@dataclass
class _Worker:
    process: BaseProcess
    channel: Connection
    task: Task | None = None
    cores: int = 1
    silent: float = 0.0  # seconds since it got its task or said something
    hung: bool = False


class LocalPool(Pool):
    """A Pool of `workers` processes with one torch thread each that share a dataset in memory."""

    def __init__(
        self, workers: int, dataset: Dataset, device: str, epoch_limit: float = defaults.EPOCH_LIMIT
    ) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._shared = SharedDataset(dataset)
        self._device = device
        self._limit = epoch_limit
        self._listened = time.monotonic()
        self._workers = [self._start_worker() for _ in range(workers)]
        self.device = ""
        self.machines: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            self.device = self._first_word()
        except BaseException:
            self.close()
            raise
        return self

    def _start_worker(self) -> _Worker:
        preload()  # the server may have been killed, too
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._shared, self._device), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _first_word(self) -> str:
        """Returns the kind of device that the first worker reports."""
        channel = self._workers[0].channel
        if not channel.poll(START_SECONDS):
            raise RuntimeError(f"no worker process started within {START_SECONDS} seconds")
        word = channel.recv()
        assert isinstance(word, Ready), word
        return word.device

    @property
    def size(self) -> int:
        return len(self._workers)

    @property
    def idle(self) -> list[int]:
        return [i for i, worker in enumerate(self._workers) if worker.task is None]

    def start(self, worker: int, task: Task) -> None:
        assert self._workers[worker].task is None
        self._workers[worker].task = task
        self._workers[worker].silent = 0.0
        for other in self._workers:
            self._set_cores(other, 1)
        self._send(self._workers[worker], task)

    def stop(self, task: int) -> None:
        for worker in self._workers:
            if worker.task and worker.task.id == task:
                self._send(worker, Stop(task=task))

    def share(self, cores: int) -> None:
        busy = [worker for worker in self._workers if worker.task]
        for place, worker in enumerate(busy):
            more = place < cores % len(busy)
            self._set_cores(worker, max(cores // len(busy) + more, 1))

    def _set_cores(self, worker: _Worker, count: int) -> None:
        if worker.cores != count:
            worker.cores = count
            self._send(worker, Cores(count=count))

    def _send(self, worker: _Worker, message: Task | Stop | Cores) -> None:
        """A worker that has just died takes no message; wait() will find it and report its task
        lost."""
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.channel.send(message)

    def wait(self, seconds: float) -> list[Event]:
        by_channel = {worker.channel: i for i, worker in enumerate(self._workers)}
        events = []
        for channel in connection.wait(list(by_channel), seconds):
            event = self._receive(by_channel[channel])  # type: ignore[index]
            if event is not None:
                events.append(event)
        self._kill_hanging()
        return events

    def _kill_hanging(self) -> None:
        """Kills workers that hang; the next wait replaces them."""
        now = time.monotonic()
        passed, self._listened = min(now - self._listened, LISTENED_SECONDS), now
        for worker in self._workers:
            worker.silent += passed if worker.task else 0.0
            if worker.silent > self._limit and not worker.hung:
                worker.hung = True
                worker.process.kill()

    def _receive(self, index: int) -> Event | None:
        worker = self._workers[index]
        worker.silent = 0.0
        try:
            message = worker.channel.recv()
        except (EOFError, ConnectionResetError):
            return self._replace(index)
        if isinstance(message, Ready):
            return None
        if isinstance(message, (Done, Failed)):
            worker.task = None
        return message  # type: ignore[no-any-return]

    def _replace(self, index: int) -> Died:
        worker = self._workers[index]
        worker.process.join(5)
        worker.channel.close()
        self._workers[index] = self._start_worker()
        return Died(task=worker.task.id if worker.task else None, reason=self._reason(worker))

    def _reason(self, worker: _Worker) -> str:
        if worker.hung:
            return hung(self._limit)
        code = worker.process.exitcode
        memory = "; the system may be out of memory" if code == -signal.SIGKILL else ""
        return f"died (exit code {code}{memory})"

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.channel.close()
        if self._workers:
            self._shared.close()
        self._workers = []
