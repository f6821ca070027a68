"""verdicts.json: the verdicts for programs that grade a replication, and its JSON Schema.

python -m hpo.report.sections.verdicts writes the schema.
"""

import json
import math
import re
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from hpo.analysis.claims import ClaimVerdict, Part, claim_verdicts, resolved_at
from hpo.analysis.evidence import most_failures
from hpo.analysis.hypothesis_tests import Verdict
from hpo.analysis.statistics import LEVEL
from hpo.report.sections import accuracy, noise
from hpo.report.sections.basis import images_interval, sentence, single_runs, why_open
from hpo.results.study import StoredGrid
from hpo.study.claims import Form, Term
from hpo.study.file import Cell, studies_dir

FILE = "verdicts.schema.json"
NUMBERS = re.compile(r"\[[-+\d.e,\s]+\]")  # lists of numbers, to be written in one line
Interval = tuple[float | None, float | None]


class PartOut(BaseModel):
    """One comparison of a conclusion. Effects are in the metric's unit (accuracies as fractions),
    natural logarithms of ratios where `logs` is true, and shares of seeds for signs and runs."""

    sides: list[str]
    n: int = Field(description="seeds, or rounds of timing, that were compared")
    left_out: int = Field(description="seeds with which a side fails to learn")
    test: str = Field(description="t, signs or runs; empty if nothing can be tested")
    logs: bool
    margin: float | None
    effect: float | None
    interval: Interval = Field(description="95% confidence sequence over seeds; null: infinite")
    interval_seeds_and_images: Interval | None = Field(
        description="95% for other seeds and other test images, at this n"
    )
    single_runs: tuple[float, float, float] | None = Field(
        description="probability that one run of the first side is above one of the second, and "
        "its 95% interval"
    )
    path_for: list[float] = Field(description="e-process for the conclusion, by n")
    path_against: list[float]
    path_too_small: list[float] | None


class ClaimOut(BaseModel):
    """A conclusion and its verdict."""

    says: str
    quote: str
    where: str
    form: str
    by: str
    metric: str
    matters: float | None
    verdict: Literal["holds", "refuted", "too small to matter", "unresolved", "not testable"]
    p: float | None = Field(description="two-sided, after Holm's correction")
    correction: int = Field(description="what Holm's correction multiplies the p-value by")
    decisive: int | None = Field(description="index of the part that decides")
    parts: list[PartOut]
    decided_at: int | None = Field(description="seeds, or rounds, with which it was decided")
    stopped: str = Field(description="why no more seeds were trained")
    basis: str


class NetworkOut(BaseModel):
    """A network's runs. Accuracies are fractions."""

    cell: str
    n: int
    failures: int
    most_failures: float = Field(description="upper bound of the failure rate, one-sided, 95%")
    test_accuracy: float | None = Field(description="mean over the seeds with which it learns")
    interval_seeds: Interval
    interval_seeds_and_images: Interval
    one_more_run: Interval = Field(description="95% prediction interval of the test accuracy")
    reported: list[float]


class Verdicts(BaseModel):
    """The conclusions of a publication, tested by hpo on a replication."""

    format: Literal["hpo-verdicts/1"]
    study: str
    dataset: str
    dataset_sha256: str
    level: float
    conclusions: list[ClaimOut]
    networks: list[NetworkOut]
    changed_conclusions: list[dict[str, Any]]


def verdicts(study: StoredGrid) -> Verdicts:
    """Returns what verdicts.json holds."""
    return Verdicts(
        format="hpo-verdicts/1",
        study=study.name,
        dataset=study.data["name"],
        dataset_sha256=study.data["checksum"],
        level=LEVEL,
        conclusions=[_claim(study, judged) for judged in claim_verdicts(study)],
        networks=[_network(study, cell) for cell in study.file.cells],
        changed_conclusions=study.claim_changes,
    )


def text(study: StoredGrid) -> str:
    """Returns verdicts.json."""
    indented = json.dumps(verdicts(study).model_dump(), indent=1, ensure_ascii=False)
    return NUMBERS.sub(lambda found: " ".join(found[0].split()), indented) + "\n"


def schema() -> str:
    """Returns the JSON Schema of verdicts.json."""
    return json.dumps(Verdicts.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _claim(study: StoredGrid, judged: ClaimVerdict) -> ClaimOut:
    claim = judged.claim
    tested = judged.verdict is not Verdict.UNTESTABLE
    return ClaimOut(
        says=claim.says,
        quote=claim.quote,
        where=claim.where,
        form=claim.form.value,
        by=claim.by.value,
        metric="test_accuracy" if claim.form is Form.FAILS else claim.metric,
        matters=claim.matters,
        verdict=judged.verdict.value,
        p=judged.p if tested else None,
        correction=judged.factor,
        decisive=judged.parts.index(judged.decisive) if judged.parts else None,
        parts=[_part(study, judged, part) for part in judged.parts],
        decided_at=resolved_at(judged),
        stopped=_stopped(study, judged),
        basis=sentence(study, judged),
    )


def _stopped(study: StoredGrid, judged: ClaimVerdict) -> str:
    if judged.verdict is Verdict.UNTESTABLE:
        return judged.claim.reason
    if judged.verdict is not Verdict.UNRESOLVED:
        return "decided"
    evidence = judged.decisive.evidence
    return why_open(study, judged, evidence) if evidence else "nothing to compare"


def _part(study: StoredGrid, judged: ClaimVerdict, part: Part) -> PartOut:
    evidence = part.evidence
    found: dict[str, Any] = {
        "sides": [_side(side) for side in part.sides], "left_out": part.left_out,
        "logs": part.logs, "margin": _finite(part.margin),
    }  # fmt: skip
    if evidence is None:
        return PartOut(
            n=0, test="", effect=None, interval=(None, None), interval_seeds_and_images=None,
            single_runs=None, path_for=[], path_against=[], path_too_small=None, **found,
        )  # fmt: skip
    images, small = images_interval(study, judged, part), evidence.path_small
    chance = single_runs(study, judged, part)
    return PartOut(
        n=evidence.n,
        test=evidence.test,
        effect=evidence.effect,
        interval=_interval((evidence.low, evidence.high)),
        interval_seeds_and_images=None if images is None else _interval(images),
        single_runs=None if chance is None or math.isnan(chance[0]) else chance,
        path_for=evidence.path_for.tolist(),
        path_against=evidence.path_against.tolist(),
        path_too_small=None if small is None else small.tolist(),
        **found,
    )


def _side(side: Term) -> str:
    """wider; wider@1; wider - baseline; 0.96: as in the study file."""
    if side.number is not None:
        return f"{side.number:g}"
    own = side.cell if side.epoch is None else f"{side.cell}@{side.epoch}"
    return f"{own}" if side.minus is None else f"{own} - {_side(side.minus)}"


def _network(study: StoredGrid, cell: Cell) -> NetworkOut:
    n, failures = len(study.of(cell)), int(study.failing(cell).sum())
    exact = accuracy.of_cell(study, cell) if n else None
    values = study.values(cell).to_list()
    expected = noise.expected(values, collapsed=study.fails(cell)) if n else None
    return NetworkOut(
        cell=cell.name,
        n=n,
        failures=failures,
        most_failures=most_failures(failures, n) if n else 1.0,
        test_accuracy=exact.mean if exact else None,
        interval_seeds=_interval(exact.seeds if exact else None),
        interval_seeds_and_images=_interval(exact.both if exact else None),
        one_more_run=_interval(expected),
        reported=[r.test_accuracy for r in cell.reported if r.test_accuracy is not None],
    )


def _interval(bounds: tuple[float, float] | None) -> Interval:
    return (_finite(bounds[0]), _finite(bounds[1])) if bounds else (None, None)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


if __name__ == "__main__":
    (studies_dir() / FILE).write_text(schema(), encoding="utf-8")
