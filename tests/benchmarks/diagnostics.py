"""What diagnostics cost: epochs with and without them in turns, on full MNIST, one thread.

    HPO_DATA_DIR=… python tests/benchmarks/diagnostics.py      about 2 minutes

Run it alone on the machine. Prints the median of the ratios of neighbours in time.
"""

import os
import statistics
import time
from pathlib import Path

import torch

from hpo.data import datasets as data
from hpo.study.config import Config, Seeds
from hpo.training.tensors import examples, split_rows
from hpo.training.train import train

ROUNDS = 5
NETWORKS = {
    "2 × 32 sigmoid, sgd, 5 seeds": (5, {"depth": 2, "width": 32}),
    "6 × 32 sigmoid, sgd, 5 seeds": (5, {"depth": 6, "width": 32}),
    "2 × 32 relu, adam, 5 seeds": (
        5, {"depth": 2, "width": 32, "activation": "relu", "optimizer": "adam"},
    ),
    "2 × 512 sigmoid, sgd": (1, {"depth": 2, "width": 512}),
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    dataset = data.load("mnist", Path(os.environ["HPO_DATA_DIR"]))
    images = examples(
        dataset.train_images, dataset.train_labels, dataset.classes, torch.device("cpu")
    )
    for name, (replicates, changes) in NETWORKS.items():
        settings = {"activation": "sigmoid", "optimizer": "sgd", "lr": 0.1, "epochs": ROUNDS + 1}
        config = Config(**{**settings, **changes})
        seeds = [Seeds.of(seed) for seed in range(replicates)]
        splits = [split_rows(dataset, seed) for seed in seeds]
        runs = [
            train(config, images, splits, seeds, diagnose=diagnose) for diagnose in (True, False)
        ]
        ratios = []
        for turn in range(ROUNDS + 1):
            taken = []
            for run in runs if turn % 2 else reversed(runs):
                start = time.perf_counter()
                next(run)
                taken.append(time.perf_counter() - start)
            measured, plain = taken if turn % 2 else reversed(taken)
            ratios += [measured / plain] if turn else []  # the first makes the buffers
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{name}: {statistics.median(ratios):.3f} times as long ({spread})", flush=True)


if __name__ == "__main__":
    main()
