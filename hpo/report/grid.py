"""A grid's report, section by section."""

from collections.abc import Sequence

from hpo.analysis.claims import claim_verdicts, tally
from hpo.analysis.statistics import Estimate, paired_difference
from hpo.report.blocks.grid_tables import (
    cells_table,
    comparisons,
    curve_cells,
    data_text,
    finding,
    most_accurate,
    overview_rows,
    published,
)
from hpo.report.blocks.page import Block, Picture, Section, Table
from hpo.report.blocks.recall import recall_table
from hpo.report.blocks.run_facts import one_line_each, other_data, run_table, trained_in
from hpo.report.conclusions import accuracy, causes, claims, interactions, noise
from hpo.report.figures import grid as figures
from hpo.storage.results import StoredGrid
from hpo.study.config import SOURCES
from hpo.study.file import COLUMNS, FIGURES, Cell, Experiment
from hpo.study.metrics import METRICS
from hpo.study.names import SCHEDULES, label


def _basis(study: StoredGrid) -> str:
    """Describes the data that a table is based on."""
    return (
        f"{data_text(study)}; accuracy and loss on its {study.data['test']:,} test {study.things}"
    )


def _key(study: StoredGrid, cells: Sequence[Cell]) -> str:
    if all(len(study.of(cell)) < 2 for cell in cells):
        return "Reproduced: a single run"
    text = "Reproduced: mean ± standard deviation over the seeds"
    if any(study.fails(cell) for cell in cells):
        text += "; median (range) where runs fail to learn"
    return text


def _of_many(shown: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """Returns a sentence for a caption if not all networks are shown."""
    if len(shown) == len(cells):
        return ""
    return f" The {len(shown)} most accurate of {len(cells):,} networks; the tables have all."


def _glance(study: StoredGrid) -> Section:
    shown = most_accurate(study, study.file.cells)
    kept = {cell.name for cell in shown}
    dots = [
        figures.Dots(
            label=cell.reported[which].label if which is not None else cell.label,
            fails=study.fails(cell),
            values=(100 * study.of(cell)["test_accuracy"]).dropna().to_list(),
            reported=_reported_percent(cell, which),
        )
        for cell, which in overview_rows(study.file)
        if cell.name in kept
    ]
    title = "All networks at a glance"
    blocks: list[Block] = []
    if any(row.values for row in dots):
        alt = "Test accuracy of every network: a dot for each seed, a bar at their mean"
        alt += ", the reported figure as a diamond." if published(study.file) else "."
        blocks.append(
            Picture(
                file="overview.svg",
                svg=figures.overview(dots, 100 * study.fails_below),
                alt=alt,
                caption=f"Test accuracy, a dot a seed. {_basis(study)}."
                + _of_many(shown, study.file.cells),
            )
        )
    blocks.append(main_table(study))
    blocks += [table] if (table := recall_table(study)) else []
    for cell in study.file.cells:
        if len(cell.reported) > 1:
            labels = " and ".join(entry.label for entry in cell.reported)
            blocks.append(
                f"{labels} are one configuration, published more than once: its seeds were trained "
                "once and stand in each of its rows."
            )
    return Section(title=title, blocks=blocks)


def main_table(study: StoredGrid) -> Table:
    """Returns a row per network: its settings, reported and reproduced results."""
    columns = [*(c for c in COLUMNS if c not in FIGURES), *FIGURES]
    caption = f"{_basis(study)}. {_key(study, study.file.cells)}."
    return cells_table(study, overview_rows(study.file), columns, caption)


def _reported_percent(cell: Cell, which: int | None) -> float | None:
    accuracy = cell.reported[which].test_accuracy if which is not None else None
    return None if accuracy is None else 100 * accuracy


def _differences(study: StoredGrid) -> list[Section]:
    """Compares each cell with the first one, the baseline: the grid's counterpart of
    importances."""
    baseline, *others = study.file.cells
    shown = most_accurate(study, others)
    differences = [(cell, _difference(study, cell, baseline)) for cell in shown]
    rows = [
        figures.DifferenceRow(label=cell.label, mean=d.mean, low=d.low, high=d.high)
        for cell, d in differences
        if d is not None
    ]
    if not rows:
        return []
    picture = Picture(
        file="importance.svg",
        svg=figures.differences(rows, baseline.label),
        alt=f"Difference of each network's test accuracy from that of {baseline.label}.",
        caption=f"Test accuracy minus that of {baseline.label}, seed by seed: mean and 95% "
        f"interval (Student's t). {_basis(study)}." + _of_many(shown, others),
    )
    return [Section(title=f"How far each network is from {baseline.label}", blocks=[picture])]


def _difference(study: StoredGrid, cell: Cell, baseline: Cell) -> Estimate | None:
    """Returns the difference in points over the seeds that both cells have; None if there are
    none."""
    a, b = (100 * values for values in study.paired(cell, baseline))
    return None if a.empty else paired_difference(a.to_list(), b.to_list())


def _protocol(study: StoredGrid) -> Section:
    data, cells = study.data, study.file.cells
    config = cells[0].config
    batch = {cell.config.batch_size for cell in cells}
    epochs = {cell.config.epochs for cell in cells}
    spelled = f"for {config.epochs} epochs" if len(epochs) == 1 else "for as long as its cell says"
    sized = f"in batches of {config.batch_size}" if len(batch) == 1 else "in its cell's batches"
    schedules = {cell.config.schedule for cell in cells}
    falling = ", by its cell's schedule"
    if len(schedules) == 1:
        named = label(SCHEDULES, config.schedule)
        falling = "" if config.schedule == "constant" else f", its learning rate {named}"
    text = (
        f"Every training splits the {data['train'] + data['valid']:,} training {study.things} of "
        f"{study.data_name} into {data['train']:,} to train on and {data['valid']:,} to validate "
        f"on, starts from {_initial(cells)}, and minimizes cross "
        f"entropy {sized}, shuffled every epoch, {spelled}{falling}. The network of the last epoch "
        f"is tested on the {data['test']:,} test {study.things}. {_seeding(cells)}"
    )
    meaning = (
        "Training loss and accuracy are running means over an epoch while the weights change, so "
        "early in training they lag behind validation. Training time covers training and "
        f"validation, not the test. A run fails to learn if it ends below "
        f"{100 * study.fails_below:g}% test accuracy{_of_a_guess(study)}."
    )
    return Section(title="How the networks were trained", blocks=[text, meaning])


def _seeding(cells: Sequence[Cell]) -> str:
    if all(cell.crossed for cell in cells):
        return (
            "Eight runs make a block: two splits, two initial weights and two batch orders, in all "
            "combinations. Each block draws them anew, alike for every network."
        )
    if all(cell.varies == SOURCES for cell in cells):
        return (
            "Seed k fixes split, initial weights and batch order alike for every network, so "
            "networks are compared in pairs of seeds."
        )
    return (
        "Seed k fixes what a cell draws anew (of split, initial weights and batch order) alike for "
        "every network; the rest is drawn from seed 0."
    )


def _experiment(study: StoredGrid, number: int, experiment: Experiment) -> Section:
    by_name = {cell.name: cell for cell in study.file.cells}
    cells = [by_name[name] for name in experiment.cells]
    named = [by_name[name] for name in curve_cells(study.file, experiment)]
    shown = most_accurate(study, named)
    table = cells_table(
        study,
        [(cell, None) for cell in cells],
        experiment.columns,
        f"{_basis(study)}. {_key(study, cells)}.",
    )
    findings = [finding(study, cell) for cell in shown]
    findings += comparisons(study, most_accurate(study, cells))
    blocks: list[Block] = [experiment.text] if experiment.text else []
    blocks += [table, findings]
    drawn = [c for cell in shown if (c := _cell_curves(study, cell)) is not None]
    if drawn:
        labels = ", ".join(curve.label for curve in drawn)
        blocks.append(
            Picture(
                file=f"curves-{number}.svg",
                svg=figures.curves(drawn, len(study.classes)),
                alt=f"Learning curves of {labels}: loss on the left, accuracy on the right.",
                caption=_curves_caption(study, drawn) + _of_many(shown, named),
            )
        )
    return Section(title=experiment.title, blocks=blocks)


def _initial(cells: Sequence[Cell]) -> str:
    """Says where the initial weights come from."""
    if cells[0].config.model:
        return f"the weights that {cells[0].config.model} gives"
    if any(cell.config.init != "default" for cell in cells):
        return "the initial weights of its cell"
    return "the weights that PyTorch's Linear layers start from"


def _of_a_guess(study: StoredGrid) -> str:
    """Says how the bound of learning is related to a guess."""
    if len(study.classes) == 10 and not study.data.get("unbalanced"):
        return ", three times chance"
    return f", two ninths of the way from a guess ({100 * study.data['chance']:.0f}%) to 100%"


def _curves_caption(study: StoredGrid, drawn: Sequence[figures.CellCurves]) -> str:
    middle = "mean"
    if any(curve.collapsed for curve in drawn):
        middle = "median" if all(curve.collapsed for curve in drawn) else "mean (median at chance)"
    several = any(len(curve.valid_loss) > 1 for curve in drawn)
    text = f"Line: {middle} of the seeds; band: their range." if several else "A single seed."
    text += f" {study.data_name}."
    if len({curve.collapsed for curve in drawn}) == 2:
        text += " Networks that fail to learn have axes of their own."
    return text


def _cell_curves(study: StoredGrid, cell: Cell) -> figures.CellCurves | None:
    numbers = study.of(cell)["number"]
    rows = study.curves[study.curves["number"].isin(numbers)]
    if rows.empty:
        return None
    wide = {m: rows.pivot(index="number", columns="epoch", values=m).to_numpy() for m in METRICS}
    seeds = f"{len(numbers)} seed{'' if len(numbers) == 1 else 's'}"
    return figures.CellCurves(
        label=f"{cell.label} ({seeds})",
        collapsed=study.fails(cell),
        train_loss=wide["train_loss"],
        valid_loss=wide["valid_loss"],
        train_accuracy=100 * wide["train_accuracy"],
        valid_accuracy=100 * wide["valid_accuracy"],
    )


def _run_section(study: StoredGrid) -> Section:
    times = (
        "Small networks are trained several seeds at a time, beside other trainings; a seed's "
        "training time in the tables is its share."
    )
    if study.timings:
        times += (
            f" Conclusions on times come from {len(study.timings)} rounds of their own: each "
            "network alone on the machine, one seed, one epoch times the number of epochs, in "
            "random order."
        )
    if published(study.file):
        times += (
            " Reported times are of another machine and another program, in which loading and "
            "transforming the images takes most of an epoch whatever the network is; here only "
            "arithmetic is left, so a wide network costs many times as much. Neither seconds nor "
            "ratios of times can be compared with the report's."
        )
    facts = [["Source", study.file.source]] if study.file.source else []
    return Section(title="How it was run", blocks=[run_table(study, facts), times])


def lead(study: StoredGrid) -> list[str]:
    file = study.file
    counts = [len(study.of(cell)) for cell in file.cells]
    low, high = min(counts), max(counts)
    seeds = f"{high}" if low == high else f"{low} to {high}"
    lead = (
        f"{len(file.cells)} configurations, {seeds} seed{'' if high == 1 else 's'} each: "
        f"{sum(counts)} trainings on {study.data_name}, {trained_in(study)}."
    )
    planned = sum(max(study.seeds, count) for count in counts)
    parts = [f"{tally(claim_verdicts(study))}."] if file.claims else []
    parts += noise.lead(study)
    parts += [lead, file.text] if file.text else [lead]
    if sum(counts) < planned:
        parts.append(f"The study is not finished: {sum(counts)} of {planned} trainings are done.")
    return one_line_each([*parts, *other_data(study)])


def sections(study: StoredGrid) -> list[Section]:
    """Returns the report's sections in their order."""
    experiments = [_experiment(study, n, e) for n, e in enumerate(study.file.experiments)]
    first = [*claims.sections(study), *noise.sections(study), *interactions.sections(study)]
    first += [_glance(study), *accuracy.sections(study), *noise.predictions(study)]
    first += [*_differences(study), _protocol(study), *experiments, *causes.sections(study)]
    return [*first, *_unsaid(study), *claims.method_sections(study), _run_section(study)]


def _unsaid(study: StoredGrid) -> list[Section]:
    """Returns the section on what a publication leaves open, if the study file lists it."""
    rows = [[entry.what, entry.chosen] for entry in study.file.unsaid]
    if not rows:
        return []
    table = Table(headers=["Not said", "Chosen here"], rows=rows)
    return [Section(title="What the report leaves unsaid", blocks=[table])]
