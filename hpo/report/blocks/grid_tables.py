"""A grid's results as tables and sentences, reported values beside reproduced ones."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np

from hpo.analysis.statistics import Summary, paired_difference, summarize
from hpo.language import marked, t
from hpo.report.blocks.table import NOTHING, Column, Entry, Table
from hpo.results.study import StoredGrid
from hpo.study.config import Config
from hpo.study.file import COLUMNS, FIGURES, Cell, Experiment, GridStudy
from hpo.study.names import ACTIVATIONS, OPTIMIZERS, label

MOST_SHOWN, MOST_CLASSES = 40, 10  # cells, classes

SCALE = {"test_accuracy": 100.0, "test_loss": 1.0, "train_seconds": 1.0}
DIGITS = {"test_accuracy": 2, "test_loss": 4, "train_seconds": 2}
# In the terminal: header, and the priority of Column.
SHORT = {
    "test_accuracy": ("test accuracy (%)", 0),
    "test_loss": ("test loss", 3),
    "train_seconds": ("seconds", 4),
}


def data_text(study: StoredGrid) -> str:
    """Data: MNIST; with a warning if the study file names other data."""
    asked = study.file.dataset.short
    if study.data["name"] == asked:
        return t("Data: {data}", data=study.data_name)
    return t("Data: {data}, not {asked}", data=study.data_name, asked=asked)


def reproduced(study: StoredGrid, cell: Cell, figure: str) -> Entry:
    """mean ± std, or median (range) where runs fail; an en dash without a finished trial."""
    values = study.of(cell)[figure] * SCALE[figure]
    summary = summarize(values.to_list())
    if summary is None:
        return Entry(t("{n} diverged", n=len(values)) if len(values) else NOTHING)
    collapsed = study.fails(cell) and figure != "train_seconds"
    text = summary_text(summary, DIGITS[figure], collapsed=collapsed)
    if lost := len(values) - summary.n:
        text = f"{text}, {t('{n} diverged', n=lost)}"
    return Entry(text, summary.median if collapsed else summary.mean)


def summary_text(summary: Summary, digits: int, *, collapsed: bool = False) -> str:
    """mean ± standard deviation, or median (range) where runs fail; one value as it is."""
    if summary.n == 1:
        return f"{summary.mean:.{digits}f}"
    if collapsed:
        texts = {key: f"{getattr(summary, key):.{digits}f}" for key in ("median", "low", "high")}
        return t("median {median} ({low}–{high})", **texts)
    return f"{summary.mean:.{digits}f} ± {summary.sd:.{digits}f}"


def _reported(cell: Cell, which: int | None, figure: str) -> Entry:
    """Returns the published values of the cell: all, or only the entry `which`."""
    entries = cell.reported if which is None else cell.reported[which : which + 1]
    values = [SCALE[figure] * v for e in entries if (v := getattr(e, figure)) is not None]
    texts = [f"{value:.{DIGITS[figure]}f}" for value in values]
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
    if any(of(row).extras(fixed) for row in rows):
        columns.append(Column("further", t("Further"), lambda row: of(row).extras(fixed) or None))
    return columns


def published(file: GridStudy) -> bool:
    return any(cell.reported for cell in file.cells)


def cells_table(
    study: StoredGrid, rows: Sequence[tuple[Cell, int | None]], caption: str = ""
) -> Table:
    """Returns a row per cell and reported entry, with all columns of pages and the terminal."""
    published = any(cell.reported for cell, _ in rows)
    columns = [
        Column("name", "cell", lambda row: row[0].name),
        Column("model", t("Model"), lambda row: _label(*row)),
        *setting_columns(rows, lambda row: row[0].config),
        *(column for figure in FIGURES for column in _results(study, figure, published)),
        Column("seeds", t("Seeds"), lambda row: len(study.of(row[0])), short="seeds", priority=2),
    ]
    return Table(columns=columns, rows=rows, caption=caption)


def _results(study: StoredGrid, figure: str, published: bool) -> Sequence[Column]:
    """Returns the columns of reported and reproduced results."""
    group = t(COLUMNS[figure]) if published else ""
    header = t("reproduced") if published else t(COLUMNS[figure])
    short, priority = SHORT[figure]
    found = Column(
        figure, header, lambda row: reproduced(study, row[0], figure),
        group=group, short=short, priority=priority,
    )  # fmt: skip
    if not published:
        return [found]
    paper = Column(
        f"{figure}.reported", t("reported"), lambda row: _reported(row[0], row[1], figure),
        group=group, short="reported (%)", priority=1,
    )  # fmt: skip
    return [paper, found]


def _label(cell: Cell, which: int | None) -> str:
    return cell.reported[which].label if which is not None and cell.reported else cell.label


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
    which = t("each class")
    if len(shown) < len(tested):
        which = t("the {most} hardest of {n} classes", most=MOST_CLASSES, n=len(tested))
    text = marked(
        "The classes of {data} are unbalanced. Recall of {which}: the share of its test {things} "
        "that is right, mean over seeds. Balanced accuracy: the mean of all classes' recalls, "
        "± standard deviation over seeds."
    )
    things = t(study.things)
    caption = t(text, data=study.data_name, which=which, things=things)
    if absent := len(every) - len(tested):
        text = marked("Not shown: {absent} of {n} classes have no test {things}.")
        caption += " " + t(text, absent=absent, n=len(every), things=things)
    columns = [
        Column("model", t("Model"), lambda row: row[0].label),
        Column("balanced", t("Balanced accuracy (%)"), lambda row: _balanced(row[1])),
        *(
            Column(
                f"class.{place}", study.classes[place],
                partial(_recall, place), "{:.1f}",
                group=t("Recall (%)"),
            )
            for place in shown
        ),
        Column("seeds", t("Seeds"), lambda row: len(row[1])),
    ]  # fmt: skip
    rows = [(c, 100 * np.array(by_cell[c.name])) for c in study.file.cells if c.name in by_cell]
    return Table(columns=columns, rows=rows, caption=caption)


def _recall(place: int, row: tuple[Cell, np.ndarray]) -> float:
    return float(row[1][:, place].mean())


def _balanced(recalls: np.ndarray) -> Entry:
    """Returns the mean over the seeds of the classes' mean recall, in percent."""
    summary = summarize(np.nanmean(recalls, axis=1).tolist())
    assert summary is not None
    return Entry(summary_text(summary, 2), summary.mean)


def most_accurate(study: StoredGrid, cells: Sequence[Cell]) -> Sequence[Cell]:
    """Returns the cells that figures and terminals show: all, or the MOST_SHOWN most accurate."""
    if len(cells) <= MOST_SHOWN:
        return cells
    means = study.finished.groupby("cell")["test_accuracy"].mean()
    ranked = sorted(cells, key=lambda cell: -means.get(cell.name, -1.0))[:MOST_SHOWN]
    kept = {cell.name for cell in ranked}
    return [cell for cell in cells if cell.name in kept]


def overview_rows(file: GridStudy) -> list[tuple[Cell, int | None]]:
    """Returns a row per published network, in the order of the experiments."""
    by_name = {cell.name: cell for cell in file.cells}
    visits = [name for e in file.experiments for name in curve_cells(file, e)]
    rest = [cell.name for cell in file.cells for _ in range(max(len(cell.reported), 1))]
    rows: list[tuple[Cell, int | None]] = []
    for name in [*visits, *rest]:  # the rest: what no experiment came to, or not often enough
        cell = by_name[name]
        before = sum(shown is cell for shown, _ in rows)
        if before < max(len(cell.reported), 1):
            rows.append((cell, before if cell.reported else None))
    return rows


def curve_cells(file: GridStudy, experiment: Experiment) -> Sequence[str]:
    """Returns the cells whose curves a section shows: those it names, or those not shown before."""
    if experiment.curves:
        return experiment.curves
    before = file.experiments[: file.experiments.index(experiment)]
    seen = {name for earlier in before for name in earlier.cells}
    return [name for name in experiment.cells if name not in seen] or experiment.cells


# --- sentences ---------------------------------------------------------------------------------


def finding(study: StoredGrid, cell: Cell) -> str:
    """Describes the results of a cell in a sentence or two."""
    rows = study.of(cell)
    summary = summarize((100 * rows["test_accuracy"]).to_list())
    if summary is None:
        return t("{cell} has no finished run yet.", cell=cell.label)
    published = [100 * r.test_accuracy for r in cell.reported if r.test_accuracy is not None]
    if study.fails(cell):
        failing, diverged = int(study.failing(cell).sum()), int(rows["diverged"].sum())
        text = _failure(cell, _share(failing, summary.n), summary)
        if diverged:
            share = _share(diverged, summary.n)
            text = t("{text}; in {share} its loss was not finite", text=text, share=share)
        return f"{text}. {_published_text(published)}".strip()
    if summary.n == 1:
        text = t("{cell} reaches {mean:.2f}% with one seed.", cell=cell.label, mean=summary.mean)
        return f"{text} {_published_text(published)}"
    text = t(
        "{cell} reaches {mean:.2f} ± {sd:.2f}% over {n} seeds, between {low:.2f}% and {high:.2f}%.",
        cell=cell.label,
        **asdict(summary),
    )
    return f"{text} {_placed(published, summary)}".strip()


def _failure(cell: Cell, share: str, summary: Summary) -> str:
    """Says in how many seeds a cell fails to learn, and its accuracy, without a full stop."""
    text = marked(
        "{cell} fails to learn in {share}: median test accuracy {median:.2f}%, range "
        "{low:.2f}–{high:.2f}%"
    )
    if summary.n == 1:
        text = marked("{cell} fails to learn in {share}: test accuracy {mean:.2f}%")
    return t(text, cell=cell.label, share=share, **asdict(summary))


def _share(count: int, n: int) -> str:
    if count == n:
        return t("all {n} seeds", n=n) if n > 1 else t("its one seed")
    return t("{count} of {n} seeds", count=count, n=n)


def _published_text(values: Sequence[float]) -> str:
    if not values:
        return ""
    return t("The report has {values}.", values=t(" and ").join(f"{v:.2f}%" for v in values))


def _placed(values: Sequence[float], summary: Summary) -> str:
    """Says where the reported values lie among the seeds."""
    if not values:
        return ""
    inside = marked("{value:.2f}%, inside that range")
    below = marked("{value:.2f}%, below all seeds")
    above = marked("{value:.2f}%, above all seeds")
    texts = [below if v < summary.low else above if v > summary.high else inside for v in values]
    parts = [t(text, value=value) for text, value in zip(texts, values, strict=True)]
    return t("The report has {values}.", values=t("; and ").join(parts))


def comparisons(study: StoredGrid, cells: Sequence[Cell]) -> list[str]:
    """Ranks the cells that learn by mean test accuracy and compares each with the next, seed by
    seed."""
    learned = [cell for cell in cells if len(study.of(cell)) and not study.fails(cell)]
    learned.sort(key=lambda cell: -study.of(cell)["test_accuracy"].mean())
    return [_comparison(study, a, b) for a, b in pairwise(learned)]


def _comparison(study: StoredGrid, better: Cell, worse: Cell) -> str:
    a, b = (100 * values for values in study.paired(better, worse))
    if a.empty:
        text = marked("{better} and {worse} have no seed in common yet.")
        return t(text, better=better.label, worse=worse.label)
    difference = paired_difference(a.to_list(), b.to_list())
    if difference.mean < 0:  # ranked by all seeds, compared on those in common
        return _comparison(study, worse, better)
    published, numbers = _published_differences(better, worse), asdict(difference)
    basis = marked("95% interval {low:.2f} to {high:.2f}, {n} pairs of seeds{published}")
    basis = t(basis, published=published, **numbers)
    text = marked(
        "These seeds do not decide between {better} and {worse}: {mean:+.2f} points ({basis})."
    )
    if difference.n == 1:
        text = marked(
            "{better} is {mean:+.2f} points from {worse} in a single pair of runs, which does not "
            "tell what other seeds would give{published}."
        )
    elif difference.resolved:
        text = marked("{better} is {mean:.2f} points more accurate than {worse} ({basis}).")
    names = {"better": better.label, "worse": worse.label}
    return t(text, basis=basis, published=published, **names, **numbers)


def _published_differences(better: Cell, worse: Cell) -> str:
    known = product(*([e.test_accuracy for e in cell.reported] for cell in (better, worse)))
    pairs = [100 * (a - b) for a, b in known if a is not None and b is not None]
    texts = t(" and ").join(f"{difference:+.2f}" for difference in pairs)
    return t("; reported: {differences}", differences=texts) if pairs else ""
