"""What a format of training data is, and how the arrays of a file become a data set."""

import dataclasses
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from guidedflow.data.dataset import ENTRY, MOST_FRAMES, Dataset
from guidedflow.errors import DataError
from guidedflow.types import Spec

REQUIRED = ("observations", "actions", "terminals")
OPTIONAL = ("rewards", "timeouts", "final_observation")


class Recording(NamedTuple):
    """What somebody recorded, as it is: what ``convert`` makes a file of."""

    name: str
    """What error messages call it."""
    fields: dict[str, Any]
    """By name; the entries of dictionary observations are ``observations/NAME``, arrays or ``StoredPictures``."""
    is_episode: bool
    """Whether it is one episode, with T or T + 1 observations, or many, in the fields of ``Dataset.from_arrays``."""
    has_order: bool = False
    """Whether the entries of dictionary observations are taken as they stand unless somebody names an order."""


@runtime_checkable
class Format(Protocol):
    """One format of training data. A module of this folder with these members, and a line in ``FORMATS``."""

    SUFFIXES: tuple[str, ...]
    """What its files' names end in; none for folders."""

    OPTIONS: tuple[str, ...]
    """Keyword arguments that ``read``, ``load``, ``recordings`` and ``splits`` take besides: reward, instruction."""

    def recognises(self, path: Path) -> bool:
        """Whether a path is of this format, by its name or by what a folder holds; a file need not exist."""

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """The arrays as they are, by the names of ``Dataset.from_arrays``.

        Raises:
            DataError: it is missing or damaged; the message is one line with the path.
        """

    def load(self, path: Path, frame_stack: int | None = None) -> Dataset:
        """The data set, its arrays checked.

        Args:
            path: the file or folder.
            frame_stack: as in ``Dataset``; None: what the file says, else 1.

        Raises:
            DataError: as ``read``, or a field is missing or malformed.
        """

    def metadata(self, path: Path) -> dict[str, Any] | None:
        """What data made by guidedflow says of itself; None for any other.

        Raises:
            DataError: it is missing or damaged.
        """

    def checksums(self, path: Path) -> str:
        """Compare all checksums of what is read of it, and say in words what they cover.

        Raises:
            DataError: one is wrong, or it is missing or damaged.
        """

    def recordings(self, path: Path) -> Iterator[Recording]:
        """What ``convert`` makes a file of, dictionary observations included.

        Raises:
            DataError: it is missing or damaged.
        """

    def about(self, path: Path) -> dict[str, Any]:
        """What the data says of itself beside its arrays: ``fps``, steps a second, and ``instructions``, the number of
        episodes by the text of their task; what it does not say is left out.

        Raises:
            DataError: it is missing or damaged.
        """

    def splits(self, path: Path) -> dict[str, np.ndarray]:
        """By name, the numbers of the episodes that the data itself sets apart; none if it says nothing.

        Raises:
            DataError: it is missing or damaged.
        """


def dataset_of(
    arrays: Mapping[str, np.ndarray],
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    frame_stack: int | None = None,
) -> Dataset:
    """A data set from a file's arrays.

    Args:
        arrays: the fields of ``Dataset.from_arrays``, and perhaps the number ``frame_stack``. Without ``observations``
            the arrays ``observations/NAME`` are the entries of dictionaries.
        path: where they come from.
        metadata: what the file says of itself; its ``spec`` knows what ``convert`` was told.
        frame_stack: as in ``Format.load``.

    Raises:
        DataError: a field is missing or malformed.
    """
    check_names(arrays, path)
    spec = _spec(metadata, path)
    fields: dict[str, Any] = {name: arrays[name] for name in (*REQUIRED, *OPTIONAL) if name in arrays}
    if "observations" not in fields:
        fields["observations"] = _entries(arrays, spec, path)
    stored = np.asarray(arrays.get("frame_stack", 1)).tolist()
    if not isinstance(stored, int) or not 1 <= stored <= MOST_FRAMES:
        raise DataError(f"{path}: frame_stack: expected 1 to {MOST_FRAMES}, found {reprlib.repr(stored)}")
    dataset = Dataset.from_arrays(**fields, frame_stack=stored, source=str(path))
    if spec is not None:
        found = dataset.spec
        if spec[:3] != found[:3] or (found.observation_keys and spec.observation_keys != found.observation_keys):
            raise DataError(f"{path}: metadata: expected the spec of the arrays, {found[:3]}, found {spec[:3]}")
        keys = dataset.observation_keys or spec.observation_keys
        dataset = dataclasses.replace(dataset, observation_keys=keys, action_range=spec.action_range)
    return dataset if frame_stack is None else dataset.with_frame_stack(frame_stack)


def _spec(metadata: Mapping[str, Any] | None, path: Path) -> Spec | None:
    if metadata is None or "spec" not in metadata:
        return None
    try:
        return Spec.from_json(metadata["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: metadata: expected the spec of the arrays, found: {error}") from error


def _entries(arrays: Mapping[str, np.ndarray], spec: Spec | None, path: Path) -> dict[str, np.ndarray]:
    """The entries of dictionary observations, in the order of the spec or, without one, of the file."""
    there = {name.removeprefix(ENTRY): array for name, array in arrays.items() if name.startswith(ENTRY)}
    order = list(there) if spec is None else [name for name, _ in spec.observation_keys]
    missing = [name for name in order if name not in there]
    if missing:
        raise DataError(f"{path}: {ENTRY}{missing[0]}: expected an entry, as its metadata says, found none")
    return {name: there[name] for name in order}


def current_names(arrays: dict[str, Any]) -> dict[str, Any]:
    """Fields by their present names; ``final_observation`` was once ``finals``."""
    return {"final_observation" if name == "finals" else name: array for name, array in arrays.items()}


def check_names(arrays: Mapping[str, Any], path: Path) -> None:
    """Raise DataError unless the fields of ``REQUIRED`` are there."""
    there = {"observations" if name.startswith(ENTRY) else name for name in arrays}
    if set(REQUIRED) <= there:
        return
    wanted = f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
    raise DataError(f"{path}: expected the fields {wanted}, found {', '.join(sorted(arrays)) or 'no arrays'}")
