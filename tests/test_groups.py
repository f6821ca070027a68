"""Rows of one group, such as those of a patient, stand in one part."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from own_runs import hpo_in, study
from scipy import stats

from hpo.data import card, datasets
from hpo.data.files import load
from hpo.errors import InputError
from hpo.results.load import load_study
from hpo.storage.open import open_storage
from hpo.study.config import Seeds
from hpo.study.source import Source
from hpo.training.tensors import split_rows


def visits(patients: int = 30, regression: bool = False) -> pd.DataFrame:
    """Some visits of each patient: who knows the patient knows the label, but for noise."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(patients), rng.integers(3, 12, patients))
    level = rng.normal(0, 1, patients)
    sick = (level + rng.normal(0, 0.5, patients) > 0).astype(int)
    frame = pd.DataFrame(
        {
            "patient": [f"p{number}" for number in patient],
            "pulse": 70 + 9 * level[patient] + rng.normal(0, 2, len(patient)),
            "age": rng.integers(20, 80, patients)[patient],
            "sick": level[patient] + 0.5 if regression else sick[patient],
        }
    )
    return frame.sample(frac=1, random_state=0)


def read(frame: pd.DataFrame, place: Path, **source: object) -> datasets.Dataset:
    frame.to_csv(place / "visits.csv", index=False)
    keys: dict = {"label": "sick", "group": "patient", **source}
    return load(Source(str(place / "visits.csv"), **keys))


@pytest.mark.parametrize("regression", [False, True])
def test_no_group_stands_in_two_parts(regression: bool, tmp_path: Path):
    frame = visits(regression=regression)
    found = read(frame, tmp_path)
    assert len(found.schema.columns) == 2, "the group is no feature"
    assert len(found.train_labels) + len(found.test_labels) == len(frame)
    shares = []
    for seed in range(8):
        rows, valid = datasets.split(found, seed)
        assert not set(found.groups[rows]) & set(found.groups[valid])
        assert sorted([*rows, *valid]) == list(range(len(found.train_labels)))
        shares.append(len(valid) / len(found.train_labels))
    assert 0.1 < min(shares) < max(shares) < 0.3
    assert len({tuple(datasets.split(found, seed)[1]) for seed in range(8)}) > 4
    # A test row has an age that no training row has, where ages are of one patient each.
    alone = frame.drop_duplicates("patient")["age"].value_counts()
    once = set(alone[alone == 1].index)
    mean, std = found.schema.mean[1], found.schema.std[1]
    raw = [part[:, 1] * std + mean for part in (found.train_images, found.test_images)]
    train_ages, test_ages = (set(np.rint(part).astype(int)) for part in raw)
    assert not train_ages & test_ages & once


def test_parts_keep_the_classes_shares(tmp_path: Path):
    found = read(visits(60), tmp_path)
    whole = np.mean([*found.train_labels, *found.test_labels])
    parts = [
        found.test_labels,
        *(found.train_labels[datasets.split(found, s)[1]] for s in range(6)),
    ]
    assert max(abs(part.mean() - whole) for part in parts) < 0.15


def test_other_groups_are_other_data(tmp_path: Path):
    frame = visits()
    first = read(frame, tmp_path)
    frame["patient"] = frame["patient"].replace("p0", "p1")
    assert read(frame, tmp_path).checksum != first.checksum


@pytest.mark.parametrize(
    ("frame", "source", "said"),
    [
        (visits(2), {}, r"group: has 2 values, and 3 are needed, of rows to train on, to val"),
        (visits().assign(patient=["", *visits()["patient"][1:]]), {}, "group: row 0 has no value"),
        (visits(), {"group": "doctor"}, "group: has no column 'doctor'"),
        (visits(), {"group": "sick"}, "has the labels; take it out of ignore, time and group"),
    ],
)
def test_groups_that_cannot_be_drawn_are_refused(frame, source, said: str, tmp_path: Path):
    with pytest.raises(InputError, match=said):
        read(frame, tmp_path, **source)


def test_a_search_by_groups_ends_with_a_winner(tmp_path: Path):
    visits().to_csv(tmp_path / "visits.csv", index=False)
    text = study('{ file = "visits.csv", label = "sick", group = "patient" }')
    text = text.replace("[search]\n", "[search]\nseeds_per_trial = 3\n")
    (tmp_path / "visits.toml").write_text(text.replace("seeds = 1", "seeds = 3"))
    answer = hpo_in(tmp_path, "run", "visits.toml")
    assert answer.code == 0, answer.err
    stored = optuna.load_study(study_name="visits", storage=f"sqlite:///{tmp_path}/hpo.db")
    assert "whole groups" in stored.user_attrs["binding"]["split"]
    values = stored.best_trial.system_attrs["valid_by_seed"]
    assert len(values) == 3
    assert stored.best_value == pytest.approx(np.mean(values))
    report = (tmp_path / "reports/visits/report.md").read_text()
    assert "by column 'patient': those of one value stand in one part" in report
    assert re.search(r"Each trial trains 3 networks on about \d+ rows", report)
    assert re.search(r"to train on, about \d+ of them to validate on", report)
    without = text.replace(', group = "patient"', "")
    (tmp_path / "visits.toml").write_text(without)
    again = hpo_in(tmp_path, "run", "visits.toml")
    assert again.code == 2
    assert "split" in again.err or "checksum" in again.err


def test_few_rows_in_a_part_are_told(tmp_path: Path):
    frame = visits(40)
    even = card.warnings(datasets.describe(read(frame, tmp_path)))
    assert not [text for text in even if "groups are few" in text]
    large = frame["patient"].where(frame.index < 0.1 * len(frame), "giant")
    said = card.warnings(datasets.describe(read(frame.assign(patient=large), tmp_path)))
    assert [text for text in said if "validation part: " in text and "a fifth was wanted" in text]
    assert [text for text in said if "test part: " in text]


def test_groups_and_other_parts_are_refused_together(tmp_path: Path):
    visits().to_csv(tmp_path / "visits.csv", index=False)
    for other in ('time = "age"', 'valid = "visits.csv"'):
        source = f'{{ file = "visits.csv", label = "sick", group = "patient", {other} }}'
        (tmp_path / "visits.toml").write_text(study(source))
        answer = hpo_in(tmp_path, "run", "visits.toml")
        assert answer.code == 2
        assert "group draws the parts, and so does" in answer.err


# --- folds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_are_even_and_hold_each_row_once(folds: int, regression: bool, tmp_path: Path):
    found = read(visits(60, regression), tmp_path, group="", ignore=("patient",))
    n = len(found.train_labels)
    parts = [datasets.fold(found, number, folds) for number in range(folds)]
    validated = np.concatenate([valid for _, valid in parts])
    assert {len(valid) for _, valid in parts} == {n // folds}
    assert len(set(validated)) == len(validated) > n - folds
    whole = found.train_labels.mean()
    for rows, valid in parts:
        assert sorted([*rows, *valid]) == list(range(n))
        assert abs(found.train_labels[valid].mean() - whole) < (0.2 if regression else 0.05)


def folded(place: Path, source: str, options: str) -> Path:
    visits().to_csv(place / "visits.csv", index=False)
    text = study(source).replace("[search]\n", f"[search]\n{options}\n")
    (place / "visits.toml").write_text(text)
    return place


def test_a_trial_is_worth_the_mean_of_its_folds(tmp_path: Path):
    place = folded(tmp_path, '{ file = "visits.csv", label = "sick" }', "folds = 4")
    answer = hpo_in(place, "run", "visits.toml")
    assert answer.code == 0, answer.err
    stored = optuna.load_study(study_name="visits", storage=f"sqlite:///{tmp_path}/hpo.db")
    values = stored.best_trial.system_attrs["valid_by_seed"]
    assert (len(values), stored.user_attrs["binding"]["folds"]) == (4, "4")
    assert stored.best_value == pytest.approx(np.mean(values))
    data = stored.user_attrs["data"]
    every = data["train"] + data["valid"]
    size = every // 4
    assert all(value * size == pytest.approx(round(value * size)) for value in values)
    report = (tmp_path / "reports/visits/report.md").read_text()
    assert f"on {every - size:,} rows" in report
    assert "the mean over 4 folds of the training rows" in report
    assert f"{every} to train on (trials: in 4 folds; finalists: {data['valid']} of them" in report
    shown = hpo_in(place, "show", "visits").out
    for trial in stored.trials:
        [row] = re.findall(rf"^\| {trial.number} \|.*?\) \|", report, re.MULTILINE)
        values = trial.system_attrs["valid_by_seed"]
        low, high = corrected(values)
        ends = f"{100 * max(low, 0):.2f} to {100 * min(high, 1):.2f}"
        text = f"{100 * np.mean(values):.2f} ({ends})"
        assert row.endswith(f"| {text} |")
        assert f" {text} " in shown
    spread = [np.std(trial.system_attrs["valid_by_seed"]) for trial in stored.trials]
    assert max(spread) > 0, "or each interval would be a point"
    assert "taken as (1/4 + 1/3) s², not s²/4 (Nadeau and Bengio 2003)" in report


def corrected(values: list[float]) -> tuple[float, float]:
    """The ends of the interval of Nadeau and Bengio, each network trained on all other folds."""
    n = len(values)
    error = np.sqrt((1 / n + 1 / (n - 1)) * np.var(values, ddof=1))
    half = stats.t.ppf(0.975, n - 1) * error
    return np.mean(values) - half, np.mean(values) + half


def test_values_of_folds_that_are_not_the_trials_are_refused(tmp_path: Path):
    place = folded(tmp_path, '{ file = "visits.csv", label = "sick" }', "folds = 4")
    assert hpo_in(place, "run", "visits.toml", "--trials", "1").code == 0
    stored = optuna.load_study(study_name="visits", storage=f"sqlite:///{place}/hpo.db")
    values = stored.trials[0].system_attrs["valid_by_seed"]
    for wrong in (values[:-1], [values[0] + 0.1, *values[1:]], []):
        with closing(sqlite3.connect(place / "hpo.db")) as database, database:
            database.execute(
                "UPDATE trial_system_attributes SET value_json = ? WHERE key = 'valid_by_seed'",
                (json.dumps(wrong),),
            )
        with pytest.raises(InputError, match="trial 0, attribute valid_by_seed"):
            load_study(open_storage(f"sqlite:///{place}/hpo.db", create=False), "visits")


def test_each_fold_is_validated_on_whatever_the_first_seed(tmp_path: Path):
    found = read(visits(), tmp_path, group="", ignore=("patient",))
    parts = [split_rows(found, Seeds.of(seed), 4).valid.tolist() for seed in range(7, 11)]
    wanted = [datasets.fold(found, number, 4)[1].tolist() for number in range(4)]
    assert sorted(parts) == sorted(wanted)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ('group = "patient"', "folds = 5", "which part; leave out search.folds = 5"),
        ('time = "age"', "folds = 5", "which part; leave out search.folds = 5"),
        ('ignore = ["age"]', "folds = 100", "search.folds = 100 needs 200 or more"),
        ('ignore = ["age"]', "folds = 1", "folds: must be a whole number from 2 to 100"),
        ('ignore = ["age"]', "folds = 5\nseeds_per_trial = 2", "leave out seeds_per_trial"),
    ],
)
def test_folds_that_cannot_be_are_refused(source: str, options: str, said: str, tmp_path: Path):
    place = folded(tmp_path, f'{{ file = "visits.csv", label = "sick", {source} }}', options)
    answer = hpo_in(place, "run", "visits.toml")
    assert (answer.code, said in answer.err) == (2, True), answer.err
