"""A search's results as text and tables: trials, finalists, states."""

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from hpo.analysis.hypothesis_tests import prediction_interval
from hpo.analysis.statistics import Estimate, estimate
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import setting
from hpo.report.blocks.page import Header, Table
from hpo.results.study import Finalist, StoredSearch, seconds_of
from hpo.results.trial import KILLED
from hpo.study.config import BOUNDS, Config
from hpo.study.file import OBJECTIVES, Cell
from hpo.study.space import Fixed, Range
from hpo.text import bounded, limit_text

BEST = 10  # trials shown one by one
AT_A_BOUND = 0.02  # of a range's width, on its scale
UPPER = marked(
    "Its {name} of {value:g} lies on the space's upper bound, {bound:g}: better values may lie "
    "beyond, so widen the range and search again."
)
LOWER = marked(
    "Its {name} of {value:g} lies on the space's lower, {bound:g}: better values may lie beyond, "
    "so widen the range and search again."
)


def network_columns(study: StoredSearch, configs: Sequence[Config]) -> dict[str, list[str]]:
    """Returns {header: a text for each network}. What the space fixes for all is left out."""
    space = study.file.space.items()
    fixed = [name for name, domain in space if isinstance(domain, Fixed) and not domain.when]
    headers = {"hidden_layers": t("Hidden layers"), "activation": t("Activation")}
    if study.file.model:
        headers = {"hidden_layers": t("Network")}
    headers["optimizer"] = t("Optimizer")
    cells = [Cell(name="x", config=config) for config in configs]
    columns = {header: [setting(cell, key) for cell in cells] for key, header in headers.items()}
    columns[t("Learning rate")] = [f"{config.lr:.3g}" for config in configs]
    if any(further := [config.further(fixed) for config in configs]):
        columns[t("Further")] = [text or "–" for text in further]
    return columns


def best_table(study: StoredSearch, caption: str = "", *, brief: int = 0) -> Table:
    """Returns a row per trial, the best first. brief: how many the terminal shows, a network in one
    column, or 80 are too few."""
    best = study.ranked.head(brief or BEST)
    numbers = [int(number) for number in best["number"]]
    configs, trials = [study.config(number) for number in numbers], list(map(str, numbers))
    valid = [f"{100 * value:.2f}" for value in best["valid_accuracy"]]
    seconds = [f"{value:.1f}" for value in best["train_seconds"]]
    if brief:
        headers = ["trial", "network", "validation (%)", "seconds"]
        columns = [trials, [config.brief for config in configs], valid, seconds]
    else:
        networks = network_columns(study, configs)
        headers = [t("Trial"), *networks, t("Validation (%)"), t("Training (%)"), t("Seconds")]
        trained = [f"{100 * value:.2f}" for value in best["train_accuracy"]]
        columns = [trials, *networks.values(), valid, trained, seconds]
    return Table(headers=headers, rows=list(zip(*columns, strict=True)), caption=caption)


def states_table(study: StoredSearch, caption: str) -> Table:
    """Returns the number and the seconds of the trials in each state."""
    rows, by_state = [], trials_by_state(study)
    everything = max(sum(of["spent"].sum() for of in by_state.values()), 1e-9)
    for state, of in by_state.items():
        if len(of):
            total, median = of["spent"].sum(), of["spent"].median()
            share = f"{100 * total / everything:.0f}%"
            rows.append([t(state), str(len(of)), f"{total:.0f}", share, f"{median:.1f}"])
    headers = [t("State"), t("Trials"), t("Seconds of a core"), t("Share"), t("Median seconds")]
    return Table(headers=headers, rows=rows, caption=caption)


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


# --- finalists ---------------------------------------------------------------------------------


def finalists_table(study: StoredSearch, caption: str = "", *, brief: bool = False) -> Table:
    """Returns a row per finalist, the winner first. brief: for the terminal."""
    finalists, winner = study.finalists, study.winner
    configs = [finalist.config for finalist in finalists]
    trials = [str(finalist.number) for finalist in finalists]
    fresh = [fresh_estimate(finalist) for finalist in finalists]
    selected = [100 * finalist.selected for finalist in finalists]
    biases = [a - b.mean if b else math.nan for a, b in zip(selected, fresh, strict=True)]
    results = [
        [f"{value:.2f}" for value in selected],
        [_interval(estimate) for estimate in fresh],
        ["–" if math.isnan(bias) else f"{bias:+.2f}" for bias in biases],
        [_interval(fresh_estimate(each, "test_accuracy")) for each in finalists],
    ]
    headers: list[Header]
    if brief:
        headers = ["trial", "network", "as selected (%)", "fresh seeds (%)", "bias", "test (%)"]
        places = [" (the winner)" if each == winner else "" for each in finalists]
        names = [trial + place for trial, place in zip(trials, places, strict=True)]
        columns = [names, [config.brief for config in configs], *results]
    else:
        networks = network_columns(study, configs)
        ranks = [
            t("{rank}, the winner", rank=each.rank) if each == winner else str(each.rank)
            for each in finalists
        ]
        validation = (t("as selected"), t("fresh seeds"), t("selection bias"))
        headers = [t("Rank"), t("Trial"), *networks, (t("Validation accuracy (%)"), validation)]
        headers.append(t("Test accuracy (%)"))
        columns = [ranks, trials, *networks.values(), *results]
        if study.second:
            headers.append(t(OBJECTIVES[study.second]).capitalize())
            unit = ",.0f" if study.second == "parameters" else ".1f"
            columns.append([f"{finalist.cost:{unit}}" for finalist in finalists])
        headers.append(t("Seeds"))
        columns.append([str(len(finalist.runs)) for finalist in finalists])
    return Table(headers=headers, rows=list(zip(*columns, strict=True)), caption=caption)


def fresh_estimate(finalist: Finalist, metric: str = "valid_accuracy") -> Estimate | None:
    """Returns the mean of an accuracy over the fresh seeds, in percent; None without any."""
    values = 100 * finalist.runs[metric].dropna().to_numpy()
    return estimate(values) if len(values) else None


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.n == 1:
        return f"{estimate.mean:.2f}"
    text = marked("{mean:.2f} ({low:.2f} to {high:.2f})")
    return t(text, mean=estimate.mean, low=bounded(estimate.low), high=bounded(estimate.high))


def finalists_frame(study: StoredSearch) -> pd.DataFrame:
    """Returns finalists.csv: a row per finalist and fresh seed."""
    columns = ["rank", "number", "seed", "valid_accuracy", "test_loss", "test_accuracy"]
    parts = [pd.DataFrame(columns=columns)]
    for finalist in study.finalists:
        runs = finalist.runs.assign(rank=finalist.rank, number=finalist.number)
        parts.append(runs[columns].astype({"seed": int}))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


# --- the space ---------------------------------------------------------------------------------


def at_bounds(study: StoredSearch, config: Config) -> list[str]:
    """Returns a sentence per hyperparameter that lies on a bound of its range and could go
    beyond."""
    sentences = []
    for name, domain in study.file.space.items():
        if isinstance(domain, Range) and domain.low < domain.high:
            value = config.as_dict()[name]
            if not domain.low <= value <= domain.high:
                continue  # its condition does not hold
            scale = math.log if domain.log else float
            at, low, high = scale(value), scale(domain.low), scale(domain.high)
            place = (at - low) / (high - low)
            least = name in BOUNDS and domain.low <= BOUNDS[name][1]  # nothing is below it
            if place >= 1 - AT_A_BOUND:
                sentences.append(t(UPPER, name=name, value=value, bound=domain.high))
            elif place <= AT_A_BOUND and not least:
                sentences.append(t(LOWER, name=name, value=value, bound=domain.low))
    return sentences


# --- over time ---------------------------------------------------------------------------------


def run_seconds(study: StoredSearch, rows: pd.DataFrame) -> list[float]:
    """Returns the seconds of running at which these trials ended, without pauses between
    sessions; of earlier versions' trials by a clock that may have been set."""
    if "run_seconds" in rows and rows["run_seconds"].notna().all():
        return [float(seconds) for seconds in rows["run_seconds"]]
    starts = [session["started"] for session in study.sessions]
    spans = [  # a session that was killed counts until the next one starts
        (start, min(session.get("seconds", session.get("counted", math.inf)), longest))
        for start, session, longest in zip(
            starts, study.sessions, np.diff([*starts, math.inf]), strict=True
        )
    ]
    moments = [datetime.fromisoformat(text).timestamp() for text in rows["ended"]]
    return [sum(min(max(at - start, 0.0), length) for start, length in spans) for at in moments]


def selected_values(rows: pd.DataFrame) -> list[float]:
    """Returns the accuracy of each ended trial in percent: NaN if pruned, 0 if diverged."""
    values = (100 * rows["valid_accuracy"]).mask(rows["state"] == "PRUNED")
    return [float(v) for v in values.mask(rows["diverged"], 0.0)]


def winner_sentence(study: StoredSearch) -> str:
    """Names the winner and its test accuracy, or the state of the finalists."""
    if study.tested is None:
        return t("The finalists are not trained yet.")
    if study.winner is None:
        done = sum(len(finalist.runs) for finalist in study.finalists)
        text = marked("The finalists are not finished: {done} of {planned} trainings are done.")
        return t(text, done=done, planned=len(study.finalists) * study.file.finalist_seeds)
    estimate = fresh_estimate(study.winner, "test_accuracy")
    text = marked("The winner is {network} (trial {number}): test accuracy {accuracy}.")
    if estimate is None:
        text = marked("The winner is {network} (trial {number}); it is not tested.")
    network, number = study.winner.config.brief, study.winner.number
    accuracy = spelled_estimate(estimate) if estimate else ""
    return t(text, network=network, number=number, accuracy=accuracy)


def other_search_sentence(study: StoredSearch) -> str:
    """Says how far another search may end from this one: the spread of repeated searches, or that
    it is not known; empty without a winner."""
    means = 100 * np.array(winners_accuracies(study))
    if not means.size:
        return ""
    if means.size == 1:
        return t(
            "The interval covers other seeds of this network. Another search, with another sampler "
            "seed, may end with another network and differ by more; --repeats 3 shows by how much."
        )
    ends = {"n": means.size, "low": means.min(), "high": means.max()}
    if means.size < 3:
        text = marked("{n} searches with other sampler seeds ended at {low:.2f} to {high:.2f}%.")
        return t(text, **ends)
    interval = prediction_interval(means)
    assert interval is not None
    text = marked(
        "{n} searches with other sampler seeds ended at {low:.2f} to {high:.2f}% (mean "
        "{mean:.2f}%, sd {sd:.2f} points); one more search is expected between {least:.2f} and "
        "{most:.2f}% (95%)."
    )
    least, most = map(bounded, interval)
    return t(text, mean=means.mean(), sd=means.std(ddof=1), least=least, most=most, **ends)


def winners_accuracies(study: StoredSearch) -> list[float]:
    """Returns the winners' mean test accuracies, fractions: of this search, then of its repeats."""
    found = [
        fresh_estimate(search.winner, "test_accuracy")
        for search in (study, *study.repeats)
        if search.winner
    ]
    return [test.mean / 100 for test in found if test is not None]


def repeats_table(study: StoredSearch) -> Table:
    """Returns a row per repeated search, this one first."""
    winners = [search.winner for search in (study, *study.repeats) if search.winner]
    networks = network_columns(study, [winner.config for winner in winners])
    columns = {
        t("Search"): [winner.search.name for winner in winners],
        t("Winning trial"): [str(winner.number) for winner in winners],
        **networks,
        t("Validation (%), fresh seeds"): [_interval(fresh_estimate(winner)) for winner in winners],
        t("Test (%)"): [_interval(fresh_estimate(winner, "test_accuracy")) for winner in winners],
        t("Trials"): [str(len(winner.search.ended)) for winner in winners],
    }
    caption = marked(
        "Data: {data}. The same search with other sampler seeds; each winner trained on the same "
        "fresh seeds: mean (95% interval over seeds)."
    )
    return Table(
        headers=list(columns),
        rows=list(zip(*columns.values(), strict=True)),
        caption=t(caption, data=study.data_name),
    )


def spelled_estimate(estimate: Estimate) -> str:
    """98.54% (95% interval 98.49 to 98.58, 5 fresh seeds)."""
    if estimate.n == 1:
        return t("{mean:.2f}% with a single seed", mean=estimate.mean)
    text = marked("{mean:.2f}% (95% interval {low:.2f} to {high:.2f}, {n} fresh seeds)")
    ends = {"low": bounded(estimate.low), "high": bounded(estimate.high)}
    return t(text, mean=estimate.mean, n=estimate.n, **ends)


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
