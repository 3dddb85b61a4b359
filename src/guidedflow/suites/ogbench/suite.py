"""OGBench as a suite: its tasks, data, rewards and published protocol (docs/tasks.md, "OGBench")."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from guidedflow.data.places import default_directory
from guidedflow.errors import DataError
from guidedflow.suites import published
from guidedflow.suites.ogbench.recipes import FAMILIES
from guidedflow.suites.suite import Protocol, SuccessTiming, Suite, Task, refuse

if TYPE_CHECKING:
    import gymnasium

    from guidedflow.data.dataset import Dataset

TASKS_EACH = 5
"""Of every data set of states; of one of pixels the first alone is in the published comparison."""
FRAME_STACK = 3


class World(NamedTuple):
    """A place with five tasks."""

    data: tuple[str, ...]
    """Kinds of data that are published: ``WORLD-KIND`` is a data set."""
    observation_size: int
    action_size: int
    default: int
    """The task that an id without ``-taskN`` means."""


WORLDS = {
    "antmaze-giant": World(("navigate",), 29, 8, 1),
    "antmaze-large": World(("explore", "navigate", "stitch"), 29, 8, 1),
    "antsoccer-arena": World(("navigate", "stitch"), 42, 8, 4),
    "cube-double": World(("noisy", "play"), 37, 5, 2),
    "cube-single": World(("noisy", "play"), 28, 5, 2),
    "cube-triple": World(("noisy", "play"), 46, 5, 2),
    "humanoidmaze-large": World(("navigate",), 69, 21, 1),
    "humanoidmaze-medium": World(("navigate", "stitch"), 69, 21, 1),
    "puzzle-3x3": World(("play",), 55, 5, 4),
    "puzzle-4x4": World(("noisy", "play"), 83, 5, 4),
    "scene": World(("noisy", "play"), 40, 5, 2),
}
VISUAL = ("cube-double", "cube-single", "puzzle-3x3", "puzzle-4x4", "scene")
"""Worlds that are also learned from pictures of 64 x 64, of their data of the kind play."""

WITHOUT_NUMBER = re.compile(r"(visual-)?(.+)-(\w+)-singletask-v0")


class OGBench(Suite):
    """Park et al., "OGBench: Benchmarking Offline Goal-Conditioned RL" (ICLR 2025), as tasks with one goal each."""

    name: ClassVar[str] = "ogbench"

    def tasks(self) -> tuple[Task, ...]:
        """105: five of each of 20 data sets, one of each of 5 with pixels."""
        return self._tasks

    @functools.cached_property
    def _tasks(self) -> tuple[Task, ...]:
        states = [
            self._task(name, kind, number)
            for name, world in WORLDS.items()
            for kind in world.data
            for number in range(1, TASKS_EACH + 1)
        ]
        return (*states, *(self._task(name, "play", 1, is_visual=True) for name in VISUAL))

    def _task(self, name: str, kind: str, number: int, *, is_visual: bool = False) -> Task:
        world, prefix = WORLDS[name], "visual-" if is_visual else ""
        dataset = f"{prefix}{name}-{kind}"
        return Task(
            id=f"{dataset}-singletask-task{number}-v0",
            suite=self,
            category="ogbench/visual-manipulation" if is_visual else f"ogbench/{dataset}",
            dataset=dataset,
            environment=f"{prefix}{name}-singletask-task{number}-v0",
            observation_shape=(64, 64, 3 * FRAME_STACK) if is_visual else (world.observation_size,),
            action_size=world.action_size,
            frame_stack=FRAME_STACK if is_visual else 1,
            needs_opengl=is_visual,
        )

    def find(self, name: str) -> Task | None:
        """The task of that id; one without ``-taskN`` means its world's default task."""
        alias = WITHOUT_NUMBER.fullmatch(name)
        if alias and alias[2] in WORLDS:
            number = 1 if alias[1] else WORLDS[alias[2]].default
            name = name.replace("-singletask-", f"-singletask-task{number}-")
        return super().find(name)

    def make_env(self, task: Task, *, success_timing: SuccessTiming = "post", **options: Any) -> "gymnasium.Env":
        """See ``Suite``. ``post``, as published, is not the default of ogbench >= 1.2; pixels need OpenGL."""
        from guidedflow.suites.ogbench.environments import make

        return make(task.environment, task.frame_stack, success_timing=success_timing, **options)

    def folders(self, data_dir: Path | None = None) -> list[Path]:
        """See ``Suite``; ogbench's own folder is looked into as well."""
        return [data_dir] if data_dir is not None else [default_directory(), Path("~/.ogbench/data").expanduser()]

    def file(self, task: Task) -> str:
        """See ``Suite``."""
        return f"{task.dataset}-v0.npz"

    def validation_file(self, task: Task, path: Path) -> Path | None:
        """See ``Suite``."""
        return path.with_name(f"{path.stem}-val.npz")

    def commands(self, task: Task) -> list[str]:
        """See ``Suite``."""
        made = [f"guidedflow data generate {task.dataset}"] if task.dataset in FAMILIES else []
        return [*made, f"guidedflow data fetch {task.id}"]

    def load(self, task: Task, path: Path) -> "Dataset":
        """See ``Suite``. Rewards and masks are computed from the simulator's states that the file holds."""
        from guidedflow.suites.ogbench import files, rewards

        dataset = files.load(path, functools.partial(rewards.label_states, task), task.frame_stack)
        self.check(task, dataset.spec, str(path))
        return dataset

    def fetch(self, task: Task, data_dir: Path | None = None) -> Sequence[Path]:
        """See ``Suite``."""
        from guidedflow.suites.ogbench.download import fetch

        try:
            return fetch(task.dataset, self.folders(data_dir)[0], show=True)
        except DataError as error:
            if task.dataset not in FAMILIES:
                raise
            raise DataError(f"{error}; or make data like it: guidedflow data generate {task.dataset}") from error

    def makes(self) -> tuple[str, ...]:
        """Cubes, scene and puzzles, for which there are scripted oracles."""
        return FAMILIES

    def generate(
        self,
        dataset: str,
        *,
        data_dir: Path | None = None,
        episodes: int | None = None,
        workers: int | None = None,
        seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        val_episodes: int | None = None,
        steps: int = 1001,
        **options: Any,
    ) -> Sequence[Path]:
        """See ``Suite`` and ``generation.generate``."""
        from guidedflow.suites.ogbench.generation import generate

        refuse(options, dataset)
        return generate(
            dataset,
            directory=self.folders(data_dir)[0],
            episodes=episodes,
            val_episodes=val_episodes,
            workers=workers,
            seed=seed,
            steps=steps,
            progress=on_progress,
        )

    def protocol(self, task: Task) -> Protocol:
        """How the GFP authors' table was made: the mean of the last three evaluations, success after the step.

        Their parallel evaluation of states goes on counting episodes of environments that have finished their share,
        so short ones, the successful, are over-counted. By simulation that adds 0.3 to 2.5 points, most where about
        half of the episodes succeed and the lengths differ most: hence the tolerance of 2.5. Pixels were evaluated one
        episode after the other, which counts none too often: 0.
        """
        steps, seeds, tolerance = (500_000, 4, 0.0) if task.is_visual else (1_000_000, 8, 2.5)
        return Protocol(steps, (steps - 200_000, steps - 100_000, steps), 100, seeds, "post", tolerance)

    def published_settings(self, method: str, task: Task) -> Mapping[str, float | int | str] | None:
        """See ``Suite``; the tasks of a data set share their settings."""
        return published.settings(method, task.dataset)
