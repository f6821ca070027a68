"""Whole runs: trained, stored, watched, stopped, killed, resumed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from itertools import count
from pathlib import Path

import optuna
import pytest
from in_process import markdown, opened, prepared
from scenes import alive, children, wait_for
from tiny import tiny_dataset

from hpo.errors import InputError
from hpo.results import trial as record
from hpo.results.load import load_study
from hpo.results.study import StoredGrid, seconds_of
from hpo.runs import loop, plan, runner
from hpo.runs.plan import Watcher
from hpo.storage.open import open_storage
from hpo.study import file as study_file
from hpo.study.config import Config
from hpo.workers.pool import LocalPool

HPO = [sys.executable, "-m", "hpo.cli"]
QUICK = """
title = "Quick"
dataset = "mnist-5k"
seeds = 3
[base]
depth = 1
width = 16
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 2
[[cells]]
name = "narrow"
[[cells]]
name = "wide"
width = 80
[[cells]]
name = "hot"
lr = 1e6
"""
# About 4 s on one core: long enough to be stopped and killed in the middle.
LONG = QUICK.replace("epochs = 2", "epochs = 16").replace("width = 80", "width = 300")


@pytest.fixture
def quick(tmp_path: Path) -> study_file.GridStudy:
    return written(tmp_path, QUICK)


def written(folder: Path, text: str) -> study_file.GridStudy:
    (folder / "quick.toml").write_text(text)
    loaded = study_file.load(str(folder / "quick.toml"))
    assert isinstance(loaded, study_file.GridStudy)
    return loaded


def run(file: study_file.GridStudy, folder: Path, **changes) -> StoredGrid:
    """Runs a grid on the tiny dataset, without worker processes unless `make_pool` is given, and
    reads it back."""
    storage, dataset = opened(folder), changes.pop("dataset", None) or tiny_dataset()
    run = prepared(file, storage, dataset, **{"name": "quick", **changes})
    runner.run_grid(run)
    return load_study(storage, run.name)


def states(study: StoredGrid) -> dict[str, int]:
    return dict(Counter(study.trials["state"]))


def completed(study: StoredGrid) -> Counter:
    finished = study.finished
    return Counter(zip(finished["cell"], finished["seed"].astype(int), strict=True))


def test_a_grid_trains_every_cell_with_every_seed(quick, tmp_path):
    study = run(quick, tmp_path, make_pool=LocalPool)
    cells = [cell.name for cell in quick.cells]
    assert completed(study) == Counter({(cell, seed): 1 for cell in cells for seed in range(3)})
    assert states(study) == {"COMPLETE": 9}
    assert len(study.curves) == 9 * 2
    assert study.finished["test_accuracy"].between(0, 1).all()
    assert (study.finished["train_seconds"] > 0).all()


def test_a_replay_on_fresh_seeds_begins_at_the_first_seed(quick, tmp_path):
    replay = written(tmp_path, QUICK.replace("seeds = 3", "seeds = { first = 100, start = 2 }"))
    study = run(replay, tmp_path, name="replay")
    names = [cell.name for cell in quick.cells]
    assert completed(study) == Counter({(n, seed): 1 for n in names for seed in (100, 101)})
    assert (study.file.first, study.seeds, study.planned_seeds) == (100, 2, 2)
    assert "The seeds count from 100 on." in markdown(study, tmp_path)
    more = run(replay, tmp_path, name="replay", seeds=3)
    assert sorted(set(completed(more)) - set(completed(study))) == [(n, 102) for n in sorted(names)]


def test_the_first_seed_is_bound_and_older_studies_have_0(quick, tmp_path):
    study = run(quick, tmp_path, seeds=1)
    stored = optuna.load_study(study_name="quick", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    assert "first seed" not in stored.user_attrs["binding"], "as studies of earlier versions"
    assert study.file.first == 0
    other = written(tmp_path, QUICK.replace("seeds = 3", "seeds = { first = 100, start = 3 }"))
    with pytest.raises(InputError) as refused:
        run(other, tmp_path, seeds=1)
    assert "'quick': first seed: stored with 0, now 100; give --name" in str(refused.value)
    assert "--fresh" in str(refused.value)
    assert run(other, tmp_path, name="other", seeds=1).file.first == 100
    with pytest.raises(InputError, match="first seed: stored with 100, now 0; give --name"):
        run(quick, tmp_path, name="other", seeds=1)


def test_the_first_seed_of_the_command_replaces_the_files(hpo, tmp_path):
    one = QUICK[: QUICK.rindex("[[cells]]")].replace("seeds = 3", "seeds = { first = 7 }")
    (tmp_path / "quick.toml").write_text(one)
    answer = hpo("run", "quick.toml", "--first-seed", "100", "--seeds", "2", "--quiet")
    assert answer.code == 0, answer.err
    study = load_study(opened(tmp_path), "quick")
    assert set(study.finished["seed"]) == {100, 101}
    assert (study.file.first, study.planned_seeds) == (100, 1)
    assert "first seed: stored with 100, now 7" in hpo("run", "quick.toml").err
    assert hpo("run", "search", "--first-seed", "3").err == (
        "hpo: --first-seed: study 'search' is a search, which has no such option\n"
    )


def test_every_epoch_is_an_intermediate_value_and_the_last_is_the_trials_value(quick, tmp_path):
    run(quick, tmp_path)
    seen = optuna.load_study(study_name="quick", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    for trial in seen.trials:
        assert list(trial.intermediate_values) == [1, 2]
        assert trial.value == trial.intermediate_values[2]
        assert trial.intermediate_values[1] == trial.system_attrs["curve"]["valid_accuracy"][0]


def test_the_last_training_gets_the_cores_of_idle_workers(tmp_path, monkeypatch):
    text = (
        'dataset = "mnist-5k"\n[base]\ndepth = 1\nactivation = "relu"\noptimizer = "sgd"\n'
        "lr = 0.1\nepochs = 3\n[[cells]]\nname = 'one'\nwidth = 256\n"
    )
    given: list[int] = []
    send = LocalPool._set_cores

    def spied(self, worker, count):
        given.append(count)
        send(self, worker, count)

    monkeypatch.setattr(LocalPool, "_set_cores", spied)
    run(written(tmp_path, text), tmp_path, seeds=1, workers=3, make_pool=LocalPool)
    assert max(given) == 3
    given.clear()
    run(written(tmp_path, text), tmp_path, seeds=2, workers=1, make_pool=LocalPool)
    assert max(given) == 1


def test_curves_do_not_depend_on_the_number_of_workers(quick, tmp_path):
    texts = []
    for workers in (1, 2, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        texts.append(run(quick, folder, workers=workers, make_pool=LocalPool).curves.to_csv())
    assert texts[0] == texts[1] == texts[2]


def test_a_resumed_grid_gives_what_an_uninterrupted_one_gives(quick, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = run(quick, tmp_path / "whole", seeds=3)
    run(quick, tmp_path / "parts", seeds=1)
    run(quick, tmp_path / "parts", seeds=2)
    parts = run(quick, tmp_path / "parts", seeds=3)
    key = ["cell", "seed", "epoch"]
    values = [*key, *record.METRICS]
    assert states(parts) == {"COMPLETE": 9}
    assert whole.curves.sort_values(key)[values].to_csv(index=False) == parts.curves.sort_values(
        key
    )[values].to_csv(index=False)


def test_a_finished_grid_runs_nothing(quick, tmp_path):
    first = run(quick, tmp_path)
    second = run(quick, tmp_path)
    assert len(second.trials) == len(first.trials)
    assert len(second.sessions) == len(first.sessions) == 1


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_does_not_change_how_long_a_run_took(
    quick, tmp_path, monkeypatch, hours
):
    calls, real = count(), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours * next(calls))
    [session] = run(quick, tmp_path, seeds=1).sessions
    assert 0 < session["seconds"] < 60


def test_the_seconds_of_a_killed_run_are_counted(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "COUNT_SECONDS", 0.0)
    seen = []

    class Killed(Watcher):
        def on_start(self, study, progress):
            self.study = study

        def on_tick(self):
            seen.append(self.study.user_attrs["sessions"])

    run(quick, tmp_path, seeds=2, watchers=[Killed()])
    assert 0 < seconds_of(seen[1]) < seconds_of(seen[-1]) < 60
    assert seconds_of([{"seconds": -3592.0}, {"seconds": 5.0}, {}]) == 5.0


def test_times_of_trials_have_their_offset_from_utc(quick, tmp_path):
    study = run(quick, tmp_path, seeds=1)
    for column, attribute in (("started", "datetime_start"), ("ended", "datetime_complete")):
        for text, trial in zip(study.trials[column], study.frozen, strict=True):
            stored = datetime.fromisoformat(text)
            assert stored.utcoffset() is not None
            assert stored.timestamp() == getattr(trial, attribute).timestamp()


def test_a_diverged_run_is_complete_and_marked(quick, tmp_path):
    study = run(quick, tmp_path)
    hot = study.finished[study.finished["cell"] == "hot"]
    assert hot["diverged"].all()
    assert not study.finished[study.finished["cell"] == "narrow"]["diverged"].any()


def test_an_interrupted_trial_is_failed_and_run_again_on_resume(quick, tmp_path):
    run(quick, tmp_path, seeds=1)
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    seen = optuna.load_study(study_name="quick", storage=url)
    seen.ask().set_user_attr("cell", "narrow")  # what a killed run leaves behind
    study = run(quick, tmp_path, seeds=2)
    assert states(study) == {"COMPLETE": 6, "FAIL": 1}
    assert set(completed(study).values()) == {1}


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("lr = 0.1", "lr = 0.2", ["cells.narrow.lr", "0.1", "0.2"]),
        ('name = "wide"', 'name = "wider"', ["cells.wider.width", "nothing"]),
    ],
)
def test_a_changed_study_file_is_refused_by_name_of_the_change(
    quick, tmp_path, before, after, named
):
    run(quick, tmp_path, seeds=1)
    with pytest.raises(InputError) as caught:
        run(written(tmp_path, QUICK.replace(before, after)), tmp_path, seeds=1)
    assert all(text in str(caught.value) for text in [*named, "--name", "--fresh"])


def test_another_dataset_is_refused(quick, tmp_path):
    run(quick, tmp_path, seeds=1)
    with pytest.raises(InputError, match="dataset checksum"):
        run(quick, tmp_path, seeds=1, dataset=tiny_dataset(seed=1))


def test_a_study_of_somebody_else_is_left_alone(quick, tmp_path):
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    theirs = optuna.create_study(study_name="quick", storage=url)
    theirs.ask()
    with pytest.raises(InputError, match="not made by hpo"):
        run(quick, tmp_path)
    assert [t.state.name for t in theirs.trials] == ["RUNNING"]


def test_a_device_that_is_not_there_costs_no_stored_trial(quick, tmp_path, hpo):
    (tmp_path / "hpo.db").unlink(missing_ok=True)
    study = run(quick, tmp_path, seeds=1)
    answer = hpo("run", "quick.toml", "--fresh", "--yes", "--device", "mps")
    assert answer.code == 2
    assert answer.err.startswith("hpo: --device: device 'mps': not usable here; this machine")
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    assert len(load_study(storage, "quick").trials) == len(study.trials) == 3


def test_a_timeout_starts_nothing_more_and_stops_what_runs(tmp_path):
    started = time.monotonic()
    endless = QUICK.replace("epochs = 2", "epochs = 9000")
    study = run(written(tmp_path, endless), tmp_path, timeout=1.0, make_pool=LocalPool)
    assert time.monotonic() - started < 20
    assert "RUNNING" not in states(study)
    assert sum(states(study).values()) < 9


@pytest.mark.parametrize(("width", "size"), [(32, plan.STACK), (64, plan.STACK), (33, 1), (512, 1)])
def test_small_networks_are_stacked_and_wide_ones_are_not(width, size):
    config = Config(depth=2, width=width, activation="relu", optimizer="sgd", lr=0.1)
    assert plan.stack_size(config, plan.Shape(features=784, classes=10, train_rows=48_000)) == size


# --- as a process of its own ---------------------------------------------------------------------


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    (folder / "long.toml").write_text(LONG)
    command = [*HPO, "run", "long.toml", "--storage", "sqlite:///hpo.db", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def trials_in(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials as another process sees them; none while the storage is still being made."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'hpo.db'}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT 1 FROM study_user_attributes WHERE key = 'seeds'")
            made = row.fetchone() is not None
    except sqlite3.OperationalError:  # no file, or no tables yet: Optuna would begin to make them
        return []
    url = f"sqlite:///{folder / 'hpo.db'}"
    return optuna.load_study(study_name="long", storage=url).trials if made else []


def states_in(folder: Path) -> set[str]:
    return {trial.state.name for trial in trials_in(folder)}


def complete_in(folder: Path) -> set[int]:
    return {trial.number for trial in trials_in(folder) if trial.state.name == "COMPLETE"}


def epochs_in(folder: Path) -> int:
    return sum(len(trial.intermediate_values) for trial in trials_in(folder))


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=120)
    return output


def resume_and_check(folder: Path, hpo: Callable) -> None:
    """The same command to the end: everything there once, nothing left running."""
    before, there = complete_in(folder), len(trials_in(folder))
    answer = hpo("run", "long.toml")
    assert answer.code == 0, answer.err
    trials = trials_in(folder)
    complete = [t for t in trials if t.state.name == "COMPLETE"]
    assert before <= {t.number for t in complete}
    assert len(trials) - there == 9 - len(before), "what was missing, and nothing else"
    keys = Counter((t.user_attrs["cell"], t.user_attrs["seed"]) for t in complete)
    assert keys == Counter({(c, s): 1 for c in ("narrow", "wide", "hot") for s in range(3)})
    assert not [t for t in trials if t.state.name in ("RUNNING", "WAITING")]


def test_ctrl_c_stops_training_keeps_what_is_finished_and_writes_the_report(tmp_path, hpo):
    """And another process sees epochs while the study runs."""
    process = start(tmp_path)
    running = wait_for(
        lambda: [
            t for t in trials_in(tmp_path) if t.intermediate_values and not t.state.is_finished()
        ]
    )
    assert running[0].state == optuna.trial.TrialState.RUNNING
    first = epochs_in(tmp_path)
    wait_for(lambda: epochs_in(tmp_path) > first)
    wait_for(lambda: {"COMPLETE", "RUNNING"} <= states_in(tmp_path))
    finished = complete_in(tmp_path)
    family = children(process.pid)
    workers = [pid for pid in family if not children(pid)]
    os.killpg(process.pid, signal.SIGINT)
    wait_for(lambda: sum(map(alive, workers)) <= 1, seconds=2)  # multiprocessing's tracker stays
    output = finish(process)
    assert finished <= complete_in(tmp_path)
    assert process.returncode == 130, output
    assert "stopping; the report follows\n" in output
    assert "\nhpo: stopped; the same command goes on from here\n" in output
    assert "Traceback" not in output
    assert (tmp_path / "reports/long/index.html").is_file()
    assert not [t for t in trials_in(tmp_path) if t.state.name == "RUNNING"]
    resume_and_check(tmp_path, hpo)


def test_a_trial_whose_worker_dies_three_times_fails_with_the_reason(quick, tmp_path, monkeypatch):
    tasks: Counter = Counter()
    start_task = LocalPool.start

    def start_and_kill(self, worker, task):
        if len(task.seeds) == 1:
            tasks[task.id] += 1
            self._places[worker].process.kill()
            self._places[worker].process.join()
        start_task(self, worker, task)

    monkeypatch.setattr(LocalPool, "start", start_and_kill)
    monkeypatch.setattr(plan, "STACKED_PARAMETERS", 1000)  # "wide" alone is not stacked
    study = run(quick, tmp_path, make_pool=LocalPool)
    assert states(study) == {"COMPLETE": 6, "FAIL": 3}
    assert set(tasks.values()) == {loop.ATTEMPTS}
    failed = study.trials[study.trials["state"] == "FAIL"]
    assert failed["fail_reason"].str.contains("died .*, 3 times").all()


def test_workers_that_are_not_there_yet_are_waited_for(quick, tmp_path, monkeypatch):
    look, looks = LocalPool.idle.fget, Counter()

    def late(self):
        looks["n"] += 1
        return look(self) if looks["n"] % 3 == 0 else []

    monkeypatch.setattr(LocalPool, "idle", property(late))
    assert states(run(quick, tmp_path, make_pool=LocalPool)) == {"COMPLETE": 9}
