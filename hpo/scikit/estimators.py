"""hpo.Classifier and hpo.Regressor: a search as an estimator of scikit-learn."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.data.datasets import LEAST_TRAINING
from hpo.data.schema import Array
from hpo.errors import InputError
from hpo.options import Options
from hpo.scikit import fit
from hpo.study.names import TaskKind
from hpo.text import shortened

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        check_consistent_length,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError as error:
    raise InputError(
        f"hpo.Classifier, hpo.Regressor: needs scikit-learn 1.6 or newer ({error}): pip install -U "
        "scikit-learn"
    ) from error

GIVEN = {"dataset", "task", "title"}  # keys of a study file that the estimator itself gives
MOST_SEED = 900_000  # of what a random_state draws; a study file has seeds up to a million


class _Searched(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: `fit` and what is known after it. A subclass has the parameters of
    its task, what targets are to it, and `predict`."""

    _task: TaskKind

    def __init__(
        self,
        *,
        trials: int | None = None,
        timeout: float | None = None,
        space: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        objective: str | None = None,
        ensemble: bool = False,
        workers: int | None = None,
        device: str = "auto",
        random_state: "int | np.random.RandomState | None" = None,
        out: "str | Path | None" = None,
        verbose: bool = False,
    ) -> None:
        self.trials = trials
        self.timeout = timeout
        self.space = space
        self.settings = settings
        self.objective = objective
        self.ensemble = ensemble
        self.workers = workers
        self.device = device
        self.random_state = random_state
        self.out = out
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Searches, and trains the winner on all rows. Returns itself.

        X: rows of numbers, or a DataFrame. y: a target for each row. Raises InputError, which is a
        ValueError, for what cannot be learned from or is asked wrongly.
        """
        name, options = type(self).__name__, self._options()
        rows, targets = self._checked(X, y)
        targets, classes = self._targets(targets)
        file = fit.study(name, self._asked(options), options)
        loaded = fit.dataset(rows, targets, file.dataset, classes)
        _warn(fit.left_out(loaded))
        found = fit.search(file, loaded, options, verbose=self.verbose)
        self.best_config_ = found.winner.config.as_dict()
        self.validation_ = fit.validation(found.winner)
        self.n_trials_ = len(found.search.ended)
        self._saved = found.saved
        return self

    def _options(self) -> Options:
        """Returns the options of `hpo run` that the parameters give."""
        name, out = type(self).__name__.lower(), self.out
        names = ("trials", "timeout", "workers", "device")
        given = {each: getattr(self, each) for each in names}
        seed = check_random_state(self.random_state).randint(MOST_SEED)
        where = {} if out is None else {"out": out}
        return Options.of({"study": name, "sampler_seed": seed, **given, **where})

    def _asked(self, options: Options) -> dict[str, Any]:
        """Returns what the study file says in place of the template's."""
        for name in ("space", "settings"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise InputError(f"hpo.{type(self).__name__}: {name}: must be a dictionary")
        if taken := GIVEN & {*(self.settings or {})}:
            raise InputError(
                f"hpo.{type(self).__name__}: settings: leave out {min(taken)!r}; X, y and the "
                "estimator say it. Groups, times and kinds of columns are for `hpo run` on a file"
            )
        asked = {**(self.settings or {}), **self._judged()}
        search, finalists = asked.get("search", {}), asked.get("finalists", {})
        asked["search"] = {"first_seed": options.sampler_seed, **search}
        asked["finalists"] = finalists if self.ensemble else {**finalists, "members": 1}
        return asked if self.space is None else {**asked, "space": self.space}

    def _checked(self, x: Any, y: Any) -> tuple["pd.DataFrame | Array", Array]:
        """Returns rows and targets of a training."""
        if y is None:
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        rows = self._rows(x, reset=True)
        if len(rows) < LEAST_TRAINING:
            raise InputError(f"X: has {len(rows)} sample(s), and {LEAST_TRAINING} are needed")
        targets = column_or_1d(y, warn=True)
        check_consistent_length(rows, targets)
        if (absent := pd.isna(targets)).any():
            row = int(np.flatnonzero(absent)[0])
            raise InputError(f"y: contains NaN in row {row}; leave out rows without a target")
        return rows, targets

    def _rows(self, x: Any, *, reset: bool) -> "pd.DataFrame | Array":
        """Returns a frame as it is, or an array of numbers, each of which is one."""
        known = getattr(self, "feature_names_in_", None)
        self._check_order(x, reset=reset)
        if isinstance(x, pd.DataFrame) and (reset or known is not None):
            validate_data(self, x, reset=reset, skip_check_array=True)
            return x
        finite: Any = {"ensure_all_finite": False, "dtype": np.float64}
        rows: Array = validate_data(self, x, reset=reset, **finite)
        if not (there := np.isfinite(rows)).all():
            row, column = map(int, np.argwhere(~there)[0])
            what = "NaN" if np.isnan(rows[row, column]) else "infinity"
            raise InputError(
                f"X: contains {what} in row {row}, column {column}; fill in a number, or give gaps "
                "in a DataFrame, which are learned as such"
            )
        return rows if known is None else pd.DataFrame(rows, columns=known)

    def _check_order(self, x: Any, *, reset: bool) -> None:
        """Raises InputError for a frame with other columns than that of the training, where their
        names are no texts: scikit-learn looks at texts alone."""
        names = [*x.columns] if isinstance(x, pd.DataFrame) else None
        if names and x.columns.nlevels > 1:
            raise InputError("X: its columns have names of several levels; give each one name")
        if names and len({*names}) < len(names):
            raise InputError("X: has two columns of one name; give each a name of its own")
        if reset:
            self._columns = names
        elif names and self._columns and names != self._columns:
            texts = all(isinstance(name, str) for name in (*names, *self._columns))
            first, now = (shortened(str(each)) for each in (self._columns, names))
            if not texts:
                raise InputError(f"X: its columns were {first} in fit, and are {now}")

    def _answers(self, x: Any) -> NDArray[Any]:
        """Returns what the winner answers to each row: probabilities, or a number."""
        check_is_fitted(self)
        rows, notes = fit.fed(self._rows(x, reset=False), self._saved.description.schema)
        _warn(notes)
        found: NDArray[Any] = self._saved.answers(rows)
        return found

    def _targets(self, y: Array) -> tuple[Array, list[str]]:
        """Returns the targets as numbers, and the names of the classes."""
        raise NotImplementedError

    def _judged(self) -> dict[str, Any]:
        """Returns what the study file says of the task."""
        objective = {} if self.objective is None else {"objective": self.objective}
        return {"task": self._task, **objective}


def _warn(notes: list[str]) -> None:
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)


class Classifier(ClassifierMixin, _Searched):  # type: ignore[misc]
    """A network that a search has found, as an estimator of scikit-learn.

        classifier = hpo.Classifier(trials=30, random_state=0).fit(X, y)
        classifier.predict(X_new)

    `fit` runs what `hpo run` runs on a table: trials of an MLP, finalists on fresh seeds, and the
    winner trained on all rows. No row is held out to test: cross_val_score does that. Files are
    written to `out` alone. X is an array of numbers, or a DataFrame, whose text, gaps and dates are
    read as those of a file. With workers=1 and no timeout, the same random_state gives the same
    network.

    trials, timeout: the budget in trials and in seconds; finalists and the winner come after it.
    space: {hyperparameter: domain} as a study file has them. settings: other keys of a study
    file, such as {"scale": "robust", "search": {"folds": 5}}. What is not given is that of
    studies/templates/table.toml.
    objective: what the search seeks: valid_accuracy, valid_balanced_accuracy, valid_auc, valid_f1
    or valid_loss. class_weight: balanced, or {class: weight}.
    ensemble: whether several networks of the winner's configuration answer together.
    workers: trainings at once; None: the cores. device: auto, cpu, cuda or mps.
    random_state: of the sampler and of all trainings.
    out: the folder for a report, which goes to OUT/classifier/, with the winner in best/.
    verbose: whether to show the progress.

    After fit: classes_; best_config_, the winner's hyperparameters; validation_, the winner's
    objective on fresh seeds: metric, mean, interval (95%) and n; n_trials_, how many have finished.
    """

    _task = "classification"

    def __init__(
        self,
        *,
        trials: int | None = None,
        timeout: float | None = None,
        space: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        objective: str | None = None,
        class_weight: "str | Mapping[Any, float] | None" = None,
        ensemble: bool = False,
        workers: int | None = None,
        device: str = "auto",
        random_state: "int | np.random.RandomState | None" = None,
        out: "str | Path | None" = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            trials=trials, timeout=timeout, space=space, settings=settings, objective=objective,
            ensemble=ensemble, workers=workers, device=device, random_state=random_state, out=out,
            verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Returns the most probable class of each row."""
        places = self._answers(X).argmax(axis=1)
        found: Array = self.classes_[places]
        return found

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Returns the probabilities of the classes, in the order of classes_, for each row."""
        return self._answers(X)

    def _targets(self, y: Array) -> tuple[Array, list[str]]:
        check_classification_targets(y)
        self.classes_, places = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y: has one class, {self.classes_[0]!r}; at least two are needed")
        return places.astype(np.int64), list(map(str, self.classes_))

    def _judged(self) -> dict[str, Any]:
        judged, weights = super()._judged(), self.class_weight
        if weights is None:
            return judged
        if isinstance(weights, Mapping):
            names = {each: str(each) for each in self.classes_.tolist()}  # 0 is 0.0 there
            weights = {names.get(key, str(key)): weight for key, weight in weights.items()}
        return {**judged, "class_weight": weights}


class Regressor(RegressorMixin, _Searched):  # type: ignore[misc]
    """As hpo.Classifier, for numbers. objective: valid_rmse, valid_mae, valid_r2 or valid_loss; the
    first one where none is given. validation_ is in the target's unit, as what `predict` returns.
    """

    _task = "regression"

    def predict(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Returns a number for each row."""
        found: NDArray[np.float64] = self._answers(X)[:, 0]
        return found

    def _targets(self, y: Array) -> tuple[Array, list[str]]:
        try:
            return y.astype(np.float64), []
        except (TypeError, ValueError) as error:
            raise InputError(
                f"y: must be numbers ({error}); hpo.Classifier learns classes"
            ) from error
