"""The epoch loop, the optimizers, the evaluation; knows nothing of trials, Optuna or files."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hpo.config import Config, Seeds
from hpo.network import Network, Pass

Optimizer = torch.optim.Optimizer

# fused: one kernel over all parameters (https://docs.pytorch.org/docs/stable/optim.html).
OPTIMIZERS: dict[str, Callable[[list[Tensor], Config], Optimizer]] = {
    "sgd": lambda p, c: torch.optim.SGD(
        p, c.lr, c.momentum, weight_decay=c.weight_decay, nesterov=c.nesterov, fused=True
    ),
    "sgd_momentum": lambda p, c: torch.optim.SGD(
        p, c.lr, c.momentum or 0.9, weight_decay=c.weight_decay, nesterov=c.nesterov, fused=True
    ),
    "adam": lambda p, c: torch.optim.Adam(p, c.lr, weight_decay=c.weight_decay, fused=True),
    "adamw": lambda p, c: torch.optim.AdamW(p, c.lr, weight_decay=c.weight_decay, fused=True),
    "rmsprop": lambda p, c: torch.optim.RMSprop(
        p, c.lr, momentum=c.momentum, weight_decay=c.weight_decay, foreach=True
    ),
}

CLASSES = 10
# Rows evaluated at a time: 784 floats each, so 5 replicates stay within 4 MB.
CHUNK = 250


@dataclass(frozen=True)
class Examples:
    """images: (N, features) float32, labels: (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Split:
    """Row numbers of the examples trained on and of those validated on, int64."""

    train: Tensor
    valid: Tensor


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch gave, a figure a replicate; number counts from 1.

    Training loss and accuracy are means over the epoch while the weights change. seconds is a
    replicate's share of the epoch's training and validation.
    """

    number: int
    train_loss: list[float]
    train_accuracy: list[float]
    valid_loss: list[float]
    valid_accuracy: list[float]
    seconds: float
    network: Network


def train(
    config: Config,
    examples: Examples,
    splits: Sequence[Split],
    seeds: Sequence[Seeds],
    device: torch.device | None = None,
) -> Iterator[Epoch]:
    """Trains one network for each split and seed, all of one configuration; yields every epoch.

    The splits must be equally large. Stop iterating to stop training. The network of the last
    Epoch is the trained one; it is the same object in all of them.
    """
    device = device or torch.device("cpu")
    sizes = (examples.images.shape[1], *[config.width] * config.depth, CLASSES)
    generators = [torch.Generator().manual_seed(seed.weights) for seed in seeds]
    network = Network(sizes, config.activation, generators, device)
    orders = [torch.Generator().manual_seed(seed.order) for seed in seeds]
    valid = torch.stack([split.valid for split in splits]).to(device)
    trainer = _Trainer(config, network)
    for number in range(1, config.epochs + 1):
        start = time.perf_counter()
        order = torch.stack([_shuffled(s.train, g) for s, g in zip(splits, orders, strict=True)])
        train_loss, train_accuracy = trainer.epoch(examples, order.to(device))
        valid_loss, valid_accuracy = evaluate(network, examples, valid)
        yield Epoch(
            number=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            valid_loss=valid_loss,
            valid_accuracy=valid_accuracy,
            seconds=(time.perf_counter() - start) / len(seeds),
            network=network,
        )


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


class _Trainer:
    """One optimizer's steps over a network; plain gradient descent is folded into the backward."""

    def __init__(self, config: Config, network: Network) -> None:
        self.network = network
        self.batch_size = config.batch_size
        self.lr = config.lr
        self.optimizer: Optimizer | None = None
        self.gradient = network.layers
        if config.optimizer != "sgd" or config.momentum or config.weight_decay:
            layers = network.layers
            self.gradient = type(layers).zeros(
                network.sizes, network.replicates, layers.flat.device
            )
            layers.flat.grad = self.gradient.flat
            self.optimizer = OPTIMIZERS[config.optimizer]([layers.flat], config)
        self.passes: dict[int, Pass] = {}

    def epoch(self, examples: Examples, order: Tensor) -> tuple[list[float], list[float]]:
        """Trains on the rows of order, (R, n), in batches; a replicate's losses and accuracies."""
        whole = order.shape[1] - order.shape[1] % self.batch_size
        parts = [rows for rows in (order[:, :whole], order[:, whole:]) if rows.numel()]
        batches = [rows.unflatten(1, (-1, min(self.batch_size, rows.shape[1]))) for rows in parts]
        results = [self._steps(examples, rows.transpose(0, 1).contiguous()) for rows in batches]
        logits = torch.cat([answer.transpose(0, 1).flatten(1, 2) for answer, _ in results], 1)
        labels = torch.cat([truth.transpose(0, 1).flatten(1, 2) for _, truth in results], 1)
        return _metrics(logits, labels)

    def _steps(self, examples: Examples, rows: Tensor) -> tuple[Tensor, Tensor]:
        """A step for each of rows, (steps, R, B); the logits (steps, R, B, classes) and labels."""
        buffers = self._pass(rows.shape[2])
        inputs = buffers.inputs.flatten(0, 1)
        labels = examples.labels[rows]
        targets = torch.zeros(*rows.shape, CLASSES, device=rows.device)
        targets.scatter_(3, labels.unsqueeze(3), 1.0)
        logits = torch.empty_like(targets)
        for index, answer, target in zip(rows.flatten(1), logits, targets, strict=True):
            torch.index_select(examples.images, 0, index, out=inputs)
            buffers.forward(answer)
            self._update(buffers, answer, target)
        return logits, labels

    def _pass(self, batch: int) -> Pass:
        if batch not in self.passes:
            self.passes[batch] = Pass(self.network, batch)
        return self.passes[batch]

    def _update(self, buffers: Pass, logits: Tensor, targets: Tensor) -> None:
        batch = logits.shape[1]
        if self.optimizer is None:
            step = -self.lr / batch
            buffers.backward(logits, targets, self.network.layers, step=step, keep=1)
        else:
            buffers.backward(logits, targets, self.gradient, step=1 / batch, keep=0)
            self.optimizer.step()


def evaluate(network: Network, examples: Examples, rows: Tensor) -> tuple[list[float], list[float]]:
    """Mean cross entropy and accuracy of each replicate on its rows of the examples, (R, n)."""
    answers = []
    buffers = Pass(network, min(CHUNK, rows.shape[1]))
    for index in rows.split(CHUNK, 1):
        if index.shape[1] != buffers.inputs.shape[1]:
            buffers = Pass(network, index.shape[1])
        inputs = buffers.inputs.flatten(0, 1)
        torch.index_select(examples.images, 0, index.flatten(), out=inputs)
        answers.append(torch.empty(*index.shape, CLASSES, device=rows.device))
        buffers.forward(answers[-1])
    return _metrics(torch.cat(answers, 1), examples.labels[rows])


def _metrics(logits: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Mean cross entropy and accuracy of logits, (R, n, classes); each replicate summed by itself,
    so that its figures do not depend on its neighbours in the stack."""
    losses, accuracies = [], []
    for answer, truth in zip(logits, labels, strict=True):
        losses.append(cross_entropy(answer, truth, reduction="none").double().mean().item())
        accuracies.append((answer.argmax(1) == truth).double().mean().item())
    return losses, accuracies
