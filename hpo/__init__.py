"""Hyperparameter studies of multilayer perceptrons."""

__version__ = "0.1.0"
