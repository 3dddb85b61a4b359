"""The user's own data as one file that trains: from arrays, an npz or HDF5 file, a Minari set, a folder of episodes."""

import contextlib
import importlib.metadata
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from guidedflow.data import formats
from guidedflow.data.dataset import (
    ACTION_TOLERANCE,
    ENTRY,
    Dataset,
    check_fields,
    check_finite,
    is_observation,
    numbers,
)
from guidedflow.data.formats import FORMATS, SUFFIXES, Format, Recording, find_format, is_data, npz
from guidedflow.data.formats.format import OPTIONAL, REQUIRED, current_names
from guidedflow.data.pictures import StoredPictures
from guidedflow.errors import DataError, SettingsError
from guidedflow.files import whole_file
from guidedflow.types import ActionRange, ObservationKeys, Spec, flattened, is_picture, named

_PIECE = 2**24
"""Bytes that are written at once."""
Bound = int | float | Sequence[int | float] | np.ndarray
EPISODE_REQUIRED = ("observations", "actions")
EPISODE_OPTIONAL = ("rewards", "terminals", "timeouts", "terminated")


def convert(
    source: Mapping[str, Any] | Path | str,
    output: Path | str,
    *,
    observation_keys: Sequence[str] | None = None,
    action_range: Literal["measured"] | tuple[Bound, Bound] | None = None,
    frame_stack: int = 1,
    reward: str | None = None,
    instruction: str | None = None,
) -> Path:
    """Make a file that ``train`` and ``load_dataset`` take from data of your own (docs/data.md).

    Args:
        source: arrays by name; or a path: an npz or HDF5 file of such arrays; a file of robomimic; the folder of a
            LeRobot data set (``meta`` and ``data`` lie in it) or of a Minari one (``data`` does); or a folder of
            episodes, each an npz or HDF5 file, taken in the order of their names. The fields are those of
            ``Dataset.from_arrays``. Dictionary observations are a mapping, a group, or entries named
            ``observations/NAME``. An episode has T actions, T observations or T + 1, and optionally T ``rewards``,
            ``terminals`` and ``timeouts``, or a single flag ``terminated``; it counts as cut off if none of them says
            that it terminated.
        output: the new npz file.
        observation_keys: the entries of dictionary observations, in order; those that are not named are left out.
            None: all, where the data is LeRobot's or robomimic's. A nested entry is ``OUTER/INNER``. Pictures (uint8 of
            height x width x channels) stay apart, all others make one vector, each flattened first.
        action_range: what is stored as [-1, 1], a range for each dimension: ``measured``, from the lowest to the
            highest action of the data, or a pair (low, high) of numbers or of d numbers each. A dimension whose
            measured bounds are equal is stored as 0, and policies always give its one value. None: the actions are
            in [-1, 1] already.
        frame_stack: of how many pictures, a step's own and those before it, an observation is made.
        reward: of a robot's recordings: see ``load_dataset``.
        instruction: of a robot's recordings: see ``load_dataset``.

    Returns:
        ``output``.

    Raises:
        DataError: the source is none of these, or a field is missing or malformed; the message names file, field and
            row. Nothing has been written then.
        SettingsError: an option does not fit the data, or ``output`` exists. Nothing has been written then.
    """
    output = _new_file(output)
    options = {"reward": reward, "instruction": instruction}
    is_unit = action_range is None
    parts, keys, pictures = _checked_recordings(source, options, _order(observation_keys), unit_actions=is_unit)
    bounds = _action_range(action_range, parts)
    if bounds is not None:
        parts = [_rescaled(part, bounds) for part in parts]
    fields: dict[str, Any] = {name: _join([part.fields[name] for part in parts]) for name in parts[0].fields}
    fields["frame_stack"] = frame_stack
    if keys and "observations" in fields and frame_stack != 1:
        raise SettingsError(f"frame_stack: expected 1 for dictionary observations, found {frame_stack!r}")
    name = "arrays" if isinstance(source, Mapping) else str(source)
    entries = {key: fields[ENTRY + key] for key, _ in keys if ENTRY + key in fields}
    others = {field: array for field, array in fields.items() if not is_observation(field)}
    spec = Dataset.from_arrays(entries or fields["observations"], **others, source=name).spec
    metadata = _metadata(name, spec._replace(observation_keys=spec.observation_keys or keys, action_range=bounds))
    _write(output, fields | {"metadata": json.dumps(metadata)}, pictures)
    return output


def _checked_recordings(
    source: Any, options: Mapping[str, str | None], order: Sequence[str], *, unit_actions: bool
) -> "tuple[list[_Part], ObservationKeys, dict[str, StoredPictures]]":
    """All recordings, the keys of their observations, and the pictures that are decoded while they are written."""
    parts: list[_Part] = []
    keys: ObservationKeys = ()
    pictures: dict[str, StoredPictures] = {}
    for recorded in _recordings(source, options):
        stored = {name: value for name, value in recorded.fields.items() if isinstance(value, StoredPictures)}
        # Till they are written, something of their shape that takes no memory is in their place.
        shown = {name: np.broadcast_to(np.uint8(0), value.shape) for name, value in stored.items()}
        pictures, raw = pictures | stored, recorded._replace(fields=recorded.fields | shown)
        keys = keys if parts else _keys(raw, order)
        parts.append(_checked(raw, keys, parts[0] if parts else None, unit_actions=unit_actions))
    if not parts:
        raise DataError(f"{source}: expected at least one episode, found none")
    return parts, keys, pictures


def _write(output: Path, fields: Mapping[str, Any], pictures: Mapping[str, StoredPictures]) -> None:
    arrays = {name: np.asarray(value) for name, value in fields.items()}
    pieces = {name: pictures[name].pieces() if name in pictures else _pieces(array) for name, array in arrays.items()}
    described = {name: (array.shape, array.dtype, pieces[name]) for name, array in arrays.items()}
    new_folders = [folder for folder in output.parents if not folder.exists()]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as file:
            npz.write(file, described, is_compressed=False)  # It is read much faster.
    except BaseException:
        for folder in new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array along its first axis, some megabytes at a time: pictures may be a map of a file."""
    if not array.ndim:
        yield array
        return
    rows = max(1, _PIECE // max(1, array[:1].nbytes))
    for row in range(0, len(array), rows):
        yield array[row : row + rows]


def _metadata(source: str, spec: Spec) -> dict[str, Any]:
    return {
        "generator": "guidedflow",
        "command": "data convert",
        "source": Path(source).absolute().name,
        "versions": {name: importlib.metadata.version(name) for name in ("guidedflow", "numpy")},
        "spec": spec.to_json(),
    }


def _new_file(output: Any) -> Path:
    if not isinstance(output, str | Path):
        raise SettingsError(f"output: expected a file's name, found {type(output).__name__}")
    output = Path(output)
    if output.suffix != ".npz":
        raise SettingsError(f"{output}: expected a new file's name that ends in .npz")
    if output.exists():
        raise SettingsError(f"{output}: expected a new file, found one that exists; name another or remove it")
    return output


class _Part(NamedTuple):
    """A recording's checked fields: ``REQUIRED`` and ``OPTIONAL``, of one length; rewards only if it has any."""

    name: str
    fields: dict[str, np.ndarray]


def _recordings(source: Any, options: Mapping[str, Any]) -> Iterator[Recording]:
    if isinstance(source, Mapping):
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise SettingsError(f"{given[0]}: expected none for arrays, which have the rewards that they come with")
        yield Recording("arrays", current_names(named(source)), is_episode=False)
        return
    if not isinstance(source, str | Path):
        raise SettingsError(f"source: expected arrays by name or a path, found {type(source).__name__}")
    path = Path(source)
    if path.is_dir() and not is_data(path):
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            kinds = (
                f"episodes ({', '.join(SUFFIXES)} files), a LeRobot data set (folders meta and data) or a Minari one "
                "(a folder data)"
            )
            raise DataError(f"{path}: expected {kinds} in it, found none of them")
        for file in files:
            known = _recorded(file)
            if known is FORMATS["robomimic"]:
                raise DataError(
                    f"{file}: expected one episode, found demonstrations of robomimic; convert it by itself"
                )
            yield Recording(str(file), dict(known.read(file, **formats.options(file, **options))), is_episode=True)
    else:
        yield from _recorded(path).recordings(path, **formats.options(path, **options))


def _recorded(path: Path) -> Format:
    """The format of a path; DataError if what lies there was converted already."""
    known = find_format(path)
    if "spec" in (known.metadata(path) or {}):
        raise DataError(f"{path}: expected data as it was recorded, found what guidedflow data convert made of some")
    return known


def _order(observation_keys: Any) -> list[str]:
    if observation_keys is None:
        return []
    named_in_order = isinstance(observation_keys, Sequence) and not isinstance(observation_keys, str)
    if not named_in_order or not all(isinstance(key, str) for key in observation_keys):
        raise SettingsError(f"observation_keys: expected names in order, found {observation_keys!r}")
    repeated = [key for i, key in enumerate(observation_keys) if key in observation_keys[:i]]
    if repeated:
        raise SettingsError(f"observation_keys: expected each name once, found {repeated[0]!r} again")
    return list(observation_keys)


def _entries(recording: Recording) -> dict[str, Any]:
    return {name.removeprefix(ENTRY): v for name, v in recording.fields.items() if name.startswith(ENTRY)}


def _keys(recording: Recording, order: Sequence[str]) -> ObservationKeys:
    """The declared keys with their shapes in the data; none where observations are no dictionary."""
    entries = _entries(recording)
    if not entries:
        if order and "observations" in recording.fields:
            raise SettingsError(f"observation_keys: expected none, for observations of {recording.name} are one array")
        return ()
    there = ", ".join(entries)
    if not order and recording.has_order:
        order = [*entries]
    if not order:
        raise DataError(
            f"{recording.name}: observations: expected the order of their entries, as observation_keys "
            f"(--observation-keys), found none; there are: {there}"
        )
    unknown = [key for key in order if key not in entries]
    if unknown:
        raise SettingsError(
            f"observation_keys: expected entries of {recording.name} ({there}), found {unknown[0]!r}, which is none"
        )
    shapes = {}
    for key in order:
        array = numbers(entries[key], ENTRY + key, recording.name)
        if not array.ndim or 0 in array.shape[1:]:
            raise DataError(f"{recording.name}: {ENTRY}{key}: expected shape (N, ...), found {array.shape}")
        shapes[key] = array.shape[1:]
    return tuple(shapes.items())


def _checked(recording: Recording, keys: ObservationKeys, first: _Part | None, *, unit_actions: bool) -> _Part:
    name = recording.name
    fields = dict(recording.fields)
    seen = tuple(ENTRY + key for key, _ in keys) if _has_pictures(recording, keys, first) else ("observations",)
    if keys and "observations" in seen:
        fields["observations"] = _flat_observations(recording, keys)
    required = (*seen, *(EPISODE_REQUIRED if recording.is_episode else REQUIRED)[1:])
    missing = [field for field in required if field not in fields]
    if missing:
        raise DataError(f"{name}: expected the fields {', '.join(required)}, found {', '.join(fields) or 'none'}")
    fields = _episode(fields, name, seen) if recording.is_episode else fields
    wanted = {field: fields[field] for field in (*seen, *REQUIRED[1:], *OPTIONAL) if field in fields}
    checked = check_fields(wanted, name, unit_actions=unit_actions)
    for flag in ("timeouts", "final_observation"):
        checked.setdefault(flag, np.zeros(len(checked["actions"]), bool))
    if checked["final_observation"].all():
        raise DataError(f"{name}: actions: expected at least one step, found none")
    if recording.is_episode:
        step = len(checked["actions"]) - 1 - int(checked["final_observation"][-1])
        checked["timeouts"][step] = not checked["terminals"][step]
    part = _Part(name, checked)
    model = first or part
    if ("rewards" in checked) != ("rewards" in model.fields):
        there, lacking = (part, model) if "rewards" in checked else (model, part)
        raise DataError(f"{lacking.name}: rewards: expected one a step, as in {there.name}, found none")
    for field in (*seen, "actions"):
        found, like = checked[field], model.fields[field]
        if (found.dtype, found.shape[1:]) != (like.dtype, like.shape[1:]):
            raise DataError(
                f"{name}: {field}: expected {like.dtype} of shape {like.shape[1:]} a row, as in {model.name}, found "
                f"{found.dtype} of {found.shape[1:]}"
            )
    return part


def _has_pictures(recording: Recording, keys: ObservationKeys, first: _Part | None) -> bool:
    """Whether the keys' entries stay apart, as the first recording's did."""
    if first is not None:
        return "observations" not in first.fields
    entries = _entries(recording)
    return any(is_picture(shape, np.asarray(entries[key]).dtype) for key, shape in keys)


def _flat_observations(recording: Recording, keys: ObservationKeys) -> np.ndarray:
    entries = _entries(recording)
    for key, _ in keys:
        field = f"observations/{key}"
        if key in entries:
            check_finite(np.atleast_1d(numbers(entries[key], field, recording.name)), field, recording.name)
    return flattened(entries, keys, f"{recording.name}: observations")


def _episode(fields: Mapping[str, Any], name: str, seen: Sequence[str]) -> dict[str, Any]:
    """An episode's fields in rows: flags for its end, and a row for its final observation if it was kept."""
    arrays = {
        field: np.atleast_1d(numbers(fields[field], field, name))
        for field in (*seen, *EPISODE_REQUIRED[1:], *EPISODE_OPTIONAL)
        if field in fields
    }
    terminated = arrays.pop("terminated", None)
    steps = len(arrays["actions"])
    if not steps:
        raise DataError(f"{name}: actions: expected at least one step, found none")
    for field, array in arrays.items():
        more = field in seen and len(array) == steps + 1
        if len(array) != steps and not more:
            also = f", or {steps + 1} with the final one" if field in seen else ""
            raise DataError(f"{name}: {field}: expected {steps} rows as in actions{also}, found {len(array)}")
    if terminated is not None:
        if terminated.size != 1 or terminated.item() not in (0, 1) or "terminals" in arrays:
            found = "terminals" if "terminals" in arrays else terminated.tolist()
            raise DataError(f"{name}: terminated: expected a single 0 or 1 and no terminals beside it, found {found}")
        arrays["terminals"] = (np.arange(steps) == steps - 1) & bool(terminated.item())
    arrays.setdefault("terminals", np.zeros(steps, bool))
    arrays["final_observation"] = np.zeros(steps, bool)
    if len(arrays[seen[0]]) == steps:
        return arrays
    for field, array in arrays.items():
        if field not in seen:
            arrays[field] = np.concatenate([array, np.zeros_like(array[:1])])
    arrays["final_observation"][-1] = True
    return arrays


def _action_range(asked: Any, parts: Sequence[_Part]) -> ActionRange | None:
    if asked is None:
        return None
    size = parts[0].fields["actions"].shape[1]
    if isinstance(asked, str):
        if asked != "measured":
            raise SettingsError(f"action_range: expected measured or a pair (low, high), found {asked!r}")
        return ActionRange.measured(
            _join([part.fields["actions"][~part.fields["final_observation"]] for part in parts])
        )
    try:
        low, high = (np.broadcast_to(np.asarray(bound, np.float64), (size,)).tolist() for bound in asked)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"action_range: expected a pair (low, high) of numbers, or of {size} numbers each, found {asked!r}"
        ) from error
    for column, (a, b) in enumerate(zip(low, high, strict=True)):
        if not -math.inf < a < b < math.inf:
            raise SettingsError(
                f"action_range: expected low < high, both finite, found {a:g} and {b:g} in column {column}"
            )
    return ActionRange(tuple(low), tuple(high))


def _rescaled(part: _Part, bounds: ActionRange) -> _Part:
    actions = part.fields["actions"]
    unit = np.where(part.fields["final_observation"][:, None], 0.0, bounds.to_unit(actions))
    outside = np.abs(unit) > 1.0 + ACTION_TOLERANCE
    if outside.any():
        row, column = map(int, np.argwhere(outside)[0])
        raise DataError(
            f"{part.name}: actions: expected values from {bounds.low[column]:g} to {bounds.high[column]:g} in column "
            f"{column}, as declared, found {actions[row, column]:g} in row {row} ({outside.any(axis=1).sum()} rows)"
        )
    return part._replace(fields=part.fields | {"actions": np.clip(unit, -1.0, 1.0).astype(np.float32)})


def _join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
