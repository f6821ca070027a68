"""One `hpo run`: study file, data, storage, lock, training, report and note."""

import dataclasses
import math
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpo.errors import InputError
from hpo.language import ENGLISH, use
from hpo.options import Options, flag
from hpo.passwords import without_password
from hpo.study import file as study_file
from hpo.study.source import Source
from hpo.text import legible, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hpo.data.datasets import Dataset
    from hpo.results.study import StoredGrid, StoredSearch
    from hpo.runs.loop import End
    from hpo.runs.runner import Run
    from hpo.storage.lock import Holder
    from hpo.workers.pool import MakePool

# The modules of a run are imported in functions: torch loads in the workers' server meanwhile.


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a run has made. name: of the study in the storage. complete: whether there is a result,
    a report and, for a search, the saved winner."""

    name: str
    complete: bool


def run(options: Options, command: str | None = None) -> Ran:
    """Runs or resumes a study, then writes its report.

    command: what the report shows as the command; None: what was typed. Raises InputError, and
    KeyboardInterrupt if the run was stopped.
    """
    file = _with_options(study_file.load(options.study), options)
    name = study_file.check_name(file.name if options.name is None else options.name)
    if isinstance(file, study_file.SearchStudy) and (options.repeats or 1) > 1:
        return _repeat(options, command, file, name)
    check_writable(options.out, name)
    check_language(options.lang)

    if options.pool == "local":
        from hpo.workers.server import preload

        preload()  # torch loads while this process goes on
    from hpo.storage import open as storages

    storages.quiet()
    storages.check_storage(options.storage)
    dataset, name = load_data(file, options.dataset, options.data_dir, name)
    _show_card(dataset, quiet=options.quiet)
    check_writable(options.out, name)
    from hpo.workers import pool

    if options.pool == "local":
        pool.require_device(options.device)
    if file.model:
        pool.require_model(study_file.example(file), file.folder, dataset, options.epoch_limit, say)

    from hpo.storage.lock import only_run

    if options.like == name:
        name = _successor(options, file, dataset, name)
    with ExitStack() as stack:
        absolute = storages.absolute(options.storage)
        stack.enter_context(storages.written_back(absolute, say))  # after the holder's last write
        holder = stack.enter_context(only_run(absolute, name, say))
        run = _prepared(options, command, dataset, name, holder, stack)
        return Ran(name=name, complete=_train_and_report(run, file, name, options))


def _successor(options: Options, file: study_file.StudyFile, dataset: "Dataset", name: str) -> str:
    """Returns the name of the study that goes on from a stored one whose space has changed."""
    from hpo.runs.study import successor
    from hpo.storage.open import open_storage

    own = successor(open_storage(options.storage), file, dataset, name)
    if own != name:
        say(f"the space has changed since study {name!r} was stored; going on as study {own!r}")
    check_writable(options.out, own)
    return own


def _repeat(options: Options, command: str | None, file: study_file.SearchStudy, name: str) -> Ran:
    """Runs the search with several sampler seeds, each as a study of its own; the first one last,
    so that its report has the others beside it."""
    assert options.repeats
    done = True
    for number in reversed(range(options.repeats)):
        own = name if number == 0 else f"{name}.repeat-{number + 1}"
        seed = file.sampler_seed + number
        changed = {"repeats": None, "name": own, "sampler_seed": seed}
        done = run(options.model_copy(update=changed), command).complete and done
    return Ran(name=name, complete=done)


def _workers(options: Options, dataset: "Dataset", stack: ExitStack) -> "tuple[MakePool, int]":
    """Returns what makes pools of workers, and how many workers they have at most."""
    cpus, gpus = options.cpus_per_trial, options.gpus_per_trial
    if options.pool == "local":
        if cpus is not None or gpus is not None:
            raise InputError("--cpus-per-trial and --gpus-per-trial: need --pool ray")
        import joblib

        from hpo.workers.pool import LocalPool

        return LocalPool, options.workers or int(joblib.cpu_count())  # container limits included
    from hpo.workers.ray_cluster import MOST, connect

    cpus, gpus = 1.0 if cpus is None else cpus, gpus or 0.0
    place = (options.ray_address, dataset, options.device)
    cluster = connect(*place, cpus=cpus, gpus=gpus, workers=options.workers)
    return stack.enter_context(cluster).pool, options.workers or MOST


def _prepared(
    options: Options,
    command: str | None,
    dataset: "Dataset",
    name: str,
    holder: "Holder",
    stack: ExitStack,
) -> "Run":
    """Returns the run, now that this process holds the study. stack: ends what the run starts."""
    from hpo.model.folder import remove as remove_winner
    from hpo.runs import provenance, runner
    from hpo.storage.open import artifacts_folder, open_storage
    from hpo.storage.retry import retrying
    from hpo.watch import artifacts as pictures
    from hpo.watch import display, note, progress

    make_pool, workers = _workers(options, dataset, stack)
    storage = retrying(open_storage(options.storage), without_password(options.storage), say)
    artifacts = options.artifacts or artifacts_folder(options.storage)
    if options.fresh:
        _delete(storage, name, options.yes, artifacts, holder)
        remove_winner(options.out / name / "best")
    origin = provenance.collect(command or provenance.command_line(sys.argv[1:]))
    watchers = (
        progress.Heartbeat(holder),
        display.Display(quiet=options.quiet),
        note.Notes(storage, origin["command"]),
        pictures.CurveArtifacts(storage, artifacts, say),
    )
    if options.dashboard:
        from hpo.watch.dashboard import beside

        address = stack.enter_context(beside(options.storage, artifacts, options.allow_host))
        print(f"optuna-dashboard on {address}", flush=True)
    return runner.Run(
        dataset=dataset,
        storage=storage,
        workers=workers,
        make_pool=make_pool,
        device=options.device,
        provenance=origin,
        epoch_limit=options.epoch_limit,
        watchers=watchers,
    )


def _train_and_report(run: "Run", file: study_file.StudyFile, name: str, options: Options) -> bool:
    """Writes the report of what is stored, however the training ends."""
    from hpo.model.folder import Unsaved
    from hpo.runs.loop import End
    from hpo.storage.open import StorageLost
    from hpo.workers.pool import PoolLost

    end, saved = End.COMPLETE, True
    try:
        end = _train(run, file, name, options)
    except (Unsaved, PoolLost) as error:
        print(f"hpo: {error}", file=sys.stderr)
        saved = False
    except KeyboardInterrupt:  # between two plans, or a second signal
        with suppress(InputError):  # nothing may be stored yet
            _report(run, name, options)
        raise
    except StorageLost:
        with suppress(InputError):  # a full disk can still be read
            _report(run, name, options, lost=True)
        raise
    if end is End.COMPLETE and saved and not run.unfinished:
        say(f"nothing was left to do: study {name!r} is complete")
    complete = _report(run, name, options)
    if end is End.STOPPED:
        raise KeyboardInterrupt
    return saved and complete


def _train(run: "Run", file: study_file.StudyFile, name: str, options: Options) -> "End":
    from hpo.runs import runner

    timeout = math.inf if options.timeout is None else options.timeout
    if isinstance(file, study_file.SearchStudy):
        folder = options.out / name / "best"
        like = None if options.like == name else options.like
        return runner.run_search(run, file, name=name, folder=folder, timeout=timeout, like=like)
    return runner.run_grid(
        run,
        file,
        name=name,
        seeds=range(options.seeds or file.seeds),
        until_resolved=options.until_resolved,
        changed_claims=options.changed_claims,
        timeout=timeout,
    )


def _report(run: "Run", name: str, options: Options, *, lost: bool = False) -> bool:
    """Writes the report and, unless the storage is lost, the note; whether the report is written
    and there is a sound trial."""
    from hpo.results.load import load_study
    from hpo.storage.open import StorageGone, StorageLost

    stored = load_study(run.storage, name)
    written = write_report(stored, options.out / name, options.lang)
    try:
        for watcher in () if lost else run.watchers:
            watcher.on_report(stored, written)
    except StorageGone:
        raise
    except StorageLost as error:  # the study and its report are complete
        say(f"the study's note is not written: {error}")
    return written is not None and not stored.no_result


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
        print(f"hpo: {folder}: the report could not be written: {error}", file=sys.stderr)
        return None
    print_parts(terminal.terminal(study))
    print(f"report: {written}")
    if reason := study.no_result:
        print(f"hpo: study {study.name!r}: {reason}", file=sys.stderr)
    return written


def print_parts(parts: "Iterable[RenderableType]") -> None:
    """Prints lines and tables. A table keeps its full width where the output is no terminal."""
    out = console()
    for part in parts:
        if isinstance(part, str):
            out.print(legible(part), soft_wrap=True, markup=False, emoji=False)
        else:
            out.print(part)


def console() -> "Console":
    """Returns the terminal, or 200 columns where the output is no terminal."""
    from rich.console import Console

    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=200)


def say(text: str) -> None:
    """Prints a note on standard error."""
    print(f"NOTE: {legible(text)}", file=sys.stderr, flush=True)


# --- before the run ----------------------------------------------------------------------------


def _with_options(file: study_file.StudyFile, options: Options) -> study_file.StudyFile:
    """Returns the study as the options change it; InputError for an option of the other kind."""
    search = {
        "n_trials": options.trials,
        "sampler": options.sampler,
        "sampler_seed": options.sampler_seed,
        "pruner": options.pruner,
    }
    if not isinstance(file, study_file.SearchStudy):
        _refuse({**search, "repeats": options.repeats, "like": options.like}, file.name, "grid")
        _check_rounds(options, file)
        return file
    grid = ("seeds", "until_resolved", "changed_claims")
    _refuse({key: getattr(options, key) or None for key in grid}, file.name, "search")
    from hpo.runs import samplers

    changes: dict[str, Any] = {key: v for key, v in search.items() if v is not None}
    if options.trials is not None or options.timeout is not None:
        changes["timeout"] = None  # these options replace the file's time limit
    if options.trials is not None:
        changes["stop_after"] = None
    changed = dataclasses.replace(file, **changes)
    samplers.check_together(changed, f"study {file.name!r}")
    return changed


def _check_rounds(options: Options, file: study_file.GridStudy) -> None:
    """Raises InputError if the study cannot go on until its claims are resolved."""
    if not options.until_resolved:
        return
    if options.seeds:
        raise InputError("--until-resolved: chooses the seeds, so leave out --seeds")
    if not file.rounds:
        raise InputError(
            f"--until-resolved: study {file.name!r} has a fixed number of seeds; give it "
            "seeds = { start = 5, most = 40, step = 5 }"
        )
    if not file.claims:
        raise InputError(f"--until-resolved: study {file.name!r} has no [[claims]] to resolve")


def _refuse(options: dict[str, Any], study: str, kind: str) -> None:
    for key, value in options.items():
        if value is not None:
            option = flag(key.removeprefix("n_"))
            raise InputError(f"{option}: study {study!r} is a {kind}, which has no such option")


def load_data(
    file: study_file.StudyFile, asked: str | None, data_dir: Path | None, name: str
) -> "tuple[Dataset, str]":
    """Returns the dataset and the study's name, which changes if mnist-5k replaces MNIST."""
    from hpo.data import datasets
    from hpo.data.download import Unavailable

    wanted = Source(asked) if asked else file.dataset
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


def _show_card(dataset: "Dataset", *, quiet: bool) -> None:
    """Checks the dataset; of the user's own data prints the data card, and what was left out."""
    from hpo.data import card, datasets

    datasets.check(dataset)
    if not dataset.about:
        return
    found = datasets.describe(dataset)
    for title, text in () if quiet else card.rows(found):
        print(f"{title}: {printable(text)}")
    for warning in card.warnings(found):
        say(printable(warning))


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


def _delete(storage: Any, name: str, yes: bool, artifacts: Path, holder: "Holder") -> None:
    """Deletes the stored study, its finalists and their pictures, after a question."""
    import optuna

    from hpo.study.finalists import name_of
    from hpo.watch.artifacts import remove

    stored = [n for n in (name_of(name), name) if n in optuna.get_all_study_names(storage)]
    if not stored:
        return
    if name in stored:
        holder.take(optuna.load_study(study_name=name, storage=storage))
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("--fresh: would delete a study; add --yes where nobody can be asked")
        if not typer.confirm(f"Delete the stored study {name!r} with all its trials?"):
            raise InputError("--fresh: nothing deleted, nothing run")
    for study in stored:
        remove(storage, storage.get_study_id_from_name(study), artifacts)
        optuna.delete_study(study_name=study, storage=storage)
