"""The progress of a run: shown in its terminal, stored in its study, and read by `hpo show`."""

import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import optuna
from optuna.storages import BaseStorage, get_storage
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.results.load import NotBegun, load_study
from hpo.results.study import StoredGrid, StoredSearch, seconds_of
from hpo.results.trial import run_name, trial_name
from hpo.runs.plan import Job, Watcher
from hpo.runs.progress import Progress
from hpo.storage.lock import Holder
from hpo.storage.open import NothingStored
from hpo.study.file import cost_text
from hpo.study.finalists import noun_of
from hpo.text import count, seconds_text
from hpo.watch.fitted import print_line

MOST_WORKERS = 16  # with a line of their own
BAR = 24  # characters of the bar
PROGRESS = "progress"  # attribute of the study
WRITE_SECONDS = 2.0  # between two writes of the progress
LOOK_SECONDS = 1.0
IDLE_LOOKS = 3  # a search is idle for a moment before its finalists start

Stored = StoredGrid | StoredSearch


def render(progress: Progress) -> RenderableType:
    """Returns counts, a bar with times, the best trial so far, and a line per worker.

    What is too long for a narrow terminal breaks into lines. The best comes before the workers,
    which a low terminal may hide.
    """
    bar = Table.grid(padding=(0, 2))
    bar.add_column(max_width=BAR)
    bar.add_column(no_wrap=True)
    bar.add_column(overflow="fold")
    bar.add_row(
        ProgressBar(total=max(progress.total, 1), completed=progress.done),
        f"{100 * progress.done / max(progress.total, 1):.0f}%",
        ", ".join(filter(None, (seconds_text(progress.elapsed), progress.left))),
    )
    lines = {"cluster": progress.waiting, "best": progress.best}
    for number, task in enumerate(progress.workers[:MOST_WORKERS], 1):
        lines[f"worker {number}"] = task or "idle"
    if more := progress.workers[MOST_WORKERS:]:
        busy = sum(map(bool, more))
        lines[f"{len(more)} more"] = f"{busy} {'is' if busy == 1 else 'are'} training"
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True, min_width=len(f"worker {len(progress.workers)}"), style="dim")
    rows.add_column(overflow="fold")
    for name, text in lines.items():
        if text:
            rows.add_row(name, Text(text))
    title = Text.assemble((progress.title, "bold"), f": {progress.counts}", overflow="fold")
    return Group(title, bar, rows)


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
        print_line(self.console, text)

    def on_finish(self) -> None:
        if self.live:
            self.live.stop()
            self.live = None


class Heartbeat(Watcher):
    """Holds the study for this run and stores the progress of its plans."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.study: optuna.Study | None = None

    def on_open(self, study: optuna.Study) -> None:
        self.holder.take(study)

    def on_start(self, study: optuna.Study | None, progress: Progress) -> None:
        self.study, self.progress, self.written = study, progress, -math.inf

    def on_tick(self) -> None:
        self.holder.heartbeat()
        if self.study and time.monotonic() > self.written + WRITE_SECONDS:
            self.study.set_user_attr(PROGRESS, self.progress.as_json())
            self.written = time.monotonic()

    def on_finish(self) -> None:
        self.study = None


# --- hpo show ----------------------------------------------------------------------------------


def begun(opened: Callable[[], BaseStorage], name: str, console: Console) -> BaseStorage:
    """Returns the storage once a run has begun the study in it; says so if it has to wait. opened:
    opens the storage."""
    said = False
    while True:
        try:
            storage = opened()
            load_study(storage, name)
        except (NothingStored, NotBegun) as error:
            if not said:
                text = f"waiting for study {name} to begin ({error})"
                print_line(console, text)
            said = True
            time.sleep(LOOK_SECONDS)
        else:
            return storage


def watch(storage: BaseStorage, name: str, here: Callable[[], bool], console: Console) -> Stored:
    """Shows the progress until the study ends: live on a terminal, else a line per change.

    here: whether a process of this machine runs the study. Returns the study at its end.
    """
    cached = get_storage(storage)  # reads an ended trial once
    study, idle, last = load_study(cached, name), 0, ""
    terminal = Live(console=console, auto_refresh=False, transient=True)
    with terminal if console.is_terminal else nullcontext() as live:
        while idle < IDLE_LOOKS:
            if live:
                live.update(Group(*views(study, here())), refresh=True)
            else:
                parts = [read_progress(part, here()) for part in study.parts]
                line = "; ".join(
                    f"{p.title}: {p.counts}{p.waiting and ', '}{p.waiting}" for p in parts
                )
                if line != last:
                    print_line(console, last := line)
            time.sleep(LOOK_SECONDS)
            study = load_study(cached, name)
            idle = 0 if any(_runs(part, here()) for part in study.parts) else idle + 1
    return study


def views(study: Stored, here: bool) -> Iterator[RenderableType]:
    """Yields the progress of the study and of its finalists as `hpo run` shows it, and a line if a
    killed run left trials RUNNING. here: as in watch."""
    for part in study.parts:
        yield render(read_progress(part, here))
    parts = [part for part in study.parts if not _runs(part, here)]
    for part in parts:
        if not (left := int(((part.trials["state"] == "RUNNING") & ~part.paused).sum())):
            continue
        are = "is" if left == 1 else "are"
        yield (
            f"{count(left, noun_of(part.name))} {are} marked as running, but nothing "
            "runs the study: its run was killed, or its SQLite file was copied without the -wal "
            "file. `hpo run` goes on with it."
        )


def _runs(study: Stored, here: bool) -> bool:
    """Whether the last run goes on: here or, as far as the storage shows, on another machine."""
    session = study.sessions[-1] if study.sessions else {}
    elsewhere = session.get("host", platform.node()) != platform.node()
    return here or (elsewhere and "seconds" not in session)


def read_progress(study: Stored, here: bool) -> Progress:
    """Returns the progress that a run stores, or what the trials show if the study is not run."""
    session = study.sessions[-1] if study.sessions else {}
    if study.progress and "seconds" not in session and _runs(study, here):
        return Progress.from_json(study.progress)
    pruned = study.trials["state"] == "PRUNED"
    if isinstance(study, StoredGrid):
        done = sum(len(study.of(cell)) for cell in study.file.cells)
        total = max(len(study.file.cells) * study.seeds, done)
    else:
        done, total = len(study.ended), int(min(study.planned, 10**9))
    progress = Progress(
        title=study.name,
        noun=noun_of(study.name),
        objective=study.metric.name,
        deviation=study.schema.deviation,
        total=total,
        done=done,
        paused=int(study.paused.sum()),
        pruned=int((pruned & ~study.trials["diverged"]).sum()),
        diverged=int((pruned & study.trials["diverged"]).sum()),
        failed=int(((study.trials["state"] == "FAIL") & ~study.stopped).sum()),
        seconds=sum(_seconds(study, session) for session in study.sessions),
    )
    for _, best in study.ranked.head(1).iterrows():
        if isinstance(study, StoredGrid):
            name, cost = run_name(best["cell"], best["seed"]), ""
        else:
            number = int(best["number"])
            name = trial_name(number, study.config(number))
            cost = cost_text(study.second, sum(study.frozen[number].values[1:]))
        progress.take_best(name, best[study.metric.name], cost)
    return progress


def _seconds(study: Stored, session: Mapping[str, Any]) -> float:
    """Returns the seconds of a session; of a killed one of an earlier version, which counted none,
    those until the last trial's end."""
    if {"seconds", "counted"} & set(session):
        return seconds_of([session])
    ends = [t.datetime_complete.timestamp() for t in study.frozen if t.datetime_complete]
    return max(max(ends, default=0.0) - float(session["started"]), 0.0)
