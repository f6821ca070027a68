"""Datasets as arrays in memory: loaded by name, checked, split."""

import base64
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.errors import InputError
from hpo.study.config import CLASSES
from hpo.study.names import DATASETS

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Pixels = NDArray[np.uint8]

EMBEDDED = "mnist-5k"  # needs no download
VALID_SHARE = 0.2
LEAST_TRAINING = 5  # one of five is validated on
LEAST_OF_A_CLASS = 3  # a fifth of three rounds to one, of two to none


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """images: (N, features) float32, normalized; labels: (N,) int64; checksum: SHA-256 of both.

    stratified: whether each class is split by itself. The test images are only for trained
    networks.
    """

    name: str
    train_images: Floats
    train_labels: Integers
    test_images: Floats
    test_labels: Integers
    stratified: bool
    checksum: str


class Source(Protocol):
    """What an entry of study.names.DATASETS names: where a dataset comes from.

    mean and std normalize pixels of 0 … 1.
    """

    mean: float
    std: float

    def load(self, name: str, folder: Path) -> Dataset:
        """Reads the dataset, downloaded to `folder` if needed. name: of the Dataset."""

    def missing(self, folder: Path) -> list[str]:
        """Returns the files that `folder` lacks."""


def source(name: str) -> Source:
    """Returns the source of a dataset's name."""
    entry: Source = DATASETS[name].load()
    return entry


def load(name: str, folder: Path) -> Dataset:
    """Reads a dataset from `folder` and downloads it first if it is not there.

    Raises InputError, one line per file, for files that fail their checksum, and Unavailable if the
    dataset is not on disk and cannot be downloaded.
    """
    return source(name).load(name, folder)


def missing(name: str, folder: Path) -> list[str]:
    """Returns the dataset's files that `folder` lacks."""
    return source(name).missing(folder)


def normalization(name: str) -> tuple[float, float]:
    """Returns the mean and the standard deviation that normalize pixels of 0 … 1."""
    return source(name).mean, source(name).std


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
    mean: float,
    std: float,
    *,
    stratified: bool = False,
) -> Dataset:
    """Makes a dataset of (images, labels) as bytes, normalized as ToTensor and Normalize do."""
    digest = hashlib.sha256()
    for part in (*train, *test):
        digest.update(np.ascontiguousarray(part).data)
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    levels = (levels - np.float32(mean)) / np.float32(std)
    return Dataset(
        name=name,
        train_images=levels[train[0].reshape(len(train[0]), -1)],
        train_labels=train[1].astype(np.int64),
        test_images=levels[test[0].reshape(len(test[0]), -1)],
        test_labels=test[1].astype(np.int64),
        stratified=stratified,
        checksum=digest.hexdigest(),
    )


def as_bytes(image: Floats) -> str | None:
    """Returns a square image, a row of features, as base64 bytes, 255 at its brightest; None for
    another shape."""
    if math.isqrt(image.size) ** 2 != image.size:
        return None
    low, high = image.min(), image.max()
    scaled = ((image - low) / np.maximum(high - low, np.float32(1e-9)) * 255).round()
    return base64.b64encode(scaled.astype(np.uint8).tobytes()).decode()


def test_pictures(dataset: Dataset, images: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Returns {index: label and pixels, see as_bytes} of test images, for a report's picture."""
    return {
        str(image): {
            "label": int(dataset.test_labels[image]),
            "pixels": as_bytes(dataset.test_images[image]),
        }
        for image in images
    }


def check(dataset: Dataset) -> None:
    """Raises InputError, one line per fault, for a dataset that cannot be trained on."""
    faults = _fault("training", dataset.train_images, dataset.train_labels, LEAST_TRAINING)
    faults += _fault("test", dataset.test_images, dataset.test_labels, 1)
    shapes = dataset.train_images.shape[1:], dataset.test_images.shape[1:]
    if shapes[0] != shapes[1] or shapes[0] == (0,):
        faults.append(f"images of {shapes[0]} and {shapes[1]} features: must be alike, and some")
    if not faults and dataset.stratified:
        faults += [
            f"{count} training images of class {label}: the split needs {LEAST_OF_A_CLASS} of each"
            for label, count in enumerate(np.bincount(dataset.train_labels))
            if 0 < count < LEAST_OF_A_CLASS
        ]
    if faults:
        raise InputError("\n".join(f"dataset {dataset.name!r}: {fault}" for fault in faults))


def _fault(part: str, images: Floats, labels: Integers, least: int) -> list[str]:
    if images.ndim != 2 or labels.shape != (len(images),):
        shapes = f"{part} images of shape {images.shape} and labels of shape {labels.shape}"
        return [f"{shapes}: must be (N, features) and (N,)"]
    if len(labels) < least:
        return [f"{len(labels)} {part} images: at least {least} are needed"]
    low, high = labels.min(), labels.max()
    if not 0 <= low <= high < CLASSES:
        return [f"{part} labels from {low} to {high}: must be from 0 to {CLASSES - 1}"]
    if not math.isfinite(float(images.sum(dtype=np.float64))):
        return [f"{part} images: hold values that are not finite"]
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
