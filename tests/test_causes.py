"""Presumed causes: what a study file may declare, and what the diagnostics say of them."""

import copy
import dataclasses

import numpy as np
import optuna
import pytest
from test_claims import GRID
from test_report import store

from hpo.errors import InputError
from hpo.report import contents
from hpo.report.blocks.page import Picture
from hpo.report.sections import causes
from hpo.results.study import StoredGrid
from hpo.storage.open import open_storage
from hpo.study import file as study_file

PLAIN = GRID[: GRID.index("[[claims]]")]
CAUSE = '[[causes]]\ncell = "a"\nbeside = "b"\npresumes = "vanishing gradients"\n'


def faults(tmp_path, text: str) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        study_file.load(str(path))
    return str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"a"', '"c"', "causes[0].cell: no cell is named 'c'; there are a, b"),
        ('"b"', '"a"', "causes[0].beside: must be another cell"),
        ("vanishing gradients", "bad luck", "causes[0].presumes: must be one of vanishing grad"),
        ("presumes", "presume", "causes[0].presume: unknown key; did you mean 'presumes'?"),
        ('cell = "a"', "cell = 3", "causes[0].cell: must be text, got 3"),
    ],
)
def test_a_slip_in_a_cause_is_a_line_that_names_it(tmp_path, before, after, said):
    assert said in faults(tmp_path, PLAIN + CAUSE.replace(before, after))


def test_diagnostics_are_on_or_off(tmp_path):
    assert "diagnostics: must be true or false, got 'yes'" in faults(
        tmp_path, f'diagnostics = "yes"\n{PLAIN}'
    )


# --- what is seen ------------------------------------------------------------------------------


def diagnosed(study: StoredGrid, first: dict[str, float], step: dict[str, float]) -> StoredGrid:
    """The stored study with the norms of first layers' gradients and the longest steps of cells."""
    trials = copy.deepcopy(list(study.frozen))
    for trial in trials:
        cell = trial.user_attrs["cell"]
        layers = 7 if cell == "deeper" else 3
        found = {
            "gradient_norm": [[first.get(cell, 0.5), *[1.0] * (layers - 1)]] * 10,
            "update_ratio": [[0.001] * layers] * 10,
            "largest_update": [[step.get(cell, 0.01), *[0.001] * (layers - 1)]] * 10,
            "dead": [[0.25] * (layers - 1)] * 10,
        }
        trial.set_user_attr("diagnostics", found)
    return dataclasses.replace(study, frozen=trials)


@pytest.fixture
def study(tmp_path) -> StoredGrid:
    return store(tmp_path)


def said(study: StoredGrid) -> list[str]:
    blocks = [block for section in causes.sections(study) for block in section.blocks]
    return [block for block in blocks if isinstance(block, str)]


def test_causes_are_seen_where_the_measures_show_them(study):
    seen = diagnosed(study, {"deeper": 1e-4}, {"adam": 5.0, "lr-1.0": 0.02})
    vanishing, adam, high = said(seen)
    assert "It is seen with every seed: in epoch 1 the gradient of Deeper MLP's first" in vanishing
    assert "0.0001 (0.0001 to 0.0001) of its last layer's norm" in vanishing
    assert "It is seen with every seed" in adam
    assert "Only a run at a lower rate would prove it" in adam
    assert "It is not seen" in high
    assert "At 0.1 the same network learns with every seed." in high
    assert "the share of dead units in its worst layer is 25%, against 25% in" in high


def test_a_gradient_that_is_lost_in_the_working_network_too_explains_nothing(study):
    assert "It is not seen" in said(diagnosed(study, {"deeper": 1e-4, "baseline": 1e-4}, {}))[0]


def test_pictures_stand_beside_the_sentences(study):
    seen = diagnosed(study, {}, {})
    pictures = [b for s in causes.sections(seen) for b in s.blocks if isinstance(b, Picture)]
    assert [p.file for p in pictures] == [f"causes-{c}.svg" for c in ("deeper", "adam", "lr-1.0")]
    assert "layer 7 of 7: 1 in epoch 1, 1 in epoch 10" in pictures[0].svg
    assert "Why networks fail" in [section.title for section in contents.sections(seen)]


def test_a_study_without_diagnostics_says_so(study):
    for sentence in said(study):
        assert "There are no diagnostics of" in sentence
        assert "so this cannot be checked" in sentence


def test_a_step_that_is_not_finite_speaks_for_a_rate_too_high(study):
    seen = diagnosed(study, {}, {"adam": 5.0, "lr-1.0": None})
    high = said(seen)[-1]
    assert "It is seen with every seed" in high
    trials = [t for t in seen.frozen if t.user_attrs["cell"] == "lr-1.0"]
    trials[0].user_attrs["diagnostics"]["largest_update"][0][0] = 5.0
    assert "2 not finite" in said(seen)[-1]


def test_measures_that_are_not_finite_are_no_trouble(study):
    seen = diagnosed(study, {"deeper": None, "baseline": None}, {"adam": None, "relu": None})
    assert all("It is not seen" in sentence for sentence in said(seen)[:2])


def test_units_are_those_of_the_seeds_that_stay_finite(study):
    seen = diagnosed(study, {}, {"lr-1.0": 5.0})
    trials = [t for t in seen.frozen if t.user_attrs["cell"] == "lr-1.0"]
    for trial in trials[:2]:
        trial.user_attrs["diagnostics"]["dead"] = [[None, None]] * 10
    assert "in its worst layer is 25% (2 not finite), against 25% in" in said(seen)[-1]
    for trial in trials:
        trial.user_attrs["diagnostics"]["dead"] = [[None, None]] * 10
    assert "in its worst layer is not finite, against 25%" in said(seen)[-1]
    assert "nan" not in "".join(said(seen))


# --- a whole run -------------------------------------------------------------------------------


def test_a_run_with_diagnostics_stores_them_for_every_seed_and_layer(hpo, tmp_path):
    (tmp_path / "tiny.toml").write_text(f"diagnostics = true\n{PLAIN}{CAUSE}")
    answer = hpo("run", "tiny.toml", "--quiet")
    assert answer.code == 0, answer.err
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    for trial in optuna.load_study(study_name="tiny", storage=storage).trials:
        found = trial.system_attrs["diagnostics"]
        assert np.shape(found["gradient_norm"]) == (3, 2)
        assert np.shape(found["dead"]) == (3, 1)
    assert "It is not seen: in epoch 1" in (tmp_path / "reports/tiny/report.md").read_text()
