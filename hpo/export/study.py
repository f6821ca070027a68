"""Hands a stored study, or a search's saved winner, to other programs."""

from collections.abc import Sequence
from pathlib import Path

from hpo.data import datasets
from hpo.data.schema import Array
from hpo.errors import InputError
from hpo.export import tables, trackers
from hpo.model import folder as best
from hpo.results.study import StoredGrid, StoredSearch
from hpo.study.source import Source


def export(
    study: StoredGrid | StoredSearch, to: str, folder: Path, report: Path, data_dir: Path | None
) -> Sequence[Path | str]:
    """Exports a stored study, or a search's saved winner, to a folder; returns what was written.

    report: the folder of its report. Raises InputError if it has no winner, if its data are not
    there, if a package is not installed, or if the folder cannot be written.
    """
    try:
        if to == "parquet":
            return tables.to_parquet(study, folder)
        if to in ("tensorboard", "mlflow"):
            write = trackers.to_mlflow if to == "mlflow" else trackers.to_tensorboard
            return write(study, folder / to)
        if not isinstance(study, StoredSearch):
            raise InputError(f"--to {to}: study {study.name!r} is a grid, which has no winner")
        saved = report / "best"
        if to == "huggingface":
            best.require_winner(saved, study)
            from hpo.export import hub  # loads matplotlib

            return hub.to_hub(study, saved, folder / to)
        if study.winner and study.winner.config.model:
            raise InputError(
                f"--to {to}: the winner is a network of {study.winner.config.model!r}, whose code "
                "hpo does not run here; load it in Python as the report says, and export it there"
            )
        examples = _real_examples(study, data_dir)
        best.require_winner(saved, study)
        from hpo.export import winner  # loads torch

        folder.mkdir(parents=True, exist_ok=True)
        write_winner = winner.to_onnx if to == "onnx" else winner.to_program
        return [write_winner(saved, folder, examples)]
    except OSError as error:
        reason = f"{error.filename or folder}: cannot be written ({error.strerror or error})"
        raise InputError(f"--to {to}: {reason}; make room there, or give another --out") from error


def _real_examples(study: StoredSearch, data_dir: Path | None) -> Array:
    """Returns training examples as in the data, by which an exported winner is checked."""
    source = study.file.dataset
    if study.data["name"] != source.short:
        source = Source(study.data["name"], scale=study.file.scale)
    if not source.known and not Path(source.name).exists():
        raise InputError(f"dataset {source.name}: is needed to check the export; run hpo beside it")
    loaded = datasets.load(source, data_dir)
    if loaded.checksum != study.data["checksum"]:
        raise InputError(f"dataset {source.short}: is not the one that the study was run on")
    return loaded.examples
