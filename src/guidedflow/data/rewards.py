"""Which rewards a robot's recordings are learned with, and where their episodes end."""

from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.errors import DataError, SettingsError

REWARDS = ("recorded", "success", "step-cost", "none")
"""What ``reward`` may be: recorded ones; 1 where a step succeeded, else 0; 0 where it succeeded, else -1; none."""


def chosen_rewards(
    asked: Any, recorded: np.ndarray | None, success: np.ndarray | None, path: Path
) -> np.ndarray | None:
    """The rewards (N,) that were asked for; None: none.

    Args:
        asked: one of ``REWARDS``; None: recorded ones where there are some, else success, else none.
        recorded: (N,), if rewards were recorded.
        success: (N,) bool, whether each step succeeded, if that was recorded.
        path: of the data, for messages.

    Raises:
        SettingsError: it is none of ``REWARDS``, or not in the data.
    """
    there = {"recorded": recorded, "success": success, "step-cost": success}
    if asked is None:
        asked = next((name for name, values in there.items() if values is not None), "none")
    if asked not in REWARDS:
        raise SettingsError(f"reward: expected one of {', '.join(REWARDS)}, found {asked!r}")
    if asked == "none":
        return None
    if there[asked] is None:
        able = ", ".join(name for name in REWARDS if name == "none" or there[name] is not None)
        raise SettingsError(f"reward: expected one of {able} for {path}, which has no other, found {asked!r}")
    if asked == "recorded":
        return recorded
    return there[asked].astype(np.float32) - (asked == "step-cost")  # type: ignore[union-attr]


def flags(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """What was recorded of each step as 0 or 1, as bool.

    Args:
        values: (N,) bool or numbers.
        name: of the values, for messages.
        path: of the data, for messages.

    Raises:
        DataError: one is neither; NaN, for instance.
    """
    wrong = values[~np.isin(values, (0, 1))]
    if len(wrong):
        raise DataError(f"{path}: {name}: expected 0 or 1, found {wrong[0]:g} ({len(wrong)} rows)")
    return values.astype(bool)


def until_first(ends: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Which rows come before or are the first of their episode where ``ends`` is true.

    Args:
        ends: (N,) bool.
        starts: (N,), the row at which each row's episode starts.
    """
    before = np.cumsum(ends) - ends
    return before == before[starts]
