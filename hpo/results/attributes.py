"""What hpo stores in a study and in a trial, checked where it is read: other programs write there,
too. Versions add keys, so that others than these are left alone."""

# The types are made for pydantic as the program runs; mypy knows only those that are written down.
# mypy: disable-error-code="valid-type,misc,arg-type"

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired

from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, ValidationInfo
from typing_extensions import TypedDict  # which pydantic needs before Python 3.12

from hpo.data.schema import Schema, StoredSchema
from hpo.errors import InputError
from hpo.study.fields import faults
from hpo.study.file import NAME
from hpo.study.metrics import METRICS

REMEDY = "restore the storage from a copy, or run the study again with --fresh"


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


class Data(StoredSchema):
    name: str
    checksum: str
    train: Count
    valid: Count
    test: Count
    chance: float = 0.1
    unbalanced: bool = False
    about: dict[str, Any] | None = None


def _keys(**types: Any) -> Any:
    """Returns the type of a dictionary with these keys, and perhaps others."""
    make: Any = TypedDict
    return make("Keys", types)


def _optional(**types: Any) -> dict[str, Any]:
    """Returns keys that a dictionary may lack."""
    return {key: NotRequired[kind] for key, kind in types.items()}


HARDWARE = _keys(processor=str, cores=int, memory_gib=Maybe)
MACHINES = list[_keys(host=str, hardware=HARDWARE)]
SESSION = _keys(
    started=float, workers=int, device=str, command=str, hardware=HARDWARE,
    versions=dict[str, str], git_commit=str | None,
    **_optional(host=str, seconds=float, machines=MACHINES),
)  # fmt: skip
PROGRESS = _keys(
    title=str, total=int, done=int, pruned=int, failed=int, workers=list[str], best=str,
    started=float, finish=Maybe, seconds=Maybe,
)  # fmt: skip
WORST = _keys(image=int, label=Count, predicted=Count, probability=Maybe, pixels=Bytes | None)
MISTAKES = _keys(confusion=list[list[float]], worst=list[WORST])
CURVE = _keys(**dict.fromkeys(METRICS, Values))
STUDY = _keys(
    study_file=dict[str, Any],
    data=Data,
    **_optional(
        binding=_keys(**_optional(sampler=str, pruner=str)),
        kind=str,
        sessions=list[SESSION],
        progress=PROGRESS | None,
        claims=dict[str, str] | None,
        token=str,
        seeds=Count,
        timings=Annotated[list[dict[str, float]], Field(min_length=1)],
        until_resolved=_keys(most=int, end=str) | None,
        ensemble=_keys(networks=int, test_accuracy=float) | None,
        claim_changes=list[_keys(trials=int, dropped=list[str], added=list[str])],
        n_trials=Count,
        timeout=Maybe,
        sampler_seed=int,
        gave_up=bool,
        settled=bool,
        like=_keys(study=str, trials=int, of=int),
        images=dict[str, _keys(label=Count, pixels=Bytes | None)],  # a system attribute
        code=dict[str, str],  # this, too
    ),
)
TRIAL = _keys(
    **_optional(
        cell=Annotated[str, Field(pattern=f"^{NAME.pattern}$")],
        seed=int,
        curve=Annotated[CURVE, AfterValidator(_of_one_length)],
        diverged=bool | Annotated[int, Field(ge=0, le=1)],
        train_seconds=float,
        test_loss=Maybe,
        test_accuracy=Maybe,
        test_balanced_accuracy=Maybe,
        test_recall=list[Maybe],
        parameters=int,
        stack=int,
        over_limit=bool | int,
        run_seconds=float,
        fail_reason=str,
        diagnostics=dict[str, list[list[Maybe]]],
        mistakes=Annotated[MISTAKES, AfterValidator(_of_the_classes)],
        right=Annotated[_keys(test=Bytes, valid=Bytes), AfterValidator(_a_bit_each)],  # a system
        probabilities=Bytes,  # attribute, as this
    )
)
CHECKED_STUDY: Any = TypeAdapter(Annotated[STUDY, AfterValidator(_bound_search)])
CHECKED_TRIAL: Any = TypeAdapter(TRIAL)


def check_study(name: str, user: Mapping[str, Any], system: Mapping[str, Any]) -> None:
    """Raises InputError that names the study and the attributes that are not as hpo stores them."""
    kept = {key: system[key] for key in ("images", "code") if key in system}
    _check(CHECKED_STUDY, {**user, **kept}, f"study {name!r}: attribute")


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
        _check(CHECKED_TRIAL, attributes, where, data)


def _check(kind: Any, attributes: Mapping[str, Any], where: str, context: Any = None) -> None:
    try:
        kind.validate_python(attributes, strict=True, context=context)
    except (ValidationError, RecursionError) as error:
        what = faults(error) if isinstance(error, ValidationError) else "is nested too deep"
        raise InputError(f"{where} {what}; {REMEDY}") from error
