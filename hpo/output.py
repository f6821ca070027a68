"""What a command prints, and the report that it writes."""

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from hpo.errors import InputError
from hpo.language import ENGLISH, use
from hpo.text import broken, legible

if TYPE_CHECKING:  # rich and the report's modules are imported once they are needed
    from rich.console import Console, RenderableType

    from hpo.results.study import StoredGrid, StoredSearch


def complain(text: str) -> None:
    """Prints a line on standard error, broken between words on a terminal."""
    if sys.stderr.isatty():
        text = broken(text, get_terminal_size().columns)
    print(text, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Prints a note on standard error."""
    complain(f"NOTE: {legible(text)}")


def console() -> "Console":
    """Returns the terminal or the notebook; elsewhere 200 columns."""
    from rich.console import Console

    shown = Console(highlight=False)
    there = shown.is_terminal or shown.is_jupyter
    return shown if there else Console(highlight=False, width=200)


def print_parts(parts: "Iterable[RenderableType]") -> None:
    """Prints lines and tables. A table keeps its full width where the output is no terminal."""
    from hpo.watch.fitted import print_line

    out = console()
    for part in parts:
        if isinstance(part, str):
            print_line(out, part)
        else:
            out.print(part)


def check_writable(out: Path, name: str) -> None:
    """Raises InputError unless files can be made in `out`/`name`, or in the folder above it."""
    wanted = out.absolute() / name
    existing = [path for path in (wanted, *wanted.parents) if os.path.lexists(path)]
    try:
        for folder in existing[: 2 if existing[0] == wanted else 1]:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"--out {out}: cannot be written ({reason}); give another") from error


def check_language(lang: str) -> None:
    """Raises InputError if this machine has no font with the language's letters."""
    if lang != ENGLISH:
        from hpo.report.figures.style import fonts

        fonts(lang)


def write_report(
    study: "StoredGrid | StoredSearch", folder: Path, lang: str = ENGLISH
) -> Path | None:
    """Writes the study's report in a language and prints its results in English; None if the report
    could not be written."""
    from hpo.report import write
    from hpo.watch import terminal

    try:
        with use(lang):
            written = write.write(study, folder)
    except OSError as error:
        complain(f"hpo: {folder}: the report could not be written: {error}")
        return None
    print_parts(terminal.terminal(study))
    print(f"report: {written}")
    if reason := study.no_result:
        complain(f"hpo: study {study.name!r}: {reason}")
    return written
