"""Seconds of an epoch in float32 and in bfloat16, one thread, both in one run.

    python tests/benchmarks/precision.py DATA_DIR

Run it alone on a machine with AMX. Writes reports/published/benchmark-precision.md.
"""

import argparse
import statistics
from pathlib import Path

import torch

from hpo.data import datasets
from hpo.study.config import Config, Seeds
from hpo.study.names import BFLOAT16, FLOAT32
from hpo.training import cores
from hpo.training.tensors import Examples, examples, split_rows
from hpo.training.train import train
from hpo.workers import provenance

PUBLISHED = Path(__file__).parents[2] / "reports/published/benchmark-precision.md"
ROUNDS = 7  # of two epochs, of which the second counts
SHAPES = (
    (32, "sgd", 64), (128, "adam", 64), (256, "sgd", 64), (256, "adam", 256), (512, "sgd", 64),
    (512, "adam", 64), (512, "adam", 256), (1024, "adam", 256),
)  # fmt: skip


def seconds(config: Config, images: Examples, rows: list, precision: str) -> float:
    *_, last = train(config, images, rows, [Seeds.of(0)], precision=precision)
    return last.seconds


def row(width: int, optimizer: str, batch: int, images: Examples, rows: list) -> str:
    config = Config(
        depth=2, width=width, activation="relu", optimizer=optimizer, lr=1e-3, batch_size=batch,
        epochs=2,
    )  # fmt: skip
    pairs = [
        [seconds(config, images, rows, each) for each in (FLOAT32, BFLOAT16)] for _ in range(ROUNDS)
    ]
    single, half = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    shape = f"784-{width}-{width}-10, {optimizer}, {batch}"
    least, most = ratios[0], ratios[-1]
    ratio = statistics.median(ratios)
    return f"| {shape} | {single:.2f} | {half:.2f} | {ratio:.2f} ({least:.2f} to {most:.2f}) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="with MNIST")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if fault := cores.bfloat16_fault(torch.device("cpu")):
        raise SystemExit(fault)
    data = datasets.load("mnist", options.data_dir)
    images = examples(data.train_images, data.train_labels, data.classes, torch.device("cpu"))
    rows = [split_rows(data, Seeds.of(0))]
    hardware = provenance.collect("")["hardware"]
    lines = [
        "# Half precision",
        "",
        f"Written by `python tests/benchmarks/precision.py` on {hardware['processor']}, "
        f"{hardware['cores']} cores, torch {torch.__version__}: seconds of an epoch (training and "
        f"validation), one thread, medians of {ROUNDS} rounds in which both precisions take turns; "
        "the ratio is the median of the rounds' (least to greatest).",
        "",
        "| network, optimizer, batch | float32 | bfloat16 | float32 / bfloat16 |",
        "| --- | --- | --- | --- |",
    ]
    for shape in SHAPES:
        lines.append(row(*shape, images, rows))
        print(lines[-1], flush=True)
    lines += [
        "",
        f"A product is in bfloat16 where a layer has {cores.SIDE} inputs and units or more, and "
        f"{cores.LEAST:,} multiplications or more; the others, the optimizer and the activations "
        "are the same. Whether it costs accuracy: [precision](precision/report.md), by "
        "`studies/precision.toml`.",
        "",
    ]
    PUBLISHED.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
