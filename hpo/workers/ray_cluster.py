"""Workers on a Ray cluster: one actor per training at a time, streams of epochs. Torch is loaded
on the nodes alone.

Ray (https://docs.ray.io) starts, places and watches the actors. The task of a lost actor comes back
as Died, and the runner trains it again. Ray itself restarts nothing: no epoch is reported twice.
"""

import math
import os
import platform
import secrets
import signal
import socket
import subprocess
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import current_thread, main_thread
from typing import Any

import joblib
import numpy as np

from hpo.data.datasets import Dataset
from hpo.errors import InputError
from hpo.options import Options
from hpo.text import error_text, quoted, same_command
from hpo.workers.messages import Died, Done, EpochDone, Event, Failed, Paused, Ready, Stop, Task
from hpo.workers.pool import Lost, Place, Pool, PoolLost
from hpo.workers.provenance import hardware, versions

ANSWER_SECONDS = 5.0  # for an address to accept a connection
LEAST_STORE = 100 * 2**20  # bytes of the object store of a cluster that is started here
LOOK_SECONDS = 2.0  # between two looks at the cluster's nodes
LOST_SECONDS = 15.0  # without an answer of the head node, then the cluster is lost
NODES_SECONDS = 300.0  # for the head and the first node to come, if --nodes says that some will
COMPARED = ("python", "hpo", "torch")  # versions that nodes must share
MOST = 10**6  # workers
INSTALL = "pip install 'hpo-studies[ray]'"
LAST_WORDS = (
    "hpo: this process was ended from outside. Ray ends it at once when Ray's own raylet or agent "
    "on this machine dies. Finished trials are stored; {same} goes on from here"
)
# Waits for a line; without one, prints its argument. Signals of the process group do not end it.
WATCHER = 'trap "" INT TERM HUP; read -r ended || printf "%s\\n" "$1" >&2'


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster that this process is connected to.

    address: of its head node, host:port. cpus and gpus: what Ray reserves for each training.
    workers: how many trainings should run at once, None for as many as the nodes have room for.
    expected: how many nodes with room for a training there will be; 0 for unknown.
    spare: actors that an earlier pool of the run has left, with torch loaded.
    """

    address: str
    cpus: float
    gpus: float
    workers: int | None
    expected: int = 0
    spare: list[Any] = field(default_factory=list)
    stored: dict[int, Any] = field(default_factory=dict)  # references of datasets

    def pool(self, workers: int, dataset: Dataset, device: str, epoch_limit: float) -> "RayPool":
        """Returns a pool of at most so many workers, see workers.pool.MakePool."""
        return RayPool(self, workers, dataset, device, epoch_limit)

    def room(self) -> int:
        """Returns how many trainings the nodes have room for, if nothing else uses them."""
        return sum(map(self._fitting, self._nodes()))

    def _fitting(self, node: Mapping[str, float]) -> int:
        shares = [node.get("CPU", 0.0) / self.cpus if self.cpus else math.inf]
        shares += [node.get("GPU", 0.0) / self.gpus] if self.gpus else []
        return int(min(*shares, MOST))

    def waiting(self) -> str:
        """waiting for nodes: 2 of 4 are there. Empty if all are there."""
        there = sum(self._fitting(node) > 0 for node in self._nodes())
        return f"waiting for nodes: {there} of {self.expected} are there" * (there < self.expected)

    def _nodes(self) -> list[dict[str, float]]:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def await_first(self, dataset: Dataset, device: str, say: Callable[[str], None]) -> None:
        """Waits for the first node that has what a training needs, if further nodes are expected.
        Raises InputError if none has come in time."""
        said, deadline = "", time.monotonic() + NODES_SECONDS
        while True:
            try:
                return self.check(dataset, device)
            except InputError:
                if len(self._nodes()) >= self.expected or time.monotonic() > deadline:
                    raise
            if said != (said := self.waiting()):
                say(said)
            time.sleep(LOOK_SECONDS)

    def check(self, dataset: Dataset, device: str) -> None:
        """Raises InputError if no node has what a training needs."""
        if device.startswith("cuda:"):
            raise InputError(
                f"--device {device}: Ray chooses the GPUs of each training; give --device cuda and "
                "--gpus-per-trial, and CUDA_VISIBLE_DEVICES where `ray start` is typed"
            )
        if device == "cuda" and not self.gpus:
            raise InputError("--device cuda: needs --gpus-per-trial, such as 1 or 0.25")
        if not (self.cpus or self.gpus or self.workers):
            raise InputError("--cpus-per-trial 0: needs --workers: nothing else bounds them")
        nodes = self._nodes()
        for option, asked, key in (("cpus", self.cpus, "CPU"), ("gpus", self.gpus, "GPU")):
            most = max((node.get(key, 0.0) for node in nodes), default=0.0)
            if asked > most:
                raise InputError(
                    f"--{option}-per-trial {asked:g}: no node of the cluster has so many "
                    f"{key}s, the most is {most:g}"
                )
        if not self.room():
            raise InputError(
                f"--cpus-per-trial {self.cpus:g}, --gpus-per-trial {self.gpus:g}: no node of the "
                "cluster has both"
            )
        size = _size(dataset)
        least = min(node.get("object_store_memory", math.inf) for node in nodes)
        if size > least:
            raise InputError(
                f"dataset {dataset.name!r}: takes {size / 2**20:,.0f} MiB, and the object store of "
                f"a node has {least / 2**20:,.0f}; start Ray with --object-store-memory"
            )


@contextmanager
def connect(options: Options, dataset: Dataset, say: Callable[[str], None]) -> Iterator[Cluster]:
    """Connects to the cluster at --ray-address (host:port, or "auto" for the one of this machine),
    or starts one on this machine for the time of the block if there is none.

    A cluster that is started listens on loopback only, with a token, and without dashboard and
    usage reports. say: told of nodes that are waited for. Raises InputError if Ray is not
    installed, nobody answers at the address, the token is wrong, Python and Ray are of other
    versions than the cluster's, or no node has what a training needs.
    """
    address = options.ray_address
    if options.nodes and not address:
        raise InputError("--nodes: needs --ray-address, the head node of those nodes")
    if address and address != "auto":
        _check_address(address, NODES_SECONDS if options.nodes else 0.0, say)
    ray = _import_ray(address, "60" if options.nodes else "3")
    numbers = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    folder = tempfile.TemporaryDirectory(prefix="hpo-ray-", ignore_cleanup_errors=True)
    if not address:
        store = max(2 * _size(dataset), LEAST_STORE)
        quiet |= {"num_cpus": joblib.cpu_count(), "object_store_memory": store}
        quiet |= {"include_dashboard": False, "_temp_dir": folder.name}
    try:
        with _without_stderr():
            context = ray.init(address=address or "local", **quiet)
    except Exception as error:  # Ray raises errors of many kinds here
        raise InputError(_refusal(address, error)) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        cluster = Cluster(
            address=context["address"],
            cpus=1.0 if options.cpus_per_trial is None else options.cpus_per_trial,
            gpus=options.gpus_per_trial or 0.0,
            workers=options.workers,
            expected=options.nodes or 0,
        )
        cluster.await_first(dataset, options.device, say)
        with _last_words(same_command(fresh=options.fresh, trials="N" if options.more else "")):
            yield cluster
    finally:
        ray.shutdown()
        folder.cleanup()


@contextmanager
def _last_words(same: str) -> Iterator[None]:
    """Says on stderr that this process is gone, if it does not come to the end of the block.

    Ray ends the process by its C++ code, without an exception and without exit handlers, when its
    raylet on this machine is lost. So another process waits, which sees its pipe break. same: the
    command that goes on, in words.
    """
    words = LAST_WORDS.format(same=same)
    command = ["/bin/sh", "-c", WATCHER, "hpo", words]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        watcher.communicate(b"\n")


def _import_ray(address: str | None, seconds: str) -> Any:
    """Imports Ray, which reads its settings from the environment when it is imported. seconds: that
    it tries to connect."""
    if not address:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ code writes to stderr
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", seconds)
    if not address or address.startswith(("127.", "localhost")):
        # Ray's switch for systems without clusters: all addresses are 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
        from ray._private import worker
    except ImportError as error:
        raise InputError(f"--pool ray: Ray is not installed; {INSTALL}") from error
    # Ray prints what happens to nodes between the lines of the progress display.
    worker.print_to_stdstream = lambda *_, **__: None
    return ray


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drops what is written to stderr: Ray's C++ code has no other place for its warnings."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _check_address(address: str, patience: float, say: Callable[[str], None]) -> None:
    """Raises InputError if nobody answers at the address within `patience` seconds."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(
            f"--ray-address {quoted(address)}: must be host:port of the head node, such as "
            "10.0.0.1:6379, or auto"
        )
    deadline, said = time.monotonic() + patience, False
    while not _accepts(address, ANSWER_SECONDS):
        if time.monotonic() >= deadline:
            raise InputError(
                f"--ray-address {quoted(address)}: nobody answers there; start the cluster by "
                "`ray start --head`, or give another address"
            )
        if not said:
            say(f"waiting for the head node {address}")
        said = True
        time.sleep(LOOK_SECONDS)


def _accepts(address: str, seconds: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, ValueError):
        return False
    return True


def _refusal(address: str | None, error: Exception) -> str:
    """Returns a line about a connection that failed."""
    where = f"--ray-address {quoted(address)}" if address else "--pool ray"
    told = "".join(traceback.format_exception(error))
    if "AuthenticationError" in told:
        reason = "its token is missing here or differs; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    elif "ersion mismatch" in told:
        reason = " ".join(str(error).split())[:300]
    else:
        reason = error_text(error)
    return f"{where}: cannot use the cluster: {reason}"


def _size(dataset: Dataset) -> int:
    """Returns the bytes of the dataset's arrays."""
    return sum(value.nbytes for value in vars(dataset).values() if isinstance(value, np.ndarray))


class RayWorker:
    """Trains one task at a time with `threads` torch threads. `stop` runs beside `train`, so the
    actor needs max_concurrency=2.

    dataset: read-only arrays in the node's object store, which the tensors share.
    """

    def __init__(self, dataset: Dataset, device: str, threads: int) -> None:
        import torch

        from hpo.training.tensors import choose_device
        from hpo.workers.worker import Trainer

        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.trainer = Trainer(dataset, self.device)
        self.stopped = 0  # a task's id

    def ready(self) -> Ready:
        """Returns the worker's device and its machine's host, hardware and versions."""
        from hpo.workers.worker import gpu_label

        machine = {"host": platform.node(), "hardware": hardware(), "versions": versions()}
        gpu = gpu_label() if self.device.type == "cuda" else ""
        return Ready(device=self.device.type, machine=machine, gpu=gpu)

    def train(self, task: Task) -> Iterator[EpochDone | Done | Paused | Failed]:
        """Trains a task, see worker.Trainer."""
        self.stopped = 0  # an earlier pool's tasks had the same numbers
        yield from self.trainer.answers(task, lambda: self.stopped == task.id)

    def stop(self, task: int) -> None:
        """Ends a task within its epoch."""
        self.stopped = task


@dataclass(eq=False, kw_only=True)
class _Slot(Place):
    """source: what the actor's next message comes from."""

    actor: Any
    source: Any


class RayPool(Pool):
    """A Pool of at most `workers` actors. It grows when nodes join the cluster."""

    kind = "ray"
    not_started = "other jobs may use all of the cluster: no worker started"

    def __init__(
        self, cluster: Cluster, workers: int, dataset: Dataset, device: str, epoch_limit: float
    ) -> None:
        import ray

        super().__init__(workers, epoch_limit)
        self._ray = ray
        self._cluster = cluster
        self._actor = ray.remote(RayWorker).options(
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2,
        )
        if id(dataset) not in cluster.stored:
            cluster.stored[id(dataset)] = ray.put(dataset)
        self._arguments = (cluster.stored[id(dataset)], device, max(int(cluster.cpus), 1))
        self._versions = {name: versions()[name] for name in COMPARED}
        self._looked = self._answered = time.monotonic()
        self.waiting = cluster.waiting()

    def _fill(self, workers: int) -> None:
        """Starts the actors: as many as asked for, which makes a cluster grow that can, or else as
        many as the nodes have room for."""
        super()._fill(self._cluster.workers or self._cluster.room())

    def _new_place(self) -> _Slot:
        spare = self._cluster.spare
        actor: Any = spare.pop() if spare else self._actor.remote(*self._arguments)
        return _Slot(actor=actor, source=actor.ready.remote(), ready=False)

    def _give(self, slot: _Slot, message: Task | Stop) -> None:
        if isinstance(message, Stop):
            slot.actor.stop.remote(message.task)
        else:
            slot.source = slot.actor.train.remote(message)

    def share(self, cores: int) -> None:
        """Does nothing: each actor has the CPUs that Ray gave it."""

    def _heard(self, seconds: float) -> Iterable[_Slot]:
        """All that have a message at once, or the first within `seconds`."""
        by_source = {slot.source: slot for slot in self._places if slot.task or not slot.ready}
        sources = list(by_source)
        if not sources:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(sources, num_returns=len(sources), timeout=0, fetch_local=False)
        if not ready and seconds:
            ready, _ = self._ray.wait(sources, timeout=seconds, fetch_local=False)
        return [by_source[source] for source in ready]

    def _next(self, slot: _Slot) -> Ready | Event:
        errors = self._ray.exceptions
        try:
            reference = next(slot.source) if slot.ready else slot.source
            message: Ready | Event = self._ray.get(reference)
        except StopIteration:
            raise Lost("ended without an answer") from None
        except errors.RayActorError as error:
            raise Lost(f"died ({_cause(error)})") from error
        except errors.RayError as error:
            raise Lost(f"failed ({_cause(error)})") from error
        return message

    def _welcome(self, slot: _Slot, ready: Ready) -> None:
        """Raises InputError if the worker's machine has other versions than this one."""
        super()._welcome(slot, ready)
        if ready.machine in self.machines:
            return
        self.machines.append(ready.machine)
        for name, version in self._versions.items():
            there = ready.machine["versions"].get(name)
            if there != version:
                raise InputError(
                    f"--pool ray: node {ready.machine['host']} has {name} {there}, and this "
                    f"machine {version}; install the same version everywhere"
                )

    def _replace(self, slot: _Slot, reason: str) -> Died:
        self._kill(slot)  # one that failed may live
        return super()._replace(slot, reason)

    def _kill(self, slot: _Slot) -> None:
        with suppress(Exception):  # it is dead, or the cluster is gone
            self._ray.kill(slot.actor)

    def wait(self, seconds: float) -> list[Event]:
        """As Pool.wait; also grows with the cluster. Raises PoolLost if its head does not answer
        any more."""
        events, now = super().wait(seconds), time.monotonic()
        if now < self._looked + LOOK_SECONDS:
            return events
        self._looked = now
        if _accepts(self._cluster.address, 1.0):
            self._answered, self.waiting = now, self._cluster.waiting()
            self._fill(self._most)
        elif now > self._answered + LOST_SECONDS:
            raise PoolLost(
                f"Ray cluster {self._cluster.address}: its head node does not answer; finished "
                "trials are stored, the same command goes on from there on a new cluster"
            )
        return events

    def close(self) -> None:
        for slot in self._places:
            if slot.task or not slot.ready:
                self._kill(slot)
            else:
                self._cluster.spare.append(slot.actor)
        self._places = []


def _cause(error: Exception) -> str:
    """Returns the first line that tells why an actor is lost."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("The actor", "ModuleNotFoundError"))]
    last = lines[-1] if lines else type(error).__name__
    return (told or [last])[-1].rstrip(".")
