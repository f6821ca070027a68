"""Searches: asked, pruned, resumed, ended in finalists, a winner and a saved network."""

import dataclasses
import functools
import io
import math
import random
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from in_process import markdown, opened, prepared
from optuna.trial import TrialState
from rich.console import Console
from tiny import tiny_dataset

from hpo import output
from hpo.errors import InputError
from hpo.model import folder as best
from hpo.model import weights as saved
from hpo.report import contents
from hpo.report import write as report
from hpo.report.blocks.search_tables import finalists_frame
from hpo.report.sections import importance as importances
from hpo.report.sections.course import run_seconds
from hpo.report.sections.trials import at_bounds
from hpo.results import trial as record
from hpo.results.load import load_study
from hpo.results.study import StoredSearch, StoredStudy
from hpo.runs import plan, runner
from hpo.runs.loop import End
from hpo.runs.progress import Progress
from hpo.runs.samplers import check_together
from hpo.runs.search import FAILURES_IN_A_ROW, SearchPlan
from hpo.runs.study import clean_up, open_study
from hpo.study import file as study_file
from hpo.study import finalists
from hpo.study.columns import RESERVED
from hpo.study.config import HYPERPARAMETERS
from hpo.study.metrics import ACCURACY, BY_NAME, USELESS_LOSS
from hpo.study.names import PRUNERS, SAMPLERS
from hpo.study.space import draw, parse_domain, suggest
from hpo.watch import progress, terminal
from hpo.workers import messages
from hpo.workers.pool import LocalPool

SEARCH = """
title = "Tiny"
dataset = "mnist-5k"
[search]
n_trials = 12
sampler = "random"
pruner = "none"
[finalists]
k = 2
seeds = 2
[space]
depth = { low = 1, high = 2 }
width = { low = 4, high = 16, log = true }
activation = ["relu", "tanh"]
optimizer = ["sgd", "adam"]
lr = { low = 1e-2, high = 1.0, log = true }
batch_size = 16
epochs = 3
"""
FINITE = SEARCH.replace("{ low = 4, high = 16, log = true }", "8").replace(
    "{ low = 1e-2, high = 1.0, log = true }", "[0.1, 0.3]"
)


def written(folder: Path, text: str = SEARCH) -> study_file.SearchStudy:
    (folder / "tiny.toml").write_text(text)
    loaded = study_file.load(str(folder / "tiny.toml"))
    assert isinstance(loaded, study_file.SearchStudy)
    return loaded


def run(file: study_file.SearchStudy, folder: Path, **changes) -> End:
    """Runs a search on the tiny dataset, without worker processes unless `make_pool` is given."""
    dataset = changes.pop("dataset", None) or tiny_dataset()
    if "n_trials" in changes:
        file = file.model_copy(update={"n_trials": changes.pop("n_trials")})
    return runner.run_search(prepared(file, opened(folder), dataset, out=folder, **changes))


def stored(folder: Path, name: str = "tiny") -> StoredSearch:
    found = load_study(opened(folder), name)
    assert isinstance(found, StoredSearch)
    return found


def states(study: StoredStudy) -> dict[str, int]:
    return dict(Counter(study.trials["state"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search that ran to its end."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(written(folder), folder, make_pool=LocalPool) is End.COMPLETE
    return folder


def test_a_search_trains_its_trials_and_no_more(whole):
    study = stored(whole)
    assert states(study) == {"COMPLETE": 12}
    assert study.trials["test_accuracy"].isna().all()
    assert set(study.trials["seed"]) == {0}
    for trial in study.frozen:
        assert list(trial.intermediate_values) == [1, 2, 3]
        assert trial.value == trial.intermediate_values[3]
        assert trial.user_attrs["parameters"] == (13 + 10) * trial.params["width"] + 10 + (
            (trial.params["depth"] - 1) * (trial.params["width"] + 1) * trial.params["width"]
        )


def test_what_a_trial_stores_is_declared_in_one_place(whole):
    study = stored(whole)
    assert study.tested is not None
    names = {name for part in study.parts for trial in part.frozen for name in trial.user_attrs}
    assert {"curve", "mistakes"} <= names <= RESERVED
    assert set(study.trials) - {*HYPERPARAMETERS} <= RESERVED


def test_the_best_are_trained_again_on_fresh_seeds_and_tested_once(whole):
    study = stored(whole)
    best = study.trials.nlargest(2, "valid_accuracy", keep="all")["number"]
    assert study.tested is not None
    assert {finalist.number for finalist in study.finalists} <= set(best)
    cells = [cell.name for cell in study.tested.file.cells]
    assert cells[2:] == ["reference"]
    seen = study.tested.trials
    keys = Counter(zip(seen["cell"], seen["seed"], strict=True))
    assert keys == Counter({(cell, seed): 1 for cell in cells for seed in (1, 2)})
    assert seen["test_accuracy"].between(0, 1).all()


def test_confusion_counts_every_test_image_and_its_diagonal_is_the_accuracy(whole):
    tested = stored(whole).tested
    assert tested is not None
    labels = tiny_dataset().test_labels
    for trial in tested.frozen:
        confusion = np.array(trial.user_attrs["mistakes"]["confusion"])
        assert confusion.sum(axis=1).tolist() == np.bincount(labels, minlength=10).tolist()
        assert np.trace(confusion) / len(labels) == trial.user_attrs["test_accuracy"]


def test_the_winner_is_named_by_fresh_validation_whatever_the_test_says(whole):
    study = stored(whole)
    assert study.tested is not None
    frame = study.tested.finished
    by_hand = frame.groupby("cell")["valid_accuracy"].mean().idxmax()
    assert study.winner.cell.name == by_hand
    upside_down = frame.assign(test_accuracy=1 - frame["test_accuracy"])
    ranked = finalists.ranked(upside_down, study.tested.file.cells, (1, 2))
    assert ranked == list(study.tested.file.cells)
    assert ranked[0] == study.winner.cell


def test_a_finalist_with_fewer_seeds_cannot_win():
    cells = finalists_cells("a", "b")
    rows = {"cell": [*"aaabb"], "seed": [1, 8, 9, 1, 2], "valid_accuracy": [0.99, 1, 1, 0.5, 0.6]}
    frame = pd.DataFrame(rows)
    ranked = finalists.ranked(frame, cells, (1, 2))
    assert [cell.name for cell in ranked] == ["b", "a"], "seeds not asked for do not count"
    assert finalists.ranked(frame[:0], cells, (1, 2)) == cells, "before any is trained"


def finalists_cells(*names: str) -> list[study_file.Cell]:
    config = plan.Config(depth=1, width=8, activation="relu", optimizer="sgd", lr=0.1)
    return [study_file.Cell(name=name, config=config) for name in names]


def test_the_winner_is_saved_as_a_network_that_answers(whole):
    study = stored(whole)
    network = saved.load(whole / "tiny/best")
    assert network.description.config == study.winner.config
    dataset = tiny_dataset()
    images = saved.torch.from_numpy(dataset.train_images)
    with saved.torch.inference_mode():
        predicted = network.network(images).argmax(1).numpy()
    assert (predicted == dataset.train_labels).mean() > 0.3, "three times chance"


def test_a_finished_search_runs_nothing_and_keeps_its_saved_network(whole):
    before = (whole / "tiny/best/model.safetensors").stat().st_mtime_ns
    assert run(written(whole), whole) is End.COMPLETE
    study = stored(whole)
    assert states(study) == {"COMPLETE": 12}
    assert len(study.sessions) == 1
    assert (whole / "tiny/best/model.safetensors").stat().st_mtime_ns == before


def test_more_trials_go_on_from_there_and_repeat_nothing(tmp_path):
    file = written(tmp_path)
    run(file, tmp_path, n_trials=4)
    run(file, tmp_path, n_trials=9)
    study = stored(tmp_path)
    assert states(study) == {"COMPLETE": 9}
    assert study.n_trials == 9
    drawn = {tuple(sorted(trial.params.items())) for trial in study.frozen}
    assert len(drawn) == 9, "a resumed sampler draws anew"


def test_finalists_resume_and_new_ones_join_them(tmp_path):
    file = written(tmp_path)
    run(file, tmp_path, n_trials=6)
    before = stored(tmp_path).tested
    more = written(tmp_path, SEARCH.replace("k = 2", "k = 4").replace("seeds = 2", "seeds = 3"))
    run(more, tmp_path, n_trials=6)
    after = stored(tmp_path).tested
    assert before is not None
    assert after is not None
    keys = Counter(zip(after.finished["cell"], after.finished["seed"], strict=True))
    cells = [cell.name for cell in after.file.cells]
    assert keys == Counter({(cell, seed): 1 for cell in cells for seed in (1, 2, 3)})
    assert [cell.name for cell in before.file.cells][:2] == cells[:2]
    assert cells[4:] == ["reference"]


def test_finalists_of_another_search_of_that_name_are_not_taken_for_its_own(tmp_path):
    file = written(tmp_path)
    run(file, tmp_path, n_trials=3)
    optuna.delete_study(study_name="tiny", storage=opened(tmp_path))
    with pytest.raises(InputError, match="has the finalists of another search"):
        run(file, tmp_path, n_trials=3)


def test_a_kill_while_the_finalists_begin_keeps_nobody_from_going_on(tmp_path):
    file = written(tmp_path)
    optuna.create_study(storage=opened(tmp_path), study_name="tiny.finalists")
    run(file, tmp_path, n_trials=3)
    assert stored(tmp_path).winner is not None


def test_a_study_of_which_nothing_is_run_yet_is_said_to_be_so(tmp_path):
    file = written(tmp_path)
    run(file, tmp_path, n_trials=1)
    begun = optuna.load_study(storage=opened(tmp_path), study_name="tiny")
    half = optuna.create_study(storage=opened(tmp_path), study_name="half")
    for key in ("study_file", "data", "binding"):
        half.set_user_attr(key, begun.user_attrs[key])
    with pytest.raises(InputError, match="was created but not run yet"):
        load_study(opened(tmp_path), "half")


def test_a_winner_is_named_when_all_finalists_are_trained_and_not_before(whole, tmp_path):
    study = stored(whole)
    assert study.tested is not None
    begun = study.tested.trials.astype({"fail_reason": object})
    begun.loc[begun.index[-1], ["state", "fail_reason"]] = ["FAIL", record.STOPPED]
    tested = dataclasses.replace(study.tested, trials=begun)
    assert dataclasses.replace(study, tested=tested).winner is None
    begun.loc[begun.index[-1], "fail_reason"] = "RuntimeError: out of memory"
    tested = dataclasses.replace(study.tested, trials=begun)
    assert dataclasses.replace(study, tested=tested).winner is not None, "it would fail again"


def test_every_hyperparameter_may_be_searched_and_comes_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = SEARCH.replace("batch_size = 16", "batch_size = [16, 32]")
    text = text.replace("epochs = 3", "epochs = { low = 2, high = 3 }")
    text = text.replace('["sgd", "adam"]', '["sgd", "sgd_momentum"]')
    text += "weight_decay = { low = 1e-6, high = 1e-2, log = true }\n"
    text += "momentum = { low = 0.1, high = 0.9, step = 0.2 }\nnesterov = [true, false]\n"
    run(written(tmp_path, text), tmp_path, n_trials=5)
    study = stored(tmp_path)
    assert "importance" not in report.figures(study, tmp_path / "report"), "it needs 15 trials"
    monkeypatch.setattr(importances, "LEAST", 2)
    figures = report.figures(study, tmp_path / "report")
    assert {"importance", "slices", "contour"} <= set(figures)
    importance = figures["importance"].svg
    assert study.trials[["weight_decay", "momentum", "nesterov"]].notna().all(axis=None)
    for name in ("weight_decay", "momentum", "nesterov", "epochs"):
        assert name in importance


def test_a_report_offers_the_saved_winner_only_where_it_is_this_one(whole, tmp_path):
    study = stored(whole)
    assert "load_file" in markdown(study, whole / "tiny")
    elsewhere = markdown(study, tmp_path / "report")
    assert "load_file" not in elsewhere
    assert "the same command trains and saves it" in elsewhere


def test_a_stepped_range_never_steps_over_its_end(tmp_path):
    domain = parse_domain({"low": 0.0, "high": 0.3, "step": 0.1})
    rng = random.Random(0)
    drawn = {draw({"momentum": domain}, rng)["momentum"] for _ in range(50)}
    assert max(drawn) == 0.3
    assert len(drawn) == 4


def test_a_space_that_is_trained_whole_ends_the_search(tmp_path):
    assert run(written(tmp_path, FINITE), tmp_path, n_trials=40) is End.COMPLETE
    study = stored(tmp_path)
    assert len(study.trials) == 2 * 2 * 2 * 2
    assert len({tuple(sorted(trial.params.items())) for trial in study.frozen}) == 16


def test_out_of_memory_fails_a_trial_and_divergence_ends_one_and_the_search_goes_on(tmp_path):
    text = FINITE.replace("depth = { low = 1, high = 2 }", "depth = 3")
    text = text.replace("width = 8", "width = [8, 65536]").replace("[0.1, 0.3]", "[0.1, 1e6]")
    text = text.replace('["relu", "tanh"]', '"relu"').replace('["sgd", "adam"]', '"sgd"')
    assert run(written(tmp_path, text), tmp_path, make_pool=LocalPool) is End.COMPLETE
    study = stored(tmp_path)
    assert states(study) == {"COMPLETE": 1, "PRUNED": 1, "FAIL": 2}
    failed = study.trials[study.trials["state"] == "FAIL"]
    assert set(failed["width"]) == {65536}
    assert failed["fail_reason"].str.contains("RuntimeError|MemoryError").all()
    lost = study.trials[study.trials["diverged"].astype(bool)]
    assert list(lost["lr"]) == [1e6]
    number = int(lost["number"].iloc[0])
    assert study.frozen[number].value == 0.0
    assert not study.frozen[number].intermediate_values, "its first epoch is no value"
    assert len(study.frozen[number].user_attrs["curve"]["valid_loss"]) == 1, "it ends at once"
    assert number not in set(study.ranked["number"])
    assert study.tested is not None
    assert len(study.tested.file.cells) == 1, "a diverged trial is no finalist"


# --- the plan, without workers -------------------------------------------------------------------


def search_plan(folder: Path, text: str, n_trials: int = 10_000) -> SearchPlan:
    file, storage, dataset = written(folder, text), opened(folder), tiny_dataset()
    file = file.model_copy(update={"n_trials": n_trials})
    run = prepared(file, storage, dataset)
    study = open_study(run)
    clean_up(study)
    return SearchPlan(run, study)


def epoch(job: plan.Job, accuracy: float, loss: float = 1.0) -> None:
    """One more epoch of the job."""
    job.epochs.append(
        messages.EpochDone(
            task=job.task.id, number=len(job.epochs) + 1, train_loss=[loss], seconds=0.1,
            train_accuracy=[accuracy], valid_loss=[loss], valid_accuracy=[accuracy],
        )
    )  # fmt: skip


def play(searching: SearchPlan, accuracy: float) -> plan.Job:
    """A job asked for and trained to its end, as far as the plan can tell."""
    job = searching.next()
    assert job is not None
    for _ in range(job.task.config.epochs):
        epoch(job, accuracy)
        job.early_stop = searching.judge(job)
        if job.early_stop:
            break
    pruned = job.early_stop is plan.EarlyStop.PRUNED
    searching.ended(job, TrialState.PRUNED if pruned else TrialState.COMPLETE)
    return job


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_searches(sampler, tmp_path):
    searching = search_plan(tmp_path, SEARCH.replace('"random"', f'"{sampler}"'))
    jobs = [play(searching, 0.5 + 0.01 * (i % 7)) for i in range(14)]
    assert len({job.label for job in jobs}) == 14
    kind = type(searching.copy.sampler).__name__.lower()
    assert sampler.rstrip("2")[:2] in kind


BY_EPOCHS = [name for name in PRUNERS if name not in ("none", "asha", "wilcoxon")]


@pytest.mark.parametrize("pruner", BY_EPOCHS)
def test_every_pruner_prunes_the_hopeless_and_keeps_the_best(pruner, tmp_path):
    text = SEARCH.replace('"none"', f'"{pruner}"').replace("epochs = 3", "epochs = 9")
    searching = search_plan(tmp_path, text)
    for i in range(12):
        play(searching, 0.9 + 0.001 * i)
    worst = [play(searching, 0.1 - 0.001 * i) for i in range(6)]
    best = play(searching, 0.99)
    assert plan.EarlyStop.PRUNED in {job.early_stop for job in worst}
    assert best.early_stop is None
    assert len(best.epochs) == 9


def test_rungs_of_successive_halving_outlive_a_resume(tmp_path):
    text = SEARCH.replace('"none"', '"sha"').replace("epochs = 3", "epochs = 9")
    searching = search_plan(tmp_path, text)
    job = play(searching, 0.9)
    searching.run.storage.set_trial_state_values(job.trials[0], TrialState.COMPLETE, [0.9])
    again = search_plan(tmp_path, text)
    kept = again.copy.get_trials(deepcopy=False)[0].system_attrs
    assert kept["completed_rung_0"] == 0.9


def test_tpe_takes_a_diverged_trial_for_worse_than_a_pruned_one(tmp_path):
    text = SEARCH.replace('"random"', '"tpe"').replace('"none"', '"sha"')
    searching = search_plan(tmp_path, text)
    job = searching.next()
    epoch(job, 0.1, math.nan)
    job.early_stop = searching.judge(job)
    searching.ended(job, TrialState.PRUNED)
    (trial,) = searching.copy.trials
    assert sum(trial.constraints.values()) > 0, "infeasible: ranked below COMPLETE and PRUNED"


def test_running_trials_repel_the_sampler_and_count_for_the_budget(tmp_path):
    searching = search_plan(tmp_path, SEARCH, n_trials=3)
    jobs = [searching.next() for _ in range(4)]
    assert [job is None for job in jobs] == [False, False, False, True]
    running = searching.copy.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    assert len(running) == 3


@pytest.mark.parametrize("loss", [math.nan, math.inf, USELESS_LOSS])
def test_a_sampler_learns_of_a_diverged_trial_as_the_worst(loss, tmp_path):
    searching = search_plan(tmp_path, SEARCH)
    job = searching.next()
    epoch(job, 0.1, loss)
    job.early_stop = searching.judge(job)
    assert job.early_stop is plan.EarlyStop.DIVERGED
    searching.ended(job, TrialState.PRUNED)
    assert [trial.value for trial in searching.copy.trials] == [0.0]
    assert record.attributes(job.epochs, 0)["diverged"] == 1


def test_failures_in_a_row_end_the_search_and_a_failed_one_is_replaced(tmp_path):
    searching = search_plan(tmp_path, SEARCH, n_trials=2)
    searching.ended(searching.next(), TrialState.FAIL)
    play(searching, 0.5)
    play(searching, 0.6)
    assert searching.next() is None
    searching.file = searching.file.model_copy(update={"n_trials": 1000})
    for _ in range(FAILURES_IN_A_ROW):
        searching.ended(searching.next(), TrialState.FAIL)
    assert searching.next() is None


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_that_repeats_itself_is_helped_to_a_new_configuration(tmp_path):
    searching = search_plan(tmp_path, FINITE)
    searching.copy.sampler = optuna.samplers.PartialFixedSampler(
        {"depth": 1, "activation": "relu", "optimizer": "sgd", "lr": 0.1},
        optuna.samplers.RandomSampler(),
    )
    configs = [searching.next().task.config for _ in range(16)]
    assert len(set(configs)) == 16
    assert searching.exhausted


def test_asking_stays_quick_with_a_thousand_trials_stored(tmp_path):
    text = SEARCH.replace('"random"', '"tpe"').replace('"none"', '"median"')
    searching = search_plan(tmp_path, text)
    rng = np.random.default_rng(0)
    for _ in range(1000):  # in the twin alone: filling the storage would take a minute
        searching.copy.enqueue_trial(draw(searching.space, searching.rng))
        trial = searching.copy.ask()
        suggest(trial, searching.space)
        searching.copy.tell(trial, float(rng.uniform(0.8, 0.98)))
    times = []
    for _ in range(15):
        began = time.process_time()
        job = searching.next()
        times.append(time.process_time() - began)
        searching.ended(job, TrialState.FAIL)
    assert sorted(times)[7] < 0.15, "a median of 20 to 40 ms where nothing else runs"


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("low = 4, high = 16", "low = 4, high = 32", ["space.width", "4 … 16 (log)", "4 … 32"]),
        ('["relu", "tanh"]', '["relu"]', ["space.activation", "relu, tanh"]),
        ('"random"', '"tpe"', ["sampler", "'random'", "'tpe'"]),
        ('pruner = "none"', 'pruner = "sha"', ["pruner", "'none'", "'sha'"]),
        ("batch_size = 16", "batch_size = 32", ["space.batch_size", "'16'", "'32'"]),
    ],
)
def test_a_search_stored_with_another_space_is_refused_by_name(
    before, after, named, tmp_path, whole
):
    with pytest.raises(InputError) as caught:
        run(written(tmp_path, SEARCH.replace(before, after)), whole)
    assert all(text in str(caught.value) for text in [*named, "--name", "--fresh"])


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ('"none"', '"median"', "has nothing to prune: a training is one epoch"),
        ('"random"', '"cmaes"', "needs two ranges or more in the space, it has lr"),
    ],
)
def test_what_cannot_work_together_is_an_error_that_says_so(before, after, fault, tmp_path):
    text = SEARCH.replace(before, after).replace("epochs = 3", "epochs = 1")
    text = text.replace("{ low = 1, high = 2 }", "[1, 2]")
    text = text.replace("{ low = 4, high = 16, log = true }", "8")
    with pytest.raises(InputError, match=re.escape(fault)):
        check_together(written(tmp_path, text), "study 'tiny'")


def test_a_space_without_a_choice_is_an_error(tmp_path):
    fixed = re.sub(r"= (\{.*\}|\[.*\])", "= 8", SEARCH.split("[space]")[1])
    fixed = fixed.replace("activation = 8", 'activation = "relu"')
    fixed = fixed.replace("optimizer = 8", 'optimizer = "sgd"').replace("depth = 8", "depth = 1")
    text = SEARCH.split("[space]")[0] + "[space]" + fixed
    with pytest.raises(InputError, match="every value is fixed"):
        check_together(written(tmp_path, text), "study 'tiny'")


# --- budgets and sentences ---------------------------------------------------------------------


def test_seconds_in_the_file_are_a_budget_of_all_runs(tmp_path):
    file = written(tmp_path, SEARCH.replace("n_trials = 12", "n_trials = 100000\ntimeout = 1"))
    assert run(file, tmp_path) is End.OUT_OF_TIME
    before = stored(tmp_path)
    assert 1 <= sum(session["seconds"] for session in before.sessions) < 10
    assert before.winner is not None
    [*_, sentence] = contents.lead(before)
    counted = f"after {len(before.ended)} of 100000 trials."
    assert sentence == f"Its time limit of 1 s ended the search, {counted}"
    assert run(file, tmp_path) is End.OUT_OF_TIME
    assert len(stored(tmp_path).trials) == len(before.trials)


def test_a_best_value_on_a_bound_is_warned_of(whole):
    study = stored(whole)
    config = study.config(0)
    at = functools.partial(dataclasses.replace, config)
    said = at_bounds(study, at(depth=2, width=16, lr=0.5))
    assert [line.split(" lies at the end of its range, ")[0] for line in said] == [
        "Its depth of 2", "Its width of 16"
    ]  # fmt: skip
    assert "range, 2: better values may lie beyond" in said[0]
    assert "range, 4: better" in at_bounds(study, at(depth=1, width=4, lr=0.5))[0]
    assert at_bounds(study, at(depth=1, width=8, lr=0.1)) == []


def test_a_search_that_gave_up_says_so(whole):
    study = dataclasses.replace(stored(whole), n_trials=20, gave_up=True)
    [*_, sentence] = contents.lead(study)
    assert sentence == (
        "The search is not finished: 12 of 20 trials are done; it gave up because too many trials "
        "failed in a row."
    )


def test_a_winner_that_cannot_be_saved_costs_neither_report_nor_trials(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/best").write_text("a file")
    with pytest.raises(best.Unsaved, match="the same command trains and saves it again"):
        run(written(tmp_path), tmp_path, n_trials=3)
    assert stored(tmp_path).winner is not None


# --- what is best, done and failed: one answer ---------------------------------------------------

HOT = FINITE.replace("[0.1, 0.3]", "[0.1, 0.03, 1e6]").replace('["relu", "tanh"]', '"relu"')
HOT = HOT.replace("{ low = 1, high = 2 }", "1").replace('["sgd", "adam"]', '"sgd"')


class Heard(plan.Watcher):
    """Keeps what a run tells its user."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.progress: list[Progress] = []

    def on_start(self, study: optuna.Study | None, progress: Progress) -> None:
        self.progress.append(progress)

    def on_notice(self, text: str) -> None:
        self.notices.append(text)


def shown(study: StoredSearch) -> str:
    """What `hpo show` prints."""
    console = Console(width=200, record=True, file=io.StringIO())
    for part in (*progress.views(study, here=False), *terminal.terminal(study)):
        console.print(part)
    return console.export_text()


def test_a_diverged_trial_is_pruned_and_nowhere_the_best(tmp_path: Path):
    heard = Heard()
    assert run(written(tmp_path, HOT), tmp_path, watchers=[heard]) is End.COMPLETE
    study = stored(tmp_path)
    [lost] = [trial for trial in study.frozen if trial.params["lr"] == 1e6]
    assert (lost.state, lost.user_attrs["diverged"]) == (TrialState.PRUNED, 1)
    best = optuna.load_study(study_name="tiny", storage=opened(tmp_path)).best_trial
    assert best.number == study.ranked["number"].iloc[0] != lost.number
    name = record.trial_name(best.number, study.config(best.number))
    said = f"validation accuracy {100 * best.value:.2f}%, {name}"
    assert heard.progress[0].best == said
    assert said in shown(study)
    assert "2 trained to the end, 1 diverged" in shown(study)
    assert "pruned ones" not in markdown(study, tmp_path / "report"), "no figure calls it pruned"
    assert heard.progress[0].counts == "3/3 trials, 1 diverged"
    assert "3/3 trials, 1 diverged" in shown(study)


def test_a_diverged_trial_that_an_earlier_version_stored_is_read_by_the_same_rule(tmp_path: Path):
    run(written(tmp_path, HOT), tmp_path)
    old = next(trial for trial in stored(tmp_path).frozen if trial.params["lr"] == 1e6)
    storage = opened(tmp_path)
    with storage.engine.begin() as connection:
        text = f"UPDATE trials SET state = 'COMPLETE' WHERE trial_id = {old._trial_id}"
        connection.exec_driver_sql(text)
        text = f"UPDATE trial_values SET value = 0.99 WHERE trial_id = {old._trial_id}"
        connection.exec_driver_sql(text)
    study = stored(tmp_path)
    assert states(study) == {"COMPLETE": 2, "PRUNED": 1}
    assert "validation accuracy 99.00%" not in shown(study)
    assert run(written(tmp_path, HOT), tmp_path) is End.COMPLETE, "it goes on as before"
    assert old.number not in {finalist.number for finalist in study.finalists}


def test_a_diverged_trial_has_the_figures_of_its_last_sound_epoch(tmp_path: Path):
    searching = search_plan(tmp_path, SEARCH)
    job = searching.next()
    epoch(job, 0.6)
    epoch(job, 0.1, math.nan)
    job.early_stop = searching.judge(job)
    assert job.values() == [0.6]
    curve = record.attributes(job.epochs, 0)["curve"]
    assert record.last_epoch(curve, sound=True)["valid_accuracy"] == 0.6
    del job.epochs[0]
    assert job.values() == [BY_NAME[ACCURACY].worst], "it had no sound epoch"


def test_the_order_of_trials_does_not_follow_a_clock_that_is_set_back(tmp_path: Path):
    run(written(tmp_path), tmp_path, n_trials=4)
    with opened(tmp_path).engine.begin() as connection:
        text = "UPDATE trials SET datetime_complete = '2001-01-01 00:00:00' WHERE number = 3"
        connection.exec_driver_sql(text)
    study = stored(tmp_path)
    assert list(study.ended["number"]) == [0, 1, 2, 3]
    seconds = run_seconds(study, study.ended)
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1] < 60


def test_a_search_without_a_sound_trial_has_no_result_and_says_why(tmp_path: Path):
    run(written(tmp_path, HOT.replace("[0.1, 0.03, 1e6]", "[1e5, 1e6]")), tmp_path)
    study = stored(tmp_path)
    assert states(study) == {"PRUNED": 2}
    assert "every finished trial diverged; give smaller learning rates" in study.no_result
    assert output.write_report(study, tmp_path / "report") is not None


def test_an_exhausted_space_is_said_to_be_so(tmp_path: Path):
    run(written(tmp_path, HOT), tmp_path)
    said = "The search ended after 3 trials: all 3 configurations of the space have been tried."
    assert said in shown(stored(tmp_path))
    assert said in markdown(stored(tmp_path), tmp_path / "report")


def test_a_smaller_number_of_trials_than_are_stored_leaves_nothing_to_do(tmp_path: Path):
    run(written(tmp_path), tmp_path, n_trials=4)
    before, heard = stored(tmp_path), Heard()
    assert run(written(tmp_path), tmp_path, n_trials=2, watchers=[heard]) is End.COMPLETE
    assert heard.notices == [
        "the study holds 4 finished trials, which --trials counts, too: to go on, give a larger "
        "number, or --more"
    ]
    assert not heard.progress, "nothing is trained"
    after = stored(tmp_path)
    assert (after.n_trials, after.winner) == (4, before.winner)
    assert "4/4 trials" in progress.read_progress(after, here=False).counts


def test_rank_one_is_the_winner_in_every_table_and_file(tmp_path: Path):
    run(written(tmp_path, SEARCH.replace("k = 2", "k = 4")), tmp_path, n_trials=6)
    study = stored(tmp_path)
    by_hand = study.tested.finished.groupby("cell")["valid_accuracy"].mean().drop("reference")
    expected = list(by_hand.sort_values(ascending=False, kind="stable").index)
    assert len(set(by_hand)) == 4, "no two are equal"
    frame = finalists_frame(study)
    numbers = frame.drop_duplicates("rank").set_index("rank")["number"]
    assert [finalists.cell_name(n) for n in numbers.sort_index()] == expected
    assert expected[0] == study.winner.cell.name
    text = markdown(study, tmp_path / "report")
    assert f"| 1, the winner | {finalists.trial_number(expected[0])} |" in text


@pytest.mark.parametrize("stopped", [0, 2])
def test_interrupted_or_not_a_random_search_tries_the_same_configurations(
    stopped: int, tmp_path: Path
):
    (whole, cut) = (tmp_path / "whole", tmp_path / "cut")
    whole.mkdir()
    cut.mkdir()
    searching = search_plan(whole, SEARCH)
    asked = [play_stored(searching, 0.5) for _ in range(6)]
    searching = search_plan(cut, SEARCH)
    again = [play_stored(searching, 0.5) for _ in range(stopped)]
    job = searching.next()
    storage = opened(cut)
    storage.set_trial_user_attr(job.trials[0], "fail_reason", record.STOPPED)
    storage.set_trial_state_values(job.trials[0], TrialState.FAIL)
    searching = search_plan(cut, SEARCH)
    again += [play_stored(searching, 0.5) for _ in range(6 - stopped)]
    assert [job.task.config for job in again] == [job.task.config for job in asked]


def play_stored(searching: SearchPlan, accuracy: float) -> plan.Job:
    """A job that is asked for, trained and stored."""
    job = play(searching, accuracy)
    searching.run.storage.set_trial_state_values(job.trials[0], TrialState.COMPLETE, [accuracy])
    return job
