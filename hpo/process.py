"""The process of a run: signals that ask it to stop, and output that may go away."""

import io
import os
import signal
import sys
from typing import Any, TextIO


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns SIGINT, SIGTERM and, unless nohup ignores it, SIGHUP of a closed terminal."""
    asked = (signal.SIGINT, signal.SIGTERM)
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return asked if ignored else (*asked, signal.SIGHUP)


def outlive_output() -> None:
    """Ignores write errors on stdout and stderr: full disk, closed pipe, closed terminal."""
    sys.stdout, sys.stderr = _losing(sys.stdout), _losing(sys.stderr)


class _Losing(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _losing(stream: TextIO) -> TextIO:
    if type(stream) is not io.TextIOWrapper:  # none, or not the system's
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Losing(os.dup(stream.fileno()), "w")),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
