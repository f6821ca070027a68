"""The reference of a search: which network it is, that it takes no part, and what tuning gained."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Ended
from in_process import markdown, opened, prepared
from rich.console import Console
from scipy import stats
from tiny import tiny_dataset

from hpo.report import write as report
from hpo.report.blocks.search_tables import gain_sentence
from hpo.report.sections.course import drawn_reference
from hpo.results.load import load_study
from hpo.results.study import StoredGrid, StoredSearch
from hpo.runs import runner
from hpo.runs.loop import End
from hpo.study import finalists
from hpo.study.config import Config, Seeds
from hpo.study.file import SearchStudy, parse
from hpo.training import tensors
from hpo.training.evaluation import evaluate
from hpo.training.train import train
from hpo.watch import note, terminal

SPACE = {
    "depth": {"low": 1, "high": 2},
    "width": {"low": 4, "high": 16, "log": True},
    "activation": ["relu", "tanh"],
    "optimizer": ["sgd", "adam"],
    "lr": {"low": 1e-2, "high": 1.0, "log": True},
    "batch_size": 16,
    "epochs": 8,
}
USUAL = {"depth": 2, "width": 128, "activation": "relu", "optimizer": "adam", "lr": 0.01}


def search(space: dict, first: list | None = None, **head) -> SearchStudy:
    asked = {"n_trials": 4, "sampler": "random", "pruner": "none", "first": first or []}
    raw = {"title": "Tiny", "dataset": "mnist-5k", "search": asked, "space": space}
    study = parse({**raw, "finalists": {"k": 2, "seeds": 3}, **head}, "tiny", "tiny.toml")
    assert isinstance(study, SearchStudy)
    return study


def run(file: SearchStudy, folder: Path, **options) -> StoredSearch:
    made = prepared(file, opened(folder), tiny_dataset(), out=folder, **options)
    assert runner.run_search(made) is End.COMPLETE
    return stored(folder)


def stored(folder: Path) -> StoredSearch:
    study = load_study(opened(folder), "tiny")
    assert isinstance(study, StoredSearch)
    return study


def shown(study: StoredSearch) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    for part in terminal.terminal(study):
        console.print(part)
    return console.export_text()


# --- which network it is -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        ({}, {"width": 16}),
        ({"width": {"low": 32, "high": 512}}, {}),
        ({"width": [32, 100, 512]}, {"width": 100}),
        ({"depth": 3}, {"depth": 3, "width": 16}),
        ({"lr": {"low": 1e-4, "high": 1}}, {"lr": 0.001, "width": 16}),
        ({"optimizer": "sgd"}, {"optimizer": "sgd", "lr": 0.1, "width": 16}),
        (
            {"optimizer": ["sgd_momentum", "sgd"]},
            {"optimizer": "sgd_momentum", "lr": 0.01, "width": 16},
        ),
        ({"activation": ["gelu", "tanh"]}, {"activation": "gelu", "width": 16}),
        ({"batch_size": [32, 64, 128]}, {"batch_size": 64, "width": 16}),
        ({"epochs": {"low": 2, "high": 9}}, {"epochs": 9, "width": 16}),
        ({"epochs": [2, 7, 5]}, {"epochs": 7, "width": 16}),
        ({"dropout": {"low": 0.1, "high": 0.5}}, {"dropout": 0.1, "width": 16}),
        ({"dropout": {"low": 0.0, "high": 0.5}, "norm": ["batch", "none"]}, {"width": 16}),
        ({"norm": ["batch", "layer"]}, {"norm": "batch", "width": 16}),
        (
            {"momentum": {"low": 0.5, "high": 0.9, "when": {"optimizer": "sgd"}}},
            {"width": 16, "momentum": 0.0},
        ),
        (
            {"optimizer": "sgd", "momentum": {"low": 0.5, "high": 0.9, "step": 0.1}},
            {"width": 16, "optimizer": "sgd", "lr": 0.1, "momentum": 0.5},
        ),
        ({"width": {"low": 100, "high": 200, "step": 20}}, {"width": 120}),
    ],
)
def test_it_is_the_usual_network_brought_into_the_space(space, wanted):
    file = search({**SPACE, **space})
    expected = {"batch_size": 16, "epochs": 8, **USUAL, **wanted}
    assert finalists.reference_of(file) == Config(**expected)


def test_widths_of_the_space_hold():
    without = {key: value for key, value in SPACE.items() if key not in ("depth", "width")}
    usual = search({**without, "widths": [[64, 32], [128, 128]]})
    other = search({**without, "widths": [[64, 32], [32, 32]]})
    assert finalists.reference_of(usual).hidden == (128, 128)
    assert finalists.reference_of(other).hidden == (64, 32)


def test_the_first_configuration_of_the_study_file_comes_before_the_usual_one():
    entries = [{"width": 8, "lr": 0.3}, {"width": 4}]
    found = finalists.reference_of(search(SPACE, entries))
    assert (found.width, found.lr, found.depth, found.optimizer) == (8, 0.3, 2, "adam")


@pytest.mark.parametrize(
    ("first", "wanted"),
    [([], None), ([{"lr": 0.1}], None), ([{"units": 5}], {"units": 5, "kind": "a"})],
)
def test_of_ones_own_network_it_is_the_first_configuration_or_none(first, wanted):
    space = {"optimizer": "adam", "lr": [0.1, 0.01], "units": {"low": 4, "high": 8}, "kind": "a"}
    found = finalists.reference_of(search(space, first, model="net:build"))
    assert (found and found.own) == wanted


# --- in a run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    report.write(run(search(SPACE), folder), folder / "report")
    return folder


def test_it_is_trained_on_the_finalists_seeds_as_by_hand(folder):
    frame = pd.read_csv(folder / "report" / "reference.csv")
    others = pd.read_csv(folder / "report" / "finalists.csv")
    assert list(frame) == list(others)
    assert frame["seed"].to_list() == [1, 2, 3] == sorted(set(others["seed"]))
    assert frame[["rank", "number"]].isna().all(axis=None)
    config, data = finalists.reference_of(search(SPACE)), tiny_dataset()
    form = (10, torch.device("cpu"))
    images = tensors.examples(data.train_images, data.train_labels, *form)
    tested = tensors.examples(data.test_images, data.test_labels, *form)
    for row in frame.itertuples():
        seeds = Seeds.of(row.seed)
        with tensors.denormals_as_zero():
            *_, last = train(config, images, [tensors.split_rows(data, seeds)], [seeds])
            every = torch.arange(len(tested.labels)).unsqueeze(0)
            found = evaluate(last.network, tested, every)
        assert row.valid_accuracy == last.valid_accuracy[0]
        assert row.test_accuracy == found.accuracy[0]


def test_it_is_no_finalist_and_never_ranks(folder):
    study = stored(folder)
    assert len(study.finalists) == 2
    assert [f.rank for f in study.finalists] == [1, 2]
    means = study.tested.finished.groupby("cell")["valid_accuracy"].mean()
    assert study.winner.cell.name == means.drop("reference").idxmax()
    number = str(study.winner.number)
    assert number in (folder / "tiny" / "best" / "config.toml").read_text("utf-8")


def test_a_search_that_is_complete_trains_nothing_again(folder):
    before = len(stored(folder).tested.trials)
    run(search(SPACE), folder)
    assert len(stored(folder).tested.trials) == before


def test_a_stored_search_without_one_is_reported_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(finalists, "reference_of", lambda file: None)
    study = run(search(SPACE), tmp_path)
    assert Counter(study.tested.trials["cell"]).keys() == {f.cell.name for f in study.finalists}
    monkeypatch.undo()
    study = stored(tmp_path)
    assert gain_sentence(study) == ""
    report.write(study, tmp_path / "report")
    assert not (tmp_path / "report" / "reference.csv").exists()
    assert "reference" not in markdown(study, tmp_path / "report")
    study = run(search(SPACE), tmp_path)  # goes on with it
    assert len(study.tested.of(study.reference)) == 3


def test_a_finalist_that_is_the_reference_is_trained_once_and_said_so(tmp_path):
    one = {**SPACE, "depth": 2, "width": 16, "activation": "relu", "optimizer": "adam"}
    study = run(search({**one, "lr": [1e-2]}), tmp_path)
    cells = study.tested.trials["cell"]
    assert len(cells) == 3
    assert gain_sentence(study) == (
        "Tuning gained nothing: the winner is the reference itself, 2 × 16 ReLU, Adam, lr 0.01."
    )
    report.write(study, tmp_path / "report")
    assert pd.read_csv(tmp_path / "report" / "reference.csv")["seed"].to_list() == [1, 2, 3]


def changed(study: StoredSearch, gains: list[float]) -> StoredSearch:
    """The study with the winner's validation so much above the reference's on each seed."""
    rows = study.tested.trials.copy()
    for seed, gain in enumerate(gains, 1):
        at = rows["seed"] == seed
        rows.loc[at & (rows["cell"] == "reference"), "valid_accuracy"] = 0.9
        rows.loc[at & (rows["cell"] == study.winner.cell.name), "valid_accuracy"] = 0.9 + gain
    rows["test_accuracy"] = 0.9  # nobody fails to learn
    return replace(study, tested=replace(study.tested, trials=rows))


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.010, 0.011, 0.012], "Tuning gained: in validation accuracy, the winner minus the"),
        ([0.01, -0.01, 0.003], "Tuning gained nothing that 3 fresh seeds show: in"),
        ([-0.010, -0.011, -0.012], "so the reference is better"),
    ],
)
def test_what_tuning_gained_is_said_everywhere_in_plain_words(gains, said, folder):
    study = changed(stored(folder), gains)
    text = gain_sentence(study)
    assert said in text
    interval = stats.ttest_1samp(100 * np.array(gains), 0).confidence_interval()
    mean, low, high = (f"{end:+.2f}".replace("-", "−") for end in (100 * np.mean(gains), *interval))
    assert f"2 × 16 ReLU, Adam, lr 0.01, is {mean} points (95% interval {low} to {high}, " in text
    assert text in " ".join(shown(study).split())
    plain = markdown(study, folder / "report").replace("\\", "")
    assert text in plain
    assert "a reference is trained: 2 × 16 ReLU, Adam, lr 0.01 (batch size 16, epochs 8)." in plain
    assert text in note.markdown(study, "hpo run tiny", None, ended=True).replace("\\", "")


def test_one_seed_is_too_few_to_tell(tmp_path):
    study = run(search(SPACE, finalists={"k": 2, "seeds": 1}), tmp_path)
    assert gain_sentence(study).startswith("The fresh seeds (1) are too few to tell what tuning")


def test_a_reference_that_has_no_training_is_named(folder):
    study = stored(folder)
    left = study.tested.trials["cell"] != "reference"
    study = replace(study, tested=replace(study.tested, trials=study.tested.trials[left]))
    text = "The reference, 2 × 16 ReLU, Adam, lr 0.01, has no finished training."
    assert gain_sentence(study) == text


def test_figures_have_the_mean_over_the_fresh_seeds_and_none_that_is_not_finite(
    ended_search: Ended, monkeypatch
):
    study = stored(ended_search.folder)
    drawn, rows = drawn_reference(study), pd.read_csv(report_of(ended_search, "reference.csv"))
    assert drawn is not None
    assert drawn.gain == pytest.approx(100 * rows["valid_accuracy"].mean())
    assert drawn.seeds == len(rows)
    tested = study.tested.of(study.reference)
    last = study.tested.curves.groupby("number")["valid_accuracy"].last()
    assert drawn.curve[-1] == pytest.approx(100 * last[tested["number"]].mean())
    assert len(drawn.curve) == study.reference.config.epochs
    monkeypatch.setattr(StoredGrid, "gains", lambda *_: pd.Series([90.0, -np.inf]))
    assert drawn_reference(study) is None


def report_of(ended: Ended, file: str) -> Path:
    return ended.folder / "reports/tiny" / file
