"""The `best/` folder: the winner's weights and the config.toml that describes them (no torch).

Whoever hands out a saved network asks here whose network it is: `read` for a folder alone,
`holds_winner` and `require_winner` for the winner of a stored search.
"""

import hashlib
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tomli_w
from pydantic import Field, ValidationError

from hpo.data.schema import MOST_FEATURES, Deviation, Number, Schema
from hpo.errors import InputError
from hpo.process import replacing
from hpo.study.config import DEFAULTS, HYPERPARAMETERS, REQUIRED, Config
from hpo.study.fields import faults
from hpo.study.names import OPTIMIZERS

if TYPE_CHECKING:
    from hpo.results.study import StoredGrid, StoredSearch

MODEL, CONFIG, CODE = "model.safetensors", "config.toml", "code"
ENSEMBLE = "ensemble.safetensors"
REMEDY = "give the `best` folder of a search's report"


@dataclass(frozen=True, kw_only=True)
class Description:
    """The description of a saved network. weights: the SHA-256 of its file; empty in older ones.
    temperature: what its logits are divided by for probabilities; 1 in older ones. members,
    ensemble: how many networks the ensemble has, and the SHA-256 of its file; 1 and empty without
    one."""

    config: Config
    schema: Schema
    weights: str = ""
    temperature: float = 1.0
    members: int = 1
    ensemble: str = ""


def read(folder: Path) -> Description:
    """Reads the description in a `best/` folder. Raises InputError that names the file if hpo did
    not write it."""
    path = folder / CONFIG
    content = _toml(path)
    config = content.get("config")
    if isinstance(config, dict) and (made := config.get("model")):
        raise InputError(
            f"{path}: is a network of {made!r}, whose code hpo does not run here; the report says "
            "how to load it in Python"
        )
    try:
        saved = SavedNetwork.model_validate(content)
        config = Config.of(_hyperparameters(saved.config))
    except ValidationError as error:
        raise InputError(f"{path}: was not written by hpo ({faults(error)}); {REMEDY}") from error
    except ValueError as error:
        raise InputError(f"{path}: config: was not written by hpo ({error}); {REMEDY}") from error
    schema = Schema.of({**content, "std": content["deviation"]})
    digests: Any = {"weights": saved.weights, "ensemble": saved.ensemble}
    more: Any = {"members": saved.members, "temperature": saved.temperature}
    return Description(config=config, schema=schema, **more, **digests)


class SavedNetwork(Schema):
    """What config.toml says of a network, see winner_of."""

    features: Annotated[int, Field(ge=1, le=MOST_FEATURES)]
    mean: Number | tuple[Number, ...]
    std: Annotated[Deviation | tuple[Deviation, ...], Field(alias="deviation")]
    dataset: str
    weights: str = ""
    ensemble: str = ""
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    members: Annotated[int, Field(ge=1, le=100)] = 1
    token: str = ""
    config: Any = None


def _toml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no file; {REMEDY}")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {REMEDY}") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid TOML: {error}; {REMEDY}") from error


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


# --- whose network it is -----------------------------------------------------------------------


def winner_of(study: "StoredSearch") -> dict[str, Any] | None:
    """Returns the content of config.toml for a stored search's winner; None before there is one."""
    if study.winner is None:
        return None
    schema, temperature = study.schema.as_dict(), study.winner.temperature
    schema["deviation"] = schema.pop("std")
    return {
        "study": study.name,
        "trial": study.winner.number,
        **study.bound_to,
        "dataset": study.data["name"],
        "dataset_checksum": study.data["checksum"],
        "trained_on": study.data["train"] + study.data["valid"],
        "seed": study.file.first_seed,
        **({"members": study.file.members} if study.file.members > 1 else {}),
        **study.file.judged,
        **({"epoch": study.winner.cut} if study.winner.cut else {}),
        **({} if temperature is None else {"temperature": temperature}),
        **schema,
        "config": used(study.winner.config.as_dict()),
    }


def used(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters with the momentum that the optimizer has of itself."""
    own = OPTIMIZERS[config["optimizer"]].momentum if config.get("optimizer") in OPTIMIZERS else 0
    return {**config, "momentum": config.get("momentum") or own} if own else dict(config)


def holds_winner(folder: Path, content: Mapping[str, Any] | None) -> bool:
    """Whether the folder holds exactly this network, complete. content: see winner_of; None if
    there is no winner. What a folder of an earlier version does not say is no difference."""
    try:
        stored, model = _toml(folder / CONFIG), folder / MODEL
        weights = _digest(model.read_bytes() if model.is_file() else b"")
        members = stored.get("members", 1) > 1
        ensemble = _digest((folder / ENSEMBLE).read_bytes()) if members else None
    except (OSError, InputError):
        return False
    if content is None or stored.get("weights", weights) != weights:
        return False
    if stored.get("ensemble") != ensemble or stored.get("members", 1) != content.get("members", 1):
        return False
    wanted = tomllib.loads(tomli_w.dumps(content))  # lists for tuples
    for each in (stored, wanted):
        # Folders of earlier versions leave out what has its default.
        each["config"] = used({**DEFAULTS, **each.get("config", {})})
    return all(stored[key] == value for key, value in wanted.items() if key in stored)


def require_winner(folder: Path, study: "StoredSearch") -> None:
    """Raises InputError unless the folder holds the winner of the stored search."""
    content = winner_of(study)
    if content is None:
        fault = f"study {study.name!r}: has no winner yet"
    elif not (folder / CONFIG).exists():
        fault = f"{folder}: the winner is not saved there"
    elif not holds_winner(folder, content):
        winner = f"the winner of study {study.name!r}, trial {content['trial']}"
        fault = f"{folder}: holds another network than {winner}"
    else:
        return
    raise InputError(f"{fault}; `hpo run` of study {study.name!r} trains and saves it")


def winner_lines(folder: Path, study: "StoredGrid | StoredSearch") -> list[str]:
    """Returns a line on the folder: that it holds the winner of a search, or another network; empty
    if there is neither."""
    from hpo.results.study import StoredSearch

    content = winner_of(study) if isinstance(study, StoredSearch) else None
    if content is None or not (folder / CONFIG).exists():
        return []
    holds = holds_winner(folder, content)
    return [f"{folder} has {'the winner' if holds else 'another network than the winner'}"]


# --- writing -----------------------------------------------------------------------------------


class Unsaved(Exception):  # noqa: N818
    """The winner is trained, but its folder could not be written."""


def write(
    folder: Path,
    model: bytes,
    content: Mapping[str, Any],
    code: Mapping[str, str] | None = None,
    ensemble: bytes | None = None,
) -> None:
    """Writes the model, the ensemble if there is one, and the modules of the user's own network,
    then config.toml, each of them complete or not at all. Raises Unsaved."""
    digests = {"weights": _digest(model), **({"ensemble": _digest(ensemble)} if ensemble else {})}
    content = {**digests, **content}
    try:
        remove(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (code or {}).items():
            (folder / CODE / name).parent.mkdir(parents=True, exist_ok=True)
            _write(folder / CODE / name, text.encode())
        _write(folder / MODEL, model)
        if ensemble:
            _write(folder / ENSEMBLE, ensemble)
        _write(folder / CONFIG, tomli_w.dumps(content).encode())
    except OSError as error:
        reason = f"{folder}: the winner could not be saved ({error.strerror or error})"
        raise Unsaved(f"{reason}; the same command trains and saves it again") from error


def remove(folder: Path) -> None:
    """Deletes a saved winner; config.toml first, so that no other network is taken for it."""
    for name in (CONFIG, MODEL, ENSEMBLE):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / CODE, ignore_errors=True)
    with suppress(OSError):  # it is not there, or holds something else
        folder.rmdir()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as scratch:
        scratch.write_bytes(content)
