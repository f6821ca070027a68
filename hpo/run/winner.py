"""The plan of one training: the winner of a search, on all training images."""

from collections.abc import Sequence

from optuna.trial import TrialState

from hpo.run.forecast import by_cost
from hpo.run.plan import Early, Job
from hpo.study.config import SEED, Config, Seeds
from hpo.workers.messages import Task


class BestPlan:
    """One training on all training images; it is no trial, for nothing validates it."""

    def __init__(self, config: Config, label: str) -> None:
        task = Task(id=1, config=config, seeds=(Seeds.of(SEED),), whole=True)
        self.job = Job(task=task, label=label, trials=[], names=[label], cost=1.0)
        self.waiting = [self.job]

    def next(self) -> Job | None:
        return self.waiting.pop() if self.waiting else None

    def judge(self, job: Job) -> Early | None:
        return None

    def ended(self, job: Job, state: TrialState) -> None:
        """Its network is in the job."""

    def seconds_left(self, jobs: Sequence[Job], workers: int, limit: float) -> float | None:
        return by_cost([job.spent() for job in jobs], [], workers)
