"""Datasets as arrays in memory: loaded by name, checked, split."""

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.data.cells import AMOUNT, NUMBER
from hpo.data.fit import check_told_apart, measured, recoded, targeted
from hpo.data.readers import naming
from hpo.data.schema import Array, Floats, Floats64, Schema, is_picture, white_level
from hpo.errors import InputError
from hpo.study.names import DATASETS, FILES
from hpo.study.source import Source
from hpo.text import quoted

Integers = NDArray[np.int64]
Labels = NDArray[Any]  # (N,): int64 classes, or float32 targets, standardized
Pair = tuple[Array, Array]  # examples (N, …) and labels (N,), as in the data

REPLACEMENT = "mnist-5k"  # of MNIST where it is not to be had
MOST_FAULTS = 6  # that are listed of rare classes
TEST_SHARE = 0.2  # held out where there is no test part
TEST_SEED, FOLDS_SEED = 0, 0
VALID_SHARE = 0.2
TENTHS = 10  # a regression's parts are drawn from the tenths of its target
LEAST_TRAINING = 5  # one of five is validated on
LEAST_OF_A_CLASS = 3  # a fifth of three rounds to one, of two to none
EXAMPLES = 256  # by which an exported network is checked
DRAWS = 20  # of groups, of which the most even one is taken
UNBALANCED = 1.5  # the largest class has so many times the smallest one's examples


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Examples as networks are fed. Rows of a table are called images, too."""

    name: str
    train_images: Floats  # (N, features), normalized
    train_labels: Labels
    test_images: Floats  # only for trained networks
    test_labels: Labels
    stratified: bool  # whether each class is split by itself
    tested: bool = True  # whether it has a test part
    checksum: str  # SHA-256 of all four as they stand in the data
    valid_rows: Integers = field(default_factory=lambda: np.zeros(0, np.int64))  # if not by seed
    # Of each training row, if all rows of a group stand in one part; parts differ in size then.
    groups: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    # What the images and labels mean; without one, an image is a row of any length.
    schema: Schema = field(default_factory=lambda: Schema().replace(shape=()))
    examples: Array = field(default_factory=lambda: np.zeros((0, 0)))  # of training, in their unit
    # Of the user's own data: where they are from and what is to be said of them, see data.card.
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Returns how many classes there are; 1 of a regression: a network answers one number."""
        return self.schema.outputs

    @property
    def regression(self) -> bool:
        return self.schema.target is not None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.schema.shape


class Loader(Protocol):
    """What an entry of study.names.DATASETS names: it reads a dataset."""

    embedded: bool = True  # whether it needs no download

    def load(self, name: str, folder: Path) -> Dataset:
        """Reads the dataset, downloaded to `folder` if needed. name: of the Dataset."""

    def missing(self, folder: Path) -> list[str]:
        """Returns the files that `folder` lacks: none of a dataset that needs no download."""
        return []


def loader(name: str) -> Loader:
    """Returns the loader of a dataset's name."""
    return DATASETS[name].load()  # type: ignore[no-any-return]


def load(source: Source | str, folder: Path | None) -> Dataset:
    """Reads a dataset: the user's files, or a known one from `folder` (None: default_dir),
    downloaded first if it is not there. Raises InputError, one line per file, and Unavailable if it
    cannot be downloaded."""
    source = Source(source) if isinstance(source, str) else source
    keys = (source.scale != "standard", source.columns, source.valid, source.time, source.group)
    own = any(key not in ("", False, ()) for key in keys)
    if source.known and (own or source.task == "regression"):
        names = "scale, columns, valid, time, group and regression"
        raise InputError(
            f"dataset {source.name!r}: {names} are for data of your own; leave them out"
        )
    if source.known:
        return loader(source.name).load(source.name, folder or default_dir())
    return FILES.load()(source)  # type: ignore[no-any-return]


def schema_of(data: Mapping[str, Any]) -> Schema:
    """Returns the input schema of a stored study. data: see describe; the oldest studies name only
    the dataset, whose loader knows the normalization."""
    entry: Any = loader(data["name"]) if "mean" not in data and data["name"] in DATASETS else None
    mean, std = getattr(entry, "scales", None) or (data.get("mean"), data.get("std"))
    return Schema.of({**data, "mean": mean, "std": std})


def default_dir() -> Path:
    """Returns the per-user cache folder for datasets. Raises InputError if there is no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpo"
    except RuntimeError as error:
        raise InputError(
            "--data-dir: is needed because there is no home folder to keep datasets in; give one, "
            "or set HPO_DATA_DIR"
        ) from error


def make_dataset(
    name: str,
    train: Pair,
    test: Pair | None,
    schema: Schema,
    *,
    scales: tuple[float, float] | None = None,
    valid: Pair | None = None,
    times: Floats64 | None = None,
    groups: Integers | None = None,
    tested: bool = True,
) -> Dataset:
    """Makes a dataset of (examples, labels), as in the data; completes the schema by what
    data.fit measures on the training part.

    test: None: a fifth of each class is held out by a fixed seed, before anything else.
    valid: those that all seeds validate on; None: each seed draws them.
    times: of the training examples, rising: the last fifth is held out, and the last fifth before
        it is validated on. Equal times stay together.
    groups: of the training examples: all of a group stand in one part.
    scales: mean and standard deviation to normalize by; None: those of the training part.
    tested: whether to hold out a test part where there is none; without, all are to train on.
    Raises InputError for columns that tell a network nothing, see data.fit.
    """
    stratified = test is None
    if groups is not None:
        _check_groups(groups, held_out=test is None)
    if test is None and not tested:
        test = (train[0][:0], train[1][:0])
    elif test is None:
        rows = _parts(train[1], times, groups)
        train, test = ((train[0][part], train[1][part]) for part in rows)
        groups = groups[rows[0]] if groups is not None else None
    (x, labels), (test_x, test_labels) = train, test
    drawn = len(labels) if times is None else _cut(times[: len(labels)], VALID_SHARE)
    if valid:
        x, labels = np.concatenate([x, valid[0]]), np.concatenate([labels, valid[1]])
    before, schema = schema, targeted(measured(schema, x, scales), labels)
    x, test_x = (recoded(part, before, schema) for part in (x, test_x))
    digest = hashlib.sha256()
    digested = [x, labels, test_x, test_labels, *([] if groups is None else [groups])]
    for array in digested:
        digest.update(np.ascontiguousarray(array).data)
    images = schema.normalized(x)
    if not schema.pixels and x.ndim == 2:
        with naming(f"dataset {name!r}"):
            check_told_apart(schema, x, images)
    return Dataset(
        name=name,
        train_images=images,
        train_labels=_trained(schema, labels),
        test_images=schema.normalized(test_x),
        test_labels=_trained(schema, test_labels),
        stratified=stratified,
        tested=tested,
        checksum=digest.hexdigest(),
        valid_rows=np.arange(drawn, len(labels)),
        groups=np.zeros(0, np.int64) if groups is None else groups,
        schema=schema,
        examples=_as_exported(schema, x[:EXAMPLES]),
    )


def _trained(schema: Schema, labels: Array) -> Labels:
    """Returns labels as networks are trained on them."""
    return schema.standardized(labels) if schema.target else labels.astype(np.int64)


def _as_exported(schema: Schema, x: Array) -> Array:
    """Returns examples as an exported network takes them: pixels of 0 … 1, or numbers."""
    rows = x.reshape(len(x), -1)
    if schema.pixels:
        return np.divide(rows, white_level(rows), dtype=np.float32)
    return rows.astype(np.float64)


def _parts(
    labels: Array, times: Floats64 | None, groups: Integers | None
) -> tuple[Integers, Integers]:
    """Returns the rows to train on and those to test on."""
    if times is not None:
        start = _cut(times, TEST_SHARE)
        return np.arange(start), np.arange(start, len(labels))
    rng = np.random.default_rng(TEST_SEED)
    if groups is not None:
        return _split_groups(labels, groups, TEST_SHARE, rng, left=2)
    return _split(labels, TEST_SHARE, rng)


def _check_groups(groups: Integers, *, held_out: bool) -> None:
    count, parts = len(np.unique(groups)), ["to train on", "to validate on"]
    parts += ["to test on"] * held_out
    if count < len(parts):
        raise InputError(
            f"group: has {count} values, and {len(parts)} are needed, of rows {', '.join(parts)}"
        )


def _cut(times: Floats64, share: float) -> int:
    """Returns where the last rows begin: this share of them, and those of the same time."""
    place = max(len(times) - max(round(share * len(times)), 1), 0)
    start = int(np.searchsorted(times, times[place])) if len(times) else 0
    if not start:
        raise InputError("time: all rows have one time, so none is the last; give another column")
    return start


def repeated(dataset: Dataset) -> dict[str, int]:
    """Returns how many training rows repeat another one, and how many test rows stand in the
    training part, too: with the same features."""
    known = {hash(row.tobytes()) for row in dataset.train_images}
    both = sum(hash(row.tobytes()) in known for row in dataset.test_images)
    return {"duplicates": len(dataset.train_images) - len(known), "in_both": both}


def as_bytes(image: Floats, shape: Sequence[int]) -> str | None:
    """Returns a picture, a row of features, as base64 bytes, 255 at its brightest; None for another
    shape than a picture's."""
    if not is_picture(shape):
        return None
    low, high = image.min(), image.max()
    scaled = ((image - low) / np.maximum(high - low, np.float32(1e-9)) * 255).round()
    return base64.b64encode(scaled.astype(np.uint8).tobytes()).decode()


def test_pictures(dataset: Dataset, images: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Returns {index: label and pixels, see as_bytes} of test images, for a report's picture."""
    return {
        str(image): {
            "label": int(dataset.test_labels[image]),
            "pixels": as_bytes(dataset.test_images[image], dataset.shape),
        }
        for image in images
    }


def describe(dataset: Dataset) -> dict[str, Any]:
    """Returns what a study stores of its data: name, checksum, sizes, input schema, what a guess
    gets, the share of the training rows' largest class in the test labels (without a test part, in
    all); of the user's own data also where they are from, and the examples of each class."""
    train_rows, valid_rows = split(dataset, 0)
    guess, of_labels = (_of_targets if dataset.regression else _of_classes)(dataset)
    return {
        "name": dataset.name,
        "checksum": dataset.checksum,
        "train": len(train_rows),
        "valid": len(valid_rows),
        "test": len(dataset.test_labels),
        **dataset.schema.as_dict(),
        "features": dataset.train_images.shape[1],
        **guess,
        **({"about": {**dataset.about, **of_labels}} if dataset.about else {}),
    }


def _of_classes(dataset: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a guess gets, and the examples of each class."""
    parts = {"train": dataset.train_labels, "test": dataset.test_labels}
    of_class = {k: np.bincount(v, minlength=dataset.classes).tolist() for k, v in parts.items()}
    judged = of_class["test" if dataset.tested else "train"]
    guess = {
        "chance": chance(dataset),
        "largest": judged[int(np.argmax(of_class["train"]))] / sum(judged),
        "guess_loss": _guess_loss(dataset),
        "unbalanced": is_unbalanced(dataset),
    }
    return guess, {"of_class": of_class}


def _of_targets(dataset: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what a guess gets of a regression's training rows and test rows, and the range of
    each part's targets. The guess is the training rows' mean; of the absolute error, their
    median."""
    assert dataset.schema.target
    unit = dataset.schema.target[1]
    tests = dataset.test_labels if dataset.tested else dataset.train_labels
    parts = {"train": dataset.train_labels, "test": tests}
    median, guess, ranges = np.median(dataset.train_labels), {}, {}
    for part, labels in parts.items():
        targets = labels.astype(np.float64)
        loss, variance = float((targets**2).mean()), float(targets.var())
        guess[part] = {
            "loss": loss,
            "rmse": unit * math.sqrt(loss),
            "mae": unit * float(np.abs(targets - median).mean()),
            "r2": 1 - loss / variance if variance else 0.0,
        }
        ends = dataset.schema.in_unit(np.array([labels.min(), labels.max()]))
        ranges[part] = ends.tolist()
    return {"guess": guess}, {"target_range": ranges}


def _rare(dataset: Dataset) -> list[str]:
    """Returns a fault for each class with too few examples, and of many the first ones."""
    classes, remedy = dataset.classes, "give some, or leave out the test part"
    if not dataset.about.get("test_file"):  # the part was held out
        remedy = "give more examples of it"
    labels = dataset.train_labels, dataset.test_labels
    counts = [np.bincount(part, minlength=classes) for part in labels]
    each = list(zip(dataset.schema.classes, *counts, strict=True))
    faults = [
        f"{train} training examples of class {name}: the split needs {LEAST_OF_A_CLASS} of each"
        for name, train, _ in each
        if 0 < train < LEAST_OF_A_CLASS and (dataset.tested or max(counts[0]) == train)
    ]
    faults += [
        f"no test example of class {name}: {remedy}"
        for name, train, test in each
        if train and not test and dataset.tested
    ]
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = [f"and {len(faults) - MOST_FAULTS} such lines more"]
    numbers = [name for name in dataset.schema.classes if AMOUNT.match(name)]
    if faults and 2 * len(numbers) > classes:
        faults[-1] += '; if the labels are numbers to predict, give task = "regression"'
        if odd := [name for name in dataset.schema.classes if not NUMBER.fullmatch(name)]:
            faults[-1] += f" and mend those that are no plain numbers, such as {quoted(odd[0])}"
    return faults


def check(dataset: Dataset) -> None:
    """Raises InputError, one line per fault, for a dataset that cannot be trained on."""
    classes = dataset.classes
    faults = _fault("training", dataset.train_images, dataset.train_labels, LEAST_TRAINING, classes)
    drawn = dataset.stratified and not dataset.regression
    if drawn and not faults and not len(dataset.test_labels):  # classes are too rare to be held out
        faults += _rare(dataset)
    if dataset.tested and not faults:
        faults += _fault("test", dataset.test_images, dataset.test_labels, 1, classes)
    shapes = dataset.train_images.shape[1:], dataset.test_images.shape[1:]
    if shapes[0] != shapes[1] or shapes[0] == (0,):
        faults.append(f"examples of {shapes[0]} and {shapes[1]} features: must be alike, and some")
    if not faults and drawn:
        faults += _rare(dataset)
        parts = split(dataset, 0) if len(dataset.valid_rows) else ()
        for part, rows in zip(("training", "validation"), parts, strict=False):
            absent = np.setdiff1d(dataset.train_labels, dataset.train_labels[rows])
            faults += [f"no {part} example of class {dataset.schema.classes[c]}" for c in absent]
    if faults:
        raise InputError("\n".join(f"dataset {dataset.name!r}: {fault}" for fault in faults))


def _fault(part: str, images: Floats, labels: Labels, least: int, classes: int) -> list[str]:
    if images.ndim != 2 or labels.shape != (len(images),):
        shapes = f"{part} examples of shape {images.shape} and labels of shape {labels.shape}"
        return [f"{shapes}: must be (N, features) and (N,)"]
    if len(labels) < least:
        return [f"{len(labels)} {part} examples: at least {least} are needed"]
    low, high = labels.min(), labels.max()
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        return [f"{part} labels: hold values that are not finite"]
    if labels.dtype.kind != "f" and not 0 <= low <= high < classes:
        return [f"{part} labels from {low} to {high}: must be from 0 to {classes - 1}"]
    if not math.isfinite(float(images.sum(dtype=np.float64))):
        return [f"{part} examples: hold values that are not finite"]
    return []


def split(dataset: Dataset, seed: int) -> tuple[Integers, Integers]:
    """Returns the rows (train, valid) of the training images, 8:2, the same for every network."""
    if len(dataset.valid_rows):
        return np.setdiff1d(np.arange(len(dataset.train_labels)), dataset.valid_rows), (
            dataset.valid_rows
        )
    rng = np.random.default_rng(seed)
    if len(dataset.groups):
        return _split_groups(dataset.train_labels, dataset.groups, VALID_SHARE, rng)
    if dataset.stratified:
        return _split(dataset.train_labels, VALID_SHARE, rng)
    n = len(dataset.train_labels)
    order, train = rng.permutation(n), n - int(n * VALID_SHARE)
    return order[:train], order[train:]


def fold(dataset: Dataset, number: int, folds: int) -> tuple[Integers, Integers]:
    """Returns the rows (train, valid) of a fold of the training images. Folds are equally large,
    and each has the same share of every class, or of the tenths of a target; the fewer than `folds`
    rows that are left are always trained on."""
    labels = dataset.train_labels
    order = np.random.default_rng(FOLDS_SEED).permutation(len(labels))
    order = order[np.argsort(_strata(labels)[order], kind="stable")]
    valid = np.sort(order[: len(labels) // folds * folds].reshape(-1, folds)[:, number])
    return np.setdiff1d(np.arange(len(labels)), valid), valid


def check_folds(dataset: Dataset, folds: int) -> None:
    """Raises InputError for data that say themselves which rows validate, or have too few rows."""
    if len(dataset.valid_rows) or len(dataset.groups):
        raise InputError(
            f"dataset {dataset.name!r}: says which rows stand in which part; leave out "
            f"search.folds = {folds}"
        )
    if (rows := len(dataset.train_labels)) < 2 * folds:
        raise InputError(
            f"dataset {dataset.name!r}: has {rows} rows to train on, and search.folds = {folds} "
            f"needs {2 * folds} or more"
        )


def _split(
    labels: NDArray[Any], share: float, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """Draws the same share of every stratum; returns the rows left and those drawn, both sorted.
    scikit-learn's function would take 1.2 s to import in each worker."""
    strata = _strata(labels)
    chosen = [
        rng.permutation(rows)[: round(share * len(rows))]
        for rows in (np.flatnonzero(strata == each) for each in np.unique(strata))
    ]
    drawn = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), drawn), drawn


def _split_groups(
    labels: Labels, groups: Integers, share: float, rng: np.random.Generator, left: int = 1
) -> tuple[Integers, Integers]:
    """Draws whole groups of about this share of the rows; returns the rows that stay, of `left`
    groups or more, and those drawn. Of DRAWS draws, the one whose share of each class (or tenth of
    a target) is nearest to `share`."""
    strata = np.unique(_strata(labels), return_inverse=True)[1]
    names, places = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), strata.max() + 1))  # rows of each group and stratum
    np.add.at(counts, (places, strata), 1)
    wanted = share * counts.sum(axis=0)
    best, least = np.zeros(0, np.int64), math.inf
    for _ in range(DRAWS):
        order = rng.permutation(len(names))[: len(names) - left]
        sums = counts[order].cumsum(axis=0)
        count = int(np.abs(sums.sum(axis=1) - wanted.sum()).argmin())
        error = float(((sums[count] - wanted) ** 2 / np.maximum(wanted, 1)).sum())
        if error < least:
            best, least = order[: count + 1], error
    drawn = np.isin(places, best)
    return np.flatnonzero(~drawn), np.flatnonzero(drawn)


def _strata(labels: Labels) -> NDArray[Any]:
    """Returns the part of the labels that each row is drawn from: its class; of targets the tenth
    that it lies in, or a larger part where a tenth has fewer than ten rows."""
    if labels.dtype.kind != "f":
        return labels
    parts = max(min(TENTHS, len(labels) // TENTHS), 1)
    edges = np.quantile(labels, np.arange(1, parts) / parts)
    return np.searchsorted(np.unique(edges), labels, side="right")


def is_unbalanced(dataset: Dataset) -> bool:
    """Whether the largest class has UNBALANCED times the training examples of the smallest one."""
    counts = np.bincount(dataset.train_labels, minlength=dataset.classes)
    return bool(counts.max() >= UNBALANCED * counts.min())


def _guess_loss(dataset: Dataset) -> float:
    """Returns the cross entropy of a guess by the classes' shares of the training labels."""
    shares = np.bincount(dataset.train_labels) / len(dataset.train_labels)
    return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())


def chance(dataset: Dataset) -> float:
    """Returns the accuracy of a guess: 1 / classes, or the largest class's share if the classes are
    unbalanced."""
    if not is_unbalanced(dataset):
        return 1 / dataset.classes
    return float(np.bincount(dataset.train_labels).max() / len(dataset.train_labels))
