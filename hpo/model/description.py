"""What the config.toml of a `best/` folder says of the network beside it (no torch here)."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import InputError
from hpo.study.config import HYPERPARAMETERS, REQUIRED, Config

MODEL, CONFIG = "model.safetensors", "config.toml"
REMEDY = "give the `best` folder of a search's report"

# The bound on features only keeps a foreign file from taking the machine.
MOST_FEATURES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Description:
    """mean and deviation normalize pixels of 0 … 1, as in training."""

    config: Config
    features: int
    mean: float
    deviation: float
    dataset: str


def read(folder: Path) -> Description:
    """The description in a `best/` folder; InputError, naming the file, where it is none of hpo's.

    What it says beyond Description is for people.
    """
    path = folder / CONFIG
    said = _toml(path)
    _check(said, path)
    try:
        config = Config(**_hyperparameters(said.get("config")))
    except ValueError as error:
        raise InputError(f"{path}: config: was not written by hpo ({error}); {REMEDY}") from error
    return Description(
        config=config,
        features=said["features"],
        mean=said["mean"],
        deviation=said["deviation"],
        dataset=said["dataset"],
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}; {REMEDY}") from error


def _check(said: Mapping[str, Any], path: Path) -> None:
    kinds = {"features": int, "mean": float, "deviation": float, "dataset": str}
    faults = [
        f"{key}: no {kind.__name__}"
        for key, kind in kinds.items()
        if type(said.get(key)) is not kind
    ]
    if not faults and not 1 <= said["features"] <= MOST_FEATURES:
        faults = [f"features: must be between 1 and {MOST_FEATURES:,}"]
    if not faults and not (math.isfinite(said["mean"]) and 0 < said["deviation"] < math.inf):
        faults = ["mean, deviation: must be finite, the deviation above 0"]
    if faults:
        raise InputError(f"{path}: was not written by hpo ({'; '.join(faults)}); {REMEDY}")


def _hyperparameters(values: Any) -> dict[str, Any]:
    """ValueError unless `values` are named hyperparameters, all that are required among them."""
    if not isinstance(values, dict):
        raise ValueError("no table")
    missing = [name for name in REQUIRED if name not in values]
    unknown = [repr(name) for name in values if name not in HYPERPARAMETERS]
    if missing or unknown:
        raise ValueError(
            f"missing: {', '.join(missing) or '–'}; unknown: {', '.join(unknown) or '–'}"
        )
    return values
