"""A study's life: open, plan, start trials, record epochs, tell, resume. Alone talks to Optuna."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from hpo import record
from hpo.data import Dataset, split
from hpo.display import Display, Progress
from hpo.errors import InputError
from hpo.messages import Died, Done, EpochDone, Failed
from hpo.plan import GridPlan, Job, Plan
from hpo.pool import Pool
from hpo.study_file import GridStudy

ATTEMPTS = 3
REPEAT_SECONDS = 1.0  # some terminals and wrappers send a signal twice
TICK_SECONDS = 0.2


# --- the study in the storage ------------------------------------------------------------------


def binding(study_file: GridStudy, dataset: Dataset) -> dict[str, Any]:
    """What a stored study is bound to: all that its results depend on, budget and seeds aside."""
    cells = {
        f"cells.{cell.name}.{key}": value
        for cell in study_file.cells
        for key, value in cell.config.as_dict().items()
    }
    return {
        "dataset": dataset.name,
        "dataset checksum": dataset.checksum,
        "split": f"{len(dataset.train_labels)} training images, 8:2 by seed",
        **cells,
    }


def describe(dataset: Dataset) -> dict[str, Any]:
    """The dataset in numbers, for the report."""
    train_rows, valid_rows = split(dataset, 0)
    return {
        "name": dataset.name,
        "checksum": dataset.checksum,
        "train": len(train_rows),
        "valid": len(valid_rows),
        "test": len(dataset.test_labels),
    }


def open_study(
    storage: RDBStorage, study_file: GridStudy, dataset: Dataset, name: str
) -> optuna.Study:
    """The stored study of that name, made if it is not there.

    Raises InputError, a line a difference, where a stored one is bound to other things.
    """
    bound = binding(study_file, dataset)
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )
    stored = study.user_attrs.get("binding")
    if stored is None and study.get_trials(deepcopy=False):
        raise InputError(f"study {name!r}: was not made by hpo; give --name another one")
    if stored is not None and stored != bound:
        raise InputError("\n".join(_differences(name, stored, bound)))
    study.set_user_attr("binding", bound)
    study.set_user_attr("kind", "grid")
    study.set_user_attr("data", describe(dataset))
    study.set_user_attr("study_file", dict(study_file.raw))
    return study


def _differences(name: str, stored: dict[str, Any], given: dict[str, Any]) -> list[str]:
    lines = []
    for key in dict.fromkeys([*stored, *given]):
        if stored.get(key) != given.get(key):
            was, is_now = stored.get(key, "nothing"), given.get(key, "nothing")
            lines.append(f"study {name!r}: {key}: stored with {was!r}, now {is_now!r}")
    lines[-1] += "; give --name for a new study, or --fresh to delete the stored one"
    return lines


def clean_up(study: optuna.Study) -> None:
    """Fails what a killed run left RUNNING: only a runner writes here, and this one just began."""
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        handle = Trial(study, trial._trial_id)
        handle.set_user_attr("fail_reason", "interrupted: its run was killed")
        study.tell(handle, state=TrialState.FAIL)


# --- the loop ----------------------------------------------------------------------------------


class End(Enum):
    """How a run ended."""

    WHOLE = "whole"
    STOPPED = "stopped"
    OUT_OF_TIME = "out of time"


@dataclass
class Loop:
    """Hands a plan's jobs to the pool and records what comes back, until all is done or stopped."""

    study: optuna.Study
    pool: Pool
    display: Display
    deadline: float = math.inf
    running: dict[int, Job] = field(default_factory=dict)
    by_worker: dict[int, Job] = field(default_factory=dict)
    again: list[Job] = field(default_factory=list)
    stopping: bool = False
    idle_deaths: int = 0

    def run(self, plan: Plan) -> End:
        """Until the plan is worked off, a signal comes, or the deadline passes."""
        with stop_on_signals(self._stop):
            while not self.stopping and time.monotonic() < self.deadline:
                self._hand_out(plan)
                if not self.running:
                    return End.WHOLE
                for event in self.pool.wait(TICK_SECONDS):
                    self._handle(event)
            self._abandon("stopped" if self.stopping else "out of time")
        return End.STOPPED if self.stopping else End.OUT_OF_TIME

    def _stop(self) -> None:
        self.stopping = True

    def _hand_out(self, plan: Plan) -> None:
        for worker in self.pool.idle:
            job = self.again.pop() if self.again else plan.next()
            if job is None:
                self.by_worker.pop(worker, None)
                self.display.progress.workers[worker] = ""
                continue
            self.running[job.task.id] = job
            self.by_worker[worker] = job
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
            self._complete(job, event)
        elif isinstance(event, Failed):
            self._fail(job, event.reason)
        else:
            self._retry(job, event)

    def _count_idle_death(self, event: EpochDone | Done | Failed | Died) -> None:
        self.idle_deaths += 1
        if self.idle_deaths > ATTEMPTS * self.pool.size:
            raise RuntimeError(f"worker processes die as they start: {event}")

    def _record_epoch(self, job: Job, epoch: EpochDone) -> None:
        job.epochs.append(epoch)
        if epoch.number > job.reported:  # not again what a lost worker reported before
            job.reported = epoch.number
            for trial, accuracy in zip(job.trials, epoch.valid_accuracy, strict=True):
                trial.report(accuracy, epoch.number)
        progress = self.display.progress
        progress.spent += job.cost / job.task.config.epochs
        worker = next(w for w, other in self.by_worker.items() if other is job)
        progress.workers[worker] = f"{job.label}, epoch {epoch.number}/{job.task.config.epochs}"

    def _complete(self, job: Job, done: Done) -> None:
        for replicate, trial in enumerate(job.trials):
            for key, value in outcome(job, done, replicate).items():
                trial.set_user_attr(key, value)
            self.study.tell(trial, job.epochs[-1].valid_accuracy[replicate])
        del self.running[job.task.id]
        progress = self.display.progress
        progress.done += len(job.trials)
        self._update_best()
        accuracies = job.epochs[-1].valid_accuracy
        mean = sum(accuracies) / len(accuracies)
        self.display.line(f"{job.label}: validation accuracy {100 * mean:.2f}%")

    def _update_best(self) -> None:
        best = self.study.best_trial
        name = f"{best.user_attrs['cell']} seed {best.user_attrs['seed']}"
        self.display.progress.best = f"{name}, validation accuracy {100 * (best.value or 0):.2f}%"

    def _fail(self, job: Job, reason: str) -> None:
        for trial in job.trials:
            trial.set_user_attr("fail_reason", reason)
            self.study.tell(trial, state=TrialState.FAIL)
        del self.running[job.task.id]
        self.display.progress.failed += len(job.trials)
        self.display.notice(f"{job.label} failed: {reason}")

    def _retry(self, job: Job, death: Died) -> None:
        """A lost worker's job begins anew in the same trials; it gives the same epochs again."""
        if job.attempts >= ATTEMPTS:
            self._fail(job, f"its worker died {ATTEMPTS} times (exit code {death.exitcode})")
            return
        del self.running[job.task.id]
        self.display.progress.spent -= job.cost * len(job.epochs) / job.task.config.epochs
        job.epochs.clear()
        job.attempts += 1
        self.again.append(job)

    def _abandon(self, reason: str) -> None:
        for event in self.pool.wait(0):  # what has ended but was not yet heard of counts
            if isinstance(event, (EpochDone, Done)):
                self._handle(event)
        self.pool.close()
        for job in [*self.running.values(), *self.again]:
            for trial in job.trials:
                trial.set_user_attr("fail_reason", reason)
                self.study.tell(trial, state=TrialState.FAIL)
        self.running.clear()


def outcome(job: Job, done: Done, replicate: int) -> dict[str, Any]:
    """The attributes of one of the job's trials, with its test."""
    found = record.attributes(job.epochs, replicate, done.parameters)
    if done.test_loss and done.test_accuracy:
        found["test_loss"] = record.finite(done.test_loss[replicate])
        found["test_accuracy"] = done.test_accuracy[replicate]
    return found


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM call `stop` instead of breaking into a transaction; one
    that comes a second or more after the first interrupts at once."""

    asked = math.inf

    def handle(number: int, frame: Any) -> None:
        nonlocal asked
        if time.monotonic() > asked + REPEAT_SECONDS:
            raise KeyboardInterrupt
        asked = min(asked, time.monotonic())
        stop()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_grid(
    study_file: GridStudy,
    dataset: Dataset,
    storage: RDBStorage,
    *,
    name: str,
    seeds: int,
    workers: int,
    device: str,
    provenance: dict[str, Any],
    timeout: float = math.inf,
    quiet: bool = False,
) -> End:
    """Runs what is missing of a grid.

    Raises InputError where the stored study is bound to other things.
    """
    started, deadline = time.time(), time.monotonic() + timeout
    study = open_study(storage, study_file, dataset, name)
    clean_up(study)
    study.set_user_attr("seeds", max(seeds, study.user_attrs.get("seeds", 0)))
    plan = GridPlan(study, storage, study_file, seeds, dataset)
    if not plan.missing:
        return End.WHOLE
    total = len(study_file.cells) * seeds
    progress = Progress(title=name, total=total, done=total - plan.missing, planned=plan.cost)
    with Pool(min(workers, len(plan.waiting)), dataset, device) as pool:
        progress.workers = [""] * pool.size
        session = {**provenance, "started": started, "workers": pool.size, "device": pool.device}
        sessions = [*study.user_attrs.get("sessions", []), session]
        study.set_user_attr("sessions", sessions)
        with Display(progress, quiet=quiet) as display:
            end = Loop(study, pool, display, deadline).run(plan)
    session["seconds"] = time.time() - started
    study.set_user_attr("sessions", sessions)
    return end
