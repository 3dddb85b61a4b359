"""What a name stands for: this package's own things, and those of other packages by entry points."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from guidedflow.errors import SettingsError

_T = TypeVar("_T")


class Registry(Mapping[str, _T], Generic[_T]):
    """Things by name, each imported when it is first asked for.

    Args:
        kind: what one of them is called in messages, ``agent`` for instance.
        built_in: ``module:name`` by name.
        group: the entry points of other packages; a name that is built in cannot be taken by one.
    """

    def __init__(self, kind: str, built_in: Mapping[str, str], group: str):
        self._kind = kind
        self._built_in = built_in
        self._group = group
        self._loaded: dict[str, _T] = {}

    def __getitem__(self, name: str) -> _T:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        yield from (name for name in self._plugins() if name not in self._built_in)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find(self, name: object) -> _T:
        """The thing of that name.

        Raises:
            SettingsError: there is none; the message lists them.
        """
        if not isinstance(name, str) or name not in list(self):
            near = difflib.get_close_matches(str(name), list(self), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"{self._kind}: expected one of {', '.join(self)}, found {name!r}{hint}")
        return self[name]

    def name_of(self, thing: object) -> str | None:
        """The name under which a thing is registered; None if it is not."""
        return next((name for name in self if self[name] is thing), None)

    def _load(self, name: str) -> _T:
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        plugin = self._plugins().get(name)
        if plugin is None:
            raise KeyError(name)
        return plugin.load()

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)}


def import_named(name: str, what: str) -> Any:
    """What ``module:attribute`` names.

    Args:
        name: the module's import path, a colon, and the attribute in it.
        what: the option or argument that it was given as, for messages.

    Raises:
        SettingsError: it is not of that form, or there is no such module or attribute. What importing the module
            itself raises is passed on as it is.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise SettingsError(f"{what}: expected module:name, found {name!r}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # A module that the user's own module needs.
        raise SettingsError(f"{what}: expected a module that can be imported, found no {error.name!r}") from error
    if not hasattr(found, attribute):
        raise SettingsError(f"{what}: expected {attribute!r} in the module {module}, found no such name")
    return getattr(found, attribute)
