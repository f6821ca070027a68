"""A grid's report: all networks at a glance."""

from functools import partial

from hpo.language import t
from hpo.report.blocks import grid_tables as tables
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.table import Table
from hpo.report.figures import grid as figures
from hpo.report.sections.course import curve_cells
from hpo.results.study import StoredGrid
from hpo.study.file import Cell
from hpo.study.metrics import capital


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section with the picture and the tables of all networks."""
    shown, result = tables.most_accurate(study, study.file.cells), study.result
    said = capital(t(result.words))
    rows = [row for row in overview_rows(study) if row[0] in shown]
    dots = [_dots(study, cell, which) for cell, which in rows]
    blocks: list[Block] = []
    if any(row.values for row in dots):
        blocks.append(
            Picture(
                file="overview.svg",
                draw=partial(figures.overview, dots, result.gain(study.line), result, study.floor),
                alt=t(
                    "{metric} of every network: a dot for each seed, a bar at their mean.",
                    metric=said,
                ),
                caption=t(
                    "{metric}, a dot a seed. {data}.", metric=said, data=tables.data_text(study)
                )
                + tables.of_many(study, shown, study.file.cells)
                + tables.at_worst(study),
            )
        )
    blocks.append(main_table(study))
    blocks += [table] if (table := tables.recall_table(study)) else []
    blocks += [
        t(
            "{labels} are one configuration, published more than once: its seeds were trained once "
            "and stand in each of its rows.",
            labels=t(" and ").join(entry.label for entry in study.reported(cell)),
        )
        for cell in study.file.cells
        if len(study.reported(cell)) > 1
    ]
    return [Section(title=t("All networks at a glance"), blocks=blocks)]


def _dots(study: StoredGrid, cell: Cell, which: int | None) -> figures.Dots:
    entry, result = None if which is None else cell.reported[which], study.result
    reported = getattr(entry, result.name) if entry else None
    return figures.Dots(
        label=entry.label if entry else cell.label,
        fails=study.fails(cell),
        values=study.gains(cell, result).to_list(),
        reported=None if reported is None else result.gain(reported),
    )


def main_table(study: StoredGrid) -> Table:
    """Returns a row per network: its settings, reported and reproduced results."""
    caption = f"{tables.basis(study)}. {tables.results_key(study, study.file.cells)}."
    return tables.cells_table(study, overview_rows(study), caption).but("name")


def overview_rows(study: StoredGrid) -> list[tuple[Cell, int | None]]:
    """Returns a row per published network, in the order of the experiments."""
    file, by_name = study.file, {cell.name: cell for cell in study.file.cells}
    published = {name: len(study.reported(cell)) for name, cell in by_name.items()}
    visits = [name for e in file.experiments for name in curve_cells(file, e)]
    rest = [name for name in by_name for _ in range(max(published[name], 1))]
    rows: list[tuple[Cell, int | None]] = []
    for name in [*visits, *rest]:  # the rest: what no experiment came to, or not often enough
        cell = by_name[name]
        before = sum(shown is cell for shown, _ in rows)
        if before < max(published[name], 1):
            rows.append((cell, before if published[name] else None))
    return rows
