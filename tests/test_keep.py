"""The epoch that counts: keep and patience, against a training by hand that judges each epoch."""

import copy
import itertools
import json
import math
import sqlite3
import statistics
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pandas as pd
import pytest
import safetensors.torch
import torch
from in_process import markdown, opened, prepared
from test_own_network import MODULE
from test_training import (
    assert_same_weights,
    config,
    examples,
    reference_model,
    reference_optimizer,
    reference_schedule,
    split,
)
from tiny import SEARCH, tiny_dataset
from torch import nn

import hpo
from hpo.analysis import importance
from hpo.errors import InputError
from hpo.export import trackers
from hpo.results import trial as record
from hpo.results.load import load_study
from hpo.results.study import StoredGrid, StoredSearch
from hpo.runs import runner
from hpo.study import file as study_file
from hpo.study.columns import METRICS
from hpo.study.config import Config, Seeds
from hpo.training import tensors
from hpo.training.evaluation import evaluate
from hpo.training.train import Epoch, train


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- training -----------------------------------------------------------------------------------


class ByHand:
    """A training as an ordinary loop, that looks at the validation after each epoch: at the
    accuracy, or at the loss.

    accuracies: of the epochs until patience is out. best, its model: the first of the best epochs.
    model: after the last epoch.
    """

    def __init__(self, model: nn.Module, settings: Config, seed: int, loss: bool = False) -> None:
        data, part = examples(), split(seed)
        optimizer = reference_optimizer(model.parameters(), settings)
        steps = settings.epochs * math.ceil(len(part.train) / settings.batch_size)
        schedule = reference_schedule(optimizer, settings.schedule, steps)
        order = torch.Generator().manual_seed(seed)
        self.accuracies: list[float] = []
        most = -math.inf
        for epoch in range(1, settings.epochs + 1):
            model.train()
            shuffled = part.train[torch.randperm(len(part.train), generator=order)]
            for batch in shuffled.split(settings.batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(
                    model(data.images[batch]), data.labels[batch]
                ).backward()
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                logits, labels = model.eval()(data.images[part.valid]), data.labels[part.valid]
            accuracy = float((logits.argmax(1) == labels).double().mean())
            value = -float(nn.functional.cross_entropy(logits, labels)) if loss else accuracy
            if value > most:
                self.best, self.best_model, most = epoch, copy.deepcopy(model), value
            self.accuracies.append(accuracy)
            if settings.patience and epoch - self.best == settings.patience:
                break
        self.model = model


def by_hand(settings: Config, seed: int) -> ByHand:
    return ByHand(reference_model(settings, seed), settings, seed)


def trained(settings: Config, seeds: list[int], **more: str) -> list[Epoch]:
    splits = [split(seed) for seed in seeds]
    drawn = [Seeds.of(seed) for seed in seeds]
    return list(train(settings, examples(), splits, drawn, **more))


WAYS = {
    "sgd": {},
    "adam, cosine": {"optimizer": "adam", "lr": 3e-3, "schedule": "cosine"},
    "batch norm": {"norm": "batch", "activation": "relu"},
    "dropout, momentum": {"dropout": 0.3, "optimizer": "sgd_momentum", "lr": 0.02},
}
SEEDS = [0, 1, 2, 3, 4]


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_the_best_epochs_network_is_kept_alone_and_stacked(changes):
    settings = config(epochs=8, keep="best", **changes)
    stacked, hands = trained(settings, SEEDS), [by_hand(settings, seed) for seed in SEEDS]
    assert len({hand.best for hand in hands}) > 1, "or the replicates show nothing"
    assert any(hand.best < 8 for hand in hands)
    for place, (seed, hand) in enumerate(zip(SEEDS, hands, strict=True)):
        for epochs, at in ((stacked, place), (trained(settings, [seed]), 0)):
            assert epochs[-1].kept[at] == hand.best
            assert [epoch.valid_accuracy[at] for epoch in epochs] == pytest.approx(hand.accuracies)
            without_count(epochs[-1], at, hand.best_model)
            right = epochs[-1].valid_right[at]
            assert float(right.double().mean()) == pytest.approx(max(hand.accuracies))


def test_another_objective_chooses_by_its_own_direction():
    settings = config(epochs=8, keep="best", patience=2, optimizer="adam", lr=2e-3)
    stacked, ends = trained(settings, SEEDS, objective="valid_loss"), []
    for place, seed in enumerate(SEEDS):
        hand = ByHand(reference_model(settings, seed), settings, seed, loss=True)
        ends.append(hand.best)
        assert stacked[-1].kept[place] == hand.best
        assert stacked[-1].lengths[place] == len(hand.accuracies) == min(hand.best + 2, 8)
        assert_same_weights(stacked[-1], place, hand.best_model)
    assert len(set(ends)) > 1


def without_count(epoch: Epoch, replicate: int, model: nn.Module) -> None:
    """Compares all weights and running statistics. How many batches a batch norm has seen is a
    stack's number, and plays no part."""
    for name, own in epoch.network.state_dict(replicate).items():
        if name.endswith("num_batches_tracked"):
            model.state_dict()[name].copy_(own)
    assert_same_weights(epoch, replicate, model)


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_keeping_the_best_changes_no_epoch(changes):
    kept, last = (
        trained(config(epochs=6, keep=keep, **changes), [0, 1]) for keep in ("best", "last")
    )
    assert last[-1].kept is None
    for ours, theirs in zip(kept, last, strict=True):
        assert [getattr(ours, m) for m in METRICS] == [getattr(theirs, m) for m in METRICS]


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("patience", [1, 2])
@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_patience_ends_a_training_as_if_it_were_alone(changes, patience, keep):
    settings = config(epochs=8, keep=keep, patience=patience, **changes)
    stacked, hands = trained(settings, SEEDS), [by_hand(settings, seed) for seed in SEEDS]
    lengths = [len(hand.accuracies) for hand in hands]
    assert len(set(lengths)) > 1, "or the stack shows nothing"
    assert len(stacked) == max(lengths)
    assert [epoch.last for epoch in stacked] == [False] * (max(lengths) - 1) + [True]
    for place, (seed, hand) in enumerate(zip(SEEDS, hands, strict=True)):
        alone = trained(settings, [seed])
        assert len(alone) == lengths[place]
        model, epoch = (hand.best_model, hand.best) if keep == "best" else (hand.model, len(alone))
        assert stacked[-1].kept[place] == alone[-1].kept[0] == epoch
        without_count(stacked[-1], place, model)
        assert stored_of(stacked, place) == stored_of(alone, 0)
        for name, weight in alone[-1].network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(weight, stacked[-1].network.state_dict(place)[name]), name
        for each in (stacked[-1].valid_right[place], alone[-1].valid_right[0]):
            assert float(each.double().mean()) == pytest.approx(hand.accuracies[epoch - 1])


def stored_of(epochs: list[Epoch], replicate: int) -> dict:
    stored = record.attributes(epochs, replicate, record.outcome(epochs, replicate))
    return {key: value for key, value in stored.items() if key != "train_seconds"}


@pytest.mark.parametrize("patience", [0, 2])
def test_ones_own_network_is_kept_with_its_buffers(patience, tmp_path):
    (tmp_path / "kept_nets.py").write_text(MODULE)
    given = {"optimizer": "sgd", "lr": 0.1, "batch_size": 16, "epochs": 8, "units": 8}
    kept = {"keep": "best", "patience": patience}
    settings = Config.of({**given, **kept, "model": "kept_nets:build"})
    epochs, ends = trained(settings, [0, 1, 2], folder=str(tmp_path)), []
    for replicate in range(3):
        torch.manual_seed(replicate)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.0),
            nn.Linear(8, 10),
        )  # fmt: skip
        hand = ByHand(model, settings, replicate)
        ends.append(hand.best)
        assert epochs[-1].kept[replicate] == hand.best
        theirs = hand.best_model.state_dict()
        for name, value in epochs[-1].network.state_dict(replicate).items():
            assert torch.allclose(value, theirs[name], rtol=1e-4, atol=1e-6), name
    assert min(ends) < 8


def test_a_training_that_is_cut_has_the_learning_rates_of_the_whole_one():
    settings = config(epochs=6, schedule="linear", keep="best", patience=1)
    rows = tensors.Split(split(0).train, torch.arange(0))
    cut = list(train(settings, examples(), [rows], [Seeds.of(0)], cut=4))
    plain = config(epochs=6, schedule="linear")
    whole = train(plain, examples(), [split(0)], [Seeds.of(0)])
    assert [epoch.last for epoch in cut] == [False] * 3 + [True]
    weights = next(itertools.islice(whole, 3, None)).network.state_dict()
    for name, value in cut[-1].network.state_dict().items():
        assert torch.equal(value, weights[name]), name


# --- studies ------------------------------------------------------------------------------------

GRID = """
title = "Kept"
dataset = "mnist-5k"
seeds = 4
[base]
depth = 1
width = 16
activation = "relu"
optimizer = "sgd_momentum"
lr = 0.1
batch_size = 40
epochs = 8
[[cells]]
name = "last"
[[cells]]
name = "best"
keep = "best"
[[cells]]
name = "patient"
patience = 2
[[cells]]
name = "both"
keep = "best"
patience = 2
"""


def written(folder: Path, text: str) -> study_file.StudyFile:
    (folder / "kept.toml").write_text(text)
    return study_file.load(str(folder / "kept.toml"))


def grid(folder: Path, text: str = GRID, **options) -> StoredGrid:
    file, storage = written(folder, text), opened(folder)
    runner.run_grid(prepared(file, storage, tiny_dataset(), name="kept", **options))
    study = load_study(storage, "kept")
    assert isinstance(study, StoredGrid)
    return study


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StoredGrid]:
    folder = tmp_path_factory.mktemp("kept")
    return folder, grid(folder)


def by_epoch(study: StoredGrid, cell: str, seed: int) -> pd.DataFrame:
    curves = study.curves
    return curves[(curves["cell"] == cell) & (curves["seed"] == seed)].set_index("epoch")


def test_trackers_get_the_figures_of_the_epoch_that_counts(whole):
    trials = whole[1].trials.set_index("number")
    for run in trackers.runs(whole[1]):
        row = trials.loc[run.number]
        ends = {name: values[-1] for name, values in run.curves.items() if values}
        counted = {**ends, **run.kept}
        assert counted["valid_accuracy"] == row["valid_accuracy"]
        assert counted["train_loss"] == row["train_loss"]
        assert bool(run.kept) == (row["cell"] != "last")
        assert "epoch" not in run.kept


def test_a_grids_trials_have_the_kept_epochs_figures(whole):
    study, dataset = whole[1], tiny_dataset()
    images = tensors.examples(dataset.test_images, dataset.test_labels, 10, torch.device("cpu"))
    everything = tensors.examples(
        dataset.train_images, dataset.train_labels, 10, torch.device("cpu")
    )
    trials = study.trials.set_index(["cell", "seed"])
    kept = []
    for cell, seed in itertools.product(("best", "patient", "both"), range(4)):
        curve, row = by_epoch(study, cell, seed), trials.loc[(cell, seed)]
        full = by_epoch(study, "last", seed)["valid_accuracy"]
        best = int(full.idxmax())  # the first of equals
        if cell != "best":
            best = next(e for e in range(1, 9) if e == 8 or full[: e + 2].max() == full[:e].max())
            best = int(full[:best].idxmax())
        end = 8 if cell == "best" else min(best + 2, 8)
        assert list(curve["valid_accuracy"]) == list(full[:end])
        epoch = end if cell == "patient" else best
        assert row["epoch"] == epoch
        assert [row[m] for m in METRICS] == [curve.loc[epoch, m] for m in METRICS]
        trial = study.frozen[int(row["number"])]
        assert trial.value == row["valid_accuracy"]
        assert list(trial.intermediate_values) == list(curve.index)
        known = trial.user_attrs
        assert known["train_valid_gap"] == row["train_accuracy"] - row["valid_accuracy"]
        seeds = Seeds.of(seed)
        rows, settings = tensors.split_rows(dataset, seeds), study.cell("last").config
        with tensors.denormals_as_zero():
            for done in train(settings, everything, [rows], [seeds]):
                if done.number == epoch:
                    found = evaluate(done.network, images, torch.arange(50).expand(1, -1))
        assert (row["test_loss"], row["test_accuracy"]) == (found.loss[0], found.accuracy[0])
        kept.append(epoch)
    assert len(set(kept)) > 2, "or the seeds show nothing"
    assert trials.loc["last", "epoch"].isna().all()


def test_a_grid_that_goes_on_has_the_trials_of_one_that_never_stopped(whole, tmp_path):
    grid(tmp_path, seeds=1)
    resumed = grid(tmp_path, seeds=4)
    left_out = ["number", "train_seconds", "started", "ended", "stack", "run_seconds"]
    ours, theirs = (
        study.trials.sort_values(["cell", "seed"]).drop(columns=left_out).reset_index(drop=True)
        for study in (resumed, whole[1])
    )
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_report_says_which_epoch_counts(whole):
    text = markdown(whole[1], whole[0])
    assert 'Where keep is "best"' in text
    assert "so many epochs in a row" in text


CAUSE = """
[[causes]]
cell = "patient"
beside = "best"
presumes = "learning rate too high"
"""


def test_diagnostics_at_the_end_are_those_of_the_epoch_that_counts(tmp_path):
    text = GRID.replace("seeds = 4", "seeds = 4\ndiagnostics = true") + CAUSE
    study, medians = grid(tmp_path, text), []
    for cell in ("patient", "best"):
        rows = study.of(study.cell(cell))
        stored = [study.frozen[int(number)].user_attrs["diagnostics"] for number in rows["number"]]
        assert [len(each["dead"]) for each in stored] == [
            len(by_epoch(study, cell, seed)) for seed in rows["seed"]
        ]
        dead = [max(s["dead"][e - 1]) for s, e in zip(stored, rows["epoch"], strict=True)]
        medians.append(f"{100 * statistics.median(dead):.0f}%")
    said = f"worst layer is {medians[0]}, against {medians[1]}"
    assert said in markdown(study, tmp_path).replace("\\", "")


@pytest.mark.parametrize(
    ("key", "value"), [("epoch", 7.5), ("epoch", 99), ("epoch", 0), ("valid_accuracy", 0.123)]
)
def test_a_kept_epoch_that_is_not_the_curves_is_refused(whole, tmp_path, key, value):
    trial = next(t for t in whole[1].frozen if t.user_attrs.get("cell") == "best")
    with closing(sqlite3.connect(whole[0] / "hpo.db")) as connection:
        (tmp_path / "hpo.db").write_bytes(connection.serialize())
    text = json.dumps({**trial.user_attrs["kept"], key: value})
    change = "UPDATE trial_system_attributes SET value_json = ? WHERE key = 'kept' AND trial_id = ?"
    with closing(sqlite3.connect(tmp_path / "hpo.db")) as connection, connection:
        connection.execute(change, (text, trial._trial_id))
    with pytest.raises(InputError, match=f"trial {trial.number}, attribute kept"):
        load_study(opened(tmp_path), "kept")


@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        ('greater = ["patient@4", "best@4"]\nmetric = "valid_accuracy"', "1 to 3"),
        ('greater = ["both", "best"]\nmetric = "valid_spread"', "needs"),
    ],
)
def test_a_conclusion_needs_epochs_that_patience_cannot_take(claim, fault, tmp_path):
    text = GRID.replace("patience = 2", "patience = 1") if "spread" in claim else GRID
    with pytest.raises(InputError, match=fault):
        written(tmp_path, f'{text}\n[[claims]]\nsays = "x"\n{claim}\n')


KEPT = SEARCH.replace("epochs = 3", 'epochs = 6\nkeep = ["best", "last"]\npatience = [0, 1, 2]')


def search(folder: Path, text: str, **options) -> StoredSearch:
    file, storage = written(folder, text), opened(folder)
    run = prepared(file, storage, tiny_dataset(), name="kept", out=folder, **options)
    runner.run_search(run)
    study = load_study(storage, "kept")
    assert isinstance(study, StoredSearch)
    return study


def test_a_search_over_keep_and_patience_comes_to_its_report(tmp_path):
    study = search(tmp_path, KEPT.replace("n_trials = 8", "n_trials = 12"))
    assert {"keep", "patience"} <= set(study.trials.columns)
    for row in study.ranked.to_dict("records"):
        values = study.frozen[int(row["number"])].user_attrs["curve"]["valid_accuracy"]
        best = max(values) if row["keep"] == "best" else values[-1]
        assert row["valid_accuracy"] == best
        ended = len(values) - 1 - values.index(max(values))
        assert len(values) == 6 or ended == row["patience"] > 0
    found = importance.evaluate(study.frozen, resamples=2)
    assert {"keep", "patience"} <= set(found.evaluations[0].shares)
    text = markdown(study, tmp_path)
    assert 'Where keep is "best"' in text
    assert "Where patience is given" in text


BOTH = SEARCH.replace("epochs = 3", 'epochs = 6\nkeep = "best"\npatience = 2\nschedule = "linear"')


def test_the_winner_on_all_images_is_cut_at_the_median_of_its_kept_epochs(tmp_path):
    study = search(tmp_path, BOTH.replace("seeds = 2", "seeds = 4"))
    winner = study.winner
    epochs = [int(epoch) for epoch in winner.runs["epoch"]]
    cut = math.ceil(statistics.median(epochs))
    folder = tmp_path / "kept" / "best"
    assert tomllib.loads((folder / "config.toml").read_text("utf-8"))["epoch"] == cut == winner.cut
    dataset = tiny_dataset()
    data = tensors.examples(dataset.train_images, dataset.train_labels, 10, torch.device("cpu"))
    plain = Config.of({**winner.config.as_dict(), "keep": "last", "patience": 0})
    with tensors.denormals_as_zero():
        done = train(plain, data, [tensors.all_rows(dataset)], [Seeds.of(0)])
        weights = next(itertools.islice(done, cut - 1, None)).network.state_dict()
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in weights.items())
    text = markdown(study, tmp_path / "kept")
    assert f"after epoch {cut} of 6" in text
    assert f"better by {100 * chosen(study):.2f} points" in text


def chosen(study: StoredSearch) -> float:
    """How much better the kept epoch's validation is than that after the median of the others'."""
    gains = []
    for finalist in study.finalists:
        curves = [
            by_epoch(study.tested, finalist.cell.name, int(seed))["valid_accuracy"]
            for seed in finalist.runs["seed"]
        ]
        bests = [int(curve.idxmax()) for curve in curves]
        for place, curve in enumerate(curves):
            others = math.ceil(statistics.median(bests[:place] + bests[place + 1 :]))
            gains.append(curve.max() - curve[min(others, len(curve))])
    return statistics.fmean(gains)


@pytest.mark.parametrize("pruner", ["none", "wilcoxon", "median"])
def test_a_trial_of_several_seeds_is_the_mean_of_their_own_best_epochs(pruner, tmp_path):
    text = BOTH.replace('pruner = "median"', f'pruner = "{pruner}"\nseeds_per_trial = 3')
    study, dataset = search(tmp_path, text.replace("n_trials = 8", "n_trials = 4")), tiny_dataset()
    data = tensors.examples(dataset.train_images, dataset.train_labels, 10, torch.device("cpu"))
    for row in study.ranked.to_dict("records"):
        number, ends = int(row["number"]), []
        for seeds in map(Seeds.of, range(3)):
            rows = tensors.split_rows(dataset, seeds)
            with tensors.denormals_as_zero():
                epochs = list(train(study.config(number), data, [rows], [seeds]))
            ends.append((record.outcome(epochs, 0), [e.valid_accuracy[0] for e in epochs]))
        for name in ("epoch", *METRICS):
            mean = statistics.fmean(end[name] for end, _ in ends)
            assert row[name] == pytest.approx(mean, rel=1e-12), name
        assert study.frozen[number].value == row["valid_accuracy"]
        stored = study.frozen[number].user_attrs
        assert stored["valid_by_seed"] == [end["valid_accuracy"] for end, _ in ends]
        longest = max(len(values) for _, values in ends)
        curve = [
            statistics.fmean(values[min(place, len(values) - 1)] for _, values in ends)
            for place in range(longest)
        ]
        assert stored["curve"]["valid_accuracy"] == pytest.approx(curve)


@pytest.mark.parametrize("objective", ["valid_loss", "valid_balanced_accuracy"])
def test_a_search_for_another_objective_keeps_its_best_epoch(objective, tmp_path):
    text = f'objective = "{objective}"\n' + BOTH.replace("n_trials = 8", "n_trials = 5")
    study = search(tmp_path, text)
    best = min if objective == "valid_loss" else max
    for row in study.ranked.to_dict("records"):
        trial = study.frozen[int(row["number"])]
        values = trial.user_attrs["curve"][objective]
        assert trial.value == row[objective] == best(values)
        assert row["epoch"] == values.index(best(values)) + 1
        assert (
            row["valid_accuracy"] == trial.user_attrs["curve"]["valid_accuracy"][row["epoch"] - 1]
        )
    assert "better by" in markdown(study, tmp_path / "kept")


def test_the_objective_returns_the_best_epochs_value():
    space = {
        "depth": 1, "width": 16, "activation": "relu", "optimizer": "sgd_momentum", "lr": 0.3,
        "epochs": 8, "keep": "best", "patience": {"low": 1, "high": 2},
    }  # fmt: skip
    objective = hpo.Objective(dataset="mnist-5k", space=space)
    trial = optuna.trial.FixedTrial({"patience": 2})
    value, curve = objective(trial), trial.user_attrs["curve"]["valid_accuracy"]
    assert value == max(curve) == trial.user_attrs["kept"]["valid_accuracy"]
    assert trial.user_attrs["kept"]["epoch"] == curve.index(value) + 1
    assert len(curve) == min(curve.index(value) + 3, 8)
