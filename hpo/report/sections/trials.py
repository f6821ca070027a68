"""A search's best trials, their trade-off, and whether they lie on a bound of the space."""

import math
from functools import partial

from hpo.language import marked, t
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.search_tables import best_table
from hpo.report.figures import search as figures
from hpo.report.figures.axis import beyond
from hpo.results import trial as record
from hpo.results.study import StoredSearch
from hpo.study.config import BOUNDS, Config
from hpo.study.file import SECOND
from hpo.study.metrics import capital
from hpo.study.space import Range

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
        caption = marked("One training each, on {data}, all with the same split and seed.")
        table = best_table(study, caption=t(caption, data=study.data_name))
        blocks.append(table.but("network"))
        if study.tested is None:
            best = study.config(int(study.ranked.iloc[0]["number"]))
            blocks.append(at_bounds(study, best))
    return [Section(title=t("The best trials"), blocks=blocks)]


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
