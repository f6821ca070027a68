"""Training times that claims compare: measured alone, long epochs by their beginning."""

import pytest
import torch
from optuna.trial import TrialState

from hpo.runs.grid import ROUNDS, TimingPlan
from hpo.runs.plan import Shape
from hpo.study.columns import METRICS
from hpo.study.config import Config
from hpo.study.file import Cell
from hpo.training.train import Split
from hpo.workers.messages import EpochDone

SETTINGS = {"depth": 2, "activation": "relu", "optimizer": "sgd", "lr": 0.1, "epochs": 10}


def test_a_long_epoch_is_timed_by_its_beginning():
    cells = [
        Cell(name=name, config=Config(**SETTINGS, width=width))
        for name, width in (("narrow", 8), ("wide", 1024))
    ]
    plan = TimingPlan("times", cells, Shape(features=784, classes=10, train_rows=48_000))
    while (job := plan.next()) is not None:
        share = job.task.share
        assert share == 1 if "narrow" in job.label else 0 < share < 0.1
        metrics = {m: [0.5] for m in METRICS}
        job.epochs.append(EpochDone(task=job.task.id, number=1, seconds=2 * share, **metrics))
        plan.ended(job, TrialState.COMPLETE)
    measured = plan.measured()
    assert measured is not None
    assert len(measured) == ROUNDS
    for times in measured:
        assert times == pytest.approx({"narrow": 20.0, "wide": 20.0})


def test_a_split_has_parts():
    split = Split(torch.arange(10), torch.arange(4)).part(0.25)
    assert (split.train.tolist(), split.valid.tolist()) == ([0, 1, 2], [0])
