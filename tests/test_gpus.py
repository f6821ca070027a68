"""The GPUs of a machine are shared by its workers: by fake GPUs, which train on the CPU."""

import json
import os
import platform
import signal
from collections import Counter
from pathlib import Path

import fake_gpus
import pytest
import torch
from scenes import GRID
from tiny import tiny_dataset

import hpo
from hpo.errors import InputError
from hpo.options import Options
from hpo.workers import gpus, pool
from hpo.workers.gpus import VISIBLE
from hpo.workers.pool import LocalPool
from hpo.workers.ray_cluster import Cluster, RayWorker


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """Four GPUs for the workers and for the process that is asked for their names."""
    asked = pool._asked

    def ask(function: str, *arguments: object):
        return asked(function.replace("hpo.workers.worker:", "fake_gpus:"), *arguments)

    monkeypatch.setattr(pool, "_asked", ask)
    monkeypatch.setattr(pool, "WORK", "fake_gpus:work")
    monkeypatch.delenv(VISIBLE, raising=False)
    pool._gpu_names.cache_clear()
    yield
    pool._gpu_names.cache_clear()


@pytest.mark.parametrize(
    ("device", "visible", "used"),
    [
        ("cuda", None, {"0": 2, "1": 1, "2": 1, "3": 1}),
        ("auto", None, {"0": 2, "1": 1, "2": 1, "3": 1}),
        ("cuda:2", None, {"2": 5}),
        ("cuda:3,1", None, {"3": 3, "1": 2}),
        ("cuda", "3, 2", {"3": 3, "2": 2}),
        ("cuda:1", "3,2", {"2": 5}),
        ("cuda", "1,9,2", {"1": 5}),  # CUDA ends its list at a wrong entry
        ("auto", "", {"": 5}),
    ],
)
def test_workers_take_the_gpus_in_turn(device, visible, used, monkeypatch):
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    opened = LocalPool(5, tiny_dataset(), device, 600.0)
    monkeypatch.setattr(pool.server, "start", lambda *arguments: (arguments[-1], None))
    opened._fill(5)
    assert Counter(worker.gpu for worker in opened._places) == used
    opened._shared.close()


def test_a_worker_sees_its_gpu_alone_and_so_does_the_one_that_takes_its_place():
    with LocalPool(4, tiny_dataset(), "cuda:1,3", 600.0) as opened:
        while len(opened.gpus) < 2:
            opened.wait(1.0)
        assert opened.device == "cuda"
        assert opened.gpus == {"1: Fake 1", "3: Fake 3"}
        for number in (1, 2):
            os.kill(opened._places[number].process.pid, signal.SIGKILL)
            while not opened.wait(1.0):
                pass
            assert [worker.gpu for worker in opened._places] == ["1", "3", "1", "3"]
        opened.gpus.clear()
        os.kill(opened._places[1].process.pid, signal.SIGKILL)
        while "3: Fake 3" not in opened.gpus:
            opened.wait(1.0)


WRONG = {
    ("cuda:4", None): "--device: cuda:4: there is no GPU 4; this machine has cuda:0 to cuda:3",
    ("cuda:0,2", "3,1"): "there is no GPU 2; CUDA_VISIBLE_DEVICES=3,1 leaves cuda:0 to cuda:1",
    ("cuda:1", "3"): "there is no GPU 1; CUDA_VISIBLE_DEVICES=3 leaves cuda:0",
    ("cuda", ""): "--device: device 'cuda': not usable here; this machine has cpu",
}


@pytest.mark.parametrize(("device", "visible"), WRONG)
def test_a_gpu_that_is_not_there_is_a_line(device, visible, monkeypatch):
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    with pytest.raises(InputError) as told:
        pool.require_device(device)
    assert WRONG[device, visible] in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:1,", "cuda:1,1", "cuda:01,1", "mps:0"])
def test_a_device_that_is_none_is_a_line(device):
    with pytest.raises(
        InputError, match=r"^--device: must be one of .*, or cuda:0,1 for some GPUs"
    ):
        Options.of({"study": "search", "device": device})


def test_ray_chooses_gpus_itself():
    cluster = Cluster(address="", cpus=1, gpus=1, workers=None)
    with pytest.raises(InputError, match="--device cuda:1: Ray chooses the GPUs of each training"):
        cluster.check(tiny_dataset(), "cuda:1")


def test_a_gpu_of_a_node_is_named_with_its_node(monkeypatch):
    worker = RayWorker(tiny_dataset(), "cpu", 1)
    worker.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Fake")
    monkeypatch.setenv(VISIBLE, "3")  # by Ray
    ready = worker.ready()
    opened = LocalPool(1, tiny_dataset(), "cpu", 600.0)
    opened._welcome(opened._new_place(), ready)
    opened.close()
    assert opened.gpus == {f"{platform.node()} 3: Fake"}


def test_a_run_names_its_gpus(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(GRID.replace("seeds = 6", "seeds = 2"))
    hpo.run("study.toml", device="cuda:0,2", workers=2, storage="sqlite:///gpus.db")
    (session,) = json.loads(Path("reports/study/provenance.json").read_text())["sessions"]
    assert session["device"] == "cuda"
    assert set(session["gpus"]) <= {"0: Fake 0", "2: Fake 2"}
    assert session["gpus"]
    assert "on cuda (0: Fake 0" in Path("reports/study/report.md").read_text()


def test_the_fake_reads_the_variable_as_cuda_does(monkeypatch):
    monkeypatch.setenv(VISIBLE, "2,1,7,0")
    assert fake_gpus.seen() == ["2", "1"]
    assert gpus.least_used([], []) == ""
