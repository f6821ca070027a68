"""A search's results as text and tables: trials, finalists, states."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hpo.analysis.compare import over_reference
from hpo.analysis.evidence import Evidence
from hpo.analysis.hypothesis_tests import prediction_interval
from hpo.analysis.selection import knee
from hpo.analysis.statistics import Estimate, estimate, guess_line
from hpo.language import marked, nt, printed, t
from hpo.report.blocks.grid_tables import setting_columns
from hpo.report.blocks.table import NOTHING, Column, Entry, Table
from hpo.report.blocks.words import guess_text, interval_entry, spelled_estimate
from hpo.results.study import Finalist, StoredSearch, seconds_of
from hpo.results.trial import KILLED, front
from hpo.study.config import Config
from hpo.study.file import COSTS, SECOND
from hpo.study.metrics import ACCURACY, BY_NAME, Metric, uncapital
from hpo.study.space import Fixed
from hpo.text import limit_text

BEST = 10  # trials shown one by one


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

    def value(row: Any) -> float | Entry:
        found = over_folds(study, int(row.number))
        known = metric.scale * float(getattr(row, metric.name))
        return interval_entry(found, metric) if found else known

    metric, name = study.metric, "train_loss" if study.regression else "train_accuracy"
    training = BY_NAME[name]
    rows = list(study.ranked.head(most).itertuples())
    columns = [
        Column("trial", t("Trial"), lambda row: int(row.number), short="trial"),
        brief_column(config),
        *network_columns(study, rows, config),
        Column(
            "validation", metric.header, value, f"{{:.{metric.digits}f}}",
            short=uncapital(metric.header),
        ),
        *_cost_column(study, lambda row: study.frozen[int(row.number)].values[1]),
        Column(
            "training", training.header, lambda row: training.scale * getattr(row, name),
            f"{{:.{training.digits}f}}",
        ),
        Column(
            "seconds", t("Seconds"), lambda row: row.train_seconds, "{:.1f}",
            short="seconds", priority=2,
        ),
    ]  # fmt: skip
    return Table(columns=columns, rows=rows, caption=caption)


def _cost_column(study: StoredSearch, value: Callable[[Any], float]) -> Sequence[Column]:
    """Returns the column of the second objective; none without one. value: of a row."""
    if not study.second:
        return []
    words = t(SECOND[study.second])
    text = COSTS[study.second]
    return [Column("cost", words.capitalize(), value, text, short=words, priority=1)]


def over_folds(study: StoredSearch, number: int) -> Estimate | None:
    """Returns the mean gain of a trial over its folds, which share training rows; None without
    folds."""
    values, folds = study.frozen[number].user_attrs.get("valid_by_seed"), study.file.folds
    if not (folds and values):
        return None
    return estimate([study.metric.gain(value) for value in values], share=1 / (folds - 1))


def states_text(study: StoredSearch) -> str:
    """30 trained to the end, 32 pruned; empty without trials. Trials that do not count as tried are
    named last: 30 trained to the end; besides these, 1 failed, 2 stopped."""
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
        marked("failed"): trials[(state == "FAIL") & ~study.stopped],
        marked("stopped"): trials[study.stopped],
        marked("paused"): trials[study.paused],
        marked("running"): trials[(state == "RUNNING") & ~study.paused],
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
        *_validation_columns(study.metric),
        *(
            metric_column(each.name, each, priority=4 if place else 0)
            for place, each in enumerate(test_metrics(study))
        ),
    ]
    columns += _cost_column(study, lambda row: row.cost)
    columns.append(Column("seeds", t("Seeds"), lambda row: len(row.runs)))
    return Table(columns=columns, rows=rows, caption=caption)


def _validation_columns(metric: Metric) -> Sequence[Column]:
    """Returns the columns of the objective: as selected, over fresh seeds, and their difference."""
    group, digits, unit = metric.header, metric.digits, " (%)" if metric.mark else ""

    def bias(row: Finalist) -> float | None:
        fresh = fresh_estimate(row, metric)
        return metric.scale * row.selected - metric.sign * fresh.mean if fresh else None

    return [
        Column(
            "selected", t("as selected"), lambda row: metric.scale * row.selected,
            f"{{:.{digits}f}}", group=group, short=f"as selected{unit}", priority=2,
        ),
        metric_column(
            "fresh", metric, t("fresh seeds"),
            group=group, short=f"fresh seeds{unit}", priority=1,
        ),
        Column(
            "bias", t("selection bias"), bias, f"{{:+.{digits}f}}",
            group=group, short="bias", priority=3,
        ),
    ]  # fmt: skip


def test_metrics(study: StoredSearch) -> Sequence[Metric]:
    """Returns what is shown of the test: the objective's counterpart, and accuracy; of a regression
    RMSE, MAE and R²; nothing without a test part."""
    tested = study.metric.tested
    if not study.data["test"]:
        return []
    if not study.regression:
        return list(dict.fromkeys([tested, BY_NAME[ACCURACY].tested]))
    others = (each.of(study.schema.deviation) for each in tested.scored(regression=True))
    return list({each.name: each for each in (tested, *others)}.values())


def metric_column(key: str, metric: Metric, header: str = "", **more: Any) -> Column:
    """Returns the column of finalists' means over the fresh seeds. header: or the metric's. more:
    see Column."""
    more = {"short": uncapital(metric.header), **more}

    def mean(row: Finalist) -> Entry:
        return interval_entry(fresh_estimate(row, metric), metric)

    return Column(key, header or metric.header, mean, **more)


def fresh_estimate(finalist: Finalist, metric: Metric) -> Estimate | None:
    """Returns the mean gain over the fresh seeds; None without any."""
    gains = finalist.gains(metric).to_numpy()
    return estimate(gains) if len(gains) else None


def finalists_frame(study: StoredSearch) -> pd.DataFrame:
    """Returns finalists.csv: a row per finalist and fresh seed."""
    columns = ["rank", "number", "seed", "valid_accuracy", "test_loss", "test_accuracy"]
    more = [metric.name for metric in (study.metric, *test_metrics(study))]
    columns += [name for name in more if name not in columns]
    parts = [pd.DataFrame(columns=columns)]
    for finalist in study.finalists:
        runs = finalist.runs.assign(rank=finalist.rank, number=finalist.number)
        parts.append(runs[columns].astype({"seed": int}))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def reference_frame(study: StoredSearch) -> pd.DataFrame:
    """Returns reference.csv: a row per fresh seed of the reference, which has no rank."""
    frame = finalists_frame(study).iloc[:0]
    if study.tested is None or study.reference is None:
        return frame
    return study.tested.of(study.reference).assign(rank=None, number=None)[[*frame.columns]]


def gain_sentence(study: StoredSearch) -> str:
    """Says what tuning gained over the reference on the fresh seeds, and if it gained nothing;
    empty without a winner or a reference."""
    winner, reference, metric = study.winner, study.reference, study.metric
    if winner is None or reference is None:
        return ""
    known: dict[str, Any] = {"network": reference.config.brief, "metric": t(metric.words)}
    if reference == winner.cell:
        text = marked("Tuning gained nothing: the winner is the reference itself, {network}.")
        return t(text, **known)
    found = over_reference(study)
    if found is None:
        return t("The reference, {network}, has no finished training.", **known)
    known |= {"n": found.n, "gain": metric.difference(metric.sign * found.effect, "+")}
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        text = marked(
            "The fresh seeds ({n}) are too few to tell what tuning gained: in {metric}, the winner "
            "minus the reference, {network}, is {gain}."
        )
        return t(text, **known)
    ends = sorted(metric.sign * end + 0.0 for end in found.interval)
    low, high = (printed(f"{{:+.{metric.digits}f}}", end) for end in ends)
    return t(_gain_text(found), low=low, high=high, **known)


def _gain_text(found: Evidence) -> str:
    if found.low > 0:
        return marked(
            "Tuning gained: in {metric}, the winner minus the reference, {network}, is {gain} (95% "
            "interval {low} to {high}, {n} fresh seeds in pairs; they also chose the winner, which "
            "flatters it)."
        )
    if found.high < 0:
        return marked(
            "Tuning gained nothing: in {metric}, the winner minus the reference, {network}, is "
            "{gain} (95% interval {low} to {high}, {n} fresh seeds in pairs), so the reference is "
            "better."
        )
    return marked(
        "Tuning gained nothing that {n} fresh seeds show: in {metric}, the winner minus the "
        "reference, {network}, is {gain} (95% interval {low} to {high}, in pairs)."
    )


def winner_sentence(study: StoredSearch) -> str:
    """Names the winner, its test beside that of a guess, and whether it is better; or the state of
    the finalists; with two objectives, the ends and the knee of the finalists' front."""
    if study.tested is None:
        return t("The finalists are not trained yet.")
    if study.winner is None:
        done = sum(len(finalist.runs) for finalist in study.finalists)
        text = marked("The finalists are not finished: {done} of {planned} trainings are done.")
        return t(text, done=done, planned=len(study.finalists) * study.file.finalist_seeds)
    guess = guess_text(study)
    if study.second and len(along := _finalists_front(study, len(study.winner.runs))) > 1:
        front = _front_sentence(study.metric, study.second, along, guess)
        return f"{front}{_beside_guess(along[0])}"
    metric = study.metric.tested
    estimate = fresh_estimate(study.winner, metric)
    text = marked("The winner is {network} (trial {number}): {metric} {value}{guess}.")
    if estimate is None:
        text = marked("The winner is {network} (trial {number}); it is not tested{guess}.")
    network, number = study.winner.config.brief, study.winner.number
    value = spelled_estimate(estimate, metric) if estimate else ""
    known = {"network": network, "number": number, "metric": t(metric.words), "guess": guess}
    return f"{t(text, value=value, **known)}{_beside_guess(study.winner)}"


def _beside_guess(finalist: Finalist) -> str:
    """Says it if the test does not show that a network is better than a guess; empty if it does. Of
    accuracy, the test rows have to show it, too."""
    study, metric = finalist.search, finalist.search.metric.tested
    if (found := fresh_estimate(finalist, metric)) is None:
        return ""
    share = metric.guess(study.data)
    guess, tested = metric.gain(share), int(study.data["test"])
    line = metric.gain(guess_line(tested, share)) if metric.kind == "accuracy" else guess
    if min(found.mean, found.low) > guess and found.mean > line:
        return ""
    text = marked("The {n} test {things} do not show that it is better than a guess: {difference}.")
    if found.mean <= guess:
        text = marked("It is no better than a guess: {difference}.")
    difference = metric.difference(metric.sign * (found.mean - guess), "+")
    if found.n > 1:
        ends = sorted(metric.sign * (end - guess) + 0.0 for end in (found.low, found.high))
        low, high = (printed(f"{{:+.{metric.digits}f}}", end) for end in ends)
        interval = marked("{difference} (95% interval over seeds {low} to {high})")
        difference = t(interval, difference=difference, low=low, high=high)
    said = t(text, difference=difference, n=tested, things=t(study.things))
    if study.data.get("unbalanced") and metric.kind == "accuracy":
        said += " " + t(
            "Where a class is rare, seek another objective, such as valid_balanced_accuracy, or "
            "weigh the classes (class_weight)."
        )
    return f" {said}"


def _finalists_front(study: StoredSearch, seeds: int) -> list[Finalist]:
    """Returns the finalists of so many seeds that no other one beats in both objectives, by
    validation over fresh seeds; the best first."""
    known = [row for row in study.finalists if len(row.runs) == seeds]
    points = [(row.gains(study.metric).mean(), row.cost) for row in known]
    return [known[place] for place in front(points)]


def _front_sentence(metric: Metric, second: str, along: Sequence[Finalist], guess: str) -> str:
    """Names the ends and the knee of the finalists' front. guess: ends the first sentence."""
    cost, tested = t(SECOND[second]), metric.tested

    def spelled(row: Finalist) -> str:
        test, value = fresh_estimate(row, tested), COSTS[second].format(row.cost)
        text = marked("{network} (trial {number}; {cost}: {value}; {metric} {reached})")
        known = {"network": row.config.brief, "number": row.number, "cost": cost, "value": value}
        reached = spelled_estimate(test, tested) if test else NOTHING
        return t(text, metric=t(tested.words), reached=reached, **known)

    place = knee([(float(row.gains(metric).mean()), row.cost) for row in along])
    text = marked("The front of {metric} and {cost} goes from {best} to {least}{guess}.")
    known = {"metric": t(metric.words), "cost": cost, "guess": guess}
    ends = t(text, best=spelled(along[0]), least=spelled(along[-1]), **known)
    if place is None:
        return ends
    text = marked("{ends} Its knee, beyond which {metric} costs most, is {knee}.")
    return t(text, ends=ends, knee=spelled(along[place]), **known)


def other_search_sentence(study: StoredSearch) -> str:
    """Says how far another search may end from this one: the spread of repeated searches, or that
    it is not known; empty without a winner."""
    metric = study.metric.tested
    tests = [fresh_estimate(winner, metric) for winner in study.winners]
    means = np.array([test.mean for test in tests if test])
    if not means.size:
        return ""
    if means.size == 1:
        return t(
            "Intervals cover other seeds of a network. Another search, with another sampler seed, "
            "may end with another network and differ by more; --repeats 3 shows by how much."
        )
    ends = {"n": means.size, "mark": metric.mark, **metric.ends(means.min(), means.max())}
    if means.size < 3:
        text = marked("{n} searches, each by another sampler seed, ended at {low} to {high}{mark}.")
        return t(text, **ends)
    text = marked(
        "{n} searches, each by another sampler seed, ended at {low} to {high}{mark} (mean {mean}, "
        "sd {sd}); one more search is expected between {least} and {most}{mark} (95%)."
    )
    least, most = metric.ends(*prediction_interval(means)).values()
    known = {"mean": metric.spelled(means.mean()), "sd": metric.difference(means.std(ddof=1))}
    return t(text, least=least, most=most, **known, **ends)


def unfinished(study: StoredSearch) -> str:
    """Says why there are fewer trials than the budget; empty if there are enough."""
    done = len(study.ended)
    if done >= study.n_trials:
        return ""
    if done >= study.planned:
        return nt(
            "The search ended after {n} trial: the space has one configuration.",
            "The search ended after {n} trials: all {n} configurations of the space have been "
            "tried.",
            done,
        )
    budget = {"done": done, "planned": study.planned}
    if study.settled and (rule := study.file.stop_after):
        text = marked(
            "The search ended after {done} trials because the last {n} were no better than the "
            "best before them by more than {without} (stop_after)."
        )
        without = study.metric.in_unit(f"{study.metric.scale * rule.without:g}")
        return t(text, n=rule.trials, without=without, **budget)
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
