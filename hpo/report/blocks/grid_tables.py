"""A grid's results as tables, reported values beside reproduced ones, and their captions."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hpo.analysis.statistics import summarize
from hpo.language import marked, nt, t
from hpo.report.blocks.table import NOTHING, Column, Entry, Table
from hpo.report.blocks.words import summary_text
from hpo.results.study import StoredGrid
from hpo.study.config import MOSTLY_SHARED, Config
from hpo.study.file import COLUMNS, Cell, Reported
from hpo.study.metrics import Metric, uncapital
from hpo.study.names import ACTIVATIONS, OPTIMIZERS, label

MOST_SHOWN, MOST_CLASSES = 40, 10  # cells, classes

# In the terminal, besides the first result: header, and the priority of Column.
SHORT = {"train_seconds": ("seconds", 4)}
LESS = 3  # priority of other results


def data_text(study: StoredGrid) -> str:
    """Data: MNIST; with a warning if the study file names other data."""
    if study.data["name"] == study.file.dataset.short:
        return t("Data: {data}", data=study.data_name)
    return t("Data: {data}, not {asked}", data=study.data_name, asked=study.asked_name)


def basis(study: StoredGrid) -> str:
    """Describes the data that the main table is based on."""
    text = marked("{data}; accuracy and loss on its {n:,} test {things}")
    if study.regression:
        text = marked("{data}; errors on its {n:,} test {things}, RMSE and MAE in the label's unit")
    return t(text, data=data_text(study), n=study.data["test"], things=t(study.things))


def plural(metric: Metric) -> str:
    """test accuracies; test RMSE: a metric's values in a sentence."""
    return t("test accuracies") if metric.kind == "accuracy" else t(metric.words)


def at_worst(study: StoredGrid) -> str:
    """Says at the end of a caption what counts for a run that is worse than StoredGrid.floor; of
    accuracies none is, nor where all networks learn."""
    if not study.regression or not any(map(study.fails, study.file.cells)):
        return ""
    return " " + t("Here a run that is worse than a guess counts as a guess.")


def results_key(study: StoredGrid, cells: Sequence[Cell]) -> str:
    """Says what a result is: the end of a caption."""
    if all(len(study.of(cell)) < 2 for cell in cells):
        return t("A single run each")
    if any(study.fails(cell) for cell in cells):
        return t(
            "Mean ± standard deviation over the seeds; median (range) where runs fail to learn"
        )
    return t("Mean ± standard deviation over the seeds")


def of_many(study: StoredGrid, shown: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """Returns a sentence for a caption if not all networks are shown."""
    if len(shown) == len(cells):
        return ""
    text = marked("The {shown} most accurate of {n:,} networks; the tables have all.")
    if study.regression:
        text = marked("The {shown} best of {n:,} networks; the tables have all.")
    return f" {t(text, shown=len(shown), n=len(cells))}"


def reproduced(study: StoredGrid, cell: Cell, figure: str) -> Entry:
    """mean ± std, or median (range) where runs fail; an en dash without a finished trial."""
    metric = study.named(figure)
    values = study.of(cell)[figure] * metric.scale
    summary = summarize(values.to_list())
    if summary is None:
        return Entry(t("{n} not finite", n=len(values)) if len(values) else NOTHING)
    if figure == "train_seconds" and (study.of(cell)["stack"] > 1).any():
        return Entry(f"{summary.mean:.{metric.digits}f}", summary.mean)  # shared, see protocol
    collapsed = study.fails(cell) and figure != "train_seconds"
    text = summary_text(summary, metric.digits, collapsed=collapsed)
    if lost := len(values) - summary.n:
        text = f"{text}, {t('{n} not finite', n=lost)}"
    return Entry(text, summary.median if collapsed else summary.mean)


def _reported(entries: Sequence[Reported], metric: Metric) -> Entry:
    """Returns published values of a cell."""
    values = [metric.scale * v for e in entries if (v := getattr(e, metric.name)) is not None]
    texts = [f"{value:.{metric.digits}f}" for value in values]
    return Entry(t(" and ").join(texts) or NOTHING, next(iter(values), None))


def setting_columns(
    rows: Sequence[Any], of: Callable[[Any], Config], *, lr: str = "{}", fixed: Sequence[str] = ()
) -> list[Column]:
    """Returns the columns of what the networks of these rows are.

    of: returns a row's network. lr: the format of learning rates. fixed: hyperparameters that all
    networks share.
    """

    def activation(row: Any) -> str | None:
        return None if of(row).model else label(ACTIVATIONS, of(row).activation)

    columns = [
        Column("hidden_layers", t(COLUMNS["hidden_layers"]), lambda row: of(row).layers),
        Column("activation", t(COLUMNS["activation"]), activation),
        Column("optimizer", t(COLUMNS["optimizer"]), lambda r: label(OPTIMIZERS, of(r).optimizer)),
        Column("lr", t(COLUMNS["lr"]), lambda row: of(row).lr, lr),
    ]
    alike = [n for n in MOSTLY_SHARED if len({getattr(of(row), n) for row in rows}) == 1]
    left_out = (*fixed, *alike)
    if any(of(row).extras(left_out) for row in rows):
        columns.append(Column("further", t("Further"), lambda r: of(r).extras(left_out) or None))
    return columns


def cells_table(
    study: StoredGrid, rows: Sequence[tuple[Cell, int | None]], caption: str = ""
) -> Table:
    """Returns a row per cell, or per entry of what was published of it, with all columns of pages
    and the terminal."""
    sought = study.metric.tested
    columns = [
        Column("name", "cell", lambda row: row[0].name),
        Column("model", t("Model"), lambda row: _label(*row)),
        *setting_columns(rows, lambda row: row[0].config),
        *([] if sought.name in study.figures else [_found(study, sought.name, sought.header)]),
        *(column for figure in study.figures for column in _results(study, figure)),
        Column("seeds", t("Seeds"), lambda row: len(study.of(row[0])), short="seeds", priority=2),
    ]
    return Table(columns=columns, rows=rows, caption=caption)


def _results(study: StoredGrid, figure: str) -> Sequence[Column]:
    """Returns the columns of reported and reproduced results."""
    metric, published = study.named(figure), study.published
    if study.regression:  # of several errors most publications give one
        entries = [entry for cell in study.file.cells for entry in study.reported(cell)]
        published = any(getattr(entry, figure) is not None for entry in entries)
    group = t(COLUMNS[figure]) if published else ""
    header = t("reproduced") if published else t(COLUMNS[figure])
    priority = 0 if figure == study.result.name else LESS
    short, priority = SHORT.get(figure, (uncapital(metric.header), priority))
    found = _found(study, figure, header, group=group, short=short, priority=priority)
    if not published:
        return [found]

    def reported(row: tuple[Cell, int | None]) -> Entry:
        entries = study.reported(row[0])
        return _reported(entries if row[1] is None else entries[row[1] : row[1] + 1], metric)

    paper = Column(
        f"{figure}.reported", t("reported"), reported,
        group=group, short=f"reported{f' ({metric.mark})' if metric.mark else ''}", priority=1,
    )  # fmt: skip
    return [paper, found]


def _found(study: StoredGrid, figure: str, header: str, **more: Any) -> Column:
    return Column(figure, header, lambda row: reproduced(study, row[0], figure), **more)


def _label(cell: Cell, which: int | None) -> str:
    return cell.label if which is None else cell.reported[which].label


def recall_table(study: StoredGrid) -> Table | None:
    """Returns a row per cell: mean balanced accuracy, and the mean recall of each class; None for
    balanced classes and where no recall is stored.

    Recall: the share of a class's test images that the network gets right. Balanced accuracy: the
    mean of the classes' recalls (scikit-learn's balanced_accuracy_score).
    """
    if not study.data.get("unbalanced"):
        return None
    by_cell: dict[str, list[np.ndarray]] = {}
    for trial in study.frozen:
        if trial.state.name == "COMPLETE" and "test_recall" in trial.user_attrs:
            recall = np.array(trial.user_attrs["test_recall"], float)
            by_cell.setdefault(trial.user_attrs["cell"], []).append(recall)
    if not by_cell:
        return None
    every = np.mean([np.mean(recalls, axis=0) for recalls in by_cell.values()], axis=0)
    tested = np.flatnonzero(~np.isnan(every))
    shown = sorted(tested[np.argsort(every[tested], kind="stable")[:MOST_CLASSES]])
    columns = [
        Column("model", t("Model"), lambda row: row[0].label),
        Column("balanced", t("Balanced accuracy (%)"), lambda row: _balanced(row[1])),
        *(
            Column(
                f"class.{place}", study.classes[place],
                partial(_recall, place), "{:.1f}", group=t("Recall (%)"),
            )
            for place in shown
        ),
        Column("seeds", t("Seeds"), lambda row: len(row[1])),
    ]  # fmt: skip
    rows = [(c, 100 * np.array(by_cell[c.name])) for c in study.file.cells if c.name in by_cell]
    caption = _recall_caption(study, len(every), len(tested), len(shown))
    return Table(columns=columns, rows=rows, caption=caption)


def _recall_caption(study: StoredGrid, classes: int, tested: int, shown: int) -> str:
    which = t("each class")
    if shown < tested:
        which = t("the {most} hardest of {n} classes", most=MOST_CLASSES, n=tested)
    text = marked(
        "The classes of {data} are unbalanced. Recall of {which}: the share of its test {things} "
        "that is right, mean over seeds. Balanced accuracy: the mean of all classes' recalls, "
        "± standard deviation over seeds."
    )
    things = t(study.things)
    caption = t(text, data=study.data_name, which=which, things=things)
    if absent := classes - tested:
        caption += " " + nt(
            "Not shown: {n} of {classes} classes has no test {things}.",
            "Not shown: {n} of {classes} classes have no test {things}.",
            absent, classes=classes, things=things,
        )  # fmt: skip
    return caption


def _recall(place: int, row: tuple[Cell, np.ndarray]) -> float:
    return float(row[1][:, place].mean())


def _balanced(recalls: np.ndarray) -> Entry:
    """Returns the mean over the seeds of the classes' mean recall, in percent."""
    summary = summarize(np.nanmean(recalls, axis=1).tolist())
    assert summary is not None
    return Entry(summary_text(summary, 2), summary.mean)


def most_accurate(study: StoredGrid, cells: Sequence[Cell]) -> Sequence[Cell]:
    """Returns the cells that figures and terminals show: all, or the MOST_SHOWN best."""
    if len(cells) <= MOST_SHOWN:
        return cells
    means = {cell.name: study.results(cell).mean() for cell in cells if len(study.of(cell))}
    ranked = sorted(cells, key=lambda cell: -means.get(cell.name, -math.inf))[:MOST_SHOWN]
    kept = {cell.name for cell in ranked}
    return [cell for cell in cells if cell.name in kept]
