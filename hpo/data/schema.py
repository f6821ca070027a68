"""The input schema: what the numbers of an example mean, and how they become what a network is fed.

Training, test files, `hpo predict`, exports and `hpo.load` feed networks by the schema alone. It
is made when data are read, stored with the study, and saved in `best/config.toml`. So is what a
network answers: classes, or a number.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hpo.errors import InputError
from hpo.study.names import Scaling
from hpo.text import quoted, shortened

Array = NDArray[Any]
Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]

PART = 256  # examples that are normalized at a time
DIGITS = tuple(map(str, range(10)))
FAR = 10.0  # times the trained range: values further away are of another unit
NARROW = 0.01  # of the trained range: values that spread over less may be of another unit
FEW = 10  # examples may lie so close together by chance
LIST = 20  # names that an error lists
CATEGORY = "category"  # the kind of a column of levels
DATE_PARTS = ("year", "month", "day", "weekday")  # Monday is 0
CLIP = 3.0  # where the robust scale bends
NEAR = 1e-7  # of scikit-learn's quantile scale: so near to an end is the end
MOST_NORMAL = 5.199337582605575  # where scikit-learn's quantile scale ends


# The bound on features only keeps a foreign file from taking the machine; numbers beyond the others
# make normalized values infinite.
MOST_FEATURES, LARGEST, LEAST_STD = 10_000_000, 1e30, 1e-30
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Deviation = Annotated[float, Field(ge=LEAST_STD, le=LARGEST)]
# A number for all features, or one for each of them.
Scale = Number | tuple[Number, ...]


class Schema(BaseModel):
    """What an example of a dataset is. Stored ones are checked; older versions wrote a part of it.

    An example of a table is a row of numbers, a column each: NaN for a gap, the place of a
    category's level. `normalized` turns it into what a network is fed: all numbers, then a 1 for a
    gap of each column with gaps, then a 1 in the place of each category's level.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)

    features: Annotated[int, Field(ge=1, le=MOST_FEATURES)] = 784  # how many numbers are fed
    shape: tuple[int, ...] = ()  # (height, width), (height, width, 3), or (features,) of a row
    # Names of the labels 0, 1 and so on; and how files write them, where not by these names.
    classes: Annotated[tuple[str, ...], Field(min_length=2)] = DIGITS
    codes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    # Of a regression, which has no classes: mean and standard deviation of the target in training.
    # A network is trained on, and answers, (target − mean) / deviation.
    target: tuple[Number, Deviation] | None = None
    # What the numbers are normalized by, a category's levels aside: mean and standard deviation;
    # robust: median and interquartile range; quantile: as standard, of what `quantiles` gives.
    scale: Scaling = "standard"
    mean: Scale = 0.0
    std: Deviation | tuple[Deviation, ...] = 1.0
    pixels: bool = True  # whether features are brightness, which is scaled to 0 … 1 first
    white: Number | None = None  # white in a picture of numbers; None: not known
    low: Scale | None = None  # the range of the training part; None in older studies
    high: Scale | None = None
    # Of a table:
    columns: tuple[str, ...] = ()  # names in their order; empty for arrays
    kinds: tuple[Literal["int", "float", "bool", "category"], ...] = ()  # of each
    median: Scale | None = None  # of the numbers, which stands in gaps; None: gaps are refused
    gaps: tuple[str, ...] = ()  # the columns of numbers that have gaps in the training part
    levels: dict[str, tuple[str, ...]] = Field(
        default_factory=dict
    )  # of each category, those with a place; "" is a gap
    merged: tuple[str, ...] = ()  # the categories that have a place for rare levels
    dates: tuple[str, ...] = ()  # columns that files have in place of "NAME year" and so on
    quantiles: dict[str, tuple[Number, ...]] = Field(
        default_factory=dict
    )  # of each number, in even steps
    header: bool = True  # whether the names stand in the file; else they are positions
    label: str = ""  # the column with the labels
    left_out: tuple[str, ...] = ()  # the other columns
    flat: bool = False  # whether square pictures were given as rows

    def model_post_init(self, context: Any) -> None:
        """Completes the features by the shape, or the shape, which older versions did not store:
        inputs are square pictures if they can be."""
        if self.shape and "features" not in self.model_fields_set:
            self.__dict__["features"] = math.prod(self.shape)
        if not self.shape:
            self.__dict__["shape"] = square(self.features) or (self.features,)
        if self.target:
            self.__dict__["classes"] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        """JSON and TOML keep a tuple as a list."""
        return _tuples(value)

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        count = len(self.numbers) if self.levels else math.prod(self.given)
        each = {name: getattr(self, name) for name in ("mean", "std", "low", "high", "median")}
        wrong = [k for k, v in each.items() if isinstance(v, tuple) and len(v) != count]
        wrong += ["kinds"] * (bool(self.kinds) and len(self.kinds) != len(self.columns))
        wrong += ["columns"] * (bool(self.columns) and len(self.columns) != math.prod(self.given))
        if set(self.levels) != {n for n, kind in self._named_kinds if kind == CATEGORY}:
            wrong.append("levels")
        if self.scale == "quantile" and len(self.quantiles) != count:
            wrong.append("quantiles")
        wrong += ["gaps"] * bool({*self.gaps} - {*self.numbers} or (self.gaps and not self.median))
        wrong += ["merged"] * bool({*self.merged} - {*self.levels})
        fed = self.fed_width if self.columns else self.features
        wrong += ["shape"] * (not math.prod(self.shape) == self.features == fed)
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: does not belong to {self.features} features")
        return self

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Returns the schema that `as_dict` made, or older versions; it is not checked again."""
        known = {k: data[k] for k in cls.model_fields if data.get(k) is not None}
        plain: Any = {key: _tuples(value) for key, value in known.items()}
        return cls.model_construct(**plain)

    def replace(self, **values: Any) -> Self:
        """Returns the schema with other values, unchecked; the features follow the shape."""
        shape = values.get("shape", self.shape)
        return self.model_copy(update={**values, "features": math.prod(shape)})

    def as_dict(self) -> dict[str, Any]:
        """Returns what JSON and TOML can hold; empty fields are left out."""
        kept = {key: value for key, value in self if value not in (None, (), "", {})}
        return {key: _lists(value) for key, value in kept.items()}

    @property
    def bound(self) -> dict[str, str]:
        """Returns what a study is bound to of its input, in words, for an error that compares it
        with another one."""
        table = f": {_brief(self.columns)}" if self.columns else ""
        kind = "pixels of 0 … 1" if self.pixels else "numbers"
        shape = " × ".join(map(str, self.shape))
        rows = f"rows of {self.features}, taken as " if self.flat else ""
        mean, std = (s if isinstance(s, float) else _digest(s) for s in (self.mean, self.std))
        scale = f"{self.scale}: " if self.scale != "standard" else ""
        more = [self.levels, self.merged, self.gaps, self.gaps and self.median, self.dates]
        coded = f"; gaps and levels {_digest(more)}" if any(more) else ""
        target = (
            {"target": f"mean {self.target[0]:g}, deviation {self.target[1]:g}"}
            if self.target
            else {}
        )
        return {
            **target,
            "classes": "none: a number" if self.target else _brief(self.classes),
            "input": f"{rows}{shape} {kind}{table}{coded}",
            "normalization": f"{scale}mean {mean}, standard deviation {std}",
        }

    # --- answers -------------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """Returns how many numbers a network answers: a logit a class, or one number."""
        return 1 if self.target else len(self.classes)

    @property
    def deviation(self) -> float:
        """Returns the standard deviation of a regression's target; 1 of classes."""
        return self.target[1] if self.target else 1.0

    def standardized(self, targets: Array) -> Floats:
        """Returns targets (N,) of a regression as a network is trained on them."""
        assert self.target
        return np.asarray((targets - self.target[0]) / self.target[1], np.float32)

    def in_unit(self, answers: Array) -> Floats64:
        """Returns a network's answers (N,) in the target's unit: the inverse of `standardized`."""
        assert self.target
        return answers.astype(np.float64) * self.target[1] + self.target[0]

    # --- columns -------------------------------------------------------------------------------

    @property
    def _named_kinds(self) -> Iterable[tuple[str, str]]:
        return zip(self.columns, self.kinds or ("",) * len(self.columns), strict=False)

    @property
    def given(self) -> tuple[int, ...]:
        """Returns the shape of an example as data hold it: of a table a number a column."""
        return self.shape if self.pixels or not self.columns else (len(self.columns),)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Returns the columns that are numbers."""
        return tuple(name for name, kind in self._named_kinds if kind != CATEGORY)

    @property
    def fed_width(self) -> int:
        """Returns how many numbers a network is fed of a table's columns."""
        return len(self.numbers) + len(self.gaps) + sum(map(self.places, self.levels))

    def places(self, name: str) -> int:
        """Returns how many numbers a category is fed as. The last is of rare levels if it is in
        `merged`; levels that training lacks have that place, too, or else none."""
        return len(self.levels[name]) + (name in self.merged)

    @property
    def asked(self) -> tuple[str, ...]:
        """Returns the columns that a file must have: dates in place of their parts."""
        made = {f"{date} {part}" for date in self.dates for part in DATE_PARTS}
        names = (*(name for name in self.columns if name not in made), *self.dates)
        return names if self.header else tuple(sorted(names, key=int))

    def numbers_of(self, x: Array) -> Array:
        """Returns the numbers (N, …) of examples, without a table's categories."""
        rows: Array = x.reshape(len(x), math.prod(x.shape[1:]))
        return rows[:, self._places_of(self.numbers)] if self.levels else rows

    def _places_of(self, names: Sequence[str]) -> list[int]:
        place = {name: number for number, name in enumerate(self.columns)}
        return [place[name] for name in names]

    # --- feeding -------------------------------------------------------------------------------

    def normalized(self, x: Array) -> Floats:
        """Returns examples (N, …), as in the data, as a network is fed: normalized, (N, features).
        No other function does so."""
        rows = x.reshape(len(x), math.prod(x.shape[1:]))
        if not self.pixels:
            return np.asarray(self.transformed(rows.astype(np.float64), np), np.float32)
        mean, std = np.float32(self.mean), np.float32(self.std)  # type: ignore[arg-type]
        fed = np.empty(rows.shape, np.float32)  # in parts that fit the cache
        for start in range(0, len(rows), PART):
            part = fed[start : start + PART]
            np.divide(rows[start : start + PART], white_level(rows), out=part, dtype=np.float32)
            part -= mean
            part /= std
        return fed

    def transformed(self, rows: Any, xp: Any) -> Any:
        """Returns rows of numbers (N, columns) in double precision as a network is fed.

        xp: numpy, or torch to export a network; both compute the same.
        """
        constants = (self.mean, self.std, self.median if self.median is not None else 0.0)
        mean, std, median = (xp.asarray(value, dtype=xp.float64) for value in constants)
        numbers = rows[:, self._places_of(self.numbers)] if self.levels else rows
        absent = xp.isnan(numbers)
        filled = xp.where(absent, median, numbers) if self.median is not None else numbers
        if self.scale == "quantile":
            filled = self._normal(filled)
        scaled = (filled - mean) / std
        if self.scale == "robust":  # the smooth clip of RealMLP (Holzmüller et al., 2024)
            scaled = scaled / xp.sqrt(1 + (scaled / CLIP) ** 2)
        parts = [scaled]
        if self.gaps:
            place = {name: number for number, name in enumerate(self.numbers)}
            parts.append(xp.asarray(absent[:, [place[n] for n in self.gaps]], dtype=xp.float64))
        for name, number in zip(self.levels, self._places_of(tuple(self.levels)), strict=True):
            places = xp.arange(self.places(name), dtype=xp.float64)
            parts.append(xp.asarray(rows[:, number, None] == places, dtype=xp.float64))
        return xp.concatenate(parts, 1) if len(parts) > 1 else scaled

    def _normal(self, numbers: Array) -> Array:
        """Returns numbers mapped to a normal distribution by their quantiles, as scikit-learn's
        QuantileTransformer does."""
        from scipy.special import ndtri

        found = np.empty_like(numbers)
        for place, given in enumerate(self.quantiles.values()):
            quantiles, column = np.asarray(given), numbers[:, place]
            levels = np.linspace(0, 1, len(quantiles))
            rising = np.interp(column, quantiles, levels)
            falling = np.interp(-column, -quantiles[::-1], -levels[::-1])
            level = (rising - falling) / 2
            level[column - NEAR < quantiles[0]] = 0.0
            level[column + NEAR > quantiles[-1]] = 1.0
            with np.errstate(divide="ignore"):
                found[:, place] = ndtri(level)
        return np.clip(found, -MOST_NORMAL, MOST_NORMAL)

    def from_bytes(self, x: Array) -> Array:
        """Returns pictures of bytes, 16 bits or 0 … 1 in the unit of the data. Raises InputError if
        the network takes numbers of which none is known to be white."""
        if self.pixels:
            return x
        if self.white is None:
            raise InputError(
                f"is a picture, and the network takes numbers from {self._range()}, of which none "
                "is known to be white; give an .npz file with such numbers"
            )
        levels: Array = x.astype(np.float64) / (white_level(x) / self.white)
        return levels

    def inverted(self, x: Array) -> Array:
        """Returns the negatives of pictures."""
        white = white_level(x) if self.pixels else self.white
        if white is None:
            raise InputError("cannot be inverted: the network takes numbers and no brightness")
        return np.asarray(white - x, x.dtype) if self.pixels else np.asarray(white - x)

    def check_range(self, x: Array) -> None:
        """Raises InputError for numbers (N, …) far outside the trained range: of another unit."""
        if self.pixels:
            if x.dtype.kind == "f" and not ((x >= 0) & (x <= 1)).all():  # nor is NaN
                raise InputError(
                    "holds values that are not between 0 and 1; give uint8 of 0 to 255, or floats "
                    "of 0 to 1"
                )
            return
        if self.low is None or self.high is None:
            return
        rows, names = self.numbers_of(x), self.numbers
        low, high = np.asarray(self.low), np.asarray(self.high)
        if not self.columns:  # of one unit, as pixels are, of which some were always black
            low, high = low.min(), high.max()
        width = np.where(high > low, high - low, np.inf)  # a constant tells no unit
        kinds = [kind for kind in self.kinds if kind != CATEGORY]
        yes_or_no = [place for place, kind in enumerate(kinds) if kind == "bool"]
        others = ~(np.isin(rows[:, yes_or_no], (0, 1)) | np.isnan(rows[:, yes_or_no]))
        if yes_or_no and others.any():
            listed = brief_names([names[place] for place in yes_or_no])
            raise InputError(f"holds other values than true, false, 0 and 1 in {listed}; mend them")
        far = (rows < low - FAR * width) | (rows > high + FAR * width)
        if far.any():
            row, place = (int(i) for i in np.argwhere(far)[0])
            value = f"{rows[row, place]:g} in {self._where(row, place, names)}"
            raise InputError(
                f"{value} is far outside the trained range, {self._range(place)}; give values in "
                "the unit of the training data"
            )
        if self.white == 255 and rows.max() <= 1 and (rows != np.floor(rows)).any():
            raise InputError(
                "holds values of 0 to 1, and the network was trained on 0 to 255; multiply by 255"
            )

    def narrow(self, x: Array) -> list[str]:
        """Returns the columns in which examples (N, …) spread over less than a hundredth of the
        trained range, as values of another unit do; "all values" of pixels and of arrays, whose
        features are of one unit."""
        low, high = (0.0, 1.0) if self.pixels else (self.low, self.high)
        if len(x) < FEW or low is None or high is None:
            return []
        width = np.asarray(high) - np.asarray(low)
        if self.pixels or not self.columns:
            spread = (float(x.max()) - float(x.min())) / float(white_level(x) if self.pixels else 1)
            return ["all values"] * bool(0 < spread < NARROW * width.max())
        rows = self.numbers_of(x)
        spreads = np.fmax.reduce(rows, axis=0) - np.fmin.reduce(rows, axis=0)  # without gaps
        found = (spreads > 0) & (spreads < NARROW * width)
        return [self.numbers[place] for place in np.flatnonzero(found)]

    def check_numbers(self, x: Array, what: str) -> None:
        """Raises InputError for a value that is no number, or too large. what: a value's name."""
        wrong = ~(np.abs(x) <= LARGEST) if x.dtype.kind == "f" else np.zeros(0, bool)
        if self.median is not None:  # which stands in gaps
            wrong &= ~np.isnan(x)
        if wrong.any():
            row, *place = (int(i) for i in np.argwhere(wrong)[0])
            value = x[row, *place]
            kind = "" if not np.isfinite(value) else f", too large for a network (over {LARGEST:g})"
            raise InputError(
                f"{what} is {value:g}{kind} in {self._where(row, place[0])}; remove the row or "
                "fill in a number"
            )

    def _where(self, row: int, place: int, names: Sequence[str] = ()) -> str:
        names = names or self.columns
        return f"row {row}, column {quoted(names[place])}" if names else f"row {row}"

    def _range(self, place: int = 0) -> str:
        low, high = (np.ravel(math.nan if v is None else v) for v in (self.low, self.high))
        return f"{low[min(place, low.size - 1)]:g} to {high[min(place, high.size - 1)]:g}"


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def square(features: int) -> tuple[int, ...]:
    """Returns the shape of a square picture of so many pixels; () if there is none."""
    side = math.isqrt(features)
    return (side, side) if side**2 == features and side > 1 else ()


def is_picture(shape: Sequence[int]) -> bool:
    """Whether features of this shape are a picture: (height, width), or with 3 colours."""
    return len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)


def input_shape(shape: Sequence[int], features: int) -> tuple[int, ...]:
    """Returns the shape of one input of the user's own module: (1, height, width) of a grey
    picture, (3, height, width) of a coloured one, (features,) of a row."""
    if len(shape) == 2:
        return (1, *shape)
    return (shape[2], *shape[:2]) if is_picture(shape) else (features,)


def white_level(x: Array) -> np.float32:
    """Returns the value of white: 255 or 65,535 of whole numbers, else 1."""
    return np.float32(np.iinfo(x.dtype).max if x.dtype.kind == "u" else 1)


def white_of(x: Array, shape: Sequence[int]) -> float | None:
    """Returns which number is white in pictures (N, …) of numbers: 1 or 255; None if it cannot be
    told, or for rows."""
    low, high = float(x.min()), float(x.max())
    if not is_picture(shape) or low < 0 or high > 255:
        return None
    return 1.0 if high <= 1 else 255.0 if high > 127 else None


def brief_names(names: Sequence[str]) -> str:
    """Returns names for an error, the first LIST of them."""
    return shortened(", ".join(map(str, names[:LIST])), 300) + (" …" if len(names) > LIST else "")


def _brief(names: Sequence[str]) -> str:
    """Returns names, shortened; with a digest of all where not all are shown."""
    text = ", ".join(names)
    if len(text) <= 100 and any(", " in name for name in names):
        return f"{text} ({_digest(names)})"
    return text if len(text) <= 100 else f"{text[:80]} … ({len(names)}, {_digest(names)})"


def _digest(values: Sequence[Any]) -> str:
    """Returns the SHA-256 of a list, 16 digits of it."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()[:16]
