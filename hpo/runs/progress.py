"""How far a plan is."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hpo.text import seconds_text


@dataclass
class Progress:
    """How far a plan is.

    done: trials that are COMPLETE or PRUNED. diverged: of a search, whose diverged trials are
    PRUNED, too; pruned: the others. workers: what each worker trains. started and finish:
    times of the monotonic clock; finish is a forecast, None while it is unknown. seconds: how long
    the run took, None while it runs.
    """

    title: str
    total: int
    done: int = 0
    pruned: int = 0
    diverged: int = 0
    failed: int = 0
    workers: list[str] = field(default_factory=list)
    best: str = ""
    best_value: float | None = None
    started: float = field(default_factory=time.monotonic)
    finish: float | None = None
    seconds: float | None = None

    def expect(self, seconds: float | None) -> None:
        """Sets the forecast: so many seconds from now, or None for unknown."""
        self.finish = None if seconds is None else time.monotonic() + seconds

    def take_best(self, name: str, value: float) -> None:
        """Takes a trial as the best if it is better than the one so far: its name and its
        validation accuracy, a fraction."""
        if self.best_value is None or value > self.best_value:
            self.best_value = value
            self.best = f"{name}, validation accuracy {100 * value:.2f}%"

    @property
    def counts(self) -> str:
        """34/50 trials, 12 pruned, 1 failed."""
        parts = [f"{self.done}/{self.total} trials"]
        parts += [f"{self.pruned} pruned"] if self.pruned else []
        parts += [f"{self.diverged} diverged"] if self.diverged else []
        parts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(parts)

    @property
    def elapsed(self) -> float:
        """Seconds since the start, or that the run took."""
        return time.monotonic() - self.started if self.seconds is None else self.seconds

    @property
    def left(self) -> str:
        """about 2 min 05 s left; empty if unknown or if the run is over."""
        if self.finish is None or self.seconds is not None:
            return ""
        return f"about {seconds_text(max(self.finish - time.monotonic(), 0.0))} left"

    def as_json(self) -> dict[str, Any]:
        """Returns the fields with times of the wall clock, for other processes."""
        offset = time.time() - time.monotonic()
        finish = None if self.finish is None else self.finish + offset
        return {**asdict(self), "started": self.started + offset, "finish": finish}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Progress":
        """Reads what as_json wrote, in this process or another one."""
        offset = time.time() - time.monotonic()
        finish = None if stored["finish"] is None else stored["finish"] - offset
        return cls(**{**stored, "started": stored["started"] - offset, "finish": finish})
