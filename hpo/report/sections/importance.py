"""What mattered: a grid's differences from its baseline, a search's hyperparameters."""

import math
from collections.abc import Iterator
from functools import partial

from hpo.analysis import importance
from hpo.analysis.claims import difference
from hpo.language import marked, t
from hpo.report.blocks import grid_tables as tables
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.search_tables import over_limit
from hpo.report.figures import grid, search
from hpo.report.figures.axis import Parameter
from hpo.report.figures.contour import contour
from hpo.report.figures.slices import slices
from hpo.report.sections.basis import interval_kind
from hpo.report.sections.course import drawn_reference
from hpo.results.study import StoredGrid, StoredSearch
from hpo.study.file import Cell
from hpo.study.metrics import capital
from hpo.study.names import choices
from hpo.study.space import Range
from hpo.text import listed

# Trials with which an order of importance begins to be stable, see analysis.importance.FEW.
LEAST = 15


def differences(study: StoredGrid) -> list[Section]:
    """Compares each cell with the first one, the baseline: the grid's counterpart of
    importances."""
    baseline, *others = study.file.cells
    shown = tables.most_accurate(study, others)
    rows = [row for cell in shown if (row := _difference(study, cell, baseline))]
    if not rows:
        return []
    result, named = study.result, {"baseline": baseline.label}
    words = {"metric": capital(t(result.words)), "data": tables.data_text(study)}
    caption = marked(
        "Test accuracy minus that of {baseline}, seed by seed, where both learn: mean and 95% "
        "interval ({kind}). {data}."
    )
    if study.regression:
        caption = marked(
            "{metric} minus that of {baseline}, seed by seed, where both learn: mean and 95% "
            "interval ({kind}). {data}."
        )
    picture = Picture(
        file="importance.svg",
        draw=partial(grid.differences, rows, baseline.label, _far(study)),
        alt=t(
            "Difference of each network's {metric} from that of {baseline}.",
            metric=t(result.words), **named,
        ),
        caption=t(caption, kind=interval_kind(study), **words, **named)
        + tables.of_many(study, shown, others)
        + tables.at_worst(study),
    )  # fmt: skip
    return [Section(title=t("How far each network is from {baseline}", **named), blocks=[picture])]


def _difference(study: StoredGrid, cell: Cell, baseline: Cell) -> grid.DifferenceRow | None:
    """Returns a cell's difference from the baseline; None without a common seed."""
    a, b = study.paired(cell, baseline)
    if a.empty:
        return None
    found, result = difference(study, cell, baseline), study.result
    mean, ends = float((a - b).mean()), (math.nan, math.nan)
    if found.n:
        mean = result.gain(found.effect)
    if math.isfinite(found.low):
        low, high = (result.gain(end) for end in found.interval[:: result.sign])
        ends = low, high
    return grid.DifferenceRow(label=cell.label, mean=mean, low=ends[0], high=ends[1], metric=result)


def _far(study: StoredGrid) -> float:
    """Returns the difference, of gains, from which on a figure has another scale."""
    result = study.result
    share = grid.FAR / 100
    return share * (result.most - study.floor)


def sections(study: StoredSearch) -> list[Section]:
    """Returns the section on importances, or on how many trials they need."""
    title, finished = t("Which hyperparameters mattered"), len(study.ended)
    few = t("This needs {least} finished trials; there are {n}.", least=LEAST, n=finished)
    importances = importance.evaluate(study.frozen, sign=study.metric.sign, log_scale=True)
    if importances is None:  # too few trials, or all have the same hyperparameters
        return [Section(title=title, blocks=[few])] if finished < LEAST else []
    if finished < LEAST:
        return [Section(title=title, blocks=[few, next(_effects(study, importances))])]
    evaluators = listed([each.evaluator for each in importances.evaluations])
    bars = {
        name: {
            each.evaluator: (100 * share.share, 100 * share.low, 100 * share.high)
            for each in importances.evaluations
            if (share := each.shares.get(name))
        }
        for name in importance.ranked(importances)
    }
    alt = marked("Importance of each hyperparameter by {evaluators}, with 95% intervals.")
    caption = marked(
        "Share of importance by {evaluators}; whiskers: 95% of bootstrap resamples of the trials. "
        "{data}."
    )
    blocks: list[Block] = [
        Picture(
            file="importance.svg",
            draw=partial(search.importance, bars),
            alt=t(alt, evaluators=evaluators),
            caption=t(caption, evaluators=evaluators, data=study.data_name),
        ),
        list(importances.notes),
    ]
    return [Section(title=title, blocks=[*blocks, *_effects(study, importances)])]


def _effects(study: StoredSearch, importances: importance.Importances) -> Iterator[Block]:
    rows, reference = study.ended, drawn_reference(study)
    metric, numbers = study.metric, rows["number"].to_list()
    gains, said = metric.gain(rows[metric.name]), capital(t(metric.words))
    states = rows["state"].mask(over_limit(rows), "LIMITED").mask(rows["diverged"], "DIVERGED")
    parameters = [_parameter(study, name) for name in importance.ranked(importances)]
    yield Picture(
        file="slices.svg",
        draw=partial(slices, parameters, gains.to_list(), list(states), numbers, metric, reference),
        alt=t("{metric} of every trial against each of its hyperparameters.", metric=said),
        caption=t(
            "Every trial against each hyperparameter. Points are dense where the sampler preferred "
            "a region. {data}.",
            data=study.data_name,
        ),
    )
    pair = importance.most_important_pair(importances)
    if pair:
        x, y = (_parameter(study, name) for name in pair)
        caption = marked("{metric} of the trials that ran to their end, over {a} and {b}. {data}.")
        known = {"metric": said, "a": pair[0], "b": pair[1]}
        complete = gains.where(states == "COMPLETE").to_list()  # NaN for all others
        yield Picture(
            file="contour.svg",
            draw=partial(contour, x, y, complete, numbers, metric, reference),
            alt=t("{metric} over {a} and {b}.", **known),
            caption=t(caption, data=study.data_name, **known),
        )


def _parameter(study: StoredSearch, name: str) -> Parameter:
    domain = study.file.space[name]
    log, labels = isinstance(domain, Range) and domain.log, choices(name)
    values = [labels.get(value, value) for value in study.ended[name]]
    return Parameter(name=name, values=values, log=log)
