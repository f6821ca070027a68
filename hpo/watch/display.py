"""Progress in the terminal: a live display, or one line per trial where there is no terminal."""

import sys

import optuna
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.runs.plan import Job, Watcher
from hpo.runs.progress import Progress
from hpo.text import legible, seconds_text

MOST_WORKERS = 16  # with a line of their own


def render(progress: Progress) -> RenderableType:
    """Returns a header with bar, counts and times, a line per worker, and the best trial so far.

    Lines are cut where the terminal is narrow: a line that wraps would make the display jump.
    """
    header = Table.grid(padding=(0, 2))
    for _ in range(4):
        header.add_column(no_wrap=True, overflow="ellipsis")
    header.add_row(
        Text(progress.title, style="bold"),
        ProgressBar(total=max(progress.total, 1), completed=progress.done, width=24),
        Text(f"{100 * progress.done / max(progress.total, 1):.0f}%"),
        Text(", ".join(filter(None, (seconds_text(progress.elapsed), progress.left)))),
    )
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True, min_width=len(f"worker {len(progress.workers)}"))
    rows.add_column(no_wrap=True, overflow="ellipsis")
    rows.add_row(Text("trials", style="dim"), Text(progress.counts.replace(" trials", "")))
    for number, task in enumerate(progress.workers[:MOST_WORKERS], 1):
        rows.add_row(Text(f"worker {number}", style="dim"), Text(task or "idle"))
    if more := progress.workers[MOST_WORKERS:]:
        busy = sum(map(bool, more))
        rows.add_row(Text(f"{len(more)} more", style="dim"), Text(f"{busy} are training"))
    if progress.best:
        rows.add_row(Text("best", style="dim"), Text(progress.best))
    return Group(header, rows)


class Display(Watcher):
    """Shows the progress of each plan: live on a terminal, a line per job elsewhere, or nothing."""

    def __init__(self, *, quiet: bool, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False)
        self.quiet = quiet
        self.live: Live | None = None

    def on_start(self, study: optuna.Study | None, progress: Progress) -> None:
        self.progress = progress
        if self.console.is_terminal and not self.quiet:
            self.live = Live(
                get_renderable=lambda: render(progress), console=self.console, refresh_per_second=4
            )
            self.live.start()

    def on_end(self, job: Job, outcome: str) -> None:
        if self.quiet or self.live:
            return
        progress = self.progress
        left = progress.left if progress.done < progress.total else ""
        counts = f"{progress.done:{len(str(progress.total))}d}/{progress.total}"
        self.on_notice(f"{counts}  {job.label}: {outcome}{left and ', '}{left}")

    def on_notice(self, text: str) -> None:
        """Prints a line, above the live display if there is one."""
        self.console.print(legible(text), soft_wrap=True, markup=False, emoji=False)

    def on_finish(self) -> None:
        if self.live:
            self.live.stop()
            self.live = None
