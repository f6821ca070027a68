"""The user's own data: .npz, CSV and Parquet files, and folders of images; nothing is unpickled."""

import gzip
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.datasets import Dataset, Scale, checksum, from_pixels, stratified
from hpo.errors import InputError
from hpo.study.names import FORMS
from hpo.study.source import Source
from hpo.text import quoted, shortened

if TYPE_CHECKING:
    import pandas as pd

TEST_SHARE = 0.2  # held out where there is no test part
TEST_SEED = 0
MOST_CLASSES = 1_000
LABELS = ("label", "class", "target", "y")  # usual names of the column with the labels
PIXELS = r"(?i)pixel_?\d+|\d+x\d+"  # columns of MNIST's CSV files
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")  # as Pillow calls them

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Features (N, …) and labels (N,) as given, and where they come from, for errors."""

    x: Array
    y: Array
    where: str
    what: str = "x"
    names: Sequence[str] = ()  # of columns


def load(source: Source) -> Dataset:
    """Reads a dataset from the user's files. Raises InputError, one line per fault.

    Labels are whole numbers or text. Without a test part, a fifth of each class is held out by a
    fixed seed, before anything else. Bytes are pixels. Other features are normalized by mean and
    standard deviation of the part that is not tested on: each column of a table by itself, pictures
    as a whole.
    """
    path = Path(source.name)
    train, test, names = _read(path, source)
    if source.test:
        if test is not None:
            raise InputError(f"{path}: has a test part of its own, so leave out test")
        test, more, _ = _read(Path(source.test), source)
        if more is not None:
            raise InputError(f"{source.test}: has a test part; give a file without one as test")
    parts = [train] if test is None else [train, test]
    for part in parts:
        _check(part)
    if test is not None and train.x.shape[1:] != test.x.shape[1:]:
        raise InputError(
            f"{test.where}: test features of shape {test.x.shape[1:]}, and {train.x.shape[1:]} to "
            "train on: must be alike"
        )
    labels, class_names = _mapped([part.y for part in parts], names, train.where)
    if test is None:
        return held_out_dataset(source.short, train.x, labels[0], class_names)
    return _dataset(source.short, (train.x, labels[0]), (test.x, labels[1]), class_names)


def held_out_dataset(
    name: str, x: Array, labels: NDArray[np.int64], class_names: tuple[str, ...]
) -> Dataset:
    """Makes a dataset of features (N, …) and labels; a fifth of each class is its test part, by a
    fixed seed."""
    test = stratified(labels, TEST_SHARE, np.random.default_rng(TEST_SEED))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return _dataset(name, (x[train], labels[train]), (x[test], labels[test]), class_names)


def features(path: Path, label: str = "") -> tuple[Array, list[str]]:
    """Returns the features of a table without labels, (N, columns), for a trained network, and the
    names of its columns. label: a column to leave out if it is there."""
    frame = _frame(path)
    frame = frame.drop(columns=[name for name in frame if name in (label, *LABELS)])
    part = Part(
        x=_numbers(frame, path), y=np.zeros(len(frame), int), where=str(path), names=list(frame)
    )
    _check(part)
    return part.x, [str(name) for name in frame]


def _dataset(
    name: str, train: tuple[Array, Array], test: tuple[Array, Array], class_names: tuple[str, ...]
) -> Dataset:
    if train[0].dtype == np.uint8 and test[0].dtype == np.uint8:
        return from_pixels(name, train, test, stratified=True, class_names=class_names)
    mean, std = _moments(train[0])
    rows = [_normalized(x, mean, std) for x, _ in (train, test)]
    return Dataset(
        name=name,
        train_images=rows[0],
        train_labels=train[1],
        test_images=rows[1],
        test_labels=test[1],
        stratified=True,
        checksum=checksum(*train, *test),
        class_names=class_names,
        shape=train[0].shape[1:],
        mean=mean,
        std=std,
        pixels=False,
    )


def _moments(x: Array) -> tuple[Scale, Scale]:
    """Returns mean and standard deviation, 1 for a constant: of each column of a table, of all
    pixels of a picture."""
    of = x.astype(np.float64)
    if x.ndim > 2:
        return float(of.mean()), float(of.std()) or 1.0
    std = of.std(axis=0)
    return tuple(of.mean(axis=0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _normalized(x: Array, mean: Scale, std: Scale) -> NDArray[np.float32]:
    centred: Array = (x.astype(np.float64) - np.asarray(mean)) / np.asarray(std)
    return centred.reshape(len(x), -1).astype(np.float32)


# --- checks ------------------------------------------------------------------------------------


def _check(part: Part) -> None:
    """Raises InputError for features or labels that no network can be trained on."""
    x, y, where = part.x, part.y, part.where
    if not len(x):
        raise InputError(f"{where}: holds 0 rows; give some")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(f"{where}: {part.what} has the shape {x.shape}; give (rows, features)")
    if y.shape != (len(x),):
        raise InputError(
            f"{where}: {len(x)} rows of features, and labels of shape {y.shape}; give one label a "
            "row"
        )
    if y.dtype.kind == "f":
        raise InputError(
            f"{where}: labels are {y.dtype.name}, such as {y[0]:g}; give whole numbers or text"
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        row, *place = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        column = f", column {quoted(part.names[place[0]])}" if part.names else ""
        raise InputError(
            f"{where}: {part.what} is {x[row, *place]} in row {row}{column}; remove the row or "
            "fill in a number"
        )


def _mapped(
    labels: Sequence[Array], names: Sequence[str] | None, where: str
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Returns the labels as 0, 1 and so on, and the names of the classes."""
    if names is not None:
        least, most = (f(of.min() if f is min else of.max() for of in labels) for f in (min, max))
        if labels[0].dtype.kind not in "iu" or least < 0 or most >= len(names):
            raise InputError(
                f"{where}: class_names has {len(names)} names, so labels must be whole numbers "
                f"from 0 to {len(names) - 1}"
            )
        found = [of.astype(np.int64) for of in labels]
        absent = np.setdiff1d(np.arange(len(names)), found[0])
        if len(absent):
            raise InputError(f"{where}: class {quoted(names[absent[0]])} has no training example")
        return found, tuple(names)
    known = np.unique(labels[0])
    if len(labels) > 1 and (other := np.setdiff1d(labels[1], known)).size:
        raise InputError(
            f"{where}: class {quoted(other.tolist()[0])} is in the test part and not in the "
            "training part"
        )
    if len(known) < 2 or len(known) > MOST_CLASSES:
        few = "one class" if len(known) == 1 else f"{len(known):,} classes"
        raise InputError(
            f"{where}: has labels of {few}; at least 2 and at most {MOST_CLASSES:,} are needed. Is "
            "it the right column?"
        )
    found = [np.searchsorted(known, of).astype(np.int64) for of in labels]
    return found, tuple(shortened(str(name), 60) for name in known.tolist())


# --- files -------------------------------------------------------------------------------------


def _read(path: Path, source: Source) -> tuple[Part, Part | None, Sequence[str] | None]:
    """Returns the training part, the test part if there is one, and the names of classes if they
    are given."""
    if path.is_dir():
        return _folder(path)
    try:
        if path.suffix.lower() == ".npz":
            return _npz(path)
        return _table(path, source.label), None, None
    except InputError:
        raise
    except Exception as error:  # decoders raise of every kind where a file is damaged
        reason = getattr(error, "strerror", None) or _said(error)
        raise InputError(f"{path}: cannot be read ({reason}); give {FORMS}") from error


NAMES = {
    "x": ("x", "x_train"),
    "y": ("y", "y_train"),
    "x_test": ("x_test",),
    "y_test": ("y_test",),
    "class_names": ("class_names",),
}


def _npz(path: Path) -> tuple[Part, Part | None, Sequence[str] | None]:
    with path.open("rb") as opened:
        if not zipfile.is_zipfile(opened):
            raise InputError(f"{path}: is no .npz file or damaged; write it by numpy.savez")
        opened.seek(0)
        archive = np.load(opened, allow_pickle=False)
        found = {
            key: _array(archive, name, path)
            for key, names in NAMES.items()
            for name in names
            if name in archive
        }
        there = list(archive)
    missing = [key for key in ("x", "y") if key not in found]
    missing += ["y_test"] if "x_test" in found and "y_test" not in found else []
    missing += ["x_test"] if "y_test" in found and "x_test" not in found else []
    if missing:
        held = ", ".join(there) or "nothing"
        raise InputError(f"{path}: has no array {' and no '.join(missing)}; it holds {held}")
    names = found.get("class_names")
    if names is not None and names.dtype.kind != "U":
        raise InputError(f"{path}: class_names: must be an array of text, got {names.dtype.name}")
    train = _npz_part(found["x"], found["y"], path, "x")
    if "x_test" not in found:
        return train, None, None if names is None else names.tolist()
    test = _npz_part(found["x_test"], found["y_test"], path, "x_test")
    return train, test, None if names is None else names.tolist()


def _array(archive: Any, name: str, path: Path) -> Array:
    try:
        array: Array = archive[name]
    except ValueError as error:
        raise InputError(
            f"{path}: {name}: holds Python objects, which are never unpickled, or is damaged "
            f"({error}); save numbers or text"
        ) from error
    return array


def _npz_part(x: Array, y: Array, path: Path, what: str) -> Part:
    if x.dtype.kind not in "uifb":
        raise InputError(f"{path}: {what} is of {x.dtype.name}; give numbers")
    if y.dtype.kind not in "uifbUS":
        raise InputError(f"{path}: labels are of {y.dtype.name}; give whole numbers or text")
    y = y.ravel() if y.ndim == 2 and y.shape[1] == 1 else y
    y = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
    return Part(x=x, y=y.astype(np.int64) if y.dtype.kind == "b" else y, where=str(path), what=what)


def _frame(path: Path) -> "pd.DataFrame":
    """Reads a table; columns without a header are called 0, 1 and so on, whole numbers."""
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        try:
            return pd.read_parquet(path)
        except ImportError as error:
            raise InputError(
                f"{path}: reading Parquet needs pyarrow: pip install 'hpo-studies[parquet]'"
            ) from error
    with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else file as lines:
        first = lines.readline().decode("utf-8-sig")
    separator = max(",;\t", key=first.count)
    header = None if _all_numbers(first.strip().split(separator)) else 0
    try:
        return pd.read_csv(path, sep=separator, header=header, encoding="utf-8-sig")
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: holds 0 rows; give some") from error


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _all_numbers(words: Sequence[str]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False


def _table(path: Path, label: str) -> Part:
    frame = _frame(path)
    if not len(frame):
        raise InputError(f"{path}: holds 0 rows; give some")
    column = _label_column(frame, label, path)
    y, rest = frame[column], frame.drop(columns=column)
    if y.isna().any():
        row = int(np.flatnonzero(y.isna())[0])
        raise InputError(f"{path}: column {quoted(column)} has no label in row {row}; fill it in")
    labels = y.to_numpy() if y.dtype.kind in "iuf" else y.astype(str).to_numpy(dtype=str)
    x = _numbers(rest, path)
    if _are_pixels(rest, x):
        side = int(np.sqrt(x.shape[1]))
        x = x.astype(np.uint8).reshape(-1, side, side)
        return Part(x=x, y=labels, where=str(path))
    return Part(x=x, y=labels, where=str(path), what="a value", names=list(map(str, rest)))


def _label_column(frame: "pd.DataFrame", label: str, path: Path) -> Any:
    """Returns the column with the labels: the named one, one of a usual name, or the first one of a
    table without a header, as in MNIST's CSV files."""
    if not label and list(frame) == list(range(frame.shape[1])) and frame.shape[1] > 1:
        return 0
    wanted = (label,) if label else LABELS
    named = [c for c in frame if (c if label else str(c).lower()) in wanted]
    if len(named) == 1:
        return named[0]
    known = shortened(", ".join(map(str, frame)), 200)
    if label:
        raise InputError(f"{path}: has no column {quoted(label)}; there are {known}")
    many = "several columns" if named else "no column"
    raise InputError(
        f"{path}: has {many} named {', '.join(LABELS)}; say which has the labels, in the study "
        f'file: dataset = {{ file = "{path.name}", label = "…" }}; there are {known}'
    )


def _numbers(frame: "pd.DataFrame", path: Path) -> Array:
    """Returns the columns as numbers. Raises InputError that names a column of text."""
    for name in frame:
        if frame[name].dtype.kind not in "iufb":
            example = next((v for v in frame[name] if isinstance(v, str)), "nothing")
            raise InputError(
                f"{path}: column {quoted(name)} is no number, such as {quoted(example)}; remove "
                "it, or turn it into numbers (pandas.get_dummies)"
            )
    numbers: Array = frame.to_numpy(dtype=np.float64)
    return numbers


def _are_pixels(frame: "pd.DataFrame", x: Array) -> bool:
    """Whether the columns are pixels of square pictures, by their names (pixel0, 1x1) or without a
    header, and their values."""
    import re

    side = round(np.sqrt(x.shape[1]))
    if side**2 != x.shape[1] or side < 2 or not np.isfinite(x).all():
        return False
    named = list(frame) == list(range(1, frame.shape[1] + 1))
    named = named or all(re.fullmatch(PIXELS, str(name)) for name in frame)
    return bool(named and (x == np.floor(x)).all() and x.min() >= 0 and x.max() <= 255)


# --- folders of images -------------------------------------------------------------------------


def _folder(path: Path) -> tuple[Part, Part | None, Sequence[str]]:
    """Reads a folder of images, a folder a class; or two such folders named train and test."""
    inside = _folders(path)
    if [folder.name for folder in inside] == ["test", "train"]:
        test, train = inside
        names = _classes(train)
        return _pictures(train, names), _pictures(test, names), names
    names = _classes(path)
    return _pictures(path, names), None, names


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _classes(path: Path) -> list[str]:
    names = [folder.name for folder in _folders(path)]
    if len(names) < 2:
        raise InputError(
            f"{path}: has {len(names)} folders; give a folder of images for each class"
        )
    return names


def _pictures(path: Path, names: Sequence[str]) -> Part:
    strange = [folder.name for folder in _folders(path) if folder.name not in names]
    if strange:
        raise InputError(f"{path}: class {quoted(strange[0])} is not in the training part")
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((path / name).glob("*"))
        if file.suffix.lower() in PICTURES
    ]
    if not files:
        raise InputError(f"{path}: has no pictures ({', '.join(PICTURES)}); holds 0 rows")
    first, pixels = files[0][0], []
    for file, _ in files:
        pixels.append(_picture(file))
        if pixels[-1].shape[:2] != pixels[0].shape[:2]:
            sizes = [f"{of.shape[1]} × {of.shape[0]}" for of in (pixels[0], pixels[-1])]
            raise InputError(
                f"{file}: has {sizes[1]} pixels, and {first} has {sizes[0]}; give pictures of one "
                "size"
            )
    if any(of.ndim == 3 for of in pixels):
        pixels = [of if of.ndim == 3 else np.repeat(of[:, :, None], 3, axis=2) for of in pixels]
    labels = np.array([label for _, label in files], np.int64)
    return Part(x=np.stack(pixels), y=labels, where=str(path))


def _picture(file: Path) -> Array:
    """Returns a picture's bytes, (height, width) if it is grey, else (height, width, 3)."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as image:
                upright = ImageOps.exif_transpose(image)
                return np.array(upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB"))
        except Exception as error:  # decoders raise of every kind where a file is damaged
            raise InputError(f"{file}: cannot be read ({_said(error)})") from error
