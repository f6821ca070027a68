"""Tables of a stored study as CSV and Parquet files."""

from contextlib import ExitStack
from pathlib import Path

from hpo.errors import InputError
from hpo.replace import replacing
from hpo.report.search_tables import finalists_frame
from hpo.storage.results import StoredGrid, StoredSearch


def write(study: StoredGrid | StoredSearch, folder: Path, kind: str) -> list[Path]:
    """Writes trials, curves and, of a search, finalists as files of a kind, csv or parquet: all of
    them or none. Returns their paths. Raises InputError if pyarrow is not installed, and OSError.
    """
    tables = {"trials": study.trials, "curves": study.curves}
    if isinstance(study, StoredSearch):
        tables["finalists"] = finalists_frame(study)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for name in tables]
    try:
        with ExitStack() as stack:
            for path, table in zip(paths, tables.values(), strict=True):
                write_table = table.to_csv if kind == "csv" else table.to_parquet
                write_table(stack.enter_context(replacing(path)), index=False)
    except ImportError as error:
        raise InputError(
            "--to parquet: needs pyarrow: pip install 'hpo-studies[parquet]'"
        ) from error
    return paths
