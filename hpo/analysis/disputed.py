"""The test images that two networks of a grid disagree on most."""

import numpy as np
import pandas as pd

from hpo.storage.results import StoredGrid
from hpo.study.file import Cell

MOST = 8  # images of each side


def pair(study: StoredGrid) -> tuple[Cell, Cell] | None:
    """Returns two networks: the best mean validation accuracy, and the grid's first cell (the
    second best if the first cell is the best); None if fewer than two learn with all seeds."""
    learning = [c for c in study.file.cells if len(study.of(c)) and not study.fails(c)]
    learning = [cell for cell in learning if not study.right(cell).empty]
    ranked = sorted(learning, key=lambda cell: -study.values(cell, "valid_accuracy").mean())
    if len(ranked) < 2:
        return None
    first = study.file.cells[0]
    return ranked[0], first if first in ranked[1:] else ranked[1]


def disputed(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Returns the images that ours gets right with more of its seeds than theirs, and the other way
    round, the largest difference first. ours and theirs: (seeds, images) of bool."""
    lead = ours.mean(axis=0).to_numpy() - theirs.mean(axis=0).to_numpy()
    sides = []
    for sign in (1, -1):
        order = np.argsort(-sign * lead, kind="stable")[:MOST]
        sides.append([int(image) for image in order if sign * lead[image] > 0])
    return sides[0], sides[1]
