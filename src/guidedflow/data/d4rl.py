"""D4RL's data files: one HDF5 file of flat arrays a data set (docs/tasks.md, "Files")."""

from pathlib import Path

import h5py
import numpy as np

from guidedflow.data.dataset import Dataset, check_fields
from guidedflow.errors import UserError

FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a D4RL file as they are: those of ``FIELDS``.

    Raises:
        UserError: the file is missing, truncated, no HDF5, or lacks a field.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a data file, found {'a folder' if path.is_dir() else 'nothing there'}")
    try:
        with h5py.File(path) as file:
            missing = [name for name in FIELDS if not isinstance(file.get(name), h5py.Dataset)]
            if missing:
                found = ", ".join(sorted(file)) or "nothing"
                raise UserError(f"{path}: expected the fields {', '.join(FIELDS)}, found {found}")
            return {name: file[name][()] for name in FIELDS}
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected a whole HDF5 file, found one that cannot be read: {reason}") from error


def load(path: Path, *, is_antmaze: bool) -> Dataset:
    """The data set in a D4RL file.

    Every row with a following one is a transition, unless its recording timed out there. A trajectory ends at a
    timeout and, except in AntMaze, at a terminal; AntMaze's rewards are shifted by -1 for training. Flags may be
    floats, and every field but observations and actions may have a second axis of length 1.

    Raises:
        UserError: as ``read``, a field is malformed, or no row is a transition.
    """
    arrays = check_fields(read(path), str(path))
    terminal, timeout = arrays["terminals"], arrays["timeouts"]
    ends = timeout.copy() if is_antmaze else timeout | terminal
    ends[-1:] = True
    keep_last = terminal & ~timeout
    keep_last[-1:] = False
    return Dataset.from_rows(
        arrays["observations"],
        arrays["actions"],
        arrays["rewards"] - np.float32(is_antmaze),
        masks=1.0 - terminal.astype(np.float32),
        ends=ends,
        keep_last=keep_last,
        source=str(path),
    )
