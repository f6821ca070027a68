"""Runs on a Ray cluster: the same figures as here, lost actors and nodes, wrong clusters."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import Nodes, on
from scenes import GRID, SEARCH, Scene, check_grid, ended, wait_for
from tiny import tiny_dataset

from hpo.errors import InputError
from hpo.options import Options
from hpo.study.config import Config, Seeds
from hpo.workers import ray_cluster
from hpo.workers.messages import Done, EpochDone, Ready, Task

LONG = GRID.replace("seeds = 6", "seeds = 20")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head and a node with two CPUs."""
    started = Nodes()
    started.add(2)
    yield started
    started.end()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(text: str = GRID, folder: str = "run") -> Scene:
        (tmp_path / folder).mkdir()
        scenes.append(Scene(tmp_path / folder, text))
        return scenes[-1]

    yield make
    for made in scenes:
        made.end()


def curves(scene: Scene) -> bytes:
    return (scene.folder / "reports/study/curves.csv").read_bytes()


def session_of(leader: int) -> list[str]:
    """The processes of a session, by its leader."""
    listed = subprocess.run(["ps", "-eo", "sid,args"], capture_output=True, text=True, check=True)
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [command for sid, command in lines if sid == str(leader)]


WRONG = {
    "has so many CPUs, the most is 2": ("--cpus-per-trial", "3"),
    "has so many GPUs, the most is 0": ("--gpus-per-trial", "0.5"),
    "--device cuda: needs --gpus-per-trial": ("--device", "cuda"),
}


@pytest.mark.slow
def test_a_cluster_is_joined_or_refused_and_a_lost_actor_costs_nothing(nodes, scene, forked_hpo):
    for said, options in WRONG.items():
        refused(forked_hpo, said, *on(nodes), *options, env=nodes.env)
    wrong = {**nodes.env, "RAY_AUTH_TOKEN": "0" * 64}
    refused(forked_hpo, "its token is missing here or differs", *on(nodes), env=wrong)
    here, there = scene(folder="here"), scene(folder="there")
    process = there.start(*on(nodes), **nodes.env)
    os.kill(wait_for(nodes.actors)[0], signal.SIGKILL)
    here.whole("--workers", "1")
    output = ended(process)
    assert process.returncode == 0, output
    assert curves(there) == curves(here)
    page = (there.folder / "reports/study/report.md").read_text()
    assert "| Nodes | 1 × " in page
    wait_for(lambda: not nodes.actors())


@pytest.mark.slow
def test_a_search_on_a_cluster_of_its_own_prunes_and_names_a_winner(scene):
    searched = scene(
        SEARCH.replace("n_trials = 30", "n_trials = 6").replace("seeds = 4", "seeds = 2")
    )
    process = searched.start("--pool", "ray", "--workers", "1")
    output = ended(process, 120)
    assert process.returncode == 0, output
    assert "The winner is" in output
    assert (searched.folder / "reports/study/best/model.safetensors").is_file()
    wait_for(lambda: not session_of(process.pid))


def test_ctrl_c_stops_a_run_and_its_cluster(scene, full):
    run = scene(LONG)
    process = run.start("--pool", "ray")
    wait_for(lambda: run.states()["COMPLETE"] > 5)
    os.killpg(process.pid, signal.SIGINT)
    output = ended(process, 30)
    assert process.returncode == 130, output
    assert (run.folder / "reports/study/index.html").is_file()
    assert run.states()["RUNNING"] == 0
    wait_for(lambda: not session_of(process.pid))


def test_a_killed_runner_leaves_no_actor_and_lost_trainings_run_again(nodes, scene, full):
    run = scene(LONG)
    process = run.start(*on(nodes), **nodes.env)
    wait_for(lambda: run.states()["COMPLETE"] > 5)
    process.kill()
    process.communicate()
    wait_for(lambda: not nodes.actors(), seconds=20)
    assert run.states()["COMPLETE"] < 60
    doomed = nodes.add(1)
    process = run.start(*on(nodes), **nodes.env)
    wait_for(lambda: len(nodes.actors()) == 3)
    os.kill(nodes.actors()[0], signal.SIGKILL)
    nodes.kill(doomed)
    output = ended(process)
    assert process.returncode == 0, output
    check_grid(run.trials(), 3, 20)


def test_a_dead_head_ends_the_run_and_keeps_what_is_finished(scene, full):
    nodes = Nodes()
    try:
        nodes.add(1)
        run = scene(LONG.replace("epochs = 4", "epochs = 400"))
        process = run.start(*on(nodes), **nodes.env)
        wait_for(lambda: run.states()["COMPLETE"] > 0 or run.states()["RUNNING"] > 0)
        for name in ("gcs_server", "raylet"):
            nodes.head.all_processes[name][0].process.kill()
        output = ended(process, 90)
        assert process.returncode == 1, output
        assert "its head node does not answer; finished trials are stored" in output
        assert run.states()["RUNNING"] == 0
    finally:
        nodes.end()


def refused(hpo: Callable[..., Any], said: str, *options: str, **more: Any) -> None:
    """Checks that a run with these options ends in a line and stores nothing."""
    ended = hpo("run", "grid-report", "--dataset", "mnist-5k", *options, **more)
    assert ended.code == 2
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "No studies" in hpo("list").out


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:{port}", "nobody answers there; start the cluster by"),
        ("nowhere", "must be host:port of the head node"),
        ("ray://127.0.0.1:10001", "must be host:port of the head node"),
    ],
)
def test_a_wrong_address_is_a_line(forked_hpo, address, said):
    refused(forked_hpo, said, "--pool", "ray", "--ray-address", address.format(port=closed_port()))


def test_without_ray_the_command_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    options = Options(study="tiny", ray_address="auto")
    said = r"^--pool ray: Ray is not installed; pip install 'hpo-studies\[ray\]'$"
    with pytest.raises(InputError, match=said), ray_cluster.connect(options, tiny_dataset(), print):
        pass


def test_options_of_a_cluster_need_one_and_have_bounds(forked_hpo):
    refused(forked_hpo, "and --nodes: need --pool ray", "--cpus-per-trial", "2")
    refused(
        forked_hpo, "--cpus-per-trial: must be a number of at least 0", "--cpus-per-trial", "-1"
    )


class Fake(ray_cluster.Cluster):
    """A cluster of nodes that are only told."""

    def _nodes(self) -> list[dict[str, float]]:
        return [{"CPU": 8.0, "object_store_memory": 1e3}, {"CPU": 2.0, "GPU": 2.0}]


def test_room_counts_what_fits_on_each_node():
    def room(cpus: float, gpus: float) -> int:
        return Fake(address="", cpus=cpus, gpus=gpus, workers=None).room()

    assert room(1, 0) == 10
    assert room(3, 0) == 2
    assert room(0, 0.25) == 8
    assert room(1, 0.5) == 2
    with pytest.raises(InputError, match="no node of the cluster has both"):
        Fake(address="", cpus=4, gpus=1, workers=None).check(tiny_dataset(), "auto")


def test_expected_nodes_are_waited_for_until_one_has_room(monkeypatch, capsys):
    large = [{"CPU": 8.0, "object_store_memory": 1e9}]
    looks = [[{"CPU": 0.0}], [{"CPU": 0.0}], [{"CPU": 0.0}, *large], [{"CPU": 0.0}, *large, *large]]
    cluster = Fake(address="", cpus=1, gpus=0, workers=None, expected=2)
    monkeypatch.setattr(Fake, "_nodes", lambda self: looks[0])
    monkeypatch.setattr(ray_cluster.time, "sleep", lambda seconds: looks.pop(0))
    cluster.await_first(tiny_dataset(), "auto", print)
    assert len(looks) == 2
    assert capsys.readouterr().out == "waiting for nodes: 0 of 2 are there\n"
    assert cluster.waiting() == "waiting for nodes: 1 of 2 are there"
    looks.pop(0)
    assert cluster.waiting() == ""


def test_a_first_node_that_does_not_come_in_time_is_a_line(monkeypatch):
    monkeypatch.setattr(Fake, "_nodes", lambda self: [{"CPU": 0.0}])
    monkeypatch.setattr(ray_cluster, "NODES_SECONDS", -1.0)
    cluster = Fake(address="", cpus=1, gpus=0, workers=None, expected=2)
    with pytest.raises(InputError, match="no node of the cluster has so many CPUs, the most is 0"):
        cluster.await_first(tiny_dataset(), "auto", print)
    options = Options(study="tiny", nodes=2)
    with (
        pytest.raises(InputError, match="--nodes: needs --ray-address"),
        ray_cluster.connect(options, tiny_dataset(), print),
    ):
        pass


def test_a_dataset_larger_than_an_object_store_is_refused():
    with pytest.raises(InputError, match="start Ray with --object-store-memory"):
        Fake(address="", cpus=1, gpus=0, workers=None).check(tiny_dataset(), "auto")


def test_a_node_with_other_versions_is_refused():
    pool = object.__new__(ray_cluster.RayPool)
    pool.device, pool.machines, pool._versions = "", [], {"python": "3.11.7", "torch": "2.9.0"}
    machine = {"host": "far", "versions": {"python": "3.11.7", "torch": "2.8.0"}}
    slot = ray_cluster._Slot(actor=None, source=object(), ready=False)
    with pytest.raises(InputError, match=r"node far has torch 2\.8\.0, and this machine 2\.9\.0"):
        pool._welcome(slot, Ready(device="cpu", machine=machine))


def test_an_actor_of_an_earlier_pool_trains_a_task_whose_number_was_stopped_there():
    worker = ray_cluster.RayWorker(tiny_dataset(), "cpu", 1)
    worker.stop(1)
    config = Config(depth=1, width=8, activation="relu", optimizer="sgd", lr=0.1, epochs=2)
    messages = list(worker.train(Task(id=1, config=config, seeds=(Seeds.of(0),))))
    assert [type(message) for message in messages] == [EpochDone, EpochDone, Done]


def test_trainings_without_cpus_need_a_number_of_workers():
    with pytest.raises(InputError, match="--cpus-per-trial 0: needs --workers"):
        Fake(address="", cpus=0, gpus=0, workers=None).check(tiny_dataset(), "auto")
