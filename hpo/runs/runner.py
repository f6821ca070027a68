"""Runs a study: opens it, trains its plan, and for a search the finalists and the winner."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.analysis.claims import open_cells, times_open
from hpo.analysis.precision import disputed, disputing_pair
from hpo.data.datasets import test_pictures
from hpo.errors import InputError
from hpo.model import folder as best
from hpo.results.load import CODE, IMAGES, load_study
from hpo.results.study import StoredGrid, StoredSearch, seconds_of
from hpo.runs.grid import MOST_ROUNDS, GridPlan, TimingPlan, finished_seeds
from hpo.runs.loop import End, Loop, end_paused
from hpo.runs.plan import Job, Plan, Watcher
from hpo.runs.progress import Progress
from hpo.runs.samplers import distributions
from hpo.runs.search import SearchPlan, like_trials
from hpo.runs.study import Run, clean_up, open_study
from hpo.storage.open import StorageLost
from hpo.storage.retry import during_run
from hpo.study import finalists
from hpo.study.binding import DATA, JUDGED, MODEL, code_digest, code_of, differences
from hpo.study.claims import SECONDS
from hpo.study.config import Seeds
from hpo.study.file import GridStudy, SearchStudy
from hpo.text import count, meant
from hpo.workers.messages import Task
from hpo.workers.pool import Pool

COUNT_SECONDS = 10.0  # between two counts of a run's seconds: what a kill can cost


def run_grid(run: Run) -> End:
    """Trains the missing trials of a grid, then measures the training times that its claims
    compare, and goes on in rounds if the run asks for that.

    Raises InputError if the stored study of that name is bound to something else.
    """
    assert isinstance(run.file, GridStudy)
    optuna_study, seeds = _open(run), run.options.seeds or run.file.seeds
    optuna_study.set_user_attr("seeds", max(seeds, optuna_study.user_attrs.get("seeds", 0)))
    deadline = time.monotonic() + run.timeout
    first = run.file.first
    plan = GridPlan(run, optuna_study, range(first, first + seeds))
    if plan.jobs and not run.options.until_resolved:  # what was said of earlier rounds is over
        optuna_study.set_user_attr("until_resolved", None)
    end = train(run, plan, run.timeout)
    if end is End.COMPLETE:
        end = _measure_times(run, optuna_study, deadline)
    if end is End.COMPLETE and run.options.until_resolved:
        end = _resolve(run, optuna_study, deadline)
    if end is not End.STOPPED:
        _store_images(run, optuna_study)
    return end


def _store_images(run: Run, optuna_study: optuna.Study) -> None:
    """Stores the test images that two networks disagree on, for the report's picture."""
    stored = load_study(run.storage, run.name)
    assert isinstance(stored, StoredGrid)
    if (cells := disputing_pair(stored)) is None:
        return
    sides = disputed(*(stored.right(cell) for cell in cells))
    shown: Any = test_pictures(run.dataset, [index for side in sides for index in side])
    run.storage.set_study_system_attr(optuna_study._study_id, IMAGES, shown)


def _measure_times(
    run: Run, optuna_study: optuna.Study, deadline: float, *, more: bool = False
) -> End:
    """Stores the training times of the cells whose times are compared, unless they are stored.
    more: measures again, beside those that are stored."""
    assert isinstance(run.file, GridStudy)
    compared = {cell for claim in run.file.claims for cell in claim.cells(SECONDS)}
    cells = [cell for cell in run.file.cells if cell.name in compared]
    stored = optuna_study.user_attrs.get("timings", [])
    stored = stored if stored and compared <= set(stored[0]) else []
    if not cells or (stored and not more):
        return End.COMPLETE
    _require_code(run)
    title = f"{run.name}: training times"
    plan = TimingPlan(title, cells, run.shape, len(stored), run.training)
    end = train(replace(run, workers=1), plan, deadline - time.monotonic())
    if measured := plan.measured():
        optuna_study.set_user_attr("timings", [*stored, *measured])
    return end


def _resolve(run: Run, optuna_study: optuna.Study, deadline: float) -> End:
    """Trains rounds of seeds, each for the cells of the claims that are open then, and measures
    training times again while a claim on times is open."""
    assert isinstance(run.file, GridStudy)
    rounds, first, end = run.file.rounds, run.file.first, End.COMPLETE
    for start in range(rounds.start, rounds.most, rounds.step):
        count = min(start + rounds.step, rounds.most)
        _require_code(run)
        stored = load_study(run.storage, run.name)
        assert isinstance(stored, StoredGrid)
        wanted = open_cells(stored)
        cells = [cell for cell in run.file.cells if cell.name in wanted]
        title = f"{run.name}: up to {count} seeds"
        plan = GridPlan(run, optuna_study, range(first, first + count), cells=cells, title=title)
        end = train(run, plan, deadline - time.monotonic())
        if end is End.COMPLETE and len(stored.timings) < MOST_ROUNDS and times_open(stored):
            end = _measure_times(run, optuna_study, deadline, more=True)
        if end is not End.COMPLETE:
            break
    optuna_study.set_user_attr("until_resolved", {"most": rounds.most, "end": end.value})
    return end


def run_search(run: Run) -> End:
    """Searches until n_trials trials are COMPLETE or PRUNED, trains the finalists on fresh seeds,
    and saves the winner, trained on all training images.

    Raises InputError if the stored study of that name is bound to something else, or if no trial
    of `like` fits the space, and Unsaved if the winner cannot be saved.
    """
    file = run.file
    assert isinstance(file, SearchStudy)
    optuna_study = _open(run)
    like, timeout = _like(run, optuna_study), run.timeout
    optuna_study.set_user_attr("timeout", file.timeout)
    optuna_study.set_user_attr("sampler_seed", file.sampler_seed)
    if file.timeout is not None:  # which counts all runs
        searched = seconds_of(optuna_study.user_attrs.get("sessions", []))
        timeout = min(timeout, file.timeout - searched)
    plan = SearchPlan(run, optuna_study, _trained_finalists(run, optuna_study), like)
    optuna_study.set_user_attr("n_trials", max(file.n_trials, plan.finished))
    if plan.finished > file.n_trials:
        text = (
            f"the study holds {count(plan.finished, 'finished trial')}, which --trials counts, too"
        )
        for watcher in run.watchers:
            watcher.on_notice(f"{text}: to go on, give a larger number, or --more")
    end = train(run, plan, timeout)
    optuna_study.set_user_attr("gave_up", plan.gave_up)
    optuna_study.set_user_attr("settled", plan.settled)
    if end is End.STOPPED or not (best_trials := plan.best()):
        return end
    after = _run_finalists(run, optuna_study, best_trials)
    if after is End.COMPLETE:
        after = _run_winner(run)
    return end if after is End.COMPLETE else after


def _open(run: Run) -> optuna.Study:
    optuna_study = open_study(run)
    if run.file.model:
        code: Any = code_of(run.file.model, run.file.folder)
        run.storage.set_study_system_attr(optuna_study._study_id, CODE, code)
    for watcher in run.watchers:
        watcher.on_open(optuna_study)
    clean_up(optuna_study)
    return optuna_study


def _require_code(run: Run) -> None:
    """Raises InputError if the code of the user's own network has changed since the run began."""
    model = run.file.model
    if model and code_digest(code_of(model, run.file.folder)) != run.bound["model code"]:
        raise InputError(
            f"model {model}: its code changed while the study ran; undo the change and "
            "give the same command again, or the rest would be of another network"
        )


def _like(run: Run, optuna_study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials of another stored search that fit the space; empty if none is asked for,
    now or in an earlier run."""
    asked = None if run.options.like == run.name else run.options.like
    if not (name := asked or optuna_study.user_attrs.get("like", {}).get("study")):
        return []
    known = optuna.get_all_study_names(run.storage)
    if name not in known:
        if asked:
            text = f"--like {name}: is not in the storage; `hpo list` shows what is"
            raise InputError(f"{text}{meant(name, known)}")
        return []  # it was deleted since
    other = load_study(run.storage, name)
    if not isinstance(other, StoredSearch):
        raise InputError(f"--like {name}: is a grid; give a search")
    if found := differences(other.binding, run.bound, (*DATA, *MODEL, *JUDGED)):
        what = f"is of {other.data_name}"
        if set(found) <= set(JUDGED):
            what = f"has another {' and '.join(found)}"
        elif set(found) <= set(MODEL):
            what = f"has another network ({other.file.model}) or other code of it"
        raise InputError(
            f"--like {name}: {what}, whose results cannot be compared; put its best "
            "configurations into [[search.first]]"
        )
    assert isinstance(run.file, SearchStudy)
    fitting = like_trials(other.frozen, other.file, run.file)
    finished = len(other.ended)
    if not fitting:
        raise InputError(
            f"--like {name}: none of its {finished} finished trials lies in the space of study "
            f"{run.name!r}; give a search of the same space"
        )
    optuna_study.set_user_attr("like", {"study": name, "trials": len(fitting), "of": finished})
    return fitting


def _trained_finalists(run: Run, search: optuna.Study) -> Counter[int]:
    """Returns {trial number: on how many seeds it was trained as a finalist}. Raises InputError if
    the stored finalists are another search's: these have another token."""
    name = finalists.name_of(run.name)
    if name not in optuna.get_all_study_names(run.storage):
        return Counter()
    stored = optuna.load_study(study_name=name, storage=run.storage)
    if "binding" not in stored.user_attrs and not stored.get_trials(deepcopy=False):
        return Counter()  # a kill came between its creation and its binding
    if not finalists.belong(stored, search):
        raise InputError(
            f"study {name!r}: has the finalists of another search, which is gone; give --name "
            "another one, or --fresh to delete them"
        )
    cells = [cell for cell, _ in finished_seeds(stored) if cell != finalists.REFERENCE]
    return Counter(map(finalists.trial_number, cells))


def _run_finalists(run: Run, search: optuna.Study, best_trials: Sequence[FrozenTrial]) -> End:
    """Trains the finalists and the reference.

    Their study is bound to the search and not to its cells, which may be others when the search
    goes on. It has the search's distributions: Optuna does not let a study change its choices.
    """
    file = run.file
    assert isinstance(file, SearchStudy)
    _require_code(run)
    seeds = finalists.fresh_seeds(file)
    run = replace(
        run,
        file=finalists.grid_of(best_trials, file),
        name=finalists.name_of(run.name),
        bound={**run.bound, "search": search.user_attrs["token"]},
    )
    optuna_study = open_study(run)
    clean_up(optuna_study)
    optuna_study.set_user_attr("seeds", len(seeds))
    plan = GridPlan(run, optuna_study, seeds, ranges=distributions(file.space))
    return train(run, plan)


def _run_winner(run: Run) -> End:
    """Trains the winner on all training images and saves it, unless the folder holds it already.
    It is no trial: no image validates it."""
    _require_code(run)
    search = load_study(run.storage, run.name)
    assert isinstance(search, StoredSearch)
    winner, content = search.winner, best.winner_of(search)
    if winner is None or content is None or best.holds_winner(run.winner_folder, content):
        return End.COMPLETE
    label = f"{winner.cell.name} on all {len(run.dataset.train_labels)} {search.things}"
    task = Task(
        id=1,
        config=winner.config,
        seeds=tuple(Seeds.of(search.file.first_seed + m) for m in range(search.file.members)),
        all_images=True,
        **run.training,
        cut=winner.cut,
    )
    job = Job(task=task, label=label, trials=[], names=[label], cost=1.0)
    end = train(run, Plan(f"{run.name}: the winner", jobs=[job]))
    if job.model:
        if job.ensemble and job.ensemble_score:
            name, value = job.ensemble_score
            known = {"trial": winner.number, name: value}
            study = optuna.load_study(study_name=run.name, storage=run.storage)
            study.set_user_attr("ensemble", {**known, "members": search.file.members})
        best.write(run.winner_folder, job.model, content, search.code, job.ensemble)
    return end


def train(run: Run, plan: Plan, timeout: float = math.inf) -> End:
    """Trains what the plan says, for `timeout` seconds at most."""
    if not plan.jobs:
        end_paused(plan, run.storage)
        return End.COMPLETE
    run.unfinished.append(plan.title)
    if timeout <= 0:
        end_paused(plan, run.storage)
        return End.OUT_OF_TIME
    started = time.monotonic()
    progress = plan.progress(run.started)
    size = min(run.workers, plan.jobs)
    with run.make_pool(size, run.dataset, run.options.device, run.options.epoch_limit) as pool:
        progress.workers = [""] * pool.size
        watchers = [*run.watchers, _Session(run, pool, started)]
        loop = Loop(
            plan=plan,
            storage=run.storage,
            pool=pool,
            progress=progress,
            cores=run.workers,
            watchers=watchers,
            deadline=started + timeout,
        )
        with during_run(run.storage, plan.optuna_study, loop.notice, lambda: loop.stopping):
            try:
                return loop.run()
            finally:
                progress.workers, progress.seconds = [], time.monotonic() - progress.started
                for watcher in watchers:
                    watcher.on_finish()


class _Session(Watcher):
    """Stores in the study where and since when a run trains it, and for how long: `counted` while
    the run lasts, which a killed run leaves, `seconds` at the end. Plans of one run make one
    session. started: of the plan, by the monotonic clock."""

    def __init__(self, run: Run, pool: Pool, started: float) -> None:
        self.run, self.pool, self.started = run, pool, started
        self.optuna_study: optuna.Study | None = None

    def on_start(self, optuna_study: optuna.Study | None, progress: Progress) -> None:
        if optuna_study is None:
            return
        facts = {"run": self.run.token, "started": time.time(), "device": self.pool.device}
        self.session = {**self.run.provenance, **facts, "workers": self.pool.size}
        self.before = optuna_study.user_attrs.get("sessions", [])
        if self.before and self.before[-1].get("run") == self.run.token:
            last = self.before.pop()
            self.session = {**last, "workers": max(self.pool.size, last["workers"])}
        self.started -= self.session.pop("seconds", 0.0)
        self.optuna_study = optuna_study
        self._store("counted")

    def on_trial(self, trial: int, curve: Mapping[str, Any], epochs: int) -> None:
        passed = seconds_of(self.before) + time.monotonic() - self.started
        self.run.storage.set_trial_user_attr(trial, "run_seconds", passed)

    def on_tick(self) -> None:
        if self.optuna_study and time.monotonic() > self.stored + COUNT_SECONDS:
            self._store("counted")

    def on_finish(self) -> None:
        if self.optuna_study is None:
            return
        del self.session["counted"]
        self.session |= {"machines": self.pool.machines} if self.pool.machines else {}
        if self.pool.gpus:
            self.session["gpus"] = sorted({*self.session.get("gpus", ()), *self.pool.gpus})
        with suppress(StorageLost):  # the loop has raised StorageLost already
            self._store("seconds")

    def _store(self, key: str) -> None:
        assert self.optuna_study
        self.stored = time.monotonic()
        self.session[key] = self.stored - self.started
        self.optuna_study.set_user_attr("sessions", [*self.before, self.session])
