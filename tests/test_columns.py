"""Columns of text, with gaps, of dates: what a network is fed of them, by scikit-learn, in files to
predict and in exports; and what is refused."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from own_runs import study
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, RobustScaler, StandardScaler
from torch import nn

from hpo.data import datasets as data
from hpo.data import files, inputs
from hpo.data.fit import QUANTILES
from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.export import winner
from hpo.model.weights import Normalized
from hpo.study import file as study_file
from hpo.study.source import Source

ROWS = 400
NUMBERS, TEXTS = ["size", "weight"], ["colour", "town"]


def animals(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Two columns of numbers, one with gaps; a category of 3 levels and gaps, one of 30; labels."""
    rng = np.random.default_rng(seed)
    towns = np.array([f"town {i}" for i in range(30)])
    frame = pd.DataFrame({
        "size": rng.normal(10, 3, rows).round(3),
        "weight": rng.lognormal(0, 2, rows).round(3),
        "colour": rng.choice(["red", "green", "blue"], rows),
        "town": towns[np.minimum(rng.geometric(0.2, rows) - 1, 29)],
        "kind": np.where(np.arange(rows) % 2, "cat", "dog"),
    })  # fmt: skip
    frame.loc[rng.choice(rows, rows // 10, replace=False), "weight"] = np.nan
    frame.loc[rng.choice(rows, rows // 13, replace=False), "colour"] = np.nan
    return frame


def csv(frame: pd.DataFrame, path: Path, **how) -> Path:
    frame.to_csv(path, **{"index": False, **how})
    return path


def read(path: Path, label: str | int = "kind", **more) -> data.Dataset:
    loaded = files.load(Source(str(path), label=label, **more))
    data.check(loaded)
    return loaded


def refused(path: Path, label: str | int = "kind", **more) -> str:
    with pytest.raises(InputError) as caught:
        read(path, label, **more)
    [line] = str(caught.value).splitlines()
    return line


def of_text(tmp_path: Path, text: str) -> Path:
    (tmp_path / "a.csv").write_text(text)
    return tmp_path / "a.csv"


def column(values: Sequence[object]) -> str:
    """A file of a column x and a label in turns."""
    return "\n".join(["x,more,kind", *(f"{v},{i},{'ab'[i % 2]}" for i, v in enumerate(values))])


# --- what a network is fed -----------------------------------------------------------------------


def by_sklearn(train: pd.DataFrame, rows: pd.DataFrame, scale: str) -> np.ndarray:
    """Rows as scikit-learn makes them, by the training rows: numbers, gaps, levels."""
    scalers = {
        "standard": StandardScaler(),
        "robust": RobustScaler(),
        "quantile": QuantileTransformer(
            n_quantiles=min(QUANTILES, len(train)), output_distribution="normal", subsample=None
        ),
    }
    filled = rows[NUMBERS].fillna(train[NUMBERS].median())
    numbers = scalers[scale].fit(train[NUMBERS].to_numpy()).transform(filled.to_numpy())
    if scale == "robust":
        numbers = numbers / np.sqrt(1 + (numbers / 3) ** 2)
    gaps = MissingIndicator().fit(train[NUMBERS]).transform(rows[NUMBERS])
    few, many = (OneHotEncoder(sparse_output=False, handle_unknown="ignore") for _ in range(2))
    many.set_params(handle_unknown="infrequent_if_exist", min_frequency=0.01)
    levels = ColumnTransformer([("few", few, ["colour"]), ("many", many, ["town"])])
    levels.fit(train[TEXTS].fillna(""))
    return np.hstack([numbers, gaps, levels.transform(rows[TEXTS].fillna(""))])


@pytest.mark.parametrize("scale", ["standard", "robust", "quantile"])
def test_a_network_is_fed_what_scikit_learn_makes(tmp_path: Path, scale: str):
    frame, other = animals(), animals(60, seed=1)
    other.loc[:3, ["colour", "town"]] = "never seen"
    test = csv(other, tmp_path / "test.csv")
    loaded = read(csv(frame, tmp_path / "a.csv"), test=str(test), scale=scale)
    for fed, rows in ((loaded.train_images, frame), (loaded.test_images, other)):
        np.testing.assert_allclose(fed, by_sklearn(frame, rows, scale), atol=2e-6)
    assert loaded.schema.gaps == ("weight",)
    assert loaded.schema.merged == ("town",)
    assert not loaded.test_images[:4, 3:7].any(), "a level that training lacks is no other"
    assert loaded.test_images[:4, -1].all(), "or stands with the rare ones"


def test_rows_that_are_tested_on_have_no_part_in_medians_scales_and_levels(tmp_path: Path):
    frame = animals()
    whole = read(csv(frame, tmp_path / "a.csv"))
    fed = {row.tobytes() for row in whole.train_images}
    encoded = inputs.read([tmp_path / "a.csv"], whole.schema).rows
    train = frame[[row.tobytes() in fed for row in encoded]]
    assert len(train) < len(frame)
    assert whole.schema.median == tuple(train[NUMBERS].median())
    np.testing.assert_allclose(whole.schema.mean, train[NUMBERS].mean())
    assert set(whole.schema.levels["colour"]) == set(train["colour"].fillna(""))


@pytest.mark.parametrize("scale", ["standard", "robust", "quantile"])
def test_rows_to_predict_are_fed_as_in_training_to_the_bit(tmp_path: Path, scale: str):
    frame = animals().sort_values("size", ignore_index=True)
    loaded = read(csv(frame, tmp_path / "a.csv"), scale=scale)
    trained = {r.tobytes() for r in np.concatenate([loaded.train_images, loaded.test_images])}
    shuffled = frame[["town", "kind", "weight", "colour", "size"]]
    for name, rows in (
        ("b.csv", shuffled),
        ("c.csv", shuffled.drop(columns="kind")),
        ("d.parquet", frame),
    ):
        path = tmp_path / name
        rows.to_parquet(path) if name.endswith("parquet") else csv(rows, path)
        again = inputs.read([path], loaded.schema)
        assert {row.tobytes() for row in again.rows} == trained
        assert (again.labels is None) == (name == "c.csv")
        single = inputs.read([csv(rows[3:4], tmp_path / "one.csv")], loaded.schema)
        np.testing.assert_array_equal(single.rows, again.rows[3:4])


def test_what_training_lacks_is_said_of_rows_to_predict(tmp_path: Path):
    loaded = read(csv(animals(), tmp_path / "a.csv"))
    rows = animals(20, seed=2).fillna({"colour": "red"})
    rows.loc[0, "size"], rows.loc[:1, "colour"] = np.nan, "pink"
    found = inputs.read([csv(rows, tmp_path / "b.csv")], loaded.schema)
    said = " ".join(found.notes)
    assert "gaps in 'size'" in said
    assert "rows with a text in 'colour' that training lacks: 2" in said
    rows.loc[:, "size"], rows.loc[0, "size"] = loaded.schema.median[0], np.nan  # type: ignore
    filled = inputs.read([csv(rows, tmp_path / "b.csv")], loaded.schema).rows
    assert len(set(filled[:, 0])) == 1, "the median stands in the gap"
    rows["colour"] = "pink"
    with pytest.raises(InputError, match="'colour' has no level that training knows"):
        inputs.read([csv(rows, tmp_path / "b.csv")], loaded.schema)


@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_onnx_takes_numbers_and_texts_as_they_are(tmp_path: Path, scale: str):
    path = csv(animals(), tmp_path / "a.csv")
    loaded = read(path, scale=scale)
    network = Normalized(nn.Identity(), loaded.schema)
    winner.write_onnx(network, loaded.examples, loaded.schema, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    rows = pd.concat([animals(), animals(5, seed=3).assign(colour="never", town="seen")])
    given = {
        "features": rows[NUMBERS].to_numpy(),
        "texts": rows[TEXTS].fillna("").to_numpy(dtype=object),
    }
    expected = inputs.read([csv(rows, tmp_path / "b.csv")], loaded.schema).rows
    np.testing.assert_array_equal(session.run(None, given)[0], expected)
    coded = winner.onnx_inputs(loaded.schema, loaded.examples)
    by_torch = network(torch.from_numpy(loaded.examples)).numpy()
    np.testing.assert_array_equal(session.run(None, coded)[0], by_torch)


def test_a_schema_survives_its_storage(tmp_path: Path):
    for scale in ("standard", "quantile"):
        schema = read(csv(animals(), tmp_path / "a.csv"), scale=scale).schema
        again = Schema.of(schema.as_dict())
        assert again == Schema.model_validate(schema.as_dict()) == schema


def test_a_study_is_bound_to_levels_gaps_and_scale(tmp_path: Path):
    first = read(csv(animals(), tmp_path / "a.csv"))
    assert first.schema.bound == read(tmp_path / "a.csv").schema.bound
    for other in (
        animals().replace({"colour": {"red": "pink"}}),
        animals().fillna({"weight": 1.0}),
        animals().assign(town=lambda of: of["town"].str[:6]),
    ):
        assert read(csv(other, tmp_path / "b.csv")).schema.bound != first.schema.bound
    assert read(tmp_path / "a.csv", scale="robust").schema.bound != first.schema.bound


# --- kinds ---------------------------------------------------------------------------------------


def kinds(loaded: data.Dataset) -> dict[str, str]:
    return dict(zip(loaded.schema.columns, loaded.schema.kinds, strict=True))


@pytest.mark.parametrize("label", [-1, "kind"])
def test_a_study_file_says_the_kinds_where_hpo_would_not_guess_them(
    tmp_path: Path, label: str | int
):
    frame = animals(90).assign(zip=np.arange(90) % 7, id=np.arange(90) * 3)
    frame = frame[["zip", "id", *NUMBERS, "kind"]]
    path = csv(frame, tmp_path / "a.csv", header=label == "kind")
    names = ["zip", "id"] if label == "kind" else ["0", "-4"]
    asked = tuple(zip(names, ("category", "ignore"), strict=True))
    loaded = read(path, label, columns=asked)
    first = loaded.schema.columns[0]
    assert list(kinds(loaded).values()) == ["category", "float", "float"]
    assert loaded.schema.levels == {first: tuple("0123456")}
    assert len(loaded.about["ignored"]) == 1
    assert "'nowhere'" in refused(path, label, columns=(("nowhere", "category"),))
    assert "has the labels" in refused(
        path, label, columns=(("kind" if label == "kind" else "4", "ignore"),)
    )


def test_whole_numbers_as_a_category_are_the_same_levels_in_every_kind_of_file(tmp_path: Path):
    frame = animals(90).assign(zip=np.where(np.arange(90) % 9, np.arange(90) % 7, np.nan))
    schema = read(csv(frame, tmp_path / "a.csv"), columns=(("zip", "category"),)).schema
    assert schema.levels["zip"] == ("", *"0123456")
    frame.to_parquet(tmp_path / "a.parquet")
    path = csv(frame.astype({"zip": "Int64"}), tmp_path / "b.csv")
    schema = read(path, columns=(("zip", "category"),)).schema
    assert schema.levels["zip"] == ("", *"0123456")
    a, b = (inputs.read([p], schema).rows for p in (path, tmp_path / "a.parquet"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("spelling", ["", "?", "NA", " - ", "n/a", "NaN", "null", " "])
def test_usual_spellings_of_gaps_are_gaps(tmp_path: Path, spelling: str):
    values = [spelling if i % 9 == 4 else i * 0.5 for i in range(60)]
    loaded = read(of_text(tmp_path, column(values)))
    assert (loaded.schema.gaps, loaded.about["gaps"]) == (("x",), {"x": 7})
    words = [spelling if i % 9 == 4 else "uv"[i % 2] for i in range(60)]
    assert read(of_text(tmp_path, column(words))).schema.levels["x"] == ("", "u", "v")


def test_true_and_false_with_gaps_are_numbers(tmp_path: Path):
    values = ["" if i % 9 == 4 else "true" if i % 4 else "FALSE" for i in range(60)]
    loaded = read(of_text(tmp_path, column(values)))
    assert kinds(loaded)["x"] == "bool"
    assert loaded.schema.gaps == ("x",)


def test_a_date_is_year_month_day_and_weekday(tmp_path: Path):
    days = pd.date_range("2020-02-27", periods=60, freq="17D")
    frame = pd.DataFrame({"day": days, "more": np.arange(60.0), "kind": ["a", "b"] * 30})
    frame.loc[5, "day"] = pd.NaT
    loaded = read(csv(frame, tmp_path / "a.csv"))
    parts = ["day year", "day month", "day day", "day weekday"]
    assert list(loaded.schema.columns) == ["more", *parts]
    frame.to_parquet(tmp_path / "a.parquet")
    a, b = (inputs.read([tmp_path / n], loaded.schema).rows for n in ("a.csv", "a.parquet"))
    np.testing.assert_array_equal(a, b)
    raw = a[:, 1:5] * np.array(loaded.schema.std[1:]) + np.array(loaded.schema.mean[1:])  # type: ignore
    given = days.to_series().dt
    expected = np.stack([given.year, given.month, given.day, given.day_of_week], axis=1)
    np.testing.assert_allclose(np.delete(raw, 5, 0), np.delete(expected, 5, 0), atol=1e-3)
    frame["day"] = frame["day"].dt.strftime("%Y-%m-%d").fillna("soon")
    assert "'soon'" in refused(csv(frame, tmp_path / "b.csv"))
    with pytest.raises(InputError, match="'soon' in row 5, no date"):
        inputs.read([tmp_path / "b.csv"], loaded.schema)


ODD = {
    "12,50 EUR": '"12,50 EUR"',
    "1,234": '"1,234"', "1.234,5": '"1.234,5"', "12%": "12%", "$32": "$32",
    "31.12.2020": "31.12.2020",
}  # fmt: skip


@pytest.mark.parametrize("shown", ODD)
def test_numbers_in_a_way_of_their_own_get_the_remedy(tmp_path: Path, shown: str):
    written = [ODD[shown], *(ODD[shown].replace("2", str(i % 9), 1) for i in range(29))]
    line = refused(of_text(tmp_path, column(written + [5, 7, 9, 11] * 5)))
    assert "'x'" in line
    assert repr(shown) in line
    assert "write" in line


def test_decimal_commas_are_read_where_they_are_certain(tmp_path: Path):
    values = [f"{i},{i % 7}5" for i in range(60)]
    lines = [f"{v};{i};{'ab'[i % 2]}" for i, v in enumerate(values)]
    loaded = read(of_text(tmp_path, "\n".join(["x;more;kind", *lines])))
    assert loaded.schema.high[0] == pytest.approx(59.35, abs=2)  # type: ignore[index]
    plain = inputs.read([of_text(tmp_path, "x;more\n3.35;3\n")], loaded.schema).rows
    comma = inputs.read([of_text(tmp_path, "x;more\n3,35;3\n")], loaded.schema).rows
    np.testing.assert_array_equal(plain, comma)
    rows = "".join(f"{n};{2 + n % 7},{n % 9}\n" for n in range(40))
    loaded = read(of_text(tmp_path, f"x;grade\n{rows}"), label="grade")
    assert loaded.schema.target, "labels with a decimal comma are fractions, too"
    every = [*loaded.train_labels, *loaded.test_labels]
    found = loaded.schema.in_unit(np.array(every))
    assert sorted(found.round(4)) == sorted(2 + n % 7 + n % 9 / 10 for n in range(40))
    odd = of_text(tmp_path, f"x;grade\n{rows}9;n/a?\n")
    with pytest.raises(InputError) as caught:
        data.check(read(odd, label="grade"))
    assert 'give task = "regression" and mend those that are no plain numbers, such as' in str(
        caught.value
    )
    with pytest.raises(InputError, match="'3,350' in row 0"):
        inputs.read([of_text(tmp_path, "x;more\n3,350;3\n")], loaded.schema)


def test_a_text_among_numbers_is_named_and_no_good_value(tmp_path: Path):
    line = refused(of_text(tmp_path, column([*range(40), "unknown", *range(19)])))
    assert "'unknown' in row 40" in line
    assert 'columns = { "x" = "category" }' in line
    path = of_text(tmp_path, column([*"12345" * 12]))
    loaded = read(path)
    with pytest.raises(InputError, match="'six' in row 0, no number"):
        inputs.read([of_text(tmp_path, "x,more\nsix,3\n")], loaded.schema)
    assert "no number" in refused(
        of_text(tmp_path, column(["a", "b"] * 30)), columns=(("x", "number"),)
    )


def test_names_of_rows_are_left_out_and_too_many_levels_are_refused(tmp_path: Path):
    many = [f"name {i}" for i in range(1_200)]
    loaded = read(of_text(tmp_path, column(many[:900])))
    assert (loaded.schema.columns, loaded.about["rare"]) == (("more",), ["x"])
    assert "1,200 different texts" in refused(of_text(tmp_path, column(many)))
    line = refused(of_text(tmp_path, column(many[:900])), columns=(("x", "category"),))
    assert "900 different texts" in line


def test_a_table_that_tells_nothing_is_refused(tmp_path: Path):
    path = of_text(tmp_path, "\n".join(["x,kind", *(f"u,{'ab'[i % 2]}" for i in range(40))]))
    assert "every column has one value" in refused(path)


def test_a_row_without_a_label_is_left_out_of_both_parts(tmp_path: Path):
    frame, other = animals(), animals(50, seed=1)
    frame.loc[:4, "kind"], other.loc[:2, "kind"] = np.nan, "?"
    test = csv(other, tmp_path / "test.csv")
    loaded = read(csv(frame, tmp_path / "a.csv"), test=str(test))
    assert (len(loaded.train_labels), len(loaded.test_labels)) == (ROWS - 5, 47)
    assert loaded.about["unlabelled"] == 5
    assert "rows without a label are left out: 3" in loaded.about["test_notes"]


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_found(tmp_path: Path, separator: str):
    loaded = read(csv(animals(), tmp_path / "a.csv", sep=separator))
    assert loaded.schema.columns == (*NUMBERS, *TEXTS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str):
    frame = animals().replace({"colour": {"red": "größer"}})
    loaded = read(csv(frame, tmp_path / "a.csv", encoding=encoding))
    assert "größer" in loaded.schema.levels["colour"]


def test_latin_1_gets_the_remedy(tmp_path: Path):
    frame = animals().replace({"colour": {"red": "größer"}})
    line = refused(csv(frame, tmp_path / "a.csv", encoding="latin-1"))
    assert "iconv" in line


def test_columns_under_each_other_are_read(tmp_path: Path):
    """As UCI's auto-mpg.data, with quoted names."""
    frame = animals().drop(columns="town")
    lines = [
        f'{r.size_:7.3f}   {"?" if np.isnan(r.weight) else r.weight}  "{r.colour} x"\t{r.kind}'
        for r in frame.rename(columns={"size": "size_"}).itertuples()
    ]
    loaded = read(of_text(tmp_path, "\n".join(lines)), -1)
    assert list(kinds(loaded).values()) == ["float", "float", "category"]
    assert loaded.schema.gaps == ("1",)


def test_two_datasets_of_other_scale_are_not_one(tmp_path: Path):
    np.savez(tmp_path / "p.npz", x=np.zeros((30, 4, 4), np.uint8), y=np.arange(30) % 2)
    assert "scale is for tables" in refused(tmp_path / "p.npz", scale="robust")
    for more in ({"scale": "robust"}, {"valid": "v.csv"}, {"time": "at"}):
        with pytest.raises(InputError, match="for data of your own"):
            data.load(Source("mnist-5k", **more), None)


# --- hpo init data.csv ---------------------------------------------------------------------------


def test_init_proposes_label_kinds_and_what_gives_the_label_away(
    tmp_path: Path, forked_hpo: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    frame = animals().assign(sound=lambda of: of["kind"].map({"cat": "miaow", "dog": "wuff"}))
    csv(frame[["size", "sound", "weight", "colour", "kind"]], tmp_path / "my animals.csv")
    answer = forked_hpo("init", "my animals.csv")
    assert answer.code == 0, answer.err
    text = (tmp_path / "my-animals.toml").read_text()
    study = study_file.load("my-animals.toml")
    assert study.dataset.label == "kind"
    assert study.dataset.ignore == ("sound",)
    for word in (
        "# Proposed from my animals.csv",
        "(gap), blue, green, red",
        "filled with the median",
    ):
        assert word in text
    assert data.load(study.dataset, None).schema.columns == ("size", "weight", "colour")
    assert "is there already" in forked_hpo("init", "my animals.csv").err
    assert "nothing.csv" in forked_hpo("init", "nothing.csv").err


def test_init_proposes_to_count_a_rare_class_like_the_others(
    tmp_path: Path, forked_hpo: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name, share in (("common", 0.8), ("rare", 0.95)):
        kinds = np.where(np.arange(ROWS) < share * ROWS, "cat", "dog")
        csv(animals().assign(kind=kinds), tmp_path / f"{name}.csv")
        assert forked_hpo("init", f"{name}.csv").code == 0
    rare, common = study_file.load("rare.toml"), study_file.load("common.toml")
    assert (rare.objective, rare.class_weight) == ("valid_balanced_accuracy", "balanced")
    assert (common.objective, common.class_weight) == ("valid_accuracy", None)
    assert "95.0% of the rows are of one class" in (tmp_path / "rare.toml").read_text()


def test_init_writes_what_is_to_mend_of_a_table_that_cannot_be_read(
    tmp_path: Path, forked_hpo: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    of_text(tmp_path, column(["12%"] * 40))
    assert forked_hpo("init", "a.csv").code == 0
    assert "# It cannot be read yet: " in (tmp_path / "a.toml").read_text()
    assert study_file.load("a.toml").dataset.label == "kind"


# --- rows to validate on -------------------------------------------------------------------------


def test_all_seeds_validate_on_the_rows_of_the_file_that_the_study_file_names(tmp_path: Path):
    frame, valid = animals(), animals(50, seed=1)
    valid.loc[:3, "colour"] = "never seen"
    paths = [csv(rows, tmp_path / n) for rows, n in ((frame, "a.csv"), (valid, "v.csv"))]
    loaded = read(paths[0], valid=str(paths[1]))
    plain = read(paths[0])
    np.testing.assert_array_equal(loaded.test_labels, plain.test_labels)
    for seed in (0, 1):
        train, rows = data.split(loaded, seed)
        assert (len(train), len(rows)) == (len(plain.train_labels), 50)
        fed = inputs.read([paths[1]], loaded.schema).rows
        np.testing.assert_array_equal(loaded.train_images[rows], fed)
    assert loaded.schema.mean != plain.schema.mean, "scales are of all rows that are not tested on"
    whole = csv(pd.concat([frame, valid]), tmp_path / "whole.csv")
    assert len(data.split(read(whole), 0)[1]) != 50
    other_unit = csv(valid.assign(size=valid["size"] * 1000), tmp_path / "unit.csv")
    assert "far outside the trained range" in refused(paths[0], valid=str(other_unit))
    unlabelled = csv(valid.assign(kind=valid["kind"].where(valid.index > 4)), tmp_path / "u.csv")
    notes = read(paths[0], valid=str(unlabelled)).about["valid_notes"]
    assert "rows without a label are left out: 5" in notes
    lacking = csv(valid[valid["kind"] == "cat"], tmp_path / "cats.csv")
    assert "no validation example of class dog" in refused(paths[0], valid=str(lacking))


@pytest.mark.parametrize("form", ["dates", "months", "numbers"])
def test_the_last_rows_are_tested_on_and_those_before_them_validated_on(tmp_path: Path, form: str):
    frame = animals().assign(at=np.arange(ROWS) // 3)  # three rows of each time
    if form == "dates":
        frame["at"] = pd.Timestamp("2021-12-30") + pd.to_timedelta(frame["at"], unit="D")
    if form == "months":
        frame["at"] = [str(pd.Period("2009-11", "M") + month) for month in frame["at"]]
    path = csv(frame.sample(frac=1, random_state=0), tmp_path / "a.csv")
    loaded = read(path, time="at")
    assert "at" not in loaded.schema.columns
    ordered = inputs.read([csv(frame, tmp_path / "b.csv")], loaded.schema).rows
    size = loaded.train_images[:, 0]
    train, valid = data.split(loaded, 7)
    assert (len(train), len(valid), len(loaded.test_labels)) == (252, 66, 82)
    for part, rows in ((size[train], ordered[:252]), (size[valid], ordered[252:318])):
        np.testing.assert_array_equal(np.sort(part), np.sort(rows[:, 0]))
    np.testing.assert_array_equal(
        np.sort(loaded.test_images[:, 0]), np.sort(ordered[318:, 0])
    )  # 320 would part rows of one time, so they all stand in the test part
    frame["at"] = frame["at"].astype(str)
    frame.loc[7, "at"] = "soon"
    assert "'soon' in row" in refused(csv(frame, path), time="at")
    assert "one time" in refused(csv(frame.assign(at=1), path), time="at")
    assert "leave out valid" in refused_study(
        f'{{ file = "{path}", valid = "v.csv", time = "at" }}'
    )


def refused_study(dataset: str) -> str:
    with pytest.raises(InputError) as caught:
        study_file.parse(tomllib.loads(study(dataset)), "s", "s.toml")
    return str(caught.value)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_folder_of_pictures_may_have_rows_to_validate_on(tmp_path: Path, name: str):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        part = "train" if number < 40 else name if number < 50 else "test"
        place = tmp_path / "p" / part / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number:02}.png")
    loaded = data.load(Source(str(tmp_path / "p")), None)
    data.check(loaded)
    assert [len(rows) for rows in data.split(loaded, 3)] == [40, 10]
    assert (len(loaded.test_labels), loaded.classes) == (10, 2)


# --- wrong numbers that once ended with exit code 0 ----------------------------------------------


@pytest.mark.parametrize("rows", [97, 100, 101, 150])
def test_a_constant_column_has_a_deviation_of_one(tmp_path: Path, rows: int):
    frame = animals(rows).assign(price=0.1)
    loaded = read(csv(frame, tmp_path / "a.csv"))
    place = loaded.schema.numbers.index("price")
    assert loaded.schema.std[place] == 1.0  # type: ignore[index]
    other = inputs.read([csv(frame.assign(price=0.3), tmp_path / "b.csv")], loaded.schema)
    assert np.abs(other.rows).max() < 50


def test_a_point_beside_decimal_commas_is_refused(tmp_path: Path):
    rows = [f"{i}.250;{i},5;{'ab'[i % 2]}" for i in range(1, 60)]
    line = refused(of_text(tmp_path, "\n".join(["income;weight;kind", *rows])))
    assert "'income'" in line
    assert "'weight' has decimal commas" in line


def test_a_header_that_counts_the_columns_is_no_row(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 3, (60, 4))
    pd.DataFrame(values).to_csv(tmp_path / "a.csv", index=False)
    assert "counts the columns" in refused(tmp_path / "a.csv", 0)


@pytest.mark.parametrize("separator", ["   ", ","])
def test_a_row_with_fewer_cells_is_refused(tmp_path: Path, separator: str):
    lines = [separator.join([str(i % 9), str(i * 10), "ab"[i % 2]]) for i in range(60)]
    lines[40] = separator.join(["150", "a"])
    line = refused(of_text(tmp_path, "\n".join(lines)), -1)
    assert "line 41 has 2 cells" in line


def test_labels_that_end_as_numbers_are_found_again(tmp_path: Path):
    path = csv(animals().replace({"kind": {"cat": "v1.0", "dog": "v2.1"}}), tmp_path / "a.csv")
    given = inputs.read([path], read(path).schema)
    assert given.labels is not None
    assert (given.labels >= 0).all()


def test_long_names_of_classes_stay_apart(tmp_path: Path):
    names = [f"People who said {n} to it, {'all ' * 30} in the interview" for n in "yn"]
    frame = animals().assign(kind=[names[i % 2] for i in range(ROWS)])
    assert len(set(read(csv(frame, tmp_path / "a.csv")).schema.classes)) == 2


def test_names_with_commas_bind_apart(tmp_path: Path):
    bounds = []
    for names in (["u, v", "w", "kind"], ["u", "v, w", "kind"]):
        frame = animals()[[*NUMBERS, "kind"]].set_axis(names, axis=1)
        bounds.append(read(csv(frame, tmp_path / "a.csv")).schema.bound)
    assert bounds[0] != bounds[1]


def test_codes_with_zeros_in_front_are_levels(tmp_path: Path):
    frame = animals().assign(zip=np.array(["01234", "1234", "00042"])[np.arange(ROWS) % 3])
    for name in ("a.csv", "a.parquet"):
        path = tmp_path / name
        frame.to_parquet(path) if name.endswith("parquet") else csv(frame, path)
        assert read(path).schema.levels["zip"] == ("00042", "01234", "1234")


def test_a_column_without_values_is_left_out_or_named(tmp_path: Path):
    frame = animals().assign(empty=np.nan)
    path = csv(frame, tmp_path / "a.csv")
    loaded = read(path)
    assert loaded.about["empty"] == ["empty"]
    tested = {row.tobytes() for row in loaded.test_images}
    fed = inputs.read([path], loaded.schema).rows
    place = next(i for i, row in enumerate(fed) if row.tobytes() in tested)
    frame.loc[place, "empty"] = 3.0
    assert "'empty' has values only in rows that are tested on" in refused(csv(frame, path))


def test_init_refuses_other_files(
    tmp_path: Path, forked_hpo: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.xlsx").write_text("x")
    answer = forked_hpo("init", "a.xlsx")
    assert (answer.code, "a.xlsx: is no table" in answer.err) == (2, True)
