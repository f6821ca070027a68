"""The wheel holds what it needs, and the modules import each other downwards only."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hpo
from hpo.study_file import shipped

PACKAGE = Path(hpo.__file__).parent
ROOT = PACKAGE.parent


# --- the wheel ---------------------------------------------------------------------------------


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    ended = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare folder that a freshly built wheel was unpacked into."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", wheels, ROOT, cwd=wheels)
    [wheel] = wheels.glob("*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=wheels)
    return target


def test_installed_wheel_runs_its_studies_by_name_away_from_the_checkout(
    installed: Path, tmp_path: Path
):
    program = (
        "import hpo, hpo.study_file as s; print(hpo.__file__); "
        "print(*(f'{name}={s.load(name).name}' for name in s.shipped()))"
    )
    env = {**os.environ, "PYTHONPATH": str(installed)}
    file, studies = run(sys.executable, "-P", "-c", program, cwd=tmp_path, env=env).splitlines()
    assert Path(file) == installed / "hpo" / "__init__.py"
    assert studies.split() == [f"{name}={name}" for name in ("grid-report", "noise", "search")]


def test_wheel_holds_every_module_template_and_study_file(installed: Path):
    sources = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sources
    for source in sources:
        copy = installed / "hpo" / source.relative_to(PACKAGE)
        assert copy.read_bytes() == source.read_bytes()
    for name, path in shipped().items():
        assert (installed / "hpo" / "studies" / f"{name}.toml").read_bytes() == path.read_bytes()
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top - {"bin"} == {"hpo"}


# --- the import table --------------------------------------------------------------------------

MODULES = {path.stem: ast.parse(path.read_text("utf-8")) for path in PACKAGE.glob("*.py")}
KNOW_OPTUNA = {
    "best", "cli", "dashboard", "fanova", "finalists", "importance", "journal", "lock", "loop",
    "note", "objective", "patience", "pictures", "plan", "results", "reading", "runner", "samplers",
    "search", "space", "storage", "watching",
}  # fmt: skip
LOAD_NO_TORCH = (
    "report",
    "figures",
    "statistics",
    "runner",
    "pool",
    "search_report",
    "importance",
    "images",
    "description",
    "snippet",
    "study_file",
    "data",
    "cli",
)
# What a module of the lower floors may import of hpo; the others stand above all of these.
LOWER_FLOORS = {
    "errors": {"passwords"},
    "config": {"errors"},
    "statistics": set(),
    "svg": set(),
    "hover": {"svg"},
    "forecast": set(),
    "figures": {"statistics", "errors", "hover", "svg"},
    "trial_picture": {"figures"},
    "search_figures": {"figures", "hover", "svg"},
    "network_figures": {"figures", "hover", "search_figures"},
    "space_figures": {"figures", "hover", "search_figures"},
    "contour": {"figures", "hover", "search_figures", "space_figures"},
    "description": {"config", "errors"},
    "snippet": {"config"},
    "images": {"errors"},
    "fanova": set(),
    "importance": {"fanova"},
    "space": {"config", "errors"},
    "claims": {"errors"},
    "verdicts": {"statistics"},
    "study_file": {"claims", "config", "space", "errors"},
    "network": {"config", "errors"},
    "diagnosis": {"network"},
    "optimizers": {"config"},
    "training": {"diagnosis", "network", "optimizers", "config", "errors"},
    "cause_figures": {"figures", "hover"},
    "data": {"config", "errors"},
    "journal": {"errors"},
    "passwords": set(),
    "process": set(),
    "storage": {"errors", "journal", "passwords"},
    "patience": {"errors", "storage"},
    "lock": {"errors"},
    "messages": {"config"},
    "shared_data": {"data"},
}


def imports(nodes: list[ast.AST]) -> set[str]:
    """The dotted names that these nodes import; `from hpo import x` is hpo.x."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "hpo" else {str(node.module)}
    return found


def of_hpo(nodes: list[ast.AST]) -> set[str]:
    return {name.split(".")[1] for name in imports(nodes) if name.startswith("hpo.")}


def everywhere(module: str) -> list[ast.AST]:
    return list(ast.walk(MODULES[module]))


def at_top(module: str) -> list[ast.AST]:
    """What runs when the module is imported: its body, without functions and type-check blocks."""
    nodes: list[ast.AST] = []
    waiting: list[ast.AST] = [MODULES[module]]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
    return nodes


@pytest.mark.parametrize("module", sorted(LOWER_FLOORS))
def test_module_imports_nothing_of_hpo_above_it(module: str):
    assert of_hpo(everywhere(module)) <= LOWER_FLOORS[module]


def test_lower_floors_import_downwards_only():
    """The table itself goes round in no circle."""
    left = dict(LOWER_FLOORS)
    while left:
        free = {module for module, uses in left.items() if not uses & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {module: uses for module, uses in left.items() if module not in free}


def test_nothing_imports_the_commands():
    users = {module for module in MODULES if "cli" in of_hpo(everywhere(module))}
    assert users <= {"__main__"}


def test_optuna_is_known_to_few():
    users = {
        module
        for module in MODULES
        if any(name.split(".")[0].startswith("optuna") for name in imports(everywhere(module)))
    }
    assert users <= KNOW_OPTUNA
    assert {"runner", "storage"} <= users


def loaded_with(module: str) -> set[str]:
    """The top-level packages outside hpo that importing the module loads, through hpo's too."""
    waiting, seen, outside = [module], set(), set()
    while waiting:
        current = waiting.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        nodes = at_top(current)
        waiting += of_hpo(nodes)
        outside |= {name.split(".")[0] for name in imports(nodes)} - {"hpo"}
    return outside


@pytest.mark.parametrize("module", LOAD_NO_TORCH)
def test_module_loads_without_torch(module: str):
    assert not loaded_with(module) & {"torch", "torchvision"}


def test_the_search_for_imports_finds_torch_where_it_is():
    assert "torch" in loaded_with("worker")


def readers_of(attribute: str) -> set[str]:
    return {
        module
        for module in MODULES
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Attribute) and node.attr == attribute
    }


def test_test_images_have_a_single_door():
    assert readers_of("test_images") == {"worker", "data"}
    counting = {"cli", "runner"}  # they count the labels: len(dataset.test_labels)
    assert readers_of("test_labels") <= {"worker", "data"} | counting
    functions = [node for node in MODULES["data"].body if isinstance(node, ast.FunctionDef)]
    users = {f.name for f in functions if "dataset.test_" in ast.unparse(f)}
    assert users == {"check"}, "their form alone"
    for module in counting:
        for node in ast.walk(MODULES[module]):
            parts = [] if is_count(node) else list(ast.iter_child_nodes(node))
            names = {part.attr for part in parts if isinstance(part, ast.Attribute)}
            assert not names & {"test_labels"}, f"{module}: {ast.unparse(node)}"


def is_count(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"
