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

from hpo.text import seconds_text


@dataclass
class Progress:
    """What there is to show of a run. done counts trials trained to their end and pruned ones;
    started and finish (when all will be done, as far as one can tell) are times of the monotonic
    clock; seconds: how long it took, if it is over."""

    title: str
    total: int
    done: int = 0
    pruned: int = 0
    failed: int = 0
    workers: list[str] = field(default_factory=list)
    best: str = ""
    started: float = field(default_factory=time.monotonic)
    finish: float | None = None
    seconds: float | None = None

    def expect(self, seconds: float | None) -> None:
        """So long will it take from now."""
        self.finish = None if seconds is None else time.monotonic() + seconds

    @property
    def counts(self) -> str:
        """34/50 trials, 12 pruned, 1 failed."""
        parts = [f"{self.done}/{self.total} trials"]
        parts += [f"{self.pruned} pruned"] if self.pruned else []
        parts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(parts)

    @property
    def left(self) -> str:
        """about 2 min 05 s left; nothing where that is not known, or all is done."""
        if self.finish is None or self.seconds is not None:
            return ""
        return f"about {seconds_text(max(self.finish - time.monotonic(), 0.0))} left"


def picture(progress: Progress) -> RenderableType:
    """A head with bar, counts and times, a line a worker, the best so far. Lines are cut where the
    terminal is narrow: one that wraps would make the picture jump."""
    elapsed = progress.seconds
    if elapsed is None:
        elapsed = time.monotonic() - progress.started
    head = Table.grid(padding=(0, 2))
    for _ in range(4):
        head.add_column(no_wrap=True, overflow="ellipsis")
    head.add_row(
        Text(progress.title, style="bold"),
        ProgressBar(total=max(progress.total, 1), completed=progress.done, width=24),
        Text(f"{100 * progress.done / max(progress.total, 1):.0f}%"),
        Text(", ".join(part for part in (seconds_text(elapsed), progress.left) if part)),
    )
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True, min_width=len(f"worker {len(progress.workers)}"))
    rows.add_column(no_wrap=True, overflow="ellipsis")
    rows.add_row(Text("trials", style="dim"), Text(progress.counts.replace(" trials", "")))
    for number, doing in enumerate(progress.workers, 1):
        rows.add_row(Text(f"worker {number}", style="dim"), Text(doing or "idle"))
    if progress.best:
        rows.add_row(Text("best", style="dim"), Text(progress.best))
    return Group(head, rows)


class Display:
    """Shows a Progress: live on a terminal, a line for each finished task elsewhere, or nothing."""

    def __init__(self, progress: Progress, *, quiet: bool, console: Console | None = None) -> None:
        self.progress = progress
        self.console = console or Console(file=sys.stdout, highlight=False)
        self.quiet = quiet
        self.live: Live | None = None
        if self.console.is_terminal and not quiet:
            self.live = Live(
                get_renderable=lambda: picture(self.progress),
                console=self.console,
                refresh_per_second=4,
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
        self.progress.workers = []
        self.progress.seconds = time.monotonic() - self.progress.started
        if self.live:
            self.live.stop()

    def line(self, text: str) -> None:
        """A line of log: what has just ended, with the state of the whole."""
        if self.quiet or self.live:
            return
        width = len(str(self.progress.total))
        left = self.progress.left if self.progress.done < self.progress.total else ""
        self.console.print(
            f"{self.progress.done:{width}d}/{self.progress.total}  {text}{left and ', '}{left}",
            soft_wrap=True,
            markup=False,
        )

    def notice(self, text: str) -> None:
        """A line that must be seen, above the live picture."""
        self.console.print(text, soft_wrap=True, markup=False)
