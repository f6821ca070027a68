"""Statistics of stored trials: tests, claims, importances, comparisons."""
