"""The user's own data: read from all kinds of files, refused where it is wrong, and run whole."""

import json
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn import datasets as sklearn_datasets
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from hpo.data import catalog, files, inputs, readers
from hpo.data import datasets as data
from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.study.config import Config, Seeds
from hpo.study.source import Source
from hpo.training.evaluation import evaluate
from hpo.training.tensors import Examples, examples, split_rows
from hpo.training.train import train
from hpo.workers.worker import _recall

RNG = np.random.default_rng(0)
WINE = sklearn_datasets.load_wine()
DIGITS = sklearn_datasets.load_digits()


def read(path: Path, test: str = "", label: str | int = "") -> data.Dataset:
    loaded = files.load(Source(str(path), test, label))
    data.check(loaded)
    return loaded


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def table(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def wine_frame(label: str = "label") -> pd.DataFrame:
    frame = pd.DataFrame(WINE.data, columns=WINE.feature_names)
    return frame.assign(**{label: WINE.target_names[WINE.target]})


# --- what is read ------------------------------------------------------------------------------


def test_arrays_of_any_shape_with_a_test_part_and_names(tmp_path: Path):
    x = RNG.integers(0, 256, (60, 5, 4, 3), dtype=np.uint8)
    y = np.arange(60) % 3
    names = np.array(["ant", "bee", "cat"])
    path = npz(
        tmp_path / "a.npz", x=x[:45], y=y[:45], x_test=x[45:], y_test=y[45:], class_names=names
    )
    loaded = read(path)
    assert (loaded.name, loaded.schema.classes, loaded.shape) == ("a.npz", tuple(names), (5, 4, 3))
    assert loaded.stratified
    mean, std = x[:45].mean() / 255, x[:45].std() / 255
    assert loaded.schema.mean == pytest.approx(mean)
    assert loaded.schema.std == pytest.approx(std)
    expected = (x[45:].reshape(15, -1) / 255 - mean) / std
    np.testing.assert_allclose(loaded.test_images, expected, atol=1e-5)
    np.testing.assert_array_equal(loaded.test_labels, y[45:])


def test_without_a_test_part_a_fifth_of_each_class_is_held_out_by_a_fixed_seed(tmp_path: Path):
    y = np.repeat([3, 7, 9], [100, 50, 25])
    path = npz(tmp_path / "a.npz", x=RNG.normal(size=(175, 4)), y=y)
    loaded, again = read(path), read(path)
    assert loaded.schema.classes == ("3", "7", "9")
    assert np.bincount(loaded.test_labels).tolist() == [20, 10, 5]
    assert np.bincount(loaded.train_labels).tolist() == [80, 40, 20]
    np.testing.assert_array_equal(loaded.test_images, again.test_images)
    valid_rows = data.split(loaded, 5)[1]
    assert np.bincount(loaded.train_labels[valid_rows]).tolist() == [16, 8, 4]
    assert data.is_unbalanced(loaded)
    assert data.chance(loaded) == pytest.approx(80 / 140)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_table_is_read_by_its_column_of_labels_and_normalized_column_by_column(
    tmp_path: Path, suffix: str
):
    path = table(tmp_path / f"wine{suffix}", wine_frame("cultivar"))
    loaded = read(path, label="cultivar")
    assert loaded.schema.classes == ("class_0", "class_1", "class_2")
    assert (loaded.shape, loaded.schema.pixels) == ((13,), False)
    np.testing.assert_allclose(loaded.train_images.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(loaded.train_images.std(axis=0), 1, atol=1e-5)
    assert abs(loaded.test_images.mean(axis=0)).max() > 0.05, "the test part has no say in it"
    known = data.load("wine", tmp_path)
    np.testing.assert_allclose(loaded.train_images, known.train_images, atol=1e-5)


def test_a_table_with_semicolons_and_another_file_to_test_on(tmp_path: Path):
    frame = wine_frame("Class")
    frame[::2].to_csv(tmp_path / "a.csv", sep=";", index=False)
    frame[1::2].to_csv(tmp_path / "b.csv", sep="\t", index=False)
    loaded = read(tmp_path / "a.csv", test=str(tmp_path / "b.csv"))
    assert (len(loaded.train_labels), len(loaded.test_labels)) == (89, 89)


@pytest.mark.parametrize("header", ["none", "pixel", "grid"])
def test_mnists_csv_forms_are_pictures(tmp_path: Path, header: str):
    pixels = np.kron(DIGITS.images[:200] * 15, np.ones((4, 4)))[:, 2:30, 2:30].astype(int)
    pixels = pixels.reshape(200, -1)
    frame = pd.DataFrame(np.column_stack([DIGITS.target[:200], pixels]))
    names = {
        "pixel": [f"pixel{i}" for i in range(784)],
        "grid": [f"{i}x{j}" for i in range(1, 29) for j in range(1, 29)],
    }
    if header != "none":
        frame.columns = ["label", *names[header]]
    frame.to_csv(tmp_path / "m.csv", index=False, header=header != "none")
    loaded = read(tmp_path / "m.csv")
    assert (loaded.shape, loaded.schema.pixels, loaded.classes) == ((28, 28), True, 10)
    whole = np.sort(np.concatenate([loaded.train_images, loaded.test_images]).ravel())
    np.testing.assert_allclose(
        whole * loaded.schema.std + loaded.schema.mean, np.sort(pixels.ravel()) / 255, atol=1e-6
    )


@pytest.mark.parametrize("parts", [False, True])
def test_folders_of_images_are_classes_in_grey_or_in_colours(tmp_path: Path, parts: bool):
    for part in ("train", "test") if parts else ("",):
        for name, mode in (("moss", "RGB"), ("sand", "L")):
            folder = tmp_path / "p" / part / name
            folder.mkdir(parents=True)
            for number in range(8):
                shape = (6, 5, 3) if mode == "RGB" else (6, 5)
                pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
            (folder / "notes.txt").write_text("no picture")
    loaded = read(tmp_path / "p")
    assert (loaded.name, loaded.schema.classes, loaded.shape) == ("p", ("moss", "sand"), (6, 5, 3))
    assert len(loaded.test_labels) == (16 if parts else 4)


# --- what is refused ---------------------------------------------------------------------------

X, Y = RNG.normal(size=(30, 4)), np.arange(30) % 3


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("trapped"),)


WRONG_ARRAYS = {
    "no array y; it holds x": {"x": X},
    "no array y_test": {"x": X, "y": Y, "x_test": X},
    "holds 0 rows": {"x": X[:0], "y": Y[:0]},
    "labels are float64, such as 0; give whole numbers or text": {"x": X, "y": Y / 1.0},
    "x is nan in row 3": {"x": np.where(np.arange(30)[:, None] == 3, np.nan, X), "y": Y},
    "x is inf in row 0": {"x": X + np.inf, "y": Y},
    "30 rows of features, and labels of shape (29,)": {"x": X, "y": Y[1:]},
    "has the shape (30,)": {"x": X[:, 0], "y": Y},
    "x is of complex128": {"x": X + 1j, "y": Y},
    "labels of one class": {"x": X, "y": Y * 0},
    "class_names has 2 names": {"x": X, "y": Y, "class_names": np.array(["a", "b"])},
    "class '3' is in the test part": {
        "x": X, "y": Y.astype(str), "x_test": X, "y_test": (Y + 1).astype(str),
    },
    "no test example of class 2": {"x": X, "y": Y, "x_test": X[Y < 2], "y_test": Y[Y < 2]},
    "must be alike": {"x": X, "y": Y, "x_test": X[:, 1:], "y_test": Y},
    "2 training examples of class 9": {"x": X, "y": np.where(np.arange(30) < 3, 9, Y)},
    "never unpickled": {"x": X, "y": np.array([Trap() for _ in range(30)])},
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG_ARRAYS)
def test_wrong_arrays_get_one_line(tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = npz(tmp_path / "a.npz", **WRONG_ARRAYS[said])
    with pytest.raises(InputError) as caught:
        read(path)
    [line] = str(caught.value).splitlines()
    assert said in line
    assert not Path("trapped").exists()


WRONG_TABLES = {
    "holds 0 rows": "a,kind\n",
    "holds 0 rows; give": "",
    "column 'size' has 'big' in row 2, and 3 of 4 cells": "size,label\n1,1\n2,1\nbig,2\n4,2\n",
    "has no column 'kind'; there are a, b": "a,b\n1,2\n",
    "there are a, kin; did you mean 'kin'?": "a,kin\n1,2\n",
    "no row has a label in column 'kind'": "a,kind\n1,\n2,\n",
    "labels of one class": "a,kind\n1,x\n2,\n",
    "a value is inf in row 1, column 'a'": "a,kind\n1,x\ninf,y\n",
    "Expected 2 fields in line 3": "a,kind\n1,2\n1,2,3\n",
}


@pytest.mark.parametrize("said", WRONG_TABLES)
def test_wrong_tables_get_one_line(tmp_path: Path, said: str):
    (tmp_path / "a.csv").write_text(WRONG_TABLES[said])
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.csv", label="" if "size" in said else "kind")
    [line] = str(caught.value).splitlines()
    assert said in line


def test_a_table_without_a_usual_column_of_labels_says_how_to_name_it(tmp_path: Path):
    path = table(tmp_path / "w.csv", wine_frame("cultivar"))
    with pytest.raises(InputError, match=r'dataset = { file = "w.csv", label = … }'):
        read(path)


def packed(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_arrays_that_unpack_to_much_more_than_their_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """8 GB of zeros are a file of 8 MB. What is stored unpacked may have any size."""
    monkeypatch.setattr(readers, "MOST_UNPACKED", 10_000)
    x, y = RNG.integers(0, 9, (30, 300)).astype(np.uint8), np.arange(30) % 2
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y, x_test=x, y_test=y)
    for action in (read, lambda path: inputs.read([path], Schema(shape=(300,)))):
        with pytest.raises(InputError, match=r"a.npz: unpacks to more than .*; write it by numpy"):
            action(tmp_path / "a.npz")
    assert len(read(npz(tmp_path / "b.npz", x=x, y=y, x_test=x, y_test=y)).test_labels) == 30


def test_a_header_without_an_end_is_not_read_to_it(tmp_path: Path):
    """It may announce 4 GB, which are 4 MB in the file."""
    endless = b"\x93NUMPY\2\0" + (2**25 - 1).to_bytes(4, "little") + bytes(2**25)
    path = packed(tmp_path / "a.npz", x=endless)
    del endless
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"a.npz: cannot be read \(EOF: reading array header"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_thousands_of_arrays_are_refused_in_a_short_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = npz(tmp_path / "a.npz", **{f"a{i}": X[:1] for i in range(500)})
    with pytest.raises(InputError, match=r"it holds a0, a1, .* …") as caught:
        read(path)
    assert len(str(caught.value)) < 500
    monkeypatch.setattr(readers, "MOST_ARRAYS", 400)
    with pytest.raises(InputError, match=r"a\.npz: holds 500 arrays, the most is 400"):
        read(path)


def test_pictures_of_other_sizes_and_files_that_are_none_are_refused(tmp_path: Path):
    for name, side in (("a", 4), ("b", 5)):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / "p" / name / "0.png")
    with pytest.raises(InputError, match=r"b/0.png: has 5 × 5 pixels, and .*a/0.png has 4 × 4"):
        read(tmp_path / "p")
    (tmp_path / "p" / "b" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"b/0.png: is no file of images"):
        read(tmp_path / "p")
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Trap()))
    for path, said in (
        (tmp_path / "x.npz", "no .npz file"),
        (tmp_path / "y.csv", "cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            read(path)
    (tmp_path / "z.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "z.parquet")


# --- trained on --------------------------------------------------------------------------------


def test_a_table_is_learned_as_well_as_by_scikit_learn(tmp_path: Path):
    """On the same split, with the same network, optimizer, batches and epochs; over 5 seeds."""
    torch.set_num_threads(1)
    loaded = data.load("breast-cancer", tmp_path)
    config = Config(
        depth=2, width=32, activation="relu", optimizer="adam", lr=1e-3, batch_size=32, epochs=30
    )
    ours, theirs = [], []
    train_data = examples(loaded.train_images, loaded.train_labels, loaded.classes, "cpu")
    test_data = examples(loaded.test_images, loaded.test_labels, loaded.classes, "cpu")
    for seed in range(5):
        rows = split_rows(loaded, Seeds.of(seed))
        network = list(train(config, train_data, [rows], [Seeds.of(seed)]))[-1].network
        everywhere = np.arange(len(loaded.test_labels))
        _, accuracy, *_ = evaluate(network, test_data, torch.from_numpy(everywhere)[None])
        ours += accuracy
        sklearns = MLPClassifier(
            (32, 32), batch_size=32, max_iter=30, random_state=seed, alpha=0.0, n_iter_no_change=99
        )
        x, y = loaded.train_images[rows.train], loaded.train_labels[rows.train]
        with pytest.warns(UserWarning, match="Maximum iterations"), threadpool_limits(1):
            sklearns.fit(StandardScaler().fit_transform(x), y)
        scaled = StandardScaler().fit(x).transform(loaded.test_images)
        theirs.append(sklearns.score(scaled, loaded.test_labels))
    difference = np.array(ours) - theirs
    assert abs(difference.mean()) < 0.01, (np.mean(ours), np.mean(theirs))
    assert np.mean(ours) > 0.95


GRID = """
dataset = { file = "flowers.csv", label = "kind" }
seeds = 2
[base]
width = 16
activation = "relu"
optimizer = "adam"
lr = 1e-2
batch_size = 8
epochs = 15
[[cells]]
name = "shallow"
depth = 1
[[cells]]
name = "deep"
depth = 3
residual = true
norm = "layer"
"""
SEARCH = """
dataset = "flowers.npz"
[search]
n_trials = 4
[finalists]
k = 1
seeds = 2
[space]
depth = [1, 2]
width = 16
activation = "relu"
optimizer = "adam"
lr = { low = 1e-3, high = 1e-1, log = true }
batch_size = 8
epochs = 10
dropout = { low = 0.0, high = 0.3 }
norm = ["none", "batch"]
"""
NAMES = ["aster & co", "<iris>", "rose"]


@pytest.fixture
def flowers(tmp_path: Path) -> pd.DataFrame:
    """An unbalanced table of three classes, with names that have to be escaped."""
    iris = sklearn_datasets.load_iris()
    kept = np.r_[0:50, 50:80, 100:120]
    frame = pd.DataFrame(iris.data[kept], columns=iris.feature_names)
    return frame.assign(kind=np.array(NAMES)[iris.target[kept]])


def test_a_grid_on_a_table_goes_from_the_file_to_the_report(
    hpo: Callable, tmp_path: Path, flowers: pd.DataFrame
):
    (tmp_path / "at").mkdir()
    flowers.to_csv(tmp_path / "at" / "flowers.csv", index=False)
    (tmp_path / "at" / "mine.toml").write_text(GRID)
    answer = hpo("run", "at/mine.toml", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    trials = pd.read_csv(tmp_path / "reports/mine/trials.csv")
    assert (trials["test_accuracy"] > 0.8).all()
    text = (tmp_path / "reports/mine/report.md").read_text("utf-8")
    assert "flowers.csv" in text
    assert "aster & co" in text
    assert "Balanced accuracy (%)" in text
    provenance = json.loads((tmp_path / "reports/mine/provenance.json").read_text())
    assert provenance["dataset"]["classes"] == sorted(NAMES)
    (tmp_path / "at" / "flowers.csv").write_text(flowers[::2].to_csv(index=False))
    refused = hpo("run", "at/mine.toml")
    assert refused.code == 2
    assert "dataset checksum" in refused.err


def test_a_search_on_arrays_ends_in_a_network_that_predicts_rows(
    hpo: Callable, tmp_path: Path, flowers: pd.DataFrame
):
    x, y = flowers.drop(columns="kind").to_numpy(), flowers["kind"].to_numpy(dtype=str)
    np.savez(tmp_path / "flowers.npz", x=x, y=y)
    (tmp_path / "mine.toml").write_text(SEARCH)
    answer = hpo("run", "mine.toml", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    text = (tmp_path / "reports/mine/report.md").read_text("utf-8")
    assert "TABLE.csv" in text
    flowers.rename(columns={"kind": "label"}).to_csv(tmp_path / "new.csv", index=False)
    np.savez(tmp_path / "new.npz", rows=x)
    for name in ("new.csv", "new.npz"):
        predicted = hpo("predict", "reports/mine/best", name)
        assert predicted.code == 0
        assert ("accuracy: " in predicted.err) == (name == "new.csv")
        found = [line.split("\t")[1] for line in predicted.out.splitlines()]
        assert np.mean(np.array(found) == y) > 0.8
    program = text.split("```")[3].removeprefix("python")
    assert "tomllib" in program


def test_recall_and_balanced_accuracy_are_scikit_learns(tmp_path: Path):
    truth, predicted = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
    images = Examples(torch.zeros(200, 1), torch.from_numpy(truth), 4)
    found = _recall(torch.from_numpy(truth == predicted), images)
    assert found == pytest.approx(recall_score(truth, predicted, average=None))
    assert np.mean(found) == pytest.approx(balanced_accuracy_score(truth, predicted))


# --- only regular files ------------------------------------------------------------------------


@pytest.mark.parametrize("special", ["FIFO", "link to a FIFO", "/dev/zero"])
@pytest.mark.parametrize(
    "name", ["x.png", "x.npz", "x.csv", "x.csv.gz", "x.parquet", "x.idx", "p/b/9.png"]
)
def test_only_regular_files_are_read(tmp_path: Path, special: str, name: str, hpo: Callable):
    """A FIFO has no end, and /dev/zero neither; `hpo` ends a command that takes too long."""
    for number, letter in enumerate("aabb"):
        (tmp_path / "p" / letter).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "p" / letter / f"{number}.png")
    if special == "FIFO":
        os.mkfifo(tmp_path / name)
    else:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / name).symlink_to("/dev/zero" if special == "/dev/zero" else tmp_path / "fifo")
    asked = "./p" if name.startswith("p") else f"./{name}"
    answer = hpo("data", "get", asked, timeout=20)
    assert answer.code == 2
    assert "no regular file" in answer.err
    with pytest.raises(InputError, match="no regular file"):
        inputs.read([tmp_path / name], Schema())


def test_a_data_folder_of_fifos_lacks_its_files(tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in catalog.NAMES:
        os.mkfifo(raw / f"{name}.gz")
    assert data.loader("mnist").missing(tmp_path) == list(catalog.NAMES)
