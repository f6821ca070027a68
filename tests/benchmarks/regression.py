"""Small tables whose label is a number: a search by hpo beside scikit-learn's models.

    python tests/benchmarks/regression.py FOLDER --results lines.jsonl --seconds 30

FOLDER holds the files of TABLES. Each split (80:20, fixed seeds) keeps a fifth of the rows for
scoring only. A result is a line of --results; what stands there is not run again. Once no line
lacks, the script writes reports/published/benchmark-regression.md. hpo has seconds of the clock:
run it alone on the machine. scikit-learn has seconds of the processor.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn
import tomli_w
import torch
from baselines import coded, draw_boosting, draw_mlp, log_uniform, scaled, with_numbers
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import KFold, train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import GAPS, ROOT, SHARE, SPLITS, command, corrected, stored, study_of, table
from tables import File as Labelled
from tables import processor_seconds as processor
from threadpoolctl import threadpool_limits

from hpo.analysis.statistics import estimate
from hpo.workers import provenance

PUBLISHED = ROOT / "reports/published/benchmark-regression.md"
LEAST_BUSY = 0.7  # of the seconds of hpo's search, those of the processor
FOLDS, MOST_DRAWS = 5, {"ridge": 100}  # alpha alone is searched: more draws would find no more
TABLES = {
    "mpg": Labelled("mpg", ("name",)),
    "tips": Labelled("tip"),
    "auto-imports": Labelled(),
    "abalone": Labelled(),
}
DRAWS = {
    "ridge": lambda rng: {"alpha": log_uniform(rng, 1e-4, 1e4)},
    "mlp": draw_mlp,
    "boosting": draw_boosting,
}
HPO = "hpo"
SIDES = (HPO, *(f"{name}, {how}" for name in DRAWS for how in ("tuned", "defaults")))


@dataclass(frozen=True)
class Job:
    """A result to measure."""

    file: str
    split: int
    side: str
    seconds: int

    @property
    def key(self) -> tuple[Any, ...]:
        return self.file, self.split, self.side, self.seconds


def rows(folder: str, job: Job) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the development rows and the scored rows of a split, as text; "" is a gap."""
    file = TABLES[job.file]
    path = Path(folder) / f"{job.file}.csv"
    frame = pd.read_csv(path, header=0 if file.header else None, dtype=str, keep_default_na=False)
    label = file.label if file.header else frame.columns[file.label]
    frame = frame[~frame[label].isin(GAPS)]
    return train_test_split(frame, test_size=SHARE, random_state=job.split)


def features(frame: pd.DataFrame, file: Labelled) -> tuple[pd.DataFrame, np.ndarray]:
    label = file.label if file.header else frame.columns[file.label]
    labels = frame[label].astype(float).to_numpy()
    frame = frame.drop(columns=[label, *file.ignore])
    return frame.mask(frame.isin(GAPS), np.nan).astype(object).rename(columns=str), labels


def model(name: str, frame: pd.DataFrame, values: Mapping[str, Any]) -> Pipeline:
    """A model as a careful user has it: the target is standardized, too."""
    numbers = [column for column in frame if frame[column].dtype == float]
    text = [column for column in frame if column not in numbers]
    categorical = [False] * len(numbers) + [True] * len(text)
    made: Any = {
        "ridge": lambda: (scaled(numbers, text), Ridge(**values)),
        "mlp": lambda: (scaled(numbers, text), MLPRegressor(random_state=0, **values)),
        "boosting": lambda: (
            coded(numbers, text),
            HistGradientBoostingRegressor(
                random_state=0, categorical_features=categorical, **values
            ),
        ),
    }[name]()
    target = TransformedTargetRegressor(made[1], transformer=StandardScaler())
    return make_pipeline(made[0], target)


def by_scikit_learn(job: Job, dev: pd.DataFrame, scored: pd.DataFrame) -> dict[str, Any]:
    """Searches at random, the defaults first, on five folds; a draw that is worse than the best one
    so far on the folds done ends."""
    name, how = job.side.split(", ")
    (frame, labels), (other, _) = (features(part, TABLES[job.file]) for part in (dev, scored))
    frame, other = with_numbers(frame, frame), with_numbers(other, frame)
    rng, began, draws = np.random.default_rng(job.split), time.process_time(), 0
    best: tuple[dict[str, Any], list[float]] = ({}, [])
    folds = list(KFold(FOLDS, shuffle=True, random_state=job.split).split(frame))
    while how == "tuned" and draws < MOST_DRAWS.get(name, 10**6):
        values: dict[str, Any] = DRAWS[name](rng) if draws else {}
        found: list[float] = []
        for train, valid in folds:
            fitted = model(name, frame, values).fit(frame.iloc[train], labels[train])
            answers = fitted.predict(frame.iloc[valid])
            found.append(-root_mean_squared_error(labels[valid], answers))
            late = time.process_time() - began > job.seconds and draws > 0
            if late or (best[1] and sum(found) < sum(best[1][: len(found)])):
                break
        if len(found) == FOLDS and (not best[1] or sum(found) > sum(best[1])):
            best = values, found
        draws += 1
        if time.process_time() - began > job.seconds:
            break
    fitted = model(name, frame, best[0]).fit(frame, labels)
    valid = -statistics.mean(best[1]) if best[1] else None
    return {"given": fitted.predict(other), "valid": valid, "draws": draws}


def by_hpo(job: Job, dev: pd.DataFrame, scored: pd.DataFrame, folder: Path) -> dict[str, Any]:
    file = TABLES[job.file]
    for name, part in (("dev", dev), ("test", scored)):
        part.to_csv(folder / f"{name}.csv", index=False, header=file.header)
    study = {"task": "regression", **study_of(file, ())}
    (folder / "table.toml").write_text(tomli_w.dumps(study), encoding="utf-8")
    budget = ["--workers", "1", "--timeout", str(job.seconds), "--device", "cpu", "--quiet"]
    command("run", "table.toml", *budget, folder=folder)
    report = folder / "reports/table"
    predict = ("predict", str(report / "best"), "test.csv")
    alone, given = (
        [float(line.split("\t")[1]) for line in command(*words, folder=folder).splitlines()]
        for words in (predict, (*predict, "--ensemble"))
    )
    trials, finalists = (pd.read_csv(report / f"{n}.csv") for n in ("trials", "finalists"))
    return {
        "given": given,
        "alone": alone,
        "valid": float(finalists[finalists["rank"] == 1]["valid_rmse"].mean()),
        "draws": int(trials["state"].isin(["COMPLETE", "PRUNED"]).sum()),
    }


def measured(folder: str, job: Job) -> dict[str, Any]:
    dev, scored = rows(folder, job)
    _, truth = features(scored, TABLES[job.file])
    began, busy = time.time(), processor()
    with threadpool_limits(1), warnings.catch_warnings(), tempfile.TemporaryDirectory() as place:
        warnings.simplefilter("ignore", UserWarning)  # not converged, an unknown category
        if job.side == HPO:
            found = by_hpo(job, dev, scored, Path(place))
        else:
            found = by_scikit_learn(job, dev, scored)
    wall, busy = time.time() - began, processor() - busy
    scores = {
        k: root_mean_squared_error(truth, found.pop(k)) for k in ("given", "alone") if k in found
    }
    return {
        **dict(zip(("file", "split", "side", "seconds"), job.key, strict=True)),
        "rmse": scores["given"], "alone": scores.get("alone"), "rows": len(dev) + len(scored),
        "deviation": float(truth.std()), "wall": round(wall, 1), "busy": round(busy, 1), **found,
    }  # fmt: skip


def page(found: Mapping[tuple[str, str], list[dict[str, Any]]], seconds: int) -> str:
    files = list(dict.fromkeys(file for file, _ in found))
    others = ", ".join(file for file in TABLES if file not in files)
    lacking = f" Not measured on an idle machine, and left out: {others}." if others else ""
    facts, splits = provenance.collect("")["hardware"], len(next(iter(found.values())))

    def errors(file: str, side: str, key: str = "rmse") -> np.ndarray:
        return np.array([line[key] for line in found[file, side]])

    def cell(values: np.ndarray) -> str:
        of = estimate(values)
        return f"{of.mean:.4g} ({of.low:.4g} to {of.high:.4g})"

    def ratio(file: str, side: str, key: str = "rmse") -> str:
        return corrected(100 * np.log(errors(file, HPO, key) / errors(file, side)))

    means = {side: [errors(file, side).mean() for file in files] for side in SIDES}
    ranks = pd.DataFrame(means).rank(axis=1).mean()
    body = [
        [f"{file}, {found[file, HPO][0]['rows']} rows", *(cell(errors(file, s)) for s in SIDES),
         cell(errors(file, HPO, "alone"))]
        for file in files
    ]  # fmt: skip
    body.append(["**mean rank**", *(f"**{ranks[side]:.1f}**" for side in SIDES), ""])
    rivals = ("ridge, tuned", "mlp, tuned", "boosting, tuned")
    differences = [[file, *(ratio(file, side) for side in rivals)] for file in files]
    draws = {side: np.mean([n["draws"] for f in files for n in found[f, side]]) for side in SIDES}
    searches = [side for side in SIDES if draws[side]]
    lines = [
        "# Small tables with a number to predict",
        "",
        f"By `python tests/benchmarks/regression.py` on {facts['processor']}, {facts['cores']} "
        f"cores; torch {torch.__version__}, scikit-learn {sklearn.__version__}. RMSE, mean of "
        f"{splits} splits (80:20) with its 95% t interval; each scored row is scored only. hpo's "
        "answers are the mean of its ensemble of eight networks of one configuration; the last "
        "column has the first of them alone.",
        "",
        *table(["RMSE", *SIDES, "hpo, one network"], body),
        "hpo over the others, in percent of RMSE (100 times the logarithm of the ratio; below 0 "
        "hpo is better), with the interval of Nadeau and Bengio (2003), as splits share rows.",
        "",
        *table(["% of RMSE", *(f"hpo − {side}" for side in rivals)], differences),
        f"Each search has {seconds} seconds on one core: hpo's of the clock, with "
        "`studies/templates/table.toml`, chosen on classification, as it is; scikit-learn's of the "
        "processor, random search with the defaults first, five folds, the target standardized. "
        "The spaces of scikit-learn's network and boosting are those of the benchmark on classes. "
        f"Nothing was changed after a score of this table.{lacking}",
        "",
        *table(["", *searches], [["trials, mean", *(f"{draws[side]:.0f}" for side in searches)]]),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="with the files")
    parser.add_argument("--results", type=Path, required=True, help="a line of JSON for each")
    parser.add_argument("--seconds", type=int, default=30, help="of each search")
    parser.add_argument("--splits", type=int, nargs="+", default=list(range(SPLITS)))
    parser.add_argument("--files", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    options = parser.parse_args()

    def jobs(sides: Sequence[str]) -> list[Job]:
        return [Job(*of, options.seconds) for of in product(options.files, options.splits, sides)]

    def known() -> dict[tuple[Any, ...], dict[str, Any]]:
        keys = ("file", "split", "side", "seconds")
        return {tuple(line[k] for k in keys): line for line in stored(options.results)}

    for job in jobs(options.sides):
        if job.key not in known():
            line = measured(options.folder, job)
            short = job.side == HPO and line["busy"] < LEAST_BUSY * job.seconds
            if not short:  # or other programs took the processor
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            said = "NOT KEPT" if short else round(line["rmse"], 4)
            print(job.key, said, line["draws"], line["busy"], line["wall"], flush=True)
    lines, everything = known(), jobs(SIDES)
    lacking = [job for job in everything if job.key not in lines]
    if lacking:
        print(f"no table is written: {len(lacking)} of {len(everything)} results are not there")
        return
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job in everything:
        found.setdefault((job.file, job.side), []).append(lines[job.key])
    PUBLISHED.write_text(page(found, options.seconds), encoding="utf-8")
    print(PUBLISHED.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
