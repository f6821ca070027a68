"""How many workers one runner keeps busy: trainings are replaced by sleeps, the rest is real.

    python tests/benchmarks/scale.py           about 15 minutes

Runner, plan, loop, SQLite storage, pictures and Ray's streams are those of `hpo run --pool ray`. A
logical worker is a thread of one of a few actors, so that 500 of them fit on this machine. A trial
takes a lognormal time with a mean of 30 s and reports 10 epochs. Writes
reports/published/benchmark-scale.md.
"""

import argparse
import random
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from hpo.data.datasets import Dataset
from hpo.options import Options
from hpo.runs.runner import train
from hpo.runs.search import SearchPlan
from hpo.runs.study import Run, binding, open_study
from hpo.storage.open import open_storage, quiet
from hpo.storage.retry import retrying
from hpo.study import file as study_file
from hpo.study.space import draw, suggest
from hpo.watch.artifacts import CurveArtifacts
from hpo.workers import provenance
from hpo.workers.messages import Done, EpochDone, Ready, Task
from hpo.workers.ray_cluster import Cluster, RayPool, _Slot, connect

MEAN, SPREAD, EPOCHS = 30.0, 0.5, 10  # seconds, sigma of the logarithm, reports of a trial
WARM_UP, WINDOW = 40.0, 60.0  # seconds
THREADS = 100  # logical workers of an actor
TABLE = Path(__file__).parents[2] / "reports/published/benchmark-scale.md"
STUDY = """
dataset = "mnist-5k"
[search]
n_trials = 1000000
sampler = "{sampler}"
pruner = "none"
[space]
depth = {{ low = 1, high = 4 }}
width = {{ low = 32, high = 1024, log = true }}
activation = ["relu", "tanh", "sigmoid", "gelu"]
optimizer = ["sgd", "adam"]
lr = {{ low = 1e-4, high = 1.0, log = true }}
epochs = 10
"""
COLUMNS = (
    "workers", "sampler", "trials stored before", "trials a second", "idle",
    "runner's CPU, share of a core", "CPU an event, ms",
)  # fmt: skip
HEAD = """\
# How many workers one runner keeps busy

Written by `python tests/benchmarks/scale.py` on {machine}. Trainings are replaced by sleeps: a
trial takes 30 s on average (lognormal, sigma 0.5) and reports 10 epochs. Runner, plan, loop, SQLite
storage, pictures for the dashboard and Ray's streams are real. {window:.0f} s of measurement after
{warm_up:.0f} s to warm up. Idle: the share of the workers' time in which they have no trial. CPU:
of the runner's process.
"""
TAIL = """
## What bounds one runner

The runner is one Python process, so it has one core. Milliseconds of that core for each trial, from
the table and from a loop of writes alone (2 cores of an AMD EPYC, SQLite):

| work | ms a trial | grows with |
| --- | --- | --- |
| asking TPE | 34, 54 and 80 with 0, 1,000 and 5,000 trials stored at the start | trials |
| storing: created, 10 epochs, 4 attributes, ended | 10 | epochs |
| pictures | 25 each, at most 4 a second | - |
| all else: Ray's messages, the random sampler, the loop | about 25 | epochs |

So a runner with the random sampler keeps about 700 workers busy at 30 s a trial, and one with TPE
about 400 (0 trials stored), 320 (1,000) and 250 (5,000). Trials that take ten times as long allow
ten times as many workers. Streaming does not bound: Ray takes under a millisecond a message.

## What to change for more

- **Ten times more (5,000 workers).** Ask for many trials at once, in a process of its own that
  keeps some ahead. Let an actor send its epochs once a second, and store what came in one
  transaction, on PostgreSQL. Draw no pictures.
- **A hundred times more (50,000 workers).** Several runners, each with its own part of the space or
  its own sampler seed, and a report over all of them. Pruning that needs no common history
  (asynchronous successive halving on each node). One actor a node that speaks for all its workers.
"""


class Sleeper:
    """An actor whose threads are logical workers: they sleep instead of training."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.busy = 0.0  # seconds of trials that have ended
        self.events = 0
        self.since: dict[int, float] = {}  # when the running trials began

    def ready(self) -> Ready:
        return Ready(device="cpu")

    def train(self, task: Task) -> Iterator[EpochDone | Done]:
        rng = random.Random(task.id)
        seconds = rng.lognormvariate(0, SPREAD) / np.exp(SPREAD**2 / 2) * MEAN
        value = rng.uniform(0.9, 0.98)
        with self.lock:
            self.since[task.id] = time.monotonic()
        for number in range(1, EPOCHS + 1):
            time.sleep(seconds / EPOCHS)
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

    def __init__(self, cluster: Cluster, workers: int, *arguments: Any) -> None:
        super().__init__(cluster, workers, *arguments)
        actor: Any = self._ray.remote(Sleeper).options(num_cpus=0, max_concurrency=THREADS + 8)
        self.actors = [actor.remote() for _ in range(-(-workers // THREADS))]
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


def measure(cluster: Cluster, workers: int, sampler: str, stored: int) -> str:
    """Returns a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.toml"
        path.write_text(STUDY.format(sampler=sampler))
        file = study_file.load(str(path))
        assert isinstance(file, study_file.SearchStudy)
        data, url = dataset(), f"sqlite:///{folder}/hpo.db"
        storage = retrying(open_storage(url), url, print)
        pools: list[SleepingPool] = []

        def make_pool(*arguments: Any) -> SleepingPool:
            pools.append(SleepingPool(cluster, *arguments))
            return pools[-1]

        run = Run(
            options=Options(study="scale", device="cpu"), file=file, name="scale", dataset=data,
            bound=binding(file, data), storage=storage, provenance={}, workers=workers,
            watchers=[CurveArtifacts(storage, Path(folder) / "artifacts", print)],
            make_pool=make_pool,
        )  # fmt: skip
        study = open_study(run)
        fill(study, file.space, stored)
        train(run, SearchPlan(run, study), WARM_UP + WINDOW + 10)
        [pool] = pools
        (t0, cpu0, busy0, events0), (t1, cpu1, busy1, events1) = pool.marks
        seconds, cpu, events = t1 - t0, cpu1 - cpu0, events1 - events0
        idle = 1 - (busy1 - busy0) / (workers * seconds)
        trials = events / (EPOCHS + 1) / seconds
    return (
        f"| {workers} | {sampler} | {stored:,} | {trials:.1f} | {100 * idle:.1f}% "
        f"| {100 * cpu / seconds:.0f}% | {1000 * cpu / events:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[2, 10, 50, 200, 500])
    parser.add_argument("--stored", type=int, nargs="*", default=[0, 1_000, 5_000])
    parser.add_argument("--dry", action="store_true", help="do not write the table")
    options = parser.parse_args()
    quiet()
    hardware = provenance.collect("")["hardware"]
    machine = f"{hardware['processor']}, {hardware['cores']} cores"
    text = HEAD.format(machine=machine, window=WINDOW, warm_up=WARM_UP)
    text += f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"
    runs = [(workers, "random", 0) for workers in options.workers]
    runs += [(max(options.workers), "tpe", stored) for stored in options.stored]
    asked = Options(study="scale", device="cpu", cpus_per_trial=0, workers=1)
    with connect(asked, dataset(), print) as cluster:
        for workers, sampler, stored in runs:
            row = measure(
                Cluster(**{**vars(cluster), "workers": workers, "stored": {}}),
                workers,
                sampler,
                stored,
            )
            print(row, flush=True)
            text += row + "\n"
    if not options.dry:
        TABLE.write_text(text + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
