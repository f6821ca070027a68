"""A study's progress as the storage has it, for whoever watches it from elsewhere."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from itertools import groupby
from typing import Any

from optuna.storages import BaseStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live

from hpo.run.display import Progress, picture
from hpo.run.forecast import Sound, Spent, by_cost, by_count, finalists
from hpo.run.plan import Shape, cost
from hpo.storage.results import AGAIN, StoredGrid, StoredSearch, load_study
from hpo.study.config import Config
from hpo.study.finalists import cell_name

LOOK_SECONDS = 1.0
IDLE_LOOKS = 3  # a search is idle for a moment before its finalists begin


def views(study: StoredGrid | StoredSearch, here: bool) -> Iterator[RenderableType]:
    """The study's progress as `hpo run` shows it, and that of its finalists once there are some.
    here: whether a process of this machine runs it."""
    for of in _parts(study):
        yield picture(progress(of, here))
    if running := sum(_running(of) for of in _parts(study) if not _alive(of, here)):
        yield (
            f"{running} trial{' is' if running == 1 else 's are'} marked as running, but nothing "
            "runs the study: its run was killed. `hpo run` goes on with it."
        )


def _parts(study: StoredGrid | StoredSearch) -> list[StoredGrid | StoredSearch]:
    """The study, and a search's finalists once there are some."""
    tested = study.tested if isinstance(study, StoredSearch) else None
    return [study] if tested is None else [study, tested]


def _alive(study: StoredGrid | StoredSearch, here: bool) -> bool:
    """Whether its last run goes on, here or, as far as the storage can say, on another machine."""
    session = study.sessions[-1] if study.sessions else {}
    elsewhere = session.get("host", platform.node()) != platform.node()
    return here or (elsewhere and "seconds" not in session)


def watch(
    storage: BaseStorage, name: str, here: Callable[[], bool], console: Console
) -> StoredGrid | StoredSearch:
    """Keeps the picture fresh until the study ends; the study as it is then. Where there is no
    terminal, a line whenever a trial has ended."""
    cached = get_storage(storage)  # reads a trial that has ended once
    study, idle, said = load_study(cached, name), 0, ""
    terminal = Live(console=console, auto_refresh=False, transient=True)
    with terminal if console.is_terminal else nullcontext() as live:
        while idle < IDLE_LOOKS:
            if live:
                live.update(Group(*views(study, here())), refresh=True)
            elif (line := _line(study)) != said:
                console.print(said := line, soft_wrap=True, markup=False)
            time.sleep(LOOK_SECONDS)
            study = load_study(cached, name)
            idle = 0 if any(_alive(of, here()) for of in _parts(study)) else idle + 1
    return study


def _line(study: StoredGrid | StoredSearch) -> str:
    found = [progress(of, here=True) for of in _parts(study)]
    return "; ".join(f"{of.title}: {of.counts}" for of in found)


def _running(study: StoredGrid | StoredSearch) -> int:
    """How many trials are marked as running."""
    return sum(trial.state is TrialState.RUNNING for trial in study.frozen)


def progress(study: StoredGrid | StoredSearch, here: bool) -> Progress:
    """What `hpo run` shows of the study, from what is stored of it. here: whether a process of this
    machine runs it; what a killed run left is shown as it stands."""
    alive = _alive(study, here)
    running = [t for t in study.frozen if alive and t.state is TrialState.RUNNING]
    failed = study.trials[study.trials["state"] == "FAIL"]
    found = Progress(
        title=study.name,
        total=_total(study),
        done=_done(study),
        pruned=sum(trial.state is TrialState.PRUNED for trial in study.frozen),
        failed=int((~failed["fail_reason"].isin(AGAIN)).sum()),
        workers=[_doing(study, trials) for trials in _together(running)],
        best=_best(study),
    )
    session = study.sessions[-1] if study.sessions else {}
    if running and "seconds" not in session:
        found.started = time.monotonic() - (time.time() - session.get("started", time.time()))
        limit = session.get("until", math.inf) - time.time()
        found.expect(_seconds_left(study, running, session.get("workers", 1), max(limit, 0.0)))
    else:
        found.seconds = sum(_session_seconds(study, session) for session in study.sessions)
    return found


def _session_seconds(study: StoredGrid | StoredSearch, session: Mapping[str, Any]) -> float:
    """How long a run took; one that was killed, until the last trial that ended."""
    if "seconds" in session:
        return float(session["seconds"])
    ends = [t.datetime_complete.timestamp() for t in study.frozen if t.datetime_complete]
    return max(max(ends, default=0.0) - float(session["started"]), 0.0)


def _total(study: StoredGrid | StoredSearch) -> int:
    if isinstance(study, StoredGrid):
        return len(study.file.cells) * study.seeds
    return int(min(study.planned, 10**9))


def _done(study: StoredGrid | StoredSearch) -> int:
    if isinstance(study, StoredGrid):
        return sum(len(study.of(cell)) for cell in study.file.cells)
    return len(study.ended)


def _together(running: Sequence[FrozenTrial]) -> Iterator[list[FrozenTrial]]:
    """The trials that a worker trains as one stack."""
    for _, of in groupby(running, lambda trial: trial.user_attrs.get("cell", trial.number)):
        trials = list(of)
        size = trials[0].user_attrs.get("stack", 1)
        for start in range(0, len(trials), size):
            yield trials[start : start + size]


def _doing(study: StoredGrid | StoredSearch, trials: Sequence[FrozenTrial]) -> str:
    epoch, epochs = _epoch(trials[0]), _config(study, trials[0]).epochs
    at = f"epoch {epoch}/{epochs}" if epoch else "starting"
    return f"{_name(study, trials)}, {at}"


def _name(study: StoredGrid | StoredSearch, trials: Sequence[FrozenTrial]) -> str:
    first = trials[0]
    if isinstance(study, StoredSearch):
        return f"trial {first.number} ({study.config(first.number).brief})"
    seeds = [trial.user_attrs["seed"] for trial in trials]
    label = f"seeds {seeds[0]}–{seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"{first.user_attrs['cell']} {label}"


def _best(study: StoredGrid | StoredSearch) -> str:
    complete = [trial for trial in study.frozen if trial.state is TrialState.COMPLETE]
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    if best is None or best.value is None:
        return ""
    return f"{_name(study, [best])}, validation accuracy {100 * best.value:.2f}%"


def _epoch(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values, default=0)


def _config(study: StoredGrid | StoredSearch, trial: FrozenTrial) -> Config:
    if isinstance(study, StoredSearch):
        return study.config(trial.number)
    by_name = {cell.name: cell.config for cell in study.file.cells}
    return by_name[trial.user_attrs["cell"]]


# --- the time left -----------------------------------------------------------------------------


def _seconds_left(
    study: StoredGrid | StoredSearch, running: Sequence[FrozenTrial], workers: int, limit: float
) -> float | None:
    """limit: seconds after which the study's own trainings end at the latest."""
    if isinstance(study, StoredGrid):
        left = _grid_seconds(study, running, workers)
        return None if left is None else min(left, limit)
    ended = [t for t in study.frozen if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    taken = [_seconds(trial) for trial in ended]
    missing = _total(study) - len(ended) - len(running)
    left = by_count(taken, [_seconds(trial) for trial in running], max(missing, 0), workers)
    if left is None:
        return None
    sound = [
        Sound(value=trial.value or 0.0, seconds=_seconds(trial), trained=_trained(study, trial))
        for trial in ended
        if trial.state is TrialState.COMPLETE and not trial.user_attrs.get("diverged")
    ]
    k, seeds = study.file.finalists, study.file.finalist_seeds
    return min(left, limit) + finalists(sound, k, seeds, workers)


def _trained(study: StoredSearch, trial: FrozenTrial) -> int:
    """On how many of the finalists' seeds the trial was trained already."""
    if study.tested is None:
        return 0
    return int((study.tested.finished["cell"] == cell_name(trial.number)).sum())


def _grid_seconds(study: StoredGrid, running: Sequence[FrozenTrial], workers: int) -> float | None:
    shape = Shape(features=study.data["features"], train_rows=study.data["train"])
    costs = {cell.name: cost(cell.config, shape) for cell in study.file.cells}
    complete = [trial for trial in study.frozen if trial.state is TrialState.COMPLETE]
    spent = [
        Spent(
            cost=costs[trial.user_attrs["cell"]],
            share=_epoch(trial) / _config(study, trial).epochs,
            seconds=_seconds(trial) / trial.user_attrs["stack"],
        )
        for trial in [*complete, *running]
        if trial.user_attrs["cell"] in costs
    ]
    waiting = []
    for cell in study.file.cells:
        under_way = sum(trial.user_attrs["cell"] == cell.name for trial in running)
        missing = study.seeds - len(study.of(cell)) - under_way
        waiting += [costs[cell.name]] * missing
    return by_cost(spent, waiting, workers)


def _seconds(trial: FrozenTrial) -> float:
    """From its start to its end, or until now."""
    assert trial.datetime_start is not None
    return ((trial.datetime_complete or datetime.now()) - trial.datetime_start).total_seconds()
