"""The epoch loop and the evaluation; knows nothing of trials, Optuna or files."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpo.errors import InputError
from hpo.study.columns import METRICS
from hpo.study.config import Config, Seeds
from hpo.study.metrics import ACCURACY, BY_NAME, EpochMetrics, Metric
from hpo.study.names import FLOAT32, OPTIMIZERS, SCHEDULES
from hpo.training.diagnostics import Diagnosis, Measures
from hpo.training.evaluation import Answers, evaluate, loss_and_accuracy
from hpo.training.network import Layers, Network, Pass, class_major_zeros
from hpo.training.noise import OFFSET
from hpo.training.optimizers import Average, Step
from hpo.training.own import OwnNetwork, OwnTrainer, check_evaluation
from hpo.training.tensors import Examples, Split, batches

# Steps between two checks whether training should stop: milliseconds.
STEPS_BETWEEN_CHECKS = 8
# Rows of an epoch that give the statistics of a batch norm under averaged weights. In training,
# running statistics rest on about 19 batches; these rows cost a fiftieth of an epoch of MNIST.
COUNTED_ROWS = 2_048


@dataclass(frozen=True, kw_only=True)
class Epoch(EpochMetrics):
    """An epoch's metrics and the network after it, the same object in all epochs; after the last
    one it is that of the kept epochs.

    valid_right: which images each replicate gets right, (R, n) of bool, in the order of the split;
    None before the last epoch.
    """

    network: Network | OwnNetwork
    valid_right: Tensor | None = None


class _Stopped(Exception):  # noqa: N818
    """Ends an epoch at once."""


def train(
    config: Config,
    examples: Examples,
    splits: Sequence[Split],
    seeds: Sequence[Seeds],
    device: torch.device | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    diagnose: bool = False,
    folder: str = "",
    objective: str = ACCURACY,
    weights: Tensor | None = None,
    cut: int = 0,
    precision: str = FLOAT32,
) -> Iterator[Epoch]:
    """Trains one network per split and seed, all with one configuration; yields every epoch. To
    stop training, stop iterating.

    splits: equally large; without rows to validate on, validation metrics are NaN.
    should_stop: asked every few steps; if it is true, training ends within its epoch.
    diagnose: whether to measure gradients, updates and units, see Diagnosis; hpo's own network.
    folder: where the module of the user's own network lies.
    objective: a metric with code is computed after each epoch, too.
    weights: of the classes in the training loss, (R, classes), as cross_entropy takes them: the
    mean of a batch is over its weights. The losses of an epoch are without them.
    cut: the epoch that is the last, with the learning rates of the whole training; 0: all epochs.
    precision: of the large products in training and validation, see training.cores; hpo's own
    network.
    """
    device = device or torch.device("cpu")

    def check(step: int) -> None:
        if step % STEPS_BETWEEN_CHECKS == 0 and should_stop():
            raise _Stopped

    if examples.regression and (config.label_smoothing or weights is not None):
        raise InputError("label_smoothing and class_weight: are of classes, not of numbers")
    if config.huber and not examples.regression:
        raise InputError("huber: is of numbers, not of classes")
    rate = learning_rate(config, len(splits[0].train))
    trainer: _Trainer | OwnTrainer
    if config.model:
        own = OwnNetwork(config, folder, examples, seeds, device)
        check_evaluation(own, examples.images[splits[0].train[:2]])
        trainer = OwnTrainer(own, rate, check, weights)
    else:
        network = Network(config, examples.images.shape[1], examples.classes, seeds, device)
        network.precision = precision
        trainer = _Trainer(network, seeds, rate, check, diagnose, weights)
    with suppress(_Stopped):
        metric = BY_NAME[objective]
        yield from _epochs(trainer, examples, splits, seeds, device, metric, cut)


def _epochs(
    trainer: "_Trainer | OwnTrainer",
    examples: Examples,
    splits: Sequence[Split],
    seeds: Sequence[Seeds],
    device: torch.device,
    metric: Metric,
    cut: int,
) -> Iterator[Epoch]:
    orders = [torch.Generator().manual_seed(seed.order) for seed in seeds]
    valid = torch.stack([split.valid for split in splits]).to(device)
    network = trainer.network
    choice = _Choice(network, metric) if network.config.validated and valid.numel() else None
    final = cut or network.config.epochs
    for number in range(1, final + 1):
        start = time.perf_counter()
        drawn = [torch.randperm(len(splits[0].train), generator=order) for order in orders]
        order = torch.stack([s.train[rows] for s, rows in zip(splits, drawn, strict=True)])
        train_loss, train_accuracy = trainer.epoch(examples, order.to(device))
        last = number == final
        found = evaluate(network, examples, valid, right=last, metric=metric)
        epoch = Epoch(
            number=number,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            valid_loss=found.loss,
            valid_accuracy=found.accuracy,
            scores=found.scores,
            diagnostics=trainer.measures(examples, valid),
            seconds=0.0,
            network=network,
            valid_right=found.right,
            last=last,
        )
        if choice:
            epoch = choice.take(epoch)
        if choice and epoch.last:
            choice.restore()
            epoch = replace(epoch, valid_right=evaluate(network, examples, valid, right=True).right)
        yield replace(epoch, seconds=(time.perf_counter() - start) / len(seeds))
        if epoch.last:
            return


class _Choice:
    """Which epoch of each replicate counts, and when its training is over: keep and patience.

    Each replicate is judged as if it were alone. One that is out of patience is trained on with its
    stack, but its metrics stay those of its last epoch, and its network is restored at the end.
    best: of each replicate, the epoch and its gain. ended: {replicate: its last epoch}. copies:
    {replicate: its network in the kept epoch}.
    """

    def __init__(self, network: Network | OwnNetwork, metric: Metric) -> None:
        self.network, self.config, self.metric = network, network.config, metric
        self.best = [(0, -math.inf)] * network.replicates
        self.ended: dict[int, Epoch] = {}
        self.copies: dict[int, Any] = {}

    def take(self, epoch: Epoch) -> Epoch:
        """Judges an epoch. Returns it with what is kept so far."""
        going = [r for r in range(self.network.replicates) if r not in self.ended]
        for replicate in going:
            self._judge(replicate, epoch)
        lengths = [self.ended.get(r, epoch).number for r in range(self.network.replicates)]
        best = self.config.keep == "best"
        values: dict[str, Any] = {metric: self._values(epoch, metric) for metric in METRICS}
        return replace(
            epoch,
            **values,
            scores={name: self._values(epoch, name) for name in epoch.scores},
            kept=[number for number, _ in self.best] if best else lengths,
            lengths=lengths,
            last=epoch.last or len(self.ended) == self.network.replicates,
        )

    def _judge(self, replicate: int, epoch: Epoch) -> None:
        gain = self.metric.gain(epoch.values(self.metric.name)[replicate])
        number, most = self.best[replicate]
        better = not number or gain > most
        if better:
            self.best[replicate] = epoch.number, -math.inf if math.isnan(gain) else gain
        over = not better and epoch.number - number == self.config.patience
        if over:
            self.ended[replicate] = epoch
        if better if self.config.keep == "best" else over:
            self.copies[replicate] = self.network.copied(replicate)

    def _values(self, epoch: Epoch, metric: str) -> list[float]:
        every = range(self.network.replicates)
        return [self.ended.get(r, epoch).values(metric)[r] for r in every]

    def restore(self) -> None:
        """Makes each replicate what it was after its kept epoch."""
        for replicate, copied in self.copies.items():
            self.network.restore(replicate, copied)


def learning_rate(config: Config, rows: int) -> Callable[[int], float]:
    """Returns the learning rate of a step, by how many steps were made before: lr times the
    schedule's share and that of the warm-up, which rises to 1 from 1 / n in its n steps.

    rows: how many rows a replicate trains on in an epoch.
    """
    schedule = SCHEDULES[config.schedule].load()
    steps = config.epochs * math.ceil(rows / config.batch_size)
    warm = config.warmup * steps

    def rate(done: int) -> float:
        share = float(schedule(done / steps))
        return config.lr * (share * min((done + 1) / warm, 1.0) if warm else share)

    return rate


class _Trainer:
    """The steps of an optimizer over a network; plain gradient descent is part of the backward
    pass. The interface is that of own.OwnTrainer."""

    def __init__(
        self,
        network: Network,
        seeds: Sequence[Seeds],
        rate: Callable[[int], float],
        check: Callable[[int], None],
        diagnose: bool,
        weights: Tensor | None = None,
    ) -> None:
        """check: called at every step with its number in the epoch; raises to end the epoch."""
        self.network, self.config = network, network.config
        self.rate, self.check, self.weights = rate, check, weights
        self.diagnosis = Diagnosis(network) if diagnose else None
        device = network.layers.flat.device
        self.noisy = [torch.Generator(device).manual_seed(OFFSET + s.order) for s in seeds]
        self.done = 0
        self.buffers: dict[int, Pass] = {}  # by their number of rows
        self.optimizer: Step | None = None
        config = self.config
        plain = not (config.momentum or config.weight_decay or config.clip_norm)
        if config.optimizer != "sgd" or not plain:
            self.gradient = network.zeros()
            make = OPTIMIZERS[config.optimizer].load()
            self.optimizer = make(network.layers.flat, self.gradient.flat, config)
        self.average = Average(network.layers.flat, config.ema) if config.ema else None

    def epoch(self, examples: Examples, order: Tensor) -> tuple[list[float], list[float]]:
        """Trains on the rows of order, (R, n), in batches. Returns each replicate's loss and
        accuracy. With ema, the network is the averaged one before and after it."""
        parts = batches(order, self.config.batch_size)
        if self.average:
            self.average.hide()
        found = loss_and_accuracy([self._steps(examples, rows) for rows in parts])
        if self.average:
            self.average.show()
            if self.network.running:
                self._count_again(examples, parts[0])
        return found

    def _count_again(self, examples: Examples, rows: Tensor) -> None:
        """Gives a batch norm the statistics of the averaged network, over the first of rows,
        (steps, R, B), in passes of training, as torch.optim.swa_utils.update_bn does."""
        for running in self.network.running:
            running.steps, running.alike = 0, True
        counted = rows[: math.ceil(COUNTED_ROWS / rows.shape[2])]
        buffers = self.buffers[rows.shape[2]]
        logits = class_major_zeros(counted, examples.classes)
        for _ in self.network.passes(examples.images, counted, logits, buffers):
            pass
        for running in self.network.running:
            running.alike = False

    def measures(self, examples: Examples, valid: Tensor) -> Measures | None:
        return self.diagnosis.measures(examples, valid) if self.diagnosis else None

    def _steps(self, examples: Examples, rows: Tensor) -> Answers:
        """Makes one step for each of rows, (steps, R, B)."""
        labels, batch = examples.labels[rows], rows.shape[2]
        if batch not in self.buffers:
            weighted = self.weights is not None
            self.buffers[batch] = Pass(self.network, batch, self.noisy, weighted=weighted)
        buffers = self.buffers[batch]
        inputs = buffers.inputs.flatten(0, 1)
        classes, smoothing = examples.classes, self.config.label_smoothing
        targets = labels.unsqueeze(2)
        if not examples.regression:
            targets = class_major_zeros(rows, classes).scatter_(2, targets, 1.0)
        if smoothing:
            targets.mul_(1 - smoothing).add_(smoothing / classes)
        if self.weights is not None:
            _weigh(targets, labels, self.weights)
        logits = torch.empty_like(targets)
        steps = zip(rows.flatten(1), logits, targets, strict=True)
        for step, (index, answer, target) in enumerate(steps):
            self.check(step)
            torch.index_select(examples.images, 0, index, out=inputs)
            buffers.forward(answer)
            if self.diagnosis and self.diagnosis.wants(step, len(rows)):
                update = partial(self._update, buffers, answer, target)
                self.diagnosis.probe((step, len(rows)), buffers, answer, target, update)
            else:
                self._update(buffers, answer, target)
        return logits, labels

    def _update(self, buffers: Pass, logits: Tensor, targets: Tensor) -> None:
        batch = logits.shape[2]
        lr = self.rate(self.done)
        self.done += 1
        if self.optimizer is None:
            buffers.backward(logits, targets, self.network.layers, -lr / batch)
        else:
            buffers.backward(logits, targets, self.gradient, 1 / batch)
            if self.config.clip_norm:
                _clip(self.gradient, self.config.clip_norm)
            self.optimizer(lr)
        if self.config.max_norm:
            _limit_norms(self.network.layers, self.config.max_norm)
        if self.average:
            self.average.take()


def _weigh(targets: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Multiplies the targets of batches by the classes' weights over the mean weight of a batch's
    labels: the mean of torch.nn.functional.cross_entropy."""
    mean = weights.expand(len(labels), -1, -1).gather(2, labels).mean(2)
    targets.mul_(weights.unsqueeze(2)).div_(mean[:, :, None, None])


def _clip(gradient: Layers, most: float) -> None:
    """Scales each replicate's gradient down to a norm of `most`, as
    torch.nn.utils.clip_grad_norm_ does."""
    norms = [torch.linalg.vector_norm(part.flatten(1), dim=1) for part in gradient.tensors]
    total = torch.linalg.vector_norm(torch.stack(norms, 1), dim=1)
    share = torch.clamp_max(most / (total + 1e-6), 1.0).view(-1, 1, 1)
    for part in gradient.tensors:
        part.mul_(share)


def _limit_norms(layers: Layers, most: float) -> None:
    """Scales the weights into each hidden unit down to a norm of `most` (Srivastava et al. 2014,
    "Dropout")."""
    for weight in layers.weights[:-1]:
        norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
        weight.mul_(torch.clamp_max(most / norms, 1.0))
