"""A run, resolved once, and its study in the storage: created, bound to its file, cleaned up."""

import hashlib
import itertools
import json
import math
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import Trial, TrialState

from hpo.data.datasets import Dataset, check, describe
from hpo.data.schema import input_shape
from hpo.errors import InputError
from hpo.language import ENGLISH, use
from hpo.options import Options
from hpo.results.attributes import check_study
from hpo.results.trial import KILLED
from hpo.runs.plan import Shape, Watcher
from hpo.study.binding import DATA, JUDGED, MODEL, code_digest, code_of, differences
from hpo.study.config import SOURCES
from hpo.study.file import SECOND, GridStudy, SearchStudy, StudyFile
from hpo.study.metrics import ACCURACY
from hpo.study.names import FLOAT32
from hpo.study.space import spelled
from hpo.text import quoted
from hpo.workers.pool import LocalPool, MakePool


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run trains, where it stores the trials, and what watches it: resolved once.

    file: the study file, as the options change it.
    name: of the study in the storage.
    bound: what the results depend on, see binding.
    provenance: see provenance.collect.
    workers: at most.
    started: by the monotonic clock, as all that counts seconds: nobody can set it, and it stands
        still while the machine sleeps.
    unfinished: the titles of the plans that had something to train when they began.
    token: of this very run.
    """

    options: Options
    file: StudyFile
    name: str
    dataset: Dataset
    bound: Mapping[str, Any]
    storage: BaseStorage
    provenance: Mapping[str, Any]
    workers: int
    make_pool: MakePool = LocalPool
    watchers: Sequence[Watcher] = ()
    started: float = field(default_factory=time.monotonic)
    unfinished: list[str] = field(default_factory=list)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @cached_property
    def shape(self) -> Shape:
        return Shape.of(self.dataset)

    @property
    def training(self) -> dict[str, Any]:
        """Returns what all tasks of the study share, see messages.Task."""
        of_target = {"deviation": self.dataset.schema.deviation}
        return {"folder": self.file.folder, **of_target, **self.file.judged}

    @property
    def timeout(self) -> float:
        """Seconds of training; finalists and the winner are trained without a limit."""
        return math.inf if self.options.timeout is None else self.options.timeout

    @property
    def winner_folder(self) -> Path:
        return self.options.out / self.name / "best"


def binding(file: StudyFile, dataset: Dataset) -> dict[str, Any]:
    """Returns what a stored study is bound to: what its results depend on, without the budget."""
    chosen: dict[str, Any]
    if isinstance(file, SearchStudy):
        with use(ENGLISH):
            chosen = {f"space.{name}": spelled(domain) for name, domain in file.space.items()}
        chosen |= {"sampler": file.sampler, "pruner": file.pruner}
        if file.seeds_per_trial > 1:  # older studies name neither
            chosen["seeds_per_trial"] = str(file.seeds_per_trial)
        if file.folds:
            chosen["folds"] = str(file.folds)
        chosen |= {"first seed": file.first_seed} if file.first_seed else {}
        if file.second:
            chosen["objectives"] = ", ".join(file.objectives)
    else:
        chosen = {
            f"cells.{cell.name}.{key}": value
            for cell in file.cells
            for key, value in cell.config.given().items()
            if (key, value) != ("schedule", "constant")  # older studies do not name it
        }
        chosen |= {
            f"cells.{cell.name}.varies": ", ".join(cell.varies)
            for cell in file.cells
            if cell.varies != SOURCES
        }
        chosen |= {f"cells.{cell.name}.crossed": "yes" for cell in file.cells if cell.crossed}
        chosen |= {f"cells.{c.name}.precision": c.precision for c in file.cells if c.precision}
        chosen |= {"first seed": file.first} if file.first else {}  # older studies do not name it
    if file.objective != ACCURACY:  # older studies name neither
        chosen["objective"] = file.objective
    if file.class_weight is not None:
        chosen["class weight"] = file.weights_text
    if file.precision != FLOAT32:
        chosen["precision"] = file.precision
    if file.model:
        chosen["model"] = file.model
        chosen["model code"] = code_digest(code_of(file.model, file.folder))
        if len(dataset.shape) == 3:
            chosen["model input"] = str(input_shape(dataset.shape, 0))
    split = f"{len(dataset.train_labels)} training images, 8:2 by seed"
    if len(dataset.groups):
        split += ", whole groups"
    if fixed := len(dataset.valid_rows):
        split = f"{len(dataset.train_labels)} training images, the last {fixed} to validate on"
    return {
        "dataset": dataset.name,
        "dataset checksum": dataset.checksum,
        "split": split,
        **dataset.schema.bound,
        **chosen,
    }


def open_study(run: Run) -> optuna.Study:
    """Returns the stored study of the run's name; creates it if needed.

    Raises InputError for a dataset that cannot be trained on, and, one line per difference, if the
    stored study is bound to other data, another study file or, unless these may change, other
    claims.
    """
    check(run.dataset)
    name, file = run.name, run.file
    search = file if isinstance(file, SearchStudy) else None
    try:
        optuna_study = optuna.create_study(
            storage=run.storage,
            study_name=name,
            directions=search.directions if search else [file.metric.direction],
            load_if_exists=True,
        )
    except ValueError as error:  # other directions
        raise InputError(
            f"study {name!r}: is stored with other objectives; give --name for a new study, or "
            "--fresh to delete the stored one"
        ) from error
    stored = optuna_study.user_attrs.get("binding")
    if stored is None and optuna_study.get_trials(deepcopy=False):
        raise InputError(f"study {name!r}: was not made by hpo; give --name another one")
    if stored is not None:
        check_study(name, optuna_study.user_attrs, {})
        if found := differences(stored, run.bound):
            raise InputError("\n".join(_told(name, found, search=bool(search))))
    if isinstance(file, GridStudy):
        _bind_claims(optuna_study, file, changed=run.options.changed_claims)
    seconds = search.objectives[1:] if search else ()
    names = [file.metric.words, *(SECOND[second] for second in seconds)]
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        optuna_study.set_metric_names(names)
    if "token" not in optuna_study.user_attrs:  # tells it from another study of its name
        optuna_study.set_user_attr("token", uuid.uuid4().hex)
    optuna_study.set_user_attr("binding", dict(run.bound))
    optuna_study.set_user_attr("kind", "search" if search else "grid")
    optuna_study.set_user_attr("data", describe(run.dataset))
    optuna_study.set_user_attr("study_file", dict(file.raw))
    return optuna_study


def _told(name: str, found: Mapping[str, tuple[Any, Any]], *, search: bool) -> list[str]:
    lines = [
        f"study {name!r}: {key}: stored with {was!r}, now {is_now!r}"
        for key, (was, is_now) in found.items()
    ]
    comparable = search and not {*DATA, *MODEL, *JUDGED} & set(found)
    like = f"--like {name} to go on with the trials that still fit, " if comparable else ""
    lines[-1] += f"; give {like}--name for a new study, or --fresh to delete the stored one"
    return lines


def _bind_claims(optuna_study: optuna.Study, file: GridStudy, *, changed: bool) -> None:
    """Binds the study to its claims and margins before the first trial, and stores how many seeds
    the study file plans; `--seeds` is no part of it.

    changed: whether other claims than the bound ones are accepted; the study then keeps which ones
    were dropped and added, and after how many trials. Raises InputError for other claims otherwise.
    """
    given = {}  # {SHA-256 of what the claim's test depends on, 16 digits: the claim in words}
    for claim in file.claims:
        tested = json.dumps(claim.tested, sort_keys=True)
        given[hashlib.sha256(tested.encode()).hexdigest()[:16]] = claim.says
    trials = optuna_study.get_trials(deepcopy=False)
    bound = optuna_study.user_attrs.get("claims")
    if bound is None or not trials:
        optuna_study.set_user_attr("claims", given)
        if not trials:
            optuna_study.set_user_attr("planned_seeds", file.seeds)
        return
    dropped = [says for digest, says in bound.items() if digest not in given]
    added = [says for digest, says in given.items() if digest not in bound]
    if not dropped and not added:
        return
    if not changed:
        lines = [f"dropped or changed: {quoted(says)}" for says in dropped]
        lines += [f"new or changed: {quoted(says)}" for says in added]
        raise InputError(
            "\n".join(f"study {optuna_study.study_name!r}: claims: {line}" for line in lines)
            + "; claims are bound when the first trial starts. Give --changed-claims to go on (the "
            "report then names the change), --name for a new study, or --fresh to delete this one"
        )
    finished = sum(trial.state is TrialState.COMPLETE for trial in trials)
    changes = optuna_study.user_attrs.get("claim_changes", [])
    change = {"trials": finished, "dropped": dropped, "added": added}
    optuna_study.set_user_attr("claim_changes", [*changes, change])
    optuna_study.set_user_attr("claims", given)


def successor(storage: BaseStorage, bound: Mapping[str, Any], name: str) -> str:
    """Returns the name for a study file that may have changed since a study was stored: `name`, or
    the first of NAME.2, NAME.3 and so on that is not stored, or is bound to the same."""
    stored = optuna.get_all_study_names(storage)
    for candidate in itertools.chain([name], (f"{name}.{n}" for n in itertools.count(2))):
        if candidate not in stored:
            break
        found = optuna.load_study(study_name=candidate, storage=storage).user_attrs.get("binding")
        if found is not None and not differences(found, bound):
            break
    return candidate


def clean_up(optuna_study: optuna.Study) -> None:
    """Fails the trials that a killed run left RUNNING, but for those that have paused; no other run
    writes to the study."""
    for trial in optuna_study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if "paused_at" in trial.user_attrs:
            continue
        handle = Trial(optuna_study, trial._trial_id)
        handle.set_user_attr("fail_reason", KILLED)
        optuna_study.tell(handle, state=TrialState.FAIL)
