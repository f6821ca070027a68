"""A study's life: open, plan, start trials, record epochs, tell, resume. Alone talks to Optuna."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState, create_trial

from hpo.config import HYPERPARAMETERS, Config, Seeds
from hpo.data import Dataset, split
from hpo.display import Display, Progress
from hpo.errors import InputError
from hpo.messages import Died, Done, EpochDone, Failed, Task
from hpo.pool import Pool
from hpo.study_file import Cell, GridStudy

# Replicates of a network trained at once. Measured on 2 cores of an AMD EPYC (Zen 4), one thread
# each, batch 64: at 32 units a stack of 5 takes 0.85 of the time of 5 alone and larger stacks gain
# no more; at 64 units 0.95; from 128 units on a stack is slower.
STACK = 5
STACKED_PARAMETERS = 60_000
ATTEMPTS = 3
TICK_SECONDS = 0.2
ALWAYS_STORED = ("depth", "width", "activation", "optimizer", "lr", "batch_size", "epochs")


def parameter_count(config: Config, features: int, classes: int) -> int:
    """Weights and biases of the configuration's network."""
    sizes = [features, *[config.width] * config.depth, classes]
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


def stack_size(parameters: int) -> int:
    """How many replicates of a network are trained at once: a matter of the network alone, so that
    results never depend on the machine's size."""
    return STACK if parameters <= STACKED_PARAMETERS else 1


def cost(config: Config, features: int, classes: int, examples: int) -> float:
    """About how many seconds of a core a training takes: only ratios matter (order, time left)."""
    steps = math.ceil(examples / config.batch_size)
    arithmetic = 6 * parameter_count(config, features, classes) * config.batch_size / 85e9
    return config.epochs * steps * (arithmetic + 2.5e-5 * (config.depth + 1))


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


# --- jobs --------------------------------------------------------------------------------------


@dataclass
class Job:
    """A task with its trials, one a seed, and what came back of it so far."""

    task: Task
    label: str
    trials: list[Trial]
    cost: float
    epochs: list[EpochDone] = field(default_factory=list)
    attempts: int = 1

    def column(self, metric: str, replicate: int) -> list[float]:
        return [getattr(epoch, metric)[replicate] for epoch in self.epochs]


class Plan(Protocol):
    """Where jobs come from: None when there is nothing to start (now, or for good)."""

    def next(self) -> Job | None: ...


class GridPlan:
    """The missing trials of a grid as stacks, the longest first."""

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        study_file: GridStudy,
        seeds: int,
        dataset: Dataset,
    ) -> None:
        self.study = study
        self.storage = storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self.distributions = distributions([cell.config for cell in study_file.cells])
        features, classes = dataset.train_images.shape[1], 10
        examples = len(dataset.train_labels)
        finished = finished_seeds(study)
        self.waiting: list[tuple[float, Cell, list[int]]] = []
        for cell in study_file.cells:
            missing = [s for s in range(seeds) if (cell.name, s) not in finished]
            size = stack_size(parameter_count(cell.config, features, classes))
            each = cost(cell.config, features, classes, examples)
            for start in range(0, len(missing), size):
                stack = missing[start : start + size]
                self.waiting.append((each * len(stack), cell, stack))
        self.waiting.sort(key=lambda entry: -entry[0])
        self.missing = sum(len(stack) for _, _, stack in self.waiting)
        self.cost = sum(entry[0] for entry in self.waiting)
        self.started = 0

    def next(self) -> Job | None:
        if not self.waiting:
            return None
        spent, cell, seeds = self.waiting.pop(0)
        trials = [self._create_trial(cell, seed, len(seeds)) for seed in seeds]
        self.started += 1
        task = Task(
            id=self.started,
            config=cell.config,
            seeds=tuple(Seeds.of(seed) for seed in seeds),
            test=True,
        )
        return Job(task=task, label=f"{cell.name} {_seeds_text(seeds)}", trials=trials, cost=spent)

    def _create_trial(self, cell: Cell, seed: int, stack: int) -> Trial:
        """A RUNNING trial with its parameters and its key, in one transaction."""
        values = cell.config.as_dict()
        template = create_trial(
            state=TrialState.RUNNING,
            params={name: values[name] for name in self.distributions},
            distributions=self.distributions,
            user_attrs={"cell": cell.name, "seed": seed, "stack": stack},
        )
        return Trial(self.study, self.storage.create_new_trial(self.study_id, template))


def _seeds_text(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]}–{seeds[-1]}"
    return "seeds " + ", ".join(map(str, seeds))


def finished_seeds(study: optuna.Study) -> set[tuple[str, int]]:
    """The (cell, seed) pairs that have a COMPLETE trial."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    return {(trial.user_attrs["cell"], trial.user_attrs["seed"]) for trial in complete}


def distributions(configs: list[Config]) -> dict[str, BaseDistribution]:
    """Distributions that just hold the cells: for the dashboard and for importances."""
    rows = [config.as_dict() for config in configs]
    found: dict[str, BaseDistribution] = {}
    for name in HYPERPARAMETERS:
        values = sorted({row[name] for row in rows})
        if name not in ALWAYS_STORED and not any(values):
            continue
        if isinstance(values[0], (str, bool)):
            found[name] = CategoricalDistribution(values)
        elif isinstance(values[0], int):
            found[name] = IntDistribution(values[0], values[-1])
        else:
            found[name] = FloatDistribution(values[0], values[-1], log=name == "lr")
    return found


# --- the loop ----------------------------------------------------------------------------------


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

    def run(self, plan: Plan) -> bool:
        """True if the plan was worked off, False if a signal or the deadline ended it before."""
        with stop_on_signals(self._stop):
            while not self._over():
                self._hand_out(plan)
                if not self.running:
                    return True
                for event in self.pool.wait(TICK_SECONDS):
                    self._handle(event)
        self._abandon("stopped" if self.stopping else "out of time")
        return False

    def _stop(self) -> None:
        self.stopping = True

    def _over(self) -> bool:
        return self.stopping or time.monotonic() > self.deadline

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
        """A lost worker's job begins anew in the same trials: their epochs are written over."""
        if job.attempts >= ATTEMPTS:
            self._fail(job, f"its worker died {ATTEMPTS} times (exit code {death.exitcode})")
            return
        del self.running[job.task.id]
        self.display.progress.spent -= job.cost * len(job.epochs) / job.task.config.epochs
        job.epochs.clear()
        job.attempts += 1
        self.again.append(job)

    def _abandon(self, reason: str) -> None:
        self.pool.close()
        for job in [*self.running.values(), *self.again]:
            for trial in job.trials:
                trial.set_user_attr("fail_reason", reason)
                self.study.tell(trial, state=TrialState.FAIL)
        self.running.clear()


def outcome(job: Job, done: Done, replicate: int) -> dict[str, Any]:
    """A trial's attributes: everything a report needs, as plain JSON (NaN and Inf as null)."""
    metrics = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    curve = {metric: job.column(metric, replicate) for metric in metrics}
    losses = curve["train_loss"] + curve["valid_loss"]
    found: dict[str, Any] = {
        "parameters": done.parameters,
        "train_seconds": sum(epoch.seconds for epoch in job.epochs),
        "diverged": not all(map(math.isfinite, losses)),
        "curve": {metric: [_finite(v) for v in values] for metric, values in curve.items()},
    }
    if done.test_loss and done.test_accuracy:
        found["test_loss"] = _finite(done.test_loss[replicate])
        found["test_accuracy"] = done.test_accuracy[replicate]
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """While it lasts, SIGINT and SIGTERM call `stop` once instead of breaking into a transaction;
    a second one interrupts at once."""

    def handle(number: int, frame: Any) -> None:
        signal.signal(number, signal.default_int_handler)
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
) -> bool:
    """Runs what is missing of a grid; True if it is whole, False if it was stopped before.

    Raises InputError where the stored study is bound to other things or the device is not there.
    """
    started, deadline = time.time(), time.monotonic() + timeout
    study = open_study(storage, study_file, dataset, name)
    clean_up(study)
    study.set_user_attr("seeds", max(seeds, study.user_attrs.get("seeds", 0)))
    plan = GridPlan(study, storage, study_file, seeds, dataset)
    if not plan.missing:
        return True
    total = len(study_file.cells) * seeds
    progress = Progress(title=name, total=total, done=total - plan.missing, planned=plan.cost)
    with Pool(min(workers, len(plan.waiting)), dataset, device) as pool:
        progress.workers = [""] * pool.size
        session = {**provenance, "started": started, "workers": pool.size, "device": pool.device}
        sessions = [*study.user_attrs.get("sessions", []), session]
        study.set_user_attr("sessions", sessions)
        with Display(progress, quiet=quiet) as display:
            whole = Loop(study, pool, display, deadline).run(plan)
    session["seconds"] = time.time() - started
    study.set_user_attr("sessions", sessions)
    return whole
