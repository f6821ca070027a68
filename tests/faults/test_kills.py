"""kill -9, at random moments, of workers, of the runner, of everything."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState
from scenes import (
    FINISHED,
    GRID,
    SEARCH,
    Scene,
    alive,
    check_grid,
    children,
    ended,
    wait_for,
    workers,
)

from hpo.results import trial as record


def kill_worker(process: subprocess.Popen) -> bool:
    """Whether there was one that trained."""
    found = workers(process.pid)
    with suppress(ProcessLookupError):
        if found:
            os.kill(random.choice(found), signal.SIGKILL)
            return True
    return False


def kill(process: subprocess.Popen, target: str) -> None:
    """Kills the runner or its whole process group. The runner's children end by themselves, within
    5 seconds."""
    family = children(process.pid)
    if target == "runner":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(map(alive, family)), seconds=5)


def killed_runs(scene: Scene, kills: int, rng: random.Random, *arguments: str) -> Counter[str]:
    """Runs and kills as often as that: how often whom. What was finished before a kill is there
    after it, and what was left running has failed as soon as the next run trains."""
    done: Counter[str] = Counter()
    before: dict[int, float] = {}
    running: set[int] = set()
    there = 0
    while done.total() < kills:
        process = scene.start(*arguments)
        if rng.random() < 0.8:  # while it trains; else as it starts
            wait_for(partial(began, scene, process, there))
        time.sleep(rng.uniform(0.1, 2.0))
        while done.total() < kills - 1 and rng.random() < 0.5 and kill_worker(process):
            done["worker"] += 1
            time.sleep(rng.uniform(0.05, 0.7))
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[0]
            break
        target = rng.choice(["runner", "group"])
        kill(process, target)
        done[target] += 1
        trials = scene.trials()
        now = {t.number: t.values[0] for t in trials if t.state in FINISHED}
        assert before.items() <= now.items()
        still = {t.number for t in trials if t.state is TrialState.RUNNING}
        if len(trials) > there:  # the run got as far as to train: it had cleaned up by then
            assert not still & running
        before, running, there = now, still, len(trials)
    return done


def began(scene: Scene, process: subprocess.Popen, there: int) -> bool:
    """Whether the run has begun a trial, or ended."""
    return len(scene.trials()) > there or process.poll() is not None


@pytest.mark.parametrize("kind", ["grid", "search"])
def test_no_kill_loses_or_repeats_a_trial(stage, hpo, kind, tmp_path, request, amount, tally):
    if kind == "search":
        request.getfixturevalue("full")
    kills, seeds = amount(2, 50), amount(4, 300)
    scene = stage(GRID if kind == "grid" else SEARCH)
    total = ["--seeds", str(seeds)] if kind == "grid" else ["--trials", str(amount(12, 600))]
    done = killed_runs(scene, kills, random.Random(0), *total)
    there = scene.finished()
    answer = hpo("run", "study.toml", *total, timeout=600)
    assert answer.code == 0, answer
    trials = scene.trials()
    if kind == "grid":
        check_grid(trials, 3, seeds)
        count = 3 * seeds
    else:
        finished = [t for t in trials if t.state in FINISHED]
        count = len(finished)
        assert count == int(total[1])
        assert len({tuple(t.params.items()) for t in finished}) == count, "none is trained twice"
        assert {t.state for t in trials} <= {*FINISHED, TrialState.FAIL}
        check_grid(scene.trials("study.finalists"), 2, 4)
        assert "winner" in answer.out
    failed = [t for t in trials if t.state is TrialState.FAIL]
    assert {t.user_attrs["fail_reason"] for t in failed} <= {record.KILLED}
    assert (tmp_path / "reports/study/index.html").is_file()
    tally(
        f"1.{1 if kind == 'grid' else 2}",
        f"`kill -9` at random moments of a {kind} of {count} trials: "
        + ", ".join(f"{n} × {whom}" for whom, n in sorted(done.items())),
        done.total(),
        f"{count} of {count} trials there, each once; {there} before the last run; "
        f"{len(failed)} cut off and trained again; none left running",
    )


def test_a_worker_that_dies_each_time_fails_its_trial_with_the_reason(full, stage, tally):
    text = GRID.replace("epochs = 4", "epochs = 3000")
    scene = stage(text[: text.index('[[cells]]\nname = "wide"')])
    process = scene.start("--seeds", "1", "--workers", "1")
    for _ in range(3):
        pid = wait_for(
            lambda: workers(process.pid) and scene.states()["RUNNING"] and workers(process.pid)
        )[0]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not alive(pid))
    output = ended(process)
    assert process.returncode == 1, output
    (trial,) = scene.trials()
    assert trial.state is TrialState.FAIL
    assert trial.user_attrs["fail_reason"].startswith("its worker died (exit code -9")
    assert "no trial has finished" in output
    tally("1.3", "`kill -9` of every worker that takes a trial", 3, "FAIL after 3, with the reason")


@pytest.mark.parametrize("kind", ["grid", "search"])
def test_a_crash_between_any_two_writes_loses_nothing(full, stage, kind, tmp_path, tally):
    """Run after run is killed one write later than the one before, until one gets through."""
    text = GRID.replace("seeds = 6", "seeds = 1") if kind == "grid" else SEARCH
    small = {"n_trials = 30": "n_trials = 3", "k = 2": "k = 1", "seeds = 4": "seeds = 2"}
    for much, little in small.items():
        text = text.replace(much, little)
    scene = stage(text)
    script = [sys.executable, Path(__file__).with_name("crashing_run.py")]
    before: dict[int, FrozenTrial] = {}
    for number in range(1, 1000):
        command = [*script, str(number), "study.toml", "--workers", "1", "--quiet"]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        scene.processes.append(process)
        output = ended(process)
        assert process.returncode in (0, -signal.SIGKILL), output
        now = {trial.number: trial for trial in scene.trials() if trial.state in FINISHED}
        for trial in now.values():
            assert {"train_seconds", "diverged"} <= set(trial.user_attrs)
            assert "curve" in trial.system_attrs
            assert trial.values is not None
        assert before.items() <= now.items()
        before = now
        if process.returncode == 0:
            break
    if kind == "grid":
        check_grid(scene.trials(), 3, 1)
    else:
        assert scene.finished() == 3
        check_grid(scene.trials("study.finalists"), 1, 2)
        assert (tmp_path / "reports/study/best/model.safetensors").is_file()
    pictures = {path.name for path in (tmp_path / "hpo.artifacts").iterdir()}
    for trial in before.values():
        kept = [json.loads(v) for k, v in trial.system_attrs.items() if k.startswith("artifacts:")]
        assert kept
        assert {found["artifact_id"] for found in kept} <= pictures
    tally(
        "1.4" if kind == "grid" else "1.5",
        f"a {kind} killed right before its first, second, third … write to the storage",
        number - 1,
        "every finished trial whole after each; the next run through: all there, each once",
    )
