"""Words to values: tyro reads the commands' dataclasses; numbers, lists and error messages are as said here."""

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any

import tyro
from tyro import _errors as events  # Private in tyro: hence the narrow range of its versions in pyproject.toml.
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from guidedflow.errors import SettingsError

_NUMBERS = (int, float)


def whole_number(text: str) -> int:
    """``1000``, ``1_000`` or ``1e3``.

    Raises:
        ValueError: it is none of those.
    """
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        if (value := number(text)).is_integer():
            return int(value)
    raise ValueError(f"expected a whole number, such as 1000 or 1e3, found {text!r}")


def number(text: str) -> float:
    """Any finite number.

    Raises:
        ValueError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"expected a number, found {text!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {text!r}")
    return value


def assignments(text: str) -> dict[str, tuple[float, ...]]:
    """``alpha=0.3,1,eta=0.1`` as numbers by name.

    Raises:
        ValueError: a name or a number is missing.
    """
    found: dict[str, tuple[float, ...]] = {}
    name = ""
    for part in text.split(","):
        before, is_new, value = part.rpartition("=")
        if is_new:
            name = before.strip().replace("-", "_")
            if name in found:
                raise ValueError(f"expected each name once, found {name} twice")
            found[name] = ()
        try:
            found[name] += (number(value),)
        except (KeyError, ValueError):
            raise ValueError(f"expected NAME=NUMBER,NUMBER,..., found {text!r}") from None
    return found


def _spec(read: Callable[[str], Any], metavar: str, kind: Any) -> PrimitiveConstructorSpec[Any]:
    """How tyro reads one word."""

    def show(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [show(value)],
    )


_NAMED_NUMBERS = Mapping[str, tuple[float, ...]]
Assignments = Annotated[_NAMED_NUMBERS, _spec(assignments, "NAME=X,...", dict), tyro.conf.arg(help_behavior_hint="")]
"""Numbers by name, several to a name."""


def single_variant(given: _NAMED_NUMBERS) -> dict[str, float] | None:
    """The variant that ``--variant`` names; None if it names none.

    Raises:
        SettingsError: a setting has several values.
    """
    several = next((name for name, values in given.items() if len(values) > 1), None)
    if several is not None:
        raise SettingsError(f"--variant: expected one value of {several}, found {len(given[several])}")
    return {name: values[0] for name, values in given.items()} or None


REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A number, or None or a word where the annotation allows it; or a list of numbers."""
    kind, is_optional = _without_none(info.type)
    words = _words_beside_a_number(kind)
    if words:
        return _spec(_number_or(words), "|".join(["FLOAT", *words]), (float, str))
    item = _list_item(kind)
    read: Callable[[str], Any] = whole_number if int in (kind, item) else number
    if item in _NUMBERS:
        name = item.__name__.upper()
        return _spec(lambda text: tuple(map(read, text.split(","))), f"{name} ...", tuple)
    if kind not in _NUMBERS:
        return None
    allowed = (kind, type(None)) if is_optional else kind
    return _spec(
        (lambda text: None if text.lower() == "none" else read(text)) if is_optional else read,
        kind.__name__.upper(),
        allowed,
    )


def _number_or(words: Sequence[str]) -> Callable[[str], Any]:
    def read(text: str) -> float | str:
        try:
            return text if text in words else number(text)
        except ValueError:
            raise ValueError(f"expected a number or {' or '.join(words)}, found {text!r}") from None

    return read


def _without_none(hint: Any) -> tuple[Any, bool]:
    """X and True of ``X | None``, else the hint and False."""
    if _is_union(hint):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if len(kinds) == 1:
            return _without_notes(kinds[0]), True
    return hint, False


def _words_beside_a_number(hint: Any) -> tuple[str, ...]:
    """("own",) of ``float | Literal["own"]``; none of any other hint."""
    first, *others = map(_without_notes, typing.get_args(hint)) if _is_union(hint) else (hint,)
    is_number_or_word = first is float and len(others) == 1 and typing.get_origin(others[0]) is typing.Literal
    return typing.get_args(others[0]) if is_number_or_word else ()


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _without_notes(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _list_item(hint: Any) -> Any:
    """X of ``tuple[X, ...]``, without its Annotated; else None."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or arguments[1:] != (...,):
        return None
    return _without_notes(arguments[0])


# ------------------------------------------------------------------------------------------------------- options


def options(command: type) -> dict[str, Any]:
    """The options of a command's dataclass and of those within it, with their types."""
    plain, annotated = typing.get_type_hints(command), typing.get_type_hints(command, include_extras=True)
    found: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(command)):
        if dataclasses.is_dataclass(plain[name]):
            found |= options(plain[name])
        elif tyro.conf.Positional not in getattr(annotated[name], "__metadata__", ()):
            found[name] = plain[name]
    return found


def given_options(argv: Sequence[str], names: Mapping[str, Any]) -> Iterator[str]:
    """Which of these options stand on the command line."""
    for word in argv:
        name = _option(word)
        yield from (known for known in (name, name.removeprefix("no_")) if known in names)


def value_of(argv: Sequence[str], name: str) -> str | None:
    """What the command line gives an option, before it is parsed."""
    for word, following in zip(argv, [*argv, None][1:], strict=True):
        if _option(word) == name:
            return word.partition("=")[2] if "=" in word else following
    return None


def join_lists(argv: Sequence[str], command: type) -> list[str]:
    """``--seeds 0 1 TASK`` as ``--seeds 0,1 TASK``: a list is one word, and ends where no number follows."""
    kinds, joined = options(command), list[str]()
    belongs: Callable[[str], bool] | None = None  # Whether a word goes on with the list before it.
    is_begun = False
    for word in argv:
        if _option(word):
            belongs, is_begun = _continues(kinds.get(_option(word))), "=" in word
            joined.append(word)
        elif belongs is not None and belongs(word):
            joined[-1:] = [f"{joined[-1]},{word}"] if is_begun else [joined[-1], word]
            is_begun = True
        else:
            belongs = None
            joined.append(word)
    return joined


def check_once(argv: Sequence[str], command: type) -> None:
    """Raise SettingsError where numbers by name are given twice.

    Of other options the last one wins, as is usual; here the first would be lost, though it names something else.
    """
    given = [_option(word) for word in argv]
    for name, kind in options(command).items():
        if kind == _NAMED_NUMBERS and given.count(name) > 1:
            option = f"--{name.replace('_', '-')}"
            found = f"found it {given.count(name)} times; several in one: {option} alpha=1,3 tau=0.01"
            raise SettingsError(f"{option}: expected it once, {found}")


def _option(word: str) -> str:
    """The field that an option names; '' for any other word."""
    return word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else ""


def _continues(kind: Any) -> Callable[[str], bool] | None:
    if kind == _NAMED_NUMBERS:
        return lambda word: "=" in word
    return _is_number if _list_item(kind) in _NUMBERS else None


def _is_number(word: str) -> bool:
    try:
        return bool([number(part) for part in word.split(",")])
    except ValueError:
        return False


# ------------------------------------------------------------------------------------------------------- messages


def one_line_errors(name: str | None, command: Any) -> AbstractContextManager[None]:
    """While it is entered, what tyro complains of is a SettingsError of one line.

    Args:
        name: of the command whose options are parsed; None: of no command.
        command: its dataclass. It may have a function ``explain(option)`` that says more of an option that it lacks.
    """

    def fail(event: events.ParseErrorEvent) -> None:
        message = _message(event, command)
        if message is not None:
            more = "" if message.endswith("?") else f"; see guidedflow {f'{name} ' if name else ''}--help"
            raise SettingsError(f"{message}{more}")

    return events.on_parse_error(fail)


def _message(event: events.ParseErrorEvent, command: Any) -> str | None:
    if isinstance(event, events.MissingArgs):
        return f"expected {' and '.join(_name(missing.arg) for missing in event.missing_arguments)}, found none"
    if isinstance(event, events.BadValue):
        return f"{_name(event.argument)}: expected a value, found none"
    if isinstance(event, events.InvalidChoice):
        choices = ", ".join(choice for choice in event.choices if choice != "None")
        return f"{_name(event.argument)}: expected one of {choices}, found {event.value!r}"
    if isinstance(event, events.InstantiationFailure):
        return f"{_name(event.argument)}: {event.message}" if event.argument is not None else event.message
    if isinstance(event, events.UnrecognizedArgs) and command is not None:
        return _unknown(next((token for token in event.tokens if token.startswith("-")), event.tokens[0]), command)
    return None  # Tyro says it in its own way.


def _name(argument: Any) -> str:
    return str(argument.lowered.metavar if argument.is_positional() else argument.lowered.name_or_flags[0])


def _unknown(token: str, command: Any) -> str:
    option = token.partition("=")[0].replace("_", "-")
    if not option.startswith("-"):
        return f"expected no more words, found {token!r}"
    explain: Callable[[str], str | None] = getattr(command, "explain", lambda _: None)
    more = explain(_option(token))
    if more is not None:
        return f"{option}: {more}"
    known = [f"--{name.replace('_', '-')}" for name in options(command)]
    near = difflib.get_close_matches(option, known, n=2, cutoff=0.6)
    return f"{option}: there is no such option" + (f"; did you mean {' or '.join(near)}?" if near else "")
