"""A grid's figures as text and as tables, reported beside reproduced."""

from collections.abc import Sequence

from hpo.analysis.statistics import Summary, summarize
from hpo.report.page import Table
from hpo.storage.results import StoredGrid
from hpo.study.config import CLASSES
from hpo.study.file import COLUMNS, FIGURES, Cell, Experiment, GridStudy

MOST_SHOWN = 40  # cells
# A run that stays below three times chance has learnt nothing worth the name.
FAILS_BELOW = 3 / CLASSES

SCALE = {"test_accuracy": 100.0, "test_loss": 1.0, "train_seconds": 1.0}
DIGITS = {"test_accuracy": 2, "test_loss": 4, "train_seconds": 2}


def fails(study: StoredGrid, cell: Cell) -> bool:
    """Whether any of the cell's runs stayed near chance or diverged."""
    rows = study.of(cell)
    return bool(((rows["test_accuracy"] < FAILS_BELOW) | rows["diverged"].astype(bool)).any())


def stands_on(study: StoredGrid) -> str:
    """Data: MNIST; with a warning where that is not what the study file names."""
    warning = "" if study.data["name"] == study.file.dataset else f", not {study.file.dataset}"
    return f"Data: {study.data_name}{warning}"


def reproduced(study: StoredGrid, cell: Cell, figure: str) -> str:
    """mean ± sd, or median (range) where runs collapse; an en dash without a finished run."""
    values = study.of(cell)[figure] * SCALE[figure]
    summary = summarize(values.to_list())
    if summary is None:
        return f"{len(values)} diverged" if len(values) else "–"
    text = summary_text(summary, DIGITS[figure], collapsed=fails(study, cell) and _spreads(figure))
    lost = len(values) - summary.n
    return f"{text}, {lost} diverged" if lost else text


def _spreads(figure: str) -> bool:
    return figure != "train_seconds"


def summary_text(summary: Summary, digits: int, *, collapsed: bool) -> str:
    if summary.n == 1:
        return f"{summary.mean:.{digits}f}"
    if collapsed:
        low, high = f"{summary.low:.{digits}f}", f"{summary.high:.{digits}f}"
        return f"median {summary.median:.{digits}f} ({low}–{high})"
    return f"{summary.mean:.{digits}f} ± {summary.sd:.{digits}f}"


def reported(cell: Cell, figure: str, which: int | None = None) -> str:
    """What was published for the cell: all of it, or the one entry `which`."""
    entries = cell.reported if which is None else cell.reported[which : which + 1]
    values = [v for entry in entries if (v := getattr(entry, figure)) is not None]
    return " and ".join(f"{v * SCALE[figure]:.{DIGITS[figure]}f}" for v in values) or "–"


def setting(cell: Cell, column: str) -> str:
    config = cell.config
    if column == "hidden_layers":
        return f"{config.depth} × {config.width}"
    if column == "activation":
        spelled = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "elu": "ELU"}
        return spelled.get(config.activation, config.activation.replace("_", " ").capitalize())
    if column == "optimizer":
        spelled = {"sgd": "SGD", "sgd_momentum": "SGD, momentum", "adam": "Adam"}
        return {**spelled, "adamw": "AdamW", "rmsprop": "RMSprop"}[config.optimizer]
    return str(config.lr)


def published(file: GridStudy) -> bool:
    return any(cell.reported for cell in file.cells)


def cells_table(
    study: StoredGrid,
    rows: Sequence[tuple[Cell, int | None]],
    columns: Sequence[str],
    caption: str,
) -> Table:
    """A row for each cell (and reported entry), settings first, then reported and reproduced."""
    published = any(cell.reported for cell, _ in rows)
    settings = [c for c in columns if c not in FIGURES]
    measured = [c for c in columns if c in FIGURES]
    headers = [("Model", 1), *((COLUMNS[c], 1) for c in settings)]
    headers += [(COLUMNS[c], 2 if published else 1) for c in measured]
    sub = ["reported", "reproduced"] if published else [""]
    body = []
    for cell, which in rows:
        label = cell.label if which is None or not cell.reported else cell.reported[which].label
        line = [label, *(setting(cell, c) for c in settings)]
        for figure in measured:
            line += [reported(cell, figure, which)] if published else []
            line.append(reproduced(study, cell, figure))
        body.append([*line, str(len(study.of(cell)))])
    return Table(
        headers=[*headers, ("Seeds", 1)],
        subheaders=[""] * (1 + len(settings)) + sub * len(measured) + [""],
        rows=body,
        caption=caption,
    )


def most_accurate(study: StoredGrid, cells: Sequence[Cell]) -> Sequence[Cell]:
    """Those that pictures and terminals show: where they are many, the most accurate."""
    if len(cells) <= MOST_SHOWN:
        return cells
    means = study.finished.groupby("cell")["test_accuracy"].mean()
    ranked = sorted(cells, key=lambda cell: -means.get(cell.name, -1.0))[:MOST_SHOWN]
    kept = {cell.name for cell in ranked}
    return [cell for cell in cells if cell.name in kept]


def overview_rows(file: GridStudy) -> list[tuple[Cell, int | None]]:
    """A row for each published network, in the order in which the experiments come to it."""
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
    """The cells whose curves a section shows: what it names, or what no section before had."""
    if experiment.curves:
        return experiment.curves
    before = file.experiments[: file.experiments.index(experiment)]
    seen = {name for earlier in before for name in earlier.cells}
    return [name for name in experiment.cells if name not in seen] or experiment.cells
