"""A search's results as text and tables: trials, finalists, states."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hpo.analysis.hypothesis_tests import prediction_interval
from hpo.analysis.selection import knee
from hpo.analysis.statistics import Estimate, estimate
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import setting_columns
from hpo.report.blocks.table import NOTHING, Column, Entry, Table
from hpo.report.blocks.words import bounded, interval_entry, spelled_estimate
from hpo.results.study import Finalist, StoredSearch, seconds_of
from hpo.results.trial import KILLED, front
from hpo.study.config import Config
from hpo.study.file import OBJECTIVES
from hpo.study.space import Fixed
from hpo.text import limit_text

BEST = 10  # trials shown one by one
COSTS = {"parameters": "{:,.0f}", "train_seconds": "{:.1f}"}  # how second objectives are printed


def network_columns(
    study: StoredSearch, rows: Sequence[Any], of: Callable[[Any], Config]
) -> list[Column]:
    """Returns the columns of networks. of: returns a row's. What the space fixes for all is left
    out."""
    space = study.file.space.items()
    fixed = [name for name, domain in space if isinstance(domain, Fixed) and not domain.when]
    columns = setting_columns(rows, of, lr="{:.3g}", fixed=fixed)
    if study.file.model:
        return [replace(columns[0], header=t("Network")), *columns[2:]]
    return columns


def brief_column(of: Callable[[Any], Config]) -> Column:
    """Returns the terminal's column of networks."""
    return Column("network", "network", lambda row: of(row).brief, wraps=True)


def best_table(study: StoredSearch, most: int = BEST, caption: str = "") -> Table:
    """Returns a row per trial, the best first, with all columns of pages and the terminal."""

    def config(row: Any) -> Config:
        return study.config(int(row.number))

    rows = list(study.ranked.head(most).itertuples())
    columns = [
        Column("trial", t("Trial"), lambda row: int(row.number), short="trial"),
        brief_column(config),
        *network_columns(study, rows, config),
        Column(
            "validation", t("Validation (%)"), lambda row: 100 * row.valid_accuracy, "{:.2f}",
            short="validation (%)",
        ),
        Column("training", t("Training (%)"), lambda row: 100 * row.train_accuracy, "{:.2f}"),
        Column(
            "seconds", t("Seconds"), lambda row: row.train_seconds, "{:.1f}",
            short="seconds", priority=1,
        ),
    ]  # fmt: skip
    return Table(columns=columns, rows=rows, caption=caption)


def states_text(study: StoredSearch) -> str:
    """30 trained to the end, 32 pruned; empty without trials. Trials that do not count as tried are
    named last: 30 trained to the end; besides these, 1 failed or stopped."""
    parts: dict[bool, list[str]] = {True: [], False: []}
    for state, trials in trials_by_state(study).items():
        tried = bool(trials["state"].isin(["COMPLETE", "PRUNED"]).all())
        parts[tried] += [t("{n} {state}", n=len(trials), state=t(state))] if len(trials) else []
    counted, others = (", ".join(parts[key]) for key in (True, False))
    if counted and others:
        return t("{tried}; besides these, {others}", tried=counted, others=others)
    return counted or others


def trials_by_state(study: StoredSearch) -> dict[str, pd.DataFrame]:
    """Returns {state in words: its trials}, with the seconds in a column `spent`."""
    trials = study.trials.assign(spent=_seconds(study.trials, seconds_of(study.sessions)))
    diverged, state = trials["diverged"], trials["state"]
    limited = over_limit(trials)
    return {
        marked("trained to the end"): trials[state == "COMPLETE"],
        marked("pruned"): trials[(state == "PRUNED") & ~limited & ~diverged],
        marked("stopped at the time limit"): trials[(state == "PRUNED") & limited],
        marked("diverged"): trials[(state == "PRUNED") & diverged],
        marked("failed or stopped"): trials[state == "FAIL"],
        marked("running"): trials[state == "RUNNING"],
    }


def over_limit(trials: pd.DataFrame) -> pd.Series:
    """Returns for each trial whether it was stopped at its time limit."""
    return trials["over_limit"].eq(1) if "over_limit" in trials else trials["state"].isna()


def _seconds(trials: pd.DataFrame, longest: float) -> pd.Series:
    """Returns the training time. Without one: from start to end, unless the run was killed, because
    such an end is when the next run found the trial. longest: the seconds of all runs; the clock of
    start and end may be set."""
    ended, started = (
        pd.to_datetime(trials[key], format="ISO8601", utc=True) for key in ("ended", "started")
    )
    by_clock = (ended - started).dt.total_seconds()
    by_clock = by_clock.clip(0.0, longest).where(trials["fail_reason"] != KILLED)
    return trials["train_seconds"].astype(float).fillna(by_clock).fillna(0.0)


def finalists_table(study: StoredSearch, caption: str = "") -> Table:
    """Returns a row per finalist, the winner first, with all columns of pages and the terminal."""
    rows, winner = study.finalists, study.winner

    def rank(row: Finalist) -> Entry:
        text = t("{rank}, the winner", rank=row.rank) if row == winner else str(row.rank)
        return Entry(text, row.rank)

    def name(row: Finalist) -> str:
        return f"{row.number} (the winner)" if row == winner else str(row.number)

    columns = [
        Column("rank", t("Rank"), rank),
        Column("trial", t("Trial"), lambda row: row.number),
        Column("finalist", "trial", name),
        brief_column(lambda row: row.config),
        *network_columns(study, rows, lambda row: row.config),
        *_validation_columns(t("Validation accuracy (%)")),
        accuracy_column("test", t("Test accuracy (%)"), "test_accuracy", short="test (%)"),
    ]
    if study.second:
        header, text = t(OBJECTIVES[study.second]).capitalize(), COSTS[study.second]
        columns.append(Column("cost", header, lambda row: row.cost, text))
    columns.append(Column("seeds", t("Seeds"), lambda row: len(row.runs)))
    return Table(columns=columns, rows=rows, caption=caption)


def _validation_columns(group: str) -> Sequence[Column]:
    def bias(row: Finalist) -> float | None:
        fresh = fresh_estimate(row)
        return 100 * row.selected - fresh.mean if fresh else None

    return [
        Column(
            "selected", t("as selected"), lambda row: 100 * row.selected, "{:.2f}",
            group=group, short="as selected (%)", priority=2,
        ),
        accuracy_column(
            "fresh", t("fresh seeds"), "valid_accuracy",
            group=group, short="fresh seeds (%)", priority=1,
        ),
        Column(
            "bias", t("selection bias"), bias, "{:+.2f}", group=group, short="bias", priority=3
        ),
    ]  # fmt: skip


def accuracy_column(key: str, header: str, metric: str, **more: Any) -> Column:
    """Returns the column of finalists' means over the fresh seeds. more: see Column."""
    return Column(key, header, lambda row: interval_entry(fresh_estimate(row, metric)), **more)


def fresh_estimate(finalist: Finalist, metric: str = "valid_accuracy") -> Estimate | None:
    """Returns the mean of an accuracy over the fresh seeds, in percent; None without any."""
    values = 100 * finalist.runs[metric].dropna().to_numpy()
    return estimate(values) if len(values) else None


def finalists_frame(study: StoredSearch) -> pd.DataFrame:
    """Returns finalists.csv: a row per finalist and fresh seed."""
    columns = ["rank", "number", "seed", "valid_accuracy", "test_loss", "test_accuracy"]
    parts = [pd.DataFrame(columns=columns)]
    for finalist in study.finalists:
        runs = finalist.runs.assign(rank=finalist.rank, number=finalist.number)
        parts.append(runs[columns].astype({"seed": int}))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def winner_sentence(study: StoredSearch) -> str:
    """Names the winner and its test accuracy, or the state of the finalists; with two objectives,
    the ends and the knee of the finalists' front."""
    if study.tested is None:
        return t("The finalists are not trained yet.")
    if study.winner is None:
        done = sum(len(finalist.runs) for finalist in study.finalists)
        text = marked("The finalists are not finished: {done} of {planned} trainings are done.")
        return t(text, done=done, planned=len(study.finalists) * study.file.finalist_seeds)
    if study.second and len(along := _finalists_front(study, len(study.winner.runs))) > 1:
        return _front_sentence(study.second, along)
    estimate = fresh_estimate(study.winner, "test_accuracy")
    text = marked("The winner is {network} (trial {number}): test accuracy {accuracy}.")
    if estimate is None:
        text = marked("The winner is {network} (trial {number}); it is not tested.")
    network, number = study.winner.config.brief, study.winner.number
    accuracy = spelled_estimate(estimate) if estimate else ""
    return t(text, network=network, number=number, accuracy=accuracy)


def _finalists_front(study: StoredSearch, seeds: int) -> list[Finalist]:
    """Returns the finalists of so many seeds that no other one beats in both objectives, by
    validation over fresh seeds; the most accurate first."""
    known = [row for row in study.finalists if len(row.runs) == seeds]
    points = [(row.runs["valid_accuracy"].mean(), row.cost) for row in known]
    return [known[place] for place in front(points)]


def _front_sentence(second: str, along: Sequence[Finalist]) -> str:
    """Names the ends and the knee of the finalists' front."""
    cost = t(OBJECTIVES[second])

    def spelled(row: Finalist) -> str:
        test, value = fresh_estimate(row, "test_accuracy"), COSTS[second].format(row.cost)
        text = marked("{network} (trial {number}; {cost}: {value}; test accuracy {accuracy})")
        known = {"network": row.config.brief, "number": row.number, "cost": cost, "value": value}
        return t(text, accuracy=spelled_estimate(test) if test else NOTHING, **known)

    place = knee([(row.runs["valid_accuracy"].mean(), row.cost) for row in along])
    text = marked("The front of accuracy and {cost} goes from {best} to {least}.")
    ends = t(text, cost=cost, best=spelled(along[0]), least=spelled(along[-1]))
    if place is None:
        return ends
    text = marked("{ends} Its knee, beyond which accuracy costs most, is {knee}.")
    return t(text, ends=ends, knee=spelled(along[place]))


def other_search_sentence(study: StoredSearch) -> str:
    """Says how far another search may end from this one: the spread of repeated searches, or that
    it is not known; empty without a winner."""
    tests = [fresh_estimate(winner, "test_accuracy") for winner in study.winners]
    means = np.array([test.mean for test in tests if test])
    if not means.size:
        return ""
    if means.size == 1:
        return t(
            "Intervals cover other seeds of a network. Another search, with another sampler seed, "
            "may end with another network and differ by more; --repeats 3 shows by how much."
        )
    ends = {"n": means.size, "low": means.min(), "high": means.max()}
    if means.size < 3:
        text = marked("{n} searches with other sampler seeds ended at {low:.2f} to {high:.2f}%.")
        return t(text, **ends)
    interval = prediction_interval(means)
    text = marked(
        "{n} searches with other sampler seeds ended at {low:.2f} to {high:.2f}% (mean "
        "{mean:.2f}%, sd {sd:.2f} points); one more search is expected between {least:.2f} and "
        "{most:.2f}% (95%)."
    )
    least, most = map(bounded, interval)
    return t(text, mean=means.mean(), sd=means.std(ddof=1), least=least, most=most, **ends)


def unfinished(study: StoredSearch) -> str:
    """Says why there are fewer trials than the budget; empty if there are enough."""
    done = len(study.ended)
    if done >= study.n_trials:
        return ""
    if done >= study.planned:
        text = marked(
            "The search ended after {n} trials: all {n} configurations of the space have been "
            "tried."
        )
        return t(text, n=done)
    budget = {"done": done, "planned": study.planned}
    if study.settled and (rule := study.file.stop_after):
        text = marked(
            "The search ended after {done} trials because the last {n} were no better than the "
            "best before them by more than {without:g} points (stop_after)."
        )
        return t(text, n=rule.trials, without=100 * rule.without, **budget)
    if study.timeout is not None and seconds_of(study.sessions) >= study.timeout:
        text = marked(
            "Its time limit of {time} ended the search, after {done} of {planned} trials."
        )
        return t(text, time=limit_text(study.timeout), **budget)
    text = marked("The search is not finished: {done} of {planned} trials are done.")
    if study.gave_up:
        text = marked(
            "The search is not finished: {done} of {planned} trials are done; it gave up because "
            "too many trials failed in a row."
        )
    return t(text, **budget)
