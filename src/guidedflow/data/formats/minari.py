"""Minari's data sets, read through the minari package (docs/tasks.md, "Minari")."""

import contextlib
import math
import reprlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats.format import Recording, dataset_of
from guidedflow.data.opening import hierarchy
from guidedflow.data.opening.regular import check_memory, children, parse, read_json
from guidedflow.errors import DataError
from guidedflow.types import named

SUFFIXES: tuple[str, ...] = ()
OPTIONS: tuple[str, ...] = ()
_FILE = "data/main_data.hdf5"
_READ = ("observations", "actions", "rewards", "terminations", "truncations")
"""What is kept of an episode; its infos are not."""
_MOST_NUMBERS = 2**24
"""In the shape of a space."""
_WHOLE = "expected a whole Minari data set"


def recognises(path: Path) -> bool:
    """Whether it is a folder with a folder ``data`` in it, and none of LeRobot's, which has ``meta`` as well."""
    return (path / "data").is_dir() and not (path / "meta").is_dir()


def read(path: Path) -> dict[str, np.ndarray]:
    """Flat arrays of a local data set: its episodes one after the other, T + 1 rows for T steps.

    Args:
        path: the data set's folder, the one that ``data`` lies in.

    Returns:
        observations (N, n), actions (N, d), rewards (N,), terminals (N,) and final_observation (N,): whether the row
        only holds its episode's final observation; its action and reward are zero.

    Raises:
        DataError: there is none, or it is damaged, or observations are no vectors.
    """
    if not (path / "data").is_dir():
        raise DataError(f"{path}: expected a Minari data set, found no folder data in it")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("observations", "actions", "rewards", "terminals")}
    lengths = []
    for episode in stored_episodes(path):
        observations = _vectors(episode.observations, path)
        actions = _vectors(episode.actions, path)
        steps = len(episode.rewards)
        lengths_found = (len(observations), len(actions), len(episode.terminations), steps)
        if lengths_found != (steps + 1, steps, steps, steps) or not steps:
            raise DataError(
                f"{path}: episode {episode.id}: expected T + 1 observations, T actions and T terminations for T > 0 "
                f"rewards, found {', '.join(map(str, lengths_found[:3]))} and {steps}"
            )
        for name, found in (("observations", observations), ("actions", actions)):
            if parts[name] and found.shape[1] != parts[name][0].shape[1]:
                raise DataError(
                    f"{path}: episode {episode.id}: {name}: expected {parts[name][0].shape[1]} numbers a step as in "
                    f"the episodes before, found {found.shape[1]}"
                )
        early = np.flatnonzero(episode.terminations[:-1])
        if len(early):
            raise DataError(
                f"{path}: episode {episode.id}: expected a terminal state in its last step alone, found one in step "
                f"{early[0]} of {steps}"
            )
        parts["observations"].append(observations)
        parts["actions"].append(np.concatenate([actions, np.zeros_like(actions[:1])]))
        parts["rewards"].append(np.append(episode.rewards, 0.0))
        parts["terminals"].append(np.append(episode.terminations, False))
        lengths.append(steps + 1)
    if not lengths:
        raise DataError(f"{path}: expected at least one episode, found none")
    final = np.zeros(sum(lengths), bool)
    final[np.cumsum(lengths) - 1] = True
    return {**{name: np.concatenate(arrays) for name, arrays in parts.items()}, "final_observation": final}


def load(path: Path, frame_stack: int | None = None, *, reference: tuple[float, float] | None = None) -> Dataset:
    """The data set in a folder; masks are 0 where the environment terminated.

    Args:
        path: as for ``read``.
        frame_stack: of how many frames an observation is made; None: 1.
        reference: the returns that score 0 and 100; a warning tells if the data set's own metadata disagrees.

    Raises:
        DataError: as ``read``, or a field is malformed.
    """
    dataset = dataset_of(read(path), path, frame_stack=frame_stack)
    if reference is not None:
        _compare_reference(path, reference)
    return dataset


def recordings(path: Path) -> Iterator[Recording]:
    """One recording an episode, with its final observation.

    Raises:
        DataError: the data set is damaged.
    """
    for episode in stored_episodes(path):
        fields = {name: getattr(episode, name) for name in ("observations", "actions", "rewards")}
        yield Recording(f"{path}: episode {episode.id}", named({**fields, "terminals": episode.terminations}), True)


def metadata(path: Path) -> dict[str, Any] | None:
    """What a data set made by ``guidedflow data generate`` says of itself; None for any other."""
    description = _stored_metadata(path).get("description", "")
    try:
        found = parse(description, f"{path}: metadata.json: description")
    except DataError:
        raise
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == "guidedflow" else None


def about(path: Path) -> dict[str, Any]:
    """None: a Minari data set says neither how fast steps are nor what the task is."""
    return {}


def splits(path: Path) -> dict[str, np.ndarray]:
    """None: a Minari data set sets no episodes apart."""
    return {}


def checksums(path: Path) -> str:
    """Compare those that there are, and say in words what they cover; the minari package writes none.

    Raises:
        DataError: one is wrong, or the data set is damaged.
    """
    number = _count(_stored_metadata(path), "total_episodes", path)
    with _whole(path), hierarchy.opened(path / _FILE, path) as file:
        arrays = [array for episode in range(number) for array in _episode_arrays(file, episode).values()]
        covered = [array for array in arrays if hierarchy.has_checksum(array)]
        for array in covered:
            array[()]
        return hierarchy.described(len(covered), len(arrays))


def stored_episodes(path: Path) -> Any:
    """The episodes of a local data set, one after the other, as the minari package gives them.

    Its metadata must hold both spaces. The package would otherwise make the environment that the metadata specify,
    and an environment's specification may name any function of any module to be called.

    Raises:
        DataError: it is damaged, has no spaces, or holds another number of episodes or steps than it says.
    """
    from minari import MinariDataset
    from minari.dataset._storages import get_minari_storage
    from minari.serialization import deserialize_space

    metadata = _stored_metadata(path)
    missing = [name for name in ("observation_space", "action_space") if not isinstance(metadata.get(name), str)]
    if missing:
        raise DataError(
            f"{path}: metadata.json: expected observation_space and action_space, found no {missing[0]}; it is not "
            "taken from env_spec, because making an environment that a data set names could run any code"
        )
    if metadata.get("data_format") != "hdf5":
        raise DataError(
            f"{path}: metadata.json: data_format: expected hdf5, found {reprlib.repr(metadata.get('data_format'))}; "
            "make the data set anew in that format"
        )
    for name in ("observation_space", "action_space"):
        with _whole(path):
            _check_space(parse(metadata[name], f"{path}: metadata.json: {name}"), f"{path}: metadata.json: {name}")
    _check_file(path, metadata)
    with _whole(path):
        spaces = [deserialize_space(metadata[name]) for name in ("observation_space", "action_space")]
        jpeg = bool(metadata.get("jpeg_encoding", True))
        storage = get_minari_storage("hdf5")(path / "data", *spaces, jpeg_encoding=jpeg)
        yield from MinariDataset(storage).iterate_episodes()


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise DataError(f"{path}: {_WHOLE}, found: {str(error).removeprefix(f'{path}/')}") from error
    except Exception as error:  # The package passes on whatever NumPy, gymnasium and h5py raise.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: {_WHOLE}, found: {reason}") from error


def _check_file(path: Path, metadata: dict[str, Any]) -> None:
    """All that the package is going to read, looked at before it does."""
    said = {name: _count(metadata, name, path) for name in ("total_episodes", "total_steps")}
    with _whole(path), hierarchy.opened(path / _FILE, path) as file:
        names = {name for name in file.names if name.startswith("episode_")}
        found = {"total_episodes": len(names), "total_steps": 0}
        size = 0
        for episode in range(len(names)):
            if f"episode_{episode}" not in names:
                raise DataError(f"{_FILE}: expected episodes without a gap, found no episode_{episode}")
            arrays = _episode_arrays(file, episode)
            rewards = arrays.get(f"episode_{episode}/rewards")
            if rewards is None or len(rewards.shape) != 1:
                raise DataError(f"{_FILE}: episode_{episode}: expected rewards, one a step, found none")
            found["total_steps"] += len(rewards)
            size += sum(array.nbytes for name, array in arrays.items() if name.split("/")[1] in _READ)
        for name, number in said.items():
            if number != found[name]:
                raise DataError(
                    f"{path}: metadata.json: {name}: expected the {found[name]:,} of {_FILE}, found {number:,}; the "
                    "data set is not whole, or its two files are not of one; get it anew"
                )
        check_memory(size, str(path))


def _episode_arrays(file: hierarchy.Hierarchy, episode: int) -> dict[str, Any]:
    return dict(file.arrays(f"episode_{episode}", is_varying=True))  # Pictures vary in length: they are JPEG.


def _count(metadata: dict[str, Any], name: str, path: Path) -> int:
    found = metadata.get(name)
    if type(found) is not int or found < 1:
        raise DataError(f"{path}: metadata.json: {name}: expected a number of 1 or more, found {reprlib.repr(found)}")
    return found


def _check_space(space: Any, what: str) -> None:
    """Raise DataError unless a space's bounds, which are made in full, are as many as fit into memory."""
    level = [space]
    while level:
        for item in level:
            shape = item.get("shape") if isinstance(item, dict) else None
            if shape is None:
                continue
            if not isinstance(shape, list) or any(type(length) is not int or length < 0 for length in shape):
                raise DataError(f"{what}: shape: expected a list of lengths, found {reprlib.repr(shape)}")
            if math.prod(shape) > _MOST_NUMBERS:
                raise DataError(f"{what}: shape: expected at most {_MOST_NUMBERS:,} numbers, found {shape}")
        level = [inner for item in level for inner in children(item)]


def _vectors(values: Any, path: Path) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        found = f"shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"{path}: expected one vector a step, found {found}")
    return values


def _stored_metadata(path: Path) -> dict[str, Any]:
    with _whole(path):
        found = read_json(path / "data" / "metadata.json", path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: {_WHOLE}, found metadata of another kind")
    return found


def _compare_reference(path: Path, reference: tuple[float, float]) -> None:
    metadata = _stored_metadata(path)
    stated = tuple(metadata.get(name) for name in ("ref_min_score", "ref_max_score"))
    if stated != (None, None) and not np.allclose([np.nan if v is None else v for v in stated], reference, rtol=1e-4):
        warnings.warn(
            f"{path}: its reference scores {stated[0]} and {stated[1]} are not the published {reference[0]} and "
            f"{reference[1]}, which are used",
            stacklevel=2,
        )
