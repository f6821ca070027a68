"""A storage that is waited for: what fails because it is away for a while is done again."""

import time
from abc import update_abstractmethods
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, get_storage
from optuna.trial import TrialState
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from hpo.errors import InputError
from hpo.storage.open import reason_of

PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 0.2
SILENT_SECONDS = 2.0  # a lock is gone before that, most of the time
# What storages raise when they fail; journal files fail as files do.
FAULTS = (StorageInternalError, SQLAlchemyError, OSError)
WRITES = ("create_new_trial", "set_")
T = TypeVar("T")


class StorageLost(InputError):  # noqa: N818
    """The storage did not come back, or what it held is gone; nothing more can be stored."""


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: "Patient", *args: Any, **kwargs: Any) -> Any:
        return self.insist(partial(self._call, name, args, kwargs))

    method.__name__ = name
    method.__doc__ = getattr(BaseStorage, name).__doc__
    return method


class Patient(BaseStorage):
    """Another storage, whose every call is made again while that one is locked, full, restarting or
    cut off, for up to PATIENCE_SECONDS; then StorageLost.

    Made again, a call has the effect of one: a trial that was made though the answer was lost is
    found, one that was ended stays so. For the one process that writes a study's trials.

    where: the storage's name in errors. say: told once that the storage is waited for, and when it
    is back. stopping: whether nobody wants to wait any more.
    """

    def __init__(self, backend: BaseStorage, where: str, say: Callable[[str], None]) -> None:
        self.backend = backend
        self.where = where
        self.say = say
        self.stopping: Callable[[], bool] = lambda: False
        self.patience = PATIENCE_SECONDS
        self._made: set[int] = set()  # trials, by their ids

    def insist(self, call: Callable[[bool], T]) -> T:
        """What the call returns once the storage is well; it is told whether it is made again."""
        began, told = time.monotonic(), False
        again = False
        while True:
            try:
                found = call(again)
            except FAULTS as error:
                waited = time.monotonic() - began
                if not _passes(error) or waited > self.patience or self.stopping():
                    self.patience = 0.0  # whoever cleans up now is not to wait as long again
                    if self.stopping():
                        self.say(str(self._lost(error, waited)))
                        raise KeyboardInterrupt from error
                    raise self._lost(error, waited) from error
                if not told and waited > SILENT_SECONDS:
                    told = True
                    self.say(f"{self.where}: {reason_of(error)}; waiting for it")
                again = True
                time.sleep(PAUSE_SECONDS)
                continue
            if told:
                self.say(f"{self.where}: is back after {time.monotonic() - began:.0f} s")
            return found

    def _lost(self, error: Exception, waited: float) -> StorageLost:
        after = f", for {waited:.0f} s" if waited > SILENT_SECONDS else ""
        return StorageLost(
            f"{self.where}: {reason_of(error)}{after}; finished trials are stored, the same "
            "command goes on from there once the storage is well"
        )

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], again: bool) -> Any:
        call = partial(getattr(self.backend, name), *args, **kwargs)
        try:
            if name == "create_new_trial":
                found = self._unheard(*args) if again else None
                trial = call() if found is None else found
                self._made.add(trial)
                return trial
            return call()
        except KeyError as error:
            if not name.startswith(WRITES):
                raise
            raise StorageLost(f"{self.where}: the study was deleted while it ran") from error
        except UpdateFinishedTrialError as error:
            if again and name == "set_trial_state_values":
                trial, state = args[:2]
                if self.backend.get_trial(trial).state is state:
                    return True
            raise StorageLost(f"{self.where}: somebody else ended this run's trial") from error

    def _unheard(self, study: int, *_: Any) -> int | None:
        """A trial that was made, though the answer was lost: this process alone makes any."""
        running = self.backend.get_all_trials(study, deepcopy=False, states=(TrialState.RUNNING,))
        return next((t._trial_id for t in running if t._trial_id not in self._made), None)


@contextmanager
def heeding(
    storage: BaseStorage, say: Callable[[str], None], stopping: Callable[[], bool]
) -> Iterator[None]:
    """While it lasts, a Patient tells `say` that it waits, and gives up when `stopping`."""
    if not isinstance(storage, Patient):
        yield
        return
    before = storage.say, storage.stopping
    storage.say, storage.stopping = say, stopping
    try:
        yield
    finally:
        storage.say, storage.stopping = before


for _name in (*BaseStorage.__abstractmethods__, "get_trial_number_from_id", "remove_session"):
    setattr(Patient, _name, _forwarded(_name))
update_abstractmethods(Patient)  # type: ignore[type-abstract]


def patient(backend: BaseStorage, url: str, say: Callable[[str], None]) -> Patient:
    """A Patient of the storage; one of a database reads a trial that has ended once."""
    return Patient(get_storage(backend), f"storage {url}", say)  # type: ignore[abstract]


def _passes(error: Exception) -> bool:
    """Whether it may pass: a lock, a full disk, a server that restarts. A damaged file does not."""
    cause = error.__cause__ or error
    if isinstance(cause, SQLAlchemyError):
        lost = getattr(cause, "connection_invalidated", False)
        return lost or isinstance(cause, (OperationalError, InterfaceError))
    return isinstance(cause, OSError)
