"""Types of the fields of a study file: declared for pydantic, with errors in plain words."""

import difflib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import no_info_wrap_validator_function

from hpo.text import meant, printable, quoted, shortened

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a study, and of a cell
Key = tuple[str | int, ...]  # of a value in a file: ("cells", 0, "lr")
Fault = tuple[Key, str]  # and what is wrong with it


class Table(BaseModel):
    """A table of a study file: no other keys, no conversions, no NaN."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, defer_build=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_words(cls, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            faults = [(wrong["loc"], _words(wrong, cls)) for wrong in _errors(error)]
            raise faulty(*faults) from None


def _errors(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_context=False)


def _words(wrong: ErrorDetails, model: type[Table]) -> str:
    """Returns what is wrong with a table or with its keys."""
    if wrong["type"] == "model_type":
        return f"must be a table, got {quoted(wrong['input'])}"
    if wrong["type"] == "missing":
        return "is missing"
    if wrong["type"] != "extra_forbidden":
        return wrong["msg"]
    known = list(model.model_fields)
    near = difflib.get_close_matches(str(wrong["loc"][0]), known, 1)
    hint = f"did you mean {quoted(near[0])}?" if near else f"known: {', '.join(known)}"
    return f"unknown key; {hint}"


def faulty(*faults: Fault) -> ValidationError:
    """Returns the error that a validator raises to say what is wrong with keys below its own."""
    details = [InitErrorDetails(type=fault(text), loc=key, input=None) for key, text in faults]
    return ValidationError.from_exception_data("fault", details)


def read_or_faults(read: Callable[[Any], T], raw: Any) -> tuple[T | None, list[Fault]]:
    """Returns what a validator reads, or None and all that is wrong."""
    try:
        return read(raw), []
    except ValidationError as error:
        return None, [(wrong["loc"], wrong["msg"]) for wrong in _errors(error)]


TYPE = re.compile(r"float|tuple\[.*\]|constrained-float")  # in pydantic's places


def faults(error: ValidationError) -> str:
    """Returns what pydantic found, "key: what" each; of a value of several types, what is wrong
    with it as the first of them."""
    found: dict[str, str] = {}
    for wrong in error.errors(include_url=False, include_input=False):
        place = [str(part) for part in wrong["loc"] if not TYPE.fullmatch(str(part))]
        text = wrong["msg"].removeprefix("Value error, ")
        text = "is missing" if wrong["type"] == "missing" else text
        text = text.replace("tuple", "list").replace("Tuple", "List")  # as TOML and JSON have it
        found.setdefault(".".join(place), re.sub(" or instance of .*", "", text))
    lines = [f"{place}: {text}" if place else text for place, text in found.items()]
    return shortened(printable("; ".join(lines)), 600)


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def fault(text: str) -> PydanticCustomError:
    """Returns the error that a validator raises to say `text`."""
    return PydanticCustomError("fault", "{text}", {"text": text})


def explained(words: str) -> WrapValidator:
    """Replaces pydantic's message by "WORDS, got VALUE"."""

    def explain(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise fault(f"{words}, got {quoted(value)}") from None

    return WrapValidator(explain)


def one_of(names: Collection[str]) -> tuple[WrapValidator, WithJsonSchema]:
    """Accepts the names that the table has when the value is validated."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        if not isinstance(value, str) or value not in names:
            raise fault(
                f"must be one of {', '.join(names)}, got {quoted(value)}{meant(str(value), names)}"
            )
        return value

    return WrapValidator(check), WithJsonSchema({"enum": list(names)})


@dataclass(frozen=True)
class Between:
    """Bounds of a number, in Annotated[int or float, Between(…)], with errors in plain words. The
    number stays as it is written: 1 is not made 1.0. above: whether it must be more than `low`."""

    low: float
    high: float
    above: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        low: Any = {"gt" if self.above else "ge": self.low}
        inner = handler.generate_schema(Annotated[source, Field(**low, le=self.high)])
        return no_info_wrap_validator_function(self._checked, inner)

    def _checked(self, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            handler(value)
        except ValidationError as error:
            kind, text = _errors(error)[0]["type"], f"between {self.low:g} and {self.high:g}"
            too_long = type(value) is int  # pydantic says float_type of 400 digits
            if kind in ("int_type", "float_type", "int_from_float") and not too_long:
                text = "a number" if kind == "float_type" else "a whole number"
            elif kind == "greater_than":
                text = f"greater than {self.low:g}"
            raise fault(f"must be {text}, got {quoted(value)}") from None
        return value


def tables(value: Any, handler: Callable[[Any], Any]) -> Any:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return handler(value)
    raise fault(f"must be a list of tables, got {quoted(value)}")


def _values(value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
    if not isinstance(value, list) or not value:
        raise fault(f"must be a list of one value or more, got {quoted(value)}")
    if info.field_name == "widths" and any(isinstance(each, int) for each in value):
        raise fault(f"must be a list of lists, such as [[512, 256], [128]], got {quoted(value)}")
    values = handler(value)
    if len(set(values)) < len(values):
        raise fault("has a value twice")
    return values


def _text(value: Any, handler: Callable[[Any], Any]) -> str:
    """Strips the text. pydantic's own type refuses the lone surrogates that JSON may hold."""
    if not isinstance(value, str):
        raise fault(f"must be text, got {quoted(value)}")
    return value.strip()


UNITS = {"s": 1, "min": 60, "h": 3600}


def _seconds(value: Any, handler: Callable[[Any], Any]) -> float:
    """Reads seconds: a number, or text such as "90 s", "5 min" or "1 h"."""
    number, unit = value, "s"
    if isinstance(value, str):
        digits, _, unit = value.strip().partition(" ")
        number = float(digits) if digits.replace(".", "", 1).isdecimal() else None
    if type(number) not in (int, float) or unit not in UNITS or not 0 < number <= 1e9:
        raise fault(f'must be seconds above 0, or text such as "5 min", got {quoted(value)}')
    return float(number * UNITS[unit])


BALANCED = "balanced"


def _class_weight(value: Any, handler: Callable[[Any], Any]) -> Any:
    weights = list(value.values()) if isinstance(value, dict) else []
    numbers = all(type(weight) in (int, float) and 0 < weight <= 1e6 for weight in weights)
    if value != BALANCED and not (weights and numbers):
        text = 'must be "balanced" or a table of weights above 0, such as { rare = 20 }'
        raise fault(f"{text}, got {quoted(value)}")
    return value


_WEIGHTS = {
    "anyOf": [
        {"const": BALANCED},
        {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}},
    ]
}
ClassWeight = Annotated[Any, WrapValidator(_class_weight), WithJsonSchema(_WEIGHTS)]
_DURATION = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
Duration = Annotated[float, WrapValidator(_seconds), WithJsonSchema(_DURATION)]
Tables = Annotated[tuple[T, ...], Field(strict=False), WrapValidator(tables)]
Values = Annotated[tuple[T, ...], Field(strict=False), WrapValidator(_values)]
Text = Annotated[str, WrapValidator(_text)]
Flag = Annotated[bool, explained("must be true or false")]
Names = Annotated[tuple[str, ...], Field(strict=False), explained("must be a list of names")]
Seed = Annotated[int, Field(ge=0, le=10**6), explained("must be a whole number from 0 to 1000000")]
Count = Annotated[int, Field(ge=1, le=10**6), explained("must be a whole number from 1 to 1000000")]
