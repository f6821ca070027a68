"""What a study file says: its format, hyperparameters, search space, claims and finalists."""
