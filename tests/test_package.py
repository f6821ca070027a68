"""The wheel holds what it needs, and folders import only what stands below them."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hpo
from hpo.study.file import shipped

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


@pytest.mark.slow
def test_installed_wheel_runs_its_studies_by_name_away_from_the_checkout(
    installed: Path, tmp_path: Path
):
    program = (
        "import hpo, hpo.study.file as s; print(hpo.__file__); "
        "print(*(f'{name}={s.load(name).name}' for name in s.shipped()))"
    )
    env = {**os.environ, "PYTHONPATH": str(installed)}
    file, studies = run(sys.executable, "-P", "-c", program, cwd=tmp_path, env=env).splitlines()
    assert Path(file) == installed / "hpo" / "__init__.py"
    assert studies.split() == [
        f"{name}={name}"
        for name in ("grid-report", "interactions", "noise", "precision", "search-wide", "search")
    ]


@pytest.mark.slow
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


# --- who may import whom -----------------------------------------------------------------------

# Each folder, and what it may import of hpo: folders and modules that stand below it here. SMALL
# tools are open to all.
RULES = {
    "cli": "start output options export watch model results storage data study",
    "api": "start options report report.sections report.blocks analysis model results storage "
    "study",
    "scikit": "start output watch report runs options workers analysis model results data study",
    "start": "session output options workers.server study",
    "session": "output watch runs options workers model results storage data study",
    "output": "watch report report.figures results",
    "export": "report.blocks analysis.statistics model results data study",
    "watch": "report.figures report.sections report.blocks runs workers.server analysis "
    "results storage study",  # the dashboard's process starts as a worker's
    "report": "report.sections report.blocks analysis model results study",
    "report.sections": "report.blocks report.figures analysis model results data study",
    "report.blocks": "analysis results study",
    "report.figures": "study",
    "objective": "runs.samplers training results.trial data study",
    "runs": "options workers analysis model results storage data study",
    "workers": "options training data study",
    "options": "study",
    "analysis": "results study",
    "model": "training results data study",
    "training": "data study",
    "results": "storage data study",
    "storage": "",
    "data": "study",
    "study": "",
}
SMALL = {"errors", "language", "text", "passwords", "process"}
TORCH = {
    "training",
    "objective",
    "export.winner",
    "model.weights",
    "workers.worker",
    "workers.loaded",
}
NO_OPTUNA = {"study", "data", "training", "model", "workers", "report.figures"}
MOST_FILES = 12

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
FOLDERS = {module.rpartition(".")[0] for module in MODULES} - {""}


def within(module: str, places: str | set[str]) -> bool:
    """Whether the module is one of these places or lies in one of these folders."""
    places = set(places.split()) if isinstance(places, str) else places
    return module in places or place_of(module) in places


def place_of(module: str) -> str:
    """Where the rules have the module: its folder, or itself at the top."""
    return module.rpartition(".")[0] or module


def imports(nodes: list[ast.AST]) -> set[str]:
    """The dotted names that these nodes import, of hpo the modules without "hpo."."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full.removeprefix("hpo.") in MODULES else str(node.module))
    return {name.removeprefix("hpo.") for name in found if name != "hpo"}


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


def broken_rules(imported: dict[str, set[str]]) -> list[str]:
    """The imports, module by module, that RULES do not allow."""
    return [
        f"{module} imports {other}"
        for module, others in imported.items()
        for other in sorted(others & set(MODULES))
        if place_of(other) not in {place_of(module), *SMALL}
        and not within(other, RULES[place_of(module)])
        and module not in SMALL
    ]


def test_folders_import_only_what_the_rules_allow():
    assert not broken_rules({m: imports(list(ast.walk(MODULES[m]))) for m in MODULES})


def test_a_broken_rule_is_found():
    assert broken_rules({"study.file": {"runs.plan"}, "runs.loop": {"workers.pool", "errors"}}) == [
        "study.file imports runs.plan"
    ]


def test_rules_point_downwards_and_know_every_folder():
    order = list(RULES)
    assert {place_of(module) for module in MODULES} <= {*order, *SMALL}
    for place, allowed in RULES.items():
        folders = {p if p in RULES else place_of(p) for p in allowed.split()}
        assert folders <= set(order[order.index(place) + 1 :]), place


def test_modules_import_each_other_in_no_circle():
    left = {m: imports(list(ast.walk(tree))) & set(MODULES) - {m} for m, tree in MODULES.items()}
    while left:
        free = {module for module, uses in left.items() if not uses & set(left)}
        assert free, f"a circle among {sorted(left)}"
        left = {module: uses for module, uses in left.items() if module not in free}


@pytest.mark.parametrize("folder", sorted({*FOLDERS, ""}))
def test_a_folder_has_at_most_12_files(folder: str):
    files = [
        path
        for path in PACKAGE.joinpath(*folder.split(".")).glob("*.py")
        if path.name != "__init__.py"
    ]
    assert 0 < len(files) <= MOST_FILES


def test_few_folders_know_optuna():
    outside = {m: {name.split(".")[0] for name in imports(at_top(m))} for m in MODULES}
    users = {module for module, packages in outside.items() if "optuna" in packages}
    assert not {module for module in users if place_of(module) in NO_OPTUNA}
    assert {"runs.study", "storage.open"} <= users


def loaded_with(module: str) -> set[str]:
    """The top-level packages outside hpo that importing the module loads, through hpo's too."""
    waiting, seen, outside = [module], set(), set()
    while waiting:
        current = waiting.pop()
        if current in seen or current not in MODULES:
            continue
        seen.add(current)
        names = imports(at_top(current))
        waiting += names & set(MODULES)
        outside |= {name.split(".")[0] for name in names - set(MODULES)}
    return outside


def test_torch_is_loaded_by_few_modules():
    """The process of a run and of a report never loads it: two seconds, and memory."""
    users = {m for m in MODULES if loaded_with(m) & {"torch", "torchvision"}}
    assert {module for module in users if not within(module, TORCH)} == set()
    assert {"workers.worker", "training.train"} <= users


# --- the test images ---------------------------------------------------------------------------


def readers_of(attribute: str) -> set[str]:
    return {
        module
        for module in MODULES
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Attribute) and node.attr == attribute
    }


def test_nothing_in_the_repository_chooses_by_test_figures():
    for path in shipped().values():
        comments = [line for line in path.read_text("utf-8").splitlines() if "#" in line]
        chosen = [line for line in comments if "est accuracy" in line or "est loss" in line]
        assert not chosen or path.stem == "grid-report", f"{path}: {chosen}"
    for path in (ROOT / "tests/benchmarks").glob("*.py"):
        assert not re.search(r"test_(accuracy|loss)", path.read_text("utf-8")), path
    for module in ("runs.search", "runs.samplers", "study.finalists", "analysis.selection"):
        names = {n.attr for n in ast.walk(MODULES[module]) if isinstance(n, ast.Attribute)}
        words = {n.value for n in ast.walk(MODULES[module]) if isinstance(n, ast.Constant)}
        assert not {name for name in names | words if str(name).startswith("test_")}, module


def test_test_images_have_a_single_door():
    assert readers_of("test_images") == {"workers.worker", "data.datasets"}
    counting = {"cli", "runs.study", "runs.runner"}  # they count them: len(dataset.test_labels)
    assert readers_of("test_labels") <= {"workers.worker", "data.datasets"} | counting
    functions = [
        node for node in MODULES["data.datasets"].body if isinstance(node, ast.FunctionDef)
    ]
    users = {f.name for f in functions if "dataset.test_" in ast.unparse(f)}
    described = {"describe", "_of_classes", "_of_targets", "_rare"}
    assert users == {"check", "repeated", "test_pictures"} | described, (
        "their form, the data card, and for a report"
    )
    for module in counting:
        for node in ast.walk(MODULES[module]):
            parts = [] if is_count(node) else list(ast.iter_child_nodes(node))
            names = {part.attr for part in parts if isinstance(part, ast.Attribute)}
            assert not names & {"test_labels"}, f"{module}: {ast.unparse(node)}"


def is_count(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"
