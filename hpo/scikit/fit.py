"""A search over rows in memory, and what its winner is fed; knows nothing of scikit-learn."""

import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import joblib
import optuna
import pandas as pd

from hpo.analysis.statistics import estimate
from hpo.data import card, datasets, files, inputs, readers
from hpo.data.datasets import Dataset
from hpo.data.schema import Array, Floats, Schema
from hpo.data.tables import Part, table_part
from hpo.errors import InputError
from hpo.options import Options
from hpo.output import check_writable
from hpo.report import write
from hpo.results.load import load_study
from hpo.results.study import Finalist, StoredSearch
from hpo.runs import runner
from hpo.runs.loop import End
from hpo.runs.samplers import check_together
from hpo.runs.study import Run, binding
from hpo.start import with_options
from hpo.study.file import SearchStudy, parse, studies_dir
from hpo.study.source import Source
from hpo.text import shortened
from hpo.watch.progress import Display
from hpo.workers import pool, provenance, server

if TYPE_CHECKING:
    from hpo.model.weights import Saved

X = Path("X")  # what errors call the rows
LEFT_OUT = ("unnamed", "index", "counted", "empty", "rare")  # columns, see tables.table_part


@dataclass(frozen=True, kw_only=True)
class Found:
    """A search that has ended, its winner, and the winner's network."""

    search: StoredSearch
    winner: Finalist
    saved: "Saved"


# --- the study -----------------------------------------------------------------------------------


def study(name: str, asked: Mapping[str, Any], options: Options) -> SearchStudy:
    """Returns the search of studies/templates/table.toml with what is asked in its place.

    asked: keys of a study file; of a table such as [search] those that it has replace single keys,
    and [space] is replaced as a whole. Raises InputError, a line for each fault.
    """
    template = studies_dir() / "templates" / "table.toml"
    raw = tomllib.loads(template.read_text("utf-8")) | {
        "title": name,
        "dataset": {"file": f"./{X}"},
    }
    if "space" in asked:
        raw["search"].pop("first")  # which lie in the template's space
    if asked.get("search", {}).get("folds"):
        raw["search"].pop("seeds_per_trial")  # a fold has one seed
    for key, value in asked.items():
        merged = isinstance(value, Mapping) and key in ("search", "finalists")
        raw[key] = {**raw[key], **value} if merged else value
    file = with_options(parse(raw, name.lower(), f"hpo.{name}"), options)
    assert isinstance(file, SearchStudy)
    check_together(file, f"hpo.{name}")
    return file


# --- rows in memory ------------------------------------------------------------------------------


def dataset(
    x: "pd.DataFrame | Array", y: Array, source: Source, classes: Sequence[str] = ()
) -> Dataset:
    """Returns rows and their targets as a dataset without a test part. Raises InputError.

    x: a frame, read as a table of a file is; or an array of numbers, a column for each feature.
    y: numbers, or the places of the classes. source: of the study, see `study`.
    """
    with readers.naming(X):
        part, schema = _part(x, y)
        loaded = files.load(source, ([part], schema))
    if classes:
        named = tuple(shortened(name, 60) for name in classes)
        named = named if len({*named}) == len(named) else tuple(classes)
        codes = tuple(classes) if named != tuple(classes) else None
        loaded = replace(loaded, schema=loaded.schema.replace(classes=named, codes=codes))
    datasets.check(loaded)
    return loaded


def _part(x: "pd.DataFrame | Array", y: Array) -> tuple[Part, Schema]:
    if not isinstance(x, pd.DataFrame):
        return Part(x=x, y=y, where=str(X)), Schema()
    label = "y"
    while label in {str(name) for name in x}:
        label += "_"
    table = readers.of_frame(X, x.assign(**{label: y}))
    return table_part(table, Source(f"./{X}", label=label))


def left_out(loaded: Dataset) -> list[str]:
    """Says which columns are left out, and which classes have too few rows to validate on."""
    about = {key: value for key, value in loaded.about.items() if key in LEFT_OUT}
    counts = [int((loaded.train_labels == place).sum()) for place in range(loaded.classes)]
    each = [] if loaded.regression else zip(loaded.schema.classes, counts, strict=True)
    rare = [name for name, count in each if count < datasets.LEAST_OF_A_CLASS]
    said = card.warnings({"name": str(X), "about": about})
    text = "y: classes with too few rows to validate on: {}; give three of each, or more"
    return [*said, *[text.format(shortened(", ".join(rare)))] * bool(rare)]


def fed(x: "pd.DataFrame | Array", schema: Schema) -> tuple[Floats, list[str]]:
    """Returns rows as the winner is fed, and what is to be said of them. Raises InputError."""
    notes: list[str] = []
    with readers.naming(X):
        if isinstance(x, pd.DataFrame):
            known = x.loc[:, [str(name) not in schema.left_out for name in x]]
            part = inputs.like_table(readers.of_frame(X, known), schema)
            x, notes = part.x, list(part.notes)
        schema.check_numbers(x, "a value")
    try:
        schema.check_range(x)
    except InputError as error:  # which `hpo predict` refuses
        notes.append(str(error))
    return schema.normalized(x), [f"{X}: {note}" for note in notes]


# --- the search ----------------------------------------------------------------------------------


def search(file: SearchStudy, rows: Dataset, options: Options, *, verbose: bool) -> Found:
    """Runs a search as `hpo run` does, in memory, and trains its winner on all rows.

    options: those of `hpo run`; where out has its default, nothing is written but for a moment, to
    a temporary folder. Raises InputError if no trial has a result, and KeyboardInterrupt.
    """
    server.preload()
    file = file.on(rows.schema.classes, rows.schema.deviation)
    file.check(rows.schema.classes, f"hpo.{file.title}: ")
    if file.folds:
        datasets.check_folds(rows, file.folds)
    pool.require_device(options.device)
    file = pool.in_possible_precision(file, options.device, warnings.warn)
    with _quietly(), _folder(options) as (changed, keeps):
        storage = optuna.storages.InMemoryStorage()
        run = Run(
            options=changed,
            file=file,
            name=file.name,
            dataset=rows,
            bound=binding(file, rows),
            storage=storage,
            provenance=provenance.collect(f"hpo.{file.title}"),
            make_pool=pool.LocalPool,
            workers=options.workers or int(joblib.cpu_count()),
            watchers=[Display(quiet=False)] if verbose else [],
        )
        if runner.run_search(run) is End.STOPPED:
            raise KeyboardInterrupt
        found = load_study(storage, file.name)
        assert isinstance(found, StoredSearch)
        if found.winner is None:
            raise InputError(f"hpo.{file.title}: {_fault(found, options)}")
        if keeps:
            write.write(found, changed.out / file.name)
        from hpo.model import weights  # brings torch, which the search does without

        saved = weights.load(run.winner_folder, ensemble=file.members > 1)
        return Found(search=found, winner=found.winner, saved=saved)


@contextmanager
def _folder(options: Options) -> Iterator[tuple[Options, bool]]:
    """Yields the options with a folder to write to, and whether it stays."""
    if "out" in options.model_fields_set:
        check_writable(options.out, options.study)
        yield options, True
        return
    with TemporaryDirectory(prefix="hpo-", ignore_cleanup_errors=True) as folder:
        yield options.model_copy(update={"out": Path(folder)}), False


@contextmanager
def _quietly() -> Iterator[None]:
    """Within it, Optuna says nothing but warnings."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _fault(found: StoredSearch, options: Options) -> str:
    """Says why there is no winner."""
    reasons = [str(reason) for reason in found.trials["fail_reason"].dropna()]
    if found.no_result and not found.trials["diverged"].any() and options.timeout is not None:
        return f"no trial has finished within timeout = {options.timeout:g} s; give more time"
    first = f" ({reasons[0]})" if reasons else ""
    return f"{found.no_result or 'its finalists could not be trained'}{first}"


def validation(winner: Finalist) -> dict[str, Any]:
    """Returns the winner's objective on fresh seeds: metric, mean, 95% interval and n."""
    metric = winner.search.metric
    found = estimate(winner.gains(metric).to_numpy())
    mean, *ends = (end / metric.gain(1.0) for end in (found.mean, found.low, found.high))
    least, most = sorted((metric.worst, metric.best))
    interval = tuple(min(max(end, least), most) for end in sorted(ends))
    return {"metric": metric.name, "mean": mean, "interval": interval, "n": found.n}
