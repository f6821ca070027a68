"""Search spaces: which domains are sound, and what a wrong one is told."""

from typing import Any

import pytest

from hpo.study.space import Choices, Fixed, Range, parse_domain, read_space

NAN, INF = float("nan"), float("inf")


def domain_faults(name: str, value: Any) -> list[str]:
    needed = {"depth": 1, "width": 8, "activation": "relu", "optimizer": "sgd", "lr": 0.1}
    _, faults = read_space({**needed, "momentum": 0.5, name: value})
    return [text for (of, *_), text in faults if of == name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 2),
        ("depth", [1, 2, 3]),
        ("depth", {"low": 1, "high": 4}),
        ("depth", {"low": 3, "high": 3}),
        ("width", {"low": 32, "high": 1024, "log": True}),
        ("width", {"low": 32, "high": 128, "step": 32}),
        ("activation", "relu"),
        ("activation", ["relu", "tanh"]),
        ("lr", 1),
        ("lr", {"low": 1e-4, "high": 1, "log": True}),
        ("momentum", {"low": 0.0, "high": 0.9, "step": 0.1, "log": False}),
        ("nesterov", [True, False]),
    ],
)
def test_sound_domain_has_no_faults(name: str, value: Any):
    assert domain_faults(name, value) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lr", [], "is an empty list of choices"),
        ("lr", [0.1, "fast"], "must be a number, got 'fast'"),
        ("lr", [0.1, [0.2]], "must be a number, got [0.2]"),
        ("lr", [0.1, NAN], "got nan"),
        ("depth", [1, 1], "has a choice twice"),
        ("lr", [1, 1.0], "has a choice twice"),
        ("activation", ["relu", "swish"], "must be one of sigmoid"),
        ("activation", {"low": 1, "high": 2}, "has no range"),
        ("nesterov", {"low": 0, "high": 1}, "has no range"),
        ("lr", "fast", "must be a number, got 'fast'"),
        ("lr", None, "must be a number, got None"),
        ("depth", 1.5, "must be a whole number, got 1.5"),
        ("depth", True, "must be a whole number, got True"),
        ("depth", {"low": 1}, "a range has low and high"),
        ("depth", {"high": 1}, "a range has low and high"),
        ("depth", {}, "a range has low and high"),
        (
            "lr",
            {"low": 0.1, "high": 1, "min": 0},
            "a range has low and high, and may have log",
        ),
        ("depth", {"low": 4, "high": 1}, "low 4 is above high 1"),
        ("depth", {"low": "a", "high": 4}, "low: must be a whole number, got 'a'"),
        ("depth", {"low": 1, "high": 4.0}, "high: must be a whole number, got 4.0"),
        ("depth", {"low": [1], "high": 4}, "low: must be a whole number, got [1]"),
        ("lr", {"low": NAN, "high": 1.0}, "low: must be between 0 and 1e+06, got nan"),
        ("lr", {"low": 0.1, "high": INF}, "high: must be between 0 and 1e+06, got inf"),
        ("lr", {"low": 0.1, "high": 10**400}, "high: must be between 0 and 1e+06, got 1000"),
        ("lr", {"low": 0, "high": 1, "log": True}, "low: must be greater than 0, got 0"),
        ("momentum", {"low": 0.0, "high": 0.9, "log": True}, "low: a log range starts above 0"),
        ("lr", {"low": 0.1, "high": 1.0, "log": "yes"}, "log: must be true or false, got 'yes'"),
        ("lr", {"low": 0.1, "high": 1.0, "log": []}, "log: must be true or false, got []"),
        ("lr", {"low": 0.1, "high": 1, "log": True, "step": 0.1}, "step: a log range has no step"),
        ("lr", {"low": 0.1, "high": 1.0, "step": 0}, "step: must be a number above 0, got 0"),
        ("lr", {"low": 0.1, "high": 1.0, "step": NAN}, "step: must be a number above 0, got nan"),
        ("lr", {"low": 0.1, "high": 1.0, "step": INF}, "step: must be a number above 0, got inf"),
        ("lr", {"low": 0.1, "high": 1.0, "step": 1e-9}, "step: 1e-09 makes 9e+08 values, the most"),
        (
            "lr",
            {"low": 0.1, "high": 1.0, "step": 5e-324},
            "step: 5e-324 makes inf values, the most",
        ),
        ("lr", {"low": 0.1, "high": 1.0, "step": "a"}, "step: must be a number above 0, got 'a'"),
        ("depth", {"low": 1, "high": 4, "step": 0.5}, "step: must be a whole number above 0"),
        ("depth", {"low": 1, "high": 4, "step": True}, "step: must be a whole number above 0"),
        ("depth", {"low": 1, "high": 4, "step": [1]}, "step: must be a whole number above 0"),
    ],
)
def test_wrong_domain_is_told_its_one_fault(name: str, value: Any, said: str):
    [fault] = domain_faults(name, value)
    assert said in fault


def test_every_wrong_choice_is_told():
    assert len(domain_faults("depth", [0, 1, "two", 200])) == 3


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        (0.1, Fixed(value=0.1)),
        ("relu", Fixed(value="relu")),
        ([1, 2], Choices(values=(1, 2))),
        ({"low": 1, "high": 4}, Range(low=1, high=4)),
        (
            {"low": 0.1, "high": 1.0, "log": True},
            Range(low=0.1, high=1.0, log=True),
        ),
        ({"low": 0, "high": 8, "step": 2}, Range(low=0, high=8, step=2)),
    ],
)
def test_scalar_list_and_table_are_fixed_choices_and_range(value: Any, domain: Any):
    assert parse_domain(value) == domain
