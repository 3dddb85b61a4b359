"""What a benchmark has to offer, and what a task is. Nothing outside a suite's own file asks which suite it is."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import gymnasium

from guidedflow.data.dataset import Dataset
from guidedflow.errors import DataError, SettingsError
from guidedflow.types import Spec

SuccessTiming = Literal["post", "pre"]


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment to act in, and the data to learn it from."""

    id: str
    suite: "Suite" = dataclasses.field(compare=False, repr=False)
    """What it belongs to."""
    category: str
    """A row of the published table, for instance ``ogbench/cube-single-noisy``."""
    dataset: str
    """Name of its data; several tasks may share one data set."""
    environment: str
    """The environment's gymnasium id, or the name of the function that makes it."""
    observation_shape: tuple[int, ...]
    """Of what a policy sees, frames stacked."""
    action_size: int
    scored_by: Literal["success", "return"] = "success"
    """Of what the score is made: the success rate, or the return (normalised where there are reference returns)."""
    frame_stack: int = 1
    """How many of the last frames make an observation."""

    @property
    def is_visual(self) -> bool:
        """Whether it is seen in pictures, which need an OpenGL backend to be drawn."""
        return len(self.observation_shape) == 3


class Protocol(NamedTuple):
    """How the published scores of a task were made."""

    steps: int
    """Gradient steps on the data."""
    score_steps: tuple[int, ...]
    """Steps whose evaluations are averaged."""
    episodes: int
    """Of each evaluation."""
    seeds: int
    success_timing: SuccessTiming | None = None
    """Which one it asks for; None: its environments know one only."""
    tolerance: float = 0.0
    """How far, in points, the published evaluation itself may be off."""


class Suite(abc.ABC):
    """A benchmark: its tasks, environments, data, rewards, scores and published protocol.

    An out-of-tree suite is a class with a constructor without arguments, named by an entry point of the group
    ``guidedflow.suites``.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """Every task, in the order in which they are listed."""

    @abc.abstractmethod
    def make_env(self, task: Task, *, success_timing: SuccessTiming = "post", **options: Any) -> gymnasium.Env:
        """The task's environment; its resets depend on nothing but their seed. Called in worker processes.

        Args:
            task: one of ``tasks``.
            success_timing: whether reward and success speak of the state after a step or before it; suites whose
                environments know one only ignore it.
            options: passed on to the environment, ``render_mode`` for instance.
        """

    def find(self, name: str) -> Task | None:
        """The task of that id or alias, None if there is none."""
        return next((task for task in self.tasks() if task.id == name), None)

    @abc.abstractmethod
    def find_data(self, task: Task, data_dir: Path | None = None) -> Path:
        """Where the task's data lies.

        Raises:
            DataError: there is none; the message names the commands that would get it.
        """

    def has_data(self, task: Task, data_dir: Path | None = None) -> bool:
        """Whether the task's data is here."""
        try:
            self.find_data(task, data_dir)
        except DataError:
            return False
        return True

    @abc.abstractmethod
    def load(self, task: Task, path: Path) -> Dataset:
        """The data in a file, with this task's rewards as it is trained on.

        Raises:
            DataError: it is missing, malformed or another task's.
        """

    def fetch(self, task: Task, data_dir: Path | None = None) -> Sequence[Path]:
        """Download the task's published data, and return its files.

        Raises:
            SettingsError: this suite publishes none.
            DataError: it cannot be downloaded.
        """
        raise SettingsError(f"{task.id}: expected a task whose data is published, found one of {self.name}")

    def generate(
        self,
        dataset: str,
        *,
        data_dir: Path | None = None,
        episodes: int | None = None,
        workers: int | None = None,
        seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        **options: Any,
    ) -> Sequence[Path]:
        """Make data on this machine, and return its files.

        Raises:
            SettingsError: this suite cannot make that data.
        """
        raise SettingsError(f"{dataset}: expected data that can be made here, found data of {self.name}")

    def check(self, task: Task, spec: Spec, source: str) -> None:
        """Check that data of this spec was recorded in the task's environment.

        Args:
            task: one of ``tasks``.
            spec: the data's.
            source: what the error message calls the data.

        Raises:
            DataError: shapes differ; the message names both.
        """
        shapes = (
            ("observations", spec.observation_shape, task.observation_shape),
            ("actions", (spec.action_size,), (task.action_size,)),
        )
        for name, found, expected in shapes:
            if found != expected:
                raise DataError(f"{source}: {name}: expected shape {expected} a step, as {task.id} has, found {found}")

    def score(self, task: Task, success: float, mean_return: float) -> float:
        """The published score: 100 times the success rate, unless the suite has another one."""
        return 100.0 * success if task.scored_by == "success" else mean_return

    def protocol(self, task: Task) -> Protocol | None:
        """How the published scores of the task were made; None if there are none."""
        return None

    def training_reward(self, task: Task, reward: Any) -> Any:
        """A reward of the task's environment as its agents learn from it: applied to data and to online steps alike."""
        return reward

    def published_settings(self, method: str, task: Task) -> Mapping[str, float | int | str] | None:
        """The settings that a method's authors tuned for the task; None if there are none."""
        return None
