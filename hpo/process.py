"""What hpo asks of the system: signals to stop, output that may go away, files replaced whole."""

import atexit
import errno
import gc
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns SIGINT, SIGTERM and, unless nohup ignores it, SIGHUP of a closed terminal."""
    asked = (signal.SIGINT, signal.SIGTERM)
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return asked if ignored else (*asked, signal.SIGHUP)


def collect_seldom() -> None:
    """Lets Python look for cycles of garbage a hundred times more seldom: it visits all objects of
    large libraries, which takes a sixth of the time of imports and a third of that of figures."""
    gc.set_threshold(50_000, 20, 100)


def end_process(code: int) -> NoReturn:
    """Ends the process once its exit handlers have run and its output is written. Python itself
    would first take all modules apart, which takes a second after a run."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


def ignore_output_errors() -> None:
    """Ignores write errors on stdout and stderr: full disk, closed pipe, closed terminal."""
    sys.stdout, sys.stderr = _ignoring_errors(sys.stdout), _ignoring_errors(sys.stderr)


class _IgnoringErrors(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _ignoring_errors(stream: TextIO) -> TextIO:
    if type(stream) is not io.TextIOWrapper:  # none, or not the system's
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_IgnoringErrors(os.dup(stream.fileno()), "w")),
        encoding=stream.encoding,
        errors=stream.errors,
        # PYTHONUNBUFFERED, usual in containers, sets write_through; the buffer here still waits.
        line_buffering=stream.line_buffering or stream.write_through,
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives another path in the same folder to write to. At the end of the block that file takes
    the place of `path`; if the block raises, `path` stays as it was.

    Raises OSError that names `path`, for a full disk, and for a folder in its place.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    written = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield written
        os.replace(written, path)
    except OSError as error:
        if error.filename is not None and Path(error.filename) != written:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        written.unlink(missing_ok=True)
