"""Runs without worker processes, and reports without files, for tests whose subject is neither."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from optuna.storages import BaseStorage, RDBStorage

from hpo.data.datasets import Dataset
from hpo.options import Options
from hpo.report import write
from hpo.report.blocks import page
from hpo.results.study import StoredGrid, StoredSearch
from hpo.runs.plan import Watcher
from hpo.runs.study import Run, binding
from hpo.storage.open import open_storage
from hpo.study.file import StudyFile
from hpo.training.tensors import denormals_as_zero
from hpo.workers import provenance
from hpo.workers.messages import Done, Event, Failed, Paused, Stop, Task
from hpo.workers.pool import MakePool, Place, Pool
from hpo.workers.worker import Trainer


@dataclass(eq=False, kw_only=True)
class _Training(Place):
    trainer: Trainer | None = None
    events: Generator[Event, None, None] | None = None


class InProcessPool(Pool):
    """A Pool that trains in this process: each wait trains an epoch of every task."""

    def __init__(self, workers: int, dataset: Dataset, device: str, epoch_limit: float) -> None:
        super().__init__(workers, epoch_limit)
        self._dataset = dataset
        self._stopped: set[int] = set()
        self._threads = torch.get_num_threads()
        self.device = device

    def _fill(self, workers: int) -> None:
        torch.set_num_threads(1)  # as a worker
        super()._fill(workers)

    def _new_place(self) -> _Training:
        return _Training()

    def _give(self, place: _Training, message: Task | Stop) -> None:
        if isinstance(message, Stop):
            self._stopped.add(message.task)
            return
        stops = lambda: message.id in self._stopped  # noqa: E731
        place.trainer = place.trainer or Trainer(self._dataset, torch.device(self.device))
        place.events = place.trainer.answers(message, stops)

    def share(self, cores: int) -> None: ...

    def wait(self, seconds: float) -> list[Event]:
        with denormals_as_zero():  # around all trainings, which set it and take it back by turns
            return super().wait(seconds)

    def _heard(self, seconds: float) -> list[_Training]:
        return [place for place in self._places if place.task]

    def _next(self, place: _Training) -> Event:
        event = next(place.events)
        if isinstance(event, Done | Paused | Failed):
            place.events.close()
        return event

    def _kill(self, place: _Training) -> None: ...

    def close(self) -> None:
        with denormals_as_zero():
            for place in self._places:
                if place.task:
                    place.events.close()
        self._places = []
        torch.set_num_threads(self._threads)


def opened(folder: Path) -> RDBStorage:
    """The folder's hpo.db; a new one is a copy of an empty one, which takes a third of the time."""
    database = folder / "hpo.db"
    if not database.exists():
        database.write_bytes(_empty())
    return open_storage(f"sqlite:///{database}")


@cache
def _empty() -> bytes:
    with TemporaryDirectory() as folder:
        open_storage(f"sqlite:///{folder}/hpo.db")
        return Path(folder, "hpo.db").read_bytes()


def prepared(
    file: StudyFile,
    storage: BaseStorage,
    dataset: Dataset,
    *,
    name: str | None = None,
    make_pool: MakePool = InProcessPool,
    watchers: Sequence[Watcher] = (),
    **options: Any,
) -> Run:
    """A run of this study file, without worker processes unless `make_pool` is given."""
    chosen = Options.of({"study": file.name, "device": "cpu", **options})
    return Run(
        options=chosen,
        file=file,
        name=name or file.name,
        dataset=dataset,
        bound=binding(file, dataset),
        storage=storage,
        provenance=provenance.collect("hpo test"),
        workers=chosen.workers or 2,
        make_pool=make_pool,
        watchers=watchers,
    )


def markdown(study: StoredGrid | StoredSearch, folder: Path) -> str:
    """The report of the study in Markdown. folder: where it would lie."""
    lead, sections = write._content(study, folder)
    return page.render("report.md.j2", study.file.title, lead, sections)
