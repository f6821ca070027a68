"""Progress in the terminal: one calm live picture, or plain lines where there is no terminal."""

import sys
import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


@dataclass
class Progress:
    """What there is to show. done and total count trials, spent and planned are their cost in
    seconds as estimated, for the time left."""

    title: str
    total: int
    done: int = 0
    failed: int = 0
    planned: float = 0.0
    spent: float = 0.0
    workers: list[str] = field(default_factory=list)
    best: str = ""
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float | None:
        """From the cost worked off so far; None until there is enough to tell."""
        elapsed = time.monotonic() - self.started
        if self.spent <= 0.02 * self.planned or elapsed < 2:
            return None
        return elapsed * max(self.planned - self.spent, 0) / self.spent


def seconds_text(seconds: float) -> str:
    """45 s, 2 min 05 s, 1 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Display:
    """Shows a Progress: live on a terminal, a line for each finished task elsewhere, or nothing."""

    def __init__(self, progress: Progress, *, quiet: bool, console: Console | None = None) -> None:
        self.progress = progress
        self.console = console or Console(file=sys.stdout, highlight=False)
        self.quiet = quiet
        self.live: Live | None = None
        if self.console.is_terminal and not quiet:
            self.live = Live(
                get_renderable=self._picture, console=self.console, refresh_per_second=4
            )

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def line(self, text: str) -> None:
        """A line of log: what has just ended, with the state of the whole."""
        if self.quiet or self.live:
            return
        width = len(str(self.progress.total))
        self.console.print(
            f"{self.progress.done:{width}d}/{self.progress.total}  {text}{self._left(', ')}",
            soft_wrap=True,
            markup=False,
        )

    def notice(self, text: str) -> None:
        """A line that must be seen, above the live picture."""
        self.console.print(text, soft_wrap=True, markup=False)

    def _left(self, before: str) -> str:
        left = self.progress.seconds_left()
        return (
            ""
            if left is None or self.progress.done >= self.progress.total
            else f"{before}about {seconds_text(left)} left"
        )

    def _picture(self) -> RenderableType:
        progress = self.progress
        head = Table.grid(padding=(0, 2))
        counts = f"{progress.done}/{progress.total} trials"
        if progress.failed:
            counts += f", {progress.failed} failed"
        elapsed = seconds_text(time.monotonic() - progress.started)
        head.add_row(
            Text(progress.title, style="bold"),
            ProgressBar(total=max(progress.total, 1), completed=progress.done, width=30),
            counts,
            f"{elapsed}{self._left(', ')}",
        )
        rows = Table.grid(padding=(0, 2))
        for number, doing in enumerate(progress.workers, 1):
            rows.add_row(Text(f"worker {number}", style="dim"), Text(doing or "idle"))
        if progress.best:
            rows.add_row(Text("best", style="dim"), Text(progress.best))
        return Group(head, rows)
