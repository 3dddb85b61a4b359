"""Files and folders of training data: one format a file, found by what a path is."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats import hdf5, minari, npz
from guidedflow.data.formats.format import Format, Recording
from guidedflow.errors import DataError

__all__ = ["FORMATS", "SUFFIXES", "Format", "Recording", "find_format", "is_data", "load", "metadata", "splits"]

FORMATS: Mapping[str, Format] = MappingProxyType({"npz": npz, "hdf5": hdf5, "minari": minari})
"""Every format, in the order in which they are asked whether a path is theirs."""

SUFFIXES: tuple[str, ...] = tuple(suffix for known in FORMATS.values() for suffix in known.SUFFIXES)
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
    wanted = f"a file that ends in {', '.join(SUFFIXES)}, or the folder of a Minari data set (with a folder data in it)"
    kind = "a folder of other things" if path.is_dir() else "another file" if path.exists() else "nothing there"
    raise DataError(f"{path}: expected {wanted}, found {kind}")


def load(path: Path | str, frame_stack: int | None = None) -> Dataset:
    """The data set in a file or folder of the user's own: an npz or HDF5 file of arrays, or a Minari data set.

    Files have the fields of ``Dataset.from_arrays``: observations, actions, terminals, and optionally rewards,
    timeouts, final_observation and the number frame_stack. What ``guidedflow data convert`` wrote also knows its
    observations' keys and its actions' range.

    Args:
        path: where it is.
        frame_stack: of how many frames an observation is made; None: what the file says, else 1.

    Raises:
        DataError: it is of no known format, missing or damaged, or a field is missing or malformed.
    """
    return find_format(path).load(Path(path), frame_stack)


def metadata(path: Path | str) -> dict[str, Any] | None:
    """What data made by guidedflow says of itself; None for any other, the published ones too.

    Raises:
        DataError: it is missing or damaged.
    """
    return find_format(path).metadata(Path(path)) if is_data(path) else None


def splits(path: Path | str) -> dict[str, np.ndarray]:
    """The numbers of the episodes of each part that the data's makers named, ``valid`` for instance; {} if none.

    Raises:
        DataError: it is missing or damaged.
    """
    known = find_format(path)
    return known.splits(Path(path)) if hasattr(known, "splits") else {}
