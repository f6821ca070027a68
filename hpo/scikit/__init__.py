"""hpo as estimators of scikit-learn: a search over rows in memory."""
