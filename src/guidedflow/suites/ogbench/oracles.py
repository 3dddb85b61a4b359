"""Data sets from OGBench's scripted oracles, in OGBench's own file format.

Cubes, scene and puzzles, each as `play` (plan oracles, temporally correlated noise) and `noisy` (Markov
oracles, Gaussian and random actions), or seen in pictures (`visual-`, play only), after the recipe of
Park et al., "OGBench: Benchmarking Offline Goal-Conditioned RL" (ICLR 2025). Deviations from it:
- an episode is a pure function of its seed, split and index, so that neither the number of workers nor an
  interruption changes a byte;
- an oracle sees a new target at once, not a step later;
- an action is rounded to float32 before it is taken, so that the stored actions are those that were taken.

Helper processes make the episodes, one file each, to be joined at the end.
"""

import contextlib
import difflib
import fcntl
import hashlib
import itertools
import json
import logging
import shutil
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from guidedflow.data.formats import npz
from guidedflow.errors import UserError
from guidedflow.files import whole_file
from guidedflow.opengl import needed_backend
from guidedflow.processes import HelperProcess, answered
from guidedflow.seeding import numpy_seeded

Progress = Callable[[int, int], None]
Split = Literal["train", "val"]

logger = logging.getLogger(__name__)

_SPLITS: tuple[Split, ...] = ("train", "val")
_DTYPES = {
    "observations": np.float32,
    "actions": np.float32,
    "terminals": np.bool_,
    "qpos": np.float32,
    "qvel": np.float32,
    "button_states": np.int64,
}
_WORLDS = ("cube-single", "cube-double", "cube-triple", "scene", "puzzle-3x3", "puzzle-4x4")
# Noise of position (x, y, z), yaw and gripper, relative to the position's.
_NOISE_SHAPE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])


@dataclass(frozen=True)
class Recipe:
    """How the episodes of one family are made; the defaults are common to all families."""

    env_id: str
    oracle: Literal["plan", "markov"]
    p_random_action: float  # probability that an action is replaced by a uniform one
    action_noise: float  # upper end of an episode's standard deviation of position noise
    p_stack: tuple[float, float]  # range of an episode's probability of stacking a cube on another
    closed_gripper: bool  # the button oracles keep the gripper shut
    cube_in_view: bool  # an episode whose cube leaves the visible range is drawn again
    cube_max_step: int  # steps after which the Markov cube oracle gives a target up
    episodes: int = 1000
    plan_noise: float = 0.1
    plan_smoothing: float = 0.5
    markov_min_norm: float = 0.4

    @property
    def is_visual(self) -> bool:
        """Whether observations are pictures."""
        return self.env_id.startswith("visual-")


def _published(world: str, style: str) -> Recipe:
    noisy, puzzle = style == "noisy", world.startswith("puzzle")
    p_stack = {"cube-single": (0.0, 0.0), "cube-double": (0.0, 0.25), "cube-triple": (0.05, 0.35)}
    return Recipe(
        env_id=f"{world}-v0",
        oracle="markov" if noisy else "plan",
        p_random_action=(0.2 if puzzle else 0.1) if noisy else 0.0,
        action_noise=0.1 if noisy else 0.0,
        p_stack=p_stack.get(world, (0.5, 0.5)),
        closed_gripper=puzzle,
        cube_in_view=world == "scene",
        cube_max_step=100 if world == "scene" else 200,
        episodes=3000 if world == "cube-triple" else 1000,
    )


_RECIPES = {f"{world}-{style}": _published(world, style) for world in _WORLDS for style in ("play", "noisy")}
_RECIPES |= {
    f"visual-{world}-play": replace(_RECIPES[f"{world}-play"], env_id=f"visual-{world}-v0")
    for world in _WORLDS
    if world != "cube-triple"
}
FAMILIES: tuple[str, ...] = tuple(_RECIPES)


def recipe(family: str) -> Recipe:
    """Return the published recipe of a family; `UserError` with the nearest names if there is none."""
    if family not in _RECIPES:
        near = difflib.get_close_matches(str(family), FAMILIES, n=3) or FAMILIES
        raise UserError(f"no scripted oracle makes {family!r}; expected one of {', '.join(near)}")
    return _RECIPES[family]


def cube_stays_in_view(positions: np.ndarray) -> bool:
    """Whether a scene's cube can be seen throughout: on the table before the camera, or inside the drawer.

    `positions` (rows, 3) are the cube's, in metres.
    """
    _, y, z = positions.T
    in_drawer = (z >= 0.06) & (z <= 0.08)
    hidden = (y >= 0.29) | ((y <= -0.3) & ~in_drawer)
    return not hidden.any()


@final
class Collector:
    """One environment with its oracles, from which any episode of a family can be made, in any order."""

    def __init__(self, family: str, steps: int = 1001):
        # Imported here: the command line reads this module's names without waiting for MuJoCo.
        import gymnasium
        import ogbench.manipspace  # noqa: F401  (registers the environments)

        self._recipe = recipe(family)
        # Without its checker, which warns of the data type of OGBench's action bounds.
        self._env: Any = gymnasium.make(
            self._recipe.env_id,
            max_episode_steps=steps,
            disable_env_checker=True,
            terminate_at_goal=False,
            mode="data_collection",
        )
        # The reset that compiles the model runs a forward pass before the arm's gains are set. It is done
        # here, so that the first episode starts the way all later ones do.
        self._env.reset(seed=0)
        self._oracles = _oracles(self._env, self._recipe)

    def episode(self, seed: int, index: int, split: Split = "train") -> dict[str, np.ndarray]:
        """Make an episode, a row a step; qpos, qvel and button states are those before the row's action.

        Returns observations (rows, n) float32 or, of a visual family, (rows, 64, 64, 3) uint8; actions in [-1, 1],
        qpos and qvel (rows, n) float32, terminals (rows,) bool and, where the environment has buttons, button_states
        (rows, n) int64. numpy's global state is kept.
        """
        for attempt in itertools.count():
            branch = (_SPLITS.index(split), index, attempt)
            record = self._attempt(np.random.SeedSequence(seed, spawn_key=branch))
            if not self._recipe.cube_in_view:
                break
            start = self._env.unwrapped.model.joint("object_joint_0").qposadr[0]
            if cube_stays_in_view(record["qpos"][:, start : start + 3]):
                break
        return record

    def _attempt(self, sequence: np.random.SeedSequence) -> dict[str, np.ndarray]:
        env_seed, oracle_seed, own_seed = sequence.spawn(3)
        rng = np.random.default_rng(own_seed)
        p_stack = rng.uniform(*self._recipe.p_stack)
        noise = rng.uniform(0, self._recipe.action_noise) * _NOISE_SHAPE
        rows = []
        ended = False
        with numpy_seeded(oracle_seed):
            observation, info = self._env.reset(seed=int(env_seed.generate_state(1)[0]))
            oracle = self._oracles[info["privileged/target_task"]]
            oracle.reset(observation, info)
            while not ended:
                if rng.random() < self._recipe.p_random_action:
                    action = rng.uniform(-1, 1, size=5)
                else:
                    action = oracle.select_action(observation, info) + noise * rng.standard_normal(5)
                action = np.clip(action, -1, 1).astype(np.float32)
                following, _, terminated, truncated, info = self._env.step(action)
                ended = terminated or truncated
                state = [info[f"prev_{name}"] for name in ("qpos", "qvel", "button_states") if name in info]
                rows.append((observation, action, ended, *state))
                observation = following
                if oracle.done:
                    _, info = self._env.unwrapped.set_new_target(p_stack=p_stack)
                    oracle = self._oracles[info["privileged/target_task"]]
                    oracle.reset(observation, info)
        # Without buttons there is a column less than there are names.
        columns = zip(_DTYPES.items(), zip(*rows, strict=True), strict=False)
        record: dict[str, Any] = {name: np.asarray(column, dtype) for (name, dtype), column in columns}
        if self._recipe.is_visual:
            record["observations"] = record["observations"].astype(np.uint8)
        return record


def _oracles(env: Any, recipe: Recipe) -> dict[str, Any]:
    if recipe.oracle == "plan":
        from ogbench.manipspace.oracles.plan import button_plan, cube_plan, drawer_plan, window_plan

        plan = {"env": env, "noise": recipe.plan_noise, "noise_smoothing": recipe.plan_smoothing}
        return {
            "cube": cube_plan.CubePlanOracle(**plan),
            "button": button_plan.ButtonPlanOracle(gripper_always_closed=recipe.closed_gripper, **plan),
            "drawer": drawer_plan.DrawerPlanOracle(**plan),
            "window": window_plan.WindowPlanOracle(**plan),
        }
    from ogbench.manipspace.oracles.markov import button_markov, cube_markov, drawer_markov, window_markov

    markov = {"env": env, "min_norm": recipe.markov_min_norm}
    return {
        # The published max_step of scene, 100, has never taken effect: the oracle's reset sets 200.
        "cube": cube_markov.CubeMarkovOracle(max_step=recipe.cube_max_step, **markov),
        "button": button_markov.ButtonMarkovOracle(gripper_always_closed=recipe.closed_gripper, **markov),
        "drawer": drawer_markov.DrawerMarkovOracle(**markov),
        "window": window_markov.WindowMarkovOracle(**markov),
    }


def episode_record(
    family: str, seed: int, index: int, *, split: Split = "train", steps: int = 1001
) -> dict[str, np.ndarray]:
    """Make one episode in an environment of its own; `Collector.episode` says what is in it."""
    return Collector(family, steps).episode(seed, index, split)


def generate(
    family: str,
    *,
    directory: Path,
    episodes: int | None = None,
    val_episodes: int | None = None,
    workers: int = 1,
    seed: int = 0,
    steps: int = 1001,
    progress: Progress = lambda done, total: None,
) -> tuple[Path, Path]:
    """Make a family's training and validation files in `directory` and return their paths.

    `episodes` is by default the published number, `val_episodes` a tenth of it; an episode has `steps` rows.
    `progress(done, total)` is called first with what an interrupted call left, then after each episode. Files
    that hold what is asked for are kept. `UserError` for a wrong argument, a file that holds another thing, or
    pictures without an OpenGL backend to draw them; `OSError` if a file cannot be written or a worker dies; the
    next call continues from there.
    """
    episodes = recipe(family).episodes if episodes is None else episodes
    val_episodes = max(1, episodes // 10) if val_episodes is None else val_episodes
    least = {"episodes": 1, "val-episodes": 1, "workers": 1, "seed": 0, "steps": 2}
    for option, found in zip(least, (episodes, val_episodes, workers, seed, steps), strict=True):
        if not isinstance(found, int) or found < least[option]:
            raise UserError(f"--{option}: expected at least {least[option]}, found {found}")

    directory = Path(directory).resolve()
    train, val = directory / f"{family}-v0.npz", directory / f"{family}-v0-val.npz"
    settings: dict[str, Any] = {"family": family, "seed": seed, "steps": steps}
    files = {
        train: settings | {"split": "train", "episodes": episodes},
        val: settings | {"split": "val", "episodes": val_episodes},
    }
    if not _missing(files):
        logger.info("%s and %s are already there", train, val)
        return train, val

    backend = needed_backend(family) if recipe(family).is_visual else None
    versions = {name: version(name) for name in ("guidedflow", "ogbench", "mujoco", "numpy")}
    # Parts of another recipe or other physics must not be mixed in.
    digest = hashlib.sha256(f"{recipe(family)} {versions}".encode()).hexdigest()[:8]
    parts = directory / ".partial" / f"{family}-seed{seed}-steps{steps}-{digest}"
    with _only_maker(directory, family, parts):
        needed = {
            path: [parts / f"{wanted['split']}-{index}.npz" for index in range(wanted["episodes"])]
            for path, wanted in _missing(files).items()
        }
        _make([part for group in needed.values() for part in group], settings, workers, backend, progress)
        for path, group in needed.items():
            _join(group, {"generator": "guidedflow", "versions": versions, **files[path]}, path)
        # A worker of a killed call may still be at its last episode: what it leaves is of no use.
        shutil.rmtree(parts, ignore_errors=True)
    return train, val


def _missing(files: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    for path, wanted in files.items():
        if not path.exists():
            continue
        expected = ", ".join(f"{name} {value}" for name, value in wanted.items())
        try:
            # Given a path instead of a file, np.load leaves it open when it is no archive.
            with path.open("rb") as file, np.load(file) as archive:
                metadata = json.loads(archive["metadata"].item())
            found = ", ".join(f"{name} {metadata[name]}" for name in wanted)
        except IsADirectoryError:
            found = "a folder"
        except (EOFError, KeyError, TypeError, ValueError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
            found = "a damaged file, or one that guidedflow did not make"
        if found != expected:
            remedy = "name another --data-dir or remove the file"
            raise UserError(f"{path}: expected {expected}; found {found}; {remedy}")
    return {path: wanted for path, wanted in files.items() if not path.exists()}


@contextlib.contextmanager
def _only_maker(directory: Path, family: str, parts: Path) -> Iterator[None]:
    try:
        parts.mkdir(parents=True, exist_ok=True)
        lock = (parts.parent / f"{family}.lock").open("a")
    except OSError as error:
        raise UserError(f"--data-dir: expected a folder to write to, found {directory}: {error}") from error
    # One lock for all settings of a family, for its two files must come from the same call. The system drops
    # the lock with the process, however that ends.
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for it or name another --data-dir"
            raise UserError(f"{directory}: another process is making {family} here; {remedy}") from None
        yield


def _is_complete(part: Path, steps: int) -> bool:
    try:
        with part.open("rb") as file, np.load(file) as archive:  # reading compares an array's checksum
            return all(len(archive[name]) == steps for name in archive.files)
    except (FileNotFoundError, EOFError, ValueError, zipfile.BadZipFile):
        return False


def _make(
    wanted: list[Path], settings: dict[str, Any], workers: int, gl_backend: str | None, progress: Progress
) -> None:
    parts = wanted[0].parent
    todo = deque(part for part in wanted if not _is_complete(part, settings["steps"]))
    for part in todo:  # one that exists counts as finished below
        part.unlink(missing_ok=True)
    done = len(wanted) - len(todo)
    progress(done, len(wanted))
    with contextlib.ExitStack() as stack:
        crew = [HelperProcess(_work, settings, parts, gl_backend=gl_backend) for _ in range(min(workers, len(todo)))]
        for helper in crew:
            stack.callback(helper.close)
        while done < len(wanted):
            for helper in answered(crew):
                made = helper.receive()
                if made is not None:
                    done += 1
                    progress(done, len(wanted))
                if todo:
                    helper.send(todo.popleft().stem)


def _work(ask: Callable[[str | None], str], settings: dict[str, Any], parts: Path) -> None:
    collector = Collector(settings["family"], settings["steps"])
    made = None
    while True:
        wanted = ask(made)
        split, index = wanted.split("-")
        episode: dict[str, Any] = collector.episode(
            settings["seed"], int(index), "train" if split == "train" else "val"
        )
        with whole_file(parts / f"{wanted}.npz", parts) as file:
            np.savez(file, **episode)
        made = wanted


def _join(parts: list[Path], metadata: dict[str, Any], path: Path) -> None:
    def episodes(name: str) -> Iterator[np.ndarray]:
        for part in parts:
            with np.load(part) as archive:
                yield archive[name]

    said = np.array(json.dumps(metadata))
    arrays: dict[str, Any] = {"metadata": ((), said.dtype, iter([said]))}
    with np.load(parts[0]) as first:
        for name in first.files:
            rows, *row = first[name].shape
            arrays[name] = ((rows * len(parts), *row), first[name].dtype, episodes(name))
    with whole_file(path, parts[0].parent) as file:
        npz.write(file, arrays)
