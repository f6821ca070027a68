"""An experiment: the first layer as a sparse product, because most pixels are background.

    HPO_DATA_DIR=… python tests/benchmarks/sparse.py           a minute, one core

After normalization the background is b = -mean/std and not 0. With x = s + b·1, where s is zero at
the background, x W = s W + b·(column sums of W): a sparse product and one row that is carried along
and updated with each step. The gradient of W is sᵀ δ + b·1·(sum of δ over the batch), and the
second term is the same for all rows: W = V + 1·uᵀ takes it in u.

Prints the microseconds of a step of batch 64, of the sparse form of a batch (its images' numbers,
gathered, and the same sorted by pixel for the gradient), and the share of a step that is saved.

Twice, on one core of an AMD EPYC: the products alone would save 12 to 20% of a step at width 32,
31% at 128 and 17 to 20% at 512. With the 400 to 660 µs for the sparse form, the step gets slower at
32 and 128, and -5 to 5% are saved at 512. It is not built.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from speed import config
from torch import Tensor
from torch.nn.functional import embedding_bag

from hpo.data import datasets as data
from hpo.study.config import Seeds
from hpo.training.train import Examples, Split, train

BATCH, ROUNDS = 64, 300


def timed(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds[10:])


def csr(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns columns, values and row offsets of what is not background, and none of the rest."""
    background = images.min()
    shifted = images - background
    row, column = shifted.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(images))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return column, shifted[row, column], offsets


def batch_of(
    columns: Tensor, values: Tensor, offsets: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the sparse form of the images in rows: columns, values and offsets by image, then
    images, values and offsets by pixel."""
    counts = offsets[rows + 1] - offsets[rows]
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    shift = torch.repeat_interleave(offsets[rows] - starts[:-1], counts)
    places = torch.arange(int(starts[-1])) + shift
    column, value = columns[places], values[places]
    order = torch.argsort(column)
    image = torch.repeat_interleave(torch.arange(len(rows)), counts)[order]
    by_pixel = torch.bincount(column, minlength=784).cumsum(0)
    pixel_offsets = torch.cat([torch.zeros(1, dtype=torch.int64), by_pixel])
    return column, value, starts, image, value[order], pixel_offsets


def compare(width: int, images: Tensor) -> tuple[float, float, float]:
    """Returns microseconds: dense forward and gradient, sparse ones, and the error of the sparse
    ones."""
    batch = images[:BATCH].contiguous()
    weight, delta = torch.randn(784, width) * 0.05, torch.randn(BATCH, width)
    whole = csr(batch)
    column, value, offsets, image, by_pixel, pixel_offsets = batch_of(*whole, torch.arange(BATCH))
    background, out = batch.min(), torch.empty(BATCH, width)
    gradient = torch.empty(784, width)

    def forward() -> Tensor:
        return embedding_bag(
            column, weight, offsets, mode="sum", per_sample_weights=value, include_last_offset=True
        )

    def backward() -> Tensor:
        return embedding_bag(
            image, delta, pixel_offsets, mode="sum", per_sample_weights=by_pixel,
            include_last_offset=True,
        )  # fmt: skip

    dense = timed(lambda: torch.mm(batch, weight, out=out))
    dense += timed(lambda: torch.mm(batch.T, delta, out=gradient))
    exact = forward() + background * weight.sum(0), backward() + background * delta.sum(0)
    error = max(float((a - b).abs().max()) for a, b in zip(exact, (out, gradient), strict=True))
    apply = timed(lambda: weight.add_(backward(), alpha=-1e-9)) - timed(backward)
    return dense, timed(forward) + timed(backward) + apply, error


def main() -> None:
    torch.set_num_threads(1)
    loaded = data.load("mnist", Path(os.environ.get("HPO_DATA_DIR") or data.default_dir()))
    images = torch.from_numpy(loaded.train_images)
    examples = Examples(images, torch.from_numpy(loaded.train_labels))
    share = float((images[:1000] > images.min()).float().mean())
    print(f"pixels that are not background: {100 * share:.0f}%")
    first, rows = csr(images[:6_000]), torch.randperm(6_000)[:BATCH]
    form = timed(lambda: batch_of(*first, rows))
    dense_form = timed(lambda: torch.index_select(images, 0, rows))
    print(f"form of a batch: {form:.0f} µs sparse, {dense_form:.0f} µs dense")
    print("| width | dense, µs | sparse, µs | saved of a step | with the form | error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for width in (32, 128, 512):
        dense, sparse, error = compare(width, images)
        rows = torch.randperm(len(images))
        split = Split(rows[:48_000], rows[-1:])
        epochs = list(train(config(width, epochs=2), examples, [split], [Seeds.of(0)]))
        step = 1e6 * epochs[-1].seconds / 750
        saved = dense - sparse, dense + dense_form - sparse - form
        cells = [f"{dense:.0f}", f"{sparse:.0f}", *(f"{100 * s / step:.0f}%" for s in saved)]
        print(f"| {width} | {' | '.join(cells)} | {error:.0e} |")


if __name__ == "__main__":
    main()
