"""A dataset small enough to train on in milliseconds."""

import numpy as np

from hpo.data import Dataset


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
        checksum=f"tiny {seed}",
    )
