"""The data card: what a dataset is, in words, for the terminal and the report."""

from collections.abc import Mapping
from typing import Any

from hpo.data.schema import LIST, Schema, brief_names, is_picture
from hpo.language import marked, t
from hpo.study.names import DATASETS, label
from hpo.text import listed, quoted

KINDS = {
    "bool": marked("true or false"), "int": marked("whole numbers"), "float": marked("numbers"),
}  # fmt: skip


def rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (what, value) of a dataset. data: see datasets.describe."""
    schema, about = Schema.of(data), data.get("about", {})
    sizes = t(
        "{train} to train on, {valid} of them to validate on, {test} to test on",
        train=f"{data['train'] + data['valid']:,}", valid=f"{data['valid']:,}",
        test=f"{data['test']:,}",
    )  # fmt: skip
    file = about.get("file") or t(label(DATASETS, data["name"]))
    found = [(t("Data"), file)]
    if about.get("test_file"):
        found.append((t("Test file"), about["test_file"]))
    found += [(t("Examples"), sizes), (t("Features"), _features(schema))]
    if schema.label:
        number = t("column {number}; the file has no header", number=schema.label)
        found.append((t("Label"), quoted(schema.label) if schema.header else number))
    classes = t("Classes (to train on + to test on)") if "of_class" in about else t("Classes")
    return [*found, (classes, _classes(schema, about)), ("SHA-256", data["checksum"])]


def _features(schema: Schema) -> str:
    if is_picture(schema.shape):
        size = " × ".join(map(str, schema.shape))
        kind = t("pixels of 0 … 1") if schema.pixels else t("numbers")
        return t("pictures of {size}, {kind}", size=size, kind=kind)
    names = f": {brief_names(schema.columns)}" if schema.columns and schema.header else ""
    kinds = {kind: schema.kinds.count(kind) for kind in KINDS}
    counts = ", ".join(f"{n} {t(KINDS[kind])}" for kind, n in kinds.items() if n)
    return f"{schema.features}{f' ({counts})' if counts else ''}{names}"


def _classes(schema: Schema, about: Mapping[str, Any]) -> str:
    """Returns the classes, with the examples of each to train on and to test on."""
    if "of_class" not in about:
        return f"{len(schema.classes)}: {brief_names(schema.classes)}"
    counts = zip(about["of_class"]["train"], about["of_class"]["test"], strict=True)
    named = zip(schema.classes, counts, strict=True)
    each = [f"{name} {train:,} + {test:,}" for name, (train, test) in named]
    return f"{len(schema.classes)}: {brief_names(each)}"


def warnings(data: Mapping[str, Any]) -> list[str]:
    """Returns what was left out of the user's own data, and what may be wrong with them."""
    about = data.get("about", {})
    texts = {
        "unnamed": t("left out, because they have no name: {of} columns"),
        "index": t("left out, because it is the index of the file: {of}"),
        "counted": t("left out, because they number the rows: {of}"),
        "ignored": t("left out, as the study file says (ignore): {of}"),
        "arrays": t("left out, because hpo knows no such arrays: {of}"),
        "counting": t("columns that count the rows: {of}. Leave them out (ignore)?"),
        "telling": t("columns that determine the label alone: {of}. Are they made from it?"),
        "constant": t("columns of one value, which tell a network nothing: {of}"),
        "narrow": t("the test part spreads over under 1% of the trained range: {of}. Same unit?"),
        "in_both": t("rows that stand in both parts, to train on and to test on: {of}"),
    }
    found = {key: about[key] for key in texts if about.get(key)}
    return [f"{data['name']}: {texts[k].format(of=_several(v))}" for k, v in found.items()]


def _several(found: list[str] | int) -> str:
    return f"{found:,}" if isinstance(found, int) else listed(list(map(quoted, found[:LIST])))
