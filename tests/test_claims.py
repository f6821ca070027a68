"""Claims: what a study file may declare, and what becomes of it in the report."""

import dataclasses
import math

import numpy as np
import pytest
from test_report import store

from hpo.analysis import claims as judged
from hpo.analysis.hypothesis_tests import Verdict
from hpo.errors import InputError
from hpo.report import claims as verdict_report
from hpo.report import grid as grid_report
from hpo.report import noise
from hpo.report import write as report
from hpo.report.page import Table
from hpo.storage import results
from hpo.study import file as study_file
from hpo.study.claims import Form, Term

GRID = """
dataset = "mnist-5k"
seeds = 2
[base]
depth = 1
width = 16
activation = "relu"
optimizer = "sgd"
lr = 0.1
epochs = 3
[[cells]]
name = "a"
[[cells]]
name = "b"
lr = 0.01
[[claims]]
says = "It is so."
"""


def loaded(tmp_path, claim: str) -> study_file.GridStudy:
    path = tmp_path / "tiny.toml"
    path.write_text(GRID + claim)
    found = study_file.load(str(path))
    assert isinstance(found, study_file.GridStudy)
    return found


# --- what may be declared ----------------------------------------------------------------------


def test_a_claim_says_its_sides_its_metric_and_where_it_stands(tmp_path):
    text = 'greater = ["a@1", "b@3"]\nmetric = "valid_loss"\nquote = "So!"\nwhere = "3.2"'
    [claim] = loaded(tmp_path, text).claims
    assert (claim.form, claim.metric) == (Form.GREATER, "valid_loss")
    assert claim.terms == (Term(cell="a", epoch=1), Term(cell="b", epoch=3))
    assert (claim.says, claim.quote, claim.where) == ("It is so.", "So!", "3.2")
    [claim] = loaded(tmp_path, 'greater = [0.01, "a"]\nmetric = "gap"').claims
    assert claim.terms == (Term(number=0.01), Term(cell="a"))
    [claim] = loaded(tmp_path, 'best = "b"').claims
    assert claim.terms == (Term(cell="b"), Term(cell="a"))


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ('greater = ["a", "c"]', "claims[0].greater: no cell is named 'c'; there are a, b"),
        ('fails = "c"', "claims[0].fails: no cell is named 'c'"),
        ('greater = ["a", "b"]\nmetric = "speed"', "claims[0].metric: must be one of test_acc"),
        ('greater = ["a@1", "b@1"]', "claims[0].metric: must be one of valid_accuracy"),
        ('greater = ["a@9", "b"]\nmetric = "gap"', "must name an epoch of a, 1 to 3, got 'a@9'"),
        ('greater = ["a@x", "b"]\nmetric = "gap"', "must name an epoch of a, 1 to 3, got 'a@x'"),
        ('greater = ["a"]', "claims[0].greater: must be a list of two cells or more"),
        ('greater = ["a", "a"]', "claims[0].greater: names a side twice"),
        ("greater = [1, 2]", "two numbers follow each other"),
        ('greater = [true, "a"]', "must name cells, or give numbers, got True"),
        ('greater = [0, "a"]\nmetric = "train_seconds"', "must be more than 0 seconds"),
        ('similar = ["a", 0.5]', "claims[0].similar: must be a list of cells' names"),
        ('similar = ["a", "b"]\nwithin = 2', "claims[0].within: must be a share between 0 and 1"),
        ('greater = ["a", "b"]\nwithin = 0.1', "claims[0].within: belongs to `similar` alone"),
        ('greater = ["a", "b"]\namong = ["a"]', "claims[0].among: belongs to `best` alone"),
        ('best = ["a"]', "claims[0].best: must be a cell's name"),
        ('best = "a"\namong = []', "claims[0].among: must be a list of other cells"),
        ('fails = "a"\nmetric = "gap"', "claims[0].metric: goes without"),
        ("", "claims[0]: needs exactly one of greater, best, fails, similar"),
        ('fails = "a"\nbest = "a"', "claims[0]: needs exactly one of"),
        ('fail = "a"', "claims[0].fail: unknown key; did you mean 'fails'?"),
    ],
)
def test_a_slip_in_a_claim_is_a_line_that_names_it(tmp_path, claim, said):
    with pytest.raises(InputError) as error:
        loaded(tmp_path, claim)
    assert said in str(error.value)


def test_a_claim_must_say_something(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(GRID.replace("It is so.", " ") + 'fails = "a"')
    with pytest.raises(InputError, match=r"claims\[0\].says: must say the conclusion"):
        study_file.load(str(path))


# --- what becomes of them ----------------------------------------------------------------------


def verdicts(study: results.StoredGrid) -> dict[str, str]:
    return {of.claim.says: of.verdict.value for of in judged.claim_verdicts(study)}


def part(study: results.StoredGrid, says: str) -> judged.Part:
    return next(of for of in judged.claim_verdicts(study) if of.claim.says == says).decisive


def test_ten_seeds_decide_what_three_cannot(tmp_path):
    (tmp_path / "few").mkdir()
    says = "ReLU is more accurate than tanh, and tanh than sigmoid."
    many, few = store(tmp_path, seeds=10), store(tmp_path / "few", seeds=3)
    assert verdicts(many)["The deeper network fails to learn."] == "holds"
    assert verdicts(few)["The deeper network fails to learn."] == "unresolved"
    assert says in verdicts(many)


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_few_seeds_or_none_leave_everything_unresolved_and_say_why(tmp_path, seeds):
    study = store(tmp_path, seeds=seeds)
    found = judged.claim_verdicts(study)
    assert {of.verdict for of in found} <= {Verdict.UNRESOLVED, Verdict.HOLDS}
    said = [verdict_report.sentence(study, of) for of in found]
    reason = ("cannot be tested", "does not tell what others would give", "do not decide")[seeds]
    assert any(reason in sentence for sentence in said)
    report.write(study, tmp_path / "out")


def test_a_cell_whose_trials_all_failed_leaves_its_claims_unresolved(tmp_path):
    study = store(tmp_path, seeds=4)
    frame = study.trials.copy()
    frame.loc[frame["cell"] == "relu", "state"] = "FAIL"
    without = dataclasses.replace(study, trials=frame)
    says = "ReLU with SGD at 0.1 is the most accurate network of all."
    assert verdicts(without)[says] == "unresolved"
    of = next(of for of in judged.claim_verdicts(without) if of.claim.says == says)
    assert "so this cannot be tested" in verdict_report.sentence(without, of)
    report.write(without, tmp_path / "out")


def test_seeds_that_differ_in_nothing_divide_by_nothing(tmp_path):
    study = store(tmp_path, seeds=4)
    frame = study.trials.copy()
    frame[["test_accuracy", "test_loss", "train_seconds"]] = [0.5, 1.0, 2.0]
    report.write(dataclasses.replace(study, trials=frame), tmp_path / "out")


def test_losses_that_are_not_finite_are_left_out_and_counted(tmp_path):
    study = store(tmp_path, seeds=4)
    frame = study.trials.copy()
    of_tanh = frame.index[frame["cell"] == "tanh"]
    frame.loc[of_tanh[0], "test_loss"] = math.nan
    says = "ReLU has a lower test loss than tanh, and tanh than sigmoid."
    study = dataclasses.replace(study, trials=frame)
    [of] = [of for of in judged.claim_verdicts(study) if of.claim.says == says]
    assert [part.lost for part in of.parts] == [1, 1]
    assert "1 seed left out, not finite" in verdict_report.sentence(study, of)


def test_seeds_of_one_stack_have_one_time(tmp_path):
    study = store(tmp_path, seeds=10)
    frame = study.trials.copy()
    baseline = frame["cell"] == "baseline"
    frame.loc[baseline, "stack"] = 5
    frame.loc[baseline, "train_seconds"] = np.repeat([1.5, 1.6], 5)
    frame.loc[~baseline, "stack"] = 1
    study = dataclasses.replace(study, trials=frame)
    cell = study.file.cells[0]
    assert judged.separate_times(study, cell) == [1.5, 1.6]
    found = part(study, "The wider network takes longer to train than the baseline.")
    assert found.evidence is not None
    assert found.evidence.n == 12


def test_a_published_value_is_set_beside_where_one_more_run_would_fall(tmp_path):
    study = store(tmp_path, seeds=10)
    [section] = noise.predictions(study)
    [table] = section.blocks
    assert isinstance(table, Table)
    row = next(row for row in table.rows if row[0] == "Baseline MLP")
    assert row[1] == "95.39"
    low, high = map(float, row[2].split("–"))
    values = 100 * study.of(study.file.cells[0])["test_accuracy"]
    half = 2.2622 * values.std() * math.sqrt(1.1)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert row[3] == ("inside" if low <= 95.39 <= high else "below" if low > 95.39 else "above")


def test_a_grid_without_claims_has_no_such_section(tmp_path):
    study = store(tmp_path, seeds=2)
    bare = dataclasses.replace(study, file=dataclasses.replace(study.file, claims=()))
    titles = [section.title for section in grid_report.sections(bare)]
    assert "Which conclusions hold" not in titles
    assert "Which conclusions hold" in [s.title for s in grid_report.sections(study)]
