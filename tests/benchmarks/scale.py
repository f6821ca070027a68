"""How many workers one runner keeps busy: trainings are replaced by sleeps, the rest is real.

    python tests/benchmarks/scale.py           about 30 minutes

Runner, plan, loop, SQLite storage, pictures and Ray's streams are those of `hpo run --pool ray`. A
logical worker is a thread of one of a few actors, so that 500 of them fit on this machine. A trial
takes a lognormal time with a mean of 30 s and reports 10 epochs. Then 10,000 trials of one second
on 16 workers, and searches on a model of the published search, by TPE as hpo asks it and as Optuna
does. Writes reports/published/benchmark-scale.md.
"""

import argparse
import heapq
import random
import resource
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.samplers._tpe import _truncnorm
from optuna.trial import TrialState, create_trial

from hpo.analysis.statistics import estimate
from hpo.data.datasets import Dataset
from hpo.options import Options
from hpo.runs import samplers
from hpo.runs.runner import train
from hpo.runs.search import SearchPlan
from hpo.runs.study import Run, binding, open_study
from hpo.storage.open import open_storage, quiet
from hpo.storage.retry import retrying
from hpo.study import file as study_file
from hpo.study.space import Choices, Fixed, Range, draw, suggest
from hpo.watch.artifacts import CurveArtifacts
from hpo.workers import provenance
from hpo.workers.messages import Done, EpochDone, Ready, Task
from hpo.workers.ray_cluster import Cluster, RayPool, _Slot, connect

WARM_UP, WINDOW = 40.0, 60.0  # seconds
MANY, FEW = 10_000, 16  # one-second trials, and the workers that sleep them
SEARCHES, NEAREST = 20, 5  # searches that are compared; trials that a modelled value is made of
COMPARED = ((2, 200), (50, 200), (500, 200), (500, 600))  # workers and trials of a search
THREADS = 100  # logical workers of an actor
PUBLISHED = Path(__file__).parents[2] / "reports/published"
TABLE = PUBLISHED / "benchmark-scale.md"
STUDY = """
dataset = "mnist-5k"
[search]
n_trials = {trials}
sampler = "{sampler}"
pruner = "none"
[space]
depth = {{ low = 1, high = 4 }}
width = {{ low = 32, high = 1024, log = true }}
activation = ["relu", "tanh", "sigmoid", "gelu"]
optimizer = ["sgd", "adam"]
lr = {{ low = 1e-4, high = 1.0, log = true }}
epochs = {epochs}
"""
HPO, OPTUNA = "by hpo", "by Optuna"
COLUMNS = (
    "workers", "sampler", "trials stored before", "asked", "trials a second", "idle",
    "runner's CPU, share of a core", "CPU an event, ms",
)  # fmt: skip
HEAD = """\
# How many workers one runner keeps busy

Written by `python tests/benchmarks/scale.py` on {machine}. Trainings are replaced by sleeps: a
trial takes 30 s on average (lognormal, sigma 0.5) and reports 10 epochs. Runner, plan, loop, SQLite
storage, pictures for the dashboard and Ray's streams are real. {window:.0f} s of measurement after
{warm_up:.0f} s to warm up. Idle: the share of the workers' time in which they have no trial. CPU:
of the runner's process. Asked: TPE as hpo asks it, or as Optuna does, a fit for each trial, with
its own logarithm; both in this run.
"""
SHORT = f"""
## Trials of one second

{MANY:,} trials of one second and one epoch on {FEW} sleeping workers, sampler `random`, all else as
above. Ray Tune publishes 715 s for the same number of trials on 16 CPUs, on a machine of its own.
"""
SEARCHED = f"""
## Whether shared fits cost anything

From 100 running trials on, a fit of TPE gives a suggestion for each {samplers.RUNNING_EACH} that
run (500: 10). {SEARCHES} searches by hpo's TPE and by Optuna's, which fits for each, the same
seeds; no pruner. Best value of a search: validation accuracy in percent by a model of the published
search `search` (the mean of the {NEAREST} nearest of its trials); mean and 95% t interval, of the
differences seed by seed. Below 100 workers both are the same sampler.
"""
TAIL = """
## What bounds one runner

The runner is one Python process, so it has one core. What that core does: it
stores a trial (created, 10 epochs, 4 attributes, ended), it asks TPE, it reads Ray's messages, and
it draws pictures, for which it takes a tenth of its time at most. Trials that take ten times as
long allow ten times as many workers. Streaming does not bound: Ray takes under a millisecond a
message.

## What to change for more

- **Ten times more (5,000 workers).** Let an actor send its epochs once a second, and store what
  came in one transaction, on PostgreSQL. Ask in a process of its own that keeps some trials ahead.
- **A hundred times more (50,000 workers).** Several runners, each with its own part of the space or
  its own sampler seed, and a report over all of them. Pruning that needs no common history
  (asynchronous successive halving on each node). One actor a node that speaks for all its workers.
"""


@dataclass(frozen=True)
class Sleep:
    """How long a trial takes: mean seconds, sigma of the logarithm, and how often it reports."""

    mean: float = 30.0
    spread: float = 0.5
    epochs: int = 10

    def draw(self, rng: random.Random) -> float:
        return rng.lognormvariate(0, self.spread) / np.exp(self.spread**2 / 2) * self.mean


SECOND = Sleep(1.0, 0.0, 1)


class Sleeper:
    """An actor whose threads are logical workers: they sleep instead of training."""

    def __init__(self, sleep: Sleep) -> None:
        self.sleep = sleep
        self.lock = threading.Lock()
        self.busy = 0.0  # seconds of trials that have ended
        self.events = 0
        self.since: dict[int, float] = {}  # when the running trials began

    def ready(self) -> Ready:
        return Ready(device="cpu")

    def train(self, task: Task) -> Iterator[EpochDone | Done]:
        rng = random.Random(task.id)
        seconds, epochs = self.sleep.draw(rng), self.sleep.epochs
        value = rng.uniform(0.9, 0.98)
        with self.lock:
            self.since[task.id] = time.monotonic()
        for number in range(1, epochs + 1):
            time.sleep(seconds / epochs)
            figures = {"train_loss": [0.1], "train_accuracy": [value], "valid_loss": [0.1]}
            with self.lock:
                self.events += 1
            yield EpochDone(
                task=task.id, number=number, valid_accuracy=[value], seconds=0.1, **figures
            )
        with self.lock:
            self.busy += time.monotonic() - self.since.pop(task.id)
            self.events += 1
        yield Done(task=task.id)

    def stop(self, task: int) -> None:
        """Sleeps on."""

    def figures(self) -> tuple[float, int]:
        """Returns the seconds of trials so far, and the number of messages."""
        with self.lock:
            now = time.monotonic()
            return self.busy + sum(now - since for since in self.since.values()), self.events


class SleepingPool(RayPool):
    """A RayPool of logical workers. Measures from WARM_UP on, for WINDOW seconds."""

    def __init__(self, cluster: Cluster, sleep: Sleep, workers: int, *arguments: Any) -> None:
        super().__init__(cluster, workers, *arguments)
        actor: Any = self._ray.remote(Sleeper).options(num_cpus=0, max_concurrency=THREADS + 8)
        self.actors = [actor.remote(sleep) for _ in range(-(-workers // THREADS))]
        self.began = time.monotonic()
        self.marks: list[tuple[float, float, float, int]] = []

    def _new_place(self) -> _Slot:
        actor = self.actors[len(self._places) // THREADS]
        return _Slot(actor=actor, source=actor.ready.remote(), ready=False)

    def _welcome(self, slot: _Slot, ready: Ready) -> None:
        slot.ready, self.device = True, ready.device

    def wait(self, seconds: float) -> list[Any]:
        passed = time.monotonic() - self.began
        if len(self.marks) < 2 and passed > WARM_UP + len(self.marks) * WINDOW:
            figures = self._ray.get([actor.figures.remote() for actor in self.actors])
            used = resource.getrusage(resource.RUSAGE_SELF)
            busy, events = (sum(part) for part in zip(*figures, strict=True))
            self.marks.append((passed, used.ru_utime + used.ru_stime, busy, events))
        return super().wait(seconds)


def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300)
    images = rng.normal(size=(300, 12)).astype(np.float32)
    return Dataset(
        name="mnist-5k", train_images=images, train_labels=labels, test_images=images,
        test_labels=labels, stratified=False, checksum="",
    )  # fmt: skip


def fill(study: optuna.Study, space: Any, count: int) -> None:
    """Stores `count` COMPLETE trials of random configurations."""
    rng, twin = random.Random(1), optuna.create_study()
    for _ in range(count):
        twin.enqueue_trial(draw(space, rng))
        trial = twin.ask()
        suggest(trial, space)
        value = rng.uniform(0.8, 0.98)
        curve = {m: [value] for m in ("train_loss", "train_accuracy", "valid_loss")}
        attributes = {"curve": {**curve, "valid_accuracy": [value]}, "diverged": 0, "seed": 0}
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE, value=value, params=trial.params,
                distributions=trial.distributions, user_attrs=attributes,
            )
        )  # fmt: skip


def measure(
    cluster: Cluster, sampler: str, sleep: Sleep, stored: int = 0, trials: int = 10**6
) -> tuple[SleepingPool, float]:
    """Runs a search on sleeping workers, for the time of the marks at most unless its number of
    trials is given. Returns the pool, and the seconds of the run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.toml"
        path.write_text(STUDY.format(sampler=sampler, trials=trials, epochs=sleep.epochs))
        file = study_file.load(str(path))
        assert isinstance(file, study_file.SearchStudy)
        data, url = dataset(), f"sqlite:///{folder}/hpo.db"
        storage = retrying(open_storage(url), url, print)
        pools: list[SleepingPool] = []

        def make_pool(*arguments: Any) -> SleepingPool:
            pools.append(SleepingPool(cluster, sleep, *arguments))
            return pools[-1]

        run = Run(
            options=Options(study="scale", device="cpu"), file=file, name="scale", dataset=data,
            bound=binding(file, data), storage=storage, provenance={}, workers=cluster.workers or 1,
            watchers=[CurveArtifacts(storage, Path(folder) / "artifacts", print)],
            make_pool=make_pool,
        )  # fmt: skip
        study = open_study(run)
        fill(study, file.space, stored)
        limit = WARM_UP + WINDOW + 10 if trials == 10**6 else 10.0 * trials
        plan, began = SearchPlan(run, study), time.monotonic()
        train(run, plan, limit)
        return pools[0], time.monotonic() - began


@contextmanager
def as_optuna_asks() -> Iterator[None]:
    """Within it, TPE is Optuna's: a fit for each trial, and the logarithm by a Python loop."""
    before, single = _truncnorm._log_ndtr, np.frompyfunc(_truncnorm._log_ndtr_single, 1, 1)
    each, samplers.RUNNING_EACH = samplers.RUNNING_EACH, 10**9
    _truncnorm._log_ndtr = lambda a: single(a).astype(float)
    try:
        yield
    finally:
        _truncnorm._log_ndtr, samplers.RUNNING_EACH = before, each


def window(cluster: Cluster, sampler: str, stored: int, asked: str = "") -> str:
    """Returns a row of the first table."""
    sleep, workers = Sleep(), cluster.workers or 1
    with as_optuna_asks() if asked == OPTUNA else nullcontext():
        pool, _ = measure(cluster, sampler, sleep, stored)
    (t0, cpu0, busy0, events0), (t1, cpu1, busy1, events1) = pool.marks
    seconds, cpu, events = t1 - t0, cpu1 - cpu0, events1 - events0
    idle, trials = 1 - (busy1 - busy0) / (workers * seconds), events / (sleep.epochs + 1)
    return (
        f"| {workers} | {sampler} | {stored:,} | {asked} | {trials / seconds:.1f} "
        f"| {100 * idle:.1f}% | {100 * cpu / seconds:.0f}% | {1000 * cpu / events:.2f} |"
    )


# --- searches on a model -----------------------------------------------------------------------


class Model:
    """Validation accuracy in percent of any configuration: the mean of the NEAREST trials of the
    published search, each after its last epoch, with weights of one over the squared distance."""

    def __init__(self) -> None:
        file = study_file.load("search")
        assert isinstance(file, study_file.SearchStudy)
        self.space = {n: d for n, d in file.space.items() if not isinstance(d, Fixed)}
        curves = pd.read_csv(PUBLISHED / "search/curves.csv").groupby("number").last()
        trials = pd.read_csv(PUBLISHED / "search/trials.csv").set_index("number").loc[curves.index]
        self.places = np.array([self.place(row) for row in trials.to_dict("records")])
        self.values = 100 * curves["valid_accuracy"].to_numpy()

    def place(self, values: Mapping[str, Any]) -> np.ndarray:
        """Returns a configuration's place in a cube; each choice has an axis of its own."""
        axes: list[float] = []
        for name, domain in self.space.items():
            if isinstance(domain, Range):
                of = np.log if domain.log else float
                low, high, value = of(domain.low), of(domain.high), of(values[name])
                axes.append((value - low) / (high - low))
            elif isinstance(domain, Choices):
                axes += [float(values[name] == choice) / 2 for choice in domain.values]
        return np.array(axes)

    def value(self, values: Mapping[str, Any]) -> float:
        squares = ((self.places - self.place(values)) ** 2).sum(axis=1)
        near = np.argsort(squares)[:NEAREST]
        return float(np.average(self.values[near], weights=1 / (squares[near] + 1e-9)))


def best_of(ours: bool, workers: int, trials: int, seed: int) -> float:
    """Returns the best value of a search in which so many workers train at once."""
    quiet()
    model, rng = Model(), random.Random(seed)
    sampler = samplers.tpe(seed, {}) if ours else optuna.samplers.TPESampler(seed=seed)
    study, asked = optuna.create_study(direction="maximize", sampler=sampler), 0
    running: list[tuple[float, int, Any, float]] = []
    now = 0.0
    while asked < trials or running:
        if asked < trials and len(running) < workers:
            trial = study.ask()
            values = suggest(trial, model.space)
            end = now + Sleep().draw(rng)
            heapq.heappush(running, (end, asked, trial, model.value(values)))
            asked += 1
        else:
            now, _, trial, value = heapq.heappop(running)
            study.tell(trial, value)
    return study.best_value


def compared(workers: int, trials: int) -> str:
    """Returns a row of the table of searches."""
    with ProcessPoolExecutor(2) as pool:
        both = [
            np.array(list(pool.map(partial(best_of, ours, workers, trials), range(SEARCHES))))
            for ours in (True, False)
        ]
    cells = [estimate(values) for values in (*both, both[0] - both[1])]
    means = [f"{of.mean:.3f} ({of.low:.3f} to {of.high:.3f})" for of in cells]
    return f"| {workers} | {trials:,} | {' | '.join(means)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[500])
    parser.add_argument("--stored", type=int, nargs="*", default=[0, 5_000])
    parser.add_argument("--dry", action="store_true", help="do not write the page")
    options = parser.parse_args()
    quiet()
    hardware = provenance.collect("")["hardware"]
    machine = f"{hardware['processor']}, {hardware['cores']} cores"
    text = [HEAD.format(machine=machine, window=WINDOW, warm_up=WARM_UP)]

    def add(line: str) -> None:
        print(line, flush=True)
        text.append(line)

    def head(columns: tuple[str, ...]) -> None:
        add(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")

    asked = Options(study="scale", device="cpu", cpus_per_trial=0, workers=1)
    with connect(asked, dataset(), print) as started:

        def cluster(workers: int) -> Cluster:
            return Cluster(**{**vars(started), "workers": workers, "stored": {}})

        head(COLUMNS)
        for workers in options.workers:
            add(window(cluster(workers), "random", 0))
        for stored, how in product(options.stored, (OPTUNA, HPO)):
            add(window(cluster(max(options.workers)), "tpe", stored, how))
        add(SHORT)
        _, seconds = measure(cluster(FEW), "random", SECOND, trials=MANY)
        add(f"{MANY:,} trials took {seconds:.0f} s; {MANY / FEW:.0f} s is the least.")
    add(SEARCHED)
    head(("workers", "trials", "as hpo asks", "Optuna, one by one", "difference"))
    for workers, trials in COMPARED:
        add(compared(workers, trials))
    if not options.dry:
        TABLE.write_text("\n".join(text) + "\n" + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
