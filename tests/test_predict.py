"""hpo predict: a saved network's answers, images read from all kinds of files, slips in a line."""

import gzip
import io
import json
import math
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import Answer
from PIL import Image

from hpo import cli
from hpo.data import inputs
from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.model import folder as best
from hpo.model import folder as description
from hpo.model import weights as saved
from hpo.model.snippet import snippet
from hpo.study.config import Config, Seeds
from hpo.study.names import ACTIVATIONS
from hpo.training.evaluation import answers
from hpo.training.network import Network
from hpo.training.tensors import Examples
from hpo.workers.worker import _packed as packed

SIDE, FEATURES, CLASSES = 28, 784, 10
SCHEMA = Schema(shape=(SIDE, SIDE))  # which changes no pixel of 0 … 1
MEAN, DEVIATION = 0.1307, 0.3081
DIGITS = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
UNIT = DIGITS.reshape(3, FEATURES).astype(np.float32) / np.float32(255)
GREY = DIGITS[0]


def config(activation: str = "relu") -> Config:
    return Config(depth=2, width=16, activation=activation, optimizer="sgd", lr=0.1)


def network(activation: str = "relu", seeds: tuple[int, ...] = (0,)) -> Network:
    """With weights large enough that an activation's shape matters."""
    drawn = [Seeds.of(seed) for seed in seeds]
    made = Network(config(activation), FEATURES, CLASSES, drawn, torch.device("cpu"))
    made.layers.flat.mul_(2)
    return made


def normalized(pixels: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(pixels) - MEAN) / DEVIATION


ROWS = normalized(UNIT).numpy()


def logits_of(asked: Network, pixels: np.ndarray) -> torch.Tensor:
    """What hpo's own forward says to pixels of 0 … 1: (n, classes)."""
    rows = normalized(pixels)
    examples = Examples(rows, torch.zeros(len(rows), dtype=torch.int64))
    logits, _ = answers(asked, examples, torch.arange(len(rows))[None, None])
    return logits[0, 0].T


def write(folder: Path, asked: Network, **said: Any) -> Path:
    """A `best/` folder; what is said is said in its config.toml instead."""
    whole = {
        "study": "search",
        "dataset": "mnist",
        "features": FEATURES,
        "mean": MEAN,
        "deviation": DEVIATION,
        "config": config(asked.config.activation).as_dict(),
    }
    best.write(folder, packed(asked), {**whole, **said})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "best", network())


# --- files of images ---------------------------------------------------------------------------


def picture(shown: np.ndarray | Image.Image, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    made = shown if isinstance(shown, Image.Image) else Image.fromarray(shown)
    made.save(file, kind, **options)
    return file.getvalue()


def png_header(side: int) -> bytes:
    """The beginning of a PNG that announces such a size."""
    said = b"IHDR" + struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
    chunk = b"\0\0\0\x0d" + said + struct.pack(">I", zlib.crc32(said))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\xff\xffIDAT"


def idx(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    sizes = shape or array.shape
    return bytes((0, 0, 8, len(sizes))) + np.array(sizes, ">u4").tobytes() + array.tobytes()


def npz(compressed: bool = True, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def zipped(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(shape: tuple[int, ...], content: bytes = b"", dtype: str = "|u1") -> bytes:
    """An array's file whose header announces what it may not hold."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def read(path: Path, content: bytes, invert: bool = False, features: int = FEATURES) -> np.ndarray:
    path.write_bytes(content)
    side = math.isqrt(features)
    shape = (side, side) if side**2 == features else ()
    return inputs.read([path], Schema(shape=shape or (features,)), invert=invert).rows


# --- the network -------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_saved_network_answers_as_it_did_before(tmp_path: Path, activation: str):
    asked = network(activation)
    loaded = saved.load(write(tmp_path, asked))
    assert loaded.description.config == config(activation)
    found = loaded.answers(ROWS)
    expected = logits_of(asked, UNIT).softmax(1).numpy()
    assert found.shape == (3, CLASSES)
    assert expected.max() - expected.min() > 0.05
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_only_the_first_of_a_stack_is_packed(tmp_path: Path):
    stack = saved.load(write(tmp_path / "stack", network(seeds=(0, 1))))
    alone = saved.load(write(tmp_path / "alone", network(seeds=(0,))))
    np.testing.assert_array_equal(*(of.answers(ROWS) for of in (stack, alone)))


def test_many_images_are_answered_as_each_alone(folder: Path):
    loaded = saved.load(folder)
    many = np.resize(UNIT, (saved.CHUNK + 2, FEATURES))
    found, few = map(loaded.answers, (normalized(many).numpy(), ROWS))
    np.testing.assert_allclose(found, np.resize(few, (len(many), CLASSES)), rtol=1e-4)


def test_snippet_gives_the_networks_own_logits_without_hpo(tmp_path: Path):
    """Of every activation, from a folder whose name has quotes in it."""
    program = ["import json, sys, torch", "found = []"]
    for activation in ACTIVATIONS:
        place = write(tmp_path / f'it\'s "{activation}"', network(activation))
        text = snippet(str(place), description.read(place))
        program += [text, "found.append([images.tolist(), logits.tolist()])"]
    program += ["print(json.dumps([found, 'hpo' in sys.modules]))"]
    command = [sys.executable, "-P", "-W", "error", "-c", "\n".join(program)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    found, knows_hpo = json.loads(ended.stdout.splitlines()[-1])
    assert not knows_hpo
    for activation, (shown, logits) in zip(ACTIVATIONS, found, strict=True):
        expected = logits_of(network(activation), np.array(shown, np.float32))
        torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-4, atol=1e-5)


# --- reading -----------------------------------------------------------------------------------

DEEP = GREY.astype(np.uint16) * 257
LEVELS = np.random.default_rng(1).permutation(256).astype(np.uint8)  # the grey of each colour


def in_palette() -> Image.Image:
    made = Image.fromarray(np.argsort(LEVELS).astype(np.uint8)[GREY])
    made.putpalette(np.repeat(LEVELS, 3).tobytes())
    return made


ALIKE = {
    "png": picture(GREY),
    "png in colour": picture(np.stack([GREY] * 3, 2)),
    "png, opaque": picture(np.dstack([GREY] * 3 + [np.full_like(GREY, 255)])),
    "png of 16 bits": picture(DEEP),
    "png in palette": picture(in_palette()),
    "tiff": picture(GREY, "tiff"),
    "tiff of floats": picture(UNIT[0].reshape(SIDE, SIDE), "tiff"),
    "gif": picture(GREY, "gif"),
    "pgm of 16 bits": b"P5 28 28 65535\n" + DEEP.astype(">u2").tobytes(),
    "idx": idx(DIGITS[:1]),
    "idx.gz": gzip.compress(idx(DIGITS[:1])),
    "npz": npz(a=GREY),
    "npz, plain": npz(compressed=False, a=GREY),
    "npz, flat": npz(a=GREY.reshape(-1)),
    "npz, a row": npz(a=GREY.reshape(1, -1)),
    "npz, a stack of one": npz(a=GREY[None]),
    "npz, a channel": npz(a=GREY[None, None]),
    "npz, a channel at the end": npz(a=GREY[:, :, None]),
    "npz of floats": npz(a=UNIT[0]),
    "npz of doubles, big-endian": npz(a=(GREY / 255).astype(">f8")),
    "npz, columns first": npz(a=np.asfortranarray(GREY)),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_the_same_pixels_come_from_every_kind_of_file(tmp_path: Path, kind: str):
    """The name of the file has no part in it."""
    found = read(tmp_path / "anything", ALIKE[kind])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, UNIT[:1], atol=1e-7)
    inverted = read(tmp_path / "anything", ALIKE[kind], invert=True)
    np.testing.assert_allclose(inverted, 1 - UNIT[:1], atol=1e-6)


@pytest.mark.parametrize("content", [idx(DIGITS), npz(a=DIGITS), npz(a=UNIT)])
def test_images_of_a_file_come_in_order(tmp_path: Path, content: bytes):
    np.testing.assert_array_equal(read(tmp_path / "x", content), UNIT)


def test_all_arrays_of_images_are_taken_and_labels_passed_over(tmp_path: Path):
    labels = np.arange(3, dtype=np.uint8)
    content = npz(x_train=DIGITS[:2], y_train=labels, x_test=DIGITS[2], names=np.array(["a", "b"]))
    np.testing.assert_array_equal(read(tmp_path / "x", content), UNIT)


def test_colour_becomes_grey_by_its_brightness(tmp_path: Path):
    colours = np.zeros((SIDE, SIDE, 3), np.uint8)
    colours[0, :3] = 255 * np.eye(3)
    found = read(tmp_path / "x", picture(colours))
    np.testing.assert_allclose(found[0, :3], [0.299, 0.587, 0.114], atol=0.003)
    assert (found[0, 3:] == 0).all()


# Opaque grey on the left, transparent on the right, in four ways.
LEFT = np.arange(SIDE) < SIDE // 2
HALVES = np.tile(np.where(LEFT, 51, 200).astype(np.uint8), (SIDE, 1))
OPAQUE = np.tile(np.where(LEFT, 255, 0).astype(np.uint8), (SIDE, 1))
TRANSPARENT = {
    "grey and alpha": picture(Image.merge("LA", list(map(Image.fromarray, (HALVES, OPAQUE))))),
    "colour and alpha": picture(np.dstack([HALVES] * 3 + [OPAQUE])),
    "palette": picture(Image.fromarray(HALVES).convert("P"), transparency=200),
    "a grey of 8 bits": picture(HALVES, transparency=200),
    "a grey of 16 bits": picture(HALVES.astype(np.uint16) * 257, transparency=200 * 257),
}


@pytest.mark.parametrize("way", TRANSPARENT)
@pytest.mark.parametrize(("invert", "left"), [(False, 0.2), (True, 0.8)])
def test_what_is_transparent_becomes_black(tmp_path: Path, way: str, invert: bool, left: float):
    found = read(tmp_path / "x", TRANSPARENT[way], invert=invert)
    expected = np.tile(np.where(LEFT, left, 0), (SIDE, 1)).reshape(1, FEATURES)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_half_transparent_is_half_as_bright(tmp_path: Path):
    half = np.full((SIDE, SIDE, 4), 255, np.uint8)
    half[..., 3] = 128
    found = read(tmp_path / "x", picture(half))
    np.testing.assert_allclose(found, 128 / 255, atol=0.01)


def test_large_picture_is_scaled_down_over_all_its_pixels(tmp_path: Path):
    """Stripes finer than the network's pixels become grey and do not flicker."""
    stripes = np.zeros((280, 560), np.uint8)
    stripes[:, ::2] = 255
    found = read(tmp_path / "x", picture(stripes)).reshape(SIDE, SIDE)
    np.testing.assert_allclose(found[:, 1:-1], 0.5, atol=0.02)


def test_enlarged_picture_is_the_small_one_again(tmp_path: Path):
    smooth = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8) * 4
    large = picture(np.kron(smooth, np.ones((8, 8), np.uint8)))
    found = read(tmp_path / "x", large).reshape(SIDE, SIDE)
    np.testing.assert_allclose(found[1:-1, 1:-1], smooth[1:-1, 1:-1] / 255, atol=0.01)
    small = read(tmp_path / "x", picture(smooth[::2, ::2]))
    assert small.shape == (1, FEATURES)
    assert 0 <= small.min() < small.max() <= 1


def test_photo_is_turned_as_its_camera_was_held(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = read(tmp_path / "x", picture(GREY, exif=exif))
    np.testing.assert_array_equal(found, UNIT[:1, ::-1])


def test_network_of_no_square_takes_arrays_alone(tmp_path: Path):
    rows = np.random.default_rng(0).random((2, 12)).astype(np.float32)
    np.testing.assert_array_equal(read(tmp_path / "x", npz(a=rows), features=12), rows)
    for content in (picture(GREY), idx(DIGITS)):
        with pytest.raises(InputError, match=r"no picture; give .* an \.npz .* \(n, 12\)"):
            read(tmp_path / "x", content, features=12)


def test_images_of_several_files_are_named_in_order(tmp_path: Path):
    one, many = tmp_path / "one.png", tmp_path / "many.idx"
    one.write_bytes(picture(GREY))
    many.write_bytes(idx(DIGITS))
    found = inputs.read([many, one], SCHEMA)
    assert found.names == [f"{many}[0]", f"{many}[1]", f"{many}[2]", str(one)]
    np.testing.assert_array_equal(found.rows, UNIT[[0, 1, 2, 0]])


# --- files that are refused --------------------------------------------------------------------

NOISE = picture(GREY)
HUGE = (2**32 - 1, SIDE, SIDE)
OVERLONG = (2**40, SIDE, SIDE)
UNCLEAR = "cannot be read ("

REFUSED = {
    "empty": (b"", "is no file of images; give "),
    "text": (b"no image at all\n" * 9, "is no file of images"),
    "pickle": (pickle.dumps(GREY), "is no file of images"),
    "npy": (npy((SIDE, SIDE), GREY.tobytes()), "is no file of images"),
    "png, half": (NOISE[: len(NOISE) // 2], UNCLEAR),
    "png, a byte wrong": (NOISE[:200] + bytes([NOISE[200] ^ 255]) + NOISE[201:], UNCLEAR),
    "png, too large": (png_header(10_000), "too many pixels; scale it"),
    "png, far too large": (png_header(2**31 - 1), "too many pixels; scale it"),
    "tiff, half": (picture(GREY, "tiff")[:500], UNCLEAR),
    "tiff, header alone": (picture(GREY, "tiff")[:30], "is no file of images"),
    "tiff of 32 bits": (picture(GREY.astype(np.int32) * 2**20, "tiff"), "more than 16 bits"),
    "tiff, negative": (picture(-GREY.astype(np.int32), "tiff"), "more than 16 bits"),
    "tiff of large floats": (picture(GREY.astype(np.float32), "tiff"), "not between 0 and 1"),
    "idx of labels": (idx(np.zeros(20, np.uint8)), "labels?); give an idx3 file"),
    "idx of few labels": (idx(np.zeros(1, np.uint8)), "labels?); give an idx3 file"),
    "idx of labels.gz": (gzip.compress(idx(np.zeros(20, np.uint8))), "give an idx3 file"),
    "idx of 4 dimensions": (idx(DIGITS[None]), "give an idx3 file"),
    "idx of floats": (b"\0\0\x0d\3" + idx(DIGITS)[4:], "holds no IDX file of bytes"),
    "idx, header alone": (idx(DIGITS)[:9], "is cut off"),
    "idx, short": (idx(DIGITS)[:-1], "not hold the 3 examples that it announces"),
    "idx, long": (idx(DIGITS) + b"\0", "not hold the 3 examples that it announces"),
    "idx, huge": (idx(DIGITS, HUGE), "announces 3,367,254,359,280 numbers"),
    "idx, of none": (idx(DIGITS[:0]), "holds no images"),
    "idx, other size": (idx(np.zeros((1, 14, 56), np.uint8)), "14 × 56 pixels, and the network"),
    "gz of text": (gzip.compress(b"text"), "no IDX file of bytes"),
    "gz, cut off": (gzip.compress(idx(DIGITS))[:-99], UNCLEAR),
    "gz, no end": (gzip.compress(idx(DIGITS))[:-4], UNCLEAR),
    "gz, checksum": (gzip.compress(idx(DIGITS))[:-8] + b"12345678", UNCLEAR),
    "gz, bomb": (gzip.compress(idx(DIGITS) + bytes(10**7)), "not hold the 3 examples"),
    "zip, cut off": (npz(a=DIGITS)[:-99], "is no .npz file or damaged"),
    "zip, head alone": (b"PK\3\4", "is no .npz file or damaged"),
    "zip of text": (zipped(a=b"text"), UNCLEAR),
    "zip, other method": (zipped(zipfile.ZIP_BZIP2, a=npy((784,), GREY.tobytes())), "savez"),
    "zip, checksum": (npz(False, a=GREY).replace(GREY[9].tobytes(), GREY[8].tobytes()), UNCLEAR),
    "npz of nothing": (npz(), "(n, 784) or (n, 28, 28), but no array"),
    "npz of labels": (npz(y=np.zeros(5, int), n=np.array("a")), "(n, 28, 28), but (5,), ()"),
    "npz, channels": (npz(a=np.zeros((3, 2, SIDE, SIDE))), "(n, 28, 28), but (3, 2, 28, 28)"),
    "npz of none": (npz(a=np.zeros((0, FEATURES))), "holds no images"),
    "npz of objects": (npz(a=np.array([None] * FEATURES)), "'a' is of object: it holds"),
    "npz of integers": (npz(a=np.zeros(FEATURES, int)), "'a' is of int64; give uint8 of 0"),
    "npz of text": (npz(a=np.array(["x"] * FEATURES)), "'a' is of str32; give uint8 of 0"),
    "npz of complex": (npz(a=np.zeros(FEATURES, complex)), "'a' is of complex128; give uint8"),
    "npz with NaN": (npz(a=np.where(GREY > 9, UNIT[0].reshape(28, 28), np.nan)), "0 and 1; give"),
    "npz with infinity": (npz(a=np.full(FEATURES, np.inf)), "not between 0 and 1; give uint8"),
    "npz, values to 255": (npz(a=GREY.astype(float)), "not between 0 and 1; give uint8"),
    "npz, values below 0": (npz(a=UNIT - 0.5), "not between 0 and 1; give uint8"),
    "npz, huge": (zipped(a=npy(OVERLONG)), "announces 862,017,116,176,384 numbers"),
    "npz, short": (zipped(a=npy((2, 784), bytes(784))), "'a' is damaged: not as long as it"),
    "npz, long": (zipped(a=npy((784,), bytes(785))), "'a' is damaged: not as long as it"),
    "npz, less than none": (zipped(a=npy((-1, 784), bytes(784))), "'a' is damaged: not as long"),
}  # fmt: skip


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", REFUSED)
def test_file_without_sound_images_is_refused_in_a_line(tmp_path: Path, kind: str):
    content, said = REFUSED[kind]
    path = tmp_path / "x"
    with pytest.raises(InputError) as refused:
        read(path, content)
    [line] = str(refused.value).splitlines()
    assert line.startswith(f"{path}: ")
    assert said in line
    assert "; " in line, "a remedy"
    assert "read ()" not in line, "a reason"


def test_nothing_is_unpickled(tmp_path: Path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)] * FEATURES)
    for content in (npz(a=trap), pickle.dumps(Trap(sprung))):
        with pytest.raises(InputError):
            read(tmp_path / "x", content)
    assert not sprung.exists()
    np.load(tmp_path / "x", allow_pickle=True)
    assert sprung.is_dir(), "the trap works"


def test_every_faulty_file_has_its_line(tmp_path: Path):
    good, empty, missing = tmp_path / "good.png", tmp_path / "empty.png", tmp_path / "missing.png"
    good.write_bytes(picture(GREY))
    empty.touch()
    with pytest.raises(InputError) as refused:
        inputs.read([missing, good, empty, tmp_path], SCHEMA)
    first, second, third = str(refused.value).splitlines()
    assert first.startswith(f"{missing}: cannot be read (No such file or directory); ")
    assert second.startswith(f"{empty}: is no file of images; ")
    assert third.startswith(f"{tmp_path}: cannot be read (Is a directory); ")


# --- folders that are refused ------------------------------------------------------------------

CONFIG = config().as_dict()
WRONG_CONFIGS = {
    "features: Input should be a valid integer": {"features": 784.0},
    "features: Input should be greater than or equal to 1": {"features": 0},
    "deviation: Input should be a valid number": {"deviation": "0.3"},
    "mean: Input should be a valid number; dataset: Input should be a valid string": {
        "mean": True,
        "dataset": 3,
    },
    "mean: Input should be a finite number": {"mean": float("nan")},
    "deviation: Input should be greater than or equal to": {"deviation": 0.0},
    "deviation: Input should be greater": {"deviation": 1e-300},
    "deviation: Input should be less": {"deviation": 1e300},
    "deviation: Input should be a finite number": {"deviation": float("inf")},
    "mean: Input should be less than or equal to": {"mean": 1e300},
    "mean, columns, shape: does not belong to 784 features": {"mean": [0.0], "columns": ["a"]},
    "shape: does not belong to 784 features": {"shape": [3, 3]},
    "classes: List should have at least 2 items": {"classes": ["a"]},
    "low: Input should be a valid number": {"low": "x"},
    "kinds.0: Input should be 'int'": {"kinds": [3]},
    "weights: Input should be a valid string": {"weights": 3},
    "config: was not written by hpo (no table)": {"config": 3},
    "(missing: lr; unknown: 'rate')": {
        "config": {"rate" if name == "lr" else name: value for name, value in CONFIG.items()}
    },
    "activation: must be one of sigmoid": {"config": {**CONFIG, "activation": "softsign"}},
    "width: must be a whole number": {"config": {**CONFIG, "width": 16.5}},
    "depth: must be between 1 and 100": {"config": {**CONFIG, "depth": 0}},
    "nesterov: needs": {"config": {**CONFIG, "nesterov": True}},
}


def assert_no_network(folder: Path, name: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        saved.load(folder)
    [line] = str(refused.value).splitlines()
    assert line.startswith(f"{folder / name}: ")
    assert said in line
    assert line.endswith("; give the `best` folder of a search's report")


@pytest.mark.parametrize("said", WRONG_CONFIGS)
def test_wrong_description_is_refused(tmp_path: Path, said: str):
    assert_no_network(write(tmp_path, network(), **WRONG_CONFIGS[said]), "config.toml", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"features = ", "is not valid TOML: "),
        (b"\xff", "is not valid TOML: "),
        (b"a = " + b"[" * 9_999, "is not valid TOML: "),
        (b"", "was not written by hpo (features: is missing; mean: is missing; "),
        (None, "cannot be read (No such file or directory)"),
    ],
    ids=["malformed", "no text", "deep", "empty", "missing"],
)
def test_damaged_description_is_refused(folder: Path, content: bytes | None, said: str):
    path = folder / "config.toml"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert_no_network(folder, "config.toml", said)


def weights(**changed: torch.Tensor | None) -> bytes:
    """The network's file with other tensors under some names, or without them."""
    state = {**network().state_dict(), **{n.replace("_", "."): t for n, t in changed.items()}}
    return safetensors.torch.save({name: t for name, t in state.items() if t is not None})


MODEL = weights()
WRONG_MODELS = {
    "missing": (None, "is missing or damaged ("),
    "empty": (b"", "is missing or damaged ("),
    "text": (b"hello " * 99, "is missing or damaged ("),
    "cut off": (MODEL[:-1], "is missing or damaged ("),
    "longer": (MODEL + b"\0", "is missing or damaged ("),
    "pickle": (pickle.dumps({"0.weight": UNIT}), "is missing or damaged ("),
    "a layer less": (
        weights(**{"4_weight": None, "4_bias": None}),
        "('4.bias': nothing, not (10,) F32)",
    ),
    "a layer more": (weights(**{"6_bias": torch.zeros(3)}), "('6.bias': (3,) F32, not nothing)"),
    "other names": (
        safetensors.torch.save({f"net.{n}": t for n, t in network().state_dict().items()}),
        "('0.bias': nothing, not (16,) F32)",
    ),
    "another width": (
        weights(**{"0_weight": torch.zeros(17, FEATURES)}),
        "('0.weight': (17, 784) F32, not (16, 784) F32)",
    ),
    "transposed": (weights(**{"0_weight": torch.zeros(FEATURES, 16)}), "(784, 16) F32, not (16"),
    "another type": (weights(**{"0_bias": torch.zeros(16).half()}), "(16,) F16, not (16,) F32"),
    "integers": (weights(**{"4_bias": torch.zeros(10).int()}), "('4.bias': (10,) I32, not"),
    "not a number": (weights(**{"4_bias": torch.full((10,), torch.nan)}), "are numbers; "),
    "infinity": (weights(**{"4_bias": torch.full((10,), torch.inf)}), "are numbers; "),
}


@pytest.mark.parametrize("kind", WRONG_MODELS)
def test_wrong_model_is_refused(folder: Path, kind: str):
    content, said = WRONG_MODELS[kind]
    path = folder / "model.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert_no_network(folder, "model.safetensors", said)


def test_description_of_a_giant_is_refused_before_it_takes_the_machine(tmp_path: Path):
    giant = {**CONFIG, "depth": 100, "width": 65_536}
    place = write(tmp_path, network(), config=giant, features=10_000_000)
    assert_no_network(place, "model.safetensors", "is not the network that config.toml describes")


@pytest.mark.parametrize("name", ["config.toml", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to nothing"])
def test_what_is_no_file_is_no_network_and_does_not_hang(folder: Path, name: str, kind: str):
    (folder / name).unlink()
    make = {"pipe": os.mkfifo, "folder": os.mkdir}.get(kind)
    target = "/dev/zero" if kind == "device" else "/nowhere"
    make(folder / name) if make else (folder / name).symlink_to(target)

    def hangs(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(5)
    try:
        with pytest.raises(InputError, match=re.escape(f"{folder / name}: ")):
            saved.load(folder)
        assert not best.holds_winner(folder, {"dataset": "mnist"})
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("stored", "held"), [("0.0", True), ("0.9", True), (None, True), ("0.5", False)]
)
def test_a_saved_winner_has_the_momentum_of_its_optimizer(
    tmp_path: Path, stored: str | None, held: bool
):
    """Folders of earlier versions say 0, which stands for the optimizer's own."""
    config = {**CONFIG, "optimizer": "sgd_momentum", "momentum": 0.0}
    used = best.used(config)
    assert used == {**config, "momentum": 0.9}
    assert best.used({**config, "momentum": 0.5})["momentum"] == 0.5
    assert best.used({"optimizer": "adam"}) == {"optimizer": "adam"}
    content = {"dataset": "mnist", "config": used}
    best.write(tmp_path, b"weights", content)
    path = tmp_path / "config.toml"
    line = "" if stored is None else f"momentum = {stored}"
    path.write_text(path.read_text().replace("momentum = 0.9", line))
    assert best.holds_winner(tmp_path, content) == held


def test_a_network_that_gives_no_numbers_is_refused(folder: Path):
    """Its weights are numbers, and their sums are none."""
    (folder / "model.safetensors").write_bytes(
        safetensors.torch.save({n: t.sign() * 3e38 for n, t in network().state_dict().items()})
    )
    said = (folder / "config.toml").read_text().splitlines()
    (folder / "config.toml").write_text("\n".join(s for s in said if not s.startswith("weights")))
    with pytest.raises(InputError, match="gives no numbers for these examples"):
        saved.load(folder).answers(ROWS)


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def predict(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Answer]:
    """hpo predict in this process."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.delenv("HPO_DEBUG", raising=False)

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["hpo", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = map(os.fsdecode, capfdbinary.readouterr())
        return Answer(int(str(ended.value.code)), out, err)

    return run


def lines_of(names: list[str], pixels: np.ndarray) -> str:
    answer = logits_of(network(), pixels).softmax(1)
    rows = zip(names, answer.argmax(1), answer.amax(1), strict=True)
    return "".join(f"{name}\t{found}\t{probability:.4f}\n" for name, found, probability in rows)


def test_predict_prints_path_class_and_probability(
    predict: Callable[..., Answer],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Paths as they were given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.png").write_bytes(picture(GREY))
    (tmp_path / "many.gz").write_bytes(gzip.compress(idx(DIGITS)))
    answer = predict(folder.name, "many.gz", "./one.png")
    assert (answer.code, answer.err) == (0, "")
    names = ["many.gz[0]", "many.gz[1]", "many.gz[2]", "one.png"]
    assert answer.out == lines_of(names, UNIT[[0, 1, 2, 0]])


def test_inverted_images_are_classified_as_their_negatives(
    predict: Callable[..., Answer], folder: Path, tmp_path: Path
):
    path = tmp_path / "x.npz"
    path.write_bytes(npz(a=255 - DIGITS))
    answer = predict("--invert", folder, path)
    assert answer.out == lines_of([f"{path}[{i}]" for i in range(3)], UNIT)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are Unicode")
def test_path_of_any_bytes_is_printed_as_it_is(
    predict: Callable[..., Answer], folder: Path, tmp_path: Path
):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    path.write_bytes(picture(GREY))
    answer = predict(folder, path)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == lines_of([str(path)], UNIT[:1])


def test_nothing_is_printed_where_a_file_is_at_fault(
    predict: Callable[..., Answer], folder: Path, tmp_path: Path
):
    good = tmp_path / "good.png"
    good.write_bytes(picture(GREY))
    answer = predict(folder, good, tmp_path / "a.png", good, tmp_path / "b.png")
    assert (answer.code, answer.out) == (2, "")
    starts = [f"hpo: {tmp_path / name}: cannot be read (No such" for name in ("a.png", "b.png")]
    for line, start in zip(answer.err.splitlines(), starts, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize("lacking", ["config.toml", "model.safetensors"])
def test_folder_without_a_network_is_refused_in_a_line(
    predict: Callable[..., Answer], folder: Path, tmp_path: Path, lacking: str
):
    path = tmp_path / "x.png"
    path.write_bytes(picture(GREY))
    (folder / lacking).unlink()
    answer = predict(folder, path)
    assert (answer.code, answer.out) == (2, "")
    [line] = answer.err.splitlines()
    assert line.startswith(f"hpo: {folder / lacking}: ")


def test_predict_wants_images(predict: Callable[..., Answer], folder: Path):
    answer = predict(folder)
    assert (answer.code, answer.out) == (2, "")
    [line] = answer.err.splitlines()
    assert "FILE" in line


def test_slips_are_found_without_loading_torch(folder: Path, tmp_path: Path):
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'optuna' in sys.modules))\n"
        "from hpo.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", program, "predict", str(folder), str(tmp_path / "none.png")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stdout == "False False\n"


def test_a_row_without_a_label_is_said_beside_the_accuracy():
    given: Any = SimpleNamespace(labels=np.array([0, 1, -1]))
    said = inputs.accuracy_text(given, np.array([0, 1, 1]))
    without = "1 without a label, or with one that is no class here"
    assert said == f"accuracy: 100.00% (2 of 2 labels; {without})"
