"""Benchmarks: one file each, and one line in ``SUITES`` or an entry point of the group ``guidedflow.suites``."""

import difflib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidedflow.errors import SettingsError
from guidedflow.notices import show_notices
from guidedflow.plugins import Registry
from guidedflow.suites.suite import Protocol, Suite, Task

if TYPE_CHECKING:
    from guidedflow.data.dataset import Dataset

SUITES: Registry[type[Suite]] = Registry(
    "suite",
    {
        "ogbench": "guidedflow.suites.ogbench:OGBench",
        "d4rl": "guidedflow.suites.d4rl:D4RL",
        "minari": "guidedflow.suites.minari:Minari",
    },
    group="guidedflow.suites",
)
"""Every suite's class by name, imported when it is needed; other packages add theirs by entry points of that group."""

__all__ = [
    "SUITES",
    "Protocol",
    "Suite",
    "Task",
    "find_data_task",
    "find_task",
    "generate",
    "load_dataset",
    "suites",
    "tasks",
]


def suites() -> dict[str, Suite]:
    """Every suite by name: those of this package, then those of entry points."""
    return {name: _made(SUITES[name]) for name in SUITES}


def tasks() -> tuple[Task, ...]:
    """All tasks of all suites, OGBench's first."""
    return tuple(task for suite in _each() for task in suite.tasks())


def find_task(name: str) -> Task:
    """The task of that id or alias; an OGBench id without ``-taskN`` means its default task.

    Raises:
        SettingsError: no such task; the message names the nearest ones.
    """
    for suite in _each():
        task = suite.find(name)
        if task is not None:
            return task
    known = [task.id for task in tasks()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    hint = f"nearest: {', '.join(near)}" if near else "guidedflow tasks lists them"
    raise SettingsError(f"task: expected one of the {len(known)} known tasks, found {name!r}; {hint}")


def find_data_task(name: str) -> Task:
    """The first task that is learned from the data of that name, or the task of that id.

    Raises:
        SettingsError: as ``find_task``.
    """
    return next((task for task in tasks() if task.dataset == name), None) or find_task(name)


def load_dataset(
    task: str | Path,
    data_dir: Path | str | None = None,
    *,
    reward: str | None = None,
    instruction: str | None = None,
) -> "Dataset":
    """The data of a task, with that task's rewards, or data of your own.

    Args:
        task: an id as ``guidedflow tasks`` lists it; or a path: an npz or HDF5 file, one of robomimic, or the folder of
            a LeRobot or Minari data set.
        data_dir: the folder to look into; None: where the task's suite keeps its data, by default ``$GUIDEDFLOW_DATA``
            or ``~/.guidedflow/data``.
        reward: of LeRobot's and robomimic's data: ``recorded`` rewards; ``success``, 1 for a step that succeeded and
            else 0; ``step-cost``, 0 for a step that succeeded and else -1; or ``none``. None: recorded ones where there
            are some, else success, else none. Unless it is none, an episode ends at its first success.
        instruction: of LeRobot's data: the text of the only task that is read; None: all tasks.

    Raises:
        SettingsError: unknown task, or an option that the data does not have.
        DataError: there is no data, and how to get it; or it is damaged.
    """
    from guidedflow.data import formats

    if formats.is_data(task):
        return formats.load(task, reward=reward, instruction=instruction)
    for name, value in (("reward", reward), ("instruction", instruction)):
        if value is not None:
            raise SettingsError(
                f"{name}: expected none for {task}, which is no file or folder of data, found {value!r}"
            )
    try:
        known = find_task(str(task))
    except SettingsError:
        if Path(task).exists():
            formats.find_format(task)  # Which says what was looked for.
        raise
    return known.suite.load(known, known.suite.find_data(known, None if data_dir is None else Path(data_dir)))


def generate(
    dataset: str,
    *,
    data_dir: Path | str | None = None,
    episodes: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Sequence[Path]:
    """Make data on this machine, and return its files: OGBench's with scripted oracles, other data with a policy.

    Args:
        dataset: name of the data, ``cube-single-noisy`` or ``door-expert-v1`` for instance.
        data_dir: where the data goes; None: where training looks for it first.
        episodes: how many; None: as many as were published, or 100.
        workers: processes; None: one a core. Changes no byte of the data.
        seed: an episode depends on it and on the episode's number alone.
        on_progress: called with the episodes done and all of them.
        options: of the suite: ``policy`` (a file, for Adroit), ``stand_in`` (for Minari's MuJoCo sets), or
            ``val_episodes`` and ``steps`` (for OGBench).

    Raises:
        SettingsError: nobody can make that data here, or an argument is not possible.
        DataError: other data is there already.
    """
    show_notices()
    makers = {name: suite for suite in _each() for name in suite.makes()}
    suite = makers.get(dataset) or next((task.suite for task in tasks() if dataset in (task.id, task.dataset)), None)
    if suite is None:
        near = difflib.get_close_matches(str(dataset), makers, n=3, cutoff=0.3) or list(makers)
        raise SettingsError(f"expected data that can be made here, found {dataset!r}; nearest: {', '.join(near)}")
    return suite.generate(
        dataset,
        data_dir=None if data_dir is None else Path(data_dir),
        episodes=episodes,
        workers=workers,
        seed=seed,
        on_progress=on_progress,
        **options,
    )


def _each() -> Iterator[Suite]:
    """One suite after the other, each made when it is asked for: a task of ours does not wait for others' packages."""
    return (_made(SUITES[name]) for name in SUITES)


@functools.cache
def _made(suite: type[Suite]) -> Suite:
    return suite()
