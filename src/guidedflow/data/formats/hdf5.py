"""HDF5 files of flat arrays: the user's own, and D4RL's (docs/tasks.md, "Files")."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import h5py
import numpy as np

from guidedflow.data.dataset import Dataset, check_fields, close_last
from guidedflow.data.formats.format import REQUIRED, Recording, check_names, current_names, dataset_of
from guidedflow.data.opening import hierarchy
from guidedflow.data.opening.regular import MOST_JSON
from guidedflow.errors import DataError
from guidedflow.files import make_sure_of_room, whole_file

SUFFIXES: tuple[str, ...] = (".hdf5", ".h5")
OPTIONS: tuple[str, ...] = ()
FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")
"""Those of a D4RL file."""
KNOWN = (*FIELDS, "final_observation", "finals", "terminated", "success", "timestamps", "timestamp", "frame_stack")
"""What is read of a file unless other names are asked for."""


@runtime_checkable
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


def recognises(path: Path) -> bool:
    """Whether it is a file's name that ends in one of ``SUFFIXES``."""
    return path.suffix in SUFFIXES and not path.is_dir()


def read(path: Path, required: Sequence[str] = (), optional: Sequence[str] = KNOWN) -> dict[str, np.ndarray]:
    """Arrays of an HDF5 file as they are. A field may be a group of arrays, which are then named FIELD/NAME.

    Args:
        path: the file.
        required: the fields that it must have, ``FIELDS`` for D4RL's.
        optional: those that are read if they are there.

    Raises:
        DataError: the file is missing, truncated, no HDF5, or lacks a field.
    """
    with hierarchy.opened(Path(path)) as file:
        arrays = file.read(tuple(dict.fromkeys((*required, *optional))))
        there = {name.partition("/")[0] for name in arrays}
        if not set(required) <= there:
            found = ", ".join(sorted(file.names)) or "nothing"
            raise DataError(f"{path}: expected the fields {', '.join(required)}, found {found}")
        if not arrays:
            check_names(dict.fromkeys(file.names), Path(path))
    return current_names(arrays)


def recordings(path: Path) -> Iterator[Recording]:
    """All of the file, as one recording of whole episodes."""
    yield Recording(str(path), read(path, REQUIRED), is_episode=False)


def load(path: Path, frame_stack: int | None = None) -> Dataset:
    """The data set in a file with the fields of ``Dataset.from_arrays``; others are not read.

    Raises:
        DataError: as ``read``, or a field is missing or malformed.
    """
    return dataset_of(read(path, REQUIRED), path, metadata(path), frame_stack)


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
        DataError: it exists already, a field is missing or malformed, or no row ends an episode.
        OSError: it cannot be written.
    """
    if path.exists():
        raise DataError(f"{path}: expected a new file, found one that exists; name another --data-dir or remove it")
    missing = [name for name in FIELDS if name not in arrays]
    if missing:
        raise DataError(f"{path}: expected the fields {', '.join(FIELDS)} to write, found {', '.join(sorted(arrays))}")
    checked = check_fields({name: arrays[name] for name in FIELDS}, str(path))
    close_last(checked["terminals"] | checked["timeouts"], str(path))
    checked["actions"] = np.clip(np.asarray(arrays["actions"], np.float32), -1.0, 1.0)  # As they were done.
    path.parent.mkdir(parents=True, exist_ok=True)
    make_sure_of_room(path.parent, 2**16 + 2 * sum(array.nbytes for array in checked.values()))
    # The files of this version have checksums of their own structure as well; HDF5 1.10 of 2016 and later read them.
    with whole_file(path) as target, h5py.File(target, "w", libver=("v110", "v110")) as file:
        for name, array in checked.items():
            file.create_dataset(name, data=array, compression="gzip", fletcher32=True)
        for name, value in metadata.items():
            file[f"metadata/{name}"] = value
    return path


def metadata(path: Path) -> dict[str, Any] | None:
    """What a file made by ``guidedflow data generate`` says of itself; None for any other.

    Raises:
        DataError: the file is missing, truncated or no HDF5, or its metadata are no texts.
    """
    with hierarchy.opened(Path(path)) as file:
        if not any(file.arrays("metadata/generator", is_varying=True)):
            return None
        there = dict(file.arrays("metadata", is_varying=True))
        for name, array in there.items():
            if array.shape != () or array.nbytes > MOST_JSON:
                raise DataError(f"{path}: {name}: expected one text, found an array of shape {array.shape}")
        return {name.removeprefix("metadata/"): _text(array[()]) for name, array in there.items()}


def about(path: Path) -> dict[str, Any]:
    """None: a file of arrays says neither how fast steps are nor what the task is."""
    return {}


def splits(path: Path) -> dict[str, np.ndarray]:
    """None: a file of arrays sets no episodes apart."""
    return {}


def checksums(path: Path) -> str:
    """Compare those that there are, and say in words what they cover: arrays that gzip or Fletcher-32 went over.

    Raises:
        DataError: one is wrong.
    """
    with hierarchy.opened(Path(path)) as file:
        arrays = [array for name in KNOWN for _, array in file.arrays(name)]
        covered = [array for array in arrays if hierarchy.has_checksum(array)]
        for array in covered:
            array[()]
    return hierarchy.described(len(covered), len(arrays))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
