"""A search's best trials, all trials for the page's script, their trade-off, and whether they lie
on a bound of the space."""

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hpo.language import marked, nt, t
from hpo.report.blocks.page import Block, Picture, Section, Trials
from hpo.report.blocks.search_tables import best_table, over_limit
from hpo.report.blocks.words import STATES
from hpo.report.figures import search as figures
from hpo.report.figures.axis import beyond, focus
from hpo.report.figures.reference import Reference
from hpo.report.sections.course import drawn_reference
from hpo.results import trial as record
from hpo.results.study import StoredSearch
from hpo.study.config import BOUNDS, Config
from hpo.study.file import SECOND
from hpo.study.metrics import capital
from hpo.study.names import choices
from hpo.study.space import Fixed, Range
from hpo.text import DASHBOARD

POINTS = 24  # of a small curve, at most
LEVELS = 100  # a small curve's heights are whole numbers from 0 to this
SHOWN_DIGITS = 4  # of a hyperparameter
# What the page's script says.
WORDS = {
    "of": marked("{n} of {all} trials"),
    "unknown": marked("no column {name}; known: {known}"),
    "pinned": marked("Pinned trials"),
    "pin": marked("Click a row or a line to pin a trial; two pinned trials are compared here."),
    "unpin": marked("Unpin all"),
    "trial": marked("Trial"),
    "curve": marked("Curve"),
    "columns": marked("Columns"),
    "filter": marked("Filter, such as lr<0.01 relu state=pruned"),
    "brush": marked("Drag along an axis to keep a range; click it to drop the range."),
    "csv": marked("Download these trials (CSV)"),
    "link": marked("Link trials to optuna-dashboard, while hpo dashboard serves {at}"),
}
OF_TRIALS = {
    **STATES,
    "LIMITED": marked("stopped at its time limit"),
    "DIVERGED": marked("diverged"),
}
AT_A_BOUND = 0.02  # of a range's width, on its scale
BOUND = marked(
    "Its {name} of {value:g} lies at the end of its range, {bound:g}: better values may lie "
    "beyond, so widen the range and search again."
)


def trade_off(study: StoredSearch) -> list[Section]:
    """Returns the section on the Pareto front of a search with two objectives."""
    rows = study.ranked
    if not study.second or rows.empty:
        return []
    second = t(SECOND[study.second])
    metric = study.metric
    gains = metric.gain(rows[metric.name]).to_list()
    costs = [study.frozen[int(n)].values[1] for n in rows["number"]]
    said = capital(t(metric.words))
    caption = marked(
        "Each trial that ran to its end. Line: the Pareto front, the trials that no other one "
        "beats in both. Rings: finalists, spread over the front. {data}."
    )
    picture = Picture(
        file="pareto.svg",
        draw=partial(
            figures.pareto,
            numbers=rows["number"].to_list(),
            gains=gains,
            costs=costs,
            front=record.front(list(zip(gains, costs, strict=True))),
            finalists=[finalist.number for finalist in study.finalists],
            name=second,
            metric=metric,
            reference=drawn_reference(study),
        ),
        alt=t("{metric} of each trial over its {second}.", metric=said, second=second),
        caption=t(caption, data=study.data_name),
    )
    choice = t(
        "The winner is the finalist with the best mean {metric} over fresh seeds. The knee of "
        "the finalists' front is the point farthest from the chord between its ends (Das "
        "1999), both axes scaled to the front, {second} on a log scale.",
        second=second,
        metric=t(metric.words),
    )
    blocks: list[Block] = [picture, choice]
    least = metric.gain(metric.learned(study.data))
    if min(gains) < least:
        text = marked("Trials {below} have learned nothing and do not become finalists.")
        blocks.append(t(text, below=beyond(metric, least)))
    named = {"metric": capital(t(metric.words)), "second": second.partition(" (")[0]}
    title = t("{metric} against {second}", **named)
    return [Section(title=title, blocks=blocks)]


def sections(study: StoredSearch) -> list[Section]:
    blocks: list[Block] = []
    if study.ranked.empty:
        blocks.append(t("No trial has been trained to its end yet."))
    else:
        table = best_table(study, caption=_how_trained(study))
        blocks.append(table.but("network"))
        every = every_trial(study)
        blocks += [every] if every else []
        if study.tested is None:
            best = study.config(int(study.ranked.iloc[0]["number"]))
            blocks.append(at_bounds(study, best))
    return [Section(title=t("The best trials"), blocks=blocks)]


def _how_trained(study: StoredSearch) -> str:
    """Says what a trial's value is the mean of, and how the interval over folds is made."""
    n = study.file.seeds_per_trial
    text = marked("One training each, on {data}, all with the same split and seed.")
    if n > 1:
        text = marked("Means over {n} trainings on {data}; all trials have the same splits.")
    if study.file.folds:
        text = marked(
            "Means over {n} folds of {data} with 95% intervals. Folds share training rows, so the "
            "variance of a mean is taken as (1/{n} + 1/{others}) s², not s²/{n} (Nadeau and Bengio "
            "2003). The intervals do not know that the best of many trials stand here."
        )
    return t(text, data=study.data_name, n=n, others=n - 1)


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
            if place >= 1 - AT_A_BOUND or (place <= AT_A_BOUND and not least):
                bound = domain.high if place > 0.5 else domain.low
                sentences.append(t(BOUND, name=name, value=value, bound=bound))
    return sentences


# --- all trials, for the page's script ---------------------------------------------------------


def every_trial(study: StoredSearch) -> Trials | None:
    """Returns all trials for the page's script; None without any."""
    rows = study.trials
    if rows.empty:
        return None
    metric = study.metric
    states = rows["state"].mask(over_limit(rows), "LIMITED").mask(rows["diverged"], "DIVERGED")
    states = states.mask(study.stopped, "STOPPED")
    worth = _column(metric.name, metric.header, digits=metric.digits)
    worth["better"] = -1 if metric.minimized else 1
    columns = [_column("number", t("Trial")), _column("state", t("State"), number=False), worth]
    values: list[Sequence[Any]] = [
        rows["number"].astype(int).tolist(),
        [t(OF_TRIALS[state]) for state in states],
        _rounded((metric.scale * rows[metric.name]).mask(rows["diverged"]), metric.digits),
    ]
    for name, domain in study.file.space.items():
        if name not in rows or (isinstance(domain, Fixed) and not domain.when):
            continue
        number = isinstance(domain, Range) or pd.api.types.is_numeric_dtype(rows[name])
        log = isinstance(domain, Range) and domain.log
        columns.append(_column(name, name, number=number, log=log, axis=True))
        values.append(_significant(rows[name]) if number else _texts(rows[name]))
    reference, words = drawn_reference(study), {key: t(text) for key, text in WORDS.items()}
    if reference:
        words["brush"] += " " + t("Dashed: {reference}.", reference=reference.text(metric))
    columns.append(_column("train_seconds", t("Seconds"), digits=1))
    values.append(_rounded(rows["train_seconds"].astype(float), 1))
    served = "{}:{}".format(*DASHBOARD)
    found = {
        "columns": columns,
        "rows": list(zip(*values, strict=True)),
        "curves": _curves(study),
        "reference": reference and _reference_row(study, reference, columns, values),
        "dashboard": f"http://{served}/dashboard/studies/{study.id}/trials?numbers=",
        "words": words | {"link": t(WORDS["link"], at=served)},
    }
    content = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    text = nt("The trial is in trials.csv.", "All {n:,} trials are in trials.csv.", len(rows))
    return Trials(json=content.replace("<", "\\u003c"), text=text)


def _reference_row(
    study: StoredSearch, reference: Reference, columns: list[dict[str, Any]], values: list[Any]
) -> list[Any]:
    """Returns a row of the columns; None for a category that no trial has."""
    shown = study.metric.sign * reference.gain
    row = []
    for column, of_trials in zip(columns, values, strict=True):
        value = study.reference.config.as_dict().get(column["key"]) if study.reference else None
        value = value if column["number"] or str(value) in of_trials else None
        row.append(str(value) if value is not None and not column["number"] else value)
    return [None, None, shown, *row[3:]]


def _column(
    key: str, label: str, *, number: bool = True, log: bool = False, axis: bool = False,
    digits: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """axis: whether it is a hyperparameter."""
    return {"key": key, "label": label, "number": number, "log": log, "axis": axis,
            "digits": digits, "names": choices(key)}  # fmt: skip


def _rounded(values: pd.Series, digits: int) -> list[float | None]:
    return [None if math.isnan(v) else round(v, digits) for v in values.astype(float)]


def _significant(values: pd.Series) -> list[float | None]:
    shown = (None if pd.isna(v) else float(f"{v:.{SHOWN_DIGITS}g}") for v in values.astype(float))
    return [None if v is None else int(v) if v.is_integer() else v for v in shown]


def _texts(values: pd.Series) -> list[str | None]:
    return [None if pd.isna(value) else str(value) for value in values]


def _curves(study: StoredSearch) -> dict[str, list[int]]:
    """Returns the small curve of each trial, by its number: gains as heights, on one scale."""
    gains = study.curves.assign(gain=study.metric.gain(study.curves[study.metric.name]))
    known = gains["gain"].replace([np.inf, -np.inf], np.nan).dropna().to_numpy()
    if not known.size:
        return {}
    low, high = focus(known, study.metric)
    found = {}
    for number, own in gains.groupby("number", sort=False)["gain"]:
        places = np.linspace(0, len(own) - 1, min(POINTS, len(own))).round().astype(int)
        heights = LEVELS * (own.to_numpy()[places] - low) / (high - low)
        found[str(number)] = [round(h) for h in np.clip(np.nan_to_num(heights), 0, LEVELS).tolist()]
    return found
