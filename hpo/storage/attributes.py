"""What hpo stores in a study and in a trial, checked where it is read: other programs write there,
too. Versions add keys, so that others than these are left alone."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import (
    Annotated,
    Any,
    NoReturn,
    NotRequired,  # pydantic's, before Python 3.12
)

from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, ValidationInfo
from typing_extensions import TypedDict

from hpo.data.schema import Schema, StoredSchema
from hpo.errors import InputError
from hpo.study.fields import faults
from hpo.study.file import NAME
from hpo.study.metrics import METRICS

REMEDY = "restore the storage from a copy, or run the study again with --fresh"


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
        raise ValueError("is no path below the folder")
    return path


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("is no base64") from None
    return text


def _of_one_length(curve: dict[str, list[Any]]) -> dict[str, list[Any]]:
    if len({len(curve[metric]) for metric in METRICS}) > 1:
        raise ValueError("its metrics have different numbers of epochs")
    return curve


def _a_bit_each(right: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    data: Any = info.context
    for part, bits in right.items():
        if len(base64.b64decode(bits)) != (data[part] + 7) // 8:
            raise ValueError(f"has no bit for each of {data[part]} {part} examples")
    return right


def _of_the_classes(mistakes: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    classes, rows = len(Schema.of(info.context or {}).classes), mistakes["confusion"]
    named = [image[key] for image in mistakes["worst"] for key in ("label", "predicted")]
    if {classes} != {len(rows), *map(len, rows)} or max(named, default=0) >= classes:
        raise ValueError(f"does not belong to {classes} classes")
    return mistakes


def _bound_search(study: dict[str, Any]) -> dict[str, Any]:
    if "space" in study["study_file"] and not study.get("binding", {}).get("sampler"):
        raise ValueError("binding: has no sampler")
    return study


Count = Annotated[int, Field(ge=0, le=10**12)]
Maybe = float | None
Bytes = Annotated[str, AfterValidator(_base64)]
Values = Annotated[list[Maybe], Field(min_length=1)]
Timings = Annotated[list[dict[str, float]], Field(min_length=1)]


class Data(StoredSchema):
    name: str
    checksum: str
    train: Count
    valid: Count
    test: Count
    chance: float = 0.1
    unbalanced: bool = False
    about: dict[str, Any] | None = None


class Hardware(TypedDict):
    processor: str
    cores: int
    memory_gib: Maybe


class Node(TypedDict):
    host: str
    hardware: Hardware


class Like(TypedDict):
    study: str
    trials: int
    of: int


class Rounds(TypedDict):
    most: int
    end: str


class Change(TypedDict):
    trials: int
    dropped: list[str]
    added: list[str]


class Ensemble(TypedDict):
    networks: int
    test_accuracy: float


class Image(TypedDict):
    label: Count
    pixels: Bytes | None


class Binding(TypedDict, total=False):
    sampler: str
    pruner: str


class Session(TypedDict):
    started: float
    workers: int
    device: str
    command: str
    hardware: Hardware
    versions: dict[str, str]
    git_commit: str | None
    host: NotRequired[str]
    seconds: NotRequired[float]
    machines: NotRequired[list[Node]]  # fmt: skip


class Progress(TypedDict):
    title: str
    total: int
    done: int
    pruned: int
    failed: int
    workers: list[str]
    best: str
    started: float
    finish: Maybe
    seconds: Maybe  # fmt: skip


class Worst(TypedDict):
    image: int
    label: Count
    predicted: Count
    probability: Maybe
    pixels: Bytes | None


class Mistakes(TypedDict):
    confusion: list[list[float]]
    worst: list[Worst]


class Curve(TypedDict):
    train_loss: Values
    train_accuracy: Values
    valid_loss: Values
    valid_accuracy: Values


class Right(TypedDict):
    test: Bytes
    valid: Bytes


class Study(TypedDict):
    """images and code: system attributes."""

    study_file: dict[str, Any]
    data: Data
    binding: NotRequired[Binding]
    kind: NotRequired[str]
    sessions: NotRequired[list[Session]]
    progress: NotRequired[Progress | None]
    claims: NotRequired[dict[str, str] | None]
    token: NotRequired[str]
    seeds: NotRequired[Count]
    timings: NotRequired[Timings]
    until_resolved: NotRequired[Rounds | None]
    ensemble: NotRequired[Ensemble | None]
    claim_changes: NotRequired[list[Change]]
    n_trials: NotRequired[Count]
    timeout: NotRequired[Maybe]
    sampler_seed: NotRequired[int]
    gave_up: NotRequired[bool]
    settled: NotRequired[bool]
    like: NotRequired[Like]
    images: NotRequired[dict[str, Image]]
    code: NotRequired[dict[Annotated[str, AfterValidator(_inside)], str]]


class Trial(TypedDict, total=False):
    """right and probabilities: system attributes."""

    cell: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    seed: int
    curve: Annotated[Curve, AfterValidator(_of_one_length)]
    diverged: bool | Annotated[int, Field(ge=0, le=1)]
    train_seconds: float
    test_loss: Maybe
    test_accuracy: Maybe
    test_balanced_accuracy: Maybe
    test_recall: list[Maybe]
    parameters: int
    stack: int
    over_limit: bool | int
    fail_reason: str
    diagnostics: dict[str, list[list[Maybe]]]
    mistakes: Annotated[Mistakes, AfterValidator(_of_the_classes)]
    right: Annotated[Right, AfterValidator(_a_bit_each)]
    probabilities: Bytes


STUDY: Any = TypeAdapter(Annotated[Study, AfterValidator(_bound_search)])
TRIAL: Any = TypeAdapter(Trial)


def check_study(name: str, user: Mapping[str, Any], system: Mapping[str, Any]) -> None:
    """Raises InputError that names the study and the attributes that are not as hpo stores them."""
    kept = {key: system[key] for key in ("images", "code") if key in system}
    try:
        STUDY.validate_python({**user, **kept}, strict=True)
    except (ValidationError, RecursionError) as error:
        _refuse(f"study {name!r}: attribute", error)


def check_trials(
    name: str, trials: Sequence[FrozenTrial], data: Mapping[str, Any], needed: Sequence[str]
) -> None:
    """As check_study, of the study's trials. data: the study's. needed: attributes that each ended
    trial has."""
    for trial in trials:
        where = f"study {name!r}: trial {trial.number}, attribute"
        kept = {k: v for k, v in trial.system_attrs.items() if k in ("right", "probabilities")}
        attributes = {**trial.user_attrs, **kept}
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if missing := [key for key in needed if ended and key not in attributes]:
            raise InputError(f"{where} {missing[0]}: is missing; {REMEDY}")
        try:
            TRIAL.validate_python(attributes, strict=True, context=data)
        except (ValidationError, RecursionError) as error:
            _refuse(where, error)


def _refuse(where: str, error: Exception) -> NoReturn:
    what = faults(error) if isinstance(error, ValidationError) else "is nested too deep"
    raise InputError(f"{where} {what}; {REMEDY}") from error
