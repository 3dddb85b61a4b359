"""D4RL's data files: one HDF5 file of flat arrays a data set (docs/tasks.md, "Files")."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from guidedflow.data.dataset import Dataset, check_fields, close_last
from guidedflow.errors import UserError
from guidedflow.files import whole_file

FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")


class Episode(Protocol):
    """T steps: what ``write`` writes."""

    @property
    def observations(self) -> np.ndarray:
        """(T + 1, n)."""

    @property
    def actions(self) -> np.ndarray:
        """(T, d)."""

    @property
    def rewards(self) -> np.ndarray:
        """(T,)."""

    @property
    def terminated(self) -> bool:
        """Whether it ended in a terminal state."""


def read(
    path: Path, required: Sequence[str] = FIELDS, optional: Sequence[str] = (), *, groups: bool = False
) -> dict[str, np.ndarray]:
    """Arrays of a D4RL file as they are.

    Args:
        path: the file.
        required: the fields that it must have.
        optional: those that are read if they are there.
        groups: whether a field may also be a group of arrays, which are then named FIELD/NAME.

    Raises:
        UserError: the file is missing, truncated, no HDF5, or lacks a field.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a data file, found {'a folder' if path.is_dir() else 'nothing there'}")
    try:
        with h5py.File(path) as file:
            kinds = (h5py.Dataset, h5py.Group) if groups else h5py.Dataset
            there = [name for name in (*required, *optional) if isinstance(file.get(name), kinds)]
            if not set(required) <= set(there):
                found = ", ".join(sorted(file)) or "nothing"
                raise UserError(f"{path}: expected the fields {', '.join(required)}, found {found}")
            arrays: dict[str, np.ndarray] = {}
            for name in there:
                arrays |= _arrays(file[name], name)
            return arrays
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected a whole HDF5 file, found one that cannot be read: {reason}") from error


def _arrays(item: h5py.Dataset | h5py.Group, name: str) -> dict[str, np.ndarray]:
    if isinstance(item, h5py.Dataset):
        return {name: item[()]}
    found: dict[str, np.ndarray] = {}
    for member in item:
        found |= _arrays(item[member], f"{name}/{member}")
    return found


def load(path: Path, *, is_antmaze: bool) -> Dataset:
    """The data set in a D4RL file.

    Every row with a following one is a transition, unless its recording timed out there. A trajectory ends at a
    timeout and, except in AntMaze, at a terminal; AntMaze's rewards are shifted by -1 for training. Flags may be
    floats, and every field but observations and actions may have a second axis of length 1.

    Raises:
        UserError: as ``read``, a field is malformed, no row ends an episode, or none is a transition.
    """
    arrays = check_fields(read(path), str(path))
    terminal, timeout = arrays["terminals"], arrays["timeouts"]
    ends = close_last(timeout if is_antmaze else timeout | terminal, str(path))
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


def flat(episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    """Episodes as the fields of a file: a row a step, where the last step of an episode led to is not kept."""
    lengths = [len(episode.rewards) for episode in episodes]
    last = np.zeros(sum(lengths), bool)
    last[np.cumsum(lengths) - 1] = True
    terminal = last & np.repeat([episode.terminated for episode in episodes], lengths)
    return {
        "observations": np.concatenate([episode.observations[:-1] for episode in episodes]),
        "actions": np.concatenate([episode.actions for episode in episodes]),
        "rewards": np.concatenate([episode.rewards for episode in episodes]),
        "terminals": terminal,
        "timeouts": last & ~terminal,
    }


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Path:
    """Write the arrays of ``FIELDS`` in D4RL's format; the file is there whole or not at all.

    Raises:
        UserError: it exists already, a field is missing or malformed, or no row ends an episode.
        OSError: it cannot be written.
    """
    if path.exists():
        raise UserError(f"{path}: expected a new file, found one that exists; name another --data-dir or remove it")
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise UserError(f"{path}: expected the fields {', '.join(FIELDS)} to write, found {', '.join(sorted(arrays))}")
    checked = check_fields({name: arrays[name] for name in FIELDS}, str(path))
    close_last(checked["terminals"] | checked["timeouts"], str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as target, h5py.File(target, "w") as file:
        for name, array in checked.items():
            file.create_dataset(name, data=array, compression="gzip")
        for name, value in metadata.items():
            file[f"metadata/{name}"] = value
    return path


def metadata(path: Path) -> dict[str, str] | None:
    """What a file made by ``guidedflow data generate`` says of itself; None for any other."""
    with h5py.File(path) as file:
        found = file.get("metadata")
        if not isinstance(found, h5py.Group) or "generator" not in found:
            return None
        values = {name: value[()] for name, value in found.items() if isinstance(value, h5py.Dataset)}
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in values.items()}
