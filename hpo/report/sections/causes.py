"""The report's section on causes: whether the diagnostics show what a publication presumes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from hpo.analysis.causes import measured, too_long, vanishing
from hpo.language import marked, t
from hpo.report.blocks.grid_tables import data_text
from hpo.report.blocks.page import Block, Picture, Section
from hpo.report.figures import causes as figures
from hpo.results.study import StoredGrid
from hpo.study.claims import Cause
from hpo.study.config import Config
from hpo.study.file import Cell


def sections(study: StoredGrid) -> list[Section]:
    """Returns the section on presumed causes: what was presumed, whether it is seen, a figure."""
    blocks = [block for cause in study.file.causes for block in _blocks(study, cause)]
    return [Section(title=t("Why networks fail"), blocks=blocks)] if blocks else []


def _blocks(study: StoredGrid, cause: Cause) -> list[Block]:
    cell, beside = (study.cell(name) for name in (cause.cell, cause.beside))
    where = f" ({cause.where})" if cause.where else ""
    quotation = f"“{t(cause.quote)}”{where}"
    if not cause.quote:
        quotation = f"{cell.label}: {t(cause.presumes)}{where}."
    ours, theirs = (measured(study, of) for of in (cell, beside))
    if not ours or not theirs:
        missing = marked(
            "There are no diagnostics of {network}, so this cannot be checked: it was trained "
            "without `diagnostics = true`, or none of its runs has finished."
        )
        missing = t(missing, network=(beside if ours else cell).label)
        return [f"{quotation} {missing}"]
    looked_for = vanishing if cause.presumes == "vanishing gradients" else too_long
    seen = looked_for(ours, theirs, cell, beside)
    sentences = [quotation, f"{seen.verdict}: {seen.text}"]
    alt = marked(
        "Gradients, updates and quiet units of {network} beside {other}, by epoch and layer."
    )
    caption = marked("Of each layer, the median over the seeds after each epoch. {data}.")
    picture = Picture(
        file=f"causes-{cause.cell}.svg",
        draw=partial(figures.causes, [(cell.label, ours), (beside.label, theirs)]),
        alt=t(alt, network=cell.label, other=beside.label),
        caption=t(caption, data=data_text(study)),
    )
    return [" ".join([*sentences, *_intervention(study, cell, cause)]), picture]


def _intervention(study: StoredGrid, cell: Cell, cause: Cause) -> Sequence[str]:
    """Looks for a cell that differs only by a lower learning rate and learns: only such an
    intervention proves the cause."""
    if cause.presumes == "vanishing gradients":
        return []
    for other in study.file.cells:
        same = _without_lr(other.config) == _without_lr(cell.config)
        learns = len(study.of(other)) and not study.fails(other)
        if same and learns and other.config.lr < cell.config.lr:
            return [t("At {lr:g} the same network learns with every seed.", lr=other.config.lr)]
    return [t("Only a run at a lower rate would prove it the cause; this study has none.")]


def _without_lr(config: Config) -> dict[str, Any]:
    return {key: value for key, value in config.as_dict().items() if key != "lr"}
