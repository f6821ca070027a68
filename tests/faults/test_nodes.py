"""Actors, nodes and runners of a Ray cluster are killed at random moments."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_nodes import Nodes, on
from scenes import FINISHED, GRID, SEARCH, Scene, check_grid, ended, wait_for

KINDS = ("actor", "node", "drained node", "new node", "runner")


class Faults:
    """Injects faults into a cluster of two to three nodes beside its head, and counts them."""

    def __init__(self, nodes: Nodes, scene: Scene, rng: random.Random) -> None:
        self.nodes, self.scene, self.rng = nodes, scene, rng
        self.alive = [nodes.add(1), nodes.add(1)]
        self.done: Counter[str] = Counter()
        self.process = self.start()

    def start(self) -> subprocess.Popen:
        return self.scene.start(*on(self.nodes), **self.nodes.env)

    def inject(self, kind: str) -> None:
        if kind == "actor" and (there := self.nodes.actors()):
            os.kill(self.rng.choice(there), signal.SIGKILL)
        elif kind in ("node", "drained node"):
            node = self.alive.pop(0)
            if kind == "drained node":
                self.nodes.drain(node)
                time.sleep(self.rng.uniform(0, 2))
            self.nodes.kill(node)
            self.alive.append(self.nodes.add(1))
        elif kind == "new node" and len(self.alive) < 3:
            self.alive.append(self.nodes.add(1))
        elif kind == "runner":
            before = {t.number: t.values for t in self.scene.trials() if t.state in FINISHED}
            self.process.kill()
            self.process.communicate()
            wait_for(lambda: not self.nodes.actors(), seconds=20)
            now = {t.number: t.values for t in self.scene.trials()}
            assert all(now[number] == values for number, values in before.items())
            self.process = self.start()
        else:
            return
        self.done[kind] += 1


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    started = Nodes()
    yield started
    started.end()


@pytest.mark.parametrize(("kind", "number"), [("grid", "9.1"), ("search", "9.2")])
def test_a_cluster_loses_actors_nodes_and_the_runner(
    kind: str, number: str, tmp_path: Path, nodes: Nodes, amount, tally, full
):
    count = amount(3, 18)
    text = GRID.replace("seeds = 6", "seeds = 100").replace("epochs = 4", "epochs = 8")
    if kind == "search":
        text = SEARCH.replace("n_trials = 30", "n_trials = 250").replace("epochs = 4", "epochs = 8")
    scene = Scene(tmp_path, text)
    faults = Faults(nodes, scene, random.Random(7))
    try:
        kinds = [KINDS[i % len(KINDS)] for i in range(count)]
        faults.rng.shuffle(kinds)
        for fault in kinds:
            there = len(scene.trials())
            wait_for(lambda: faults.process.poll() is not None or len(scene.trials()) > there)  # noqa: B023
            time.sleep(faults.rng.uniform(0, 1))
            if faults.process.poll() is not None:
                break
            faults.inject(fault)
        output = ended(faults.process, 300)
        assert faults.process.returncode == 0, output
    finally:
        scene.end()
    trials = scene.trials()
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    if kind == "grid":
        check_grid(trials, 3, 100)
        outcome = "300 of 300 trials there, each once; nothing RUNNING"
    else:
        finished = [trial for trial in trials if trial.state in FINISHED]
        assert len(finished) == 250
        assert len({str(sorted(trial.params.items())) for trial in finished}) == 250
        outcome = "250 of 250 trials there, no configuration twice; nothing RUNNING; a winner"
    assert faults.done.total() >= count // 2
    what = ", ".join(f"{n} × {fault}" for fault, n in sorted(faults.done.items()))
    tally(number, f"a {kind} on a Ray cluster: {what}", faults.done.total(), outcome)
