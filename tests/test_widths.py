"""Random studies in terminals of 60 and 80 columns: nothing that the terminal shows is cut."""

import io
from collections import Counter
from collections.abc import Iterable
from functools import cache
from random import Random
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState, create_trial
from rich.console import Console, RenderableType
from test_regression import cars, read
from tiny import tiny_dataset

from hpo import output
from hpo.data.datasets import Dataset
from hpo.options import Options
from hpo.results.load import load_study
from hpo.results.study import StoredGrid, StoredSearch
from hpo.runs.progress import Progress
from hpo.runs.samplers import cell_distributions, distributions
from hpo.runs.study import Run, binding, open_study
from hpo.study import finalists
from hpo.study.columns import METRICS
from hpo.study.config import DEFAULTS, Config
from hpo.study.file import GridStudy, SearchStudy, parse
from hpo.study.space import draw
from hpo.watch import listing
from hpo.watch import progress as watching
from hpo.watch.progress import render
from hpo.watch.terminal import comparison, terminal

WIDTHS = (60, 80)
WIDE = 2000
SESSION = {"started": 0.0, "workers": 2, "device": "cpu", "command": "", "versions": {}}
SESSION |= {"hardware": {"processor": "", "cores": 2, "memory_gib": 8.0}, "git_commit": None}
SPACE = {
    "depth": {"low": 1, "high": 4},
    "width": {"low": 8, "high": 2048, "log": True},
    "activation": ["relu", "leaky_relu", "gelu"],
    "optimizer": ["sgd_momentum", "rmsprop", "adam"],
    "lr": {"low": 1e-5, "high": 1.0, "log": True},
    "epochs": 3,
}


def shown(parts: Iterable[RenderableType], width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a terminal of this width shows."""
    out = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr(output, "console", lambda: out)
    output.print_parts(parts)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def check_whole(parts: Iterable[RenderableType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word of a wide terminal stands in a narrow one; but for the bar, and for paths."""
    kept = list(parts)
    wide = words(shown(kept, WIDE, monkeypatch))
    for width in WIDTHS:
        text = shown(kept, width, monkeypatch)
        assert not wide - words(text), text
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width, text


def words(text: str) -> Counter[str]:
    return Counter(word.rstrip(":;,") for word in text.split() if not set(word) <= set("━╸╺"))


# --- random studies ----------------------------------------------------------------------------


@cache
def datasets() -> dict[bool, Dataset]:
    """One of classes, and one with a number to predict."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return {False: tiny_dataset(), True: read(cars(), Path(folder))}


def name(random: Random, most: int = 30) -> str:
    return "n" + "".join(random.choice("abwm-_") for _ in range(random.randint(0, most - 1)))


def opened(storage: BaseStorage, file: Any, data: Dataset, **bound: str) -> optuna.Study:
    """The study as a run opens it."""
    run = Run(
        options=Options(study="x"),
        file=file,
        name=file.name,
        dataset=data,
        bound={**binding(file, data), **bound},
        storage=storage,
        provenance={},
        workers=1,
    )
    study = open_study(run)
    seconds = 10 ** Random(file.name).uniform(-1, 5)
    study.set_user_attr("sessions", [{**SESSION, "seconds": seconds}])
    return study


def add(random: Random, study: optuna.Study, values: dict, ranges: dict, **more: Any) -> None:
    """A trial with random results, which may have failed, be pruned or be diverged."""
    scores = {m: 10 ** random.uniform(-4, 3) if "loss" in m else random.random() for m in METRICS}
    objective = study.user_attrs["study_file"].get("objective", "valid_accuracy")
    regression = "target" in study.user_attrs["data"]
    if regression:
        objective = "valid_rmse"
        scores |= {f"valid_{metric}": random.random() for metric in ("rmse", "mae", "r2")}
    state = random.choice([TrialState.COMPLETE] * 4 + [TrialState.PRUNED, TrialState.FAIL])
    if "cell" in more and state is TrialState.PRUNED:
        state = TrialState.COMPLETE
    number = random.choice([1, 20, 10**6])
    tested = ("rmse", "mae", "r2") if regression else ("accuracy", "loss")
    attributes = {
        "curve": {metric: [value] for metric, value in scores.items()},
        "seed": 0,
        "diverged": int(state is TrialState.PRUNED and random.random() < 0.5),
        "train_seconds": 10 ** random.uniform(-1, 4),
        "parameters": number,
        **{f"test_{metric}": random.random() for metric in tested},
        **more,
    }
    kept = study.user_attrs["study_file"].get("search", {}).get("objectives", [])
    costs = [float(number)] * (len(kept) == 2)
    study.add_trial(
        create_trial(
            state=state,
            values=None if state is TrialState.FAIL else [scores[objective], *costs],
            params={key: values[key] for key in ranges if key in values},
            distributions={key: ranges[key] for key in ranges if key in values},
            user_attrs=attributes,
        )
    )


def grid(random: Random, storage: BaseStorage, study_name: str, cells: list[str]) -> StoredGrid:
    configs = [
        {
            "depth": random.randint(1, 9), "width": random.choice([8, 1024]), "lr": 0.001,
            "activation": "leaky_relu", "optimizer": "sgd_momentum", "epochs": 1,
        }
        for _ in cells
    ]  # fmt: skip
    raw: dict[str, Any] = {
        "title": "x",
        "dataset": "mnist-5k",
        "seeds": 2,
        "cells": [{"name": n, **c} for n, c in zip(cells, configs, strict=True)],
        "claims": [
            {"says": " ".join(name(random) for _ in range(9)), "greater": [cells[0], cells[1]]}
        ],
    }
    if random.random() < 0.5:
        raw["cells"][0]["reported"] = [{"label": "r", "test_accuracy": 0.9, "test_loss": 0.1}]
    fill(random, storage, parse(raw, study_name, "x"), datasets()[False])
    found = load_study(storage, study_name)
    assert isinstance(found, StoredGrid)
    return found


def fill(random: Random, storage: BaseStorage, file: Any, data: Dataset, **bound: str) -> None:
    """Stores a grid with trials."""
    assert isinstance(file, GridStudy)
    study = opened(storage, file, data, **bound)
    study.set_user_attr("seeds", 3)
    ranges = cell_distributions([cell.config for cell in file.cells])
    for cell in file.cells:
        for seed in range(1, 3):
            values = {**DEFAULTS, **cell.config.as_dict()}
            add(random, study, values, ranges, cell=cell.name, seed=seed)


def search(random: Random, storage: BaseStorage, study_name: str) -> StoredSearch:
    """With its finalists."""
    kind = random.choice(["accuracy", "loss", "parameters", "regression"])
    raw: dict[str, Any] = {
        "title": "x",
        "dataset": "mnist-5k",
        "search": {"n_trials": 6},
        "finalists": {"k": 3, "seeds": 2},
        "space": SPACE,
    }
    if kind == "parameters":
        raw["search"] |= {"objectives": ["valid_accuracy", "parameters"], "pruner": "none"}
    elif kind == "loss":
        raw["objective"] = "valid_loss"
    data = datasets()[kind == "regression"]
    file = parse(raw, study_name, "x").on(data.schema.classes, data.schema.deviation)
    assert isinstance(file, SearchStudy)
    study = opened(storage, file, data)
    study.set_user_attr("n_trials", random.choice([5, 10**5]))
    for _ in range(random.randint(1, 6)):
        values = draw(file.space, random)
        add(random, study, values, distributions(file.space))
    best = [t for t in study.trials if t.state is TrialState.COMPLETE][:3]
    if best and random.random() < 0.8:
        chosen = finalists.grid_of(best, file)
        fill(random, storage, chosen, data, search=study.user_attrs["token"])
    found = load_study(storage, study_name)
    assert isinstance(found, StoredSearch)
    return found


RANDOM = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],  # a smaller study says no more
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
RANDOMS = st.randoms(use_true_random=False)


@RANDOM
@given(RANDOMS)
def test_what_show_and_list_print_of_a_search_is_not_cut(monkeypatch, random: Random):
    storage = InMemoryStorage()
    found = search(random, storage, name(random))
    parts = [found, *([found.tested] if found.tested else [])]
    check_whole(watching.views(found, here=False), monkeypatch)
    for part in parts:
        check_whole(terminal(part), monkeypatch)
    check_whole([listing.stored_studies(storage, lambda _: random.random() < 0.5)], monkeypatch)


@RANDOM
@given(RANDOMS)
def test_what_show_and_compare_print_of_grids_is_not_cut(monkeypatch, random: Random):
    storage = InMemoryStorage()
    cells = [f"{name(random)}{place}" for place in range(random.randint(2, 4))]
    one, two = (grid(random, storage, f"{name(random)}{n}", cells) for n in (1, 2))
    check_whole(watching.views(one, here=False), monkeypatch)
    check_whole(terminal(one), monkeypatch)
    check_whole(comparison(one, two), monkeypatch)
    check_whole([listing.stored_studies(storage, lambda _: True)], monkeypatch)


@RANDOM
@given(RANDOMS)
def test_what_a_run_shows_of_its_progress_is_not_cut(monkeypatch, random: Random):
    config = Config(
        depth=random.randint(1, 9), width=random.randint(1, 4096), activation="leaky_relu",
        optimizer="sgd_momentum", lr=10 ** random.uniform(-5, 1),
    )  # fmt: skip
    tasks = [f"trial {n} ({config.brief}), epoch {n}/100000" for n in range(random.randint(0, 40))]
    progress = Progress(
        title=f"{name(random)}.finalists",
        total=random.choice([0, 7, 10**6]),
        done=random.randint(0, 7),
        pruned=random.randint(0, 10**6),
        failed=random.randint(0, 10),
        workers=tasks,
        waiting=random.choice(["", "waiting for nodes: 2 of 4 are there"]),
        started=0.0,
        seconds=10 ** random.uniform(0, 6),
    )
    progress.take_best(tasks[0] if tasks else "reference seed 2", random.random(), "parameters 9")
    check_whole([render(progress)], monkeypatch)
