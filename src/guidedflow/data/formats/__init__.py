"""Files and folders of training data: one format a file, found by what a path is."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats import hdf5, lerobot, minari, npz, robomimic
from guidedflow.data.formats.format import Format, Recording
from guidedflow.errors import DataError, SettingsError

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "Format",
    "Recording",
    "find_format",
    "is_data",
    "load",
    "metadata",
    "options",
    "splits",
]

FORMATS: Mapping[str, Format] = MappingProxyType(
    {"npz": npz, "robomimic": robomimic, "hdf5": hdf5, "lerobot": lerobot, "minari": minari}
)
"""Every format, in the order in which they are asked whether a path is theirs."""

SUFFIXES: tuple[str, ...] = tuple(dict.fromkeys(suffix for known in FORMATS.values() for suffix in known.SUFFIXES))
"""What the names of data files end in."""


def is_data(path: Path | str) -> bool:
    """Whether a path is of one of the formats: a file by its name alone, a folder by what is in it."""
    return any(known.recognises(Path(path)) for known in FORMATS.values())


def find_format(path: Path | str) -> Format:
    """The format of a file or folder.

    Raises:
        DataError: it is of none; the message names what was looked for.
    """
    path = Path(path)
    for known in FORMATS.values():
        if known.recognises(path):
            return known
    wanted = (
        f"a file that ends in {', '.join(SUFFIXES)}, or the folder of a LeRobot data set (with the folders meta and "
        "data in it) or of a Minari one (with a folder data)"
    )
    kind = "a folder of other things" if path.is_dir() else "another file" if path.exists() else "nothing there"
    raise DataError(f"{path}: expected {wanted}, found {kind}")


def load(
    path: Path | str, frame_stack: int | None = None, *, reward: str | None = None, instruction: str | None = None
) -> Dataset:
    """The data set in a file or folder of the user's own: of arrays, of robomimic, of LeRobot or of Minari.

    Files of arrays have the fields of ``Dataset.from_arrays``: observations (of dictionaries each entry, as
    observations/NAME), actions, terminals, and optionally rewards, timeouts, final_observation and the number
    frame_stack. What ``guidedflow data convert`` wrote also knows its observations' keys and its actions' range.

    Args:
        path: where it is.
        frame_stack: of how many frames an observation is made; None: what the file says, else 1.
        reward: of a robot's recordings: see ``guidedflow.load_dataset``.
        instruction: of a robot's recordings: see ``guidedflow.load_dataset``.

    Raises:
        DataError: it is of no known format, missing or damaged, or a field is missing or malformed.
        SettingsError: an option does not fit the data.
    """
    known = find_format(path)
    return known.load(Path(path), frame_stack, **options(path, reward=reward, instruction=instruction))


def options(path: Path | str, **given: Any) -> dict[str, Any]:
    """Those options of reading a file or folder that are not None.

    Raises:
        DataError: it is of no known format.
        SettingsError: its format does not have one of them.
    """
    known = find_format(path)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if name not in known.OPTIONS:
            able = " and ".join(other for other, found in FORMATS.items() if name in found.OPTIONS)
            raise SettingsError(f"{name}: expected none for {path}, for only data of {able} has it, found {value!r}")
    return chosen


def splits(path: Path | str, *, reward: str | None = None, instruction: str | None = None) -> dict[str, np.ndarray]:
    """Which episodes the data itself sets apart for training and validation.

    Args:
        path: where it is.
        reward: as for ``load``.
        instruction: as for ``load``.

    Returns:
        By name (``train`` and ``valid``, for instance) the numbers of episodes, in the order of the data set that
        ``load`` gives for the same options; none if the data says nothing.

    Raises:
        DataError, SettingsError: as ``load``.
    """
    return find_format(path).splits(Path(path), **options(path, reward=reward, instruction=instruction))


def metadata(path: Path | str) -> dict[str, Any] | None:
    """What data made by guidedflow says of itself; None for any other, the published ones too.

    Raises:
        DataError: it is missing or damaged.
    """
    return find_format(path).metadata(Path(path)) if is_data(path) else None
