"""A small convolutional network, as a factory for hpo: model = "cnn:build"."""

from torch import nn


def build(shape: tuple[int, ...], classes: int, channels: int, kernel: int) -> nn.Module:
    """Returns a network for inputs (B, *shape), here (B, 1, 28, 28), with logits (B, classes).

    shape and classes come from the data; channels and kernel from the study file.
    """
    colours, height, width = shape
    return nn.Sequential(
        nn.Conv2d(colours, channels, kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * channels * (height // 4) * (width // 4), classes),
    )
