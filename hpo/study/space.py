"""The domains of a search space: fixed values, choices and ranges, in Optuna's words."""

import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from pydantic import TypeAdapter, WithJsonSchema, WrapValidator, create_model, model_validator
from pydantic_core.core_schema import no_info_plain_validator_function

from hpo.language import t
from hpo.study.config import (
    BOUNDS,
    COMBINED,
    DEFAULTS,
    FROM_WIDTHS,
    REQUIRED,
    REQUIRED_BY_ANY,
    TYPES,
    OwnNames,
    check,
    checked,
    combination_faults,
    hyperparameters,
    kind_of,
    with_widths,
)
from hpo.study.fields import Fault, Flag, Table, fault, faulty, is_number, read_or_faults
from hpo.text import meant, printable, quoted

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MOST_STEPS = 1_000_000  # the values of a range with steps are kept as a list


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
        low, high = f"{self.low:g}", f"{self.high:g}"  # as a binding has stored them
        return t("{name} is {low} to {high}", name=self.name, low=low, high=high)


# when: conditions that must all hold, or the hyperparameter has its default.
@dataclass(frozen=True, kw_only=True)
class Fixed:
    value: Any
    when: tuple[Condition, ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        return (self.value,)


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


Domain = Fixed | Choices | Range


# --- reading -----------------------------------------------------------------------------------


def parse_domain(value: Any, name: str = "") -> Domain:
    """Returns the domain that a study file writes as a value, a list of choices or a table. Raises
    ValidationError or PydanticCustomError for a wrong one."""
    if isinstance(value, dict):
        return _from_table(name, value)
    if not isinstance(value, list) or _is_fixed_list(name, value):
        return Fixed(value=checked(name, value))
    if not value:
        raise fault("is an empty list of choices; give at least one")
    if faults := [((), text) for each in value if (text := check(name, each))]:
        raise faulty(*faults)
    values = tuple(checked(name, each) for each in value)
    if len(set(values)) < len(values):
        raise fault("has a choice twice")
    return Choices(values=values)


def _is_fixed_list(name: str, value: Any) -> bool:
    """Whether a list is a value: widths = [512, 256], while [[512, 256], [256, 128]] is choices."""
    plain = isinstance(value, list) and all(isinstance(v, int) for v in value)
    return name == "widths" and plain and bool(value)


def _from_table(name: str, table: Mapping[str, Any]) -> Domain:
    kinds = [key for key in ("value", "choices") if key in table]
    when = _conditions(name, table["when"]) if "when" in table else ()
    if not kinds:
        return _range(name, {key: v for key, v in table.items() if key != "when"}, when)
    key, wanted = kinds[0], table[kinds[0]]
    if set(table) - {key, "when"}:
        raise fault(
            f"a table has either low and high, or value, or choices, not {', '.join(table)}"
        )
    if "when" not in table:
        raise fault(f"needs no table: without a condition (when), give the {key} itself")
    if key == "choices" and not isinstance(wanted, list):
        raise fault(f"choices: must be a list, got {quoted(wanted)}")
    if key == "value" and isinstance(wanted, (list, dict)) and not _is_fixed_list(name, wanted):
        raise fault(f"value: must be one value, got {quoted(wanted)}")
    return replace(parse_domain(wanted, name), when=when)


class RangeTable(Table):
    """A range as a study file writes it."""

    name: ClassVar[str] = ""
    low: Any
    high: Any
    log: Flag = False
    step: Annotated[Any, WithJsonSchema({"type": "number", "exclusiveMinimum": 0})] = None

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, table: Mapping[str, Any]) -> Any:
        if cls.name in TYPES and cls.name not in BOUNDS:
            raise fault("has no range; give a value or a list of choices")
        if not cls.name and not all(is_number(table.get(key, 0)) for key in ("low", "high")):
            raise fault("low and high: must be numbers")
        unknown = [key for key in table if key not in cls.model_fields]
        if unknown or "low" not in table or "high" not in table:
            left = [key for key in cls.model_fields if key not in table]
            near = meant(unknown[0], left) if unknown else ""
            extra = f", not {', '.join(unknown)}{near}" if unknown else ""
            raise fault(f"a range has low and high, and may have log, step or when{extra}")
        return table

    @model_validator(mode="after")
    def _check_ends(self) -> "RangeTable":
        low, high = self.low, self.high
        if self.log and low <= 0:
            raise faulty((("low",), f"a log range starts above 0, got {quoted(low)}"))
        if low > high:
            raise fault(f"low {quoted(low)} is above high {quoted(high)}")
        if self.step is not None and (text := self._step_fault()):
            raise faulty((("step",), text))
        return self

    def _step_fault(self) -> str | None:
        step, whole = self.step, is_whole(self.name, self.low, self.high)
        if self.log:
            return "a log range has no step"
        number = isinstance(step, int) if whole else is_number(step)
        if not number or isinstance(step, bool) or not 0 < step < math.inf:
            return f"must be a {'whole ' if whole else ''}number above 0, got {quoted(step)}"
        steps = (self.high - self.low) / step
        if steps > MOST_STEPS:
            return f"{quoted(step)} makes {steps:.3g} values, the most is {MOST_STEPS:,}"
        if abs(steps - round(steps)) > 1e-6:
            low, high = quoted(self.low), quoted(self.high)
            return f"{quoted(step)} does not lead from low {low} to high {high}"
        return None


@cache
def range_table(name: str) -> type[RangeTable]:
    """Returns the table of a hyperparameter's range, "" for one's own network's."""
    end: Any = (kind_of(name), ...)
    table: type[RangeTable] = create_model("Range", __base__=RangeTable, low=end, high=end)
    table.name = name
    return table


def _range(name: str, table: Mapping[str, Any], when: tuple[Condition, ...]) -> Range:
    read, faults = read_or_faults(range_table(name if name in TYPES else "").model_validate, table)
    if read is None:
        raise faulty(*(((), ": ".join(map(str, (*key, text)))) for key, text in faults))
    return Range(**dict(read), when=when)


def is_whole(name: str, low: Any, high: Any) -> bool:
    """Whether a range holds whole numbers: by the hyperparameter's type, or by its ends if it is
    the user's own."""
    if name in BOUNDS:
        return BOUNDS[name][0] is int
    return isinstance(low, int) and isinstance(high, int)


def _conditions(name: str, when: Any) -> tuple[Condition, ...]:
    if name not in TYPES:
        words = "when: a hyperparameter of your own network has no condition"
        raise fault(f"{words}; let the factory ignore it")
    if name in (*REQUIRED, "widths", "epochs"):
        raise fault("when: every network needs it, so it has no condition")
    if not isinstance(when, dict) or not when:
        raise fault(f"when: must be a table of conditions, got {quoted(when)}")
    return tuple(_condition(other, wanted) for other, wanted in when.items())


def _condition(other: str, wanted: Any) -> Condition:
    if isinstance(wanted, dict):
        bounds = set(wanted) <= {"low", "high"} and (other in BOUNDS or other not in TYPES)
        if not wanted or not bounds or any(check(other, bound) for bound in wanted.values()):
            words = "must be a value, a list of values, or low and high"
            raise fault(f"when.{other}: {words}, got {quoted(wanted)}")
        return Condition(name=other, **wanted)
    values = wanted if isinstance(wanted, list) else [wanted]
    faults = [text for value in values if (text := check(other, value))]
    if faults or not values:
        raise fault(f"when.{other}: {faults[0] if faults else 'is an empty list'}")
    return Condition(name=other, values=tuple(values))


# --- the table of a space ----------------------------------------------------------------------


@dataclass(frozen=True)
class _DomainField:
    """Reads a hyperparameter's domain for pydantic. name: "" for one's own network's."""

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return no_info_plain_validator_function(lambda value: parse_domain(value, self.name))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        value = TypeAdapter(kind_of(self.name)).json_schema()
        value = {key: v for key, v in value.items() if key != "default"}  # of a cell: pydantic 2.9
        choices = {"type": "array", "items": value, "minItems": 1}
        when = {"type": "object", "minProperties": 1}
        kinds = [value, choices]
        if self.name in BOUNDS or not self.name:
            ranges = range_table(self.name).model_json_schema()
            kinds.append(ranges | {"properties": {**ranges["properties"], "when": when}})
        for key, kind in (("value", value), ("choices", choices)):
            table = {"type": "object", "properties": {key: kind, "when": when}}
            kinds.append(table | {"required": [key, "when"], "additionalProperties": False})
        return {"anyOf": kinds}


def _space_type(name: str, base: type[Table], needed: Collection[str]) -> Any:
    """Returns the type of a space for pydantic: {hyperparameter: domain}, in the order of the file,
    in which they are drawn. needed: the hyperparameters that it must have, depth and width by
    themselves or by widths."""
    fields: dict[str, Any] = {
        n: (Annotated[Any, _DomainField(n)], ... if n in needed and n not in FROM_WIDTHS else None)
        for n in TYPES
        if n != "model"
    }

    def read(value: Any, handler: Any) -> dict[str, Domain]:
        space, faults = read_or_faults(handler, value)
        given = value if isinstance(value, dict) else FROM_WIDTHS
        words = "follows from widths, so leave it out" if "widths" in given else "is missing"
        follow = [name for name in FROM_WIDTHS if (name in given) == ("widths" in given)]
        faults += [((name,), words) for name in follow if name in needed]
        if space and not faults:
            found = hyperparameters(space)
            found = {name: found[name] for name in value}
            faults += [((name,), text) for name, text in _faults_together(found)]
        if faults:
            raise faulty(*faults)
        return found

    return Annotated[create_model(name, __base__=base, **fields), WrapValidator(read)]


class _OwnSpace(OwnNames):
    __pydantic_extra__: dict[str, Annotated[Any, _DomainField("")]]


if TYPE_CHECKING:
    Space: TypeAlias = dict[str, Domain]
    OwnSpace: TypeAlias = Space
else:
    Space = _space_type("Space", Table, REQUIRED)
    OwnSpace = _space_type("OwnSpace", _OwnSpace, REQUIRED_BY_ANY)


def read_space(
    raw: Mapping[str, Any], *, own_network: bool = False
) -> tuple[dict[str, Domain] | None, list[Fault]]:
    """Returns the domains of a space as a study file writes it, or None and what is wrong."""
    adapter = TypeAdapter(OwnSpace if own_network else Space)
    return read_or_faults(adapter.validate_python, raw)


def _faults_together(space: Mapping[str, Domain]) -> list[tuple[str, str]]:
    """Returns the faults of conditions, and of values that the space combines."""
    faults = []
    for name, domain in space.items():
        others = [other for other in space if other != name]
        words = f"is not in the space; conditions may ask for {', '.join(others)}"
        asked = [c.name for c in domain.when if c.name not in others]
        faults += [(name, f"when.{other}: {words}{meant(other, others)}") for other in asked]
    if faults:
        return faults
    try:
        ordered(space)
    except CycleError as error:
        cycle = error.args[1]
        return [(cycle[0], f"when: its conditions go in a circle: {' → '.join(cycle)}")]
    needed = {c.name for name in COMBINED if name in space for c in space[name].when}
    part = {  # what is combined, without conditions on hyperparameters that play no part
        name: replace(d, when=tuple(c for c in d.when if c.name in {*COMBINED, *needed}))
        for name, d in space.items()
        if name in COMBINED or name in needed
    }
    names = [name for name, domain in part.items() if not isinstance(domain, Fixed)]
    wrong: dict[str, str] = {}
    for ends in itertools.product(*(_ends(part[name]) for name in names)):
        chosen = dict(zip(names, ends, strict=True))
        values = assigned(part, lambda name, _, chosen=chosen: chosen[name])  # type: ignore[misc]
        wrong |= combination_faults(with_widths(values))
    return list(wrong.items())


MOST_BETWEEN = 100  # whole numbers of a range


def _ends(domain: Domain) -> tuple[Any, ...]:
    """Returns the values that show what a domain combines: of a range of few whole numbers all, of
    others the ends."""
    if isinstance(domain, Range):
        whole = isinstance(domain.low, int) and isinstance(domain.high, int)
        if whole and domain.high - domain.low < MOST_BETWEEN:
            return tuple(range(int(domain.low), int(domain.high) + 1, int(domain.step or 1)))
        return (domain.low, domain.high)
    return domain.values


# --- values and distributions ------------------------------------------------------------------


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


def entry_faults(space: Mapping[str, Domain], entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (hyperparameter, what is wrong) for values that are to be tried in this space; the
    others are sampled."""
    faults = []
    for name, value in entry.items():
        if name not in space:
            text = f"is not in the space; it has {', '.join(space)}{meant(name, space)}"
            faults.append((name, text))
        elif fault := check(name, value):
            faults.append((name, fault))
        elif not contains(name, space[name], value):
            domain = spelled(replace(space[name], when=()))
            faults.append((name, f"{quoted(value)} is not in its domain: {domain}"))
    return faults


def contains(name: str, domain: Domain, value: Any) -> bool:
    """Whether a sound value of a hyperparameter lies in its domain; conditions aside."""
    if name == "widths":
        value = with_widths({name: value})[name]
    if isinstance(domain, Range):
        whole = is_whole(name, domain.low, domain.high)
        if not is_number(value) or (whole and not isinstance(value, int)):
            return False
        options = _options(name, domain) if domain.step else None
        near = options is None or any(math.isclose(value, o, rel_tol=1e-9) for o in options)
        return domain.low <= value <= domain.high and near
    # To one's own network, 1, 1.0 and true, which are equal in Python, may mean different things.
    return any(value == v and (name in TYPES or type(value) is type(v)) for v in domain.values)


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
    if not all(map(is_number, values)):
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
    if isinstance(domain, Fixed):
        text = printable(str(domain.value))
    elif isinstance(domain, Choices):
        text = f"[{', '.join(printable(str(value)) for value in domain.values)}]"
    else:
        notes = [t("log")] if domain.log else []
        notes += [t("step {step:g}", step=domain.step)] if domain.step else []
        text = f"{domain.low:g} … {domain.high:g}" + (f" ({', '.join(notes)})" if notes else "")
    when = t(" and ").join(map(str, domain.when))
    return t("{domain}, if {when}", domain=text, when=when) if when else text


def _options(name: str, domain: Domain) -> list[Any] | None:
    """Returns all values of a domain; None if it is continuous."""
    if not isinstance(domain, Range):
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
    return domain.values[0]


def nearest(name: str, domain: Domain, value: Any) -> Any:
    """Returns the value if it is in the domain; or the nearest number there; or the first choice.
    Conditions aside."""
    if contains(name, domain, value):
        return value
    options = _options(name, domain)
    if options is None and isinstance(domain, Range):
        return min(max(value, domain.low), domain.high)
    numbers = [option for option in options or () if is_number(option)]
    if numbers and is_number(value):
        return min(numbers, key=lambda option: abs(option - value))
    return first_of(name, domain)


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

    def choose(name: str, domain: Domain) -> Any:
        options = _options(name, domain)
        if options is not None:
            return rng.choice(options)
        assert isinstance(domain, Range)
        if not domain.log:
            return rng.uniform(domain.low, domain.high)
        drawn = math.exp(rng.uniform(math.log(domain.low), math.log(domain.high)))
        return min(max(drawn, domain.low), domain.high)  # exp and log round

    return assigned(space, choose)
