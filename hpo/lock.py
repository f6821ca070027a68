"""One run at a time of a study, on one machine."""

import fcntl
import getpass
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import InputError


@contextmanager
def only_run(storage: str, study: str) -> Iterator[None]:
    """Holds the study of that storage (an absolute name of it) for as long as the block lasts.

    The lock is the system's (flock), so it goes with the process however that ends. Raises
    InputError, with the holder's process number, where another process has it.
    """
    key = hashlib.sha256(f"{storage}\n{study}".encode()).hexdigest()[:24]
    path = Path(tempfile.gettempdir()) / f"hpo-{getpass.getuser()}-{key}.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "unknown"
            raise InputError(
                f"study {study!r}: is being run by process {holder}; wait for it, or stop it"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
