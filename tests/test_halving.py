"""Asynchronous successive halving: trials pause, go on from their weights, and end as PRUNED."""

import tomllib
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from in_process import markdown, opened, prepared
from optuna.trial import TrialState
from own_runs import hpo_in
from tiny import tiny_dataset

from hpo.results.load import load_study
from hpo.results.study import StoredSearch
from hpo.runs import runner
from hpo.runs.halving import PausedStorage, Rungs, last_rung, next_rung
from hpo.runs.loop import End
from hpo.runs.plan import Job, Watcher
from hpo.runs.search import SearchPlan
from hpo.runs.study import open_study
from hpo.study.config import Config, Seeds
from hpo.study.file import parse
from hpo.workers import worker
from hpo.workers.messages import Done, EpochDone, Paused, Task
from hpo.workers.worker import Trainer

SEARCH = """
title = "Halved"
dataset = "mnist-5k"
[search]
n_trials = 20
sampler = "random"
pruner = "asha"
[finalists]
k = 2
seeds = 2
[space]
depth = [1, 2]
width = { low = 4, high = 32, log = true }
activation = ["relu", "tanh"]
optimizer = ["sgd", "adam"]
lr = { low = 1e-3, high = 0.3, log = true }
norm = ["none", "batch"]
dropout = { low = 0.0, high = 0.2 }
schedule = "linear"
batch_size = 16
epochs = 8
"""


def prepared_search(folder: Path, text: str = SEARCH, **options):
    file = parse(tomllib.loads(text), "halved", "halved.toml")
    return prepared(file, opened(folder), tiny_dataset(), **options)


def searched(folder: Path, text: str = SEARCH, **options) -> StoredSearch:
    run = prepared_search(folder, text, out=folder / "reports", **options)
    assert runner.run_search(run) is End.COMPLETE
    stored = load_study(run.storage, run.name)
    assert isinstance(stored, StoredSearch)
    return stored


# --- the rule ------------------------------------------------------------------------------------


def test_rungs_lie_in_the_first_half_of_a_training():
    found = {epochs: [] for epochs in (1, 2, 5, 6, 8, 18, 60)}
    for epochs, rungs in found.items():
        done = 0
        while done := next_rung(done, epochs):
            rungs.append(done)
    assert found == {
        1: [], 2: [1], 5: [1], 6: [1, 3], 8: [1, 3], 18: [1, 3, 9], 60: [1, 3, 9, 27],
    }  # fmt: skip


def test_a_trial_is_judged_by_the_rung_that_it_came_to_last():
    assert [last_rung(done) for done in (1, 2, 3, 7, 8, 9, 26, 27)] == [1, 1, 3, 3, 3, 9, 9, 27]


def test_the_best_third_leads_and_of_equal_ones_the_earlier():
    rungs = Rungs()
    for trial, gain in enumerate((0.5, 0.9, 0.7, 0.9, 0.1, 0.2, 0.3)):
        rungs.add(trial, {1: gain})
    assert [t for t in range(7) if rungs.leads(t, 1, 0)] == [1, 3]
    assert [t for t in range(7) if rungs.leads(t, 1, 3)] == [1, 2, 3]
    rungs.add(8, {1: 0.95, 3: 0.99})
    assert [t for t in (0, 1, 2, 3, 8) if rungs.leads(t, 1, 0)] == [1, 8]
    assert not rungs.leads(8, 3, 0), "a third of one is none"


def test_a_sampler_learns_from_paused_trials_as_from_pruned_ones():
    memory = PausedStorage()
    study = optuna.create_study(storage=memory)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(0.3, 1)
    memory.pause(trial._trial_id)
    [shown] = study.get_trials(states=(TrialState.PRUNED,))
    assert (shown.intermediate_values, shown.params) == ({1: 0.3}, trial.params)
    del memory.paused[trial.number]
    trial.report(0.1, 2)
    study.tell(trial, 0.1)
    assert study.best_value == 0.1


# --- a training that pauses ----------------------------------------------------------------------

CONFIGS = {
    "adam": {"optimizer": "adam", "lr": 0.01, "dropout": 0.3, "norm": "batch", "noise": 0.1},
    "sgd": {"optimizer": "sgd", "lr": 0.1, "ema": 0.9, "warmup": 0.2},
    "best": {"optimizer": "adamw", "lr": 0.1, "keep": "best", "patience": 2},
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kept", [True, False])
def test_a_training_that_pauses_has_the_bits_of_one_that_does_not(
    name: str, kept: bool, monkeypatch: pytest.MonkeyPatch
):
    torch.set_num_threads(1)
    config = Config(depth=2, width=24, activation="relu", batch_size=16, epochs=9, **CONFIGS[name])
    seeds = tuple(map(Seeds.of, (3, 4)))
    task = Task(id=1, config=config, seeds=seeds, test=True)
    other = Task(id=2, config=config, seeds=seeds[:1])

    def trained(*parts: Task) -> list[EpochDone | Done]:
        trainer = Trainer(tiny_dataset(), torch.device("cpu"))
        return [message for part in parts for message in trainer.answers(part, lambda: False)]

    whole = trained(task)
    if not kept:
        monkeypatch.setattr(worker, "KEPT", 0)
    parts = [
        Task(**{**vars(each), "until": until})
        for each, until in ((task, 1), (other, 3), (task, 3), (other, 0), (task, 0))
    ]
    found = [message for message in trained(*parts) if message.task == 1]
    assert sum(isinstance(message, Paused) for message in found) == 2
    ends = [m for m in found if isinstance(m, Done)]
    epochs = {m.number: m for m in found if isinstance(m, EpochDone)}
    again = sum(isinstance(m, EpochDone) for m in found) - len(epochs)
    assert again == (0 if kept else 1 + 3)

    def figures(message: EpochDone | Done) -> dict:
        return {k: v for k, v in vars(message).items() if k != "seconds"}

    assert [figures(m) for m in (*epochs.values(), *ends)] == [figures(m) for m in whole]


# --- a search ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StoredSearch:
    return searched(tmp_path_factory.mktemp("whole"))


def test_the_best_third_goes_on_and_the_others_end_pruned(whole: StoredSearch):
    lengths = {t.number: len(t.user_attrs["curve"]["valid_accuracy"]) for t in whole.frozen}
    states = {t.number: t.state.name for t in whole.frozen}
    sound = [n for n in lengths if not whole.frozen[n].user_attrs["diverged"]]
    assert {lengths[n] for n in sound} == {1, 3, 8}
    for epoch in (1, 3):
        came = [n for n in sound if lengths[n] >= epoch]
        steps = {n: whole.frozen[n].intermediate_values[epoch] for n in came}
        order = sorted(came, key=lambda n: (-steps[n], n))
        least = max(len(came) // 3, 2)  # as many as there are finalists
        assert set(order[:least]) <= {n for n in came if lengths[n] > epoch}
    for trial in whole.frozen:
        length = lengths[trial.number]
        assert states[trial.number] == ("COMPLETE" if length == 8 else "PRUNED")
        assert sorted(trial.intermediate_values) == list(range(1, length + 1))
        if length < 8 and trial.number in sound:
            assert trial.user_attrs["paused_at"] == length
            assert trial.value == trial.user_attrs["curve"]["valid_accuracy"][-1]
    assert whole.tested is not None


def test_curves_are_those_of_trainings_without_pauses(whole: StoredSearch, tmp_path: Path):
    plain = searched(tmp_path, SEARCH.replace('"asha"', '"none"').replace("= 20", "= 20"))
    pairs = zip(plain.frozen, whole.frozen, strict=True)
    for full, trial in pairs:  # the random sampler draws the same
        assert full.params == trial.params
        for metric, values in trial.user_attrs["curve"].items():
            assert full.user_attrs["curve"][metric][: len(values)] == values


class Stop(Watcher):
    """Ends the run with KeyboardInterrupt's signal once so many trials are paused."""

    def __init__(self, paused: int) -> None:
        self.left = paused

    def on_end(self, job: Job, outcome: str) -> None:
        self.left -= outcome.startswith("paused")
        if not self.left:
            signal_itself()


def signal_itself() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGINT)


def test_a_stopped_search_goes_on_with_its_paused_trials(whole: StoredSearch, tmp_path: Path):
    run = prepared_search(tmp_path, watchers=[Stop(9)], out=tmp_path / "reports")
    assert runner.run_search(run) is End.STOPPED
    stopped = load_study(run.storage, run.name)
    paused = [t for t in stopped.frozen if t.state is TrialState.RUNNING]
    assert len(paused) >= 5
    assert all("curve" in t.user_attrs for t in paused)
    assert int(stopped.paused.sum()) == len(paused)
    assert f"{len(paused)} paused" in markdown(stopped, tmp_path)
    again = prepared_search(tmp_path, out=tmp_path / "reports")
    assert runner.run_search(again) is End.COMPLETE
    ended = load_study(run.storage, run.name)
    assert not int(ended.paused.sum())
    for trial in paused:
        now = ended.frozen[trial.number]
        assert now.state in (TrialState.COMPLETE, TrialState.PRUNED)
        curve = now.user_attrs["curve"]["valid_accuracy"]
        assert curve[: len(trial.intermediate_values)] == list(trial.intermediate_values.values())
        assert now.value == curve[-1]
    assert sum(t.state.name == "COMPLETE" for t in ended.frozen) >= 2
    known = {tuple(sorted(t.params.items())) for t in whole.frozen}
    assert {tuple(sorted(t.params.items())) for t in ended.frozen} <= known


class StopAgain(Watcher):
    """Ends the run in the first epoch of a trial that had paused after more."""

    def on_epoch(self, job: Job) -> None:
        if job.paused_at > job.epochs[-1].number:
            signal_itself()


def test_a_trial_that_is_stopped_as_it_begins_anew_keeps_what_it_had(tmp_path: Path):
    run = prepared_search(tmp_path, watchers=[Stop(12)], out=tmp_path / "reports")
    assert runner.run_search(run) is End.STOPPED
    before = {t.number: t for t in load_study(run.storage, run.name).frozen}
    again = prepared_search(tmp_path, watchers=[StopAgain()], out=tmp_path / "reports")
    assert runner.run_search(again) is End.STOPPED
    for trial in load_study(run.storage, run.name).frozen:
        if "paused_at" not in trial.user_attrs:
            continue
        assert trial.state is not TrialState.FAIL
        epochs = trial.user_attrs["paused_at"]
        assert len(trial.user_attrs["curve"]["valid_accuracy"]) >= epochs
        if trial.number in before:
            assert epochs >= before[trial.number].user_attrs.get("paused_at", 0)


def test_a_search_whose_time_is_over_ends_its_paused_trials(tmp_path: Path):
    run = prepared_search(tmp_path, watchers=[Stop(6)], out=tmp_path / "reports")
    assert runner.run_search(run) is End.STOPPED
    late = prepared_search(tmp_path, SEARCH.replace("= 20", "= 20\ntimeout = 1"))
    study = open_study(late)
    study.set_user_attr("sessions", [{**study.user_attrs["sessions"][0], "seconds": 9.0}])
    runner.run_search(late)
    ended = load_study(late.storage, late.name)
    assert {t.state.name for t in ended.frozen} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert [t for t in ended.frozen if t.state is TrialState.PRUNED and "paused_at" in t.user_attrs]


def test_the_last_stretch_is_for_trials_that_can_end(tmp_path: Path):
    run = prepared_search(tmp_path, SEARCH.replace("= 20", "= 200"))
    plan = SearchPlan(run, open_study(run))
    jobs = [plan.next() for _ in range(4)]
    assert all(job and job.task.until == 1 for job in jobs)
    for place, job in enumerate(jobs):
        value = [place / 10]
        epoch = EpochDone(
            task=job.task.id, number=1, train_loss=[1.0], train_accuracy=value, valid_loss=[1.0],
            valid_accuracy=value, seconds=2.0,
        )  # fmt: skip
        job.epochs.append(epoch)
        job.worker = place % 2
        assert plan.judge(job) is None
        plan.pause(job)
    assert plan.next(0, 21.1).task.id == 5, "the best one of four is of worker 1"
    late = plan.next(0, 20.9)  # 1.5 times seven epochs of 2 seconds
    assert (late.task.id, late.task.until) == (3, 3), "of the two finalists, that of the worker"
    assert plan.next(0, 20.8).task.id == 4, "the other one, although another worker has it"
    assert plan.next(0, 100.0) is None


def test_groups_are_refused(tmp_path: Path):
    frame = pd.DataFrame({"a": range(60), "who": [n // 3 for n in range(60)], "y": [0, 1] * 30})
    frame.to_csv(tmp_path / "a.csv", index=False)
    source = '{ file = "a.csv", label = "y", group = "who" }'
    (tmp_path / "s.toml").write_text(SEARCH.replace('"mnist-5k"', source))
    answer = hpo_in(tmp_path, "run", "s.toml")
    assert answer.code == 2
    assert "pruner asha: needs the seeds of a trial trained at once" in answer.err
