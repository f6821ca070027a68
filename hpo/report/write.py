"""Writes a study's report from the storage alone: pages, figures, CSV files, provenance."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hpo.analysis import verdicts
from hpo.language import ENGLISH, t, use
from hpo.model import folder as best
from hpo.report import contents
from hpo.report.blocks import page
from hpo.report.blocks.search_tables import finalists_frame, reference_frame
from hpo.report.blocks.table import Table
from hpo.report.draw import draw
from hpo.report.sections.basis import sentence
from hpo.results.study import StoredGrid, StoredSearch, StoredStudy, seconds_of

Stored = StoredGrid | StoredSearch
Kind = TypeVar("Kind", page.Picture, Table)
PAGES = ("index.html", "report.md")
ABANDONED_SECONDS = 3600.0


def write(study: Stored, folder: Path) -> Path:
    """Writes all files of the report to `folder`; returns the path of index.html.

    Files are written beside the folder first and moved in then, the pages last: a full disk leaves
    the old report as it was. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_away(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        _write_files(study, Path(beside), folder)
        _move_in(Path(beside), folder)
    return folder / "index.html"


def figures(study: Stored, folder: Path) -> dict[str, page.Picture]:
    """Returns {name: picture} of the report's figures. folder: where the report lies."""
    pictures = _blocks(_content(study, folder)[1], page.Picture)
    return {picture.file.removesuffix(".svg"): picture for picture in pictures}


def summary(study: Stored, folder: Path) -> str:
    """Returns the report's first sentences and its first table as HTML, for notebooks."""
    lead, sections = _content(study, folder)
    table = next(iter(_blocks(sections, Table)), None)
    return page.render("summary.html.j2", t(study.file.title), lead, table=table)


def _blocks(sections: Sequence[page.Section], kind: type[Kind]) -> list[Kind]:
    """Returns all blocks of one kind."""
    every = (block for section in sections for block in section.blocks)
    return [block for block in every if isinstance(block, kind)]


def _write_files(study: Stored, folder: Path, target: Path) -> None:
    """Writes to `folder` what `target` will hold; a winner may be saved in `target` already."""
    lead, sections = _content(study, target)
    (folder / "figures").mkdir()
    pictures = _blocks(sections, page.Picture)
    draw(pictures)
    for picture in pictures:
        (folder / "figures" / picture.file).write_text(picture.svg, encoding="utf-8")
    for template, name in (("index.html.j2", "index.html"), ("report.md.j2", "report.md")):
        text = page.render(template, t(study.file.title), lead, sections)
        (folder / name).write_text(text, encoding="utf-8")
    study.trials.to_csv(folder / "trials.csv", index=False)
    study.curves.to_csv(folder / "curves.csv", index=False)
    if isinstance(study, StoredSearch):
        finalists_frame(study).to_csv(folder / "finalists.csv", index=False)
        if len(reference := reference_frame(study)):
            reference.to_csv(folder / "reference.csv", index=False)
    else:
        if study.timings:
            study.times.to_csv(folder / "times.csv", index=False)
        with use(ENGLISH):  # for programs
            (folder / "verdicts.json").write_text(verdicts.text(study, sentence), encoding="utf-8")
    provenance = json.dumps(_provenance(study), indent=2, ensure_ascii=False)
    (folder / "provenance.json").write_text(provenance + "\n", encoding="utf-8")


def _content(study: Stored, target: Path) -> tuple[list[str], list[page.Section]]:
    if isinstance(study, StoredSearch):
        saved = best.holds_winner(target / "best", best.winner_of(study))
        return contents.lead(study), contents.sections(study, saved=saved)
    return contents.lead(study), contents.sections(study)


def _move_in(source: Path, target: Path) -> None:
    """Moves file by file, because `target` may hold other files and may be a link or a mount."""
    (target / "figures").mkdir(parents=True, exist_ok=True)
    made = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    for path in sorted(made, key=lambda path: (path.name in PAGES, path)):
        os.replace(source / path, target / path)
    some = (target / name for name in ("times.csv", "reference.csv"))
    for old in (*(target / "figures").glob("*.svg"), *(path for path in some if path.exists())):
        if old.relative_to(target) not in made:
            old.unlink()


def _clear_away(folder: Path) -> None:
    """Deletes what killed writers of this report left."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)


def _provenance(study: Stored) -> dict[str, Any]:
    last = study.sessions[-1] if study.sessions else {}
    seeds = {int(seed) for seed in study.finished["seed"].dropna()}
    tested = study.tested if isinstance(study, StoredSearch) else None
    if tested:
        seeds |= {int(seed) for seed in tested.finished["seed"].dropna()}
    return {
        "study": study.name,
        **{key: last.get(key) for key in ("command", "versions", "git_commit", "hardware")},
        "threads": {"workers": last.get("workers"), "torch_threads_per_worker": 1},
        **study.file.judged,
        "dataset": study.data,
        **({"model_code": dict(study.code)} if study.code else {}),
        "split_seeds": sorted(seeds),
        "started": _clock(study.sessions[0]["started"]) if study.sessions else None,
        "seconds": seconds_of(study.sessions),
        "sessions": _stamped(study),
        **({"finalists_sessions": _stamped(tested)} if tested else {}),
    }


def _stamped(study: StoredStudy) -> list[dict[str, Any]]:
    """Returns the sessions with readable times, without the host's name."""
    hidden = ("host", "until", "run")
    kept = [{k: v for k, v in s.items() if k not in hidden} for s in study.sessions]
    return [{**s, "started": _clock(s["started"])} for s in kept]


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
