"""What the runner and its workers say to each other."""

import signal
from dataclasses import dataclass
from typing import Any

from hpo.study.config import Config, Seeds


@dataclass(frozen=True, kw_only=True)
class Task:
    """Train one network for each of the seeds, as a stack; test them at the end if test is set.

    inspect: the test also says which images were mistaken for what. whole: train on all training
    images, validate on none, and send the network itself. diagnose: with every epoch, what went on
    inside, see diagnosis.Diagnosis.
    """

    id: int
    config: Config
    seeds: tuple[Seeds, ...]
    test: bool = False
    inspect: bool = False
    diagnose: bool = False
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End this task at once, its epoch unfinished, without a test."""

    task: int


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker has started and trains on this kind of device."""

    device: str


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """See training.Epoch; a figure for each of the task's seeds."""

    task: int
    number: int
    train_loss: list[float]
    train_accuracy: list[float]
    valid_loss: list[float]
    valid_accuracy: list[float]
    seconds: float
    diagnostics: dict[str, list[list[float]] | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Done:
    """A task has ended; the test's figures, one a seed, where it was asked for and reached.

    mistakes: one a seed where the task was to inspect, see mistakes.inspect. model: the
    trained network of a `whole` task, as the bytes of a safetensors file.
    """

    task: int
    test_loss: list[float] | None = None
    test_accuracy: list[float] | None = None
    mistakes: list[dict[str, Any]] | None = None
    model: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A task failed, but the worker is well."""

    task: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Died:
    """A worker process ended; the task that it had, if any, is lost.

    hung: it was killed after so many seconds without a word, if that is why.
    """

    task: int | None
    exitcode: int | None
    hung: float | None = None

    @property
    def words(self) -> str:
        """What became of the worker."""
        if self.hung:
            return f"ended no epoch in {self.hung:g} s (see --epoch-limit)"
        memory = "; the system may be out of memory" if self.exitcode == -signal.SIGKILL else ""
        return f"died (exit code {self.exitcode}{memory})"


Event = EpochDone | Done | Failed | Died
