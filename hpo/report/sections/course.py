"""How networks learned: a grid's experiments with their curves, and the course of a search."""

import math
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise, product

import numpy as np
import pandas as pd

from hpo.analysis.claims import difference, is_claimed
from hpo.language import marked, nt, printed, t
from hpo.report.blocks import grid_tables as tables
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.search_tables import BEST, trials_by_state
from hpo.report.blocks.table import Column, Table
from hpo.report.figures import grid as figures
from hpo.report.figures.reference import Reference
from hpo.report.figures.search import Run, progress
from hpo.report.figures.trial import TrialCurve, trial_curves
from hpo.report.sections.basis import interval_kind
from hpo.results.study import StoredGrid, StoredSearch
from hpo.study.columns import METRICS
from hpo.study.file import Cell, Experiment, GridStudy
from hpo.study.metrics import BY_NAME, RMSE, Metric, capital
from hpo.study.names import SAMPLERS, choices, label
from hpo.text import count


def experiments(study: StoredGrid) -> list[Section]:
    """Returns a section for each experiment of a grid."""
    return [_experiment(study, n, e) for n, e in enumerate(study.file.experiments)]


def _experiment(study: StoredGrid, number: int, experiment: Experiment) -> Section:
    by_name = {cell.name: cell for cell in study.file.cells}
    cells = [by_name[name] for name in experiment.cells]
    named = [by_name[name] for name in curve_cells(study.file, experiment)]
    shown = tables.most_accurate(study, named)
    blocks: list[Block] = [t(" ".join(experiment.text.split()))] if experiment.text else []
    if 1 < len(cells) < len(by_name):  # the table of all networks has the others
        blocks.append(_results(study, experiment, cells))
    findings = [sentence for cell in shown if (sentence := finding(study, cell))]
    findings += comparisons(study, tables.most_accurate(study, cells))
    blocks += [findings] if findings else []
    drawn = [c for cell in shown if (c := _cell_curves(study, cell)) is not None]
    if drawn:
        metric = _beside_loss(study)
        labels = ", ".join(curve.label for curve in drawn)
        alt = marked("Learning curves of {labels}: loss on the left, {metric} on the right.")
        right = t("accuracy") if metric.kind == "accuracy" else t(metric.words)
        blocks.append(
            Picture(
                file=f"curves-{number}.svg",
                draw=partial(figures.curves, drawn, _guess(study, metric), metric),
                alt=t(alt, labels=labels, metric=right),
                caption=_curves_caption(study, drawn) + tables.of_many(study, shown, named),
            )
        )
    return Section(title=t(experiment.title), blocks=blocks)


def _beside_loss(study: StoredGrid) -> Metric:
    """Returns the metric that curves show beside the loss."""
    return study.named(RMSE) if study.compared.kind == "loss" else study.compared


def _guess(study: StoredGrid, metric: Metric) -> figures.Guess:
    """Returns what a guess gets, for the curves of networks that fail."""
    if not study.regression:
        chance = 100 * study.data.get("chance", 1 / len(study.classes))
        return figures.guess_of_classes(len(study.classes), chance)
    both = (study.named("valid_loss"), metric)
    loss, value = (each.chance(study.data) for each in both)
    left, right = (
        t("dotted: a guess, {value}", value=each.spelled(each.gain(each.chance(study.data))))
        for each in both
    )
    return figures.Guess(loss=loss, value=metric.scale * value, texts=(left, right))


def _results(study: StoredGrid, experiment: Experiment, cells: Sequence[Cell]) -> Table:
    caption = f"{tables.data_text(study)}. {tables.results_key(study, cells)}."
    table = tables.cells_table(study, [(cell, None) for cell in cells], caption)
    results = [key for key in experiment.columns if key in study.figures]
    settings = [key for key in experiment.columns if key not in study.figures]
    both = [key for figure in results for key in (f"{figure}.reported", figure)]
    return table.only(["model", *settings, "further", *both, "seeds"])


def curve_cells(file: GridStudy, experiment: Experiment) -> Sequence[str]:
    """Returns the cells whose curves a section shows: those it names, or those not shown before."""
    if experiment.curves:
        return experiment.curves
    before = file.experiments[: file.experiments.index(experiment)]
    seen = {name for earlier in before for name in earlier.cells}
    return [name for name in experiment.cells if name not in seen] or experiment.cells


def _curves_caption(study: StoredGrid, drawn: Sequence[figures.CellCurves]) -> str:
    text = t("Line: mean of the seeds, or median where runs fail to learn; band: their range.")
    if all(len(curve.values["valid_loss"]) <= 1 for curve in drawn):
        text = t("A single seed.")
    return f"{text} {study.data_name}."


def _cell_curves(study: StoredGrid, cell: Cell) -> figures.CellCurves | None:
    numbers = study.of(cell)["number"]
    rows = study.curves[study.curves["number"].isin(numbers)]
    if rows.empty:
        return None
    each = [own for _, own in rows.groupby("number")]
    longest = max(map(len, each))  # where patience has ended others, they stay at their last epoch
    names = [*METRICS] if not study.regression else ["train_loss", "valid_loss"]
    names += [name for name in (_beside_loss(study).name,) if name not in names]
    values = {
        name: BY_NAME[name].scale
        * np.array([np.pad(own[name], (0, longest - len(own)), "edge") for own in each])
        for name in names
    }
    label = f"{cell.label} ({count(len(numbers), 'seed')})"
    return figures.CellCurves(label=label, collapsed=study.fails(cell), values=values)


# --- what a grid's networks reach ---------------------------------------------------------------


def finding(study: StoredGrid, cell: Cell) -> str:
    """Says how often a cell fails to learn, or that nothing is known of it; empty if it learns."""
    rows = study.of(cell)
    if rows.empty:
        return t("{cell} has no finished run yet.", cell=cell.label)
    if not study.fails(cell):
        return ""
    failing, diverged = int(study.failing(cell).sum()), int(rows["diverged"].sum())
    text = marked("{cell} fails to learn in {share}.")
    if diverged:
        text = marked("{cell} fails to learn in {share}; in {lost} it diverged.")
    share, lost = (_share(count, len(rows)) for count in (failing, diverged))
    return t(text, cell=cell.label, share=share, lost=lost)


def _share(count: int, n: int) -> str:
    if count == n:
        return t("all {n} seeds", n=n) if n > 1 else t("its one seed")
    return t("{count} of {n} seeds", count=count, n=n)


def comparisons(study: StoredGrid, cells: Sequence[Cell]) -> list[str]:
    """Ranks the cells that learn by their mean results and compares each with the next, seed by
    seed, unless a claim does."""
    learned = [cell for cell in cells if len(study.of(cell)) and not study.fails(cell)]
    learned.sort(key=lambda cell: -study.result.sign * study.values(cell).mean())
    pairs = [pair for pair in pairwise(learned) if not is_claimed(study, *pair)]
    return [_comparison(study, a, b) for a, b in pairs]


def _comparison(study: StoredGrid, better: Cell, worse: Cell) -> str:
    found, metric = difference(study, better, worse), study.result
    if not found.n:
        text = marked("{better} and {worse} have no seed in common yet.")
        return t(text, better=better.label, worse=worse.label)
    if metric.sign * found.effect < 0:  # ranked by all seeds, compared on those in common
        return _comparison(study, worse, better)
    published, kind = _published_differences(study, better, worse), interval_kind(study)
    low, high = (printed(f"{{:.{metric.digits}f}}", metric.scale * end) for end in found.interval)
    basis = marked("95% interval {low} to {high}, {kind}; {n} pairs of seeds{published}")
    basis = t(basis, low=low, high=high, n=found.n, kind=kind, published=published)
    mean = _difference_text(metric, found.effect, "+")
    text = marked("These seeds do not decide between {better} and {worse}: {mean} ({basis}).")
    if not math.isfinite(found.low):
        text = marked(
            "{better} is {mean} from {worse} in {pairs}, too few to tell what other seeds would "
            "give{published}."
        )
    elif min(metric.sign * end for end in found.interval) > 0:
        text = marked("{better} is better than {worse}: {mean} ({basis}).")
        if metric.kind == "accuracy":
            text = marked("{better} is {mean} more accurate than {worse} ({basis}).")
            mean = _difference_text(metric, found.effect)
    names = {"better": better.label, "worse": worse.label, "mean": mean}
    names["pairs"] = nt("{n} pair of runs", "{n} pairs of runs", found.n)
    return t(text, basis=basis, published=published, **names)


def _difference_text(metric: Metric, difference: float, sign: str = "") -> str:
    """+1.20 points; −0.123 in test RMSE: a difference of values."""
    text = metric.difference(metric.scale * difference, sign)
    if metric.mark:
        return text
    return t("{difference} in {metric}", difference=text, metric=t(metric.words))


def _published_differences(study: StoredGrid, *cells: Cell) -> str:
    """Returns the differences of what was published of two cells; empty without."""
    metric = study.result
    known = product(*([getattr(e, metric.name) for e in study.reported(c)] for c in cells))
    pairs = [metric.scale * (a - b) for a, b in known if a is not None and b is not None]
    texts = t(" and ").join(printed(f"{{:+.{metric.digits}f}}", each) for each in pairs)
    return t("; reported: {differences}", differences=texts) if pairs else ""


# --- a search -----------------------------------------------------------------------------------


def sections(study: StoredSearch) -> list[Section]:
    blocks: list[Block] = []
    caption = marked("Seconds of a core: training and validation, one core a trial. {data}.")
    caption = t(caption, data=study.data_name)
    blocks.append(states_table(study, caption))
    if len(study.ranked):
        blocks.append(_curves(study))
    return [Section(title=t("How the search went"), blocks=blocks)]


def progress_picture(study: StoredSearch) -> Picture | None:
    """Returns the picture of the best value so far; None before a trial has one."""
    metric = study.metric
    if not np.isfinite(selected_gains(study, study.ended)).any():
        return None
    sampler = t(label(SAMPLERS, study.file.sampler))
    runs = [_progress(study, t("this search ({sampler})", sampler=sampler))]
    if study.random is not None and len(study.random.ended):
        name = t("random search ({name})", name=study.random.name)
        runs.append(_progress(study.random, name))
    text = marked(
        "The best {metric} so far, over trials that ended and over the time of running. {data}."
    )
    return Picture(
        file="progress.svg",
        draw=partial(progress, runs, metric, drawn_reference(study)),
        alt=t("Best {metric} so far, over trials and over time.", metric=t(metric.words)),
        caption=t(text, metric=t(metric.words), data=study.data_name),
    )


def _progress(study: StoredSearch, label: str) -> Run:
    rows = study.ended
    return Run(
        label=label,
        values=selected_gains(study, rows),
        seconds=run_seconds(study, rows),
        numbers=rows["number"].to_list(),
    )


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


def drawn_reference(study: StoredSearch) -> Reference | None:
    """Returns the reference for figures; None before the finalists have ended, without one, or if
    it diverged so that no axis has its mean."""
    if study.winner is None or study.tested is None or study.reference is None:
        return None
    rows, metric = study.tested.of(study.reference), study.metric
    gains = study.tested.gains(study.reference, metric)
    if gains.empty or not np.isfinite(gains).all():
        return None
    curves = study.tested.curves
    epochs = curves[curves["number"].isin(rows["number"])].groupby("epoch")[metric.name]
    mean = epochs.mean()[epochs.count() == len(gains)]  # as long as all seeds are trained
    settings = study.reference.config.as_dict()
    return Reference(
        gain=float(gains.mean()),
        seeds=len(gains),
        curve=metric.gain(mean).to_list(),
        settings={name: choices(name).get(value, value) for name, value in settings.items()},
        cost=float(rows[study.second].mean()) if study.second else math.nan,
    )


def selected_gains(study: StoredSearch, rows: pd.DataFrame) -> list[float]:
    """Returns the gain of each ended trial: NaN if pruned, of the worst value if diverged."""
    metric = study.metric
    gains = metric.gain(rows[metric.name]).mask(rows["state"] == "PRUNED")
    return [float(gain) for gain in gains.mask(rows["diverged"], metric.gain(metric.worst))]


def states_table(study: StoredSearch, caption: str) -> Table:
    """Returns the number and the seconds of the trials in each state."""
    rows = [(state, of["spent"]) for state, of in trials_by_state(study).items() if len(of)]
    columns = [
        Column("state", t("State"), lambda row: t(row[0])),
        Column("trials", t("Trials"), lambda row: len(row[1])),
        Column("seconds", t("Seconds of a core"), lambda row: row[1].sum(), "{:.0f}"),
        Column("median", t("Median seconds"), lambda row: row[1].median(), "{:.1f}"),
    ]
    return Table(columns=columns, rows=rows, caption=caption)


def _curves(study: StoredSearch) -> Picture:
    best = study.ranked.head(BEST)
    stopped = study.trials[(study.trials["state"] == "PRUNED") & ~study.trials["diverged"]]
    alt = marked("{metric} by epoch of the best trials.")
    caption = marked("{metric} of {best}. {data}.")
    if len(stopped):
        alt = marked("{metric} by epoch of the best trials, and of those stopped early.")
        caption = marked("{metric} of {best}, and of {stopped}. {data}.")
    parts = (best, stopped)
    drawn, ended = ([_curve(study, int(number)) for number in part["number"]] for part in parts)
    known = {"metric": capital(t(study.metric.words)), "data": study.data_name}
    known["best"] = nt("the best trial", "the {n} best trials", len(best))
    known["stopped"] = nt(
        "the one stopped early up to where it ended",
        "the {n} stopped early up to where they ended",
        len(stopped),
    )
    return Picture(
        file="curves.svg",
        draw=partial(trial_curves, drawn, ended, drawn_reference(study)),
        alt=t(alt, **known),
        caption=t(caption, **known),
    )


def _curve(study: StoredSearch, number: int) -> TrialCurve:
    rows = study.curves[study.curves["number"] == number]
    label = f"#{number}: {study.config(number).brief}"
    gains = study.metric.gain(rows[study.metric.name]).to_list()
    return TrialCurve(label=label, values=gains, metric=study.metric)
