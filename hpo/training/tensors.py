"""A dataset's arrays as tensors on a device, and how a thread computes with tensors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.data.datasets import Dataset, Labels, fold, split
from hpo.data.schema import Floats
from hpo.errors import InputError
from hpo.study.config import Seeds

# Rows evaluated at a time: 784 floats each, so 5 replicates stay within 4 MB; full cache lines.
CHUNK = 256


@dataclass(frozen=True)
class Examples:
    """Images (N, features) float32 and labels (N,) int64, from 0 to classes - 1; of a regression
    float32, standardized, and one number is answered, as if of one class."""

    images: Tensor
    labels: Tensor
    classes: int = 10
    shape: tuple[int, ...] = ()  # of an image before it was made a row
    deviation: float = 1.0  # of a regression's targets, in their unit

    @property
    def regression(self) -> bool:
        return self.labels.is_floating_point()


@dataclass(frozen=True)
class Split:
    """Rows of the examples to train on and to validate on, int64."""

    train: Tensor
    valid: Tensor

    def part(self, share: float) -> "Split":
        """Returns the first rows of both parts, this share of them."""
        return Split(*(p[: math.ceil(share * len(p))] for p in (self.train, self.valid)))


def batches(rows: Tensor, size: int) -> list[Tensor]:
    """Splits rows (R, n) into batches (steps, R, size), and a smaller last one (1, R, rest)."""
    full = rows.shape[1] - rows.shape[1] % size
    parts = [part for part in (rows[:, :full], rows[:, full:]) if part.numel()]
    shaped = [part.unflatten(1, (-1, min(size, part.shape[1]))) for part in parts]
    return [part.transpose(0, 1).contiguous() for part in shaped]


def choose_device(name: str) -> torch.device:
    """Returns the device of that name; auto is CUDA if there is one, else the CPU. MPS is no faster
    for networks this small.

    Raises InputError for a device that this machine or this build of torch does not have.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = {"cpu": True, "cuda": cuda, "mps": mps}
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    if not there.get(name):
        has = ", ".join(device for device, usable in there.items() if usable)
        raise InputError(f"device {name!r}: not usable here; this machine has {has}")
    return torch.device(name)


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Within it, this thread takes numbers below 1.2e-38 as 0, where the processor can.

    Saturated sigmoids give such numbers, and some processors compute with them in microcode: a
    matrix product of them took 250 times as long on an Intel Xeon.
    """
    before = torch.tensor(1e-40).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def examples(
    images: Floats,
    labels: Labels,
    classes: int,
    device: torch.device,
    shape: tuple[int, ...] = (),
    deviation: float = 1.0,
) -> Examples:
    """Returns the arrays as tensors; on the CPU they share the arrays' memory."""
    rows, truth = (torch.from_numpy(array).to(device) for array in (images, labels))
    return Examples(rows, truth, classes, shape, deviation)


def split_rows(dataset: Dataset, seeds: Seeds, folds: int = 0) -> Split:
    """Returns the rows that these seeds train on and validate on. folds: see data.datasets.fold; 0:
    the split is drawn."""
    number = seeds.split
    rows = fold(dataset, number % folds, folds) if folds else split(dataset, number)
    return Split(*map(torch.from_numpy, rows))


def class_weights(
    given: str | Mapping[str, float] | None,
    examples: Examples,
    splits: Sequence[Split],
    names: Sequence[str],
) -> Tensor | None:
    """Returns the weight of each class in each split's training loss, (R, classes); None: all 1.

    given: see study.file.Head; classes that it does not name weigh 1. Balanced: n / (k · n_c), as
    scikit-learn's, of n training rows, n_c of them of the class, and k classes with rows. names: of
    the classes.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        weights = torch.tensor([float(given.get(name, 1.0)) for name in names])
        return weights.expand(len(splits), -1).to(examples.labels.device)
    labels = [examples.labels[split.train] for split in splits]
    counts = torch.stack([torch.bincount(each, minlength=len(names)) for each in labels]).double()
    there = (counts > 0).sum(1, keepdim=True)
    weights = counts.sum(1, keepdim=True) / (there * counts)
    return weights.masked_fill(counts == 0, 1.0).float()


def all_rows(dataset: Dataset) -> Split:
    """Returns a split with all training images to train on and none to validate on."""
    return Split(torch.arange(len(dataset.train_labels)), torch.arange(0))
