"""Storages that are locked, full, cut off, restarted, damaged: waited for, or a clear line."""

import os
import random
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import TrialState
from scenes import GRID, HPO, Scene, check_grid, ended, fill, wait_for

from hpo.errors import InputError
from hpo.storage.open import open_storage
from hpo.storage.retry import StorageLost, retrying

# Half a second a trial: there is time to do harm in the middle.
SLOW = GRID.replace("epochs = 4", "epochs = 20").replace("width = 80", "width = 200")
TRIALS = 3 * 6


def running(scene: Scene) -> subprocess.Popen:
    """A run, once some of its trials are finished."""
    process = scene.start()
    wait_for(lambda: scene.finished() >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    return process


def went_on(scene: Scene, process: subprocess.Popen, before: int) -> str:
    """The run ends well, with all trials, of which some came after the fault."""
    output = ended(process)
    assert process.returncode == 0, output
    assert before < TRIALS
    check_grid(scene.trials(), 3, 6)
    return output


def more(scene: Scene, process: subprocess.Popen, before: int) -> bool:
    return scene.finished() > before or process.poll() is not None


# --- SQLite ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_database_that_another_writer_locks_is_waited_for(stage, tmp_path, amount, tally):
    seconds = amount(4, 20)
    scene = stage(SLOW)
    process = running(scene)
    with closing(sqlite3.connect(tmp_path / "hpo.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        before = scene.finished()
        time.sleep(seconds)
        assert scene.finished() == before
        other.rollback()
        output = went_on(scene, process, before)
    assert "storage sqlite:///hpo.db: database is locked; waiting for it" in output
    assert "storage sqlite:///hpo.db: is back after" in output
    tally("3.1", f"SQLite locked by another writer for {seconds} s", 1, "waited, went on")


def test_a_database_that_is_locked_at_the_start_is_waited_for(full, stage, tmp_path, amount, tally):
    seconds = amount(3, 20)
    scene = stage(GRID)
    with closing(sqlite3.connect(tmp_path / "hpo.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        process = scene.start()
        time.sleep(seconds)
        other.rollback()
    output = ended(process)
    assert process.returncode == 0, output
    check_grid(scene.trials(), 3, 6)
    tally("3.2", f"SQLite locked for {seconds} s when the run starts", 1, "waited, went on")


def test_a_full_disk_under_sqlite_is_waited_for(full, stage, small_disk, tally):
    disk = small_disk("8m")
    scene = stage(SLOW, "sqlite:///disk/hpo.db")
    process = running(scene)
    filler = fill(disk)
    before = scene.finished()
    time.sleep(4)
    filler.unlink()
    output = went_on(scene, process, before)
    assert "full; waiting for it" in output
    tally("3.3", "disk full under SQLite (a tmpfs), then freed", 1, "waited, went on")


def test_ctrl_c_while_the_disk_is_full_stops_and_the_rest_is_run_later(
    full, stage, tmp_path, small_disk, tally
):
    disk = small_disk("8m")
    scene = stage(SLOW, "sqlite:///disk/hpo.db")
    process = running(scene)
    filler = fill(disk)
    before = {t.number for t in scene.trials() if t.state.name == "COMPLETE"}
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    output = ended(process, 20)
    assert process.returncode == 130, output
    assert "finished trials are stored, the same command goes on" in output
    assert (tmp_path / "reports/study/index.html").is_file(), "of what can be read"
    filler.unlink()
    scene.whole()
    check_grid(scene.trials(), 3, 6)
    assert before <= {t.number for t in scene.trials() if t.state.name == "COMPLETE"}
    tally("3.4", "disk full, then Ctrl-C", 1, "130, report of what there is; resumed: all there")


def test_a_power_cut_costs_the_last_moments_alone(full, stage, tmp_path, tally):
    """What a disk may hold then: of the write-ahead log a part, and rubbish where it ended."""
    cuts, rng = 20, random.Random(0)
    scene = stage(SLOW)
    process = running(scene)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    database, log = tmp_path / "hpo.db", tmp_path / "hpo.db-wal"
    held, logged = database.read_bytes(), log.read_bytes()  # whoever looks in writes them down
    finished = {trial.number: trial.values for trial in scene.trials() if trial.values}
    kept = []
    for _ in range(cuts):
        database.write_bytes(held)
        log.write_bytes(logged[: rng.randrange(len(logged))] + rng.randbytes(rng.randrange(5000)))
        (tmp_path / "hpo.db-shm").unlink(missing_ok=True)
        there = {trial.number: trial.values for trial in scene.trials() if trial.values}
        assert there.items() <= finished.items()
        kept.append(len(there))
        scene.whole()
        check_grid(scene.trials(), 3, 6)
        assert there.items() <= {t.number: t.values for t in scene.trials() if t.values}.items()
    assert len(set(kept)) > 1
    outcome = "the trials of before the cut kept, the rest run again"
    tally("3.14", "SQLite's log cut at a random byte, as by a power cut", cuts, outcome)


def test_retries_have_an_end(small_disk):
    disk = small_disk("1m")
    said: list[str] = []
    url = f"sqlite:///{disk / 'hpo.db'}"
    storage = retrying(open_storage(url), url, said.append)
    study = storage.create_new_study([1], "study")
    fill(disk)
    storage.seconds = 3.0
    with pytest.raises(StorageLost, match="full, for 3 s; finished trials are stored"):
        storage.set_study_user_attr(study, "one", "x" * 1_000_000)
    assert len(said) == 1
    started = time.monotonic()
    with pytest.raises(StorageLost):  # whoever cleans up now does not wait again
        storage.set_study_user_attr(study, "other", "x" * 100_000)
    assert time.monotonic() - started < 2


def test_a_database_on_a_read_only_disk_is_refused(full, stage, tmp_path, small_disk, tally):
    disk = small_disk("8m")
    scene = stage(GRID, "sqlite:///disk/hpo.db")
    scene.whole("--seeds", "1")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    output = scene.whole("--seeds", "2", code=2)
    assert output.startswith("hpo: storage sqlite:///disk/hpo.db: cannot be written"), output
    shown = [*HPO, "show", "study", "--storage", scene.url]
    assert (
        "3 COMPLETE"
        in subprocess.run(shown, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    )
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    scene.whole("--seeds", "2")
    check_grid(scene.trials(), 3, 2)
    tally("3.5", "SQLite on a disk that became read-only", 1, "refused in a line; later resumed")


@pytest.mark.parametrize(
    ("what", "word"),
    [("cut in half", "malformed"), ("text", "not a database"), ("of an older schema", "upgrade")],
)
def test_a_damaged_database_is_refused_in_a_line(full, stage, tmp_path, what, word, tally):
    scene = stage(GRID)
    file = tmp_path / "hpo.db"
    if what == "text":
        file.write_text("Dear diary,\n" * 1000)
    else:
        scene.whole("--seeds", "2")
    if what == "cut in half":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.truncate(file, file.stat().st_size // 2)
    if what == "of an older schema":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
            connection.commit()
    content = file.read_bytes()
    for command in ("run", "show", "report"):
        study = "study.toml" if command == "run" else "study"
        answer = subprocess.run(
            [*HPO, command, study], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert answer.returncode == 2, (command, answer)
        lines = answer.stderr.splitlines()
        assert lines
        assert all(line.startswith("hpo: storage sqlite:///hpo.db") for line in lines), lines
        assert word in answer.stderr, answer.stderr
    if what == "text":
        assert file.read_bytes() == content
    numbers = {"cut in half": "3.6", "text": "3.7", "of an older schema": "3.8"}
    tally(numbers[what], f"SQLite file {what}: run, show, report", 3, "refused in a line")


# --- a journal file ----------------------------------------------------------------------------


def test_a_full_disk_under_a_journal_is_waited_for(full, stage, small_disk, tally):
    disk = small_disk("1m")
    scene = stage(SLOW, "journal:///disk/hpo.log")
    process = running(scene)
    filler = fill(disk)
    before = scene.finished()
    time.sleep(4)
    filler.unlink()
    output = went_on(scene, process, before)
    assert "No space left on device; waiting for it" in output
    tally("3.9", "disk full under a journal file, then freed", 1, "waited, went on")


def test_a_journal_whose_last_line_was_cut_off_goes_on(full, stage, tmp_path, tally):
    scene = stage(GRID, "journal:///hpo.log")
    scene.whole("--seeds", "1")
    with open(tmp_path / "hpo.log", "ab") as file:
        file.write(b'{"op_code":7,"worker_id":"x","trial_')
    scene.whole("--seeds", "2")
    check_grid(scene.trials(), 3, 2)
    tally("3.10", "journal whose last line is cut off", 1, "the line goes, the rest went on")


def test_a_journal_survives_kills(full, stage, amount, tally):
    kills, seeds = amount(2, 20), amount(6, 30)
    scene = stage(SLOW, "journal:///hpo.log")
    for _ in range(kills):
        before = scene.finished()
        process = scene.start("--seeds", str(seeds))
        wait_for(partial(more, scene, process, before))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert scene.finished() >= before
    scene.whole("--seeds", str(seeds))
    check_grid(scene.trials(), 3, seeds)
    tally("3.11", "`kill -9` of everything, on a journal file", kills, "all there, each once")


@pytest.mark.parametrize("content", [b"Dear diary", b"Dear diary\n", b'{"a": 1}\n', b"\0" * 500])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, content):
    (tmp_path / "hpo.log").write_bytes(content)
    with pytest.raises(InputError, match=r"is no journal of Optuna's, or is damaged"):
        open_storage(f"journal:///{tmp_path / 'hpo.log'}")
    assert (tmp_path / "hpo.log").read_bytes() == content


def test_an_operation_after_a_torn_line_takes_its_place(tmp_path):
    url, file = f"journal:///{tmp_path / 'hpo.log'}", tmp_path / "hpo.log"
    open_storage(url).create_new_study([StudyDirection.MAXIMIZE], "one")
    whole = file.read_bytes()
    for torn in (b'{"op_code":0,"stu', b"\0" * 300, whole[:-1] * 2000):  # longer than a block, too
        file.write_bytes(whole + torn)
        storage = open_storage(url)
        assert len(storage.get_all_studies()) == 1
        storage.create_new_study([StudyDirection.MAXIMIZE], "two")
        assert [study.study_name for study in open_storage(url).get_all_studies()] == ["one", "two"]
        assert len(file.read_bytes().splitlines()) == 2


# --- PostgreSQL --------------------------------------------------------------------------------


def cut(server: Any, name: str) -> int:
    """Ends every connection to a database, as a network or an administrator does."""
    engine = sqlalchemy.create_engine(server.get_uri(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ).all()
    engine.dispose()
    return len(rows)


def test_cut_connections_to_postgresql_are_made_again(full, stage, postgres, amount, tally):
    scene = stage(SLOW, postgres("cut"))
    cuts, most = 0, amount(5, 40)
    process = running(scene)
    before = scene.finished()
    while process.poll() is None and cuts < most:
        cuts += cut(postgres.server, "cut")
        time.sleep(0.15)
    went_on(scene, process, before)
    assert cuts >= 2
    tally("3.12", "connections to PostgreSQL cut", cuts, "made again, nothing lost or doubled")


def test_a_postgresql_that_restarts_is_waited_for(full, stage, postgres, tally):
    scene = stage(SLOW, postgres("restart"))
    process = running(scene)
    before = scene.finished()
    postgres.server.stop()
    time.sleep(3)
    postgres.server.ensure_postgres_running()
    output = went_on(scene, process, before)
    assert "waiting for it" in output
    assert "is back after" in output
    tally("3.13", "PostgreSQL restarted in the middle, 3 s away", 1, "waited, went on")


def test_two_answers_lost_make_no_trial_twice(tmp_path):
    """The worst moment for a connection: the trial is made, and nobody hears of it."""

    class Deaf:
        def __init__(self, backend):
            self.backend, self.deaf = backend, True

        def __getattr__(self, name):
            call = getattr(self.backend, name)
            if name not in ("create_new_trial", "set_trial_state_values"):
                return call

            def lost(*args, **kwargs):
                found = call(*args, **kwargs)
                self.deaf = not self.deaf
                if not self.deaf:
                    raise ConnectionResetError("cut")
                return found

            return lost

    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    storage = retrying(open_storage(url), url, print)
    study = storage.create_new_study([1], "study")
    storage.backend = Deaf(storage.backend)
    made = [storage.create_new_trial(study) for _ in range(3)]
    for trial in made:
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
    found = storage.get_all_trials(study)
    assert [t._trial_id for t in found] == made
    assert [t.state.name for t in found] == ["COMPLETE"] * 3
