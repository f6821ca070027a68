"""The finalists of a search: a grid of the best trials on fresh seeds, the winner, and the
reference that they are compared with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpo.study.config import BOUNDS, DEFAULTS, Config, with_widths
from hpo.study.file import Cell, GridStudy, SearchStudy, parse
from hpo.study.metrics import ACCURACY, BY_NAME, Metric
from hpo.study.space import assigned, completed, nearest

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.trial import FrozenTrial

REFERENCE = "reference"  # the name of its cell
# What one would try without a search.
USUAL = {
    "depth": 2, "width": 128, "widths": "128-128", "activation": "relu", "optimizer": "adam",
    "batch_size": 64, "epochs": BOUNDS["epochs"][2],
}  # fmt: skip
USUAL_LR = {"sgd": 0.1, "sgd_momentum": 0.01}  # by optimizer; 0.001 for all others


def name_of(search: str) -> str:
    """Returns the name of the study that holds a search's finalists."""
    return f"{search}.finalists"


def search_of(name: str) -> str:
    """Returns the search of a finalists' study; for any other study its own name."""
    return name.removesuffix(".finalists")


def noun_of(name: str) -> str:
    """Returns what the trainings of a study are called: those of finalists are no trials."""
    return "trial" if search_of(name) == name else "training"


def cell_name(number: int) -> str:
    """Returns the name of the finalist's cell of a trial."""
    return f"trial-{number}"


def trial_number(cell: str) -> int:
    """Returns the trial number in the name of a finalist's cell."""
    return int(cell.removeprefix("trial-"))


def fresh_seeds(study_file: SearchStudy) -> Sequence[int]:
    """Returns the finalists' seeds, which never include the search's own."""
    first = study_file.search_seeds[-1] + 1
    return range(first, first + study_file.finalist_seeds)


def config_of(trial: "FrozenTrial", study_file: SearchStudy) -> Config:
    """Returns the configuration of a trial: suggested and fixed values."""
    values = completed(study_file.space, trial.params)
    return Config.of({**values, "model": study_file.model})


def reference_of(study_file: SearchStudy) -> Config | None:
    """Returns the configuration that tuning is measured by: the first one of the study file, or
    else USUAL, each value brought into the space. Of epochs it has the most that the space has.

    None of the user's own network, unless its first configuration gives all that the space leaves
    open of it: hpo does not know what is usual there.
    """
    first: dict[str, Any] = dict(*study_file.first[:1])
    space = study_file.space
    usual = {**DEFAULTS, **USUAL, **with_widths(first)}
    optimizer = nearest("optimizer", space["optimizer"], usual["optimizer"])
    wanted = {"lr": USUAL_LR.get(optimizer, 1e-3), **usual}
    if study_file.model and not first:
        return None
    try:
        values = assigned(space, lambda name, domain: nearest(name, domain, wanted[name]))
    except KeyError:
        return None
    return Config.of({**with_widths(values), "model": study_file.model})


def same(one: Config, other: Config) -> bool:
    """Whether two configurations are equal; floats to 12 digits, because storages may round."""
    ours, theirs = (
        {n: float(f"{v:.12g}") if isinstance(v, float) else v for n, v in c.as_dict().items()}
        for c in (one, other)
    )
    return ours == theirs


def reference_cell(cells: Sequence[Cell], study_file: SearchStudy) -> Cell | None:
    """Returns the reference's cell of a finalists' grid; that of a finalist if it has the same
    configuration, and is not trained twice; None of earlier versions."""
    config = reference_of(study_file)
    by_name = [cell for cell in cells if cell.name == REFERENCE]
    equal = [cell for cell in cells if config and same(cell.config, config)]
    return next(iter([*by_name, *equal]), None)


def belong(finalists: "optuna.Study", search: "optuna.Study") -> bool:
    """Whether the finalists are this search's; another search of that name has other trials."""
    bound = finalists.user_attrs.get("binding", {})
    return bool(bound.get("search") == search.user_attrs.get("token"))


def ranked(
    finished: "pd.DataFrame",
    cells: Sequence[Cell],
    seeds: Sequence[int],
    metric: Metric = BY_NAME[ACCURACY],
) -> list[Cell]:
    """Returns the finalists in the order of the objective's mean over these seeds, the winner
    first.

    Those with fewer seeds stand behind, those with equal means in the order given, and the
    reference last. A seed without a value, which diverged, has the worst one. The test plays no
    part. finished: a row per trial with the columns cell, seed and the objective's.
    """
    asked = finished[finished["seed"].isin(list(seeds))]
    gains = metric.gain(asked[metric.name].fillna(metric.worst))
    of = {cell.name: gains[asked["cell"] == cell.name] for cell in cells}
    means = {name: float(found.mean()) if len(found) else 0.0 for name, found in of.items()}

    def place(cell: Cell) -> tuple[Any, ...]:
        return cell.name == REFERENCE, -len(of[cell.name]), -means[cell.name]

    return sorted(cells, key=place)


def grid_of(trials: "Sequence[FrozenTrial]", study_file: SearchStudy) -> GridStudy:
    """Returns these trials of the search, and the reference, as a grid on fresh seeds."""
    configs = {cell_name(trial.number): config_of(trial, study_file) for trial in trials}
    reference = reference_of(study_file)
    if reference and not any(same(config, reference) for config in configs.values()):
        configs[REFERENCE] = reference
    raw: dict[str, Any] = {
        "title": f"{study_file.title}: finalists",
        "dataset": study_file.raw.get("dataset", study_file.dataset.name),
        "seeds": study_file.finalist_seeds,
        **study_file.judged,
        "cells": [{"name": name, **config.given()} for name, config in configs.items()],
    }
    for cell in raw["cells"]:
        cell.pop("model", None)  # the study's, not the cell's
    if study_file.model:
        raw["model"] = study_file.model
    grid = parse(raw, name_of(study_file.name), "finalists")
    assert isinstance(grid, GridStudy)
    found = grid.model_copy(update={"dataset": study_file.dataset, "folder": study_file.folder})
    found._deviation = study_file._deviation
    return found
