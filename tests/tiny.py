"""A dataset small enough to train on in milliseconds, and a search of seconds."""

import numpy as np

from hpo.data.datasets import Dataset
from hpo.data.schema import Schema

SEARCH = """
title = "Tiny <search> & more"
dataset = "mnist-5k"
[search]
n_trials = 8
pruner = "median"
[finalists]
k = 2
seeds = 2
[space]
depth = [1, 2]
width = 16
activation = ["relu", "tanh"]
optimizer = ["sgd", "adam"]
lr = { low = 1e-3, high = 1.0, log = true }
batch_size = 64
epochs = 3
"""


def tiny_dataset(seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 300)
    images = (rng.normal(0, 1, (300, 12)) + labels[:, None] / 3).astype(np.float32)
    return Dataset(
        name="mnist-5k",
        train_images=images[:250],
        train_labels=labels[:250],
        test_images=images[250:],
        test_labels=labels[250:],
        stratified=False,
        schema=Schema(shape=(12,)),
        checksum=f"tiny {seed}",
    )
