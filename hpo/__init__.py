"""Hyperparameter studies of multilayer perceptrons."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.api import Result, load, run
    from hpo.objective import Objective
    from hpo.scikit.estimators import Classifier, Regressor

__all__ = ["Classifier", "Objective", "Regressor", "Result", "load", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loads what is asked for: hpo.Objective brings torch, hpo.Classifier and hpo.Regressor
    scikit-learn."""
    if name in ("Classifier", "Regressor"):
        from hpo.scikit import estimators

        return getattr(estimators, name)
    if name == "Objective":
        from hpo.objective import Objective

        return Objective
    if name in ("Result", "load", "run"):
        from hpo import api

        return getattr(api, name)
    raise AttributeError(f"module 'hpo' has no attribute {name!r}")
