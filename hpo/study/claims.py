"""What a publication concludes from its runs, and why, declared in a study file to be tested."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from hpo.study.fields import Faults, Table, Text, explained, one_of
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
        own = () if self.cell is None else (self.cell,)
        return own + (self.minus.cells if self.minus else ())


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A conclusion of a publication.

    says: in our words. quote: in its own words, translated. where: the section. within: how much
    similar cells may differ, a share of the value for RATIOS and a difference for other metrics.
    matters: the smallest difference of interest. below: the test accuracy under which a run fails.
    reason: why this design cannot test it.
    """

    form: Form
    terms: tuple[Term, ...]
    metric: str
    says: str
    quote: str
    where: str
    within: float
    by: By
    matters: float | None
    below: float
    reason: str = ""

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


class ClaimTable(Table):
    """A [[claims]] table: exactly one of greater, best, fails, similar and untestable."""

    says: Text = ""
    quote: Text = ""
    where: Text = ""
    metric: Annotated[str, *one_of(METRICS)] = "test_accuracy"
    within: Annotated[float, Field(gt=0, lt=1), explained("must be a share between 0 and 1")] = 0.1
    by: Annotated[str, *one_of([by.value for by in By])] = By.MEANS.value
    matters: Annotated[
        float | None, Field(gt=0, le=1e6), explained("must be a number greater than 0")
    ] = None
    below: Annotated[float, Field(gt=0, lt=1), explained("must be a share between 0 and 1")] = (
        FAILS_BELOW
    )
    among: Any = None
    greater: Any = None
    best: Any = None
    fails: Any = None
    similar: Any = None
    untestable: Any = None


class CauseTable(Table):
    """A [[causes]] table: why a cell fails, to be looked for in its diagnostics beside those of a
    cell that learns."""

    cell: Text = ""
    beside: Text = ""
    presumes: Annotated[Literal[PRESUMPTIONS], *one_of(PRESUMPTIONS)] = Field(  # type: ignore[valid-type]
        "", validate_default=True
    )
    quote: Text = ""
    where: Text = ""


Cause = CauseTable


def read_claim(
    table: Mapping[str, Any], at: str, epochs: Mapping[str, int], faults: Faults
) -> Claim | None:
    """Reads a [[claims]] table of a grid. epochs: {cell: its epochs}. at: the key in faults."""
    before, claim = len(faults.lines), faults.read(ClaimTable, table, at)
    forms = [form for form in Form if form.value in table]
    if len(forms) != 1:
        names = ", ".join(form.value for form in Form)
        faults.add(at.rstrip("."), f"needs exactly one of {names}")
    if claim is None or len(forms) != 1:
        return None
    form, key = forms[0], f"{at}{forms[0].value}"
    if not claim.says:
        faults.add(f"{at}says", "must say the conclusion in a sentence")
    _check_keys(table, form, claim.metric, at, faults)
    terms: list[Term | None] = []
    if form is Form.UNTESTABLE:
        if not isinstance(table["untestable"], str) or not table["untestable"].strip():
            faults.add(key, "must say why this design cannot test it")
    else:
        sides = _sides(table[form.value], form, key, faults)
        if form is Form.BEST:
            sides += _others(table, sides, list(epochs), f"{at}among", faults)
        terms = [_term(side, claim.metric, key, epochs, faults) for side in sides]
    if any(term and term.epoch for term in terms) and claim.metric not in EPOCH_METRICS:
        known = ", ".join(EPOCH_METRICS)
        faults.add(f"{at}metric", f"must be one of {known} after an epoch, got {claim.metric!r}")
    if form is Form.SIMILAR and claim.metric in RATIOS and any(t and t.minus for t in terms):
        faults.add(key, f"compares ratios of {claim.metric}, so no side can be a difference")
    if len(set(terms)) < len(terms):
        faults.add(key, "names a side twice")
    if len(faults.lines) > before:
        return None
    given = claim.model_dump(
        include={"metric", "says", "quote", "where", "within", "matters", "below"}
    )
    reason = str(table["untestable"]).strip() if form is Form.UNTESTABLE else ""
    found = tuple(term for term in terms if term)
    return Claim(form=form, terms=found, by=By(claim.by), reason=reason, **given)


def _check_keys(table: Mapping[str, Any], form: Form, metric: str, at: str, faults: Faults) -> None:
    """Adds a fault for each key that the form has no use for."""
    compared = (Form.GREATER, Form.BEST)
    belongs: dict[str, tuple[Form, ...]] = {
        "among": (Form.BEST,), "within": (Form.SIMILAR,), "below": (Form.FAILS,),
        "by": compared, "matters": compared,
    }  # fmt: skip
    for name, forms in belongs.items():
        if name in table and form not in forms:
            allowed = " and ".join(f"`{other.value}`" for other in forms)
            faults.add(f"{at}{name}", f"belongs to {allowed} alone")
    if form is Form.FAILS and "metric" in table:
        faults.add(f"{at}metric", "goes without: failing to learn is seen in the test accuracy")
    if "matters" in table and form in compared:
        if metric == SECONDS:
            faults.add(f"{at}matters", "times are compared as ratios; use `similar` with `within`")
        if table.get("by") == By.WINS.value:
            faults.add(f"{at}matters", "belongs to a comparison of means, not of wins")


def _sides(value: Any, form: Form, key: str, faults: Faults) -> list[Any]:
    """Returns the sides as written: two or more, or one cell."""
    if form in (Form.FAILS, Form.BEST):
        if isinstance(value, str):
            return [value]
        faults.add(key, f"must be a cell's name, got {quoted(value)}")
        return []
    if not isinstance(value, list) or len(value) < 2:
        faults.add(key, f"must be a list of two cells or more, got {quoted(value)}")
        return []
    if form is Form.SIMILAR and not all(isinstance(item, str) for item in value):
        faults.add(key, f"must be a list of cells' names, got {quoted(value)}")
        return []
    if any(_is_number(a) and _is_number(b) for a, b in pairwise(value)):
        faults.add(key, "two numbers follow each other; one side must be a cell")
    return list(value)


def _others(
    table: Mapping[str, Any], best: Sequence[Any], cells: Sequence[str], key: str, faults: Faults
) -> list[Any]:
    """Returns what the best cell is compared with: the cells named, or all others."""
    others = table.get("among", [cell for cell in cells if cell not in best])
    if isinstance(others, list) and others and all(isinstance(cell, str) for cell in others):
        return others
    faults.add(key, f"must be a list of other cells, got {quoted(others)}")
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _term(
    value: Any, metric: str, key: str, epochs: Mapping[str, int], faults: Faults
) -> Term | None:
    """Reads wider, wider@1 (after its first epoch), wider - baseline (the difference) or 0.01."""
    if _is_number(value) and abs(value) < 1e12:
        if metric == "train_seconds" and value <= 0:
            faults.add(key, f"must be more than 0 seconds, got {quoted(value)}")
        return Term(number=float(value))
    if not isinstance(value, str):
        faults.add(key, f"must name cells, or give numbers, got {quoted(value)}")
        return None
    if metric != SECONDS and " - " in value:
        own, _, other = value.partition(" - ")
        first, second = (_term(part, metric, key, epochs, faults) for part in (own, other))
        return replace(first, minus=second) if first and second else None
    cell, at, epoch = value.partition("@")
    if cell not in epochs:
        faults.add(key, f"no cell is named {quoted(cell)}; there are {', '.join(epochs)}")
        return None
    if not at:
        return Term(cell=cell)
    if not epoch.isdecimal() or len(epoch) > 6 or not 1 <= int(epoch) <= epochs[cell]:
        faults.add(key, f"must name an epoch of {cell}, 1 to {epochs[cell]}, got {quoted(value)}")
        return None
    return Term(cell=cell, epoch=int(epoch))


def read_cause(
    table: Mapping[str, Any], at: str, cells: Sequence[str], faults: Faults
) -> Cause | None:
    """Reads a [[causes]] table of a grid that has these cells. at: the key in faults."""
    cause = faults.read(CauseTable, table, at)
    if cause is None:
        return None
    for key, name in (("cell", cause.cell), ("beside", cause.beside)):
        if name not in cells:
            faults.add(
                f"{at}{key}", f"no cell is named {quoted(name)}; there are {', '.join(cells)}"
            )
    if cause.cell == cause.beside:
        faults.add(f"{at}beside", "must be another cell, one that works")
    return cause
