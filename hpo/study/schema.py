"""The JSON Schema of study files, for editors that read TOML: python -m hpo.study.schema."""

import json
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, create_model

from hpo.study.claims import CauseTable, ClaimTable
from hpo.study.config import REQUIRED, TYPES
from hpo.study.fields import Count, Table
from hpo.study.file import (
    BaseTable,
    CellTable,
    Experiment,
    FinalistsTable,
    GridHead,
    Head,
    Reported,
    Rounds,
    SearchTable,
    Unsaid,
    studies_dir,
)
from hpo.study.space import domain_schema

FILE = "study.schema.json"


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a study file: a grid or a search."""
    cell: Any = create_model("Cell", __base__=CellTable, reported=(tuple[Reported, ...], ()))
    cells: Any = Annotated[tuple[cell, ...], Field(min_length=1)]
    grid = create_model(
        "Grid",
        __base__=GridHead,
        seeds=(Count | Rounds, 1),
        base=(BaseTable, BaseTable()),
        cells=(cells, ...),
        experiments=(tuple[Experiment, ...], ()),
        claims=(tuple[ClaimTable, ...], ()),
        causes=(tuple[CauseTable, ...], ()),
        unsaid=(tuple[Unsaid, ...], ()),
    )
    domains: dict[str, Any] = {
        name: (Annotated[Any, domain_schema(name)], ... if name in REQUIRED else None)
        for name in TYPES
    }
    search = create_model(
        "Search",
        __base__=Head,
        search=(SearchTable, SearchTable()),
        finalists=(FinalistsTable, FinalistsTable()),
        space=(create_model("Space", __base__=Table, **domains), ...),
    )
    either: TypeAdapter[Any] = TypeAdapter(grid | search)  # type: ignore[arg-type]
    return {"title": "A study of hpo: a grid ([[cells]]) or a search ([space])"} | (
        either.json_schema()
    )


def text() -> str:
    """Returns what studies/study.schema.json holds."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (studies_dir() / FILE).write_text(text(), encoding="utf-8")
