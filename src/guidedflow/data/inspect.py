"""What is in a data file, and what is wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from guidedflow.data.formats import arrays as own_arrays
from guidedflow.data.formats import hdf5 as d4rl
from guidedflow.data.formats import minari, npz
from guidedflow.errors import UserError
from guidedflow.suites.ogbench import files as ogbench


class Field(NamedTuple):
    """One array of a file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None


class Report(NamedTuple):
    """A data file's content. ``problems`` are the one-line errors that loading it would raise; empty is good."""

    path: Path
    made_by: str
    fields: list[Field]
    transitions: int | None
    episodes: int | None
    episode_lengths: tuple[int, int] | None
    mean_reward: float | None
    success_fraction: float | None
    problems: list[str]
    spec: dict[str, Any] | None = None
    """Shapes, and what they stand for in the environment, as ``Spec.to_json`` gives them."""


def made_by(path: Path) -> dict[str, Any] | None:
    """What data made by ``guidedflow data generate`` says of itself; None for any other, the published ones too.

    Raises:
        UserError: a Minari folder is damaged.
    """
    if path.is_dir():
        return minari.metadata(path)
    return d4rl.metadata(path) if path.suffix == ".hdf5" else ogbench.metadata(path)


def inspect(path: Path, load: Callable[[Path], Any] | None = None) -> Report:
    """Look at a file as training would: as a task's if its ``load`` is given, else by the fields it has.

    Raises:
        UserError: it is no readable npz or HDF5 at all.
    """
    is_npz = path.suffix != ".hdf5" and not path.is_dir()
    content = npz.read(path) if is_npz else minari.read(path) if path.is_dir() else d4rl.read(path)
    fields = [_field(name, array) for name, array in content.items() if name != "metadata"]
    own = is_npz and "rewards" in content
    try:
        if load is not None:
            dataset: Any = load(path)
        elif path.is_dir():
            dataset = minari.load(path)
        elif not is_npz or own:
            dataset = own_arrays.load(path)
        else:
            ogbench.rows(path)
            dataset = None
        problems = []
    except UserError as error:
        dataset, problems = None, [str(error)]
    made = made_by(path)
    if made is not None:
        made.pop("spec", None)  # The report has it.
    said = (
        f"guidedflow {made.pop('command', 'data generate')} ({json.dumps(made)})"
        if made
        else "the user"
        if own
        else "the benchmark's authors, or unknown"
    )
    if dataset is None:
        return Report(path, said, fields, None, None, None, None, None, problems)
    starts, ends = np.unique(dataset.episode_starts), np.unique(dataset.episode_ends)
    lengths = ends - starts + 1
    if "finals" in content:  # Such a row is no step.
        lengths -= np.asarray(content["finals"]).reshape(-1).astype(np.int32)[ends]
    rows = dataset.transitions
    return Report(
        path=path,
        made_by=said,
        fields=fields,
        transitions=dataset.size,
        episodes=len(ends),
        episode_lengths=(int(lengths.min()), int(lengths.max())),
        mean_reward=float(dataset.rewards[rows].mean()),
        success_fraction=float(1.0 - dataset.masks[rows].mean()),
        problems=problems,
        spec=dataset.spec.to_json(),
    )


def _field(name: str, array: np.ndarray) -> Field:
    if array.dtype.kind not in "biuf" or array.size == 0:
        return Field(name, array.shape, str(array.dtype), None, None)
    return Field(name, array.shape, str(array.dtype), float(array.min()), float(array.max()))
