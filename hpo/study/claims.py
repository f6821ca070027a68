"""What a publication concludes from its runs, and why, declared in a study file to be tested."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from hpo.study.fields import (
    Fault,
    Key,
    Table,
    Text,
    explained,
    fault,
    faulty,
    is_number,
    one_of,
)
from hpo.text import quoted

SECONDS = "train_seconds"
EPOCH_METRICS = ("valid_accuracy", "valid_loss", "train_accuracy", "train_loss", "gap")
# valid_spread: the standard deviation of the changes of validation accuracy from epoch to epoch.
# valid_falls: the mean fall from an epoch to the next, 0 where validation accuracy rises.
METRICS = ("test_accuracy", "test_loss", SECONDS, *EPOCH_METRICS, "valid_spread", "valid_falls")
# Metrics of which `similar` compares logarithms, because a margin is a share of the value.
RATIOS = ("test_loss", "valid_loss", "train_loss", SECONDS)
FAILS_BELOW = 0.3  # test accuracy: three times chance
PRESUMPTIONS = ("vanishing gradients", "learning rate too high")


class Form(Enum):
    """greater: each term's metric is greater than the next one's. best: the first cell's is
    greater than each other's. fails: the cell fails to learn with most seeds. similar: the means of
    all cells lie within a margin of each other. untestable: this design cannot test it."""

    GREATER = "greater"
    BEST = "best"
    FAILS = "fails"
    SIMILAR = "similar"
    UNTESTABLE = "untestable"


class By(Enum):
    """means: the mean difference over the seeds with which all sides learn. wins: which side is
    greater with most seeds; a run that diverged is the worst."""

    MEANS = "means"
    WINS = "wins"


@dataclass(frozen=True, kw_only=True)
class Term:
    """A side of a comparison: a cell's metric after its last epoch, or after `epoch`; or a number
    in the metric's unit (a fraction for accuracies and the gap). minus: what is subtracted."""

    cell: str | None = None
    epoch: int | None = None
    number: float | None = None
    minus: "Term | None" = None

    @property
    def cells(self) -> tuple[str, ...]:
        """Returns the names of the cells that the side is made of."""
        first = () if self.cell is None else (self.cell,)
        return first + (self.minus.cells if self.minus else ())


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


UNTESTED = "must say why this design cannot test it"
Share = Annotated[float, Field(gt=0, lt=1), explained("must be a share between 0 and 1")]
CellName = Annotated[str, explained("must be a cell's name")]


class ClaimTable(Table):
    """A [[claims]] table: exactly one of greater, best, fails, similar and untestable.

    says: in our words. quote: in its own words, translated. where: the section. within: how much
    similar cells may differ, a share of the value for RATIOS and a difference for other metrics.
    matters: the smallest difference of interest. below: the test accuracy under which a run fails.
    among: the cells that the best is compared with; None: all others. untestable: why this design
    cannot test it.
    """

    says: Annotated[
        Text, _said("must say the conclusion in a sentence"), Field(validate_default=True)
    ] = ""
    quote: Text = ""
    where: Text = ""
    metric: Annotated[str, *one_of(METRICS)] = "test_accuracy"
    within: Share = 0.1
    by: Annotated[Any, *one_of([by.value for by in By]), AfterValidator(By)] = By.MEANS
    matters: Annotated[
        float | None, Field(gt=0, le=1e6), explained("must be a number greater than 0")
    ] = None
    below: Share = FAILS_BELOW
    among: Annotated[
        tuple[str, ...] | None,
        Field(strict=False, min_length=1),
        explained("must be a list of other cells"),
    ] = None
    greater: Annotated[tuple[str | float, ...], WrapValidator(_sides)] = ()
    best: CellName = ""
    fails: CellName = ""
    similar: Annotated[tuple[str, ...], WrapValidator(_similar)] = ()
    untestable: Annotated[Text, _said(UNTESTED)] = ""

    @property
    def form(self) -> Form:
        return next(form for form in Form if form.value in self.model_fields_set)

    @model_validator(mode="after")
    def _check_keys(self) -> "ClaimTable":
        given = self.model_fields_set
        if sum(form.value in given for form in Form) != 1:
            names = ", ".join(form.value for form in Form)
            raise fault(f"needs exactly one of {names}")
        faults: list[Fault] = [
            ((key,), f"belongs to {' and '.join(f'`{form.value}`' for form in forms)} alone")
            for key, forms in KEYS.items()
            if key in given and self.form not in forms
        ]
        if self.form is Form.FAILS and "metric" in given:
            text = "goes without: failing to learn is seen in the test accuracy"
            faults.append((("metric",), text))
        if "matters" in given and self.form in KEYS["matters"]:
            if self.metric == SECONDS:
                text = "times are compared as ratios; use `similar` with `within`"
                faults.append((("matters",), text))
            if self.by is By.WINS:
                text = "belongs to a comparison of means, not of wins"
                faults.append((("matters",), text))
        if faults:
            raise faulty(*faults)
        return self


class Claim(ClaimTable):
    """A conclusion of a publication. terms: the sides that are compared."""

    terms: tuple[Term, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """Returns the names of the cells that the claim is about."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.cells))

    @property
    def tested(self) -> dict[str, Any]:
        """Returns what the test depends on, as JSON; the sentences may change."""
        terms = [asdict(term) for term in self.terms]
        given = {"form": self.form.value, "terms": terms, "by": self.by.value}
        margins = ("metric", "within", "matters", "below")
        return given | {key: getattr(self, key) for key in margins}


def claim_of(table: ClaimTable, key: Key, epochs: Mapping[str, int], faults: list[Fault]) -> Claim:
    """Returns the claim of a grid with these cells, {cell: its epochs}; adds what is wrong with it.
    key: the table's."""
    form, metric, at = table.form, table.metric, (*key, table.form.value)
    sides: tuple[Any, ...] = {
        Form.GREATER: table.greater,
        Form.BEST: (table.best, *(table.among or [c for c in epochs if c != table.best])),
        Form.FAILS: (table.fails,),
        Form.SIMILAR: table.similar,
        Form.UNTESTABLE: (),
    }[form]
    terms: list[Term] = []
    for side in sides:
        try:
            terms.append(_term(side, metric, epochs))
        except PydanticCustomError as error:
            faults.append((at, error.message()))
    if form is Form.BEST and len(sides) == 1:
        faults.append(((*key, "among"), "must be a list of other cells, got []"))
    if any(term.epoch for term in terms) and metric not in EPOCH_METRICS:
        known = ", ".join(EPOCH_METRICS)
        text = f"must be one of {known} after an epoch, got {metric!r}"
        faults.append(((*key, "metric"), text))
    if form is Form.SIMILAR and metric in RATIOS and any(term.minus for term in terms):
        faults.append((at, f"compares ratios of {metric}, so no side can be a difference"))
    if len(set(terms)) < len(terms):
        faults.append((at, "names a side twice"))
    given = {**dict(table), "terms": tuple(terms)}
    return Claim.model_construct({*table.model_fields_set}, **given)


def _term(value: Any, metric: str, epochs: Mapping[str, int]) -> Term:
    """Reads wider, wider@1 (after its first epoch), wider - baseline (the difference) or 0.01."""
    if is_number(value) and abs(value) < 1e12:
        if metric == SECONDS and value <= 0:
            raise fault(f"must be more than 0 seconds, got {quoted(value)}")
        return Term(number=float(value))
    if not isinstance(value, str):
        raise fault(f"must name cells, or give numbers, got {quoted(value)}")
    if metric != SECONDS and " - " in value:
        first, second = (_term(part, metric, epochs) for part in value.split(" - ", 1))
        return replace(first, minus=second)
    cell, at, epoch = value.partition("@")
    if cell not in epochs:
        raise fault(no_cell(cell, epochs))
    if not at:
        return Term(cell=cell)
    if not epoch.isdecimal() or len(epoch) > 6 or not 1 <= int(epoch) <= epochs[cell]:
        raise fault(f"must name an epoch of {cell}, 1 to {epochs[cell]}, got {quoted(value)}")
    return Term(cell=cell, epoch=int(epoch))


def no_cell(name: str, cells: Collection[str]) -> str:
    return f"no cell is named {quoted(name)}; there are {', '.join(cells)}"


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
