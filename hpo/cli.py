"""The `hpo` command: parses options, calls, prints. Modules load inside the commands, so that
`hpo --help` answers at once."""

import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

import typer

from hpo import output
from hpo.errors import InputError
from hpo.language import ENGLISH
from hpo.options import OUT, STORAGE, Options, checked, option, with_options
from hpo.passwords import remove_passwords, without_password
from hpo.process import collect_seldom, end_process, ignore_output_errors, stop_signals
from hpo.study.names import DATASETS, FORMS, TaskKind
from hpo.text import (
    DASHBOARD,
    error_line,
    meant,
    printable,
    printable_path,
    quoted,
    same_command,
    shortened,
)

app = typer.Typer(
    help="Hyperparameter studies of multilayer perceptrons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Download a dataset ahead of time, or list them.", no_args_is_help=True)
app.add_typer(data_app, name="data")

STOPPED = 130

# --- options -----------------------------------------------------------------------------------


def _one_of(known: Collection[str]) -> dict[str, Any]:
    """Returns the arguments of an option that has one of these values."""

    def check(param: typer.CallbackParam, value: str) -> str:
        if value is not None and value not in known:
            names = ", ".join(known)
            raise InputError(
                f"{param.opts[0]}: must be one of {names}, got {quoted(value)}{meant(value, known)}"
            )
        return value

    text = f"{', '.join(known)}."
    return {"help": text, "callback": check, "autocompletion": lambda: list(known)}


def _shipped() -> list[str]:
    from hpo.study import file as study_file

    return list(study_file.shipped())


StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A study file's name or a path to one.", autocompletion=_shipped
    ),
]
DatasetName = Annotated[str | None, option("dataset")]
DataDir = Annotated[Path | None, option("data_dir")]
Storage = Annotated[str, option("storage")]
Out = Annotated[Path, option("out")]
Lang = Annotated[str, option("lang")]
Name = Annotated[str | None, option("name")]
Artifacts = Annotated[Path | None, option("artifacts")]
WATCHED = "Wait until it begins and keep it fresh, until Ctrl-C or the study's end."
Watch = Annotated[bool, typer.Option("--watch", help=WATCHED)]
Host = Annotated[str, typer.Option(help="The address to listen on.")]
FREE = "The port to listen on; 0 takes a free one."
AllowHost = Annotated[list[str] | None, option("allow_host")]
Port = Annotated[int, typer.Option(help=FREE, min=0, max=65_535)]
LABEL = "The column with the labels: its name, or its number in a file without a header."
USUAL = "a usual name, first or last"
Task = Annotated[str | None, typer.Option("--task", **_one_of(get_args(TaskKind)))]
Label = Annotated[str, typer.Option("--label", help=LABEL, show_default=USUAL)]
DARK = "Images are dark on light, unlike MNIST's."
BY_ALL = "By the saved ensemble: the mean of its probabilities, or of its numbers."
Ensemble = Annotated[bool, typer.Option("--ensemble", help=BY_ALL)]
Invert = Annotated[bool, typer.Option("--invert", help=DARK)]


# --- commands ----------------------------------------------------------------------------------


@app.command()
@with_options
def run(study: StudyArgument, **given: Any) -> None:
    """Run or resume a study, then write its report."""
    try:
        options = Options.of({"study": study, **given})
        from hpo import start

        ignore_output_errors()
        _, complete = start.run(options)
    except KeyboardInterrupt as stopped:
        _say_stopped(*stopped.args)
        raise typer.Exit(STOPPED) from stopped
    if not complete:
        raise typer.Exit(1)


@app.command()
def report(
    study: StudyArgument,
    storage: Storage = STORAGE,
    out: Out = OUT,
    lang: Lang = ENGLISH,
    name: Name = None,
) -> None:
    """Write a study's report again, from the storage alone."""
    from hpo.results.load import load_study
    from hpo.storage.open import open_storage, written_back

    stored_name = _stored_name(study, name)
    output.check_writable(out, stored_name)
    output.check_language(lang)
    stored = load_study(open_storage(storage, create=False), stored_name)
    with written_back(storage, output.say):  # the log of a run that was killed
        written = output.write_report(stored, out / stored_name, lang)
    if not written or stored.no_result:
        raise typer.Exit(1)


@app.command()
def show(
    study: StudyArgument,
    storage: Storage = STORAGE,
    name: Name = None,
    watch: Watch = False,
) -> None:
    """Show a study in the terminal: progress, states, best trials, results."""
    from hpo.storage.open import absolute, log_note, open_storage

    stored_name, open_it = _stored_name(study, name), partial(open_storage, storage, create=False)
    opened = None if watch else open_it()
    from hpo.results.load import load_study
    from hpo.storage import lock
    from hpo.study.finalists import search_of
    from hpo.watch import progress, terminal

    here = partial(lock.held, absolute(storage), search_of(stored_name))
    if opened is None:
        opened = progress.begun(open_it, stored_name, output.console())
        stored = progress.watch(opened, stored_name, here, output.console())
    else:
        stored = load_study(opened, stored_name)
    from hpo.model.folder import winner_lines

    last = [*winner_lines(OUT / stored_name / "best", stored), *log_note(storage)]
    output.print_parts([*progress.views(stored, here()), *terminal.terminal(stored), *last])


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="STUDY", help="A stored study.")],
    second: Annotated[str, typer.Argument(metavar="STUDY", help="Another one of its kind.")],
    storage: Storage = STORAGE,
) -> None:
    """Compare two stored grids cell by cell, or two searches by the winners of their repeats."""
    from hpo.storage.open import open_storage

    names = [_stored_name(study, None) for study in (first, second)]
    opened = open_storage(storage, create=False)
    from hpo.results.load import load_study
    from hpo.watch.terminal import comparison

    output.print_parts(comparison(*(load_study(opened, name) for name in names)))


@app.command("list")
def list_(storage: Storage = STORAGE) -> None:
    """List the study files that can be run, and the studies in the storage."""
    from hpo.study import file as study_file
    from hpo.watch import listing

    titles = {name: study_file.load(name).title for name in study_file.shipped()}
    output.print_parts(["Study files:", listing.study_files(titles)])
    from hpo.storage import lock
    from hpo.storage.open import NothingStored, absolute, open_storage
    from hpo.study.finalists import search_of

    try:
        opened = open_storage(storage, create=False)
    except NothingStored as error:
        print(f"No studies: {error}")
        return
    url = absolute(storage)
    stored = listing.stored_studies(opened, lambda name: lock.held(url, search_of(name)))
    output.print_parts([f"Studies in {without_password(storage)}:", stored])


@app.command()
def dashboard(
    storage: Storage = STORAGE,
    artifacts: Artifacts = None,
    host: Host = DASHBOARD[0],
    port: Port = DASHBOARD[1],
    allow_host: AllowHost = None,
) -> None:
    """Serve optuna-dashboard on the storage and its artifacts."""
    from hpo.storage.open import artifacts_folder, open_storage, require_studies, written_back

    opened = open_storage(storage, create=False)
    require_studies(opened, storage)
    from hpo.watch.dashboard import listen

    folder = artifacts or artifacts_folder(storage)
    say = partial(print, file=sys.stderr, flush=True)
    allowed = allow_host or ()
    with written_back(storage, say), listen(opened, folder, host, port, say, allowed) as server:
        if not server.is_local:
            print(f"WARNING: the dashboard has no login; whoever reaches {host} can delete studies")
        print(f"optuna-dashboard on {server.address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()


Yes = Annotated[bool, option("yes")]


@app.command()
def delete(
    study: StudyArgument,
    storage: Storage = STORAGE,
    out: Out = OUT,
    artifacts: Artifacts = None,
    name: Name = None,
    yes: Yes = False,
) -> None:
    """Delete a stored study, with its finalists, pictures and saved winner.

    Its report stays: the folder OUT/STUDY/, without the saved winner.
    """
    stored_name = _stored_name(study, name)
    given = {"storage": storage, "out": out, "artifacts": artifacts, "yes": yes}
    from hpo import start

    start.delete(stored_name, Options.of({"study": study, **given}))
    print(f"deleted: study {stored_name!r}")
    if (page := out / stored_name / "index.html").is_file():
        print(f"its report stays: {page}")


EXPORTS = ("parquet", "tensorboard", "mlflow", "onnx", "torch-export", "huggingface")
To = Annotated[str, typer.Option("--to", **_one_of(EXPORTS))]
EXPORTED = "Where it goes: OUT/STUDY/. MLflow goes to MLFLOW_TRACKING_URI if that is set."
ExportOut = Annotated[Path, typer.Option("--out", help=EXPORTED)]
REPORTS = "Where the reports lie, with a search's saved winner."
Reports = Annotated[Path, typer.Option("--reports", help=REPORTS)]


@app.command()
def export(
    study: StudyArgument,
    to: To,
    storage: Storage = STORAGE,
    name: Name = None,
    out: ExportOut = Path("exports"),
    reports: Reports = OUT,
    data_dir: DataDir = None,
) -> None:
    """Hand a stored study to other programs, after or during its run; or a search's winner."""
    from hpo.export.study import export as hand_over
    from hpo.results.load import load_study
    from hpo.storage.open import open_storage

    stored_name = _stored_name(study, name)
    output.check_writable(out, stored_name)
    stored = load_study(open_storage(storage, create=False), stored_name)
    for path in hand_over(stored, to, out / stored_name, reports / stored_name, data_dir):
        print(f"exported: {path}")


KINDS = ("search", "grid")
INIT_NAME = "The study's name: NAME.toml. Or a table: data.csv."
Kind = Annotated[str, typer.Option("--kind", **_one_of(KINDS))]


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help=INIT_NAME)],
    kind: Kind = "search",
    dataset: DatasetName = None,
) -> None:
    """Write a commented study file to start from.

    Of a table (data.csv), it proposes the label, the kinds of the columns, and a search.
    """
    import tomli_w

    from hpo.data import proposal
    from hpo.data.readers import is_table
    from hpo.study import file as study_file

    lines = tomli_w.dumps({"dataset": dataset or "mnist"}).rstrip()
    tables = [path for path in map(Path, (dataset or "", name)) if is_table(path)]
    if tables:
        lines = proposal.propose(tables[0])
    if is_table(Path(name)):
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).name.split(".")[0]).strip("-_") or "table"
    if Path(name).suffix not in ("", ".toml") and Path(name).is_file() and not tables:
        raise InputError(f"{name}: is no table that hpo reads; give {FORMS}")
    of_table = "table" if tables and kind == "search" else kind
    path = study_file.write_template(name, of_table, lines)
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
    ensemble: Ensemble = False,
) -> None:
    """Classify images, or rows of a table: a line each, with path, class and probability; or, of a
    regression, with path and number.

    With labels in the file, prints the accuracy on standard error, or RMSE, MAE and R².
    """
    from hpo.data import inputs
    from hpo.model import folder

    about = folder.read(best)
    given = inputs.read(image, about.schema, invert=invert)
    for note in given.notes:
        output.say(printable(note))
    from hpo.model import weights  # loads torch: two seconds, not spent on wrong input

    found = weights.load(best, ensemble=ensemble).answers(given.rows)
    names = map(printable_path, given.names)
    if about.schema.target:
        numbers = found[:, 0].tolist()
        lines = [f"{name}\t{value!r}" for name, value in zip(names, numbers, strict=True)]
        said = inputs.errors_text(given, found[:, 0])
    else:
        classes = [printable(name) for name in about.schema.classes]
        rows = zip(names, found, strict=True)
        lines = [f"{name}\t{classes[row.argmax()]}\t{row.max():.4f}" for name, row in rows]
        said = inputs.accuracy_text(given, found.argmax(axis=1))
    typer.echo(os.fsencode("\n".join(lines)))  # a path may hold any bytes
    if said:
        output.complain(said)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", callback=checked("dataset"))],
    label: Label = "",
    task: Task = None,
    data_dir: DataDir = None,
) -> None:
    """Download and check a dataset, or check your own: its path. Prints its data card."""
    from hpo.data import card, datasets
    from hpo.study.source import Source
    from hpo.watch import listing

    of_name: Any = {"label": int(label) if label.lstrip("-").isdecimal() else label, "task": task}
    source = Source(name, **of_name)
    loaded = datasets.load(source, data_dir)
    datasets.check(loaded)
    found = datasets.describe(loaded)
    train, test = len(loaded.train_labels), len(loaded.test_labels)
    checksum = f"SHA-256 {loaded.checksum[:16]}…"
    lines = [f"{source.short}: {train} training and {test} test examples, {checksum}"]
    lines += [f"{title}: {text}" for title, text in card.rows(found)[:-1]]
    columns = card.columns(found)
    table = [listing.data_columns(columns)] if columns else []
    output.print_parts([*map(printable, lines), *table])
    for warning in card.warnings(found):
        output.say(printable(warning))


@data_app.command("list")
def data_list(data_dir: DataDir = None) -> None:
    """List the datasets, and whether they are on disk."""
    from hpo.data import datasets

    folder = data_dir or datasets.default_dir()
    print(f"Datasets in {folder}:")
    for name in DATASETS:
        loader = datasets.loader(name)
        on_disk = "not here" if loader.missing(folder) else "on disk"
        state = "embedded" if loader.embedded else on_disk
        print(f"  {name:16}{state}")
    output.print_parts([f"Your own: {FORMS}"])


def _stored_name(study: str, name: str | None) -> str:
    """Returns the name in the storage that STUDY and --name mean."""
    from hpo.study import file as study_file

    if name is None:
        name = Path(study).stem if study.endswith(".toml") else study
    return study_file.check_name(name)


def main() -> NoReturn:
    """The `hpo` command: exit code 0, 1, 2 or 130, one line an error, as the README says."""
    if os.name == "nt":
        sys.exit(
            "hpo: does not run on Windows itself; install WSL (`wsl --install`), and hpo there"
        )
    for number in stop_signals():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold bytes that are not text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):  # newer versions of typer return 130 instead
        code = STOPPED
        if sys.argv[1:2] == ["run"]:
            _say_stopped()
    except typer.BadParameter.__base__ as error:  # type: ignore[misc]  # click's UsageError
        _fail(error, shortened(without_password(error.format_message()), 600), 2)
    except InputError as error:
        _fail(error, str(error), 2)
    except Exception as error:
        _fail(error, f"{error_line(error)}; HPO_DEBUG=1 shows where", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _say_stopped(same: str = "") -> None:
    """same: the command that goes on; without it, the one that was typed."""
    same = same or same_command(fresh="--fresh" in sys.argv)
    output.complain(f"hpo: stopped; {same} goes on from here")


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
        output.complain(f"hpo: {printable(line)}")
    sys.exit(code)


if __name__ == "__main__":
    script()
