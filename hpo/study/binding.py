"""What a stored study is bound to: how two bindings differ, and the code of one's own network."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from hpo.errors import InputError

# Keys that earlier versions did not bind, and what they stood for there; None: for whatever is
# given now. A module of the user's own got the colours of a picture in the wrong order then.
ADDED: dict[str, str | int | None] = {
    "classes": None,
    "input": None,
    "normalization": None,
    "model code": None,
    "first seed": 0,
    "objective": "valid_accuracy",
    "class weight": "none",
    "precision": "float32",
    "model input": "(height, width, 3), taken as (3, height, width)",
}
# Without these, the results of two studies cannot be compared.
DATA = ("dataset checksum", "classes", "target", "input", "normalization")
MODEL = ("model", "model code", "model input")
JUDGED = ("objective", "class weight")  # how networks are trained and judged


def differences(
    stored: Mapping[str, Any], given: Mapping[str, Any], keys: tuple[str, ...] | None = None
) -> dict[str, tuple[Any, Any]]:
    """Returns {key: (stored, given)} of what differs. keys: those that count; None: all."""
    stored, given = _completed(stored, given), _completed(given, stored)
    return {
        key: (stored.get(key, "nothing"), given.get(key, "nothing"))
        for key in dict.fromkeys([*stored, *given])
        if stored.get(key) != given.get(key) and (keys is None or key in keys)
    }


def _completed(bound: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the binding with the keys that an earlier version did not have."""
    there = {key: was for key, was in ADDED.items() if key in other}
    return {**{key: other[key] if was is None else was for key, was in there.items()}, **bound}


# --- the code of a network of one's own ----------------------------------------------------------


def code_of(model: str, folder: str) -> dict[str, str]:
    """Returns {path: text} of the module that a factory, "module:function", lies in, and of the
    modules that it imports from the same folder or package. Nothing of it is run.

    folder: where the module lies, if it is not installed. Raises InputError if it is not found.
    """
    module = model.partition(":")[0]
    top = module.partition(".")[0]
    spec = PathFinder.find_spec(top, [folder]) if folder else None
    installed = spec is None
    try:
        spec = spec or importlib.util.find_spec(top)  # which imports nothing
    except ValueError:
        spec = None
    if spec is None:
        raise InputError(f"model {model}: No module named {top!r}")
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    root = Path(places[0]).parent
    package = top if installed else ""  # of what is installed, the package alone
    library = "site-packages" in root.parts  # as it was released: only the module itself
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        for path in _files(root, waiting.pop(), package):
            name = path.relative_to(root).as_posix()
            if name not in found:
                found[name] = _text(path, model)
                waiting += [] if library else _imported(found[name], name)
    return dict(sorted(found.items()))


def code_digest(code: Mapping[str, str]) -> str:
    """Returns the modules with the SHA-256 of their texts, 16 digits each."""
    texts = {name: text.encode("utf-8", "surrogatepass") for name, text in sorted(code.items())}
    return ", ".join(f"{n} {hashlib.sha256(text).hexdigest()[:16]}" for n, text in texts.items())


def _files(root: Path, module: str, package: str) -> Iterator[Path]:
    """Yields the files of a module and of the packages around it, if they lie under the root.
    package: the only one whose files count, if not empty."""
    parts = module.split(".")
    if package and parts[0] != package:
        return
    for end in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:end])
        yield from (p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file())


def _text(path: Path, model: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"model {model}: {path}: cannot be read ({reason})") from error


def _imported(text: str, name: str) -> list[str]:
    """Returns the names that a module's text may import; name: its path, for relative imports."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return []  # its import says what is wrong
    package = Path(name).parent.parts
    names = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    # import_module("name"): each text may name a module.
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    names += [text for text in texts if all(part.isidentifier() for part in text.split("."))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*around, *([node.module] if node.module else [])))
            names += [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
    return names
