"""The note that a study carries in the dashboard: what it is, and what came out in the end."""

import hashlib
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna_dashboard import get_note, save_note

from hpo.report import grid as grid_report
from hpo.report import page
from hpo.report.finalists import main_table
from hpo.report.page import Table
from hpo.report.run_facts import repeatable
from hpo.report.search_tables import winner_sentence
from hpo.storage.results import StoredGrid, StoredSearch, StoredStudy, load_study
from hpo.study.finalists import name_of
from hpo.study.names import PRUNERS, SAMPLERS, label
from hpo.study.space import Fixed, spelled
from hpo.text import seconds_text

WRITTEN = "note"  # the study's attribute that knows our own note from one that a person changed


def begin(storage: BaseStorage, name: str, command: str) -> None:
    """Says of a study what it is, before its first trial."""
    _write(storage, name, command, None)


def end(storage: BaseStorage, name: str, command: str, report: Path | None) -> None:
    """Adds what came out, of a search and of its finalists, and where the report lies, if it could
    be written."""
    _write(storage, name, command, report, ended=True)
    if name_of(name) in optuna.get_all_study_names(storage):
        _write(storage, name_of(name), command, report, ended=True)


def _write(
    storage: BaseStorage, name: str, command: str, report: Path | None, *, ended: bool = False
) -> None:
    """Leaves a note alone that somebody else has written or changed."""
    study = optuna.load_study(study_name=name, storage=storage)
    before = get_note(study)
    if before and study.user_attrs.get(WRITTEN) != _print_of(before):
        return
    text = markdown(load_study(storage, name), command, report, ended=ended)
    save_note(study, text)
    study.set_user_attr(WRITTEN, _print_of(text))


def _print_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def markdown(
    study: StoredGrid | StoredSearch, command: str, report: Path | None, *, ended: bool
) -> str:
    """The note. ended: whether the run is over, and its main table belongs into it; report: where
    that run's report lies, if it could be written."""
    facts = [("Data", _data(study)), *_budget(study), ("Command", repeatable(command))]
    if report:
        facts.append(("Report", str(report.absolute())))
    return page.render_note(
        title=study.file.title,
        lead=_lead(study, ended),
        facts=facts,
        block=_table(study) if ended else None,
    )


def _lead(study: StoredGrid | StoredSearch, ended: bool) -> list[str]:
    parts = [study.file.text] if study.file.text else []
    if ended and isinstance(study, StoredSearch):
        parts.append(winner_sentence(study))
    return [" ".join(part.split()) for part in parts]


def _data(study: StoredStudy) -> str:
    sizes = [f"{study.data[part]:,}" for part in ("train", "valid", "test")]
    return f"{study.data_name}: {sizes[0]} images to train on, {sizes[1]} to validate on, " + (
        f"{sizes[2]} to test on"
    )


def _budget(study: StoredGrid | StoredSearch) -> list[tuple[str, str]]:
    if isinstance(study, StoredGrid):
        cells = [f"{cell.name} ({cell.config.brief})" for cell in study.file.cells]
        trials = len(cells) * study.seeds
        return [
            ("Budget", f"{trials} trials: {len(cells)} cells, {study.seeds} seeds each"),
            ("Cells", "; ".join(cells)),
        ]
    file = study.file
    chosen = f"chosen by {label(SAMPLERS, file.sampler)}, with {label(PRUNERS, file.pruner)}"
    again = f"the best {file.finalists} again on {file.finalist_seeds} fresh seeds each"
    limit = "" if study.timeout is None else f" or {seconds_text(study.timeout)} of searching"
    fixed = {k: d for k, d in file.space.items() if isinstance(d, Fixed)}
    free = [f"{k}: {spelled(d)}" for k, d in file.space.items() if k not in fixed]
    return [
        ("Budget", f"{study.n_trials} trials{limit}, {chosen}; then {again}"),
        ("Space", "; ".join(free)),
        ("Fixed", "; ".join(f"{k}: {spelled(d)}" for k, d in fixed.items()) or "nothing"),
    ]


def _table(study: StoredGrid | StoredSearch) -> Table | None:
    if isinstance(study, StoredGrid):
        return grid_report.main_table(study)
    return main_table(study, study.tested) if study.tested else None
