"""Grids whose networks predict a number: runs, claims, verdicts, reports."""

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from conftest import Ended
from own_runs import hpo_in, once
from test_regression import cars

from hpo.analysis import components, verdicts
from hpo.analysis.claims import claim_verdicts
from hpo.data.files import load
from hpo.results.load import load_study
from hpo.results.study import StoredGrid
from hpo.storage.open import open_storage
from hpo.study.file import studies_dir
from hpo.study.metrics import BY_NAME
from hpo.study.source import Source

DATASET = 'dataset = { file = "cars.csv", label = "price" }'
BASE = """
[base]
depth = 1
width = 16
activation = "relu"
optimizer = "adam"
lr = 0.02
batch_size = 16
epochs = 12
"""
STUDY = f"""
{DATASET}
seeds = 10
{BASE}
[[cells]]
name = "good"
[[cells.reported]]
label = "of the paper"
test_rmse = 444.0
[[cells]]
name = "short"
epochs = 3
[[cells]]
name = "slow"
lr = 1e-7
[[cells]]
name = "wild"
optimizer = "sgd"
lr = 1e4
[[claims]]
says = "The slow one fails."
fails = "slow"
[[claims]]
says = "The good one fails."
fails = "good"
[[claims]]
says = "The short one has the greater error."
greater = ["short", "good"]
metric = "test_rmse"
[[claims]]
says = "The good one has the greater error."
greater = ["good", "short"]
metric = "test_mae"
[[claims]]
says = "The good one explains more."
greater = ["good", "short"]
metric = "test_r2"
[[claims]]
says = "The wild one has the greater error."
greater = ["wild", "good"]
metric = "test_rmse"
by = "wins"
[[claims]]
says = "The error falls."
greater = ["good@1", "good@12"]
metric = "valid_rmse"
[[claims]]
says = "The best of two is below 1500."
greater = [1500, {{ best_of = {{ optimizer = "adam", epochs = 12 }} }}]
metric = "test_rmse"
[[claims]]
says = "They are alike."
similar = ["good", "short"]
metric = "test_rmse"
within = 0.1
"""
FACTORIAL = f"""
{DATASET}
objective = "valid_mae"
seeds = 3
{BASE.replace("epochs = 12", "epochs = 4")}
[grid]
width = [8, 16]
activation = ["relu", "tanh"]
"""
CROSSED = f"""
{DATASET}
objective = "valid_r2"
seeds = 16
{BASE.replace("epochs = 12", "epochs = 3")}
[[cells]]
name = "a"
crossed = true
[[cells]]
name = "b"
crossed = true
width = 8
"""


def made(name: str, factory: pytest.TempPathFactory, text: str) -> Ended:
    def prepare(place: Path) -> None:
        cars().to_csv(place / "cars.csv", index=False)
        (place / f"{name}.toml").write_text(text)

    found = once(factory, name, prepare)
    assert found.answer.code == 0, found.answer.err
    return found


@pytest.fixture
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return made("errors", tmp_path_factory, STUDY)


@pytest.fixture
def factorial(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return made("factorial", tmp_path_factory, FACTORIAL)


@pytest.fixture
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return made("crossed", tmp_path_factory, CROSSED)


def stored(ended: Ended, name: str) -> StoredGrid:
    found = load_study(open_storage(f"sqlite:///{ended.folder / 'hpo.db'}", create=False), name)
    assert isinstance(found, StoredGrid)
    return found


def trials(ended: Ended, name: str = "errors") -> pd.DataFrame:
    return pd.read_csv(ended.folder / f"reports/{name}/trials.csv").set_index(["cell", "seed"])


def page(ended: Ended, name: str = "errors") -> str:
    return (ended.folder / f"reports/{name}/report.md").read_text("utf-8")


# --- results -----------------------------------------------------------------------------------


def test_errors_are_stored_in_the_labels_unit(ended: Ended):
    study, rows = stored(ended, "errors"), trials(ended)
    deviation = study.schema.deviation
    for part in ("valid", "test"):
        wanted = deviation * np.sqrt(rows[f"{part}_loss"])
        found = rows[f"{part}_rmse"]
        sound = ~rows["diverged"]
        assert found[sound].to_numpy() == pytest.approx(wanted[sound].to_numpy(), rel=1e-5)
    assert rows[["valid_accuracy", "test_accuracy"]].isna().all().all()
    assert 300 < rows.loc["good"]["test_rmse"].mean() < 1500
    assert 0.5 < rows.loc["good"]["test_r2"].mean() < 1
    curves = pd.read_csv(ended.folder / "reports/errors/curves.csv")
    assert curves[["valid_rmse", "valid_mae", "valid_r2"]].notna().any().all()


def test_a_run_fails_that_is_hardly_better_than_a_guess(ended: Ended):
    study, rows = stored(ended, "errors"), trials(ended)
    data = load(Source(str(ended.folder / "cars.csv"), label="price"))
    errors = data.schema.in_unit(data.test_labels) - data.schema.in_unit(data.train_labels).mean()
    line = np.sqrt((errors**2).mean()) * (1 - 1 / 20)
    assert study.line == pytest.approx(line, abs=1e-3)
    for cell in study.file.cells:
        wanted = (rows.loc[cell.name]["test_rmse"] > line) | rows.loc[cell.name]["diverged"]
        assert study.failing(cell).to_list() == wanted.to_list()
    failing = {cell.name: int(study.failing(cell).sum()) for cell in study.file.cells}
    assert failing == {"good": 0, "short": 0, "slow": 10, "wild": 10}


# --- claims ------------------------------------------------------------------------------------


def test_claims_are_judged_in_the_direction_of_the_metric_itself(ended: Ended):
    found = {of.claim.says: of.verdict.value for of in claim_verdicts(stored(ended, "errors"))}
    assert found == {
        "The slow one fails.": "holds",
        "The good one fails.": "refuted",
        "The short one has the greater error.": "holds",
        "The good one has the greater error.": "refuted",
        "The good one explains more.": "holds",
        "The wild one has the greater error.": "holds",
        "The error falls.": "holds",
        "The best of two is below 1500.": "holds",
        "They are alike.": "refuted",
    }


def test_errors_are_compared_as_ratios_and_r2_by_differences(ended: Ended):
    written = json.loads((ended.folder / "reports/errors/verdicts.json").read_text("utf-8"))
    rows, study = trials(ended), stored(ended, "errors")
    learning = ~study.failing(study.cell("short"))
    good, short = (rows.loc[name][learning] for name in ("good", "short"))
    parts = {of["says"]: of["parts"][0] for of in written["conclusions"]}
    rmse = parts["The short one has the greater error."]
    ratios = np.log(short["test_rmse"] / good["test_rmse"])
    assert rmse["logs"]
    assert rmse["effect"] == pytest.approx(ratios.mean(), rel=1e-9)
    r2 = parts["The good one explains more."]
    assert not r2["logs"]
    assert r2["effect"] == pytest.approx((good["test_r2"] - short["test_r2"]).mean(), rel=1e-9)
    curves = pd.read_csv(ended.folder / "reports/errors/curves.csv")
    curves = curves[curves["cell"] == "good"].pivot(
        index="seed", columns="epoch", values="valid_rmse"
    )
    falls = parts["The error falls."]
    assert falls["effect"] == pytest.approx(np.log(curves[1] / curves[12]).mean(), rel=1e-9)
    assert parts["The slow one fails."]["margin"] == pytest.approx(study.line)
    assert all(part["interval_seeds_and_images"] is None for part in parts.values())


def test_verdicts_hold_no_error_in_the_place_of_an_accuracy(ended: Ended):
    written = json.loads((ended.folder / "reports/errors/verdicts.json").read_text("utf-8"))
    jsonschema.validate(written, json.loads((studies_dir() / verdicts.FILE).read_text("utf-8")))
    assert written["largest_class"] is None
    study, rows = stored(ended, "errors"), trials(ended)
    assert written["guess"] == pytest.approx(BY_NAME["test_rmse"].guess(study.data))
    for network in written["networks"]:
        assert network["test_accuracy"] is None
        assert network["interval_seeds"] == network["one_more_run"] == [None, None]
        assert network["interval_seeds_and_images"] == [None, None]
        assert network["result"]["metric"] == "test_rmse"
    good, wild = written["networks"][0], written["networks"][3]
    result, values = good["result"], rows.loc["good"]["test_rmse"]
    assert result["mean"] == pytest.approx(values.mean())
    half = 2.2621571628 * values.std() / np.sqrt(10)
    wanted = [values.mean() - half, values.mean() + half]
    assert result["interval_seeds"] == pytest.approx(wanted, rel=1e-6)
    assert (result["reported"], good["reported"]) == ([444.0], [])
    assert (wild["failures"], wild["result"]["mean"]) == (10, None)


REFUSED = {
    'greater = ["good", "short"]': r'give metric = "test_rmse" \(the greater, the worse\)',
    'greater = ["good", "short"]\nmetric = "gap"': "gap is of classes, and the labels are numbers",
    'fails = "good"\nbelow = 0.3': "below is of classes, and the labels are numbers; leave it out",
    'fails = "good"\nbelow = "guess"': "below is of classes",
}


@pytest.mark.parametrize("claim", REFUSED)
def test_claims_of_classes_are_refused_in_a_line(claim: str, forked_hpo, tmp_path: Path):
    cars().to_csv(tmp_path / "cars.csv", index=False)
    text = STUDY.partition("[[claims]]")[0] + f'[[claims]]\nsays = "This one."\n{claim}\n'
    (tmp_path / "errors.toml").write_text(text)
    answer = forked_hpo("run", "errors.toml")
    assert (answer.code, len(answer.err.strip().splitlines())) == (2, 1), answer.err
    assert "claim 'This one.': " in answer.err
    assert re.search(REFUSED[claim], answer.err), answer.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STUDY.replace('"price"', '"maker"'), 'test_rmse is of numbers, .*; give metric = "test_a'),
        (STUDY.replace('"price"', '"maker"'), r"cells\.good\.reported: test_rmse is of numbers"),
        (
            STUDY.replace("test_rmse = 444.0", "test_accuracy = 0.9"),
            r"cells\.good\.reported: test_accuracy is of classes, .*; give test_rmse, test_mae",
        ),
        (
            f'{STUDY}\n[[experiments]]\ntitle = "One"\ncells = ["good"]\ncolumns = '
            '["test_accuracy"]\n',
            "experiments, 'One': test_accuracy is of classes",
        ),
    ],
)
def test_what_does_not_go_with_the_labels_is_refused(
    text: str, said: str, forked_hpo, tmp_path: Path
):
    cars().to_csv(tmp_path / "cars.csv", index=False)
    (tmp_path / "errors.toml").write_text(text)
    answer = forked_hpo("run", "errors.toml")
    assert answer.code == 2
    assert re.search(said, answer.err), answer.err


# --- reports -----------------------------------------------------------------------------------


def check_words(folder: Path, *words: str) -> None:
    """No file of the report says one of these words, but for its tables for programs."""
    texts = {path: path.read_text("utf-8") for path in folder.rglob("*.svg")}
    texts |= {path: path.read_text("utf-8") for path in folder.glob("report.md")}
    texts[folder / "index.html"] = re.sub(
        r"<(script|style)\b.*?</\1>|<svg.*?</svg>", "", (folder / "index.html").read_text("utf-8"),
        flags=re.DOTALL,
    )  # fmt: skip
    for path, text in texts.items():
        for word in words:
            assert not (found := re.search(f".*{word}.*", text)), (path.name, found[0][:300])


OF_CLASSES = ("ccurac", "lassif", "ross entropy", r"\bnan\b", "largest class", "points")


@pytest.mark.parametrize("name", ["errors", "factorial", "crossed"])
def test_a_report_says_nothing_of_classes(name: str, request: pytest.FixtureRequest):
    asked = {"errors": "ended"}.get(name, name)
    ended = request.getfixturevalue(asked)
    check_words(ended.folder / "reports" / name, *OF_CLASSES)
    assert "ccuracy" not in ended.answer.out


def test_the_report_names_the_errors_and_the_guess(ended: Ended):
    text, study, rows = page(ended), stored(ended, "errors"), trials(ended)
    guess = study.result.spelled(study.result.gain(study.result.guess(study.data)))
    assert f"a guess, always the training rows' mean, gets test RMSE {guess}." in text
    good = rows.loc["good"]["test_rmse"]
    digits = study.result.digits
    assert f"{good.mean():.{digits}f} ± {good.std():.{digits}f}" in text
    assert "444" in text
    assert "How exact the results are" in text
    assert f"fails to learn (test RMSE above {study.line:.{digits}f}) with 10 of 10 seeds" in text
    for figure in ("overview", "importance", "curves-0"):
        assert (ended.folder / f"reports/errors/figures/{figure}.svg").exists()


def test_a_korean_page_and_the_terminal_say_it_too(ended: Ended, tmp_path: Path):
    database = f"sqlite:///{ended.folder / 'hpo.db'}"
    out = str(tmp_path / "ko")
    told = hpo_in(tmp_path, "report", "errors", "--storage", database, "--out", out, "--lang", "ko")
    assert told.code == 0, told.err
    text = (tmp_path / "ko/errors/report.md").read_text("utf-8")
    assert "테스트 RMSE" in text
    check_words(tmp_path / "ko/errors", "정확도", "교차 엔트로피", r"\bnan\b")
    shown = hpo_in(tmp_path, "show", "errors", "--storage", database)
    assert shown.code == 0, shown.err
    assert "test RMSE" in shown.out
    assert "ccurac" not in shown.out


def test_a_factorial_shows_main_effects_in_the_objectives_metric(factorial: Ended):
    text, study = page(factorial, "factorial"), stored(factorial, "factorial")
    assert study.result.name == "test_mae"
    assert "Do hyperparameters interact?" in text
    assert "Variance between the mean test MAE of the 4 networks" in text
    assert "the training rows' median, gets test MAE" in text
    means = trials(factorial, "factorial")["test_mae"].groupby("cell").mean()
    assert means.idxmin() in text


def test_sources_of_the_spread_are_those_of_the_results(crossed: Ended):
    text, rows = page(crossed, "crossed"), trials(crossed, "crossed")
    assert "Shares of the variance of test R² between runs" in text
    assert "Test rows (few)" not in text
    assert "All, sd of test R²" in text
    assert rows["test_r2"].notna().all()


def test_the_spread_of_means_is_that_of_their_images():
    bits = np.random.default_rng(0).random((5, 2, 2, 2, 40)) < 0.7
    ours, whole = components.crossed(bits.mean(axis=-1, keepdims=True)), components.crossed(bits)
    assert ours.std == pytest.approx(whole.std)
    assert sum(part.share for part in ours.components) == pytest.approx(1)
    assert components.IMAGES not in [part.effect for part in ours.components]


def test_two_grids_are_compared_by_their_errors(ended: Ended, tmp_path: Path):
    cars().to_csv(tmp_path / "cars.csv", index=False)
    (tmp_path / "other.toml").write_text(STUDY.partition("[[claims]]")[0].replace("10", "3", 1))
    database = f"sqlite:///{tmp_path / 'hpo.db'}"
    (tmp_path / "hpo.db").write_bytes((ended.folder / "hpo.db").read_bytes())
    assert hpo_in(tmp_path, "run", "other.toml", "--storage", database).code == 0
    answer = hpo_in(tmp_path, "compare", "errors", "other", "--storage", database)
    assert answer.code == 0, answer.err
    assert "Validation RMSE on" in answer.out
    exported = hpo_in(tmp_path, "export", "errors", "--to", "parquet", "--storage", database)
    assert exported.code == 0, exported.err
