"""The data card: what a dataset is, in words, for the terminal and the report."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpo.data.schema import LIST, Schema, brief_names, is_picture
from hpo.language import marked, nt, t
from hpo.study.names import DATASETS, label
from hpo.text import listed, quoted

KINDS = {
    "bool": marked("true or false"), "int": marked("whole numbers"), "float": marked("numbers"),
    "category": marked("category"),
}  # fmt: skip
FEW = 0.1  # of the rows, in a part that is drawn in groups


def examples_of(data: Mapping[str, Any], part: str) -> str:
    """Returns how many examples stand in a part, "train" or "valid": about so many where they are
    drawn in groups, because seeds draw other groups."""
    text = f"{data[part]:,}"
    return t("about {n}", n=text) if data.get("about", {}).get("group") else text


def rows(data: Mapping[str, Any], folds: int = 0) -> list[tuple[str, str]]:
    """Returns (what, value) of a dataset. data: see datasets.describe. folds: of a search; 0:
    none."""
    schema, about = Schema.of(data), data.get("about", {})
    text = marked("{train} to train on, {valid} of them to validate on, {test} to test on")
    if folds:
        text = marked(
            "{train} to train on (trials: in {n} folds; finalists: {valid} of them to validate "
            "on), {test} to test on"
        )
    ends = {"train": f"{data['train'] + data['valid']:,}", "test": f"{data['test']:,}"}
    sizes = t(text, **ends, valid=examples_of(data, "valid"), n=folds)
    file = about.get("file") or t(label(DATASETS, data["name"]))
    found = [(t("Data"), file)]
    if about.get("test_file"):
        found.append((t("Test file"), about["test_file"]))
    if about.get("valid_file"):
        found.append((t("Validation file"), about["valid_file"]))
    if about.get("time"):
        found.append((t("Order of the rows"), t("by column {name}", name=quoted(about["time"]))))
    if about.get("group"):
        text = t(
            "by column {name}: those of one value stand in one part", name=quoted(about["group"])
        )
        found.append((t("Groups of rows"), text))
    found += [(t("Examples"), sizes), (t("Features"), _features(schema))]
    if schema.label:
        number = t("column {number}; the file has no header", number=schema.label)
        found.append((t("Label"), quoted(schema.label) if schema.header else number))
    if schema.target:
        return [*found, (t("Target"), _target(schema, about)), ("SHA-256", data["checksum"])]
    classes = t("Classes (to train on + to test on)") if "of_class" in about else t("Classes")
    return [*found, (classes, _classes(schema, about)), ("SHA-256", data["checksum"])]


def _target(schema: Schema, about: Mapping[str, Any]) -> str:
    """Returns the range, the mean and the standard deviation of a regression's target."""
    assert schema.target
    low, high = about["target_range"]["train"]
    text = marked("numbers from {low} to {high} (mean {mean}, standard deviation {deviation})")
    mean, deviation = schema.target

    def figure(value: float, digits: int) -> str:
        """Returns the number with the digits that the deviation needs: 1e9 + 2 is not 1e9."""
        far = abs(value) / deviation
        return f"{value:.{digits + math.floor(math.log10(far)) if far > 1 else digits}g}"

    ends = {"low": figure(low, 6), "high": figure(high, 6)}
    return t(text, **ends, mean=figure(mean, 4), deviation=f"{deviation:.4g}")


def _features(schema: Schema) -> str:
    if is_picture(schema.shape):
        size = " × ".join(map(str, schema.shape))
        kind = t("pixels of 0 … 1") if schema.pixels else t("numbers")
        return t("pictures of {size}, {kind}", size=size, kind=kind)
    names = f": {brief_names(schema.columns)}" if schema.columns and schema.header else ""
    kinds = {kind: schema.kinds.count(kind) for kind in KINDS}
    counts = ", ".join(f"{t(KINDS[kind])}: {n}" for kind, n in kinds.items() if n)
    text = f"{len(schema.columns) or schema.features}{f' ({counts})' if counts else ''}{names}"
    fed = schema.features
    return text + (
        nt(", fed as {n} number", ", fed as {n} numbers", fed)
        if schema.levels or schema.gaps
        else ""
    )


def columns(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (name, kind, what it holds) of each column of a table of the user's own."""
    schema, gaps = Schema.of(data), data.get("about", {}).get("gaps", {})
    if schema.pixels or schema.median is None:  # older studies
        return []
    place = {name: number for number, name in enumerate(schema.numbers)}
    found, ranges = [], [np.ravel(v or 0.0) for v in (schema.low, schema.high, schema.median)]
    for name, kind in zip(schema.columns, schema.kinds, strict=False):
        if name in schema.levels:
            levels = [level or t("(gap)") for level in schema.levels[name]]
            held = brief_names(levels) + (t("; rare ones as one") if name in schema.merged else "")
        else:
            low, high, median = (each[place[name]] for each in ranges)
            held = t("{low} to {high}", low=f"{low:g}", high=f"{high:g}")
        if number := gaps.get(name):
            held += "; " + nt("{n} gap", "{n} gaps", number)
        if name in schema.gaps:
            held += t(", filled with the median {value}", value=f"{median:g}")
        found.append((name, t(KINDS[kind]), held))
    return found


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
        "unnamed": t("columns left out, because they have no name: {of}"),
        "index": t("left out, because it is the index of the file: {of}"),
        "counted": t("left out, because they number the rows: {of}"),
        "ignored": t("left out, as the study file says (ignore): {of}"),
        "empty": t("left out, because they hold nothing: {of}"),
        "rare": t("left out, because each of their texts stands in under 1% of the rows: {of}"),
        "unlabelled": t("rows left out, because they have no label: {of}"),
        "inferred": t("the labels are fractions, so a number is predicted (task: regression)"),
        "arrays": t("left out, because hpo knows no such arrays: {of}"),
        "counting": t("columns that count the rows: {of}. Leave them out (ignore)?"),
        "telling": t("columns that determine the label alone: {of}. Are they made from it?"),
        "constant": t("columns of one value, which tell a network nothing: {of}"),
        "narrow": t("the test part spreads over under 1% of the trained range: {of}. Same unit?"),
        "duplicates": t("rows to train on that repeat another one: {of}"),
        "in_both": t("rows that stand in both parts, to train on and to test on: {of}"),
    }
    found = {key: about[key] for key in texts if about.get(key)}
    said = [texts[key].format(of=_several(value)) for key, value in found.items()]
    said += [t("test part: {what}", what=note) for note in about.get("test_notes", ())]
    said += [t("validation part: {what}", what=note) for note in about.get("valid_notes", ())]
    said += _uneven(data) if about.get("group") and "valid" in data else []
    return [f"{data['name']}: {text}" for text in said]


def _uneven(data: Mapping[str, Any]) -> list[str]:
    """Names the parts of few rows, because groups are few or large."""
    trained, test = data["train"] + data["valid"], data["test"]
    parts = [(t("validation part"), data["valid"], trained)]
    if test and not data["about"].get("test_file"):
        parts.append((t("test part"), test, trained + test))
    text = marked(
        "{part}: {count} of {n} rows, where a fifth was wanted, because groups are few or large. "
        "Its figures may be off"
    )
    few = [(part, count, n) for part, count, n in parts if count < FEW * n]
    return [t(text, part=part, count=f"{count:,}", n=f"{n:,}") for part, count, n in few]


def _several(found: list[str] | int) -> str:
    return f"{found:,}" if isinstance(found, int) else listed(list(map(quoted, found[:LIST])))
