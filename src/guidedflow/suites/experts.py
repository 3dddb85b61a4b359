"""Rolls policies: Adroit's experts, of which the published data was made (docs/tasks.md), and stand-ins."""

import functools
import itertools
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from guidedflow.errors import DataError, SettingsError
from guidedflow.seeding import derived_seed
from guidedflow.suites.suite import Suite, Task

if TYPE_CHECKING:
    import gymnasium

EPISODES = 100
"""How many are made if nobody says."""


class Recording(NamedTuple):
    """One episode of T steps."""

    observations: np.ndarray
    """(T + 1, n): the last one is what the last step led to."""
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    """Whether it ended in a terminal state; otherwise the recording just stopped."""


Controller = Callable[[np.ndarray], np.ndarray]
"""From an observation to an action in [-1, 1], float32."""


class Expert(NamedTuple):
    """A Gaussian policy: two tanh layers between scaled inputs and outputs, and a fixed spread."""

    w0: np.ndarray
    b0: np.ndarray
    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray
    in_shift: np.ndarray
    in_scale: np.ndarray
    out_shift: np.ndarray
    out_scale: np.ndarray
    log_std: np.ndarray

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], env: "gymnasium.Env", source: str) -> Self:
        """The policy in the arrays of a file, for an environment.

        Raises:
            DataError: an array is missing, or has not the size that the environment asks for.
        """
        missing = [name for name in cls._fields if name not in arrays]
        if missing:
            raise DataError(f"{source}: expected a policy's fields {', '.join(cls._fields)}, found no {missing[0]}")
        policy = cls(*(arrays[name].astype(np.float64) for name in cls._fields))
        hidden = policy.b0.size
        assert env.observation_space.shape is not None
        assert env.action_space.shape is not None
        (n,), (d,) = env.observation_space.shape, env.action_space.shape
        shapes = {"w0": (hidden, n), "w1": (hidden, hidden), "w2": (d, hidden), "b0": (hidden,), "b1": (hidden,)}
        shapes |= dict.fromkeys(("in_shift", "in_scale"), (n,))
        shapes |= dict.fromkeys(("b2", "out_shift", "out_scale", "log_std"), (d,))
        for name, shape in shapes.items():
            found = getattr(policy, name).shape
            if found != shape:
                raise DataError(
                    f"{source}: {name}: expected shape {shape} for {env.spec and env.spec.id}, found {found}"
                )
        return policy

    def __call__(self, observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The action in [-1, 1], float32; noise is a draw of N(0, I), or zeros for the mean."""
        x = (observation - self.in_shift) / (self.in_scale + 1e-8)
        hidden = np.tanh(self.w1 @ np.tanh(self.w0 @ x + self.b0) + self.b1)
        action = (self.w2 @ hidden + self.b2) * self.out_scale + self.out_shift + np.exp(self.log_std) * noise
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def record(
    task: Task,
    source: Path,
    *,
    episodes: int | None,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Recording]:
    """Roll an expert, with its noise, in a task's environment; or take a human's demonstrations as they are.

    Args:
        task: an expert or human task of Adroit, D4RL's or Minari's.
        source: a file with the fields of ``Expert``, or with D4RL's.
        episodes: how many; None: 100. Of demonstrations, all are taken.
        seed: of the starts and the noise; an episode depends on it and its number alone.
        on_progress: called with the episodes done and all of them.

    Raises:
        SettingsError: a number is out of its range.
        DataError: the file is malformed, or not one for this task.
    """
    check_numbers(episodes, seed)
    arrays = read(source)
    if is_human(task.dataset):
        return demonstrations(arrays, str(source))
    env = task.suite.make_env(task)
    policy = Expert.from_arrays(arrays, env, str(source))

    def begin(rng: np.random.Generator) -> Controller:
        return lambda observation: policy(observation, rng.standard_normal(len(policy.log_std)))

    return roll(env, begin, episodes=episodes, seed=seed, on_progress=on_progress)


def source_of(dataset: str, policy: Path | str | None, makes: Sequence[str]) -> Path:
    """The file that a data set of Adroit is to be made from.

    Raises:
        SettingsError: it is no expert or human data of Adroit, or no file was named.
    """
    if dataset not in makes:
        raise SettingsError(f"task: expected an expert or human task of Adroit, found {dataset}")
    if policy is None:
        what = "human demonstrations" if is_human(dataset) else "an expert's weights"
        raise SettingsError(
            f"policy: expected an npz file of {what} to make {dataset} from (--policy FILE), found none"
        )
    return Path(policy)


def origin(dataset: str, source: Path) -> str:
    """What data of Adroit was made from, in words."""
    return f"{'human' if is_human(dataset) else 'expert'} of {source.name}"


def is_human(dataset: str) -> bool:
    """Whether it is human data, of D4RL (``door-human-v1``) or of Minari (``D4RL/door/human-v2``)."""
    return "human" in dataset.replace("/", "-").split("-")


def made_task(suite: Suite, dataset: str) -> Task:
    """The task of one of the data sets that a suite makes."""
    return next(task for task in suite.tasks() if task.dataset == dataset)


def read(source: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file.

    Raises:
        DataError: it is missing or damaged.
    """
    from guidedflow.data.formats import npz

    return npz.read(source)


def check_numbers(episodes: int | None, seed: int) -> None:
    """Raise SettingsError unless there is something to make, of a possible seed."""
    for name, value, least in (("episodes", EPISODES if episodes is None else episodes, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise SettingsError(f"{name}: expected at least {least}, found {value!r}")


def metadata(algorithm: str, seed: int) -> dict[str, str]:
    """What a data set made here says of itself."""
    made_with = {package: version(package) for package in ("guidedflow", "mujoco")}
    return {"generator": "guidedflow", "algorithm": algorithm, "seed": str(seed), **made_with}


def roll(
    env: "gymnasium.Env",
    begin: Callable[[np.random.Generator], Controller],
    *,
    episodes: int | None,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Recording]:
    """Episodes of an environment. Each depends on (seed, its number) alone.

    Args:
        env: from ``make_env``, whose resets depend on their seed alone.
        begin: gives an episode its policy; all its noise is drawn from that generator.
        episodes: how many; None: 100.
        seed: of the starts and the noise.
        on_progress: called with the episodes done and all of them.
    """
    found = []
    episodes = EPISODES if episodes is None else episodes
    for number in range(episodes):
        on_progress(number, episodes)
        act = begin(np.random.default_rng(derived_seed(seed, "noise", number)))
        observation, _ = env.reset(seed=derived_seed(seed, "episode", number))
        observations, actions, rewards = [observation], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            action = act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(float(reward))
        found.append(Recording(np.array(observations), np.array(actions), np.array(rewards), terminated))
    on_progress(episodes, episodes)
    return found


def random_actions(rng: np.random.Generator, size: int) -> Controller:
    """Uniform in [-1, 1], whatever is seen."""
    return lambda observation: rng.uniform(-1.0, 1.0, size).astype(np.float32)


def sine_actions(rng: np.random.Generator, size: int) -> Controller:
    """Each coordinate a sine of the step, of a frequency in [0.01, 0.1] a step and a phase drawn once an episode."""
    frequency, phase = rng.uniform(0.01, 0.1, size), rng.uniform(0.0, 1.0, size)
    steps = itertools.count()
    return lambda observation: np.sin(2.0 * np.pi * (frequency * next(steps) + phase)).astype(np.float32)


STAND_INS = {"random": random_actions, "sine": sine_actions}


def stand_in(
    task: Task,
    actions: str,
    *,
    episodes: int | None,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Recording], str]:
    """Episodes of actions that nobody learned, for tests alone, and what is to be said of them.

    Args:
        task: whose environment they are taken in.
        actions: a key of ``STAND_INS``.
        episodes: how many; None: 100.
        seed: of the starts and the actions; an episode depends on it and its number alone.
        on_progress: called with the episodes done and all of them.

    Raises:
        SettingsError: there are no such actions, or a number is out of its range.
    """
    if actions not in STAND_INS:
        raise SettingsError(f"stand_in: expected one of {', '.join(STAND_INS)}, found {actions!r}")
    check_numbers(episodes, seed)
    begin = functools.partial(STAND_INS[actions], size=task.action_size)
    made = roll(task.suite.make_env(task), begin, episodes=episodes, seed=seed, on_progress=on_progress)
    return made, f"{actions} actions, made for tests; not the published data"


def demonstrations(arrays: dict[str, np.ndarray], source: str) -> list[Recording]:
    """The episodes of a file of human demonstrations: D4RL's fields.

    An episode's last step is left out: where it led to was not recorded.

    Raises:
        DataError: a field is missing, or no row ends an episode.
    """
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(f"{source}: expected the fields {', '.join(names)}, found no {missing[0]}")
    ends = np.flatnonzero((arrays["terminals"] != 0) | (arrays["timeouts"] != 0)) + 1
    if not len(ends):
        raise DataError(f"{source}: expected terminals or timeouts at the last row of each episode, found none")
    starts = [0, *ends[:-1]]
    return [
        Recording(
            arrays["observations"][start:end].astype(np.float64),
            arrays["actions"][start : end - 1],
            arrays["rewards"][start : end - 1].astype(np.float64),
            terminated=False,
        )
        for start, end in zip(starts, ends, strict=True)
        if end - start > 1
    ]
