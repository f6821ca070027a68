"""A study on a tiny dataset as a process of its own, to be killed, cut off and gone on with."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.storage.open import NothingStored, open_storage

HPO = [sys.executable, "-m", "hpo.cli"]
GRID = """
title = "Grid"
dataset = "mnist-5k"
seeds = 6
[base]
depth = 1
width = 16
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 4
[[cells]]
name = "narrow"
[[cells]]
name = "wide"
width = 80
[[cells]]
name = "hot"
lr = 1e6
"""
SEARCH = """
title = "Search"
dataset = "mnist-5k"
[search]
n_trials = 30
[finalists]
k = 2
seeds = 4
[space]
depth = [1, 2]
width = { low = 16, high = 128 }
activation = ["relu", "tanh"]
optimizer = ["sgd", "adam"]
lr = { low = 1e-3, high = 1.0, log = true }
batch_size = 64
epochs = 4
"""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Scene:
    """A study file in a folder, and the storage that its runs use."""

    def __init__(self, folder: Path, text: str, url: str = "sqlite:///hpo.db", name: str = "study"):
        self.folder, self.name, self.url = folder, name, url
        (folder / f"{name}.toml").write_text(text)
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, command: tuple[str, ...] = (), **env: str) -> subprocess.Popen:
        """Begins a run in a process group of its own; its output is one stream."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HPO_")}
        process = subprocess.Popen(
            [*command, *HPO, "run", f"{self.name}.toml", "--storage", self.url, *arguments],
            cwd=self.folder,
            env={**inherited, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def whole(self, *arguments: str, code: int = 0, seconds: float = 120, **env: str) -> str:
        """A run to its end, and what it said."""
        process = self.start(*arguments, **env)
        output = ended(process, seconds)
        assert process.returncode == code, output
        return output

    def end(self) -> None:
        """Kills processes that still run, and closes their pipes."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdout and not process.stdout.closed:
                process.communicate()

    def storage(self) -> Any:
        """Opened as a watcher does; relative files are meant from the folder."""
        kind, _, rest = self.url.partition(":///")
        local = kind in ("sqlite", "journal")
        return open_storage(f"{kind}:///{self.folder / rest}" if local else self.url, create=False)

    def trials(self, name: str = "") -> list[FrozenTrial]:
        """None while there is no such study yet."""
        try:
            storage = self.storage()
        except NothingStored:
            return []
        try:
            return optuna.load_study(study_name=name or self.name, storage=storage).trials
        except KeyError:
            return []
        finally:
            if isinstance(storage, RDBStorage):
                storage.engine.dispose()

    def states(self) -> Counter[str]:
        return Counter(trial.state.name for trial in self.trials())

    def finished(self) -> int:
        return sum(trial.state in FINISHED for trial in self.trials())


def ended(process: subprocess.Popen, seconds: float = 120) -> str:
    """What it said until its end, which must come, and without a traceback."""
    output, _ = process.communicate(timeout=seconds)
    assert "Traceback" not in output, output
    return output


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} s: {condition}")


def keys(trials: list[FrozenTrial]) -> Counter[tuple[str, int]]:
    """How often each cell and seed was trained to the end."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return Counter((trial.user_attrs["cell"], trial.user_attrs["seed"]) for trial in complete)


def check_grid(trials: list[FrozenTrial], cells: int, seeds: int) -> None:
    """Every cell and seed once, nothing left running, every finished trial with all its figures."""
    counted = keys(trials)
    assert len(counted) == cells * seeds
    assert set(counted.values()) == {1}
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL"}
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            epochs = len(trial.system_attrs["curve"]["valid_accuracy"])
            assert sorted(trial.intermediate_values) == list(range(1, epochs + 1))
            assert 0 <= trial.user_attrs["test_accuracy"] <= 1


def children(pid: int) -> list[int]:
    """All descendants of a process, from /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            child = int(path.parent.name)
            found += [child, *children(child)]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers(pid: int) -> list[int]:
    """The processes of a run that train: forked from the server, and busy for 0.1 s and more."""
    found = [child for child in children(pid) if not children(child)]
    return [child for child in found if _seconds(child) > 0.1]


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def fill(folder: Path) -> Path:
    """Leaves no byte on a disk; the file that holds them."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return path
