"""A grid's report, section by section."""

from collections.abc import Sequence
from functools import partial

from hpo.analysis.claims import claim_verdicts, tally
from hpo.analysis.statistics import paired_difference
from hpo.language import marked, nt, t
from hpo.report.blocks import grid_tables as tables
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.blocks.run_facts import one_line_each, other_data, run_table, trained_in
from hpo.report.blocks.table import Table, facts
from hpo.report.figures import grid as figures
from hpo.report.sections import accuracy, causes, claims, interactions, noise
from hpo.results.study import StoredGrid
from hpo.study.columns import METRICS
from hpo.study.config import SOURCES
from hpo.study.file import FIGURES, Cell, Experiment
from hpo.study.names import SCHEDULES, label
from hpo.text import count


def _basis(study: StoredGrid) -> str:
    """Describes the data that a table is based on."""
    text = marked("{data}; accuracy and loss on its {n:,} test {things}")
    return t(text, data=tables.data_text(study), n=study.data["test"], things=t(study.things))


def _key(study: StoredGrid, cells: Sequence[Cell]) -> str:
    if all(len(study.of(cell)) < 2 for cell in cells):
        return t("Reproduced: a single run")
    if any(study.fails(cell) for cell in cells):
        return t(
            "Reproduced: mean ± standard deviation over the seeds; median (range) where runs fail "
            "to learn"
        )
    return t("Reproduced: mean ± standard deviation over the seeds")


def _of_many(shown: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """Returns a sentence for a caption if not all networks are shown."""
    if len(shown) == len(cells):
        return ""
    text = marked("The {shown} most accurate of {n:,} networks; the tables have all.")
    return f" {t(text, shown=len(shown), n=len(cells))}"


def _glance(study: StoredGrid) -> Section:
    shown = tables.most_accurate(study, study.file.cells)
    rows = [row for row in tables.overview_rows(study.file) if row[0] in shown]
    dots = [_dots(study, cell, which) for cell, which in rows]
    blocks: list[Block] = []
    if any(row.values for row in dots):
        alt = t("Test accuracy of every network: a dot for each seed, a bar at their mean.")
        if tables.published(study.file):
            alt = t(
                "Test accuracy of every network: a dot for each seed, a bar at their mean, the "
                "reported figure as a diamond."
            )
        blocks.append(
            Picture(
                file="overview.svg",
                draw=partial(figures.overview, dots, 100 * study.fails_below),
                alt=alt,
                caption=t("Test accuracy, a dot a seed. {basis}.", basis=_basis(study))
                + _of_many(shown, study.file.cells),
            )
        )
    blocks.append(main_table(study))
    blocks += [table] if (table := tables.recall_table(study)) else []
    blocks += [
        t(
            "{labels} are one configuration, published more than once: its seeds were trained once "
            "and stand in each of its rows.",
            labels=t(" and ").join(entry.label for entry in cell.reported),
        )
        for cell in study.file.cells
        if len(cell.reported) > 1
    ]
    return Section(title=t("All networks at a glance"), blocks=blocks)


def _dots(study: StoredGrid, cell: Cell, which: int | None) -> figures.Dots:
    entry = None if which is None else cell.reported[which]
    accuracy = entry.test_accuracy if entry else None
    return figures.Dots(
        label=entry.label if entry else cell.label,
        fails=study.fails(cell),
        values=(100 * study.of(cell)["test_accuracy"]).dropna().to_list(),
        reported=None if accuracy is None else 100 * accuracy,
    )


def main_table(study: StoredGrid) -> Table:
    """Returns a row per network: its settings, reported and reproduced results."""
    caption = f"{_basis(study)}. {_key(study, study.file.cells)}."
    return tables.cells_table(study, tables.overview_rows(study.file), caption).but("name")


def _differences(study: StoredGrid) -> list[Section]:
    """Compares each cell with the first one, the baseline: the grid's counterpart of
    importances."""
    baseline, *others = study.file.cells
    shown = tables.most_accurate(study, others)
    rows = []
    for cell in shown:
        a, b = (100 * values for values in study.paired(cell, baseline))
        if len(a):  # seeds that both have
            d = paired_difference(a.to_list(), b.to_list())
            row = figures.DifferenceRow(label=cell.label, mean=d.mean, low=d.low, high=d.high)
            rows.append(row)
    if not rows:
        return []
    named = {"baseline": baseline.label}
    caption = marked(
        "Test accuracy minus that of {baseline}, seed by seed: mean and 95% interval (Student's "
        "t). {basis}."
    )
    picture = Picture(
        file="importance.svg",
        draw=partial(figures.differences, rows, baseline.label),
        alt=t("Difference of each network's test accuracy from that of {baseline}.", **named),
        caption=t(caption, basis=_basis(study), **named) + _of_many(shown, others),
    )
    return [Section(title=t("How far each network is from {baseline}", **named), blocks=[picture])]


def _protocol(study: StoredGrid) -> Section:
    data, cells = study.data, study.file.cells
    text = marked(
        "Every training splits the {all:,} training {things} of {data} into {train:,} to train on "
        "and {valid:,} to validate on, starts from {weights}, and minimizes cross entropy "
        "{batches}, shuffled every epoch, {epochs}{schedule}. The network of the last epoch is "
        "tested on the {test:,} test {things}."
    )
    sizes = {part: data[part] for part in ("train", "valid", "test")}
    sizes["all"] = data["train"] + data["valid"]
    batches, epochs = t("in its cell's batches"), t("for as long as its cell says")
    if len({cell.config.batch_size for cell in cells}) == 1:
        batches = t("in batches of {n}", n=cells[0].config.batch_size)
    if len({cell.config.epochs for cell in cells}) == 1:
        epochs = t("for {n} epochs", n=cells[0].config.epochs)
    ways = {"weights": _initial(cells), "batches": batches, "epochs": epochs}
    ways |= {"schedule": _schedule(cells), "things": t(study.things), "data": study.data_name}
    meaning = marked(
        "Training loss and accuracy are running means over an epoch while the weights change, so "
        "early in training they lag behind validation. Training time covers training and "
        "validation, not the test. A run fails to learn if it ends below {share:g}% test "
        "accuracy{guess}."
    )
    blocks: list[Block] = [f"{t(text, **sizes, **ways)} {_seeding(cells)}"]
    blocks.append(t(meaning, share=100 * study.fails_below, guess=_of_a_guess(study)))
    return Section(title=t("How the networks were trained"), blocks=blocks)


def _schedule(cells: Sequence[Cell]) -> str:
    """Says how the learning rate changes, as the end of a sentence; empty if it does not."""
    if len({cell.config.schedule for cell in cells}) > 1:
        return t(", by its cell's schedule")
    schedule = cells[0].config.schedule
    if schedule == "constant":
        return ""
    return t(", its learning rate {falling}", falling=t(label(SCHEDULES, schedule)))


def _seeding(cells: Sequence[Cell]) -> str:
    if all(cell.crossed for cell in cells):
        return t(
            "Eight runs make a block: two splits, two initial weights and two batch orders, in all "
            "combinations. Each block draws them anew, alike for every network."
        )
    if all(cell.varies == SOURCES for cell in cells):
        return t(
            "Seed k fixes split, initial weights and batch order alike for every network, so "
            "networks are compared in pairs of seeds."
        )
    return t(
        "Seed k fixes what a cell draws anew (of split, initial weights and batch order) alike for "
        "every network; the rest is drawn from seed 0."
    )


def _experiment(study: StoredGrid, number: int, experiment: Experiment) -> Section:
    by_name = {cell.name: cell for cell in study.file.cells}
    cells = [by_name[name] for name in experiment.cells]
    named = [by_name[name] for name in tables.curve_cells(study.file, experiment)]
    shown = tables.most_accurate(study, named)
    caption = f"{_basis(study)}. {_key(study, cells)}."
    table = tables.cells_table(study, [(cell, None) for cell in cells], caption)
    results = [key for key in experiment.columns if key in FIGURES]
    settings = [key for key in experiment.columns if key not in FIGURES]
    both = [key for figure in results for key in (f"{figure}.reported", figure)]
    table = table.only(["model", *settings, "further", *both, "seeds"])
    findings = [tables.finding(study, cell) for cell in shown]
    findings += tables.comparisons(study, tables.most_accurate(study, cells))
    blocks: list[Block] = [t(" ".join(experiment.text.split()))] if experiment.text else []
    blocks += [table, findings]
    drawn = [c for cell in shown if (c := _cell_curves(study, cell)) is not None]
    if drawn:
        chance = 100 * study.data.get("chance", 1 / len(study.classes))
        labels = ", ".join(curve.label for curve in drawn)
        alt = marked("Learning curves of {labels}: loss on the left, accuracy on the right.")
        blocks.append(
            Picture(
                file=f"curves-{number}.svg",
                draw=partial(figures.curves, drawn, len(study.classes), chance),
                alt=t(alt, labels=labels),
                caption=_curves_caption(study, drawn) + _of_many(shown, named),
            )
        )
    return Section(title=t(experiment.title), blocks=blocks)


def _initial(cells: Sequence[Cell]) -> str:
    """Says where the initial weights come from."""
    if cells[0].config.model:
        return t("the weights that {model} gives", model=cells[0].config.model)
    if any(cell.config.init != "default" for cell in cells):
        return t("the initial weights of its cell")
    return t("the weights that PyTorch's Linear layers start from")


def _of_a_guess(study: StoredGrid) -> str:
    """Says how the bound of learning is related to a guess."""
    if len(study.classes) == 10 and not study.data.get("unbalanced"):
        return t(", three times chance")
    text = marked(", two ninths of the way from a guess ({guess:.0f}%) to 100%")
    return t(text, guess=100 * study.data["chance"])


def _curves_caption(study: StoredGrid, drawn: Sequence[figures.CellCurves]) -> str:
    collapsed = [curve.collapsed for curve in drawn]
    text = t("Line: mean (median at chance) of the seeds; band: their range.")
    if all(len(curve.values["valid_loss"]) <= 1 for curve in drawn):
        text = t("A single seed.")
    elif not any(collapsed):
        text = t("Line: mean of the seeds; band: their range.")
    elif all(collapsed):
        text = t("Line: median of the seeds; band: their range.")
    text += f" {study.data_name}."
    if len(set(collapsed)) == 2:
        text += " " + t("Networks that fail to learn have axes of their own.")
    return text


def _cell_curves(study: StoredGrid, cell: Cell) -> figures.CellCurves | None:
    numbers = study.of(cell)["number"]
    rows = study.curves[study.curves["number"].isin(numbers)]
    if rows.empty:
        return None
    values = {
        metric: (100 if metric.endswith("accuracy") else 1)
        * rows.pivot(index="number", columns="epoch", values=metric).to_numpy()
        for metric in METRICS
    }
    label = f"{cell.label} ({count(len(numbers), 'seed')})"
    return figures.CellCurves(label=label, collapsed=study.fails(cell), values=values)


def _run_section(study: StoredGrid) -> Section:
    times = t(
        "Small networks are trained several seeds at a time, beside other trainings; a seed's "
        "training time in the tables is its share."
    )
    if study.timings:
        times += " " + t(
            "Conclusions on times come from {n} rounds of their own: each network alone on the "
            "machine, one seed, one epoch or the beginning of one, scaled to all epochs, in random "
            "order.",
            n=len(study.timings),
        )
    if tables.published(study.file):
        times += " " + t(
            "Reported times are of another machine and another program, in which loading and "
            "transforming the images takes most of an epoch whatever the network is; here only "
            "arithmetic is left, so a wide network costs many times as much. Neither seconds nor "
            "ratios of times can be compared with the report's."
        )
    source = t(" ".join(study.file.source.split()))
    more = [[t("Source"), source]] if source else []
    return Section(title=t("How it was run"), blocks=[run_table(study, more), times])


def lead(study: StoredGrid) -> list[str]:
    file = study.file
    counts = [len(study.of(cell)) for cell in file.cells]
    low, high = min(counts), max(counts)
    seeds = nt("{n} seed each", "{n} seeds each", high)
    if low < high:
        seeds = nt("{low} to {n} seed each", "{low} to {n} seeds each", high, low=low)
    text = marked("{n} configurations, {seeds}: {trainings} trainings on {data}, {time}.")
    known = {"seeds": seeds, "data": study.data_name, "time": trained_in(study)}
    lead = t(text, n=len(file.cells), trainings=sum(counts), **known)
    planned = sum(max(study.seeds, count) for count in counts)
    parts = [f"{tally(claim_verdicts(study))}."] if file.claims else []
    parts += noise.lead(study)
    parts += [lead, t(" ".join(file.text.split()))] if file.text else [lead]
    if sum(counts) < planned:
        text = marked("The study is not finished: {done} of {planned} trainings are done.")
        parts.append(t(text, done=sum(counts), planned=planned))
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
    unsaid = [(entry.what, entry.chosen) for entry in study.file.unsaid]
    rows = [[t(" ".join(text.split())) for text in entry] for entry in unsaid]
    if not rows:
        return []
    table = facts((t("Not said"), t("Chosen here")), rows)
    return [Section(title=t("What the report leaves unsaid"), blocks=[table])]
