"""Recomputes verdicts from trials.csv, curves.csv and the stored bits; nothing of hpo is used.

The evidence comes from likelihood ratios by quadrature, not from a closed form.
"""

import base64
import itertools
import json
import math
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests


def t_evidence(values: np.ndarray) -> list[float]:
    """The evidence against a mean of 0 or less, for n = 1, 2, …"""
    path = [1.0]
    for n in range(2, len(values) + 1):
        first = values[:n]
        t, degrees = first.mean() / first.std(ddof=1) * math.sqrt(n), n - 1

        def mixed(effect: float, n: int = n, t: float = t, degrees: int = degrees) -> float:
            null = stats.t.logpdf(t, degrees)
            ratio = stats.nct.logpdf(t, degrees, effect * math.sqrt(n)) - null
            return float(2 * stats.norm.pdf(effect) * math.exp(ratio))

        peak = min(max(t / math.sqrt(n), 0.0), 8.0)
        ends = (0.0, max(peak - 0.5, 0.0), peak, peak + 0.5, 12.0)
        parts = itertools.pairwise(dict.fromkeys(ends))
        path.append(sum(integrate.quad(mixed, a, b, epsrel=1e-12, limit=200)[0] for a, b in parts))
    return path


def share_evidence(hits: list[int]) -> list[float]:
    """The evidence against a share of one half or less; hits: 1, -1, or 0 for neither."""
    path = []
    for n in range(1, len(hits) + 1):
        k, of = hits[:n].count(1), n - hits[:n].count(0)
        top = max(k / of, 0.5) if of else 0.5

        def mixed(p: float, k: int = k, of: int = of) -> float:
            return float(2 * p**k * (1 - p) ** (of - k))

        parts = itertools.pairwise(dict.fromkeys((0.5, top, 1.0)))
        area = sum(integrate.quad(mixed, a, b, epsrel=1e-12)[0] for a, b in parts)
        path.append(area / 0.5**of)
    return path


def p_of(path: list[float]) -> float:
    return 1 / max(1.0, *path)


class Study:
    """The study file, the report's tables, and the bits in the database."""

    def __init__(self, file: Path, report: Path, database: Path) -> None:
        self.raw = tomllib.loads(file.read_text("utf-8"))
        trials = pd.read_csv(report / "trials.csv")
        self.trials = trials[trials["state"] == "COMPLETE"].set_index(["cell", "seed"]).sort_index()
        self.curves = pd.read_csv(report / "curves.csv")
        with closing(sqlite3.connect(database)) as connection:
            query = "SELECT number, value_json FROM trials JOIN trial_system_attributes USING "
            query += "(trial_id) WHERE key = 'right'"
            self.bits = {number: json.loads(text) for number, text in connection.execute(query)}
        times = pd.read_csv(report / "times.csv")
        self.times = times.pivot(index="round", columns="cell", values="seconds")

    def failing(self, cell: str, below: float = 0.3) -> pd.Series:
        rows = self.trials.loc[cell]
        return (rows["test_accuracy"] < below) | rows["diverged"].astype(bool)

    def values(self, side: Any, metric: str) -> pd.Series | float:
        if not isinstance(side, str):
            return float(side)
        if metric == "train_seconds":
            return self.times[side]
        if " - " in side:
            first, second = side.split(" - ")
            return self.values(first, metric) - self.values(second, metric)
        cell, _, epoch = side.partition("@")
        curves = self.curves[self.curves["cell"] == cell]
        if metric == "valid_spread":
            wide = curves.pivot(index="seed", columns="epoch", values="valid_accuracy")
            return wide.diff(axis=1).iloc[:, 1:].std(axis=1)
        at = (
            curves[curves["epoch"] == int(epoch)].set_index("seed")
            if epoch
            else self.trials.loc[cell]
        )
        values = at["train_accuracy"] - at["valid_accuracy"] if metric == "gap" else at[metric]
        worst = -np.inf if metric.endswith("accuracy") else np.inf
        return values.mask(values.isna(), worst)

    def cells(self, *sides: Any) -> list[str]:
        names = [n for s in sides if isinstance(s, str) for n in s.split(" - ")]
        return [name.partition("@")[0] for name in names]

    def right(self, cell: str, part: str, images: int) -> pd.DataFrame:
        numbers = self.trials.loc[cell]["number"]
        packed = [np.frombuffer(base64.b64decode(self.bits[n][part]), np.uint8) for n in numbers]
        rows = [np.unpackbits(bits)[:images] for bits in packed]
        return pd.DataFrame(rows, index=numbers.index)

    # --- claims --------------------------------------------------------------------------------

    def parts(self, claim: dict[str, Any]) -> list[tuple[list[float], list[float], list[float]]]:
        """(path for, path against, path of a difference too small to matter) of each part."""
        metric, found = claim.get("metric", "test_accuracy"), []
        if "fails" in claim:
            hits = [1 if f else -1 for f in self.failing(claim["fails"], claim.get("below", 0.3))]
            return [(share_evidence(hits), share_evidence([-h for h in hits]), [1.0])]
        if "best" in claim:
            pairs = [(claim["best"], other) for other in claim["among"]]
        elif "greater" in claim:
            pairs = list(itertools.pairwise(claim["greater"]))
        else:
            pairs = list(itertools.combinations(claim["similar"], 2))
        for a, b in pairs:
            logs = metric == "train_seconds" or ("similar" in claim and metric.endswith("loss"))
            ours, theirs = self.values(a, metric), self.values(b, metric)
            if isinstance(ours, pd.Series) and isinstance(theirs, pd.Series):
                ours, theirs = ours.align(theirs, join="inner")
            difference = np.log(ours) - np.log(theirs) if logs else ours - theirs
            if claim.get("by") == "wins":
                hits = [int(sign) for sign in np.sign(difference)]
                found.append((share_evidence(hits), share_evidence([-h for h in hits]), [1.0]))
                continue
            if metric != "train_seconds":
                failing = [self.failing(cell) for cell in self.cells(a, b)]
                fails = pd.concat(failing, axis=1, join="inner")
                difference = difference[~fails.any(axis=1)]
            found.append(self.means(claim, difference.to_numpy(), logs))
        return found

    def means(
        self, claim: dict[str, Any], values: np.ndarray, logs: bool
    ) -> tuple[list[float], list[float], list[float]]:
        def inside(margin: float) -> list[float]:
            ends = [
                np.maximum.accumulate(t_evidence(e)) for e in (values + margin, margin - values)
            ]
            return list(np.minimum(*ends))

        if "similar" in claim:
            margin = math.log1p(claim["within"]) if logs else claim["within"]
            outside = [t_evidence(values - margin), t_evidence(-values - margin)]
            return inside(margin), list(np.maximum(*outside) / 2), [1.0]
        small = inside(claim["matters"]) if "matters" in claim else [1.0]
        return t_evidence(values), t_evidence(-values), small

    def verdicts(self) -> list[dict[str, Any]]:
        """{verdict, p, parts} of each claim."""
        tested = [claim for claim in self.raw["claims"] if "untestable" not in claim]
        parts = [self.parts(claim) for claim in tested]
        doubled, sides = [], []
        for of in parts:
            k = len(of)
            p_for = max(p_of(part[0]) for part in of)
            p_against, p_small = (min(1.0, k * min(p_of(part[i]) for part in of)) for i in (1, 2))
            sides.append((p_for, p_against, p_small))
            doubled.append(min(1.0, 2 * min(sides[-1])))
        corrected = multipletests(doubled, method="holm")[1]
        names = ("holds", "refuted", "too small to matter")
        return [
            {"p": p, "parts": of, "verdict": names[int(np.argmin(s))] if p < 0.05 else "unresolved"}
            for p, of, s in zip(corrected, parts, sides, strict=True)
        ]


def images_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The 95% interval of a difference over seeds and images, from sums over a table of
    (seeds, images) as in textbooks of generalizability."""
    y = ours.astype(float) - theirs.astype(float)
    seeds, images = y.shape
    correction = y.sum() ** 2 / y.size
    of_seeds = (y.sum(axis=1) ** 2).sum() / images - correction
    of_images = (y.sum(axis=0) ** 2).sum() / seeds - correction
    rest = (y**2).sum() - correction - of_seeds - of_images
    by_seed, by_image = of_seeds / (seeds - 1), of_images / (images - 1)
    both = rest / ((seeds - 1) * (images - 1))
    variance = by_seed + max(by_image - both, 0)
    degrees = variance**2 / (by_seed**2 / (seeds - 1))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance / y.size)
    return y.mean() - half, y.mean() + half
