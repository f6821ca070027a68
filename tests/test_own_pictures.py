"""One's own pictures and arrays: one decoder for training and for predict, their layout, and parts
that do not go together."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Answer, Ended
from own_runs import once, study
from PIL import Image
from sklearn import datasets as sklearn_datasets

from hpo.data import datasets as data
from hpo.data import inputs
from hpo.errors import InputError
from hpo.study.source import Source

RNG = np.random.default_rng(0)
SIDE = 8


def read(path: Path) -> data.Dataset:
    loaded = data.load(Source(str(path)), Path())
    data.check(loaded)
    return loaded


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def folder(path: Path, classes: dict[str, Sequence[bytes]], suffix: str = ".png") -> Path:
    """A folder of pictures, a folder a class."""
    for name, contents in classes.items():
        (path / name).mkdir(parents=True)
        for number, content in enumerate(contents):
            (path / name / f"{number}{suffix}").write_bytes(content)
    return path


def picture(shown: np.ndarray | Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    made = shown if isinstance(shown, Image.Image) else Image.fromarray(shown)
    made.save(file, kind, **options)
    return file.getvalue()


# --- the decoder of training -------------------------------------------------------------------

LEFT = np.arange(SIDE) < SIDE // 2
HALVES = np.where(LEFT, 51 + 10 * np.arange(SIDE)[:, None], 200).astype(np.uint8)
OPAQUE = np.tile(np.where(LEFT, 255, 0).astype(np.uint8), (SIDE, 1))
TRANSPARENT = {
    "grey and alpha": picture(Image.merge("LA", list(map(Image.fromarray, (HALVES, OPAQUE))))),
    "colour and alpha": picture(np.dstack([HALVES] * 3 + [OPAQUE])),
    "palette": picture(Image.fromarray(HALVES).convert("P"), transparency=200),
    "a grey of 8 bits": picture(HALVES, transparency=200),
    "a grey of 16 bits": picture(HALVES.astype(np.uint16) * 257, transparency=200 * 257),
}


def levels(loaded: data.Dataset) -> np.ndarray:
    """The different values that training is fed, in order."""
    return np.unique(loaded.train_images.round(4))


def normalized(pixels: np.ndarray) -> np.ndarray:
    """What these levels become if every picture is this one."""
    return np.unique(((pixels - pixels.mean()) / pixels.std()).round(4))


@pytest.mark.parametrize("way", TRANSPARENT)
def test_transparent_pixels_are_trained_on_as_black(tmp_path: Path, way: str):
    loaded = read(folder(tmp_path / "p", {name: [TRANSPARENT[way]] * 6 for name in "ab"}))
    expected = normalized(np.where(OPAQUE, HALVES, 0) / 255)
    np.testing.assert_allclose(levels(loaded), expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_16_bits_of_grey_are_all_trained_on(tmp_path: Path, kind: str):
    deep = (np.arange(SIDE * SIDE, dtype=np.uint16) * 1040).reshape(SIDE, SIDE)
    suffix = {"png": ".png", "tiff": ".tif", "ppm": ".pgm"}[kind]
    content = f"P5 {SIDE} {SIDE} 65535\n".encode() + deep.astype(">u2").tobytes()
    content = content if kind == "ppm" else picture(deep, kind)
    loaded = read(folder(tmp_path / "p", {name: [content] * 6 for name in "ab"}, suffix))
    np.testing.assert_allclose(levels(loaded), normalized(deep / 65_535), atol=1e-3)
    assert loaded.shape == (SIDE, SIDE)


# --- the decoder of predict is the same --------------------------------------------------------


def answers(answer: Answer) -> list[list[str]]:
    """Class and probability of each picture."""
    assert answer.code == 0, answer.err
    return [line.split("\t")[1:] for line in answer.out.splitlines()]


def classes(answer: Answer) -> list[str]:
    return [row[0] for row in answers(answer)]


def ghosts() -> dict[str, list[bytes]]:
    """Coloured pictures with a faint visible half; behind the transparent one stands the class in
    plain letters."""
    made = {}
    for number, name in enumerate(("north", "south")):
        made[name] = []
        for _ in range(20):
            pixels = RNG.integers(0, 60, (SIDE, SIDE, 4)).astype(np.uint8)
            pixels[number * 4 : number * 4 + 4, LEFT, :3] += 90
            pixels[:, ~LEFT, :3] = 250 * number
            pixels[..., 3] = OPAQUE
            made[name].append(picture(pixels))
    return made


@pytest.mark.slow  # what training is fed is tested above, what predict feeds in test_predict
def test_pictures_with_alpha_are_predicted_as_they_were_trained_on(
    hpo: Callable, tmp_path_factory: pytest.TempPathFactory
):
    def prepare(place: Path) -> None:
        folder(place / "ghosts", ghosts())
        (place / "alpha.toml").write_text(study('"./ghosts"'))

    ended = once(tmp_path_factory, "alpha", prepare)
    assert ended.answer.code == 0, ended.answer.err
    files = sorted((ended.folder / "ghosts").glob("*/*.png"))
    found = np.array(classes(hpo("predict", best(ended), *map(str, files))))
    assert np.mean(found == [file.parent.name for file in files]) > 0.9


def best(ended: Ended) -> str:
    [place] = ended.folder.glob("reports/*/best")
    return str(place)


def bars() -> tuple[np.ndarray, np.ndarray]:
    """60 pictures of 28 × 28 whole floats from 0 to 255, with a bar at one of three places."""
    rng, y = np.random.default_rng(1), np.arange(60) % 3
    x = rng.integers(0, 90, (60, 28, 28)).astype(np.float32)
    for row, place in zip(x, y, strict=True):
        row[9 * place : 9 * place + 9] += 165
    x[0, 0, 0] = 255
    return x, y


@pytest.fixture
def floats(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Trained on arrays of floats that are pictures."""

    def prepare(place: Path) -> None:
        x, y = bars()
        npz(place / "bars.npz", x=x, y=y)
        (place / "bars.toml").write_text(study('"bars.npz"'))

    ended = once(tmp_path_factory, "bars", prepare)
    assert ended.answer.code == 0, ended.answer.err
    return ended


def test_the_arrays_that_a_network_was_trained_on_are_predicted_right(hpo: Callable, floats: Ended):
    answer = hpo("predict", best(floats), str(floats.folder / "bars.npz"))
    assert np.mean(np.array(classes(answer)) == bars()[1].astype(str)) > 0.95


def test_floats_up_to_255_and_bytes_of_every_form_are_fed_alike(
    hpo: Callable, floats: Ended, tmp_path: Path
):
    x, _ = bars()
    pixels = x[:9].astype(np.uint8)
    npz(tmp_path / "floats.npz", x=x[:9])
    npz(tmp_path / "bytes.npz", x=pixels)
    sizes = b"".join(size.to_bytes(4, "big") for size in pixels.shape)
    (tmp_path / "bytes.idx").write_bytes(bytes((0, 0, 8, 3)) + sizes + pixels.tobytes())
    pictures = []
    for number, shown in enumerate(pixels):
        pictures.append(f"{number}.png")
        (tmp_path / pictures[-1]).write_bytes(picture(shown))
    for files in (["bytes.npz"], ["bytes.idx"], pictures):
        found = answers(hpo("predict", best(floats), "floats.npz", *files))
        assert found[9:] == found[:9], files


def test_digits_as_bytes_and_as_pictures_are_fed_as_they_were_trained_on(
    hpo: Callable, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
):
    def prepare(place: Path) -> None:
        (place / "sixteen.toml").write_text(study('"digits"').replace("= 12", "= 6"))

    ended = once(tmp_path_factory, "sixteen", prepare)
    assert ended.answer.code == 0, ended.answer.err
    x = sklearn_datasets.load_digits().images[:40] / 16
    pixels = (x * 255).round().astype(np.uint8)
    npz(tmp_path / "floats.npz", x=x)
    npz(tmp_path / "bytes.npz", x=pixels)
    pictures = []
    for number, shown in enumerate(pixels):
        pictures.append(f"{number}.png")
        (tmp_path / pictures[-1]).write_bytes(picture(shown))
    answer = hpo("predict", best(ended), "floats.npz", "bytes.npz", *pictures)
    shown, bytes_, floats_ = (answers(answer)[i : i + 40] for i in (80, 40, 0))
    assert bytes_ == shown
    assert [row[0] for row in bytes_] == [row[0] for row in floats_]


# --- layout ------------------------------------------------------------------------------------

COLOURS = """
dataset = "./squares"
model = "means:build"
seeds = 1
[base]
optimizer = "adam"
lr = 0.1
batch_size = 8
epochs = 12
[[cells]]
name = "means"
"""
MEANS = """
from torch import nn


class Means(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))  # of each colour


def build(shape, classes):
    assert shape == (3, 6, 4), shape
    return nn.Sequential(Means(), nn.Linear(3, classes))
"""


def test_a_network_of_ones_own_gets_colours_as_channels(hpo: Callable, tmp_path: Path):
    """Red and blue squares, which differ in their colours' means alone."""
    made = {}
    for name, channel in (("red", 0), ("blue", 2)):
        shown = np.zeros((20, 6, 4, 3), np.uint8)
        shown[..., channel] = RNG.integers(120, 255, (20, 1, 1))
        made[name] = [picture(each) for each in shown]
    folder(tmp_path / "squares", made)
    (tmp_path / "means.py").write_text(MEANS)
    (tmp_path / "colours.toml").write_text(COLOURS)
    answer = hpo("run", "colours.toml", "--quiet")
    assert answer.code == 0, answer.err
    [accuracy] = pd.read_csv(tmp_path / "reports/colours/trials.csv")["test_accuracy"]
    assert accuracy == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("colours", [3, 1])
def test_arrays_with_their_channels_first_are_the_same_pictures(
    tmp_path: Path, colours: int, dtype: type
):
    y = np.arange(30) % 3
    x = RNG.integers(0, 256, (30, 5, 4, colours)).astype(dtype)
    usual = read(npz(tmp_path / "a.npz", x=x if colours == 3 else x[..., 0], y=y))
    first = read(npz(tmp_path / "b.npz", x=x.transpose(0, 3, 1, 2), y=y))
    assert first.shape == usual.shape
    np.testing.assert_array_equal(first.train_images, usual.train_images)


def test_arrays_with_one_channel_last_are_grey_pictures(tmp_path: Path):
    y, x = np.arange(30) % 3, RNG.integers(0, 256, (30, 5, 4, 1)).astype(np.uint8)
    last = read(npz(tmp_path / "a.npz", x=x, y=y))
    grey = read(npz(tmp_path / "b.npz", x=x[..., 0], y=y))
    assert last.shape == grey.shape
    np.testing.assert_array_equal(last.train_images, grey.train_images)


# --- parts that do not go together -------------------------------------------------------------


def refused_for(path: Path, *names: str) -> bool:
    """Whether it is refused, in a line that has these names."""
    try:
        read(path)
    except InputError as error:
        [line] = str(error).replace(str(path.parent), "").splitlines()
        assert all(name in line for name in names), line
        return True
    return False


@pytest.mark.parametrize("of_bytes", ["x", "x_test"])
def test_bytes_beside_floats_up_to_one_are_scaled_alike_or_refused(tmp_path: Path, of_bytes: str):
    y, x = np.arange(90) % 3, RNG.integers(0, 256, (90, 6, 6)).astype(np.uint8)
    parts = {"x": x[:60], "x_test": x[60:]}
    made = {name: of if name == of_bytes else of / 255 for name, of in parts.items()}
    path = npz(tmp_path / "a.npz", **made, y=y[:60], y_test=y[60:])
    if not refused_for(path, "x_test"):
        assert read(path).test_images.std() == pytest.approx(1, abs=0.1)


def test_x_beside_x_train_is_refused(tmp_path: Path):
    y, x = np.arange(30) % 3, RNG.normal(size=(30, 4))
    path = npz(tmp_path / "a.npz", x=x, x_train=x + 1, y=y)
    assert refused_for(path, "x_train")
    path = npz(tmp_path / "a.npz", x=x, y=y, y_train=y[::-1])
    assert refused_for(path, "y_train")


@pytest.mark.parametrize("name", ["val", "valid"])
def test_a_validation_part_is_used_or_refused(tmp_path: Path, name: str):
    y, x = np.arange(60) % 3, RNG.normal(size=(60, 4))
    more = {f"x_{name}": x[40:], f"y_{name}": y[40:]}
    path = npz(tmp_path / "a.npz", x=x[:40], y=y[:40], **more)
    if not refused_for(path, f"x_{name}"):
        loaded = read(path)
        assert len(loaded.train_labels) + len(loaded.test_labels) == 60


def test_arrays_of_huge_values_are_used_or_refused(tmp_path: Path):
    y, x = np.arange(30) % 3, RNG.normal(size=(30, 4)) * 1e200
    path = npz(tmp_path / "a.npz", x=x, y=y)
    with np.errstate(over="ignore", invalid="ignore"):
        if not refused_for(path, "x"):
            np.testing.assert_allclose(read(path).train_images.std(axis=0), 1, atol=1e-3)


def test_names_of_classes_that_do_not_belong_to_the_labels_are_refused(tmp_path: Path):
    x = RNG.integers(0, 256, (30, 4, 4)).astype(np.uint8)
    for y, names in ((np.arange(30) % 2, ["a", "a"]), (np.array(["a", "b"] * 15), ["b", "a"])):
        path = npz(tmp_path / "a.npz", x=x, y=y, class_names=np.array(names))
        assert refused_for(path, "class_names")
    alpha = RNG.integers(0, 256, (30, 4, 5, 4)).astype(np.uint8)
    assert refused_for(npz(tmp_path / "a.npz", x=alpha, y=np.arange(30) % 2), "4 channels")


def test_names_of_classes_are_no_row_to_predict(tmp_path: Path):
    """A network of as many features as classes was given them, and refused its training file."""
    x, y, names = RNG.normal(size=(30, 3)), np.arange(30) % 3, np.array(["a", "b", "c"])
    path = npz(tmp_path / "a.npz", x=x, y=y, class_names=names)
    found = inputs.read([path], read(path).schema)
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, y)


def test_a_test_part_of_darker_pictures_is_said_aloud(tmp_path: Path):
    x = RNG.integers(0, 256, (60, 4, 4))
    y = np.arange(60) % 2
    parts = {"x": (x * 257).astype(np.uint16), "x_test": x, "y": y, "y_test": y}
    assert read(npz(tmp_path / "a.npz", **parts)).about["narrow"] == ["all values"]


def test_a_pixel_that_was_always_black_in_training_may_be_bright_later(tmp_path: Path):
    x = RNG.integers(0, 256, (60, 16)).astype(float)
    x[:30, :2] = 0, 1
    y = np.arange(30) % 2
    loaded = read(npz(tmp_path / "a.npz", x=x[:30], x_test=x[30:], y=y, y_test=y))
    assert len(loaded.test_labels) == 30
    assert refused_for(
        npz(tmp_path / "b.npz", x=x[:30], x_test=99 * x[30:], y=y, y_test=y), "range"
    )
