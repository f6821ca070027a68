"""Hands a plan's jobs to workers and writes down what comes back, until all is done or stopped."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hpo.process import stop_signals
from hpo.report.figures.trial import Curve
from hpo.run.display import Display
from hpo.run.plan import Early, Job, Plan
from hpo.storage import trial as record
from hpo.watch.artifacts import Pictures
from hpo.workers.messages import Died, Done, EpochDone, Failed
from hpo.workers.pool import Pool

ATTEMPTS = 3
REPEAT_SECONDS = 1.0  # some terminals and wrappers send a signal twice
TICK_SECONDS = 0.2
LAST_WORDS = 3  # messages of a worker that a stop waits for: the last epochs, and the end


class End(Enum):
    """How a run ended."""

    WHOLE = "whole"
    STOPPED = "stopped"
    OUT_OF_TIME = "out of time"


@dataclass
class Loop:
    """One plan's trials, trained by the pool and written to the storage as they go."""

    plan: Plan
    storage: BaseStorage
    pool: Pool
    display: Display
    deadline: float = math.inf
    best: float = -math.inf
    pictures: Pictures | None = None
    running: dict[int, Job] = field(default_factory=dict)
    by_worker: dict[int, Job] = field(default_factory=dict)
    again: list[Job] = field(default_factory=list)
    stopping: bool = False
    idle_deaths: int = 0
    beat: Callable[[], None] = lambda: None  # called all the time, see lock.Holder

    def run(self) -> End:
        """Until the plan is worked off, a signal comes, or the deadline passes."""
        with stop_on_signals(self._stop):
            while not self.stopping and time.monotonic() < self.deadline:
                self._hand_out()
                if not self.running:
                    return End.STOPPED if self.stopping else End.WHOLE
                self.beat()
                for event in self.pool.wait(TICK_SECONDS):
                    self._handle(event)
            self._abandon(record.STOPPED if self.stopping else record.OUT_OF_TIME)
        return End.STOPPED if self.stopping else End.OUT_OF_TIME

    def _stop(self) -> None:
        self.stopping = True

    def _hand_out(self) -> None:
        for worker in self.pool.idle:
            job = self.again.pop() if self.again else self.plan.next()
            if job is None:
                self.by_worker.pop(worker, None)
                self.display.progress.workers[worker] = ""
                continue
            self.running[job.task.id] = job
            self.by_worker[worker] = job
            job.began = time.monotonic()
            self.display.progress.workers[worker] = f"{job.label}, starting"
            self.pool.start(worker, job.task)

    def _handle(self, event: EpochDone | Done | Failed | Died) -> None:
        if event.task is None:
            self._count_idle_death(event)
            return
        job = self.running[event.task]
        if isinstance(event, EpochDone):
            self._record_epoch(job, event)
        elif isinstance(event, Done):
            self._end(job, event)
        elif isinstance(event, Failed):
            self._fail(job, event.reason)
        else:
            self._retry(job, event)

    def _count_idle_death(self, event: EpochDone | Done | Failed | Died) -> None:
        self.idle_deaths += 1
        if self.idle_deaths > ATTEMPTS * self.pool.size:
            raise RuntimeError(f"worker processes die as they start: {event}")

    def _record_epoch(self, job: Job, epoch: EpochDone) -> None:
        if job.early:  # this epoch ended before the worker heard that it is not wanted
            return
        job.epochs.append(epoch)
        if epoch.number > job.reported:  # not again what a lost worker reported before
            job.early = self.plan.judge(job)
            if job.early:
                self.pool.stop(job.task.id)
            job.reported = epoch.number
            for trial, accuracy in zip(job.trials, epoch.valid_accuracy, strict=False):
                self.storage.set_trial_intermediate_value(trial, epoch.number, accuracy)
        self._forecast()
        progress = self.display.progress
        worker = next(w for w, other in self.by_worker.items() if other is job)
        progress.workers[worker] = f"{job.label}, epoch {epoch.number}/{job.task.config.epochs}"

    def _end(self, job: Job, done: Done) -> None:
        """Hands out the next job before it writes this one down: no worker waits for a disk."""
        state = TrialState.PRUNED if job.early is Early.PRUNED else TrialState.COMPLETE
        del self.running[job.task.id]
        job.model = done.model
        self.plan.ended(job, state)
        progress = self.display.progress
        progress.done += len(job.task.seeds)
        progress.pruned += len(job.task.seeds) if state is TrialState.PRUNED else 0
        if not self.stopping and time.monotonic() < self.deadline:
            self._hand_out()
            self._forecast()
        values = job.values()
        for replicate, trial in enumerate(job.trials):
            found = outcome(job, done, replicate)
            for key, value in found.items():
                self.storage.set_trial_user_attr(trial, key, value)
            self._picture(trial, found["curve"], job.task.config.epochs)
            self.storage.set_trial_state_values(trial, state, [values[replicate]])
        if state is TrialState.COMPLETE:
            self._update_best(job, values)
        self.display.line(f"{job.label}: {_ending(job)}")

    def _picture(self, trial: int, curve: Curve, epochs: int) -> None:
        if self.pictures and not self.pictures.fault:
            self.pictures.attach(trial, curve, epochs)
            if self.pictures.fault:
                self.display.notice(self.pictures.fault)

    def _forecast(self) -> None:
        jobs = [*self.running.values(), *self.again]
        limit = self.deadline - time.monotonic()
        self.display.progress.expect(self.plan.seconds_left(jobs, self.pool.size, limit))

    def _update_best(self, job: Job, values: list[float]) -> None:
        best = max(values)
        if best > self.best:
            self.best = best
            name = job.names[values.index(best)]
            self.display.progress.best = f"{name}, validation accuracy {100 * best:.2f}%"

    def _fail(self, job: Job, reason: str) -> None:
        del self.running[job.task.id]
        self.plan.ended(job, TrialState.FAIL)
        self._write_failed(job, reason)
        self.display.progress.failed += len(job.trials)
        self.display.notice(f"{job.label} failed: {reason}")

    def _write_failed(self, job: Job, reason: str) -> None:
        for trial in job.trials:
            self.storage.set_trial_user_attr(trial, "fail_reason", reason)
            self.storage.set_trial_state_values(trial, TrialState.FAIL)

    def _retry(self, job: Job, death: Died) -> None:
        """A lost worker's job begins anew in the same trials; it gives the same epochs again."""
        if job.early:  # it was to end anyway
            self._end(job, Done(task=job.task.id))
            return
        if job.attempts >= ATTEMPTS:
            self._fail(job, f"its worker {death.words}, {ATTEMPTS} times")
            return
        del self.running[job.task.id]
        job.epochs.clear()
        job.attempts += 1
        self.again.append(job)

    def _abandon(self, reason: str) -> None:
        for _ in range(LAST_WORDS):  # what has ended but was not yet heard of counts
            for event in self.pool.wait(0):
                if isinstance(event, (EpochDone, Done)):
                    self._handle(event)
        self.pool.close()
        for job in [*self.running.values(), *self.again]:
            if job.early:
                self._end(job, Done(task=job.task.id))
            else:
                self._write_failed(job, reason)
        self.running.clear()


def _ending(job: Job) -> str:
    if job.task.whole:
        return "trained"
    accuracies = job.epochs[-1].valid_accuracy
    accuracy = f"validation accuracy {100 * sum(accuracies) / len(accuracies):.2f}%"
    if job.early is Early.DIVERGED:
        return f"diverged in epoch {len(job.epochs)}"
    return f"pruned after epoch {len(job.epochs)}, {accuracy}" if job.early else accuracy


def outcome(job: Job, done: Done, replicate: int) -> dict[str, Any]:
    """The attributes of one of the job's trials, with its test."""
    found = record.attributes(job.epochs, replicate)
    if done.test_loss and done.test_accuracy:
        found["test_loss"] = record.finite(done.test_loss[replicate])
        found["test_accuracy"] = done.test_accuracy[replicate]
    if done.mistakes:
        found["mistakes"] = done.mistakes[replicate]
    return found


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """While it lasts, Ctrl-C and its like call `stop` instead of breaking into a transaction; one
    that comes a second or more after the first interrupts at once."""

    asked = math.inf

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if time.monotonic() > asked + REPEAT_SECONDS:
            raise KeyboardInterrupt
        asked = min(asked, time.monotonic())
        stop()

    before = {s: signal.signal(s, handle) for s in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
