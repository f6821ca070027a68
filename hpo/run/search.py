"""The plan of a search: Optuna chooses on an in-memory copy of the stored study.

One process owns a study and knows all its values. Sampler and pruner work on the copy: to ask there
takes a few milliseconds, in a database tens. The database gets one transaction per epoch and a few
per trial.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpo.data.datasets import Dataset
from hpo.run import samplers
from hpo.run.forecast import Candidate, by_count, finalists
from hpo.run.plan import EarlyStop, Job, Shape, parameter_count
from hpo.run.progress import Progress
from hpo.storage import trial as record
from hpo.study.config import SEED, Config, Seeds
from hpo.study.file import SearchStudy
from hpo.study.space import Fixed, draw, size, suggest
from hpo.workers.messages import Task

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
ASKS = 10  # of a sampler that repeats itself; then a configuration is drawn at random
FAILURES_IN_A_ROW = 20
RUNGS = "completed_rung_"  # prefix of the attributes of successive halving and Hyperband


class SearchPlan:
    """Trains the trials that the sampler proposes, until `n_trials` are COMPLETE or PRUNED.

    No configuration is trained twice. The search ends early if all configurations of a finite space
    are trained, or if FAILURES_IN_A_ROW trials have failed.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        study_file: SearchStudy,
        dataset: Dataset,
        trained: Mapping[int, int] | None = None,
    ) -> None:
        """trained: {trial number: on how many of the finalists' seeds it was trained}."""
        self.storage = storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self.space = study_file.space
        self.n_trials = study_file.n_trials
        self.shape = Shape.of(dataset)
        stored = study.get_trials(deepcopy=False)
        finished = [trial for trial in stored if trial.state in FINISHED]
        best = max(finished, key=lambda trial: trial.value or 0.0, default=None)
        sampler = samplers.make_sampler(study_file, len(stored), best.params if best else {})
        pruner, name = samplers.make_pruner(study_file), study.study_name
        self.copy = optuna.create_study(
            study_name=name, direction="maximize", sampler=sampler, pruner=pruner
        )
        self.copy.add_trials([self._bare(trial) for trial in stored])
        self.finished = len(finished)
        self.tried = {self._key(trial.params) for trial in finished}
        self.size = size(self.space)
        # QMC starts its sequence again, so it asks for all stored trials once more.
        self.asks = ASKS + (len(stored) if study_file.sampler == "qmc" else 0)
        self.rng = random.Random(study_file.sampler_seed + len(stored))
        self.running: dict[int, Trial] = {}  # by task
        self.failures = 0
        self.started = 0
        self.finalists = (study_file.finalists, study_file.finalist_seeds)
        self.seconds = [_seconds(trial) for trial in finished]
        self.candidates = {  # by ids in the storage
            trial._trial_id: Candidate(
                value=trial.value or 0.0,
                seconds=_seconds(trial),
                trained=(trained or {}).get(trial.number, 0),
            )
            for trial in finished
            if _is_candidate(trial)
        }

    @property
    def jobs(self) -> int:
        return 0 if self.exhausted else max(self.n_trials - self.finished, 0)

    @property
    def gave_up(self) -> bool:
        """Whether the search ended because too many trials failed in a row."""
        return self.failures >= FAILURES_IN_A_ROW

    @property
    def exhausted(self) -> bool:
        """Whether all configurations of the space have been tried."""
        return len(self.tried) >= self.size

    def best(self) -> list[FrozenTrial]:
        """Returns the trials that become finalists: COMPLETE, not diverged, the best first."""
        ids = sorted(self.candidates, key=lambda i: (-self.candidates[i].value, i))
        return [self.storage.get_trial(i) for i in ids[: self.finalists[0]]]

    def progress(self, title: str, started: float) -> Progress:
        return Progress(
            title=title,
            total=self.finished + self.jobs,
            done=self.finished,
            pruned=sum(t.state is TrialState.PRUNED for t in self.copy.trials),
            started=started,
        )

    def next(self) -> Job | None:
        enough = self.finished + len(self.running) >= self.n_trials
        if enough or self.exhausted or self.gave_up:
            return None
        trial, values = self._ask()
        self.started += 1
        self.running[self.started] = trial
        self.tried.add(self._key(values))
        config = Config(**values)
        task = Task(id=self.started, config=config, seeds=(Seeds.of(SEED),))
        stored, number = self._store(trial, config)
        label = f"trial {number} ({config.brief})"
        return Job(task=task, label=label, trials=[stored], names=[label], cost=1.0)

    def _ask(self) -> tuple[Trial, dict[str, Any]]:
        """Asks for a trial whose configuration was not tried before."""
        for _ in range(self.asks):
            trial = self.copy.ask()
            values = suggest(trial, self.space)
            if self._key(values) not in self.tried:
                return trial, values
            self.copy.tell(trial, state=TrialState.FAIL)
        while self._key(values := draw(self.space, self.rng)) in self.tried:
            pass
        self.copy.enqueue_trial(values)
        trial = self.copy.ask()
        return trial, suggest(trial, self.space)

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Returns the configuration as a key; floats to 12 digits, because storages may round."""
        chosen = [values.get(name) for name, d in self.space.items() if not isinstance(d, Fixed)]
        return tuple(float(f"{v:.12g}") if isinstance(v, float) else v for v in chosen)

    def _store(self, trial: Trial, config: Config) -> tuple[int, int]:
        """Stores a RUNNING trial with its parameters in one transaction; its id and its number."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"seed": SEED, "parameters": parameter_count(config, self.shape)},
        )
        stored = self.storage.create_new_trial(self.study_id, template)
        return stored, self.storage.get_trial_number_from_id(stored)

    def judge(self, job: Job) -> EarlyStop | None:
        trial, epoch = self.running[job.task.id], job.epochs[-1]
        if record.diverged(epoch, 0):
            return EarlyStop.DIVERGED
        trial.report(epoch.valid_accuracy[0], epoch.number)
        last = epoch.number == job.task.config.epochs
        return EarlyStop.PRUNED if not last and trial.should_prune() else None

    def ended(self, job: Job, state: TrialState) -> None:
        trial = self.running.pop(job.task.id)
        if job.early_stop is EarlyStop.DIVERGED:
            samplers.mark_diverged(trial, self.copy.sampler)
        seconds = job.spent().seconds
        self.seconds += [seconds] if state in FINISHED else []
        if state is TrialState.COMPLETE and not job.early_stop:
            self.candidates[job.trials[0]] = Candidate(value=job.values()[0], seconds=seconds)
        told = self.copy.tell(trial, job.values() if state is TrialState.COMPLETE else None, state)
        self.failures = self.failures + 1 if state is TrialState.FAIL else 0
        self.finished += state in FINISHED
        for key, value in told.system_attrs.items():
            if key.startswith(RUNGS):
                self.storage.set_trial_system_attr(job.trials[0], key, value)

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        """Includes the finalists' time, as if the best trials so far became finalists."""
        seconds = [job.spent().seconds for job in running]
        missing = max(self.jobs - len(seconds), 0)
        left = by_count(self.seconds, seconds, missing, workers)
        if left is None:
            return None
        return min(left, limit) + finalists([*self.candidates.values()], *self.finalists, workers)

    def _bare(self, trial: FrozenTrial) -> FrozenTrial:
        """Copies what sampler and pruner need of a stored trial. Leaves out the last epoch of a
        diverged trial, which was never reported to the pruner."""
        steps, diverged = dict(trial.intermediate_values), trial.user_attrs.get("diverged")
        if diverged and steps:
            steps.pop(max(steps))
        attributes = {k: v for k, v in trial.system_attrs.items() if k.startswith(RUNGS)}
        bare = create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=steps,
            system_attrs=attributes,
        )
        if diverged:
            samplers.mark_diverged(bare, self.copy.sampler)
        return bare


def _is_candidate(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE and not trial.user_attrs.get("diverged")


def _seconds(trial: FrozenTrial) -> float:
    assert trial.duration is not None
    return trial.duration.total_seconds()
