"""Settings are frozen dataclasses; this module says which values a field may take, once, in its annotation."""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import numpy as np

from guidedflow.errors import SettingsError

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of allowed values; an end is left out of it where its ``open_`` flag is set."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and abs(value) <= sys.float_info.max

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'>' if self.open_low else '>='} {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:.20g}{')' if self.open_high else ']'}"


Positive = Annotated[float, Range(0.0, open_low=True)]
NonNegative = Annotated[float, Range(0.0)]
Fraction = Annotated[float, Range(0.0, 1.0)]
InnerFraction = Annotated[float, Range(0.0, 1.0, open_low=True, open_high=True)]
Count = Annotated[int, Range(1, 2**31 - 1)]
CountOrZero = Annotated[int, Range(0, 2**31 - 1)]
Size = Annotated[int, Range(1, 2**16)]
Sizes = tuple[Size, ...]


def build(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """The settings dataclass with these values, checked; lists and ranges become tuples, NumPy's numbers Python's.

    Raises:
        SettingsError: there is no such field; or as ``check``.
    """
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise SettingsError(
                f"{name}: expected a setting among {', '.join(sorted(names))}; there is none of that name"
            )
    settings = cls(**{name: _plain(value) for name, value in values.items()})
    check(settings)
    return settings


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple | range) else value


def check(settings: Any) -> None:
    """Compare every field of a settings dataclass with its annotation.

    Raises:
        SettingsError: naming the first field whose value is out of its range or choices, both, and what was found.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        _check_value(field.name, getattr(settings, field.name), hints[field.name])


def _check_value(name: str, value: Any, hint: Any) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        _check_value(name, value, arguments[0])
        for bound in (note for note in arguments[1:] if isinstance(note, Range)):
            if value not in bound:
                raise SettingsError(f"{name}: expected a value {bound}, found {str(value)[:40]}")
            with np.errstate(all="ignore"):
                learned = np.float32(value)  # What a network is trained with.
            if arguments[0] is float and float(learned) not in bound:
                raise SettingsError(f"{name}: expected a value {bound}, found {value!r}, in float32 {learned}")
    elif origin in (types.UnionType, typing.Union):
        named = [choice for kind in arguments[1:] for choice in typing.get_args(kind)]
        if isinstance(value, str) and named and value not in named:
            raise SettingsError(f"{name}: expected a number or {' or '.join(named)}, found {value!r}")
        if not (value is None and type(None) in arguments) and value not in named:
            _check_value(name, value, arguments[0])
    elif origin is typing.Literal:
        if value not in arguments:
            raise SettingsError(f"{name}: expected one of {', '.join(map(str, arguments))}, found {value!r}")
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise SettingsError(f"{name}: expected a sequence, found {value!r}")
        if not value:
            raise SettingsError(f"{name}: expected at least one value, found none")
        for item in value:
            _check_value(name, item, arguments[0])
    elif hint in (int, float, bool, str):
        accepted: Any = {float: (int, float), int: int, bool: bool, str: str}[hint]
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise SettingsError(f"{name}: expected {hint.__name__}, found {value!r}")
