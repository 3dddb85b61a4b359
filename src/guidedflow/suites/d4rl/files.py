"""D4RL's rules for what the rows of its HDF5 files mean (docs/tasks.md, "Files")."""

from pathlib import Path

import numpy as np

from guidedflow.data.dataset import Dataset, check_fields, close_last
from guidedflow.data.formats import hdf5


def load(path: Path, *, ends_at_terminals: bool = True) -> Dataset:
    """The data set in a file, with its rewards as they are.

    Every row with a following one is a transition, unless its recording timed out there. Flags may be floats, and every
    field but observations and actions may have a second axis of length 1.

    Args:
        path: the file.
        ends_at_terminals: whether a trajectory ends at a terminal as well as at a timeout; in AntMaze it goes on.

    Raises:
        DataError: it is missing, damaged or lacks a field, a field is malformed, no row ends an episode, or none is a
            transition.
    """
    arrays = check_fields(hdf5.read(path, hdf5.FIELDS, ()), str(path))
    terminal, timeout = arrays["terminals"], arrays["timeouts"]
    keep_last = terminal & ~timeout
    keep_last[-1:] = False
    return Dataset.from_rows(
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"],
        masks=1.0 - terminal.astype(np.float32),
        ends=close_last(timeout | terminal if ends_at_terminals else timeout, str(path)),
        keep_last=keep_last,
        source=str(path),
    )
