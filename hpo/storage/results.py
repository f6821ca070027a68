"""A stored study as tables: a row per trial, and a row per trial and epoch."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from hpo.data.datasets import schema_of
from hpo.data.schema import Schema
from hpo.errors import InputError
from hpo.language import marked, t
from hpo.storage import trial as record
from hpo.storage.attributes import REMEDY, check_study, check_trials
from hpo.storage.bulk_read import all_trials, unreadable
from hpo.storage.open import reason_of
from hpo.storage.trial import AGAIN, RIGHT
from hpo.study import finalists
from hpo.study.binding import differences
from hpo.study.columns import METRICS, PARAMS, SOME_COLUMNS, TRIAL_COLUMNS
from hpo.study.config import LATER, Config
from hpo.study.file import FIGURES, Cell, GridStudy, SearchStudy, parse
from hpo.study.metrics import fails_below, unpacked
from hpo.study.names import DATASETS, label
from hpo.study.space import Domain, completed, size
from hpo.text import error_line, printable

FURTHER = (*LATER, *SOME_COLUMNS)  # columns of studies that have them
IMAGES = "images"  # system attribute of a grid: {index: label and pixels of a test image}
CODE = "code"  # system attribute of a study: {path: text} of the user's own network


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredStudy:
    """A study as stored. data: see data.datasets.describe. code: the modules of the user's own
    network. trials: a row per trial; curves: a row per trial and epoch, as in trials.csv and
    curves.csv; frozen: the trials as Optuna has them. token: of this very study; another one of its
    name has another, and studies of earlier versions may have none."""

    name: str
    data: dict[str, Any]
    sessions: list[dict[str, Any]] = field(default_factory=list)
    frozen: Sequence[FrozenTrial]
    trials: pd.DataFrame
    curves: pd.DataFrame
    progress: dict[str, Any] | None = None  # see runs.progress.Progress
    code: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None

    @cached_property
    def schema(self) -> Schema:
        return schema_of(self.data)

    @cached_property
    def finished(self) -> pd.DataFrame:
        return self.trials[self.trials["state"] == "COMPLETE"]

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """Returns the sound trials, the best first: COMPLETE and not diverged."""
        numbers = [trial.number for trial in record.ranked(self.frozen)]
        return self.trials.set_index(self.trials["number"].to_numpy()).loc[numbers]

    @property
    def no_result(self) -> str:
        """Says why there is no result; empty if there is a sound trial."""
        if len(self.ranked):
            return ""
        if self.trials["diverged"].any():
            return "every finished trial diverged; give smaller learning rates in the study file"
        return "no trial has finished"

    @property
    def data_name(self) -> str:
        return printable(t(label(DATASETS, self.data["name"])))

    @property
    def classes(self) -> list[str]:
        return list(self.schema.classes)

    @property
    def pictures(self) -> bool:
        """Whether the data are pictures, grey or coloured."""
        return len(self.schema.shape) > 1

    @property
    def things(self) -> str:
        """Returns what the examples are called, for t(): images, or rows of a table."""
        return marked("images") if self.pictures else marked("rows")

    @property
    def fails_below(self) -> float:
        """Returns the accuracy below which a network has learned nothing."""
        return fails_below(float(self.data.get("chance", 0.1)))

    def picture(self, pixels: str) -> NDArray[np.uint8]:
        """Returns the pixels that data.datasets.as_bytes wrote, (height, width) or with colours."""
        values = np.frombuffer(base64.b64decode(pixels), np.uint8)
        return values.reshape(self.schema.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredGrid(StoredStudy):
    """A stored grid.

    seeds: how many seeds each cell has at least when the grid is complete. timings: training times
    in seconds by cell, a dictionary per round, each cell alone on the machine. until_resolved: how
    the rounds of `--until-resolved` ended, None without. claim_changes: see runs.study. images:
    {index: label and pixels} of test images that a figure shows. ensemble: of a search's finalists,
    how many networks, and the test accuracy of their mean probabilities.
    """

    file: GridStudy
    seeds: int
    timings: list[dict[str, float]] = field(default_factory=list)
    until_resolved: dict[str, Any] | None = None
    claim_changes: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    ensemble: dict[str, Any] | None = None

    @property
    def parts(self) -> "Sequence[StoredGrid | StoredSearch]":
        """Returns the studies that a report of this one covers."""
        return [self]

    def cell(self, name: str | None) -> Cell:
        """Returns the cell of that name."""
        return next(cell for cell in self.file.cells if cell.name == name)

    def of(self, cell: Cell) -> pd.DataFrame:
        """Returns the cell's finished trials, one row per seed, sorted by seed."""
        rows = self._by_cell.get(cell.name)
        return self.finished.iloc[:0] if rows is None else rows

    def by_seed(self, cell: Cell) -> pd.DataFrame:
        """Returns the cell's finished trials, indexed by seed."""
        return self.once(("by_seed", cell.name), lambda: self.of(cell).set_index("seed"))

    def values(self, cell: Cell, metric: str = "test_accuracy") -> pd.Series:
        """Returns a metric of the cell's finished trials, indexed by seed."""
        return self.by_seed(cell)[metric]

    def failing(self, cell: Cell, below: float | None = None) -> pd.Series:
        """Returns for each finished trial of the cell whether it failed to learn, by seed: True
        where it diverged or its test accuracy stayed below this share; None: fails_below."""
        rows, least = self.by_seed(cell), self.fails_below if below is None else below
        return self.once(
            ("failing", cell.name, least),
            lambda: (rows["test_accuracy"] < least) | rows["diverged"].astype(bool),
        )

    def right(self, cell: Cell, part: str = "test") -> pd.DataFrame:
        """Returns which images each seed's network gets right, (seeds, images) of bool, a row per
        seed. part: test, the same images in each row; or valid, a seed's own split. Empty if any
        finished trial stored none."""
        return self.once(("right", cell.name, part), lambda: self._unpacked(cell, part))

    def _unpacked(self, cell: Cell, part: str) -> pd.DataFrame:
        rows, by_number = self.of(cell), {trial.number: trial for trial in self.frozen}
        stored = [by_number[int(n)].system_attrs.get(RIGHT, {}) for n in rows["number"]]
        if not stored or not all(stored):
            return pd.DataFrame()
        images = np.array([unpacked(of[part], self.data[part]) for of in stored])
        return pd.DataFrame(images, index=rows["seed"].astype(int))

    def fails(self, cell: Cell) -> bool:
        """Whether any trial of the cell failed to learn."""
        return bool(self.failing(cell).any())

    def paired(
        self, a: Cell, b: Cell, metric: str = "test_accuracy"
    ) -> tuple[pd.Series, pd.Series]:
        """Returns a metric of two cells at the seeds that both have."""
        ours, theirs = self.values(a, metric), self.values(b, metric)
        common = ours.index.intersection(theirs.index)
        return ours[common], theirs[common]

    def once(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Returns what `compute` returned at its first call; a report asks for it often."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    @cached_property
    def _computed(self) -> dict[tuple[Any, ...], Any]:
        return {}

    @cached_property
    def _by_cell(self) -> dict[str, pd.DataFrame]:
        rows = self.finished.drop_duplicates(["cell", "seed"]).sort_values("seed")
        return {str(name): group for name, group in rows.groupby("cell", sort=False)}


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSearch(StoredStudy):
    """A stored search.

    n_trials and timeout: its budget in trials and in seconds of all its runs (None: no limit).
    settled: whether stop_after ended it. sampler_seed: None of earlier versions. like: the search
    whose trials the sampler knew from the start, how many of them fit the space, and how many there
    were. tested: the finalists' grid, its cells in the order of their rank, None before they start.
    winner: the first of them, None until all finalists are trained. random: a search of the same
    space and data by the random sampler, if one is stored. repeats: stored searches that differ
    only in the sampler's seed and have a winner. binding: see study.binding.
    """

    file: SearchStudy
    n_trials: int
    timeout: float | None = None
    gave_up: bool = False
    settled: bool = False
    sampler_seed: int | None = None
    like: dict[str, Any] | None = None
    tested: StoredGrid | None
    winner: Cell | None
    random: "StoredSearch | None"
    binding: Mapping[str, Any] = field(default_factory=dict)
    repeats: "Sequence[StoredSearch]" = ()

    @property
    def bound_to(self) -> dict[str, str]:
        """Returns what ties a saved winner to this study: its token, and the digest of the code of
        the user's own network."""
        tied = {"token": self.token, "code": self.binding.get("model code")}
        return {key: value for key, value in tied.items() if value is not None}

    @property
    def parts(self) -> "Sequence[StoredGrid | StoredSearch]":
        """Returns the search, and its finalists once there are some."""
        return [self] if self.tested is None else [self, self.tested]

    @property
    def ended(self) -> pd.DataFrame:
        """Returns the COMPLETE and PRUNED trials in the order in which they ended."""
        counted = self.trials["state"].isin(["COMPLETE", "PRUNED"])
        by_time = partial(pd.to_datetime, format="ISO8601", utc=True)  # the offset may change
        rows = self.trials[counted].sort_values("ended", key=by_time)
        if "run_seconds" in rows:  # of a clock that cannot be set; earlier versions had none
            first = rows["run_seconds"].astype(float).fillna(0.0)
            rows = rows.iloc[first.argsort(kind="stable")]
        return rows

    @property
    def second(self) -> str | None:
        """Returns the second objective; None without one."""
        return self.file.objectives[1] if len(self.file.objectives) > 1 else None

    @property
    def planned(self) -> float:
        """Returns how many trials the search will have: a finite space may have fewer than
        n_trials."""
        return min(self.n_trials, size(self.file.space))

    def config(self, number: int) -> Config:
        """Returns the configuration of a trial."""
        return finalists.config_of(self.frozen[number], self.file)


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
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        known = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise InputError(f"study {name!r}: is not in the storage; there are: {known}") from error
    attributes = study.user_attrs
    if "study_file" not in attributes:
        raise InputError(f"study {name!r}: was not made by hpo")
    system = storage.get_study_system_attrs(study._study_id)
    check_study(name, attributes, system)
    file = parse(attributes["study_file"], name, f"stored study {name}")
    kind: Any = StoredGrid if isinstance(file, GridStudy) else StoredSearch
    if ("seeds" if kind is StoredGrid else "n_trials") not in attributes:
        raise InputError(f"study {name!r}: was created but not run yet; `hpo run` starts it")
    try:
        trials = all_trials(study, storage)
    except json.JSONDecodeError:  # of an attribute, see load_study
        raise
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"study {name!r}: its trials cannot be read ({error_line(error)}); {REMEDY}"
        ) from error
    needed = ("cell", "seed", "curve") if kind is StoredGrid else ("curve",)
    check_trials(name, trials, attributes["data"], needed)
    facts = {f.name: attributes[f.name] for f in fields(kind) if f.name in attributes}
    facts |= {"name": name, "file": file, "code": system.get(CODE, {})}
    if isinstance(file, SearchStudy):
        trials = [record.by_rule(trial) for trial in trials]
        facts |= _of_search(storage, study, file, alone)
        facts["trials"] = _trials_frame(trials, file.space)
    else:
        facts |= {"trials": _trials_frame(trials), "images": system.get(IMAGES, {})}
    found: StoredGrid | StoredSearch = kind(
        **{**facts, "frozen": trials, "curves": _curves_frame(trials)}
    )
    return found


def _of_search(
    storage: BaseStorage, study: optuna.Study, file: SearchStudy, alone: bool
) -> dict[str, Any]:
    bound = study.user_attrs["binding"]
    file = replace(file, sampler=bound["sampler"], pruner=bound["pruner"])
    tested, random = _finalists(storage, study, file), None
    if not alone and bound["sampler"] != "random":
        random = next(_alike(storage, {**bound, "sampler": "random"}), None)
    return {
        "file": file,
        "tested": tested,
        "winner": _winner(tested, file) if tested else None,
        "random": random,
        "repeats": () if alone else _repeats(storage, study, file),
    }


def seconds_of(sessions: Sequence[Mapping[str, Any]]) -> float:
    """Returns the seconds of these runs of a study. A run that goes on or was killed has those up
    to its last count. Earlier versions counted none for it, and by a clock that can be set back."""
    return float(sum(max(s.get("seconds", s.get("counted", 0.0)), 0.0) for s in sessions))


def _winner(tested: StoredGrid, file: SearchStudy) -> Cell | None:
    """Returns the winner; None while a finalist has a seed that the next run would train."""
    seeds = finalists.fresh_seeds(file)
    settled = tested.trials[~tested.trials["fail_reason"].isin(AGAIN)]
    settled = settled[settled["state"].isin(["COMPLETE", "FAIL"])]
    there = set(zip(settled["cell"], settled["seed"], strict=True))
    if any((cell.name, seed) not in there for cell in tested.file.cells for seed in seeds):
        return None
    return tested.file.cells[0] if len(tested.finished) else None


def _finalists(storage: BaseStorage, study: optuna.Study, file: SearchStudy) -> StoredGrid | None:
    """Returns the finalists' grid, its cells in the order of their rank; None before they start."""
    name = finalists.name_of(study.study_name)
    if name not in optuna.get_all_study_names(storage):
        return None
    begun = optuna.load_study(study_name=name, storage=storage)
    if "study_file" in begun.user_attrs:
        check_study(name, begun.user_attrs, {})
    if not finalists.belong(begun, study) or "seeds" not in begun.user_attrs:
        return None
    grid = load_study(storage, name)
    assert isinstance(grid, StoredGrid)
    cells = finalists.ranked(grid.finished, grid.file.cells, finalists.fresh_seeds(file))
    return replace(grid, file=replace(grid.file, cells=tuple(cells)))


REPEATED = ("n_trials", "timeout")  # attributes that are the same in a repeated search


def _repeats(storage: BaseStorage, study: optuna.Study, file: SearchStudy) -> list[StoredSearch]:
    """Returns other stored searches that differ only in the sampler's seed and have a winner, one
    for each seed."""
    ours, asked = study.user_attrs, (file.finalists, file.finalist_seeds)

    def repeats(theirs: Mapping[str, Any]) -> bool:
        seed = theirs.get("sampler_seed")
        same = all(theirs.get(key) == ours.get(key) for key in REPEATED)
        return same and seed not in (None, ours.get("sampler_seed", seed))

    found: dict[Any, StoredSearch] = {}
    for search in _alike(storage, ours["binding"], repeats):
        if search.winner and (search.file.finalists, search.file.finalist_seeds) == asked:
            found.setdefault(search.sampler_seed, search)
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
    trials: Sequence[FrozenTrial], space: Mapping[str, Domain] | None = None
) -> pd.DataFrame:
    """space: of a search, whose fixed values are no parameters of its trials."""
    rows = []
    for trial in trials:
        last = record.last_epoch(trial.user_attrs.get("curve", {}), sound=space is not None)
        times = {"started": _iso(trial.datetime_start), "ended": _iso(trial.datetime_complete)}
        params = trial.params if space is None else completed(space, trial.params)
        known = {**params, **trial.user_attrs, **last, **times}
        known |= {"number": trial.number, "state": trial.state.name, PARAMS: params}
        rows.append(known)
    frame = pd.DataFrame(rows)
    own = sorted({name for row in rows for name in row[PARAMS]} - {*TRIAL_COLUMNS, *FURTHER})
    further = [name for name in (*FURTHER, *own) if name in frame]
    frame = frame.reindex(columns=[*TRIAL_COLUMNS, *further])
    frame["diverged"] = frame["diverged"].eq(True)
    numeric = [*METRICS, *FIGURES]
    frame[numeric] = frame[numeric].astype(float)
    return frame


def _iso(time: datetime | None) -> str | None:
    """Returns the time with the zone's offset; Optuna gives local time without it."""
    return time.astimezone().isoformat() if time else None


def _curves_frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    rows = []
    for trial in trials:
        attributes = trial.user_attrs
        curve = attributes.get("curve")
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not curve:
            continue
        for epoch, values in enumerate(zip(*(curve[m] for m in METRICS), strict=True), 1):
            key = (trial.number, attributes.get("cell"), attributes.get("seed"), epoch)
            rows.append((*key, *values))
    frame = pd.DataFrame(rows, columns=["number", "cell", "seed", "epoch", *METRICS])
    frame[list(METRICS)] = frame[list(METRICS)].astype(float)
    return frame
