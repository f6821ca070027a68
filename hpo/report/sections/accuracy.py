"""The report's section on how exact the accuracies are: over seeds, and over test images."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from hpo.analysis.evidence import most_failures
from hpo.analysis.precision import Precision, disputed, disputing_pair, precision
from hpo.analysis.statistics import estimate
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import data_text, most_accurate
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.table import NOTHING, Column, Entry, Table
from hpo.report.blocks.words import bounded
from hpo.report.figures import confusion as figures
from hpo.report.sections.basis import learning_images
from hpo.results.study import StoredGrid
from hpo.study.file import Cell


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section, if any network has finished runs."""
    cells = [cell for cell in most_accurate(study, study.file.cells) if len(study.of(cell))]
    if not cells:
        return []
    found = {cell.name: of_cell(study, cell) for cell in cells}
    blocks: list[Block] = [_table(study, cells, found)]
    blocks += _share_sentence(study, [p for p in found.values() if p is not None])
    blocks += _picture(study)
    return [Section(title=t("How exact the accuracies are"), blocks=blocks)]


def of_cell(study: StoredGrid, cell: Cell) -> Precision | None:
    """Returns the precision of a cell's test accuracy over the seeds with which it learns; None if
    there are none. Without stored images, the interval over images is NaN."""
    if not study.right(cell).empty:
        kept = learning_images(study, cell)
        return precision(kept.to_numpy()) if len(kept) else None
    values = study.values(cell)[~study.failing(cell)].dropna()
    if not len(values):
        return None
    own, nothing = estimate(values.to_numpy()), (math.nan, math.nan)
    bounds = (own.low, own.high)
    return Precision(mean=own.mean, seeds=bounds, both=nothing, images_share=math.nan)


def _table(study: StoredGrid, cells: Sequence[Cell], found: dict[str, Precision | None]) -> Table:
    things = t(study.things)
    rows = [(c, len(study.of(c)), int(study.failing(c).sum()), found[c.name]) for c in cells]
    caption = marked(
        "{data}. At most: with 95% (Clopper and Pearson). Intervals: 95%, for other seeds on these "
        "{n:,} test {things}, and for other test {things} as well. {name}' share: how much of the "
        "variance between runs would go if there were many more test {things}."
    )
    named = {"data": data_text(study), "things": things, "name": things.capitalize()}
    fails, exact = t("Runs that fail to learn"), t("Test accuracy where it learns (%)")
    share = t("{things}' share of the spread", things=things.capitalize())
    columns = [
        Column("model", t("Model"), lambda row: row[0].label),
        Column(
            "failing", t("seen"),
            lambda row: Entry(t("{k} of {n}", k=row[2], n=row[1]), row[2]), group=fails,
        ),
        Column(
            "most_failing", t("at most"),
            lambda row: 100 * most_failures(row[2], row[1]), "{:.0f}%", group=fails,
        ),
        Column("mean", t("mean"), lambda row: row[3] and 100 * row[3].mean, "{:.2f}", group=exact),
        Column(
            "seeds", t("other seeds"), lambda row: row[3] and _interval(row[3].seeds), group=exact
        ),
        Column(
            "both", t("seeds and {things}", things=things),
            lambda row: row[3] and _interval(row[3].both), group=exact,
        ),
        Column("share", share, lambda row: row[3] and 100 * row[3].images_share, "{:.0f}%"),
    ]  # fmt: skip
    return Table(columns=columns, rows=rows, caption=t(caption, n=study.data["test"], **named))


def _interval(bounds: tuple[float, float]) -> Entry:
    low, high = (bounded(100 * bound) for bound in bounds)
    if math.isnan(low):
        return Entry(NOTHING)
    return Entry(t("{low:.2f} to {high:.2f}", low=low, high=high), low)


def _share_sentence(study: StoredGrid, found: Sequence[Precision]) -> list[str]:
    shares = [100 * p.images_share for p in found if not math.isnan(p.images_share)]
    wider = [
        (p.both[1] - p.both[0]) / (p.seeds[1] - p.seeds[0])
        for p in found
        if p.seeds[1] > p.seeds[0] and p.both[1] > p.both[0]
    ]
    if not shares or not wider:
        return []
    low, high = f"{min(shares):.0f}", f"{max(shares):.0f}"
    text = marked(
        "{span} of the variance between runs comes from the test {things} being few. Intervals for "
        "other test {things} are {wider:.1f} times as wide (median). Differences of two networks "
        "on the same {things} are more exact than their accuracies."
    )
    span = f"{low}%" if low == high else t("{low} to {high}%", low=low, high=high)
    return [t(text, things=t(study.things), span=span, wider=np.median(wider))]


def _picture(study: StoredGrid) -> list[Block]:
    """Returns the picture of the images that two networks disagree on, if they are stored."""
    cells = disputing_pair(study)
    if cells is None or not study.images:
        return []
    ours, theirs = (study.right(cell) for cell in cells)
    a, b = (cell.label for cell in cells)
    sides = disputed(ours, theirs)
    if not any(sides) or not all(str(i) in study.images for side in sides for i in side):
        return []
    if not all(study.images[str(i)]["pixels"] for side in sides for i in side):
        return []
    titles = [t("{a} is right more often than {b}", a=x, b=y) for x, y in ((a, b), (b, a))]
    groups = [
        (title, [_disputed(study, ours, theirs, image) for image in side])
        for title, side in zip(titles, sides, strict=True)
        if side
    ]
    lead = (ours.mean(axis=0) - theirs.mean(axis=0)).to_numpy()
    caption = marked(
        "The test images that {a} and {b} disagree on most: label, and with how many seeds {a} and "
        "{b} are right. {by_a} images are won by {a} with more than half of the seeds beyond {b}, "
        "{by_b} by {b}. {data}."
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


def _disputed(
    study: StoredGrid, ours: pd.DataFrame, theirs: pd.DataFrame, image: int
) -> tuple[np.ndarray, str, str]:
    """Returns pixels, the label with how many of our seeds are right, and how many of theirs."""
    stored = study.images[str(image)]
    right = [t("{k} of {n}", k=int(of[image].sum()), n=len(of)) for of in (ours, theirs)]
    label = study.classes[stored["label"]]
    return study.picture(stored["pixels"]), f"{label}: {right[0]}", right[1]
