"""The commands: parse, call, print. Heavy modules are imported inside the commands."""

import dataclasses
import io
import math
import os
import signal
import sys
import tempfile
import traceback
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from hpo.errors import InputError
from hpo.passwords import blotted, shown
from hpo.process import outlive_output, stop_signals
from hpo.text import printable, quoted, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console, RenderableType

    from hpo.data.datasets import Dataset
    from hpo.run.loop import End
    from hpo.storage.lock import Holder
    from hpo.study.file import SearchStudy, StudyFile

app = typer.Typer(
    help="Hyperparameter studies of multilayer perceptrons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(
    help="Datasets: fetch one ahead of time, or list them.", no_args_is_help=True
)
app.add_typer(data_app, name="data")

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file's name or a path to one.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="HPO_DATA_DIR",
        show_default="a per-user cache folder",
        help="Where datasets lie or go; may be read-only if the files are there.",
    ),
]
StorageOption = Annotated[
    str, typer.Option("--storage", envvar="HPO_STORAGE", help="Any Optuna storage URL.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Reports go to OUT/STUDY/.")]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        show_default="the file's name",
        help="The study's name in the storage and its report folder.",
    ),
]
ArtifactsOption = Annotated[
    Path | None,
    typer.Option(
        "--artifacts",
        envvar="HPO_ARTIFACTS",
        show_default="hpo.artifacts, beside the storage's file",
        help="Where the trials' pictures lie that the dashboard shows.",
    ),
]
DEFAULT_STORAGE = "sqlite:///hpo.db"
DEFAULT_OUT = Path("reports")
STOPPED = 130
MOST = 10**6  # of what is counted, as in study files


@app.command()
def run(
    study: StudyArgument,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            show_default="the study file's",
            help="Grid: run each cell with N seeds, 0 … N-1.",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            show_default="the study file's",
            help="Search: go on until the study holds N finished trials in total.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="Start no trial after this long, stop those under way, go on to the report.",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            show_default="the study file's",
            help="Search: tpe, random, gp, cmaes or qmc.",
        ),
    ] = None,
    sampler_seed: Annotated[
        int | None,
        typer.Option(
            "--sampler-seed", show_default="the study file's", help="Search: the sampler's seed."
        ),
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option(
            "--pruner",
            show_default="the study file's",
            help="Search: none, median, hyperband, sha or percentile.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            show_default="the cores this process may use",
            help="Training processes on this machine, one torch thread each.",
        ),
    ] = None,
    epoch_limit: Annotated[
        float,
        typer.Option(
            "--epoch-limit",
            metavar="SECONDS",
            help="A training that ends no epoch for so long is begun anew, twice at most.",
        ),
    ] = 600.0,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            show_default="the study file's",
            help="mnist, fashion-mnist, kmnist or mnist-5k.",
        ),
    ] = None,
    data_dir: DataDirOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    out: OutOption = DEFAULT_OUT,
    name: NameOption = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    with_dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Serve the dashboard for as long as the run lasts.")
    ] = False,
    artifacts: ArtifactsOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the stored study of that name first (asks).")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress display, only the last lines.")
    ] = False,
) -> None:
    """Run or resume a study, then write its report."""
    outlive_output()
    from hpo.study import file as study_file
    from hpo.study import names

    loaded = study_file.load(study)
    own_name = study_file.check_name(loaded.name if name is None else name)
    options = {
        "--trials": trials,
        "--sampler": sampler,
        "--sampler-seed": sampler_seed,
        "--pruner": pruner,
    }
    if isinstance(loaded, study_file.SearchStudy):
        _refuse({"--seeds": seeds}, loaded.name, "search")
        loaded = _with_options(loaded, options)
        if trials is not None or timeout is not None:  # then the file's time limit is not meant
            loaded = dataclasses.replace(loaded, timeout=None)
    else:
        _refuse(options, loaded.name, "grid")
        _at_least("--seeds", seeds, 1)
    _at_least("--workers", workers, 1)
    _at_least("--timeout", timeout, 0)
    _at_least("--epoch-limit", epoch_limit, 1)
    _one_of("--device", device, ("auto", "cpu", "cuda", "mps"))
    _one_of("--dataset", loaded.dataset if dataset is None else dataset, names.DATASETS)
    _check_writable(out, own_name)

    from hpo.workers import pool

    pool.preload()  # torch takes two seconds to load; all that follows goes on beside it
    from hpo.run import provenance
    from hpo.storage import open as storages

    storages.quiet()
    storages.check_storage(storage)
    images, own_name = _load_data(loaded, dataset, data_dir, own_name)
    _check_writable(out, own_name)
    pool.require_device(device)
    import hpo.report.write  # while the workers' server loads torch  # noqa: F401
    from hpo.run import runner
    from hpo.storage.lock import only_run
    from hpo.storage.retry import patient
    from hpo.watch import artifacts as pictures
    from hpo.watch.dashboard import beside

    opened = patient(storages.open_storage(storage), shown(storage), _say)
    limit = math.inf if timeout is None else timeout
    folder = _artifacts(artifacts, storage)
    with ExitStack() as stack:
        holder = stack.enter_context(only_run(storages.absolute(storage), own_name, _say))
        if fresh:
            _delete(opened, own_name, yes, folder, holder)
        drawing = pictures.Pictures(opened, folder)
        if drawing.fault:
            print(drawing.fault, file=sys.stderr)
        machine = runner.Machine(
            workers=workers or _cores(),
            device=device,
            provenance=provenance.collect(sys.argv[1:]),
            quiet=quiet,
            pictures=drawing,
            holder=holder,
            epoch_limit=epoch_limit,
        )
        if with_dashboard:
            print(f"optuna-dashboard on {stack.enter_context(beside(storage, folder))}", flush=True)
        if isinstance(loaded, study_file.SearchStudy):
            run_it = partial(
                runner.run_search,
                loaded,
                n_trials=loaded.n_trials,
                folder=out / own_name / "best",
            )
        else:
            run_it = partial(runner.run_grid, loaded, seeds=range(seeds or loaded.seeds))
        go = partial(run_it, images, opened, name=own_name, machine=machine, timeout=limit)
        _run_and_report(go, opened, own_name, out, machine.provenance["command"])


def _run_and_report(
    run_it: "Callable[[], End]", storage: Any, name: str, out: Path, command: str
) -> None:
    """Whatever ends the run, its report is written from what is stored."""
    from hpo.model.folder import Unsaved
    from hpo.run.loop import End
    from hpo.storage.retry import StorageLost

    whole = True
    try:
        end = run_it()
    except KeyboardInterrupt:  # between two loops, or a second one
        with suppress(InputError):  # nothing may be stored yet
            _write_note(storage, name, command, _write_report(storage, name, out)[0])
        raise
    except StorageLost:
        with suppress(InputError):  # what it still tells; a full disk can be read
            _write_report(storage, name, out)
        raise
    except Unsaved as error:
        print(f"hpo: {error}", file=sys.stderr)
        end, whole = End.WHOLE, False
    written, finished = _write_report(storage, name, out)
    _write_note(storage, name, command, written)
    if end is End.STOPPED:
        raise KeyboardInterrupt
    if not (whole and written and finished):
        raise typer.Exit(1)


def _say(text: str) -> None:
    print(f"NOTE: {text}", file=sys.stderr, flush=True)


def _write_note(storage: Any, name: str, command: str, written: Path | None) -> None:
    """A note that cannot be written costs the note; the study and its report are there."""
    from hpo.storage.retry import StorageLost
    from hpo.watch import note

    try:
        note.end(storage, name, command, written)
    except StorageLost as error:
        _say(f"the study's note is not written: {error}")


def _refuse(options: dict[str, Any], study: str, kind: str) -> None:
    """InputError for an option that studies of this kind do not have."""
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option}: study {study!r} is a {kind}, which has no such option")


def _with_options(search: "SearchStudy", options: dict[str, Any]) -> "SearchStudy":
    """The search as --trials, --sampler, --sampler-seed and --pruner change it, where given."""
    from hpo.run import samplers
    from hpo.study import names

    _at_least("--trials", options["--trials"], 1)
    _at_least("--sampler-seed", options["--sampler-seed"], 0)
    known = {"--sampler": names.SAMPLERS, "--pruner": names.PRUNERS}
    for option, table in known.items():
        if options[option] is not None:
            _one_of(option, options[option], table)
    keys = {"--trials": "n_trials"}
    given = {
        keys.get(option, option.removeprefix("--").replace("-", "_")): value
        for option, value in options.items()
        if value is not None
    }
    changed = dataclasses.replace(search, **given)
    samplers.check_together(changed, f"study {search.name!r}")
    return changed


def _load_data(
    loaded: "StudyFile", asked: str | None, data_dir: Path | None, name: str
) -> "tuple[Dataset, str]":
    """The dataset and the study's name: another one if mnist-5k has to stand in for MNIST."""
    from hpo.data import datasets as data

    folder = data_dir or data.default_dir()
    wanted = asked or loaded.dataset
    try:
        return data.load(wanted, folder), name
    except data.Unavailable as error:
        if asked or wanted != "mnist":
            raise
        print(
            f"NOTE: {error}. Going on with the embedded {data.EMBEDDED} "
            f"(5,000 images) as {name}.{data.EMBEDDED}; its figures are not MNIST's.",
            file=sys.stderr,
        )
        return data.load(data.EMBEDDED, folder), f"{name}.{data.EMBEDDED}"


def _write_report(storage: Any, name: str, out: Path) -> tuple[Path | None, bool]:
    """The report's path, if it could be written, and whether any trial has finished."""
    from hpo.report import write as report
    from hpo.storage import results
    from hpo.watch import terminal

    study = results.load_study(storage, name)
    try:
        written = report.write(study, out / name)
    except OSError as error:
        print(f"hpo: {out / name}: the report could not be written: {error}", file=sys.stderr)
        return None, report.has_results(study)
    _print_parts(terminal.terminal(study))
    print(f"report: {written}")
    if not report.has_results(study):
        print(f"hpo: study {name!r}: no trial has finished", file=sys.stderr)
        return written, False
    return written, True


@app.command()
def report(
    study: StudyArgument,
    storage: StorageOption = DEFAULT_STORAGE,
    out: OutOption = DEFAULT_OUT,
    name: NameOption = None,
) -> None:
    """Write a study's report again, from the storage alone."""
    from hpo.storage.open import open_storage

    stored = _stored_name(study, name)
    _check_writable(out, stored)
    if not all(_write_report(open_storage(storage, create=False), stored, out)):
        raise typer.Exit(1)


@app.command()
def show(
    study: StudyArgument,
    storage: StorageOption = DEFAULT_STORAGE,
    name: NameOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep it fresh, until Ctrl-C or the study's end.")
    ] = False,
) -> None:
    """Show a study in the terminal: progress, states, best trials, results."""
    from hpo.storage import open as storages

    stored = _stored_name(study, name)
    opened = storages.open_storage(storage, create=False)
    from hpo.storage import lock, results
    from hpo.study import finalists
    from hpo.watch import progress as watching
    from hpo.watch import terminal

    runs_here = partial(lock.held, storages.absolute(storage), finalists.search_of(stored))
    if watch:
        found = watching.watch(opened, stored, runs_here, _console())
    else:
        found = results.load_study(opened, stored)
    _print_parts([*watching.views(found, runs_here()), *terminal.terminal(found)])


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="STUDY", help="A stored study.")],
    second: Annotated[str, typer.Argument(metavar="STUDY", help="Another one of its kind.")],
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Compare two stored grids cell by cell, or two searches by their winners."""
    from hpo.storage.open import open_storage

    names = [_stored_name(study, None) for study in (first, second)]
    opened = open_storage(storage, create=False)
    from hpo.analysis import compare
    from hpo.storage import results

    _print_parts(compare.terminal(*(results.load_study(opened, name) for name in names)))


def _print_parts(parts: "Iterable[RenderableType]") -> None:
    """Lines and tables; a table is as wide as it is where the output is no terminal."""
    from hpo.text import legible

    console = _console()
    for part in parts:
        if isinstance(part, str):
            console.print(legible(part), soft_wrap=True, markup=False)
        else:
            console.print(part)


def _console() -> "Console":
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=200)


@app.command("list")
def list_(storage: StorageOption = DEFAULT_STORAGE) -> None:
    """List the study files that can be run, and the studies in the storage."""
    from hpo.study import file as study_file

    print("Study files:")
    for name in study_file.shipped():
        found = study_file.load(name)
        print(f"  {name:24}{found.title}")
    from hpo.storage.open import NothingStored, open_storage

    try:
        opened = open_storage(storage, create=False)
    except NothingStored as error:
        print(f"No studies: {error}")
        return
    import optuna

    print(f"Studies in {shown(storage)}:")
    for summary in optuna.get_all_study_summaries(storage=opened):
        count = summary.n_trials
        print(f"  {summary.study_name:24}{count} trial{'' if count == 1 else 's'}")


@app.command()
def dashboard(
    storage: StorageOption = DEFAULT_STORAGE,
    artifacts: ArtifactsOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 takes a free one.")
    ] = 8080,
) -> None:
    """Serve optuna-dashboard on the storage and its artifacts."""
    from hpo.storage.open import open_storage, require_studies

    opened = open_storage(storage, create=False)
    require_studies(opened, storage)
    from hpo.watch.dashboard import LOOPBACK, listen

    folder = _artifacts(artifacts, storage)
    with listen(opened, folder, host, port, partial(print, file=sys.stderr, flush=True)) as server:
        if host not in LOOPBACK:
            print(f"WARNING: the dashboard has no login; whoever reaches {host} can delete studies")
        print(f"optuna-dashboard on {server.address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


@app.command()
def predict(
    best: Annotated[
        Path, typer.Argument(metavar="BEST", help="The `best` folder of a search's report.")
    ],
    image: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Pictures (PNG and its like), IDX files (.gz or not), .npz files of arrays.",
        ),
    ],
    invert: Annotated[
        bool, typer.Option("--invert", help="Images are dark on light, unlike MNIST's.")
    ] = False,
) -> None:
    """Classify images: a line an image, its path, class and probability."""
    from hpo.model import folder as description
    from hpo.model import images

    features = description.read(best).features
    names, pixels = images.read_all(image, features, invert=invert)
    from hpo.model import (
        weights as saved,  # torch takes two seconds to load; the user's slips are found without
    )

    rows = zip(names, saved.load(best).probabilities(pixels), strict=True)
    lines = [f"{name}\t{row.argmax()}\t{row.max():.4f}" for name, row in rows]
    typer.echo(os.fsencode("\n".join(lines)))  # a path may hold any bytes


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME")], data_dir: DataDirOption = None
) -> None:
    """Fetch and check a dataset."""
    from hpo.data import datasets as data
    from hpo.study import names

    _one_of("NAME", name, names.DATASETS)
    folder = data_dir or data.default_dir()
    loaded = data.load(name, folder)
    train, test = len(loaded.train_labels), len(loaded.test_labels)
    print(f"{name}: {train} training and {test} test images, SHA-256 {loaded.checksum[:16]}…")


@data_app.command("list")
def data_list(data_dir: DataDirOption = None) -> None:
    """List the datasets, and whether they are on disk."""
    from hpo.data import datasets as data
    from hpo.study import names

    folder = data_dir or data.default_dir()
    print(f"Datasets in {folder}:")
    for name in names.DATASETS:
        missing = data.missing(name, folder)
        state = "embedded" if name == data.EMBEDDED else "not here" if missing else "on disk"
        print(f"  {name:16}{state}")


def _stored_name(study: str, name: str | None) -> str:
    """The name in the storage that STUDY and --name mean."""
    from hpo.study import file as study_file

    if name is None:
        name = Path(study).stem if study.endswith(".toml") else study
    return study_file.check_name(name)


def _artifacts(asked: Path | None, storage: str) -> Path:
    """The folder of the storage's artifacts."""
    from hpo.storage.open import artifacts_folder

    return asked or artifacts_folder(storage)


def _delete(storage: Any, name: str, yes: bool, artifacts: Path, holder: "Holder") -> None:
    import optuna

    from hpo.study.finalists import name_of
    from hpo.watch.artifacts import remove

    there = [n for n in (name_of(name), name) if n in optuna.get_all_study_names(storage)]
    if not there:
        return
    if name in there:
        holder.take(optuna.load_study(study_name=name, storage=storage))
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("--fresh: would delete a study; add --yes where nobody can be asked")
        if not typer.confirm(f"Delete the stored study {name!r} with all its trials?"):
            raise InputError("--fresh: nothing deleted, nothing run")
    for found in there:
        remove(storage, storage.get_study_id_from_name(found), artifacts)
        optuna.delete_study(study_name=found, storage=storage)


def _at_least(option: str, value: float | None, least: int) -> None:
    if value is None:
        return
    if not value >= least:
        raise InputError(f"{option}: must be at least {least}, got {quoted(value)}")
    if isinstance(value, int) and value > MOST:
        raise InputError(f"{option}: must be at most {MOST}, got {quoted(value)}")


def _one_of(option: str, value: str, known: "Iterable[str]") -> None:
    if value not in known:
        raise InputError(f"{option}: must be one of {', '.join(known)}, got {quoted(value)}")


def _check_writable(out: Path, name: str) -> None:
    """InputError unless files can be made in `out`/`name`, or in the folder where it would be."""
    wanted = out.absolute() / name
    existing = [path for path in (wanted, *wanted.parents) if os.path.lexists(path)]
    try:
        for folder in existing[: 2 if existing[0] == wanted else 1]:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"--out {out}: cannot be written ({reason}); give another") from error


def _cores() -> int:
    """The cores this process may use, container limits included."""
    import joblib

    return int(joblib.cpu_count())


def main() -> NoReturn:
    """The `hpo` command: exit code 0, 1, 2 or 130, one line an error, as the README says."""
    for number in stop_signals():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold what is no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):  # newer versions of typer return 130 instead
        code = STOPPED
    except typer.BadParameter.__base__ as error:  # type: ignore[misc]  # click's UsageError
        _fail(error, shortened(shown(error.format_message()), 600), 2)
    except InputError as error:
        _fail(error, str(error), 2)
    except Exception as error:
        _fail(error, f"{_first_line(error)}; HPO_DEBUG=1 shows where", 1)
    if code == STOPPED and sys.argv[1:2] == ["run"]:
        same = "the same command without --fresh" if "--fresh" in sys.argv else "the same command"
        print(f"hpo: stopped; {same} goes on from here", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _fail(error: BaseException, text: str, code: int) -> NoReturn:
    urls = (*sys.argv[1:], os.environ.get("HPO_STORAGE", ""))
    if os.environ.get("HPO_DEBUG") == "1":
        # An InputError's causes say more; an option's are a library's, which cuts a URL anywhere.
        stack = traceback.format_exception(error, chain=code != 2 or isinstance(error, InputError))
        print(blotted("".join(stack), *urls), file=sys.stderr, end="")
    for line in blotted(text, *urls).splitlines():
        print(f"hpo: {printable(line)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
