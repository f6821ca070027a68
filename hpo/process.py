"""What a run has of its process: signals that ask it to stop, and output that may go away."""

import io
import os
import signal
import sys
from typing import Any, TextIO


def stop_signals() -> tuple[signal.Signals, ...]:
    """Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed, unless that is ignored (nohup)."""
    asked = (signal.SIGINT, signal.SIGTERM)
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return asked if ignored else (*asked, signal.SIGHUP)


def outlive_output() -> None:
    """From here on what stdout and stderr do not take is lost, without an error: the disk of a log
    may be full, the reader of a pipe gone, a terminal closed."""
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
