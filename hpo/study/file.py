"""Study files: what they declare, read from TOML by pydantic, with all faults at once."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, create_model

from hpo.errors import InputError
from hpo.study.claims import Cause, Claim, read_cause, read_claim
from hpo.study.config import (
    HYPERPARAMETERS,
    REQUIRED,
    SOURCES,
    TYPES,
    Config,
    Seeds,
    faults_in,
    with_widths,
)
from hpo.study.fields import Count, Faults, Flag, Names, Table, Text, explained, one_of
from hpo.study.names import PRUNERS, SAMPLERS
from hpo.study.source import Source, SourceField
from hpo.study.space import Domain, parse_domain, space_faults
from hpo.text import quoted

T = TypeVar("T")
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
BLOCK = 8  # seeds of a crossed cell that are analysed together
FIGURES = ("test_accuracy", "test_loss", "train_seconds")


# --- studies -----------------------------------------------------------------------------------


class Reported(Table):
    """What a publication reports for one run: accuracy as a fraction, loss in nats, seconds."""

    label: Text = "reported"
    test_accuracy: Annotated[
        float | None, Field(ge=0, le=1), explained("must be a number from 0 to 1")
    ] = None
    test_loss: Annotated[
        float | None, Field(ge=0, le=1e9), explained("must be a number from 0 to 1e+09")
    ] = None
    train_seconds: Annotated[
        float | None, Field(ge=0, le=1e9), explained("must be a number from 0 to 1e+09")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A named configuration of a grid.

    varies: what its seeds draw anew; the rest has seed 0. crossed: whether seeds 8b … 8b + 7 are
    the combinations of two splits, two initial weights and two batch orders, 2b and 2b + 1.
    """

    name: str
    config: Config
    reported: tuple[Reported, ...] = ()
    varies: tuple[str, ...] = SOURCES
    crossed: bool = False

    def draw(self, seed: int) -> Seeds:
        """Returns the seeds of split, weights and order that the cell's seed stands for."""
        if not self.crossed:
            return Seeds.of(seed, self.varies)
        block, run = divmod(seed, BLOCK)
        return Seeds(**{name: 2 * block + (run >> bit & 1) for bit, name in enumerate(SOURCES)})

    @property
    def label(self) -> str:
        """Returns the first published label, or the name."""
        return self.reported[0].label if self.reported else self.name


class Experiment(Table):
    """A section of a grid's report: the cells that it compares, and the columns of its table.

    curves: cells whose curves it shows; empty: those that no section before it has.
    """

    title: Text = "Experiment"
    text: Text = ""
    cells: Names = ()
    columns: Names = tuple(COLUMNS)
    curves: Names = ()


class Unsaid(Table):
    """What a publication does not say, and what the study does instead."""

    what: Text = ""
    chosen: Text = ""


class Rounds(Table):
    """A number of seeds that depends on the results: from `start` on, `step` more in each round for
    the cells of open claims, `most` at most."""

    start: Count = 5
    most: Count = 40
    step: Count = 5


@dataclass(frozen=True, kw_only=True)
class GridStudy:
    """Cells, each trained with seeds 0 … seeds - 1. rounds: how to go on until the claims are
    resolved; None without. diagnostics: see training.diagnostics."""

    name: str
    title: str
    dataset: Source
    seeds: int
    cells: tuple[Cell, ...]
    experiments: tuple[Experiment, ...]
    rounds: Rounds | None = None
    claims: tuple[Claim, ...] = ()
    causes: tuple[Cause, ...] = ()
    unsaid: tuple[Unsaid, ...] = ()
    diagnostics: bool = False
    text: str = ""
    source: str = ""
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class SearchStudy:
    """A search: its space, sampler, pruner and budget, and its finalists.

    timeout: seconds of searching over all runs; None: no limit. finalists: how many of the best
    trials are trained again, on finalist_seeds fresh seeds each.
    """

    name: str
    title: str
    dataset: Source
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


# --- the tables of a file ----------------------------------------------------------------------


class Head(Table):
    """The keys that grids and searches share."""

    title: Text | None = None
    text: Text = ""
    dataset: Annotated[SourceField, Field(validate_default=True)] = "mnist"  # type: ignore[assignment]


def source_of(head: Head) -> Source:
    """Returns the source that the key `dataset` means."""
    source: Any = head.dataset
    assert isinstance(source, Source)
    return source


class GridHead(Head):
    source: Text = ""
    seeds: Count = 1
    diagnostics: Flag = False


class SearchTable(Table):
    n_trials: Count = 100
    timeout: Count | None = None
    sampler: Annotated[str, *one_of(SAMPLERS)] = "tpe"
    sampler_seed: Annotated[
        int, Field(ge=0, le=10**6), explained("must be a whole number from 0 to 1000000")
    ] = 0
    pruner: Annotated[str, *one_of(PRUNERS)] = "median"


class FinalistsTable(Table):
    k: Count = 3
    seeds: Count = 5


_OPTIONAL: dict[str, Any] = {name: (kind, None) for name, kind in TYPES.items()}
_NAME: Any = Annotated[
    str,
    Field(pattern=f"^{NAME.pattern}$", validate_default=True),
    explained("must be letters, digits, '-', '_' and '.'"),
]
BaseTable = create_model("BaseTable", __base__=Table, **_OPTIONAL)
CellTable = create_model(
    "CellTable",
    __base__=Table,
    name=(_NAME, None),
    varies=(Names, SOURCES),
    crossed=(Flag, False),
    **_OPTIONAL,
)


# --- loading -----------------------------------------------------------------------------------


def studies_dir() -> Path:
    """Returns the folder of the study files that hpo ships: in the wheel, or in the checkout."""
    inside = Path(__file__).parents[1] / "studies"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "studies"


def shipped() -> dict[str, Path]:
    """Returns {name: path} of the study files that hpo ships."""
    return {path.stem: path for path in sorted(studies_dir().glob("*.toml"))}


def load(study: str) -> StudyFile:
    """Reads the study of a name (`grid-report`) or of a path to a TOML file.

    Raises InputError, one line per fault, for a study that is not there or a file that is wrong.
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
    parsed = parse(raw, check_name(path.stem), str(path))
    return replace(parsed, dataset=parsed.dataset.within(path.parent))


def check_name(name: str) -> str:
    """Returns `name` if it can name a study and a folder; raises InputError if not."""
    if NAME.fullmatch(name) and ".." not in name:
        return name
    raise InputError(
        f"study name {quoted(name)}: use 1 to 100 letters, digits, '-', '_' and single '.', "
        "a letter or digit first"
    )


def parse(raw: Mapping[str, Any], name: str, where: str) -> StudyFile:
    """Reads the study of a TOML document. where: the file in errors."""
    faults = Faults(where)
    if ("cells" in raw) == ("space" in raw):
        raise InputError(f"{where}: needs either [[cells]] (a grid) or [space] (a search)")
    study = _grid(raw, name, faults) if "cells" in raw else _search(raw, name, faults)
    faults.raise_all()
    assert study is not None
    return study


def _grid(raw: Mapping[str, Any], name: str, faults: Faults) -> GridStudy | None:
    parts = ("base", "cells", "experiments", "claims", "causes", "unsaid")
    rounds = _rounds(raw, faults)
    counted = {key: value for key, value in raw.items() if key != "seeds" or rounds is None}
    head = faults.read(GridHead, counted, besides=parts)
    base, tables = faults.table(raw, "base"), faults.tables(raw, "cells")
    sound_base = faults.read(BaseTable, base, "base.") is not None
    if raw["cells"] == []:
        faults.add("cells", "needs at least one [[cells]] table")
    cells = [_cell(t, i, base, sound_base, faults) for i, t in enumerate(tables)]
    names = [table["name"] for table in tables if isinstance(table.get("name"), str)]
    for repeated in (n for n, times in Counter(names).items() if times > 1):
        faults.add(f"cells.{repeated}", "two cells have this name; rename one")
    epochs = {cell.name: cell.config.epochs for cell in cells if cell}

    def each(key: str, read: Callable[[Mapping[str, Any], str], T | None]) -> tuple[T, ...]:
        tables = enumerate(faults.tables(raw, key))
        found = [read(table, f"{key}[{i}].") for i, table in tables]
        return tuple(one for one in found if one is not None)

    experiments = each("experiments", lambda t, at: _experiment(t, at, names, faults))
    claims = each("claims", lambda t, at: read_claim(t, at, epochs, faults)) if all(cells) else ()
    causes = each("causes", lambda t, at: read_cause(t, at, names, faults))
    unsaid = each("unsaid", lambda t, at: faults.read(Unsaid, t, at))
    if faults.lines or head is None:
        return None
    return GridStudy(
        name=name,
        title=head.title or name,
        cells=tuple(filter(None, cells)),
        experiments=experiments or (Experiment(title="All cells", cells=tuple(names)),),
        claims=claims,
        causes=causes,
        unsaid=unsaid,
        rounds=rounds,
        raw=raw,
        dataset=source_of(head),
        **{
            **head.model_dump(exclude={"title", "dataset"}),
            **({"seeds": rounds.start} if rounds else {}),
        },
    )


def _cell(
    table: Mapping[str, Any],
    index: int,
    base: Mapping[str, Any],
    sound_base: bool,
    faults: Faults,
) -> Cell | None:
    name = table.get("name")
    named = isinstance(name, str) and NAME.fullmatch(name)
    at, before = f"cells.{name}." if named else f"cells[{index}].", len(faults.lines)
    read: Any = faults.read(CellTable, table, at, besides=("reported",))
    reports = [
        faults.read(Reported, report, f"{at}reported.")
        for report in faults.tables(table, "reported", at)
    ]
    values = _merged(base, table)
    for key in REQUIRED:
        if key not in values and not ("widths" in values and key in FOLLOWING):
            faults.add(f"{at}{key}", "is missing here and in [base]")
    if read and not (read.varies and set(read.varies) <= set(SOURCES)):
        known = ", ".join(SOURCES)
        given = quoted(read.varies)
        faults.add(f"{at}varies", f"must be a list of {known}, or some of these, got {given}")
    if read and read.crossed and set(read.varies) != set(SOURCES):
        faults.add(f"{at}crossed", "crosses all sources, so leave out `varies`")
    if len(faults.lines) > before or not sound_base:
        return None
    if not (values.get("widths") and any(key in table for key in FOLLOWING)):
        values = with_widths(values)
    for key, text in faults_in(values).items():
        faults.add(f"{at}{key}", text)
    if len(faults.lines) > before:
        return None
    varies = tuple(source for source in SOURCES if source in read.varies)
    reported = tuple(report for report in reports if report)
    return Cell(
        name=str(name),
        config=Config(**values),
        reported=reported,
        varies=varies,
        crossed=read.crossed,
    )


FOLLOWING = ("depth", "width")  # from widths


def _merged(base: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a cell's hyperparameters: its own, and those of [base] but for what follows from its
    widths, and widths that its own depth or width replaces."""
    replaced: tuple[str, ...] = FOLLOWING if "widths" in table else ()
    if any(key in table for key in FOLLOWING) and "widths" not in table:
        replaced = ("widths",)
    kept = {key: value for key, value in base.items() if key not in replaced}
    return {key: v for key, v in {**kept, **table}.items() if key in HYPERPARAMETERS}


def _rounds(raw: Mapping[str, Any], faults: Faults) -> Rounds | None:
    """Reads seeds = { start, most, step }; None if seeds is a number."""
    if not isinstance(raw.get("seeds"), dict):
        return None
    rounds = faults.read(Rounds, raw["seeds"], "seeds.")
    if rounds and rounds.start > rounds.most:
        faults.add("seeds.start", f"must be at most `most`, {rounds.most}, got {rounds.start}")
    return rounds or Rounds()


def _experiment(
    table: Mapping[str, Any], at: str, cells: Sequence[str], faults: Faults
) -> Experiment | None:
    experiment = faults.read(Experiment, table, at)
    if experiment is None:
        return None
    for key, listed in (("cells", experiment.cells), ("curves", experiment.curves)):
        for name in listed:
            if name not in cells:
                known = ", ".join(cells)
                faults.add(f"{at}{key}", f"no cell is named {quoted(name)}; there are {known}")
    for column in experiment.columns:
        if column not in COLUMNS:
            known = ", ".join(COLUMNS)
            faults.add(f"{at}columns", f"unknown {quoted(column)}; there are {known}")
    if not experiment.cells:
        faults.add(f"{at}cells", "needs at least one cell's name")
    if len(set(experiment.cells)) < len(experiment.cells):
        faults.add(f"{at}cells", "names a cell twice")
    if not experiment.columns:
        experiment = experiment.model_copy(update={"columns": tuple(COLUMNS)})
    return experiment


def _search(raw: Mapping[str, Any], name: str, faults: Faults) -> SearchStudy | None:
    head = faults.read(Head, raw, besides=("search", "finalists", "space"))
    search = faults.read(SearchTable, faults.table(raw, "search"), "search.")
    finalists = faults.read(FinalistsTable, faults.table(raw, "finalists"), "finalists.")
    space = faults.table(raw, "space")
    if isinstance(raw["space"], dict):
        faults.unknown(space, HYPERPARAMETERS, "space.")
        known = {key: value for key, value in space.items() if key in HYPERPARAMETERS}
        for key, text in space_faults(known):
            faults.add(f"space.{key}", text)
    if faults.lines or not (head and search and finalists):
        return None
    return SearchStudy(
        name=name,
        title=head.title or name,
        text=head.text,
        dataset=source_of(head),
        finalists=finalists.k,
        finalist_seeds=finalists.seeds,
        space={key: parse_domain(value, key) for key, value in space.items()},
        raw=raw,
        **search.model_dump(),
    )
