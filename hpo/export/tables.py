"""Tables of a stored study as Parquet files."""

from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from hpo.errors import InputError
from hpo.process import replacing
from hpo.report.blocks.search_tables import finalists_frame
from hpo.results.study import StoredGrid, StoredSearch


def to_parquet(study: StoredGrid | StoredSearch, folder: Path) -> list[Path]:
    """Writes trials, curves, of a search finalists, and of a grid timings: all of them or none.
    Returns their paths. Raises InputError if pyarrow is not installed, and OSError."""
    tables = {"trials": study.trials, "curves": study.curves}
    if isinstance(study, StoredSearch):
        tables["finalists"] = finalists_frame(study)
    if isinstance(study, StoredGrid) and study.timings:
        tables["times"] = study.times
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.parquet" for name in tables]
    try:
        with ExitStack() as stack:
            for path, table in zip(paths, tables.values(), strict=True):
                beside = stack.enter_context(replacing(path))
                _one_type_a_column(table).to_parquet(beside, index=False)
    except ImportError as error:
        raise InputError(
            "--to parquet: needs pyarrow: pip install 'hpo-studies[parquet]'"
        ) from error
    return paths


def _one_type_a_column(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with columns of mixed values, such as "a" and 3, as text: a column of
    Parquet has one type."""
    texts = {}
    for name in (name for name in table if table[name].dtype == object):
        given = table[name].dropna()
        if given.map(type).nunique() > 1:
            texts[name] = given.map(str).reindex(table.index)
    return table.assign(**texts)
