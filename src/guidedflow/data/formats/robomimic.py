"""robomimic's HDF5 files: a group for each demonstration (docs/data.md, "Robots' recordings")."""

import logging
import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats import hdf5
from guidedflow.data.formats.format import Recording, dataset_of
from guidedflow.data.opening import hierarchy
from guidedflow.data.opening.regular import check_memory, parse
from guidedflow.data.pictures import StoredPictures, in_memory
from guidedflow.data.rewards import chosen_rewards, flags, until_first
from guidedflow.errors import DataError
from guidedflow.types import is_picture

SUFFIXES: tuple[str, ...] = hdf5.SUFFIXES
OPTIONS: tuple[str, ...] = ("reward",)
_LOG = logging.getLogger("guidedflow")
_OUTCOMES = ("rewards", "dones")
_DEMONSTRATION = re.compile(r"demo_(\d{1,18})")


class _Demonstration(NamedTuple):
    """One demonstration of N steps."""

    name: str
    arrays: dict[str, h5py.Dataset]
    """(N, ...) each, by their names in its group: ``actions``, ``obs/KEY``."""

    def entries(self, group: str = "obs") -> dict[str, h5py.Dataset]:
        """The observations, by their keys."""
        return {name.removeprefix(f"{group}/"): a for name, a in self.arrays.items() if name.startswith(f"{group}/")}


def recognises(path: Path) -> bool:
    """Whether it is an HDF5 file in which ``data`` has groups ``demo_0``, ``demo_1``, ..."""
    if not hdf5.recognises(path):
        return False
    try:
        with hierarchy.opened(path) as file:
            return any(_DEMONSTRATION.fullmatch(name) for name in file.within("data"))
    except DataError:  # Which the reader of HDF5 files will say.
        return False


def read(path: Path, *, reward: str | None = None) -> dict[str, np.ndarray]:
    """Flat arrays of a file: its demonstrations one after the other, in the order of their numbers.

    Args:
        path: the file.
        reward: one of ``REWARDS``; None: recorded ones where there are some, else success, else none. Unless it is
            none, a demonstration ends at its first success, which is terminal; the steps after it are left out. A step
            succeeded if its reward is 1 where rewards are sparse, else if ``dones`` says so; but a last step whose
            demonstration was not done before did not where all last steps are done (robomimic's done_mode 1 and 2).

    Returns:
        observations/KEY (N, ...), actions (N, d), terminals, timeouts and final_observation (N,): whether the row only
        holds a demonstration's last ``next_obs``; and where there are some rewards and success (N,).

    Raises:
        DataError: the file has no observations, is not whole or damaged, or does not fit into memory.
        SettingsError: ``reward`` does not fit the data.
    """
    return in_memory(_fields(path, reward), path)


def load(path: Path, frame_stack: int | None = None, *, reward: str | None = None) -> Dataset:
    """The data set in a file. Actions are in [-1, 1] there already.

    Raises:
        DataError, SettingsError: as ``read``.
    """
    return dataset_of(in_memory(_fields(path, reward, logging.INFO), path), path, frame_stack=frame_stack)


def metadata(path: Path) -> dict[str, Any] | None:
    """None: guidedflow makes no such files."""
    return None


def checksums(path: Path) -> str:
    """Compare those that there are, and say in words what they cover.

    Raises:
        DataError: one is wrong.
    """
    with hierarchy.opened(path) as file:
        arrays = [array for demonstration in _demonstrations(path, file) for array in demonstration.arrays.values()]
        covered = [array for array in arrays if hierarchy.has_checksum(array)]
        for array in covered:
            array[()]
        return hierarchy.described(len(covered), len(arrays))


def recordings(path: Path, *, reward: str | None = None) -> Iterator[Recording]:
    """All of the file, as one recording of whole episodes, whose pictures are read when they are needed.

    Raises:
        DataError, SettingsError: as ``read``.
    """
    yield Recording(str(path), _fields(path, reward, logging.INFO), is_episode=False, has_order=True)


def about(path: Path) -> dict[str, Any]:
    """Steps a second, where ``env_args`` says so.

    Raises:
        DataError: the file is damaged.
    """
    with hierarchy.opened(path) as file:
        frequency = _environment(path, file).get("control_freq")
    return {"fps": float(frequency)} if isinstance(frequency, int | float) and 0 < frequency < 1e6 else {}


def splits(path: Path, *, reward: str | None = None) -> dict[str, np.ndarray]:
    """Which demonstrations, by their numbers in the data set that ``load`` gives, belong to which filter key.

    Raises:
        DataError: the file is damaged, or a filter key names a demonstration that is not there.
    """
    with hierarchy.opened(path) as file:
        number = {demonstration.name: i for i, demonstration in enumerate(_demonstrations(path, file))}
        parts = {}
        for name, array in file.arrays("mask", is_varying=True):
            members = [m.decode(errors="replace") if isinstance(m, bytes) else str(m) for m in array[()].ravel()]
            unknown = [member for member in members if member not in number]
            if unknown:
                raise DataError(f"{path}: {name}: expected demonstrations of data, found {unknown[0][:100]!r}")
            parts[name.removeprefix("mask/")] = np.sort([number[member] for member in members]).astype(np.int64)
    return parts


def _fields(path: Path, reward: str | None, level: int = logging.DEBUG) -> dict[str, Any]:
    """What ``read`` gives, its pictures not read yet; ``level`` is that of notices."""
    with hierarchy.opened(path) as file:
        demonstrations = _demonstrations(path, file)
        check_memory(sum(one.arrays["actions"].nbytes for one in demonstrations), str(path))
        lengths = [len(one.arrays["actions"]) for one in demonstrations]
        stops = np.cumsum(lengths)
        recorded, dones = (_joined(demonstrations, name) for name in _OUTCOMES)
        dones = None if dones is None else flags(dones, "dones", path)
        success = _success(recorded, dones, stops - 1, _environment(path, file).get("reward_shaping"))
        rewards = chosen_rewards(reward, recorded, success, path)
        ends = np.zeros(stops[-1], bool) if rewards is None or success is None else success
        kept = until_first(ends, np.repeat(stops - lengths, lengths))
        found = {
            "actions": _joined(demonstrations, "actions"),
            "rewards": rewards,
            "success": success,
            "terminals": ends,
        }
        flat = {name: values for name, values in found.items() if values is not None}
        rows: dict[str, list[np.ndarray]] = {name: [] for name in (*flat, "timeouts", "final_observation")}
        taken = []
        for one, stop, length in zip(demonstrations, stops.tolist(), lengths, strict=True):
            steps = int(np.count_nonzero(kept[stop - length : stop]))
            last = stop - length + steps - 1
            more = int(not ends[last] and any(one.entries("next_obs")))
            taken.append((one.name, steps, more))
            for name, values in flat.items():
                rows[name] += [values[stop - length : last + 1], np.zeros_like(values[:more])]
            rows["timeouts"].append((np.arange(steps + more) == steps - 1) & ~ends[last])
            rows["final_observation"].append(np.arange(steps + more) == steps)
        fields: dict[str, Any] = {name: np.concatenate(values) for name, values in rows.items()}
        for key, array in demonstrations[0].entries().items():
            pieces, shape = partial(_pieces, path, key, taken), (len(fields["terminals"]), *array.shape[1:])
            if is_picture(array.shape[1:], array.dtype):
                fields[f"observations/{key}"] = StoredPictures(shape, pieces, f"{path}: obs/{key}")
            elif array.ndim == 4:
                _LOG.log(level, "%s: left out, because it is neither vectors nor uint8 pictures: obs/%s", path, key)
            else:
                check_memory(math.prod(shape) * array.dtype.itemsize, f"{path}: obs/{key}")
                fields[f"observations/{key}"] = np.concatenate([*pieces()])
    return fields


def _demonstrations(path: Path, file: hierarchy.Hierarchy) -> list[_Demonstration]:
    """All of a file, in the order of their numbers, their arrays of the same kinds and each of one length."""
    groups: dict[str, dict[str, h5py.Dataset]] = {name: {} for name in file.within("data")}
    for name, array in file.arrays("data", is_varying=True):
        _, group, *rest = name.split("/", 2)
        groups[group] |= dict.fromkeys(rest, array)
    found = {name: match for name in groups if (match := _DEMONSTRATION.fullmatch(name))}
    names = sorted(found, key=lambda name: (int(found[name][1]), name))
    demonstrations = [_Demonstration(name, groups[name]) for name in names]
    for one in demonstrations:
        _check(path, one, demonstrations[0])
    return demonstrations


def _check(path: Path, one: _Demonstration, first: _Demonstration) -> None:
    where = f"{path}: data/{one.name}"
    if not one.entries():
        raise DataError(
            f"{where}: expected actions and observations (obs), found {', '.join(one.arrays) or 'nothing'}; "
            "robomimic's dataset_states_to_obs.py makes observations of a raw file's states"
        )
    read = ("actions", *_OUTCOMES, *(name for name in one.arrays if name.startswith(("obs/", "next_obs/"))))
    for name in dict.fromkeys([*read, *(name for name in first.arrays if name.startswith(("obs/", "next_obs/")))]):
        found, like = one.arrays.get(name), first.arrays.get(name)
        if found is None and like is None and name != "actions":
            continue
        if found is None or like is None or not found.shape or not len(found):
            there, lacking = (one, first) if like is None else (first, one)
            raise DataError(f"{path}: data/{lacking.name}/{name}: expected rows, as in {there.name}, found none")
        if _row(found) != _row(like) or found.dtype.kind not in "biuf":
            raise DataError(
                f"{where}/{name}: expected numbers of shape {like.shape[1:]} a row, as in {first.name} ({like.dtype}), "
                f"found {found.shape[1:]} ({found.dtype})"
            )
        if len(found) != len(one.arrays["actions"]) or (name in _OUTCOMES and found.size != len(found)):
            raise DataError(
                f"{where}/{name}: expected {len(one.arrays['actions'])} rows as in actions, found {found.shape}"
            )
    missing = set(one.entries()) ^ set(one.entries("next_obs"))
    if one.entries("next_obs") and missing:
        raise DataError(f"{where}/next_obs: expected the keys of obs, found another: {', '.join(sorted(missing))}")
    for key, array in one.entries("next_obs").items():
        now = one.arrays[f"obs/{key}"]
        if _row(array) != _row(now):
            raise DataError(
                f"{where}/next_obs/{key}: expected numbers of shape {now.shape[1:]} a row, as in obs ({now.dtype}), "
                f"found {array.shape[1:]} ({array.dtype})"
            )


def _row(array: h5py.Dataset) -> tuple[tuple[int, ...], str, bool]:
    """Shape and kind of an array's rows; of unsigned numbers, whether they are bytes, as pictures are."""
    return array.shape[1:], array.dtype.kind, array.dtype == np.uint8


def _joined(demonstrations: list[_Demonstration], name: str) -> np.ndarray | None:
    """An array of all demonstrations, one after the other; None if they have none of that name."""
    if name not in demonstrations[0].arrays:
        return None
    joined = np.concatenate([one.arrays[name][()] for one in demonstrations])
    return joined.reshape(-1) if name in _OUTCOMES else joined


def _environment(path: Path, file: hierarchy.Hierarchy) -> dict[str, Any]:
    """The arguments that the environment was made with, as far as the file has them."""
    text = file.text("data", "env_args")
    try:
        found = None if text is None else parse(text, f"{path}: data: env_args")
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: data: env_args: expected JSON, found: {error}") from error
    options = found.get("env_kwargs") if isinstance(found, dict) else None
    return options if isinstance(options, dict) else {}


def _success(
    rewards: np.ndarray | None, dones: np.ndarray | None, last: np.ndarray, is_shaped: object
) -> np.ndarray | None:
    """Which steps succeeded, as ``read`` says; None if nothing tells."""
    if rewards is not None and not isinstance(is_shaped, bool):
        is_shaped = not np.isin(rewards, (0, 1)).all() or not rewards.any()
    if rewards is not None and not is_shaped:
        return rewards == 1
    if dones is None:
        return None
    success = dones.copy()
    if success[last].all():
        success[last] &= success[last - 1] & (np.diff(last, prepend=-1) > 1)
    return success


def _pieces(path: Path, key: str, taken: list[tuple[str, int, int]]) -> Iterator[np.ndarray]:
    """An observation's rows: of each demonstration so many steps, and its last ``next_obs`` or not."""
    with hierarchy.opened(path) as file:
        for name, steps, more in taken:
            for group, rows in (("obs", slice(0, steps)), ("next_obs", slice(steps - 1, steps - 1 + more))):
                if rows.stop > rows.start:
                    ((_, array),) = file.arrays(f"data/{name}/{group}/{key}")
                    yield array[rows]
