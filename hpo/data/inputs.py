"""Files for a trained network: read as its training data were, and fed by its schema."""

import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data import readers
from hpo.data.readers import REMEDY, Table, named_errors
from hpo.data.schema import Array, Floats, Schema, brief_names, is_picture
from hpo.data.tables import NO_LABELS, NUMBER, Part, as_pixels, part_of, read_as, remarks
from hpo.errors import InputError
from hpo.text import count

DEVIATIONS = 20  # of the target's mean: labels further away are of another unit
NO_INPUTS = ("y", "y_train", "y_test", "class_names")  # arrays of a training file


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a trained network is fed of some files."""

    names: list[str]  # of the examples: the path, or path[0] and so on of a file with several
    rows: Floats  # (N, features), normalized
    # -1 where a label is no class; of a regression numbers, NaN where there is none. None if no
    # file has labels.
    labels: NDArray[Any] | None
    notes: list[str]  # what was left out


def read(paths: Sequence[Path], schema: Schema, *, invert: bool = False) -> Inputs:
    """Reads files for a trained network: pictures, IDX, .npz, CSV, Parquet.

    invert: turns dark on light into light on dark; then transparent pixels count as white. Raises
    InputError, one line per faulty file, after all files are read.
    """
    parts = readers.each(lambda path: read_like(path, schema, invert=invert), paths)
    labelled = any(len(part.y) for part in parts)
    return Inputs(
        names=[
            f"{part.where}[{i}]" if len(part.x) > 1 else part.where
            for part in parts
            for i in range(len(part.x))
        ],
        rows=np.concatenate([schema.normalized(part.x) for part in parts]),
        labels=np.concatenate([_known(part, schema) for part in parts]) if labelled else None,
        notes=[
            f"{part.where}: {note}"
            for part in parts
            for note in (*part.notes, *_narrow(part, schema, invert=invert), *_far(part, schema))
        ],
    )


def _narrow(part: Part, schema: Schema, *, invert: bool) -> list[str]:
    found = [] if invert else schema.narrow(part.x)
    text = f"its values spread over under 1% of the trained range: {brief_names(found)}"
    return [f"{text}; are they in the same unit?"] * bool(found)


def _far(part: Part, schema: Schema) -> list[str]:
    """Says if most numbers to predict are far from all that were trained on."""
    if not schema.target or not len(part.y):
        return []
    apart = np.abs(schema.standardized(_known(part, schema)))
    text = f"labels are over {DEVIATIONS} standard deviations from the mean of those trained on"
    return [f"{text}; are they in the same unit?"] * bool((apart > DEVIATIONS).mean() > 1 / 2)


def accuracy_text(given: Inputs, found: NDArray[np.int64]) -> str:
    """Says how many of the labels in the files the network gives; empty without labels. found: the
    class of each example."""
    if given.labels is None:
        return ""
    known, right = int((given.labels >= 0).sum()), int((given.labels == found).sum())
    strange = len(given.labels) - known
    more = f"; {strange} without a label, or with one that is no class here" if strange else ""
    share = f"{100 * right / known:.2f}% " if known else ""
    return f"accuracy: {share}({right} of {count(known, 'label')}{more})"


def errors_text(given: Inputs, found: NDArray[np.float64]) -> str:
    """Says how far a regression's answers are from the numbers in the files; empty without
    numbers."""
    if given.labels is None:
        return ""
    there = ~np.isnan(given.labels)
    if not there.any():
        return "no label is a number"
    targets, errors = given.labels[there], found[there] - given.labels[there]
    squared, variance = float((errors**2).mean()), float(targets.var())
    absent = int((~there).sum())
    more = f"; {absent} without a label, or with one that is no number" if absent else ""
    r2 = f", R² {1 - squared / variance:.4f}" if variance else ""
    size = f"RMSE {math.sqrt(squared):.6g}, MAE {np.abs(errors).mean():.6g}{r2}"
    return f"{size} ({count(len(targets), 'label')}{more})"


def _known(part: Part, schema: Schema) -> NDArray[Any]:
    """Returns the classes of the labels, -1 for other labels and without labels; of a regression
    the numbers, NaN for other labels and without."""
    if schema.target:
        return _numbers(part)
    if not len(part.y):
        return np.full(len(part.x), -1)
    places = {name: place for place, name in enumerate(schema.codes or schema.classes)}
    labels = map(str, part.y.tolist())
    # 1.0 beside gaps is the class 1.
    return np.array([places.get(x, places.get(x.removesuffix(".0"), -1)) for x in labels])


def _numbers(part: Part) -> NDArray[np.float64]:
    if not len(part.y):
        return np.full(len(part.x), np.nan)
    if part.y.dtype.kind in "iuf":
        return part.y.astype(np.float64)
    plain = [NUMBER.fullmatch(text.lower()) is not None for text in part.y.tolist()]
    return np.array([float(y) if n else math.nan for y, n in zip(part.y, plain, strict=True)])


def read_like(path: Path, schema: Schema, *, invert: bool = False) -> Part:
    """Reads a file as the training data of this schema were read, with labels if it has some. A new
    kind of file to predict has its place here."""
    with named_errors(path, REMEDY):
        if readers.is_table(path):
            part = like_table(readers.open_table(path), schema)
        elif (start := readers.start_of(path)) == readers.ZIP:
            part = _like_arrays(path, schema)
        else:
            x = _like_pictures(path, start, schema, ground=255 if invert else 0)
            part = Part(x=schema.from_bytes(x), where=str(path))
        if not len(part.x):
            raise InputError(f"holds no images; {REMEDY}")
        schema.check_range(part.x)
        schema.check_numbers(part.x, part.what)
        return replace(part, x=schema.inverted(part.x)) if invert else part


def _like_pictures(path: Path, start: bytes, schema: Schema, *, ground: int) -> Array:
    """Reads a picture of any size, or an IDX file of pictures. start: of the file."""
    if not is_picture(schema.shape):
        raise InputError(
            f"is a picture, and the network takes {schema.features} numbers, which are no picture; "
            f"give a table, or an .npz file with an array of shape (n, {schema.features})"
        )
    if start not in (readers.IDX, readers.GZIP):
        return readers.fitted(readers.picture(path, ground), schema.shape)[None]
    opener: Any = gzip.open if start == readers.GZIP else open
    with opener(path, "rb") as stream:
        x = readers.idx(stream)
    if x.ndim != 3 or x.dtype != np.uint8:
        raise InputError("is an IDX file, but not of images (labels?); give an idx3 file")
    if x.shape[1:] != schema.shape:
        raise InputError(
            f"holds images of {x.shape[1]} × {x.shape[2]} pixels, and the network takes "
            f"{' × '.join(map(str, schema.shape))}; give images of that size"
        )
    return x


def _like_arrays(path: Path, schema: Schema) -> Part:
    """Reads all arrays that have the network's shape, in the file's order, with their labels."""
    if schema.levels:
        texts = brief_names(tuple(schema.levels))
        raise InputError(f"holds numbers, and the network takes text in {texts}; give a table")
    with readers.open_npz(path) as archive:
        shapes, xs, ys = archive.shapes, [], []
        for name, shape in shapes.items():
            if name in NO_INPUTS or not readers.holds_examples(shape, schema.given):
                continue
            xs.append(_in_unit(archive.read(name), name, schema))
            named = name[:1] == "x" and f"y{name[1:]}" in shapes
            y = readers.labels_of_array(archive.read(f"y{name[1:]}")) if named else NO_LABELS
            ys.append(y if y.shape == (len(xs[-1]),) else NO_LABELS)
    if not xs:
        square = f" or (n, {', '.join(map(str, schema.given))})" if is_picture(schema.given) else ""
        held = ", ".join(map(str, list(shapes.values())[:5])) or "no array"
        raise InputError(
            f"holds no array of shape (n, {math.prod(schema.given)}){square}, but {held}; give one"
        )
    labels = np.concatenate(ys) if all(map(len, ys)) else NO_LABELS
    return Part(x=np.concatenate(xs), y=labels, where=str(path))


def _in_unit(x: Array, name: str, schema: Schema) -> Array:
    """Returns an array as examples in the unit of the data."""
    if x.dtype != np.uint8 and x.dtype.kind not in ("f" if schema.pixels else "fiub"):
        raise InputError(
            f"array {name!r} is of {x.dtype.name}; give uint8 of 0 to 255, or floats of 0 to 1"
        )
    examples = readers.as_examples(x, schema.given)
    of_bytes = x.dtype == np.uint8 and schema.white is not None and x.max(initial=0) > 1
    return schema.from_bytes(examples) if of_bytes else examples


def like_table(table: Table, schema: Schema) -> Part:
    """Reads a table as the training data of this schema were read, with labels if it has some."""
    frame, here, notes = read_as(table, schema)
    part = part_of(table, frame, here)
    if schema.pixels:
        shown = as_pixels(part.x, schema.shape)
        if shown is None:
            raise InputError("holds values that are no pixels: whole numbers of 0 to 255")
        return replace(part, x=shown, notes=notes)
    said = remarks(part, schema) if schema.columns else ()
    return replace(part, x=part.x.reshape(-1, *schema.given), notes=(*notes, *said))
