"""Cells that draw one source of randomness anew, and what the report makes of their spread."""

import dataclasses
import re

import numpy as np
import optuna
import pytest
from in_process import prepared
from statsmodels.stats.power import TTestIndPower
from test_report import store
from test_training import _one_thread, config, examples, split  # noqa: F401

from hpo.analysis import statistics
from hpo.data.datasets import load
from hpo.errors import InputError
from hpo.report import contents
from hpo.report import write as report
from hpo.report.sections import glance, noise
from hpo.runs.grid import GridPlan
from hpo.runs.study import binding
from hpo.storage.open import open_storage
from hpo.study import file as study_file
from hpo.study.config import Seeds
from hpo.training.train import train

TINY = """
dataset = "mnist-5k"
seeds = 3
[base]
depth = 1
width = 16
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 2
[[cells]]
name = "all"
[[cells]]
name = "order"
varies = ["order"]
[[cells]]
name = "both"
varies = ["order", "split"]
"""


def loaded(tmp_path, text: str = TINY) -> study_file.GridStudy:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    found = study_file.load(str(path))
    assert isinstance(found, study_file.GridStudy)
    return found


def test_a_seed_is_of_what_varies_and_the_rest_stays():
    assert Seeds.of(3) == Seeds(split=3, weights=3, order=3)
    assert Seeds.of(3, ("order",)) == Seeds(split=0, weights=0, order=3)


def test_cells_say_what_they_draw_anew(tmp_path):
    varies = [cell.varies for cell in loaded(tmp_path).cells]
    assert varies == [("split", "weights", "order"), ("order",), ("split", "order")]


@pytest.mark.parametrize("value", ["[]", '["luck"]', '"order"', "[1]"])
def test_a_slip_in_varies_is_a_line(tmp_path, value):
    said = r"cells\.order\.varies: must be a list of .*, got " + re.escape(value.replace('"', "'"))
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, TINY.replace('["order"]', value))


def test_only_what_varies_otherwise_binds_a_study(tmp_path):
    bound = binding(loaded(tmp_path), load("mnist-5k", tmp_path))
    assert {k: v for k, v in bound.items() if "varies" in k} == {
        "cells.order.varies": "order",
        "cells.both.varies": "split, order",
    }


def test_the_plan_draws_what_the_cell_says(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.create_study(storage=storage, direction="maximize")
    run = prepared(loaded(tmp_path), storage, load("mnist-5k", tmp_path))
    plan = GridPlan(run, study, [0, 1, 2])
    seeds = {}
    while job := plan.next():
        seeds.setdefault(job.label.split()[0], []).extend(job.task.seeds)
    assert seeds["order"] == [Seeds(split=0, weights=0, order=k) for k in range(3)]
    assert seeds["both"] == [Seeds(split=k, weights=0, order=k) for k in range(3)]


def test_a_stack_that_shares_a_source_is_each_of_its_runs_alone():
    seeds = [Seeds.of(k, ("order",)) for k in range(3)]
    settings = config(width=16, epochs=2)
    stacked = list(train(settings, examples(), [split(0)] * 3, seeds))[-1]
    for k, own in enumerate(seeds):
        alone = list(train(settings, examples(), [split(0)], [own]))[-1]
        assert alone.train_loss[0] == stacked.train_loss[k]
        assert alone.valid_accuracy[0] == stacked.valid_accuracy[k]
    assert len(set(stacked.train_loss)) == 3


# --- the report --------------------------------------------------------------------------------


def test_the_seeds_that_are_needed_are_cohens():
    """Cohen (1988), table 2.4.1: 64 for a difference of half a deviation, 26 for 0.8 of one."""
    assert statistics.seeds_needed(0.5, 1.0) == 64
    assert statistics.seeds_needed(0.8, 1.0) == 26
    assert statistics.seeds_needed(100.0, 1.0) == 2


@pytest.mark.parametrize("effect", [0.01, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("n", [2, 5, 26, 64, 400])
def test_the_power_of_a_t_test_is_that_of_statsmodels(effect: float, n: int):
    theirs = TTestIndPower().power(effect, n, statistics.LEVEL)
    assert statistics.power(effect, n) == pytest.approx(theirs, abs=1e-12)


def test_the_chance_of_the_right_order_is_that_of_simulation():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 0.2, 200_000), rng.normal(0, 0.2, 200_000)
    assert statistics.ranked_right(0.3, 0.2) == pytest.approx((a > b).mean(), abs=0.003)


CROSSED = (
    TINY[: TINY.index("[[cells]]")].replace("seeds = 3", "seeds = 16")
    + """
[[cells]]
name = "relu"
crossed = true
[[cells]]
name = "tanh"
activation = "tanh"
crossed = true
"""
)


def test_a_crossed_cell_draws_all_combinations_of_two_of_each(tmp_path):
    cell = loaded(tmp_path, CROSSED).cells[0]
    drawn = [cell.draw(seed) for seed in range(8, 16)]
    assert len(set(drawn)) == 8
    assert {d.split for d in drawn} == {d.weights for d in drawn} == {2, 3}
    assert cell.draw(1) == Seeds(split=1, weights=0, order=0)
    assert cell.draw(4) == Seeds(split=0, weights=0, order=1)
    bound = binding(loaded(tmp_path, CROSSED), load("mnist-5k", tmp_path))
    assert bound["cells.relu.crossed"] == "yes"


def test_a_crossed_cell_crosses_all_sources(tmp_path):
    with pytest.raises(InputError, match=r"relu\.crossed: crosses all sources, so leave out"):
        loaded(tmp_path, CROSSED.replace("crossed = true", 'crossed = true\nvaries = ["order"]', 1))


def test_the_seeds_of_crossed_cells_begin_with_a_block(forked_hpo, tmp_path):
    text = CROSSED.replace("seeds = 16", "seeds = { first = 80, start = 16 }")
    assert loaded(tmp_path, text).first == 80
    said = "seeds.first or --first-seed: must be a multiple of 8 with crossed cells, got 100"
    for first, option in (("100", ()), ("80", ("--first-seed", "100"))):
        (tmp_path / "crossed.toml").write_text(text.replace("80", first))
        answer = forked_hpo("run", "crossed.toml", *option)
        assert (answer.code, answer.err) == (2, f"hpo: study 'crossed': {said}\n")


@pytest.fixture
def spread(tmp_path):
    (tmp_path / "crossed.toml").write_text(CROSSED)
    return store(tmp_path, seeds=20, file=str(tmp_path / "crossed.toml"), name="crossed")


def test_the_report_says_where_the_spread_comes_from_and_what_one_run_tells(spread, tmp_path):
    text = report.write(spread, tmp_path / "out").with_name("report.md").read_text()
    assert "## Where the spread comes from" in text
    table = text.split("## Where the spread comes from")[1].split("Drawn anew", 1)[1]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][1:8]
    names = [row[1].strip() for row in rows]
    assert names == [
        "Split", "Initial weights", "Split × initial weights", "Batch order within the split",
        "Initial weights × batch order within the split", "Test images (few)",
        "All, sd in points",
    ]  # fmt: skip
    shares = [row[2].replace("−", "-").replace("(", "").split() for row in rows[:6]]
    for column in zip(*shares, strict=True):
        assert sum(int(share.rstrip("%)")) for share in column) == pytest.approx(100, abs=4)
    assert "16 runs, 16 runs" in text, "complete blocks only"
    assert "one run of each would have ranked them so with" in text
    assert "correlate with r =" in text
    assert "Eight runs make a block" in text
    assert "The largest part of the spread between runs: " in text.split("##")[0]


def test_nothing_is_tested_over_runs_that_share_splits_and_weights(spread):
    rows = [what for what, *_ in glance.card(spread).rows]
    assert rows == ["Best network", "What to do next"]
    assert glance.answer(spread, "") == []


def test_runs_that_are_missing_or_fail_have_no_spread(spread):
    frame = spread.trials.copy()
    frame.loc[(frame["cell"] == "relu") & (frame["seed"] == 3), "test_accuracy"] = 0.1
    [section] = noise.sections(dataclasses.replace(spread, trials=frame))
    groups = [header.text for header in section.blocks[0].header_rows[0]]
    assert len(groups) == 2
    assert "Tanh" in groups[1]
    one = spread.trials[spread.trials["seed"] < 12]
    assert noise.sections(dataclasses.replace(spread, trials=one)) == []


def test_a_grid_whose_cells_draw_all_alike_has_no_such_section(tmp_path):
    titles = [section.title for section in contents.sections(store(tmp_path))]
    assert "Where the spread comes from" not in titles
