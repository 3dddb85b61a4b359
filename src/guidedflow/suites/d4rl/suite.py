"""D4RL as a suite: its tasks, data, scores and published protocol (docs/tasks.md, "D4RL")."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from guidedflow.suites import published
from guidedflow.suites.suite import Protocol, SuccessTiming, Suite, Task, refuse

if TYPE_CHECKING:
    import gymnasium

    from guidedflow.data.dataset import Dataset

HANDS = {"door": (39, 28), "hammer": (46, 26), "pen": (45, 24), "relocate": (39, 30)}
"""Sizes of observation and action of each of Adroit's four."""
KINDS = ("cloned", "expert", "human")
REFERENCE = {
    "door": (-56.512833, 2880.5693087298737),
    "hammer": (-274.856578, 12794.134825156867),
    "pen": (96.262799, 3076.8331017826877),
    "relocate": (-6.425911, 4233.877797728884),
}
"""Returns that score 0 and 100."""
ANTMAZES = ("large-diverse", "large-play", "medium-diverse", "medium-play", "umaze-diverse", "umaze")
ANTMAZE = "d4rl/antmaze"


class D4RL(Suite):
    """Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020): Adroit -v1 and AntMaze -v2."""

    name: ClassVar[str] = "d4rl"

    def tasks(self) -> tuple[Task, ...]:
        """18: three kinds of data of each of Adroit's hands, and six mazes."""
        return self._tasks

    @functools.cached_property
    def _tasks(self) -> tuple[Task, ...]:
        adroit = [self._adroit(hand, kind) for hand in HANDS for kind in KINDS]
        return (*adroit, *(self._antmaze(name) for name in ANTMAZES))

    def _adroit(self, hand: str, kind: str) -> Task:
        name, (observation, action) = f"{hand}-{kind}-v1", HANDS[hand]
        environment = f"guidedflow/Adroit{hand.capitalize()}-v1"
        return Task(name, self, "d4rl/adroit", name, environment, (observation,), action, scored_by="return")

    def _antmaze(self, maze: str) -> Task:
        name, environment = f"antmaze-{maze}-v2", f"guidedflow/AntMaze{maze.split('-')[0].capitalize()}-v2"
        return Task(name, self, ANTMAZE, name, environment, (29,), 8)

    def make_env(self, task: Task, *, success_timing: SuccessTiming = "post", **options: Any) -> "gymnasium.Env":
        """See ``Suite``. Success is of the state after the step."""
        from guidedflow.envs import wrappers
        from guidedflow.suites.d4rl import adroit, antmaze

        (antmaze if task.category == ANTMAZE else adroit).register()
        return wrappers.make(task.environment, **{"render_mode": "rgb_array", **options})

    def file(self, task: Task) -> str:
        """See ``Suite``."""
        return f"{task.dataset}.hdf5"

    def commands(self, task: Task) -> list[str]:
        """See ``Suite``."""
        made = [f"guidedflow data generate {task.dataset} --policy FILE"] if task.dataset in self.makes() else []
        return [f"guidedflow data fetch {task.id}", *made]

    def load(self, task: Task, path: Path) -> "Dataset":
        """See ``Suite``."""
        from guidedflow.suites.d4rl import files

        return self.for_training(task, files.load(path, ends_at_terminals=task.category != ANTMAZE), path)

    def training_reward(self, task: Task, reward: Any) -> Any:
        """AntMaze is learned with rewards of -1 a step and 0 at the goal, in place of 0 and 1; Adroit as it is."""
        return reward - 1 if task.category == ANTMAZE else reward

    def fetch(self, task: Task, data_dir: Path | None = None) -> Sequence[Path]:
        """See ``Suite``."""
        from guidedflow.suites.d4rl.download import fetch

        return (fetch(task.dataset, self.folders(data_dir)[0], show=True),)

    def makes(self) -> tuple[str, ...]:
        """Adroit's expert data, from the expert's weights, and its human data, from the demonstrations."""
        return tuple(f"{hand}-{kind}-v1" for hand in HANDS for kind in ("expert", "human"))

    def generate(
        self,
        dataset: str,
        *,
        data_dir: Path | None = None,
        episodes: int | None = None,
        workers: int | None = None,
        seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        policy: Path | str | None = None,
        **options: Any,
    ) -> Sequence[Path]:
        """See ``Suite``; all in one process.

        Args:
            dataset: see ``Suite``.
            data_dir: see ``Suite``.
            episodes: see ``Suite``; of human data, all of the demonstrations are taken.
            workers: see ``Suite``.
            seed: see ``Suite``.
            on_progress: see ``Suite``.
            policy: an npz file with the fields of ``experts.Expert``; or, for human data, with D4RL's fields.
            options: none.
        """
        from guidedflow.data.formats import hdf5
        from guidedflow.suites import experts

        refuse(options, dataset)
        source = experts.source_of(dataset, policy, self.makes())
        task = experts.made_task(self, dataset)
        path = self.folders(data_dir)[0] / self.file(task)
        metadata = experts.metadata(experts.origin(dataset, source), seed)
        if experts.is_human(dataset):
            experts.check_numbers(episodes, seed)
            return (hdf5.write(path, experts.read(source), metadata),)  # D4RL's own fields already.
        made = experts.record(task, source, episodes=episodes, seed=seed, on_progress=on_progress)
        return (hdf5.write(path, hdf5.flat(made), metadata),)

    def reference_returns(self, task: Task) -> tuple[float, float]:
        """The returns that score 0 and 100, for a task of Adroit."""
        return REFERENCE[task.id.split("-")[0]]

    def score(self, task: Task, success: float, mean_return: float) -> float:
        """AntMaze: 100 times the success rate; Adroit: 100 (R - R_min) / (R_max - R_min)."""
        if task.scored_by == "success":
            return 100.0 * success
        lowest, highest = self.reference_returns(task)
        return 100.0 * (mean_return - lowest) / (highest - lowest)

    def protocol(self, task: Task) -> Protocol:
        """How the published scores were made: the last evaluation."""
        return Protocol(500_000, (500_000,), 100, 8)

    def published_settings(self, method: str, task: Task) -> Mapping[str, float | int | str] | None:
        """See ``Suite``."""
        return published.settings(method, task.dataset)
