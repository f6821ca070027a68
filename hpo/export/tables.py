"""Tables of a stored study as CSV and Parquet files."""

from contextlib import ExitStack
from pathlib import Path

from hpo.errors import InputError
from hpo.replace import replacing
from hpo.report.search_tables import finalists_frame
from hpo.storage.results import StoredGrid, StoredSearch


def to_csv(study: StoredGrid | StoredSearch, folder: Path) -> list[Path]:
    """Writes trials.csv, curves.csv and, of a search, finalists.csv; returns their paths."""
    return _write(study, folder, "csv")


def to_parquet(study: StoredGrid | StoredSearch, folder: Path) -> list[Path]:
    """Writes the same tables as Parquet files. Raises InputError if pyarrow is not installed."""
    return _write(study, folder, "parquet")


def _write(study: StoredGrid | StoredSearch, folder: Path, kind: str) -> list[Path]:
    tables = {"trials": study.trials, "curves": study.curves}
    if isinstance(study, StoredSearch):
        tables["finalists"] = finalists_frame(study)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.{kind}" for name in tables}
    with ExitStack() as all_or_none:
        for name, path in paths.items():
            beside = all_or_none.enter_context(replacing(path))
            if kind == "csv":
                tables[name].to_csv(beside, index=False)
                continue
            try:
                tables[name].to_parquet(beside, index=False)
            except ImportError as error:
                raise InputError(
                    "--to parquet: needs pyarrow: pip install 'hpo-studies[parquet]'"
                ) from error
    return [*paths.values()]
