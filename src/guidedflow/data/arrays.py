"""The user's own data: one npz file of NumPy arrays."""

from pathlib import Path

from guidedflow.data import ogbench
from guidedflow.data.dataset import Dataset
from guidedflow.errors import UserError

REQUIRED = ("observations", "actions", "rewards", "terminals")


def load(path: Path) -> Dataset:
    """The data set in an npz file with the fields of ``Dataset.from_arrays``; ``timeouts`` is optional.

    Raises:
        UserError: a field is missing or malformed, or the file is no npz.
    """
    arrays = ogbench.read(path)
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "no arrays"
        raise UserError(f"{path}: expected the fields {', '.join(REQUIRED)} and optionally timeouts, found {found}")
    fields = {name: arrays[name] for name in (*REQUIRED, "timeouts") if name in arrays}
    return Dataset.from_arrays(**fields, source=str(path))
