"""What a report says and writes, read from the storage alone."""

import dataclasses
import json
import os
import re
import sqlite3
import sys
import xml.etree.ElementTree as ET
from contextlib import closing
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from in_process import markdown
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from hpo.analysis.claims import claim_verdicts, difference
from hpo.errors import InputError
from hpo.report import contents
from hpo.report import write as report
from hpo.report.blocks import page
from hpo.report.blocks.grid_tables import setting_columns
from hpo.report.blocks.table import Column, Entry, Table
from hpo.report.draw import draw
from hpo.report.figures import grid as figures
from hpo.report.sections import protocol
from hpo.results import trial as record
from hpo.results.load import load_study
from hpo.results.study import StoredGrid
from hpo.runs.samplers import cell_distributions
from hpo.runs.study import binding
from hpo.storage.open import open_storage
from hpo.study import file as study_file
from hpo.study.metrics import packed

TRIAL_COLUMNS = (
    "number,state,cell,seed,depth,width,activation,optimizer,lr,batch_size,epochs,train_loss,"
    "train_accuracy,valid_loss,valid_accuracy,test_loss,test_accuracy,train_seconds,diverged"
)
CURVE_COLUMNS = "number,cell,seed,epoch,train_loss,train_accuracy,valid_loss,valid_accuracy"
ACCURACY = {"deeper": 0.11, "adam": 0.15, "lr-1.0": 0.1, "relu": 0.966, "wider": 0.961}


def store(folder: Path, seeds: int = 3, name: str = "grid-report", **changes) -> StoredGrid:
    """A stored study with made-up results, as the runner would have left it. The trials of each
    file, number of seeds and size of data are made once, and their database is copied."""
    file = study_file.load(changes.pop("file", "grid-report"))
    assert isinstance(file, study_file.GridStudy)
    data = {"name": "mnist", "checksum": "0" * 64, "train": 48000, "valid": 12000, "test": 10000}
    data["largest"] = 0.1135
    data |= changes.get("data", {})
    made, database = (json.dumps(file.raw, sort_keys=True), seeds, name), folder / "hpo.db"
    if database.exists():
        _add(open_storage(f"sqlite:///{database}"), file, seeds, name, data)
    else:
        database.write_bytes(_made(*made, data["valid"], data["test"]))
    storage = open_storage(f"sqlite:///{database}")
    study = optuna.load_study(storage=storage, study_name=name)
    study.set_user_attr("data", data)
    study.set_user_attr("study_file", {**file.raw, **changes.get("raw", {})})
    return load_study(storage, name)


@cache
def _made(text: str, seeds: int, name: str, valid: int, test: int) -> bytes:
    """An SQLite database that holds the trials of a study file."""
    file = study_file.parse(json.loads(text), name, name)
    assert isinstance(file, study_file.GridStudy)
    with TemporaryDirectory() as folder:
        storage = open_storage(f"sqlite:///{folder}/hpo.db")
        _add(storage, file, seeds, name, {"valid": valid, "test": test})
        storage.engine.dispose()
        with closing(sqlite3.connect(f"{folder}/hpo.db")) as connection:
            return connection.serialize()


def _add(
    storage: BaseStorage, file: study_file.GridStudy, seeds: int, name: str, data: dict[str, Any]
) -> None:
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.set_user_attr("seeds", seeds)
    rng, images = np.random.default_rng(0), np.random.default_rng(1)
    ranges = cell_distributions([cell.config for cell in file.cells])
    for cell in file.cells:
        for seed in range(seeds):
            accuracy = ACCURACY.get(cell.name, 0.95) + rng.normal(0, 0.001)
            lost = cell.name == "lr-1.0" and seed == 0
            curve = {m: [1.5, None if lost else 0.5] for m in record.METRICS}
            curve["valid_accuracy"] = [0.5 * accuracy, accuracy]
            attributes = {
                "cell": cell.name, "seed": seed, "stack": 1, "curve": curve, "diverged": lost,
                "test_accuracy": accuracy, "test_loss": None if lost else 0.2,
                "train_seconds": 1.5, "parameters": 26506,
            }  # fmt: skip
            values = cell.config.as_dict()
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    value=accuracy,
                    params={key: values[key] for key in ranges},
                    distributions=ranges,
                    user_attrs=attributes,
                    system_attrs={"right": bits(images, accuracy, data)},
                )
            )


OWN = (
    '[base]\ndepth = 1\nactivation = "relu"\noptimizer = "adam"\nlr = 0.001\n'
    '[[cells]]\nname = "narrow"\nwidth = 8\n[[cells]]\nname = "wide"\nwidth = 80\n'
)


def own(folder: Path, **changes) -> StoredGrid:
    """A stored study of two cells, whose report is written in a third of the time."""
    (folder / "mine.toml").write_text(OWN)
    return store(folder, file=str(folder / "mine.toml"), name="mine", **changes)


def bits(rng: np.random.Generator, accuracy: float, data: dict[str, Any]) -> dict[str, str]:
    """Which images a network of this accuracy gets right; the first ones are the easy ones."""
    found = {}
    for part in ("test", "valid"):
        ease = np.linspace(2, 0, data[part]) + rng.normal(0, 0.1, data[part])
        found[part] = packed(ease >= np.quantile(ease, 1 - accuracy))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `stored` lies, and its report under reports/grid-report."""
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def stored(folder: Path) -> StoredGrid:
    return store(folder)


@pytest.fixture(scope="module")
def reported(folder: Path, stored: StoredGrid) -> Path:
    return report.write(stored, folder / "reports/grid-report").parent


def test_all_promised_files_are_written(reported):
    made = {str(path.relative_to(reported)) for path in reported.rglob("*") if path.is_file()}
    curves = {f"figures/curves-{n}.svg" for n in range(6)}
    texts = {"index.html", "report.md", "trials.csv", "curves.csv", "provenance.json"}
    figures = {f"figures/{name}.svg" for name in ("overview", "importance")}
    assert made == {*texts, "verdicts.json", *figures, *curves}
    assert [p.name for p in reported.parent.iterdir()] == ["grid-report"]


def test_csv_columns_are_those_of_the_interface(reported):
    assert (reported / "trials.csv").read_text().startswith(f"{TRIAL_COLUMNS},")
    assert (reported / "curves.csv").read_text().startswith(f"{CURVE_COLUMNS}\n")
    trials = pd.read_csv(reported / "trials.csv")
    assert len(trials) == 24
    assert trials["test_accuracy"].between(0, 1).all()
    last = pd.read_csv(reported / "curves.csv").query("epoch == 2")
    assert trials["valid_accuracy"].equals(last["valid_accuracy"].reset_index(drop=True))


class Page(HTMLParser):
    """Collects a page's links to elsewhere, its pictures and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.alts: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[key] for key in ("src", "href") if key in values]
        if values.get("role") == "img":
            self.alts.append(values.get("aria-label", ""))

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_stands_alone_and_every_picture_has_a_text(reported):
    seen = Page((reported / "index.html").read_text())
    files = [link for link in seen.links if not link.startswith("#")]
    assert {"verdicts.json", "trials.csv", "curves.csv"} <= {*files} < {*seen.links}
    assert all((reported / file).is_file() for file in files)
    assert len(seen.alts) == 8
    assert all(len(alt) > 20 for alt in seen.alts)


def test_reported_and_reproduced_stand_side_by_side(reported):
    text = (reported / "report.md").read_text()
    header = "Model | Hidden layers | Activation | Test accuracy (%), reported | "
    assert header + "Test accuracy (%), reproduced | Test loss, reported |" in text
    assert re.search(r"\| Wider MLP \| 2 × 512 \| Sigmoid \| 96.15 \| 96\.\d\d ± 0\.\d\d \|", text)
    assert re.search(r"\| Deeper MLP \| 6 × 32 \| Sigmoid \| 11.35 \| median 1\d\.\d\d \(", text)


def card(study: StoredGrid) -> dict[str, tuple[str, list[str]]]:
    """The card on the first screen: {what: (value, sentences)}."""
    front = contents.sections(study)[0]
    assert front.title == ""
    [block] = [block for block in front.blocks if isinstance(block, page.Card)]
    assert not block.toml
    return {what: (value, [*sentences]) for what, value, sentences in block.rows}


def test_the_card_counts_every_conclusion_once_and_says_what_to_do_next(stored, tmp_path):
    found = card(stored)
    judged = claim_verdicts(stored)
    counts = [int(value.split()[0]) for what, (value, _) in found.items() if "next" not in what]
    assert sum(counts) == len(judged)
    still_open = [of.claim.says for of in judged if of.verdict.value == "unresolved"]
    value, sentences = found["What is open"]
    assert value == f"{len(still_open)} of 33 conclusions"
    assert sentences == [*still_open[:2], f"and {len(still_open) - 2} more"]
    assert found["What to do next"][0].endswith("the same command with --until-resolved")
    more = dataclasses.replace(stored, seeds=5)
    assert card(more)["What to do next"][0] == "The same command goes on: 16 trainings are left"
    most = dataclasses.replace(stored, until_resolved={"most": 30, "end": "complete"})
    assert "More than 30 seeds" in card(most)["What to do next"][0]


def test_the_card_of_a_grid_without_conclusions_names_the_best_and_who_else_may_be_it(tmp_path):
    study = own(tmp_path, seeds=8)
    even = 0.95 + 0.01 * (study.trials["seed"] % 2 == (study.trials["cell"] == "wide"))
    even += 0.0001 * (study.trials["cell"] == "wide")
    study = dataclasses.replace(study, trials=study.trials.assign(test_accuracy=even))
    found = card(study)
    means = {c.label: 100 * study.values(c).mean() for c in study.file.cells}
    best = max(means, key=means.__getitem__)
    value, sentences = found["Best network"]
    assert value == best
    assert sentences[0].startswith(f"Test accuracy (%): {means[best]:.2f} ± ")
    assert found["What is open"][0] == "Whether it is the best"
    assert found["What to do next"][0] == "More seeds: the same command with --seeds 16"
    text = " ".join(" ".join((what, v, *s)) for what, (v, s) in found.items())
    for word in ("replay", "reported", "reproduce", "conclusion", "publish"):
        assert word not in text.lower()
    clear = study.finished["test_accuracy"].where(study.finished["cell"] != "wide", 0.99)
    told = dataclasses.replace(study, trials=study.trials.assign(test_accuracy=clear))
    value, [interval] = card(told)["What holds"]
    assert value.startswith("It leads narrow by ")
    assert re.fullmatch(r"95% interval \d\.\d\d to \d\.\d\d, paired t-test, 8 seeds", interval)
    first = contents.lead(told)[0]
    assert first.startswith("The best of 2 networks is wide: mean test accuracy 99.00%; a guess, ")
    assert first.endswith(f". {value} ({interval}).")
    assert contents.lead(study)[0].endswith(". narrow may be the best as well (95%, 8 seeds).")
    tables = [b for s in contents.sections(study) for b in s.blocks if isinstance(b, Table)]
    assert not any("At most" in table.caption for table in tables), "no run fails"
    assert "--first-seed 8" in card(told)["What to do next"][0]


def glance(sections: list[page.Section]) -> Table:
    [section] = [s for s in sections if s.title == "All networks at a glance"]
    return next(block for block in section.blocks if isinstance(block, Table))


def test_the_configuration_trained_twice_stands_beside_both_figures(stored):
    sections = contents.sections(stored)
    overview = glance(sections)
    assert len(overview.rows) == 9
    labels = [row[0] for row in overview.texts]
    assert labels[4:] == [
        "ReLU MLP", "Adam ReLU MLP", "ReLU MLP (LR=1.0)", "ReLU MLP (LR=0.1)", "ReLU MLP (LR=0.01)"
    ]  # fmt: skip
    for title in ("Experiment 3", "Experiment 5"):
        section = next(s for s in sections if s.title.startswith(title))
        table = next(b for b in section.blocks if isinstance(b, Table))
        assert any("96.93 and 96.45" in row for row in table.texts)


def test_every_published_figure_has_its_row_even_where_no_section_comes_back_to_it(tmp_path):
    stored = store(tmp_path, seeds=1, raw={"experiments": []})
    overview = glance(contents.sections(stored))
    labels = [row[0] for row in overview.texts]
    assert len(labels) == 9
    assert {"ReLU MLP", "ReLU MLP (LR=0.1)"} <= set(labels)


def test_a_cell_breaks_its_line_and_keeps_its_words():
    columns = [
        Column(key, key, lambda row, key=key: row[key]) for key in ("model", "loss", "seeds")
    ]
    loss = Entry("median 2.3 (1.8–2.4), 1 diverged", 2.3)
    table = Table(columns=columns, rows=[{"model": "a", "loss": loss, "seeds": 10}])
    section = page.Section(title="One", blocks=[table])
    html = page.render("index.html.j2", "Title", [], [section])
    assert 'data-value="2.3" data-label="loss">median 2.3\n(1.8–2.4),\n1 diverged</td>' in html
    assert '<th scope="row" class="brief" data-label="model">a</th>' in html
    further = dataclasses.replace(table, rows=[{**table.rows[0], "loss": "dropout 0.1, " * 9}])
    html = page.render("index.html.j2", "Title", [], [page.Section(title="", blocks=[further])])
    assert '<td class="words" data-label="loss">dropout 0.1, dropout' in html


def test_a_title_with_control_characters_makes_a_page(tmp_path):
    stored = own(tmp_path, raw={"title": "a\x00b\x1b\ud800c"})
    assert "a\ufffdb\ufffd\ufffdc" in report.write(stored, tmp_path / "out").read_text()


def sentences(study: StoredGrid) -> str:
    blocks = [block for section in contents.sections(study) for block in section.blocks]
    return " ".join(text for block in blocks if isinstance(block, list) for text in block)


def test_findings_say_who_is_better_and_who_fails(stored):
    text = sentences(stored)
    assert "Deeper MLP fails to learn in all 3 seeds" in text
    assert "in 1 of 3 seeds it diverged" in text
    assert "more accurate than" not in text, "the conclusions say so"
    bare = dataclasses.replace(stored, file=stored.file.model_copy(update={"claims": ()}))
    said = sentences(bare)
    assert re.search(r"ReLU MLP is 1\.\d\d points more accurate than", said)
    assert "Student's t, for one look" in said


def test_a_difference_has_the_interval_of_its_verdict_wherever_it_stands(tmp_path):
    claims = [{"says": "So.", "greater": ["wider", "baseline"]}, {"says": "X.", "fails": "adam"}]
    study = store(tmp_path, seeds=12, raw={"claims": claims})
    study = dataclasses.replace(study, planned_seeds=10)
    part = claim_verdicts(study)[0].decisive
    wider, baseline = study.cell("wider"), study.cell("baseline")
    assert difference(study, wider, baseline).interval == part.interval
    without = study.file.model_copy(update={"claims": study.file.claims[1:]})
    text = sentences(dataclasses.replace(study, file=without))
    low, high = (f"{100 * end:.2f}" for end in part.interval)
    assert f"95% interval {low} to {high}, that of the conclusions" in text


def test_a_shared_time_has_no_spread(tmp_path):
    study = own(tmp_path)
    trials = study.trials.assign(stack=3, train_seconds=1.5)
    [row, *_] = glance(contents.sections(dataclasses.replace(study, trials=trials))).texts
    assert "1.50" in row
    alone = trials.assign(stack=1, train_seconds=study.trials["number"])
    [row, *_] = glance(contents.sections(dataclasses.replace(study, trials=alone))).texts
    assert "1.00 ± 1.00" in row


def test_one_seed_claims_no_spread(tmp_path):
    text = markdown(store(tmp_path, seeds=1), tmp_path)
    assert not re.search(r"\bnan\b", text)
    assert "±" not in text
    assert "median" not in text
    assert "One seed does not tell what others would give." in text


def test_a_study_without_a_finished_trial_can_be_reported(tmp_path):
    stored = store(tmp_path, seeds=0)
    text = report.write(stored, tmp_path / "out").with_name("report.md").read_text()
    assert "has no finished run yet" in text
    assert stored.finished.empty


def test_another_dataset_than_the_files_is_said_everywhere(stored):
    other = dataclasses.replace(stored, data={**stored.data, "name": "mnist-5k"})
    for section in contents.sections(other):
        for block in section.blocks:
            if isinstance(block, Table) and block.caption:
                assert "mnist-5k, not MNIST" in block.caption


def test_what_was_published_of_other_data_is_left_out(stored):
    other = dataclasses.replace(stored, data={**stored.data, "name": "mnist-5k"})
    overview = glance(contents.sections(other))
    assert not [column.key for column in overview.columns if "reported" in column.key]
    assert len(overview.rows) == len(stored.file.cells), "a row per network, not per figure"
    said = "What was published is of MNIST, so its numbers are left out."
    assert said in " ".join(contents.lead(other))
    assert said not in " ".join(contents.lead(stored))


def test_a_grid_of_the_users_own_needs_no_reported_figures(tmp_path):
    text = markdown(own(tmp_path), tmp_path)
    assert "reported" not in text.lower()
    assert "| wide | 1 × 80 |" in text


def test_a_falling_learning_rate_is_part_of_the_protocol(tmp_path):
    text = (
        '[base]\ndepth = 1\nwidth = 8\nactivation = "relu"\noptimizer = "adam"\nlr = 0.001\n'
        'schedule = "linear"\n[[cells]]\nname = "one"\n[[cells]]\nname = "two"\nlr = 0.01\n'
    )
    for cosine, said in (("", ", its learning rate falling linearly to 0."), ("x", "cell's sch")):
        name = f"mine{cosine}"
        (tmp_path / f"{name}.toml").write_text(text + ('schedule = "cosine"\n' if cosine else ""))
        stored = store(tmp_path, file=str(tmp_path / f"{name}.toml"), name=name)
        assert said in markdown(stored, tmp_path)
        assert set(stored.trials["schedule"]) == ({"linear", "cosine"} if cosine else {"linear"})


def test_hostile_titles_are_text_on_the_page(tmp_path):
    stored = own(tmp_path, raw={"title": "<script>alert(1)</script>", "text": "a|b *c* <img>"})
    index = report.write(stored, tmp_path / "out")
    assert "<script>alert" not in index.read_text()
    assert "<img>" not in index.with_name("report.md").read_text().replace("\\<img>", "")


def test_the_same_storage_gives_the_same_bytes(stored, reported, tmp_path):
    again = report.write(stored, tmp_path / "again").parent
    for path in reported.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(reported)).read_bytes()


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    stored = own(tmp_path)
    index = report.write(stored, tmp_path / "out")
    before = index.read_bytes()

    def full(study):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_provenance", full)
    with pytest.raises(OSError, match="No space"):
        report.write(stored, tmp_path / "out")
    assert index.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_provenance_is_json_with_seeds_and_data(reported):
    found = json.loads((reported / "provenance.json").read_text())
    assert found["split_seeds"] == [0, 1, 2]
    assert found["dataset"]["checksum"] == "0" * 64


def test_an_unknown_study_is_refused_with_those_that_there_are(stored, folder):
    storage = open_storage(f"sqlite:///{folder / 'hpo.db'}")
    with pytest.raises(InputError, match="not in the storage; there are: grid-report"):
        load_study(storage, "nothing")


def test_binding_names_every_hyperparameter_of_every_cell(stored):
    from tiny import tiny_dataset

    bound = binding(stored.file, tiny_dataset())
    assert bound["cells.deeper.depth"] == 6
    assert len([key for key in bound if key.startswith("cells.")]) == 8 * 10


def curves(value: float, collapsed: bool) -> figures.CellCurves:
    losses, accuracies = np.full((2, 3), value), np.full((2, 3), 50.0)
    values = {"train_loss": losses, "valid_loss": losses}
    values |= {"train_accuracy": accuracies, "valid_accuracy": accuracies}
    return figures.CellCurves(label="cell", collapsed=collapsed, values=values)


@pytest.mark.parametrize(
    ("value", "collapsed"), [(np.nan, True), (0.0, True), (1e30, True), (0.0, False), (1e30, False)]
)
def test_curves_of_any_value_can_be_drawn(value, collapsed):
    svg = figures.curves([curves(value, collapsed), curves(1.0, False)])
    assert ET.fromstring(svg).tag.endswith("svg")


@pytest.mark.parametrize(
    "label", ["x" * 100, "costs $5 or $6", "\\alpha_1 $\\foo$", "\x00\x1b\ud800"]
)
def test_a_label_of_any_form_can_be_drawn(label):
    row = figures.Dots(label=label, fails=False, values=[96.0, 97.0], reported=None)
    assert ET.fromstring(figures.overview([row], 30.0)).tag.endswith("svg")
    cell = dataclasses.replace(curves(1.0, False), label=label)
    assert ET.fromstring(figures.curves([cell])).tag.endswith("svg")


def test_a_stopped_study_says_how_much_of_it_is_done(tmp_path):
    stored = dataclasses.replace(store(tmp_path, seeds=1), seeds=10)
    text = " ".join(contents.lead(stored))
    assert "not finished: 8 of 80 trainings are done" in text


@pytest.mark.parametrize("values", [[], [10.0, 11.0], [96.0, 97.0], [10.0, 97.0]])
@pytest.mark.parametrize("fails", [True, False])
def test_an_overview_of_any_values_can_be_drawn(values, fails):
    rows = [
        figures.Dots(label="a", fails=fails, values=values, reported=95.0),
        figures.Dots(label="b", fails=False, values=[96.0], reported=11.0),
        figures.Dots(label="c", fails=False, values=[], reported=None),
    ]
    assert ET.fromstring(figures.overview(rows, 30.0)).tag.endswith("svg")


def test_a_cluster_of_several_processors_is_listed_with_a_warning(stored):
    def node(host: str, processor: str) -> dict[str, object]:
        return {"host": host, "hardware": {"processor": processor}}

    here = {"processor": "Zen", "cores": 2, "memory_gib": None}
    session = {
        "command": "hpo run grid-report --pool ray", "workers": 2, "device": "cpu", "seconds": 1.0,
        "hardware": here, "versions": {}, "git_commit": None,
        "machines": [node("a", "Zen"), node("b", "Zen")],
    }  # fmt: skip
    alike = dataclasses.replace(stored, sessions=[session])
    assert ["Nodes", "2 × Zen"] in protocol.run_table(alike).texts
    session = {**session, "machines": [*session["machines"], node("c", "Old")]}
    mixed = dataclasses.replace(stored, sessions=[session])
    text = "2 × Zen, 1 × Old; the last bits of a curve depend on the processor"
    assert ["Nodes", text] in protocol.run_table(mixed).texts


@pytest.fixture
def _forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of pytest's own do nothing here that a fork would miss."""
    if sys.platform != "linux":
        pytest.skip("pictures are drawn in forks on Linux only")
    monkeypatch.setattr("threading.active_count", lambda: 1)


@pytest.mark.usefixtures("_forks")
def test_pictures_are_drawn_in_other_processes_as_in_this_one(tmp_path: Path):
    sections = contents.sections(store(tmp_path))
    blocks = [block for section in sections for block in section.blocks]
    pictures = [block for block in blocks if isinstance(block, page.Picture)]
    assert len(pictures) > 5
    draw(pictures)
    assert all("svg" in picture.__dict__ for picture in pictures)
    assert [picture.svg for picture in pictures] == [picture.draw() for picture in pictures]


@pytest.mark.usefixtures("_forks")
def test_a_picture_whose_process_is_lost_is_drawn_here(tmp_path: Path):
    here = os.getpid()

    def lost() -> str:
        if os.getpid() != here:
            os._exit(9)
        return "<svg/>"

    pictures = [page.Picture(file=f"{n}.svg", draw=lost, alt="", caption="") for n in range(3)]
    draw(pictures)
    assert [picture.svg for picture in pictures] == ["<svg/>"] * 3


@pytest.mark.usefixtures("_forks")
def test_a_fault_of_a_figure_is_raised():
    def wrong() -> str:
        raise ValueError("no such colour")

    pictures = [page.Picture(file=f"{n}.svg", draw=wrong, alt="", caption="") for n in range(2)]
    with pytest.raises(ValueError, match="no such colour"):
        draw(pictures)


def test_cells_that_differ_in_epochs_batch_or_schedule_do_not_look_alike(tmp_path):
    cells = [
        {"name": "plain"},
        {"name": "long", "epochs": 4},
        {"name": "falling", "schedule": "cosine", "batch_size": 32},
    ]
    base = {"depth": 1, "width": 8, "activation": "relu", "optimizer": "sgd", "lr": 0.1}

    def further(**more: Any) -> list[str | None]:
        file = study_file.parse({"base": {**base, **more}, "cells": cells}, "x", "x.toml")
        assert isinstance(file, study_file.GridStudy)
        columns = setting_columns(file.cells, lambda cell: cell.config)
        return [columns[-1].value(cell) for cell in file.cells]

    assert further() == [None, "epochs 4", "batch size 32, schedule cosine"]
    cells[2]["epochs"] = 4
    assert further(epochs=4) == [None, None, "batch size 32, schedule cosine"]
