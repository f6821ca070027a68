"""The JSON Schema of study files, for editors that read TOML: python -m hpo.study.schema."""

import json
from typing import Any

from pydantic import TypeAdapter

from hpo.study.file import GridTable, OwnGridTable, OwnSearchTable, SearchTable, studies_dir

FILE = "study.schema.json"


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a study file: a grid or a search, of perceptrons or of one's own
    network (`model`)."""
    kinds: Any = GridTable | SearchTable | OwnGridTable | OwnSearchTable
    return {"title": "A study of hpo: a grid ([[cells]]) or a search ([space])"} | (
        TypeAdapter(kinds).json_schema()
    )


def text() -> str:
    """Returns what studies/study.schema.json holds."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (studies_dir() / FILE).write_text(text(), encoding="utf-8")
