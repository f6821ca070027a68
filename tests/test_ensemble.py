"""The saved ensemble: networks of the winner's configuration, whose probabilities are averaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import safetensors.torch
import torch
from conftest import Ended
from own_runs import flowers, once, study

from hpo.data import inputs
from hpo.data.files import load
from hpo.model import folder, weights
from hpo.study.source import Source
from hpo.training.modules import mlp

MEMBERS = 3
BEST = Path("reports/members/best")


def prepare(place: Path) -> None:
    """A task so hard that networks differ."""
    frame = flowers()[["petal", "sepal", "kind"]]
    noise = np.random.default_rng(0).normal(0, [2.0, 99.0], (len(frame), 2))
    frame[["petal", "sepal"]] += noise
    frame.to_csv(place / "flowers.csv", index=False)
    text = study('{ file = "flowers.csv", label = "kind" }')
    text = text.replace("[finalists]\n", f"[finalists]\nmembers = {MEMBERS}\n")
    (place / "members.toml").write_text(text)


@pytest.fixture
def members(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    ended = once(tmp_path_factory, "members", prepare, "--quiet")
    assert ended.answer.code == 0, ended.answer.err
    return ended


def by_hand(best: Path, rows: np.ndarray) -> np.ndarray:
    """The mean of the probabilities of the networks in the file."""
    about = folder.read(best)
    saved = safetensors.torch.load_file(best / "ensemble.safetensors")
    found = []
    for member in range(MEMBERS):
        network = mlp(about.config, about.schema.features, 3)
        start = f"{member}."
        network.load_state_dict(
            {k.removeprefix(start): v for k, v in saved.items() if k.startswith(start)}
        )
        with torch.no_grad():
            found.append(network.eval()(torch.from_numpy(rows)).softmax(1).numpy())
    assert np.abs(found[0] - found[1]).max() > 1e-3, "they are trained from different seeds"
    return np.mean(found, axis=0)


def test_the_ensemble_is_the_mean_of_its_networks_and_the_first_is_the_winner(members: Ended):
    best, table = members.folder / BEST, members.folder / "flowers.csv"
    rows = inputs.read([table], folder.read(best).schema).rows
    together = weights.load(best, ensemble=True)
    np.testing.assert_allclose(together.answers(rows), by_hand(best, rows), atol=1e-6)
    alone, first = weights.load(best), together.networks[0]
    for name, weight in alone.network.state_dict().items():
        torch.testing.assert_close(weight, first.state_dict()[name], rtol=0, atol=0)


def test_its_test_accuracy_is_stored_and_told(members: Ended):
    dataset = load(Source(str(members.folder / "flowers.csv"), label="kind"))
    found = by_hand(members.folder / BEST, dataset.test_images).argmax(1)
    accuracy = float((found == dataset.test_labels).mean())
    storage = f"sqlite:///{members.folder / 'hpo.db'}"
    stored = optuna.load_study(study_name="members", storage=storage).user_attrs["ensemble"]
    assert stored["members"] == MEMBERS
    assert stored["test_accuracy"] == pytest.approx(accuracy)
    report = (members.folder / "reports/members/report.md").read_text()
    assert f"has a test accuracy of {100 * accuracy:.2f}%" in report


def test_predict_takes_it_if_asked(members: Ended, hpo: Callable, tmp_path: Path):
    shutil.copytree(members.folder, tmp_path, dirs_exist_ok=True)
    answer = hpo("predict", str(BEST), "flowers.csv", "--ensemble")
    rows = inputs.read([tmp_path / "flowers.csv"], folder.read(tmp_path / BEST).schema).rows
    expected = by_hand(tmp_path / BEST, rows)
    told = [line.split("\t") for line in answer.out.splitlines()]
    np.testing.assert_allclose([float(t[2]) for t in told], expected.max(1), atol=1e-4)
    damaged = tmp_path / BEST / "ensemble.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"\0\0\0\0")
    refused = hpo("predict", str(BEST), "flowers.csv", "--ensemble")
    assert (refused.code, "ensemble.safetensors" in refused.err) == (2, True)
    assert "nothing was left" not in hpo("run", "members.toml", "--quiet").err


def test_other_members_are_trained_and_none_deletes_the_ensemble(
    members: Ended, hpo: Callable, tmp_path: Path
):
    shutil.copytree(members.folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "members.toml"
    file.write_text(file.read_text().replace(f"members = {MEMBERS}\n", ""))
    assert hpo("run", "members.toml", "--quiet").code == 0
    assert not (tmp_path / BEST / "ensemble.safetensors").exists()
    assert "ensemble of" not in (tmp_path / "reports/members/report.md").read_text()
    refused = hpo("predict", str(BEST), "flowers.csv", "--ensemble")
    assert (refused.code, "members = 8" in refused.err) == (2, True)
