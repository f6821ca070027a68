"""Progress from the storage alone, as `hpo show` prints it."""

import dataclasses
import io
import json
import re
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console
from test_report import store
from test_search_cli import await_trials
from tiny import SEARCH

from hpo.errors import InputError
from hpo.report.figures.trial import CurvePicture
from hpo.results.load import load_study
from hpo.results.study import StoredGrid
from hpo.runs.plan import Job, Plan
from hpo.runs.progress import Progress
from hpo.storage import lock
from hpo.storage.open import open_storage
from hpo.study.columns import METRICS
from hpo.study.config import Config
from hpo.watch import artifacts, listing, terminal
from hpo.watch import progress as watching
from hpo.watch.artifacts import CurveArtifacts, remove
from hpo.watch.fitted import print_line
from hpo.watch.progress import Display, render
from hpo.workers import provenance
from hpo.workers.messages import Task

CONFIG = Config(depth=1, width=8, activation="relu", optimizer="sgd", lr=0.1)
SESSION = {**provenance.collect("hpo run"), "started": 0.0, "workers": 2, "device": "cpu"}


def job(label: str) -> Job:
    task = Task(id=1, config=CONFIG, seeds=())
    return Job(task=task, label=label, trials=[], names=[], cost=1.0)


def text_of(renderable, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def add_running(study: optuna.Study, like: int, seeds: list[int], epoch: int, ago: float) -> None:
    """A stack of running trials of a stored cell."""
    known = study.trials[like]
    for seed in seeds:
        trial = create_trial(
            state=TrialState.RUNNING,
            params=known.params,
            distributions=known.distributions,
            user_attrs={"cell": known.user_attrs["cell"], "seed": seed, "stack": len(seeds)},
            intermediate_values=dict.fromkeys(range(1, epoch + 1), 0.5),
        )
        trial.datetime_start = datetime.now() - timedelta(seconds=ago)
        study.add_trial(trial)


@pytest.fixture
def running(tmp_path: Path) -> StoredGrid:
    """A grid with three seeds of every cell, a stack of two more under way, 8 wanted."""
    store(tmp_path, data={"features": 784})
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.load_study(study_name="grid-report", storage=storage)
    study.set_user_attr("seeds", 8)
    study.set_user_attr("sessions", [SESSION | {"started": time.time() - 30}])
    progress = Progress(
        title="grid-report", total=64, done=24, best="validation accuracy 95.00%, tanh seed 1",
        workers=["baseline seeds 3–4, epoch 4/10"], started=time.monotonic() - 30,
    )  # fmt: skip
    progress.expect(60)
    study.set_user_attr(watching.PROGRESS, progress.as_json())
    add_running(study, 0, [3, 4], epoch=4, ago=10)
    found = load_study(storage, "grid-report")
    assert isinstance(found, StoredGrid)
    return found


def test_a_running_grid_is_shown_as_its_run_shows_it(running):
    shown = text_of(render(watching.read_progress(running, here=True)))
    assert "24/64" in shown
    assert "baseline seeds 3–4, epoch 4/10" in shown
    assert "best" in shown
    assert re.search(r"3\d s, about .* left", shown)


def test_a_list_says_which_study_is_running(running, tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    for here, kind in ((True, "grid, running"), (False, "grid")):
        [row] = listing.stored_studies(storage, lambda _, here=here: here).table.rows
        assert (row.name, row.kind, row.finished) == (running.name, kind, "24 trials")


def test_a_progress_survives_json():
    progress = Progress(title="grid", total=4, done=2, workers=["a"], best="b")
    progress.expect(60)
    read = Progress.from_json(json.loads(json.dumps(progress.as_json())))
    same = {"started": 0.0, "finish": 0.0}
    assert dataclasses.replace(read, **same) == dataclasses.replace(progress, **same)
    assert read.started == pytest.approx(progress.started, abs=0.1)
    assert read.finish == pytest.approx(progress.finish, abs=0.1)


def test_a_study_without_a_stored_progress_is_counted(running):
    """Of an earlier version's run."""
    progress = watching.read_progress(dataclasses.replace(running, progress=None), here=True)
    assert (progress.done, progress.total, progress.workers) == (24, 64, [])
    assert "validation accuracy" in progress.best


def test_trials_left_running_by_a_killed_run_are_said(running):
    said = [text_of(part, 200) for part in watching.views(running, here=False)]
    assert "2 trials are marked as running, but nothing runs the study" in said[-1]
    assert "left" not in said[0]
    assert "epoch" not in said[0]
    assert len(list(watching.views(running, here=True))) == 1


def test_a_run_on_another_machine_is_shown_as_under_way(running):
    session = {**running.sessions[-1], "host": "another"}
    elsewhere = dataclasses.replace(running, sessions=[session])
    [shown] = watching.views(elsewhere, here=False)
    assert "baseline seeds 3–4, epoch 4/10" in text_of(shown)


def test_a_trial_that_will_run_again_has_not_failed(running):
    frame = running.trials.astype({"fail_reason": object})
    frame.loc[:2, "state"] = "FAIL"
    frame.loc[:2, "fail_reason"] = ["stopped", "RuntimeError: no memory", "out of time"]
    stopped = dataclasses.replace(running, trials=frame)
    assert watching.read_progress(stopped, here=False).failed == 1


def test_what_a_run_stopped_is_not_called_failed(running):
    frame = running.trials.astype({"fail_reason": object})
    frame.loc[:2, "state"] = "FAIL"
    frame.loc[:2, "fail_reason"] = ["stopped", "RuntimeError: no memory", "out of time"]
    first, *_ = terminal.terminal(dataclasses.replace(running, trials=frame))
    assert first.endswith(": 21 complete, 1 failed, 2 stopped, 2 running")


def test_finalists_have_trainings_and_no_trials(ended_search):
    storage = open_storage(f"sqlite:///{ended_search.folder / 'hpo.db'}")
    search, tested = load_study(storage, "tiny").parts
    shown = [text_of(render(watching.read_progress(part, here=False))) for part in (search, tested)]
    assert ["trials" in text for text in shown] == [True, False]
    assert ["trainings" in text for text in shown] == [False, True]
    assert "best training: " in "\n".join(map(text_of, terminal.terminal(tested)))
    assert Plan("tiny: the winner").progress(0.0).counts == "0/0 trainings"


def test_a_watch_waits_for_a_study_that_has_not_begun(tmp_path, monkeypatch):
    """It has no storage first, then no study, then one that no run has begun."""
    url, file = f"sqlite:///{tmp_path / 'hpo.db'}", io.StringIO()
    steps = [
        lambda: open_storage(url),
        lambda: optuna.create_study(storage=url, study_name="grid-report"),
        lambda: optuna.delete_study(storage=url, study_name="grid-report"),
        lambda: store(tmp_path),
    ]
    monkeypatch.setattr(watching.time, "sleep", lambda _: steps.pop(0)())
    console = Console(file=file, width=200, highlight=False)
    opened = watching.begun(lambda: open_storage(url, create=False), "grid-report", console)
    assert not steps
    [line] = file.getvalue().splitlines()
    assert line.startswith("waiting for study grid-report to begin (storage sqlite:///")
    assert load_study(opened, "grid-report").name == "grid-report"


def test_a_watch_does_not_wait_for_what_no_run_can_begin(tmp_path):
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    study = optuna.create_study(storage=open_storage(url), study_name="mine")
    study.add_trial(create_trial(value=0.5))
    with pytest.raises(InputError, match="study 'mine': was not made by hpo"):
        watching.begun(lambda: open_storage(url, create=False), "mine", Console())


def test_an_ended_study_says_how_long_it_took(tmp_path):
    stored = store(tmp_path)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.load_study(study_name="grid-report", storage=storage)
    sessions = [SESSION | {"seconds": 60.0}] * 2
    study.set_user_attr("sessions", sessions)
    found = watching.read_progress(load_study(storage, stored.name), here=False)
    assert (found.done, found.total, found.workers) == (24, 24, [])
    assert "2 min 00 s" in text_of(render(found))
    assert "left" not in text_of(render(found))


def test_hundreds_of_workers_have_one_line():
    progress = Progress(title="big", total=9, workers=["a trial"] * 20 + [""] * 80)
    lines = text_of(render(progress)).splitlines()
    assert len(lines) == 2 + 16 + 1
    assert "84 more" in lines[-1]
    assert "4 are training" in lines[-1]


def test_nodes_that_are_missing_have_a_line():
    said = "waiting for nodes: 2 of 4 are there"
    progress = Progress(title="big", total=9, workers=["a trial"])
    assert "nodes" not in text_of(render(progress))
    progress.waiting = said
    assert said in text_of(render(Progress.from_json(progress.as_json())))


def test_the_best_comes_before_the_workers_with_its_value_first():
    network = "trial 3 (4 × 1024 leaky_relu, sgd_momentum at 0.00012)"
    progress = Progress(title="search", total=50, done=7, workers=[f"{network}, epoch 3/8"])
    progress.take_best(network, 0.9138, "parameters 12,345")
    lines = [line.rstrip() for line in text_of(render(progress), 60).splitlines()]
    assert lines[0] == "search: 7/50 trials"
    assert lines[2:] == [
        "best      validation accuracy 91.38%, parameters 12,345,",
        "          trial 3 (4 × 1024 leaky_relu, sgd_momentum at",
        "          0.00012)",
        "worker 1  trial 3 (4 × 1024 leaky_relu, sgd_momentum at",
        "          0.00012), epoch 3/8",
    ]


@pytest.mark.parametrize("here", [True, False])
def test_sentences_break_between_words_on_a_terminal_only(here: bool):
    out = Console(file=io.StringIO(), width=20, force_terminal=here, highlight=False)
    print_line(out, "a word and another of /a/path/longer/than/that")
    lines = ["a word and another", "of", "/a/path/longer/than/that"]
    assert out.file.getvalue() == ("\n" if here else " ").join(lines) + "\n"


def test_a_live_display_draws_over_itself_and_leaves_one_render():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=90, highlight=False)
    progress = Progress(title="grid", total=4, workers=["a", "b"])
    display = Display(quiet=False, console=console)
    display.on_start(None, progress)
    for done in range(1, 5):
        progress.done = done
        display.on_end(job("never a line beside the display"), "trained")
        assert display.live is not None
        display.live.refresh()
    progress.workers = []
    display.on_finish()
    left = file.getvalue().rsplit("\x1b[1A", 1)[-1]
    assert "never" not in file.getvalue()
    assert left.count("grid") <= 1
    assert "worker" not in left


def test_a_lock_is_seen_without_being_taken(tmp_path):
    assert not lock.held("storage", str(tmp_path))
    with lock.only_run("storage", str(tmp_path), print):
        assert lock.held("storage", str(tmp_path))
        assert lock.held("storage", str(tmp_path))
    assert not lock.held("storage", str(tmp_path))


# --- whole commands ----------------------------------------------------------------------------


@pytest.mark.slow
def test_watch_follows_a_run_from_elsewhere_to_its_end(hpo, hpo_process, tmp_path):
    """And a folder of pictures that cannot be written costs the run a line, and no trial."""
    (tmp_path / "tiny.toml").write_text(SEARCH)
    (tmp_path / "hpo.artifacts").write_text("a file stands where the folder would be")
    process = hpo_process("run", "tiny.toml", "--quiet")
    await_trials(tmp_path)
    watched = hpo("show", "tiny", "--watch")
    assert hpo("show", "tiny.finalists").out.count("finalists") >= 1
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "hpo.artifacts: cannot be written" in err
    assert err.count("\n") == 1
    assert watched.code == 0, watched.err
    assert "tiny: 8/8 trials" in watched.out
    assert "tiny.finalists: 6/6 trainings" in watched.out
    assert "the winner" in watched.out
    assert artifacts_of(tmp_path, "tiny") == [[]] * 8


@pytest.mark.slow
def test_a_stop_ends_a_watch_and_not_the_study(hpo_process, tmp_path):
    (tmp_path / "tiny.toml").write_text(SEARCH)
    process = hpo_process("run", "tiny.toml", "--trials", "100000", "--quiet")
    await_trials(tmp_path)
    watcher = hpo_process("show", "tiny", "--watch")
    assert "trials" in watcher.stdout.readline()
    watcher.terminate()  # as Ctrl-C, which a shell's background job may ignore
    _, err = watcher.communicate(timeout=20)
    assert (watcher.returncode, err) == (130, "")
    assert process.poll() is None


# --- pictures of trials ------------------------------------------------------------------------


def artifacts_of(folder: Path, name: str) -> list[list[Any]]:
    storage = open_storage(f"sqlite:///{folder / 'hpo.db'}")
    study = optuna.load_study(study_name=name, storage=storage)
    return [optuna.artifacts.get_all_artifact_meta(t, storage=storage) for t in study.trials]


def test_every_trial_carries_its_curve_and_what_sorts(ended_search):
    folder = ended_search.folder
    for name in ("tiny", "tiny.finalists"):
        found = artifacts_of(folder, name)
        assert all(len(of) == 1 for of in found)
        for [meta] in found:
            assert (meta.filename, meta.mimetype) == ("learning-curve.png", "image/png")
            png = (folder / "hpo.artifacts" / meta.artifact_id).read_bytes()
            assert png.startswith(b"\x89PNG")
    storage = open_storage(f"sqlite:///{folder / 'hpo.db'}")
    for trial in optuna.load_study(study_name="tiny", storage=storage).trials:
        for key in ("train_seconds", "parameters", "train_valid_gap", "diverged"):
            value = trial.user_attrs[key]
            assert isinstance(value, (int, float))
            assert not isinstance(value, bool)


def test_a_deleted_studys_pictures_go_with_it(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    folder, curve = tmp_path / "artifacts", {metric: [0.5] for metric in METRICS}
    drawing = CurveArtifacts(storage, folder, print)
    studies = [optuna.create_study(storage=storage) for _ in range(2)]
    for study in studies:
        drawing.on_trial(study.ask()._trial_id, curve, 2)
    assert len(list(folder.iterdir())) == 2
    remove(storage, studies[0]._study_id, folder)
    [left] = folder.iterdir()
    [[meta]] = [
        optuna.artifacts.get_all_artifact_meta(trial, storage=storage)
        for trial in studies[1].trials
    ]
    assert left.name == meta.artifact_id
    remove(storage, studies[1]._study_id, folder)
    assert not folder.exists()


def test_a_picture_deleted_in_the_dashboard_does_not_stop_a_deletion(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    drawing = CurveArtifacts(storage, tmp_path / "artifacts", print)
    study = optuna.create_study(storage=storage)
    trial = study.ask()._trial_id
    for _ in range(2):
        drawing.on_trial(trial, {metric: [0.5] for metric in METRICS}, 2)
    first = next(key for key in storage.get_trial(trial).system_attrs if "artifact" in key)
    storage.set_trial_system_attr(trial, first, json.dumps(None))  # as optuna-dashboard does
    remove(storage, study._study_id, tmp_path / "artifacts")
    assert len(list((tmp_path / "artifacts").iterdir())) == 1


def test_a_folder_that_goes_away_costs_a_line_and_no_trial(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.create_study(storage=storage, direction="maximize")
    drawing = CurveArtifacts(storage, tmp_path / "artifacts", print)
    said: list[str] = []
    drawing.say = said.append
    (tmp_path / "artifacts").rmdir()
    curve = {metric: [0.5, None] for metric in METRICS}
    trial = study.ask()
    drawing.on_trial(trial._trial_id, curve, 2)
    drawing.on_trial(trial._trial_id, curve, 2)
    assert ["cannot be written" in line for line in said] == [True]
    study.tell(trial, 0.5)


@pytest.mark.parametrize("values", [[None], [1e30, 2.0], [0.1, 0.2, 0.3], [0.0]])
def test_any_curve_can_be_drawn(values):
    drawing = CurvePicture()
    curve = dict.fromkeys(METRICS, values)
    assert drawing.png(curve, 5).startswith(b"\x89PNG")
    assert drawing.png(curve, 5).startswith(b"\x89PNG")


def test_pictures_are_left_out_where_trials_end_too_fast(tmp_path, monkeypatch):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    folder, curve, told = tmp_path / "artifacts", {metric: [0.5] for metric in METRICS}, []
    monkeypatch.setattr(artifacts, "AT_ONCE", 1e-6)
    monkeypatch.setattr(artifacts, "SHARE", 0.0)
    drawing = CurveArtifacts(storage, folder, told.append)
    study = optuna.create_study(storage=storage)
    for _ in range(5):
        drawing.on_trial(study.ask()._trial_id, curve, 2)
    assert len(list(folder.iterdir())) == 1
    assert told == ["trials end too fast to draw all of them; some have no picture"]
