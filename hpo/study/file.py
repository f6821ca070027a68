"""Study files: what they declare, read from TOML by pydantic, with all faults at once."""

import errno
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    TypeAdapter,
    WrapValidator,
    create_model,
    field_validator,
    model_validator,
)

from hpo.errors import InputError
from hpo.language import marked
from hpo.study.claims import Cause, Claim, ClaimTable, claim_of, no_cell
from hpo.study.config import (
    CELL_KEYS,
    FROM_WIDTHS,
    REQUIRED,
    REQUIRED_BY_ANY,
    SEED,
    SOURCES,
    TYPES,
    Config,
    Factory,
    OwnNames,
    Seeds,
    combination_faults,
    hyperparameters,
    kind_of,
    with_widths,
)
from hpo.study.fields import (
    BALANCED,
    NAME,
    ClassWeight,
    Count,
    Duration,
    Fault,
    Flag,
    Key,
    Names,
    Seed,
    Table,
    Tables,
    Text,
    Values,
    explained,
    fault,
    faulty,
    one_of,
    read_or_faults,
)
from hpo.study.metrics import ACCURACY, BY_NAME, OBJECTIVES, RMSE, Metric
from hpo.study.names import BFLOAT16, FLOAT32, PRUNERS, SAMPLERS, Precision, Scaling, TaskKind
from hpo.study.source import Source, SourceField
from hpo.study.space import (
    Choices,
    Domain,
    OwnSpace,
    Range,
    Space,
    around,
    assigned,
    entry_faults,
    first_of,
)
from hpo.text import meant, printable, quoted, shortened

COLUMNS = {
    "hidden_layers": marked("Hidden layers"),
    "activation": marked("Activation"),
    "optimizer": marked("Optimizer"),
    "lr": marked("Learning rate"),
    "test_accuracy": marked("Test accuracy (%)"),
    "test_rmse": marked("Test RMSE"),
    "test_mae": marked("Test MAE"),
    "test_r2": marked("Test R²"),
    "test_loss": marked("Test loss"),
    "train_seconds": marked("Training time (s)"),
}
MAIN = ("cells", "grid", "space")  # a study file has one of these tables
MOST_CELLS = 1_000  # of [grid]: a typing error should not start a study of years
BLOCK = 8  # seeds of a crossed cell that are analysed together
FIGURES = ("test_accuracy", "test_loss", "train_seconds")  # of classes
FIGURES_OF_NUMBERS = ("test_rmse", "test_mae", "test_r2", *FIGURES[1:])
RESULTS = tuple(name for name in COLUMNS if name.startswith("test_"))


# --- the parts of a file -----------------------------------------------------------------------


_Positive = Annotated[
    float | None, Field(ge=0, le=1e9), explained("must be a number from 0 to 1e+09")
]


class Reported(Table):
    """What a publication reports for one run: accuracy as a fraction, loss in nats, seconds; of a
    regression RMSE and MAE in the label's unit."""

    label: Text = "reported"
    test_accuracy: Annotated[
        float | None, Field(ge=0, le=1), explained("must be a number from 0 to 1")
    ] = None
    test_rmse: _Positive = None
    test_mae: _Positive = None
    test_r2: Annotated[float | None, Field(le=1), explained("must be a number up to 1")] = None
    test_loss: _Positive = None
    train_seconds: _Positive = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A named configuration of a grid.

    varies: what its seeds draw anew; the rest has seed 0. crossed: whether seeds 8b … 8b + 7 are
    the combinations of two splits, two initial weights and two batch orders, 2b and 2b + 1. An
    order permutes the images of a split, so it is nested in the split. precision: None: that of
    the study.
    """

    name: str
    config: Config
    reported: tuple[Reported, ...] = ()
    varies: tuple[str, ...] = SOURCES
    crossed: bool = False
    precision: Precision | None = None

    def training(self, shared: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a task of the cell has of what all tasks of the study share."""
        return {**shared, **({} if self.precision is None else {"precision": self.precision})}

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


def _some_once(cells: tuple[str, ...]) -> tuple[str, ...]:
    if not cells:
        raise fault("needs at least one cell's name")
    if len(set(cells)) < len(cells):
        raise fault("names a cell twice")
    return cells


def _known_columns(columns: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [column for column in columns if column not in COLUMNS]:
        near = meant(unknown[0], COLUMNS)
        raise fault(f"unknown {quoted(unknown[0])}; there are {', '.join(COLUMNS)}{near}")
    return columns or tuple(COLUMNS)


class Experiment(Table):
    """A section of a grid's report: the cells that it compares, and the columns of its table.

    curves: cells whose curves it shows; empty: those that no section before it has.
    """

    title: Text = "Experiment"
    text: Text = ""
    cells: Annotated[Names, Field(validate_default=True), AfterValidator(_some_once)] = ()
    columns: Annotated[Names, AfterValidator(_known_columns)] = tuple(COLUMNS)
    curves: Names = ()


class Unsaid(Table):
    """What a publication does not say, and what the study does instead."""

    what: Text = ""
    chosen: Text = ""


class Rounds(Table):
    """A number of seeds that depends on the results: `start` of them, `step` more in each round for
    the cells of open claims, `most` at most. They count from the seed `first` on."""

    first: Seed = 0
    start: Count = 5
    most: Count = 40
    step: Count = 5

    @model_validator(mode="after")
    def _start_below_most(self) -> "Rounds":
        if self.start > self.most:
            text = f"must be at most `most`, {self.most}, got {self.start}"
            raise faulty((("start",), text))
        return self


class StopAfter(Table):
    """Ends a search when the best of the last `trials` finished trials is better than the best
    before them by no more than `without`, a share of accuracy."""

    trials: Count = 30
    without: Annotated[float, Field(ge=0, lt=1), explained("must be a share from 0 to 1")] = 0.0


# What a search can seek besides its objective: {name: in words}; each the less, the better.
SECOND = {"parameters": marked("parameters"), "train_seconds": marked("training time (s)")}
COSTS = {"parameters": "{:,.0f}", "train_seconds": "{:.1f}"}  # how their values are printed


def cost_text(second: str | None, value: float) -> str:
    """parameters 36,087: a value of the second objective; empty without one."""
    return f"{SECOND[second]} {COSTS[second].format(value)}" if second else ""


# --- the tables of a file ----------------------------------------------------------------------


class Head(Table):
    """The keys that grids and searches share. objective: by which networks are judged.
    class_weight: of the training loss: balanced, or {class: weight}; None: all have weight 1.
    precision: see training.cores."""

    title: Text | None = None
    text: Text = ""
    model: Factory = ""
    objective: Annotated[str, *one_of(OBJECTIVES)] = ACCURACY
    class_weight: ClassWeight = None
    dataset: SourceField = Field(default_factory=lambda: Source("mnist"))
    scale: Annotated[Scaling, *one_of(get_args(Scaling))] = "standard"
    task: Annotated[TaskKind, *one_of(get_args(TaskKind))] | None = None
    precision: Annotated[Precision, *one_of(get_args(Precision))] = FLOAT32

    _deviation: float = PrivateAttr(1.0)  # of a regression's target

    @property
    def metric(self) -> Metric:
        """Returns the objective, see `on`."""
        return BY_NAME[self.objective].of(self._deviation)

    @property
    def judged(self) -> dict[str, Any]:
        """Returns how networks are trained and judged, as tasks and files have it."""
        weights = {} if self.class_weight is None else {"class_weight": self.class_weight}
        halved = {} if self.precision == FLOAT32 else {"precision": self.precision}
        return {"objective": self.objective, **weights, **halved}

    @property
    def halved(self) -> bool:
        """Whether some network is trained in half precision."""
        return bool(self.precision != FLOAT32)

    def in_precision(self, precision: Precision) -> Self:
        """Returns the study with this precision of all networks, also in the file that is
        stored."""
        raw = {**getattr(self, "raw", {}), "precision": precision}
        return self.model_copy(update={"precision": precision, "raw": raw})

    @property
    def weights_text(self) -> str:
        """balanced; rare 20, common 1; empty without weights."""
        given = self.class_weight or {}
        if given == BALANCED:
            return BALANCED
        return ", ".join(f"{printable(name)} {weight:g}" for name, weight in given.items())

    def on(self, classes: Sequence[str], deviation: float) -> Self:
        """Returns the study on data of these classes. Without any it is a regression, whose
        objective is valid_rmse where the file names none. deviation: of its target."""
        if classes:
            return self
        found = self.model_copy(update={} if self._names_objective else self._sought(RMSE))
        found._deviation = deviation
        return found

    @property
    def _names_objective(self) -> bool:
        return "objective" in self.model_fields_set

    def _sought(self, objective: str) -> dict[str, Any]:
        """Returns the fields that say what is sought."""
        return {"objective": objective}

    def _uses(self, name: str) -> bool:
        """Whether some network has another value of this hyperparameter than 0."""
        return False

    def check(self, classes: Sequence[str], where: str = "") -> None:
        """Raises InputError for what does not go together with data of these classes, none of a
        regression. where: begins each line."""
        if faults := self._faults(classes):
            raise InputError("\n".join(where + fault for fault in dict.fromkeys(faults)))

    def _faults(self, classes: Sequence[str]) -> list[str]:
        faults = [f"objective: {wrong}"] if (wrong := self.metric.fault(classes)) else []
        if not classes and self.class_weight is not None:
            faults.append("class_weight: is of classes, and the labels are numbers; leave it out")
        other, kind, labels = "huber", "numbers", "classes"
        if not classes:
            other, kind, labels = "label_smoothing", labels, kind
        if self.model and self.halved:
            faults.append(f"precision: {BFLOAT16} is for hpo's own network; leave it out")
        if self._uses(other):
            faults.append(f"{other}: is of {kind}, and the labels are {labels}; leave it out")
        names = self.class_weight if isinstance(self.class_weight, dict) else ()
        return faults + [
            f"class_weight: {quoted(name)} is no class of the data; there are "
            f"{shortened(', '.join(classes))}{meant(name, classes)}"
            for name in names
            if classes and name not in classes
        ]


if TYPE_CHECKING:

    class Settings(Table): ...

    OwnSettings = Settings
    Lists = Settings
    OwnLists = Settings
else:
    _VALUES = {name: (kind, None) for name, kind in TYPES.items() if name != "model"}
    Settings = create_model("Settings", __base__=Table, **_VALUES)
    _LISTS = {name: (Values[kind], None) for name, (kind, _) in _VALUES.items()}
    Lists = create_model("Lists", __base__=Table, **_LISTS)

    class OwnSettings(Settings, OwnNames): ...

    class OwnLists(Lists, OwnNames):
        __pydantic_extra__: dict[str, Values[kind_of("")]]


def _some_sources(varies: tuple[str, ...]) -> tuple[str, ...]:
    if not varies or not set(varies) <= set(SOURCES):
        known = ", ".join(SOURCES)
        raise fault(f"must be a list of {known}, or some of these, got {quoted(list(varies))}")
    return tuple(source for source in SOURCES if source in varies)


class CellTable(Settings):
    """A [[cells]] table: how the cell is run, and hyperparameters."""

    name: Annotated[
        str,
        Field(pattern=f"^{NAME.pattern}$"),
        explained("must be letters, digits, '-', '_' and '.'"),
    ] = Field(None, validate_default=True)
    varies: Annotated[Names, AfterValidator(_some_sources)] = SOURCES
    crossed: Flag = False
    precision: Annotated[Precision, *one_of(get_args(Precision))] | None = None
    reported: Tables[Reported] = ()

    @model_validator(mode="after")
    def _crosses_all(self) -> "CellTable":
        if self.crossed and self.varies != SOURCES:
            raise faulty((("crossed",), "crosses all sources, so leave out `varies`"))
        return self


class OwnCellTable(CellTable, OwnNames): ...


def _seeds(value: Any, handler: Any) -> Rounds:
    """Reads a number of seeds or a table. A table of `first` alone asks for one seed, as a file
    without `seeds` does."""
    if isinstance(value, dict):
        return Rounds.model_validate({"start": 1, **value} if list(value) == ["first"] else value)
    start = TypeAdapter(Annotated[Count, Field(strict=True)]).validate_python(value)
    return Rounds(start=start, most=max(start, Rounds().most))


class GridTable(Head):
    """A study file with a grid. grid: values of which all combinations are cells."""

    source: Text = ""
    seeds: Annotated[Count | Rounds, WrapValidator(_seeds)] = Rounds(start=1)
    diagnostics: Flag = False
    base: Settings = Field(default_factory=Settings)
    grid: Lists = Field(default_factory=Lists)
    cells: Tables[CellTable] = ()
    experiments: Tables[Experiment] = ()
    claims: Tables[ClaimTable] = ()
    causes: Tables[Cause] = ()
    unsaid: Tables[Unsaid] = ()

    @field_validator("cells")
    @classmethod
    def _some_cells(cls, cells: tuple[CellTable, ...]) -> tuple[CellTable, ...]:
        if not cells:
            raise fault("needs at least one [[cells]] table")
        return cells


class OwnGridTable(GridTable):
    """A study file with a grid of one's own network."""

    model: Factory
    base: OwnSettings = Field(default_factory=OwnSettings)
    grid: OwnLists = Field(default_factory=OwnLists)
    cells: Tables[OwnCellTable] = ()


class SearchOptions(Table):
    n_trials: Count = 100
    timeout: Count | None = None
    sampler: Annotated[str, *one_of(SAMPLERS)] = "tpe"
    sampler_seed: Seed = 0
    first_seed: Seed = SEED
    pruner: Annotated[str, *one_of(PRUNERS)] | None = None
    seeds_per_trial: Annotated[
        int, Field(ge=1, le=100), explained("must be a whole number from 1 to 100")
    ] = 1
    folds: (
        Annotated[int, Field(ge=2, le=100), explained("must be a whole number from 2 to 100")]
        | None
    ) = None
    objectives: Names = (ACCURACY,)
    stop_after: StopAfter | None = None
    trial_limit: Duration | None = None
    first: Tables[dict[str, Any]] = ()

    @model_validator(mode="after")
    def _check_folds(self) -> "SearchOptions":
        if self.folds and "seeds_per_trial" in self.model_fields_set:
            raise faulty((("folds",), "each fold has a seed; leave out seeds_per_trial"))
        return self

    @model_validator(mode="after")
    def _check_objectives(self) -> "SearchOptions":
        first, *others = self.objectives or ("",)
        if first not in OBJECTIVES or len(others) > 1 or not set(others) <= set(SECOND):
            known = " or ".join(f'["{ACCURACY}", "{name}"]' for name in SECOND)
            first, given = (
                f"the first one of {', '.join(OBJECTIVES)}",
                quoted(list(self.objectives)),
            )
            wrong = [name for name in self.objectives if name not in (*OBJECTIVES, *SECOND)]
            near = meant(wrong[0], [*OBJECTIVES, *SECOND]) if wrong else ""
            text = f'must be ["{ACCURACY}"], {known}, {first}; got {given}{near}'
            raise faulty((("objectives",), text))
        if others and self.pruner not in (None, "none"):
            raise faulty((("pruner",), "Optuna prunes for one objective only; leave it out"))
        return self


class FinalistsTable(Table):
    """members: how many networks of the winner's configuration are saved as an ensemble."""

    k: Count = 3
    seeds: Count = 5
    members: Annotated[
        int, Field(ge=1, le=100), explained("must be a whole number from 1 to 100")
    ] = 1


class SearchTable(Head):
    """A study file with a search."""

    search: SearchOptions = Field(default_factory=SearchOptions)
    finalists: FinalistsTable = Field(default_factory=FinalistsTable)
    space: Space


class OwnSearchTable(SearchTable):
    """A study file with a search over one's own network."""

    model: Factory
    space: OwnSpace


# --- studies -----------------------------------------------------------------------------------


class GridStudy(GridTable):
    """A grid as it is run: cells, each trained with `seeds` seeds from the seed `first` on.

    title: or the study's name. cells: with the hyperparameters of [base]. experiments: or one of
    all cells. rounds: how to go on until the claims are resolved. model: the factory of the user's
    own network, empty for hpo's perceptron. folder: of the study file, where the factory's module
    lies. raw: the study file.
    """

    name: str
    title: str
    first: int
    seeds: int
    cells: tuple[Cell, ...]  # type: ignore[assignment]
    claims: tuple[Claim, ...]
    rounds: Rounds
    folder: str = ""
    raw: Mapping[str, Any] = Field(repr=False)

    @property
    def _names_objective(self) -> bool:
        return "objective" in self.raw

    def _uses(self, name: str) -> bool:
        return any(getattr(cell.config, name) for cell in self.cells)

    @property
    def halved(self) -> bool:
        return BFLOAT16 in {cell.precision or self.precision for cell in self.cells}

    def in_precision(self, precision: Precision) -> Self:
        found = super().in_precision(precision)
        given = self.raw.get("cells", ())
        cells = [{k: v for k, v in each.items() if k != "precision"} for each in given]
        raw = {**found.raw, **({"cells": cells} if cells else {})}
        plain = tuple(replace(cell, precision=None) for cell in self.cells)
        return found.model_copy(update={"cells": plain, "raw": raw})

    def figures(self, classes: Sequence[str]) -> Sequence[str]:
        """Returns the results that tables show, the first one in every figure: of a regression,
        whose data have no classes, the objective's counterpart in the test first."""
        if classes:
            return FIGURES
        return tuple(dict.fromkeys([self.metric.tested.name, *FIGURES_OF_NUMBERS]))

    def _faults(self, classes: Sequence[str]) -> list[str]:
        faults = super()._faults(classes)
        for claim in self.claims:
            faults += claim.faults(self.metric, classes)
        named = [
            (f"cells.{cell.name}.reported", entry.model_fields_set)
            for cell in self.cells
            for entry in cell.reported
        ]
        named += [
            (f"experiments, {quoted(each.title)}", {*each.columns})
            for each in self.experiments
            if each.columns != tuple(COLUMNS)
        ]
        for where, names in named:
            wrong = (BY_NAME[name].fault(classes) for name in RESULTS if name in names)
            faults += [f"{where}: {text}" for text in wrong if text]
        return faults


class SearchStudy(SearchOptions, Head):
    """A search as it is run: its space, sampler, pruner and budget, and its finalists.

    timeout: seconds of searching over all runs; None: no limit. finalists: how many of the best
    trials are trained again, on finalist_seeds fresh seeds each. members: how many networks of the
    winner's configuration are saved, as an ensemble if more than one. seeds_per_trial: a trial's
    value is the mean over so many seeds, from first_seed on; finalists have the seeds after them.
    folds: or over the folds of the rows, a seed each. objectives: what is sought, `objective`
    first. trial_limit: the most seconds of a trial. first: hyperparameters of the first trials;
    others are sampled. title, model, folder and raw: see GridStudy.
    """

    name: str
    title: str
    pruner: str
    finalists: int
    finalist_seeds: int
    members: int = 1
    space: Mapping[str, Domain]
    folder: str = ""
    raw: Mapping[str, Any] = Field(repr=False)

    @property
    def directions(self) -> "list[Literal['maximize', 'minimize']]":
        """Returns Optuna's direction of each objective."""
        first = self.metric.direction
        return [first, "minimize"] if self.second else [first]

    @property
    def second(self) -> str | None:
        """Returns the second objective; None without one."""
        return self.objectives[1] if len(self.objectives) > 1 else None

    @property
    def _names_objective(self) -> bool:
        return "objective" in self.raw or "objectives" in self.raw.get("search", {})

    def _sought(self, objective: str) -> dict[str, Any]:
        return {"objective": objective, "objectives": (objective, *self.objectives[1:])}

    def _uses(self, name: str) -> bool:
        domain = self.space.get(name)
        values = (domain.high,) if isinstance(domain, Range) else domain.values if domain else ()
        return any(values) or any(entry.get(name) for entry in self.first)

    @property
    def search_seeds(self) -> Sequence[int]:
        """Returns the seeds of each trial."""
        return range(self.first_seed, self.first_seed + self.seeds_per_trial)


StudyFile = GridStudy | SearchStudy


# --- loading -----------------------------------------------------------------------------------


def studies_dir() -> Path:
    """Returns the folder of the study files that hpo ships: in the wheel, or in the checkout."""
    inside = Path(__file__).parents[1] / "studies"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "studies"


def shipped() -> dict[str, Path]:
    """Returns {name: path} of the study files that hpo ships."""
    return {path.stem: path for path in sorted(studies_dir().glob("*.toml"))}


def write_template(name: str, kind: str, dataset: str) -> Path:
    """Writes a commented study file NAME.toml to this folder.

    kind: search, grid, or table: a search on a table. dataset: the lines that say which data it is
    on. Raises InputError for a name that cannot be a study's, and if the file is there already.
    """
    path = Path(f"{check_name(name.removesuffix('.toml'))}.toml")
    template = studies_dir() / "templates" / f"{kind}.toml"
    text = template.read_text(encoding="utf-8")
    text = text.replace("TITLE", path.stem).replace('dataset = "DATASET"', dataset)
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
        if path.exists() and not path.is_file():  # such as a pipe, which may never end
            raise OSError(errno.EINVAL, "it is no regular file")
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors write a mark first
        raw = tomllib.loads(text)
    except FileNotFoundError as error:
        known = ", ".join(shipped())
        raise InputError(
            f"study {quoted(study)}: no such study or file; there are {known}, or a path"
            f"{meant(study, [*shipped(), *map(str, path.parent.glob('*.toml'))])}"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8 ({error})") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number of 4,300 digits
        raise InputError(f"{path}: is not valid TOML: {error}") from error
    parsed = parse(raw, check_name(path.stem), str(path))
    folder = str(path.parent.absolute())
    dataset = parsed.dataset.within(path.parent)
    return parsed.model_copy(update={"dataset": dataset, "folder": folder})


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
    grid = "cells" in raw or "grid" in raw
    if grid == ("space" in raw):
        near = "".join(meant(key, MAIN) for key in raw if key not in MAIN)
        raise InputError(
            f"{where}: needs [[cells]] or [grid] (a grid), or [space] (a search){near}"
        )
    kind: Any
    of_table: Any
    if grid:
        kind, of_table = OwnGridTable if raw.get("model") else GridTable, _grid
    else:
        kind, of_table = OwnSearchTable if raw.get("model") else SearchTable, _search
    table, faults = read_or_faults(kind.model_validate, raw)
    study: StudyFile | None = of_table(table, raw, name, faults) if table else None
    if study is None:
        lines = [f"{_spelled(key, raw)}: {printable(shortened(t, 600))}" for key, t in faults]
        raise InputError("\n".join(f"{where}: {line}" for line in dict.fromkeys(lines)))
    return study


def _spelled(key: Key, raw: Mapping[str, Any]) -> str:
    """cells.wide.lr, cells[1].reported.label, experiments[0].title: cells by their names. grid.lr:
    of a cell that [grid] makes."""
    text = ""
    if key[:1] == ("cells",) and key[1:] and key[1:] >= (len(raw.get("cells", ())),):
        key = ("grid", *key[2:])
    for above, part in zip(("", *key), key, strict=False):
        name = raw["cells"][part].get("name") if above == "cells" else None
        if isinstance(name, str) and NAME.fullmatch(name):
            text += f".{name}"
        elif isinstance(part, str):
            text += f".{part}"
        elif above != "reported":
            text += f"[{part}]"
    return printable(shortened(text.removeprefix(".")))


def _grid(
    table: GridTable, raw: Mapping[str, Any], name: str, faults: list[Fault]
) -> GridStudy | None:
    """Returns the grid; None and more faults if its parts do not go together."""
    made = list(islice(_made_cells(table, raw), MOST_CELLS + 1))
    table = table.model_copy(update={"cells": (*table.cells, *made)})
    if "grid" in raw and not 0 < len(made) <= MOST_CELLS:
        faults.append((("grid",), f"must make 1 to {MOST_CELLS:,} cells"))
    names = [cell.name for cell in table.cells]
    for repeated in (n for n, times in Counter(names).items() if times > 1):
        key = ("cells", names.index(repeated))
        faults.append((key, "two cells have this name; rename one"))
    if table.model and table.diagnostics:
        text = "looks into hpo's own perceptron; leave it out with model"
        faults.append((("diagnostics",), text))
    cells = [_cell(table, index, faults) for index in range(len(names))]
    sound = tuple(cell for cell in cells if cell)
    faults += [*_equal_values(sound), *_unknown_cells(table, names)]
    configs = {cell.name: cell.config for cell in sound}
    claims = enumerate(table.claims if len(sound) == len(cells) else ())
    read = tuple(claim_of(claim, ("claims", i), configs, faults) for i, claim in claims)
    faults += _crossed_claims(read, {cell.name for cell in sound if cell.crossed})
    if faults:
        return None
    seeds: Any = table.seeds  # Rounds
    all_cells = Experiment(title=marked("All cells"), cells=tuple(names))
    given = {
        "name": name,
        "title": table.title or name,
        "dataset": replace(table.dataset, scale=table.scale, task=table.task),
        "first": seeds.first,
        "seeds": seeds.start,
        "rounds": seeds,
        "cells": sound,
        "experiments": table.experiments or (all_cells,),
        "claims": read,
        "raw": raw,
    }
    return GridStudy.model_construct(**{**dict(table), **given})


def _made_cells(table: GridTable, raw: Mapping[str, Any]) -> Iterator[CellTable]:
    """Yields a cell for each combination of the lists of [grid], the first key outermost, named by
    the values that differ."""
    given = hyperparameters(table.grid)
    lists = {name: given[name] for name in raw.get("grid", ())}  # in the order of the file
    shown = [name for name, values in lists.items() if len(values) > 1] or list(lists)
    kind: Any = OwnCellTable if table.model else CellTable
    times = Counter[str]()
    for chosen in product(*lists.values()) if lists else ():
        values = dict(zip(lists, chosen, strict=True))
        text = "-".join(_in_name(name, values[name]) for name in shown)
        name = text.lstrip("-._")[:90] or "cell"
        times[name] += 1
        name += f".{times[name]}" if times[name] > 1 else ""
        yield kind.model_construct({"name", *values}, name=name, **values)


def _in_name(name: str, value: Any) -> str:
    """Returns a value as a cell's name has it: 0.1, 64x32, residual-true."""
    text = value.replace("-", "x") if name == "widths" else str(value)
    if isinstance(value, bool) or (isinstance(value, str) and name not in TYPES):
        text = f"{name}-{text.lower() if isinstance(value, bool) else text}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


def _cell(table: GridTable, index: int, faults: list[Fault]) -> Cell | None:
    """Returns a cell with its hyperparameters and those of [base], but for what follows from its
    widths, and widths that its own depth or width replaces."""
    cell, base = table.cells[index], hyperparameters(table.base)
    values = hyperparameters(cell)
    follows = any(name in values for name in FROM_WIDTHS)
    replaced = FROM_WIDTHS if "widths" in values else ("widths",) if follows else ()
    values = {**{k: v for k, v in base.items() if k not in replaced}, **values}
    if table.model:
        values["model"] = table.model
    wrong = {
        name: "is missing here and in [base]"
        for name in (REQUIRED_BY_ANY if table.model else REQUIRED)
        if name not in values and not ("widths" in values and name in FROM_WIDTHS)
    }
    if not wrong:
        values = values if follows else with_widths(values)
        wrong = combination_faults(values)
    faults += [(("cells", index, name), text) for name, text in wrong.items()]
    if wrong:
        return None
    keys = {key: getattr(cell, key) for key in CELL_KEYS}
    return Cell(config=Config.of(values), **keys)


def _equal_values(cells: Sequence[Cell]) -> Iterator[Fault]:
    """Yields a fault for values of one's own network's hyperparameters that are equal in Python,
    but not the same: 1 and true, or 1 and 1.0 where other cells have text. Optuna would store the
    one for the other."""
    settings = [cell.config.own for cell in cells]
    for name in dict.fromkeys(name for each in settings for name in each):
        given = [(index, each[name]) for index, each in enumerate(settings) if name in each]
        firsts: dict[Any, tuple[int, Any]] = {}
        for index, value in given if isinstance(around([v for _, v in given]), Choices) else ():
            where, first = firsts.setdefault(value, (index, value))
            if type(value) is not type(first):
                equal = f"{quoted(value)} counts as equal to {quoted(first)}"
                text = f"{equal} of cell {cells[where].name}; write both alike"
                yield ("cells", index, name), text


def _crossed_claims(claims: Sequence[Claim], crossed: set[str]) -> Iterator[Fault]:
    """Yields a fault for each claim on a cell whose seeds are no independent runs."""
    for i, claim in enumerate(claims):
        for cell in sorted(crossed & claim.cells()):
            text = f"{cell} is crossed: its seeds share draws, so they are no independent runs"
            yield ("claims", i), text


def _unknown_cells(table: GridTable, names: Sequence[str]) -> list[Fault]:
    """Returns a fault for each name of a cell that the grid does not have."""
    named: list[tuple[Key, str]] = []
    for i, each in enumerate(table.experiments):
        named += [(("experiments", i, "cells"), cell) for cell in each.cells]
        named += [(("experiments", i, "curves"), cell) for cell in each.curves]
    for i, cause in enumerate(table.causes):
        named += [(("causes", i, "cell"), cause.cell), (("causes", i, "beside"), cause.beside)]
    known = set(names)
    return [(key, no_cell(cell, names)) for key, cell in named if cell not in known]


def _search(
    table: SearchTable, raw: Mapping[str, Any], name: str, faults: list[Fault]
) -> SearchStudy | None:
    """Returns the search; None and more faults if its parts do not go together."""
    search, space = table.search, table.space
    for index, entry in enumerate(search.first):
        wrong = entry_faults(space, entry)
        faults += [(("search", "first", index, key), text) for key, text in wrong]
    objectives = search.objectives
    if "objective" in table.model_fields_set:
        if "objectives" in search.model_fields_set:
            text = "says the same as search.objectives; leave out one of them"
            faults.append((("objective",), text))
        objectives = (table.objective,)
    if faults:
        return None
    given = {
        "name": name,
        "title": table.title or name,
        "dataset": replace(table.dataset, scale=table.scale, task=table.task),
        "seeds_per_trial": search.folds or search.seeds_per_trial,
        "pruner": search.pruner or ("none" if len(search.objectives) > 1 else "median"),
        "finalists": table.finalists.k,
        "finalist_seeds": table.finalists.seeds,
        "members": table.finalists.members,
        "objectives": objectives,
        "objective": objectives[0],
        "raw": raw,
    }
    return SearchStudy.model_construct(**{**dict(table), **dict(search), **given})
