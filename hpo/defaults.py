"""Defaults of options, for the command line and for Python."""

from pathlib import Path

STORAGE = "sqlite:///hpo.db"
OUT = Path("reports")
EPOCH_LIMIT = 600.0  # seconds
