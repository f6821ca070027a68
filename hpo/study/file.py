"""Study files: what they declare, read from TOML by pydantic, with all faults at once."""

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import Field, create_model

from hpo.errors import InputError
from hpo.language import marked
from hpo.study.claims import Cause, Claim, read_cause, read_claim
from hpo.study.config import (
    HYPERPARAMETERS,
    PERCEPTRON,
    REQUIRED,
    REQUIRED_BY_ANY,
    SEED,
    SOURCES,
    TYPES,
    Config,
    Seeds,
    check,
    faults_in,
    name_fault,
    with_widths,
)
from hpo.study.fields import (
    Count,
    Duration,
    Faults,
    Flag,
    Names,
    Table,
    Text,
    explained,
    one_of,
)
from hpo.study.names import PRUNERS, SAMPLERS
from hpo.study.source import Source, SourceField
from hpo.study.space import (
    Domain,
    Range,
    around,
    assigned,
    entry_faults,
    first_of,
    parse_domain,
    space_faults,
)
from hpo.text import quoted

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
COLUMNS = {
    "hidden_layers": marked("Hidden layers"),
    "activation": marked("Activation"),
    "optimizer": marked("Optimizer"),
    "lr": marked("Learning rate"),
    "test_accuracy": marked("Test accuracy (%)"),
    "test_loss": marked("Test loss"),
    "train_seconds": marked("Training time (s)"),
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
    resolved; None without. diagnostics: see training.diagnostics. model: the factory of the user's
    own network, empty for hpo's perceptron. folder: of the study file, where the factory's module
    lies."""

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
    model: str = ""
    folder: str = ""
    raw: Mapping[str, Any] = field(repr=False, compare=False)


class StopAfter(Table):
    """Ends a search when the best of the last `trials` finished trials is better than the best
    before them by no more than `without`, a share of accuracy."""

    trials: Count = 30
    without: Annotated[float, Field(ge=0, lt=1), explained("must be a share from 0 to 1")] = 0.0


ACCURACY = "valid_accuracy"
# What a search can seek besides accuracy: {name: in words}; each the less, the better.
OBJECTIVES = {"parameters": marked("parameters"), "train_seconds": marked("training time (s)")}


@dataclass(frozen=True, kw_only=True)
class SearchStudy:
    """A search: its space, sampler, pruner and budget, and its finalists.

    timeout: seconds of searching over all runs; None: no limit. finalists: how many of the best
    trials are trained again, on finalist_seeds fresh seeds each. seeds_per_trial: a trial's value
    is the mean over so many seeds. objectives: what is sought, the accuracy first. trial_limit: the
    most seconds of a trial. first: hyperparameters of the first trials; others are sampled. model
    and folder: see GridStudy.
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
    seeds_per_trial: int = 1
    objectives: tuple[str, ...] = (ACCURACY,)
    stop_after: StopAfter | None = None
    trial_limit: float | None = None
    first: tuple[Mapping[str, Any], ...] = ()
    model: str = ""
    folder: str = ""
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def directions(self) -> "list[Literal['maximize', 'minimize']]":
        """Returns Optuna's direction of each objective."""
        return ["maximize"] if len(self.objectives) == 1 else ["maximize", "minimize"]

    @property
    def search_seeds(self) -> Sequence[int]:
        """Returns the seeds of each trial."""
        return range(SEED, SEED + self.seeds_per_trial)


StudyFile = GridStudy | SearchStudy


# --- the tables of a file ----------------------------------------------------------------------


class Head(Table):
    """The keys that grids and searches share."""

    title: Text | None = None
    text: Text = ""
    model: TYPES["model"] = ""  # type: ignore[valid-type,name-defined]
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
    pruner: Annotated[str, *one_of(PRUNERS)] | None = None
    seeds_per_trial: Annotated[
        int, Field(ge=1, le=100), explained("must be a whole number from 1 to 100")
    ] = 1
    objectives: Names = (ACCURACY,)
    stop_after: StopAfter | None = None
    trial_limit: Duration | None = None


class FinalistsTable(Table):
    k: Count = 3
    seeds: Count = 5


_OPTIONAL: dict[str, Any] = {n: (kind, None) for n, kind in TYPES.items() if n != "model"}
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


def write_template(name: str, kind: str, dataset: str) -> Path:
    """Writes a commented study file NAME.toml to this folder; kind: search or grid.

    Raises InputError for a name that cannot be a study's, and if the file is there already.
    """
    path = Path(f"{check_name(name.removesuffix('.toml'))}.toml")
    template = studies_dir() / "templates" / f"{kind}.toml"
    text = template.read_text(encoding="utf-8")
    written = tomli_w.dumps({"dataset": dataset}).rstrip()
    text = text.replace("TITLE", path.stem).replace('dataset = "DATASET"', written)
    text = text.replace("SCHEMA", str(studies_dir() / "study.schema.json"))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(f"{path}: is there already; give another name, or delete it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def load(study: str) -> StudyFile:
    """Reads the study of a name (`grid-report`) or of a path to a TOML file.

    Raises InputError, one line per fault, for a study that is not there or a file that is wrong.
    """
    path = shipped().get(study, Path(study))
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors write a mark first
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
    folder = str(path.parent.absolute())
    return replace(parsed, dataset=parsed.dataset.within(path.parent), folder=folder)


def example(study: StudyFile) -> Config:
    """Returns a configuration of the study: its first cell's, or the first of each domain."""
    if isinstance(study, GridStudy):
        return study.cells[0].config
    values = assigned(study.space, lambda name, domain: first_of(name, domain))
    return Config.of({**with_widths(values), "model": study.model})


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
    model = head.model if head else ""
    own = _own_faults(base, model, "base.", faults)
    sound_base = faults.read(BaseTable, base, "base.", besides=own) is not None
    if model and head and head.diagnostics:
        faults.add("diagnostics", "looks into hpo's own perceptron; leave it out with model")
    if raw["cells"] == []:
        faults.add("cells", "needs at least one [[cells]] table")
    cells = [_cell(t, i, base, sound_base, model, faults) for i, t in enumerate(tables)]
    names = [table["name"] for table in tables if isinstance(table.get("name"), str)]
    for repeated in (n for n, times in Counter(names).items() if times > 1):
        faults.add(f"cells.{repeated}", "two cells have this name; rename one")
    epochs = {cell.name: cell.config.epochs for cell in cells if cell}
    _check_equal_values([cell for cell in cells if cell], faults)

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
        experiments=experiments or (Experiment(title=marked("All cells"), cells=tuple(names)),),
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
    model: str,
    faults: Faults,
) -> Cell | None:
    name = table.get("name")
    named = isinstance(name, str) and NAME.fullmatch(name)
    at, before = f"cells.{name}." if named else f"cells[{index}].", len(faults.lines)
    own = _own_faults(table, model, at, faults, besides=CELL_KEYS)
    read: Any = faults.read(CellTable, table, at, besides=("reported", *own))
    reports = [
        faults.read(Reported, report, f"{at}reported.")
        for report in faults.tables(table, "reported", at)
    ]
    values = _merged(base, table, model)
    for key in REQUIRED_BY_ANY if model else REQUIRED:
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
        config=Config.of(values),
        reported=reported,
        varies=varies,
        crossed=read.crossed,
    )


FOLLOWING = ("depth", "width")  # from widths
CELL_KEYS = ("name", "varies", "crossed", "reported")


def _own_faults(
    table: Mapping[str, Any],
    model: str,
    at: str,
    faults: Faults,
    besides: Sequence[str] = (),
) -> list[str]:
    """Returns the names of the user's own network's hyperparameters; adds what is wrong with them.
    besides: other keys of the table."""
    if not model:
        return []
    names = [name for name in table if name not in HYPERPARAMETERS and name not in besides]
    for name in [*names, *(name for name in PERCEPTRON if name in table)]:
        if name in CELL_KEYS:
            faults.add(f"{at}{name}", "is a key of a grid's cells, as finalists are; rename it")
        elif (fault := name_fault(name)) or (
            at.startswith(("base", "cells")) and (fault := check(name, table[name]))
        ):
            faults.add(f"{at}{name}", fault)
    return names


def _check_equal_values(cells: Sequence[Cell], faults: Faults) -> None:
    """Adds a fault for values of the user's own network's hyperparameters that are equal in Python,
    but not the same: 1 and true, or 1 and 1.0 where other cells have text. Optuna would store the
    one for the other."""
    values: dict[str, dict[tuple[Any, type], str]] = defaultdict(dict)
    for each in cells:
        for name, value in each.config.own.items():
            values[name].setdefault((value, type(value)), each.name)
    for name, given in values.items():
        if isinstance(around([value for value, _ in given]), Range):
            continue
        firsts: dict[Any, tuple[Any, str]] = {}
        for (value, kind), cell in given.items():
            first, where = firsts.setdefault(value, (value, cell))
            if kind is not type(first):
                equal = f"{quoted(value)} counts as equal to {quoted(first)} of cell {where}"
                faults.add(f"cells.{cell}.{name}", f"{equal}; write both alike")


def _merged(base: Mapping[str, Any], table: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Returns a cell's hyperparameters: its own, and those of [base] but for what follows from its
    widths, and widths that its own depth or width replaces."""
    replaced: tuple[str, ...] = FOLLOWING if "widths" in table else ()
    if any(key in table for key in FOLLOWING) and "widths" not in table:
        replaced = ("widths",)
    kept = {key: value for key, value in base.items() if key not in replaced}
    merged = {**kept, **table}
    if model:
        return {"model": model, **{k: v for k, v in merged.items() if k not in CELL_KEYS}}
    return {key: v for key, v in merged.items() if key in HYPERPARAMETERS}


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
    table = faults.table(raw, "search")
    search = faults.read(SearchTable, table, "search.", besides=("first",))
    finalists = faults.read(FinalistsTable, faults.table(raw, "finalists"), "finalists.")
    space = faults.table(raw, "space")
    if isinstance(raw["space"], dict):
        model = head.model if head else ""
        own = _own_faults(space, model, "space.", faults)
        faults.unknown(space, (*(n for n in HYPERPARAMETERS if n != "model"), *own), "space.")
        known = {k: value for k, value in space.items() if k in HYPERPARAMETERS or k in own}
        for key, text in space_faults(known, own_network=bool(model)):
            faults.add(f"space.{key}", text)
    if search:
        _check_objectives(search, faults)
    first = faults.tables(table, "first", "search.")
    if faults.lines or not (head and search and finalists):
        return None
    parsed = {key: parse_domain(value, key) for key, value in space.items()}
    for index, entry in enumerate(first):
        for key, text in entry_faults(parsed, entry):
            faults.add(f"search.first[{index}].{key}", text)
    several = len(search.objectives) > 1
    return SearchStudy(
        name=name,
        title=head.title or name,
        text=head.text,
        model=head.model,
        dataset=source_of(head),
        finalists=finalists.k,
        finalist_seeds=finalists.seeds,
        space=parsed,
        raw=raw,
        pruner=search.pruner or ("none" if several else "median"),
        first=tuple(first),
        stop_after=search.stop_after,
        **search.model_dump(exclude={"pruner", "stop_after"}),
    )


def _check_objectives(search: SearchTable, faults: Faults) -> None:
    """Adds faults for objectives that are not known, and for a pruner beside two of them."""
    first, *others = search.objectives or ("",)
    if first != ACCURACY or len(others) > 1 or not set(others) <= set(OBJECTIVES):
        known = " or ".join(f'["{ACCURACY}", "{name}"]' for name in OBJECTIVES)
        given = quoted(list(search.objectives))
        faults.add("search.objectives", f'must be ["{ACCURACY}"], {known}, got {given}')
    elif others and search.pruner not in (None, "none"):
        faults.add("search.pruner", "Optuna prunes for one objective only; leave it out")
