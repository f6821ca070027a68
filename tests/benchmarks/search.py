"""What a search costs beside its training, and how it compares with the usual pattern.

    HPO_DATA_DIR=… python tests/benchmarks/search.py           about 8 minutes on 2 cores
    HPO_DATA_DIR=… python tests/benchmarks/search.py --quick   fewer trials

Run it alone on the machine. Writes reports/published/benchmark-search.md.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from speed import plain_copy
from torch import nn
from torchvision import datasets, transforms

from hpo.data import datasets as data
from hpo.options import Options
from hpo.runs import runner
from hpo.runs.search import SearchPlan
from hpo.runs.study import Run, binding, open_study
from hpo.storage.open import open_storage, quiet
from hpo.study import file as study_file
from hpo.study.columns import METRICS
from hpo.study.config import Config
from hpo.study.names import ACTIVATIONS
from hpo.study.space import Fixed, Range, suggest
from hpo.watch.artifacts import CurveArtifacts
from hpo.workers import provenance, server

ROOT = Path(__file__).parent.parent.parent
WORKERS = 2


def shipped() -> study_file.SearchStudy:
    found = study_file.load("search")
    assert isinstance(found, study_file.SearchStudy)
    return found


def opened(
    folder: Path, search: study_file.SearchStudy, dataset: data.Dataset
) -> tuple[Run, optuna.Study]:
    storage = open_storage(f"sqlite:///{folder / 'hpo.db'}")
    run = Run(
        options=Options(study="search", device="cpu"),
        file=search,
        name="search",
        dataset=dataset,
        bound=binding(search, dataset),
        storage=storage,
        provenance=provenance.collect(""),
        workers=WORKERS,
        watchers=[CurveArtifacts(storage, folder / "hpo.artifacts", print)],
    )
    return run, open_study(run)


# --- asking with many trials stored --------------------------------------------------------------


def fill(storage: RDBStorage, study: optuna.Study, search: study_file.SearchStudy, n: int) -> None:
    """n trials as a search leaves them, a third complete and the others pruned."""
    rng, drawing = np.random.default_rng(0), optuna.create_study(direction="maximize")
    study_id = storage.get_study_id_from_name(study.study_name)
    for number in range(n):
        trial = drawing.ask()
        suggest(trial, search.space)
        epochs = 12 if number % 3 == 0 else 2
        curve = [float(v) for v in rng.uniform(0.9, 0.98, epochs)]
        storage.create_new_trial(study_id, stored_trial(trial.params, trial.distributions, curve))


def stored_trial(
    params: dict[str, object], distributions: dict[str, BaseDistribution], curve: list[float]
) -> FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE if len(curve) > 2 else TrialState.PRUNED,
        value=curve[-1],
        params=params,
        distributions=distributions,
        intermediate_values=dict(enumerate(curve, 1)),
        user_attrs={"seed": 0, "diverged": False, "curve": dict.fromkeys(METRICS, curve)},
    )


def asking_table(dataset: data.Dataset, counts: list[int]) -> list[str]:
    """Median milliseconds of what a worker that falls idle waits for, and the time to open."""
    lines = ["| trials stored (SQLite) | to open | to ask | to store the new trial |"]
    lines += ["| --- | --- | --- | --- |"]
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            search = shipped().model_copy(update={"n_trials": 10**6})
            run, study = opened(Path(scratch), search, dataset)
            fill(run.storage, study, search, count)
            start = time.perf_counter()
            plan = SearchPlan(run, study)
            opening = time.perf_counter() - start
            asks = [ask_seconds(plan) for _ in range(30)]
        parts = [
            f"{1000 * statistics.median(part):.0f} ms (most {1000 * max(part):.0f})"
            for part in zip(*asks, strict=True)
        ]
        lines.append(f"| {count} | {opening:.2f} s | {' | '.join(parts)} |")
    return lines


def asking_seconds(dataset: data.Dataset, count: int) -> list[float]:
    """The seconds of 10 asks in a study with so many trials."""
    with tempfile.TemporaryDirectory() as scratch:
        search = shipped().model_copy(update={"n_trials": 10**6})
        run, study = opened(Path(scratch), search, dataset)
        fill(run.storage, study, search, count)
        plan = SearchPlan(run, study)
        return [ask_seconds(plan)[0] for _ in range(10)]


def ask_seconds(plan: SearchPlan) -> tuple[float, float]:
    """To ask, and to store."""
    store, storing = plan._store, []

    def timed(*arguments):
        start = time.perf_counter()
        found = store(*arguments)
        storing.append(time.perf_counter() - start)
        return found

    plan._store = timed
    start = time.perf_counter()
    job = plan.next()
    seconds = time.perf_counter() - start
    plan._store = store
    assert job is not None
    plan.ended(job, TrialState.FAIL)
    plan.failures = 0  # it asks no more after too many in a row
    return seconds - storing[0], storing[0]


# --- what is not training ------------------------------------------------------------------------


def overhead_table(dataset: data.Dataset, n_trials: int) -> list[str]:
    """Trials of about 3 s each, none pruned: the share of the workers' time that is not training,
    between the first start and the last."""
    base = shipped()
    space = dict(base.space) | {
        "depth": Fixed(value=2),
        "width": Range(low=90, high=110),
        "epochs": Fixed(value=8),
        "lr": Range(low=1e-3, high=1e-2, log=True),
    }
    search = base.model_copy(update={"space": space, "pruner": "none"})
    with tempfile.TemporaryDirectory() as scratch:
        trials, cpu, wall = searched(Path(scratch), search, dataset, n_trials)
    seconds = [trial.user_attrs["train_seconds"] for trial in trials]
    ends = [trial.datetime_complete.timestamp() for trial in trials]
    begin = min(trial.datetime_start.timestamp() for trial in trials)
    end = max(trial.datetime_start.timestamp() for trial in trials)
    spans = [
        min(stop, end) - max(stop - took, begin) for stop, took in zip(ends, seconds, strict=True)
    ]
    busy = sum(max(span, 0.0) for span in spans) / (WORKERS * (end - begin))
    return [
        f"| {n_trials} trials, {WORKERS} workers, none pruned | value |",
        "| --- | --- |",
        f"| median trial | {statistics.median(seconds):.2f} s |",
        f"| **workers' time that is not training** | {100 * (1 - busy):.1f}% |",
        f"| CPU time of the runner, of the workers' time | {100 * cpu / (WORKERS * wall):.1f}% |",
    ]


def searched(
    folder: Path, search: study_file.SearchStudy, dataset: data.Dataset, n_trials: int
) -> tuple[list[FrozenTrial], float, float]:
    """The trials of a search without finalists, the runner's CPU seconds and its wall seconds."""
    run, study = opened(folder, search.model_copy(update={"n_trials": n_trials}), dataset)
    plan = SearchPlan(run, study)
    start, cpu = time.perf_counter(), time.process_time()
    runner.train(run, plan)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]), cpu, wall


# --- the usual pattern ---------------------------------------------------------------------------


def usual_objective(root: Path, configs: list[Config], batch: int, epochs: int):
    """As in most tutorials: DataLoader over torchvision in every trial, autograd, torch.optim."""
    optimizers = {
        "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr),
        "sgd_momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
        "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
        "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.0),
        "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr),
    }

    def objective(trial: optuna.Trial) -> float:
        config = configs[trial.number]
        transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
        )
        whole = datasets.MNIST(root=str(root), train=True, transform=transform)
        parts = torch.utils.data.random_split(whole, [48_000, 12_000])
        train = torch.utils.data.DataLoader(parts[0], batch_size=batch, shuffle=True)
        valid = torch.utils.data.DataLoader(parts[1], batch_size=batch)
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in in [784, *[config.width] * (config.depth - 1)]:
            layers += [
                nn.Linear(fan_in, config.width),
                getattr(nn, ACTIVATIONS[config.activation].module)(),
            ]
        model = nn.Sequential(*layers, nn.Linear(config.width, 10))
        optimizer = optimizers[config.optimizer](model.parameters(), config.lr)
        criterion = nn.CrossEntropyLoss()
        accuracy = 0.0
        for epoch in range(epochs):
            model.train()
            for images, labels in train:
                optimizer.zero_grad()
                criterion(model(images), labels).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                hits = [(model(x).argmax(1) == y).sum().item() for x, y in valid]
            accuracy = sum(hits) / 12_000
            trial.report(accuracy, epoch)
        return accuracy

    return objective


def pattern_table(folder: Path, dataset: data.Dataset, n_trials: int, epochs: int) -> list[str]:
    """Both sides train the same configurations, drawn at random from the shipped space."""
    base = shipped()
    space = dict(base.space) | {
        "epochs": Fixed(value=epochs),
        "schedule": Fixed(value="constant"),  # the usual pattern has none, and no smoothing
        "label_smoothing": Fixed(value=0.0),
    }
    search = base.model_copy(update={"space": space, "sampler": "random", "pruner": "none"})
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        trials, _, _ = searched(Path(scratch), search, dataset, n_trials)
        ours = time.perf_counter() - start
        batch = int(space["batch_size"].value)
        configs = [Config(**trial.params, batch_size=batch, epochs=epochs) for trial in trials]
        root = Path(scratch)
        plain_copy(folder, root)
        torch.set_num_threads(os.cpu_count() or 1)
        study = optuna.create_study(
            direction="maximize",
            storage=f"sqlite:///{root / 'usual.db'}",
            pruner=optuna.pruners.NopPruner(),
        )
        start = time.perf_counter()
        study.optimize(usual_objective(root, configs, batch, epochs), n_trials=len(configs))
        usual = time.perf_counter() - start
    count = len(configs)
    return [
        f"| {count} configurations of the space, {epochs} epochs each | trials a minute |",
        "| --- | --- |",
        f"| usual pattern, {os.cpu_count()} threads | {60 * count / usual:.1f} |",
        f"| hpo, {WORKERS} workers, start-up included | {60 * count / ours:.1f} |",
        f"| **times faster** | {usual / ours:.1f} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    short = parser.parse_args().quick
    server.preload()
    quiet()
    folder = Path(os.environ.get("HPO_DATA_DIR") or data.default_dir())
    dataset = data.load("mnist", folder)
    facts = provenance.collect("")
    machine = f"{facts['hardware']['processor']}, {facts['hardware']['cores']} cores"
    parts = [
        asking_table(dataset, [0, 100] if short else [0, 100, 1000]),
        overhead_table(dataset, 10 if short else 40),
        pattern_table(folder, dataset, 4 if short else 24, 1 if short else 2),
    ]
    head = f"By `python tests/benchmarks/search.py` on {machine}; Python "
    head += f"{platform.python_version()}, torch {torch.__version__}, optuna {optuna.__version__}."
    body = "\n\n".join("\n".join(part) for part in parts)
    text = f"# Benchmark of the search\n\n{head}\n\n{body}\n"
    (ROOT / "reports/published/benchmark-search.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
