"""The server that worker processes are forked from: it has torch loaded."""

import multiprocessing
import os
import pkgutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, forkserver, parent_process, resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from hpo.errors import InputError
from hpo.process import stop_signals
from hpo.study import names

_one_at_a_time = threading.Lock()


def preload() -> None:
    """Starts the server, if it does not run; it loads torch in the background.

    Signals such as Ctrl-C reach the whole process group, but only the runner answers them. They are
    blocked before the server starts, so that server and workers inherit the mask. multiprocessing's
    resource tracker unblocks signals when it starts, so it starts first.

    Raises InputError if the system does not let the server start.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["hpo.workers.loaded"])
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        _ensure_running()
    except OSError as error:  # the server's socket is there, and its path has at most 107 bytes
        folder = tempfile.gettempdir()
        raise InputError(
            f"TMPDIR {folder}: workers cannot be started with it ({error}); set another, short "
            "and writable one"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ensure_running() -> None:
    """Starts the server, also in a fork of a process that had started one. That one is no child of
    the fork, which could not tell whether it lives, and ends without this process."""
    try:
        forkserver.ensure_running()
    except ChildProcessError:
        ours: Any = forkserver._forkserver
        os.close(ours._forkserver_alive_fd)
        ours._forkserver_pid = None
        forkserver.ensure_running()


def start(function: str, *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Starts a process that calls "module:function" with a channel and the arguments, and ends with
    this one. Returns it and this process's end of the channel."""
    if multiprocessing.current_process().daemon:
        raise InputError(
            "hpo cannot start workers in a process of multiprocessing.Pool, which Python lets have "
            "no children; use concurrent.futures.ProcessPoolExecutor"
        )
    preload()  # the server may have been killed
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_begin, args=(function, theirs, names.added(), *arguments), daemon=True
    )
    with _without_main():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _without_main() -> Iterator[None]:
    """Within it, this thread starts processes that do not import the main module.

    multiprocessing lets every process import the script that its parent runs. hpo's need nothing of
    it, and a script without `if __name__ == "__main__":` would start its study again in each.
    """
    with _one_at_a_time:
        thread, prepare = threading.get_ident(), spawn.get_preparation_data

        def prepared(name: str) -> dict[str, Any]:
            data: dict[str, Any] = prepare(name)
            if threading.get_ident() == thread:
                data.pop("init_main_from_name", None)
                data.pop("init_main_from_path", None)
                data.pop("start_method", None)  # in a worker of joblib one that only joblib knows
            return data

        spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            spawn.get_preparation_data = prepare


def _begin(
    function: str, channel: Connection, added: list[dict[str, Any]], *arguments: Any
) -> None:
    names.add(added)
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())  # the server may be the user's
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pkgutil.resolve_name(function)(channel, *arguments)


def answer(channel: Connection, function: str, *arguments: Any) -> None:
    """Says that it is there, and then what "module:function" returns, as text, and the InputError
    that it raises."""
    call = pkgutil.resolve_name(function)
    channel.send("ready")
    try:
        channel.send((str(call(*arguments)), ""))
    except InputError as error:
        channel.send(("", str(error)))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
