"""One run of a study at a time: a file lock on this machine, a mark in the storage for others."""

import hashlib
import json
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout

from hpo.errors import InputError

LOCK_SECONDS = 0.3  # longer than `held` holds the lock
HEARTBEAT_SECONDS = 10.0  # a write of the storage each time, so not more often
DEAD_SECONDS = 25.0  # without a heartbeat: two were missed
HOLDER = "holder"  # the attribute of the study


class Holder:
    """The right to run a study, until the process ends or another run takes the study over.

    On this machine the file lock decides; the system releases it however the process ends. A run on
    another machine, or of another user, is known only by its mark: an attribute of the study whose
    counter "beat" it raises every HEARTBEAT_SECONDS. No clocks are compared: a run that finds such
    a mark waits and sees whether it changes.

    lock: the name of the file lock, the same for all runs that share it. say: told of a wait.
    """

    def __init__(self, lock: str, say: Callable[[str], None]) -> None:
        self.mark = {**_process(), "lock": lock, "token": uuid.uuid4().hex, "beat": 0}
        self.say = say
        self.study: optuna.Study | None = None
        self.next_heartbeat = 0.0

    def take(self, study: optuna.Study) -> None:
        """Marks the study as this run's. Raises InputError if another run of it is alive."""
        mark = study.user_attrs.get(HOLDER)
        if mark and mark["lock"] != self.mark["lock"] and self._is_alive(study, mark):
            raise InputError(_refusal(study.study_name, mark))
        self.study = study
        self._write()

    def _is_alive(self, study: optuna.Study, mark: Mapping[str, Any]) -> bool:
        self.say(
            f"study {study.study_name!r}: was run by {_describe(mark)}; waiting up to "
            f"{DEAD_SECONDS:.0f} s for a sign of life"
        )
        deadline = time.monotonic() + DEAD_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.5)
            now = study.user_attrs.get(HOLDER)
            if now != mark:
                return now is not None
        return False

    def heartbeat(self) -> None:
        """Renews the mark when it is time. Raises InputError if another run took the study, or if
        the study was deleted."""
        if self.study is None or time.monotonic() < self.next_heartbeat:
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
        self.next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS

    def release(self) -> None:
        """Removes the mark, if the storage allows it."""
        if self.study is not None:
            with suppress(InputError, KeyError):  # lost, or deleted
                self.study.set_user_attr(HOLDER, None)


@contextmanager
def only_run(storage: str, study: str, say: Callable[[str], None]) -> Iterator[Holder]:
    """Holds the study of that storage (its absolute URL) for the time of the block.

    Raises InputError that names the holder if another process of this machine holds the study, and
    if the lock cannot be made. say: see Holder.
    """
    path = _path(storage, study)
    try:
        lock = FileLock(path, timeout=LOCK_SECONDS, mode=0o600)
        lock.acquire()  # does not follow a link in the place of the file
    except Timeout as error:
        raise InputError(_refusal(study, _read(path))) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"lock {path}: cannot be made ({reason}); remove it, or set TMPDIR to another folder"
        ) from error
    with lock:
        with suppress(OSError):  # a full disk: the lock holds, a refusal names no holder
            path.write_text(json.dumps(_process()), encoding="utf-8")
        status = path.stat()
        holder = Holder(f"{platform.node()}:{status.st_dev}:{status.st_ino}", say)
        try:
            yield holder
        finally:
            holder.release()
            lock.release()


def held(storage: str, study: str) -> bool:
    """Whether a process of this machine runs the study."""
    path = _path(storage, study)
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # another user's
        return False


def _process() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime())
    return {"host": platform.node(), "pid": os.getpid(), "since": since}


def _read(path: Path) -> dict[str, Any]:
    """Returns who holds the lock; nothing for a moment after it was taken."""
    with suppress(ValueError, OSError):
        process = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(process, dict):
            return process
    return {}


def _describe(mark: Mapping[str, Any]) -> str:
    host, pid, since = (mark.get(key, "unknown") for key in ("host", "pid", "since"))
    return f"process {pid} on {host} since {since}"


def _refusal(study: str, mark: Mapping[str, Any]) -> str:
    return f"study {study!r}: is being run by {_describe(mark)}; wait for it, or stop it"


def _path(storage: str, study: str) -> Path:
    key = hashlib.sha256(f"{storage}\n{study}".encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"hpo-{os.getuid()}-{key}.lock"
