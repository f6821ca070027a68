"""Where a search begins, when it ends, and what it seeks: --like, limits, objectives."""

import copy
import dataclasses
import re
import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from functools import reduce
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from in_process import markdown, opened, prepared
from optuna.trial import TrialState
from optuna_dashboard import get_note
from test_report import store
from tiny import tiny_dataset

from hpo.data.datasets import load
from hpo.errors import InputError
from hpo.report import contents
from hpo.report.blocks.search_tables import network_columns, winner_sentence
from hpo.report.sections import importance
from hpo.report.write import figures
from hpo.results import trial as record
from hpo.results.load import load_study
from hpo.results.study import StoredSearch
from hpo.runs import runner
from hpo.runs.loop import Loop
from hpo.runs.plan import Job, Plan, Watcher
from hpo.runs.progress import Candidate, Progress
from hpo.runs.samplers import check_together
from hpo.runs.search import SearchPlan, spread
from hpo.study.columns import METRICS
from hpo.study.config import SEED, Config, Seeds
from hpo.study.file import SearchStudy, parse
from hpo.watch import note
from hpo.watch.fitted import Fitted
from hpo.watch.listing import stored_studies
from hpo.watch.progress import read_progress
from hpo.watch.terminal import terminal
from hpo.workers.messages import Done, EpochDone, Task

SPACE = """
[finalists]
k = 2
seeds = 2
[space]
depth = { low = 1, high = 3 }
width = [16, 32]
activation = "relu"
optimizer = ["sgd", "adam"]
lr = { low = 1e-3, high = 1e-1, log = true }
batch_size = 16
epochs = 4
"""
HEAD = 'dataset = "wine"\n[search]\nn_trials = 6\n'


@pytest.fixture
def command(hpo: Callable, tmp_path: Path) -> Callable[..., str]:
    """command(head, options …) gives the study file mine.toml to `hpo run`, and returns its
    report."""

    def run(head: str, *options: str, name: str = "mine") -> str:
        (tmp_path / "mine.toml").write_text(head + SPACE)
        answer = hpo("run", "mine.toml", "--quiet", *options, timeout=120)
        assert answer.code == 0, answer.err
        return (tmp_path / f"reports/{name}/report.md").read_text("utf-8")

    return run


class Outcomes(Watcher):
    """Hears how jobs end."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_end(self, job: Job, outcome: str) -> None:
        self.heard.append(outcome)


@pytest.fixture
def outcomes() -> Outcomes:
    return Outcomes()


@pytest.fixture
def run(tmp_path: Path, outcomes: Outcomes) -> Callable[..., StoredSearch]:
    """run(head, space, workers) runs the search without worker processes, and returns what is
    stored."""

    def run(head: str, space: str = SPACE, workers: int = 2) -> StoredSearch:
        storage = opened(tmp_path)
        given = {"name": "mine", "workers": workers, "out": tmp_path, "watchers": [outcomes]}
        file, dataset = search(head, space), load("wine", tmp_path)
        runner.run_search(prepared(file, storage, dataset, **given))
        return read(tmp_path)

    return run


def read(tmp_path: Path) -> StoredSearch:
    found = load_study(opened(tmp_path), "mine")
    assert isinstance(found, StoredSearch)
    return found


def trials(tmp_path: Path, name: str = "mine") -> pd.DataFrame:
    return pd.read_csv(tmp_path / f"reports/{name}/trials.csv")


def stored(tmp_path: Path, name: str = "mine") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path}/hpo.db")


def search(text: str, space: str = SPACE) -> SearchStudy:
    found = parse(tomllib.loads(text + space), "mine", "mine.toml")
    assert isinstance(found, SearchStudy)
    return found


# --- where it begins ---------------------------------------------------------------------------

FIRST = """
[[search.first]]
depth = 2
lr = 0.05
[[search.first]]
optimizer = "adam"
width = 32
"""


def test_first_configurations_are_tried_first_and_once(run: Callable, tmp_path: Path):
    study = run(HEAD + FIRST, workers=1)
    rows = study.trials
    assert (rows.loc[0, "depth"], rows.loc[0, "lr"]) == (2, 0.05)
    assert (rows.loc[1, "optimizer"], rows.loc[1, "width"]) == ("adam", 32)
    assert "2 configurations of the study file came first" in markdown(study, tmp_path)
    run(HEAD.replace("= 6", "= 8") + FIRST, workers=1)
    entries = [t.user_attrs.get("first") for t in stored(tmp_path).trials]
    assert [bool(entry) for entry in entries] == [True, True] + [False] * 6


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("depth = 9", "search.first[0].depth: 9 is not in its domain: 1 … 3"),
        ("width = 24", "search.first[0].width: 24 is not in its domain: [16, 32]"),
        ('lr = "fast"', "search.first[0].lr: must be a number"),
        ("dropout = 0.1", "search.first[0].dropout: is not in the space"),
    ],
)
def test_first_configurations_outside_the_space_are_refused(entry: str, said: str):
    with pytest.raises(InputError, match=re.escape(said)):
        search(f"{HEAD}[[search.first]]\n{entry}\n")


@pytest.mark.slow
def test_a_search_like_another_knows_its_trials_and_trains_its_best_again(
    command: Callable, hpo: Callable, tmp_path: Path
):
    command(HEAD)
    best = trials(tmp_path).sort_values("valid_accuracy").iloc[-1]
    text = command(HEAD, "--name", "second", "--like", "mine", "--workers", "1", name="second")
    assert "The sampler knew 6 of 6 finished trials of study mine" in text
    first = trials(tmp_path, "second").iloc[0]
    assert (first["depth"], first["lr"]) == (best["depth"], pytest.approx(best["lr"]))
    assert first["valid_accuracy"] == best["valid_accuracy"], "the same seed"
    more = command(HEAD, "--name", "second", "--trials", "8", name="second")
    assert "The sampler knew 6 of 6" in more, "also when it goes on"
    (tmp_path / "far.toml").write_text(HEAD + SPACE.replace("16, 32", "64, 128"))
    for options, said in (
        (("far.toml", "--like", "mine"), "none of its 6 finished trials lies in the space"),
        (("mine.toml", "--like", "nobody"), "--like nobody: is not in the storage"),
        (("mine.toml", "--like", "mein"), "shows what is; did you mean 'mine'?"),
        (("mine.toml", "--like", "mine", "--dataset", "digits", "--name", "x"), "is of wine"),
        (("grid-report", "--like", "mine", "--dataset", "wine"), "--like: study 'grid-report'"),
    ):  # fmt: skip
        answer = hpo("run", *options)
        assert (answer.code, len(answer.err.splitlines())) == (2, 1)
        assert said in answer.err


@pytest.mark.slow
def test_a_changed_space_goes_on_like_its_own_past(
    command: Callable, hpo: Callable, tmp_path: Path
):
    command(HEAD)
    wider = SPACE.replace("low = 1, high = 3", "low = 1, high = 4")
    (tmp_path / "mine.toml").write_text(HEAD + wider)
    refused = hpo("run", "mine.toml")
    assert refused.code == 2
    assert "--like mine" in refused.err
    for _ in range(2):
        answer = hpo("run", "mine.toml", "--quiet", "--like", "mine", timeout=120)
        assert answer.code == 0, answer.err
        assert "going on as study 'mine.2'" in answer.err
    assert len(trials(tmp_path, "mine.2")) == 6
    text = (tmp_path / "reports/mine.2/report.md").read_text("utf-8")
    assert "The sampler knew 6 of 6" in text
    assert not (tmp_path / "reports/mine.3").exists()


# --- what a trial is ---------------------------------------------------------------------------


def test_a_trials_value_is_the_mean_over_its_seeds(run: Callable, tmp_path: Path):
    study = run(HEAD + "seeds_per_trial = 3\n")
    assert "A trial's value is the mean over 3 seeds" in markdown(study, tmp_path)
    for trial in study.frozen:
        by_seed = trial.user_attrs["valid_by_seed"]
        assert len(by_seed) == 3
        assert trial.user_attrs["curve"]["valid_accuracy"][-1] == pytest.approx(sum(by_seed) / 3)
        if trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(sum(by_seed) / 3)
    assert study.tested is not None
    assert sorted(set(study.tested.trials["seed"])) == [3, 4]


@pytest.mark.parametrize("each", ["seeds_per_trial = 5", "folds = 5"])
def test_wilcoxons_pruner_judges_seed_by_seed(each: str, run: Callable):
    head = HEAD.replace("= 6", "= 12") + f'{each}\npruner = "wilcoxon"\n'
    found = run(head, workers=1).frozen
    assert {t.state.name for t in found} == {"COMPLETE", "PRUNED"}
    for trial in found:
        seeds = len(trial.user_attrs["valid_by_seed"])
        assert list(trial.intermediate_values) == list(range(1, seeds + 1))
        assert len(trial.user_attrs["curve"]["valid_accuracy"]) == 4
        assert seeds == 5 or trial.state.name == "PRUNED"
        assert list(trial.intermediate_values.values()) == trial.user_attrs["valid_by_seed"]
    alone = search(HEAD + 'pruner = "wilcoxon"\n')
    with pytest.raises(InputError, match="wilcoxon needs seeds_per_trial of 3 or more"):
        check_together(alone, "mine")


# --- when it ends ------------------------------------------------------------------------------


def test_a_search_that_finds_nothing_better_stops_and_says_why(run: Callable, tmp_path: Path):
    head = HEAD.replace("= 6", "= 60") + "stop_after = { trials = 4, without = 0.01 }\n"
    study = run(head, workers=1)
    assert (
        "because the last 4 were no better than the best before them by more than 1 point"
        in markdown(study, tmp_path)
    )
    values = [t.value if t.state.name == "COMPLETE" else 0.0 for t in study.frozen]
    assert 5 <= len(values) < 60
    assert max(values) - max(values[:-4]) <= 0.01
    count = len(values)
    assert len(run(head, workers=1).frozen) == count, "it stays ended"


def test_a_trial_over_its_limit_is_stopped_and_counted(
    run: Callable, outcomes: Outcomes, tmp_path: Path
):
    space = SPACE.replace("epochs = 4", "epochs = 30000")
    head = HEAD.replace("= 6", "= 2") + 'trial_limit = "0.5 s"\npruner = "none"\n'
    study = run(head, space)
    assert list(study.trials["state"]) == ["PRUNED"] * 2
    assert (study.trials["over_limit"] == 1).all()
    assert all("stopped at its time limit after epoch" in said for said in outcomes.heard)
    text = markdown(study, tmp_path)
    assert "(2 stopped at the time limit)" in text
    assert "No trial ran to its end within its limit of 0.5 s, so there is no finalist." in text
    assert "goes on from here" not in text.partition("## How")[0]
    assert "progress.svg" not in text, "no trial has a value"


def test_a_search_in_which_every_trial_diverges_says_what_to_do(
    run: Callable, outcomes: Outcomes, tmp_path: Path
):
    space = SPACE.replace("low = 1e-3, high = 1e-1", "low = 1e5, high = 1e6")
    study = run(HEAD.replace("= 6", "= 2"), space)
    assert list(study.trials["diverged"]) == [True] * 2
    assert all(said.startswith("diverged in epoch ") for said in outcomes.heard)
    assert len(outcomes.heard) == 2
    text = markdown(study, tmp_path)
    assert "Every trial diverged, so there is no finalist. Give smaller learning rates" in text
    assert "goes on from here" not in text.partition("## How")[0]


def test_tables_leave_out_what_the_space_fixes_for_all_networks():
    fixed = "label_smoothing = 0.1\nresidual = { value = true, when = { depth = 3 } }\n"
    common = {"activation": "relu", "optimizer": "sgd", "lr": 0.1, "label_smoothing": 0.1}
    configs = [
        Config(depth=3, width=16, residual=True, **common),
        Config(depth=1, width=32, **common),
    ]
    file = parse(tomllib.loads(HEAD + SPACE + fixed), "mine", "mine.toml")
    study = SimpleNamespace(file=file)
    columns = network_columns(study, configs, lambda config: config)
    assert columns[-1].header == "Further"
    assert [columns[-1].entry(config).text for config in configs] == ["residual", "–"]
    assert network_columns(study, configs[1:], lambda c: c)[-1].header == "Learning rate"


def test_trials_at_their_limit_are_not_called_pruned_and_counts_add_up(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importance, "LEAST", 5)
    run(HEAD.replace("= 6", "= 8") + 'trial_limit = "1 h"\npruner = "none"\n')
    ids = [trial._trial_id for trial in sorted(stored(tmp_path).trials, key=lambda t: t.value)]
    with closing(sqlite3.connect(tmp_path / "hpo.db")) as database, database:
        database.execute("update trials set state = 'FAIL' where trial_id = ?", ids[:1])
        for trial in ids[1:3]:
            database.execute("update trials set state = 'PRUNED' where trial_id = ?", [trial])
            row = (trial, "over_limit", "1")
            insert = (
                "insert into trial_user_attributes (trial_id, key, value_json) values (?, ?, ?)"
            )
            database.execute(insert, row)
    study = read(tmp_path)
    text = markdown(study, tmp_path)
    assert "7 networks tried on wine (5 trained to the end, 2 stopped at the time limit" in text
    assert "2 stopped at the time limit; besides these, 1 failed)" in text
    assert "and of the 2 stopped early up to where they ended" in text
    assert "of 7 trials apart from all, those stopped early included" in text
    assert "pruned" not in text
    assert "image" not in text, "wine is a table"
    assert not re.search(r"to 1(?!00\.00)\d\d\.", text), "no accuracy is above 100%"
    pictures = figures(study, tmp_path)
    drawn = pictures["curves"].svg + pictures["progress"].svg + pictures["slices"].svg
    assert "pruned" not in drawn
    for said in (
        "2 trials stopped early beside the best",
        "2 stopped early, without a dot",
        "stopped at its time limit, at its last value",
    ):
        assert said in drawn


class OneJob(Plan):
    """A plan of one job of three epochs that takes longer than its limit at once."""

    def __init__(self) -> None:
        config = Config(
            depth=1, width=4, activation="relu", optimizer="sgd", lr=0.1, batch_size=16, epochs=3
        )
        task = Task(id=1, config=config, seeds=(Seeds.of(SEED),))
        self.job = Job(task=task, label="x", trials=[], names=["x"], cost=1.0, limit=0.0)
        super().__init__("x", jobs=[self.job])
        self.state: TrialState | None = None

    def ended(self, job: Job, state: TrialState) -> None:
        self.state = state


class Sent:
    """A pool of one worker that has sent these epochs before the runner looks; then it ends its
    task."""

    size, idle, waiting = 1, [0], ""

    def __init__(self, epochs: int, seconds: float) -> None:
        figures = {metric: [0.5] for metric in METRICS}
        numbers = range(1, epochs + 1)
        self.events = [EpochDone(task=1, number=n, seconds=seconds, **figures) for n in numbers]
        self.stopped = False

    def start(self, worker: int, task: Task) -> None:
        self.idle = []

    def stop(self, task: int) -> None:
        self.stopped = True

    def share(self, cores: int) -> None: ...

    def wait(self, seconds: float) -> list[EpochDone | Done]:
        if self.events:
            return [self.events.pop(0)]
        if seconds == 0:
            return []
        self.idle = [0]
        return [Done(task=1)]


@pytest.mark.parametrize(
    ("sent", "seconds", "epochs", "state"),
    [
        (3, 0.0, 3, TrialState.COMPLETE),
        (1, 0.0, 1, TrialState.PRUNED),
        (3, 1.0, 2, TrialState.PRUNED),  # it sends faster than the runner stores
    ],
)
def test_a_trial_that_has_ended_its_epochs_within_its_limit_is_complete(
    sent: int, seconds: float, epochs: int, state: TrialState
):
    plan, pool = OneJob(), Sent(sent, seconds)
    progress = Progress(title="x", total=1, started=0.0, workers=[""])
    storage = optuna.storages.InMemoryStorage()
    Loop(plan=plan, storage=storage, pool=pool, progress=progress).run()
    assert (plan.state, pool.stopped) == (state, state is TrialState.PRUNED)
    assert len(plan.job.epochs) == epochs


def test_nodes_that_a_run_waits_for_are_told_when_they_change():
    class Growing(Sent):
        """Has all its nodes after its second look."""

        def wait(self, seconds: float) -> list[EpochDone | Done]:
            self.waiting = f"waiting for nodes: {3 - len(self.events)} of 4 are there"
            self.waiting *= len(self.events) > 1
            return super().wait(seconds)

    told: list[str] = []
    watcher = Watcher()
    watcher.on_notice = told.append  # type: ignore[method-assign]
    progress = Progress(title="x", total=1, started=0.0, workers=[""])
    storage = optuna.storages.InMemoryStorage()
    parts = {"storage": storage, "pool": Growing(3, 0.0), "progress": progress}
    plan = OneJob()
    plan.job.limit = 600.0
    Loop(plan=plan, watchers=[watcher], **parts).run()
    first, second = (f"waiting for nodes: {n} of 4 are there" for n in (0, 1))
    assert told == [first, second, "all nodes are there"]
    assert progress.waiting == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('trial_limit = "soon"', 'must be seconds above 0, or text such as "5 min", got'),
        ("trial_limit = -1", "must be seconds above 0"),
        ("stop_after = { trials = 0 }", "search.stop_after"),
        ("stop_after = 3", "search.stop_after"),
        ("seeds_per_trial = 0", "must be a whole number from 1 to 100"),
        ('objectives = ["parameters"]', 'must be ["valid_accuracy"], ["valid_accuracy", "parame'),
        ('objectives = ["valid_accuracy", "beauty"]', 'must be ["valid_accuracy"]'),
        ("objectives = []", 'must be ["valid_accuracy"]'),
        ('objectives = ["valid_accuracy", "parameters"]\npruner = "sha"', "prunes for one"),
    ],
)
def test_wrong_ways_are_refused_in_a_line(line: str, said: str):
    with pytest.raises(InputError, match=re.escape(said)):
        search(f"{HEAD}{line}\n")


@pytest.mark.parametrize(
    ("text", "seconds"), [('"5 min"', 300), ('"90 s"', 90), ("7", 7), ('"1.5 h"', 5400)]
)
def test_a_limit_is_seconds_or_text(text: str, seconds: float):
    assert search(f"{HEAD}trial_limit = {text}\n").trial_limit == seconds


# --- what it seeks -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_two_objectives_end_in_a_front_and_finalists_along_it(
    command: Callable, tmp_path: Path, sampler: str
):
    head = HEAD.replace("= 6", "= 12") + f'sampler = "{sampler}"\n'
    text = command(head + 'objectives = ["valid_accuracy", "parameters"]\n')
    study = stored(tmp_path)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    best = {t.number for t in study.best_trials}
    finalists = pd.read_csv(tmp_path / "reports/mine/finalists.csv")
    values = {t.number: t.values for t in study.trials}
    front_values = {tuple(values[n]) for n in best}
    assert {tuple(values[n]) for n in finalists["number"]} <= front_values
    assert "Validation accuracy against parameters" in text
    note = get_note(study)
    assert "spread over the Pareto front of validation accuracy and parameters" in note
    assert "rows to train on" in note
    assert (tmp_path / "reports/mine/figures/pareto.svg").exists()
    command(head.replace("= 12", "= 14") + 'objectives = ["valid_accuracy", "parameters"]\n')
    # `hpo list` has both values of the trial that is best by the first.
    rows = stored_studies(opened(tmp_path), lambda _: False).table.rows
    [row] = [row for row in rows if row.name == "mine"]
    value, cost = max((t.values for t in stored(tmp_path).trials), key=lambda v: (v[0], -v[1]))
    assert row.best == f"validation accuracy {100 * value:.2f}%, parameters {cost:,.0f}"


PLURAL_OF_ONE = re.compile(
    r"(?<![\d.,–−×=-])(?<!of )\b1 (?!wins|is )(?:(?!\w+ is)\w+ )?(?!is )\w+s\b"
)


def test_one_of_everything_is_in_the_singular(run: Callable, tmp_path: Path):
    one = {"k = 2\nseeds = 2": "k = 1\nseeds = 1", "epochs = 4": "epochs = 1"}
    space = reduce(lambda text, pair: text.replace(*pair), one.items(), SPACE)
    study = run(HEAD.replace("= 6", '= 1\npruner = "none"'), space)
    said = [markdown(study, tmp_path), note.markdown(study, "", None, ended=True)]
    said += [part for part in terminal(study) if isinstance(part, str)]
    text = "\n".join(said)
    assert not PLURAL_OF_ONE.findall(text)
    assert "1 network tried on wine" in text


def test_one_cell_with_one_seed_is_in_the_singular(tmp_path: Path):
    file = tmp_path / "one.toml"
    cells = '[[cells]]\nname = "a"\n[[cells]]\nname = "b"\nwidth = 9\n'
    claims = '[[claims]]\nsays = "More."\ngreater = ["a", "b"]\n'
    base = 'depth = 1\nwidth = 8\nactivation = "relu"\noptimizer = "sgd"\nlr = 0.1\nepochs = 1\n'
    file.write_text(f"seeds = 1\n[base]\n{base}{cells}{claims}")
    study = store(tmp_path, seeds=1, name="one", file=str(file))
    said = [markdown(study, tmp_path), note.markdown(study, "", None, ended=True)]
    text = "\n".join([*said, *(part for part in terminal(study) if isinstance(part, str))])
    assert not PLURAL_OF_ONE.findall(text)
    assert "for 1 epoch." in text


def test_seconds_are_an_objective_too(run: Callable, tmp_path: Path):
    study = run(HEAD + 'objectives = ["valid_accuracy", "train_seconds"]\n')
    assert "Training time (s)" in markdown(study, tmp_path)
    for trial in study.frozen:
        assert trial.values[1] == pytest.approx(trial.user_attrs["train_seconds"])
    trials, finalists = (part.table for part in terminal(study) if isinstance(part, Fitted))
    for table in (trials, finalists):
        column = next(column for column in table.columns if column.short == "training time (s)")
        numbers = [row.number for row in table.rows]
        assert [column.value(row) for row in table.rows] == [
            study.frozen[n].values[1] for n in numbers
        ]
    cost = study.frozen[int(study.ranked.iloc[0]["number"])].values[1]
    assert f"%, training time (s) {cost:.1f}, trial" in read_progress(study, here=False).best


def test_networks_that_learned_nothing_do_not_become_finalists():
    file = search(HEAD + 'objectives = ["valid_accuracy", "parameters"]\n')
    file = file.model_copy(update={"finalists": 3})
    storage, dataset = optuna.storages.InMemoryStorage(), tiny_dataset()
    study = optuna.create_study(storage=storage, study_name="x", directions=file.directions)
    plan = SearchPlan(prepared(file, storage, dataset), study)
    for accuracy, cost in ((0.11, 1), (0.29, 2), (0.5, 3), (0.9, 4)):
        trial = optuna.trial.create_trial(values=[accuracy, cost])
        study.add_trial(trial)
        plan.candidates[study.trials[-1]._trial_id] = Candidate(
            value=100 * accuracy, second=cost, seconds=1.0
        )
    assert [trial.values[0] for trial in plan.best()] == [0.9, 0.5]
    plan.candidates = {i: c for i, c in plan.candidates.items() if c.value < 30}
    assert [trial.values[0] for trial in plan.best()] == [0.29], "the best one stays"


def along_a_front(study: StoredSearch, accuracies: list[float], costs: list[int]) -> StoredSearch:
    """The search as one of two objectives, its finalists with these fresh accuracies and costs."""
    frozen, tested = [copy.deepcopy(trial) for trial in study.frozen], study.tested
    for finalist, cost in zip(study.finalists, costs, strict=True):
        frozen[finalist.number].values = [0.5, cost]
    names = [finalist.cell.name for finalist in study.finalists]
    fresh = tested.trials["cell"].map(dict(zip(names, accuracies, strict=True)))
    tested = dataclasses.replace(tested, trials=tested.trials.assign(valid_accuracy=fresh))
    file = study.file.model_copy(update={"objectives": ["valid_accuracy", "parameters"]})
    return dataclasses.replace(study, frozen=frozen, tested=tested, file=file)


def test_two_objectives_are_led_by_the_ends_and_the_knee_of_the_front(run: Callable):
    study = run(HEAD, SPACE.replace("k = 2", "k = 3"))
    names = [f"(trial {finalist.number}; parameters:" for finalist in study.finalists]
    good = along_a_front(study, [0.98, 0.97, 0.90], [10_000, 2_000, 1_000])
    ends, knee = winner_sentence(good).split(
        "Its knee, beyond which validation accuracy costs most, is"
    )
    assert names[0] in ends
    assert names[2] in ends
    assert f"{names[1]} 2,000; test accuracy" in knee
    assert winner_sentence(good) in contents.lead(good)[0]
    straight = winner_sentence(along_a_front(study, [0.98, 0.91, 0.90], [10_000, 5_000, 1_000]))
    assert names[1] not in straight
    assert f"{names[2]} 1,000" in straight
    one = along_a_front(study, [0.98, 0.97, 0.90], [500, 2_000, 1_000])
    assert winner_sentence(one).startswith("The winner is"), "a front of one"


def test_the_front_holds_what_nothing_beats_and_is_spread_evenly():
    points = [(0.9, 10), (0.8, 5), (0.85, 10), (0.7, 5), (0.6, 1), (0.9, 12)]
    assert record.front(points) == [0, 1, 4]
    assert spread(range(9), 3) == [0, 4, 8]
    assert spread([5, 6], 3) == [5, 6]
