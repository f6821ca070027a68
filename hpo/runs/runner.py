"""Runs a study: opens it, trains its plan, and for a search the finalists and the winner."""

import math
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpo import defaults
from hpo.analysis.claims import open_cells
from hpo.analysis.precision import disputed, disputing_pair
from hpo.data.datasets import Dataset, test_accuracy, test_pictures
from hpo.errors import InputError
from hpo.model import folder as best
from hpo.results.load import CODE, IMAGES, load_study
from hpo.results.study import StoredGrid, StoredSearch, seconds_of
from hpo.results.trial import PROBABILITIES
from hpo.runs.extra import TimingPlan, WinnerPlan
from hpo.runs.grid import GridPlan, finished_seeds
from hpo.runs.loop import End, Loop
from hpo.runs.plan import Plan, Shape, Watcher
from hpo.runs.progress import Progress
from hpo.runs.samplers import distributions
from hpo.runs.search import SearchPlan, like_trials
from hpo.runs.study import binding, clean_up, open_study
from hpo.storage.open import StorageLost
from hpo.storage.retry import during_run
from hpo.study import finalists
from hpo.study.binding import DATA, MODEL, code_digest, code_of, differences
from hpo.study.claims import SECONDS
from hpo.study.file import GridStudy, SearchStudy, StudyFile
from hpo.study.metrics import unpacked_shares
from hpo.workers.pool import LocalPool, MakePool, Pool

COUNT_SECONDS = 10.0  # between two counts of a run's seconds: what a kill can cost


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run trains on, where it stores the trials, and what watches it.

    workers: at most. epoch_limit: seconds without an epoch after which a worker is replaced.
    provenance: see provenance.collect. started: by the monotonic clock, as all that counts seconds:
    nobody can set it, and it stands still while the machine sleeps. token: of this very run.
    unfinished: the titles of the plans that had something to train when they began.
    """

    dataset: Dataset
    storage: BaseStorage
    workers: int
    device: str
    provenance: Mapping[str, Any]
    epoch_limit: float = defaults.EPOCH_LIMIT
    watchers: Sequence[Watcher] = ()
    make_pool: MakePool = LocalPool
    started: float = field(default_factory=time.monotonic)
    unfinished: list[str] = field(default_factory=list)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


def run_grid(
    run: Run,
    study_file: GridStudy,
    *,
    name: str,
    seeds: Sequence[int],
    until_resolved: bool = False,
    changed_claims: bool = False,
    timeout: float = math.inf,
) -> End:
    """Trains the missing trials of a grid at these seeds, for `timeout` seconds at most; then
    measures the training times that its claims compare.

    until_resolved: whether to go on in rounds with more seeds for the cells of open claims.
    Raises InputError if the stored study of that name is bound to other things, or to other claims
    and these are not to be changed.
    """
    study = _open(run, study_file, name, changed_claims=changed_claims)
    study.set_user_attr("seeds", max(len(seeds), study.user_attrs.get("seeds", 0)))
    deadline = time.monotonic() + timeout
    plan = GridPlan(study, run.storage, study_file, seeds, run.dataset)
    if plan.jobs and not until_resolved:
        study.set_user_attr("until_resolved", None)  # what was said of earlier rounds is over
    end = train(run, plan, name, study, timeout)
    if end is End.COMPLETE:
        end = _measure_times(run, study, study_file, deadline)
    if end is End.COMPLETE and until_resolved:
        end = _resolve(run, study, study_file, deadline)
    if end is not End.STOPPED:
        _store_images(run, study)
    return end


def _store_images(run: Run, study: optuna.Study) -> None:
    """Stores the test images that two networks disagree on, for the report's picture."""
    stored = load_study(run.storage, study.study_name)
    assert isinstance(stored, StoredGrid)
    if (cells := disputing_pair(stored)) is None:
        return
    sides = disputed(*(stored.right(cell) for cell in cells))
    shown: Any = test_pictures(run.dataset, [index for side in sides for index in side])
    run.storage.set_study_system_attr(study._study_id, IMAGES, shown)


def _measure_times(run: Run, study: optuna.Study, study_file: GridStudy, deadline: float) -> End:
    """Stores the training times of the cells whose times are compared, unless they are stored."""
    compared = {cell for c in study_file.claims if c.metric == SECONDS for cell in c.cells}
    cells = [cell for cell in study_file.cells if cell.name in compared]
    if not cells or compared <= set(study.user_attrs.get("timings", [{}])[0]):
        return End.COMPLETE
    _require_code(study, study_file)
    plan = TimingPlan(cells, Shape.of(run.dataset), study_file.folder)
    alone, left = replace(run, workers=1), deadline - time.monotonic()
    end = train(alone, plan, f"{study.study_name}: training times", timeout=left)
    if measured := plan.measured():
        study.set_user_attr("timings", measured)
    return end


def _resolve(run: Run, study: optuna.Study, study_file: GridStudy, deadline: float) -> End:
    """Trains rounds of seeds, each for the cells of the claims that are open then."""
    rounds, end, name = study_file.rounds, End.COMPLETE, study.study_name
    assert rounds
    for count in range(rounds.start + rounds.step, rounds.most + 1, rounds.step):
        _require_code(study, study_file)
        stored = load_study(run.storage, name)
        assert isinstance(stored, StoredGrid)
        wanted = open_cells(stored)
        cells = [cell for cell in study_file.cells if cell.name in wanted]
        plan = GridPlan(study, run.storage, study_file, range(count), run.dataset, cells=cells)
        left = deadline - time.monotonic()
        end = train(run, plan, f"{name}: up to {count} seeds", study, left)
        if left <= 0 and plan.jobs:
            end = End.OUT_OF_TIME
        if end is not End.COMPLETE:
            break
    study.set_user_attr("until_resolved", {"most": rounds.most, "end": end.value})
    return end


def run_search(
    run: Run,
    study_file: SearchStudy,
    *,
    name: str,
    folder: Path,
    timeout: float = math.inf,
    like: str | None = None,
) -> End:
    """Searches until n_trials trials are COMPLETE or PRUNED, trains the finalists on fresh seeds,
    and saves the winner, trained on all training images, in `folder`.

    timeout: seconds of searching in this run; the study file's timeout counts all runs. Finalists
    are trained without a limit. like: a stored search whose trials the sampler knows from the
    start. Raises InputError if the stored study of that name is bound to other things, or if no
    trial of `like` fits the space, and Unsaved if the winner cannot be saved.
    """
    study = _open(run, study_file, name)
    known = _like(run, study, study_file, like)
    study.set_user_attr("timeout", study_file.timeout)
    study.set_user_attr("sampler_seed", study_file.sampler_seed)
    if study_file.timeout is not None:
        spent = seconds_of(study.user_attrs.get("sessions", []))
        timeout = min(timeout, study_file.timeout - spent)
    trained = _trained_finalists(study, run.storage)
    plan = SearchPlan(study, run.storage, study_file, run.dataset, trained, known)
    study.set_user_attr("n_trials", max(study_file.n_trials, plan.finished))
    if plan.finished > study_file.n_trials:
        text = f"the study holds {plan.finished} finished trials, which --trials counts, too"
        for watcher in run.watchers:
            watcher.on_notice(f"{text}: to go on, give a larger number")
    end = train(run, plan, name, study, timeout)
    study.set_user_attr("gave_up", plan.gave_up)
    study.set_user_attr("settled", plan.settled)
    if end is End.STOPPED or not (best_trials := plan.best()):
        return end
    _require_code(study, study_file)
    grid, seeds = finalists.grid_of(best_trials, study_file), finalists.fresh_seeds(study_file)
    after = _run_finalists(run, study, grid, seeds, distributions(study_file.space))
    if after is End.COMPLETE:
        _store_ensemble(run, finalists.name_of(name))
        _require_code(study, study_file)
        after = _run_winner(run, study_file, name, folder)
    return end if after is End.COMPLETE else after


def _open(
    run: Run, study_file: StudyFile, name: str, *, changed_claims: bool = False
) -> optuna.Study:
    bound = binding(study_file, run.dataset)
    study = open_study(
        run.storage, study_file, run.dataset, name, bound, changed_claims=changed_claims
    )
    if study_file.model:
        code: Any = code_of(study_file.model, study_file.folder)
        run.storage.set_study_system_attr(study._study_id, CODE, code)
    for watcher in run.watchers:
        watcher.on_open(study)
    clean_up(study)
    return study


def _require_code(study: optuna.Study, study_file: StudyFile) -> None:
    """Raises InputError if the code of the user's own network has changed since the run began."""
    if not study_file.model:
        return
    now = code_digest(code_of(study_file.model, study_file.folder))
    if now != study.user_attrs["binding"]["model code"]:
        raise InputError(
            f"model {study_file.model}: its code changed while the study ran; undo the change and "
            "give the same command again, or the rest would be of another network"
        )


def _like(
    run: Run, study: optuna.Study, study_file: SearchStudy, like: str | None
) -> list[FrozenTrial]:
    """Returns the trials of another stored search that fit the space; empty if none is asked for,
    now or in an earlier run."""
    if not (name := like or study.user_attrs.get("like", {}).get("study")):
        return []
    if name not in optuna.get_all_study_names(run.storage):
        if like:
            raise InputError(f"--like {name}: is not in the storage; `hpo list` shows what is")
        return []  # it was deleted since
    other = load_study(run.storage, name)
    if not isinstance(other, StoredSearch):
        raise InputError(f"--like {name}: is a grid; give a search")
    bound = study.user_attrs["binding"]
    if found := differences(other.binding, bound, (*DATA, *MODEL)):
        what = f"is of {other.data_name}"
        if set(found) <= set(MODEL):
            what = f"has another network ({other.file.model}) or other code of it"
        raise InputError(
            f"--like {name}: {what}, whose accuracies cannot be compared; put its best "
            "configurations into [[search.first]]"
        )
    known = like_trials(other.frozen, other.file, study_file)
    finished = len(other.ended)
    if not known:
        raise InputError(
            f"--like {name}: none of its {finished} finished trials lies in the space of study "
            f"{study.study_name!r}; give a search of the same space"
        )
    study.set_user_attr("like", {"study": name, "trials": len(known), "of": finished})
    return known


def _trained_finalists(study: optuna.Study, storage: BaseStorage) -> Counter[int]:
    """Returns {trial number: on how many seeds it was trained as a finalist}. Raises InputError if
    the stored finalists are another search's: these have another token."""
    name = finalists.name_of(study.study_name)
    if name not in optuna.get_all_study_names(storage):
        return Counter()
    stored = optuna.load_study(study_name=name, storage=storage)
    if "binding" not in stored.user_attrs and not stored.get_trials(deepcopy=False):
        return Counter()  # a kill came between its creation and its binding
    if not finalists.belong(stored, study):
        raise InputError(
            f"study {name!r}: has the finalists of another search, which is gone; give --name "
            "another one, or --fresh to delete them"
        )
    return Counter(finalists.trial_number(cell) for cell, _ in finished_seeds(stored))


def _run_finalists(
    run: Run, search: optuna.Study, grid: GridStudy, seeds: Sequence[int], ranges: Mapping[str, Any]
) -> End:
    """Trains the finalists.

    Their study is bound to the search and not to its cells, which may be others when the search
    goes on. ranges: the search's distributions, because Optuna does not let a study change its
    choices.
    """
    name = finalists.name_of(search.study_name)
    bound = {**search.user_attrs["binding"], "search": search.user_attrs["token"]}
    study = open_study(run.storage, grid, run.dataset, name, bound)
    clean_up(study)
    study.set_user_attr("seeds", len(seeds))
    plan = GridPlan(study, run.storage, grid, seeds, run.dataset, ranges=ranges, finalists=True)
    return train(run, plan, name, study)


def _store_ensemble(run: Run, name: str) -> None:
    """Stores the test accuracy of the mean probabilities of all trained finalists."""
    study = optuna.load_study(study_name=name, storage=run.storage)
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    texts = [t.system_attrs[PROBABILITIES] for t in complete if PROBABILITIES in t.system_attrs]
    if len(texts) < 2:
        return
    total = sum(unpacked_shares(text, run.dataset.classes) for text in texts)
    accuracy = test_accuracy(run.dataset, np.asarray(total))
    study.set_user_attr("ensemble", {"networks": len(texts), "test_accuracy": accuracy})


def _run_winner(run: Run, study_file: SearchStudy, name: str, folder: Path) -> End:
    """Trains the winner on all training images and saves it, unless the folder holds it already."""
    search = load_study(run.storage, name)
    assert isinstance(search, StoredSearch)
    winner, content = search.winner, best.winner_of(search)
    if winner is None or content is None or best.holds_winner(folder, content):
        return End.COMPLETE
    label = f"{winner.cell.name} on all {len(run.dataset.train_labels)} {search.things}"
    plan = WinnerPlan(winner.config, label, study_file.folder)
    end = train(run, plan, f"{name}: the winner")
    if plan.job.model:
        best.write(folder, plan.job.model, content, search.code)
    return end


def train(
    run: Run, plan: Plan, title: str, study: optuna.Study | None = None, timeout: float = math.inf
) -> End:
    """Trains what the plan says, for `timeout` seconds at most. study: None if it is no trial."""
    if not plan.jobs:
        return End.COMPLETE
    run.unfinished.append(title)
    if timeout <= 0:
        return End.COMPLETE
    started = time.monotonic()
    progress = plan.progress(title, run.started)
    size = min(run.workers, plan.jobs)
    with run.make_pool(size, run.dataset, run.device, run.epoch_limit) as pool:
        progress.workers = [""] * pool.size
        watchers = [*run.watchers, _Session(run, pool, started)]
        loop = Loop(
            plan=plan,
            storage=run.storage,
            pool=pool,
            progress=progress,
            study=study,
            cores=run.workers,
            watchers=watchers,
            deadline=started + timeout,
        )
        with during_run(run.storage, study, loop.notice, lambda: loop.stopping):
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
        self.study: optuna.Study | None = None

    def on_start(self, study: optuna.Study | None, progress: Progress) -> None:
        if study is None:
            return
        facts = {"run": self.run.token, "started": time.time(), "device": self.pool.device}
        self.session = {**self.run.provenance, **facts, "workers": self.pool.size}
        self.before = study.user_attrs.get("sessions", [])
        if self.before and self.before[-1].get("run") == self.run.token:
            last = self.before.pop()
            self.session = {**last, "workers": max(self.pool.size, last["workers"])}
        self.started -= self.session.pop("seconds", 0.0)
        self.study = study
        self._store("counted")

    def on_trial(self, trial: int, curve: Mapping[str, Any], epochs: int) -> None:
        passed = seconds_of(self.before) + time.monotonic() - self.started
        self.run.storage.set_trial_user_attr(trial, "run_seconds", passed)

    def on_tick(self) -> None:
        if self.study and time.monotonic() > self.stored + COUNT_SECONDS:
            self._store("counted")

    def on_finish(self) -> None:
        if self.study is None:
            return
        del self.session["counted"]
        self.session |= {"machines": self.pool.machines} if self.pool.machines else {}
        with suppress(StorageLost):  # the loop has raised StorageLost already
            self._store("seconds")

    def _store(self, key: str) -> None:
        assert self.study
        self.stored = time.monotonic()
        self.session[key] = self.stored - self.started
        self.study.set_user_attr("sessions", [*self.before, self.session])
