"""What networks answer: loss, accuracy and other metrics, confusion matrices, and the images that a
network is most wrong about."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from hpo.data.datasets import as_bytes
from hpo.study.metrics import ACCURACY, BY_NAME, TEMPERATURES, Metric
from hpo.training.network import Network
from hpo.training.own import OwnNetwork
from hpo.training.tensors import CHUNK, Examples, batches

# Logits (steps, R, classes, B) and the labels (steps, R, B) that belong to them.
Answers = tuple[Tensor, Tensor]
WORST = 16  # images kept of each network: two rows of the report's figure
MOST_SHOWN = 500  # answers of a regression kept of each network: dots in the report's figure


class Evaluated(NamedTuple):
    """Each replicate's mean loss, accuracy, and values of metrics with code; which rows are right,
    (R, n) of bool. The loss is cross entropy; of a regression the squared error of standardized
    targets, and accuracy is NaN."""

    loss: list[float]
    accuracy: list[float]
    right: Tensor | None = None
    scores: dict[str, list[float]] = {}  # noqa: RUF012


def evaluate(
    network: Network | OwnNetwork,
    examples: Examples,
    rows: Tensor,
    *,
    right: bool = False,
    metric: Metric = BY_NAME[ACCURACY],
) -> Evaluated:
    """Evaluates each replicate on its rows, (R, n); NaN without rows. right: whether to return
    which rows are right; a regression has none. metric: what is sought, see Metric.scored."""
    metrics = metric.scored(regression=examples.regression)
    if not rows.numel():
        unknown = [math.nan] * len(rows)
        return Evaluated(unknown, unknown, scores={each.name: unknown for each in metrics})
    parts = [answers(network, examples, part) for part in batches(rows, CHUNK)]
    bits = None
    if (
        right and not examples.regression
    ):  # whether argmax finds the label. It costs a hundredth of an epoch.
        found = [logits.argmax(2) == labels for logits, labels in parts]
        bits = torch.cat([part.transpose(0, 1).flatten(1) for part in found], dim=1).cpu()
    scores = {}
    for each in metrics:
        values = (each.compute(*_of(parts, replicate)) for replicate in range(len(rows)))
        scores[each.name] = [v * (examples.deviation if each.of_unit else 1.0) for v in values]
    return Evaluated(*loss_and_accuracy(parts), bits, scores)


def _of(parts: Sequence[Answers], replicate: int) -> Answers:
    """Returns a replicate's logits, (classes, n), and labels, (n)."""
    logits = [answer[:, replicate].transpose(0, 1).flatten(1) for answer, _ in parts]
    return torch.cat(logits, 1), torch.cat([labels[:, replicate].flatten() for _, labels in parts])


def answers(network: Network | OwnNetwork, examples: Examples, rows: Tensor) -> Answers:
    """Returns the network's logits for rows, (steps, R, B), and the labels."""
    return network.logits(examples.images, rows, examples.classes), examples.labels[rows]


def _correct(logits: Tensor, labels: Tensor) -> int:
    """Counts the labels that argmax finds in logits, (steps, classes, B). Comparing with the
    maximum takes a tenth of argmax's time; where a maximum is not unique, or NaN, argmax decides.
    """
    greatest = logits.amax(1, keepdim=True)
    if int((logits == greatest).sum().item()) != labels.numel():
        return int((logits.argmax(1) == labels).sum().item())
    return int((logits.gather(1, labels.unsqueeze(1)) == greatest).sum().item())


def loss_and_accuracy(parts: Sequence[Answers]) -> tuple[list[float], list[float]]:
    """Returns the mean loss and the accuracy over all parts, see Evaluated. Each replicate is
    summed by itself, so that its numbers do not depend on the stack."""
    losses, accuracies = [], []
    count = sum(labels.shape[0] * labels.shape[2] for _, labels in parts)
    for replicate in range(parts[0][1].shape[1]):
        loss, correct = 0.0, 0
        for logits, labels in parts:
            answer, truth = logits[:, replicate].contiguous(), labels[:, replicate]
            if truth.is_floating_point():
                loss += float(mse_loss(answer[:, 0], truth, reduction="none").double().sum())
                continue
            loss += cross_entropy(answer, truth, reduction="none").double().sum().item()
            correct += _correct(answer, truth)
        losses.append(loss / count)
        accuracies.append(math.nan if parts[0][1].is_floating_point() else correct / count)
    return losses, accuracies


# --- metrics of study.metrics, of logits (classes, n) and labels (n) ----------------------------


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Returns the mean of the classes' recalls, of classes with rows."""
    right, there, _ = _counts(logits, labels)
    return float((right / there)[there > 0].mean())


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Returns the mean of the classes' F1, of classes with rows or answers; F1 is 2 · right over
    rows and answers."""
    right, there, said = _counts(logits, labels)
    return float((2 * right / (there + said))[there + said > 0].mean())


def _counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns for each class how many rows are right, are there, and are taken for it."""
    answers, classes = logits.argmax(0), len(logits)
    every = (labels[answers == labels], labels, answers)
    right, there, said = (torch.bincount(of, minlength=classes).double() for of in every)
    return right, there, said


def auc(logits: Tensor, labels: Tensor) -> float:
    """Returns the area under the ROC curve of two classes: the share of pairs of a row of each in
    which the second class's row has the greater difference of logits; ties count half. NaN if a
    class has no rows, or a logit is NaN."""
    _, place, ties = torch.unique(logits[1] - logits[0], return_inverse=True, return_counts=True)
    ranks = (ties.cumsum(0) - (ties - 1) / 2.0).double()[place]  # from 1 on, the mean of equal ones
    positive = int(labels.sum())
    pairs = positive * (len(labels) - positive)
    if not pairs or bool(logits.isnan().any()):
        return math.nan
    return (float(ranks[labels == 1].sum()) - positive * (positive + 1) / 2) / pairs


def rmse(answers: Tensor, targets: Tensor) -> float:
    """Returns the root of the mean squared error of answers (1, n)."""
    return math.sqrt(_squared(answers[0], targets))


def mae(answers: Tensor, targets: Tensor) -> float:
    """Returns the mean absolute error of answers (1, n)."""
    return float((answers[0].double() - targets.double()).abs().mean())


def r2(answers: Tensor, targets: Tensor) -> float:
    """Returns R², 1 - squared error / variance of these targets, of answers (1, n); NaN where the
    targets do not vary."""
    variance = float(targets.double().var(correction=0))
    return 1 - _squared(answers[0], targets) / variance if variance else math.nan


def _squared(answers: Tensor, targets: Tensor) -> float:
    return float((answers.double() - targets.double()).square().mean())


# --- calibration --------------------------------------------------------------------------------

BINS = 15  # of equal width, as in Guo et al. (2017), "On Calibration of Modern Neural Networks"


def calibration(
    network: Network | OwnNetwork, examples: Examples, rows: Tensor
) -> list[dict[str, list[float]] | None]:
    """Returns for each replicate, on its rows, (R, n), the mean cross entropy (`loss`) and the
    expected calibration error (`error`) with its logits divided by each of TEMPERATURES; None where
    logits are no numbers."""
    parts = [answers(network, examples, part) for part in batches(rows, CHUNK)]
    return [_at_temperatures(*_of(parts, replicate)) for replicate in range(len(rows))]


def _at_temperatures(logits: Tensor, labels: Tensor) -> dict[str, list[float]] | None:
    if not logits.isfinite().all():
        return None
    found: dict[str, list[float]] = {"loss": [], "error": []}
    right = logits.argmax(0) == labels
    for temperature in TEMPERATURES:
        chances = (logits.double() / temperature).log_softmax(0)
        error = calibration_error(chances.amax(0).exp(), right)
        loss = -float(chances.gather(0, labels.unsqueeze(0)).mean())
        for key, value in (("loss", loss), ("error", error)):
            found[key].append(float(f"{value:.7g}"))
    return found


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Returns the expected calibration error: by BINS of the probability of the answer, (n), the
    mean distance of that probability from the share of right answers, weighted by rows."""
    places = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    gaps = torch.bincount(places, confidence.double() - right.double(), minlength=BINS)
    return float(gaps.abs().sum()) / len(right)


# --- mistakes ------------------------------------------------------------------------------------


def inspect(
    network: Network | OwnNetwork, examples: Examples, shape: Sequence[int]
) -> list[dict[str, Any]]:
    """Returns for each replicate, as JSON, confusion[label][predicted] as counts, and `worst`.

    worst: misclassified images with the smallest probability of their label, the smallest first.
    shape: of an image. Pixels are base64 bytes from 0 to 255; None if it is no picture.
    """
    return [_mistakes(answer, examples, shape) for answer in _all_logits(network, examples)]


def score_together(network: Network | OwnNetwork, examples: Examples) -> tuple[str, float]:
    """Returns the name and the value of the metric of the mean of the replicates' answers: the
    accuracy of their probabilities, or the RMSE."""
    answers = _all_logits(network, examples)
    if examples.regression:
        return "test_rmse", examples.deviation * rmse(answers.double().mean(0), examples.labels)
    predicted = answers.softmax(1).mean(0).argmax(0)
    return "test_accuracy", float((predicted == examples.labels).double().mean())


def predictions(network: Network | OwnNetwork, examples: Examples) -> list[dict[str, list[float]]]:
    """Returns for each replicate of a regression the targets and the answers of up to MOST_SHOWN
    examples, evenly chosen, standardized."""
    rows = torch.linspace(0, len(examples.labels) - 1, min(MOST_SHOWN, len(examples.labels))).long()
    return [
        {"target": examples.labels[rows].tolist(), "answer": answer[0, rows].tolist()}
        for answer in _all_logits(network, examples)
    ]


def _all_logits(network: Network | OwnNetwork, examples: Examples) -> Tensor:
    """Returns the logits of all examples, (R, classes, n)."""
    rows = torch.arange(len(examples.labels), device=examples.labels.device)
    # The same rows for every replicate, as one step: (1, R, n).
    steps = [part.expand(1, network.replicates, -1).contiguous() for part in rows.split(CHUNK)]
    return torch.cat([answers(network, examples, step)[0][0] for step in steps], dim=2)


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
