"""The pool's three verbs: start, wait, stop."""

import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver

import pytest
from tiny import tiny_dataset

from hpo.study.config import Config, Seeds
from hpo.workers.messages import Died, Done, EpochDone, Event, Failed, Task
from hpo.workers.pool import LocalPool


def task(epochs: int, number: int = 1) -> Task:
    config = Config(depth=1, width=16, activation="relu", optimizer="sgd", lr=0.1, epochs=epochs)
    return Task(id=number, config=config, seeds=(Seeds.of(0), Seeds.of(1)), test=True)


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    with LocalPool(1, tiny_dataset(), "cpu") as opened:
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
    assert pool._workers[0].cores == 3
    assert pool.wait(10.0)  # it goes on
    pool.stop(1)
    until_idle(pool)
    pool.start(0, task(epochs=1, number=2))
    assert pool._workers[0].cores == 1
    *_, done = until_idle(pool)
    assert isinstance(done, Done)


def test_cores_are_divided_among_the_trainings():
    with LocalPool(3, tiny_dataset(), "cpu") as several:
        for worker in (0, 2):
            several.start(worker, task(epochs=100_000, number=worker))
        several.share(5)
        assert [worker.cores for worker in several._workers] == [3, 1, 2]
        several.share(1)
        assert [worker.cores for worker in several._workers] == [1, 1, 1]


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
    pool.start(0, Task(id=2, config=task(1).config, seeds=(), test=False))  # torch refuses it
    events = until_idle(pool)
    assert len(events) == 1
    assert isinstance(events[0], Failed)
    assert "RuntimeError" in events[0].reason
    pool.start(0, task(epochs=1, number=3))
    assert isinstance(until_idle(pool)[-1], Done)


def test_a_worker_that_dies_is_said_and_replaced(pool):
    pool.start(0, task(epochs=100_000))
    assert pool.wait(10.0)
    pool._workers[0].process.kill()
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
    pool._workers[0].process.kill()
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
