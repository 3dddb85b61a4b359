"""What is in a data file, and what is wrong with it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from guidedflow.data import formats
from guidedflow.data.dataset import Dataset
from guidedflow.errors import DataError


class Field(NamedTuple):
    """One array of a file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None


class Returns(NamedTuple):
    """Sums of rewards over episodes."""

    lowest: float
    mean: float
    highest: float


class Inspection(NamedTuple):
    """A data file's content. ``problems`` are the one-line errors that loading it would raise; empty is good."""

    path: Path
    made_by: str
    checksums: str | None
    """What those in the file cover; None for a suite's own format."""
    fields: list[Field]
    problems: list[str]
    transitions: int | None = None
    episodes: int | None = None
    episode_lengths: tuple[int, int] | None = None
    """Of the shortest and the longest episode, in steps."""
    mean_reward: float | None = None
    """Of a transition; None, as ``episode_returns``, if the data has no rewards."""
    episode_returns: Returns | None = None
    terminal_share: float | None = None
    """Share of the transitions that lead to a terminal state, or that start in one, where rewards speak of s."""
    terminal_episodes: float | None = None
    """Share of the episodes with such a transition."""
    success_share: float | None = None
    """Share of the episodes that succeeded; None where terminal states may mean anything."""
    spec: dict[str, Any] | None = None
    """Shapes, and what they stand for in the environment, as ``Spec.to_json`` gives them."""


def inspect(
    path: Path | str,
    load: Callable[[Path], Dataset] | None = None,
    *,
    ends_at_success: bool = False,
    reward: str | None = None,
    instruction: str | None = None,
) -> Inspection:
    """Look at a file or folder as training would.

    Args:
        path: an npz or HDF5 file, or the folder of a LeRobot or Minari data set.
        load: loads it as a task's data, with the task's rewards; None: by the fields that it has.
        ends_at_success: whether the task's terminal states are its successes. Else an episode's success is known only
            from a field ``success`` of the file, true in any of its steps.
        reward: of a robot's recordings: see ``load_dataset``.
        instruction: of a robot's recordings: see ``load_dataset``.

    Raises:
        DataError: it is of no known format, or cannot be read at all.
        SettingsError: an option does not fit the data.
    """
    path = Path(path)
    # A suite may bring a format of its own, which it alone can read.
    known = None if load is not None and not formats.is_data(path) else formats.find_format(path)
    options = {} if known is None else formats.options(path, reward=reward, instruction=instruction)
    content = {} if known is None else known.read(path, **options)
    fields = [_field(name, array) for name, array in content.items() if name != "metadata"]
    found = Inspection(path, _made_by(formats.metadata(path)), None, fields, [])
    try:
        found = found._replace(checksums=None if known is None else known.checksums(path))
        dataset = load(path) if load is not None else formats.load(path, **options)
    except DataError as error:
        return found._replace(problems=[str(error)])
    return found._replace(**_summary(dataset, content, ends_at_success), problems=_flattened_pictures(dataset, path))


def _made_by(metadata: dict[str, Any] | None) -> str:
    if metadata is None:
        return "not guidedflow: published, or your own"
    metadata = {name: value for name, value in metadata.items() if name != "spec"}  # The inspection has it.
    return f"guidedflow {metadata.pop('command', 'data generate')} ({json.dumps(metadata)})"


def _summary(dataset: Dataset, content: Mapping[str, np.ndarray], ends_at_success: bool) -> dict[str, Any]:
    last = np.unique(dataset.episode_ends)
    episode = np.searchsorted(last, dataset.episode_ends)
    step = np.ones(len(episode), bool)
    if "final_observation" in content:  # Such a row is no step.
        step = ~np.asarray(content["final_observation"]).reshape(-1).astype(bool)
    lengths = np.bincount(episode[step], minlength=len(last))
    terminal = np.zeros(len(episode), bool)
    terminal[dataset.transitions] = np.asarray(dataset.masks)[dataset.transitions] == 0
    terminal_episodes = _share(terminal, episode)
    success = terminal_episodes if ends_at_success else None
    recorded = np.asarray(content.get("success", ()))
    if recorded.dtype.kind in "biuf" and recorded.shape in ((len(episode),), (len(episode), 1)):
        success = _share((recorded.reshape(-1) != 0) & step, episode)
    summary: dict[str, Any] = {
        "transitions": len(dataset),
        "episodes": len(last),
        "episode_lengths": (int(lengths.min()), int(lengths.max())),
        "terminal_share": float(terminal.sum() / len(dataset)),
        "terminal_episodes": terminal_episodes,
        "success_share": success,
        "spec": dataset.spec.to_json(),
    }
    if dataset.has_rewards:
        returns = np.bincount(episode[step], np.asarray(dataset.rewards, np.float64)[step], minlength=len(last))
        summary["mean_reward"] = float(np.asarray(dataset.rewards)[dataset.transitions].mean())
        summary["episode_returns"] = Returns(float(returns.min()), float(returns.mean()), float(returns.max()))
    return summary


def _share(rows: np.ndarray, episode: np.ndarray) -> float:
    """The share of episodes in which any of their rows is true."""
    return float(np.unique(episode[rows]).size / np.unique(episode).size)


def _flattened_pictures(dataset: Dataset, path: Path) -> list[str]:
    """Older versions of ``convert`` made vectors of pictures beside vectors: entries with three axes, of bytes."""
    problems, start = list[str](), 0
    if isinstance(dataset.observations, dict):
        return problems
    for name, shape in dataset.spec.observation_keys:
        stop = start + int(np.prod(shape))
        values = np.asarray(dataset.observations[:1000, start:stop]) if len(shape) == 3 else np.zeros((0, 0))
        if values.size and values.min() >= 0 and 1 < values.max() <= 255 and (values % 1 == 0).all():
            problems.append(
                f"{path}: observations/{name}: expected vectors, found pictures of shape {shape} that were made into "
                f"vectors of {stop - start} numbers; convert the data anew without {name}"
            )
        start = stop
    return problems


def _field(name: str, array: np.ndarray) -> Field:
    if array.dtype.kind not in "biuf" or array.size == 0:
        return Field(name, array.shape, str(array.dtype), None, None)
    return Field(name, array.shape, str(array.dtype), float(array.min()), float(array.max()))
