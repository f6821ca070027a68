"""A study's report, from the storage alone: pages, figures, CSV files, provenance."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table as RichTable

from hpo import grid_report, page
from hpo.grid_tables import published, reported, reproduced
from hpo.results import StoredStudy
from hpo.study_file import FIGURES


def write(study: StoredStudy, folder: Path) -> Path:
    """Writes all of the report's files to `folder`, each one whole; the path of index.html.

    They are made in a folder beside it first, so a full disk leaves the old report as it was.
    Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        _write_files(study, Path(beside))
        _move_in(Path(beside), folder)
    return folder / "index.html"


def _write_files(study: StoredStudy, folder: Path) -> None:
    sections = grid_report.sections(study)
    (folder / "figures").mkdir()
    blocks = [block for section in sections for block in section.blocks]
    for picture in (block for block in blocks if isinstance(block, page.Picture)):
        (folder / "figures" / picture.file).write_text(picture.svg, encoding="utf-8")
    for template, name in (("index.html.j2", "index.html"), ("report.md.j2", "report.md")):
        text = page.render(template, study.file.title, grid_report.lead(study), sections)
        (folder / name).write_text(text, encoding="utf-8")
    study.trials.to_csv(folder / "trials.csv", index=False)
    study.curves.to_csv(folder / "curves.csv", index=False)
    provenance = json.dumps(_provenance(study), indent=2, ensure_ascii=False)
    (folder / "provenance.json").write_text(provenance + "\n", encoding="utf-8")


def _move_in(source: Path, target: Path) -> None:
    (target / "figures").mkdir(parents=True, exist_ok=True)
    made = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    for old in (target / "figures").glob("*.svg"):
        if old.relative_to(target) not in made:
            old.unlink()
    for path in made:
        os.replace(source / path, target / path)
    shutil.rmtree(source / "figures")


def _provenance(study: StoredStudy) -> dict[str, Any]:
    last = study.sessions[-1] if study.sessions else {}
    seeds = sorted({int(seed) for seed in study.finished["seed"].dropna()})
    stamped = [{**s, "started": _clock(s["started"])} for s in study.sessions]
    return {
        "study": study.name,
        **{key: last.get(key) for key in ("command", "versions", "git_commit", "hardware")},
        "threads": {"workers": last.get("workers"), "torch_threads_per_worker": 1},
        "dataset": study.data,
        "split_seeds": seeds,
        "started": _clock(study.sessions[0]["started"]) if study.sessions else None,
        "seconds": sum(session.get("seconds", 0) for session in study.sessions),
        "sessions": stamped,
    }


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def has_results(study: StoredStudy) -> bool:
    return not study.finished.empty


def terminal(study: StoredStudy) -> Iterator[RenderableType]:
    """The overview for a terminal: what is there of each cell, and what became of the trials."""
    counts = study.trials["state"].value_counts()
    states = ", ".join(f"{n} {state}" for state, n in counts.items()) or "no trials"
    yield f"{study.name} on {study.data_name}: {states}"
    with_reported = published(study.file)
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell")
    table.add_column("seeds", justify="right")
    table.add_column("test accuracy (%)", no_wrap=True)
    table.add_column("test loss", no_wrap=True)
    table.add_column("seconds", no_wrap=True)
    if with_reported:
        table.add_column("reported (%)", no_wrap=True)
    for cell in study.file.cells:
        row = [cell.name, str(len(study.of(cell)))]
        row += [reproduced(study, cell, figure) for figure in FIGURES]
        table.add_row(*row, *([reported(cell, "test_accuracy")] if with_reported else []))
    yield table
    for _, best in study.finished.nlargest(1, "valid_accuracy").iterrows():
        accuracy = f"validation accuracy {100 * best['valid_accuracy']:.2f}%"
        yield f"best trial: {best['number']}, {best['cell']} seed {best['seed']}, {accuracy}"
