"""Metrics: what each is called, which way is better, how a person reads it; and those of an epoch,
as training gives them, messages carry them and trials store them."""

import base64
import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.language import marked, printed, t

POINTS, SECONDS_UNIT, PLAIN = marked("{value} points"), marked("{value} s"), "{value}"
# A hundred times the loss of a guess among ten classes: nothing useful comes after it.
USELESS_LOSS = 230.0
ACCURACY, RMSE = "valid_accuracy", "valid_rmse"  # sought where a study file names no objective
DIGITS = 3  # of the standard deviation that a value in the target's unit shows
REGRESSION = ("rmse", "mae", "r2")  # metrics of numbers, besides the loss
NUMBERS = (*(f"valid_{kind}" for kind in REGRESSION), "valid_loss")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric. Its gain is its value as a person reads it, with a sign that makes more better:
    98.5 for an accuracy of 0.985, -0.05 for a loss of 0.05. Whoever ranks, tests or draws values of
    any metric does it by gains.

    name: of its column.
    words: its name in a sentence.
    minimized: whether less is better.
    best: the best value that it can have.
    worst: what a sampler learns of a diverged training: finite, or it would learn nothing.
    scale, digits: a person reads scale · value, to so many digits.
    mark: stands after a value. unit: of a difference, with its number.
    code: what computes it from logits and labels, as "module:function"; empty for what every
    training measures.
    of_unit: whether it is in the unit of a regression's target; it is computed of standardized
    targets, and multiplied by their standard deviation.
    """

    name: str
    words: str
    minimized: bool = False
    best: float = 1.0
    worst: float = 0.0
    scale: float = 1.0
    digits: int = 4
    mark: str = ""
    unit: str = PLAIN
    code: str = ""
    of_unit: bool = False

    @property
    def sign(self) -> int:
        return -1 if self.minimized else 1

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Returns Optuna's name of the better way."""
        return "minimize" if self.minimized else "maximize"

    def gain(self, value: Any) -> Any:
        """Returns the gain of a value, or of an array or a column of values."""
        return self.sign * self.scale * value

    @property
    def most(self) -> float:
        """Returns the largest gain."""
        return float(self.gain(self.best))

    @property
    def point(self) -> float:
        """Returns a difference that can be seen, as a gain: a point of accuracy."""
        return float(10 ** (2 - self.digits))

    @property
    def rough(self) -> "Metric":
        """Returns the metric with a digit less."""
        return replace(self, digits=max(self.digits - 1, 0))

    def number(self, gain: float) -> str:
        """98.54, 0.0512: the value of a gain."""
        return printed(f"{{:.{self.digits}f}}", self.sign * gain + 0.0)

    def spelled(self, gain: float) -> str:
        """98.54%, 0.0512: with its mark."""
        return self.number(gain) + self.mark

    def beyond(self, gain: float) -> str:
        """below 95.00%, above 0.1234: what is worse than this gain."""
        text = marked("above {value}") if self.minimized else marked("below {value}")
        return t(text, value=self.spelled(gain))

    def ends(self, low: float, high: float) -> dict[str, str]:
        """Returns the values of the ends of an interval of gains, the smaller one as low: not
        beyond the best value, and of a share not below 0."""
        share = not self.minimized and self.worst == 0
        least, most = self.gain(self.worst) if share else -math.inf, self.most
        ends = [self.number(min(max(end, least), most)) for end in (low, high)]
        return dict(zip(("low", "high"), ends[:: self.sign], strict=True))

    def text(self, value: float) -> str:
        """validation accuracy 98.54%"""
        return f"{t(self.words)} {self.spelled(self.gain(value))}"

    def finite(self, value: float) -> float:
        """Returns the value, or the worst one for NaN and Inf, which storages do not take."""
        return value if math.isfinite(value) else self.worst

    def difference(self, number: float, sign: str = "") -> str:
        """1.20 points, 0.0123: a difference of gains or of shown values. sign: "+" shows it."""
        rounded = round(number, self.digits) + 0.0  # or there would be a −0.00
        return self.in_unit(printed(f"{{:{sign}.{self.digits}f}}", rounded))

    def in_unit(self, number: str) -> str:
        return t("1 point") if self.unit == POINTS and number == "1" else t(self.unit, value=number)

    @property
    def header(self) -> str:
        """Validation accuracy (%): its name in a table and on an axis."""
        return capital(t(self.words)) + (f" ({self.mark})" if self.mark else "")

    @property
    def axis(self) -> str:
        """Returns its name on an axis of gains."""
        return t("{metric}, less is better", metric=self.header) if self.minimized else self.header

    @property
    def tested(self) -> "Metric":
        """Returns the same metric of the test part."""
        other = BY_NAME[f"test_{self.kind}"]
        return replace(other, digits=self.digits, worst=self.worst) if self.of_unit else other

    def of(self, deviation: float) -> "Metric":
        """Returns the metric of targets with this standard deviation: of one in their unit, digits
        and the worst value follow from it."""
        if not self.of_unit:
            return self
        digits = min(max(DIGITS - math.floor(math.log10(deviation)), 0), 12)
        return replace(self, digits=digits, worst=math.sqrt(USELESS_LOSS) * deviation)

    def scored(self, *, regression: bool) -> "tuple[Metric, ...]":
        """Returns the metrics with code that are computed where this one is sought."""
        if not regression:
            return (self,) if self.code else ()
        part = self.name.partition("_")[0]
        return tuple(BY_NAME[f"{part}_{kind}"] for kind in REGRESSION)

    @property
    def kind(self) -> str:
        """accuracy, balanced_accuracy: its name without that of the part."""
        return self.name.partition("_")[2]

    def guess(self, data: Mapping[str, Any]) -> float:
        """Returns its value for an answer that does not depend on the input: the largest class; of
        a loss, the classes' shares as probabilities. data: see data.datasets.describe."""
        if "guess" in data:
            return float(data["guess"]["test"][self.kind])
        share, classes = largest_share(data), len(data.get("classes", range(10)))
        known = {
            "accuracy": share,
            "balanced_accuracy": 1 / classes,
            "auc": 0.5,
            "f1": 2 * share / (1 + share) / classes,
            "loss": data.get("guess_loss") or math.log(classes),
        }
        return float(known[self.kind])

    def chance(self, data: Mapping[str, Any]) -> float:
        """Returns the value of a guess by the training part alone; of a regression, for the rows of
        the metric's part, test or others."""
        if "guess" in data:
            part = "test" if self.name.startswith("test_") else "train"
            return float(data["guess"][part][self.kind])
        return self.guess({**data, "largest": data.get("chance", 0.1)})

    def learned(self, data: Mapping[str, Any]) -> float:
        """Returns the value from which on a network has learned something: two ninths of the way
        from a guess to the best, which is three times the guess's accuracy among ten classes; of a
        regression a twentieth of the way."""
        guess, share = self.chance(data), 1 / 20 if "guess" in data else 2 / 9
        return round(guess + (self.best - guess) * share, max(self.digits, 4))

    def fault(self, classes: Sequence[str]) -> str:
        """Returns why it cannot be computed of these classes, none of a regression; empty if it
        can be."""
        part = self.name.partition("_")[0]
        if not classes and self.kind not in ("loss", *REGRESSION):
            others = f"{', '.join(f'{part}_{kind}' for kind in REGRESSION)} or {part}_loss"
            return f"{self.name} is of classes, and the labels are numbers; give {others}"
        if classes and self.kind in REGRESSION:
            return f"{self.name} is of numbers, and the labels are classes; give {part}_accuracy"
        if self.kind != "auc" or len(classes) == 2:
            return ""
        others = "valid_balanced_accuracy or valid_f1"
        return f"{self.name} needs two classes, the data have {len(classes)}; give {others}"

    def compute(self, logits: Any, labels: Any) -> float:
        """Returns its value for logits (classes, n) and labels (n); of a metric with code."""
        return float(pkgutil.resolve_name(self.code)(logits, labels))


def _percent(name: str, words: str, **more: Any) -> Metric:
    return Metric(name=name, words=words, scale=100.0, digits=2, mark="%", unit=POINTS, **more)


def _loss(name: str, words: str) -> Metric:
    return Metric(name=name, words=words, minimized=True, best=0.0, worst=USELESS_LOSS)


_BALANCED, _AUC, _F1 = (
    f"hpo.training.evaluation:{name}" for name in ("balanced_accuracy", "auc", "macro_f1")
)
_METRICS = (
    _percent("train_accuracy", marked("training accuracy")),
    _percent("valid_accuracy", marked("validation accuracy")),
    _percent("test_accuracy", marked("test accuracy")),
    _loss("train_loss", marked("training loss")),
    _loss("valid_loss", marked("validation loss")),
    _loss("test_loss", marked("test loss")),
    _percent("valid_balanced_accuracy", marked("balanced validation accuracy"), code=_BALANCED),
    _percent("test_balanced_accuracy", marked("balanced test accuracy"), code=_BALANCED),
    Metric(name="valid_auc", words=marked("validation AUC"), code=_AUC),
    Metric(name="test_auc", words=marked("test AUC"), code=_AUC),
    _percent("valid_f1", marked("validation macro F1"), code=_F1),
    _percent("test_f1", marked("test macro F1"), code=_F1),
    # Of a regression.
    *(
        Metric(
            name=f"{part}_{kind}",
            words=words,
            minimized=kind != "r2",
            best=float(kind == "r2"),
            worst=1 - USELESS_LOSS if kind == "r2" else USELESS_LOSS,
            code=f"hpo.training.evaluation:{kind}",
            of_unit=kind != "r2",
        )
        for part, kind, words in (
            ("valid", "rmse", marked("validation RMSE")),
            ("test", "rmse", marked("test RMSE")),
            ("valid", "mae", marked("validation MAE")),
            ("test", "mae", marked("test MAE")),
            ("valid", "r2", marked("validation R²")),
            ("test", "r2", marked("test R²")),
        )
    ),
    # Of the claims of a grid.
    _percent("gap", marked("gap between training and validation accuracy")),
    _percent("valid_spread", marked("epoch-to-epoch spread of validation accuracy")),
    _percent("valid_falls", marked("mean fall of validation accuracy between epochs")),
    Metric(name="train_seconds", words=marked("training time"), digits=2, unit=SECONDS_UNIT),
)
BY_NAME = {metric.name: metric for metric in _METRICS}
# What a study file may seek.
OBJECTIVES = (
    ACCURACY, "valid_balanced_accuracy", "valid_auc", "valid_f1", "valid_loss", *NUMBERS[:-1]
)  # fmt: skip


# What logits may be divided by, so that their probabilities fit: a grid, so that each network's
# losses on its own validation rows can be added up. A step changes the loss by less than seeds do.
TEMPERATURES = tuple(2 ** (step / 16) for step in range(-32, 81))


def capital(text: str) -> str:
    """Returns the text with a capital first; AUC stays AUC."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """Returns a header as it stands within a line: validation accuracy (%)."""
    return text[:1].lower() + text[1:]


def largest_share(data: Mapping[str, Any]) -> float:
    """Returns the largest class's share of the test labels; in earlier versions that of a guess."""
    return float(data.get("largest") or data.get("chance", 0.1))


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The metrics of an epoch, one value per replicate.

    number: from 1. Training loss and accuracy are running means while the weights change. seconds:
    a replicate's share of the epoch's training and validation. scores: {metric: values} of a metric
    with code, if the study seeks one. diagnostics: {measure: one list per layer}, None if they were
    not asked for.

    kept: the epoch that counts so far, None: this one. lengths: how many epochs count; a replicate
    that has run out of patience has fewer than `number`, and its metrics are those of its last one;
    None: all. Both only where the configuration has validation decide. last: whether the training
    ends with this epoch.
    """

    number: int
    train_loss: list[float]
    train_accuracy: list[float]
    valid_loss: list[float]
    valid_accuracy: list[float]
    seconds: float
    scores: dict[str, list[float]] = field(default_factory=dict)
    diagnostics: dict[str, list[list[float]] | None] | None = None
    kept: list[int] | None = None
    lengths: list[int] | None = None
    last: bool = False

    def values(self, name: str) -> list[float]:
        """Returns the values of a metric."""
        found: list[float] = self.scores[name] if name in self.scores else getattr(self, name)
        return found

    def metrics(self) -> dict[str, Any]:
        """Returns these fields, to pass them on."""
        return {f.name: getattr(self, f.name) for f in fields(EpochMetrics)}


def packed(right: NDArray[np.bool_]) -> str:
    """Returns a bit per image as base64: 1.7 kB for 10,000 images."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, count: int) -> NDArray[np.bool_]:
    """Returns the bits of `count` images that `packed` wrote."""
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(bits, count=count).astype(bool)
