"""hpo.Classifier is an estimator of scikit-learn, and a search as `hpo run` makes it."""

import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forked import command
from in_process import InProcessPool
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

import hpo
from hpo.data import datasets, inputs
from hpo.errors import InputError
from hpo.model import weights
from hpo.results.load import load_study
from hpo.scikit import fit
from hpo.study.finalists import name_of

QUICK: dict[str, Any] = {
    "trials": 2,
    "workers": 1,
    "device": "cpu",
    "random_state": 0,
    "space": {"depth": 1, "width": 32, "activation": "relu", "optimizer": "adam",
              "lr": [0.01, 0.02], "epochs": 20, "batch_size": 16},
    "settings": {"search": {"seeds_per_trial": 1}, "finalists": {"k": 1, "seeds": 2}},
}  # fmt: skip
X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
ROOT = Path(__file__).parent.parent


@pytest.fixture
def quick(monkeypatch):
    """Makes a quick classifier that trains in this process."""
    monkeypatch.setattr("hpo.workers.pool.LocalPool", InProcessPool)
    monkeypatch.setattr("hpo.workers.server.preload", lambda: None)
    return lambda **changes: hpo.Classifier(**{**QUICK, **changes})


def people(n: int = 120) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows with numbers, gaps, text and dates."""
    rng = np.random.default_rng(0)
    age, city = rng.normal(40, 10, n).round(1), rng.choice(["Ulm", "Bonn", "Köln"], n)
    frame = pd.DataFrame({"age": age, "city": city, "since": pd.Timestamp("2020-01-31")})
    frame["since"] += pd.to_timedelta(rng.integers(0, 900, n), "D")
    target = np.where((age > 40) ^ (city == "Ulm"), "yes", "no")
    frame.loc[::7, "age"] = np.nan
    frame.loc[3, "city"] = None
    return frame, target


# --- as scikit-learn has it ----------------------------------------------------------------------


# A network computes in single precision, whose last digit depends on how many rows it gets at once.
ROUNDED = {"check_methods_subset_invariance": "rows are alike to six digits, not to seven"}


@pytest.mark.parametrize(("kind", "expected"), [(hpo.Classifier, {}), (hpo.Regressor, ROUNDED)])
def test_it_is_an_estimator_by_scikit_learns_checks(quick, kind, expected):
    space = {**QUICK["space"], "lr": [0.03, 0.031], "epochs": 12}
    once = {"trials": 1, "space": space, "settings": {**QUICK["settings"]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rare classes, and of the checks themselves
        estimator = kind(**{**QUICK, **once})
        found = check_estimator(
            estimator, expected_failed_checks=expected, on_skip=None, on_fail=None
        )
    wrong = {c["check_name"]: c["exception"] for c in found if c["status"] == "failed"}
    assert not wrong
    assert {c["check_name"] for c in found if c["status"] == "xfail"} <= {*expected}
    assert len(found) > 50


def test_columns_whose_names_are_no_texts_have_to_come_in_the_same_order(quick):
    frame = pd.DataFrame(X)
    fitted = quick().fit(frame, Y)
    assert (fitted.predict(frame) == fitted.predict(X)).all()
    with pytest.raises(InputError, match=r"X: its columns were \[0, 1, 2, 3\] in fit, and are"):
        fitted.predict(frame[[1, 0, 2, 3]])
    with pytest.raises(InputError, match="X: has two columns of one name"):
        quick().fit(pd.DataFrame(X, columns=["a", "a", "b", "c"]), Y)


def test_it_works_in_a_pipeline_in_cross_validation_and_in_a_grid_search(quick):
    pipeline = make_pipeline(MinMaxScaler(), quick())
    assert cross_val_score(pipeline, X, NAMES[Y], cv=3).mean() > 0.85
    grid = GridSearchCV(quick(), {"trials": [1, 2]}, cv=2).fit(X, Y)
    assert grid.best_estimator_.n_trials_ == grid.best_params_["trials"]


def test_a_clone_has_the_parameters_and_nothing_else(quick):
    fitted = quick().fit(X, Y)
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not [name for name in vars(copied) if name.endswith("_")]


def test_what_it_knows_after_fit(quick):
    fitted = quick(objective="valid_loss").fit(X, NAMES[Y])
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert fitted.n_features_in_ == 4
    assert not hasattr(fitted, "feature_names_in_")
    assert fitted.n_trials_ == 2
    assert fitted.best_config_["lr"] in (0.01, 0.02)
    assert fitted.best_config_["width"] == 32
    known = fitted.validation_
    assert (known["metric"], known["n"]) == ("valid_loss", 2)
    assert 0 <= known["interval"][0] < known["mean"] < known["interval"][1]
    assert set(fitted.predict(X)) == set(NAMES)
    assert fitted.score(X, NAMES[Y]) > 0.85


def test_the_same_random_state_gives_the_same_network_and_another_one_another(quick):
    first, again, other = (quick(random_state=seed).fit(X, Y) for seed in (3, 3, 4))
    assert (first.predict_proba(X) == again.predict_proba(X)).all()
    assert (first.predict_proba(X) != other.predict_proba(X)).any()


def test_it_is_pickled_after_fit(quick):
    fitted = quick().fit(*people())
    copied = pickle.loads(pickle.dumps(fitted))
    assert (copied.predict_proba(people()[0]) == fitted.predict_proba(people()[0])).all()


# --- as hpo has it -------------------------------------------------------------------------------


def test_no_row_is_held_out_and_the_winner_is_trained_on_all(quick, monkeypatch):
    seen, searched = [], fit.search

    def spied(file, rows, options, **more):
        seen.append((rows, searched(file, rows, options, **more)))
        return seen[-1][1]

    monkeypatch.setattr(fit, "search", spied)
    quick(ensemble=True).fit(X, Y)
    [(rows, found)] = seen
    assert (len(rows.train_labels), len(rows.test_labels)) == (150, 0)
    assert np.array_equal(rows.train_labels, Y)
    assert np.allclose(rows.train_images, (X - X.mean(0)) / X.std(0), atol=1e-5)
    assert (found.search.data["train"], found.search.data["valid"]) == (120, 30)
    train, valid = datasets.split(rows, 5)
    assert sorted([*train, *valid]) == list(range(150))
    assert found.search.tested.finished["test_accuracy"].isna().all()
    assert len(found.saved.networks) == 8, "members of the template"


def test_validation_is_that_of_the_finalists_on_seeds_that_no_trial_had(quick, monkeypatch):
    kept = []
    monkeypatch.setattr(
        fit, "load_study", lambda storage, name: kept.append(storage) or load_study(storage, name)
    )
    fitted = quick(settings={"finalists": {"k": 1, "seeds": 3}}).fit(X, Y)
    search, tested = (load_study(kept[0], name) for name in ("classifier", name_of("classifier")))
    first = search.file.first_seed
    assert first == search.sampler_seed > 0
    assert list(search.file.search_seeds) == list(range(first, first + 5)), "of the template"
    assert tested.finished["seed"].tolist() == [first + 5, first + 6, first + 7]
    assert fitted.validation_["mean"] == pytest.approx(tested.finished["valid_accuracy"].mean())


@pytest.mark.parametrize("folds", [3, 4])
def test_folds_replace_the_templates_seeds_per_trial(quick, monkeypatch, folds):
    seen, searched = [], fit.search

    def spied(*given, **more):
        seen.append(searched(*given, **more))
        return seen[-1]

    monkeypatch.setattr(fit, "search", spied)
    quick(settings={"search": {"folds": folds}, "finalists": {"k": 1, "seeds": 2}}).fit(X, Y)
    [found] = seen
    assert (found.search.file.folds, found.search.file.seeds_per_trial) == (folds, folds)
    values = [trial.user_attrs["valid_by_seed"] for trial in found.search.frozen]
    assert {len(each) for each in values} == {folds}
    size = len(X) // folds
    assert all(v * size == pytest.approx(round(v * size)) for each in values for v in each)


def test_a_report_says_what_tuning_gained_without_a_test_part(quick, tmp_path):
    settings = {"scale": "quantile", "finalists": {"k": 1, "seeds": 3}}
    quick(out=tmp_path, settings=settings).fit(X, Y)
    report = (tmp_path / "classifier" / "report.md").read_text()
    assert "has no finished training" not in report
    assert re.search(r"[Tt]uning gained", report)
    saved = weights.load(tmp_path / "classifier" / "best")
    assert saved.description.schema.scale == "quantile", "which the settings ask for"


@pytest.mark.parametrize("ensemble", [False, True])
def test_it_answers_as_hpo_predict_does_to_the_bit(quick, tmp_path, ensemble):
    frame, target = people()
    fitted = quick(out=tmp_path, ensemble=ensemble).fit(frame, target)
    frame.assign(y=target).to_csv(tmp_path / "new.csv", index=False)
    best = tmp_path / "classifier" / "best"
    saved = weights.load(best, ensemble=ensemble)
    rows = inputs.read([tmp_path / "new.csv"], saved.description.schema).rows
    assert (saved.answers(rows) == fitted.predict_proba(frame)).all()
    answer = command(["predict", str(best), "new.csv", *["--ensemble"] * ensemble], tmp_path, 60)
    assert [line.split("\t")[1] for line in answer.out.splitlines()] == [*fitted.predict(frame)]
    right = int((fitted.predict(frame) == target).sum())
    assert f"({right} of {len(target)} labels)" in answer.err


def test_an_array_is_answered_as_hpo_predict_answers_an_npz(quick, tmp_path):
    fitted = quick(out=tmp_path).fit(X, NAMES[Y])
    np.savez(tmp_path / "new.npz", x=X, y=NAMES[Y])
    saved = weights.load(tmp_path / "classifier" / "best")
    given = inputs.read([tmp_path / "new.npz"], saved.description.schema)
    assert (saved.answers(given.rows) == fitted.predict_proba(X)).all()
    assert np.array_equal(given.labels, Y)


def test_out_has_a_report_that_claims_no_test(quick, tmp_path, capsys):
    quick(out=tmp_path, ensemble=True).fit(*people())
    text = (tmp_path / "classifier" / "report.md").read_text("utf-8")
    assert "it is not tested" in text
    assert "no rows were given to test on" in text
    assert not re.search(r"\bnan\b", text.lower())
    assert capsys.readouterr().out == ""
    tables = pd.read_csv(tmp_path / "classifier" / "finalists.csv")
    assert tables["test_accuracy"].isna().all()
    assert tables["valid_accuracy"].notna().all()


def test_a_frame_of_numbers_gives_what_an_array_gives(quick):
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    by_name, by_place = quick().fit(frame, Y), quick().fit(X, Y)
    assert by_name.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert (by_name.predict_proba(frame) == by_place.predict_proba(X)).all()
    with pytest.warns(UserWarning, match="valid feature names"):
        assert (by_name.predict_proba(X) == by_place.predict_proba(X)).all()


@pytest.mark.parametrize("names", [["10", "9", "x"], ["?", "", "nan"], [True, False], [3, -1]])
def test_classes_are_what_the_user_calls_them(quick, names):
    target = np.array(names)[Y % len(names)]
    fitted = quick().fit(X, target)
    assert fitted.classes_.tolist() == sorted(names)
    assert fitted.score(X, target) > 0.6
    assert fitted.predict(X).dtype == target.dtype


def test_class_weights_go_by_the_users_classes(quick):
    rare = np.concatenate([np.arange(100), np.arange(100, 110)])
    target = np.where(Y[rare] == 2, 7, -3)
    shares = [
        quick(class_weight={7: weight, -3: 1}).fit(X[rare], target).predict_proba(X)[:, 1].mean()
        for weight in (0.01, 1, 100)
    ]
    assert shares[0] + 0.05 < shares[1] < shares[2] - 0.05
    floats = quick(class_weight={7: 100, -3: 1}).fit(X[rare], target.astype(float))
    assert floats.predict_proba(X)[:, 1].mean() == shares[2], "0 is 0.0, as to scikit-learn"
    with pytest.raises(InputError, match="class_weight: '8' is no class of the data"):
        quick(class_weight={8: 2}).fit(X[rare], target)


# --- numbers --------------------------------------------------------------------------------------


def numbers() -> tuple[pd.DataFrame, np.ndarray]:
    frame, _ = people()
    bonus = 100 * (frame["city"] == "Ulm") + np.random.default_rng(1).normal(0, 5, len(frame))
    return frame, (7 * frame["age"].fillna(40) + bonus + 1000).to_numpy()


def test_a_regressor_answers_in_the_targets_unit_as_hpo_predict_does(quick, tmp_path):
    frame, target = numbers()
    fitted = hpo.Regressor(**QUICK, out=tmp_path).fit(frame, target)
    known = fitted.validation_
    assert known["metric"] == "valid_rmse"
    assert known["interval"][0] < known["mean"] < known["interval"][1]
    assert known["mean"] < 0.7 * target.std(), "better than the mean"
    assert fitted.score(frame, target) > 0.5, "R2, by scikit-learn"
    frame.to_csv(tmp_path / "new.csv", index=False)
    saved = weights.load(tmp_path / "regressor" / "best")
    rows = inputs.read([tmp_path / "new.csv"], saved.description.schema).rows
    assert (saved.answers(rows)[:, 0] == fitted.predict(frame)).all()
    report = (tmp_path / "regressor" / "report.md").read_text("utf-8")
    assert "it is not tested; a guess, always the training rows' mean" in report


def test_a_regressor_learns_numbers_whatever_they_look_like(quick):
    assert cross_val_score(hpo.Regressor(**QUICK), X[:, :3], X[:, 3], cv=3).shape == (3,)
    assert hpo.Regressor(**QUICK).fit(X, Y).predict(X).dtype == np.float64, "0, 1 and 2, too"
    mae = hpo.Regressor(**QUICK, objective="valid_mae").fit(X, 3 * Y)
    assert mae.validation_["metric"] == "valid_mae"
    for wrong, line in ((NAMES[Y], "y: must be numbers"), (np.ones(150), "has the label 1")):
        with pytest.raises(InputError, match=line) as error:
            hpo.Regressor(**QUICK).fit(X, wrong)
        told(error)
    with pytest.raises(InputError, match="valid_accuracy"):
        hpo.Regressor(**QUICK, objective="valid_accuracy").fit(X, 3.5 * Y)


# --- what is wrong is one line -------------------------------------------------------------------


def told(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


WRONG = [
    ({}, X, np.zeros(150), "y: has one class"),
    ({}, np.where(X[7, 2] == X, np.nan, X), Y, "X: contains NaN in row"),
    ({}, np.where(X[7, 2] == X, np.inf, X), Y, "X: contains infinity in row"),
    ({}, X, np.where(Y == 1, np.nan, Y), "y: contains NaN in row 50"),
    ({}, X, np.where(NAMES[Y] == "setosa", None, NAMES[Y]), "y: contains NaN in row 0"),
    ({}, X, X[:, 0], "Unknown label type: continuous"),
    ({}, X, Y[:-1], "inconsistent numbers of samples"),
    ({}, X[:4], Y[48:52], "X: has 4 sample(s), and 5 are needed"),
    ({"trials": 0}, X, Y, "--trials: must be a whole number"),
    ({"timeout": -1}, X, Y, "--timeout: must be a number"),
    ({"space": 3}, X, Y, "hpo.Classifier: space: must be a dictionary"),
    ({"objective": "accuracy"}, X, Y, "hpo.Classifier: objective: must be one of"),
    ({"objective": "valid_auc"}, X, Y, "objective: valid_auc needs two classes"),
    ({"settings": {"search": {"folds": 80}}}, X, Y, "search.folds = 80 needs 160 or more"),
    ({"settings": {"search": {"folds": 1}}}, X, Y, "folds: must be a whole number from 2 to 100"),
    ({"settings": {"search": {"folds": 3, "seeds_per_trial": 2}}}, X, Y, "leave out seeds_per_tri"),
    ({"settings": {"serch": {}}}, X, Y, "hpo.Classifier: serch"),
    ({"settings": {"dataset": {"file": "./X", "group": "a"}}}, X, Y, "leave out 'dataset'"),
    ({"settings": {"task": "regression"}}, X, Y, "settings: leave out 'task'"),
    (
        {},
        pd.DataFrame(X, columns=[["a", "a", "b", "b"], list("wxyz")]),
        Y,
        "names of several levels",
    ),
]


@pytest.mark.parametrize(("changes", "x", "y", "line"), WRONG)
def test_bad_input_is_one_line(quick, changes, x, y, line):
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        quick(**changes).fit(x, y)
    told(error)


def test_rows_of_another_kind_are_refused_at_predict(quick):
    frame, target = people()
    by_place, by_name = quick().fit(X, Y), quick().fit(frame, target)
    with pytest.raises(ValueError, match="X has 3 features, but Classifier is expecting 4"):
        by_place.predict(X[:, :3])
    with pytest.raises(ValueError, match="feature names"):
        by_name.predict(frame.rename(columns={"age": "years"}))
    with pytest.raises(InputError, match="X: column 'age' has 'old' in row 0, no number") as error:
        by_name.predict(frame.assign(age="old"))
    told(error)


def test_values_far_outside_the_trained_range_and_left_out_columns_are_said(quick):
    frame, target = people()
    with pytest.warns(UserWarning, match="X: left out, because they number the rows: 'id'"):
        fitted = quick().fit(frame.assign(id=range(len(frame))), target)
    far = frame.assign(id=0, age=1e6)
    with pytest.warns(UserWarning, match="far outside the trained range"):
        fitted.predict(far)


def test_a_rare_class_is_learned_and_said(quick):
    target = np.where(np.arange(150) < 2, 9, Y)
    with pytest.warns(UserWarning, match="too few rows to validate on: 9;"):
        assert quick().fit(X, target).classes_.tolist() == [0, 1, 2, 9]


def test_no_time_is_no_winner_in_one_line(quick):
    with pytest.raises(InputError, match="no trial has finished within timeout = 0 s") as error:
        quick(timeout=0).fit(X, Y)
    told(error)


def test_failed_trainings_are_named(quick, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr("hpo.workers.worker.train", broken)
    with pytest.raises(InputError, match=r"no trial has finished .*no memory left") as error:
        quick().fit(X, Y)
    told(error)


# --- with workers ---------------------------------------------------------------------------------

SCRIPT = """
import os, threading
from sklearn.datasets import load_iris
import hpo

made = []
def fit():
    made.append(hpo.Classifier(**{quick!r}).fit(*load_iris(return_X_y=True)))
fit()
thread = threading.Thread(target=fit)
thread.start()
thread.join()
first, second = (each.predict_proba(load_iris().data) for each in made)
print((first == second).all(), os.listdir("."), os.listdir(os.environ["TMPDIR"]))
"""


def test_a_script_without_a_main_guard_fits_also_in_a_thread_and_leaves_no_file(
    tmp_path,
):
    """In processes of their own, as everywhere outside these tests."""
    (tmp_path / "work").mkdir()
    scratch = tmp_path / "t"
    scratch.mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("{quick!r}", repr(QUICK)))
    ended = subprocess.run(
        [sys.executable, script], cwd=tmp_path / "work", capture_output=True, text=True,
        timeout=200, env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    said, left = ended.stdout.split(" [] ")
    assert said == "True"
    assert not [name for name in eval(left) if name.startswith("hpo-")]
    assert ended.stderr == ""


@pytest.mark.slow
def test_it_fits_in_the_processes_of_joblib():
    grid = GridSearchCV(hpo.Classifier(**QUICK), {"trials": [1]}, cv=2, n_jobs=2)
    assert grid.fit(X, Y).best_score_ > 0.8


def test_without_scikit_learn_it_says_so(tmp_path):
    program = (
        "import sys; sys.modules['sklearn.base'] = None\n"
        "import hpo\n"
        "try: hpo.Classifier\n"
        "except hpo.errors.InputError as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.startswith(
        "hpo.Classifier, hpo.Regressor: needs scikit-learn 1.6 or newer"
    ), ended.stderr


def test_the_readmes_example_runs(quick):
    [example] = re.findall(
        r"```python\n([^`]*hpo\.Classifier[^`]*)```", ROOT.joinpath("README.md").read_text("utf-8")
    )
    names: dict[str, Any] = {}
    exec(example.replace("trials=30", "trials=2, device='cpu'"), names)
    assert names["scores"].mean() > 0.9
