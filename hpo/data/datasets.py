"""Datasets as arrays in memory: loaded by name, checked, split."""

import base64
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.errors import InputError
from hpo.study.names import DATASETS, FILES
from hpo.study.source import Source

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Pixels = NDArray[np.uint8]

REPLACEMENT = "mnist-5k"  # of MNIST where it is not to be had
EMBEDDED = (REPLACEMENT, "digits", "breast-cancer", "wine")  # need no download
VALID_SHARE = 0.2
LEAST_TRAINING = 5  # one of five is validated on
LEAST_OF_A_CLASS = 3  # a fifth of three rounds to one, of two to none
PART = 256  # images that are normalized at a time
UNBALANCED = 1.5  # the largest class has so many times the smallest one's examples
DIGITS = tuple(map(str, range(10)))

# A number for all features, or one for each of them.
Scale = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """images: (N, features) float32, normalized; labels: (N,) int64; checksum: SHA-256 of both.

    Rows of a table are called images, too. stratified: whether each class is split by itself.
    class_names: of the labels 0, 1 and so on. shape: of an image before it was made a row. mean and
    std: what the features were normalized by. pixels: whether they were bytes, scaled to 0 … 1
    before. The test images are only for trained networks.
    """

    name: str
    train_images: Floats
    train_labels: Integers
    test_images: Floats
    test_labels: Integers
    stratified: bool
    checksum: str
    class_names: tuple[str, ...] = DIGITS
    shape: tuple[int, ...] = ()
    mean: Scale = 0.0
    std: Scale = 1.0
    pixels: bool = True

    @property
    def classes(self) -> int:
        return len(self.class_names)


class Loader(Protocol):
    """What an entry of study.names.DATASETS names: it reads a dataset."""

    def load(self, name: str, folder: Path) -> Dataset:
        """Reads the dataset, downloaded to `folder` if needed. name: of the Dataset."""

    def missing(self, folder: Path) -> list[str]:
        """Returns the files that `folder` lacks."""


def loader(name: str) -> Loader:
    """Returns the loader of a dataset's name."""
    entry: Loader = DATASETS[name].load()
    return entry


def load(source: Source | str, folder: Path) -> Dataset:
    """Reads a dataset: the user's files, or a known one from `folder`, downloaded first if it is
    not there.

    Raises InputError, one line per file, for files that are wrong, and Unavailable if the dataset
    is not on disk and cannot be downloaded.
    """
    source = Source(source) if isinstance(source, str) else source
    if source.known:
        return loader(source.name).load(source.name, folder)
    read: Callable[[Source], Dataset] = FILES.load()
    return read(source)


def missing(name: str, folder: Path) -> list[str]:
    """Returns the dataset's files that `folder` lacks."""
    return loader(name).missing(folder)


def normalization(data: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns the mean and the standard deviation that normalize features (pixels: of 0 … 1), a
    number or a list of one per feature. data: see runs.study.describe; older studies name only the
    dataset."""
    if "mean" in data:
        return data["mean"], data["std"]
    entry: Any = loader(data["name"])
    return entry.mean, entry.std


def default_dir() -> Path:
    """Returns the per-user cache folder for datasets. Raises InputError if there is no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpo"
    except RuntimeError as error:
        raise InputError(
            "--data-dir: is needed because there is no home folder to keep datasets in; give one, "
            "or set HPO_DATA_DIR"
        ) from error


def from_pixels(
    name: str,
    train: tuple[Pixels, Pixels],
    test: tuple[Pixels, Pixels],
    mean: float | None = None,
    std: float | None = None,
    *,
    stratified: bool = False,
    class_names: Sequence[str] = DIGITS,
) -> Dataset:
    """Makes a dataset of (images, labels) as bytes, normalized as ToTensor and Normalize do.

    mean and std: of pixels of 0 … 1; None: those of the training images.
    """
    if mean is None or std is None:
        mean, std = _moments(train[0])
    return Dataset(
        name=name,
        train_images=_normalized(train[0], mean, std),
        train_labels=train[1].astype(np.int64),
        test_images=_normalized(test[0], mean, std),
        test_labels=test[1].astype(np.int64),
        stratified=stratified,
        checksum=checksum(*train, *test),
        class_names=tuple(class_names),
        shape=train[0].shape[1:] if train[0].ndim > 2 else _square(train[0]),
        mean=mean,
        std=std,
    )


def _normalized(pixels: Pixels, mean: float, std: float) -> Floats:
    """Returns the pixels as rows of normalized numbers. In parts that fit the cache: a table of the
    256 levels takes several times as long."""
    rows = pixels.reshape(len(pixels), -1)
    images = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), PART):
        part = images[start : start + PART]
        np.divide(rows[start : start + PART], np.float32(255), out=part, dtype=np.float32)
        part -= np.float32(mean)
        part /= np.float32(std)
    return images


def _moments(pixels: Pixels) -> tuple[float, float]:
    """Returns mean and standard deviation of pixels of 0 … 1; of equal pixels, 1."""
    counts, levels = np.bincount(pixels.ravel(), minlength=256), np.arange(256) / 255
    mean = float((counts * levels).sum() / max(counts.sum(), 1))
    variance = float((counts * (levels - mean) ** 2).sum() / max(counts.sum(), 1))
    return mean, math.sqrt(variance) or 1.0


def _square(rows: NDArray[Any]) -> tuple[int, ...]:
    """Returns the shape of the square images that are rows; () if they are no squares."""
    side = math.isqrt(rows.shape[1])
    return (side, side) if side**2 == rows.shape[1] else ()


def checksum(*arrays: NDArray[Any]) -> str:
    """Returns the SHA-256 of the arrays' bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def is_picture(shape: Sequence[int]) -> bool:
    """Whether features of this shape are a picture: (height, width), or with 3 colours."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)


def input_shape(shape: Sequence[int], features: int) -> tuple[int, ...]:
    """Returns the shape of one input of a module: (1, height, width) for a grey picture, (3,
    height, width) for a coloured one, (features,) for a row of a table."""
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) == 3:
        return (shape[2], shape[0], shape[1])
    return (features,)


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


def test_accuracy(dataset: Dataset, probabilities: NDArray[Any]) -> float:
    """Returns the share of the test images whose most probable class, (images, classes), is their
    label; for an ensemble of trained networks."""
    return float((probabilities.argmax(axis=1) == dataset.test_labels).mean())


def check(dataset: Dataset) -> None:
    """Raises InputError, one line per fault, for a dataset that cannot be trained on."""
    classes = dataset.classes
    faults = _fault("training", dataset.train_images, dataset.train_labels, LEAST_TRAINING, classes)
    faults += _fault("test", dataset.test_images, dataset.test_labels, 1, classes)
    shapes = dataset.train_images.shape[1:], dataset.test_images.shape[1:]
    if shapes[0] != shapes[1] or shapes[0] == (0,):
        faults.append(f"examples of {shapes[0]} and {shapes[1]} features: must be alike, and some")
    if not faults and dataset.stratified:
        counts = np.bincount(dataset.train_labels, minlength=classes)
        faults += [
            f"{count} training examples of class {name}: the split needs {LEAST_OF_A_CLASS} of each"
            for name, count in zip(dataset.class_names, counts, strict=True)
            if 0 < count < LEAST_OF_A_CLASS
        ]
        tested = np.bincount(dataset.test_labels, minlength=classes)
        faults += [
            f"no test example of class {name}: give some, or leave out the test part"
            for name, count, trained in zip(dataset.class_names, tested, counts, strict=True)
            if trained and not count
        ]
    if faults:
        raise InputError("\n".join(f"dataset {dataset.name!r}: {fault}" for fault in faults))


def _fault(part: str, images: Floats, labels: Integers, least: int, classes: int) -> list[str]:
    if images.ndim != 2 or labels.shape != (len(images),):
        shapes = f"{part} examples of shape {images.shape} and labels of shape {labels.shape}"
        return [f"{shapes}: must be (N, features) and (N,)"]
    if len(labels) < least:
        return [f"{len(labels)} {part} examples: at least {least} are needed"]
    low, high = labels.min(), labels.max()
    if not 0 <= low <= high < classes:
        return [f"{part} labels from {low} to {high}: must be from 0 to {classes - 1}"]
    if not math.isfinite(float(images.sum(dtype=np.float64))):
        return [f"{part} examples: hold values that are not finite"]
    return []


def split(dataset: Dataset, seed: int) -> tuple[Integers, Integers]:
    """Returns the rows (train, valid) of the training images, 8:2, the same for every network."""
    rng = np.random.default_rng(seed)
    n = len(dataset.train_labels)
    if dataset.stratified:
        valid = stratified(dataset.train_labels, VALID_SHARE, rng)
        return np.setdiff1d(np.arange(n), valid), valid
    order = rng.permutation(n)
    train = n - int(n * VALID_SHARE)
    return order[:train], order[train:]


def stratified(labels: NDArray[Any], share: float, rng: np.random.Generator) -> Integers:
    """Draws rows of the same share of every class, sorted. scikit-learn's function would take 1.2 s
    to import in each worker."""
    chosen = [
        rng.permutation(rows)[: round(share * len(rows))]
        for rows in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    return np.sort(np.concatenate(chosen))


def is_unbalanced(dataset: Dataset) -> bool:
    """Whether the largest class has UNBALANCED times the training examples of the smallest one."""
    counts = np.bincount(dataset.train_labels, minlength=dataset.classes)
    return bool(counts.max() >= UNBALANCED * counts.min())


def chance(dataset: Dataset) -> float:
    """Returns the accuracy of a guess: 1 / classes, or the largest class's share if the classes are
    unbalanced."""
    if not is_unbalanced(dataset):
        return 1 / dataset.classes
    return float(np.bincount(dataset.train_labels).max() / len(dataset.train_labels))
