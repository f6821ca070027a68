"""The `hpo` command: parses options, calls, prints. Modules load inside the commands, so that
`hpo --help` answers at once."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hpo import defaults
from hpo.errors import InputError
from hpo.language import ENGLISH, LANGUAGES
from hpo.passwords import remove_passwords, without_password
from hpo.process import collect_seldom, end_process, ignore_output_errors, stop_signals
from hpo.study.names import DATASETS, FORMS, PRUNERS, SAMPLERS
from hpo.text import count, printable, quoted, shortened

app = typer.Typer(
    help="Hyperparameter studies of multilayer perceptrons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Download a dataset ahead of time, or list them.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DEVICES = ("auto", "cpu", "cuda", "mps")
POOLS = ("local", "ray")
STOPPED = 130
MOST = 10**6  # of options that are whole numbers, as in study files
FILE = "the study file's"  # a default

# --- options -----------------------------------------------------------------------------------


def _at_least(least: int) -> Callable[[typer.CallbackParam, Any], Any]:
    """Returns an option's callback: InputError for a value below `least` or above MOST."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and not value >= least:  # NaN, too
            raise InputError(f"{param.opts[0]}: must be at least {least}, got {quoted(value)}")
        if isinstance(value, int) and value > MOST:
            raise InputError(f"{param.opts[0]}: must be at most {MOST}, got {quoted(value)}")
        return value

    return check


def _one_of(known: Collection[str]) -> dict[str, Any]:
    """Returns an option's callback, InputError for a value that is not known, and completion."""

    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and value not in known:
            name = param.opts[0] if param.opts[0].startswith("-") else param.opts[0].upper()
            names = ", ".join(known)
            raise InputError(f"{name}: must be one of {names}, got {quoted(value)}")
        return value

    return {"callback": check, "autocompletion": lambda: list(known)}


def _option(
    text: str,
    *flags: str,
    least: int | None = None,
    known: Collection[str] | None = None,
    **more: Any,
) -> Any:
    """Returns an option with a help text. least: its least value. known: its values."""
    if least is not None:
        more["callback"] = _at_least(least)
    if known is not None:
        text, more = f"{text}{', '.join(known)}.", {**more, **_one_of(known)}
    return typer.Option(*flags, help=text, **more)


def _shipped() -> list[str]:
    from hpo.study import file as study_file

    return list(study_file.shipped())


StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study file's name or a path to one.",
        autocompletion=_shipped,
    ),
]
Seeds = Annotated[
    int | None,
    _option(
        "Grid: train each cell with N seeds, 0 … N-1.", least=1, show_default=FILE, metavar="N"
    ),
]
GOAL = "Search: go on until the study holds N finished trials in total."
RESOLVE = "Grid: more seeds, round by round, for the networks of claims that are still open."
UntilResolved = Annotated[bool, _option(RESOLVE, "--until-resolved")]
CHANGED = "Grid: accept claims that changed since the first trial; the report names the change."
ChangedClaims = Annotated[bool, _option(CHANGED, "--changed-claims")]
REPEATS = "Search: run the whole search N times with other sampler seeds; report the spread."
Repeats = Annotated[int | None, _option(REPEATS, least=1, show_default="1", metavar="N")]
Trials = Annotated[int | None, _option(GOAL, least=1, show_default=FILE, metavar="N")]
LIMIT = "Start no trial after this time, stop those that run, go on to the report."
Timeout = Annotated[float | None, _option(LIMIT, least=0, metavar="SECONDS")]
Sampler = Annotated[str | None, _option("Search: ", known=SAMPLERS, show_default=FILE)]
SamplerSeed = Annotated[
    int | None, _option("Search: the sampler's seed.", least=0, show_default=FILE)
]
Pruner = Annotated[str | None, _option("Search: ", known=PRUNERS, show_default=FILE)]
LIKE = "Search: begin with the trials of another stored search, or of its own past space."
Like = Annotated[str | None, _option(LIKE, metavar="STUDY")]
PROCESSES = "Trainings at once; on this machine, processes with one torch thread each."
CORES = "the cores this process may use; with --pool ray, what the cluster has room for"
Workers = Annotated[int | None, _option(PROCESSES, least=1, show_default=CORES)]
Pool = Annotated[str, _option("Where workers run: this machine, or a Ray cluster. ", known=POOLS)]
ADDRESS = "Ray: the head node, host:port, or auto for the cluster of this machine."
RayAddress = Annotated[
    str | None,
    _option(ADDRESS, envvar="RAY_ADDRESS", show_default="a cluster of its own on this machine"),
]
CpusPerTrial = Annotated[
    float | None,
    _option("Ray: CPUs, and torch threads, of each training.", least=0, show_default="1"),
]
GpusPerTrial = Annotated[
    float | None, _option("Ray: GPUs of each training; 0.25 shares one.", least=0, show_default="0")
]
HANGING = "Start a training again that ends no epoch for so long, twice at most."
EpochLimit = Annotated[float, _option(HANGING, least=1, metavar="SECONDS")]


def _dataset(param: typer.CallbackParam, value: str | None) -> str | None:
    if value is None:
        return None
    from hpo.study.source import fault_in

    if wrong := fault_in(value):
        name = param.opts[0] if param.opts[0].startswith("-") else param.opts[0].upper()
        raise InputError(f"{name}: {wrong}")
    return value


_DATASET: dict[str, Any] = {"callback": _dataset, "autocompletion": lambda: list(DATASETS)}
DatasetName = Annotated[
    str | None,
    _option(f"{', '.join(DATASETS)}, or {FORMS}.", show_default=FILE, **_DATASET),
]
DataDir = Annotated[
    Path | None,
    _option(
        "Where datasets are or go; may be read-only if the files are there.",
        envvar="HPO_DATA_DIR",
        show_default="a per-user cache folder",
    ),
]
Storage = Annotated[str, _option("Any Optuna storage URL.", envvar="HPO_STORAGE")]
Out = Annotated[Path, _option("Reports go to OUT/STUDY/.")]
NAME = "The study's name in the storage and in --out."
LANG = "The report's language: "
Lang = Annotated[str, _option(LANG, envvar="HPO_LANG", known=LANGUAGES)]
Name = Annotated[str | None, _option(NAME, show_default="the file's name")]
Device = Annotated[str, _option("", known=DEVICES)]
WithDashboard = Annotated[bool, _option("Serve the dashboard while the run lasts.", "--dashboard")]
Artifacts = Annotated[
    Path | None,
    _option(
        "Where the trials' pictures are that the dashboard shows.",
        envvar="HPO_ARTIFACTS",
        show_default="hpo.artifacts, beside the storage's file",
    ),
]
Fresh = Annotated[bool, _option("First delete the stored study (asks).", "--fresh")]
Yes = Annotated[bool, _option("Do not ask before deleting.", "--yes")]
Quiet = Annotated[bool, _option("No progress display, only the last lines.", "--quiet")]
Watch = Annotated[bool, _option("Keep it fresh, until Ctrl-C or the study's end.", "--watch")]
Host = Annotated[str, _option("The address to listen on.")]
Port = Annotated[int, _option("The port to listen on; 0 takes a free one.", min=0, max=65_535)]
LABEL = "The column with the labels: its name, or its number in a file without a header."
Label = Annotated[str, _option(LABEL, "--label", show_default="a usual name, first or last")]
Invert = Annotated[bool, _option("Images are dark on light, unlike MNIST's.", "--invert")]


# --- commands ----------------------------------------------------------------------------------


@app.command()
def run(
    study: StudyArgument,
    seeds: Seeds = None,
    until_resolved: UntilResolved = False,
    changed_claims: ChangedClaims = False,
    trials: Trials = None,
    timeout: Timeout = None,
    sampler: Sampler = None,
    sampler_seed: SamplerSeed = None,
    repeats: Repeats = None,
    like: Like = None,
    pruner: Pruner = None,
    workers: Workers = None,
    pool: Pool = "local",
    ray_address: RayAddress = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    epoch_limit: EpochLimit = defaults.EPOCH_LIMIT,
    dataset: DatasetName = None,
    data_dir: DataDir = None,
    storage: Storage = defaults.STORAGE,
    out: Out = defaults.OUT,
    lang: Lang = ENGLISH,
    name: Name = None,
    device: Device = "auto",
    with_dashboard: WithDashboard = False,
    artifacts: Artifacts = None,
    fresh: Fresh = False,
    yes: Yes = False,
    quiet: Quiet = False,
) -> None:
    """Run or resume a study, then write its report."""
    given = locals()
    from hpo import session

    options = session.Options(**given)
    ignore_output_errors()
    if not session.run(options).complete:
        raise typer.Exit(1)


@app.command()
def report(
    study: StudyArgument,
    storage: Storage = defaults.STORAGE,
    out: Out = defaults.OUT,
    lang: Lang = ENGLISH,
    name: Name = None,
) -> None:
    """Write a study's report again, from the storage alone."""
    from hpo import session
    from hpo.storage.open import open_storage
    from hpo.storage.results import load_study

    stored_name = _stored_name(study, name)
    session.check_writable(out, stored_name)
    session.check_language(lang)
    stored = load_study(open_storage(storage, create=False), stored_name)
    if not session.write_report(stored, out / stored_name, lang) or stored.finished.empty:
        raise typer.Exit(1)


@app.command()
def show(
    study: StudyArgument,
    storage: Storage = defaults.STORAGE,
    name: Name = None,
    watch: Watch = False,
) -> None:
    """Show a study in the terminal: progress, states, best trials, results."""
    from hpo import session
    from hpo.storage.open import absolute, open_storage

    stored_name = _stored_name(study, name)
    opened = open_storage(storage, create=False)
    from hpo.storage import lock
    from hpo.storage.results import load_study
    from hpo.study.finalists import search_of
    from hpo.watch import progress, terminal

    here = partial(lock.held, absolute(storage), search_of(stored_name))
    if watch:
        stored = progress.watch(opened, stored_name, here, session.console())
    else:
        stored = load_study(opened, stored_name)
    from hpo.model.folder import winner_lines

    winner = winner_lines(defaults.OUT / stored_name / "best", stored)
    session.print_parts([*progress.views(stored, here()), *terminal.terminal(stored), *winner])


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="STUDY", help="A stored study.")],
    second: Annotated[str, typer.Argument(metavar="STUDY", help="Another one of its kind.")],
    storage: Storage = defaults.STORAGE,
) -> None:
    """Compare two stored grids cell by cell, or two searches by their winners."""
    from hpo import session
    from hpo.storage.open import open_storage

    names = [_stored_name(study, None) for study in (first, second)]
    opened = open_storage(storage, create=False)
    from hpo.storage.results import load_study
    from hpo.watch.terminal import comparison

    session.print_parts(comparison(*(load_study(opened, name) for name in names)))


@app.command("list")
def list_(storage: Storage = defaults.STORAGE) -> None:
    """List the study files that can be run, and the studies in the storage."""
    from hpo.study import file as study_file

    print("Study files:")
    for name in study_file.shipped():
        print(f"  {name:24}{study_file.load(name).title}")
    from hpo.storage.open import NothingStored, open_storage

    try:
        opened = open_storage(storage, create=False)
    except NothingStored as error:
        print(f"No studies: {error}")
        return
    import optuna

    print(f"Studies in {without_password(storage)}:")
    for summary in optuna.get_all_study_summaries(storage=opened):
        print(f"  {summary.study_name:24}{count(summary.n_trials, 'trial')}")


@app.command()
def dashboard(
    storage: Storage = defaults.STORAGE,
    artifacts: Artifacts = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
) -> None:
    """Serve optuna-dashboard on the storage and its artifacts."""
    from hpo.storage.open import artifacts_folder, open_storage, require_studies

    opened = open_storage(storage, create=False)
    require_studies(opened, storage)
    from hpo.watch.dashboard import LOOPBACK, listen

    folder = artifacts or artifacts_folder(storage)
    with listen(opened, folder, host, port, partial(print, file=sys.stderr, flush=True)) as server:
        if host not in LOOPBACK:
            print(f"WARNING: the dashboard has no login; whoever reaches {host} can delete studies")
        print(f"optuna-dashboard on {server.address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


EXPORTS = ("csv", "parquet", "tensorboard", "mlflow", "onnx", "torch-export")
To = Annotated[str, _option("", "--to", known=EXPORTS)]
EXPORTED = "Where it goes: OUT/STUDY/. MLflow goes to MLFLOW_TRACKING_URI if that is set."
ExportOut = Annotated[Path, _option(EXPORTED, "--out")]
REPORTS = "Where the reports lie, with a search's saved winner."
Reports = Annotated[Path, _option(REPORTS, "--reports")]


@app.command()
def export(
    study: StudyArgument,
    to: To,
    storage: Storage = defaults.STORAGE,
    name: Name = None,
    out: ExportOut = Path("exports"),
    reports: Reports = defaults.OUT,
    data_dir: DataDir = None,
) -> None:
    """Hand a stored study to other programs, after or during its run; or a search's winner."""
    from hpo import session
    from hpo.export.study import export as hand_over
    from hpo.storage.open import open_storage
    from hpo.storage.results import load_study

    stored_name = _stored_name(study, name)
    session.check_writable(out, stored_name)
    stored = load_study(open_storage(storage, create=False), stored_name)
    for path in hand_over(stored, to, out / stored_name, reports / stored_name, data_dir):
        print(f"exported: {path}")


KINDS = ("search", "grid")
Kind = Annotated[str, _option("What the study is: ", "--kind", known=KINDS)]


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study's name: NAME.toml.")],
    kind: Kind = "search",
    dataset: DatasetName = None,
) -> None:
    """Write a commented study file to start from."""
    from hpo.study import file as study_file

    path = study_file.write_template(name, kind, dataset or "mnist")
    print(f"{path}: change it, then: hpo run {path}")


@app.command()
def predict(
    best: Annotated[
        Path, typer.Argument(metavar="BEST", help="The `best` folder of a search's report.")
    ],
    image: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Pictures (PNG and its like), IDX files (.gz or not), .npz files, CSV, Parquet.",
        ),
    ],
    invert: Invert = False,
) -> None:
    """Classify images, or rows of a table: a line each, with path, class and probability.

    With labels in the file, prints the accuracy on standard error.
    """
    from hpo.data import inputs
    from hpo.model import folder

    about = folder.read(best)
    given = inputs.read(image, about.schema, invert=invert)
    for note in given.notes:
        print(f"NOTE: {printable(note)}", file=sys.stderr)
    from hpo.model import weights  # loads torch: two seconds, not spent on wrong input

    found = weights.load(best).probabilities(given.rows)
    classes = [printable(name) for name in about.schema.classes]
    rows = zip(given.names, found, strict=True)
    lines = [f"{name}\t{classes[row.argmax()]}\t{row.max():.4f}" for name, row in rows]
    typer.echo(os.fsencode("\n".join(lines)))  # a path may hold any bytes
    if said := inputs.accuracy_text(given, found.argmax(axis=1)):
        print(said, file=sys.stderr)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", **_DATASET)],
    label: Label = "",
    data_dir: DataDir = None,
) -> None:
    """Download and check a dataset, or check your own: its path. Prints its data card."""
    from hpo.data import card, datasets
    from hpo.study.source import Source

    number = int(label) if label.lstrip("-").isdecimal() else label
    source = Source(name, label=number)
    folder = data_dir or (datasets.default_dir() if source.known else Path())
    loaded = datasets.load(source, folder)
    datasets.check(loaded)
    found = datasets.describe(loaded)
    train, test = len(loaded.train_labels), len(loaded.test_labels)
    print(f"{source.short}: {train} training and {test} test examples, ", end="")
    print(f"SHA-256 {loaded.checksum[:16]}…")
    for title, text in card.rows(found)[:-1]:
        print(f"{title}: {printable(text)}")
    for warning in card.warnings(found):
        print(f"NOTE: {printable(warning)}", file=sys.stderr)


@data_app.command("list")
def data_list(data_dir: DataDir = None) -> None:
    """List the datasets, and whether they are on disk."""
    from hpo.data import datasets

    folder = data_dir or datasets.default_dir()
    print(f"Datasets in {folder}:")
    for name in DATASETS:
        missing = datasets.missing(name, folder)
        state = "embedded" if name in datasets.EMBEDDED else "not here" if missing else "on disk"
        print(f"  {name:16}{state}")
    print(f"Your own: {FORMS}")


def _stored_name(study: str, name: str | None) -> str:
    """Returns the name in the storage that STUDY and --name mean."""
    from hpo.study import file as study_file

    if name is None:
        name = Path(study).stem if study.endswith(".toml") else study
    return study_file.check_name(name)


def main() -> NoReturn:
    """The `hpo` command: exit code 0, 1, 2 or 130, one line an error, as the README says."""
    for number in stop_signals():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold bytes that are not text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):  # newer versions of typer return 130 instead
        code = STOPPED
    except typer.BadParameter.__base__ as error:  # type: ignore[misc]  # click's UsageError
        _fail(error, shortened(without_password(error.format_message()), 600), 2)
    except InputError as error:
        _fail(error, str(error), 2)
    except Exception as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        _fail(error, f"{line}; HPO_DEBUG=1 shows where", 1)
    if code == STOPPED and sys.argv[1:2] == ["run"]:
        same = "the same command without --fresh" if "--fresh" in sys.argv else "the same command"
        print(f"hpo: stopped; {same} goes on from here", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def script() -> NoReturn:
    """The `hpo` command as a process of its own, see end_process."""
    collect_seldom()
    try:
        main()
    except SystemExit as ended:
        end_process(ended.code if isinstance(ended.code, int) else 0)


def _fail(error: BaseException, text: str, code: int) -> NoReturn:
    urls = (*sys.argv[1:], os.environ.get("HPO_STORAGE", ""))
    if os.environ.get("HPO_DEBUG") == "1":
        # The causes of a wrong option come from a library, which may cut a URL anywhere.
        stack = traceback.format_exception(error, chain=code != 2 or isinstance(error, InputError))
        print(remove_passwords("".join(stack), *urls), file=sys.stderr, end="")
    for line in remove_passwords(text, *urls).splitlines():
        print(f"hpo: {printable(line)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    script()
