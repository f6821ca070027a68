"""Half precision: where it pays, that it is what oneDNN computes, and where it is not there."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from in_process import opened
from own_runs import hpo_in
from tiny import tiny_dataset

from hpo.errors import InputError
from hpo.results.load import load_study
from hpo.results.study import StoredGrid
from hpo.study.config import Config, Seeds
from hpo.study.file import load, parse
from hpo.study.names import BFLOAT16, FLOAT32
from hpo.training import cores
from hpo.training.tensors import examples, split_rows
from hpo.training.train import train
from hpo.workers import worker
from hpo.workers.messages import Failed, Task

CPU = torch.device("cpu")
FAULT = cores.bfloat16_fault(CPU)
needs = pytest.mark.skipif(bool(FAULT), reason=FAULT or "there")
WIDE = Config(
    depth=2, width=512, activation="relu", optimizer="adam", lr=1e-3, batch_size=256, epochs=2
)
STUDY = """
dataset = "mnist-5k"
seeds = 1
[base]
depth = 1
activation = "relu"
optimizer = "sgd"
lr = 0.1
batch_size = 256
epochs = 2
[[cells]]
name = "wide"
width = 256
[[cells]]
name = "half"
width = 256
precision = "bfloat16"
"""


def test_the_rule_is_one_of_shapes():
    assert cores.pays((1, 256, 784, 512))
    assert cores.pays((1, 64, 512, 512))
    assert not cores.pays((1, 64, 784, 128)), "too little"
    assert not cores.pays((1, 10_000, 784, 10)), "thin"
    assert not cores.pays((2, 256, 784, 512)), "a stack"
    plain = cores.for_product(cores.PRODUCTS["forward"], (1, 256, 784, 512))
    assert not isinstance(plain, cores.Bfloat16)


@needs
@pytest.mark.parametrize("name", cores.PRODUCTS)
def test_a_product_is_that_of_rounded_factors_added_up_in_float32(name):
    """oneDNN rounds to the nearest bfloat16, as torch's own conversion does."""
    shape = (1, 256, 784, 512)
    generator = torch.Generator().manual_seed(1)
    x, w, d = (
        torch.randn(1, *size, generator=generator) for size in ((256, 784), (784, 512), (256, 512))
    )
    product = cores.PRODUCTS[name]
    exact = product(x, w, d)
    with cores.for_product(product, shape, BFLOAT16):
        found = product(x, w, d)
    assert torch.equal(product(x, w, d), exact), "it is over"
    rounded = {k: v.bfloat16().double() for k, v in {"x": x, "w": w, "d": d}.items()}
    wanted = {
        "forward": d[:, :1].double() + rounded["x"] @ rounded["w"],
        "to_inputs": rounded["d"] @ rounded["w"].mT,
        "to_weights": w.double() - 0.1 * (rounded["x"].mT @ rounded["d"]),
    }[name]
    near, far = (float((each.double() - wanted).abs().max()) for each in (found, exact))
    assert near < 2e-4 < far


@needs
def test_only_the_large_products_of_training_and_validation_are_rounded():
    data = tiny_dataset()
    images = examples(data.train_images, data.train_labels, data.classes, CPU, data.shape, 1.0)
    seeds = [Seeds.of(0)]
    splits = [split_rows(data, seeds[0])]

    def curve(config: Config, kind: str) -> list[float]:
        return [e.train_loss[0] for e in train(config, images, splits, seeds, precision=kind)]

    assert curve(WIDE, BFLOAT16) != curve(WIDE, FLOAT32)
    np.testing.assert_allclose(curve(WIDE, BFLOAT16), curve(WIDE, FLOAT32), rtol=0.05)
    assert curve(WIDE, BFLOAT16) == curve(WIDE, BFLOAT16)
    narrow = Config(**{**WIDE.as_dict(), "width": 64, "own": {}})
    assert curve(narrow, BFLOAT16) == curve(narrow, FLOAT32)


@needs
def test_a_cell_in_half_precision_is_stored_bound_shown_and_compared(tmp_path: Path):
    (tmp_path / "half.toml").write_text(STUDY)
    answer = hpo_in(tmp_path, "run", "half.toml", "--quiet", "--workers", "1")
    assert answer.code == 0, answer.err
    study = load_study(opened(tmp_path), "half")
    assert isinstance(study, StoredGrid)
    assert [cell.precision for cell in study.file.cells] == [None, BFLOAT16]
    trials = pd.read_csv(tmp_path / "reports/half/trials.csv").set_index("cell")
    losses = trials["train_loss"]
    assert losses["wide"] != losses["half"]
    assert losses["wide"] == pytest.approx(losses["half"], rel=0.02)
    page = (tmp_path / "reports/half/report.md").read_text()
    said = "In training and validation of half, products of large layers are computed in bfloat16"
    assert said in page
    whole = hpo_in(tmp_path, "run", "half.toml", "--quiet", "--precision", "float32")
    assert whole.code == 2
    assert "cells.half.precision: stored with 'bfloat16', now 'nothing'" in whole.err
    plain = hpo_in(tmp_path, "run", "half.toml", "--quiet", "--precision", "float32", "--name", "b")
    assert plain.code == 0, plain.err
    trials = pd.read_csv(tmp_path / "reports/b/trials.csv").set_index("cell")
    assert trials["train_loss"]["wide"] == trials["train_loss"]["half"] == losses["wide"]


@needs
def test_a_search_saves_what_it_was_trained_in_and_tests_in_float32(tmp_path: Path):
    (tmp_path / "s.toml").write_text(
        'dataset = "mnist-5k"\nprecision = "bfloat16"\n[search]\nn_trials = 1\npruner = "none"\n'
        "[finalists]\nk = 1\nseeds = 2\n[space]\ndepth = 1\nwidth = 256\nactivation = 'relu'\n"
        "optimizer = ['adam', 'sgd']\nlr = 1e-3\nbatch_size = 256\nepochs = 1\n"
    )
    answer = hpo_in(tmp_path, "run", "s.toml", "--quiet", "--workers", "1")
    assert answer.code == 0, answer.err
    folder = tmp_path / "reports/s"
    assert tomllib.loads((folder / "best/config.toml").read_text())["precision"] == BFLOAT16
    assert json.loads((folder / "provenance.json").read_text())["precision"] == BFLOAT16
    again = hpo_in(tmp_path, "run", "s.toml", "--quiet", "--precision", "float32")
    assert again.code == 2
    assert "precision: stored with 'bfloat16', now 'float32'" in again.err
    again = hpo_in(tmp_path, "run", "s.toml", "--quiet")
    assert "nothing was left to do" in again.err


def test_without_the_instructions_a_line_says_float32_and_the_study_is_stored_so(tmp_path: Path):
    asked = STUDY.replace('precision = "bfloat16"\n', "")
    (tmp_path / "half.toml").write_text(f'precision = "bfloat16"\n{asked}')
    (tmp_path / "cells.toml").write_text(STUDY)
    command = [sys.executable, "-m", "hpo.cli", "run", "half.toml", "--quiet", "--workers", "1"]
    ran = subprocess.run(
        command, cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"NOTE: precision: .*; this run trains in float32\n", ran.stderr)
    trials = pd.read_csv(tmp_path / "reports/half/trials.csv").set_index("cell")
    assert trials["train_loss"]["wide"] == trials["train_loss"]["half"]
    assert "bfloat16" not in (tmp_path / "reports/half/report.md").read_text()
    command[4] = "cells.toml"
    ran = subprocess.run(
        command, cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )  # fmt: skip
    assert ran.returncode == 2, "or both cells were the same network, and called similar"
    assert "cells.half.precision: " in ran.stderr
    assert "give --precision float32" in ran.stderr


def test_a_worker_that_cannot_refuses_the_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "bfloat16_fault", lambda device: "this processor has no AMX")
    task = Task(id=1, config=WIDE, seeds=(Seeds.of(0),), precision=BFLOAT16)
    [answer] = worker.Trainer(tiny_dataset(), CPU).answers(task, lambda: False)
    assert isinstance(answer, Failed)
    assert "precision bfloat16: this processor has no AMX" in answer.reason


def test_the_shipped_replay_is_in_float32():
    for name in ("grid-report", "search", "search-wide", "noise", "interactions"):
        assert not load(name).halved, name


def test_a_network_of_ones_own_has_none():
    text = 'model = "m:f"\nprecision = "bfloat16"\n' + STUDY
    raw = tomllib.loads(text)
    raw["base"] = {"optimizer": "sgd", "lr": 0.1}
    raw["cells"] = [{"name": "a"}]
    with pytest.raises(InputError, match="precision: bfloat16 is for hpo's own network"):
        parse(raw, "own", "own").check(["a", "b"])
