"""Two runs of a study, on one machine and as if on two; two studies in one file."""

import os
import re
import signal
import subprocess
import tempfile

import optuna
import pytest
from scenes import GRID, check_grid, ended, wait_for

from hpo.errors import InputError
from hpo.storage import lock
from hpo.storage.lock import Holder, only_run
from hpo.storage.open import open_storage

SLOW = GRID.replace("epochs = 4", "epochs = 20").replace("width = 80", "width = 200")


def stop(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_second_run_is_refused_with_who_holds_it_and_a_dead_holder_is_replaced(stage, tally):
    scene = stage(SLOW)
    first = scene.start()
    wait_for(lambda: scene.states()["RUNNING"])
    output = scene.whole(code=2)
    host = re.escape(os.uname().nodename)
    who = rf"being run by process {first.pid} on {host} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.search(who, output), output
    assert scene.states()["FAIL"] == 0
    stop(first)
    assert "NOTE" not in scene.whole("--seeds", "1")  # taken over without a wait
    assert scene.states()["RUNNING"] == 0
    tally("2.1", "a second run of a study, on one machine", 1, "refused: host, pid, since when")
    tally("2.2", "its holder killed, then run again", 1, "taken over at once")


def test_a_holder_elsewhere_is_known_by_its_beat(full, stage, tmp_path, tally):
    """Another folder for locks is as good as another machine: only the storage knows of it."""
    scene = stage(SLOW.replace("seeds = 6", "seeds = 60"))
    (tmp_path / "elsewhere").mkdir()
    first = scene.start()
    wait_for(lambda: scene.states()["RUNNING"])
    output = scene.whole(code=2, TMPDIR=str(tmp_path / "elsewhere"))
    assert f"is being run by process {first.pid}" in output
    stop(first)
    process = scene.start("--seeds", "60", TMPDIR=str(tmp_path / "elsewhere"))
    before = scene.finished()
    wait_for(lambda: scene.finished() > before)
    os.killpg(process.pid, signal.SIGINT)
    output = ended(process)
    assert "waiting up to 25 s for a sign of life" in output
    assert process.returncode == 130
    tally("2.3", "a second run as if on another machine", 1, "refused: the first one's mark beats")
    tally("2.4", "that one killed, then run from elsewhere", 1, "taken over after 25 s of silence")


@pytest.fixture
def study(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    yield optuna.create_study(study_name="study", storage=storage)
    storage.engine.dispose()


def test_a_run_that_was_taken_for_dead_stops_at_its_next_beat(study, monkeypatch):
    monkeypatch.setattr(lock, "DEAD_SECONDS", 1.0)
    said = []
    sleeper, other = Holder("there", said.append), Holder("here", said.append)
    sleeper.take(study)
    other.take(study)
    assert len(said) == 1
    sleeper.next_heartbeat = 0.0
    with pytest.raises(InputError, match="is being run by process"):
        sleeper.heartbeat()
    sleeper.release()  # leaves the other's mark
    assert study.user_attrs["holder"]["lock"] == "here"
    other.release()
    assert study.user_attrs["holder"] is None


def test_a_mark_that_beats_is_respected_within_a_beat(study):
    first, second = Holder("there", print), Holder("here", print)
    first.take(study)
    theirs = dict(study.user_attrs["holder"])

    def say(text):  # it beats while the other waits
        first.next_heartbeat = 0.0
        first.heartbeat()

    second.say = say
    with pytest.raises(InputError, match="is being run by"):
        second.take(study)
    assert study.user_attrs["holder"]["token"] == theirs["token"]


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with only_run("storage", "study", print):
        assert lock.held("storage", "study")
    assert not lock.held("storage", "study")
    (file,) = tmp_path.glob("*.lock")
    file.rename(tmp_path / "theirs")
    file.symlink_to(tmp_path / "theirs")
    content = file.read_bytes()
    assert content
    with pytest.raises(InputError, match=r"lock .*: cannot be made"):
        only_run("storage", "study", print).__enter__()
    assert file.read_bytes() == content


def test_a_study_that_is_deleted_while_it_runs_ends_in_a_line(full, stage, tmp_path, tally):
    scene = stage(SLOW.replace("seeds = 6", "seeds = 60"))
    process = scene.start()
    wait_for(lambda: scene.finished())
    optuna.delete_study(study_name="study", storage=f"sqlite:///{tmp_path / 'hpo.db'}")
    output = ended(process, 30)
    assert process.returncode == 2, output
    assert "was deleted while it ran" in output.splitlines()[-1]
    tally("2.6", "a study deleted (as in the dashboard) while it runs", 1, "exit 2 with a line")


def test_two_studies_share_a_file(full, stage, amount, tally):
    seeds = amount(6, 40)
    one, two = stage(GRID), stage(GRID, name="other")
    processes = [scene.start("--seeds", str(seeds), "--workers", "1") for scene in (one, two)]
    for process in processes:
        output = ended(process)
        assert process.returncode == 0, output
    check_grid(one.trials(), 3, seeds)
    check_grid(two.trials(), 3, seeds)
    tally("2.5", "two studies on one SQLite file at once", 2, f"{3 * seeds} trials each, all there")
