"""Claims: what a study file may declare, and what becomes of it in the report."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from in_process import markdown
from test_report import store

from hpo.analysis import claims as judged
from hpo.analysis.evidence import mean_above
from hpo.analysis.hypothesis_tests import Verdict
from hpo.errors import InputError
from hpo.report import contents
from hpo.report import write as report
from hpo.report.blocks.table import Table
from hpo.report.sections import basis, noise
from hpo.results.study import StoredGrid
from hpo.study import file as study_file
from hpo.study.claims import By, Comparison, Form, Term

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


def compared(tmp_path, claim: str) -> Comparison:
    [found] = loaded(tmp_path, claim).claims
    [only] = found.comparisons
    return only


def test_a_claim_says_its_sides_its_metric_and_where_it_stands(tmp_path):
    text = 'greater = ["a@1", "b@3"]\nmetric = "valid_loss"\nquote = "So!"\nwhere = "3.2"'
    [claim] = loaded(tmp_path, text).claims
    assert (claim.says, claim.quote, claim.where) == ("It is so.", "So!", "3.2")
    found = compared(tmp_path, text)
    assert (found.form, found.metric) == (Form.GREATER, "valid_loss")
    assert found.terms == (Term(cell="a", epoch=1), Term(cell="b", epoch=3))
    found = compared(tmp_path, 'greater = [0.01, "a"]\nmetric = "gap"')
    assert found.terms == (Term(number=0.01), Term(cell="a"))
    found = compared(tmp_path, 'greater = ["a - b", 0]')
    assert found.terms[0] == Term(cell="a", minus=Term(cell="b"))
    assert found.terms[0].cells == ("a", "b")
    assert compared(tmp_path, 'best = "b"').terms == (Term(cell="b"), Term(cell="a"))


def test_a_claim_may_be_several_comparisons_that_must_all_be_true(tmp_path):
    text = 'all = [{ greater = ["a", "b"] }, { fails = "b", below = "guess" }]'
    [claim] = loaded(tmp_path, text).claims
    assert [of.form for of in claim.comparisons] == [Form.GREATER, Form.FAILS]
    assert claim.comparisons[1].below == "guess"
    assert claim.cells("test_accuracy") == {"a", "b"}


def test_the_side_of_a_group_is_the_cells_with_its_settings(tmp_path):
    text = 'greater = [{ best_of = { lr = 0.1 } }, { best_of = { optimizer = "sgd" } }]'
    assert [term.group for term in compared(tmp_path, text).terms] == [("a",), ("a", "b")]


@pytest.mark.parametrize(
    ("keys", "logs", "by"),
    [
        ('metric = "test_accuracy"', False, By.MEANS),
        ('metric = "test_loss"', True, By.MEANS),
        ('metric = "test_loss"\nmatters = 0.1', False, By.MEANS),
        ('metric = "test_loss"\nby = "wins"', False, By.WINS),
        ('metric = "train_seconds"', True, By.MEANS),
        ('metric = "valid_falls"', False, By.WINS),
    ],
)
def test_the_metric_says_how_it_is_compared(tmp_path, keys, logs, by):
    found = compared(tmp_path, f'greater = ["a", "b"]\n{keys}')
    assert (found.logs, found.by) == (logs, by)


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
        (
            'greater = [0, "a"]\nmetric = "test_loss"\nby = "means"',
            "ratios of test_loss, so a number must be",
        ),
        (
            'greater = ["a", "b"]\nmetric = "valid_falls"\nby = "means"',
            "claims[0].by: valid_falls is skewed, so it is compared by wins alone",
        ),
        ('fails = "a"\nbelow = "luck"', "claims[0].below: must be a share between 0 and 1, or"),
        ("all = []", "claims[0].all"),
        ('all = [{ greater = ["a", "c"] }]', "claims[0].all[0].greater: no cell is named 'c'"),
        ('all = [{ fails = "a", best = "a" }]', "claims[0].all[0]: needs exactly one of"),
        ('all = [{ fails = "a" }]\nmetric = "gap"', "claims[0].metric: belongs to the tables"),
        ('all = [{ fails = "a", quote = "So" }]', "claims[0].all[0].quote: unknown key"),
        ('greater = [{ best_of = { lr = 9 } }, "a"]', "claims[0].greater: no cell has lr = 9"),
        ('greater = [{ best = "a" }, "a"]', "claims[0].greater: must be { best_of = {"),
        (
            'greater = [{ best_of = { lr = 0.1 } }, "b"]\nmetric = "train_seconds"',
            "claims[0].greater: must name cells",
        ),
        ('similar = ["a", 0.5]', "claims[0].similar: must be a list of cells' names"),
        ('similar = ["a", "b"]\nwithin = 2', "claims[0].within: must be a share between 0 and 1"),
        ('greater = ["a", "b"]\nwithin = 0.1', "claims[0].within: belongs to `similar` alone"),
        ('greater = ["a", "b"]\namong = ["a"]', "claims[0].among: belongs to `best` alone"),
        ('fails = "a"\nby = "wins"', "claims[0].by: belongs to `greater` and `best` alone"),
        ('greater = ["a", "b"]\nby = "luck"', "claims[0].by: must be one of means, wins"),
        ('greater = ["a", "b"]\nbelow = 0.3', "claims[0].below: belongs to `fails` alone"),
        ('greater = ["a", "b"]\nmatters = 0', "claims[0].matters: must be a number greater than"),
        ('similar = ["a", "b"]\nmatters = 0.1', "claims[0].matters: belongs to `greater` and"),
        (
            'greater = ["a", "b"]\nby = "wins"\nmatters = 0.1',
            "claims[0].matters: belongs to a comparison of means, not of wins",
        ),
        (
            'greater = ["a", "b"]\nmetric = "train_seconds"\nmatters = 0.1',
            "claims[0].matters: times are compared as ratios; use `similar` with `within`",
        ),
        (
            'similar = ["a - b", "b"]\nmetric = "test_loss"',
            "claims[0].similar: compares ratios of test_loss, so no side can be a difference",
        ),
        ('greater = ["a - c", 0]', "claims[0].greater: no cell is named 'c'"),
        ('untestable = " "', "claims[0].untestable: must say why this design cannot test it"),
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


def verdicts(study: StoredGrid) -> dict[str, str]:
    return {of.claim.says: of.verdict.value for of in judged.claim_verdicts(study)}


def part(study: StoredGrid, says: str) -> judged.Part:
    return next(of for of in judged.claim_verdicts(study) if of.claim.says == says).decisive


def test_fifteen_seeds_decide_what_three_cannot(tmp_path):
    (tmp_path / "few").mkdir()
    many, few = store(tmp_path, seeds=15), store(tmp_path / "few", seeds=3)
    says = "The deeper network learns nothing: its test accuracy is that of a guess."
    assert verdicts(many)[says] == "holds"
    assert verdicts(few)[says] == "unresolved"
    assert verdicts(many)["The wider network is the most accurate of the first three."] == "holds"


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_few_seeds_or_none_leave_everything_unresolved_and_say_why(tmp_path, seeds):
    study = store(tmp_path, seeds=seeds)
    found = judged.claim_verdicts(study)
    assert {of.verdict for of in found} == {Verdict.UNRESOLVED, Verdict.UNTESTABLE}
    said = [basis.sentence(of) for of in found]
    reason = (
        "cannot be tested",
        "does not tell what others would give",
        "Two seeds decide nothing",
    )[seeds]
    assert any(reason in sentence for sentence in said)
    assert reason in markdown(study, tmp_path)


def test_a_cell_whose_trials_all_failed_leaves_its_claims_unresolved(tmp_path):
    study = store(tmp_path, seeds=3)
    frame = study.trials.copy()
    frame.loc[frame["cell"] == "relu", "state"] = "FAIL"
    without = dataclasses.replace(study, trials=frame)
    says = "ReLU with SGD at 0.1 is the most accurate of the networks that learn, at 96 to 97%."
    assert verdicts(without)[says] == "unresolved"
    of = next(of for of in judged.claim_verdicts(without) if of.claim.says == says)
    assert "so this cannot be tested" in basis.sentence(of)
    report.write(without, tmp_path / "out")


def test_seeds_that_differ_in_nothing_divide_by_nothing(tmp_path):
    study = store(tmp_path, seeds=3)
    frame = study.trials.copy()
    frame[["test_accuracy", "test_loss", "train_seconds"]] = [0.5, 1.0, 2.0]
    alike = dataclasses.replace(study, trials=frame)
    assert "The seeds do not differ" in markdown(alike, tmp_path)
    of = next(of for of in judged.claim_verdicts(alike) if "ReLU is more accurate" in of.claim.says)
    assert "The seeds do not differ" in basis.sentence(of)


def diverged(study: StoredGrid, cell: str, seeds: list[int]) -> StoredGrid:
    """The study with runs of the cell that diverged, as the runner stores them."""
    frame = study.trials.copy()
    lost = (frame["cell"] == cell) & frame["seed"].isin(seeds)
    frame.loc[lost, ["test_accuracy", "test_loss", "valid_loss", "diverged"]] = [
        0.098, math.nan, math.nan, True,
    ]  # fmt: skip
    return dataclasses.replace(study, trials=frame)


def test_a_seed_that_diverged_is_a_failure_and_never_left_out_of_the_count(tmp_path):
    study = diverged(store(tmp_path, seeds=12), "tanh", [2, 5])
    of = next(
        of for of in judged.claim_verdicts(study) if "Tanh and ReLU are more" in of.claim.says
    )
    part = of.parts[0]
    assert part.left_out == 2
    assert part.n == 10
    said = basis.sentence(of)
    assert "Tanh MLP 2 of 12 (at most 44%)" in said
    assert "Baseline MLP 0 of 12" not in said, "only networks that fail are counted"


def test_by_wins_a_seed_that_diverged_is_the_worst(tmp_path):
    raw = {"claims": [{"says": "So.", "greater": ["baseline", "tanh"], "by": "wins"}]}
    plain = store(tmp_path, seeds=6, raw=raw)
    frame = plain.trials.copy()
    frame.loc[frame["cell"] == "tanh", "test_accuracy"] = 0.99
    lost = diverged(dataclasses.replace(plain, trials=frame), "tanh", [0, 3])
    [of] = judged.claim_verdicts(lost)
    evidence = of.decisive
    assert (evidence.n, evidence.effect, evidence.test) == (6, 2 / 6, "signs")
    raw["claims"][0] |= {"greater": ["tanh", "baseline"], "metric": "test_loss"}
    (tmp_path / "loss").mkdir()
    lost = diverged(store(tmp_path / "loss", seeds=6, raw=raw), "tanh", [0, 3])
    assert judged.claim_verdicts(lost)[0].decisive.path_for[0] > 1


def test_the_part_that_decides_is_shown_with_its_own_evidence(tmp_path):
    study = store(tmp_path, seeds=12)
    of = next(of for of in judged.claim_verdicts(study) if of.parts[0].form is Form.BEST)
    weakest = max(part.p_for for part in of.parts)
    assert of.decisive.p_for == weakest
    assert of.p >= min(1.0, of.factor * weakest) - 1e-12


def test_times_are_those_measured_alone(tmp_path):
    study = store(tmp_path, seeds=3)
    says = "The wider network takes longer to train than the baseline."
    assert part(study, says).n == 0
    rng = np.random.default_rng(0)
    timings = [
        {"baseline": 1.0 + t, "deeper": 1.2 + t, "wider": 17 + t, "tanh": 1.1 + t, "relu": 1.0 - t}
        for t in rng.normal(0, 0.01, 8)
    ]
    found = part(dataclasses.replace(study, timings=timings), says)
    assert found.n == 8
    assert math.exp(found.effect) == pytest.approx(17, rel=0.01)
    assert found.p_for < 0.002


def test_a_claim_with_a_margin_says_at_which_margin_it_would_turn(tmp_path):
    raw = {
        "claims": [
            {"says": "Small.", "greater": [0.01, "baseline"], "metric": "gap"},
            {"says": "Fails.", "fails": "adam"},
            {"says": "Alike.", "similar": ["baseline", "tanh"], "within": 0.01},
        ]
    }
    study = store(tmp_path, seeds=12, raw=raw)
    for of in judged.claim_verdicts(study):
        [claimed] = of.parts
        for margin, verdict in of.turns[0]:
            nearer = margin * (1 - 1e-6 if margin > claimed.margin else 1 + 1e-6)
            assert of.at_margin(claimed, nearer) is not verdict
            assert of.at_margin(claimed, margin) is verdict is not of.verdict
            assert claimed.margin / 10 <= margin <= claimed.margin * 10
    _, fails, _ = judged.claim_verdicts(study)
    assert fails.turns[0]
    assert re.search(r"Line 30\.00%: below 1\d\.\d\d% unresolved", basis.sentence(fails))


def test_the_planned_look_is_at_the_seeds_of_the_file_and_at_no_others(tmp_path):
    raw = {"claims": [{"says": "So.", "greater": ["wider", "baseline"]}]}
    (tmp_path / "few").mkdir()
    few = store(tmp_path / "few", seeds=9, raw=raw)
    many = store(tmp_path, seeds=12, raw=raw)
    few, many = (dataclasses.replace(study, planned_seeds=10) for study in (few, many))
    assert part(few, "So.").planned == 0
    found = part(many, "So.")
    values = (many.values(many.cell("wider")) - many.values(many.cell("baseline"))).to_numpy()
    t = scipy.stats.ttest_1samp(values[:10], 0).statistic
    assert found.planned == 10
    assert found.looks[0] == pytest.approx(scipy.stats.t.sf(t, 8))
    unplanned = part(dataclasses.replace(many, planned_seeds=4), "So.")
    assert unplanned.planned is None


def test_the_best_of_a_group_is_chosen_by_the_seeds_before(tmp_path):
    sides = [{"best_of": {"optimizer": "sgd"}}, {"best_of": {"optimizer": "adam"}}]
    raw = {"claims": [{"says": "So.", "greater": sides}]}
    study = store(tmp_path, seeds=6, raw=raw)
    group = study.file.claims[0].comparisons[0].terms[0]
    assert group.group == ("baseline", "deeper", "wider", "tanh", "relu", "lr-1.0", "lr-0.01")
    valid = pd.DataFrame({n: study.values(study.cell(n), "valid_accuracy") for n in group.group})
    chosen = judged.chosen(study, group)
    assert list(chosen.index) == [1, 2, 3, 4, 5]
    for seed, name in chosen.items():
        assert name == valid.loc[: seed - 1].fillna(0.0).mean().idxmax()
    values = judged.side_values(study, "test_accuracy", group)
    assert values[3] == study.values(study.cell(chosen[3]))[3]


def test_an_open_claim_says_how_many_seeds_would_decide_it(tmp_path):
    raw = {"claims": [{"says": "So.", "greater": ["tanh", "baseline"]}]}
    study = store(tmp_path, seeds=6, raw=raw)
    frame = study.trials.copy()
    lead = np.array([0.003, -0.001, 0.002, 0.001, -0.002, 0.003])
    base = frame.loc[frame["cell"] == "baseline", "test_accuracy"].to_numpy()
    frame.loc[frame["cell"] == "tanh", "test_accuracy"] = base + lead
    [of] = judged.claim_verdicts(dataclasses.replace(study, trials=frame))
    seen, low, high = of.seeds_to_decide()
    assert 6 < low < seen < high
    values = scipy.stats.norm.ppf((np.arange(int(seen)) + 0.5) / seen)
    scaled = values / values.std(ddof=1) * lead.std(ddof=1) + lead.mean()
    assert 1 / mean_above(scaled).path_for[-1] == pytest.approx(0.05, rel=0.1)
    assert f"about {seen:.0f} would decide it" in basis.sentence(of)


def test_a_conclusion_that_cannot_be_tested_is_not_counted(tmp_path):
    raw = {"claims": [{"says": "Sigmoid fails.", "fails": "deeper"}]}
    (tmp_path / "both").mkdir()
    alone = judged.claim_verdicts(store(tmp_path, seeds=12, raw=raw))
    raw["claims"].append({"says": "It interacts.", "untestable": "One thing at a time."})
    both = store(tmp_path / "both", seeds=12, raw=raw)
    found = judged.claim_verdicts(both)
    assert found[1].verdict is Verdict.UNTESTABLE
    assert found[0].p == alone[0].p
    assert "One thing at a time." in basis.sentence(found[1])
    assert "1 is not testable" in judged.tally(found)


def test_stability_is_measured_from_epoch_to_epoch(tmp_path):
    raw = {
        "claims": [
            {"says": "a", "greater": ["relu", "tanh"], "metric": metric}
            for metric in ("valid_spread", "valid_falls")
        ]
    }
    study = store(tmp_path, seeds=2, raw=raw)
    curves = study.curves[study.curves["seed"] == 0]
    more = []
    for cell, last in (("relu", 0.6), ("tanh", 0.97)):
        row = curves[(curves["cell"] == cell) & (curves["epoch"] == 2)].iloc[0].copy()
        row["epoch"], row["valid_accuracy"] = 3, last
        more.append(row)
    frame = pd.concat([study.curves[study.curves["seed"] == 0], pd.DataFrame(more)])
    study = dataclasses.replace(study, curves=frame)
    relu = study.cell("relu")
    values = [
        judged.side_values(study, metric, Term(cell="relu"))[0]
        for metric in ("valid_spread", "valid_falls")
    ]
    by_epoch = frame[frame["number"] == study.of(relu)["number"].iloc[0]]["valid_accuracy"]
    changes = np.diff(by_epoch)
    assert values == pytest.approx([changes.std(ddof=1), np.maximum(-changes, 0).mean()])


def test_a_published_value_is_set_beside_where_one_more_run_would_fall(tmp_path):
    study = store(tmp_path, seeds=15)
    [section] = noise.predictions(study)
    [table] = section.blocks
    assert isinstance(table, Table)
    row = next(row for row in table.texts if row[0] == "Baseline MLP")
    assert row[1] == "95.39"
    low, high = map(float, row[2].split("–"))
    values = 100 * study.of(study.file.cells[0])["test_accuracy"]
    half = 2.1448 * values.std() * math.sqrt(1 + 1 / 15)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert row[3] == ("inside" if low <= 95.39 <= high else "below" if low > 95.39 else "above")


def test_a_grid_without_claims_has_no_such_section(tmp_path):
    study = store(tmp_path, seeds=2)
    bare = dataclasses.replace(study, file=study.file.model_copy(update={"claims": ()}))
    titles = [section.title for section in contents.sections(bare)]
    assert "Which conclusions hold" not in titles
    assert "Which conclusions hold" in [s.title for s in contents.sections(study)]


# --- what must not pass for a result -----------------------------------------------------------


def test_a_test_part_too_small_for_a_guess_tests_nothing(tmp_path):
    raw = {"claims": [{"says": "So.", "fails": "relu", "below": "guess"}]}
    study = store(tmp_path, seeds=8, raw=raw, data={"test": 20, "largest": 0.9})
    [of] = judged.claim_verdicts(study)
    assert (of.verdict, of.decisive.n) == (Verdict.UNRESOLVED, 0)
    assert "too small to tell" in basis.sentence(of)


def test_a_margin_of_the_table_turns_the_verdict_when_it_stands_in_the_file(tmp_path):
    claim = {"says": "Alike.", "similar": ["relu", "tanh"], "within": 0.01}
    other = {"says": "High.", "greater": ["relu", 0.7]}
    study = store(tmp_path, seeds=6, raw={"claims": [claim, other]})
    of, _ = judged.claim_verdicts(study)
    turned = 0
    for margin, verdict in of.turns[0]:
        turned += 1
        beyond = margin * (1.001 if margin > 0.01 else 0.999)
        table = study.file.claims[0].model_copy(update={})
        comparison = dataclasses.replace(table.comparisons[0], within=beyond)
        table = table.model_copy(update={"comparisons": (comparison,)})
        claims = (table, study.file.claims[1])
        moved = dataclasses.replace(study, file=study.file.model_copy(update={"claims": claims}))
        assert judged.claim_verdicts(moved)[0].verdict is verdict
    assert turned


def test_ties_count_for_neither_side_and_are_said(tmp_path):
    raw = {"claims": [{"says": "So.", "greater": ["relu", "tanh"], "by": "wins"}]}
    study = store(tmp_path, seeds=6, raw=raw)
    frame = study.trials.copy()
    tanh = frame.loc[frame["cell"] == "tanh", "test_accuracy"].to_numpy()
    frame.loc[frame["cell"] == "relu", "test_accuracy"] = tanh + np.array([0.01, 0, 0, 0, 0, 0])
    [of] = judged.claim_verdicts(dataclasses.replace(study, trials=frame))
    assert (of.decisive.effect, of.decisive.ties) == (1.0, 5)
    assert "with 1 of 6 seeds, equal with 5" in basis.sentence(of)
    frame.loc[frame["cell"] == "relu", "test_accuracy"] = tanh
    [of] = judged.claim_verdicts(dataclasses.replace(study, trials=frame))
    assert "with 0 of 6 seeds, equal with 6" in basis.sentence(of)
    assert basis.effect(of.decisive) == "50% of seeds"


def test_a_group_is_compared_over_the_seeds_that_all_its_cells_have(tmp_path):
    sides = [{"best_of": {"optimizer": "sgd"}}, {"best_of": {"optimizer": "adam"}}]
    study = store(tmp_path, seeds=6, raw={"claims": [{"says": "So.", "greater": sides}]})
    frame = study.trials
    fewer = frame[~((frame["cell"] == "relu") & (frame["seed"] > 3))]
    study = dataclasses.replace(study, trials=fewer)
    group = study.file.claims[0].comparisons[0].terms[0]
    assert list(judged.chosen(study, group).index) == [1, 2, 3]
    assert judged.claim_verdicts(study)[0].decisive.n <= 3


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ('greater = ["a", 0.9]\nmatters = 0.1', "claims[0].matters: belongs to a comparison of"),
        ('greater = ["a", "short"]\nmetric = "valid_falls"', "valid_falls needs 2 epochs or more"),
        ('greater = ["a", "crossed"]', "claims[0]: crossed is crossed: its seeds share draws"),
    ],
)
def test_a_claim_that_could_not_be_tested_rightly_is_refused(tmp_path, claim, said):
    more = '[[cells]]\nname = "short"\nepochs = 1\n[[cells]]\nname = "crossed"\ncrossed = true\n'
    path = tmp_path / "tiny.toml"
    path.write_text(GRID.replace("[[claims]]", f"{more}[[claims]]") + claim)
    with pytest.raises(InputError) as error:
        study_file.load(str(path))
    assert said in str(error.value)


def test_a_forecast_expects_as_many_ties_as_so_far(tmp_path):
    raw = {"claims": [{"says": "So.", "greater": ["relu", "tanh"], "by": "wins"}]}
    study = store(tmp_path, seeds=8, raw=raw)
    frame = study.trials.copy()
    tanh = frame.loc[frame["cell"] == "tanh", "test_accuracy"].to_numpy()
    needed = []
    for ties in (0, 4):
        lead = np.where(np.arange(8) < ties, 0.0, [0.01, 0.01, 0.01, -0.01] * 2)
        frame.loc[frame["cell"] == "relu", "test_accuracy"] = tanh + lead
        [of] = judged.claim_verdicts(dataclasses.replace(study, trials=frame.copy()))
        needed.append(of.seeds_to_decide()[0])
    assert needed[1] == pytest.approx(2 * needed[0], abs=2)
