"""What is stored of a trial: its attributes and their types, and the columns of trials.csv."""

# The types are made for pydantic as the program runs; mypy knows only those that are written down.
# mypy: disable-error-code="valid-type,misc,arg-type"

import base64
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, ValidationInfo
from typing_extensions import TypedDict  # which pydantic needs before Python 3.12

from hpo.study.fields import NAME
from hpo.study.metrics import BY_NAME, OBJECTIVES, TEMPERATURES

METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")  # of an epoch
SCORES = tuple(name for name in OBJECTIVES if name not in METRICS)  # of studies that seek one
TESTED = tuple(BY_NAME[name].tested.name for name in SCORES)


def keys(**types: Any) -> Any:
    """Returns the type of a dictionary with these keys, and perhaps others."""
    make: Any = TypedDict
    return make("Keys", types)


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("is no base64") from None
    return text


def _of_one_length(curve: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if len({len(curve[metric]) for metric in (*METRICS, *SCORES) if metric in curve}) > 1:
        raise ValueError("its metrics have different numbers of epochs")
    return curve


def _of_equal_length(predictions: dict[str, list[float]]) -> dict[str, list[float]]:
    if len(predictions["target"]) != len(predictions["answer"]):
        raise ValueError("has not one answer for each target")
    return predictions


def _of_the_classes(mistakes: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """The context has the number of classes."""
    data: Any = info.context
    classes, rows = data["classes"], mistakes["confusion"]
    named = [image[key] for image in mistakes["worst"] for key in ("label", "predicted")]
    if {classes} != {len(rows), *map(len, rows)} or max(named, default=0) >= classes:
        raise ValueError(f"does not belong to {classes} classes")
    return mistakes


Count = Annotated[int, Field(ge=0, le=10**12)]
Maybe = float | None
_FINITE = Annotated[float, Field(allow_inf_nan=False)]
Bytes = Annotated[str, AfterValidator(_base64)]
_EPOCHS = Annotated[list[Maybe], Field(min_length=1)]
CURVE = keys(**dict.fromkeys(METRICS, _EPOCHS), **dict.fromkeys(SCORES, NotRequired[_EPOCHS]))
WORST = keys(image=int, label=Count, predicted=Count, probability=Maybe, pixels=Bytes | None)
# A count of epochs, or a mean of counts over seeds.
_SOME = dict.fromkeys(SCORES, NotRequired[Maybe])
KEPT = keys(epoch=Annotated[float, Field(ge=1)], **dict.fromkeys(METRICS, Maybe), **_SOME)
PREDICTIONS = keys(target=list[float], answer=list[float])
_AT_EACH = Annotated[list[float], Field(min_length=len(TEMPERATURES), max_length=len(TEMPERATURES))]
CALIBRATION = keys(loss=_AT_EACH, error=_AT_EACH)
MISTAKES = keys(confusion=list[list[float]], worst=list[WORST])


# Attributes that hpo alone reads. They are system attributes of the trial: as a user attribute a
# curve makes the dashboard's page of the trial thousands of pixels wide. Earlier versions had them
# there.
INTERNAL = (
    "curve", "kept", "diagnostics", "valid_by_seed", "test_recall", "mistakes", "calibration",
    "predictions",
)  # fmt: skip


class TrialAttributes(TypedDict, total=False):
    """The attributes of a trial: user attributes, but for those of INTERNAL.

    seeds: how many seeds its value is the mean of. first: the entry of [[search.first]] that it
    comes from. over_limit: 1 if its time limit ended it. paused_at: the epoch after which a search
    by successive halving paused it last. run_seconds: how long the study had run
    when it ended, by a clock that cannot be set. kept: the metrics of the epoch that counts, where
    validation has a say in it. valid_by_seed: the objective of each seed or fold that its value is
    the mean of. For the others see results.trial and runs.loop.
    """

    cell: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    seed: int
    seeds: int
    stack: int
    first: str
    parameters: int | None
    fail_reason: str
    curve: Annotated[CURVE, AfterValidator(_of_one_length)]
    kept: KEPT
    diagnostics: dict[str, list[list[Maybe]]]
    train_seconds: float
    run_seconds: float
    train_valid_gap: float
    diverged: bool | Annotated[int, Field(ge=0, le=1)]
    over_limit: bool | int
    paused_at: int
    valid_by_seed: Annotated[list[_FINITE], Field(min_length=1)]
    test_loss: Maybe
    test_accuracy: Maybe
    test_balanced_accuracy: Maybe
    test_auc: Maybe
    test_f1: Maybe
    test_rmse: Maybe
    test_mae: Maybe
    test_r2: Maybe
    test_recall: list[Maybe]
    mistakes: Annotated[MISTAKES, AfterValidator(_of_the_classes)]
    calibration: CALIBRATION
    predictions: Annotated[PREDICTIONS, AfterValidator(_of_equal_length)]


TRIAL_COLUMNS = (
    "number", "state", "cell", "seed", "depth", "width", "activation", "optimizer", "lr",
    "batch_size", "epochs", *METRICS, "test_loss", "test_accuracy", "train_seconds", "diverged",
    "momentum", "nesterov", "weight_decay", "schedule", "parameters", "stack", "started",
    "ended", "fail_reason",
)  # fmt: skip
# Of studies that have them. epoch: the one that counts.
SOME_COLUMNS = ("epoch", *SCORES, *TESTED, "over_limit", "run_seconds")
PARAMS = "params"  # the names of the hyperparameters that a row of trials has a value of
# Hyperparameters of one's own network are columns beside these, so they cannot be called so.
RESERVED = {*TRIAL_COLUMNS, *SOME_COLUMNS, *TrialAttributes.__annotations__, PARAMS}
