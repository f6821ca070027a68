"""The Optuna storage: opened, locked, retried, read, and what a trial keeps in it."""
