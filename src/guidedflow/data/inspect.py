"""What is in a data file, what is wrong with it, and what a person would notice in it."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from guidedflow.data import findings, formats
from guidedflow.data.dataset import ACTION_BOUND, Dataset, Rows, check_finite
from guidedflow.data.findings import Column, Gaps, Pictures
from guidedflow.data.formats.format import dataset_of
from guidedflow.errors import DataError, SettingsError
from guidedflow.files import write_text
from guidedflow.types import ActionRange

TIMES = ("timestamps", "timestamp")
RECORDED = ("final_observation", "success", *TIMES)
"""Fields that only the inspection uses; the others it takes from the data set."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


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
    quantiles: tuple[float, ...]
    """5%, 25%, 50%, 75% and 95% of the episodes have at most these."""
    best: tuple[int, ...]
    """Numbers of up to three episodes, counted from 0, the best first."""
    worst: tuple[int, ...]
    """Likewise, the worst first."""


class Inspection(NamedTuple):
    """A data file's content. ``problems`` are the one-line errors that loading it would raise; empty is good."""

    path: Path
    made_by: str
    checksums: str | None
    """What those in the file cover; None for a suite's own format."""
    fields: list[Field]
    problems: list[str]
    findings: list[str]
    """One line each on what loads and may still be a mistake (docs/data.md says when)."""
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
    lengths: list[int] | None = None
    """Steps of each episode."""
    returns: list[float] | None = None
    """Of each episode."""
    successes: list[bool] | None = None
    """Of each episode, where known."""
    actions: list[Column] | None = None
    """In the environment's units."""
    observations: list[Column] | None = None
    """Of vectors."""
    pictures: list[Pictures] | None = None
    """A camera each."""
    gaps: list[Gaps] | None = None
    """In the timestamps, where the file has them, else in the observations."""
    duplicates: list[tuple[int, ...]] | None = None
    """Numbers of episodes that are the same."""
    splits: dict[str, int] | None = None
    """How many episodes there are in each part that the data sets apart."""
    fps: float | None = None
    """Steps a second, where the file says so."""
    instructions: dict[str, int] | None = None
    """The texts of the tasks that the file names, and how many episodes there are of each."""


def inspect(
    path: Path | str,
    load: Callable[[Path], Dataset] | None = None,
    *,
    ends_at_success: bool = False,
    reward: str | None = None,
    instruction: str | None = None,
    html: Path | str | None = None,
) -> Inspection:
    """Look at a file or folder as training would, and then as a person would.

    Args:
        path: an npz or HDF5 file, or the folder of a LeRobot or Minari data set.
        load: loads it as a task's data, with the task's rewards; None: by the fields that it has.
        ends_at_success: whether the task's terminal states are its successes. Else an episode's success is known only
            from a field ``success`` of the file, true in any of its steps.
        reward: of a robot's recordings: see ``load_dataset``.
        instruction: of a robot's recordings: see ``load_dataset``.
        html: a file that ends in .html, for a page with histograms and pictures; one that exists is replaced.

    Raises:
        DataError: it is of no known format, or cannot be read at all.
        SettingsError: an option does not fit the data, or ``html`` does not end in .html.
        OSError: the page cannot be written.
    """
    path = Path(path)
    if html is not None and Path(html).suffix != ".html":
        raise SettingsError(f"{html}: expected the name of a page that ends in .html")
    # A suite may bring a format of its own, which it alone can read.
    known = None if load is not None and not formats.is_data(path) else formats.find_format(path)
    options = {} if known is None else formats.options(path, reward=reward, instruction=instruction)
    content = {} if known is None else known.read(path, **options)
    fields = [_field(name, array) for name, array in content.items() if name != "metadata"]
    recorded = {name: content[name] for name in RECORDED if name in content}
    del content  # Loading reads it again; together they might not fit into memory.
    found = Inspection(path, _made_by(formats.metadata(path)), None, fields, [], [])
    dataset, is_converted = None, True
    try:
        if known is not None:
            parts = {name: len(episodes) for name, episodes in known.splits(path, **options).items()}
            found = found._replace(checksums=known.checksums(path), splits=parts, **known.about(path))
        dataset = load(path) if load is not None else formats.load(path, **options)
        found = found._replace(problems=_flattened_pictures(dataset, path))
    except DataError as error:
        found = found._replace(problems=[str(error)])
        if known is not None and load is None:
            dataset, is_converted = _with_measured_actions(known.read(path, **options), path), False
    if dataset is not None:
        found = found._replace(**_summary(dataset, recorded, ends_at_success))
        found = found._replace(findings=_findings(found, dataset))
        if not is_converted and found.spec is not None:
            found = found._replace(spec={**found.spec, "action_range": None})  # Nobody has said yet what it is.
    if html is not None:
        from guidedflow.data.inspection_page import draw_page  # Here: Matplotlib takes a while to import.

        write_text(Path(html), draw_page(found, dataset))
    return found


def summary_lines(found: Inspection) -> Iterator[str]:
    """What is known of the data beside its fields and findings."""
    yield f"made by: {found.made_by}"
    if found.checksums is not None:
        yield f"checksums: {found.checksums}"
    spec = found.spec or {"observation_shape": [], "observation_keys": {}, "action_range": None}
    if spec["observation_keys"]:
        keys = ", ".join(f"{name} {tuple(shape)}" for name, shape in spec["observation_keys"].items())
        together = "a dictionary of" if isinstance(spec["observation_shape"], dict) else "end to end"
        yield f"an observation is, {together}: {keys}"
    if spec["action_range"]:
        low, high = (" ".join(f"{number:g}" for number in bound) for bound in spec["action_range"])
        yield f"actions of [-1, 1] stand for {low} to {high}"
    if found.transitions is not None and found.episode_lengths is not None:
        shortest, longest = found.episode_lengths
        episodes = f"{found.episodes:,} episodes of {shortest} to {longest} steps"
        yield f"{found.transitions:,} transitions in {episodes}; {found.terminal_episodes:.1%} end in a terminal state"
    if found.episode_returns is not None:
        lowest, mean, highest = (f"{value:.4g}" for value in found.episode_returns[:3])
        yield f"returns of episodes {lowest} to {highest}, mean {mean}; mean reward {found.mean_reward:.4g}"
        shares = (
            f"{share:.0%} {value:.4g}" for share, value in zip(QUANTILES, found.episode_returns.quantiles, strict=True)
        )
        best, worst = (", ".join(map(str, numbers)) for numbers in found.episode_returns[-2:])
        yield f"quantiles of the returns: {', '.join(shares)}; best episodes {best}; worst {worst}"
    if found.success_share is not None:
        yield f"{found.success_share:.1%} of the episodes succeed"
    if found.splits:
        yield f"episodes set apart: {', '.join(f'{name} {n:,}' for name, n in found.splits.items())}"
    if found.fps is not None:
        yield f"{found.fps:g} steps a second"
    if found.instructions:
        yield f"episodes of each task: {', '.join(f'{text!r} {n:,}' for text, n in found.instructions.items())}"


def entries(dataset: Dataset) -> dict[str, Rows]:
    """The arrays that observations are made of: pictures by name, and the vector."""
    seen = dataset.observations
    return seen if isinstance(seen, dict) else {"observations": seen}


def _with_measured_actions(content: dict[str, np.ndarray], path: Path) -> Dataset | None:
    """A log in physical units, which can be looked at before they are converted; None: something else is wrong."""
    actions = content.get("actions", np.zeros(0))
    is_vectors = actions.dtype.kind in "iuf" and actions.ndim == 2 and actions.size > 0
    if not is_vectors or (actions.min() >= -1 and actions.max() <= 1):
        return None
    bounds = ActionRange.measured(actions)
    try:
        check_finite(actions, "actions", str(path))
        dataset = dataset_of({**content, "actions": bounds.to_unit(actions)}, path)
    except DataError:
        return None
    return dataclasses.replace(dataset, action_range=bounds)


def _made_by(metadata: dict[str, Any] | None) -> str:
    if metadata is None:
        return "not guidedflow: published, or your own"
    metadata = {name: value for name, value in metadata.items() if name != "spec"}  # The inspection has it.
    return f"guidedflow {metadata.pop('command', 'data generate')} ({json.dumps(metadata)})"


def _summary(dataset: Dataset, recorded: Mapping[str, np.ndarray], ends_at_success: bool) -> dict[str, Any]:
    last = np.unique(dataset.episode_ends)
    episode = np.searchsorted(last, dataset.episode_ends)
    step = np.ones(len(episode), bool)
    if "final_observation" in recorded:  # Such a row is no step.
        step = ~np.asarray(recorded["final_observation"]).reshape(-1).astype(bool)
    lengths = np.bincount(episode[step], minlength=len(last))
    terminal = np.zeros(len(episode), bool)
    terminal[dataset.transitions] = np.asarray(dataset.masks)[dataset.transitions] == 0
    terminal_episodes = _which(terminal, episode)
    success = terminal_episodes if ends_at_success else None
    if (flags := _column(recorded.get("success"), len(episode))) is not None:
        success = _which((flags != 0) & step, episode)
    summary: dict[str, Any] = {
        "transitions": len(dataset),
        "episodes": len(last),
        "episode_lengths": (int(lengths.min()), int(lengths.max())),
        "terminal_share": float(terminal.sum() / len(dataset)),
        "terminal_episodes": float(terminal_episodes.mean()),
        "success_share": None if success is None else float(success.mean()),
        "spec": dataset.spec.to_json(),
        "lengths": lengths.tolist(),
        "successes": None if success is None else success.tolist(),
    }
    if dataset.has_rewards:
        returns = np.bincount(episode[step], np.asarray(dataset.rewards, np.float64)[step], minlength=len(last))
        summary["mean_reward"] = float(np.asarray(dataset.rewards)[dataset.transitions].mean())
        summary["episode_returns"] = _returns(returns)
        summary["returns"] = returns.tolist()
    return summary | _contents(dataset, recorded, step)


def _contents(dataset: Dataset, recorded: Mapping[str, np.ndarray], step: np.ndarray) -> dict[str, Any]:
    """What the arrays look like, in memory that does not grow with them."""

    def recorded_actions(loaded: np.ndarray) -> np.ndarray:
        bounded = np.abs(loaded) == np.float32(ACTION_BOUND)  # To which loading clipped them.
        return dataset.spec.to_environment(np.where(bounded, np.sign(loaded), loaded))

    actions = [f"actions[{i}]" for i in range(dataset.spec.action_size)]
    arrays = entries(dataset)
    vectors = {name: array for name, array in arrays.items() if array.ndim == 2}
    observations: list[Column] = []
    gaps: list[Gaps] = []
    for name, array in vectors.items():
        names = _column_names(dataset, name, array.shape[1])
        observations += findings.columns(array, names, np.ones(len(array), bool))
        gaps += findings.jumps(array, dataset)
    for name in TIMES:
        if (times := _column(recorded.get(name), len(step))) is not None:
            gaps = findings.time_gaps(name, times, dataset)
    return {
        "actions": findings.columns(dataset.actions, actions, step, recorded_actions),
        "observations": observations,
        "pictures": [findings.pictures(name, array, dataset) for name, array in arrays.items() if array.ndim == 4],
        "gaps": gaps,
        "duplicates": findings.duplicates({**arrays, "actions": dataset.actions}, dataset),
    }


def _column_names(dataset: Dataset, vector: str, size: int) -> list[str]:
    """Those of the entries that the vector was made of, if it was made of some."""
    pictures = dataset.spec.pictures
    keys = [entry for entry in dataset.observation_keys if entry[0] not in pictures] or [(vector, (size,))]
    return [
        f"{name}[{','.join(map(str, place))}]" if shape else name
        for name, shape in keys
        for place in np.ndindex(*shape)
    ]


def _column(array: np.ndarray | None, rows: int) -> np.ndarray | None:
    """One number a row, if it is that."""
    found = np.asarray(() if array is None else array)
    return found.reshape(-1) if found.dtype.kind in "biuf" and found.shape in ((rows,), (rows, 1)) else None


def _which(rows: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Of each episode, whether any of its rows is true."""
    return np.bincount(episode, rows, minlength=episode[-1] + 1) > 0


def _returns(returns: np.ndarray) -> Returns:
    best, worst = (tuple(np.argsort(by, kind="stable")[:3].tolist()) for by in (-returns, returns))
    quantiles = tuple(np.quantile(returns, QUANTILES).tolist())
    return Returns(float(returns.min()), float(returns.mean()), float(returns.max()), quantiles, best, worst)


def _findings(found: Inspection, dataset: Dataset) -> list[str]:
    assert found.actions is not None
    bounds = np.array([(column.low, column.high) for column in found.actions]).T
    unit = bounds if dataset.action_range is None else dataset.action_range.to_unit(bounds)
    lines = [findings.gap_finding(gaps) for gaps in found.gaps or ()]
    lines += findings.episode_findings(np.array(found.lengths), found.duplicates or ())
    if found.returns is not None and found.successes is not None:
        lines += findings.return_findings(np.array(found.returns), np.array(found.successes))
    if dataset.has_rewards and np.ptp(np.asarray(dataset.rewards)[dataset.transitions]) == 0:
        lines.append(f"all rewards are {found.mean_reward:.4g}: nothing can be learned from them")
    lines += findings.action_findings(found.actions, unit.T.tolist())
    lines += findings.observation_findings(found.observations or ())
    for seen in found.pictures or ():
        lines += findings.picture_findings(seen)
    return lines


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
