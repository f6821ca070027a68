"""Reads a stored study: its file, its trials as tables, and the searches that belong beside it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import optuna
import pandas as pd
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from hpo.data.datasets import schema_of
from hpo.errors import InputError
from hpo.results import trial as record
from hpo.results.attributes import REMEDY, check_study, check_trials
from hpo.results.study import StoredGrid, StoredSearch
from hpo.storage.bulk_read import all_trials, unreadable
from hpo.storage.open import reason_of
from hpo.study import finalists
from hpo.study.binding import differences
from hpo.study.columns import METRICS, PARAMS, SOME_COLUMNS, TRIAL_COLUMNS
from hpo.study.config import OPTIONAL
from hpo.study.file import FIGURES, GridStudy, SearchStudy, parse
from hpo.study.metrics import BY_NAME
from hpo.study.space import Domain, completed
from hpo.text import error_line, meant

IMAGES = "images"  # system attribute of a grid: {index: label and pixels of a test image}
CODE = "code"  # system attribute of a study: {path: text} of the user's own network


class NotBegun(InputError):  # noqa: N818
    """The study is not stored, or no run has begun to train it."""


def load_study(storage: BaseStorage, name: str) -> StoredGrid | StoredSearch:
    """Reads the study of that name. Raises InputError if it is not stored, with the names that are,
    and if the storage fails."""
    try:
        return _load_study(storage, name)
    except (StorageInternalError, SQLAlchemyError) as error:
        raise InputError(f"study {name!r}: cannot be read ({reason_of(error)})") from error
    except (RecursionError, json.JSONDecodeError) as error:
        where = unreadable(storage, name)
        raise InputError(f"{where} is nested too deep, or no JSON; {REMEDY}") from error


def _load_study(
    storage: BaseStorage, name: str, *, alone: bool = False
) -> StoredGrid | StoredSearch:
    """alone: without the searches that belong beside it."""
    try:
        optuna_study = optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        known = optuna.get_all_study_names(storage)
        there = f"there are: {', '.join(known) or 'none'}{meant(name, known)}"
        raise NotBegun(f"study {name!r}: is not in the storage; {there}") from error
    attributes = optuna_study.user_attrs
    if "study_file" not in attributes:
        empty = not attributes and not optuna_study.get_trials(deepcopy=False)
        refused = NotBegun if empty else InputError  # a run may be about to bind it
        why = "holds nothing: its run was ended at the start" if empty else "was not made by hpo"
        raise refused(f"study {name!r}: {why}")
    system = storage.get_study_system_attrs(optuna_study._study_id)
    file = file_of(name, attributes, system)
    kind: Any = StoredGrid if isinstance(file, GridStudy) else StoredSearch
    if ("seeds" if kind is StoredGrid else "n_trials") not in attributes:
        raise NotBegun(f"study {name!r}: was created but not run yet; `hpo run` starts it")
    needed = ("cell", "seed", "curve") if kind is StoredGrid else ("curve",)
    trials = _trials(storage, optuna_study, needed)
    facts = {f.name: attributes[f.name] for f in fields(kind) if f.name in attributes}
    facts |= {"name": name, "id": optuna_study._study_id, "file": file}
    facts["code"] = system.get(CODE, {})
    if isinstance(file, SearchStudy):
        trials = [record.by_rule(trial) for trial in trials]
        facts |= _of_search(storage, optuna_study, file, alone)
        facts["trials"] = _trials_frame(trials, [file.objective], file.space)
        facts["curves"] = _curves_frame(trials, [file.objective])
    else:
        classes = schema_of(attributes["data"]).classes
        scored = file.metric.scored(regression=not classes)
        names = [file.objective, *(metric.name for metric in scored)]
        facts |= {"trials": _trials_frame(trials, names), "curves": _curves_frame(trials, names)}
        facts["images"] = system.get(IMAGES, {})
    facts["frozen"] = trials
    found: StoredGrid | StoredSearch = kind(**facts)
    return found


def file_of(
    name: str, attributes: Mapping[str, Any], system: Mapping[str, Any] = MappingProxyType({})
) -> GridStudy | SearchStudy:
    """Returns the study file of a stored study. Raises InputError for attributes that are not as
    hpo stores them. system: the study's system attributes."""
    check_study(name, attributes, system)
    schema = schema_of(attributes["data"])
    file = parse(attributes["study_file"], name, f"stored study {name}")
    return file.on(schema.classes, schema.deviation)


def _trials(
    storage: BaseStorage, optuna_study: optuna.Study, needed: Sequence[str]
) -> Sequence[FrozenTrial]:
    """needed: attributes that each ended trial has."""
    name = optuna_study.study_name
    try:
        trials = [record.whole(trial) for trial in all_trials(optuna_study, storage)]
    except json.JSONDecodeError:  # of an attribute, see load_study
        raise
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"study {name!r}: its trials cannot be read ({error_line(error)}); {REMEDY}"
        ) from error
    check_trials(name, trials, optuna_study.user_attrs["data"], needed)
    return trials


def _of_search(
    storage: BaseStorage, search: optuna.Study, file: SearchStudy, alone: bool
) -> dict[str, Any]:
    bound = search.user_attrs["binding"]
    file = file.model_copy(update={key: bound[key] for key in ("sampler", "pruner")})
    random = None
    if not alone and bound["sampler"] != "random":
        random = next(_alike(storage, {**bound, "sampler": "random"}), None)
    return {
        "file": file,
        "tested": _finalists(storage, search, file),
        "random": random,
        "repeats": () if alone else _repeats(storage, search, file),
    }


def _finalists(storage: BaseStorage, search: optuna.Study, file: SearchStudy) -> StoredGrid | None:
    """Returns the finalists' grid, its cells in the order of their rank; None before they start."""
    name = finalists.name_of(search.study_name)
    if name not in optuna.get_all_study_names(storage):
        return None
    begun = optuna.load_study(study_name=name, storage=storage)
    if "study_file" in begun.user_attrs:
        check_study(name, begun.user_attrs, {})
    if not finalists.belong(begun, search) or "seeds" not in begun.user_attrs:
        return None
    grid = load_study(storage, name)
    assert isinstance(grid, StoredGrid)
    seeds = finalists.fresh_seeds(file)
    cells = finalists.ranked(grid.finished, grid.file.cells, seeds, file.metric)
    return replace(grid, file=grid.file.model_copy(update={"cells": tuple(cells)}))


REPEATED = ("n_trials", "timeout")  # attributes that are the same in a repeated search


def _repeats(storage: BaseStorage, search: optuna.Study, file: SearchStudy) -> list[StoredSearch]:
    """Returns other stored searches that differ only in the sampler's seed and have a winner, one
    for each seed."""
    ours, asked = search.user_attrs, (file.finalists, file.finalist_seeds)

    def repeats(theirs: Mapping[str, Any]) -> bool:
        seed = theirs.get("sampler_seed")
        same = all(theirs.get(key) == ours.get(key) for key in REPEATED)
        return same and seed not in (None, ours.get("sampler_seed", seed))

    found: dict[Any, StoredSearch] = {}
    for other in _alike(storage, ours["binding"], repeats):
        if other.winner and (other.file.finalists, other.file.finalist_seeds) == asked:
            found.setdefault(other.sampler_seed, other)
    return [found[seed] for seed in sorted(found)]


def _alike(
    storage: BaseStorage,
    bound: Mapping[str, Any],
    wanted: Callable[[Mapping[str, Any]], bool] = lambda attributes: True,
) -> Iterator[StoredSearch]:
    """Yields the stored searches with this binding whose attributes are wanted."""
    for other in storage.get_all_studies():
        attributes = other.user_attrs
        theirs = attributes.get("binding")
        begun = attributes.get("kind") == "search" and "n_trials" in attributes
        if not begun or not isinstance(theirs, dict) or differences(theirs, bound):
            continue
        if wanted(attributes):
            search = _load_study(storage, other.study_name, alone=True)
            assert isinstance(search, StoredSearch)
            yield search


def _trials_frame(
    trials: Sequence[FrozenTrial], metrics: Sequence[str], space: Mapping[str, Domain] | None = None
) -> pd.DataFrame:
    """metrics: of the validation; they and their counterparts in the test have columns in any case.
    space: of a search, whose fixed values are no parameters of its trials."""
    rows = []
    for trial in trials:
        last = record.last_epoch(trial.user_attrs.get("curve", {}), sound=space is not None)
        last |= trial.user_attrs.get("kept", {})
        times = {"started": _iso(trial.datetime_start), "ended": _iso(trial.datetime_complete)}
        params = trial.params if space is None else completed(space, trial.params)
        known = {**params, **trial.user_attrs, **last, **times}
        known |= {"number": trial.number, "state": trial.state.name, PARAMS: params}
        rows.append(known)
    frame = pd.DataFrame(rows)
    some = [*OPTIONAL, *SOME_COLUMNS]  # columns of studies that have them
    theirs = sorted({name for row in rows for name in row[PARAMS]} - {*TRIAL_COLUMNS, *some})
    both = [name for metric in metrics for name in (metric, BY_NAME[metric].tested.name)]
    sought = [name for name in dict.fromkeys(both) if name in some]
    there = [name for name in [*some, *theirs] if name in frame or name in sought]
    frame = frame.reindex(columns=[*TRIAL_COLUMNS, *there])
    frame["diverged"] = frame["diverged"].eq(True)
    if "epoch" in frame:
        frame["epoch"] = frame["epoch"].astype(float).convert_dtypes()  # 7, or a mean over seeds
    return frame.astype(dict.fromkeys([*METRICS, *FIGURES, *sought], float))


def _iso(time: datetime | None) -> str | None:
    """Returns the time with the zone's offset; Optuna gives local time without it."""
    return time.astimezone().isoformat() if time else None


def _curves_frame(trials: Sequence[FrozenTrial], more: Sequence[str]) -> pd.DataFrame:
    """more: metrics of a curve besides METRICS."""
    metrics = list(dict.fromkeys([*METRICS, *more]))
    rows = [
        (trial.number, trial.user_attrs.get("cell"), trial.user_attrs.get("seed"), epoch, *values)
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and (curve := trial.user_attrs.get("curve"))
        for epoch, values in enumerate(zip(*(curve[m] for m in metrics), strict=True), 1)
    ]
    frame = pd.DataFrame(rows, columns=["number", "cell", "seed", "epoch", *metrics])
    return frame.astype(dict.fromkeys(metrics, float))
