"""verdicts.json of a whole run, recomputed by a script that uses nothing of hpo."""

import dataclasses
import json
from pathlib import Path

import forked
import independent
import jsonschema
import numpy as np
import pandas as pd
import pytest

from hpo.analysis import verdicts
from hpo.export.tables import to_parquet
from hpo.report import write as report
from hpo.results.load import load_study
from hpo.storage.open import open_storage
from hpo.study.file import studies_dir

STUDY = """
dataset = "mnist-5k"
seeds = 7
[base]
depth = 1
width = 16
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 4
[[cells]]
name = "a"
[[cells]]
name = "b"
lr = 0.01
[[cells]]
name = "wild"
lr = 5.0
[[claims]]
says = "a is better than b"
greater = ["a", "b"]
matters = 0.001
[[claims]]
says = "a is better than the wild one"
greater = ["a", "wild"]
by = "wins"
[[claims]]
says = "b has the greater loss"
greater = ["b", "a"]
metric = "test_loss"
[[claims]]
says = "the wild one fails"
fails = "wild"
[[claims]]
says = "a ends between 50 and 99%"
greater = [0.99, "a", 0.5]
[[claims]]
says = "a is the best"
best = "a"
among = ["b"]
metric = "valid_accuracy"
[[claims]]
says = "a and b are alike"
similar = ["a", "b"]
within = 0.3
[[claims]]
says = "b gains less at the end"
greater = ["a@2 - a@1", "b@4 - b@3"]
metric = "valid_accuracy"
[[claims]]
says = "the losses are alike"
similar = ["a@3", "a@4"]
metric = "valid_loss"
within = 0.5
[[claims]]
says = "b is uneven"
greater = ["b", "a"]
metric = "valid_spread"
[[claims]]
says = "a takes as long as b"
similar = ["a", "b"]
metric = "train_seconds"
within = 0.9
[[claims]]
says = "b falls more"
greater = ["b", "a"]
metric = "valid_falls"
[[claims]]
says = "the wild one learns nothing, and a has the smaller loss"
all = [
  { fails = "wild", below = "guess" },
  { greater = ["b", "a"], metric = "test_loss" },
  { greater = ["b@1", "a@1"], metric = "train_loss" },
]
[[claims]]
says = "they interact"
untestable = "One thing at a time."
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdicts")
    (folder / "tiny.toml").write_text(STUDY)
    ended = forked.command(["run", "tiny.toml", "--quiet"], folder, 120)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="module")
def written(run: Path) -> dict:
    return json.loads((run / "reports/tiny/verdicts.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def study(run: Path) -> independent.Study:
    return independent.Study(run / "tiny.toml", run / "reports/tiny", run / "hpo.db")


def test_an_independent_script_finds_the_same_verdicts(written, study):
    conclusions = [of for of in written["conclusions"] if of["verdict"] != "not testable"]
    for ours, theirs in zip(conclusions, study.verdicts(), strict=True):
        assert ours["verdict"] == theirs["verdict"], ours["says"]
        assert ours["p"] == pytest.approx(theirs["p"], rel=1e-9), ours["says"]
        for part, found in zip(ours["parts"], theirs["parts"], strict=True):
            paths = found["paths"]
            assert part["path_for"] == pytest.approx(paths[0], rel=1e-9), ours["says"]
            assert part["path_against"] == pytest.approx(paths[1], rel=1e-9), ours["says"]
            if part["path_too_small"]:
                assert part["path_too_small"] == pytest.approx(paths[2], rel=1e-9)
    assert {of["verdict"] for of in conclusions} >= {"holds", "unresolved"}
    assert written["conclusions"][-1]["stopped"] == "One thing at a time."


def test_the_stored_bits_are_the_test_accuracy_and_give_the_same_interval(written, study):
    ours, theirs = (study.right(cell, "test", 1_000) for cell in ("a", "b"))
    accuracy = study.trials.loc["a"]["test_accuracy"]
    assert ours.mean(axis=1).to_numpy() == pytest.approx(accuracy.to_numpy(), abs=1e-12)
    wanted = independent.images_interval(ours.to_numpy(), theirs.to_numpy())
    [part] = written["conclusions"][0]["parts"]
    assert part["interval_seeds_and_images"] == pytest.approx(wanted, rel=1e-9)
    shares = study.right("a", "valid", 800).mean(axis=1).to_numpy()
    assert shares == pytest.approx(study.trials.loc["a"]["valid_accuracy"].to_numpy(), abs=1e-12)


def test_single_runs_are_compared_in_all_pairs(written, study):
    ours, theirs = (study.trials.loc[cell]["test_accuracy"].to_numpy() for cell in ("a", "b"))
    wins = np.sign(ours[:, None] - theirs[None, :]).mean() / 2 + 0.5
    assert written["conclusions"][0]["parts"][0]["single_runs"][0] == pytest.approx(wins)


def test_it_is_what_its_published_schema_says(written):
    schema = json.loads((studies_dir() / verdicts.FILE).read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(written, schema)
    broken = {**written, "format": "other"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_the_published_schema_is_that_of_the_code():
    assert (studies_dir() / verdicts.FILE).read_text("utf-8") == verdicts.schema(), (
        "python -m hpo.analysis.verdicts writes it"
    )


def test_every_network_has_its_failures_and_intervals(written, study):
    networks = {of["cell"]: of for of in written["networks"]}
    assert networks["wild"]["failures"] == int(study.failing("wild").sum())
    assert networks["a"]["most_failures"] == pytest.approx(1 - 0.05 ** (1 / 7))
    low, high = networks["a"]["interval_seeds_and_images"]
    assert low < networks["a"]["test_accuracy"] < high


def test_the_images_that_two_networks_disagree_on_are_shown(run):
    text = (run / "reports/tiny/report.md").read_text("utf-8")
    assert "![Test images that a and b disagree on.](figures/disputed.svg)" in text
    assert (run / "reports/tiny/figures/disputed.svg").stat().st_size > 10_000


def test_times_are_measured_in_rounds_of_their_own_and_verdicts_follow_from_them(run, written):
    times = pd.read_csv(run / "reports/tiny/times.csv")
    assert list(times) == ["round", "cell", "seconds"]
    assert times.groupby("cell")["round"].apply(list).to_dict() == {
        "a": list(range(1, 9)), "b": list(range(1, 9)),
    }  # fmt: skip
    assert times["seconds"].min() > 0
    seconds = times.pivot(index="round", columns="cell", values="seconds")
    [part] = next(of for of in written["conclusions"] if "as long as" in of["says"])["parts"]
    assert part["effect"] == pytest.approx(np.log(seconds["a"] / seconds["b"]).mean(), rel=1e-12)
    assert to_parquet(load_study(open_storage(f"sqlite:///{run / 'hpo.db'}"), "tiny"), run)[-1] == (
        run / "times.parquet"
    )
    assert pd.read_parquet(run / "times.parquet").equals(times)


def test_times_of_an_earlier_report_do_not_stay(run, tmp_path):
    study = load_study(open_storage(f"sqlite:///{run / 'hpo.db'}"), "tiny")
    report.write(study, tmp_path / "tiny")
    assert (tmp_path / "tiny/times.csv").exists()
    report.write(dataclasses.replace(study, timings=[]), tmp_path / "tiny")
    assert not (tmp_path / "tiny/times.csv").exists()


@pytest.mark.slow
def test_the_published_verdicts_follow_from_the_published_files():
    folder = studies_dir().parent / "reports/published/grid-report"
    published = json.loads((folder / "verdicts.json").read_text("utf-8"))
    conclusions = [of for of in published["conclusions"] if of["verdict"] != "not testable"]
    again = independent.Study(studies_dir() / "grid-report.toml", folder).verdicts()
    assert [of["verdict"] for of in conclusions] == [of["verdict"] for of in again]
    assert [of["p"] for of in conclusions] == pytest.approx([of["p"] for of in again], rel=1e-6)
