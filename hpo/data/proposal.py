"""A study file's words on a table: its label and its columns, proposed for a person to correct."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from hpo.data import card, datasets, readers
from hpo.data.tables import LABELS
from hpo.errors import InputError
from hpo.study.fields import BALANCED
from hpo.study.names import TaskKind
from hpo.study.source import Source
from hpo.text import printable, shortened

if TYPE_CHECKING:
    import pandas as pd

USUAL = (
    *LABELS,
    "species",
    "survived",
    "outcome",
    "diagnosis",
    "result",
    "churn",
    "income",
    "price",
    "value",
)
RARE_REST = 0.9  # a share of the largest class with which accuracy says little
FEW_CLASSES = 20  # whole numbers or texts in a column of labels


def propose(path: Path) -> str:
    """Returns the lines of a study file on the dataset in a table: how it is read, the columns as
    comments, and what may be wrong. Raises InputError for a file that is no table."""
    with readers.named_errors(path, readers.REMEDY):
        table = readers.open_table(path)
        header = not any(table.numbers())
        names = table.names(header=header)
        frame = table.read(header=header, names=names, label="")
        label, others = _label(frame)
    given: str | int = label if header else -1 if label == names[-1] else names.index(label)
    source = Source(str(path), label=given, task=_task(frame[label]))
    others_said = f"; or one of {_listed(others)}" if others else ""
    start = f"# Proposed from {printable(path.name)}: correct what is wrong. The label is a guess"
    lines = [f"{start}{others_said}."]
    try:
        loaded = datasets.load(source, None)
        datasets.check(loaded)
        data = datasets.describe(loaded)
    except InputError as error:
        lines += [f"# It cannot be read yet: {printable(line)}" for line in str(error).splitlines()]
        data = {}  # the file is written all the same: its comments say what to mend
    ignore = data.get("about", {}).get("telling", [])
    ignore = ignore if len(ignore) < len(data.get("columns", ())) else []
    wanted = ignore if header else list(map(int, ignore))
    if source.task:
        lines.append(f'task = "{source.task}"  # a number is predicted; or "classification"')
    elif data.get("largest", 0) >= RARE_REST:
        share = f"{100 * data['largest']:.1f}%"
        lines += [
            f"# {share} of the rows are of one class, which a guess gets right: so accuracy says",
            "# little. The next lines count all classes alike; without them, accuracy is sought.",
            'objective = "valid_balanced_accuracy"',
            f'class_weight = "{BALANCED}"',
        ]
    dataset = {"file": str(path), "label": given, **({"ignore": wanted} if ignore else {})}
    lines.append(f"dataset = {_inline(dataset)}")
    if ignore:
        lines.append(f"# Left out, because they determine the label alone: {_listed(ignore)}")
    lines.append('# Other kinds: columns = { zip = "category", id = "ignore" } within dataset')
    if data:
        lines += [
            f"#   {printable(shortened(name, 30)):20}  {kind:13}  {printable(shortened(held, 60))}"
            for name, kind, held in card.columns(data)
            if name not in ignore
        ]
        about = {**data.get("about", {}), "telling": []}
        lines += [f"# {printable(note)}" for note in card.warnings({**data, "about": about})]
    lines.append('scale = "standard"                                # or "robust", "quantile"')
    return "\n".join(lines)


def _label(frame: "pd.DataFrame") -> tuple[str, list[str]]:
    """Returns the column that most likely has the labels, and others that may: the last or first
    column, by a usual name if one has it."""
    few = [str(name) for name in frame if 2 <= frame[name].nunique() <= FEW_CLASSES]
    edges = [str(frame.columns[-1]), str(frame.columns[0])]
    usual = [name for name in edges if name.lower() in USUAL]
    likely = [*usual, *(name for name in edges if name in few), *few, edges[0]]
    return likely[0], [name for name in few if name != likely[0]]


def _task(labels: "pd.Series") -> TaskKind | None:
    """Returns what may be learned, if the labels' column does not say it by itself."""
    numbers = labels.dtype.kind in "iuf" and labels.nunique() > FEW_CLASSES
    return "regression" if numbers else None


def _inline(values: Mapping[str, object]) -> str:
    """Returns a TOML table in one line."""
    return f"{{ {', '.join(f'{key} = {_value(value)}' for key, value in values.items())} }}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def _listed(names: list[str]) -> str:
    return ", ".join(printable(shortened(name, 30)) for name in names[:5]) + " …" * (len(names) > 5)
