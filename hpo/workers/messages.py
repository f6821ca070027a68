"""The messages between runner and workers."""

from dataclasses import dataclass, field
from typing import Any

from hpo.study.config import Config, Seeds
from hpo.study.metrics import ACCURACY, BY_NAME, EpochMetrics, Metric
from hpo.study.names import FLOAT32


@dataclass(frozen=True, kw_only=True)
class Task:
    """Train one network per seed, as a stack, or one after another.

    test: test the networks at the end. inspect: also return confusion matrices. calibrate: return
    what fits a temperature. all_images: train
    on all training images, validate on none, and return the network. diagnose: measure training,
    see training.diagnostics. folds: each seed's split is one of so many folds; 0: it is drawn.
    share: of the images of the split to use. folder: where the module of the user's own network
    lies. objective, class_weight and precision: see study.file.Head. deviation: of a regression's
    target. cut: see training.train.train. until: the epoch after which the training pauses, see
    worker.Trainer; 0: none.
    """

    id: int
    config: Config
    seeds: tuple[Seeds, ...]
    test: bool = False
    inspect: bool = False
    calibrate: bool = False
    diagnose: bool = False
    all_images: bool = False
    one_by_one: bool = False
    folds: int = 0
    share: float = 1.0
    folder: str = ""
    objective: str = ACCURACY
    deviation: float = 1.0
    class_weight: str | dict[str, float] | None = None
    precision: str = FLOAT32
    cut: int = 0
    until: int = 0

    @property
    def metric(self) -> Metric:
        """Returns the objective."""
        return BY_NAME[self.objective].of(self.deviation)

    @property
    def epochs(self) -> int:
        """Returns how many epochs the task reports at most: with one_by_one, those of all seeds."""
        return (self.cut or self.config.epochs) * (len(self.seeds) if self.one_by_one else 1)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End this task at once, within its epoch and without a test."""

    task: int


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Use so many cores from now on, see training.cores."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker has started and trains on this kind of device. machine: of another machine, its
    host, hardware and versions. gpu: its number and name."""

    device: str
    gpu: str = ""
    machine: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EpochDone(EpochMetrics):
    """A task has ended an epoch; one value per seed that it trains at once. number: with
    one_by_one, it goes on from seed to seed."""

    task: int


@dataclass(frozen=True, kw_only=True)
class Done:
    """A task has ended, with the test figures, one per seed, if it was tested.

    test_scores: {metric: values} as EpochMetrics.scores, of the test.
    test_right and valid_right: which images are right, one text per seed, see study.metrics.packed.
    test_recall: the share of each class that is right, None without images, one list per seed.
    confusion: one per seed, see training.evaluation.inspect. predictions: of a regression, see
    training.evaluation.predictions, in the target's unit. calibration: one per seed, see
    training.evaluation.calibration. model: the network of an `all_images`
    task, as the bytes of a safetensors file. ensemble, ensemble_score: if it has several seeds,
    all their networks, and the name and value of the test metric of their mean answer. parameters:
    of the network.
    """

    task: int
    test_loss: list[float] | None = None
    test_accuracy: list[float] | None = None
    test_scores: dict[str, list[float]] = field(default_factory=dict)
    test_right: list[str] | None = None
    test_recall: list[list[float | None]] | None = None
    valid_right: list[str] | None = None
    confusion: list[dict[str, Any]] | None = None
    predictions: list[dict[str, list[float]]] | None = None
    calibration: list[dict[str, list[float]] | None] | None = None
    model: bytes | None = None
    ensemble: bytes | None = None
    ensemble_score: tuple[str, float] | None = None
    parameters: int | None = None


@dataclass(frozen=True, kw_only=True)
class Paused:
    """A task has paused after the epoch that it names. It goes on if it is given again."""

    task: int


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A task has failed; the worker goes on."""

    task: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Died:
    """A worker process has ended, and its task, if any, is lost. reason: such as "died (…)"."""

    task: int | None
    reason: str


Event = EpochDone | Done | Paused | Failed | Died
