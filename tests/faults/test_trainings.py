"""Trainings that go wrong: recorded, or refused in a line."""

import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from in_process import opened, prepared
from scenes import GRID, SEARCH, alive, ended, wait_for, workers
from tiny import tiny_dataset

from hpo.data.datasets import Dataset
from hpo.errors import InputError
from hpo.report import write as report
from hpo.results.load import load_study
from hpo.results.study import StoredGrid, StoredSearch
from hpo.runs import runner
from hpo.study import file as study_file


def run(text: str, dataset: Dataset, folder: Path) -> StoredGrid | StoredSearch:
    """A grid or a search to its report, without worker processes."""
    (folder / "study.toml").write_text(text)
    loaded = study_file.load(str(folder / "study.toml"))
    storage = opened(folder)
    if isinstance(loaded, study_file.GridStudy):
        runner.run_grid(prepared(loaded, storage, dataset, workers=1))
    else:
        loaded = loaded.model_copy(update={"n_trials": 6})
        runner.run_search(prepared(loaded, storage, dataset, workers=1, out=folder))
    found = load_study(storage, "study")
    report.write(found, folder / "reports" / "study")
    storage.engine.dispose()
    return found


def states(study: StoredGrid | StoredSearch) -> Counter[str]:
    return Counter(study.trials["state"])


TINY = GRID.replace("seeds = 6", "seeds = 2")


@pytest.mark.parametrize("lr", ["1e5", "1e6"])
def test_nan_from_the_first_step_is_a_recorded_end(lr, tmp_path, tally):
    text = TINY.replace("lr = 0.1", f"lr = {lr}").replace("lr = 1e6", f"lr = {lr}")
    study = run(text, tiny_dataset(), tmp_path)
    assert states(study) == {"COMPLETE": 6}
    assert study.trials["diverged"].all()
    assert (tmp_path / "reports/study/index.html").is_file()
    tally("5.1", "loss NaN or infinite from the first step", 6, "COMPLETE, marked as diverged")


def test_a_search_in_which_all_diverge_ends_with_a_report(tmp_path, tally):
    text = SEARCH.replace("lr = { low = 1e-3, high = 1.0, log = true }", "lr = [1e5, 1e6]")
    study = run(
        text.replace('optimizer = ["sgd", "adam"]', 'optimizer = "sgd"'), tiny_dataset(), tmp_path
    )
    assert set(states(study)) == {"PRUNED"}
    assert study.trials["diverged"].all()
    assert study.winner is None
    tally(
        "5.2", "a search in which every trial diverges", len(study.trials), "no winner, and said so"
    )


def of_one_class() -> Dataset:
    found = tiny_dataset()
    return replace(
        found,
        train_labels=np.full_like(found.train_labels, 3),
        test_labels=np.full_like(found.test_labels, 3),
    )


def constant() -> Dataset:
    found = tiny_dataset()
    return replace(
        found,
        train_images=np.zeros_like(found.train_images),
        test_images=np.zeros_like(found.test_images),
    )


def smaller_than_a_batch() -> Dataset:
    found = tiny_dataset()
    return replace(
        found, train_images=found.train_images[:20], train_labels=found.train_labels[:20]
    )


@pytest.mark.parametrize("text", [TINY, SEARCH], ids=["grid", "search"])
@pytest.mark.parametrize("dataset", [of_one_class, constant, smaller_than_a_batch])
def test_a_poor_dataset_is_trained_on_to_the_report(text, dataset, tmp_path, tally):
    study = run(text, dataset(), tmp_path)
    assert set(states(study)) <= {"COMPLETE", "PRUNED"}
    assert study.trials["valid_accuracy"].between(0, 1).all()
    page = (tmp_path / "reports/study/index.html").read_text()
    assert "nan" not in page.lower().replace("inance", "").split("<svg")[0]
    number = {"of_one_class": "5.3", "constant": "5.4", "smaller_than_a_batch": "5.5"}
    what = dataset.__name__.replace("_", " ")
    tally(number[dataset.__name__], f"a dataset {what}: grid, search", 2, "trained to the report")


def test_what_nothing_can_be_trained_on_is_refused(tmp_path, tally):
    sound = tiny_dataset()
    rows = len(sound.train_labels)
    infinite = sound.train_images.copy()
    infinite[3, 3] = np.inf
    rare = np.zeros(rows, dtype=np.int64)
    rare[:2] = 7
    faults = {
        "training labels from 0 to 10: must be from 0 to 9": {
            "train_labels": np.arange(rows) % 11
        },
        "test labels from -1 to": {"test_labels": np.arange(len(sound.test_labels)) % 10 - 1},
        "hold values that are not finite": {"train_images": infinite},
        "4 training examples: at least 5": {
            "train_images": sound.train_images[:4], "train_labels": sound.train_labels[:4]
        },
        "0 test examples: at least 1": {
            "test_images": sound.test_images[:0], "test_labels": sound.test_labels[:0]
        },
        "examples of (12,) and (11,) features": {"test_images": sound.test_images[:, :11]},
        "must be (N, features) and (N,)": {"train_labels": sound.train_labels[:-1]},
        "2 training examples of class 7: the split needs 3": {
            "train_labels": rare, "stratified": True
        },
    }  # fmt: skip
    for words, change in faults.items():
        with pytest.raises(InputError) as caught:
            run(TINY, replace(sound, **change), tmp_path)
        assert words in str(caught.value)
        assert str(caught.value).startswith("dataset 'mnist-5k': ")
    tally(
        "5.6",
        "datasets with labels out of range, images of other shapes, too few images in all or of a "
        "class, values that are not finite",
        len(faults),
        "refused in a line, nothing stored",
    )


def test_a_worker_out_of_memory_fails_its_trial_with_the_reason(full, stage, tally):
    text = GRID.replace("width = 80", "width = 40000\ndepth = 2").replace("seeds = 6", "seeds = 1")
    scene = stage(text)
    limit = 6 * 2**30  # address space: torch alone maps some of it
    process = scene.start("--workers", "1", command=("prlimit", f"--as={limit}"))
    output = ended(process)
    trials = {t.user_attrs["cell"]: t for t in scene.trials()}
    assert process.returncode == 0, output
    assert trials["narrow"].state.name == "COMPLETE"
    assert trials["wide"].state.name == "FAIL"
    assert "memory" in trials["wide"].user_attrs["fail_reason"]
    tally(
        "5.7", "a worker at its memory limit (prlimit)", 1, "FAIL with the reason, the rest trained"
    )


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(stage, tally):
    text = GRID.replace("epochs = 4", "epochs = 30").replace("width = 80", "width = 200")
    scene = stage(text)
    process = scene.start("--epoch-limit", "6")
    pid = wait_for(lambda: scene.states()["RUNNING"] and workers(process.pid))[0]
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: not alive(pid), 30)
    output = ended(process)
    assert process.returncode == 0, output
    assert scene.states() == {"COMPLETE": 18}
    tally("5.8", "a worker that hangs (SIGSTOP), limit 6 s", 1, "replaced, its trial run again")


def test_a_worker_that_always_hangs_fails_its_trial(full, stage, tally):
    text = GRID.replace("epochs = 4", "epochs = 3000")
    scene = stage(text[: text.index('[[cells]]\nname = "wide"')])
    process = scene.start("--seeds", "1", "--workers", "1", "--epoch-limit", "2")
    for _ in range(3):
        pid = wait_for(lambda: scene.states()["RUNNING"] and workers(process.pid))[0]
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda pid=pid: not alive(pid), 15)
    ended(process)
    (trial,) = scene.trials()
    assert trial.user_attrs["fail_reason"] == (
        "its worker ended no epoch in 2 s (see --epoch-limit), 3 times"
    )
    tally("5.9", "workers that hang each time", 3, "FAIL after 3, with the reason")
