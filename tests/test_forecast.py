"""The time left, against schedules worked out by hand."""

import pytest

from hpo.runs.progress import Candidate, TimeTaken, by_cost, by_count, finalists


def spent(cost: float, share: float, seconds: float) -> TimeTaken:
    return TimeTaken(cost=cost, share=share, seconds=seconds)


def test_costs_are_scaled_by_the_seconds_that_they_took():
    # Cost 3 took 6 seconds; cost 1 + 7 is left, for two workers.
    assert by_cost([spent(2, 1.0, 4), spent(2, 0.5, 2)], [3, 4], 2) == pytest.approx(8)


def test_the_longest_training_bounds_the_end():
    assert by_cost([spent(1, 1.0, 3)], [10, 1], 8) == pytest.approx(30)


def test_what_one_worker_trains_afterwards_is_added():
    assert by_cost([spent(1, 1.0, 3)], [2, 2], 2, after=1) == pytest.approx(9)


def test_nothing_is_said_before_there_is_enough_to_tell():
    assert by_cost([], [1], 2) is None
    assert by_cost([spent(1, 0.0, 9)], [1], 2) is None
    assert by_cost([spent(1, 0.5, 0.1)], [1], 2) is None
    assert by_count([1, 1, 1], [], 5, 2) is None


def test_trials_to_come_are_like_the_later_half():
    assert by_count([1, 1, 3, 5], [1, 9], 6, 2) == pytest.approx((3 + 6 * 4) / 2)


def test_finalists_are_the_best_on_all_their_seeds_and_one_on_all_images():
    values = [(0.9, 10.0), (0.97, 4.0), (0.98, 8.0)]
    sound = [Candidate(value=value, seconds=seconds) for value, seconds in values]
    assert finalists(sound, 2, 5, 2) == pytest.approx((4 + 8) * 5 / 2 + 1.25 * 8)


def test_finalists_that_are_trained_take_no_time():
    sound = [
        Candidate(value=0.97, seconds=4, trained=5),
        Candidate(value=0.98, seconds=8, trained=3),
    ]
    assert finalists(sound, 2, 5, 2) == pytest.approx(2 * 8 / 2 + 1.25 * 8)
    assert finalists(sound[:1], 2, 5, 2) == 0.0
    assert finalists([], 2, 5, 2) == 0.0
