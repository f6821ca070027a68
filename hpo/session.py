"""One `hpo run`, once its options are checked: data, storage, lock, training, report and note."""

import dataclasses
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import joblib
import optuna
import typer
from optuna.storages import BaseStorage

from hpo.data import card, datasets
from hpo.data.datasets import Dataset
from hpo.data.download import Unavailable
from hpo.errors import InputError
from hpo.model.folder import Unsaved
from hpo.model.folder import remove as remove_winner
from hpo.options import Options
from hpo.output import check_writable, complain, print_parts, say, write_report
from hpo.passwords import without_password
from hpo.results.load import load_study
from hpo.runs import runner
from hpo.runs.loop import End
from hpo.runs.samplers import check_together
from hpo.runs.search import FINISHED
from hpo.runs.study import Run, binding, successor
from hpo.storage import open as storages
from hpo.storage.lock import Holder, only_run
from hpo.storage.open import StorageGone, StorageLost, open_storage
from hpo.storage.retry import retrying
from hpo.study.file import SearchStudy, StudyFile, example
from hpo.study.finalists import name_of
from hpo.study.source import Source
from hpo.text import count, printable, same_command
from hpo.watch import artifacts as pictures
from hpo.watch import note, progress
from hpo.workers import pool, provenance, ray_cluster

# The dashboard, matplotlib and the report's modules are imported once they are needed.


def run(options: Options, command: str | None, file: StudyFile, name: str) -> tuple[str, bool]:
    """See start.run. file: the study file, as the options change it."""
    dataset, file, name = _checked(options, file, name)
    bound = binding(file, dataset)
    if options.like == name:
        name = successor(open_storage(options.storage), bound, name)
        if name != options.like:
            text = f"the space has changed since study {options.like!r} was stored"
            say(f"{text}; going on as study {name!r}")
        check_writable(options.out, name)
    url = storages.absolute(options.storage)
    with ExitStack() as stack:
        stack.enter_context(storages.written_back(url, say))  # after the holder's last write
        holder = stack.enter_context(only_run(url, name, say))
        make_pool, workers = _workers(options, dataset, stack)
        storage = retrying(open_storage(options.storage), without_password(options.storage), say)
        run = Run(
            options=options,
            file=file,
            name=name,
            dataset=dataset,
            bound=bound,
            storage=storage,
            provenance=provenance.collect(command or provenance.command_line(sys.argv[1:])),
            make_pool=make_pool,
            workers=workers,
        )
        run = _with_more(_watched(run, holder, stack))
        try:
            return name, _train_and_report(run)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_same(run)) from None


def _checked(options: Options, file: StudyFile, name: str) -> tuple[Dataset, StudyFile, str]:
    """Returns the dataset, the study on it, and its name, see load_data, once all is checked that
    can be wrong before training."""
    if isinstance(file, SearchStudy):
        check_together(file, f"study {file.name!r}")
    storages.quiet()
    storages.check_storage(options.storage)
    dataset, name = load_data(file, options.dataset, options.data_dir, name)
    datasets.check(dataset)
    schema = dataset.schema
    file = file.on(schema.classes, schema.deviation)
    file.check(schema.classes, f"study {file.name!r}: ")
    if options.pool == "local":  # a node of a cluster says it itself
        file = pool.in_possible_precision(file, options.device, say)
    if isinstance(file, SearchStudy) and file.folds:
        datasets.check_folds(dataset, file.folds)
    if dataset.about:  # the user's own
        about = datasets.describe(dataset)
        rows = () if options.quiet else card.rows(about)
        print_parts(f"{title}: {printable(text)}" for title, text in rows)
        for warning in card.warnings(about):
            say(printable(warning))
    check_writable(options.out, name)
    if options.pool == "local":
        pool.require_device(options.device)
    if file.model:
        pool.require_model(example(file), file.folder, dataset, options.epoch_limit, say)
    return dataset, file, name


def load_data(
    file: StudyFile, asked: str | None, data_dir: Path | None, name: str
) -> tuple[Dataset, str]:
    """Returns the dataset and the study's name, which changes if mnist-5k replaces MNIST."""
    wanted = Source(asked, scale=file.scale, task=file.task) if asked else file.dataset
    try:
        return datasets.load(wanted, data_dir), name
    except Unavailable as error:
        if asked or wanted.name != "mnist":
            raise
        replacement = datasets.REPLACEMENT
        say(
            f"{error}. Going on with the embedded {replacement} (5,000 images) as "
            f"{name}.{replacement}; its figures are not MNIST's."
        )
        return datasets.load(replacement, data_dir), f"{name}.{replacement}"


def _workers(options: Options, dataset: Dataset, stack: ExitStack) -> tuple[pool.MakePool, int]:
    """Returns what makes pools of workers, and how many workers they have at most."""
    if options.pool == "ray":
        cluster = stack.enter_context(ray_cluster.connect(options, dataset, say))
        return cluster.pool, options.workers or ray_cluster.MOST
    of_ray = (options.cpus_per_trial, options.gpus_per_trial, options.nodes)
    if any(value is not None for value in of_ray):
        raise InputError("--cpus-per-trial, --gpus-per-trial and --nodes: need --pool ray")
    # joblib counts within a container's limits.
    return pool.LocalPool, options.workers or int(joblib.cpu_count())


def _watched(run: Run, holder: Holder, stack: ExitStack) -> Run:
    """Deletes what --fresh asks for, and returns the run with all that watches it. stack: ends the
    dashboard."""
    options = run.options
    artifacts = options.artifacts or storages.artifacts_folder(options.storage)
    if options.fresh:
        _delete(run.storage, run.name, artifacts, holder, "--fresh", yes=options.yes)
        remove_winner(run.winner_folder)
    watchers = (
        progress.Heartbeat(holder),
        progress.Display(quiet=options.quiet),
        note.Notes(run.storage, run.provenance["command"]),
        pictures.CurveArtifacts(run.storage, artifacts, say),
    )
    if options.dashboard:
        from hpo.watch.dashboard import beside

        address = stack.enter_context(beside(options.storage, artifacts, options.allow_host))
        print(f"optuna-dashboard on {address}", flush=True)
    return dataclasses.replace(run, watchers=watchers, started=time.monotonic())


def _with_more(run: Run) -> Run:
    """Returns the run with the number of trials that --more means."""
    more, file = run.options.more, run.file
    if more is None or not isinstance(file, SearchStudy):
        return run
    held = 0
    if run.name in optuna.get_all_study_names(run.storage):
        study = run.storage.get_study_id_from_name(run.name)
        held = len(run.storage.get_all_trials(study, deepcopy=False, states=FINISHED))
    file = file.model_copy(update={"n_trials": held + more})
    say(
        f"--more {more}: study {run.name!r} has finished {count(held, 'trial')}, so this run "
        f"ends with {file.n_trials}; if it is stopped, --trials {file.n_trials} goes on"
    )
    return dataclasses.replace(run, file=file)


def _same(run: Run) -> str:
    """Names the command that goes on with a run that was stopped."""
    trials = ""
    if isinstance(run.file, SearchStudy) and run.options.more:
        trials = str(run.file.n_trials)
    return same_command(fresh=run.options.fresh, trials=trials)


def delete(name: str, options: Options) -> None:
    """See start.delete."""
    url = storages.absolute(options.storage)
    storages.quiet()
    storage = open_storage(options.storage, create=False)
    with storages.written_back(url, say), only_run(url, name, say) as holder:
        artifacts = options.artifacts or storages.artifacts_folder(options.storage)
        if not _delete(storage, name, artifacts, holder, "delete", yes=options.yes):
            load_study(storage, name)  # raises InputError that names those that are there
        remove_winner(options.out / name / "best")


def _delete(
    storage: BaseStorage, name: str, artifacts: Path, holder: Holder, asked: str, *, yes: bool
) -> bool:
    """Deletes a stored study, its finalists and their pictures, after a question. Returns whether
    there was one. asked: the option or command that asks for it."""
    stored = [n for n in (name_of(name), name) if n in optuna.get_all_study_names(storage)]
    if not stored:
        return False
    if name in stored:
        holder.take(optuna.load_study(study_name=name, storage=storage))
    if not yes:
        if not sys.stdin.isatty():
            text = f"would delete study {name!r}; add --yes where nobody can be asked"
            raise InputError(f"{asked}: {text}")
        if not typer.confirm(f"Delete the stored study {name!r} with all its trials?"):
            raise InputError(f"{asked}: nothing deleted, nothing run")
    for each in stored:
        pictures.remove(storage, storage.get_study_id_from_name(each), artifacts)
        optuna.delete_study(study_name=each, storage=storage)
    return True


def _train_and_report(run: Run) -> bool:
    """Writes the report of what is stored, however the training ends; whether all is complete."""
    end, saved = End.COMPLETE, True
    try:
        search = isinstance(run.file, SearchStudy)
        end = runner.run_search(run) if search else runner.run_grid(run)
    except (Unsaved, pool.PoolLost) as error:
        complain(f"hpo: {error}")
        saved = False
    except KeyboardInterrupt:  # between two plans, or a second signal
        with suppress(InputError):  # nothing may be stored yet
            _report(run)
        raise
    except StorageLost:
        with suppress(InputError):  # a full disk can still be read
            _report(run, lost=True)
        raise
    if end is End.COMPLETE and saved and not run.unfinished:
        say(f"nothing was left to do: study {run.name!r} is complete")
    complete = _report(run)
    if end is End.STOPPED:
        raise KeyboardInterrupt
    return saved and complete


def _report(run: Run, *, lost: bool = False) -> bool:
    """Writes the report and, unless the storage is lost, the note; whether the report is written
    and there is a sound trial."""
    stored = load_study(run.storage, run.name)
    written = write_report(stored, run.options.out / run.name, run.options.lang)
    try:
        for watcher in () if lost else run.watchers:
            watcher.on_report(stored, written)
    except StorageGone:
        raise
    except StorageLost as error:  # the study and its report are complete
        say(f"the study's note is not written: {error}")
    return written is not None and not stored.no_result
