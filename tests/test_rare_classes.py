"""Studies of rare classes: other objectives than accuracy, weights of the classes, the guess."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from in_process import markdown, opened, prepared
from sklearn import metrics as reference
from tiny import SEARCH

import hpo
from hpo.analysis.compare import compare
from hpo.data import files
from hpo.data.datasets import Dataset, describe, load
from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.export import trackers
from hpo.report import contents
from hpo.report.blocks.search_tables import finalists_frame
from hpo.results.load import load_study
from hpo.results.study import StoredSearch
from hpo.runs import runner
from hpo.runs.loop import End
from hpo.study import file as study_file
from hpo.study import metrics
from hpo.study.config import Seeds
from hpo.study.metrics import ACCURACY, BY_NAME
from hpo.study.source import Source
from hpo.training.evaluation import auc, balanced_accuracy, macro_f1
from hpo.training.tensors import Examples, split_rows
from hpo.training.train import train
from hpo.watch import note, terminal

OBJECTIVES = [name for name in metrics.OBJECTIVES if BY_NAME[name].kind not in metrics.REGRESSION]


def rare_dataset(share: float = 0.2, classes: int = 2) -> Dataset:
    """Rows of which class 1 is rare, and hard to tell from class 0."""
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < share).astype(np.int64)
    labels[:classes] = np.arange(classes)
    images = (rng.normal(0, 1, (500, 6)) + labels[:, None] / 2).astype(np.float32)
    return Dataset(
        name="mnist-5k",
        train_images=images[:350],
        train_labels=labels[:350],
        test_images=images[350:],
        test_labels=labels[350:],
        stratified=True,
        schema=Schema(shape=(6,), classes=tuple("abc"[:classes]), pixels=False),
        checksum=f"rare {share}",
    )


def search(folder: Path, **keys: str) -> study_file.SearchStudy:
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    (folder / "tiny.toml").write_text(lines + SEARCH)
    loaded = study_file.load(str(folder / "tiny.toml"))
    assert isinstance(loaded, study_file.SearchStudy)
    return loaded


def run(folder: Path, dataset: Dataset, **keys: str) -> StoredSearch:
    file = search(folder, **keys)
    assert runner.run_search(prepared(file, opened(folder), dataset, out=folder)) is End.COMPLETE
    found = load_study(opened(folder), "tiny")
    assert isinstance(found, StoredSearch)
    return found


# --- metrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_those_of_scikit_learn(classes: int, seed: int):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.integers(0, 4, (classes, 80)) / 2)  # with many ties
    labels = torch.from_numpy(rng.integers(0, classes - seed % 2, 80))  # of a class no row
    said = logits.argmax(0)
    wanted = reference.f1_score(labels, said, average="macro", zero_division=0)
    assert macro_f1(logits, labels) == pytest.approx(wanted, abs=1e-12)
    there = labels.unique()
    recalls = reference.recall_score(labels, said, labels=there, average="macro")
    assert balanced_accuracy(logits, labels) == pytest.approx(recalls, abs=1e-12)
    if classes == len(there) == 2:
        wanted = reference.roc_auc_score(labels, logits[1] - logits[0])
        assert auc(logits, labels) == pytest.approx(wanted, abs=1e-12)


def test_an_area_without_both_classes_or_with_a_nan_is_not_a_number():
    logits, labels = torch.zeros(2, 4), torch.tensor([0, 1, 0, 1])
    assert auc(logits, labels) == 0.5
    assert np.isnan(auc(logits, torch.zeros(4, dtype=torch.int64)))
    assert np.isnan(auc(logits * torch.nan, labels))


def test_a_stacked_network_has_the_metric_that_it_has_alone():
    data = rare_dataset()
    form = (torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels), 2)
    config = study_file.example(search_of_width(16))
    seeds = [Seeds.of(seed) for seed in range(3)]
    splits = [split_rows(data, seed) for seed in seeds]

    def values(places: list[int]) -> list[float]:
        chosen = [splits[i] for i in places], [seeds[i] for i in places]
        epochs = list(train(config, Examples(*form), *chosen, objective="valid_auc"))
        return epochs[-1].values("valid_auc")

    assert values([0, 1, 2]) == [values([place])[0] for place in range(3)]


def search_of_width(width: int) -> study_file.SearchStudy:
    raw = {"space": {"depth": 1, "width": width, "activation": "relu", "optimizer": "adam",
                     "lr": [0.01, 0.1], "epochs": 2}}  # fmt: skip
    found = study_file.parse(raw, "tiny", "tiny.toml")
    assert isinstance(found, study_file.SearchStudy)
    return found


def test_an_epoch_computes_no_more_than_its_study_seeks():
    data = rare_dataset()
    form = (torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels), 2)
    config, seed = study_file.example(search_of_width(16)), Seeds.of(0)
    split = [split_rows(data, seed)]
    assert all(not epoch.scores for epoch in train(config, Examples(*form), split, [seed]))


# --- a search by its objective -------------------------------------------------------------------


@pytest.fixture(scope="module", params=[name for name in OBJECTIVES if name != ACCURACY])
def sought(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredSearch, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return run(folder, rare_dataset(), objective=f'"{request.param}"'), folder


def test_the_objective_is_what_trials_are_worth(sought):
    study, folder = sought
    metric = study.metric
    optuna_study = optuna.load_study(study_name="tiny", storage=opened(folder))
    assert optuna_study.direction.name.lower() == metric.direction
    assert optuna_study.metric_names == [metric.words]
    for trial in study.frozen:
        if trial.state.name == "COMPLETE":
            curve = trial.user_attrs["curve"][metric.name]
            assert trial.value == curve[-1]
            assert list(trial.intermediate_values.values()) == curve
    best = max(study.finished[metric.name] * metric.sign)
    assert study.ranked.iloc[0][metric.name] * metric.sign == best


def test_finalists_are_the_best_trials_and_the_winner_has_the_best_mean(sought):
    study, _ = sought
    metric = study.metric
    best = [int(number) for number in study.ranked["number"][:2]]
    assert {finalist.number for finalist in study.finalists} == set(best)
    means = [metric.sign * finalist.runs[metric.name].mean() for finalist in study.finalists]
    assert means[0] == max(means)
    frame = finalists_frame(study)
    assert {metric.name, metric.tested.name, "valid_accuracy", "test_accuracy"} <= set(frame)
    assert frame[[metric.name, metric.tested.name]].notna().all(axis=None)


def test_the_report_speaks_of_the_objective(sought):
    study, folder = sought
    text = markdown(study, folder)
    metric, winner = study.metric, study.winner
    assert winner
    value = metric.scale * winner.runs[metric.tested.name].mean()
    mark = metric.mark
    assert f"{metric.tested.words} {value:.{metric.digits}f}{mark}" in text.split("##")[0]
    assert f"its mean {metric.words} over fresh seeds is the best" in text
    assert f"is judged by {metric.words}" in text
    assert metric.header in text
    for name in set(OBJECTIVES) - {metric.name, ACCURACY, "valid_loss"}:
        assert BY_NAME[name].words not in text


def test_a_study_is_bound_to_its_objective(sought):
    study, folder = sought
    other = next(name for name in OBJECTIVES if name not in (study.metric.name, "valid_loss"))
    with pytest.raises(InputError, match="objective"):
        run(folder, rare_dataset(), objective=f'"{other}"')


def test_two_studies_are_compared_by_their_objective(sought, weighted):
    study, _ = sought
    other = dataclasses.replace(study, name="other")
    [row] = compare(study, other)
    assert list(row.sides[0].runs) == [study.metric.name, study.metric.tested.name]
    header, table, *_ = terminal.comparison(study, other)
    assert header.startswith(f"{study.metric.header} on ")
    assert study.winner is not None
    mean = study.metric.scale * study.winner.runs[study.metric.name].mean()
    assert table.table.entries[0][1].text.startswith(f"{mean:.{study.metric.digits}f} (")
    another = dataclasses.replace(study, file=study.file.model_copy(update={"objective": ACCURACY}))
    with pytest.raises(InputError, match="compare two studies of one objective"):
        compare(study, dataclasses.replace(another, name="other"))


def test_a_smaller_loss_is_the_better_one(tmp_path: Path):
    study = run(tmp_path, rare_dataset(), objective='"valid_loss"')
    assert study.tested is not None
    worse = study.tested.trials.assign(valid_loss=study.tested.trials["valid_loss"] + 0.5)
    other = dataclasses.replace(study.tested, name="other", trials=worse)
    for row in compare(study.tested, other):
        assert row.evidence is not None
        assert row.evidence.effect == pytest.approx(0.5)
        assert terminal._difference(study.metric, row).startswith("−0.5000")


def test_trackers_have_the_objectives_curve_and_test(sought):
    study, _ = sought
    name = study.metric.name
    assert study.tested is not None
    for each in trackers.runs(study.tested):
        assert len(each.curves[name]) == 3
        assert study.metric.tested.name in each.results
    assert study.curves[name].notna().all()


def test_trials_of_another_objective_do_not_start_a_search(sought):
    study, folder = sought
    other = next(name for name in OBJECTIVES if name != study.metric.name)
    file = search(folder, objective=f'"{other}"')
    ready = prepared(file, opened(folder), rare_dataset(), out=folder, name="another", like="tiny")
    with pytest.raises(InputError, match="has another objective, whose results cannot be compared"):
        runner.run_search(ready)


def test_objectives_beside_an_objective_are_refused(tmp_path: Path):
    text = SEARCH.replace("[search]", '[search]\nobjectives = ["valid_accuracy"]')
    (tmp_path / "a.toml").write_text('objective = "valid_f1"\n' + text)
    with pytest.raises(InputError, match=r"objective: says the same as search\.objectives"):
        study_file.load(str(tmp_path / "a.toml"))


def test_a_front_may_have_another_first_objective(tmp_path: Path):
    file = search(tmp_path)
    raw = {**file.raw, "search": {"n_trials": 4, "objectives": ["valid_loss", "parameters"]}}
    both = study_file.parse(raw, "tiny", "tiny.toml")
    assert isinstance(both, study_file.SearchStudy)
    assert both.directions == ["minimize", "minimize"]
    dataset = rare_dataset()
    assert (
        runner.run_search(prepared(both, opened(tmp_path), dataset, out=tmp_path)) is End.COMPLETE
    )
    found = load_study(opened(tmp_path), "tiny")
    assert isinstance(found, StoredSearch)
    assert "Validation loss against parameters" in markdown(found, tmp_path)


def test_the_reusable_objective_returns_what_is_sought():
    space = {"depth": 1, "width": 8, "activation": "relu", "optimizer": "adam", "lr": [0.1, 0.01],
             "epochs": 2}  # fmt: skip
    objective = hpo.Objective("breast-cancer", space=space, objective="valid_loss")
    study = optuna.create_study(direction="minimize")
    study.optimize(objective, n_trials=1)
    assert study.best_value == study.best_trial.system_attrs["curve"]["valid_loss"][-1]
    with pytest.raises(InputError, match='direction="minimize"'):
        optuna.create_study(direction="maximize").optimize(objective, n_trials=1)
    with pytest.raises(InputError, match="valid_auc needs two classes, the data have 3; give"):
        hpo.Objective("wine", space=space, objective="valid_auc")
    with pytest.raises(InputError, match="objective: must be one of"):
        hpo.Objective("wine", space=space, objective="accuracy")


# --- weights of the classes ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredSearch, Path]:
    folder = tmp_path_factory.mktemp("weighted")
    keys = {"objective": '"valid_balanced_accuracy"', "class_weight": '"balanced"'}
    return run(folder, rare_dataset(0.1), **keys), folder


def test_weights_find_the_rare_class_and_change_no_loss_that_is_shown(weighted, tmp_path: Path):
    study, _ = weighted
    plain = run(tmp_path, rare_dataset(0.1), objective='"valid_balanced_accuracy"')
    assert study.winner is not None
    assert plain.winner is not None
    ours, theirs = (of.runs["test_balanced_accuracy"].mean() for of in (study.winner, plain.winner))
    assert ours > theirs
    assert study.trials["valid_loss"].min() < 2, "weights would make it larger"


def test_the_saved_winner_and_the_report_have_the_weights(weighted):
    study, folder = weighted
    assert 'class_weight = "balanced"' in (folder / "tiny/best/config.toml").read_text()
    text = markdown(study, folder)
    assert "rows are weighted by their class (balanced: all rows, over" in text
    assert "All losses shown are without weights." in text


def test_a_study_is_bound_to_its_weights(weighted):
    _, folder = weighted
    keys = {"objective": '"valid_balanced_accuracy"', "class_weight": "{ b = 3 }"}
    with pytest.raises(
        InputError, match="class weight: stored with 'balanced', now 'b 3'; give --n"
    ):
        run(folder, rare_dataset(0.1), **keys)


@pytest.mark.parametrize("value", ['"weighted"', "{}", "{ a = 0 }", "{ a = true }", "3", "[1, 2]"])
def test_other_weights_are_refused(tmp_path: Path, value: str):
    said = 'class_weight: must be "balanced" or a table of weights above 0'
    with pytest.raises(InputError, match=said):
        search(tmp_path, class_weight=value)


def test_what_does_not_go_with_the_data_gets_a_line(tmp_path: Path):
    file = search(tmp_path, class_weight="{ a = 1, rare = 3 }", objective='"valid_auc"')
    with pytest.raises(InputError) as refused:
        file.check(("a", "b", "c"), "study 'tiny': ")
    assert str(refused.value).splitlines() == [
        "study 'tiny': objective: valid_auc needs two classes, the data have 3; give "
        "valid_balanced_accuracy or valid_f1",
        "study 'tiny': class_weight: 'rare' is no class of the data; there are a, b, c",
    ]


def test_the_reusable_objective_weighs_classes_too():
    space = {"depth": 1, "width": 8, "activation": "relu", "optimizer": "adam", "lr": 0.01,
             "epochs": 2}  # fmt: skip
    values = [
        hpo.Objective("breast-cancer", space=space, class_weight=weight)(
            optuna.trial.FixedTrial({})
        )
        for weight in (None, {"malignant": 50})
    ]
    assert values[0] != values[1]
    with pytest.raises(InputError, match="class_weight: 'bad' is no class of the data"):
        hpo.Objective("breast-cancer", space=space, class_weight={"bad": 2})


# --- the guess -----------------------------------------------------------------------------------


def first_sentence(study: StoredSearch) -> str:
    return contents.lead(study)[0].split(". ")[0]


def test_a_guess_is_the_largest_class_of_the_training_rows_also_where_the_test_has_another(
    tmp_path: Path,
):
    for name, yes, no in (("train", 120, 60), ("test", 10, 45)):
        x = np.random.default_rng(0).normal(size=yes + no).round(3)
        rows = [f"{v},{'yes' if i < yes else 'no'}" for i, v in enumerate(x)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *rows]))
    source = Source(str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"), label="y")
    data = describe(files.load(source))
    assert data["largest"] == 10 / 55
    assert BY_NAME["test_accuracy"].guess(data) == 10 / 55


def test_a_winner_that_is_no_better_than_a_guess_is_told_so_everywhere(tmp_path: Path):
    dataset = rare_dataset(0.04)
    study = run(tmp_path, dataset)
    share = 100 * (dataset.test_labels == 0).mean()
    assert first_sentence(study).startswith("The winner is")
    assert f"; a guess, always the largest class, gets {share:.2f}%" in first_sentence(study)
    winner = study.winner
    assert winner is not None
    said = {
        True: "It is no better than a guess: ",
        False: "The 150 test rows do not show that it is better than a guess: ",
    }[100 * winner.runs["test_accuracy"].mean() <= share]
    assert said in contents.lead(study)[0]
    assert said in " ".join(line for line in terminal.terminal(study) if isinstance(line, str))
    assert said in note.markdown(study, "hpo run tiny", None, ended=True)


def test_a_winner_that_is_clearly_better_is_not_doubted(weighted, tmp_path: Path):
    study, _ = weighted
    assert "; a guess gets 50.00%, with test accuracy" in first_sentence(study)
    good = run(tmp_path, load("breast-cancer", None))
    text = contents.lead(good)[0]
    assert "; a guess, always the largest class, gets" in text
    assert "better than a guess" not in text


def test_a_single_seed_has_its_word_without_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.modules[__name__], "SEARCH", SEARCH.replace("seeds = 2", "seeds = 1"))
    found = run(tmp_path, rare_dataset(0.04))
    assert "better than a guess: " in contents.lead(found)[0]
    assert "over seeds" not in contents.lead(found)[0]


def test_every_kind_of_report_begins_with_the_guess(weighted):
    study, _ = weighted
    before = dataclasses.replace(study, tested=None)
    assert "; a guess gets 50.00%" in first_sentence(before)
    assert study.tested is not None
    assert "; a guess gets 50.00%" in contents.lead(study.tested)[0].split(". ")[0]


def test_metrics_have_the_guess_of_a_constant_answer():
    data = {"largest": 0.9, "classes": ["a", "b"], "guess_loss": 0.3}
    labels = np.repeat([0, 1], [90, 10])
    said = np.zeros(100, int)
    guesses = {name: BY_NAME[name].guess(data) for name in OBJECTIVES}
    assert guesses == pytest.approx(
        {
            "valid_accuracy": reference.accuracy_score(labels, said),
            "valid_balanced_accuracy": reference.balanced_accuracy_score(labels, said),
            "valid_auc": reference.roc_auc_score(labels, said),
            "valid_f1": reference.f1_score(labels, said, average="macro"),
            "valid_loss": 0.3,
        }
    )
