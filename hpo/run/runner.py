"""A study's life: open, clean up, run its plan, and for a search its finalists."""

import math
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hpo.data.datasets import Dataset
from hpo.errors import InputError
from hpo.model import folder as best
from hpo.run.display import Display, Progress
from hpo.run.grid import GridPlan, finished_seeds
from hpo.run.loop import End, Loop
from hpo.run.plan import Plan
from hpo.run.search import SearchPlan
from hpo.run.study import binding, clean_up, describe, open_study
from hpo.run.winner import BestPlan
from hpo.storage import results
from hpo.storage.lock import Holder
from hpo.storage.retry import StorageLost, heeding
from hpo.study import finalists
from hpo.study.file import GridStudy, SearchStudy
from hpo.watch import note
from hpo.watch.artifacts import Pictures
from hpo.workers.pool import EPOCH_LIMIT, Pool


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run trains on, what is known of it (see provenance.collect), who draws its trials'
    curves (None: nobody) and holds its study for it (None: nobody else could run it), after how
    many seconds without an epoch a worker is taken to hang, and when it began, by the monotonic
    clock."""

    workers: int
    device: str
    provenance: Mapping[str, Any]
    quiet: bool = False
    pictures: Pictures | None = None
    holder: Holder | None = None
    epoch_limit: float = EPOCH_LIMIT
    started: float = field(default_factory=time.monotonic)


def run_grid(
    study_file: GridStudy,
    dataset: Dataset,
    storage: BaseStorage,
    *,
    name: str,
    seeds: Sequence[int],
    machine: Machine,
    timeout: float = math.inf,
    bound: Mapping[str, Any] | None = None,
    ranges: Mapping[str, BaseDistribution] | None = None,
) -> End:
    """Runs what is missing of a grid at these seeds.

    Finalists are bound to their search and not to their cells, which may be others when it goes on:
    `bound` is that search, `ranges` its distributions, for Optuna does not let a study change its
    choices; their tests also say which images were mistaken for what. Raises InputError where the
    stored study is bound to other things.
    """
    study = open_study(storage, study_file, dataset, name, bound or binding(study_file, dataset))
    if machine.holder and not bound:  # finalists are their search's
        machine.holder.take(study)
    clean_up(study)
    seeds_so_far = 0 if bound else study.user_attrs.get("seeds", 0)
    study.set_user_attr("seeds", max(len(seeds), seeds_so_far))
    note.begin(storage, name, machine.provenance["command"])
    plan = GridPlan(
        study, storage, study_file, seeds, dataset, ranges=ranges, finalists=bound is not None
    )
    total = len(study_file.cells) * len(seeds)
    progress = Progress(title=name, total=total, done=total - plan.missing, started=machine.started)
    return run_plan(study, plan, storage, dataset, progress, len(plan.waiting), machine, timeout)


def run_search(
    study_file: SearchStudy,
    dataset: Dataset,
    storage: BaseStorage,
    *,
    name: str,
    n_trials: int,
    folder: Path,
    machine: Machine,
    timeout: float = math.inf,
) -> End:
    """Searches until `n_trials` trials are finished in all, trains the finalists on fresh seeds,
    and the winner among them on all training images; that network goes into `folder`.

    The timeout (seconds) is this run's, beside the one of the study file for all runs, and the
    search's: finalists are trained however long they take. Raises InputError where the stored study
    is bound to other things.
    """
    study = open_study(storage, study_file, dataset, name, binding(study_file, dataset))
    if machine.holder:
        machine.holder.take(study)
    clean_up(study)
    study.set_user_attr("n_trials", n_trials)
    study.set_user_attr("timeout", study_file.timeout)
    if study_file.timeout is not None:
        timeout = min(timeout, study_file.timeout - results.seconds_of(study))
    trained = _own_finalists(study, storage)
    note.begin(storage, name, machine.provenance["command"])
    plan = SearchPlan(study, storage, study_file, n_trials, dataset, trained)
    missing = plan.missing if timeout > 0 else 0
    total = plan.finished + missing
    progress = Progress(
        title=name,
        total=total,
        done=plan.finished,
        pruned=plan.pruned,
        started=machine.started,
    )
    end = run_plan(study, plan, storage, dataset, progress, missing, machine, timeout)
    study.set_user_attr("gave_up", plan.gave_up)
    if end is End.STOPPED:
        return end
    trials = plan.best()
    if not trials:
        return end
    chosen = finalists.grid_of(trials, study_file)
    last = run_grid(
        chosen,
        dataset,
        storage,
        name=finalists.name_of(name),
        seeds=finalists.fresh_seeds(study_file),
        machine=machine,
        bound={**study.user_attrs["binding"], "search": study.user_attrs["token"]},
        ranges=trials[0].distributions,
    )
    if last is End.WHOLE:
        last = _save_winner(study, study_file, chosen, storage, dataset, folder, machine)
    return end if last is End.WHOLE else last


def _own_finalists(study: optuna.Study, storage: BaseStorage) -> Counter[int]:
    """Names the search for its finalists; on how many seeds each of them (a trial's number) was
    trained. InputError where there are some of another one."""
    if "token" not in study.user_attrs:
        study.set_user_attr("token", uuid.uuid4().hex)
    name = finalists.name_of(study.study_name)
    if name not in optuna.get_all_study_names(storage):
        return Counter()
    begun = optuna.load_study(study_name=name, storage=storage)
    if "binding" not in begun.user_attrs and not begun.get_trials(deepcopy=False):
        return Counter()  # a kill came between its making and its binding
    if not finalists.belong(begun, study):
        raise InputError(
            f"study {name!r}: has the finalists of another search, which is gone; give --name "
            "another one, or --fresh to delete them"
        )
    return Counter(finalists.trial_number(cell) for cell, _ in finished_seeds(begun))


def _save_winner(
    study: optuna.Study,
    study_file: SearchStudy,
    chosen: GridStudy,
    storage: BaseStorage,
    dataset: Dataset,
    folder: Path,
    machine: Machine,
) -> End:
    name = finalists.name_of(study.study_name)
    stored = results.load_study(storage, name)
    cell = finalists.winner(stored.finished, chosen.cells, finalists.fresh_seeds(study_file))
    if cell is None:
        return End.WHOLE
    number = finalists.trial_number(cell.name)
    said = best.said_of(study.study_name, number, cell.config, describe(dataset))
    if best.is_there(folder, said):
        return End.WHOLE
    plan = BestPlan(cell.config, f"{cell.name} on all {len(dataset.train_labels)} images")
    progress = Progress(title=f"{study.study_name}: the winner", total=1, started=machine.started)
    end = run_plan(None, plan, storage, dataset, progress, 1, machine)
    if plan.job.model:
        best.write(folder, plan.job.model, said)
    return end


def run_plan(
    study: optuna.Study | None,
    plan: Plan,
    storage: BaseStorage,
    dataset: Dataset,
    progress: Progress,
    jobs: int,
    machine: Machine,
    timeout: float = math.inf,
) -> End:
    """Trains what the plan says with as many workers as the machine and the jobs need; the study
    keeps the session: where, when, how long. None: a plan whose training is no trial."""
    if not jobs:
        return End.WHOLE
    started, deadline, value = time.time(), time.monotonic() + timeout, -math.inf
    size = min(machine.workers, jobs)
    with Pool(size, dataset, machine.device, machine.epoch_limit) as pool:
        progress.workers = [""] * pool.size
        session = {
            **machine.provenance, "started": started, "workers": pool.size, "device": pool.device
        }  # fmt: skip
        if timeout < math.inf:
            session["until"] = started + timeout
        sessions = [*study.user_attrs.get("sessions", []), session] if study else []
        if study:
            study.set_user_attr("sessions", sessions)
            value, progress.best = _best_so_far(study)
        try:
            with Display(progress, quiet=machine.quiet) as display:
                loop = Loop(plan, storage, pool, display, deadline, value, machine.pictures)
                if machine.holder:
                    loop.beat = machine.holder.beat
                with heeding(storage, display.notice, lambda: loop.stopping):
                    return loop.run()
        finally:
            session["seconds"] = time.time() - started
            with suppress(StorageLost):  # whatever ended the run says more
                if study:
                    study.set_user_attr("sessions", sessions)


def _best_so_far(study: optuna.Study) -> tuple[float, str]:
    """The best stored value, and the words for it."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    if best is None or best.value is None:
        return -math.inf, ""
    known = best.user_attrs
    name = f"{known['cell']} seed {known['seed']}" if "cell" in known else f"trial {best.number}"
    return best.value, f"{name}, validation accuracy {100 * best.value:.2f}%"
