"""The user's own files as a dataset: arrays, tables, folders of images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hpo.data import readers
from hpo.data.cells import EXACT
from hpo.data.datasets import Dataset, Pair, make_dataset, repeated
from hpo.data.fit import ranged
from hpo.data.inputs import read_like
from hpo.data.readers import PICTURES, REMEDY, named_errors, naming
from hpo.data.schema import FAR, LARGEST, Array, Schema, brief_names, white_of
from hpo.data.tables import NUMBER, Part, suspects, table_part, with_labels
from hpo.errors import InputError
from hpo.study.names import FORMS
from hpo.study.source import Source
from hpo.text import quoted, shortened

MOST_CLASSES = 1_000
MOST_NUMBERED = 20  # different whole numbers that are taken for classes
VALIDATION = ("valid", "val", "validation")  # names of folders
GIVE = f"give {FORMS}"


# --- a dataset ---------------------------------------------------------------------------------


def load(source: Source, given: tuple[list[Part], Schema] | None = None) -> Dataset:
    """Reads a dataset from the user's files, with labels of whole numbers or text. Raises
    InputError.

    given: rows in memory that are read already; no test part is held out of them, and `name` of
    the source is what they are called.
    """
    path = Path(source.name)
    every, schema = given or _read(path, source)
    parts, validated = ([part for part in every if part.validates == w] for w in (False, True))
    train = parts[0]
    if source.scale != "standard" and (train.pixels or train.x.ndim > 2):
        raise InputError(f"{path}: is pictures; scale is for tables, so leave it out")
    shape = train.x.shape[1:]
    schema = schema.replace(pixels=train.pixels, shape=shape, scale=source.scale)
    if source.test:
        with naming(path if len(parts) > 1 else source.test):
            if len(parts) > 1:
                raise InputError("has a test part of its own, so leave out test")
            parts.append(_test_part(Path(source.test), source, schema))
    if source.valid:
        with naming(source.valid):
            if validated:
                raise InputError("the first folder has rows to validate on; leave out valid")
            validated = [_test_part(Path(source.valid), source, schema)]
    for key, column in (("time", train.times), ("group", train.groups)):
        if getattr(source, key) != "" and column is None:
            raise InputError(f"{path}: {key} is a column of a table; leave it out")
    for part in (*parts, *validated):
        with naming(part.where):
            _check(part, schema)
            _check_alike(train, part)
    with naming(train.where):
        found = [part.y for part in (*parts, *validated)]
        number = _is_regression(found, source, schema)
        labels, schema = _numbers(found, schema) if number else _mapped(found, schema)
    for part, others in zip((*parts, *validated)[1:], labels[1:] if number else (), strict=False):
        with naming(part.where):
            _check_near(others, labels[0])
    valid_file = validated[0].where if validated else ""
    files = {"file": source.name, "test_file": source.test, "valid_file": valid_file}
    about = {
        **files,
        "time": str(source.time),
        "group": str(source.group),
        "inferred": number and not source.task,
        **train.about,
    }
    if schema.columns and not train.pixels:
        about |= suspects(train.x, labels[0], schema)
    read = zip((*parts, *validated), labels, strict=True)
    pairs: list[Pair] = [(part.x, numbers) for part, numbers in read]
    test, valid = pairs[1] if len(parts) > 1 else None, pairs[-1] if validated else None
    more: Any = {"valid": valid, "times": train.times, "groups": train.groups}
    more["tested"] = given is None
    with naming(train.where):
        loaded = make_dataset(source.short, pairs[0], test, schema, **more)
    about |= repeated(loaded)
    for part in validated:
        with naming(part.where):
            (schema if train.pixels else ranged(schema, train.x)).check_range(part.x)
        about["valid_notes"] = list(part.notes)
    if test is not None:
        with naming(parts[1].where):
            loaded.schema.check_range(test[0])
        about["narrow"] = loaded.schema.narrow(test[0])
        about["test_notes"] = list(parts[1].notes)
    return replace(loaded, about=about, stratified=True)


def _read(path: Path, source: Source) -> tuple[list[Part], Schema]:
    """Returns the training part, with the test part if there is one, and what the file says of its
    schema. A new kind of training file has its place here."""
    if path.is_dir():
        with naming(path):
            return _folder(path)
    with named_errors(path, GIVE):
        if path.suffix.lower() == ".npz":
            return _arrays(path)
        part, schema = table_part(readers.open_table(path), source)
        return [part], schema


def _test_part(path: Path, source: Source, schema: Schema) -> Part:
    """Reads another file as the training file was read."""
    if path.is_dir():
        if not schema.codes:
            raise InputError("is a folder; give a file of the training file's kind")
        return _pictures(path, schema.classes)
    if not schema.pixels and bool(schema.columns) != readers.is_table(path):
        raise InputError(
            "is of another kind than the training file, so its columns cannot be told by their "
            "names; give a file of the same kind"
        )
    if schema.columns and readers.is_table(path):
        part = read_like(path, schema)
        if not len(part.y):
            raise InputError(f"has no column {quoted(schema.label)} with the labels")
        part, unlabelled = with_labels(part)
        said = f"rows without a label are left out: {unlabelled:,}"
        return replace(part, notes=(*part.notes, *[said] * bool(unlabelled)))
    parts, _ = _read(path, source)
    if len(parts) > 1:
        raise InputError("has a test part; give a file without one as test")
    return parts[0]


def _check(part: Part, schema: Schema) -> None:
    """Raises InputError for features or labels that no network can be trained on."""
    x, y = part.x, part.y
    if not len(x):
        raise InputError("holds 0 rows; give some")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(f"{part.what} has the shape {x.shape}; give (rows, features)")
    if y.shape != (len(x),):
        raise InputError(
            f"{len(x)} rows of features, and labels of shape {y.shape}; give one label a row"
        )
    schema.check_numbers(x, part.what)


def _check_alike(train: Part, test: Part) -> None:
    """Raises InputError unless both parts hold features of one shape and one scale."""
    shapes = [part.x.shape[1:] for part in (train, test)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"test features of shape {shapes[1]}, and {shapes[0]} to train on: must be alike"
        )
    whites = {white_of(part.x, shapes[0]) for part in (train, test) if not part.pixels} - {None}
    if train.pixels != test.pixels or len(whites) > 1:
        kinds = ["pixels" if p.pixels else f"{p.x.dtype.name} numbers" for p in (test, train)]
        spans = [f"{float(p.x.min()):g} to {float(p.x.max()):g}" for p in (test, train)]
        raise InputError(
            f"{test.what} holds {kinds[0]} of {spans[0]}, and {train.what} {kinds[1]} of "
            f"{spans[1]}: must have one scale"
        )


def _is_regression(labels: list[Array], source: Source, schema: Schema) -> bool:
    """Whether labels are numbers to predict: fractions are, if the study file does not say it.
    Raises InputError for many whole numbers, which may be either."""
    if source.task:
        return source.task == "regression"
    floats = [part for part in labels if part.dtype.kind == "f"]
    if floats and all(((part == np.floor(part)) | np.isinf(part)).all() for part in floats):
        raise InputError(
            f"labels are {floats[0].dtype.name}, such as {floats[0][0]:g}; give whole numbers or "
            'text, or task = "regression" in the study file'
        )
    if floats:
        return True
    values = np.unique(labels[0])
    if labels[0].dtype.kind in "iu" and len(values) > MOST_NUMBERED and not schema.codes:
        raise InputError(
            f"has {len(values):,} different whole numbers as labels; say in the study file what "
            'they are: task = "regression" for numbers to predict, task = "classification" for '
            "classes"
        )
    return False


def _numbers(labels: list[Array], schema: Schema) -> tuple[list[Array], Schema]:
    """Returns the labels of the parts as numbers to predict, and the schema of a regression; its
    target is measured later, see data.fit."""
    if schema.codes:
        raise InputError("has classes (folders, or class_names), and task is regression")
    for part in labels:
        if part.dtype.kind not in "iuf":
            plain = [text for text in part.tolist() if not NUMBER.fullmatch(text)]
            raise InputError(
                f"label {quoted((plain or part.tolist())[0])} is no number; for a regression, give "
                "plain numbers such as 1234.5"
            )
    numbers = [part.astype(np.float64) for part in labels]
    for part in numbers:
        if wrong := part[~(np.abs(part) <= LARGEST)].tolist():
            raise InputError(f"has a label of {wrong[0]:g}; fill in a number, or leave out the row")
    if (numbers[0] == numbers[0][:1]).all():
        raise InputError(
            f"every row to train on has the label {numbers[0][0]:g}, so there is nothing to learn"
        )
    return numbers, schema.replace(target=(0.0, 1.0), classes=())


def _check_near(labels: Array, known: Array) -> None:
    """Raises InputError for numbers to predict that are far from those to train on."""
    low, high = known.min(), known.max()
    far = labels[(labels < low - FAR * (high - low)) | (labels > high + FAR * (high - low))]
    if far.size:
        raise InputError(
            f"label {far[0]:g} is far outside the trained range, {low:g} to {high:g}; give labels "
            "in the unit of the training data"
        )


def _mapped(labels: list[Array], schema: Schema) -> tuple[list[Array], Schema]:
    """Returns the labels of the parts as 0, 1 and so on, and the schema with the classes."""
    if any(part.dtype.kind == "f" for part in labels):
        labels = [_whole(part) for part in labels]
    if schema.codes:
        _check_numbered(labels, schema.classes)
        return [part.astype(np.int64) for part in labels], schema
    if len({part.dtype.kind in "iu" for part in labels}) > 1:  # text in one part alone
        labels = [part.astype(str) for part in labels]
    known = np.unique(labels[0])
    if (other := np.setdiff1d(np.concatenate(labels), known)).size:
        raise InputError(
            f"class {quoted(other.tolist()[0])} is in the test part and not in the training part "
            "(or in the part to validate on)"
        )
    if len(known) < 2 or len(known) > MOST_CLASSES:
        few = "one class" if len(known) == 1 else f"{len(known):,} classes"
        raise InputError(
            f"has labels of {few}; at least 2 and at most {MOST_CLASSES:,} are needed. Is it the "
            "right column?"
        )
    codes = tuple(str(name) for name in known.tolist())
    classes = tuple(shortened(code, 60) for code in codes)
    classes = classes if len(set(classes)) == len(codes) else codes
    numbers = [np.searchsorted(known, part).astype(np.int64) for part in labels]
    return numbers, schema.replace(classes=classes, codes=codes if codes != classes else None)


def _whole(labels: Array) -> Array:
    """Returns labels as whole numbers, or as they are if they are text. Raises InputError for
    fractions."""
    if labels.dtype.kind != "f":
        return labels
    whole = np.isfinite(labels) & (labels == np.floor(labels)) & (np.abs(labels) < EXACT)
    if not whole.all():
        wrong = labels[~whole][0]
        raise InputError(
            f"labels are {labels.dtype.name}, such as {wrong:g}; give whole numbers or text, or "
            'task = "regression" in the study file'
        )
    return labels.astype(np.int64)


def _check_numbered(labels: list[Array], names: Sequence[str]) -> None:
    """Raises InputError unless labels are the numbers of these classes."""
    if len(set(names)) < len(names):
        raise InputError("class_names has one name twice; give each class its own")
    numbers = all(part.dtype.kind in "iu" for part in labels)
    if not numbers or min(map(np.min, labels)) < 0 or max(map(np.max, labels)) >= len(names):
        raise InputError(
            f"class_names has {len(names)} names, so labels must be whole numbers from 0 to "
            f"{len(names) - 1}"
        )
    if len(absent := np.setdiff1d(np.arange(len(names)), labels[0])):
        raise InputError(f"class {quoted(names[absent[0]])} has no training example")


def _numbered_classes(names: Sequence[str]) -> Schema:
    return Schema().replace(classes=tuple(names), codes=tuple(map(str, range(len(names)))))


# --- arrays ------------------------------------------------------------------------------------

ARRAYS = ("x", "y", "x_test", "y_test", "class_names")
SECOND = {"x_train": "x", "y_train": "y"}  # other names


def _arrays(path: Path) -> tuple[list[Part], Schema]:
    with readers.open_npz(path) as archive:
        there, known = list(archive.shapes), (*SECOND, *ARRAYS)
        twice = [f"{n} beside {x}" for n, x in SECOND.items() if n in there and x in there]
        strange = [n for n in there if n not in known and n.lower()[:1] in ("x", "y")]
        if unused := [*twice, *strange]:
            raise InputError(
                f"holds {unused[0]}, which hpo would not use; known arrays: {', '.join(known)}. "
                "The validation part is drawn from x"
            )
        kept = [name for name in there if name in known]
        found = {SECOND.get(name, name): archive.read(name) for name in kept}
    wanted = ["x", "y"] + ["x_test", "y_test"] * ("x_test" in found or "y_test" in found)
    if missing := [name for name in wanted if name not in found]:
        held = brief_names(there) or "nothing"
        raise InputError(f"has no array {' and no '.join(missing)}; it holds {held}")
    schema, names = Schema(), found.get("class_names")
    if names is not None:
        if names.dtype.kind != "U":
            raise InputError(f"class_names: must be an array of text, got {names.dtype.name}")
        schema = _numbered_classes(names.tolist())
    about = {"arrays": [name for name in there if name not in kept]}
    pairs = zip(wanted[::2], wanted[1::2], strict=True)
    return [_array_part(path, x, found[x], found[y], about) for x, y in pairs], schema


def _array_part(path: Path, what: str, x: Array, y: Array, about: Mapping[str, Any]) -> Part:
    if x.dtype.kind not in "uifb":
        raise InputError(f"{what} is of {x.dtype.name}; give numbers")
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] == 4 and x.shape[1] not in (1, 3):
        raise InputError(f"{what} has 4 channels; lay transparent pixels on black, and give 3")
    pixels, labels = x.dtype == np.uint8, readers.labels_of_array(y)
    x = readers.channels_last(x)
    return Part(x=x, y=labels, where=str(path), what=what, pixels=pixels, about=about)


# --- folders of images -------------------------------------------------------------------------


def _folder(path: Path) -> tuple[list[Part], Schema]:
    """Reads a folder of images, a folder a class; or such folders named train, test, and valid."""
    found = {folder.name: folder for folder in _folders(path)}
    parts = "train" in found and {*found} <= {"train", "test", *VALIDATION}
    if parts and len(found) - 1 > len({"test"} & {*found}) + 1:
        raise InputError(f"has {', '.join(found)}; leave one folder to validate on")
    order = ["train", *({"test"} & {*found}), *(name for name in VALIDATION if name in found)]
    places = [found[name] for name in order] if parts else [path]
    names = tuple(folder.name for folder in _folders(places[0]))
    if len(names) < 2:
        raise InputError(
            f"{places[0]}: has {len(names)} folders; give a folder of images for each class"
        )
    read = [(_pictures(place, names), parts and place.name in VALIDATION) for place in places]
    return [replace(part, validates=v) for part, v in read], _numbered_classes(names)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(path: Path, names: Sequence[str]) -> Part:
    if strange := [folder.name for folder in _folders(path) if folder.name not in names]:
        raise InputError(f"{path}: class {quoted(strange[0])} is not in the training part")
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((path / name).glob("*"))
        if file.suffix.lower() in PICTURES and not file.name.startswith(".")
    ]
    if not files:
        raise InputError(f"{path}: has no pictures ({', '.join(PICTURES)}); holds 0 rows")
    first, pixels = files[0][0], []
    for file, _ in files:
        with named_errors(file, REMEDY):
            pixels.append(readers.picture(file))
        if pixels[-1].shape[:2] != pixels[0].shape[:2]:
            sizes = [f"{p.shape[1]} × {p.shape[0]}" for p in (pixels[0], pixels[-1])]
            raise InputError(
                f"{file}: has {sizes[1]} pixels, and {first} has {sizes[0]}; give pictures of one "
                "size"
            )
    labels = np.array([label for _, label in files], np.int64)
    return Part(x=readers.of_one_kind(pixels), y=labels, where=str(path), pixels=True)
