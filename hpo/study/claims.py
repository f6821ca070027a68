"""What a publication concludes from its runs, and presumes of them, declared to be tested."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, Protocol

from hpo.text import quoted

METRICS = (
    "test_accuracy", "test_loss", "train_seconds", "valid_accuracy", "valid_loss",
    "train_accuracy", "train_loss", "gap",
)  # fmt: skip
EPOCH_METRICS = ("valid_accuracy", "valid_loss", "train_accuracy", "train_loss", "gap")
KEYS = ("says", "quote", "where", "metric", "within", "among")
WITHIN = 0.1


class Form(Enum):
    """greater: each of its terms has a greater metric than the next, by its mean. best: its first
    cell has a greater one than each of the others. fails: its cell fails to learn with most seeds.
    similar: the means of all its cells lie within a share of each other."""

    GREATER = "greater"
    BEST = "best"
    FAILS = "fails"
    SIMILAR = "similar"


@dataclass(frozen=True, kw_only=True)
class Term:
    """A side of a comparison: a cell's metric after its last epoch, or after the one named; or a
    plain number, in the metric's unit (a fraction for accuracies and the gap)."""

    cell: str | None = None
    epoch: int | None = None
    number: float | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A conclusion: in our words (`says`) and in the publication's own (`quote`, translated), and
    the section where it stands. within: for similar cells, the share that they may differ by."""

    form: Form
    terms: tuple[Term, ...]
    metric: str
    says: str
    quote: str = ""
    where: str = ""
    within: float = WITHIN


PRESUMPTIONS = ("vanishing gradients", "learning rate too high")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why a cell is presumed to fail, one of PRESUMPTIONS, to be looked for in its diagnostics
    beside those of a cell that works."""

    cell: str
    beside: str
    presumes: str
    quote: str = ""
    where: str = ""


class Reader(Protocol):
    """What is needed of study_file's reader."""

    def fault(self, key: str, text: str) -> None: ...
    def known(self, table: Mapping[str, Any], keys: Sequence[str], at: str = "") -> None: ...
    def text(self, table: Mapping[str, Any], key: str, default: str, at: str = "") -> str: ...
    def choice(
        self, table: Mapping[str, Any], key: str, default: str, known: Collection[str], at: str = ""
    ) -> str: ...


def read(
    tables: Sequence[Mapping[str, Any]], epochs: Mapping[str, int], reader: Reader
) -> tuple[Claim, ...]:
    """The [[claims]] of a grid whose cells have these epochs; faults go to the reader."""
    found = [_claim(table, f"claims[{i}].", epochs, reader) for i, table in enumerate(tables)]
    return tuple(claim for claim in found if claim)


def _claim(
    table: Mapping[str, Any], at: str, epochs: Mapping[str, int], reader: Reader
) -> Claim | None:
    forms = [form for form in Form if form.value in table]
    reader.known(table, (*(form.value for form in Form), *KEYS), at)
    if len(forms) != 1:
        names = ", ".join(form.value for form in Form)
        reader.fault(at.rstrip("."), f"needs exactly one of {names}")
        return None
    form = forms[0]
    metric = reader.choice(table, "metric", "test_accuracy", METRICS, at)
    says = reader.text(table, "says", "", at)
    if not says:
        reader.fault(f"{at}says", "must say the conclusion in a sentence")
    written = _written(table[form.value], form, f"{at}{form.value}", reader)
    if form is Form.BEST:
        written += _among(table, written, list(epochs), f"{at}among", reader)
    elif "among" in table:
        reader.fault(f"{at}among", "belongs to `best` alone")
    terms = [_term(value, metric, f"{at}{form.value}", epochs, reader) for value in written]
    for term in terms:
        if term and term.epoch and metric not in EPOCH_METRICS:
            known = ", ".join(EPOCH_METRICS)
            reader.fault(
                f"{at}metric", f"must be one of {known} after an epoch, got {quoted(metric)}"
            )
    if len(set(terms)) < len(terms):
        reader.fault(f"{at}{form.value}", "names a side twice")
    if form is Form.FAILS and "metric" in table:
        reader.fault(f"{at}metric", "goes without: failing to learn is seen in the test accuracy")
    return Claim(
        form=form,
        terms=tuple(term for term in terms if term),
        metric=metric,
        says=says,
        quote=reader.text(table, "quote", "", at),
        where=reader.text(table, "where", "", at),
        within=_within(table, form, at, reader),
    )


def _written(value: Any, form: Form, key: str, reader: Reader) -> list[Any]:
    """The terms as they are written: a list of two or more, or one cell."""
    if form in (Form.FAILS, Form.BEST):
        if isinstance(value, str):
            return [value]
        reader.fault(key, f"must be a cell's name, got {quoted(value)}")
        return []
    if not isinstance(value, list) or len(value) < 2:
        reader.fault(key, f"must be a list of two cells or more, got {quoted(value)}")
        return []
    if form is Form.SIMILAR and not all(isinstance(item, str) for item in value):
        reader.fault(key, f"must be a list of cells' names, got {quoted(value)}")
        return []
    if any(_is_number(a) and _is_number(b) for a, b in pairwise(value)):
        reader.fault(key, "two numbers follow each other; one side must be a cell")
    return value


def _among(
    table: Mapping[str, Any], best: list[Any], cells: list[str], key: str, reader: Reader
) -> list[Any]:
    """What the best cell is compared with: the cells named, or all others."""
    others = table.get("among", [cell for cell in cells if cell not in best])
    if isinstance(others, list) and others and all(isinstance(cell, str) for cell in others):
        return others
    reader.fault(key, f"must be a list of other cells, got {quoted(others)}")
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _term(
    value: Any, metric: str, key: str, epochs: Mapping[str, int], reader: Reader
) -> Term | None:
    """wider, wider@1 (after its first epoch), or 0.01."""
    if _is_number(value) and abs(value) < 1e12:
        if metric == "train_seconds" and value <= 0:
            reader.fault(key, f"must be more than 0 seconds, got {quoted(value)}")
        return Term(number=float(value))
    if not isinstance(value, str):
        reader.fault(key, f"must name cells, or give numbers, got {quoted(value)}")
        return None
    cell, _, epoch = value.partition("@")
    if cell not in epochs:
        reader.fault(key, f"no cell is named {quoted(cell)}; there are {', '.join(epochs)}")
        return None
    if not epoch and "@" not in value:
        return Term(cell=cell)
    if not epoch.isdecimal() or len(epoch) > 6 or not 1 <= int(epoch) <= epochs[cell]:
        reader.fault(key, f"must name an epoch of {cell}, 1 to {epochs[cell]}, got {quoted(value)}")
        return None
    return Term(cell=cell, epoch=int(epoch))


def _within(table: Mapping[str, Any], form: Form, at: str, reader: Reader) -> float:
    value = table.get("within", WITHIN)
    if "within" in table and form is not Form.SIMILAR:
        reader.fault(f"{at}within", "belongs to `similar` alone")
    elif not (_is_number(value) and 0 < value < 1):
        reader.fault(f"{at}within", f"must be a share between 0 and 1, got {quoted(value)}")
        return WITHIN
    return float(value)


def read_causes(
    tables: Sequence[Mapping[str, Any]], cells: Sequence[str], reader: Reader
) -> tuple[Cause, ...]:
    """The [[causes]] of a grid that has these cells; faults go to the reader."""
    return tuple(_cause(table, f"causes[{i}].", cells, reader) for i, table in enumerate(tables))


def _cause(table: Mapping[str, Any], at: str, cells: Sequence[str], reader: Reader) -> Cause:
    reader.known(table, ("cell", "beside", "presumes", "quote", "where"), at)
    named = {}
    for key in ("cell", "beside"):
        named[key] = reader.text(table, key, "", at)
        if named[key] not in cells:
            known = ", ".join(cells)
            reader.fault(f"{at}{key}", f"no cell is named {quoted(named[key])}; there are {known}")
    if named["cell"] == named["beside"]:
        reader.fault(f"{at}beside", "must be another cell, one that works")
    return Cause(
        **named,
        presumes=reader.choice(table, "presumes", "", PRESUMPTIONS, at),
        quote=reader.text(table, "quote", "", at),
        where=reader.text(table, "where", "", at),
    )
