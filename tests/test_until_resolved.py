"""Rounds of seeds until the conclusions are resolved, and conclusions that are bound."""

import dataclasses
import json
import re
import tomllib

import in_process
import optuna
import pandas as pd
import pytest
from in_process import prepared
from optuna.trial import TrialState, create_trial
from test_claims import loaded
from test_report import store
from tiny import tiny_dataset

from hpo.analysis.claims import claim_verdicts, open_cells
from hpo.analysis.hypothesis_tests import Verdict
from hpo.errors import InputError
from hpo.report.sections import basis
from hpo.report.sections import claims as verdict_report
from hpo.results.load import load_study
from hpo.results.study import StoredGrid
from hpo.results.trial import KILLED
from hpo.runs import runner
from hpo.runs.grid import MOST_ROUNDS, ROUNDS
from hpo.runs.study import open_study
from hpo.storage.open import open_storage
from hpo.study import file as study_file
from hpo.study.columns import METRICS
from hpo.watch import terminal

GRID = """
dataset = "mnist-5k"
seeds = { start = 3, most = 11, step = 4 }
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
lr = 0.02
[[cells]]
name = "c"
width = 32
[[cells]]
name = "apart"
lr = 0.05
[[claims]]
says = "a is better than b"
greater = ["a", "b"]
[[claims]]
says = "a is better than c"
greater = ["a", "c"]
"""
SAME = GRID.replace("width = 32", "lr = 0.1001")  # a and c can hardly be told apart


def counts(folder) -> dict[str, int]:
    trials = pd.read_csv(folder / "reports/tiny/trials.csv")
    return trials[trials["state"] == "COMPLETE"].groupby("cell").size().to_dict()


@pytest.mark.slow
def test_only_the_networks_of_open_conclusions_get_more_seeds(hpo, tmp_path):
    (tmp_path / "tiny.toml").write_text(SAME)
    answer = hpo("run", "tiny.toml", "--until-resolved", "--quiet")
    assert answer.code == 0, answer.err
    found = counts(tmp_path)
    assert found["apart"] == 3
    assert found["b"] == 7 < found["c"] == 11
    written = json.loads((tmp_path / "reports/tiny/verdicts.json").read_text())
    first, second = written["conclusions"]
    assert (first["verdict"], first["stopped"]) == ("holds", "decided")
    assert 3 < first["decided_at"] <= 7
    assert second["stopped"] == "Open after 11 seeds, the most that the study file allows."
    provenance = json.loads((tmp_path / "reports/tiny/provenance.json").read_text())
    assert len(provenance["sessions"]) == 1, "the rounds of one run are one session"
    before = (tmp_path / "reports/tiny/curves.csv").read_bytes()
    assert hpo("run", "tiny.toml", "--until-resolved", "--quiet").code == 0
    assert (tmp_path / "reports/tiny/curves.csv").read_bytes() == before


def test_a_study_with_open_conclusions_tells_how_to_go_on(tmp_path):
    study = store(tmp_path, seeds=3)
    said = [line for line in terminal.terminal(study) if isinstance(line, str)]
    assert "More seeds for the unresolved ones: --until-resolved" in said
    rounds = dataclasses.replace(study, until_resolved={"most": 30, "end": "complete"})
    said = [line for line in terminal.terminal(rounds) if isinstance(line, str)]
    assert "More seeds for the unresolved ones: --until-resolved" not in said


@pytest.mark.slow
def test_a_time_limit_ends_the_rounds_and_the_report_says_so(hpo, tmp_path):
    (tmp_path / "tiny.toml").write_text(SAME.replace("most = 11", "most = 4000"))
    answer = hpo("run", "tiny.toml", "--until-resolved", "--timeout", "10", "--quiet")
    assert answer.code == 0, answer.err
    text = (tmp_path / "reports/tiny/report.md").read_text()
    assert "Open: the run was out of time after" in text


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("{ start = 9, most = 5 }", "seeds.start: must be at most `most`, 5, got 9"),
        ("{ start = 0 }", "seeds.start: must be a whole number from 1"),
        ("{ step = 0 }", "seeds.step: must be a whole number from 1"),
        ("{ first = -1 }", "seeds.first: must be a whole number from 0"),
        ("{ first = 100, most = 3 }", "seeds.start: must be at most `most`, 3, got 5"),
        ("{ last = 3 }", "seeds.last: unknown key"),
        ("[1]", "seeds: must be a whole number"),
    ],
)
def test_a_slip_in_the_seeds_is_a_line_that_names_it(tmp_path, seeds, said):
    (tmp_path / "tiny.toml").write_text(GRID.replace("{ start = 3, most = 11, step = 4 }", seeds))
    with pytest.raises(InputError) as error:
        study_file.load(str(tmp_path / "tiny.toml"))
    assert said in str(error.value)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("old", "new", "more", "said"),
    [
        ("[[claims]]", "[[unsaid]]", (), "has no [[claims]] to resolve"),
        ("", "", ("--seeds", "4"), "--until-resolved: chooses the seeds, so leave out --seeds"),
    ],
)
def test_rounds_need_conclusions(forked_hpo, tmp_path, old, new, more, said):
    text = GRID.replace(old, new) if old else GRID
    if new == "[[unsaid]]":
        text = text[: text.index("[[unsaid]]")]
    (tmp_path / "tiny.toml").write_text(text)
    answer = forked_hpo("run", "tiny.toml", "--until-resolved", *more)
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "hpo.db").exists()


def resolved(tmp_path, text: str) -> StoredGrid:
    """What a run of this study file with --until-resolved stores, on the tiny dataset."""
    (tmp_path / "tiny.toml").write_text(text)
    file, storage = study_file.load(str(tmp_path / "tiny.toml")), in_process.opened(tmp_path)
    runner.run_grid(prepared(file, storage, tiny_dataset(), until_resolved=True))
    stored = load_study(storage, "tiny")
    assert isinstance(stored, StoredGrid)
    return stored


def test_a_plain_number_of_seeds_goes_on_in_steps_of_5_up_to_40(tmp_path, forked_hpo):
    text = SAME.replace("{ start = 3, most = 11, step = 4 }", "37")
    (tmp_path / "tiny.toml").write_text(text)
    answer = forked_hpo("run", "tiny.toml", "--until-resolved", "--timeout", "0")
    said = "37 seeds, then 5 more a round for the networks of open claims, up to 40"
    assert answer.err.splitlines()[0] == f"NOTE: --until-resolved: {said}"
    for number, most in ((3, 40), (50, 50)):
        file = study_file.parse({**tomllib.loads(text), "seeds": number}, "tiny", "tiny.toml")
        assert isinstance(file, study_file.GridStudy)
        assert file.rounds == study_file.Rounds(start=number, most=most, step=5)


def test_times_are_measured_again_while_a_claim_on_them_is_open(tmp_path):
    grid = GRID[: GRID.index("[[claims]]")].replace("lr = 0.02", "lr = 0.1")
    grid = grid.replace("{ start = 3, most = 11, step = 4 }", "{ start = 1, most = 7, step = 1 }")
    claim = '[[claims]]\nsays = "x"\nsimilar = ["a", "b"]\nmetric = "train_seconds"\n'
    stored = resolved(tmp_path, f"{grid}{claim}within = 0.0001")
    [verdict] = claim_verdicts(stored)
    assert verdict.verdict is Verdict.UNRESOLVED
    assert verdict.decisive.n == len(stored.timings) == MOST_ROUNDS == 40
    assert all(set(times) == {"a", "b"} for times in stored.timings)
    assert len(stored.trials) == 4, "seeds say nothing of times"
    again = resolved(tmp_path, f"{grid}{claim}within = 0.0001")
    assert again.timings == stored.timings


def test_times_are_not_measured_again_once_their_claims_are_decided(tmp_path):
    grid = GRID[: GRID.index("[[claims]]")].replace("start = 3, most = 11", "start = 1, most = 9")
    claim = '[[claims]]\nsays = "x"\ngreater = ["b", "a"]\nmetric = "train_seconds"\n'
    storage = in_process.opened(tmp_path)
    times = [{"a": 1 + 0.01 * n, "b": 3 - 0.01 * n} for n in range(ROUNDS)]
    opened(storage, grid + claim, tmp_path).set_user_attr("timings", times)
    stored = resolved(tmp_path, grid + claim)
    assert claim_verdicts(stored)[0].verdict is Verdict.HOLDS
    assert stored.timings == times


def test_a_search_has_no_rounds_and_a_grid_no_repeats(forked_hpo, tmp_path):
    assert "--until-resolved: study 'search' is a search" in (
        forked_hpo("run", "search", "--until-resolved").err
    )
    (tmp_path / "tiny.toml").write_text(GRID)
    assert (
        "--repeats: study 'tiny' is a grid" in forked_hpo("run", "tiny.toml", "--repeats", "2").err
    )


# --- which conclusions are open ----------------------------------------------------------------


def test_a_part_that_holds_needs_no_more_seeds(tmp_path):
    raw = {"claims": [{"says": "b", "best": "relu", "among": ["deeper", "wider", "tanh"]}]}
    study = store(tmp_path, seeds=5, raw=raw)
    frame = study.trials
    frame.loc[frame["cell"] == "tanh", "test_accuracy"] = frame.loc[
        frame["cell"] == "relu", "test_accuracy"
    ].to_numpy() - [0.001, -0.001, 0.002, -0.002, 0.0005]  # fmt: skip
    [of] = claim_verdicts(study)
    assert of.verdict.value == "unresolved"
    assert of.decided_at is None
    assert open_cells(study) == {"relu", "tanh", "deeper"}, "deeper never learns beside it"


def test_a_conclusion_is_decided_at_the_first_seed_with_enough_evidence(tmp_path):
    study, decided = store(tmp_path, seeds=15), 0
    for of in claim_verdicts(study):
        at = of.decided_at
        if at is None or len(of.parts) > 1:
            continue
        decided += 1
        evidence = of.decisive
        path = evidence.path_for if of.verdict.value == "holds" else evidence.path_against
        assert path[at - 1] > of.factor / 0.05 >= path[: at - 1].max(initial=0)
        assert f"Decided with {at} " in basis.sentence(of)
    assert decided > 2


# --- conclusions are bound ---------------------------------------------------------------------


def opened(storage, text: str, tmp_path, **changed: bool) -> optuna.Study:
    """The study of a file with this text, as a run opens it."""
    (tmp_path / "tiny.toml").write_text(text)
    file, data = study_file.load(str(tmp_path / "tiny.toml")), tiny_dataset()
    return open_study(prepared(file, storage, data, **changed))


def test_conclusions_that_change_after_the_first_trial_are_refused_or_named(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = opened(storage, GRID, tmp_path)
    opened(storage, GRID.replace('["a", "b"]', '["b", "a"]'), tmp_path)  # no trial yet
    opened(storage, GRID, tmp_path)
    study.set_user_attr("seeds", 1)
    for cell in "abc":
        known = {"cell": cell, "seed": 0, "curve": {key: [0.9] for key in METRICS}}
        study.add_trial(create_trial(value=0.9, user_attrs=known))
    reworded = GRID.replace("a is better than b", "In other words: a is better than b")
    assert "claim_changes" not in opened(storage, reworded, tmp_path).user_attrs
    changed = reworded.replace('greater = ["a", "c"]', 'greater = ["c", "a"]')
    with pytest.raises(InputError) as error:
        opened(storage, changed, tmp_path)
    assert "claims: dropped or changed: 'a is better than c'" in str(error.value)
    for remedy in ("--changed-claims to go on", "--name for a new study", "--fresh to delete"):
        assert remedy in str(error.value)
    assert study.user_attrs["study_file"]["claims"][1]["greater"] == ["a", "c"]
    opened(storage, changed, tmp_path, changed_claims=True)
    opened(storage, changed, tmp_path)  # bound anew
    stored = load_study(storage, "tiny")
    [sentence] = verdict_report.changes(stored)
    assert "The conclusions were changed after 3 trainings" in sentence
    assert "Dropped or changed: “a is better than c”." in sentence
    assert max(of.factor for of in claim_verdicts(stored)) == 3, "the dropped one counts"


def test_what_is_bound_is_what_the_test_depends_on(tmp_path):
    [plain] = loaded(tmp_path, 'greater = ["a", "b"]').claims
    others = (
        'greater = ["b", "a"]', 'greater = ["a", "b"]\nby = "wins"', 'fails = "a"',
        'greater = ["a", "b"]\nmatters = 0.1', 'greater = ["a", "b"]\nmetric = "gap"',
    )  # fmt: skip
    for other in others:
        [claim] = loaded(tmp_path, other).claims
        assert claim.tested != plain.tested
    [quoted] = loaded(tmp_path, 'greater = ["a", "b"]\nquote = "So."\nwhere = "2"').claims
    assert quoted.tested == plain.tested


# --- the planned number of seeds ---------------------------------------------------------------


def test_the_planned_number_of_seeds_is_stored_before_the_first_trial(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = opened(storage, GRID, tmp_path)
    assert study.user_attrs["planned_seeds"] == 3
    study = opened(storage, GRID.replace("start = 3", "start = 5"), tmp_path, seeds=9)
    assert study.user_attrs["planned_seeds"] == 5, "the file's, and no trial is stored yet"
    study.set_user_attr("seeds", 1)
    known = {"cell": "a", "seed": 0, "curve": {key: [0.9] for key in METRICS}}
    study.add_trial(create_trial(value=0.9, user_attrs=known))
    more = GRID.replace("{ start = 3, most = 11, step = 4 }", "20")
    opened(storage, more, tmp_path)
    opened(storage, more.replace('["a", "b"]', '["b", "a"]'), tmp_path, changed_claims=True)
    stored = load_study(storage, "tiny")
    assert (stored.planned_seeds, stored.file.seeds) == (5, 20)


def test_a_file_without_seeds_plans_one(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    text = GRID.replace("seeds = { start = 3, most = 11, step = 4 }", "")
    assert opened(storage, text, tmp_path).user_attrs["planned_seeds"] == 1


@pytest.mark.parametrize("value", [0, "3", True, 1.5])
def test_a_planned_number_that_something_else_changed_is_named(tmp_path, value):
    store(tmp_path, seeds=1)
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = optuna.load_study(study_name="grid-report", storage=storage)
    study.set_user_attr("planned_seeds", value)
    with pytest.raises(InputError, match="study 'grid-report': attribute planned_seeds"):
        load_study(storage, "grid-report")


# --- which seeds count -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_9", "counted"),
    [
        ((TrialState.COMPLETE, ""), [7, 8, 9, 10]),
        ((TrialState.FAIL, "CUDA out of memory"), [7, 8, 10]),
        ((TrialState.FAIL, KILLED), [7, 8]),
        ((TrialState.RUNNING, ""), [7, 8]),
        (None, [7, 8]),
    ],
)
def test_only_seeds_before_the_first_that_has_not_ended_are_settled(tmp_path, at_9, counted):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    study = opened(storage, GRID.replace("{ start", "{ first = 7, start"), tmp_path)
    study.set_user_attr("seeds", 5)
    ends = {10: (TrialState.COMPLETE, ""), 7: (TrialState.COMPLETE, ""), 9: at_9}
    ends[8] = TrialState.COMPLETE, ""
    ends[12] = TrialState.COMPLETE, ""  # 11 is missing
    for seed, (state, reason) in ((s, end) for s, end in ends.items() if end):
        known = {"cell": "a", "seed": seed, "curve": {key: [0.9] for key in METRICS}}
        known |= {"fail_reason": reason} if reason else {}
        value = 0.9 if state is TrialState.COMPLETE else None
        made = create_trial(state=state, value=value, user_attrs=known)
        storage.create_new_trial(study._study_id, made)
    stored = load_study(storage, "tiny")
    assert isinstance(stored, StoredGrid)
    assert stored.settled(stored.cell("a"))["seed"].to_list() == counted
    assert stored.settled(stored.cell("b")).empty


def test_margins_that_turn_no_verdict_are_a_sentence_and_no_empty_table(tmp_path):
    [_, margins] = verdict_report.method_sections(store(tmp_path, seeds=2))
    [said] = margins.blocks
    assert re.search(r"Each of the \d+ lines and margins gives the same verdict", said)
