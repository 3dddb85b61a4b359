"""OGBench's data files: one npz of flat arrays per family and split (docs/tasks.md, "OGBench")."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.data.dataset import Dataset, check_fields, check_finite, close_last
from guidedflow.data.formats import npz
from guidedflow.errors import DataError

FIELDS = ("observations", "actions", "terminals")


def rows(path: Path) -> dict[str, np.ndarray]:
    """The checked arrays of an OGBench file: observations, actions and terminals.

    Raises:
        DataError: as ``npz.read``, or a field is missing or malformed.
    """
    arrays = npz.read(path, lambda name: name in FIELDS)
    if len(arrays) < len(FIELDS):
        found = ", ".join(sorted(npz.read(path))) or "no arrays"
        raise DataError(f"{path}: expected the fields {', '.join(FIELDS)}, found {found}")
    checked = check_fields(arrays, str(path))
    _check_episodes(checked["terminals"], str(path))
    return checked


def _check_length(name: str, length: int, observations: np.ndarray, path: Path) -> None:
    if length != len(observations):
        raise DataError(f"{path}: {name}: expected {len(observations)} rows as in observations, found {length}")


def _check_episodes(terminals: np.ndarray, source: str) -> None:
    """Every episode's last row is marked, and no other: a mark that stays on would leave episodes of one row."""
    ends = close_last(terminals, source)
    again = np.flatnonzero(ends[1:] & ends[:-1]) + 1
    if len(again):
        raise DataError(
            f"{source}: terminals: expected episodes of at least 2 rows, found one that ends in row {again[0]}, right "
            f"after another's end ({len(again)} such)"
        )


def load(
    path: Path,
    label: Callable[[dict[str, np.ndarray]], Any],
    frame_stack: int = 1,
) -> Dataset:
    """The data set of one single-task environment: its rewards and masks are computed from the simulator's states.

    A row's reward and mask say whether its own state s solves the task, as in OGBench's release.

    Args:
        path: the file.
        label: gives the simulator's states their ``rewards`` and ``masks``.
        frame_stack: see ``Dataset``.

    Raises:
        DataError: as ``rows``, or the file lacks the simulator's states, or has another environment's.
    """
    # First, and alone: the states need as much memory as everything that is kept.
    states = npz.read(path, lambda name: name in ("qpos", "button_states"))
    if "qpos" not in states:
        raise DataError(f"{path}: expected qpos, from which the task's rewards are computed; it is not in the file")
    for name, array in states.items():
        check_finite(array, name, str(path))
    try:
        labels = label(states)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    lengths = {name: len(array) for name, array in states.items()}
    del states
    arrays = rows(path)
    for name, length in lengths.items():
        _check_length(name, length, arrays["observations"], path)
    terminals = arrays["terminals"]
    return Dataset.from_rows(
        arrays["observations"],
        arrays["actions"],
        labels.rewards.astype(np.float32),
        masks=labels.masks,
        ends=close_last(terminals, str(path)),
        keep_last=np.zeros(len(terminals), bool),
        frame_stack=frame_stack,
        source=str(path),
    )
