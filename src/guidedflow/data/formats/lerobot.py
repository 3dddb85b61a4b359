"""LeRobot's data sets of version 3: tables in Parquet files, cameras in videos (docs/data.md, "Robots' recordings")."""

import dataclasses
import importlib.util
import itertools
import logging
import re
import reprlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from guidedflow.data.dataset import Dataset, check_finite
from guidedflow.data.formats.format import Recording, dataset_of
from guidedflow.data.opening import hierarchy, parquet, video
from guidedflow.data.opening.regular import check_memory, read_json
from guidedflow.data.pictures import StoredPictures, in_memory
from guidedflow.data.rewards import chosen_rewards, flags, until_first
from guidedflow.errors import DataError, SettingsError
from guidedflow.types import ActionRange

SUFFIXES: tuple[str, ...] = ()
OPTIONS: tuple[str, ...] = ("reward", "instruction")
_INFO = "meta/info.json"
_INDICES = ("episode_index", "frame_index", "task_index")
_NUMBERED = (*_INDICES, "timestamp")
_OUTCOMES = ("next.reward", "next.success", "next.done", "next.truncated")
_CAMERAS = ("image", "video")
_NUMBERS = re.compile(r"(float|int|uint)(8|16|32|64)|bool")
_PLACE = re.compile(r"\{(chunk_index|file_index|video_key)(?::0?(\d?)d)?\}")
"""What stands for a value in ``data_path`` and ``video_path``."""
_JSON = {dict: "object", str: "string"}
_LOG = logging.getLogger("guidedflow")


class _Info(NamedTuple):
    """Of meta/info.json what is read of it."""

    fps: float
    features: dict[str, tuple[str, tuple[int, ...]]]
    """Type and shape of each."""
    data_path: str
    video_path: str | None
    splits: dict[str, str]
    totals: dict[str, Any]
    """total_episodes and total_frames."""

    def entries(self) -> dict[str, str]:
        """Which features are observations, by the names of their entries."""
        found: dict[str, str] = {}
        for feature in self.features:
            if feature.startswith("observation."):
                full = feature.removeprefix("observation.")
                name = full.removeprefix("images.")
                found[full if name in found else name] = feature
        return found


class _Frames(NamedTuple):
    """All frames of a data set, or some of them, in the order of its episodes."""

    columns: dict[str, np.ndarray]
    """(N, ...) each, by the names of features."""
    starts: np.ndarray
    """(N,), the row at which each row's episode starts."""
    file: np.ndarray
    """(N, 2), chunk_index and file_index of the table that holds a row."""
    row: np.ndarray
    """(N,), its row there."""

    def of(self, rows: np.ndarray) -> "_Frames":
        """Those at ``rows``, of which there is one, alone; an episode begins anew behind what is left out of it."""
        begins = np.r_[True, (np.diff(rows) != 1) | (np.diff(self.starts[rows]) != 0)]
        starts = np.flatnonzero(begins)[np.cumsum(begins) - 1]
        columns = {name: column[rows] for name, column in self.columns.items()}
        return _Frames(columns, starts, self.file[rows], self.row[rows])


def recognises(path: Path) -> bool:
    """Whether it is a folder with the folders ``meta`` and ``data`` in it."""
    return (path / "meta").is_dir() and (path / "data").is_dir()


def read(path: Path, *, reward: str | None = None, instruction: str | None = None) -> dict[str, np.ndarray]:
    """Flat arrays of a data set: its episodes one after the other, a row a frame, pictures decoded.

    Args:
        path: the data set's folder, the one that ``meta`` lies in.
        reward: one of ``REWARDS``; None: recorded ones where there are some, else success, else none. Unless it is
            none, an episode ends at its first success (at its first ``next.done`` where success was not recorded),
            which is terminal; the frames after it are left out.
        instruction: the text of the only task whose frames are read; None: all.

    Returns:
        observations/NAME (N, ...) for each feature observation.NAME or observation.images.NAME, actions (N, d) as they
        were recorded, terminals and timeouts (N,), and where there are some rewards and success (N,).

    Raises:
        DataError: the data set is no LeRobot one of version 3, is not whole or damaged, or does not fit into memory.
        SettingsError: pyarrow or av is not installed, or an argument does not fit the data.
    """
    return in_memory(_fields(path, reward, instruction), path)


def load(
    path: Path, frame_stack: int | None = None, *, reward: str | None = None, instruction: str | None = None
) -> Dataset:
    """The data set in a folder. Actions are in physical units there: from the lowest to the highest is [-1, 1] here.

    Raises:
        DataError, SettingsError: as ``read``.
    """
    arrays = in_memory(_fields(path, reward, instruction, logging.INFO), path)
    actions = arrays["actions"]
    check_finite(actions, "actions", str(path))
    bounds = ActionRange.measured(actions)
    dataset = dataset_of(arrays | {"actions": bounds.to_unit(actions)}, path, frame_stack=frame_stack)
    _LOG.info("%s: actions of [-1, 1] stand for the lowest to the highest of the data", path)
    return dataclasses.replace(dataset, action_range=bounds)


def metadata(path: Path) -> dict[str, Any] | None:
    """None: guidedflow makes no such data."""
    return None


def checksums(path: Path) -> str:
    """Say in words what they cover: nothing, for LeRobot writes none."""
    return hierarchy.described(0, 1)


def recordings(path: Path, *, reward: str | None = None, instruction: str | None = None) -> Iterator[Recording]:
    """All of the data set, as one recording of whole episodes, whose pictures are decoded as they are read.

    Raises:
        DataError, SettingsError: as ``read``.
    """
    yield Recording(str(path), _fields(path, reward, instruction, logging.INFO), is_episode=False, has_order=True)


def about(path: Path) -> dict[str, Any]:
    """Steps a second, and how many episodes there are of each task.

    Raises:
        DataError, SettingsError: as ``read``.
    """
    info = _info(path)
    columns = _frames(path, info, _episodes(path, info)).columns
    texts = _texts(path, columns["task_index"])
    numbers, _ = np.unique(np.stack([columns["task_index"], columns["episode_index"]]), axis=1)
    return {"fps": info.fps, "instructions": dict(Counter(texts[number] for number in numbers.tolist()))}


def splits(path: Path, *, reward: str | None = None, instruction: str | None = None) -> dict[str, np.ndarray]:
    """Which episodes, by their numbers in the data set that ``load`` gives, belong to which part of meta/info.json.

    Raises:
        DataError, SettingsError: as ``read``, or a part is no range of episodes.
    """
    info = _info(path)
    frames = _chosen(path, _frames(path, info, _episodes(path, info)), instruction, logging.DEBUG)
    episodes = frames.columns["episode_index"][np.unique(frames.starts)]
    parts = {}
    for name, text in info.splits.items():
        bounds = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
        if bounds is None:
            raise DataError(f"{path}: {_INFO}: splits: expected episodes as 0:{len(episodes)}, found {text[:100]!r}")
        parts[name] = np.flatnonzero((int(bounds[1]) <= episodes) & (episodes < int(bounds[2])))
    return parts


def _fields(path: Path, reward: str | None, instruction: str | None, level: int = logging.DEBUG) -> dict[str, Any]:
    """What ``read`` gives, its pictures not decoded yet; ``level`` is that of notices."""
    info = _info(path, level)
    episodes = _episodes(path, info)
    frames = _chosen(path, _frames(path, info, episodes), instruction, level)
    outcomes = {name: frames.columns[name] for name in _OUTCOMES if name in frames.columns}
    outcomes |= {name: flags(outcomes[name], name, path) for name in _OUTCOMES[1:] if name in outcomes}
    success = outcomes.get("next.success")
    rewards = chosen_rewards(reward, outcomes.get("next.reward"), success, path)
    ends = np.zeros(len(frames.row), bool)
    if rewards is not None and success is not None:
        ends = success
    elif rewards is not None and "next.done" in outcomes:
        _LOG.log(level, "%s: without next.success, next.done ends an episode, be it a success or a time-out", path)
        ends = outcomes["next.done"] & ~outcomes.get("next.truncated", ends)
    kept = np.flatnonzero(until_first(ends, frames.starts))
    frames = frames.of(kept)
    last = np.r_[frames.starts[1:] != frames.starts[:-1], True]
    fields: dict[str, Any] = {}
    for name, feature in info.entries().items():
        is_camera = info.features[feature][0] in _CAMERAS
        value = _pictures(path, info, episodes, frames, feature) if is_camera else frames.columns[feature]
        fields[f"observations/{name}"] = value
    fields |= {"actions": frames.columns["action"], "terminals": ends[kept], "timeouts": last & ~ends[kept]}
    labels = {"rewards": rewards, "success": success}
    return fields | {name: values[kept] for name, values in labels.items() if values is not None}


def _info(path: Path, level: int = logging.DEBUG) -> _Info:
    for package in ("pyarrow", "av"):
        if importlib.util.find_spec(package) is None:
            raise SettingsError(
                f"{path}: expected the package {package}, which reads LeRobot's data sets, found none; "
                "pip install 'guidedflow[robots]'"
            )
    where = f"{path}: {_INFO}"
    saved = read_json(path / _INFO, path)
    version = saved.get("codebase_version") if isinstance(saved, dict) else None
    if not isinstance(version, str) or not version.startswith("v3."):
        raise DataError(
            f"{where}: codebase_version: expected v3.0, found {reprlib.repr(version)}; convert older data sets with "
            "LeRobot's convert_dataset_v21_to_v30"
        )
    fps = saved.get("fps")
    if type(fps) not in (int, float) or not 0 < fps < 1e6:
        raise DataError(f"{where}: fps: expected frames a second, found {reprlib.repr(fps)}")
    data_path, video_path = saved.get("data_path"), saved.get("video_path")
    described, splits = saved.get("features"), saved.get("splits") or {}
    kinds = {"features": (described, dict), "splits": (splits, dict), "data_path": (data_path, str)}
    for name, (value, kind) in {**kinds, "video_path": ("" if video_path is None else video_path, str)}.items():
        if not isinstance(value, kind):
            raise DataError(f"{where}: {name}: expected JSON's {_JSON[kind]}, found {reprlib.repr(value)}")
    unprintable = [name for name in described if not name.isprintable()]
    if unprintable:
        raise DataError(f"{where}: features: expected names that can be printed, found {unprintable[0][:100]!r}")
    features = {name: _feature(feature, f"{where}: {name}") for name, feature in described.items()}
    known = {name: feature for name, feature in features.items() if feature is not None}
    totals = {name: saved.get(name) for name in ("total_episodes", "total_frames")}
    info = _Info(float(fps), known, data_path, video_path, {name: str(part) for name, part in splits.items()}, totals)
    left_out = [name for name, feature in features.items() if feature is None and name.startswith("observation.")]
    if left_out:
        _LOG.log(
            level, "%s: left out, because they are neither vectors nor uint8 pictures: %s", path, ", ".join(left_out)
        )
    wanted = ["action", *_NUMBERED]
    missing = [f"numbers for {name}" for name in wanted if name not in known or known[name][0] in _CAMERAS]
    if missing or not info.entries():
        raise DataError(f"{where}: features: expected {missing[0] if missing else 'an observation'}, found none")
    if len(known["action"][1]) != 1:
        raise DataError(f"{where}: action: expected a shape of one number, found {[*known['action'][1]]}")
    return info


def _feature(feature: Any, where: str) -> tuple[str, tuple[int, ...]] | None:
    """Type and shape of a feature (of pictures, none); None of one that is neither vectors nor uint8 pictures."""
    described: dict[str, Any] = feature if isinstance(feature, dict) else {}
    kind, shape = described.get("dtype"), described.get("shape")
    is_shape = isinstance(shape, list) and all(type(length) is int and 0 < length < 2**31 for length in shape)
    is_number = isinstance(kind, str) and _NUMBERS.fullmatch(kind)
    if not isinstance(kind, str) or (is_number and not is_shape):
        raise DataError(f"{where}: expected dtype and shape, found {reprlib.repr(feature)}")
    if is_number:
        shape = tuple(shape or ())
        return (kind, shape) if len(shape) != 3 or kind == "uint8" else None
    more = described.get("info")
    more = {**described, **more} if isinstance(more, dict) else described
    is_depth = bool(more.get("is_depth_map") or more.get("video.is_depth_map"))
    return (kind, ()) if kind in _CAMERAS and not is_depth else None


def _episodes(path: Path, info: _Info) -> dict[str, np.ndarray]:
    """Where the frames of each episode are: columns of meta/episodes, sorted and without gaps."""
    cameras = [name for name, (kind, _) in info.features.items() if kind == "video"]
    names = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    names += [f"videos/{name}/{part}" for name in cameras for part in ("chunk_index", "file_index", "from_timestamp")]
    folder = path / "meta" / "episodes"
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for file in sorted(folder.glob("chunk-*/file-*.parquet")):
        with parquet.opened(file, path) as table:
            for name in names:
                parts[name].append(table.numbers(name))
    if not parts["length"]:
        raise DataError(f"{folder}: expected chunk-000/file-000.parquet, found none; was the recording finished?")
    columns = {name: np.concatenate(found) for name, found in parts.items()}
    order = np.argsort(columns["episode_index"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    number = columns["episode_index"]
    wrong = np.flatnonzero(number != np.arange(len(number)))
    if len(wrong) or not len(number):
        found = f"{number[wrong[0]]} in the place of {wrong[0]}" if len(wrong) else "none"
        raise DataError(f"{folder}: expected episodes numbered from 0 without a gap, found {found}")
    for name, column in columns.items():
        lowest = 1 if name == "length" else 0
        is_whole = name.endswith("from_timestamp") or column.dtype.kind in "iu"
        if not (is_whole and (column >= lowest).all() and (column < 10**9).all()):
            raise DataError(f"{folder}: {name}: expected numbers from {lowest} to 1e9, found others")
        columns[name] = column if name.endswith("from_timestamp") else column.astype(np.int64)
    for name, wanted in (("total_episodes", len(number)), ("total_frames", int(columns["length"].sum()))):
        if info.totals[name] != wanted:
            raise DataError(
                f"{path}: {_INFO}: {name}: expected the {wanted:,} of meta/episodes, found "
                f"{reprlib.repr(info.totals[name])}; the data set is not whole, or its recording was not finished"
            )
    return columns


def _frames(path: Path, info: _Info, episodes: dict[str, np.ndarray]) -> _Frames:
    """Every frame's numbers, from all tables."""
    features = [*info.entries().values(), "action", *_NUMBERED, *_OUTCOMES]
    shapes = {name: info.features[name][1] for name in features if name in info.features}
    shapes = {name: shape for name, shape in shapes.items() if info.features[name][0] not in _CAMERAS}
    shapes |= dict.fromkeys(shapes.keys() & {*_NUMBERED, *_OUTCOMES}, ())
    parts: dict[str, list[np.ndarray]] = {name: [] for name in shapes}
    files, rows = [], []
    places = np.stack([episodes["data/chunk_index"], episodes["data/file_index"]], axis=1).astype(np.int64)
    for place in np.unique(places, axis=0):
        file = _file(path, info.data_path, place)
        with parquet.opened(file, path) as table:
            found = {name: table.numbers(name, shape) for name, shape in shapes.items()}
        for name in _INDICES:
            if found[name].dtype.kind not in "iu":
                raise DataError(f"{file}: {name}: expected whole numbers, found {found[name].dtype}")
            found[name] = found[name].astype(np.int64)
        here = (places == place).all(axis=1)
        _check_frames(file, info.fps, found, np.flatnonzero(here), episodes["length"][here])
        for name, array in found.items():
            parts[name].append(array)
        files.append(np.repeat(place[None], table.rows, axis=0))
        rows.append(np.arange(table.rows))
        check_memory(sum(array.nbytes for arrays in parts.values() for array in arrays), str(path))
    columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    order = np.lexsort((columns["frame_index"], columns["episode_index"]))
    columns = {name: column[order] for name, column in columns.items()}
    starts = np.repeat(np.cumsum(episodes["length"]) - episodes["length"], episodes["length"])
    return _Frames(columns, starts, np.concatenate(files)[order], np.concatenate(rows)[order])


def _check_frames(
    file: Path, fps: float, found: dict[str, np.ndarray], numbers: np.ndarray, lengths: np.ndarray
) -> None:
    """Raise DataError unless a table has the frames of its episodes, each once and at its time."""
    episode, frame, time = (found[name] for name in ("episode_index", "frame_index", "timestamp"))
    unknown = np.flatnonzero(~np.isin(episode, numbers))
    if len(unknown):
        raise DataError(
            f"{file}: episode_index: expected the episodes that meta/episodes has there, found {episode[unknown[0]]} "
            f"in row {unknown[0]}"
        )
    order = np.lexsort((frame, episode))
    counts = np.diff(np.searchsorted(episode[order], [*numbers, np.inf]))
    wrong = counts != lengths
    if not wrong.any():
        expected = np.arange(len(frame)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        wrong = np.isin(numbers, episode[order][frame[order] != expected])
    if wrong.any():
        number, length, count = (values[wrong][0] for values in (numbers, lengths, counts))
        raise DataError(
            f"{file}: expected frames 0 to {length - 1} of episode {number}, as meta/episodes says, found {count} "
            + ("frames" if count != length else "others")
        )
    late = np.flatnonzero(~(np.abs(time * fps - frame) <= video.TOLERANCE))
    if len(late):
        row = late[0]
        raise DataError(
            f"{file}: timestamp: expected {frame[row] / fps:g} s for frame {frame[row]} of episode {episode[row]}, at "
            f"{fps:g} frames a second as {_INFO} says, found {time[row]:g} s"
        )


def _texts(path: Path, index: np.ndarray) -> dict[int, str]:
    """The texts of tasks, ``index`` among them, by their numbers."""
    with parquet.opened(path / "meta" / "tasks.parquet", path) as table:
        names = [name for name in table.names if name != "task_index"]
        if len(names) != 1:
            raise DataError(
                f"{path}/meta/tasks.parquet: expected task_index and a column of texts, found {table.listed_names()}"
            )
        texts = dict(zip(table.numbers("task_index").tolist(), table.texts(names[0]), strict=True))
    unknown = [number for number in np.unique(index).tolist() if number not in texts]
    if unknown:
        raise DataError(f"{path}: task_index: expected one of meta/tasks.parquet, found {unknown[0]}")
    return texts


def _chosen(path: Path, frames: _Frames, instruction: str | None, level: int) -> _Frames:
    """The frames of the task with that text; all if it is None."""
    index = frames.columns["task_index"]
    texts = _texts(path, index)
    there = {texts[number] for number in np.unique(index).tolist()}
    listed = ", ".join(f"{text[:100]!r}" for text in sorted(there)[:10]) + (", ..." if len(there) > 10 else "")
    if instruction is None:
        if len(there) > 1:
            _LOG.log(
                level, "%s: %d tasks are taken together, of which instruction chooses one: %s", path, len(there), listed
            )
        return frames
    if instruction not in there:
        raise SettingsError(f"instruction: expected one of {listed} for {path}, found {instruction!r}")
    return frames.of(np.flatnonzero(np.isin(index, [number for number in texts if texts[number] == instruction])))


def _pictures(
    path: Path, info: _Info, episodes: dict[str, np.ndarray], frames: _Frames, feature: str
) -> StoredPictures:
    """A camera's pictures of these frames."""
    if info.features[feature][0] == "image":
        files, numbers = frames.file, frames.row
        begin = partial(_images, path, info, feature)
    else:
        number = frames.columns["episode_index"]
        where = {part: episodes[f"videos/{feature}/{part}"][number] for part in ("chunk_index", "file_index")}
        files = np.stack([*where.values()], axis=1).astype(np.int64)
        time = episodes[f"videos/{feature}/from_timestamp"][number] + frames.columns["timestamp"].astype(np.float64)
        numbers = np.rint(time * info.fps).astype(np.int64)
        begin = partial(_video_frames, path, info, feature)

    def pieces() -> Iterator[np.ndarray]:
        begins = np.flatnonzero(np.r_[True, (files[1:] != files[:-1]).any(axis=1)])
        for start, stop in itertools.pairwise([*begins.tolist(), len(files)]):
            yield from (picture[None] for picture in begin(files[start], numbers[start:stop].tolist()))

    first = next(pieces())
    return StoredPictures((len(files), *first.shape[1:]), pieces, f"{path}: {feature}")


def _video_frames(path: Path, info: _Info, feature: str, place: np.ndarray, numbers: list[int]) -> Iterator[np.ndarray]:
    if info.video_path is None:
        raise DataError(f"{path}: {_INFO}: video_path: expected where the videos of {feature} are, found none")
    return video.pictures(_file(path, info.video_path, place, feature), path, info.fps, numbers)


def _images(path: Path, info: _Info, feature: str, place: np.ndarray, rows: list[int]) -> Iterator[np.ndarray]:
    with parquet.opened(_file(path, info.data_path, place), path) as table:
        yield from table.pictures(feature, rows)


def _file(path: Path, template: str, place: np.ndarray, feature: str = "") -> Path:
    """The file of a chunk and a number, as a template of meta/info.json names it."""
    # Not by str.format, which looks up whatever attributes and makes whatever widths a stranger's text asks for.
    values = {"chunk_index": str(place[0]), "file_index": str(place[1]), "video_key": feature}
    name = _PLACE.sub(lambda found: values[found[1]].zfill(int(found[2] or 0)), template)
    if Path(name).is_absolute() or ".." in Path(name).parts or "{" in name or not name.isprintable():
        raise DataError(f"{path}: {_INFO}: expected the name of a file in the folder, found {template[:200]!r}")
    return path / name
