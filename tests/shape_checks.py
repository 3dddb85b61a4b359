"""Array shapes and other annotations are checked at every call while the tests run (conftest.py switches that on)."""

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# beartype knows Self only where it decorates whole classes; jaxtyping's hook decorates each method.
CONFIG = BeartypeConf(hint_overrides=FrozenDict({Self: Any}))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, checked, unless it takes anything because it answers a user's mistake itself."""
    takes_anything = function.__qualname__.endswith("Config.__init__") or function.__name__ == "find_agent"
    return function if takes_anything else beartype(function, conf=CONFIG)
