"""What training is fed and what `hpo predict` feeds for the same row are equal to the bit."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from hpo.data import datasets as data
from hpo.data import files, inputs
from hpo.data.schema import Schema
from hpo.export import winner
from hpo.model.weights import Normalized
from hpo.study.source import Source

FEW = settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
NAMES = st.lists(
    st.text("abcxyz 0123456789.-é", min_size=1, max_size=8).map(lambda name: f"c{name}".strip()),
    min_size=2, max_size=6, unique=True,
)  # fmt: skip
NUMBERS = st.floats(-1e12, 1e12, width=64)


def write(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep=";" if "semicolons" in path.name else ",")
    return path


def rows_of(loaded: data.Dataset) -> set[bytes]:
    """What networks of this dataset are fed, row by row."""
    fed = np.concatenate([loaded.train_images, loaded.test_images])
    return {row.tobytes() for row in fed}


def normalized(schema: Schema) -> Normalized:
    return Normalized(nn.Identity(), schema)


def by_onnx(schema: Schema, x: np.ndarray, path: Path) -> np.ndarray:
    """The rows that a network in an ONNX file is fed."""
    winner.write_onnx(normalized(schema), x, schema, path)
    session = onnxruntime.InferenceSession(str(path))
    about = json.loads(session.get_modelmeta().custom_metadata_map["hpo.input"])
    assert Schema.of(about) == schema
    return session.run(None, {"features": x})[0]


@FEW
@given(st.data())
def test_a_row_of_a_table_is_fed_alike_whatever_the_file(drawn: st.DataObject):
    names = drawn.draw(NAMES)
    rows = drawn.draw(st.lists(st.tuples(*[NUMBERS] * len(names)), min_size=30, max_size=40))
    frame = pd.DataFrame(rows, columns=names)
    assume((frame.iloc[3:] != frame.iloc[3]).any(axis=None))  # or the table is refused
    label = drawn.draw(
        st.sampled_from(["label", "Class", "kind", "y"]).filter(lambda n: n not in names)
    )
    frame[label] = [("ant", "bee", "cat")[i % 3] for i in range(len(frame))]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        kinds = drawn.draw(st.permutations(["a.csv", "b.parquet", "semicolons.csv", "c.csv.gz"]))
        loaded = files.load(Source(str(write(folder / kinds[0], frame)), label=label))
        order = drawn.draw(st.permutations(list(frame)))
        again = inputs.read([write(folder / kinds[1], frame[order])], loaded.schema)
        bare = inputs.read([write(folder / kinds[2], frame[names])], loaded.schema)
        np.savez(folder / "x.npz", x=frame[names].to_numpy())
        arrays = inputs.read([folder / "x.npz"], loaded.schema)
    np.testing.assert_array_equal(again.rows, bare.rows)
    np.testing.assert_array_equal(again.rows, arrays.rows)
    assert {row.tobytes() for row in again.rows} == rows_of(loaded)
    assert again.labels is not None
    assert [loaded.schema.classes[i] for i in again.labels] == list(frame[label])
    numbers = torch.from_numpy(frame[names].to_numpy(copy=True))
    np.testing.assert_array_equal(normalized(loaded.schema)(numbers).numpy(), again.rows)


@FEW
@given(st.integers(0, 2**32 - 1), st.sampled_from(["grey", "colours", "16 bits"]))
def test_a_picture_is_fed_alike_whatever_the_file(seed: int, kind: str):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(4, 8, 2))
    shape = (20, height, width, 3) if kind == "colours" else (20, height, width)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    deep = pixels.astype(np.uint16) * 257 if kind == "16 bits" else pixels
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for number, picture in enumerate(deep):
            place = folder / "p" / ("cat", "dog")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{number:02}.png")
        loaded = files.load(Source(str(folder / "p")))
        pngs = inputs.read(sorted((folder / "p").rglob("*.png")), loaded.schema)
        first = pixels if kind != "colours" else np.moveaxis(pixels, 3, 1)
        np.savez(folder / "x.npz", x=pixels)
        np.savez(folder / "first.npz", x=first, y=np.arange(20) % 2)
        arrays = inputs.read([folder / "x.npz"], loaded.schema)
        firsts = inputs.read([folder / "first.npz"], loaded.schema)
        trained = files.load(Source(str(folder / "first.npz")))
    assert {row.tobytes() for row in pngs.rows} == rows_of(loaded)
    assert {row.tobytes() for row in arrays.rows} == rows_of(loaded)
    np.testing.assert_array_equal(arrays.rows, firsts.rows)
    assert rows_of(trained) == rows_of(loaded)


def test_onnx_feeds_a_network_what_training_fed(tmp_path: Path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 5)) * 1e6 + 1e7, columns=list("abcde"))
    path = write(tmp_path / "a.csv", frame.assign(label=np.arange(40) % 2))
    loaded = files.load(Source(str(path)))
    fed = by_onnx(loaded.schema, frame.to_numpy(), tmp_path / "a.onnx")
    np.testing.assert_array_equal(fed, inputs.read([path], loaded.schema).rows)
    single = frame.to_numpy(np.float32).astype(float)
    assert not np.array_equal(fed, loaded.schema.normalized(single)), "float32 would change bits"
    pixels = rng.integers(0, 256, (10, 784), dtype=np.uint8)
    mnist = Schema(shape=(28, 28), mean=0.1307, std=0.3081)
    unit = pixels.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(
        by_onnx(mnist, unit, tmp_path / "b.onnx"), mnist.normalized(pixels)
    )


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_pictures_of_floats_take_png_in_their_own_unit(tmp_path: Path, white: float):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 5), dtype=np.uint8)
    pixels[0, 0, 0] = 255
    np.savez(tmp_path / "x.npz", x=pixels / (255 / white), y=np.arange(20) % 2)
    loaded = files.load(Source(str(tmp_path / "x.npz")))
    Image.fromarray(pixels[3]).save(tmp_path / "3.png")
    np.savez(tmp_path / "bytes.npz", x=pixels[3:4])
    expected = loaded.schema.normalized(pixels[3:4] / (255 / white))
    for name in ("3.png", "bytes.npz"):
        found = inputs.read([tmp_path / name], loaded.schema)
        np.testing.assert_array_equal(found.rows, expected)
