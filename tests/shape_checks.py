"""Array shapes and other annotations are checked at every call while the tests run (conftest.py switches that on)."""

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

# beartype knows Self only where it decorates whole classes; jaxtyping's hook decorates each method.
CONFIG = BeartypeConf(hint_overrides=FrozenDict({Self: Any}))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, checked. Settings take anything here: ``guidedflow.settings.check`` answers a user's mistake."""
    return function if function.__qualname__.endswith("Config.__init__") else beartype(function, conf=CONFIG)
