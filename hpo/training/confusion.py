"""Confusion matrices, and the images that a network is most wrong about."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hpo.data.datasets import as_bytes
from hpo.training.network import Network
from hpo.training.own import OwnNetwork
from hpo.training.tensors import CHUNK, Examples
from hpo.training.train import answers

WORST = 16  # images kept of each network: two rows of the report's figure


def inspect(
    network: Network | OwnNetwork, examples: Examples, shape: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns for each replicate, as JSON, confusion[label][predicted] as counts, and `worst`.

    worst: misclassified images with the smallest probability of their label, the smallest first.
    shape: of an image. Pixels are base64 bytes from 0 to 255; None if it is no picture.
    """
    rows = torch.arange(len(examples.labels), device=examples.labels.device)
    # The same rows for every replicate, as one step: (1, R, n).
    steps = [part.expand(1, network.replicates, -1).contiguous() for part in rows.split(CHUNK)]
    parts = [answers(network, examples, step)[0][0] for step in steps]
    logits = torch.cat(parts, dim=2)  # (R, classes, n)
    return [_mistakes(answer, examples, shape) for answer in logits]


def _mistakes(logits: Tensor, examples: Examples, shape: Sequence[int]) -> dict[str, Any]:
    labels, classes = examples.labels, examples.classes
    predicted = logits.argmax(0)
    chances = torch.log_softmax(logits, 0).exp().gather(0, labels.unsqueeze(0))[0]
    wrong = (predicted != labels).nonzero()[:, 0]
    order = wrong[chances[wrong].argsort()][:WORST]
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2)
    return {
        "confusion": confusion.view(classes, classes).tolist(),
        "worst": [
            {
                "image": int(index),
                "label": int(labels[index]),
                "predicted": int(predicted[index]),
                "probability": float(chances[index]),
                "pixels": as_bytes(examples.images[index].cpu().numpy(), shape),
            }
            for index in order
        ],
    }
