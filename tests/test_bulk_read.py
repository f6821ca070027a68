"""Trials are read, and attributes added, at once, whatever Optuna's private models look like."""

import math
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages._rdb import models
from optuna.trial import TrialState, create_trial

from hpo.storage import bulk_read, bulk_write
from hpo.storage.bulk_read import all_trials
from hpo.storage.bulk_write import add_system_attributes
from hpo.storage.open import open_storage
from hpo.storage.retry import retrying

KNOWN = {name: getattr(models, name) for name in dir(models) if name.endswith("Model")}
OTHER = SimpleNamespace(trial_id=models.TrialParamModel.trial_id)
MODELS = {
    "known": models,
    "no models": SimpleNamespace(),
    "a model less": SimpleNamespace(**{**KNOWN, "TrialParamModel": None}),
    "a column less": SimpleNamespace(**{**KNOWN, "TrialParamModel": OTHER}),
}


@pytest.mark.parametrize("version", MODELS)
def test_trials_are_read_as_optuna_reads_them(version, tmp_path: Path, monkeypatch):
    storage = open_storage(f"sqlite:///{tmp_path / 'hpo.db'}")
    other = optuna.create_study(study_name="other", storage=storage)
    study = optuna.create_study(study_name="study", storage=storage)
    spaces = {
        "a": CategoricalDistribution(["x", "y", None]),
        "b": FloatDistribution(1e-3, 1.0, log=True),
        "c": IntDistribution(1, 9, step=2),
    }
    for number, value in enumerate((0.5, math.inf, -math.inf)):
        trial = create_trial(
            value=value,
            params={"a": ["x", "y", None][number], "b": 0.1 / (number + 1), "c": 2 * number + 1},
            distributions=spaces,
            user_attrs={"curve": {"loss": [1.0, None]}, "cell": "é"},
            system_attrs={"k": [1, 2]},
            intermediate_values={2: math.nan, 1: math.inf, 3: 0.25},
        )
        study.add_trial(trial)
        other.add_trial(trial)
    study.ask(spaces)
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"fail_reason": "x"}))
    selects = []
    monkeypatch.setattr("optuna.storages._rdb.models", MODELS[version])
    select_all = bulk_read._select_all
    monkeypatch.setattr(
        bulk_read, "_select_all", lambda *args: selects.append(select_all(*args)) or selects[0]
    )
    ours, theirs = all_trials(study, retrying(storage, "of a run", print)), study.get_trials()
    assert len(selects) == (version == "known")
    assert len(ours) == 5
    for a, b in zip(ours, theirs, strict=True):
        steps = [sorted(map(repr, t.intermediate_values.items())) for t in (a, b)]
        assert steps[0] == steps[1]  # NaN is not equal to itself
        a.intermediate_values = b.intermediate_values = {}
        assert a == b
    storage.engine.dispose()


OTHERS = SimpleNamespace(StudySystemAttributeModel=SimpleNamespace())


@pytest.mark.parametrize("url", ["sqlite:///{}/hpo.db", "journal:///{}/hpo.log"])
@pytest.mark.parametrize("known", [True, False])
def test_attributes_are_added_as_optuna_reads_them(url, known, tmp_path: Path, monkeypatch):
    storage = open_storage(url.format(tmp_path))
    other, study = (optuna.create_study(study_name=n, storage=storage) for n in ("other", "study"))
    storage.set_study_system_attr(study._study_id, "b", "kept")
    if not known:
        monkeypatch.setattr("optuna.storages._rdb.models", OTHERS)
        monkeypatch.setattr(bulk_write, "_append", None)
    added = {"a": "é" * 2000, "b": "other", "c": [1, None]}
    for _ in range(2):
        add_system_attributes(retrying(storage, "of a run", print), study._study_id, added)
    monkeypatch.undo()
    for each in (storage, open_storage(url.format(tmp_path))):
        assert each.get_study_system_attrs(study._study_id) == {**added, "b": "kept"}
        assert each.get_study_system_attrs(other._study_id) == {}
