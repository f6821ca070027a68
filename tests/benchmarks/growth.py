"""How the cost of a training grows, measured, and the model that explains it.

    HPO_DATA_DIR=… python tests/benchmarks/growth.py           about 6 minutes on 2 cores
    HPO_DATA_DIR=… python tests/benchmarks/growth.py --quick   fewer rounds

Run it alone on the machine. Writes benchmark-growth.md and benchmark-growth.svg to
reports/published.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from scipy.optimize import nnls
from search import asking_seconds

from hpo.data import datasets as data
from hpo.report.figures.style import BLUE, VERMILLION, blank, drawing, head, svg_text
from hpo.storage.open import quiet
from hpo.study.config import SEED, Config, Seeds
from hpo.training.train import Examples, Split, train
from hpo.workers import provenance
from hpo.workers.messages import Done, Task
from hpo.workers.pool import LocalPool

ROOT = Path(__file__).parent.parent.parent
ROWS = 48_000
STEPS = 200  # of a measurement
BASE = Config(
    depth=2, width=64, activation="relu", optimizer="sgd", lr=0.01, batch_size=64, epochs=3
)
VARIED: Mapping[str, Sequence[int]] = {
    "width": (16, 32, 64, 128, 256, 512, 1024),
    "depth": (1, 2, 4, 8, 16),
    "batch_size": (16, 32, 64, 128, 256, 512),
    "stack": (1, 2, 3, 5, 8, 16),
}
TITLES = {
    "width": "Width, 2 hidden layers",
    "depth": "Depth, 64 units a layer",
    "batch_size": "Batch size, 2 × 64 units",
    "stack": "Seeds in a stack, 2 × 32 units",
}
TRIALS = (0, 100, 1_000, 3_000, 10_000)


@dataclass(frozen=True, kw_only=True)
class Point:
    """seconds: an epoch of 48,000 images, a seed's share. work: floating-point operations of it.
    numbers: read and written by the optimizer and the activations. layers: in all its steps."""

    value: int
    seconds: float
    work: float
    touched: float
    layers: float


def measured(varied: str, value: int, examples: Examples, rounds: int) -> Point:
    stack = value if varied == "stack" else 1
    config = replace(BASE, width=32) if varied == "stack" else replace(BASE, **{varied: value})
    batch = config.batch_size
    rows = torch.randperm(len(examples.labels))[: STEPS * batch]
    splits = [Split(rows, rows[:1])] * stack
    seconds = []
    for _ in range(rounds):
        epochs = list(train(config, examples, splits, [Seeds.of(s) for s in range(stack)]))
        seconds += [epoch.seconds for epoch in epochs[1:]]
    sizes = [examples.images.shape[1], *config.hidden, examples.classes]
    weights = sum(a * b for a, b in pairwise(sizes))
    steps = ROWS / batch
    return Point(
        value=value,
        seconds=statistics.median(seconds) * ROWS / len(rows),
        work=6 * weights * ROWS,
        touched=steps * weights + ROWS * sum(sizes),
        layers=steps * (config.depth + 1) / stack,
    )


def fitted(points: Sequence[Point]) -> tuple[float, float, float]:
    """Returns the seconds per operation, per number touched and per layer and step that explain
    the points best, by least squares of relative errors, none negative."""
    left = np.array([[p.work, p.touched, p.layers] for p in points])
    seconds = np.array([p.seconds for p in points])
    scale = left.max(0)
    found, _ = nnls(left / scale / seconds[:, None], np.ones(len(points)))
    per_work, per_number, per_layer = (found / scale).tolist()
    return per_work, per_number, per_layer


def explained(point: Point, constants: tuple[float, float, float]) -> float:
    parts = (point.work, point.touched, point.layers)
    return sum(a * b for a, b in zip(parts, constants, strict=True))


def throughput(dataset: data.Dataset, width: int, workers: int) -> float:
    """Returns how many epochs a second `workers` processes train in all."""
    config = replace(BASE, width=width, epochs=4 if width < 200 else 2)
    with LocalPool(workers, dataset, "cpu", 600.0) as pool:
        for warm in (True, False):
            began = time.perf_counter()
            for worker in pool.idle:
                pool.start(worker, Task(id=worker, config=config, seeds=(Seeds.of(SEED),)))
            ended = 0
            while ended < workers:
                ended += sum(isinstance(event, Done) for event in pool.wait(1.0))
            if not warm:
                return workers * config.epochs / (time.perf_counter() - began)
    raise AssertionError


def panel(axes: Axes, title: str, points: Sequence[Point], constants: tuple[float, ...]) -> None:
    values, seconds = [p.value for p in points], [p.seconds for p in points]
    axes.plot(values, seconds, "o", color=BLUE, label="measured")
    model = [explained(point, constants) for point in points]  # type: ignore[arg-type]
    axes.plot(values, model, color=VERMILLION, label="model")
    axes.set_xscale("log")
    if max(seconds) > 10 * min(seconds):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.1 * max(seconds))
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.set_ylabel("Seconds an epoch and seed")
    head(axes, title)


def figure(
    found: Mapping[str, Sequence[Point]],
    constants: tuple[float, float, float],
    workers: Mapping[int, Sequence[float]],
    asks: Sequence[float],
) -> str:
    """Draws a panel for each thing that grows."""
    with drawing():
        picture = blank(7.6, left=0.75, right=0.15, top=0.4, bottom=0.5)
        grid = picture.subplots(3, 2, gridspec_kw={"hspace": 0.5, "wspace": 0.28})
        places = iter(grid.flat)
        for name, points in found.items():
            panel(next(places), TITLES[name], points, constants)
        grid[0, 0].legend()
        axes = next(places)
        for (width, rates), colour in zip(workers.items(), (BLUE, VERMILLION), strict=True):
            counts = range(1, len(rates) + 1)
            ratios = [rate / rates[0] for rate in rates]
            axes.plot(counts, ratios, "o-", color=colour, label=f"2 × {width} units")
        axes.plot(counts, counts, "--", color="#8A8A8A", label="proportional")
        axes.set_xticks(list(counts))
        axes.set_ylabel("Epochs a second,\nrelative to one worker")
        axes.legend()
        head(axes, "Workers, one core each")
        axes = next(places)
        axes.plot(range(len(asks)), [1000 * ask for ask in asks], "o-", color=BLUE)
        axes.set_xticks(range(len(asks)), [f"{count:,}" for count in TRIALS[: len(asks)]])
        axes.set_ylim(0)
        axes.set_ylabel("Milliseconds to ask TPE")
        head(axes, "Trials stored, SQLite")
        return svg_text(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, at most 1,000 trials")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    quiet()
    dataset = data.load("mnist", Path(os.environ.get("HPO_DATA_DIR") or data.default_dir()))
    examples = Examples(
        torch.from_numpy(dataset.train_images), torch.from_numpy(dataset.train_labels)
    )
    rounds = 1 if quick else 5
    found = {
        name: [measured(name, value, examples, rounds) for value in values]
        for name, values in VARIED.items()
    }
    points = [point for of in found.values() for point in of]
    constants = fitted(points)
    cores = len(os.sched_getaffinity(0))
    workers = {w: [throughput(dataset, w, n + 1) for n in range(cores)] for w in (32, 512)}
    asks = [statistics.median(asking_seconds(dataset, n)) for n in TRIALS[: 3 if quick else 5]]
    svg = figure(found, constants, workers, asks)
    (ROOT / "reports/published/benchmark-growth.svg").write_text(svg, encoding="utf-8")
    errors = [abs(explained(point, constants) / point.seconds - 1) for point in points]
    facts = provenance.collect("")
    machine = f"{facts['hardware']['processor']}, {facts['hardware']['cores']} cores"
    lines = [
        "# How the cost grows",
        "",
        f"By `python tests/benchmarks/growth.py` on {machine}; Python "
        f"{platform.python_version()}, torch {torch.__version__}. Medians.",
        "",
        "![Seconds of an epoch over width, depth, batch size and stack; epochs a second over "
        "workers; milliseconds to ask over stored trials](benchmark-growth.svg)",
        "",
        "An epoch of 48,000 MNIST images on one core, ReLU, gradient descent, batches of 64 unless "
        "it varies. The model has three constants, fitted to all points of the first four panels: "
        f"{1e-9 / constants[0]:.0f} billion floating-point operations a second in matrix products, "
        f"{1e9 * constants[1]:.2f} ns for each number that is touched besides (weights at a step, "
        f"activations of an image), and {1e6 * constants[2]:.0f} µs for each layer of a step, "
        "which a stack shares. Its error is "
        f"{100 * statistics.median(errors):.0f}% in the median and {100 * max(errors):.0f}% at "
        "most.",
        "",
        "| varies | value: measured seconds (model) |",
        "| --- | --- |",
    ]
    for name, of in found.items():
        cells = [f"{p.value}: {p.seconds:.3f} ({explained(p, constants):.3f})" for p in of]
        lines.append(f"| {TITLES[name]} | {', '.join(cells)} |")
    for width, rates in workers.items():
        cells = [f"{n}: {rate:.2f}" for n, rate in enumerate(rates, 1)]
        title = f"Workers, 2 × {width} units, epochs a second, measured once"
        lines.append(f"| {title} | {', '.join(cells)} |")
    cells = [f"{n:,}: {1000 * ask:.0f} ms" for n, ask in zip(TRIALS, asks, strict=False)]
    lines += [f"| Trials stored, time to ask TPE | {', '.join(cells)} |", ""]
    text = "\n".join(lines)
    (ROOT / "reports/published/benchmark-growth.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
