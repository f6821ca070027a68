"""One run at a time of a study: a lock of this machine, and a mark in the storage for others."""

import fcntl
import hashlib
import json
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import optuna

from hpo.errors import InputError

ATTEMPTS = 3
BEAT_SECONDS = 10.0
DEAD_SECONDS = 25.0  # without a beat
HOLDER = "holder"  # the attribute of the study


class Holder:
    """The right to run a study, for as long as the process lives or until another one takes it.

    On this machine the system's lock decides (flock), which goes with its process however that
    ends. A run elsewhere, or of another user, is known by its mark in the storage alone: an
    attribute of the study with a beat that it renews every BEAT_SECONDS. No clocks are compared:
    whoever finds such a mark watches whether it beats.
    """

    def __init__(self, lock: str, say: Callable[[str], None]) -> None:
        self.mark = {**_me(), "lock": lock, "token": uuid.uuid4().hex, "beat": 0}
        self.say = say
        self.study: optuna.Study | None = None
        self.next_beat = 0.0

    def take(self, study: optuna.Study) -> None:
        """Puts the mark on the study; InputError where somebody else's is alive."""
        mark = study.user_attrs.get(HOLDER)
        if mark and mark["lock"] != self.mark["lock"] and self._beats(study, mark):
            raise InputError(_refusal(study.study_name, mark))
        self.study = study
        self._write()

    def _beats(self, study: optuna.Study, mark: Mapping[str, Any]) -> bool:
        self.say(
            f"study {study.study_name!r}: was run by {_words(mark)}; waiting up to "
            f"{DEAD_SECONDS:.0f} s for a sign of life"
        )
        deadline = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = study.user_attrs.get(HOLDER)
            if now != mark:
                return now is not None
        return False

    def beat(self) -> None:
        """Renews the mark where it is time to; InputError where another run has taken the study."""
        if self.study is None or time.monotonic() < self.next_beat:
            return
        name = self.study.study_name
        try:
            mark = self.study.user_attrs.get(HOLDER) or {}
        except KeyError as error:
            raise InputError(f"study {name!r}: was deleted while it ran") from error
        if mark.get("token") != self.mark["token"]:
            self.study = None
            raise InputError(_refusal(name, mark) if mark else f"study {name!r}: was taken away")
        self.mark["beat"] += 1
        self._write()

    def _write(self) -> None:
        assert self.study is not None
        self.study.set_user_attr(HOLDER, self.mark)
        self.next_beat = time.monotonic() + BEAT_SECONDS

    def release(self) -> None:
        """Takes the mark off, if the storage lets it."""
        if self.study is not None:
            with suppress(InputError, KeyError):  # lost, or deleted
                self.study.set_user_attr(HOLDER, None)


@contextmanager
def only_run(storage: str, study: str, say: Callable[[str], None]) -> Iterator[Holder]:
    """Holds the study of that storage (an absolute name of it) for as long as the block lasts.

    Raises InputError, with the holder, where another process of this machine has it, and where the
    lock cannot be made. say: told of a wait for a holder elsewhere, see Holder.
    """
    with _opened(_path(storage, study)) as file:
        if not _locked(file):
            raise InputError(_refusal(study, _read(file)))
        with suppress(OSError):  # of a full disk: the lock holds, a refusal says less
            file.truncate(0)
            file.write(json.dumps(_me()).encode())
        status = os.fstat(file.fileno())
        holder = Holder(f"{platform.node()}:{status.st_dev}:{status.st_ino}", say)
        try:
            yield holder
        finally:
            holder.release()


def _opened(path: Path) -> FileIO:
    """The lock's file; not where a link of that name, which anybody may have left, leads to."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        return FileIO(os.open(path, flags, 0o600), "r+")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"lock {path}: cannot be made ({reason}); remove it, or set TMPDIR to another folder"
        ) from error


def held(storage: str, study: str) -> bool:
    """Whether a process of this machine runs the study."""
    try:
        with _path(storage, study).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it is somebody else's
        return False
    return False


def _locked(file: FileIO) -> bool:
    """Tries more than once: who only looks (`held`) has it for a moment."""
    for _ in range(ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def _me() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime())
    return {"host": platform.node(), "pid": os.getpid(), "since": since}


def _read(file: FileIO) -> dict[str, Any]:
    """Who says to hold the lock: nobody yet, for a moment after it was taken."""
    with suppress(ValueError):
        found = json.loads(file.read())
        if isinstance(found, dict):
            return found
    return {}


def _words(mark: Mapping[str, Any]) -> str:
    host, pid, since = (mark.get(key, "unknown") for key in ("host", "pid", "since"))
    return f"process {pid} on {host} since {since}"


def _refusal(study: str, mark: Mapping[str, Any]) -> str:
    return f"study {study!r}: is being run by {_words(mark)}; wait for it, or stop it"


def _path(storage: str, study: str) -> Path:
    key = hashlib.sha256(f"{storage}\n{study}".encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"hpo-{os.getuid()}-{key}.lock"
