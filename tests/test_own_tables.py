"""One's own tables: which columns a network is fed, what is said of the rest, and the same rows to
predict in any order, with labels or without."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from conftest import Answer, Ended
from own_runs import CLASSES, flowers, flowers_run, once, study

from hpo.data import datasets as data
from hpo.data import inputs
from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.study import file as study_file
from hpo.study.source import Source

RNG = np.random.default_rng(0)
TABLES = Path(__file__).parents[2] / "shared/tables"
LETTERS = np.array(["low", "mid", "top"])
Label = str | int


def read(path: Path, label: Label = "", test: Path | None = None) -> data.Dataset:
    loaded = data.load(Source(str(path), str(test or ""), label), Path())
    data.check(loaded)
    return loaded


def refused(path: Path, label: Label = "", test: Path | None = None) -> str:
    """The one line that is said, without the file's folder."""
    with pytest.raises(InputError) as caught:
        read(path, label, test)
    [line] = str(caught.value).replace(str(path.parent), "").splitlines()
    return line


def columns(loaded: data.Dataset) -> int:
    return loaded.train_images.shape[1]


def plants(rows: int = 60, label: str = "label") -> pd.DataFrame:
    """Three features of different scales, and the label last, in turns."""
    rng, level = np.random.default_rng(rows), np.arange(rows) % 3
    features = {
        "petal": 2.0 * level + rng.normal(0, 0.4, rows),
        "sepal": 300.0 - 80.0 * level + rng.normal(0, 9, rows),
        "stem": 0.01 * level**2 + rng.normal(0, 0.002, rows),
    }
    return pd.DataFrame({**features, label: LETTERS[level]})


def csv(frame: pd.DataFrame, path: Path, **how) -> Path:
    frame.to_csv(path, **{"index": False, **how})
    return path


# --- columns by their names --------------------------------------------------------------------


def test_columns_of_the_test_file_are_found_by_name(tmp_path: Path):
    a, b = csv(plants(), tmp_path / "a.csv"), plants(30)
    expected = read(a, test=csv(b, tmp_path / "b.csv"))
    swapped = read(a, test=csv(b[["stem", "label", "petal", "sepal"]], tmp_path / "c.csv"))
    np.testing.assert_array_equal(swapped.test_images, expected.test_images)
    np.testing.assert_array_equal(swapped.test_labels, expected.test_labels)


def test_a_column_that_the_test_file_lacks_is_named(tmp_path: Path):
    a = csv(plants(), tmp_path / "a.csv")
    b = csv(plants(30).rename(columns={"sepal": "z"}), tmp_path / "b.csv")
    line = refused(a, test=b)
    assert "b.csv" in line
    assert "sepal" in line


@pytest.mark.parametrize(
    "text",
    ["petal,petal,label\n", "petal,label,label\n", "petal,sepal,petal,label\n"],
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, text: str):
    row = [*map(str, range(text.count(","))), "{}"]
    lines = [",".join(row).format(label) for label in LETTERS[np.arange(30) % 3]]
    (tmp_path / "a.csv").write_text(text + "\n".join(lines))
    line = refused(tmp_path / "a.csv", "label")
    assert ("label" if text.count("label") > 1 else "petal") in line


@pytest.mark.parametrize("form", ["{row},{n}", "{row},{n},{n}", "{number},{row}", "{row},"])
@pytest.mark.parametrize("first", [1, 20], ids=["every row", "later rows"])
def test_rows_longer_than_the_header_are_refused(tmp_path: Path, form: str, first: int):
    """pandas makes their first field an index, and takes the labels from another column."""
    frame = plants().assign(label=np.arange(60) % 3)
    lines = csv(frame, tmp_path / "a.csv").read_text().splitlines()
    for i in range(first, len(lines)):
        lines[i] = form.format(row=lines[i], n=i % 2, number=i)
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert "a.csv" in refused(tmp_path / "a.csv", "label")


# --- the label ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("name", ["label", "Class", "TARGET", "y"])
def test_a_usual_name_at_an_edge_is_the_label(tmp_path: Path, name: str, place: int):
    frame = plants()
    labels = frame.pop("label")
    frame.insert(place, name, labels)
    loaded = read(csv(frame, tmp_path / "a.csv"))
    assert (loaded.schema.classes, columns(loaded)) == (tuple(LETTERS), 3)


@pytest.mark.parametrize("name", ["target", "Class"])
def test_a_usual_name_in_the_middle_is_not_taken_for_the_label(tmp_path: Path, name: str):
    frame = plants()
    frame.insert(1, name, frame.pop("label"))
    line = refused(csv(frame, tmp_path / "a.csv"))
    assert "label = " in line
    assert "petal" in line


def test_two_usual_names_leave_the_choice_to_the_user(tmp_path: Path):
    frame = plants()
    frame.insert(0, "y", RNG.normal(size=60))
    line = refused(csv(frame, tmp_path / "a.csv"))
    assert "label = " in line
    assert columns(read(tmp_path / "a.csv", "label")) == 4, "y is a feature then"


@pytest.mark.parametrize("label", [-1, 3, -4, 0])
def test_a_number_names_the_labels_of_a_file_without_a_header(tmp_path: Path, label: int):
    frame = plants()
    frame.insert(label % 4, "label", frame.pop("label"))
    loaded = read(csv(frame, tmp_path / "a.csv", header=False), label)
    assert (loaded.schema.classes, columns(loaded)) == (tuple(LETTERS), 3)
    assert len(loaded.train_labels) + len(loaded.test_labels) == 60, "the first row is a row"
    again = read(csv(plants(), tmp_path / "b.csv"))
    np.testing.assert_array_equal(loaded.train_images, again.train_images)


def test_a_number_where_there_is_a_header_is_refused_with_the_names(tmp_path: Path):
    line = refused(csv(plants(), tmp_path / "a.csv"), -1)
    assert "sepal" in line
    assert "header" in line


@pytest.mark.parametrize("label", [4, -5, 99])
def test_a_number_beyond_the_columns_is_refused(tmp_path: Path, label: int):
    path = csv(plants(), tmp_path / "a.csv", header=False)
    line = refused(path, label)
    assert re.search(rf"(?<!\S){label}\b", line), line
    assert re.search(r"\b[34]\b(?!\.)", line), "how many columns there are"


def test_without_a_header_the_first_column_is_no_label_by_itself(tmp_path: Path):
    """A cancer table has become 3 × 3 pictures of 10 classes."""
    values = RNG.integers(1, 11, (100, 9))
    whole = pd.DataFrame(np.column_stack([np.arange(100) % 10, values]))
    line = refused(csv(whole, tmp_path / "a.csv", header=False))
    assert "label = " in line


def test_mnists_csv_without_a_header_is_pictures(tmp_path: Path):
    values = RNG.integers(0, 256, (60, 784))
    whole = pd.DataFrame(np.column_stack([np.arange(60) % 10, values]))
    loaded = read(csv(whole, tmp_path / "a.csv", header=False))
    assert (loaded.shape, loaded.classes) == ((28, 28), 10)


@pytest.mark.parametrize("first", ["text first", "text last"])
def test_a_header_that_looks_like_data_is_refused(tmp_path: Path, first: str):
    """As in abalone.csv, which begins with a letter, and sonar.csv, which ends with one."""
    frame = plants()
    frame.insert(0 if first == "text first" else 3, "label", frame.pop("label"))
    line = refused(csv(frame, tmp_path / "a.csv", header=False))
    assert "label = " in line
    assert "header" in line


def test_na_is_a_class_like_others_and_an_empty_label_is_none(tmp_path: Path):
    names = np.array(["NA", "None", "-"])
    frame = plants().assign(label=names[np.arange(60) % 3])
    assert read(csv(frame, tmp_path / "a.csv")).schema.classes == ("-", "NA", "None")
    text = (tmp_path / "a.csv").read_text().replace(",-\n", ",NaN\n", 1)
    (tmp_path / "a.csv").write_text(text)
    loaded = read(tmp_path / "a.csv")
    assert loaded.schema.classes == ("-", "NA", "None")
    assert len(loaded.train_labels) + len(loaded.test_labels) == 59
    assert loaded.about["unlabelled"] == 1


# --- columns that are left out, and warnings ---------------------------------------------------


def test_the_index_that_pandas_writes_is_no_feature(tmp_path: Path, forked_hpo: Callable):
    frame = plants().sort_values("label", ignore_index=True)
    path = csv(frame, tmp_path / "a.csv", index=True)
    expected = read(csv(frame, tmp_path / "b.csv"))
    np.testing.assert_array_equal(read(path).train_images, expected.train_images)
    said = forked_hpo("data", "get", "a.csv")
    assert said.code == 0, said.err
    assert "NOTE: " in said.err


def test_a_column_without_a_name_is_no_feature_wherever_it_stands(tmp_path: Path):
    frame = plants()
    frame.insert(2, "", RNG.normal(size=60))
    assert columns(read(csv(frame, tmp_path / "a.csv"))) == 3


@pytest.mark.parametrize("name", ["id", "Id", "INDEX", "rownames", "Row"])
def test_columns_that_number_the_rows_are_left_out_aloud(
    tmp_path: Path, forked_hpo: Callable, name: str
):
    frame = plants()
    frame.insert(0, name, np.arange(60) * 3 + 7)
    assert columns(read(csv(frame, tmp_path / "a.csv"))) == 3
    said = forked_hpo("data", "get", "a.csv")
    assert re.search(rf"NOTE: .*\b{name}\b", said.err), said.err


@pytest.mark.parametrize("values", [np.arange(60)[::-1], np.arange(60) // 2, np.arange(60) + 0.5])
def test_a_column_of_such_a_name_that_numbers_no_rows_is_a_feature(tmp_path: Path, values):
    frame = plants()
    frame.insert(0, "row", values)
    assert columns(read(csv(frame, tmp_path / "a.csv"))) == 4


def test_an_index_of_the_test_file_and_of_the_training_file_is_left_out_of_both(tmp_path: Path):
    frame, test = plants(), plants(30)
    frame.insert(0, "id", np.arange(60))
    test.insert(0, "id", RNG.permutation(30))
    a, b = csv(frame, tmp_path / "a.csv"), csv(test, tmp_path / "b.csv")
    loaded = read(a, test=b)
    assert loaded.train_images.shape[1] == loaded.test_images.shape[1] == 3


def test_ignored_columns_are_left_out(tmp_path: Path):
    frame = plants()
    frame.insert(0, "name", [f"plant {i}" for i in range(60)])
    csv(frame, tmp_path / "a.csv")
    text = study('{ file = "a.csv", label = "label", ignore = ["name", "stem"] }')
    (tmp_path / "s.toml").write_text(text)
    source = study_file.load(str(tmp_path / "s.toml")).dataset
    assert source.ignore == ("name", "stem")
    loaded = data.load(source, Path())
    expected = read(csv(frame[["petal", "sepal", "label"]], tmp_path / "b.csv"))
    np.testing.assert_array_equal(loaded.train_images, expected.train_images)


def test_an_ignored_column_that_is_not_there_is_named(tmp_path: Path, forked_hpo: Callable):
    csv(plants(), tmp_path / "a.csv")
    (tmp_path / "s.toml").write_text(study('{ file = "a.csv", ignore = ["colour"] }'))
    answer = forked_hpo("run", "s.toml")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert "colour" in answer.err
    assert "sepal" in answer.err, "the columns that are there"


# --- the data card -----------------------------------------------------------------------------


def counted(text: str, name: str, counts: Sequence[int]) -> bool:
    """Whether a line, or a part of one, has the name and one of the counts after or before it."""
    number = "|".join(map(str, counts))
    near = rf"\b{name}\b\W+(\w+\W+){{0,2}}({number})\b|\b({number})\b\W+(\w+\W+){{0,2}}{name}\b"
    return bool(re.search(near, text))


def test_data_get_names_file_label_features_classes_and_repeated_rows(
    tmp_path: Path, forked_hpo: Callable
):
    frame = plants(72).rename(columns={"label": "sort"})[:70]
    frame = pd.concat([frame, frame[:20]], ignore_index=True)
    loaded = read(csv(frame, tmp_path / "meadow.csv"), "sort")
    rows = {row.tobytes() for row in loaded.train_images}
    both = sum(row.tobytes() in rows for row in loaded.test_images)
    assert both > 1
    said = forked_hpo("data", "get", "meadow.csv", "--label", "sort")
    assert said.code == 0, said.err
    for word in ("meadow.csv", "sort", "petal", "sepal", "stem"):
        assert re.search(rf"\b{word}\b", said.out), word
    for number, name in enumerate(LETTERS):
        parts = [sum(labels == number) for labels in (loaded.train_labels, loaded.test_labels)]
        assert counted(said.out, name, [*parts, sum(parts)]), name
    lines = (said.out + said.err).splitlines()
    assert any(re.search(rf"\b{both}\b", line) and "both" in line for line in lines), lines


def test_data_get_takes_a_number_as_the_label(tmp_path: Path, forked_hpo: Callable):
    csv(plants(), tmp_path / "a.csv", header=False)
    said = forked_hpo("data", "get", "a.csv", "--label", "-1")
    assert said.code == 0, said.err
    assert "top" in said.out


# --- a trained network -------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Trained on `flowers`, whose label is named in the study file; one feature is called y."""
    ended = flowers_run(tmp_path_factory)
    assert ended.answer.code == 0, ended.answer.err
    return ended


@pytest.fixture
def guessed(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Trained on `plants`, whose label is `Label` without a word in the study file."""

    def prepare(folder: Path) -> None:
        garden().to_csv(folder / "garden.csv", index=False)
        (folder / "garden.toml").write_text(study('"garden.csv"'))

    ended = once(tmp_path_factory, "garden", prepare)
    assert ended.answer.code == 0, ended.answer.err
    return ended


@pytest.fixture
def headless(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Trained on `plants` without a header."""

    def prepare(folder: Path) -> None:
        garden().to_csv(folder / "bare.csv", index=False, header=False)
        (folder / "bare.toml").write_text(study('{ file = "bare.csv", label = -1 }'))

    ended = once(tmp_path_factory, "bare", prepare)
    assert ended.answer.code == 0, ended.answer.err
    return ended


def garden() -> pd.DataFrame:
    return plants(120, "Label")


def best(ended: Ended) -> str:
    [folder] = ended.folder.glob("reports/*/best")
    return str(folder)


def answers(answer: Answer) -> list[list[str]]:
    """Class and probability of each row."""
    assert answer.code == 0, answer.err
    return [line.split("\t")[1:] for line in answer.out.splitlines()]


def share(answer: Answer, truth: Sequence) -> float:
    found = [row[0] for row in answers(answer)]
    return float(np.mean(np.array(found) == np.array(truth).astype(str)))


def says_accuracy(answer: Answer, share: float) -> bool:
    numbers = [float(word) for word in re.findall(r"\d+(?:\.\d+)?", answer.err)]
    return any(abs(n - 100 * share) < 0.06 or abs(n - share) < 6e-4 for n in numbers)


def refusal(answer: Answer) -> str:
    assert (answer.code, answer.out) == (2, ""), answer
    lines = [line for line in answer.err.splitlines() if not line.startswith("NOTE: ")]
    assert len(lines) == 1, answer.err
    return lines[0]


def test_the_file_that_a_network_was_trained_on_is_predicted_right(
    hpo: Callable, named: Ended, tmp_path: Path
):
    """A feature called y stays one, and the label is left out by the name it had."""
    csv(flowers(), tmp_path / "all.csv")
    answer = hpo("predict", best(named), "all.csv")
    found = share(answer, flowers()["kind"])
    assert found > 0.95
    assert says_accuracy(answer, found), answer.err


def test_a_label_of_a_usual_name_in_capitals_is_left_out_again(
    hpo: Callable, guessed: Ended, tmp_path: Path
):
    csv(garden(), tmp_path / "all.csv")
    answer = hpo("predict", best(guessed), "all.csv")
    found = share(answer, garden()["Label"])
    assert found > 0.95
    assert says_accuracy(answer, found), answer.err


def test_rows_without_labels_columns_left_out_and_in_another_order_get_the_same_answers(
    hpo: Callable, named: Ended, tmp_path: Path
):
    frame = flowers()
    needed = ["serial", "petal", "y", "sepal", "twin"]
    csv(frame[needed], tmp_path / "all.csv")
    expected = hpo("predict", best(named), "all.csv")
    assert share(expected, frame["kind"]) > 0.95
    order = np.random.default_rng(3).permutation(len(frame))
    shuffled = frame.iloc[order][["kind", "sepal", "rownames", "twin", "petal", "serial", "y"]]
    csv(shuffled, tmp_path / "mixed.csv", sep=";")
    shuffled[needed[::-1]].to_parquet(tmp_path / "mixed.parquet")
    for name in ("mixed.csv", "mixed.parquet"):
        found = answers(hpo("predict", best(named), name))
        assert found == [answers(expected)[i] for i in order], name


def test_swapped_columns_get_the_same_answers(hpo: Callable, guessed: Ended, tmp_path: Path):
    frame = garden().drop(columns="Label")
    csv(frame, tmp_path / "a.csv")
    csv(frame[["sepal", "stem", "petal"]], tmp_path / "b.csv")
    expected = hpo("predict", best(guessed), "a.csv")
    assert share(expected, garden()["Label"]) > 0.95
    assert "accuracy" not in expected.err.lower()
    assert answers(hpo("predict", best(guessed), "b.csv")) == answers(expected)


def test_a_column_that_is_missing_is_named(forked_hpo: Callable, guessed: Ended, tmp_path: Path):
    csv(garden()[["petal", "stem", "Label"]].assign(width=3.0), tmp_path / "a.csv")
    line = refusal(forked_hpo("predict", best(guessed), "a.csv"))
    assert "a.csv" in line
    assert "sepal" in line


def test_further_columns_are_passed_over_aloud(hpo: Callable, guessed: Ended, tmp_path: Path):
    frame = garden().drop(columns="Label")
    csv(frame, tmp_path / "a.csv")
    frame.insert(1, "colour", "red")
    csv(frame, tmp_path / "b.csv")
    expected = answers(hpo("predict", best(guessed), "a.csv"))
    answer = hpo("predict", best(guessed), "b.csv")
    assert answers(answer) == expected
    assert re.search(r"NOTE: .*colour", answer.err), answer.err


def test_values_far_outside_those_trained_on_are_refused(
    forked_hpo: Callable, hpo: Callable, guessed: Ended, tmp_path: Path
):
    frame = garden().drop(columns="Label")
    csv(frame.assign(sepal=frame["sepal"] * 1.02), tmp_path / "near.csv")
    assert hpo("predict", best(guessed), "near.csv").code == 0
    frame.loc[7, "sepal"] = -1e9
    csv(frame, tmp_path / "far.csv")
    line = refusal(forked_hpo("predict", best(guessed), "far.csv"))
    assert "far.csv" in line
    assert "sepal" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.1,300,0.01\n" * 3, "header"),
        ("petal,petal,stem\n0,0,0.1\n", "a.csv"),
        ("petal,sepal,stem\n1,0,300,0\n2,0,300,0\n", "a.csv"),
    ],
    ids=["no header", "one name twice", "rows longer than the header"],
)
def test_tables_whose_columns_cannot_be_told_are_refused(
    forked_hpo: Callable, guessed: Ended, tmp_path: Path, text: str, said: str
):
    (tmp_path / "a.csv").write_text(text)
    assert said in refusal(forked_hpo("predict", best(guessed), "a.csv"))


def test_without_a_header_as_many_columns_as_trained_on_are_taken_or_the_labels_too(
    hpo: Callable, headless: Ended, tmp_path: Path
):
    frame = garden()
    csv(frame, tmp_path / "all.csv", header=False)
    csv(frame.drop(columns="Label"), tmp_path / "rows.csv", header=False)
    labelled = hpo("predict", best(headless), "all.csv")
    found = share(labelled, frame["Label"])
    assert found > 0.95
    assert says_accuracy(labelled, found), labelled.err
    assert answers(hpo("predict", best(headless), "rows.csv")) == answers(labelled)
    csv(frame.assign(more=1.0), tmp_path / "wide.csv", header=False)
    assert "wide.csv" in refusal(hpo("predict", best(headless), "wide.csv"))


def test_the_saved_network_says_what_it_takes(named: Ended):
    """Names in the order of training, the label, and not what was left out."""
    text = (Path(best(named)) / "config.toml").read_text("utf-8")
    places = [text.find(f'"{name}"') for name in ("serial", "petal", "y", "sepal", "twin")]
    assert min(places) >= 0
    assert places == sorted(places)
    assert '"kind"' in text


def test_a_run_says_what_it_was_fed_and_so_does_its_report(named: Ended):
    told, page = named.answer, named.folder / "reports/flowers/report.md"
    for name in ("rownames", "serial", "twin"):
        assert re.search(rf"NOTE: .*\b{name}\b", told.err), told.err
    for text in (told.out + told.err, page.read_text("utf-8")):
        for word in ("flowers.csv", "kind", "petal", "sepal", "rownames", "serial", "twin"):
            assert re.search(rf"\b{word}\b", text), word
        for name, count in CLASSES.items():
            assert counted(text, str(name), [count, count * 4 // 5, count // 5]), name


def test_a_column_of_another_name_makes_other_data(
    forked_hpo: Callable, named: Ended, tmp_path: Path
):
    shutil.copytree(named.folder, tmp_path, dirs_exist_ok=True)
    csv(flowers().rename(columns={"petal": "leaf"}), tmp_path / "flowers.csv")
    answer = forked_hpo("run", "flowers.toml", "--quiet")
    assert answer.code == 2, answer.err
    assert re.search("leaf|petal|column", answer.err), answer.err


def test_onnx_gives_the_same_answers_and_names_its_columns(
    hpo: Callable, guessed: Ended, tmp_path: Path
):
    frame = garden()
    shutil.copytree(guessed.folder, tmp_path, dirs_exist_ok=True)
    ended = hpo("export", "garden", "--to", "onnx")
    assert ended.code == 0, ended.err
    session = onnxruntime.InferenceSession(str(tmp_path / "exports/garden/winner.onnx"))
    assert session.get_inputs()[0].type == "tensor(double)", "as the columns are normalized"
    rows = frame.drop(columns="Label").to_numpy()
    [logits] = session.run(["logits"], {"features": rows})
    found = [row[0] for row in answers(hpo("predict", best(guessed), "garden.csv"))]
    assert LETTERS[logits.argmax(1)].tolist() == found
    said = " ".join(session.get_modelmeta().custom_metadata_map.values())
    for word in ("petal", "sepal", "stem", "low", "mid", "top"):
        assert word in said


# --- values that would be lost -----------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e30, 1e-35, 1e28])
def test_values_of_any_size_are_used_or_refused(tmp_path: Path, scale: float):
    frame = plants()
    frame["petal"] *= scale
    path = csv(frame, tmp_path / "a.csv")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        try:
            loaded = read(path)
        except InputError as error:
            line = str(error)
            assert "petal" in line
        else:
            np.testing.assert_allclose(loaded.train_images.std(axis=0), 1, atol=1e-3)
            stored = json.loads(json.dumps(loaded.schema.as_dict()))
            assert Schema.model_validate(stored) == loaded.schema, "so a study can be read again"


# --- well-known tables -------------------------------------------------------------------------


def shared(name: str) -> Path:
    if not TABLES.is_dir():
        pytest.skip(f"no {TABLES}")
    return TABLES / name


@pytest.mark.parametrize(
    ("name", "label", "rows", "features", "classes"),
    [
        ("pima.csv", -1, 768, 8, ("0", "1")),
        ("sonar.csv", -1, 208, 60, ("M", "R")),
        ("oil-spill.csv", -1, 937, 49, ("0", "1")),
        ("iris-rownames.csv", "Species", 150, 4, ("setosa", "versicolor", "virginica")),
    ],
)
def test_well_known_tables_of_numbers_are_read_whole(
    forked_hpo: Callable, name: str, label: Label, rows: int, features: int, classes: tuple
):
    path = shared(name)
    loaded = read(path, label)
    assert len(loaded.train_labels) + len(loaded.test_labels) == rows
    assert (columns(loaded), loaded.schema.classes) == (features, classes)
    said = forked_hpo("data", "get", str(path), "--label", str(label))
    assert said.code == 0, said.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "label"),
    [("pima", "-1"), ("sonar", "-1"), ("oil-spill", "-1"), ("iris-rownames", '"Species"')],
)
def test_well_known_tables_of_numbers_run(hpo: Callable, tmp_path: Path, name: str, label: str):
    path = shared(f"{name}.csv")
    (tmp_path / "s.toml").write_text(study(f'{{ file = "{path}", label = {label} }}'))
    answer = hpo("run", "s.toml", "--quiet")
    assert answer.code == 0, answer.err
    predicted = hpo("predict", "reports/s/best", str(path))
    labels = pd.read_csv(path, header=None if label == "-1" else 0).iloc[:, -1]
    found = share(predicted, labels)
    assert found > labels.value_counts(normalize=True).max() - 0.02, "better than a guess"
    assert says_accuracy(predicted, found)


@pytest.mark.parametrize(
    ("name", "label", "fed"),
    [
        ("titanic", "survived", 34), ("penguins", "species", 14),
        ("breast-cancer-wisconsin", "-1", 10), ("tips", "size", 12),
    ],
)  # fmt: skip
def test_well_known_tables_of_text_and_gaps_are_read(
    forked_hpo: Callable, name: str, label: str, fed: int
):
    answer = forked_hpo("data", "get", str(shared(f"{name}.csv")), "--label", label)
    assert f"fed as {fed} numbers" in answer.out, answer.err


@pytest.mark.parametrize(
    "name",
    [
        "titanic", "penguins", "mpg", "tips", "iris-rownames",
        "abalone", "pima", "sonar", "oil-spill", "breast-cancer-wisconsin", "auto-imports",
    ],
)  # fmt: skip
def test_well_known_tables_without_a_label_are_asked_for_it(forked_hpo: Callable, name: str):
    line = refusal(forked_hpo("data", "get", str(shared(f"{name}.csv"))))
    assert f"{name}.csv" in line
    assert "label = " in line


def test_a_test_part_of_another_unit_is_refused_or_said_aloud(tmp_path: Path, forked_hpo: Callable):
    csv(plants(), tmp_path / "a.csv")
    csv(plants(30).assign(petal=lambda of: of["petal"] * 1000), tmp_path / "large.csv")
    csv(plants(30).assign(petal=lambda of: of["petal"] / 1000), tmp_path / "small.csv")
    assert "petal" in refused(tmp_path / "a.csv", "label", tmp_path / "large.csv")
    assert read(tmp_path / "a.csv", "label", tmp_path / "small.csv").about["narrow"] == ["petal"]


def test_a_column_without_a_name_holds_no_labels_of_rows_to_predict(tmp_path: Path):
    """The index that pandas writes was compared with the classes, as their accuracy."""
    frame, arrays = plants(), tmp_path / "a.npz"
    x = frame.drop(columns="label")
    np.savez(arrays, x=x, y=np.arange(60) % 3)
    schema = data.load(Source(str(arrays)), Path()).schema
    found = inputs.read([csv(x, tmp_path / "b.csv", index=True)], schema)
    assert (found.labels, len(found.rows)) == (None, 60)


@pytest.mark.parametrize("rows", [2, 3, 6])
def test_a_table_of_too_few_rows_says_so(tmp_path: Path, forked_hpo: Callable, rows: int):
    """No row was left to test on, and a traceback said so."""
    csv(plants(rows), tmp_path / "a.csv")
    answer = forked_hpo("data", "get", "a.csv")
    assert answer.code == 2
    assert all(line.startswith("hpo: dataset 'a.csv': ") for line in answer.err.splitlines())


def test_a_gap_in_the_first_row_is_no_column_without_a_name(tmp_path: Path):
    """Of a file without a header, in a column that is ignored."""
    frame = plants().assign(more=np.where(np.arange(60) == 0, np.nan, 1.0))[["more", *plants()]]
    path = csv(frame, tmp_path / "a.csv", header=False)
    loaded = data.load(Source(str(path), label=-1, ignore=(0,)), Path())
    assert (columns(loaded), loaded.about["unnamed"], loaded.about["ignored"]) == (3, 0, ["0"])


def test_true_and_false_are_no_other_numbers(tmp_path: Path):
    frame = plants().assign(tall=np.arange(60) % 2 == 0)
    path, other = csv(frame, tmp_path / "a.csv"), tmp_path / "b.csv"
    csv(frame.assign(tall=frame["tall"].astype(int)), other)
    found = read(path, "label", other)
    assert {row.tobytes() for row in found.test_images} == {
        row.tobytes() for row in found.train_images
    }
    csv(frame.assign(tall=frame["tall"] + 1), other)
    assert "tall" in refused(path, "label", other)


def test_labels_with_zeros_in_front_are_text(tmp_path: Path):
    frame = plants().assign(label=np.array(["01", "1", "10"])[np.arange(60) % 3])
    assert read(csv(frame, tmp_path / "a.csv")).schema.classes == ("01", "1", "10")
    frame["label"] = np.array(["1", "2", "x"])[np.arange(60) % 3]
    path, other = csv(frame, tmp_path / "b.csv"), tmp_path / "c.csv"
    csv(frame[frame["label"] != "x"], other)
    with pytest.raises(InputError, match="no test example of class x"):
        read(path, test=other)


def test_pixels_are_put_in_order_by_their_names(tmp_path: Path):
    pixels = RNG.integers(0, 256, (30, 12 * 12))
    names = np.array([f"pixel{i}" for i in range(144)])
    mixed = RNG.permutation(144)
    frames = [
        pd.DataFrame(pixels[:, order], columns=names[order]) for order in (slice(None), mixed)
    ]
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    first, second = (
        read(csv(frame.assign(label=np.arange(30) % 3), path))
        for frame, path in zip(frames, paths, strict=True)
    )
    assert first.shape == second.shape == (12, 12)
    np.testing.assert_array_equal(first.train_images, second.train_images)


def test_whole_numbers_that_double_precision_does_not_hold_are_refused(tmp_path: Path):
    frame = plants()
    frame["petal"] = 2**62 + np.arange(60)[::-1]
    assert "petal" in refused(csv(frame, tmp_path / "a.csv"))


def test_a_file_without_a_header_that_may_lack_the_label_or_an_ignored_column_is_refused(
    tmp_path: Path,
):
    frame = plants().assign(more=np.arange(60) % 7)[["more", "petal", "sepal", "stem", "label"]]
    path = csv(frame, tmp_path / "a.csv", header=False)
    schema = data.load(Source(str(path), label=-1, ignore=(0,)), Path()).schema
    whole = inputs.read([path], schema)
    assert whole.labels is not None
    bare = inputs.read([csv(frame[["petal", "sepal", "stem"]], path, header=False)], schema)
    np.testing.assert_array_equal(bare.rows, whole.rows)
    csv(frame.drop(columns="label"), path, header=False)
    with pytest.raises(InputError, match="has 4 columns of features"):
        inputs.read([path], schema)


def test_a_test_part_without_names_is_refused_where_the_training_part_has_names(tmp_path: Path):
    frame, arrays = plants(), tmp_path / "b.npz"
    path = csv(frame, tmp_path / "a.csv")
    y = frame["label"].to_numpy(dtype=str)
    np.savez(arrays, x=frame[["sepal", "petal", "stem"]], y=y)
    assert "b.npz" in refused(path, "label", arrays)
    assert "a.csv" in refused(arrays, "label", path)
