"""Minari's data sets, read through the minari package (docs/tasks.md, "Minari")."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats.format import Recording, dataset_of
from guidedflow.errors import DataError
from guidedflow.types import named

SUFFIXES: tuple[str, ...] = ()


def recognises(path: Path) -> bool:
    """Whether it is a folder with a folder ``data`` in it."""
    return (path / "data").is_dir()


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
    try:
        found = json.loads(_stored_metadata(path).get("description", ""))
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == "guidedflow" else None


def stored_episodes(path: Path) -> Any:
    """The episodes of a local data set, one after the other, as the minari package gives them.

    Its metadata must hold both spaces. The package would otherwise make the environment that the metadata specify,
    and an environment's specification may name any function of any module to be called.

    Raises:
        DataError: it is damaged, or has no spaces.
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
    try:
        spaces = [deserialize_space(metadata[name]) for name in ("observation_space", "action_space")]
        storage = get_minari_storage(metadata["data_format"])
        jpeg = bool(metadata.get("jpeg_encoding", True))
        yield from MinariDataset(storage(path / "data", *spaces, jpeg_encoding=jpeg)).iterate_episodes()
    except (OSError, KeyError, ValueError, RuntimeError, AssertionError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: expected a whole Minari data set, found: {reason}") from error


def _vectors(values: Any, path: Path) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        found = f"shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"{path}: expected one vector a step, found {found}")
    return values


def _stored_metadata(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / "data" / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a whole Minari data set, found: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a whole Minari data set, found metadata of another kind")
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
