"""What a search trains next: Optuna chooses, over a twin of the stored study in memory.

One process owns a study, so it knows all values already: the sampler and the pruner work on a copy
in memory, where asking takes a few milliseconds and not the tens that a database takes, and the
database gets a transaction an epoch and a few a trial.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpo.data.datasets import Dataset
from hpo.run import samplers
from hpo.run.forecast import Sound, by_count, finalists
from hpo.run.plan import Early, Job, Shape, parameter_count
from hpo.storage import trial as record
from hpo.study.config import SEED, Config, Seeds
from hpo.study.file import SearchStudy
from hpo.study.space import Fixed, draw, size, suggest
from hpo.workers.messages import Task

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
ASKS = 10  # before a sampler that repeats itself is helped by a draw at random
FAILURES_IN_A_ROW = 20
RUNGS = "completed_rung_"  # what successive halving and Hyperband remember of a trial


class SearchPlan:
    """Trials as the sampler proposes them, until `n_trials` are finished.

    A configuration that a finished trial has is not trained again. The search ends early where a
    finite space has been trained whole, or where FAILURES_IN_A_ROW trials have failed.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: BaseStorage,
        study_file: SearchStudy,
        n_trials: int,
        dataset: Dataset,
        trained: Mapping[int, int] | None = None,
    ) -> None:
        """trained: {number of a trial: on how many of the finalists' seeds it was trained}."""
        self.storage = storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self.space = study_file.space
        self.n_trials = n_trials
        self.shape = Shape.of(dataset)
        stored = study.get_trials(deepcopy=False)
        finished = [trial for trial in stored if trial.state in FINISHED]
        best = max(finished, key=lambda trial: trial.value or 0.0, default=None)
        self.twin = optuna.create_study(
            study_name=study.study_name,
            direction="maximize",
            sampler=samplers.make_sampler(study_file, len(stored), best.params if best else {}),
            pruner=samplers.make_pruner(study_file),
        )
        self.twin.add_trials([self._bare(trial) for trial in stored])
        self.finished = len(finished)
        self.pruned = sum(trial.state is TrialState.PRUNED for trial in finished)
        self.tried = {self._key(trial.params) for trial in finished}
        self.size = size(self.space)
        self.asks = ASKS + (len(stored) if study_file.sampler == "qmc" else 0)  # it begins anew
        self.rng = random.Random(study_file.sampler_seed + len(stored))
        self.running: dict[int, Trial] = {}  # by task
        self.failures = 0
        self.started = 0
        self.finalists = (study_file.finalists, study_file.finalist_seeds)
        self.taken = [_seconds(trial) for trial in finished]  # of a worker, a trial
        self.sound = {  # by their ids in the storage
            trial._trial_id: Sound(
                value=trial.value or 0.0,
                seconds=_seconds(trial),
                trained=(trained or {}).get(trial.number, 0),
            )
            for trial in finished
            if _sound(trial)
        }

    @property
    def missing(self) -> int:
        return 0 if self.exhausted else max(self.n_trials - self.finished, 0)

    @property
    def gave_up(self) -> bool:
        """Whether so many trials have failed in a row that no more are started."""
        return self.failures >= FAILURES_IN_A_ROW

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of the space has been tried."""
        return len(self.tried) >= self.size

    def best(self) -> list[FrozenTrial]:
        """The trials that become finalists: of those that did not diverge, the best first."""
        ids = sorted(self.sound, key=lambda i: (-self.sound[i].value, i))[: self.finalists[0]]
        return [self.storage.get_trial(i) for i in ids]

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
        """A trial of a configuration not tried before."""
        for _ in range(self.asks):
            trial = self.twin.ask()
            values = suggest(trial, self.space)
            if self._key(values) not in self.tried:
                return trial, values
            self.twin.tell(trial, state=TrialState.FAIL)
        while self._key(values := draw(self.space, self.rng)) in self.tried:
            pass
        self.twin.enqueue_trial(values)
        trial = self.twin.ask()
        return trial, suggest(trial, self.space)

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The configuration, floats without the last bits that steps and storages may round."""
        chosen = [values[name] for name, d in self.space.items() if not isinstance(d, Fixed)]
        return tuple(float(f"{v:.12g}") if isinstance(v, float) else v for v in chosen)

    def _store(self, trial: Trial, config: Config) -> tuple[int, int]:
        """A RUNNING trial with its parameters, in one transaction: its id and its number."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"seed": SEED, "parameters": parameter_count(config, self.shape)},
        )
        stored = self.storage.create_new_trial(self.study_id, template)
        return stored, self.storage.get_trial_number_from_id(stored)

    def judge(self, job: Job) -> Early | None:
        trial, epoch = self.running[job.task.id], job.epochs[-1]
        if record.diverged(epoch, 0):
            return Early.DIVERGED
        trial.report(epoch.valid_accuracy[0], epoch.number)
        last = epoch.number == job.task.config.epochs
        return Early.PRUNED if not last and trial.should_prune() else None

    def ended(self, job: Job, state: TrialState) -> None:
        trial = self.running.pop(job.task.id)
        if job.early is Early.DIVERGED:
            samplers.mark_diverged(trial, self.twin.sampler)
        seconds = job.spent().seconds
        self.taken += [seconds] if state in FINISHED else []
        if state is TrialState.COMPLETE and not job.early:
            self.sound[job.trials[0]] = Sound(value=job.values()[0], seconds=seconds)
        told = self.twin.tell(trial, job.values() if state is TrialState.COMPLETE else None, state)
        self.failures = self.failures + 1 if state is TrialState.FAIL else 0
        self.finished += state in FINISHED
        for key, value in told.system_attrs.items():
            if key.startswith(RUNGS):
                self.storage.set_trial_system_attr(job.trials[0], key, value)

    def seconds_left(self, jobs: Sequence[Job], workers: int, limit: float) -> float | None:
        """With what the finalists will take: those of now, on all their seeds."""
        under_way = [job.spent().seconds for job in jobs]
        missing = self.missing - len(under_way)
        left = by_count(self.taken, under_way, max(missing, 0), workers)
        if left is None:
            return None
        return min(left, limit) + finalists([*self.sound.values()], *self.finalists, workers)

    def _bare(self, trial: FrozenTrial) -> FrozenTrial:
        """What sampler and pruner need of a stored trial; judge never reported a last epoch that
        diverged."""
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
            samplers.mark_diverged(bare, self.twin.sampler)
        return bare


def _sound(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE and not trial.user_attrs.get("diverged")


def _seconds(trial: FrozenTrial) -> float:
    assert trial.duration is not None
    return trial.duration.total_seconds()
