"""Hyperparameter studies of multilayer perceptrons."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.objective import Objective

__all__ = ["Objective"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """hpo.Objective, loaded when it is asked for: it brings torch."""
    if name == "Objective":
        from hpo.objective import Objective

        return Objective
    raise AttributeError(f"module 'hpo' has no attribute {name!r}")
