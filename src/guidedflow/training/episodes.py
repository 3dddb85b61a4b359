"""Episodes of an evaluation: a fixed number per environment, each a function of the seed and its number alone."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from guidedflow.agents.agent import Act
from guidedflow.envs.render import GifWriter
from guidedflow.envs.vector import Command, Outcome, Reset, VectorEnv
from guidedflow.runs.summary import Z_95, wilson_interval
from guidedflow.seeding import derived_seed
from guidedflow.types import Spec

VIDEO_FRAMES_PER_SECOND = 20


class EpisodeResult(NamedTuple):
    """One episode. ``success`` is what the environment said at its last step; NaN if it says nothing."""

    number: int
    total_reward: float
    length: int
    success: float


class EpisodeStatistics(NamedTuple):
    """Episodes' averages with 95% intervals: Wilson's for the success rate, the normal approximation for means."""

    episodes: int
    success: float
    success_low: float
    success_high: float
    mean_return: float
    return_half_width: float
    mean_length: float
    length_half_width: float


def run_episodes(
    act: Act,
    env: VectorEnv,
    spec: Spec,
    *,
    episodes: int,
    seed: int,
    videos: int = 0,
    video_stem: Path | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> list[EpisodeResult]:
    """Run ``episodes`` episodes and return them in the order of their numbers.

    Slot i runs the episodes i, i + slots, i + 2 slots, ... one after the other and then waits. Counting whichever
    episodes finish first would favour short ones. Episode n starts from a state that depends on (seed, n) only.

    Args:
        act: the policy; its batch always has ``env.slots`` rows.
        env: the environments.
        spec: shapes of observations and actions, and the range that the latter stand for.
        episodes: how many.
        seed: of the episodes' starts and of the policy's noise.
        videos: how many of the first episodes to write as GIF; needs an ``env`` with a ``gl_backend``.
        video_stem: path without suffix that the videos' names begin with.
        on_episode: called after each episode.
    """
    queues = [list(range(slot, episodes, env.slots)) for slot in range(env.slots)]
    observations = spec.observation(lambda shape, dtype: np.zeros((env.slots, *shape), dtype))
    running: list[EpisodeResult | None] = [None] * env.slots
    finished: list[EpisodeResult] = []
    key = jax.random.key(derived_seed(seed, "noise"))
    call = 0
    with _Films(video_stem) as films:
        while any(queues) or any(running):
            actions = spec.to_environment(act(observations, key, call)) if any(running) else None
            call += 1
            commands: list[Command] = [None] * env.slots
            for slot, episode in enumerate(running):
                if episode is not None and actions is not None:
                    commands[slot] = np.asarray(actions[slot])
                elif queues[slot]:
                    number = queues[slot].pop(0)
                    running[slot] = EpisodeResult(number, 0.0, 0, math.nan)
                    commands[slot] = Reset(derived_seed(seed, "episode", number), film=number < videos)
            for slot, outcome in enumerate(env.exchange(commands)):
                episode = running[slot]
                if outcome is None or episode is None:
                    continue
                put(observations, slot, outcome.observation)
                if isinstance(commands[slot], np.ndarray):
                    episode = running[slot] = _after(episode, outcome)
                films.add(episode, outcome)
                if outcome.terminated or outcome.truncated:
                    finished.append(episode)
                    running[slot] = None
                    on_episode()
    return sorted(finished)


def put(observations: Any, slot: int, seen: Any) -> None:
    """Write what a slot saw into the arrays of all slots."""
    for entry, new in zip(jax.tree.leaves(observations), jax.tree.leaves(seen), strict=True):
        entry[slot] = new


def _after(episode: EpisodeResult, outcome: Outcome) -> EpisodeResult:
    return EpisodeResult(episode.number, episode.total_reward + outcome.reward, episode.length + 1, outcome.success)


class _Films:
    """The GIFs of the episodes that are filmed, each with its policy, step, return and success written on it."""

    def __init__(self, stem: Path | None):
        self._stem = stem
        self._writers: dict[int, GifWriter] = {}

    def add(self, episode: EpisodeResult, outcome: Outcome) -> None:
        """One more state of an episode."""
        if outcome.frame is None or self._stem is None:
            return
        path = Path(f"{self._stem}-episode{episode.number}.gif")
        writer = self._writers.setdefault(episode.number, GifWriter(path, VIDEO_FRAMES_PER_SECOND))
        caption = f"step {episode.length}  return {episode.total_reward:.1f}"
        if not math.isnan(episode.success):
            caption += f"  success {'yes' if episode.success else 'no'}"
        writer.append(outcome.frame, [self._stem.name.replace("-", " "), caption])
        if outcome.terminated or outcome.truncated:
            self._writers.pop(episode.number).close()

    def __enter__(self) -> "_Films":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():  # Of episodes that an error cut short.
            writer.discard()


def summarize(episodes: Sequence[EpisodeResult]) -> EpisodeStatistics:
    """Averages and 95% intervals of at least one episode."""
    n = len(episodes)
    success = float(np.mean([episode.success for episode in episodes]))
    low, high = wilson_interval(success, n)
    returns = np.array([episode.total_reward for episode in episodes])
    lengths = np.array([episode.length for episode in episodes], float)
    return EpisodeStatistics(
        episodes=n,
        success=success,
        success_low=low,
        success_high=high,
        mean_return=float(returns.mean()),
        return_half_width=_half_width(returns),
        mean_length=float(lengths.mean()),
        length_half_width=_half_width(lengths),
    )


def _half_width(values: np.ndarray) -> float:
    return Z_95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
