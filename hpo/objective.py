"""The reusable objective: suggests an MLP, trains it, records it, prunes it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import optuna
import torch

from hpo.data import datasets as data
from hpo.errors import InputError
from hpo.results import trial as record
from hpo.runs.samplers import mark_diverged
from hpo.study.config import HYPERPARAMETERS, Config, Seeds
from hpo.study.fields import read_or_faults
from hpo.study.file import Head, SearchStudy, load
from hpo.study.source import fault_in
from hpo.study.space import Domain, read_space, suggest
from hpo.text import quoted
from hpo.training import tensors
from hpo.training.train import Epoch, train


def default_space() -> Mapping[str, Domain]:
    """Returns the space of studies/search.toml."""
    study = load("search")
    assert isinstance(study, SearchStudy)
    return study.space


class Objective:
    """For `study.optimize`: suggests an MLP, trains it, returns its value of a metric.

        study = optuna.create_study(direction="maximize")
        study.optimize(hpo.Objective(dataset="mnist"), n_trials=20)

    Every epoch's value is reported, so the study's pruner can end a trial early. The trial keeps
    its seconds, its number of parameters and whether it diverged as user attributes, its learning
    curve as the system attribute "curve", {metric: a value for each epoch}; a diverged trial is
    PRUNED at once, and TPE takes it for worse than all others.
    The test images are not touched. torch has one thread meanwhile, unless
    torch.set_num_threads or OMP_NUM_THREADS has set another number.

    dataset: a known one (`hpo data list`) from data_dir, HPO_DATA_DIR or a per-user cache folder,
    fetched if need be; or the path of the user's own data, as in a study file. space:
    {hyperparameter: domain} in place of that of studies/search.toml, domains as a study file writes
    them: a value is fixed, a list is choices, {"low": …, "high": …} with "log" or "step" is a
    range, "when" is a condition. objective: valid_accuracy, valid_balanced_accuracy, valid_auc,
    valid_f1, or valid_loss, which a study has to minimize; of numbers to predict valid_rmse,
    valid_mae, valid_r2 or valid_loss. None: valid_accuracy, or of numbers valid_rmse. class_weight:
    "balanced" or {class: weight}, of the training loss. seed fixes split, initial weights and batch
    order. device: auto, cpu, cuda or mps.

    Raises InputError for a dataset, a space or a device that is wrong or not there.
    """

    def __init__(
        self,
        dataset: str = "mnist",
        *,
        data_dir: str | Path | None = None,
        space: Mapping[str, Any] | None = None,
        objective: str | None = None,
        class_weight: str | Mapping[str, float] | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        if type(seed) is not int or not 0 <= seed < 2**32:
            text = f"must be a whole number from 0 to {2**32 - 1}"
            raise InputError(f"seed: {text}, got {quoted(seed)}")
        if not isinstance(space, Mapping | None):
            raise InputError(f"space: must be a dictionary, got {quoted(space)}")
        if not isinstance(dataset, str):
            raise InputError(f"dataset: must be a name or a path as text, got {quoted(dataset)}")
        if wrong := fault_in(dataset):
            raise InputError(f"dataset: {wrong}")
        self.space = default_space() if space is None else _parsed(space)
        asked = {"objective": objective, "class_weight": class_weight}
        asked = {key: value for key, value in asked.items() if value is not None}
        head, faults = read_or_faults(Head.model_validate, asked)
        if head is None:
            raise InputError("\n".join(f"{key[0]}: {wrong}" for key, wrong in faults))
        self.seeds = Seeds.of(seed)
        self.device = tensors.choose_device(device)
        folder = Path(data_dir or os.environ.get("HPO_DATA_DIR") or data.default_dir())
        loaded = data.load(dataset, folder)
        schema = loaded.schema
        head = head.on(schema.classes, schema.deviation)
        head.check(schema.classes)
        self.metric = head.metric
        images, labels = loaded.train_images, loaded.train_labels
        form: Any = {"classes": loaded.classes, "device": self.device}
        self.examples = tensors.examples(images, labels, **form, deviation=schema.deviation)
        self.split = tensors.split_rows(loaded, self.seeds)
        given = head.class_weight, self.examples, [self.split], schema.classes
        self.weights = tensors.class_weights(*given)

    def __call__(self, trial: optuna.trial.BaseTrial) -> float:
        """Trains the network that the trial suggests. Raises optuna.TrialPruned if the pruner asks
        for it or if the training diverges, and InputError if the study has another direction."""
        if isinstance(trial, optuna.Trial):
            ways, wanted = [d.name.lower() for d in trial.study.directions], self.metric.direction
            if ways != [wanted]:
                raise InputError(
                    f"study {trial.study.study_name!r}: its direction is {' and '.join(ways)}, and "
                    f"hpo.Objective returns a {self.metric.name}; create it by "
                    f'optuna.create_study(direction="{wanted}")'
                )
        with _few_threads(), tensors.denormals_as_zero():
            return self._trained(trial)

    def _trained(self, trial: optuna.trial.BaseTrial) -> float:
        config = Config.of(suggest(trial, self.space))
        epochs: list[Epoch] = []
        reason = ""
        name, given = self.metric.name, ([self.split], [self.seeds], self.device)
        for epoch in train(config, self.examples, *given, objective=name, weights=self.weights):
            epochs.append(epoch)
            if record.diverged(epoch, 0):
                reason = "diverged in"
                break
            trial.report(epoch.values(name)[0], epoch.number)
            if not epoch.last and trial.should_prune():
                reason = "pruned after"
                break
        kept = record.outcome(epochs, 0)
        attributes = record.attributes(epochs, 0, kept if config.validated else None)
        attributes["parameters"] = epochs[-1].network.parameters
        if isinstance(trial, optuna.Trial):
            record.store(trial.study._storage, trial._trial_id, attributes)
            if attributes["diverged"]:
                mark_diverged(trial, trial.study.sampler)
        else:  # it lies in no storage
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
        if reason:
            raise optuna.TrialPruned(f"{reason} epoch {len(epochs)}")
        return kept[name]


@contextmanager
def _few_threads() -> Iterator[None]:
    """Within it, torch has one thread, unless the user has set how many: another number than torch
    takes by itself, or OMP_NUM_THREADS. More threads make networks this small no faster, and many
    times slower where other processes use the cores."""
    before = torch.get_num_threads()
    usual = {os.cpu_count(), joblib.cpu_count(), joblib.cpu_count(only_physical_cores=True)}
    if "OMP_NUM_THREADS" not in os.environ and before in usual:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _parsed(space: Mapping[str, Any]) -> dict[str, Domain]:
    known = f"unknown; known: {', '.join(HYPERPARAMETERS)}"
    faults = [(name, known) for name in space if name not in HYPERPARAMETERS]
    read, wrong = read_space(space)
    faults = faults or [(str(name), fault) for (name, *_), fault in wrong]
    if faults:
        raise InputError("\n".join(f"space.{name}: {fault}" for name, fault in faults))
    assert read is not None
    return read
