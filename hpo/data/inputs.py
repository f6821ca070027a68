"""Files for a trained network: read as its training data were, and fed by its schema."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpo.data import readers
from hpo.data.readers import named_errors
from hpo.data.schema import Array, Floats, Schema, brief_names
from hpo.data.tables import Part, as_pixels, part_of, schema_like
from hpo.errors import InputError

ARRAY_LABELS = ("y", "y_train", "y_test")
REMEDY = "give a PNG or other picture, an IDX file of images, an .npz of arrays or a table"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a trained network is fed of some files.

    names: of the examples: the path, or path[0], path[1] and so on of a file with several. rows:
    (N, features), normalized. labels: the class of each example, -1 where its label is no class;
    None where no file has labels. notes: what was left out.
    """

    names: list[str]
    rows: Floats
    labels: NDArray[np.int64] | None
    notes: list[str]


def read(paths: Sequence[Path], schema: Schema, *, invert: bool = False) -> Inputs:
    """Reads files for a trained network: pictures, IDX, .npz, CSV, Parquet.

    invert: turns dark on light into light on dark; then transparent pixels count as white. Raises
    InputError, one line per faulty file, after all files are read.
    """
    parts, faults = [], []
    for path in paths:
        try:
            parts.append(read_like(path, schema, invert=invert))
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    several = [len(part.x) > 1 for part in parts]
    names = [
        f"{part.where}[{i}]" if many else part.where
        for part, many in zip(parts, several, strict=True)
        for i in range(len(part.x))
    ]
    labelled = any(len(part.y) for part in parts)
    found = [_known(part, schema) for part in parts]
    return Inputs(
        names=names,
        rows=np.concatenate([schema.normalized(part.x) for part in parts]),
        labels=np.concatenate(found) if labelled else None,
        notes=[f"{part.where}: {note}" for part in parts for note in part.notes],
    )


def accuracy_text(given: Inputs, found: NDArray[np.int64]) -> str:
    """Says how many of the labels in the files the network gives; empty without labels. found: the
    class of each example."""
    if given.labels is None:
        return ""
    known = given.labels >= 0
    right, of = int((given.labels == found)[known].sum()), int(known.sum())
    strange = int((~known).sum())
    more = f"; {strange} have no label, or one that is no class here" if strange else ""
    share = f"{100 * right / of:.2f}% " if of else ""
    return f"accuracy: {share}({right} of {of} labels{more})"


def _known(part: Part, schema: Schema) -> NDArray[np.int64]:
    """Returns the classes of the labels; -1 for other labels, and without labels."""
    if not len(part.y):
        return np.full(len(part.x), -1)
    names = schema.codes or schema.classes
    places = {name: place for place, name in enumerate(names)}
    labels = [str(label).removesuffix(".0") for label in part.y.tolist()]  # 1.0 beside gaps
    return np.array([places.get(label, -1) for label in labels])


def read_like(path: Path, schema: Schema, *, invert: bool = False) -> Part:
    """Reads a file as the training data of this schema were read, with labels if it has some."""
    with named_errors(path, REMEDY):
        if readers.is_table(path):
            part = _like_table(path, schema)
        else:
            with path.open("rb") as file:
                start = file.read(2)
            if start == readers.ZIP:
                part = _like_arrays(path, schema)
            elif start in (readers.IDX, readers.GZIP):
                part = _like_pictures(readers.idx_file(path), path, schema)
            else:
                _require_picture(schema)
                levels = readers.picture(path, 255 if invert else 0)
                pixels = readers.fitted(levels, schema.shape)[None]
                part = Part(x=schema.from_bytes(pixels), where=str(path))
        if not len(part.x):
            raise InputError(f"holds no images; {REMEDY}")
        schema.check_range(part.x)
        schema.check_numbers(part.x, part.what)
        if found := schema.narrow(part.x):
            text = f"its values spread over under 1% of the trained range: {brief_names(found)}"
            part = replace(part, notes=(*part.notes, f"{text}; are they in the same unit?"))
        return replace(part, x=schema.inverted(part.x)) if invert else part


def _require_picture(schema: Schema) -> None:
    if not schema.is_picture:
        raise InputError(
            f"is a picture, and the network takes {schema.features} numbers, which are no picture; "
            f"give a table, or an .npz file with an array of shape (n, {schema.features})"
        )


def _like_pictures(x: Array, path: Path, schema: Schema) -> Part:
    _require_picture(schema)
    if x.ndim != 3 or x.dtype != np.uint8:
        raise InputError("is an IDX file, but not of images (labels?); give an idx3 file")
    if x.shape[1:] != schema.shape:
        raise InputError(
            f"holds images of {x.shape[1]} × {x.shape[2]} pixels, and the network takes "
            f"{' × '.join(map(str, schema.shape))}; give images of that size"
        )
    return Part(x=schema.from_bytes(x), where=str(path))


def _like_arrays(path: Path, schema: Schema) -> Part:
    """Reads all arrays that have the network's shape, in the file's order, with their labels."""
    with readers.open_npz(path) as archive:
        shapes = {n: shape for n, shape in archive.shapes.items() if n not in ARRAY_LABELS}
        empty = {n: np.broadcast_to(np.uint8(0), [max(d, 0) for d in s]) for n, s in shapes.items()}
        fit = [n for n, of in empty.items() if readers.as_examples(of, schema.shape) is not None]
        if not fit:
            square = f" or (n, {', '.join(map(str, schema.shape))})" if schema.is_picture else ""
            listed = ", ".join(map(str, list(archive.shapes.values())[:5]))
            raise InputError(
                f"holds no array of shape (n, {schema.features}){square}, but "
                f"{listed or 'no array'}; give one"
            )
        parts = [_in_unit(archive.read(name), name, schema) for name in fit]
        labels = [_labels_of(archive, name, len(x)) for name, x in zip(fit, parts, strict=True)]
        known = np.concatenate(labels) if all(map(len, labels)) else np.zeros(0, np.int64)
        return Part(x=np.concatenate(parts), y=known, where=str(path))


def _labels_of(archive: readers.Npz, name: str, rows: int) -> Array:
    """Returns the labels of an array: those of x lie in y, and so on; empty if there are none."""
    beside = f"y{name[1:]}"
    if name[:1] != "x" or beside not in archive.shapes:
        return np.zeros(0, np.int64)
    labels = readers.labels_of_array(archive.read(beside))
    return labels if labels.shape == (rows,) else np.zeros(0, np.int64)


def _in_unit(x: Array, name: str, schema: Schema) -> Array:
    """Returns an array as examples in the unit of the data."""
    if x.dtype != np.uint8 and x.dtype.kind not in ("f" if schema.pixels else "fiub"):
        raise InputError(
            f"array {name!r} is of {x.dtype.name}; give uint8 of 0 to 255, or floats of 0 to 1"
        )
    examples = readers.as_examples(x, schema.shape)
    assert examples is not None
    if x.dtype == np.uint8 and schema.white is not None and x.max(initial=0) > 1:
        return schema.from_bytes(examples)
    return examples


def _like_table(path: Path, schema: Schema) -> Part:
    """Reads the network's columns of a table."""
    table = readers.open_table(path)
    here, notes = schema_like(table, schema)
    frame = table.read(header=here.header, label=here.label)
    part = part_of(table, frame, here, gaps=True)
    shown = as_pixels(part.x, schema.shape) if schema.pixels else part.x.reshape(-1, *schema.shape)
    if shown is None:
        raise InputError("holds values that are no pixels: whole numbers of 0 to 255")
    return replace(part, x=shown, notes=notes)
