"""What a publication concludes from its runs, and why, declared in a study file to be tested."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from hpo.study.config import Config
from hpo.study.fields import (
    Fault,
    Key,
    Table,
    Tables,
    Text,
    explained,
    fault,
    faulty,
    is_number,
    one_of,
)
from hpo.study.metrics import REGRESSION, Metric
from hpo.text import meant, quoted

SECONDS = "train_seconds"
ROUNDS = 8  # of timing, measured at once
OF_NUMBERS: tuple[str, ...] = tuple(
    f"{part}_{kind}" for part in ("test", "valid") for kind in REGRESSION
)
EPOCH_METRICS = (
    "valid_accuracy", "valid_loss", "train_accuracy", "train_loss", "gap",
    *OF_NUMBERS[len(REGRESSION) :],
)  # fmt: skip
# Metrics that are 0 with many seeds, or skewed: always compared by wins.
# valid_spread: the standard deviation of the changes of validation accuracy from epoch to epoch.
# valid_falls: the mean fall from an epoch to the next, 0 where validation accuracy rises.
BY_WINS = ("valid_spread", "valid_falls")
LEAST_EPOCHS = {"valid_spread": 3, "valid_falls": 2}
OF_CLASSES: tuple[str, ...] = ("test_accuracy", "valid_accuracy", "train_accuracy", "gap", *BY_WINS)
METRICS = (
    "test_accuracy", "test_loss", SECONDS, *OF_NUMBERS[: len(REGRESSION)], *EPOCH_METRICS, *BY_WINS
)  # fmt: skip
# Metrics above 0 whose logarithms are compared: they spread in proportion to their size.
RATIOS = (
    "test_loss", "valid_loss", "train_loss", SECONDS,
    *(name for name in OF_NUMBERS if not name.endswith("r2")),
)  # fmt: skip
FAILS_BELOW = 0.3  # test accuracy: three times chance among ten classes
GUESS = "guess"
PRESUMPTIONS = ("vanishing gradients", "learning rate too high")


class Form(Enum):
    """greater: each term's metric is greater than the next one's. best: the first cell's is
    greater than each other's. fails: the cell fails to learn with most seeds. similar: the means of
    all cells lie within a margin of each other."""

    GREATER = "greater"
    BEST = "best"
    FAILS = "fails"
    SIMILAR = "similar"


class By(Enum):
    """means: the mean difference over the seeds with which all sides learn. wins: which side is
    greater with most seeds; a run that diverged is the worst.

    Differences of two networks are roughly symmetric (skewness up to 0.5 over the 384 seeds of
    `noise`), so means are compared unless the study file says otherwise. One network's metric is
    not (up to 1.1), so with a number it is compared by wins.
    """

    MEANS = "means"
    WINS = "wins"


@dataclass(frozen=True, kw_only=True)
class Term:
    """A side of a comparison: a cell's metric after its last epoch, or after `epoch`; that of the
    best of a group of cells; or a number in the metric's unit (a fraction for accuracies and the
    gap). minus: what is subtracted."""

    cell: str | None = None
    epoch: int | None = None
    number: float | None = None
    minus: "Term | None" = None
    group: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """Returns the names of the cells that the side is made of."""
        first = self.group if self.cell is None else (self.cell,)
        return first + (self.minus.cells if self.minus else ())

    def as_dict(self) -> dict[str, Any]:
        """Returns what a claim is bound by; a group only if there is one, as in older studies."""
        given = asdict(self)
        if not self.group:
            del given["group"]
        return {**given, "minus": self.minus and self.minus.as_dict()}


# Which forms a key belongs to; the others belong to all.
KEYS: dict[str, tuple[Form, ...]] = {
    "among": (Form.BEST,), "within": (Form.SIMILAR,), "below": (Form.FAILS,),
    "by": (Form.GREATER, Form.BEST), "matters": (Form.GREATER, Form.BEST),
}  # fmt: skip


def _said(words: str) -> AfterValidator:
    """Refuses an empty text with these words."""

    def check(text: str) -> str:
        if not text:
            raise fault(words)
        return text

    return AfterValidator(check)


def _sides(value: Any, handler: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise fault(f"must be a list of two cells or more, got {quoted(value)}")
    if any(is_number(a) and is_number(b) for a, b in pairwise(value)):
        raise fault("two numbers follow each other; one side must be a cell")
    return tuple(value)


def _similar(value: Any, handler: Any) -> tuple[Any, ...]:
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise fault(f"must be a list of cells' names, got {quoted(value)}")
    return _sides(value, handler)


def _line(value: Any, handler: Any) -> Any:
    if value == GUESS or (is_number(value) and 0 < value < 1):
        return value
    raise fault(f'must be a share between 0 and 1, or "{GUESS}", got {quoted(value)}')


UNTESTED = "must say why this design cannot test it"
Share = Annotated[float, Field(gt=0, lt=1), explained("must be a share between 0 and 1")]
CellName = Annotated[str, explained("must be a cell's name")]
Group = Annotated[dict[str, Any], WithJsonSchema({"type": "object"})]  # { best_of = { … } }
Side = str | float | Group


class ComparisonTable(Table):
    """What is compared: exactly one of greater, best, fails and similar.

    within: how much similar cells may differ, a share of the value for RATIOS and a difference for
    other metrics. matters: the smallest difference of interest. below: of classes, the test
    accuracy under which a run fails; "guess": one that is not above the largest class's share;
    None: as the data say. among: the cells that the best is compared with; None: all others.
    """

    metric: Annotated[str, *one_of(METRICS)] = "test_accuracy"
    within: Share = 0.1
    by: Annotated[Any, *one_of([by.value for by in By]), AfterValidator(By)] = By.MEANS
    matters: Annotated[
        float | None, Field(gt=0, le=1e6), explained("must be a number greater than 0")
    ] = None
    below: Annotated[
        float | Literal["guess"] | None,
        WrapValidator(_line),
        WithJsonSchema({"type": ["number", "string"]}),
    ] = None
    among: Annotated[
        tuple[str, ...] | None,
        Field(strict=False, min_length=1),
        explained("must be a list of other cells"),
    ] = None
    greater: Annotated[tuple[Side, ...], WrapValidator(_sides)] = ()
    best: CellName = ""
    fails: CellName = ""
    similar: Annotated[tuple[str, ...], WrapValidator(_similar)] = ()

    @property
    def form(self) -> Form:
        return next(form for form in Form if form.value in self.model_fields_set)

    @model_validator(mode="after")
    def _check_keys(self) -> "ComparisonTable":
        self.check_forms([form.value for form in Form])
        return self

    def check_forms(self, names: Collection[str]) -> None:
        """Raises a fault unless exactly one of these keys is given, with what belongs to it."""
        given = self.model_fields_set
        found = [name for name in names if name in given]
        if len(found) != 1:
            raise fault(f"needs exactly one of {', '.join(names)}")
        form = found[0]
        faults: list[Fault] = [
            ((key,), f"belongs to {' and '.join(f'`{form.value}`' for form in forms)} alone")
            for key, forms in KEYS.items()
            if key in given and form not in [form.value for form in forms]
        ]
        if form == Form.FAILS.value and "metric" in given:
            text = "goes without: failing to learn is seen in the test accuracy"
            faults.append((("metric",), text))
        if form in ("greater", "best"):
            faults += self._check_by()
        if faults:
            raise faulty(*faults)

    def _check_by(self) -> list[Fault]:
        """Returns what is wrong with how a difference is compared."""
        faults: list[Fault] = []
        if self.metric in BY_WINS and self.by is By.MEANS and "by" in self.model_fields_set:
            faults.append((("by",), f"{self.metric} is skewed, so it is compared by wins alone"))
        if self.matters is not None:
            if self.metric == SECONDS:
                text = "times are compared as ratios; use `similar` with `within`"
                faults.append((("matters",), text))
            if self.by is By.WINS or self.metric in BY_WINS:
                text = "belongs to a comparison of means, not of wins"
                faults.append((("matters",), text))
        return faults


class ClaimTable(ComparisonTable):
    """A [[claims]] table: a comparison, or `all`, several that must all be true, or untestable.

    says: in our words. quote: in its own words, translated. where: the section. untestable: why
    this design cannot test it.
    """

    says: Annotated[
        Text, _said("must say the conclusion in a sentence"), Field(validate_default=True)
    ] = ""
    quote: Text = ""
    where: Text = ""
    all: Annotated[Tables[ComparisonTable], Field(min_length=1)] = ()
    untestable: Annotated[Text, _said(UNTESTED)] = ""

    @model_validator(mode="after")
    def _check_keys(self) -> "ClaimTable":
        self.check_forms([*(form.value for form in Form), "all", "untestable"])
        if self.all and (named := {"metric"} & self.model_fields_set):
            raise faulty((tuple(named), "belongs to the tables in `all`"))
        return self


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of a claim. terms: its sides; plain: never of logarithms; the other fields: see
    ComparisonTable."""

    form: Form
    terms: tuple[Term, ...]
    metric: str = "test_accuracy"
    by: By = By.MEANS
    within: float = 0.1
    matters: float | None = None
    below: float | str | None = None
    plain: bool = False

    @property
    def logs(self) -> bool:
        """Whether logarithms are compared."""
        plain = self.plain or self.matters is not None or any(term.minus for term in self.terms)
        return self.metric in RATIOS and self.by is By.MEANS and not plain

    @property
    def tested(self) -> dict[str, Any]:
        """Returns what the test depends on, as JSON."""
        terms = [term.as_dict() for term in self.terms]
        given = {"form": self.form.value, "terms": terms, "by": self.by.value}
        given |= {key: getattr(self, key) for key in ("metric", "within", "matters")}
        return {**given, "below": FAILS_BELOW if self.below is None else self.below}


class Claim(ClaimTable):
    """A conclusion of a publication. comparisons: those that must all be true; none where it is
    untestable."""

    comparisons: tuple[Comparison, ...]

    def cells(self, metric: str | None = None) -> set[str]:
        """Returns the names of the cells whose metric, or any, is compared."""
        compared = [each for each in self.comparisons if metric in (None, each.metric)]
        return {name for each in compared for term in each.terms for name in term.cells}

    @property
    def tested(self) -> dict[str, Any]:
        """Returns what the test depends on, as JSON; the sentences may change."""
        found = [comparison.tested for comparison in self.comparisons]
        if self.all:
            return {"all": found}
        if found:
            return found[0]
        given = {"form": "untestable", "terms": [], "by": self.by.value, "below": FAILS_BELOW}
        return given | {key: getattr(self, key) for key in ("metric", "within", "matters")}

    def faults(self, objective: Metric, classes: Sequence[str]) -> Iterator[str]:
        """Yields what does not go together with data of these classes, none of a regression.
        objective: by which networks are judged there."""
        wrong, kinds, instead = OF_CLASSES, ("classes", "numbers"), objective.tested.name
        if classes:
            wrong, kinds, instead = OF_NUMBERS, ("numbers", "classes"), "test_accuracy"
        worse = " (the greater, the worse)" if objective.minimized and not classes else ""
        where, why = f"claim {quoted(self.says)}", "is of {}, and the labels are {}".format(*kinds)
        for each in self.comparisons:
            if each.form is not Form.FAILS and each.metric in wrong:
                yield f'{where}: {each.metric} {why}; give metric = "{instead}"{worse}'
            if each.form is Form.FAILS and each.below is not None and not classes:
                yield f"{where}: below {why}; leave it out"


def claim_of(
    table: ClaimTable, key: Key, cells: Mapping[str, Config], faults: list[Fault]
) -> Claim:
    """Returns the claim of a grid with these cells; adds what is wrong. key: the table's."""
    tables: list[tuple[ComparisonTable, Key]] = [(table, key)]
    if table.all or table.untestable:
        tables = [(each, (*key, "all", i)) for i, each in enumerate(table.all)]
    comparisons = tuple(_comparison(each, place, cells, faults) for each, place in tables)
    given = {**dict(table), "comparisons": comparisons}
    return Claim.model_construct({*table.model_fields_set}, **given)


def _comparison(
    table: ComparisonTable, key: Key, cells: Mapping[str, Config], faults: list[Fault]
) -> Comparison:
    sides: tuple[Any, ...] = {
        Form.GREATER: table.greater,
        Form.BEST: (table.best, *(table.among or [c for c in cells if c != table.best])),
        Form.FAILS: (table.fails,),
        Form.SIMILAR: table.similar,
    }[table.form]
    if table.form is Form.BEST and len(sides) == 1:
        faults.append(((*key, "among"), "must be a list of other cells, got []"))
    terms: list[Term] = []
    for side in sides:
        try:
            terms.append(_term(side, table.metric, cells))
        except PydanticCustomError as error:
            faults.append(((*key, table.form.value), error.message()))
    found = Comparison(
        form=table.form, terms=tuple(terms), metric=table.metric, by=_by(table, terms),
        within=table.within, matters=table.matters, below=table.below,
    )  # fmt: skip
    faults += [((*key, name), text) for name, text in _faults(found, cells)]
    return found


def _by(table: ComparisonTable, terms: Sequence[Term]) -> By:
    """Returns how the sides are compared: as the table says, or as their metric asks for."""
    if "by" in table.model_fields_set or table.matters is not None:
        return By(table.by)
    number = table.metric != SECONDS and any(term.number is not None for term in terms)
    skewed = table.metric in BY_WINS or number
    differences = any(term.minus for term in terms)
    return By.WINS if skewed and not differences and table.form in KEYS["by"] else By.MEANS


def _faults(found: Comparison, cells: Mapping[str, Config]) -> Iterator[tuple[str, str]]:
    """Yields a key and what is wrong with the sides together."""
    form, metric, terms = found.form.value, found.metric, found.terms
    numbers = [term.number for term in terms if term.number is not None]
    if any(term.epoch for term in terms) and metric not in EPOCH_METRICS:
        known = ", ".join(EPOCH_METRICS)
        yield "metric", f"must be one of {known} after an epoch, got {metric!r}"
    if found.form is Form.SIMILAR and metric in RATIOS and any(term.minus for term in terms):
        yield form, f"compares ratios of {metric}, so no side can be a difference"
    if len(set(terms)) < len(terms):
        yield form, "names a side twice"
    if found.matters is not None and any(numbers):
        yield "matters", "belongs to a comparison of cells, not with a number other than 0"
    least = LEAST_EPOCHS.get(metric, 1)
    short = [n for term in terms for n in term.cells if cells[n].sure_epochs < least]
    if short:
        yield form, f"{metric} needs {least} epochs or more; {short[0]} has fewer, or may have"
    if found.logs and any(number <= 0 for number in numbers):
        unit = " seconds" if metric == SECONDS else ""
        yield form, f"compares ratios of {metric}, so a number must be more than 0{unit}"


def _term(value: Any, metric: str, cells: Mapping[str, Config]) -> Term:
    """Reads wider, wider@1 (after its first epoch), wider - baseline (the difference), 0.01, or the
    best of some cells."""
    if is_number(value) and abs(value) < 1e12:
        return Term(number=float(value))
    if isinstance(value, dict) and metric != SECONDS:
        return Term(group=_group(value, cells))
    if not isinstance(value, str):
        raise fault(f"must name cells, or give numbers, got {quoted(value)}")
    if metric != SECONDS and " - " in value:
        first, second = (_term(part, metric, cells) for part in value.split(" - ", 1))
        return replace(first, minus=second)
    cell, at, epoch = value.partition("@")
    if cell not in cells:
        raise fault(no_cell(cell, cells))
    if not at:
        return Term(cell=cell)
    last = cells[cell].sure_epochs
    if not epoch.isdecimal() or len(epoch) > 6 or not 1 <= int(epoch) <= last:
        raise fault(f"must name an epoch of {cell}, 1 to {last}, got {quoted(value)}")
    return Term(cell=cell, epoch=int(epoch))


def _group(value: dict[str, Any], cells: Mapping[str, Config]) -> tuple[str, ...]:
    """Returns the cells that have these settings: { best_of = { optimizer = "adam" } }."""
    settings = value.get("best_of")
    if set(value) != {"best_of"} or not isinstance(settings, dict) or not settings:
        raise fault(f'must be {{ best_of = {{ optimizer = "adam" }} }}, got {quoted(value)}')
    values = {name: config.as_dict() for name, config in cells.items()}
    found = tuple(
        name for name, of in values.items() if all(of.get(k) == v for k, v in settings.items())
    )
    if not found:
        raise fault(f"no cell has {', '.join(f'{k} = {quoted(v)}' for k, v in settings.items())}")
    return found


def no_cell(name: str, cells: Collection[str]) -> str:
    return f"no cell is named {quoted(name)}; there are {', '.join(cells)}{meant(name, cells)}"


class Cause(Table):
    """A [[causes]] table: why a cell fails, to be looked for in its diagnostics beside those of a
    cell that learns."""

    cell: Text = ""
    beside: Text = ""
    presumes: Annotated[Literal[PRESUMPTIONS], *one_of(PRESUMPTIONS)] = Field(  # type: ignore[valid-type]
        "", validate_default=True
    )
    quote: Text = ""
    where: Text = ""

    @model_validator(mode="after")
    def _check_cells(self) -> "Cause":
        if self.cell == self.beside:
            raise faulty((("beside",), "must be another cell, one that works"))
        return self
