"""scikit-learn's models for a small table, with their defaults and tuned: what hpo is compared with
in tables.py. The rows are features and labels as text; gaps are NaN."""

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits

FOLDS = 5
MOST_DRAWS = {"logistic": 100}  # C alone is searched: more draws would find no more


def with_numbers(frame: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """Returns a frame whose columns are numbers where those of `like`, gaps aside, all are."""
    cells = {name: pd.to_numeric(like[name].dropna(), errors="coerce") for name in like}
    return frame.astype({name: float for name, found in cells.items() if found.notna().all()})


def scaled(numbers: Sequence[str], text: Sequence[str]) -> ColumnTransformer:
    """What a careful user does before a linear model or a network."""
    gaps = SimpleImputer(strategy="constant", fill_value="(gap)")
    levels = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5)
    medians = SimpleImputer(strategy="median", add_indicator=True)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(medians, StandardScaler()), numbers),
            ("text", make_pipeline(gaps, levels), text),
        ],
        sparse_threshold=0,
    )


def coded(numbers: Sequence[str], text: Sequence[str]) -> ColumnTransformer:
    """What boosting takes: numbers with their gaps, and the numbers of categories."""
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    return ColumnTransformer([("numbers", "passthrough", numbers), ("text", codes, text)])


def model(name: str, frame: pd.DataFrame, values: Mapping[str, Any]) -> Pipeline:
    numbers = [column for column in frame if frame[column].dtype == float]
    text = [column for column in frame if column not in numbers]
    if name == "logistic":
        return make_pipeline(scaled(numbers, text), LogisticRegression(**values))
    if name == "mlp":
        return make_pipeline(scaled(numbers, text), MLPClassifier(random_state=0, **values))
    categorical = [False] * len(numbers) + [True] * len(text)
    boosting = HistGradientBoostingClassifier(
        random_state=0, categorical_features=categorical, **values
    )
    return make_pipeline(coded(numbers, text), boosting)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_logistic(rng: np.random.Generator) -> dict[str, Any]:
    return {"C": log_uniform(rng, 1e-4, 1e4), "max_iter": 2000}


def draw_mlp(rng: np.random.Generator) -> dict[str, Any]:
    """Draws from auto-sklearn's space for networks, and from batches, epochs and L-BFGS, which
    scikit-learn's guide recommends for small data."""
    width = round(log_uniform(rng, 16, 264))
    return {
        "hidden_layer_sizes": (width,) * int(rng.integers(1, 4)),
        "activation": str(rng.choice(["relu", "tanh"])),
        "solver": str(rng.choice(["adam", "adam", "lbfgs"])),
        "alpha": log_uniform(rng, 1e-5, 10.0),
        "learning_rate_init": log_uniform(rng, 3e-4, 3e-2),
        "batch_size": int(rng.choice([32, 64, 128])),
        "max_iter": round(log_uniform(rng, 20, 500)),
        "early_stopping": bool(rng.integers(2)),
        "n_iter_no_change": 20,
    }


def draw_boosting(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "learning_rate": log_uniform(rng, 0.01, 0.3),
        "max_iter": round(log_uniform(rng, 30, 500)),
        "max_leaf_nodes": round(log_uniform(rng, 3, 64)),
        "min_samples_leaf": round(log_uniform(rng, 2, 60)),
        "l2_regularization": log_uniform(rng, 1e-3, 10.0),
        "max_features": float(rng.uniform(0.3, 1.0)),
    }


DRAWS: Mapping[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "logistic": draw_logistic,
    "mlp": draw_mlp,
    "boosting": draw_boosting,
}


def searched(
    name: str, frame: pd.DataFrame, labels: Any, seconds: int, seed: int
) -> tuple[dict[str, Any], float, int]:
    """Searches at random for so many seconds of the processor, the defaults first. Returns the best
    values, their validation accuracy and the number of draws.

    Validates on five folds. A draw that is worse than the best one so far on the folds done ends
    (as in SMAC), so that most of the time goes to good ones.
    """
    rng, began = np.random.default_rng(seed), time.process_time()
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(frame, labels))
    best: tuple[dict[str, Any], list[float]] = ({}, [])
    draws = 0
    while draws < MOST_DRAWS.get(name, sys.maxsize):
        values = DRAWS[name](rng) if draws else {}
        found: list[float] = []
        for train, valid in folds:
            fitted = model(name, frame, values).fit(frame.iloc[train], labels[train])
            found.append(float(fitted.score(frame.iloc[valid], labels[valid])))
            late = time.process_time() - began > seconds and draws > 0
            if late or sum(found) < sum(best[1][: len(found)]):
                break
        if len(found) == FOLDS and sum(found) > sum(best[1]):
            best = values, found
        draws += 1
        if time.process_time() - began > seconds:
            break
    return best[0], statistics.mean(best[1]), draws


def predictions(
    name: str, rows: tuple[pd.DataFrame, Any], scored: pd.DataFrame, seconds: int, seed: int
) -> dict[str, Any]:
    """Returns the labels that a model gives to the scored rows, and what a search found. seconds:
    of the search; 0: the defaults."""
    frame, labels = with_numbers(rows[0], rows[0]), rows[1]
    scored = with_numbers(scored, rows[0])
    found: dict[str, Any] = {"best": {}, "valid": None, "draws": 0}
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not converged, an unknown category
        if seconds:
            best, valid, draws = searched(name, frame, labels, seconds, seed)
            found = {"best": best, "valid": valid, "draws": draws}
        fitted = model(name, frame, found["best"]).fit(frame, labels)
        return {"given": fitted.predict(scored).tolist(), **found}
