"""verdicts.json: the verdicts for programs that grade a replication, and its JSON Schema.

python -m hpo.analysis.verdicts writes the schema.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hpo.analysis.claims import ClaimVerdict, claim_verdicts
from hpo.analysis.evidence import most_failures
from hpo.analysis.hypothesis_tests import Verdict, one_more
from hpo.analysis.precision import NOTHING, cell_precision
from hpo.analysis.statistics import LEVEL
from hpo.results.study import StoredGrid
from hpo.study.claims import RATIOS, Term
from hpo.study.file import Cell, studies_dir

FILE = "verdicts.schema.json"
NUMBERS = re.compile(r"\[[-+\d.e,\s]+\]")  # lists of numbers, to be written in one line


def _side(side: Term) -> str:
    """wider; wider@1; wider - baseline; 0.96; best of adam-0.1, adam-0.01."""
    if side.number is not None:
        return f"{side.number:g}"
    if side.group:
        return f"best of {', '.join(side.group)}"
    text = f"{side.cell}" if side.epoch is None else f"{side.cell}@{side.epoch}"
    return text if side.minus is None else f"{text} - {_side(side.minus)}"


Name = Annotated[str, BeforeValidator(lambda choice: choice.value)]
Side = Annotated[str, BeforeValidator(_side)]
Finite = Annotated[
    float | None, BeforeValidator(lambda v: v if v is None or math.isfinite(v) else None)
]
Interval = tuple[Finite, Finite]
Path = Annotated[list[float], BeforeValidator(list)]


class PartOut(BaseModel):
    """One comparison of a conclusion. p-values are min(1, 1 / max(path)) without a plan, and min(1,
    2 / max(path), 2 * look) with one. Effects are in the metric's unit (accuracies as fractions),
    natural logarithms of ratios where `logs` is true, and shares of seeds for signs and runs."""

    model_config = ConfigDict(from_attributes=True)  # of a claims.Part

    form: Name
    metric: str
    by: Name
    matters: float | None
    sides: list[Side]
    n: int = Field(description="seeds, or rounds of timing, that were compared")
    left_out: int = Field(description="seeds with which a side fails to learn")
    test: str = Field(description="t, signs or runs; empty if nothing can be tested")
    logs: bool
    margin: Finite
    effect: Finite
    interval: Interval = Field(description="95% confidence sequence over seeds; null: infinite")
    interval_seeds_and_images: Interval | None = Field(
        description="95% for other seeds and other test images, at this n"
    )
    single_runs: tuple[float, float, float] | None = Field(
        description="probability that one run of the first side is above one of the second, and "
        "its 95% interval"
    )
    path_for: Path = Field(description="e-process for the conclusion, by n")
    path_against: Path
    path_too_small: Path | None
    planned: int | None = Field(
        description="how many of the values the planned look tests; 0: not reached; null: no plan"
    )
    looks: tuple[float, float, float] = Field(
        description="p-values of the planned look: for, against, too small"
    )


class ClaimOut(BaseModel):
    """A conclusion and its verdict."""

    says: str
    quote: str
    where: str
    verdict: Literal["holds", "refuted", "too small to matter", "unresolved", "not testable"]
    p: float | None = Field(description="after Holm's correction")
    correction: int = Field(
        description="what the smallest p-value is multiplied by: Holm's factor, twice where "
        "`matters` makes three null hypotheses of two"
    )
    decisive: int | None = Field(description="index of the part that decides")
    parts: list[PartOut]
    decided_at: int | None = Field(description="seeds, or rounds, with which it was decided")
    stopped: str = Field(description="why no more seeds were trained")
    basis: str


class ResultOut(BaseModel):
    """A network's result where labels are numbers, in the metric's own unit."""

    metric: str = Field(description="test_rmse, test_mae, test_r2 or test_loss")
    mean: Finite = Field(description="over the seeds with which it learns")
    interval_seeds: Interval = Field(description="95%, for other seeds on these test rows")
    one_more_run: Interval = Field(description="95% prediction interval")
    reported: list[float]


class NetworkOut(BaseModel):
    """A network's runs. Accuracies are fractions. Where labels are numbers, accuracies and their
    intervals are null, and `result` has what takes their place."""

    cell: str
    n: int
    failures: int
    most_failures: float = Field(description="upper bound of the failure rate, one-sided, 95%")
    test_accuracy: Finite = Field(description="mean over the seeds with which it learns")
    interval_seeds: Interval
    interval_seeds_and_images: Interval
    one_more_run: Interval = Field(description="95% prediction interval of the test accuracy")
    reported: list[float]
    result: ResultOut | None = Field(None, description="only where labels are numbers")


class Verdicts(BaseModel):
    """The conclusions of a publication, tested by hpo on a replication."""

    format: Literal["hpo-verdicts/2"]
    study: str
    dataset: str
    dataset_sha256: str
    level: float
    planned_seeds: int | None
    test_size: int = Field(description="how many test images or rows there are")
    largest_class: float | None = Field(
        description="the largest class's share of the test labels; null where they are numbers"
    )
    guess: float | None = Field(
        None, description="what a guess gets in the networks' `result`; only where it is there"
    )
    conclusions: list[ClaimOut]
    networks: list[NetworkOut]
    changed_conclusions: list[dict[str, Any]]


def verdicts(study: StoredGrid, basis: Callable[[ClaimVerdict], str]) -> Verdicts:
    """Returns what verdicts.json holds. basis: says in a sentence what a verdict rests on."""
    guess = {"guess": study.result.guess(study.data)} if study.regression else {}
    return Verdicts(
        format="hpo-verdicts/2",
        study=study.name,
        dataset=study.data["name"],
        dataset_sha256=study.data["checksum"],
        level=LEVEL,
        planned_seeds=study.planned_seeds,
        test_size=study.data["test"],
        largest_class=None if study.regression else study.largest_class,
        conclusions=[_claim(judged, basis(judged)) for judged in claim_verdicts(study)],
        networks=[_network(study, cell) for cell in study.file.cells],
        changed_conclusions=study.claim_changes,
        **guess,
    )


def text(study: StoredGrid, basis: Callable[[ClaimVerdict], str]) -> str:
    """Returns verdicts.json."""
    found = verdicts(study, basis).model_dump(exclude_unset=True)  # as ever where there are classes
    indented = json.dumps(found, indent=1, ensure_ascii=False)
    return NUMBERS.sub(lambda found: " ".join(found[0].split()), indented) + "\n"


def schema() -> str:
    """Returns the JSON Schema of verdicts.json."""
    return json.dumps(Verdicts.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _claim(judged: ClaimVerdict, basis: str) -> ClaimOut:
    found: dict[str, Any] = {
        **dict(judged.claim),
        **vars(judged),
        "verdict": judged.verdict.value,
        "p": None if judged.verdict is Verdict.UNTESTABLE else judged.p,
        "correction": judged.factor,
        "decisive": judged.parts.index(judged.decisive) if judged.parts else None,
        "decided_at": judged.decided_at,
        "stopped": judged.stopped,
        "basis": basis,
    }
    return ClaimOut.model_validate(found)


def _network(study: StoredGrid, cell: Cell) -> NetworkOut:
    n, failures = len(study.of(cell)), int(study.failing(cell).sum())
    exact, metric, collapsed = cell_precision(study, cell), study.result.name, study.fails(cell)
    more = one_more(study.values(cell).to_list(), collapsed=collapsed, logs=metric in RATIOS)
    reported = [value for each in cell.reported if (value := getattr(each, metric)) is not None]
    runs: dict[str, Any] = {"cell": cell.name, "n": n, "failures": failures}
    runs["most_failures"] = most_failures(failures, n)
    known: dict[str, Any] = {"interval_seeds": exact.seeds, "one_more_run": more}
    known["reported"] = reported
    if study.regression:
        intervals = ("interval_seeds", "interval_seeds_and_images", "one_more_run")
        nothing: dict[str, Any] = {
            **dict.fromkeys(intervals, NOTHING),
            "test_accuracy": None,
            "reported": [],
        }
        result = ResultOut(metric=metric, mean=exact.mean, **known)
        return NetworkOut(**runs, **nothing, result=result)
    known |= {"test_accuracy": exact.mean, "interval_seeds_and_images": exact.both}
    return NetworkOut(**runs, **known)


if __name__ == "__main__":
    (studies_dir() / FILE).write_text(schema(), encoding="utf-8")
