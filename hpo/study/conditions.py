"""Conditions of a space: a hyperparameter is chosen only where others have certain values."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpo.language import t
from hpo.study.config import BOUNDS, REQUIRED, TYPES, check
from hpo.text import quoted


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Holds if another hyperparameter has one of these values, or lies from low to high."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def holds(self, value: Any) -> bool:
        return value in self.values if self.values else self.low <= value <= self.high

    def __str__(self) -> str:
        if self.values:
            values = t(" or ").join(map(str, self.values))
            return t("{name} is {values}", name=self.name, values=values)
        return t("{name} is {low:g} to {high:g}", name=self.name, low=self.low, high=self.high)


def parsed(table: Mapping[str, Any]) -> Iterator[Condition]:
    """Yields the conditions of a correct table `when`."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield Condition(name=name, **value)
        else:
            yield Condition(name=name, values=tuple(value) if isinstance(value, list) else (value,))


def faults_of(space: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the faults of all conditions of a space as a study file writes it."""
    faults = []
    for name, value in space.items():
        if not isinstance(value, dict) or "when" not in value:
            continue
        when = value["when"]
        if name not in TYPES:
            words = "when: a hyperparameter of your own network has no condition"
            faults.append((name, f"{words}; let the factory ignore it"))
        elif name in (*REQUIRED, "widths", "epochs"):
            faults.append((name, "when: every network needs it, so it has no condition"))
        elif not isinstance(when, dict) or not when:
            faults.append((name, f"when: must be a table of conditions, got {quoted(when)}"))
        else:
            faults += [
                (name, f"when.{other}: {fault}")
                for other, wanted in when.items()
                if (fault := _fault(name, other, wanted, space))
            ]
    return faults


def _fault(name: str, other: str, wanted: Any, space: Mapping[str, Any]) -> str | None:
    if other not in space or other == name:
        others = ", ".join(n for n in space if n != name)
        return f"is not in the space; conditions may ask for {others}"
    if isinstance(wanted, dict):
        bounds = set(wanted) <= {"low", "high"} and (other in BOUNDS or other not in TYPES)
        if not wanted or not bounds or any(check(other, bound) for bound in wanted.values()):
            return f"must be a value, a list of values, or low and high, got {quoted(wanted)}"
        return None
    for value in wanted if isinstance(wanted, list) else [wanted]:
        if fault := check(other, value):
            return fault
    return None if wanted != [] else "is an empty list"
