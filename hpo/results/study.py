"""A stored study as tables: a row per trial, and a row per trial and epoch."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from hpo.data.datasets import schema_of
from hpo.data.schema import Schema
from hpo.language import marked, t
from hpo.results import trial as record
from hpo.results.trial import RETRIED, RIGHT
from hpo.study import finalists
from hpo.study.config import Config
from hpo.study.file import Cell, GridStudy, Reported, SearchStudy
from hpo.study.metrics import ACCURACY, BY_NAME, TEMPERATURES, Metric, largest_share, unpacked
from hpo.study.names import DATASETS, label
from hpo.study.space import size
from hpo.text import printable


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredStudy:
    """A study as stored.

    file: its study file.
    data: see data.datasets.describe.
    frozen: the trials as Optuna has them.
    trials: a row per trial, as in trials.csv.
    curves: a row per trial and epoch, as in curves.csv.
    progress: see runs.progress.Progress.
    code: {path: text} of the modules of the user's own network.
    token: of this very study; another one of its name has another, and studies of earlier versions
    may have none.
    id: in its storage, which the dashboard's addresses have.
    """

    name: str
    id: int
    file: GridStudy | SearchStudy
    data: dict[str, Any]
    sessions: list[dict[str, Any]] = field(default_factory=list)
    frozen: Sequence[FrozenTrial]
    trials: pd.DataFrame
    curves: pd.DataFrame
    progress: dict[str, Any] | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None

    @property
    def metric(self) -> Metric:
        """Returns the objective."""
        return self.file.metric

    @cached_property
    def schema(self) -> Schema:
        return schema_of(self.data)

    @cached_property
    def finished(self) -> pd.DataFrame:
        return self.trials[self.trials["state"] == "COMPLETE"]

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """Returns the sound trials, the best first: COMPLETE and not diverged."""
        numbers = [trial.number for trial in record.ranked(self.frozen, self.metric)]
        return self.trials.set_index(self.trials["number"].to_numpy()).loc[numbers]

    @property
    def stopped(self) -> pd.Series:
        """Returns for each trial whether the end of a run stopped it; the next run trains it
        again. Others in the state FAIL have failed."""
        return (self.trials["state"] == "FAIL") & self.trials["fail_reason"].isin(RETRIED)

    @property
    def paused(self) -> pd.Series:
        """Returns for each trial whether it waits to go on."""
        numbers = {t.number for t in self.frozen if "paused_at" in t.user_attrs}
        return (self.trials["state"] == "RUNNING") & self.trials["number"].isin(numbers)

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
    def asked_name(self) -> str:
        """Returns the name of the data that the study file asks for."""
        return printable(t(self.file.dataset.title))

    @property
    def classes(self) -> list[str]:
        return list(self.schema.classes)

    @property
    def regression(self) -> bool:
        """Whether networks predict a number, and no class."""
        return self.schema.target is not None

    @property
    def pictures(self) -> bool:
        """Whether the data are pictures, grey or coloured."""
        return len(self.schema.shape) > 1

    def named(self, name: str) -> Metric:
        """Returns the metric of this name; in the target's unit if it is one of these."""
        return BY_NAME[name].of(self.schema.deviation)

    @property
    def things(self) -> str:
        """Returns what the examples are called, for t(): images, or rows of a table."""
        return marked("images") if self.pictures else marked("rows")

    @property
    def largest_class(self) -> float:
        """Returns the largest class's share of the test labels."""
        return largest_share(self.data)

    def picture(self, pixels: str) -> NDArray[np.uint8]:
        """Returns the pixels that data.datasets.as_bytes wrote, (height, width) or with colours."""
        values = np.frombuffer(base64.b64decode(pixels), np.uint8)
        return values.reshape(self.schema.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredGrid(StoredStudy):
    """A stored grid.

    seeds: how many seeds each cell has at least when the grid is complete.
    planned_seeds: how many the study file gave before the first trial; None of earlier versions.
    timings: training times in seconds by cell, a dictionary per round, each cell alone on the
    machine.
    until_resolved: how the rounds of `--until-resolved` ended, None without.
    claim_changes: see runs.study.
    images: {index: label and pixels} of test images that a figure shows.
    """

    file: GridStudy
    seeds: int
    planned_seeds: int | None = None
    timings: list[dict[str, float]] = field(default_factory=list)
    until_resolved: dict[str, Any] | None = None
    claim_changes: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def parts(self) -> "Sequence[StoredGrid | StoredSearch]":
        """Returns the studies that a report of this one covers."""
        return [self]

    @property
    def times(self) -> pd.DataFrame:
        """Returns the timings, a row per round and cell, as in times.csv."""
        rows = [(n, *pair) for n, times in enumerate(self.timings, 1) for pair in times.items()]
        return pd.DataFrame(rows, columns=["round", "cell", "seconds"])

    @property
    def compared(self) -> Metric:
        """Returns the metric of the validation by which the report compares networks: accuracy; of
        a regression, which has none, the objective."""
        return self.metric if self.regression else BY_NAME[ACCURACY]

    @property
    def result(self) -> Metric:
        """Returns the metric of the test by which the report compares networks."""
        return self.compared.tested

    @property
    def figures(self) -> Sequence[str]:
        """Returns the names of the results that tables show."""
        return self.file.figures(self.classes)

    @property
    def line(self) -> float:
        """Returns the value of `result` from which on a network has learned something."""
        return self.result.learned(self.data)

    @property
    def floor(self) -> float:
        """Returns the least gain of `result` that figures show: 0 of accuracy, for which nothing is
        worse; of numbers that of a guess, or one diverged run would set a figure's scale."""
        result = self.result
        return float(result.gain(result.guess(self.data) if self.regression else result.worst))

    def results(self, cell: Cell) -> pd.Series:
        """Returns the gains of `result` of the cell's finished trials, indexed by seed; one below
        `floor` counts as that."""
        return self.gains(cell, self.result).clip(lower=self.floor)

    def cell(self, name: str | None) -> Cell:
        """Returns the cell of that name."""
        return next(cell for cell in self.file.cells if cell.name == name)

    def reported(self, cell: Cell) -> tuple[Reported, ...]:
        """Returns what was published of the cell; nothing if the study is of other data."""
        return cell.reported if self.data["name"] == self.file.dataset.short else ()

    @cached_property
    def published(self) -> bool:
        """Whether anything was published of a cell."""
        return any(self.reported(cell) for cell in self.file.cells)

    def of(self, cell: Cell) -> pd.DataFrame:
        """Returns the cell's finished trials, one row per seed, sorted by seed."""
        rows = self._by_cell.get(cell.name)
        return self.finished.iloc[:0] if rows is None else rows

    def by_seed(self, cell: Cell) -> pd.DataFrame:
        """Returns the cell's finished trials, indexed by seed."""
        return self.once(("by_seed", cell.name), lambda: self.of(cell).set_index("seed"))

    def settled(self, cell: Cell) -> pd.DataFrame:
        """Returns the cell's finished trials of the seeds before the first one whose trial has not
        ended, sorted by seed: which seeds count does not depend on which trainings are fast."""
        end = next(s for s in count(self.file.first) if (cell.name, s) not in self.ended_seeds)
        rows = self.of(cell)
        return rows[rows["seed"] < end]

    @cached_property
    def ended_seeds(self) -> set[tuple[str, int]]:
        """Returns the (cell, seed) pairs whose trial is COMPLETE, or FAILed for good: the next run
        would train the others."""
        trials = self.trials
        ended = trials["state"].isin(["COMPLETE", "FAIL"]) & ~trials["fail_reason"].isin(RETRIED)
        return set(zip(trials["cell"][ended], trials["seed"][ended], strict=True))

    def values(self, cell: Cell, metric: str = "") -> pd.Series:
        """Returns the values of a metric, of `result` without one, of the cell's finished trials,
        indexed by seed."""
        return self.by_seed(cell)[metric or self.result.name]

    def gains(self, cell: Cell, metric: Metric) -> pd.Series:
        """Returns the gains of a metric of the cell's finished trials, indexed by seed; a trial
        that diverged, without a value, has the worst one."""
        rows = self.by_seed(cell)
        lost = rows[metric.name].isna() & rows["diverged"].astype(bool)
        return metric.gain(rows[metric.name].mask(lost, metric.worst)).dropna()

    def failing(self, cell: Cell, below: float | None = None) -> pd.Series:
        """Returns for each finished trial of the cell whether it failed to learn, by seed: True
        where it diverged, or where its `result` is not as good as `below`; None: where the
        objective in the test says that it learned nothing."""
        rows, metric = self.by_seed(cell), self.metric.tested if below is None else self.result
        least = metric.gain(metric.learned(self.data) if below is None else below)
        return self.once(
            ("failing", cell.name, metric.name, least),
            lambda: (metric.gain(rows[metric.name]) < least) | rows["diverged"].astype(bool),
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
        bits = np.array([unpacked(each[part], self.data[part]) for each in stored])
        return pd.DataFrame(bits, index=rows["seed"].astype(int))

    def fails(self, cell: Cell) -> bool:
        """Whether any trial of the cell failed to learn."""
        return bool(self.failing(cell).any())

    def paired(self, a: Cell, b: Cell) -> tuple[pd.Series, pd.Series]:
        """Returns the results of two cells at the seeds that both have."""
        ours, theirs = self.results(a), self.results(b)
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
    gave_up: whether too many trials failed in a row.
    settled: whether stop_after ended it.
    sampler_seed: None of earlier versions.
    like: the search whose trials the sampler knew from the start, how many of them fit the space,
    and how many there were.
    ensemble: of which trial's configuration, of how many members, and its test accuracy.
    tested: the finalists' grid, its cells in the order of their rank, the reference behind them;
    None before they start.
    random: a search of the same space and data by the random sampler, if one is stored.
    binding: see study.binding.
    repeats: stored searches that differ only in the sampler's seed and have a winner.
    """

    file: SearchStudy
    n_trials: int
    timeout: float | None = None
    gave_up: bool = False
    settled: bool = False
    sampler_seed: int | None = None
    like: dict[str, Any] | None = None
    ensemble: dict[str, Any] | None = None
    tested: StoredGrid | None
    random: "StoredSearch | None"
    binding: Mapping[str, Any] = field(default_factory=dict)
    repeats: "Sequence[StoredSearch]" = ()

    @cached_property
    def finalists(self) -> "Sequence[Finalist]":
        """Returns the trials that were trained again, the best first; empty before they start."""
        cells = self.tested.file.cells if self.tested else ()
        chosen = [cell for cell in cells if cell.name != finalists.REFERENCE]
        return [
            Finalist(rank=rank, number=finalists.trial_number(cell.name), cell=cell, search=self)
            for rank, cell in enumerate(chosen, 1)
        ]

    @cached_property
    def reference(self) -> Cell | None:
        """Returns the network that tuning is measured by, see study.finalists.reference_cell."""
        cells = self.tested.file.cells if self.tested else ()
        return finalists.reference_cell(cells, self.file)

    @cached_property
    def winner(self) -> "Finalist | None":
        """Returns the first finalist; None while one has a seed that the next run would train."""
        if self.tested is None or self.tested.finished.empty:
            return None
        there = self.tested.ended_seeds
        needed = product(self.finalists, finalists.fresh_seeds(self.file))
        trained = all((finalist.cell.name, seed) in there for finalist, seed in needed)
        return self.finalists[0] if trained else None

    @property
    def winners(self) -> "Sequence[Finalist]":
        """Returns the winners of this search and of its repeats."""
        return [search.winner for search in (self, *self.repeats) if search.winner]

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
        return self.file.second

    @property
    def planned(self) -> float:
        """Returns how many trials the search will have: a finite space may have fewer than
        n_trials."""
        return min(self.n_trials, size(self.file.space))

    def config(self, number: int) -> Config:
        """Returns the configuration of a trial."""
        return finalists.config_of(self.frozen[number], self.file)


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A trial of a search that was trained again on fresh seeds.

    rank: 1 for the best mean of the objective on these seeds. number: the trial's. cell: of the
    finalists' grid.
    """

    rank: int
    number: int
    cell: Cell
    search: StoredSearch = field(repr=False, compare=False)

    @property
    def config(self) -> Config:
        return self.cell.config

    @property
    def runs(self) -> pd.DataFrame:
        """Returns the finished trainings on fresh seeds, one row per seed, sorted by seed."""
        assert self.search.tested
        return self.search.tested.of(self.cell)

    @property
    def cut(self) -> int:
        """Returns the epoch after which the winner's training on all images ends, where no
        validation can end it: the median over these runs of the epoch that counts, rounded up; 0
        where that is always the last one."""
        return math.ceil(self.runs["epoch"].median()) if self.config.validated else 0

    @property
    def calibration(self) -> dict[str, NDArray[np.float64]]:
        """Returns loss and error of each fresh seed's network on its validation rows, with its
        logits divided by each of TEMPERATURES: (seeds, temperatures). Without rows of a regression,
        and of earlier versions."""
        assert self.search.tested
        by_number = {trial.number: trial.user_attrs for trial in self.search.tested.frozen}
        stored = [by_number[int(number)].get("calibration") for number in self.runs["number"]]
        width = len(TEMPERATURES)
        return {
            key: np.array([each[key] for each in stored if each]).reshape(-1, width)
            for key in ("loss", "error")
        }

    @property
    def temperature(self) -> float | None:
        """Returns what the winner's logits are divided by for their probabilities: the best for the
        validation rows of all fresh seeds; None if nothing is known."""
        losses = self.calibration["loss"]
        return TEMPERATURES[int(losses.mean(0).argmin())] if len(losses) else None

    @property
    def selected(self) -> float:
        """Returns the value of the objective by which the search selected the trial."""
        trials = self.search.trials
        return float(trials.loc[trials["number"] == self.number, self.search.metric.name].iloc[0])

    def gains(self, metric: Metric) -> pd.Series:
        """Returns the gains of a metric on the fresh seeds, indexed by seed."""
        assert self.search.tested
        return self.search.tested.gains(self.cell, metric)

    @property
    def cost(self) -> float:
        """Returns the second objective as the search measured it; NaN without one."""
        values = self.search.frozen[self.number].values
        return float(values[1]) if values and len(values) > 1 else math.nan


def seconds_of(sessions: Sequence[Mapping[str, Any]]) -> float:
    """Returns the seconds of these runs of a study. A run that goes on or was killed has those up
    to its last count. Earlier versions counted none for it, and by a clock that can be set back."""
    return float(sum(max(s.get("seconds", s.get("counted", 0.0)), 0.0) for s in sessions))
