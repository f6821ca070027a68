"""The JSON Schema of study files, for editors that read TOML: python -m hpo.study.schema."""

import json
from collections.abc import Set
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from hpo.study.claims import CauseTable, ClaimTable
from hpo.study.config import REQUIRED, REQUIRED_BY_ANY, TYPES
from hpo.study.fields import Count, Table
from hpo.study.file import (
    FOLLOWING,
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


class OwnNames(BaseModel):
    """A table with hyperparameters of one's own network, which may have any name."""

    model_config = ConfigDict(extra="allow")


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a study file: a grid or a search, of perceptrons or of one's own
    network (`model`)."""
    own = {"model": (Annotated[str, Field(min_length=1)], ...)}
    kinds: Any = (
        _grid("Grid", ())
        | _search("Search", (), set(REQUIRED) - set(FOLLOWING))
        | _grid("OwnGrid", (OwnNames,), **own)
        | _search("OwnSearch", (OwnNames,), set(REQUIRED_BY_ANY), **own)
    )
    return {"title": "A study of hpo: a grid ([[cells]]) or a search ([space])"} | (
        TypeAdapter(kinds).json_schema()
    )


def _grid(name: str, names: tuple[type, ...], **more: Any) -> Any:
    base: Any = create_model(f"{name}Base", __base__=(BaseTable, *names))
    cell: Any = create_model(
        f"{name}Cell", __base__=(CellTable, *names), reported=(tuple[Reported, ...], ())
    )
    return create_model(
        name,
        __base__=GridHead,
        seeds=(Count | Rounds, 1),
        base=(base, base()),
        cells=(Annotated[tuple[cell, ...], Field(min_length=1)], ...),
        experiments=(tuple[Experiment, ...], ()),
        claims=(tuple[ClaimTable, ...], ()),
        causes=(tuple[CauseTable, ...], ()),
        unsaid=(tuple[Unsaid, ...], ()),
        **more,
    )


def _search(name: str, names: tuple[type, ...], needed: Set[str], **more: Any) -> Any:
    domains: dict[str, Any] = {
        each: (Annotated[Any, domain_schema(each)], ... if each in needed else None)
        for each in TYPES
    }
    return create_model(
        name,
        __base__=Head,
        search=(SearchTable, SearchTable()),
        finalists=(FinalistsTable, FinalistsTable()),
        space=(create_model(f"{name}Space", __base__=(Table, *names), **domains), ...),
        **more,
    )


def text() -> str:
    """Returns what studies/study.schema.json holds."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (studies_dir() / FILE).write_text(text(), encoding="utf-8")
