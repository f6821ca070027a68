"""The pool's three verbs: start, wait, stop."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, spawn

import pytest
from tiny import tiny_dataset

from hpo.errors import InputError
from hpo.study.config import Config, Seeds
from hpo.workers import server
from hpo.workers.messages import Died, Done, EpochDone, Event, Failed, Task
from hpo.workers.pool import LocalPool


def task(epochs: int, number: int = 1) -> Task:
    config = Config(depth=1, width=16, activation="relu", optimizer="sgd", lr=0.1, epochs=epochs)
    return Task(id=number, config=config, seeds=(Seeds.of(0), Seeds.of(1)), test=True)


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    with LocalPool(1, tiny_dataset(), "cpu", 600.0) as opened:
        yield opened


def until_idle(pool: LocalPool) -> list[Event]:
    events: list[Event] = []
    while not pool.idle:
        events += pool.wait(1.0)
    return events


def test_a_task_yields_its_epochs_and_then_its_test(pool):
    pool.start(0, task(epochs=3))
    *epochs, done = until_idle(pool)
    assert [e.number for e in epochs if isinstance(e, EpochDone)] == [1, 2, 3]
    assert isinstance(done, Done)
    assert done.test_accuracy is not None
    assert len(done.test_accuracy) == 2


def test_idle_cores_go_to_the_trainings_that_run_and_come_back(pool):
    pool.share(4)  # nothing runs
    pool.start(0, task(epochs=100_000))
    pool.share(3)
    assert pool._places[0].cores == 3
    assert pool.wait(10.0)  # it goes on
    pool.stop(1)
    until_idle(pool)
    pool.start(0, task(epochs=1, number=2))
    assert pool._places[0].cores == 1
    *_, done = until_idle(pool)
    assert isinstance(done, Done)


def test_cores_are_divided_among_the_trainings():
    with LocalPool(3, tiny_dataset(), "cpu", 600.0) as several:
        for worker in (0, 2):
            several.start(worker, task(epochs=100_000, number=worker))
        several.share(5)
        assert [worker.cores for worker in several._places] == [3, 1, 2]
        several.share(1)
        assert [worker.cores for worker in several._places] == [1, 1, 1]


def test_a_stopped_task_ends_within_its_epoch_without_a_test(pool):
    pool.start(0, task(epochs=100_000))
    assert pool.wait(10.0)
    pool.stop(1)
    *_, done = until_idle(pool)
    assert isinstance(done, Done)
    assert done.test_accuracy is None


def test_a_stop_that_comes_too_late_does_not_stop_the_next_task(pool):
    pool.start(0, task(epochs=1))
    pool.stop(1)
    until_idle(pool)
    pool.start(0, task(epochs=3, number=2))
    *epochs, done = until_idle(pool)
    assert len(epochs) == 3
    assert isinstance(done, Done)
    assert done.test_accuracy is not None


def test_a_task_that_cannot_be_trained_fails_and_leaves_the_worker_well(pool):
    pool.start(0, Task(id=2, config=task(1).config, seeds=(), test=False))  # no training
    events = until_idle(pool)
    assert len(events) == 1
    assert isinstance(events[0], Failed)
    assert "IndexError" in events[0].reason
    pool.start(0, task(epochs=1, number=3))
    assert isinstance(until_idle(pool)[-1], Done)


def test_a_worker_that_dies_is_said_and_replaced(pool):
    pool.start(0, task(epochs=100_000))
    assert pool.wait(10.0)
    pool._places[0].process.kill()
    events = until_idle(pool)
    died = events[-1]
    assert isinstance(died, Died)
    assert (died.task, died.reason) == (1, "died (exit code -9; the system may be out of memory)")
    pool.start(0, task(epochs=1, number=2))
    assert isinstance(until_idle(pool)[-1], Done)


def test_a_server_of_workers_that_dies_is_replaced_with_the_next_worker(pool):
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    pool.start(0, task(epochs=1))
    assert isinstance(until_idle(pool)[-1], Done)  # a worker lives on without it
    pool._places[0].process.kill()
    assert pool.wait(10.0)
    pool.start(0, task(epochs=1, number=2))
    assert isinstance(until_idle(pool)[-1], Done)


def test_a_folder_too_deep_for_a_socket_is_named(hpo_process, tmp_path):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    run = ("run", "grid-report", "--dataset", "mnist-5k")
    process = hpo_process(*run, env={"TMPDIR": str(deep)})
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith(f"hpo: TMPDIR {deep}: workers cannot be started")
    assert len(said.splitlines()) == 1


SCRIPT = """
import os
import hpo

print("the script runs", flush=True)
print(hpo.run("mine.toml"), flush=True)
if not os.fork():
    print("fork:", hpo.run("mine.toml", name="other"), flush=True)
    os._exit(0)
print("the fork ended with", os.wait()[1])
"""
STUDY = """
dataset = "wine"
model = "parts:build"
seeds = 2
[base]
optimizer = "adam"
epochs = 2
[[cells]]
name = "slow"
lr = 0.01
[[cells]]
name = "fast"
lr = 0.02
"""
NETWORK = """
from torch import nn


def build(shape, classes):
    return nn.Linear(shape[0], classes)
"""


def test_a_script_without_a_main_guard_runs_a_study_and_so_does_its_fork(tmp_path):
    texts = {"script.py": SCRIPT, "mine.toml": STUDY, "parts.py": NETWORK}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "script.py"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count("the script runs") == 1
    assert "\nResult('mine': 4 trials)" in ended.stdout
    assert "\nfork: Result('other': 4 trials)" in ended.stdout
    assert "the fork ended with 0" in ended.stdout


def test_other_processes_of_a_script_still_get_its_main_module(tmp_path, monkeypatch):
    """Those that another thread starts meanwhile, too."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "script.py", raising=False)
    with server._without_main():
        ours = spawn.get_preparation_data("worker")
        with ThreadPoolExecutor(1) as others:
            theirs = others.submit(spawn.get_preparation_data, "other").result()
    mains = {"init_main_from_name", "init_main_from_path"}
    assert not mains & set(ours)
    assert mains & set(theirs)
    assert mains & set(spawn.get_preparation_data("later"))


def test_workers_in_a_process_that_may_have_no_children_are_refused_in_a_line(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(InputError, match=r"use concurrent\.futures\.ProcessPoolExecutor"):
        LocalPool(1, tiny_dataset(), "cpu", 600.0).__enter__()
