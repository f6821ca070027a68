"""Reports on disks that are full, folders that cannot be written, writing that is killed."""

import os
import pty
import random
import select
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from scenes import GRID, HPO, alive, check_grid, children, fill, wait_for


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_full_disk_leaves_the_old_report_and_a_line(full, stage, tmp_path, small_disk, tally):
    disk = small_disk("4m")
    scene = stage(GRID)
    scene.whole("--seeds", "1", "--out", "disk")
    before = contents(disk / "study")
    filler = fill(disk)
    output = scene.whole("--seeds", "2", "--out", "disk", code=1)
    assert "the report could not be written: [Errno 28] No space left on device" in output
    assert contents(disk / "study") == before
    assert scene.states() == {"COMPLETE": 6}
    filler.unlink()
    command = [*HPO, "report", "study", "--out", "disk"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    after = contents(disk / "study")
    assert after["trials.csv"].count(b"COMPLETE") == 6
    assert [path.name for path in disk.iterdir()] == ["study"], "nothing half is left"
    tally("4.1", "disk full when the report is written", 1, "old report whole, a line, exit 1")


def test_a_folder_that_became_unwritable_leaves_the_old_report(
    full, stage, tmp_path, small_disk, tally
):
    disk = small_disk("4m")
    scene = stage(GRID)
    scene.whole("--seeds", "1", "--out", "disk")
    before = contents(disk / "study")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    output = scene.whole("--seeds", "2", "--out", "disk", code=2)
    assert output.startswith("hpo: --out disk: cannot be written (Read-only file system)")
    command = [*HPO, "report", "study", "--out", "disk"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert contents(disk / "study") == before
    tally("4.2", "report folder read-only: run, report", 2, "refused before anything is trained")


def test_killed_writing_leaves_whole_files(full, stage, tmp_path, tally):
    scene = stage(GRID)
    scene.whole("--seeds", "1")
    shutil.copytree(tmp_path / "reports/study", tmp_path / "old")
    scene.whole("--seeds", "2")
    old, new = contents(tmp_path / "old"), contents(tmp_path / "reports/study")
    rng, kills, mixed = random.Random(0), 40, 0
    for _ in range(kills):
        shutil.rmtree(tmp_path / "reports/study")
        shutil.copytree(tmp_path / "old", tmp_path / "reports/study")
        process = subprocess.Popen(
            [*HPO, "report", "study"], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        beside = tmp_path / "reports"
        while process.poll() is None and not list(beside.glob(".study.*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = contents(tmp_path / "reports/study")
        for name, content in there.items():
            assert content in (old.get(name), new.get(name)), name
        mixed += any(c != old.get(n) for n, c in there.items()) and any(
            c != new.get(n) for n, c in there.items()
        )
    assert subprocess.run([*HPO, "report", "study"], cwd=tmp_path, check=False).returncode == 0
    assert contents(tmp_path / "reports/study") == new
    left = list((tmp_path / "reports").glob(".study.*"))
    for path in left:
        os.utime(path, (0, 0))  # an hour later
    subprocess.run([*HPO, "report", "study"], cwd=tmp_path, check=True)
    assert left
    assert os.listdir(tmp_path / "reports") == ["study"], "what killed ones left is cleared away"
    tally(
        "4.3",
        "`kill -9` while the report is written",
        kills,
        f"every file whole; {mixed} of two times",
    )


@pytest.mark.parametrize("sink", ["disk", "reader"])
def test_a_run_outlives_its_output(stage, tmp_path, sink, request, tally):
    """Its log's disk is full, or whoever read it is gone after a line."""
    if sink == "reader":
        request.getfixturevalue("full")
    scene = stage(GRID)
    output = "> /dev/full 2>&1" if sink == "disk" else "2>&1 | head -n 1"
    command = f"{shlex.join(HPO)} run study.toml --seeds 2 {output}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=sink == "reader", timeout=60)
    wait_for(lambda: (tmp_path / "reports/study/index.html").is_file())
    check_grid(scene.trials(), 3, 2)
    what = {
        "disk": "a run whose log is on a full disk",
        "reader": "a run whose output nobody reads on",
    }[sink]
    tally("4.4" if sink == "disk" else "4.5", what, 1, "run and report are whole")


def test_a_closed_terminal_stops_a_run_with_its_report(stage, tmp_path, full, tally):
    scene = stage(GRID.replace("epochs = 4", "epochs = 2000"))
    pid, terminal = pty.fork()
    if not pid:  # the run, whose terminal it is
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
        os.execv(HPO[0], [*HPO, "run", "study.toml"])
    wait_for(lambda: scene.states()["RUNNING"] and select.select([terminal], [], [], 0)[0])
    family = children(pid)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    wait_for(lambda: not any(map(alive, family)), seconds=5)
    assert (tmp_path / "reports/study/index.html").is_file()
    assert set(scene.states()) == {"FAIL"}, "none is left running"
    tally("4.6", "the terminal of a run closed", 1, "stopped as by Ctrl-C, report written")
