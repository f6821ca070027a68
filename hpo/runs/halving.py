"""Asynchronous successive halving: trials pause early, and the best of them go on.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020).
"""

from collections.abc import Mapping
from copy import copy

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

# One of so many goes on: eta of successive halving and Hyperband (Li et al., JMLR 18 (2018) 185).
REDUCTION = 3


def next_rung(done: int, epochs: int) -> int:
    """Returns the epoch after which a training of `epochs` pauses next: 1, 3, 9 and so on, up to
    half of it; 0 if it goes on to its end. done: epochs that it has."""
    rung = 1
    while rung <= done:
        rung *= REDUCTION
    return rung if 2 * rung <= epochs else 0


def last_rung(done: int) -> int:
    """Returns the rung that a training of `done` epochs came to last: a stopped run may have paused
    it after it."""
    rung = 1
    while rung * REDUCTION <= done:
        rung *= REDUCTION
    return rung


class Rungs:
    """The gains of all trials after each epoch. trial: its id in the storage."""

    def __init__(self) -> None:
        self.gains: dict[int, dict[int, float]] = {}  # by epoch and trial

    def add(self, trial: int, gains: Mapping[int, float]) -> None:
        """Takes a trial's gains by epoch."""
        for epoch, gain in gains.items():
            self.gains.setdefault(epoch, {})[trial] = gain

    def leads(self, trial: int, epoch: int, least: int) -> bool:
        """Whether the trial is among the best third after this epoch, or among the best `least`. Of
        equal ones the earlier is better."""
        gains = self.gains[epoch]
        better = sum((-gain, other) < (-gains[trial], trial) for other, gain in gains.items())
        return better < max(len(gains) // REDUCTION, least)


class PausedStorage(InMemoryStorage):
    """A sampler's memory, in which trials that are paused are PRUNED, so that it learns from them:
    the values of RUNNING ones do not count. paused: by number."""

    def __init__(self) -> None:
        super().__init__()
        self.paused: dict[int, FrozenTrial] = {}

    def pause(self, trial: int) -> None:
        """Shows a trial, given by its id, as PRUNED, until its number is taken out of `paused`."""
        found = copy(self.get_trial(trial))
        found.state = TrialState.PRUNED
        self.paused[found.number] = found

    def get_all_trials(  # type: ignore[no-untyped-def]
        self, study_id: int, deepcopy: bool = True, states=None
    ) -> list[FrozenTrial]:
        every = super().get_all_trials(study_id, deepcopy=deepcopy)
        shown = [self.paused.get(trial.number, trial) for trial in every]
        return [trial for trial in shown if states is None or trial.state in states]
