"""One run at a time of a study, on one machine."""

import fcntl
import getpass
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hpo.errors import InputError

ATTEMPTS = 3


@contextmanager
def only_run(storage: str, study: str) -> Iterator[None]:
    """Holds the study of that storage (an absolute name of it) for as long as the block lasts.

    The lock is the system's (flock), so it goes with the process however that ends. Raises
    InputError, with the holder's process number, where another process has it.
    """
    path = _path(storage, study)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        if not _locked(file):
            holder = file.read().strip() or "unknown"
            raise InputError(
                f"study {study!r}: is being run by process {holder}; wait for it, or stop it"
            )
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def held(storage: str, study: str) -> bool:
    """Whether a process of this machine runs the study."""
    try:
        with open(_path(storage, study), encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _locked(file: TextIO) -> bool:
    """Tries more than once: who only looks (`held`) has it for a moment."""
    for _ in range(ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def _path(storage: str, study: str) -> Path:
    key = hashlib.sha256(f"{storage}\n{study}".encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"hpo-{getpass.getuser()}-{key}.lock"
