"""The plan of a search: Optuna chooses on an in-memory copy of the stored study.

One process owns a study and knows all its values. Sampler and pruner work on the copy: to ask there
takes a few milliseconds, in a database tens. The database gets one transaction per epoch and a few
per trial.
"""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpo.data.datasets import describe
from hpo.errors import InputError
from hpo.results import trial as record
from hpo.runs import samplers
from hpo.runs.halving import PausedStorage, Rungs, last_rung, next_rung
from hpo.runs.plan import EarlyStop, Job, Plan, parameter_count
from hpo.runs.progress import ENOUGH_TRIALS, Candidate, Progress, by_count, finalists
from hpo.runs.study import Run
from hpo.study.columns import TrialAttributes
from hpo.study.config import Config, Seeds, with_widths
from hpo.study.file import SearchStudy, cost_text
from hpo.study.finalists import config_of
from hpo.study.names import ASHA
from hpo.study.space import Fixed, completed, draw, fits, size, suggest
from hpo.workers.messages import Task

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
ASKS = 10  # of a sampler that repeats itself; then a configuration is drawn at random
FAILURES_IN_A_ROW = 20
MARGIN = 1.5  # of the time for the last training
RUNGS = "completed_rung_"  # prefix of the attributes of successive halving and Hyperband


class SearchPlan(Plan):
    """Trains the first trials that the study file gives, then those that the sampler proposes,
    until `n_trials` are COMPLETE or PRUNED.

    No configuration is trained twice. The search ends early if all configurations of a finite space
    are trained, if FAILURES_IN_A_ROW trials have failed, or by the study file's stop_after.
    """

    def __init__(
        self,
        run: Run,
        optuna_study: optuna.Study,
        trained: Mapping[int, int] | None = None,
        like: Sequence[FrozenTrial] = (),
    ) -> None:
        """trained: {trial number: on how many of the finalists' seeds it was trained}. like: trials
        of another search that the sampler knows from the start."""
        assert isinstance(run.file, SearchStudy)
        super().__init__(run.name, optuna_study)
        self.run, self.file, self.space = run, run.file, run.file.space
        self.study_id, self.size = optuna_study._study_id, size(self.space)
        self.stored = stored = optuna_study.get_trials(deepcopy=False)
        finished = [trial for trial in stored if trial.state in FINISHED]
        self.metric = run.file.metric
        best = max(finished, key=self._gain, default=None)
        sampler = samplers.make_sampler(self.file, len(stored), best.params if best else {})
        self.memory = PausedStorage()
        self.copy = optuna.create_study(
            storage=self.memory,
            study_name=run.name,
            directions=self.file.directions,
            sampler=sampler,
            pruner=samplers.make_pruner(self.file),
        )
        self.copy.add_trials([self._bare(trial) for trial in (*like, *stored)])
        self.rungs = Rungs() if run.file.pruner == ASHA else None
        self.first = self._first(stored, like)
        self.asked = sum(t.user_attrs.get("fail_reason") not in record.RETRIED for t in stored)
        # QMC starts its sequence again, so it asks for all stored trials once more.
        self.asks = ASKS + (len(stored) if self.file.sampler == "qmc" else 0)
        self.rng = random.Random(self.file.sampler_seed + len(stored))
        self.running: dict[int, Trial] = {}  # by task
        self.finished, self.failures = len(finished), 0
        self.tried = {self._key(trial.params) for trial in finished}
        ended = sorted(finished, key=_moment)
        values = [self._gain(t) if record.is_sound(t) else -math.inf for t in ended]
        self.bests = list(accumulate(values, max))  # gains so far, after each trial
        self.seconds = [_seconds(trial) for trial in finished]
        self.candidates = {  # by ids in the storage
            trial._trial_id: self._candidate(trial, (trained or {}).get(trial.number, 0))
            for trial in finished
            if record.is_sound(trial)
        }
        self.epochs, self.spent = 0, 0.0  # of all trials that this run has trained
        self.late = False  # see _is_late
        if self.rungs:
            self._take_rungs(len(like))

    def _take_rungs(self, known: int) -> None:
        """Takes the values of the stored trials after each epoch, and those that are paused. known:
        how many trials the copy has besides them, before them."""
        assert self.rungs
        if self.run.shape.alone:
            raise InputError(
                f"pruner {ASHA}: needs the seeds of a trial trained at once, and with `group` they "
                "are trained one after another; give another pruner"
            )
        copies = self.copy.get_trials(deepcopy=False)
        for place, trial in enumerate(self.stored, known):
            steps = trial.intermediate_values
            gains = {step: float(self.metric.gain(value)) for step, value in steps.items()}
            self.rungs.add(trial._trial_id, gains)
            if trial.state is TrialState.RUNNING:
                values = completed(self.space, trial.params)
                config, task = Config.of(self._named(values)), -1 - trial.number
                job = self._job(task, trial._trial_id, trial.number, config)
                job.paused_at, job.reported = trial.user_attrs["paused_at"], max(steps)
                self.running[task] = Trial(self.copy, copies[place]._trial_id)
                self.tried.add(self._key(values))
                self.pause(job)

    def _gain(self, trial: FrozenTrial) -> float:
        return record.gain_of(trial, self.metric)

    def _candidate(self, trial: FrozenTrial, trained: int) -> Candidate:
        seconds = _seconds(trial) / self.file.seeds_per_trial
        value, second = self._gain(trial), sum((trial.values or [])[1:])
        return Candidate(value=value, second=second, seconds=seconds, trained=trained)

    def _first(
        self, stored: Sequence[FrozenTrial], like: Sequence[FrozenTrial]
    ) -> list[dict[str, Any]]:
        """Returns the entries that no finished trial comes from: those of the study file, and the
        best trial of another search."""
        entries = [dict(entry) for entry in self.file.first]
        entries += [dict(trial.params) for trial in record.ranked(like, self.metric)[:1]]
        done = {t.user_attrs.get("first") for t in stored if t.state in FINISHED}
        return [entry for entry in entries if _key_of(entry) not in done]

    @property
    def settled(self) -> bool:
        """Whether stop_after ends the search: the last trials were hardly better than those before
        them."""
        rule = self.file.stop_after
        if rule is None or len(self.bests) <= rule.trials:
            return False
        gained = self.bests[-1] - self.bests[-1 - rule.trials]
        return gained <= self.metric.scale * rule.without

    @property
    def jobs(self) -> int:
        over = self.exhausted or self.settled
        return 0 if over else int(max(min(self.file.n_trials, self.size) - self.finished, 0))

    @property
    def gave_up(self) -> bool:
        """Whether the search ended because too many trials failed in a row."""
        return self.failures >= FAILURES_IN_A_ROW

    @property
    def exhausted(self) -> bool:
        """Whether all configurations of the space have been tried."""
        return len(self.tried) >= self.size

    def best(self) -> list[FrozenTrial]:
        """Returns the trials that become finalists: COMPLETE, not diverged, the best first; with
        two objectives, trials spread evenly over the part of the Pareto front that has learned
        something, or the best one if none has."""
        ids = sorted(self.candidates, key=lambda i: (-self.candidates[i].value, i))
        count = self.file.finalists
        if self.file.second:
            least = self.metric.gain(self.metric.learned(describe(self.run.dataset)))
            learned = [i for i in ids if self.candidates[i].value >= least] or ids[:1]
            points = [(self.candidates[i].value, self.candidates[i].second) for i in learned]
            ids = spread([learned[place] for place in record.front(points)], count)
        return [self.run.storage.get_trial(i) for i in ids[:count]]

    def progress(self, started: float) -> Progress:
        finished = [trial for trial in self.stored if trial.state in FINISHED]
        diverged = sum(bool(trial.user_attrs.get("diverged")) for trial in finished)
        pruned = sum(t.state is TrialState.PRUNED for t in map(record.by_rule, finished))
        progress = Progress(
            title=self.title,
            objective=self.metric.name,
            deviation=self.run.dataset.schema.deviation,
            total=self.finished + self.jobs,
            done=self.finished,
            pruned=pruned - diverged,
            diverged=diverged,
            started=started,
        )
        for trial in record.ranked(self.stored, self.metric)[:1]:
            name = record.trial_name(trial.number, config_of(trial, self.file))
            cost = cost_text(self.file.second, sum(trial.values[1:]))
            progress.take_best(name, record.value_of(trial, self.metric), cost)
        return progress

    def next(self, worker: int = 0, left: float = math.inf) -> Job | None:
        enough = self.finished + len(self.running) >= self.file.n_trials
        last = enough or self.exhausted or self.gave_up or self.settled or self._is_late(left)
        if job := self._going_on(worker, last=last):
            return job
        if last:
            return None
        trial, values, first = self._ask()
        self.asked += 1
        self.running[self.asked] = trial
        self.tried.add(self._key(values))
        config = Config.of(self._named(values))
        return self._job(self.asked, *self._store(trial, config, first), config)

    def _named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, "model": self.file.model}

    def _is_late(self, left: float) -> bool:
        """Whether the best trial is paused and must go on now to come to its end, from when on no
        trial begins. left: seconds."""
        needed = [self._seconds_to_end(job) for job in self.paused.values() if self._leads(job, 1)]
        self.late = self.late or left < MARGIN * max(needed, default=0.0)
        return self.late

    def _leads(self, job: Job, least: int) -> bool:
        assert self.rungs
        return self.rungs.leads(job.trials[0], last_rung(_reached(job)), least)

    def _seconds_to_end(self, job: Job) -> float:
        """Estimates the seconds that a paused training still takes."""
        each = job.seconds() / len(job.epochs) if job.epochs else self.spent / max(self.epochs, 1)
        return each * (job.task.config.epochs - _reached(job))

    def _going_on(self, worker: int, *, last: bool) -> Job | None:
        """Returns a paused trial that goes on, the one with the most epochs first. last: no trial
        will begin, so as many go on as there are finalists; before, a worker goes on only with
        those that it trained, because another one would begin them again."""
        least = self.file.finalists if last else 0
        for job in sorted(self.paused.values(), key=lambda j: (j.worker != worker, -_reached(j))):
            held = job.worker in (worker, -1)
            if (held or last) and self._leads(job, least):
                del self.paused[job.task.id]
                del self.memory.paused[self.running[job.task.id].number]
                until = next_rung(_reached(job), job.task.config.epochs)
                job.task = replace(job.task, until=until)
                return job
        return None

    def pause(self, job: Job) -> None:
        super().pause(job)
        self.memory.pause(self.running[job.task.id]._trial_id)

    def _job(self, number_of_task: int, stored: int, number: int, config: Config) -> Job:
        """Returns the job of a trial, given by its id and its number in the storage."""
        task = Task(
            id=number_of_task,
            config=config,
            seeds=tuple(map(Seeds.of, self.file.search_seeds)),
            folds=self.file.folds or 0,
            one_by_one=self.file.pruner == "wilcoxon" or self.run.shape.alone,
            until=next_rung(0, config.epochs) if self.rungs else 0,
            **self.run.training,
        )
        label = record.trial_name(number, config)
        return Job(
            task=task,
            label=label,
            trials=[stored],
            names=[label],
            cost=1.0,
            limit=self.file.trial_limit or math.inf,
            second=self.file.second,
            parameters=parameter_count(config, self.run.shape),
        )

    def _ask(self) -> tuple[Trial, dict[str, Any], str | None]:
        """Asks for a trial whose configuration was not tried before. Returns it with its values,
        and the key of the first entry that it comes from."""
        while self.first:
            entry = self.first.pop(0)
            trial = self._enqueued(with_widths(entry))
            values = suggest(trial, self.space)
            if self._key(values) not in self.tried:
                return trial, values, _key_of(entry)
            self.copy.tell(trial, state=TrialState.FAIL)
        if self.file.sampler == "random":  # a trial's draw depends on its place alone
            self.copy.sampler = samplers.make_sampler(self.file, self.asked, {})
            self.rng = random.Random(self.file.sampler_seed + self.asked)
        for _ in range(self.asks):
            trial = self.copy.ask()
            values = suggest(trial, self.space)
            if self._key(values) not in self.tried:
                return trial, values, None
            self.copy.tell(trial, state=TrialState.FAIL)
        while self._key(values := draw(self.space, self.rng)) in self.tried:
            pass
        trial = self._enqueued(values)
        return trial, suggest(trial, self.space), None

    def _enqueued(self, values: Mapping[str, Any]) -> Trial:
        """Asks for a trial with these values."""
        self.copy.enqueue_trial(dict(values))
        return self.copy.ask()

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Returns the configuration as a key; floats to 12 digits, because storages may round."""
        chosen = [values.get(name) for name, d in self.space.items() if not isinstance(d, Fixed)]
        return tuple(float(f"{v:.12g}") if isinstance(v, float) else v for v in chosen)

    def _store(self, trial: Trial, config: Config, first: str | None) -> tuple[int, int]:
        """Stores a RUNNING trial with its parameters in one transaction; its id and its number."""
        parameters = parameter_count(config, self.run.shape)
        attributes: TrialAttributes = {"seed": self.file.first_seed, "parameters": parameters}
        if self.file.seeds_per_trial > 1:
            attributes["seeds"] = self.file.seeds_per_trial
        if first:
            attributes["first"] = first
        template = create_trial(
            state=TrialState.RUNNING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={**attributes},
        )
        stored = self.run.storage.create_new_trial(self.study_id, template)
        return stored, self.run.storage.get_trial_number_from_id(stored)

    def judge(self, job: Job) -> EarlyStop | None:
        trial, epoch = self.running[job.task.id], job.epochs[-1]
        if any(record.diverged(epoch, seed) for seed in range(len(epoch.valid_loss))):
            return EarlyStop.DIVERGED
        self.epochs, self.spent = self.epochs + 1, self.spent + epoch.seconds * len(job.task.seeds)
        if job.second or (step := job.step()) is None:
            return None
        trial.report(step[1], step[0])
        if self.rungs:
            self.rungs.add(job.trials[0], {step[0]: self.metric.gain(step[1])})
        return EarlyStop.PRUNED if not job.complete and trial.should_prune() else None

    def ended(self, job: Job, state: TrialState) -> None:
        trial = self.running.pop(job.task.id)
        self.paused.pop(job.task.id, None)
        self.memory.paused.pop(trial.number, None)
        seconds = job.taken().seconds
        self.seconds += [seconds] if state in FINISHED else []
        if state is TrialState.COMPLETE:
            [gain], second = map(self.metric.gain, job.values()), sum(job.second_values())
            each = seconds / len(job.task.seeds)
            self.candidates[job.trials[0]] = Candidate(value=gain, second=second, seconds=each)
        if job.early_stop is EarlyStop.DIVERGED:
            samplers.mark_diverged(trial, self.copy.sampler)
            told = self.copy.tell(trial, [self.metric.worst, *job.second_values()])
        elif state is TrialState.COMPLETE:
            told = self.copy.tell(trial, [*job.values(), *job.second_values()])
        else:
            told = self.copy.tell(trial, state=state)
        if state in FINISHED:
            new = self.metric.gain(job.values()[0]) if state is TrialState.COMPLETE else -math.inf
            self.bests.append(max([*self.bests[-1:], new]))
        self.failures = self.failures + 1 if state is TrialState.FAIL else 0
        self.finished += state in FINISHED
        for key, value in told.system_attrs.items():
            if key.startswith(RUNGS):
                self.run.storage.set_trial_system_attr(job.trials[0], key, value)

    def seconds_left(self, running: Sequence[Job], workers: int, limit: float) -> float | None:
        """Includes the finalists' time, as if the best trials so far became finalists."""
        seconds = [job.taken().seconds for job in running]
        missing = max(self.jobs - len(seconds), 0)
        left = by_count(self.seconds, seconds, missing, workers)
        if self.rungs:  # trials that begin cost the same each, those that go on included
            begun = self.finished + len(self.running)
            known = begun >= ENOUGH_TRIALS
            left = self.spent / workers * (self.file.n_trials / begun - 1) if known else None
        if left is None:
            return None
        wanted = (self.file.finalists, self.file.finalist_seeds)
        return min(left, limit) + finalists([*self.candidates.values()], *wanted, workers)

    def _bare(self, trial: FrozenTrial) -> FrozenTrial:
        """Copies what sampler and pruner need of a stored trial. They know a diverged one as
        COMPLETE with the worst value, because most samplers learn nothing of a PRUNED one."""
        steps, diverged = dict(trial.intermediate_values), trial.user_attrs.get("diverged")
        if diverged and steps and trial.state is TrialState.COMPLETE:
            steps.pop(max(steps))  # earlier versions stored the epoch in which it diverged
        attributes = {k: v for k, v in trial.system_attrs.items() if k.startswith(RUNGS)}
        values = [self.metric.worst, *(trial.values or [])[1:]] if diverged else trial.values
        bare = create_trial(
            state=TrialState.COMPLETE if diverged and trial.state in FINISHED else trial.state,
            values=values,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=steps,
            system_attrs=attributes,
        )
        if diverged:
            samplers.mark_diverged(bare, self.copy.sampler)
        return bare


def _reached(job: Job) -> int:
    """Returns after which epoch a job is paused."""
    return job.epochs[-1].number if job.epochs else job.paused_at


def _key_of(entry: Mapping[str, Any]) -> str:
    return json.dumps(dict(entry), sort_keys=True)


def spread(ranked: Sequence[int], count: int) -> list[int]:
    """Returns `count` of them, evenly spread: the first and the last among them."""
    if len(ranked) <= count or count == 1:
        return list(ranked[:count])
    places = [round(i * (len(ranked) - 1) / (count - 1)) for i in range(count)]
    return [ranked[place] for place in places]


def like_trials(
    trials: Sequence[FrozenTrial], theirs: SearchStudy, ours: SearchStudy
) -> list[FrozenTrial]:
    """Returns the finished trials of another search whose configurations lie in our space, with
    only the parameters that our space leaves open."""
    kept = []
    for trial in trials:
        if trial.state not in FINISHED:
            continue
        params = fits(ours.space, completed(theirs.space, trial.params))
        if params is None or len(trial.values or [0.0]) < len(ours.objectives):
            continue
        kept.append(
            create_trial(
                state=trial.state,
                values=trial.values[: len(ours.objectives)] if trial.values else None,
                params=params,
                distributions={n: samplers.distribution(n, ours.space[n]) for n in params},
                intermediate_values=trial.intermediate_values if len(ours.objectives) == 1 else {},
                user_attrs={"diverged": trial.user_attrs.get("diverged", 0)},
                system_attrs={},
            )
        )
    return kept


def _moment(trial: FrozenTrial) -> tuple[float, str]:
    """Returns when a trial ended, to sort by; of earlier versions' trials by the wall clock."""
    return trial.user_attrs.get("run_seconds", 0.0), str(trial.datetime_complete)


def _seconds(trial: FrozenTrial) -> float:
    """Returns the training time; without one the time by the wall clock, which may be set back."""
    known = trial.user_attrs
    if "train_seconds" in known:
        return float(known["train_seconds"] * known.get("seeds", 1))
    assert trial.duration is not None
    return max(trial.duration.total_seconds(), 0.0)
