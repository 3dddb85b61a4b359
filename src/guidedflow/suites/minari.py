"""Minari's Adroit and MuJoCo tasks (docs/tasks.md, "Minari")."""

import contextlib
import functools
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from guidedflow.errors import DataError, SettingsError
from guidedflow.files import make_sure_of_room
from guidedflow.suites import published
from guidedflow.suites.suite import Protocol, SuccessTiming, Suite, Task, refuse

if TYPE_CHECKING:
    import gymnasium

    from guidedflow.data.dataset import Dataset
    from guidedflow.suites.experts import Recording

HANDS = {"door": (39, 28), "hammer": (46, 26), "pen": (45, 24), "relocate": (39, 30)}
"""Sizes of observation and action of each of Adroit's four."""
HAND_KINDS = ("cloned", "expert", "human")
BODIES = {"halfcheetah": ("HalfCheetah-v5", 17, 6), "hopper": ("Hopper-v5", 11, 3), "walker2d": ("Walker2d-v5", 17, 6)}
"""Environment, and sizes of observation and action, of each of MuJoCo's three."""
BODY_KINDS = ("expert", "medium", "simple")
REFERENCE = {
    "door": (-45.80706024169922, 2940.578369140625),
    "hammer": (-267.074462890625, 12635.712890625),
    "pen": (137.92955108500217, 8820.50845967583),
    "relocate": (9.189092636108398, 4287.70458984375),
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
}
"""Returns that score 0 and 100."""
ADROIT = "minari/adroit"


class Minari(Suite):
    """Farama's data sets ``D4RL/*`` (Adroit, with gymnasium-robotics' own rewards) and ``mujoco/*``."""

    name: ClassVar[str] = "minari"

    def tasks(self) -> tuple[Task, ...]:
        """21: three kinds of data of each of four hands and three bodies."""
        return self._tasks

    @functools.cached_property
    def _tasks(self) -> tuple[Task, ...]:
        hands = [
            self._task(f"D4RL/{hand}/{kind}-v2", ADROIT, f"AdroitHand{hand.capitalize()}-v1", *HANDS[hand])
            for hand in HANDS
            for kind in HAND_KINDS
        ]
        bodies = [
            self._task(f"mujoco/{body}/{kind}-v0", f"minari/{body}", *BODIES[body])
            for body in BODIES
            for kind in BODY_KINDS
        ]
        return (*hands, *bodies)

    def _task(self, name: str, category: str, environment: str, observation: int, action: int) -> Task:
        return Task(name, self, category, name, environment, (observation,), action, scored_by="return")

    def make_env(self, task: Task, *, success_timing: SuccessTiming = "post", **options: Any) -> "gymnasium.Env":
        """See ``Suite``. Success, where there is one, is of the state after the step."""
        from guidedflow.envs import wrappers

        options = {"render_mode": "rgb_array", **options}
        if task.category == ADROIT:
            from guidedflow.suites.d4rl import adroit

            adroit.register()
            options = {"max_episode_steps": 200, **options}
        return wrappers.make(task.environment, **options)

    def folders(self, data_dir: Path | None = None) -> list[Path]:
        """See ``Suite``; by default where the minari package keeps its data."""
        default = os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets"
        return [Path(default).expanduser() if data_dir is None else data_dir]

    def file(self, task: Task) -> str:
        """See ``Suite``: a folder."""
        return task.dataset

    def commands(self, task: Task) -> list[str]:
        """See ``Suite``."""
        is_adroit = task.category == ADROIT and task.dataset in self.makes()
        made = [f"guidedflow data generate {task.dataset} --policy FILE"] if is_adroit else []
        return [f"guidedflow data fetch {task.id}", *made]

    def load(self, task: Task, path: Path) -> "Dataset":
        """See ``Suite``; masks are 0 where the environment terminated.

        A warning tells if the data set's own metadata states other reference returns: they are known to be wrong.
        """
        from guidedflow.data.formats import minari

        return self.for_training(task, minari.load(path, reference=self.reference_returns(task)), path)

    def fetch(self, task: Task, data_dir: Path | None = None) -> Sequence[Path]:
        """See ``Suite``. From Minari's own server, or the one that ``MINARI_REMOTE`` names."""
        return (fetch(task.dataset, self.folders(data_dir)[0]),)

    def makes(self) -> tuple[str, ...]:
        """Adroit's expert and human data; and, for tests alone, stand-ins of MuJoCo's."""
        hands = [f"D4RL/{hand}/{kind}-v2" for hand in HANDS for kind in ("expert", "human")]
        return (*hands, *(f"mujoco/{body}/{kind}-v0" for body in BODIES for kind in BODY_KINDS))

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
        stand_in: str | None = None,
        **options: Any,
    ) -> Sequence[Path]:
        """See ``Suite``; all in one process.

        Nobody can make the ``mujoco/*`` sets, whose policies were not published. A stand-in has the name of one of them
        and is for tests alone: its metadata, ``data inspect`` and every run that is trained on it say so.

        Args:
            dataset: see ``Suite``.
            data_dir: see ``Suite``.
            episodes: see ``Suite``; of human data, all of the demonstrations are taken.
            workers: see ``Suite``.
            seed: see ``Suite``.
            on_progress: see ``Suite``.
            policy: for Adroit: an npz file with the fields of ``experts.Expert``; or, for human data, with D4RL's.
            stand_in: for MuJoCo: ``random`` (uniform actions) or ``sine`` (of the step, with frequencies and phases of
                their own in every episode).
            options: none.
        """
        from guidedflow.suites import experts

        refuse(options, dataset)
        if stand_in is not None:
            if dataset not in self.makes() or not dataset.startswith("mujoco/"):
                raise SettingsError(f"task: expected a task of mujoco/, for which stand-ins are made, found {dataset}")
            refuse({"policy": policy}, dataset)
            task = experts.made_task(self, dataset)
            made, said = experts.stand_in(task, stand_in, episodes=episodes, seed=seed, on_progress=on_progress)
            metadata = {**experts.metadata(said, seed), "stand_in": stand_in}
        else:
            if dataset.startswith("mujoco/"):
                raise SettingsError(f"stand_in: expected random or sine, which is all that can be made, for {dataset}")
            source = experts.source_of(dataset, policy, self.makes())
            task = experts.made_task(self, dataset)
            made = experts.record(task, source, episodes=episodes, seed=seed, on_progress=on_progress)
            metadata = experts.metadata(experts.origin(dataset, source), seed)
        if task.category == ADROIT:
            from guidedflow.suites.d4rl import adroit

            adroit.register()  # The package stores the environment's specification, and demonstrations were not rolled.
        root = self.folders(data_dir)[0]
        reference = self.reference_returns(task)
        return (write(dataset, root, made, environment=task.environment, reference=reference, metadata=metadata),)

    def reference_returns(self, task: Task) -> tuple[float, float]:
        """The returns that score 0 and 100."""
        return REFERENCE[task.id.split("/")[1]]

    def score(self, task: Task, success: float, mean_return: float) -> float:
        """100 (R - R_min) / (R_max - R_min)."""
        lowest, highest = self.reference_returns(task)
        return 100.0 * (mean_return - lowest) / (highest - lowest)

    def protocol(self, task: Task) -> Protocol:
        """How the published scores were made: the last evaluation."""
        return Protocol(1_000_000, (1_000_000,), 100, 8)

    def published_settings(self, method: str, task: Task) -> Mapping[str, float | int | str] | None:
        """See ``Suite``."""
        return published.settings(method, task.dataset)


def fetch(dataset: str, root: Path) -> Path:
    """Download a data set of Minari's server unless it is there, and return its folder.

    The server is the package's own, or the one that ``MINARI_REMOTE`` names. The data set is downloaded into a hidden
    folder of the same root, and takes its name once all of it has been read. A call that fails or is killed leaves
    nothing under that name; the next one starts anew.

    Raises:
        SettingsError: ``MINARI_REMOTE`` names no server.
        DataError: it cannot be downloaded, or the one that is there is damaged.
    """
    from guidedflow.data.formats.minari import read

    remote = os.environ.get("MINARI_REMOTE", "hf://farama-minari")
    if not re.fullmatch(r"(hf|gcp)://.+", remote):
        raise SettingsError(f"MINARI_REMOTE: expected hf://NAME or gcp://NAME, found {remote!r}")
    path = root / dataset
    if path.exists():
        return _there(path)
    with _aside(root, dataset) as (aside, made):
        if path.exists():  # Another process was faster.
            return _there(path)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                # The package prints the folder that is about to vanish.
                with _root(aside), contextlib.redirect_stdout(io.StringIO()):
                    import minari

                    minari.download_dataset(dataset)
                read(made)
            except Exception as error:  # The package passes on whatever its servers' libraries raise.
                reason = _reason(error, told).replace(str(made), "what came")
                advice = "" if isinstance(error, ImportError) else "; try again later"  # The reason names the command.
                raise DataError(f"{path}: not downloaded: {reason}{advice}") from error
        _put(made, path)
    return path


def write(
    dataset: str,
    root: Path,
    episodes: "Sequence[Recording]",
    *,
    environment: str,
    reference: tuple[float, float],
    metadata: Mapping[str, str],
) -> Path:
    """Write episodes as a local Minari data set, and return its folder; it is there whole or not at all.

    Raises:
        DataError: it exists already.
        OSError: it cannot be written.
    """
    import gymnasium
    import minari
    import numpy as np
    from minari.data_collector import EpisodeBuffer

    path = root / dataset
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=list(episode.observations),
            actions=list(episode.actions),
            rewards=episode.rewards.tolist(),
            terminations=[*[False] * (len(episode.rewards) - 1), episode.terminated],
            truncations=[*[False] * (len(episode.rewards) - 1), not episode.terminated],
        )
        for number, episode in enumerate(episodes)
    ]
    with _aside(root, dataset) as (aside, made):
        if path.exists():
            remedy = "name another --data-dir or remove it"
            raise DataError(f"{path}: expected a new folder, found one that exists; {remedy}")
        arrays = [array for episode in episodes for array in (episode.observations, episode.actions, episode.rewards)]
        make_sure_of_room(aside.parent, 2**16 * len(episodes) + 2 * sum(array.nbytes for array in arrays))
        with _root(aside), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of metadata that a local set need not have.
            first = episodes[0]
            minari.create_dataset_from_buffers(
                dataset,
                buffers,
                env=environment,
                observation_space=gymnasium.spaces.Box(-np.inf, np.inf, first.observations.shape[1:], np.float64),
                action_space=gymnasium.spaces.Box(-1.0, 1.0, first.actions.shape[1:], np.float32),
                ref_min_score=reference[0],
                ref_max_score=reference[1],
                algorithm_name=metadata.get("algorithm"),
                description=json.dumps(dict(metadata)),
            )
        _put(made, path)
    return path


def _there(path: Path) -> Path:
    """A data set that is there already is not touched, even if it is no good: it may be the user's own."""
    from guidedflow.data.formats.minari import read

    try:
        read(path)
    except DataError as error:
        raise DataError(f"{error}; move it away to download it anew") from error
    return path


@contextlib.contextmanager
def _aside(root: Path, dataset: str) -> Iterator[tuple[Path, Path]]:
    """A hidden root in which one process at a time makes a data set, and the folder that this will have there."""
    from guidedflow.data.download import locked

    aside = root / ".partial" / dataset.replace("/", "-")
    aside.parent.mkdir(parents=True, exist_ok=True)
    with locked(aside):
        shutil.rmtree(aside, ignore_errors=True)  # What a killed call left.
        try:
            yield aside, aside / dataset
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _reason(error: Exception, told: Sequence[warnings.WarningMessage]) -> str:
    """Why a download failed, in one line: the error and its cause, and what the package skipped before it."""
    if isinstance(error, json.JSONDecodeError):
        return "the server's answer is no JSON; a web page perhaps"
    if isinstance(error, DataError):
        return str(error)
    causes = [str(found) or type(found).__name__ for found in (error, error.__cause__) if found is not None]
    skipped = [str(warning.message) for warning in told if str(warning.message).startswith("Skipping ")]
    return "; ".join(" ".join(said.split())[:250] for said in dict.fromkeys([*causes, *skipped]))


def _put(made: Path, path: Path) -> None:
    for file in (found for found in made.rglob("*") if found.is_file()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(made, path)


@contextlib.contextmanager
def _root(folder: Path) -> Iterator[None]:
    """The minari package knows where its data lies by an environment variable alone."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before
