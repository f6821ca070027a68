"""A run whose Ray dies on its own machine: Ray ends the process, and another one says so."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_nodes  # noqa: F401  # skips without Ray
from scenes import GRID, Scene, children, ended, wait_for

from hpo.workers import ray_cluster

LONG = GRID.replace("epochs = 4", "epochs = 400")
RAYLET = "raylet/raylet"
SAID = "this process was ended from outside. Ray ends it at once"


def named(pid: int, name: str) -> list[int]:
    """The descendants of a process whose command has that name in it."""
    found = []
    for child in children(pid):
        try:
            with open(f"/proc/{child}/cmdline") as file:
                command = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [child] if name in command else []
    return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, LONG)
    yield made
    made.end()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "options"), [("ray::DashboardAgent", ("--fresh", "--yes")), (RAYLET, ())]
)
def test_a_lost_agent_or_raylet_ends_the_run_with_a_line_and_the_same_command_goes_on(
    lost, options, scene
):
    process = scene.start("--pool", "ray", "--workers", "1", "--quiet", *options)
    wait_for(lambda: scene.states()["RUNNING"] or process.poll() is not None)
    os.kill(wait_for(lambda: named(process.pid, lost))[0], signal.SIGKILL)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:  # without its agent a raylet ends, or hangs in its end:
        os.kill(named(process.pid, RAYLET)[0], signal.SIGKILL)  # ray-project/ray#53762
    said = ended(process, 60)
    assert process.returncode == 1, said
    (line,) = (each for each in said.splitlines() if each.startswith("hpo: "))
    assert SAID in line
    assert ("without --fresh goes on" in line) == bool(options)
    left = len(scene.trials())
    process = scene.start("--pool", "ray", "--workers", "1")
    wait_for(lambda: len(scene.trials()) > left)
    os.killpg(process.pid, signal.SIGINT)
    said = ended(process, 60)
    assert process.returncode == 130, said
    assert SAID not in said


WATCHED = """
import os, signal, sys, time
from hpo.workers.ray_cluster import _last_words
with _last_words("the same command"):
    {body}
print("end")
"""


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("os._exit(1)", 1, True),  # as Ray's C++ code
        ("pass", 0, False),
        ("sys.exit(3)", 3, False),
        ("raise KeyboardInterrupt", -signal.SIGINT, False),
        (
            "time.sleep(1); os.killpg(0, signal.SIGTERM)",
            -signal.SIGTERM,
            True,
        ),  # the watcher lives on
    ],
)
def test_only_an_end_without_python_is_told(body, code, says):
    command = [sys.executable, "-c", WATCHED.format(body=body)]
    there = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert there.returncode == code, there.stderr
    words = ray_cluster.LAST_WORDS.format(same="the same command")
    assert (words + "\n" in there.stderr) == says
