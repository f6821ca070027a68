"""Thousands of trials: what they cost in memory, in time to start, to report and to show."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from statistics import median

import pytest
from scenes import HPO, ended

TRIALS, EARLY = 5000, 500
TINY = """
[base]
depth = 1
width = 4
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 1
batch_size = 256
"""
SEARCH = """
title = "Many"
dataset = "mnist-5k"
[search]
n_trials = {trials}
sampler = "{sampler}"
pruner = "none"
[finalists]
k = 2
seeds = 2
[space]
depth = 1
width = {{ low = 2, high = 16 }}
activation = ["relu", "tanh"]
optimizer = ["sgd", "adam"]
lr = {{ low = 1e-3, high = 1.0, log = true }}
batch_size = 256
epochs = 1
"""


def grid(cells: int) -> str:
    named = "".join(f'[[cells]]\nname = "c{i}"\nlr = {1e-3 + i * 1e-4:.5f}\n' for i in range(cells))
    return f'title = "Many"\ndataset = "mnist-5k"\nseeds = 5\n{TINY}{named}'


def study(kind: str, trials: int) -> str:
    return grid(trials // 5) if kind == "grid" else SEARCH.format(trials=trials, sampler=kind)


@pytest.mark.parametrize("kind", ["grid", "random"])
def test_thousands_of_trials_cost_no_more_each_than_hundreds(full, kind, stage, tmp_path, tally):
    scene = stage(study(kind, TRIALS))
    watch = [sys.executable, Path(__file__).with_name("watched_run.py"), "starts.json"]
    process = subprocess.Popen(
        [*watch, "study.toml", "--quiet"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    scene.processes.append(process)
    output = ended(process, 1800)
    assert process.returncode == 0, output[-2000:]
    assert scene.finished() == TRIALS
    weigh(kind, tmp_path, tally)


def weigh(kind: str, folder: Path, tally: Callable[..., None]) -> None:
    """What a run left in its folder, against what is promised."""
    starts = json.loads((folder / "starts.json").read_text())
    counts = list(accumulate(count for count, _, _ in starts))
    trials, early = counts[-1], next(i for i, count in enumerate(counts) if count >= EARLY)
    memory = starts[early][2], starts[-1][2]
    assert memory[1] - memory[0] < 40, memory
    first, later = (median(s[1] for s in part) for part in (starts[:100], starts[-100:]))
    assert later < 1.5 * first, (first, later)
    report, shown = seconds("report", folder), min(seconds("show", folder) for _ in range(3))
    assert report < 60
    assert shown < 3
    size = (folder / "reports/study/index.html").stat().st_size / 2**20
    tally(
        "8.1" if kind == "grid" else "8.2",
        f"a {'grid' if kind == 'grid' else 'random search'} of {trials:,} trials, SQLite",
        trials,
        f"runner {memory[0]:.0f} MiB after {EARLY} trials, {memory[1]:.0f} at the end; "
        f"{1000 * first:.1f} ms to start one of the first hundred, {1000 * later:.1f} of the last; "
        f"report in {report:.0f} s ({size:.1f} MiB), show in {shown:.1f} s",
    )


def seconds(command: str, folder: Path) -> float:
    started = time.monotonic()
    subprocess.run([*HPO, command, "study"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started
