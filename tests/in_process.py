"""Runs without worker processes, and reports without files, for tests whose subject is neither."""

from collections.abc import Generator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from optuna.storages import RDBStorage

from hpo.data.datasets import Dataset
from hpo.report import write
from hpo.report.blocks import page
from hpo.storage.open import open_storage
from hpo.storage.results import StoredGrid, StoredSearch
from hpo.training.tensors import denormals_as_zero
from hpo.workers.messages import Done, Event, Failed, Task
from hpo.workers.pool import Pool
from hpo.workers.worker import answers


class InProcessPool(Pool):
    """A Pool that trains in this process: each wait trains an epoch of every task."""

    def __init__(self, workers: int, dataset: Dataset, device: str, epoch_limit: float) -> None:
        self.device, self.machines = device, []
        self._dataset = dataset
        self._trainings: list[Generator[Event, None, None] | None] = [None] * workers
        self._stopped: set[int] = set()
        self._threads = torch.get_num_threads()

    def __enter__(self) -> "InProcessPool":
        torch.set_num_threads(1)  # as a worker
        return self

    @property
    def size(self) -> int:
        return len(self._trainings)

    @property
    def idle(self) -> list[int]:
        return [i for i, training in enumerate(self._trainings) if training is None]

    def start(self, worker: int, task: Task) -> None:
        device = torch.device(self.device)
        stops = lambda: task.id in self._stopped  # noqa: E731
        self._trainings[worker] = answers(task, self._dataset, device, stops)

    def stop(self, task: int) -> None:
        self._stopped.add(task)

    def share(self, cores: int) -> None: ...

    def wait(self, seconds: float) -> list[Event]:
        events = []
        with denormals_as_zero():  # around all trainings, which set it and take it back by turns
            for worker, training in enumerate(self._trainings):
                if training is not None:
                    events.append(next(training))
                    if isinstance(events[-1], Done | Failed):
                        training.close()
                        self._trainings[worker] = None
        return events

    def close(self) -> None:
        with denormals_as_zero():
            for training in filter(None, self._trainings):
                training.close()
        self._trainings = []
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


def markdown(study: StoredGrid | StoredSearch, folder: Path) -> str:
    """The report of the study in Markdown. folder: where it would lie."""
    lead, sections = write._content(study, folder)
    return page.render("report.md.j2", study.file.title, lead, sections)
