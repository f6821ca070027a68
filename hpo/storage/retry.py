"""A storage whose calls are retried while it is locked, full, restarting or cut off."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, get_storage
from optuna.trial import TrialState
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from hpo.storage.open import StorageGone, StorageLost, file_of, reason_of, write_back_moved

RETRY_SECONDS = 300.0  # a server restarts, or room is made on a disk, within it
PAUSE_SECONDS = 0.2  # Ctrl-C is heard after it
SILENT_SECONDS = 2.0  # most locks are gone before that
FAULTS = (StorageInternalError, SQLAlchemyError, OSError)  # OSError: of journal files
T = TypeVar("T")


class RetryingStorage:
    """Retries each call of an Optuna storage that fails, for up to `seconds`, then StorageLost.

    Retries are idempotent: a trial that a lost call created or ended is recognised. Only one
    process may create trials. Other errors are the storage's own, as Optuna's contract has them.

    where: the storage's name in messages. say: told when a wait is long and when it is over.
    file: the storage's; if another one or none has its path, each call raises StorageGone.
    stopping: whether the run is asked to stop; then a wait ends with KeyboardInterrupt.
    """

    def __init__(
        self, backend: BaseStorage, where: str, say: Callable[[str], None], file: Path | None = None
    ) -> None:
        self.backend = backend
        self.where = where
        self.say = say
        self.file = file
        self.identity = file and _identity(file)
        self.gone = False
        self.stopping: Callable[[], bool] = bool  # which is False
        self.seconds = RETRY_SECONDS
        self._created: set[int] = set()  # ids of trials

    def __getattr__(self, name: str) -> Any:
        if name == "backend":  # not set yet, while unpickling
            raise AttributeError(name)
        attribute = getattr(self.backend, name)
        return partial(self._call, name) if callable(attribute) else attribute

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        call = partial(getattr(self.backend, name), *args, **kwargs)
        return self.retry(lambda again: self._call_once(name, again, call))

    def retry(self, call: Callable[[bool], T]) -> T:
        """Calls until the storage answers; the call is told whether it is made again."""
        started, told, again = time.monotonic(), False, False
        while True:
            try:
                self._require_file()
                answer = call(again)
            except FAULTS as error:
                waited = time.monotonic() - started
                if not _may_pass(error) or waited > self.seconds or self.stopping():
                    raise self._give_up(error, waited) from error
                if not told and waited > SILENT_SECONDS:
                    told = True
                    self.say(f"{self.where}: {reason_of(error)}; waiting for it")
                again = True
                time.sleep(PAUSE_SECONDS)
                continue
            if told:
                self.say(f"{self.where}: is back after {time.monotonic() - started:.0f} s")
            return answer

    def _require_file(self) -> None:
        if self.file and _identity(self.file) != self.identity:
            if not self.gone:
                self.gone = True
                write_back_moved(self.backend)
            raise StorageGone(
                f"{self.where}: its file was deleted, moved or replaced during the run; put it "
                "back, and the same command goes on from there"
            )

    def _give_up(self, error: Exception, waited: float) -> BaseException:
        self.seconds = 0.0  # the calls that clean up do not wait again
        after = f", for {waited:.0f} s" if waited > SILENT_SECONDS else ""
        lost = StorageLost(
            f"{self.where}: {reason_of(error)}{after}; finished trials are stored, the same "
            "command goes on from there once the storage is well"
        )
        if not self.stopping():
            return lost
        self.say(str(lost))
        return KeyboardInterrupt()

    def _call_once(self, name: str, again: bool, call: "partial[Any]") -> Any:
        if name == "create_new_trial":
            # One that a lost call created is the only one that runs and that nobody knows.
            study, running = call.args[0], (TrialState.RUNNING,)
            stored = self.backend.get_all_trials(study, False, running) if again else []
            lost = [t._trial_id for t in stored if t._trial_id not in self._created]
            trial = lost[0] if lost else call()
            self._created.add(trial)
            return trial
        try:
            return call()
        except UpdateFinishedTrialError:
            if again and name == "set_trial_state_values":
                trial, state = call.args[:2]
                if self.backend.get_trial(trial).state is state:
                    return True
            raise


def retrying(backend: BaseStorage, url: str, say: Callable[[str], None]) -> BaseStorage:
    """Returns a RetryingStorage; of a database it reads an ended trial once."""
    opened = get_storage(backend)
    return cast(BaseStorage, RetryingStorage(opened, f"storage {url}", say, file_of(url)))


def _identity(file: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another one of its path; None if there is no file."""
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


@contextmanager
def during_run(
    storage: BaseStorage,
    study: optuna.Study | None,
    say: Callable[[str], None],
    stopping: Callable[[], bool],
) -> Iterator[None]:
    """Sets `say` and `stopping` of a RetryingStorage for the time of a run.

    Raises StorageLost if another process deletes the study or ends one of its trials.
    """
    if not isinstance(storage, RetryingStorage):
        yield
        return
    before = storage.say, storage.stopping
    storage.say, storage.stopping = say, stopping
    try:
        yield
    except UpdateFinishedTrialError as error:
        raise StorageLost(f"{storage.where}: another process ended a trial of this run") from error
    except KeyError as error:
        if study and study._study_id in {each._study_id for each in storage.get_all_studies()}:
            raise
        raise StorageLost(f"{storage.where}: the study was deleted while it ran") from error
    finally:
        storage.say, storage.stopping = before


def _may_pass(error: Exception) -> bool:
    """Whether the fault may pass: a lock, a full disk, a restart; not a damaged file."""
    cause = error.__cause__ or error
    if isinstance(cause, SQLAlchemyError):
        lost = getattr(cause, "connection_invalidated", False)
        return lost or isinstance(cause, (OperationalError, InterfaceError))
    return isinstance(cause, OSError)
