"""The report's section on interactions, of a grid that is a full factorial."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np

from hpo.analysis.components import Component, factorial
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import at_worst, data_text, plural
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.table import Column, Entry, Table
from hpo.report.blocks.words import ends_entry
from hpo.report.figures import grid as figures
from hpo.results.study import StoredGrid
from hpo.study.file import Cell, GridStudy
from hpo.text import listed

Levels = dict[str, list[object]]


def factors(file: GridStudy) -> Levels:
    """Returns {hyperparameter: its levels} if the cells are a full factorial of two or more
    hyperparameters; empty if not."""
    configs = [cell.config.as_dict() for cell in file.cells]
    levels: Levels = {}
    for name in (n for n in configs[0] if all(n in config for config in configs)):
        values = list(dict.fromkeys(config[name] for config in configs))
        if len(values) > 1:
            levels[name] = sorted(values) if isinstance(values[0], (int, float)) else values
    combinations = {tuple(config[name] for name in levels) for config in configs}
    full = math.prod(map(len, levels.values())) == len(file.cells) == len(combinations)
    same = len({(cell.varies, cell.crossed) for cell in file.cells}) == 1
    return levels if len(levels) > 1 and full and same else {}


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on main effects and interactions, if the grid is a full factorial and
    its cells have two common seeds or more."""
    levels = factors(study.file)
    values = _values(study, levels) if levels else np.empty(0)
    if len(values) < 2:
        return []
    found = factorial(values, list(levels))
    together = sum(c.share for c in found if len(c.effect) > 1)
    text = marked(
        "Every combination of {names} was trained, so it can be seen whether the effect of one "
        "depends on another. Interactions, which a study that changes one thing at a time cannot "
        "see, make {share:.0f}% of the differences between networks here."
    )
    blocks: list[Block] = [t(text, names=listed(list(levels)), share=100 * together)]
    blocks += [_table(study, found, len(values)), _picture(study, levels, values)]
    return [Section(title=t("Do hyperparameters interact?"), blocks=blocks)]


def _values(study: StoredGrid, levels: Levels) -> np.ndarray:
    """Returns gains of results, (seeds, levels …), of the seeds that all cells have, see
    StoredGrid.results."""
    by_key: dict[tuple[object, ...], Cell] = {
        tuple(cell.config.as_dict()[name] for name in levels): cell for cell in study.file.cells
    }
    columns = [study.results(by_key[key]) for key in product(*levels.values())]
    common = set.intersection(*(set(column.index) for column in columns))
    rows = np.array([[column[seed] for column in columns] for seed in sorted(common)])
    return rows.reshape(len(rows), *(len(values) for values in levels.values()))


def _table(study: StoredGrid, found: Sequence[Component], seeds: int) -> Table:
    def kind(row: Component) -> str:
        return t("effect") if len(row.effect) == 1 else t("interaction")

    def interval(row: Component) -> Entry:
        return ends_entry(marked("{low:.1f} to {high:.1f}%"), 100 * row.low, 100 * row.high)

    caption = marked(
        "{data}. Variance between the mean {results} of the {networks} networks over {seeds} "
        "seeds, runs that fail to learn included, split as in an analysis of variance; an "
        "interaction is what its parts do not explain one by one. Intervals: bootstrap over the "
        "seeds."
    )
    known = {"data": data_text(study), "results": plural(study.result), "seeds": seeds}
    caption = t(caption, networks=len(study.file.cells), **known) + at_worst(study)
    columns = [
        Column("of", t("Hyperparameters"), lambda row: " × ".join(row.effect)),
        Column("kind", t("Kind"), kind),
        Column("share", t("Share of the variance"), lambda row: 100 * row.share, "{:.1f}%"),
        Column("interval", t("95% interval"), interval),
    ]
    rows = sorted(found, key=lambda component: -component.share)
    return Table(columns=columns, rows=rows, caption=caption)


def _picture(study: StoredGrid, levels: Levels, values: np.ndarray) -> Picture:
    """Draws the factor with the most levels along x, the next one as lines, others as panels."""
    names = sorted(levels, key=lambda name: -len(levels[name]))
    across, line, others = names[0], names[1], names[2:]
    axes = [list(levels).index(name) for name in (*others, line, across)]
    ordered = np.transpose(values, (*(axis + 1 for axis in axes), 0))
    keys = list(product(*(range(len(levels[name])) for name in others)))[:4]  # a panel each
    panels = {
        ", ".join(_level(levels[name][i]) for name, i in zip(others, key, strict=True)): {
            _level(value): ordered[key][i] for i, value in enumerate(levels[line])
        }
        for key in keys
    }
    caption = marked(
        "Mean {metric} over {across}, a line for each {line}, a dot for each seed. Lines that are "
        "not parallel are an interaction. {data}."
    )
    named = {"metric": t(study.result.words), "across": across, "line": line}
    texts = list(map(_level, levels[across]))
    return Picture(
        file="interactions.svg",
        draw=partial(figures.interactions, panels, across, texts, study.result),
        alt=t("Mean {metric} over {across}, a line for each {line}.", **named),
        caption=t(caption, data=data_text(study), **named),
    )


def _level(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
