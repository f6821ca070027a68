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


def p_above(values: np.ndarray) -> float:
    """The planned look's p-value against a mean of 0 or less: one degree of freedom fewer."""
    t, n = stats.ttest_1samp(values, 0).statistic, len(values)
    return float(stats.t.sf(t, n - 2)) if n > 2 else 1.0


def p_share(hits: list[int]) -> float:
    """The planned look's p-value against a share of one half or less; 0 counts for neither."""
    k, of = hits.count(1), len(hits) - hits.count(0)
    return float(stats.binomtest(k, of, alternative="greater").pvalue) if of else 1.0


def both(path: list[float], look: float | None) -> float:
    """The p-value of the e-process, and of a planned look if there is one: half of the error."""
    largest = max(1.0, *path)
    return 1 / largest if look is None else min(1.0, 2 / largest, 2 * look)


RATIOS = ("test_loss", "valid_loss", "train_loss", "train_seconds")
BY_WINS = ("valid_spread", "valid_falls")
Evidence = dict[str, Any]  # paths: for, against, too small; p: of the same


class Study:
    """The study file and the report's files; the images that are right, if a database is given."""

    def __init__(self, file: Path, report: Path, database: Path | None = None) -> None:
        self.raw = tomllib.loads(file.read_text("utf-8"))
        seeds = self.raw["seeds"]
        planned = seeds["start"] if isinstance(seeds, dict) else seeds
        self.planned: int | None = planned if planned > 4 else None
        self.data = json.loads((report / "verdicts.json").read_text("utf-8"))
        trials = pd.read_csv(report / "trials.csv")
        self.trials = trials[trials["state"] == "COMPLETE"].set_index(["cell", "seed"]).sort_index()
        self.first = int(self.trials.index.get_level_values("seed").min())
        self.curves = pd.read_csv(report / "curves.csv")
        if (report / "times.csv").exists():
            times = pd.read_csv(report / "times.csv")
            self.times = times.pivot(index="round", columns="cell", values="seconds")
        if database is not None:
            with closing(sqlite3.connect(database)) as connection:
                query = "SELECT number, value_json FROM trials JOIN trial_system_attributes USING "
                query += "(trial_id) WHERE key = 'right'"
                self.bits = {n: json.loads(text) for n, text in connection.execute(query)}

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
        if metric in BY_WINS:
            wide = curves.pivot(index="seed", columns="epoch", values="valid_accuracy")
            changes = wide.diff(axis=1).iloc[:, 1:]
            return (
                changes.std(axis=1)
                if metric == "valid_spread"
                else -changes.clip(upper=0).mean(axis=1)
            )
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

    def line(self, claim: dict[str, Any]) -> float:
        """Below which test accuracy a run fails."""
        if claim.get("below") != "guess":
            return float(claim.get("below", 0.3))
        n, share = self.data["test_size"], self.data["largest_class"]
        counts = np.arange(n + 1)
        return float(counts[stats.binom.sf(counts - 1, n, share) <= 0.05][0] / n - 0.5 / n)

    def of_shares(self, hits: pd.Series) -> Evidence:
        """hits: 1, -1 or 0 by seed."""
        sides = [hits.astype(int), -hits.astype(int)]
        paths = [share_evidence(side.tolist()) for side in sides] + [[1.0]]
        looks: list[float | None] = [None] * 3
        if self.planned:
            first = [side[side.index < self.first + self.planned].tolist() for side in sides]
            looks = [*(p_share(side) for side in first), 1.0]
        return {"paths": paths, "p": [both(*each) for each in zip(paths, looks, strict=True)]}

    def parts(self, claim: dict[str, Any]) -> list[Evidence]:
        """The evidence of each comparison of two sides, or of a cell with a line."""
        if "all" in claim:
            return [part for each in claim["all"] for part in self.parts(each)]
        metric, found = claim.get("metric", "test_accuracy"), []
        if "fails" in claim:
            failing = self.failing(claim["fails"], self.line(claim))
            return [self.of_shares(failing.map({True: 1, False: -1}))]
        if "best" in claim:
            pairs = [(claim["best"], other) for other in claim["among"]]
        elif "greater" in claim:
            pairs = list(itertools.pairwise(claim["greater"]))
        else:
            pairs = list(itertools.combinations(claim["similar"], 2))
        terms = claim.get("greater", [])
        number = metric != "train_seconds" and any(not isinstance(side, str) for side in terms)
        skewed = (metric in BY_WINS or number) and not any(" - " in str(side) for side in terms)
        wins = claim.get("by") == "wins"
        if "by" not in claim and "matters" not in claim and "similar" not in claim:
            wins = skewed
        logs = metric in RATIOS and not wins and "matters" not in claim
        logs = logs and not any(isinstance(side, str) and " - " in side for side in terms)
        for a, b in pairs:
            ours, theirs = self.values(a, metric), self.values(b, metric)
            if isinstance(ours, pd.Series) and isinstance(theirs, pd.Series):
                ours, theirs = ours.align(theirs, join="inner")
            with np.errstate(invalid="ignore"):
                difference = np.log(ours) - np.log(theirs) if logs else ours - theirs
            if wins:
                found.append(self.of_shares(np.sign(difference.fillna(0.0))))
                continue
            if metric != "train_seconds":
                failing = [self.failing(cell) for cell in self.cells(a, b)]
                fails = pd.concat(failing, axis=1, join="inner")
                difference = difference[~fails.any(axis=1)]
            found.append(self.means(claim, difference, logs))
        return found

    def means(self, claim: dict[str, Any], differences: pd.Series, logs: bool) -> Evidence:
        values = differences.to_numpy()
        first = values
        if claim.get("metric") != "train_seconds":
            first = values[differences.index < self.first + (self.planned or 0)]

        def inside(margin: float) -> tuple[list[float], float]:
            ends = [
                np.maximum.accumulate(t_evidence(e)) for e in (values + margin, margin - values)
            ]
            look = max(p_above(first + margin), p_above(margin - first)) if self.planned else 1.0
            return list(np.minimum(*ends)), look

        small: tuple[list[float], float] = [1.0], 1.0
        if "similar" in claim:
            within = claim.get("within", 0.1)
            margin = math.log1p(within) if logs else within
            outside = [t_evidence(values - margin), t_evidence(-values - margin)]
            beyond = 1.0
            if self.planned:
                beyond = min(1.0, 2 * min(p_above(first - margin), p_above(-first - margin)))
            sides = [inside(margin), (list(np.maximum(*outside) / 2), beyond), small]
        else:
            small = inside(claim["matters"]) if "matters" in claim else small
            looks = (p_above(first), p_above(-first)) if self.planned else (1.0, 1.0)
            paths = t_evidence(values), t_evidence(-values)
            sides = [*zip(paths, looks, strict=True), small]
        p = [both(path, look if self.planned else None) for path, look in sides]
        return {"paths": [path for path, _ in sides], "p": p}

    def verdicts(self) -> list[dict[str, Any]]:
        """{verdict, p, parts} of each claim."""
        tested = [claim for claim in self.raw["claims"] if "untestable" not in claim]
        parts = [self.parts(claim) for claim in tested]
        smallest, sides = [], []
        for claim, of in zip(tested, parts, strict=True):
            k = len(of)
            p_for = max(part["p"][0] for part in of)
            p_against, p_small = (min(1.0, k * min(part["p"][i] for part in of)) for i in (1, 2))
            limited = any("matters" in each for each in (claim, *claim.get("all", [])))
            sides.append((p_for, p_against, p_small))
            smallest.append(min(1.0, (2 if limited else 1) * min(sides[-1])))
        corrected = multipletests(smallest, method="holm")[1]
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
