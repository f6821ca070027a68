"""The server that worker processes are forked from: it has torch loaded."""

import multiprocessing
import signal
import tempfile
from multiprocessing import forkserver, resource_tracker

from hpo.errors import InputError
from hpo.process import stop_signals


def preload() -> None:
    """Starts the server, if it does not run; it loads torch in the background.

    Signals such as Ctrl-C reach the whole process group, but only the runner answers them. They are
    blocked before the server starts, so that server and workers inherit the mask. multiprocessing's
    resource tracker unblocks signals when it starts, so it starts first.

    Raises InputError if the system does not let the server start.
    """
    context = multiprocessing.get_context("forkserver")
    # A worker begins by importing the main module, which is hpo.cli or the script that imports it:
    # most of that is typer.
    context.set_forkserver_preload(["hpo.workers.loaded", "typer"])
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        forkserver.ensure_running()
    except (
        OSError
    ) as error:  # the server's socket is there, and a socket's path has at most 107 bytes
        folder = tempfile.gettempdir()
        raise InputError(
            f"TMPDIR {folder}: workers cannot be started with it ({error}); set another, short "
            "and writable one"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
