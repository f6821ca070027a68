"""The pictures of searches and networks: they say what they are given, whatever it is."""

import dataclasses
import errno
import html
import math
import os
import re
import threading
import xml.etree.ElementTree as ET
from functools import partial
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from hpo.report import draw
from hpo.report.blocks.page import Picture, Section, render
from hpo.report.figures import confusion, contour, grid, search, slices, style, trial
from hpo.report.figures.axis import SHOWN, Parameter
from hpo.report.figures.confusion import WorstImage
from hpo.report.figures.grid import DifferenceRow
from hpo.report.figures.reference import Reference
from hpo.report.figures.search import Run
from hpo.report.figures.style import drawing
from hpo.report.figures.svg import SVG
from hpo.report.figures.trial import TrialCurve

NAN = math.nan
ODD = "$a$ <b> & c --\x00\x1b\ud800 " + "long " * 12  # a label of a hostile user
RNG_SEED = 7


def texts(svg: str) -> list[str]:
    """The texts of a picture, which matplotlib keeps as comments beside their outlines. Fails for
    invalid XML."""
    assert ET.fromstring(svg).tag.endswith("svg")
    return [html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)]


def said(svg: str) -> str:
    return "\n".join(texts(svg))


def titles(svg: str) -> list[str]:
    """What a pointer is shown, a text a place."""
    return [title.text or "" for title in ET.fromstring(svg).iter(f"{{{SVG}}}title")]


def lines(svg: str) -> list[str]:
    return [line for title in titles(svg) for line in title.split("\n")]


def parameters(n: int = 40) -> dict[str, Parameter]:
    rng = np.random.default_rng(RNG_SEED)
    optimizers = ["sgd", "sgd_momentum", "adam", "adamw", "rmsprop"]
    activations = ["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"]
    columns: dict[str, tuple[list[Any], bool]] = {
        "lr": ((10 ** rng.uniform(-4, 0, n)).tolist(), True),
        "width": (np.round(2 ** rng.uniform(5, 10, n)).tolist(), True),
        "depth": (rng.integers(1, 5, n).tolist(), False),
        "optimizer": (rng.choice(optimizers, n).tolist(), False),
        "activation": (rng.choice(activations, n).tolist(), False),
    }
    return {name: Parameter(name=name, values=v, log=log) for name, (v, log) in columns.items()}


def accuracies(n: int = 40) -> list[float]:
    return np.random.default_rng(RNG_SEED).uniform(97, 98.4, n).tolist()


# --- progress ----------------------------------------------------------------------------------


def test_progress_counts_the_trials_below_its_axis_and_the_pruned():
    values = [97.4, 97.5, 11.0, NAN, 98.0, 0.0, NAN, 97.9, 98.2, NAN]
    run = Run(label="TPE", values=values, seconds=list(range(1, 11)))
    note = said(search.progress([run]))
    assert "2 trials below" in note
    assert "3 stopped early, without a dot" in note


def test_progress_axis_ignores_where_a_search_started():
    slow = Run(label="a", values=[10.0, 60.0, *[97.0] * 10, *[98.0] * 28], seconds=range(40))
    low, high = search._progress_limits([slow])
    assert 95 < low < 97
    assert 98 < high < 98.5


def test_progress_axis_shows_every_runs_end():
    runs = [
        Run(label="good", values=[98.0] * 20, seconds=range(20)),
        Run(label="poor", values=[60.0] * 20, seconds=range(20)),
    ]
    low, high = search._progress_limits(runs)
    assert low < 60 < 98 < high


def test_progress_names_each_run_with_its_best_value():
    runs = [
        Run(label="TPE & co", values=[97.0, 98.25, NAN], seconds=[1.0, 2.0, 3.0]),
        Run(label="Random", values=[97.0, 97.5], seconds=[1.0, 2.0]),
        Run(label="Random", values=[97.75, 97.5], seconds=[1.0, 2.0]),
    ]
    found = texts(search.progress(runs))
    assert "TPE & co: best 98.25%" in found
    assert found.count("Random: best 97.75%") == 1


def test_progress_tells_time_in_a_unit_that_suits_it():
    run = Run(label="TPE", values=[97.0, 98.0], seconds=[1.0, 181.0])
    assert "Time since the start (minutes)" in texts(search.progress([run]))
    assert search._unit(180) == (1, "seconds")
    assert search._unit(4 * 3600) == (3600, "hours")


@pytest.mark.parametrize("values", [[], [0.0], [NAN, NAN], [97.0, 97.0, 97.0], [NAN, 97.0]])
def test_progress_of_few_equal_pruned_or_diverged_trials(values: list[float]):
    run = Run(label=ODD, values=values, seconds=list(range(len(values))))
    assert "Finished trials" in texts(search.progress([run]))


def test_pictures_come_out_the_same_twice():
    run = Run(label="TPE", values=[97.0, 98.0], seconds=[1.0, 2.0])
    assert search.progress([run]) == search.progress([run])


def test_pictures_take_columns_of_a_filtered_frame():
    frame = pd.DataFrame({"lr": [0.1, 0.2, 0.3], "act": ["a", None, "b"], "v": [97.0, 98.0, 97.5]})
    frame = frame[frame["v"] < 98].iloc[::-1]
    run = Run(label="TPE", values=frame["v"], seconds=frame["v"])
    assert "TPE: best 97.50%" in texts(search.progress([run]))
    x, y = (Parameter(name=name, values=frame[name]) for name in ("lr", "act"))
    assert "2 trials" in said(contour.contour(x, y, frame["v"]))
    svg = slices.slices([y], frame["v"], ["COMPLETE"] * 2)
    assert "best trial: 97.50%" in texts(svg)
    curves = [TrialCurve(label="#1", values=frame["v"])]
    assert "#1" in texts(trial.trial_curves(curves, curves))


def test_progress_names_every_trial_that_it_shows_and_the_best():
    values = [97.4, 11.0, NAN, 98.0, 97.5, 97.6]
    run = Run(label="TPE", values=values, seconds=range(6), numbers=[7, 5, 4, 9, 6, 8])
    found = lines(search.progress([run]))
    assert found.count("#7: 97.40%, finished as number 1") == 2  # over trials and over time
    assert found.count("#5: 11.00%, finished as number 2") == 2
    assert found.count("TPE: best 98.00%") == 2
    assert not any(text.startswith("#4") for text in found)


# --- importance --------------------------------------------------------------------------------


def test_importance_is_sorted_by_the_first_evaluator():
    first = {"width": 20.0, "unknown": NAN, "lr": 70.0, "depth": 10.0}
    bars = {
        name: {"PED-ANOVA": (share, NAN, NAN), "fANOVA": (50, 40, 60)}
        for name, share in first.items()
    }
    found = texts(search.importance(bars))
    places = [found.index(name) for name in ("lr", "width", "depth", "unknown")]
    assert places == sorted(places)
    assert {"PED-ANOVA", "fANOVA", "70%", "–"} <= set(found)


def axes_of(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of the pictures that are drawn from now on."""
    drawn: list[Any] = []
    monkeypatch.setattr(style, "svg_text", lambda figure: drawn.extend(figure.axes) or "")
    return drawn


def test_importance_draws_an_interval_where_there_is_one(monkeypatch: pytest.MonkeyPatch):
    drawn = axes_of(monkeypatch)
    shares = {"a": (30.0, 20.0, 45.0), "b": (30.0, NAN, NAN), "c": (60.0, 61.0, 70.0)}
    search.importance({"lr": shares})
    spans = [line.get_xdata().tolist() for line in drawn[0].get_lines()]
    assert spans == [[20.0, 45.0], [61.0, 70.0]]


@pytest.mark.parametrize("n", [1, 10])
def test_importance_of_one_or_many_hyperparameters(n: int):
    bars = {f"{i}{ODD}": {"PED": (0.0, 0.0, 0.0)} for i in range(n)}
    found = texts(search.importance(bars))
    assert sum("$a$ <b> & c" in text for text in found) == n


# --- slices ------------------------------------------------------------------------------------


def slices_of(values: dict[str, Parameter], results: list[float], states: list[Any]) -> str:
    return slices.slices([*values.values()], results, states)


def test_slices_name_hyperparameters_categories_and_states():
    states = ["COMPLETE"] * 30 + ["PRUNED"] * 8 + ["DIVERGED"] * 2
    results = [*accuracies(36), 20.0, 30.0, NAN, 0.0]
    found = texts(slices_of(parameters(), results, states))
    assert {"lr (log scale)", "depth", "leaky_relu", "sgd_momentum"} <= set(found)
    assert {"complete", "pruned, at its last value", "diverged, at the bottom edge"} <= set(found)
    assert f"best trial: {max(results[:30]):.2f}%" in found
    assert any(text.startswith("2 trials below") for text in found)


def test_slices_axis_stays_near_the_top_and_keeps_every_trial_in_sight(
    monkeypatch: pytest.MonkeyPatch,
):
    drawn = axes_of(monkeypatch)
    values, results = {"lr": parameters()["lr"]}, [*accuracies(36), 10.0, 50.0, 90.0, 0.0]
    slices_of(values, results, ["COMPLETE"] * 39 + ["DIVERGED"])
    [axes] = drawn
    low, high = axes.get_ylim()
    assert 96 < low < 97
    shown = [line for line in axes.get_lines() if line.get_marker() in ("o", "v", "^")]
    assert all(low < y < high for line in shown for y in line.get_ydata())
    points = {m: sum(len(x.get_xdata()) for x in shown if x.get_marker() == m) for m in "ov^"}
    assert points == {"o": 36 + 1, "v": 3, "^": 1}  # and the ring around the best


def test_slices_ring_the_best_complete_trial_in_each_panel(monkeypatch: pytest.MonkeyPatch):
    drawn = axes_of(monkeypatch)
    results = [97.0, 98.0, 98.5, 97.5]
    values = {
        "lr": Parameter(name="lr", values=[0.1, 0.2, 0.3, 0.4], log=True),
        "momentum": Parameter(name="momentum", values=[0.5, None, 0.7, 0.9]),
    }
    slices_of(values, results, ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"])
    rings = [
        [line.get_xdata().tolist() for line in axes.get_lines() if line.get_markersize() > 9]
        for axes in drawn
    ]
    assert rings[0] == [[0.2]]
    assert np.isnan(rings[1][0]).all()  # the best trial has no momentum


def test_slices_put_a_bar_at_the_median_of_a_categorys_complete_trials(
    monkeypatch: pytest.MonkeyPatch,
):
    drawn = axes_of(monkeypatch)
    values = {"bias": Parameter(name="bias", values=[True, True, True, False, True])}
    states = ["COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    slices_of(values, [97.0, 98.0, 97.2, 96.5, 20.0], states)
    bars = [c.get_segments()[0][:, 1].tolist() for c in drawn[0].collections]
    assert bars == [[96.5, 96.5], [97.2, 97.2]]


@pytest.mark.parametrize("n", [1, 10])
def test_slices_of_one_to_ten_hyperparameters_with_odd_names(n: int):
    names = [f"{i} {ODD}" for i in range(n)]
    columns = {name: Parameter(name=name, values=["a", ODD] * 6) for name in names}
    found = texts(slices_of(columns, accuracies(12), ["COMPLETE"] * 12))
    assert sum(text.startswith(f"{n - 1} $a$ <b>") for text in found) == 1


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ([97.0], ["COMPLETE"]),
        ([97.0, 97.0], ["COMPLETE"] * 2),
        ([NAN, NAN], ["DIVERGED", "DIVERGED"]),
        ([NAN, 97.0], ["COMPLETE", "PRUNED"]),
    ],
)
def test_slices_of_few_equal_or_failed_trials(results: list[float], states: list[str]):
    every = parameters(len(results))
    values = {name: every[name] for name in ("lr", "width")}
    svg = slices_of(values, results, states)
    assert {"lr", "width"} & {text.split(" (")[0] for text in texts(svg)}


def test_slices_tell_of_every_trial_wherever_it_is_drawn():
    states = ["COMPLETE"] * 36 + ["PRUNED"] * 2 + ["DIVERGED"] * 2
    results = [*accuracies(35), 10.0, 20.0, 97.0, NAN, 0.0]
    found = lines(slices.slices([parameters()["lr"]], results, states, range(100, 140)))
    assert {int(text[1:4]) for text in found} == set(range(100, 140))
    assert len({text for text in found if text.endswith(": diverged")}) == 2
    assert any(text.startswith("#135, lr ") and "10.00%, complete" in text for text in found)


def test_marks_at_one_place_tell_of_all_of_them():
    same = Parameter(name="lr", values=[0.1, 0.1, 0.1, 0.5, *np.linspace(0.11, 0.9, 20)])
    results = [97.0, 97.0, 97.0, 97.5, *np.linspace(97.2, 98, 20)]
    svg = slices.slices([same], results, ["PRUNED"] + ["COMPLETE"] * 23)
    together = [set(text.split("\n")) for text in titles(svg)]
    assert {
        "#0, lr 0.1: 97.00%, pruned",
        "#1, lr 0.1: 97.00%, complete",
        "#2, lr 0.1: 97.00%, complete",
    } in together


def test_a_crowd_at_one_place_is_counted():
    values = Parameter(name="lr", values=[0.1] * 30 + np.linspace(0.2, 1, 70).tolist())
    results = [97.0] * 30 + np.linspace(97.5, 98, 70).tolist()
    svg = slices.slices([values], results, ["COMPLETE"] * 100)
    assert any(text.endswith("\n… and 25 more") for text in titles(svg))


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(1e-3, 0.03, True), (1e-6, 0.1, True), (0.00012, 0.00061, False), (0.0012, 0.0048, True)],
)
def test_labels_of_a_narrow_axis_do_not_touch(
    monkeypatch: pytest.MonkeyPatch, low: float, high: float, log: bool
):
    drawn = axes_of(monkeypatch)
    numbers = np.geomspace(low, high, 40).tolist()
    same = {name: Parameter(name=name, values=numbers, log=log) for name in "abc"}
    slices_of(same, accuracies(40), ["COMPLETE"] * 40)
    ends = drawn[0].get_xlim()
    ticks = drawn[0].get_xticklabels()
    shown = [of for of in ticks if ends[0] <= of.get_position()[0] <= ends[1]]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_axes_and_colours_end_at_100_percent(monkeypatch: pytest.MonkeyPatch):
    results = [*accuracies(36), 100.0, 100.0, 100.0, 100.0]
    svg = contour.contour(parameters()["lr"], parameters()["width"], results)
    drawn = axes_of(monkeypatch)
    slices_of(parameters(), results, ["COMPLETE"] * 40)
    low, high = drawn[0].get_ylim()
    assert high <= 100 + 0.03 * (100 - low)
    assert max(tick for tick in drawn[0].get_yticks() if low <= tick <= high) <= 100
    numbers = [float(text) for text in texts(svg) if re.fullmatch(r"\d+\.\d+", text)]
    assert max(number for number in numbers if number > 90) <= 100


# --- contour -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "note"),
    [
        ("lr", "width", "interpolated between the trials"),
        ("optimizer", "lr", "median of the trials in a field"),
        ("lr", "depth", "median of the trials in a field"),
        ("activation", "optimizer", "median of its trials"),
    ],
)
def test_contour_suits_its_form_to_the_pair_and_names_the_best(x: str, y: str, note: str):
    values, results = parameters(), [*accuracies(37), 11.0, NAN, 98.75]
    found = said(contour.contour(values[x], values[y], results))
    assert note in found
    assert "98.75%" in found
    assert x in found
    assert y in found


@pytest.mark.parametrize(
    "points",
    [
        [(1, 2)] * 6,
        [(1, 2), (3, 4)],
        [(i / 7, 3 * i / 7) for i in range(9)],
        [(0.1, 1), (0.1, 2), (0.3, 1), (0.1, 1), (0.3, 1)],
    ],
    ids=["one place", "two", "in a line", "three places"],
)
def test_contour_falls_back_where_no_surface_can_be_laid(points: list[tuple[float, float]]):
    x = Parameter(name="a", values=[point[0] for point in points])
    y = Parameter(name="b", values=[point[1] for point in points])
    found = said(contour.contour(x, y, accuracies(len(points))))
    assert "interpolated" not in found
    assert "best" in found


def test_contour_counts_only_trials_with_an_accuracy_and_both_values():
    x = Parameter(name="a", values=[0.1, 0.2, None, 0.4, 0.5])
    y = Parameter(name="b", values=[0.3, 0.4, 0.1, NAN, 0.2])
    assert "2 trials" in said(contour.contour(x, y, [97.0, 98.0, 99.0, 99.0, NAN]))
    assert "No trial to show" in texts(contour.contour(x, y, [NAN] * 5))


def test_contour_of_equal_values_and_odd_names():
    values = parameters()
    x, y = (Parameter(name=ODD, values=values[name].values) for name in ("lr", "width"))
    assert "97.00%" in said(contour.contour(x, y, [97.0] * 40))


def test_contour_bands_stay_in_the_upper_range():
    norm = contour._bands(np.array([*accuracies(), 10.0, 50.0]))
    assert norm.boundaries[0] > 96
    assert norm.extend == "min"


def test_contour_names_each_of_its_trials():
    values, results = parameters(), accuracies()
    svg = contour.contour(values["lr"], values["width"], results, range(100, 140))
    assert {text.split(",")[0] for text in lines(svg)} == {f"#{i}" for i in range(100, 140)}
    matrix = contour.contour(values["activation"], values["optimizer"], results)
    assert any("median" in text and "optimizer adam" in text for text in titles(matrix))


# --- curves ------------------------------------------------------------------------------------


def curve(label: str, *values: float) -> TrialCurve:
    return TrialCurve(label=label, values=values)


def test_trial_curves_name_the_ten_best_and_count_the_pruned():
    best = [curve(f"#{i}: 3 × 512 relu", 96.0, 97.0, 98.0 - i / 20) for i in range(12)]
    pruned = [curve("", 96.0, 96.5), curve("", 95.0), curve("", 12.0)]
    found = texts(trial.trial_curves(best, pruned))
    assert "#9: 3 × 512 relu" in found
    assert "#10: 3 × 512 relu" not in found
    assert "The 10 best trials" in found
    assert "3 trials stopped early beside the best" in found
    assert any("1 below" in text for text in found)


def test_pruned_curves_end_in_a_cross_or_at_the_bottom_edge(monkeypatch: pytest.MonkeyPatch):
    drawn = axes_of(monkeypatch)
    pruned = [curve("", 96.0, 96.5), curve("", 96.2), curve("", 12.0, 11.0, 10.0)]
    trial.trial_curves([curve("best", 96.0, 97.0, 98.0)], pruned)
    ends = {
        (line.get_marker(), x)
        for line in drawn[1].get_lines()
        if line.get_marker() in ("x", "v")
        for x in line.get_xdata().tolist()
    }
    assert ends == {("x", 2.0), ("x", 1.0), ("v", 3.0)}


def test_pruned_curves_and_the_best_beside_them_have_their_names():
    pruned = [curve("#1", 96.0, 96.5), curve("#2", 96.2), curve("#3", 12.0, 11.0, 10.0)]
    found = lines(trial.trial_curves([curve("#9", 96.0, 97.0, 98.0)], pruned))
    assert found.count("#1, stopped at 96.50%") == 2  # its line and its cross
    assert {"#2, stopped at 96.20%", "#3, stopped at 10.00%"} <= set(found)
    assert found.count("#9, epoch 3: 98.00%") == 2


def test_trial_curves_without_pruned_trials_have_one_panel(monkeypatch: pytest.MonkeyPatch):
    drawn = axes_of(monkeypatch)
    trial.trial_curves([curve("best", 97.0, 98.0)], [])
    assert len(drawn) == 1


@pytest.mark.parametrize("values", [(97.0, 97.0), (NAN, 97.0), (NAN,), ()])
def test_trial_curves_of_single_epochs_equal_values_and_none(values: tuple[float, ...]):
    curves = [curve(ODD, *values)]
    assert "Epoch" in texts(trial.trial_curves(curves, curves))


def test_curves_of_a_cell_that_fails_name_the_accuracy_of_a_guess():
    losses, shares = np.full((2, 3), 1.1), np.full((2, 3), 39.0)
    values = {"train_loss": losses, "valid_loss": losses}
    values |= {"train_accuracy": shares, "valid_accuracy": shares}
    cell = grid.CellCurves(label="x", collapsed=True, values=values)
    assert "dotted: chance, 10%" in texts(grid.curves([cell]))
    guess = grid.guess_of_classes(3, 100 * 56 / 142)
    assert "dotted: chance, 39.4%" in texts(grid.curves([cell], guess))


# --- mistakes ----------------------------------------------------------------------------------

NAMES = [str(digit) for digit in range(10)]


def test_confusion_gives_every_number_and_each_labels_share_of_right_answers():
    matrix = np.arange(100).reshape(10, 10).tolist()
    found = texts(confusion.confusion(matrix, NAMES))
    assert {str(number) for number in range(100)} <= set(found)
    assert {"Label", "Predicted", "10.5%"} <= set(found)  # 99 of 945


def test_confusion_colours_the_mistakes_alone(monkeypatch: pytest.MonkeyPatch):
    drawn = axes_of(monkeypatch)
    confusion.confusion((np.eye(10) * 990 + 1).tolist(), NAMES)
    shown = drawn[0].collections[0].get_array()
    assert np.ma.getmaskarray(shown).reshape(10, 10).tolist() == np.eye(10, dtype=bool).tolist()
    assert shown.max() == 1


@pytest.mark.parametrize("matrix", [np.zeros((10, 10)), np.full((3, 3), 0.25)])
def test_confusion_without_mistakes_of_means_and_of_few_classes(matrix: np.ndarray):
    assert "Predicted" in texts(confusion.confusion(matrix.tolist(), NAMES[: len(matrix)]))


@pytest.mark.parametrize("n", [1, 9])
def test_worst_images_say_what_each_was_taken_for(n: int):
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    images = [WorstImage(pixels=pixels, label=4, predicted=9, probability=0.001)] * n
    svg = confusion.worst_images(images)
    assert texts(svg) == ["4, taken for 9", "(0.1%)"] * n
    assert svg.count("<image") == n


def test_a_tiny_probability_is_not_rounded_to_nothing():
    pixels = np.zeros((28, 28), np.uint8)
    image = WorstImage(pixels=pixels, label=1, predicted=2, probability=1e-9)
    assert "<0.01%" in said(confusion.worst_images([image]))


# --- differences -------------------------------------------------------------------------------


def row(label: str, mean: float, low: float = NAN, high: float = NAN) -> DifferenceRow:
    return DifferenceRow(label=label, mean=mean, low=low, high=high)


def test_differences_keep_failures_from_flattening_the_others(monkeypatch: pytest.MonkeyPatch):
    drawn = axes_of(monkeypatch)
    grid.differences([row("bad", -85, -86, -84), row("a", 0.3, 0.1, 0.5)])
    far, near = (axes.get_xlim() for axes in drawn)
    assert far[0] < -86 < -84 < far[1] < 0
    assert -0.5 < near[0] < 0 < 0.5 < near[1] < 1


def test_differences_say_mean_and_interval_and_mark_what_is_resolved():
    rows = [row(ODD, 0.3, 0.1, 0.5), row("b", -0.1, -0.4, 0.2), row("c", 1.0), row("d", NAN)]
    found = texts(grid.differences(rows, "the $mall & <plain> one"))
    assert {"+0.30 [+0.10, +0.50]", "−0.10 [−0.40, +0.20]", "+1.00", "–"} <= set(found)
    assert {"95% interval without zero", "95% interval with zero"} <= set(found)
    assert "too few seeds, no interval" in found
    assert "Difference from the $mall & <plain> one (percentage points)" in found


def test_an_interval_far_wider_than_the_differences_ends_in_arrows(
    monkeypatch: pytest.MonkeyPatch,
):
    drawn = axes_of(monkeypatch)
    grid.differences([row("a", 0.3, 0.1, 0.5), row("two seeds", 0.5, -9, 10)])
    assert drawn[0].get_xlim()[1] < 3
    assert {"<", ">"} <= {line.get_marker() for line in drawn[0].get_lines()}


@pytest.mark.parametrize("rows", [[row("a", 0, 0, 0)], [row("a", NAN)], [row("a", 85, 84, 86)]])
def test_differences_of_a_single_row(rows: list[DifferenceRow]):
    assert "a" in texts(grid.differences(rows))


# --- room for labels ---------------------------------------------------------------------------


def test_a_label_is_shortened_to_the_room_it_has():
    assert style.fit("short", 1.0) == "short"
    short = style.fit("m" * 80, 1.0)
    assert short.endswith("…")
    assert 0.85 < style.width([short]) <= 1.0


# --- for all pictures --------------------------------------------------------------------------


def test_a_users_matplotlibrc_changes_no_picture():
    run = Run(label="TPE", values=[97.0, 98.0, 97.5], seconds=[1.0, 2.0, 3.0])
    before = search.progress([run])
    odd = {"lines.marker": "D", "svg.fonttype": "none", "axes.facecolor": "red", "font.size": 30}
    with mpl.rc_context(odd):
        assert search.progress([run]) == before
        with drawing():
            assert mpl.rcParams["axes.facecolor"] == "white"
        assert mpl.rcParams["axes.facecolor"] == "red"


def made_up(n: int, hyperparameters: int) -> list[Picture]:
    """The pictures of a search of so many trials that grow with their number."""
    rng = np.random.default_rng(RNG_SEED)
    values = list(parameters(n).values()) * 3
    states = rng.choice(["COMPLETE", "PRUNED", "DIVERGED"], n, p=[0.5, 0.4, 0.1]).tolist()
    results = (98.4 - rng.exponential(0.6, n) - 40 * (rng.random(n) < 0.2)).tolist()
    trials = [
        TrialCurve(label=f"#{i}: 2 × 512 Leaky ReLU, SGD, momentum, lr 0.123", values=ends)
        for i, result in enumerate(results)
        for ends in [(result - np.geomspace(5, 0.05, rng.integers(1, 8))).tolist()]
    ]
    pruned = [trial for trial, state in zip(trials, states, strict=True) if state == "PRUNED"]
    run = Run(label="this search", values=results, seconds=rng.exponential(2, n).cumsum().tolist())
    svgs = {
        "progress": search.progress([run]),
        "curves": trial.trial_curves(trials[:10], pruned),
        "slices": slices.slices(values[:hyperparameters], results, states),
        "contour": contour.contour(values[0], values[1], results),
    }
    return [
        Picture(file=f"{n}.svg", draw=partial(str, svg), alt=n, caption=n)
        for n, svg in svgs.items()
    ]


def test_a_search_of_thousands_of_trials_stays_under_three_megabytes():
    pictures = made_up(2000, 5)
    page = render("index.html.j2", "Many", [], [Section(title="Many", blocks=[*pictures])])
    assert len(page.encode()) < 2.7e6  # leaves room for the rest of a page
    assert all("<image" not in picture.svg for picture in pictures)


def test_marks_beyond_what_a_page_can_hold_become_pixels():
    values = parameters(4000)["lr"]
    svg = slices.slices([values], accuracies(4000), ["COMPLETE"] * 4000)
    assert "<image" in svg
    assert len(svg) < 300_000


def test_a_front_of_few_costs_lies_on_its_axis():
    """Few numbers that come again are categories elsewhere; here they are numbers."""
    svg = search.pareto(
        numbers=list(range(12)),
        gains=[88.0 + place for place in range(12)],
        costs=[100.0, 400.0, 900.0, 1600.0] * 3,
        front=[11, 10, 9, 8],
        finalists=[3, 11],
        name="parameters",
    )
    front = [title for title in titles(svg) if title.startswith("#")]
    assert [title.split()[2] for title in front] == ["100", "400", "900", "1,600"]


# --- the reference -----------------------------------------------------------------------------


REFERENCE = Reference(
    gain=97.8, seeds=5, curve=[90.0, 97.8], settings={"lr": 0.01, "optimizer": "sgd"}, cost=500.0
)


def with_reference(reference: Reference | None) -> dict[str, str]:
    """The figures of a search, of gains from 97 to 98.4."""
    values, gains, numbers = parameters(), accuracies(), list(range(40))
    run = Run(label="TPE", values=gains, seconds=numbers)
    best = [TrialCurve(label="#1: a", values=[96.0, 98.0])]
    costs = [100.0 + number for number in numbers]
    drawn = [*values.values()]
    states = ["COMPLETE"] * 40
    return {
        "progress": search.progress([run], reference=reference),
        "curves": trial.trial_curves(best, [], reference),
        "slices": slices.slices(drawn, gains, states, reference=reference),
        "contour": contour.contour(
            values["lr"], values["optimizer"], gains, reference=reference
        ),
        "pareto": search.pareto(
            numbers, gains, costs, [0], [1], "parameters", reference=reference
        ),
    }  # fmt: skip


def test_each_figure_of_a_search_has_the_reference_and_says_its_value():
    said_of = "reference, mean of 5 fresh seeds: 97.80%"
    for name, svg in with_reference(REFERENCE).items():
        assert said_of in svg, name
    for name, svg in with_reference(None).items():
        assert "reference" not in svg, name


def test_a_reference_that_would_squeeze_the_trials_is_left_out():
    svgs = with_reference(dataclasses.replace(REFERENCE, gain=11.0, curve=[]))
    assert "diamond: the reference" in said(svgs.pop("contour")), "it has its place, not its height"
    for name, svg in svgs.items():
        assert "reference" not in svg, name
    better = dataclasses.replace(REFERENCE, gain=98.9)
    assert better.widened(97, 98.4, SHOWN)[1] > 98.9
    assert better.widened(97, 98, SHOWN)[0] == 97
    assert better.widened(97, 97.1, SHOWN) == (97, 97.1), "too far"


def test_a_reference_beyond_the_trials_has_no_place_among_them():
    values = parameters()
    assert values["lr"].place_of({"lr": 0.01}) == 0.01
    assert math.isnan(values["lr"].place_of({"lr": 7.0}))
    levels = values["optimizer"].levels
    assert values["optimizer"].place_of({"optimizer": "sgd"}) == levels.index("sgd")
    for other in ({"optimizer": "Adam2"}, {}, {"optimizer": None}):
        assert math.isnan(values["optimizer"].place_of(other))


# --- drawing -----------------------------------------------------------------------------------


def test_without_room_for_processes_pictures_are_drawn_one_by_one(monkeypatch):
    """Processes need semaphores, which lie in /dev/shm."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(draw, "ProcessPoolExecutor", full)
    parts = [(name, partial(str, name)) for name in ("one", "two")]
    pictures = [Picture(file=name, draw=drawn, alt="", caption="") for name, drawn in parts]
    draw.draw(pictures)
    assert [picture.svg for picture in pictures] == ["one", "two"]
