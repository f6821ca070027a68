"""The report's section on how exact the results are: over seeds, and over test images."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from hpo.analysis.evidence import most_failures
from hpo.analysis.precision import Precision, cell_precision, disputed, disputing_pair
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import data_text, most_accurate
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.table import Column, Entry, Table
from hpo.report.blocks.words import ends_entry, span_entry
from hpo.report.figures import confusion as figures
from hpo.results.study import StoredGrid
from hpo.study.file import Cell
from hpo.study.metrics import Metric, capital


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section, if any network has finished runs."""
    cells = [cell for cell in most_accurate(study, study.file.cells) if len(study.of(cell))]
    if not cells:
        return []
    found = {cell: cell_precision(study, cell) for cell in cells}
    blocks = [_table(study, found), *_picture(study)]
    title = marked("How exact the accuracies are")
    if study.regression:
        title = marked("How exact the results are")
    return [Section(title=t(title), blocks=blocks)]


def _table(study: StoredGrid, found: Mapping[Cell, Precision]) -> Table:
    things, result = t(study.things), study.result

    def of_seeds(row: tuple[Cell, Precision]) -> Entry:
        return _interval(result, row[1].seeds)

    fails = any(study.fails(cell) for cell in found)
    caption = marked(
        "{data}. {bound}Intervals: 95%, for other seeds on these "
        "{n:,} test {things}, and for other test {things} as well, which is at least as wide. "
        "{name}' share: how much of the variance between runs would go if there were many more "
        "test {things}, with its 95% interval."
    )
    if study.regression:
        caption = marked(
            "{data}. {bound}Intervals: 95%, over seeds: for "
            "other seeds on these {n:,} test {things}, not for other {things}."
        )
    bound = t("At most: with 95% (Clopper and Pearson).") + " " if fails else ""
    named = {"data": data_text(study), "things": things, "name": things.capitalize()}
    name, mark = capital(t(result.words)), f" ({result.mark})" if result.mark else ""
    exact = t("{metric} where it learns", metric=name) + mark
    mean = f"{{:.{result.digits}f}}"
    columns = [
        Column("model", t("Model"), lambda row: row[0].label),
        *(_failures(study) if fails else []),
        Column("mean", t("mean"), lambda row: result.scale * row[1].mean, mean, group=exact),
        Column("seeds", t("other seeds"), of_seeds, group=exact),
        *([] if study.regression else _over_images(study, exact)),
    ]
    caption = t(caption, n=study.data["test"], bound=bound, **named)
    return Table(columns=columns, rows=list(found.items()), caption=caption)


def _over_images(study: StoredGrid, exact: str) -> list[Column]:
    """Returns the columns of what depends on which rows are right. exact: the group of means."""
    things, result = t(study.things), study.result

    def of_share(row: tuple[Cell, Precision]) -> Entry:
        low, high = (100 * end for end in row[1].images_share[1:])
        return ends_entry(marked("{low:.0f} to {high:.0f}%"), low, high)

    share = t("{things}' share of the spread", things=things.capitalize())
    return [
        Column(
            "both", t("seeds and {things}", things=things),
            lambda row: _interval(result, row[1].both), group=exact,
        ),
        Column(
            "share", t("share"), lambda row: 100 * row[1].images_share[0], "{:.0f}%", group=share
        ),
        Column("share_interval", t("95% interval"), of_share, group=share),
    ]  # fmt: skip


def _failures(study: StoredGrid) -> list[Column]:
    """Returns the columns of how often a cell fails to learn. Rows: a cell and its precision."""

    def failing(row: tuple[Cell, Precision]) -> tuple[int, int]:
        return int(study.failing(row[0]).sum()), len(study.of(row[0]))

    def seen(row: tuple[Cell, Precision]) -> Entry:
        k, n = failing(row)
        return Entry(t("{k} of {n}", k=k, n=n), k)

    def at_most(row: tuple[Cell, Precision]) -> float:
        return 100 * most_failures(*failing(row))

    group = t("Runs that fail to learn")
    return [
        Column("failing", t("seen"), seen, group=group),
        Column("most_failing", t("at most"), at_most, "{:.0f}%", group=group),
    ]


def _interval(metric: Metric, bounds: tuple[float, float]) -> Entry:
    low, high = (metric.gain(bound) for bound in bounds[:: metric.sign])
    return span_entry(metric, low, high)


def _picture(study: StoredGrid) -> list[Block]:
    """Returns the picture of the images that two networks disagree on, if they are stored."""
    cells = disputing_pair(study)
    if cells is None or not study.images:
        return []
    ours, theirs = (study.right(cell) for cell in cells)
    a, b = (cell.label for cell in cells)
    sides = disputed(ours, theirs)
    stored = {index: study.images.get(str(index), {}) for side in sides for index in side}
    if not stored or not all(image.get("pixels") for image in stored.values()):
        return []

    def drawn(index: int) -> tuple[np.ndarray, str, str]:
        """Returns pixels, the label with how many of our seeds are right, how many of theirs."""
        label, pixels = study.classes[stored[index]["label"]], stored[index]["pixels"]
        right = [t("{k} of {n}", k=int(bits[index].sum()), n=len(bits)) for bits in (ours, theirs)]
        return study.picture(pixels), f"{label}: {right[0]}", right[1]

    titles = [t("{a} is right more often than {b}", a=x, b=y) for x, y in ((a, b), (b, a))]
    sided = zip(titles, sides, strict=True)
    groups = [(title, [drawn(index) for index in side]) for title, side in sided if side]
    lead = (ours.mean(axis=0) - theirs.mean(axis=0)).to_numpy()
    caption = marked(
        "The test images that {a} and {b} disagree on most: label, and with how many seeds {a} and "
        "{b} are right. Images won with more than half of the seeds beyond the other: {by_a} by "
        "{a}, {by_b} by {b}. {data}."
    )
    won = {"by_a": int((lead > 0.5).sum()), "by_b": int((lead < -0.5).sum())}
    return [
        Picture(
            file="disputed.svg",
            draw=partial(figures.disputed, groups),
            alt=t("Test images that {a} and {b} disagree on.", a=a, b=b),
            caption=t(caption, a=a, b=b, data=data_text(study), **won),
        )
    ]
