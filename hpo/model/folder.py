"""The `best/` folder: the winner's weights and the config.toml that describes them (no torch)."""

import math
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from hpo.data.datasets import DIGITS, normalization
from hpo.errors import InputError
from hpo.study.config import HYPERPARAMETERS, REQUIRED, SEED, Config

MODEL, CONFIG = "model.safetensors", "config.toml"
REMEDY = "give the `best` folder of a search's report"

# The bound on features only keeps a foreign file from taking the machine.
MOST_FEATURES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Description:
    """The description of a saved network.

    classes: their names. shape: of an image, () for a row of a table. mean and std normalize the
    features, a number for all or one for each. pixels: whether the features are pixels, scaled to
    0 … 1 before.
    """

    config: Config
    features: int
    mean: Any
    std: Any
    dataset: str
    classes: tuple[str, ...] = DIGITS
    shape: tuple[int, ...] = ()
    pixels: bool = True


def read(folder: Path) -> Description:
    """Reads the description in a `best/` folder. Raises InputError that names the file if hpo did
    not write it."""
    path = folder / CONFIG
    content = _toml(path)
    _check(content, path)
    if isinstance(content.get("config"), dict) and (made := content["config"].get("model")):
        raise InputError(
            f"{path}: is a network of {made!r}, whose code hpo does not run here; the report says "
            "how to load it in Python"
        )
    try:
        config = Config(**_hyperparameters(content.get("config")))
    except ValueError as error:
        raise InputError(f"{path}: config: was not written by hpo ({error}); {REMEDY}") from error
    return Description(
        config=config,
        features=content["features"],
        mean=content["mean"],
        std=content["deviation"],
        dataset=content["dataset"],
        classes=tuple(content.get("classes", DIGITS)),
        shape=tuple(content.get("shape", ())),
        pixels=content.get("pixels", True),
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}; {REMEDY}") from error


def _check(content: Mapping[str, Any], path: Path) -> None:
    listed = [key for key in ("mean", "deviation") if isinstance(content.get(key), list)]
    kinds = {"features": int, "mean": float, "deviation": float, "dataset": str, "pixels": bool}
    content = {"pixels": True, **content}
    faults = [
        f"{key}: no {kind.__name__}"
        for key, kind in kinds.items()
        if type(content.get(key)) is not kind and key not in listed
    ]
    if not faults and not 1 <= content["features"] <= MOST_FEATURES:
        faults = [f"features: must be between 1 and {MOST_FEATURES:,}"]
    if not faults and not all(
        _are_numbers(content.get(key), content["features"], above)
        for key, above in (("mean", -math.inf), ("deviation", 0.0))
    ):
        faults = ["mean, deviation: must be finite, the deviation above 0"]
    if not faults and not _is_list(content.get("classes", ["a", "b"]), str, 2):
        faults = ["classes: no list of names"]
    if not faults and not _has_shape(content.get("shape", []), content["features"]):
        faults = ["shape: does not belong to the features"]
    if faults:
        raise InputError(f"{path}: was not written by hpo ({'; '.join(faults)}); {REMEDY}")


def _is_list(value: Any, kind: type, least: int = 0) -> bool:
    return isinstance(value, list) and len(value) >= least and all(type(v) is kind for v in value)


def _are_numbers(value: Any, features: int, above: float) -> bool:
    """Whether a value is a finite number, or a list of one for each feature, all above a bound."""
    numbers = value if _is_list(value, float, features) and len(value) == features else [value]
    return all(type(v) is float and math.isfinite(v) and v > above for v in numbers)


def _has_shape(value: Any, features: int) -> bool:
    return value == [] or (_is_list(value, int) and math.prod(value) == features)


def _hyperparameters(values: Any) -> dict[str, Any]:
    """Returns the hyperparameters. Raises ValueError for other names and for missing ones."""
    if not isinstance(values, dict):
        raise ValueError("no table")
    missing = [name for name in REQUIRED if name not in values]
    unknown = [repr(name) for name in values if name not in HYPERPARAMETERS]
    if missing or unknown:
        raise ValueError(
            f"missing: {', '.join(missing) or '–'}; unknown: {', '.join(unknown) or '–'}"
        )
    return values


# --- writing -----------------------------------------------------------------------------------


class Unsaved(Exception):  # noqa: N818
    """The winner is trained, but its folder could not be written."""


def describe_winner(
    study: str, trial: int, config: Config, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the content of config.toml. data: see runs.study.describe."""
    mean, std = normalization(data)
    return {
        "study": study,
        "trial": trial,
        "dataset": data["name"],
        "dataset_checksum": data["checksum"],
        "trained_on": data["train"] + data["valid"],
        "seed": SEED,
        "features": data["features"],
        "mean": mean,
        "deviation": std,
        **_form(data),
        "config": config.given(),
    }


def _form(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns classes, shape and pixels where they are not those of the digits that older folders
    hold."""
    form = {"classes": list(DIGITS), "shape": [28, 28], "pixels": True}
    return {key: data[key] for key, value in form.items() if data.get(key, value) != value}


def is_there(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether the folder holds exactly this network already."""
    try:
        stored = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stored == content and (folder / MODEL).is_file()


def write(folder: Path, model: bytes, content: Mapping[str, Any]) -> None:
    """Writes the model, then config.toml, each of them complete or not at all. Raises Unsaved."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        _replace(folder / MODEL, model)
        _replace(folder / CONFIG, tomli_w.dumps(content).encode())
    except OSError as error:
        reason = f"{folder}: the winner could not be saved ({error.strerror or error})"
        raise Unsaved(f"{reason}; the same command trains and saves it again") from error


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as beside:
        try:
            beside.write(content)
            beside.close()
            os.chmod(beside.name, 0o644)
            os.replace(beside.name, path)
        except BaseException:
            os.unlink(beside.name)
            raise
