"""The finalists of a search: a grid of the best trials on fresh seeds, and the winner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpo.study.config import Config
from hpo.study.file import Cell, GridStudy, SearchStudy, parse
from hpo.study.metrics import ACCURACY, BY_NAME, Metric
from hpo.study.space import completed

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.trial import FrozenTrial


def name_of(search: str) -> str:
    """Returns the name of the study that holds a search's finalists."""
    return f"{search}.finalists"


def search_of(name: str) -> str:
    """Returns the search of a finalists' study; for any other study its own name."""
    return name.removesuffix(".finalists")


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

    Those with fewer seeds stand behind, those with equal means in the order given. A seed without a
    value, which diverged, has the worst one. The test plays no part. finished: a row per trial with
    the columns cell, seed and the objective's.
    """
    asked = finished[finished["seed"].isin(list(seeds))]
    gains = metric.gain(asked[metric.name].fillna(metric.worst))
    of = {cell.name: gains[asked["cell"] == cell.name] for cell in cells}
    means = {name: float(found.mean()) if len(found) else 0.0 for name, found in of.items()}
    return sorted(cells, key=lambda cell: (-len(of[cell.name]), -means[cell.name]))


def grid_of(trials: "Sequence[FrozenTrial]", study_file: SearchStudy) -> GridStudy:
    """Returns these trials of the search as a grid on fresh seeds."""
    raw: dict[str, Any] = {
        "title": f"{study_file.title}: finalists",
        "dataset": study_file.raw.get("dataset", study_file.dataset.name),
        "seeds": study_file.finalist_seeds,
        **study_file.judged,
        "cells": [
            {"name": cell_name(trial.number), **config_of(trial, study_file).given()}
            for trial in trials
        ],
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
