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
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
