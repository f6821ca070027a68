"""One temperature calibrates the winner's probabilities, and its class stays the same."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tomli_w
import torch
from in_process import InProcessPool
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

import hpo
from hpo.data.schema import Schema
from hpo.export.winner import to_onnx, to_program
from hpo.model import folder, weights
from hpo.model.snippet import snippet
from hpo.report.sections.finalists import _calibration
from hpo.results.load import load_study
from hpo.scikit import fit
from hpo.study.config import Config, Seeds
from hpo.study.metrics import TEMPERATURES
from hpo.training import evaluation
from hpo.training.modules import mlp
from hpo.training.network import Network
from hpo.training.tensors import Examples

SEEDS = 4


def hard(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that overlap."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    return rng.normal(0, 1.2, (n, 4)) + np.eye(3, 4)[labels], labels


@pytest.fixture
def made(monkeypatch, tmp_path) -> tuple[Any, Any]:
    """A classifier with its folder in tmp_path, and its search. It trains too long, so that its
    networks are too sure."""
    monkeypatch.setattr("hpo.workers.pool.LocalPool", InProcessPool)
    monkeypatch.setattr("hpo.workers.server.preload", lambda: None)
    kept: list[Any] = []
    monkeypatch.setattr(
        fit, "load_study", lambda storage, name: kept.append(load_study(storage, name)) or kept[-1]
    )
    space = {"depth": 1, "width": 64, "activation": "relu", "optimizer": "adam",
             "lr": [0.02, 0.03], "epochs": 40, "batch_size": 32}  # fmt: skip
    settings = {
        "search": {"seeds_per_trial": 1}, "finalists": {"k": 2, "seeds": SEEDS, "members": 2}
    }  # fmt: skip
    asked: Any = {"trials": 2, "workers": 1, "device": "cpu", "random_state": 0}
    asked |= {"space": space, "settings": settings, "ensemble": True, "out": tmp_path}
    fitted = hpo.Classifier(**asked).fit(*hard())
    return fitted, kept[-1]


def error_by_hand(chances: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error of Guo et al. (2017), as they define it: bins ((b-1)/15, b/15]
    of the greatest probability."""
    confidence, right, total = chances.max(1), chances.argmax(1) == labels, 0.0
    for b in range(1, 16):
        within = (confidence > (b - 1) / 15) & (confidence <= b / 15)
        if within.any():
            total += within.mean() * abs(right[within].mean() - confidence[within].mean())
    return total


def test_losses_and_errors_are_those_of_scipy_and_of_the_definition():
    x = torch.from_numpy(hard(700)[0].astype(np.float32))
    config = Config(depth=1, width=16, activation="relu", optimizer="adam", lr=0.01)
    network = Network(config, 4, 3, [Seeds.of(0), Seeds.of(1)], torch.device("cpu"))
    network.layers.flat.mul_(3)
    rows = torch.stack([torch.arange(600), torch.arange(100, 700)])
    logits = network.logits(x, torch.arange(700).expand(1, 2, -1).contiguous(), 3)[0].double()
    torch.manual_seed(0)  # labels as the first network says, were it less sure
    labels = (logits[0].T / 2.5).softmax(1).multinomial(1)[:, 0]
    found = evaluation.calibration(network, Examples(x, labels, 3), rows)
    for own, answers, each in zip(rows, logits, found, strict=True):
        check(each, answers.T[own].numpy(), labels[own].numpy())
    assert 2 < TEMPERATURES[np.argmin(found[0]["loss"])] < 3


def check(found: dict[str, list[float]], logits: np.ndarray, labels: np.ndarray) -> None:
    def loss(temperature: float) -> float:
        return -log_softmax(logits / temperature, 1)[np.arange(len(labels)), labels].mean()

    assert found["loss"] == pytest.approx([loss(t) for t in TEMPERATURES], rel=1e-5)
    errors = [error_by_hand(softmax(logits / t, 1), labels) for t in TEMPERATURES]
    assert found["error"] == pytest.approx(errors, abs=1e-6)
    best = minimize_scalar(lambda u: loss(np.exp(u)), bounds=(-1.3, 3.4), method="bounded").x
    chosen = np.log(TEMPERATURES[np.argmin(found["loss"])])
    assert best > 3.3 or abs(chosen - best) <= np.log(2) / 16, "a step of the grid"


def test_logits_that_are_no_numbers_have_no_temperature():
    logits = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    assert evaluation._at_temperatures(logits, torch.tensor([0, 1])) is None


def test_the_temperature_is_the_best_for_the_rows_of_all_fresh_seeds(made, tmp_path):
    _, search = made
    losses = search.winner.calibration["loss"]
    assert losses.shape == (SEEDS, len(TEMPERATURES))
    temperature = TEMPERATURES[losses.sum(0).argmin()]
    assert temperature > 1.5, "such networks are too sure"
    saved = tomllib.loads((tmp_path / "classifier/best/config.toml").read_text("utf-8"))
    assert saved["temperature"] == temperature
    # Without a temperature, the losses are those that training measured.
    last = search.winner.runs["valid_loss"].to_numpy()
    assert losses[:, TEMPERATURES.index(1.0)] == pytest.approx(last, rel=1e-5)


def test_predict_uses_it_for_one_network_and_its_class_stays(made, tmp_path):
    fitted, search = made
    best, rows = tmp_path / "classifier/best", fitted_rows(fitted)
    network = mlp(search.winner.config, 4, 3)
    network.load_state_dict(safetensors.torch.load_file(best / "model.safetensors"))
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(rows)).double().numpy()
    single = weights.load(best)
    expected = softmax(logits / search.winner.temperature, 1)
    assert single.answers(rows) == pytest.approx(expected, abs=1e-12)
    assert (single.answers(rows).argmax(1) == logits.argmax(1)).all()
    both = weights.load(best, ensemble=True)
    with torch.no_grad():
        each = [net(torch.from_numpy(rows)).softmax(1).numpy() for net in both.networks]
    assert both.answers(rows) == pytest.approx(np.mean(each, 0), abs=1e-6), "without it"


def fitted_rows(fitted: Any) -> np.ndarray:
    schema = fitted._saved.description.schema
    return schema.normalized(np.random.default_rng(1).normal(0, 2, (200, 4)))


def test_a_tiny_lead_stays_a_lead():
    """In single precision, division by the temperature would make some classes equal."""
    lead = torch.tensor([[0.1, float(np.nextafter(np.float32(0.1), 1, dtype=np.float32))]])
    about = folder.Description(config=None, schema=Schema(), temperature=3.7)
    assert (
        weights.Saved(networks=(lambda rows: lead,), description=about)
        .answers(np.zeros((1, 2), np.float32))
        .argmax()
        == 1
    )


def test_a_folder_of_an_earlier_version_answers_as_before(made, tmp_path):
    fitted, search = made
    best, rows = tmp_path / "classifier/best", fitted_rows(fitted)
    content = tomllib.loads((best / "config.toml").read_text("utf-8"))
    del content["temperature"]
    (best / "config.toml").write_text(tomli_w.dumps(content))
    assert folder.holds_winner(best, folder.winner_of(search))
    old = weights.load(best)
    with torch.no_grad():
        logits = old.network(torch.from_numpy(rows))
    assert old.description.temperature == 1
    assert (old.answers(rows) == logits.softmax(1).numpy()).all()


def test_a_temperature_that_is_none_is_refused(made, tmp_path):
    config = tmp_path / "classifier/best/config.toml"
    text = re.sub("temperature = .*", "temperature = 0.0", config.read_text("utf-8"))
    config.write_text(text)
    with pytest.raises(hpo.errors.InputError, match=r"was not written by hpo .*temperature"):
        folder.read(config.parent)


def test_exports_the_module_and_the_snippet_have_it(made, tmp_path):
    _, search = made
    best, x = tmp_path / "classifier/best", hard()[0]
    expected = weights.load(best).answers(weights.load(best).description.schema.normalized(x))
    module = weights.load(best).module()
    with torch.no_grad():
        assert module(torch.from_numpy(x)).softmax(1).numpy() == pytest.approx(expected, abs=1e-6)
    program = torch.export.load(to_program(best, tmp_path, x[:9])).module()
    found = program(torch.from_numpy(x)).softmax(1).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(to_onnx(best, tmp_path, x[:9]))
    [logits] = session.run(None, {"features": x})
    assert softmax(logits, 1) == pytest.approx(expected, abs=1e-5)
    code = snippet(str(best), folder.read(best))
    assert f"(logits / {search.winner.temperature!r}).softmax(1)" in code


def test_the_report_has_the_error_before_and_after_on_rows_that_did_not_fit_it(made, tmp_path):
    _, search = made
    losses, errors = (search.winner.calibration[key] for key in ("loss", "error"))
    after = []
    for seed in range(SEEDS):
        others = [losses[other] for other in range(SEEDS) if other != seed]
        after.append(errors[seed][int(np.argmin(np.mean(others, axis=0)))])
    before = errors[:, TEMPERATURES.index(1.0)].mean()
    said = " ".join(_calibration(search.winner))
    assert f"{100 * before:.2f} points without it, {100 * np.mean(after):.2f} with it" in said
    assert np.mean(after) < before, "networks that are too sure are calibrated"
    assert said.split(". ")[0] in (tmp_path / "classifier/report.md").read_text("utf-8")
    json.dumps([trial.user_attrs for trial in search.tested.frozen], allow_nan=False)


def test_a_regression_has_no_temperature(monkeypatch, tmp_path, made):
    asked = made[0].get_params()
    kinds = {name: asked[name] for name in hpo.Regressor().get_params()}
    x, _ = hard(100)
    hpo.Regressor(**{**kinds, "out": tmp_path}).fit(x, x[:, 0] * 3)
    assert "temperature" not in Path(tmp_path, "regressor/best/config.toml").read_text("utf-8")
    assert "calibration" not in Path(tmp_path, "regressor/report.md").read_text("utf-8")
