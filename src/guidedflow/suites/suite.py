"""What a benchmark has to offer, and what a task is. Nothing outside a suite's own file asks which suite it is."""

import abc
import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from guidedflow.data.places import default_directory
from guidedflow.errors import DataError, SettingsError
from guidedflow.opengl import gl_backend, needed_backend

if TYPE_CHECKING:  # Workers make environments from suites, and need neither JAX nor, before that, gymnasium.
    import gymnasium

    from guidedflow.data.dataset import Dataset
    from guidedflow.types import DictShape, Spec

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
    observation_shape: "tuple[int, ...] | DictShape"
    """Of what a policy sees, frames stacked."""
    action_size: int
    scored_by: Literal["success", "return"] = "success"
    """Of what the score is made: the success rate, or the return (normalised where there are reference returns)."""
    frame_stack: int = 1
    """How many of the last frames make an observation."""
    needs_opengl: bool = False
    """Whether its environment cannot even be reset without OpenGL."""

    @property
    def is_visual(self) -> bool:
        """Whether it is seen in pictures."""
        return not isinstance(self.observation_shape, tuple) or len(self.observation_shape) == 3

    def gl_backend(self, *, films: bool = False) -> str | None:
        """The OpenGL backend that the processes of its environments are given; None where nothing is drawn.

        Args:
            films: whether episodes are filmed. Without a backend none can be; that is no error here.

        Raises:
            SettingsError: the environment cannot do without, and none works here.
        """
        if self.needs_opengl:
            return needed_backend(self.id)
        return gl_backend() if films or self.is_visual else None


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

    A suite is a class with a constructor without arguments, named in ``SUITES`` or, from another package, by an entry
    point of the group ``guidedflow.suites``. Only ``tasks`` and ``make_env`` have to be written: by default a task's
    data is one npz file, ``<dataset>.npz``, that brings its rewards along.
    """

    name: ClassVar[str]

    def __reduce__(self) -> tuple[Any, ...]:
        # Tasks travel to worker processes, and their suite with them: by its name, not with all its other tasks.
        return type(self), ()

    @abc.abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """Every task, in the order in which they are listed."""

    @abc.abstractmethod
    def make_env(self, task: Task, *, success_timing: SuccessTiming = "post", **options: Any) -> "gymnasium.Env":
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

    def folders(self, data_dir: Path | None = None) -> list[Path]:
        """Where data is looked for, in this order, and put, into the first: ``data_dir`` alone if it is given."""
        return [default_directory() if data_dir is None else data_dir]

    def file(self, task: Task) -> str:
        """The name of the task's data file, or of its folder."""
        return f"{task.dataset}.npz"

    def commands(self, task: Task) -> list[str]:
        """The commands that get the task's data, the quickest first; none if the user has to bring it."""
        return []

    def find_data(self, task: Task, data_dir: Path | None = None) -> Path:
        """Where the task's data lies.

        Args:
            task: one of ``tasks``.
            data_dir: the only folder to look into; None: those of ``folders``.

        Raises:
            DataError: there is none; the message names the commands that would get it.
        """
        searched = self.folders(data_dir)
        for folder in searched:
            if (folder / self.file(task)).exists():
                return folder / self.file(task)
        where = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir is not None else ""
        ways = " or ".join(f"`{command}{where}`" for command in self.commands(task))
        remedy = f"get it with {ways}" if ways else "put it there"
        looked = " or ".join(str(folder) for folder in searched)
        raise DataError(f"{self.file(task)}: expected in {looked}, found nothing; {remedy}")

    def validation_file(self, task: Task, path: Path) -> Path | None:
        """Where the validation data is that belongs to the task's data at ``path``; None if the suite has none."""
        return None

    def has_data(self, task: Task, data_dir: Path | None = None) -> bool:
        """Whether the task's data is here."""
        return any((folder / self.file(task)).exists() for folder in self.folders(data_dir))

    def load(self, task: Task, path: Path) -> "Dataset":
        """The data in a file, with this task's rewards as it is trained on.

        Raises:
            DataError: it is missing, malformed or another task's.
        """
        from guidedflow.data import formats

        return self.for_training(task, formats.load(path), path)

    def for_training(self, task: Task, dataset: "Dataset", path: Path) -> "Dataset":
        """Data with the environment's own rewards as ``load`` gives it: checked, and with ``training_reward``.

        Raises:
            DataError: as ``check``.
        """
        self.check(task, dataset.spec, str(path))
        return dataclasses.replace(dataset, rewards=self.training_reward(task, dataset.rewards))

    def fetch(self, task: Task, data_dir: Path | None = None) -> Sequence[Path]:
        """Download the task's published data, and return its files; those that are there are kept.

        Raises:
            SettingsError: this suite publishes none.
            DataError: it cannot be downloaded.
        """
        raise SettingsError(f"{task.id}: expected a task whose data is published, found one of {self.name}")

    def makes(self) -> tuple[str, ...]:
        """The names of data that ``generate`` makes."""
        return ()

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

        Args:
            dataset: one of ``makes``.
            data_dir: where the data goes; None: into the first of ``folders``.
            episodes: how many; None: as many as were published, or 100.
            workers: processes; None: one a core. Changes no byte of the data.
            seed: an episode depends on it and on the episode's number alone.
            on_progress: called with the episodes done and all of them.
            options: of the suite.

        Raises:
            SettingsError: this suite cannot make that data, or an argument is not possible.
            DataError: other data is there already.
        """
        raise SettingsError(f"{dataset}: expected data that can be made here, found data of {self.name}")

    def check(self, task: Task, spec: "Spec", source: str) -> None:
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
                raise DataError(f"{source}: {name}: expected {expected} a row, as {task.id} has, found {found}")

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
        """The settings that a method's authors tuned for the task; None if there are none.

        Args:
            method: a published method, ``gfp`` or ``gfp-advantage`` for instance.
            task: one of ``tasks``.
        """
        return None


def refuse(options: Mapping[str, Any], dataset: str) -> None:
    """Raise SettingsError for an option of ``Suite.generate`` that the data has no use for; None is none."""
    for name, value in options.items():
        if value is not None:
            raise SettingsError(f"{name}: expected none to make {dataset}, which has no such option, found {value}")
