"""What a study file says: frozen dataclasses, the loader, errors that name file, key and remedy."""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.errors import InputError
from hpo.study import claims
from hpo.study.claims import Cause, Claim
from hpo.study.config import HYPERPARAMETERS, REQUIRED, SOURCES, Config, check, faults_in
from hpo.study.names import DATASETS, PRUNERS, SAMPLERS
from hpo.study.space import Domain, parse_domain, space_faults
from hpo.text import printable, quoted, shortened

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
COLUMNS = {
    "hidden_layers": "Hidden layers",
    "activation": "Activation",
    "optimizer": "Optimizer",
    "lr": "Learning rate",
    "test_accuracy": "Test accuracy (%)",
    "test_loss": "Test loss",
    "train_seconds": "Training time (s)",
}
FIGURES = ("test_accuracy", "test_loss", "train_seconds")


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a publication printed for one run: accuracy as a fraction, loss in nats, seconds."""

    label: str
    test_accuracy: float | None = None
    test_loss: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A grid's named configuration, with what was published for it (perhaps twice, perhaps not)."""

    name: str
    config: Config
    reported: tuple[Reported, ...] = ()
    varies: tuple[str, ...] = SOURCES  # what its seeds draw anew; the rest is drawn from seed 0

    @property
    def label(self) -> str:
        return self.reported[0].label if self.reported else self.name


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A section of a grid's report: which cells it compares, in which table columns."""

    title: str
    cells: tuple[str, ...]
    columns: tuple[str, ...] = tuple(COLUMNS)
    curves: tuple[str, ...] = ()  # none named: the cells that no experiment before this one had
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class GridStudy:
    """Cells, each trained with seeds 0 … seeds - 1."""

    name: str
    title: str
    dataset: str
    seeds: int
    cells: tuple[Cell, ...]
    experiments: tuple[Experiment, ...]
    claims: tuple[Claim, ...] = ()
    causes: tuple[Cause, ...] = ()
    diagnostics: bool = False  # whether training measures what goes on inside the networks
    text: str = ""
    source: str = ""
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class SearchStudy:
    """A search space, how it is searched, and what becomes of the best: the `finalists` best trials
    are trained again on `finalist_seeds` fresh seeds each.

    timeout: seconds of searching in all, over all its runs, after which no trial is begun; None: as
    long as n_trials take.
    """

    name: str
    title: str
    dataset: str
    n_trials: int
    timeout: float | None
    sampler: str
    sampler_seed: int
    pruner: str
    finalists: int
    finalist_seeds: int
    space: Mapping[str, Domain]
    text: str = ""
    raw: Mapping[str, Any] = field(repr=False, compare=False)


StudyFile = GridStudy | SearchStudy


def studies_dir() -> Path:
    """Where the study files that ship with hpo lie: inside the wheel, or beside the package."""
    inside = Path(__file__).parents[1] / "studies"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "studies"


def shipped() -> dict[str, Path]:
    """{name: path} of the study files that ship with hpo."""
    return {path.stem: path for path in sorted(studies_dir().glob("*.toml"))}


def load(study: str) -> StudyFile:
    """The study of a name (`grid-report`) or of a path to a TOML file.

    Raises InputError, a line a fault, for a study that is not there or a file that is wrong.
    """
    path = shipped().get(study, Path(study))
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except FileNotFoundError as error:
        known = ", ".join(shipped())
        raise InputError(
            f"study {quoted(study)}: no such study or file; there are {known}, or a path"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8 ({error})") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number of 4,300 digits
        raise InputError(f"{path}: is not valid TOML: {error}") from error
    return parse(raw, check_name(path.stem), str(path))


def check_name(name: str) -> str:
    """`name`, if it can name a study and its report folder; InputError if not."""
    if NAME.fullmatch(name) and ".." not in name:
        return name
    raise InputError(
        f"study name {quoted(name)}: use 1 to 100 letters, digits, '-', '_' and single '.', "
        "a letter or digit first"
    )


def parse(raw: Mapping[str, Any], name: str, where: str) -> StudyFile:
    """The study that a TOML document says; `where` names the file in errors."""
    reader = _Reader(where)
    if ("cells" in raw) == ("space" in raw):
        raise InputError(f"{where}: needs either [[cells]] (a grid) or [space] (a search)")
    study = _grid(raw, name, reader) if "cells" in raw else _search(raw, name, reader)
    reader.raise_faults()
    assert study is not None
    return study


class _Reader:
    """Takes typed values out of tables and collects what is wrong, to be said all at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.faults: list[str] = []

    def fault(self, key: str, text: str) -> None:
        key, text = printable(shortened(key)), printable(shortened(text, 600))
        self.faults.append(f"{self.where}: {key}: {text}")

    def raise_faults(self) -> None:
        if self.faults:
            raise InputError("\n".join(self.faults))

    def known(self, table: Mapping[str, Any], keys: Iterable[str], at: str = "") -> None:
        keys = tuple(keys)
        for key in table:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"did you mean {quoted(near[0])}?" if near else f"known: {', '.join(keys)}"
                self.fault(f"{at}{key}", f"unknown key; {hint}")

    def text(self, table: Mapping[str, Any], key: str, default: str, at: str = "") -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            self.fault(f"{at}{key}", f"must be text, got {quoted(value)}")
            return default
        return value.strip()

    def count(
        self, table: Mapping[str, Any], key: str, default: int, at: str = "", *, least: int = 1
    ) -> int:
        value = table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**6:
            words = f"a whole number from {least} to 1000000"
            self.fault(f"{at}{key}", f"must be {words}, got {quoted(value)}")
            return default
        return value

    def flag(self, table: Mapping[str, Any], key: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            self.fault(key, f"must be true or false, got {quoted(value)}")
        return bool(value)

    def choice(
        self, table: Mapping[str, Any], key: str, default: str, known: Collection[str], at: str = ""
    ) -> str:
        value = table.get(key, default)
        if not isinstance(value, str) or value not in known:
            self.fault(f"{at}{key}", f"must be one of {', '.join(known)}, got {quoted(value)}")
            return default
        return str(value)

    def table(self, parent: Mapping[str, Any], key: str, at: str = "") -> Mapping[str, Any]:
        value = parent.get(key, {})
        if not isinstance(value, dict):
            self.fault(f"{at}{key}", f"must be a table, got {quoted(value)}")
            return {}
        return value

    def tables(self, parent: Mapping[str, Any], key: str, at: str = "") -> list[Mapping[str, Any]]:
        value = parent.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fault(f"{at}{key}", f"must be a list of tables, got {quoted(value)}")
            return []
        return value

    def names(self, table: Mapping[str, Any], key: str, at: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fault(f"{at}{key}", f"must be a list of names, got {quoted(value)}")
            return ()
        return tuple(value)


def _grid(raw: Mapping[str, Any], name: str, reader: _Reader) -> GridStudy:
    keys = ("title", "text", "source", "dataset", "seeds", "base", "cells", "experiments")
    reader.known(raw, (*keys, "claims", "causes", "diagnostics"))
    base = reader.table(raw, "base")
    reader.known(base, HYPERPARAMETERS, "base.")
    for key, value in base.items():
        if key in HYPERPARAMETERS and (fault := check(key, value)):
            reader.fault(f"base.{key}", fault)
    sound = {k: v for k, v in base.items() if k in HYPERPARAMETERS and not check(k, v)}
    tables = reader.tables(raw, "cells")
    cells = [_cell(table, i, base, sound, reader) for i, table in enumerate(tables)]
    if raw["cells"] == []:
        reader.fault("cells", "needs at least one [[cells]] table")
    names = [table["name"] for table in tables if isinstance(table.get("name"), str)]
    experiments = _experiments(raw, names, reader)
    epochs = {cell.name: cell.config.epochs for cell in cells if cell}
    found = claims.read(reader.tables(raw, "claims"), epochs, reader) if all(cells) else ()
    return GridStudy(
        name=name,
        title=reader.text(raw, "title", name),
        text=reader.text(raw, "text", ""),
        source=reader.text(raw, "source", ""),
        dataset=reader.choice(raw, "dataset", "mnist", DATASETS),
        seeds=reader.count(raw, "seeds", 1),
        cells=tuple(cell for cell in cells if cell),
        experiments=experiments,
        claims=found,
        causes=claims.read_causes(reader.tables(raw, "causes"), names, reader),
        diagnostics=reader.flag(raw, "diagnostics"),
        raw=raw,
    )


def _cell(
    table: Mapping[str, Any],
    index: int,
    base: Mapping[str, Any],
    sound: Mapping[str, Any],
    reader: _Reader,
) -> Cell | None:
    name = table.get("name")
    at = f"cells[{index}]."
    if not isinstance(name, str) or not NAME.fullmatch(name):
        reader.fault(f"{at}name", f"must be letters, digits, '-', '_' and '.', got {quoted(name)}")
    else:
        at = f"cells.{name}."
    reader.known(table, ("name", "reported", "varies", *HYPERPARAMETERS), at)
    own = {key: value for key, value in table.items() if key in HYPERPARAMETERS}
    faults = {key: fault for key, value in own.items() if (fault := check(key, value))}
    values = {**sound, **own}
    for key in REQUIRED:
        if key not in own and key not in base:
            faults[key] = "is missing here and in [base]"
    faults = faults or ({} if len(sound) < len(base) else faults_in(values))
    for key, fault in faults.items():
        reader.fault(f"{at}{key}", fault)
    reported = tuple(_reported(t, f"{at}reported.", reader) for t in _reports(table, at, reader))
    varies = _varies(table, at, reader)
    if reader.faults:
        return None
    return Cell(name=str(name), config=Config(**values), reported=reported, varies=varies)


def _varies(table: Mapping[str, Any], at: str, reader: _Reader) -> tuple[str, ...]:
    """In the order of SOURCES, whatever the file's."""
    if "varies" not in table:
        return SOURCES
    names = reader.names(table, "varies", at)
    if not names or not set(names) <= set(SOURCES):
        known = ", ".join(SOURCES)
        reader.fault(
            f"{at}varies", f"must be a list of {known}, or some of these, got {quoted(names)}"
        )
    return tuple(name for name in SOURCES if name in names)


def _reports(table: Mapping[str, Any], at: str, reader: _Reader) -> list[Mapping[str, Any]]:
    return reader.tables(table, "reported", at)


def _reported(table: Mapping[str, Any], at: str, reader: _Reader) -> Reported:
    reader.known(table, ("label", *FIGURES), at)
    figures = {}
    for key in FIGURES:
        value = table.get(key)
        most = 1.0 if key == "test_accuracy" else 1e9
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value <= most):
            reader.fault(f"{at}{key}", f"must be a number from 0 to {most:g}, got {quoted(value)}")
        figures[key] = value
    return Reported(label=reader.text(table, "label", "reported", at), **figures)


def _experiments(
    raw: Mapping[str, Any], cells: list[str], reader: _Reader
) -> tuple[Experiment, ...]:
    for name in (name for name, times in Counter(cells).items() if times > 1):
        reader.fault(f"cells.{name}", "two cells have this name; rename one")
    tables = reader.tables(raw, "experiments")
    found = [_experiment(t, f"experiments[{i}].", cells, reader) for i, t in enumerate(tables)]
    return tuple(found) or (Experiment(title="All cells", cells=tuple(cells)),)


def _experiment(table: Mapping[str, Any], at: str, cells: list[str], reader: _Reader) -> Experiment:
    reader.known(table, ("title", "text", "cells", "columns", "curves"), at)
    names = reader.names(table, "cells", at)
    curves = reader.names(table, "curves", at)
    for key, listed in (("cells", names), ("curves", curves)):
        for name in listed:
            if name not in cells:
                known = ", ".join(cells)
                reader.fault(f"{at}{key}", f"no cell is named {quoted(name)}; there are {known}")
    columns = reader.names(table, "columns", at) or tuple(COLUMNS)
    for column in columns:
        if column not in COLUMNS:
            reader.fault(
                f"{at}columns", f"unknown {quoted(column)}; there are {', '.join(COLUMNS)}"
            )
    if not names:
        reader.fault(f"{at}cells", "needs at least one cell's name")
    if len(set(names)) < len(names):
        reader.fault(f"{at}cells", "names a cell twice")
    return Experiment(
        title=reader.text(table, "title", "Experiment", at),
        text=reader.text(table, "text", "", at),
        cells=names,
        columns=columns,
        curves=curves,
    )


def _search(raw: Mapping[str, Any], name: str, reader: _Reader) -> SearchStudy | None:
    reader.known(raw, ("title", "text", "dataset", "search", "finalists", "space"))
    search, finalists = reader.table(raw, "search"), reader.table(raw, "finalists")
    reader.known(search, ("n_trials", "timeout", "sampler", "sampler_seed", "pruner"), "search.")
    reader.known(finalists, ("k", "seeds"), "finalists.")
    space = reader.table(raw, "space")
    reader.known(space, HYPERPARAMETERS, "space.")
    if isinstance(raw["space"], dict):
        named = {key: value for key, value in space.items() if key in HYPERPARAMETERS}
        for key, fault in space_faults(named):
            reader.fault(f"space.{key}", fault)
    n_trials = reader.count(search, "n_trials", 100, "search.")
    timeout = reader.count(search, "timeout", 1, "search.") if "timeout" in search else None
    sampler = reader.choice(search, "sampler", "tpe", SAMPLERS, "search.")
    sampler_seed = reader.count(search, "sampler_seed", 0, "search.", least=0)
    pruner = reader.choice(search, "pruner", "median", PRUNERS, "search.")
    k = reader.count(finalists, "k", 3, "finalists.")
    finalist_seeds = reader.count(finalists, "seeds", 5, "finalists.")
    dataset = reader.choice(raw, "dataset", "mnist", DATASETS)
    title, text = reader.text(raw, "title", name), reader.text(raw, "text", "")
    if reader.faults:
        return None
    return SearchStudy(
        name=name,
        title=title,
        text=text,
        dataset=dataset,
        n_trials=n_trials,
        timeout=timeout,
        sampler=sampler,
        sampler_seed=sampler_seed,
        pruner=pruner,
        finalists=k,
        finalist_seeds=finalist_seeds,
        space={key: parse_domain(value) for key, value in space.items()},
        raw=raw,
    )
