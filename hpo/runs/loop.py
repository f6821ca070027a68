"""The loop of a run: hands jobs to workers and stores what they send back."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hpo.process import stop_signals
from hpo.results import trial as record
from hpo.runs.plan import EarlyStop, Job, Plan, Watcher
from hpo.runs.progress import Progress
from hpo.study.columns import TrialAttributes
from hpo.study.file import cost_text
from hpo.workers.messages import Died, Done, EpochDone, Event, Failed, Paused
from hpo.workers.pool import Pool, PoolLost

ATTEMPTS = 3
REPEAT_SECONDS = 1.0  # some terminals send a signal twice
TICK_SECONDS = 0.2
FORECAST_SECONDS = 0.2  # between two forecasts
LAST_READS = 3  # messages read of each worker at a stop: the last epochs and the end


class End(Enum):
    """How a plan ended."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    OUT_OF_TIME = "out of time"


@dataclass
class Loop:
    """Trains one plan's trials in the pool and stores their epochs and their ends.

    cores: that the pool may use in all. deadline: a time of the monotonic clock. to_repeat: jobs
    whose worker was lost.
    """

    plan: Plan
    storage: BaseStorage
    pool: Pool
    progress: Progress
    cores: int = 1
    watchers: Sequence[Watcher] = ()
    deadline: float = math.inf
    running: dict[int, Job] = field(default_factory=dict)
    to_repeat: list[Job] = field(default_factory=list)
    stopping: bool = False
    idle_deaths: int = 0
    next_forecast: float = 0.0

    def run(self) -> End:
        """Runs until the plan is done, a signal asks to stop, or the deadline passes."""
        with stop_on_signals(partial(setattr, self, "stopping", True)):
            try:
                return self._train()
            except PoolLost:
                self._fail_running(record.STOPPED)
                raise

    def _train(self) -> End:
        self._hand_out()  # workers train while the watchers start: these import much
        for watcher in self.watchers:
            watcher.on_start(self.plan.optuna_study, self.progress)
        while not self.stopping and time.monotonic() < self.deadline:
            nothing_left = self._hand_out()
            if nothing_left and not self.running:
                self._end_paused()
                return End.STOPPED if self.stopping else End.COMPLETE
            for watcher in self.watchers:
                watcher.on_tick()
            for event in self.pool.wait(TICK_SECONDS):
                self._handle(event)
            self._stop_overdue()
            self._await_nodes()
        if self.stopping:
            self.notice("stopping; the report follows")
        self._abandon(record.STOPPED if self.stopping else record.OUT_OF_TIME)
        return End.STOPPED if self.stopping else End.OUT_OF_TIME

    def notice(self, text: str) -> None:
        """Tells all watchers what the user must see."""
        for watcher in self.watchers:
            watcher.on_notice(text)

    def _await_nodes(self) -> None:
        """Tells all watchers when the nodes change that the run waits for."""
        if self.pool.waiting != self.progress.waiting:
            self.progress.waiting = self.pool.waiting
            self.notice(self.pool.waiting or "all nodes are there")

    def _stop_overdue(self) -> None:
        """Stops jobs that have taken longer than their limit. Reads first what their workers have
        sent within the limit: the runner may have been busy storing."""
        now = time.monotonic()
        while overdue := self._overdue(now):
            events = self.pool.wait(0)
            for event in events:
                self._handle(event)
            unread = {event.task for event in events}
            for task in overdue & self._overdue(now):
                job = self.running[task]
                if task not in unread or job.seconds() > job.limit:
                    job.early_stop = EarlyStop.LIMIT
                    self.pool.stop(task)

    def _overdue(self, now: float) -> set[int]:
        """Returns the tasks that have epochs left and have taken longer than their limit."""
        return {
            task
            for task, job in self.running.items()
            if now > job.began + job.limit - job.spent and not job.early_stop and not job.complete
        }

    def _hand_out(self) -> bool:
        """Gives jobs to idle workers; whether one stays idle because there is no job."""
        nothing_left = False
        more = self.pool.size - len(self.progress.workers)  # a cluster may grow
        self.progress.workers += [""] * more
        for worker in self.pool.idle:
            left = self.deadline - time.monotonic()
            job = self.to_repeat.pop() if self.to_repeat else self.plan.next(worker, left)
            if job is None:
                nothing_left = True
                self.progress.workers[worker] = ""
                continue
            self.running[job.task.id] = job
            job.worker, job.began = worker, time.monotonic()
            self.progress.workers[worker] = f"{job.label}, starting"
            self.pool.start(worker, job.task)
        self.progress.paused = len(self.plan.paused)
        if nothing_left or self.pool.size < self.cores:
            self.pool.share(self.cores)
        return nothing_left

    def _handle(self, event: Event) -> None:
        if event.task is None:
            self.idle_deaths += 1
            if self.idle_deaths > ATTEMPTS * self.pool.size:
                raise RuntimeError(f"worker processes die as they start: {event}")
            return
        job = self.running[event.task]
        if isinstance(event, EpochDone):
            self._record_epoch(job, event)
        elif isinstance(event, Done):
            self._end(job, event)
        elif isinstance(event, Paused):
            self._pause(job)
        elif isinstance(event, Failed):
            self._fail(job, event.reason)
        else:
            self._retry(job, event)

    def _record_epoch(self, job: Job, epoch: EpochDone) -> None:
        if job.early_stop:  # the worker had not read its Stop message yet
            return
        # A worker that has not kept a paused training begins it again.
        job.epochs = [*(e for e in job.epochs if e.number < epoch.number), epoch]
        if epoch.number > job.reported:  # a lost worker may have reported it before
            job.early_stop = self.plan.judge(job)
            if job.early_stop:
                self.pool.stop(job.task.id)
            job.reported = epoch.number
            if job.early_stop is not EarlyStop.DIVERGED:
                self._store_step(job, epoch)
        self._forecast()
        text = f"{job.label}, epoch {epoch.number}/{job.task.epochs}"
        self.progress.workers[job.worker] = text
        for watcher in self.watchers:
            watcher.on_epoch(job)

    def _store_step(self, job: Job, epoch: EpochDone) -> None:
        """Stores the objective's value as an intermediate value of each trial; none with two
        objectives, for which Optuna has none."""
        if job.second:
            return
        if job.averages:
            step = job.step()
            steps = [(job.trials[0], *step)] if step else []
        else:
            values = job.sought(epoch)
            lengths = epoch.lengths or [epoch.number] * len(values)
            going = [i for i in range(len(job.trials)) if lengths[i] == epoch.number]
            steps = [(job.trials[i], epoch.number, values[i]) for i in going]
        for trial, number, value in steps:
            self.storage.set_trial_intermediate_value(trial, number, value)

    def _pause(self, job: Job) -> None:
        """Starts the next job, which may be the same one, and stores a paused trial then."""
        if job.early_stop:
            self._end(job, Done(task=job.task.id))
            return
        self.idle_deaths = 0
        del self.running[job.task.id]
        job.spent, job.began = job.taken().seconds, 0.0
        self.plan.pause(job)
        if not self.stopping and time.monotonic() < self.deadline:
            self._hand_out()
            self._forecast()
        if job.task.id in self.plan.paused:
            self._store_paused(job)
            for watcher in self.watchers:
                watcher.on_end(job, f"paused after {_reached(job)}")

    def _store_paused(self, job: Job) -> None:
        """Stores all of a paused trial but its end. The next run goes on with it."""
        job.paused_at = job.epochs[-1].number
        record.store(self.storage, job.trials[0], trial_attributes(job, Done(task=job.task.id), 0))
        self.storage.set_trial_user_attr(job.trials[0], "paused_at", job.paused_at)

    def _end_paused(self) -> None:
        """Ends the trials that are paused, unless the next run goes on with them."""
        if not self.stopping:
            ended = end_paused(self.plan, self.storage, self.watchers)
            self.progress.done += ended
            self.progress.pruned += ended
            self.progress.paused = 0

    def _end(self, job: Job, done: Done) -> None:
        """Starts the next job first and stores this one then: workers do not wait for the disk."""
        self.idle_deaths = 0
        if not job.epochs:
            self._fail(job, f"{record.NO_EPOCH} of {job.limit:g} s")
            return
        state = TrialState.PRUNED if job.early_stop else TrialState.COMPLETE
        del self.running[job.task.id]
        job.model, job.ensemble = done.model, done.ensemble
        job.ensemble_score = done.ensemble_score
        job.parameters = done.parameters or job.parameters
        self.plan.ended(job, state)
        self.progress.done += len(job.names)
        if job.early_stop is EarlyStop.DIVERGED:
            self.progress.diverged += len(job.names)
        elif job.early_stop:
            self.progress.pruned += len(job.names)
        if not self.stopping and time.monotonic() < self.deadline:
            self._hand_out()
            self._forecast()
        for replicate in range(len(job.trials)):
            self._store_end(job, done, replicate, state)
        for watcher in self.watchers:
            watcher.on_end(job, _outcome(job))

    def _store_end(self, job: Job, done: Done, replicate: int, state: TrialState) -> None:
        """Stores what the job's trial with this index has given, and ends it."""
        trial, value = job.trials[replicate], job.values()[replicate]
        attributes = trial_attributes(job, done, replicate)
        record.store(self.storage, trial, attributes)
        if done.test_right and done.valid_right:
            right = {"test": done.test_right[replicate], "valid": done.valid_right[replicate]}
            self.storage.set_trial_system_attr(trial, record.RIGHT, right)
        for watcher in self.watchers:
            watcher.on_trial(trial, attributes["curve"], job.task.config.epochs)
        self.storage.set_trial_state_values(trial, state, [value, *job.second_values()])
        if state is TrialState.COMPLETE and not attributes["diverged"]:
            cost = cost_text(job.second, sum(job.second_values()))
            self.progress.take_best(job.names[replicate], value, cost)

    def _forecast(self) -> None:
        if time.monotonic() < self.next_forecast:
            return
        self.next_forecast = time.monotonic() + FORECAST_SECONDS
        jobs = [*self.running.values(), *self.to_repeat]
        limit = self.deadline - time.monotonic()
        self.progress.expect(self.plan.seconds_left(jobs, self.pool.size, limit))

    def _fail(self, job: Job, reason: str) -> None:
        del self.running[job.task.id]
        self.plan.ended(job, TrialState.FAIL)
        self._write_failed(job, reason)
        self.progress.failed += len(job.trials)
        self.notice(f"{job.label} failed: {reason}")

    def _write_failed(self, job: Job, reason: str) -> None:
        for trial in job.trials:
            self.storage.set_trial_user_attr(trial, "fail_reason", reason)
            self.storage.set_trial_state_values(trial, TrialState.FAIL)

    def _retry(self, job: Job, death: Died) -> None:
        """Trains a lost worker's job again, in the same trials; its epochs are the same again."""
        if job.early_stop:  # the job was about to end
            self._end(job, Done(task=job.task.id))
            return
        if job.attempts >= ATTEMPTS:
            self._fail(job, f"its worker {death.reason}, {ATTEMPTS} times")
            return
        del self.running[job.task.id]
        job.epochs.clear()
        job.attempts += 1
        self.to_repeat.append(job)

    def _abandon(self, reason: str) -> None:
        """Takes what workers have already sent, then ends them and fails the jobs that are left."""
        for _ in range(LAST_READS):
            for event in self.pool.wait(0):
                if isinstance(event, (EpochDone, Done, Paused)):
                    self._handle(event)
        self.pool.close()
        self._fail_running(reason)
        self._end_paused()

    def _fail_running(self, reason: str) -> None:
        for job in [*self.running.values(), *self.to_repeat]:
            if job.early_stop:
                self._end(job, Done(task=job.task.id))
            elif job.paused_at:
                self.plan.paused[job.task.id] = job
                if job.epochs and job.epochs[-1].number > job.paused_at:  # or it began anew
                    self._store_paused(job)
            else:
                self._write_failed(job, reason)
        self.running.clear()


def end_paused(plan: Plan, storage: BaseStorage, watchers: Sequence[Watcher] = ()) -> int:
    """Ends a plan's trials that are paused as PRUNED. Returns how many there were."""
    paused = list(plan.paused.values())
    for job in paused:
        [trial] = job.trials
        found = record.whole(storage.get_trial(trial))
        plan.ended(job, TrialState.PRUNED)
        for watcher in watchers:
            watcher.on_trial(trial, found.user_attrs["curve"], job.task.config.epochs)
        value = record.paused_value(found, job.metric)
        storage.set_trial_state_values(trial, TrialState.PRUNED, [value])
    return len(paused)


def _outcome(job: Job) -> str:
    if job.task.all_images:
        return "trained"
    if job.early_stop is EarlyStop.DIVERGED:
        return f"diverged in epoch {len(job.epochs)}"
    if job.early_stop is EarlyStop.LIMIT:
        return f"stopped at its time limit after {_reached(job)}"
    return f"pruned after {_reached(job)}" if job.early_stop else _value(job)


def _reached(job: Job) -> str:
    """Returns how far a job came, and its value there."""
    place = f"epoch {len(job.epochs)}"
    if job.task.one_by_one:
        parts = "folds" if job.task.folds else "seeds"
        place = f"{len(job.runs())} of {len(job.task.seeds)} {parts}"
    return f"{place}, {_value(job)}"


def _value(job: Job) -> str:
    values = job.values()
    return job.metric.text(sum(values) / len(values))


def trial_attributes(job: Job, done: Done, replicate: int) -> TrialAttributes:
    """Returns the attributes of the job's trial with this index, with those of the test."""
    kept = job.outcomes()[replicate:][:1] if job.task.config.validated else []
    attributes = record.attributes(job.curve(), replicate, *kept)
    if job.task.config.model:
        attributes["parameters"] = job.parameters
    if job.averages:
        attributes["valid_by_seed"] = [job.counted(record.outcome(*run)) for run in job.runs()]
    if job.early_stop is EarlyStop.DIVERGED:
        attributes["diverged"] = 1
    if job.early_stop is EarlyStop.LIMIT:
        attributes["over_limit"] = 1
    if done.test_loss and done.test_accuracy:
        attributes["test_loss"] = record.finite(done.test_loss[replicate])
        attributes["test_accuracy"] = record.finite(done.test_accuracy[replicate])
    for name, values in done.test_scores.items():
        attributes[name] = record.finite(values[replicate])  # type: ignore[literal-required]
    if done.test_recall:
        recall = done.test_recall[replicate]
        known = [share for share in recall if share is not None]
        attributes["test_balanced_accuracy"] = sum(known) / len(known)
        attributes["test_recall"] = [s if s is None else round(s, 6) for s in recall]
    if done.confusion:
        attributes["mistakes"] = done.confusion[replicate]
    if done.predictions:
        attributes["predictions"] = done.predictions[replicate]
    if done.calibration and (found := done.calibration[replicate]):
        attributes["calibration"] = found
    return attributes


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop` at Ctrl-C, SIGTERM and SIGHUP: KeyboardInterrupt would break a transaction.

    A second signal, REPEAT_SECONDS or more after the first one, raises KeyboardInterrupt. Does
    nothing in a thread that is not the main one: Python hears signals in the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = math.inf

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        if time.monotonic() > first + REPEAT_SECONDS:
            raise KeyboardInterrupt
        first = min(first, time.monotonic())
        stop()

    before = {s: signal.signal(s, handle) for s in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
