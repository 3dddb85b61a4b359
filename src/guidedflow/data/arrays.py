"""The user's own data: one npz file of NumPy arrays, or an HDF5 file of the same fields, D4RL's."""

from pathlib import Path

from guidedflow.data import d4rl, npz
from guidedflow.data.dataset import Dataset
from guidedflow.errors import UserError

REQUIRED = ("observations", "actions", "rewards", "terminals")
SUFFIXES = (".npz", ".hdf5")


def load(path: Path) -> Dataset:
    """The data set in a file with the fields of ``Dataset.from_arrays``.

    In an npz file ``timeouts`` and the number ``frame_stack`` are optional.

    Raises:
        UserError: a field is missing or malformed, or the file is neither.
    """
    if path.suffix == ".hdf5":
        return d4rl.load(path, is_antmaze=False)
    arrays = npz.read(path)
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "no arrays"
        raise UserError(f"{path}: expected the fields {', '.join(REQUIRED)} and optionally timeouts, found {found}")
    fields = {name: arrays[name] for name in (*REQUIRED, "timeouts") if name in arrays}
    frame_stack = arrays["frame_stack"].tolist() if "frame_stack" in arrays else 1
    return Dataset.from_arrays(**fields, frame_stack=frame_stack, source=str(path))
