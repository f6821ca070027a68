"""The domains of a search space: fixed values, choices and ranges, in Optuna's words."""

import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, WithJsonSchema

from hpo.language import t
from hpo.study import conditions
from hpo.study.conditions import Condition
from hpo.study.config import (
    BOUNDS,
    DEFAULTS,
    REQUIRED,
    REQUIRED_BY_ANY,
    TOGETHER,
    TYPES,
    check,
    combination_faults,
    with_widths,
)
from hpo.text import printable, quoted

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

RANGE_KEYS = ("low", "high", "log", "step")
TABLE_KEYS = ("value", "choices", *RANGE_KEYS, "when")
MOST_STEPS = 1_000_000  # the values of a range with steps are kept as a list


@dataclass(frozen=True, kw_only=True)
class Fixed:
    value: Any
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choices:
    values: tuple[Any, ...]
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Range:
    """The range low to high, both included; integers if both are. step: None means 1 or
    continuous."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: tuple[Condition, ...] = ()


# when: conditions that must all hold, or the hyperparameter has its default.
Domain = Fixed | Choices | Range


def domain_faults(name: str, value: Any) -> list[str]:
    """Returns what is wrong with a hyperparameter's domain, in words."""
    if _is_fixed_list(name, value):
        return [fault] if (fault := check(name, value)) else []
    if isinstance(value, list):
        return _choices_faults(name, value)
    if isinstance(value, dict):
        return _table_faults(name, value)
    return [fault] if (fault := check(name, value)) else []


def _is_fixed_list(name: str, value: Any) -> bool:
    """Whether a list is a value: widths = [512, 256], while [[512, 256], [256, 128]] is choices."""
    plain = isinstance(value, list) and all(isinstance(v, int) for v in value)
    return name == "widths" and plain and bool(value)


def _table_faults(name: str, table: Mapping[str, Any]) -> list[str]:
    """Returns the faults of a table without its condition: a range, a value or choices."""
    kinds = [key for key in ("value", "choices") if key in table]
    if not kinds:
        return _range_faults(name, {k: v for k, v in table.items() if k != "when"})
    (key, *others), unknown = kinds, [k for k in table if k not in (*kinds, "when")]
    if others or unknown:
        return [f"a table has either low and high, or value, or choices, not {', '.join(table)}"]
    if "when" not in table:
        return [f"needs no table: without a condition (when), give the {key} itself"]
    wanted = table[key]
    if key == "choices" and not isinstance(wanted, list):
        return [f"choices: must be a list, got {quoted(wanted)}"]
    if key == "value" and isinstance(wanted, (list, dict)) and not _is_fixed_list(name, wanted):
        return [f"value: must be one value, got {quoted(wanted)}"]
    return domain_faults(name, wanted)


def _choices_faults(name: str, values: list[Any]) -> list[str]:
    if not values:
        return ["is an empty list of choices; give at least one"]
    faults = [fault for value in values if (fault := check(name, value))]
    if name == "widths" and not faults:
        values = [with_widths({name: value})[name] for value in values]
    if not faults and len(set(values)) < len(values):
        faults.append("has a choice twice")
    return faults


def _range_faults(name: str, table: Mapping[str, Any]) -> list[str]:
    if name not in BOUNDS and name in TYPES:
        return ["has no range; give a value or a list of choices"]
    if name not in TYPES and not all(_is_number(table.get(key, 0)) for key in ("low", "high")):
        return ["low and high: must be numbers"]
    unknown = [key for key in table if key not in RANGE_KEYS]
    if unknown or "low" not in table or "high" not in table:
        extra = f", not {', '.join(unknown)}" if unknown else ""
        return [f"a range has low and high, and may have log, step or when{extra}"]
    faults = [f"{key}: {f}" for key in ("low", "high") if (f := check(name, table[key]))]
    if table.get("log") and not faults and table["low"] <= 0:
        faults.append(f"low: a log range starts above 0, got {quoted(table['low'])}")
    if not faults and table["low"] > table["high"]:
        faults.append(f"low {quoted(table['low'])} is above high {quoted(table['high'])}")
    if not isinstance(table.get("log", False), bool):
        faults.append(f"log: must be true or false, got {quoted(table['log'])}")
    return faults + _step_faults(name, table)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(name: str, low: Any, high: Any) -> bool:
    """Whether a range holds whole numbers: by the hyperparameter's type, or by its ends if it is
    the user's own."""
    if name in BOUNDS:
        return BOUNDS[name][0] is int
    return isinstance(low, int) and isinstance(high, int)


def _step_faults(name: str, table: Mapping[str, Any]) -> list[str]:
    step = table.get("step")
    if step is None:
        return []
    if table.get("log"):
        return ["step: a log range has no step"]
    kind: Any = int if is_whole(name, table.get("low"), table.get("high")) else float
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


def parse_domain(value: Any, name: str = "") -> Domain:
    """Returns the domain of a correct value of a study file: scalar, list or table."""
    if name == "widths":
        return _parse_widths(value)
    if isinstance(value, list):
        return Choices(values=tuple(value))
    if not isinstance(value, dict):
        return Fixed(value=value)
    when = tuple(conditions.parsed(value.get("when", {})))
    if "value" in value or "choices" in value:
        inner = parse_domain(value.get("value", value.get("choices")), name)
        return replace(inner, when=when)
    return Range(**{k: v for k, v in value.items() if k != "when"}, when=when)


def _parse_widths(value: Any) -> Domain:
    listed = isinstance(value, list) and not _is_fixed_list("widths", value)
    texts = [with_widths({"widths": v})["widths"] for v in (value if listed else [value])]
    return Choices(values=tuple(texts)) if listed else Fixed(value=texts[0])


def _cycle(space: Mapping[str, Domain]) -> list[str]:
    """Returns the hyperparameters whose conditions depend on each other, if there are any."""
    try:
        ordered(space)
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def ordered(space: Mapping[str, Domain]) -> list[str]:
    """Returns the hyperparameters, each after those that its conditions ask for; the order of the
    space where there are no conditions. Raises graphlib.CycleError."""
    if not is_conditional(space):
        return list(space)
    needs = {
        name: [c.name for c in domain.when if c.name in space] for name, domain in space.items()
    }
    return list(TopologicalSorter(needs).static_order())


def is_conditional(space: Mapping[str, Domain]) -> bool:
    """Whether a hyperparameter has a condition."""
    return any(domain.when for domain in space.values())


def assigned(space: Mapping[str, Domain], choose: Callable[[str, Domain], Any]) -> dict[str, Any]:
    """Returns a value for each hyperparameter whose conditions hold. choose: gives that of a domain
    that is not fixed."""
    values: dict[str, Any] = {}
    for name in ordered(space):
        domain = space[name]
        if all(c.holds(values.get(c.name, DEFAULTS.get(c.name))) for c in domain.when):
            values[name] = domain.value if isinstance(domain, Fixed) else choose(name, domain)
    return values


_OWN: dict[str, Any] = {"type": ["number", "boolean", "string"]}


def domain_schema(name: str) -> WithJsonSchema:
    """Returns the JSON Schema of a hyperparameter's domain: a value, choices or a range."""
    value = TypeAdapter(TYPES[name]).json_schema() if name in TYPES else _OWN
    kinds: list[dict[str, Any]] = [value, {"type": "array", "items": value, "minItems": 1}]
    if name in BOUNDS or name not in TYPES:
        step = {"type": value.get("type", "number"), "exclusiveMinimum": 0}
        keys = {"low": value, "high": value, "log": {"type": "boolean"}, "step": step}
        required = {"required": ["low", "high"], "additionalProperties": False}
        keys["when"] = {"type": "object", "minProperties": 1}
        kinds.append({"type": "object", "properties": keys, **required})
    for key, kind in (("value", value), ("choices", kinds[1])):
        keys = {key: kind, "when": {"type": "object", "minProperties": 1}}
        required = {"required": [key, "when"], "additionalProperties": False}
        kinds.append({"type": "object", "properties": keys, **required})
    return WithJsonSchema({"anyOf": kinds})


def space_faults(table: Mapping[str, Any], *, own_network: bool = False) -> list[tuple[str, str]]:
    """Returns (hyperparameter, what is wrong) for a space as a study file writes it, with known
    names, or with names of the user's own network."""
    follow = ("depth", "width") if "widths" in table else ()
    needed = REQUIRED_BY_ANY if own_network else REQUIRED
    faults = [(n, "is missing") for n in needed if n not in table and n not in follow]
    faults += [(n, "follows from widths, so leave it out") for n in follow if n in table]
    faults += [
        (name, fault) for name, value in table.items() for fault in domain_faults(name, value)
    ]
    faults += conditions.faults_of(table)
    if faults:
        return faults
    space = {name: parse_domain(value, name) for name, value in table.items()}
    if cycle := _cycle(space):
        return [(cycle[0], f"when: its conditions go in a circle: {' → '.join(cycle)}")]
    return _combination_faults(space)


def _combination_faults(space: Mapping[str, Domain]) -> list[tuple[str, str]]:
    """Returns the faults of values that the space combines."""
    asked = {c.name for name in TOGETHER if name in space for c in space[name].when}
    part = {name: d for name, d in space.items() if name in TOGETHER or name in asked}
    names = [name for name, domain in part.items() if not isinstance(domain, Fixed)]
    faults: dict[str, str] = {}
    for ends in itertools.product(*(_ends(part[name]) for name in names)):
        chosen = dict(zip(names, ends, strict=True))
        values = assigned(_closed(part), lambda name, _, chosen=chosen: chosen[name])  # type: ignore[misc]
        faults |= combination_faults(values)
    return list(faults.items())


def _closed(part: Mapping[str, Domain]) -> dict[str, Domain]:
    """Returns the domains without conditions on hyperparameters that are not among them."""
    return {
        name: replace(domain, when=tuple(c for c in domain.when if c.name in part))
        for name, domain in part.items()
    }


MOST_BETWEEN = 100  # whole numbers of a range


def _ends(domain: Domain) -> tuple[Any, ...]:
    """Returns the values that show what a domain combines: of a range of few whole numbers all, of
    others the ends."""
    if isinstance(domain, Range):
        whole = isinstance(domain.low, int) and isinstance(domain.high, int)
        if whole and domain.high - domain.low < MOST_BETWEEN:
            return tuple(range(int(domain.low), int(domain.high) + 1, int(domain.step or 1)))
        return (domain.low, domain.high)
    return (domain.value,) if isinstance(domain, Fixed) else domain.values


def entry_faults(space: Mapping[str, Domain], entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (hyperparameter, what is wrong) for values that are to be tried in this space; the
    others are sampled."""
    faults = []
    for name, value in entry.items():
        if name not in space:
            faults.append((name, f"is not in the space; it has {', '.join(space)}"))
        elif fault := check(name, value):
            faults.append((name, fault))
        elif not contains(name, space[name], value):
            faults.append((name, f"{quoted(value)} is not in its domain: {_spelled(space[name])}"))
    return faults


def contains(name: str, domain: Domain, value: Any) -> bool:
    """Whether a sound value of a hyperparameter lies in its domain; conditions aside."""
    if name == "widths":
        value = with_widths({name: value})[name]
    if isinstance(domain, Range):
        whole = is_whole(name, domain.low, domain.high)
        if not _is_number(value) or (whole and not isinstance(value, int)):
            return False
        options = _options(name, domain) if domain.step else None
        near = options is None or any(math.isclose(value, o, rel_tol=1e-9) for o in options)
        return domain.low <= value <= domain.high and near
    values = (domain.value,) if isinstance(domain, Fixed) else domain.values
    # To one's own network, 1, 1.0 and true, which are equal in Python, may mean different things.
    return any(value == v and (name in TYPES or type(value) is type(v)) for v in values)


def fits(space: Mapping[str, Domain], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a configuration's values of what a space leaves open; None if the configuration does
    not lie in the space.

    values: hyperparameters; those that are left out have their defaults.
    """
    full = {**DEFAULTS, **values}
    try:
        ours = assigned(space, lambda name, _: full[name])
    except KeyError:
        return None
    whole = {**DEFAULTS, **with_widths(ours)}
    if any(whole.get(name) != full.get(name) for name in {*whole, *full}):
        return None
    if not all(contains(name, space[name], full[name]) for name in ours):
        return None
    return {name: v for name, v in ours.items() if not isinstance(space[name], Fixed)}


def around(values: Collection[Any], *, log: bool = False) -> Domain:
    """Returns the smallest domain that holds these values: a range of numbers, whole if all are;
    choices if one of them is none. log: of a range that is not whole."""
    if not all(map(_is_number, values)):
        return Choices(values=tuple(sorted(values, key=lambda v: (isinstance(v, str), v))))
    whole = all(isinstance(value, int) for value in values)
    kind: Any = int if whole else float
    return Range(low=kind(min(values)), high=kind(max(values)), log=log and not whole)


def suggest(trial: "BaseTrial", space: Mapping[str, Domain]) -> dict[str, Any]:
    """Suggests a value of each domain whose conditions hold by the trial; fixed values are no
    parameters of the trial."""
    return with_widths(assigned(space, lambda name, domain: suggest_one(trial, name, domain)))


def completed(space: Mapping[str, Domain], params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the hyperparameters of a trial: its parameters and the space's fixed values. Those
    that a broken trial lacks are left out."""
    values = assigned(space, lambda name, _: params.get(name))
    return with_widths({name: value for name, value in values.items() if value is not None})


def suggest_one(trial: "BaseTrial | Any", name: str, domain: Domain) -> Any:
    """Suggests a value of a domain that is not fixed."""
    assert not isinstance(domain, Fixed)
    if isinstance(domain, Choices):
        return trial.suggest_categorical(name, domain.values)
    if is_whole(name, domain.low, domain.high):
        low, high, step = int(domain.low), int(domain.high), int(domain.step or 1)
        return trial.suggest_int(name, low, high, step=step, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)


def spelled(domain: Domain) -> str:
    """Returns the domain as text: 0.0001 … 1 (log), or [relu, tanh], if optimizer is sgd."""
    if not domain.when:
        return _spelled(domain)
    when = t(" and ").join(map(str, domain.when))
    return t("{domain}, if {when}", domain=_spelled(domain), when=when)


def _spelled(domain: Domain) -> str:
    if isinstance(domain, Fixed):
        return printable(str(domain.value))
    if isinstance(domain, Choices):
        return f"[{', '.join(printable(str(value)) for value in domain.values)}]"
    notes = [t("log")] if domain.log else []
    notes += [t("step {step:g}", step=domain.step)] if domain.step else []
    return f"{domain.low:g} … {domain.high:g}" + (f" ({', '.join(notes)})" if notes else "")


def _options(name: str, domain: Domain) -> list[Any] | None:
    """Returns all values of a domain; None if it is continuous."""
    if isinstance(domain, Fixed):
        return [domain.value]
    if isinstance(domain, Choices):
        return list(domain.values)
    if is_whole(name, domain.low, domain.high):
        return list(range(int(domain.low), int(domain.high) + 1, int(domain.step or 1)))
    if domain.low == domain.high:
        return [domain.low]
    if domain.step:
        count = math.floor((domain.high - domain.low) / domain.step + 1e-8) + 1
        return [min(domain.low + i * domain.step, domain.high) for i in range(count)]
    return None


def first_of(name: str, domain: Domain) -> Any:
    """Returns the first choice, or the lower end of a range."""
    if isinstance(domain, Range):
        return int(domain.low) if is_whole(name, domain.low, domain.high) else domain.low
    return domain.value if isinstance(domain, Fixed) else domain.values[0]


def size(space: Mapping[str, Domain]) -> float:
    """Returns the number of configurations; inf if a range is continuous, or if conditions make
    them too many to be counted."""
    options = {name: _options(name, domain) for name, domain in space.items()}
    lengths = {n: math.inf if values is None else len(values) for n, values in options.items()}
    if not is_conditional(space):
        return math.prod(lengths.values())
    asked = [n for n in ordered(space) if any(c.name == n for d in space.values() for c in d.when)]
    if math.prod(lengths[name] for name in asked) > MOST_COUNTED:
        return math.inf
    alone = {name: replace(space[name], when=()) for name in asked}
    ways = set()
    for chosen in itertools.product(*(options[name] or () for name in asked)):
        picked = dict(zip(asked, chosen, strict=True))
        full = {**space, **{n: Fixed(value=v, when=space[n].when) for n, v in picked.items()}}
        values = assigned(full, lambda name, _: name)
        free = math.prod(lengths[name] for name in values if name not in alone)
        ways.add((tuple((n, values[n]) for n in asked if n in values), free))
    return math.fsum(free for _, free in ways)


MOST_COUNTED = 10_000


def draw(space: Mapping[str, Domain], rng: random.Random) -> dict[str, Any]:
    """Draws a random configuration; continuous ranges uniformly on their scale."""
    return assigned(space, lambda name, domain: _draw(name, domain, rng))


def _draw(name: str, domain: Domain, rng: random.Random) -> Any:
    options = _options(name, domain)
    if options is not None:
        return rng.choice(options)
    assert isinstance(domain, Range)
    if not domain.log:
        return rng.uniform(domain.low, domain.high)
    drawn = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
    return min(max(drawn, domain.low), domain.high)  # exp and log round
