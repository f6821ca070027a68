"""What hpo stores in a study and in a trial, checked where it is read: other programs write there,
too. Versions add keys, so that others than these are left alone."""

# The types are made for pydantic as the program runs; mypy knows only those that are written down.
# mypy: disable-error-code="valid-type,misc,arg-type"

import base64
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, NotRequired

from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, ValidationInfo

from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.results.trial import is_sound
from hpo.study.columns import METRICS, Bytes, Count, Maybe, TrialAttributes, keys
from hpo.study.fields import faults

REMEDY = "restore the storage from a copy, or run the study again with --fresh"


def _a_bit_each(right: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    data: Any = info.context
    grouped = bool((data.get("about") or {}).get("group"))  # then parts differ in size by seed
    for part, bits in right.items():
        if (
            not (grouped and part == "valid")
            and len(base64.b64decode(bits)) != (data[part] + 7) // 8
        ):
            raise ValueError(f"has no bit for each of {data[part]} {part} examples")
    return right


def _bound_search(study: dict[str, Any]) -> dict[str, Any]:
    if "space" in study["study_file"] and not study.get("binding", {}).get("sampler"):
        raise ValueError("binding: has no sampler")
    return study


class Data(Schema):
    name: str
    checksum: str
    train: Count
    valid: Count
    test: Count
    chance: float = 0.1
    guess: dict[str, dict[str, float]] | None = None
    unbalanced: bool = False
    largest: float | None = None
    guess_loss: float | None = None
    about: dict[str, Any] | None = None


def _optional(**types: Any) -> dict[str, Any]:
    """Returns keys that a dictionary may lack."""
    return {key: NotRequired[kind] for key, kind in types.items()}


HARDWARE = keys(processor=str, cores=int, memory_gib=Maybe)
MACHINES = list[keys(host=str, hardware=HARDWARE)]
SESSION = keys(
    started=float, workers=int, device=str, command=str, hardware=HARDWARE,
    versions=dict[str, str], git_commit=str | None,
    **_optional(host=str, seconds=float, machines=MACHINES, gpus=list[str]),
)  # fmt: skip
PROGRESS = keys(
    title=str, total=int, done=int, pruned=int, failed=int, workers=list[str], best=str,
    started=float, finish=Maybe, seconds=Maybe,
)  # fmt: skip
STUDY = keys(
    study_file=dict[str, Any],
    data=Data,
    **_optional(
        binding=keys(**_optional(sampler=str, pruner=str)),
        kind=str,
        sessions=list[SESSION],
        progress=PROGRESS | None,
        claims=dict[str, str] | None,
        token=str,
        seeds=Count,
        planned_seeds=Annotated[int, Field(ge=1)],
        timings=Annotated[list[dict[str, float]], Field(min_length=1)],
        until_resolved=keys(most=int, end=str) | None,
        claim_changes=list[keys(trials=int, dropped=list[str], added=list[str])],
        n_trials=Count,
        timeout=Maybe,
        sampler_seed=int,
        gave_up=bool,
        settled=bool,
        like=keys(study=str, trials=int, of=int),
        ensemble=keys(trial=int, members=Count, **_optional(test_accuracy=float, test_rmse=float)),
        images=dict[str, keys(label=Count, pixels=Bytes | None)],  # a system attribute
        code=dict[str, str],  # this, too
    ),
)


class StoredTrial(TrialAttributes, total=False):
    """With the system attributes of a trial."""

    right: Annotated[keys(test=Bytes, valid=Bytes), AfterValidator(_a_bit_each)]


def _kept_of_curve(trial: StoredTrial) -> StoredTrial:
    kept, curve = trial.get("kept"), trial.get("curve")
    if kept is None or curve is None:
        return trial
    epoch, epochs = kept["epoch"], len(curve[METRICS[0]])
    if epoch > epochs:
        raise ValueError(f"kept: has epoch {epoch:g} of {epochs}")
    one = trial.get("seeds", 1) == 1  # or they are means over the seeds' own epochs
    if one and (epoch % 1 or any(kept[m] != curve[m][int(epoch) - 1] for m in curve if m in kept)):
        raise ValueError(f"kept: is not epoch {epoch:g} of the curve")
    return trial


CHECKED_STUDY: Any = TypeAdapter(Annotated[STUDY, AfterValidator(_bound_search)])
CHECKED_TRIAL: Any = TypeAdapter(Annotated[StoredTrial, AfterValidator(_kept_of_curve)])


def check_study(name: str, user: Mapping[str, Any], system: Mapping[str, Any]) -> None:
    """Raises InputError that names the study and the attributes that are not as hpo stores them."""
    kept = {key: system[key] for key in ("images", "code") if key in system}
    _check(CHECKED_STUDY, {**user, **kept}, f"study {name!r}: attribute")


def check_trials(
    name: str, trials: Sequence[FrozenTrial], data: Mapping[str, Any], needed: Sequence[str]
) -> None:
    """As check_study, of the study's trials. data: the study's. needed: attributes that each ended
    trial has."""
    known = {**data, "classes": len(Schema.of(data).classes)}
    for trial in trials:
        where = f"study {name!r}: trial {trial.number}, attribute"
        kept = {k: v for k, v in trial.system_attrs.items() if k == "right"}
        attributes = {**trial.user_attrs, **kept}
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if missing := [key for key in needed if ended and key not in attributes]:
            raise InputError(f"{where} {missing[0]}: is missing; {REMEDY}")
        _check(CHECKED_TRIAL, attributes, where, known)
        _check_means(trial, where)


def _check_means(trial: FrozenTrial, where: str) -> None:
    """Raises InputError unless a sound trial's value is the mean over all its seeds."""
    values = trial.user_attrs.get("valid_by_seed")
    if values is None or not is_sound(trial):
        return
    seeds = trial.user_attrs.get("seeds", len(values))
    near = math.isclose(fmean(values), trial.values[0], rel_tol=1e-6, abs_tol=1e-9)
    if len(values) != seeds or not near:
        text = f"is not {seeds} values whose mean is the trial's value"
        raise InputError(f"{where} valid_by_seed: {text}; {REMEDY}")


def _check(kind: Any, attributes: Mapping[str, Any], where: str, context: Any = None) -> None:
    try:
        kind.validate_python(attributes, strict=True, context=context)
    except (ValidationError, RecursionError) as error:
        what = faults(error) if isinstance(error, ValidationError) else "is nested too deep"
        raise InputError(f"{where} {what}; {REMEDY}") from error
