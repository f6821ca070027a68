"""The domains of a search space: fixed values, choices and ranges, in Optuna's words."""

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, WithJsonSchema

from hpo.study.config import BOUNDS, REQUIRED, TYPES, check, faults_in
from hpo.text import quoted

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

RANGE_KEYS = ("low", "high", "log", "step")
MOST_STEPS = 1_000_000  # the values of a range with steps are kept as a list


@dataclass(frozen=True, kw_only=True)
class Fixed:
    value: Any


@dataclass(frozen=True, kw_only=True)
class Choices:
    values: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The range low to high, both included; integers if both are. step: None means 1 or
    continuous."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


Domain = Fixed | Choices | Range


def domain_faults(name: str, value: Any) -> list[str]:
    """Returns what is wrong with a hyperparameter's domain, in words."""
    if isinstance(value, list):
        return _choices_faults(name, value)
    if isinstance(value, dict):
        return _range_faults(name, value)
    return [fault] if (fault := check(name, value)) else []


def _choices_faults(name: str, values: list[Any]) -> list[str]:
    if not values:
        return ["is an empty list of choices; give at least one"]
    faults = [fault for value in values if (fault := check(name, value))]
    if not faults and len(set(values)) < len(values):
        faults.append("has a choice twice")
    return faults


def _range_faults(name: str, table: Mapping[str, Any]) -> list[str]:
    if name not in BOUNDS:
        return ["has no range; give a value or a list of choices"]
    unknown = [key for key in table if key not in RANGE_KEYS]
    if unknown or "low" not in table or "high" not in table:
        extra = f", not {', '.join(unknown)}" if unknown else ""
        return [f"a range has low and high, and may have log or step{extra}"]
    faults = [f"{key}: {f}" for key in ("low", "high") if (f := check(name, table[key]))]
    if table.get("log") and not faults and table["low"] <= 0:
        faults.append(f"low: a log range starts above 0, got {quoted(table['low'])}")
    if not faults and table["low"] > table["high"]:
        faults.append(f"low {quoted(table['low'])} is above high {quoted(table['high'])}")
    if not isinstance(table.get("log", False), bool):
        faults.append(f"log: must be true or false, got {quoted(table['log'])}")
    return faults + _step_faults(name, table)


def _step_faults(name: str, table: Mapping[str, Any]) -> list[str]:
    step = table.get("step")
    if step is None:
        return []
    if table.get("log"):
        return ["step: a log range has no step"]
    kind = BOUNDS[name][0]
    number = isinstance(step, kind if kind is int else (int, float)) and not isinstance(step, bool)
    if not number or not 0 < step < math.inf:
        words = "a whole number" if kind is int else "a number"
        return [f"step: must be {words} above 0, got {quoted(step)}"]
    return _whole_steps_faults(table, step)


def _whole_steps_faults(table: Mapping[str, Any], step: float) -> list[str]:
    ends = (table["low"], table["high"])
    if any(isinstance(end, bool) or not isinstance(end, (int, float)) for end in ends):
        return []  # another fault tells it
    steps = (ends[1] - ends[0]) / step
    if steps > MOST_STEPS:
        return [f"step: {quoted(step)} makes {steps:.3g} values, the most is {MOST_STEPS:,}"]
    if math.isfinite(steps) and abs(steps - round(steps)) > 1e-6:
        low, high = map(quoted, ends)
        return [f"step: {quoted(step)} does not lead from low {low} to high {high}"]
    return []


def parse_domain(value: Any) -> Domain:
    """Returns the domain of a correct value of a study file: scalar, list or table."""
    if isinstance(value, list):
        return Choices(values=tuple(value))
    if isinstance(value, dict):
        return Range(**value)
    return Fixed(value=value)


def domain_schema(name: str) -> WithJsonSchema:
    """Returns the JSON Schema of a hyperparameter's domain: a value, choices or a range."""
    value = TypeAdapter(TYPES[name]).json_schema()
    kinds: list[dict[str, Any]] = [value, {"type": "array", "items": value, "minItems": 1}]
    if name in BOUNDS:
        step = {"type": value["type"], "exclusiveMinimum": 0}
        keys = {"low": value, "high": value, "log": {"type": "boolean"}, "step": step}
        required = {"required": ["low", "high"], "additionalProperties": False}
        kinds.append({"type": "object", "properties": keys, **required})
    return WithJsonSchema({"anyOf": kinds})


def space_faults(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (hyperparameter, what is wrong) for a space as a study file writes it, with known
    names."""
    faults = [(name, "is missing") for name in REQUIRED if name not in table]
    faults += [
        (name, fault) for name, value in table.items() for fault in domain_faults(name, value)
    ]
    if faults:
        return faults
    return _combination_faults({name: parse_domain(value) for name, value in table.items()})


def _combination_faults(space: Mapping[str, Domain]) -> list[tuple[str, str]]:
    """Returns the faults of values that the space combines."""
    names = [name for name in ("optimizer", "momentum", "nesterov") if name in space]
    faults: dict[str, str] = {}
    for values in itertools.product(*(_ends(space[name]) for name in names)):
        faults |= faults_in(dict(zip(names, values, strict=True)))
    return list(faults.items())


def _ends(domain: Domain) -> tuple[Any, ...]:
    if isinstance(domain, Range):
        return (domain.low, domain.high)
    return (domain.value,) if isinstance(domain, Fixed) else domain.values


def suggest(trial: "BaseTrial", space: Mapping[str, Domain]) -> dict[str, Any]:
    """Suggests a value of each domain by the trial; fixed values are no parameters of the trial."""
    return {name: _suggest(trial, name, domain) for name, domain in space.items()}


def _suggest(trial: "BaseTrial", name: str, domain: Domain) -> Any:
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choices):
        return trial.suggest_categorical(name, domain.values)
    if BOUNDS[name][0] is int:
        low, high, step = int(domain.low), int(domain.high), int(domain.step or 1)
        return trial.suggest_int(name, low, high, step=step, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)


def spelled(domain: Domain) -> str:
    """Returns the domain as text: 0.0001 … 1 (log), or [relu, tanh]."""
    if isinstance(domain, Fixed):
        return str(domain.value)
    if isinstance(domain, Choices):
        return f"[{', '.join(map(str, domain.values))}]"
    notes = ["log"] if domain.log else []
    notes += [f"step {domain.step:g}"] if domain.step else []
    return f"{domain.low:g} … {domain.high:g}" + (f" ({', '.join(notes)})" if notes else "")


def _options(name: str, domain: Domain) -> list[Any] | None:
    """Returns all values of a domain; None if it is continuous."""
    if isinstance(domain, Fixed):
        return [domain.value]
    if isinstance(domain, Choices):
        return list(domain.values)
    if BOUNDS[name][0] is int:
        return list(range(int(domain.low), int(domain.high) + 1, int(domain.step or 1)))
    if domain.low == domain.high:
        return [domain.low]
    if domain.step:
        count = math.floor((domain.high - domain.low) / domain.step + 1e-8) + 1
        return [min(domain.low + i * domain.step, domain.high) for i in range(count)]
    return None


def size(space: Mapping[str, Domain]) -> float:
    """Returns the number of configurations; inf if a range is continuous."""
    options = [_options(name, domain) for name, domain in space.items()]
    return math.prod(math.inf if values is None else len(values) for values in options)


def draw(space: Mapping[str, Domain], rng: random.Random) -> dict[str, Any]:
    """Draws a random configuration; continuous ranges uniformly on their scale."""
    return {name: _draw(name, domain, rng) for name, domain in space.items()}


def _draw(name: str, domain: Domain, rng: random.Random) -> Any:
    options = _options(name, domain)
    if options is not None:
        return rng.choice(options)
    assert isinstance(domain, Range)
    if not domain.log:
        return rng.uniform(domain.low, domain.high)
    drawn = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    return min(max(drawn, domain.low), domain.high)  # exp and log round
