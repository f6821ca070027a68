"""A journal file as a storage: each line is an operation, complete or not there."""

import errno
import json
import os
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from hpo.errors import InputError

BLOCK = 65_536  # bytes in which the last line mostly lies
BEGINNING = b'{"op_code"'  # of a journal's first line
GRACE_SECONDS = 10  # then the lock of a killed process is broken


class _Backend(JournalFileBackend):
    """Truncates a partial last line (kill, full disk) before appending; Optuna would append to it
    and corrupt the file."""

    def __init__(self, file: Path) -> None:
        self.path = str(file.absolute())  # Optuna's lock spins on a relative path in a folder
        self.lock = JournalFileSymlinkLock(self.path, grace_period=GRACE_SECONDS)
        super().__init__(self.path, self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        content = "".join(lines).encode()
        self.lock.acquire()
        try:
            with open(self.path, "r+b", buffering=0) as file:
                _append(file, content)
        finally:
            self.lock.release()


def _append(file: FileIO, content: bytes) -> None:
    size = _whole_lines(file)
    try:
        file.truncate(size)
        file.seek(size)
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except OSError:
        file.truncate(size)
        raise


def open_file(file: Path, *, create: bool) -> JournalStorage:
    """Opens a journal file. create: creates it if needed, and it will be written to.

    Raises InputError for a file of something else and for a damaged one, OSError for one that
    cannot be read or written.
    """
    if create:
        with open(file, "ab"):
            pass
    try:
        with open(file, "rb") as opened:
            # or a part of it, after a kill
            if not BEGINNING.startswith(opened.read(len(BEGINNING))):
                raise ValueError("its first line is no operation")
        return JournalStorage(_Backend(file))
    except OSError:
        raise
    except Exception as error:  # lines that are not operations raise errors of any kind
        raise InputError(
            f"storage {file}: is no journal of Optuna's, or is damaged ({error}); give --storage "
            "another one"
        ) from error


def _whole_lines(file: FileIO) -> int:
    """Returns where the last complete line ends."""
    size = file.seek(0, os.SEEK_END)
    for block in (min(BLOCK, size), size):  # all of it only where the last part is a long one
        file.seek(size - block)
        last = file.read().rfind(b"\n")
        if last >= 0:
            return size - block + last + 1
    return 0
