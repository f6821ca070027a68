"""The plan of the winner's training on all training images."""

from collections.abc import Sequence

from optuna.trial import TrialState

from hpo.run.forecast import by_cost
from hpo.run.plan import EarlyStop, Job
from hpo.run.progress import Progress
from hpo.study.config import SEED, Config, Seeds
from hpo.workers.messages import Task


class WinnerPlan:
    """Trains one network on all training images. It is no trial: no image validates it."""

    jobs = 1

    def __init__(self, config: Config, label: str) -> None:
        task = Task(id=1, config=config, seeds=(Seeds.of(SEED),), all_images=True)
        self.job = Job(task=task, label=label, trials=[], names=[label], cost=1.0)
        self.waiting = [self.job]

    def progress(self, title: str, started: float) -> Progress:
        return Progress(title=title, total=1, started=started)

    def next(self) -> Job | None:
        return self.waiting.pop() if self.waiting else None

    def judge(self, job: Job) -> EarlyStop | None:
        return None

    def ended(self, job: Job, state: TrialState) -> None:
        """Does nothing: the job keeps its network."""

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        return by_cost([job.spent() for job in running], [], workers)
