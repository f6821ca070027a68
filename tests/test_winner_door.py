"""Whether `best/` holds the stored study's winner: handed out if it does, refused if not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Answer, Ended
from own_runs import MODULES, flowers_run, hpo_in, pets_run

import hpo as api
from hpo.errors import InputError

WEIGHTS = "model.safetensors"


@pytest.fixture
def flowers(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy of the folder of a whole search on a table."""
    return copied(flowers_run(tmp_path_factory), tmp_path)


@pytest.fixture
def pets(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy of the folder of a whole search over a network of one's own."""
    return copied(pets_run(tmp_path_factory), tmp_path)


def copied(ended: Ended, folder: Path) -> Path:
    assert ended.answer.code == 0, ended.answer.err
    shutil.copytree(ended.folder, folder, dirs_exist_ok=True)
    return folder


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and its content."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def load(folder: Path) -> api.Result:
    url, out = f"sqlite:///{folder}/hpo.db", folder / "reports"
    return api.load("flowers", storage=url, out=out)


def refused(answer: Answer) -> bool:
    return answer.code == 2 and len(answer.err.splitlines()) == 1


def offered(folder: Path, name: str) -> bool:
    """Whether the report says how to use the saved winner."""
    text = (folder / f"reports/{name}/report.md").read_text("utf-8")
    return f"best/{WEIGHTS}" in text


def test_a_finished_study_on_a_table_runs_nothing_and_leaves_its_winner_alone(
    hpo: Callable, flowers: Path
):
    before = files(flowers / "reports/flowers/best")
    trials = pd.read_csv(flowers / "reports/flowers/trials.csv")
    answer = hpo("run", "flowers.toml", "--quiet")
    assert answer.code == 0, answer.err
    assert files(flowers / "reports/flowers/best") == before
    again = pd.read_csv(flowers / "reports/flowers/trials.csv")
    pd.testing.assert_frame_equal(again, trials)
    assert offered(flowers, "flowers")
    network = load(flowers).winner
    assert network(torch.zeros(2, 5)).shape == (2, 3), "without what was left out"


def test_fresh_removes_the_old_winner(hpo: Callable, flowers: Path):
    """Also where the new run ends before it has one."""
    folder = flowers / "reports/flowers/best"
    answer = hpo("run", "flowers.toml", "--quiet", "--fresh", "--yes", "--timeout", "0")
    assert answer.code == 1, answer.err
    assert not any((folder / name).exists() for name in (WEIGHTS, "config.toml"))
    assert refused(hpo("export", "flowers", "--to", "torch-export"))
    assert not (flowers / "exports/flowers/winner.pt2").exists()
    with pytest.raises(InputError, match="flowers"):
        _ = load(flowers).winner


@pytest.fixture
def between(flowers: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A study whose finalists are trained, beside a winner of an earlier one, of 8 units in place
    of 4: as after a kill between finalists and winner."""
    old = tmp_path / "reports/flowers/best"
    kept = shutil.copytree(old, tmp_path / "kept")
    file = tmp_path / "flowers.toml"
    file.write_text(file.read_text().replace("width = 8", "width = 4"))
    answer = hpo_in(tmp_path, "run", "flowers.toml", "--quiet", "--fresh", "--yes")
    assert answer.code == 0, answer.err
    shutil.rmtree(old)
    kept.rename(old)
    return tmp_path


def test_the_winner_of_an_earlier_study_is_handed_out_by_nobody(hpo: Callable, between: Path):
    """As after a kill between finalists and winner. The same command saves the right one."""
    for kind in ("onnx", "torch-export"):
        assert refused(hpo("export", "flowers", "--to", kind)), kind
    assert not list((between / "exports").rglob("winner.*"))
    with pytest.raises(InputError, match=r"best|flowers"):
        _ = load(between).winner
    assert load(between).config.width == 4, "what is stored is not in doubt"
    assert hpo("run", "flowers.toml", "--quiet").code == 0
    assert next(load(between).winner.parameters()).shape == (4, 5)


def test_fresh_with_other_code_saves_other_weights(hpo: Callable, pets: Path):
    """All but the code is as it was. The old folder is no winner of the new study."""
    folder = pets / "reports/pets/best"
    kept = shutil.copytree(folder, pets / "kept")
    (pets / "petdeep.py").write_text(MODULES["petdeep.py"].replace("Tanh", "ReLU"))
    answer = hpo("run", "pets.toml", "--quiet", "--fresh", "--yes")
    assert answer.code == 0, answer.err
    assert offered(pets, "pets")
    assert (folder / WEIGHTS).read_bytes() != (kept / WEIGHTS).read_bytes()
    assert any("ReLU" in path.read_text("utf-8") for path in folder.rglob("*.py"))
    shutil.rmtree(folder)
    kept.rename(folder)
    assert hpo("report", "pets").code == 0
    assert not offered(pets, "pets")
