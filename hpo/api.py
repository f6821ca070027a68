"""hpo from Python and from notebooks: hpo.run, hpo.load, and the result that they return."""

import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo import start
from hpo.errors import InputError
from hpo.options import OUT, STORAGE, Options, flag, from_environment
from hpo.passwords import without_password
from hpo.text import count, shortened

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from hpo.results.study import StoredGrid, StoredSearch
    from hpo.study.config import Config


def run(study: str | Path, **options: Any) -> "Result":
    """Runs or resumes a study as `hpo run` does, and returns its result.

        result = hpo.run("search.toml", trials=20)

    study: a study file's name or path. options: those of `hpo run`, with underscores
    (`sampler_seed=3`, `until_resolved=True`); quiet is true unless it is given. Environment
    variables count as for the command. Raises InputError for what the user gave wrong, and
    KeyboardInterrupt if the run was stopped.
    """
    chosen = Options.of({"study": study, **from_environment(), "quiet": True, **options})
    asked = {n: v for n, v in options.items() if v is not None and v is not False}  # 0 is asked
    typed = [_typed(name, value) for name, value in asked.items()]
    command = " ".join(["hpo run", shlex.quote(str(study)), *typed])
    _import_optuna()
    name, _ = start.run(chosen, command)
    return load(name, storage=chosen.storage, out=chosen.out)


def load(study: str, *, storage: str | None = None, out: str | Path = OUT) -> "Result":
    """Returns the result of a stored study.

    study: its name in the storage. storage: an Optuna storage URL; None: HPO_STORAGE, or hpo.db in
    this folder. out: where its report lies, with a search's saved winner. Raises InputError if the
    study is not there.
    """
    _import_optuna()
    from hpo.results.load import load_study
    from hpo.storage.open import open_storage

    url = storage or from_environment().get("storage", STORAGE)
    stored = load_study(open_storage(url, create=False), study)
    return Result(stored=stored, folder=Path(out) / study)


def _import_optuna() -> None:
    """Imports Optuna without tqdm's warning that the notebook has no ipywidgets: hpo shows no
    progress bars of tqdm."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        import optuna  # noqa: F401


def _typed(name: str, value: Any) -> str:
    """Returns the option as it is typed in a terminal, without a password."""
    if isinstance(value, (list, tuple)):
        return " ".join(_typed(name, item) for item in value)
    typed = "" if value is True else f" {shlex.quote(without_password(str(value)))}"
    return f"{flag(name)}{typed}"


@dataclass(frozen=True)
class Figure:
    """A figure of the report, as SVG; notebooks show it."""

    svg: str
    caption: str

    def __repr__(self) -> str:
        return f"Figure({shortened(self.caption)!r})"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Writes the SVG to a file."""
        Path(path).write_text(self.svg, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A stored study: tables, figures, and of a search the finalists and the winner.

    folder: where its report lies, with a search's saved winner.
    """

    stored: "StoredGrid | StoredSearch"
    folder: Path

    def __repr__(self) -> str:
        """Result('search': 69 trials, winner trial 62)."""
        text = f"{self.stored.name!r}: {count(len(self.stored.trials), 'trial')}"
        winner = getattr(self.stored, "winner", None)
        return f"Result({text}{f', winner trial {winner.number}' if winner else ''})"

    @property
    def trials(self) -> "pd.DataFrame":
        """Returns a row per trial, as in trials.csv."""
        return self.stored.trials.copy()

    @property
    def curves(self) -> "pd.DataFrame":
        """Returns a row per trial and epoch, as in curves.csv."""
        return self.stored.curves.copy()

    @property
    def finalists(self) -> "pd.DataFrame":
        """Returns a row per finalist and fresh seed, as in finalists.csv. Raises InputError for a
        grid."""
        from hpo.report.blocks.search_tables import finalists_frame

        return finalists_frame(self._search())

    @property
    def verdicts(self) -> "pd.DataFrame":
        """Returns a row per conclusion of a grid: says, verdict, p and what it rests on. Raises
        InputError for a search."""
        import pandas as pd

        from hpo.analysis.verdicts import verdicts
        from hpo.report.sections.basis import sentence
        from hpo.results.study import StoredGrid

        if not isinstance(self.stored, StoredGrid):
            raise InputError(f"study {self.stored.name!r}: is a search, which has no conclusions")
        found = verdicts(self.stored, sentence).conclusions
        columns = ["says", "verdict", "p", "basis"]
        rows = [[getattr(each, column) for column in columns] for each in found]
        return pd.DataFrame(rows, columns=columns)

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Returns {name: figure} of the report's figures, such as "importance" or "overview"."""
        from hpo.report.write import figures

        found = figures(self.stored, self.folder)
        return {name: Figure(picture.svg, picture.caption) for name, picture in found.items()}

    @property
    def config(self) -> "Config":
        """Returns the winner's configuration. Raises InputError without a winner."""
        search = self._search()
        if search.winner is None:
            raise InputError(f"study {search.name!r}: has no winner yet; the same run goes on")
        return search.winner.config

    @property
    def winner(self) -> "nn.Module":
        """Returns the saved winner as a module: features as in the data, (n, features) with pixels
        of 0 … 1, numbers of a table in double precision, to logits (n, classes), or to numbers
        (n, 1) in the target's unit. Raises InputError if there is none."""
        from hpo.model.folder import require_winner
        from hpo.model.weights import load

        require_winner(self.folder / "best", self._search())
        return load(self.folder / "best").module()

    def _search(self) -> "StoredSearch":
        from hpo.results.study import StoredSearch

        if not isinstance(self.stored, StoredSearch):
            raise InputError(f"study {self.stored.name!r}: is a grid, which has no winner")
        return self.stored

    def _repr_html_(self) -> str:
        """Returns the report's first sentences and its main table, for notebooks."""
        from hpo.report.write import summary

        return summary(self.stored, self.folder)
