"""Evaluation: a fixed number of episodes per environment slot, each a function of the seed and its number alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from guidedflow.agents.agent import Act
from guidedflow.envs.render import write_gif
from guidedflow.envs.vector import Command, Reset, VectorEnv
from guidedflow.seeding import derived_seed
from guidedflow.types import Spec

Z_95 = 1.959963984540054
VIDEO_FRAMES_PER_SECOND = 20


class Episode(NamedTuple):
    """One evaluation episode. ``success`` is what the environment said at its last step; NaN if it says nothing."""

    number: int
    total_reward: float
    length: int
    success: float


class Evaluation(NamedTuple):
    """Episodes' averages with 95% intervals: Wilson's for the success rate, the normal approximation for means."""

    episodes: int
    success: float
    success_low: float
    success_high: float
    mean_return: float
    return_half_width: float
    mean_length: float
    length_half_width: float


def evaluate(
    act: Act,
    env: VectorEnv,
    spec: Spec,
    *,
    episodes: int,
    seed: int,
    videos: int = 0,
    video_stem: Path | None = None,
) -> list[Episode]:
    """Run ``episodes`` episodes and return them in the order of their numbers.

    Slot i runs the episodes i, i + slots, i + 2 slots, ... one after the other and then rests. Counting whichever
    episodes finish first would favour short ones. Episode n starts from a state that depends on (seed, n) only.

    Args:
        act: the policy; its batch always has ``env.slots`` rows.
        env: the environments.
        spec: shapes of the task's observations and actions, and the range that the latter stand for.
        episodes: how many.
        seed: of the episodes' starts and of the policy's noise.
        videos: how many of the first episodes to write as GIF; needs an ``env`` with a ``gl_backend``.
        video_stem: path without suffix that the videos' names begin with.
    """
    queues = [list(range(slot, episodes, env.slots)) for slot in range(env.slots)]
    observations = np.zeros((env.slots, *spec.observation_shape), spec.observation_dtype)
    running: list[Episode | None] = [None] * env.slots
    frames: dict[int, list[np.ndarray]] = {}
    finished: list[Episode] = []
    key = jax.random.key(derived_seed(seed, "noise"))
    tick = 0
    while any(queues) or any(running):
        actions = None
        if any(running):
            actions = spec.to_environment(act(observations, key, tick))
        tick += 1
        commands: list[Command] = [None] * env.slots
        for slot, episode in enumerate(running):
            if episode is not None and actions is not None:
                commands[slot] = np.asarray(actions[slot])
            elif queues[slot]:
                number = queues[slot].pop(0)
                running[slot] = Episode(number, 0.0, 0, math.nan)
                commands[slot] = Reset(derived_seed(seed, "episode", number), film=number < videos)
        for slot, outcome in enumerate(env.exchange(commands)):
            episode = running[slot]
            if outcome is None or episode is None:
                continue
            observations[slot] = outcome.observation
            if outcome.frame is not None:
                frames.setdefault(episode.number, []).append(outcome.frame)
            if isinstance(commands[slot], np.ndarray):
                episode = Episode(
                    episode.number, episode.total_reward + outcome.reward, episode.length + 1, outcome.success
                )
                over = outcome.terminated or outcome.truncated
                running[slot] = None if over else episode
                if over:
                    finished.append(episode)
    for number, pictures in frames.items():
        write_gif(Path(f"{video_stem}-episode{number}.gif"), pictures, VIDEO_FRAMES_PER_SECOND)
    return sorted(finished)


def summarize(episodes: Sequence[Episode]) -> Evaluation:
    """Averages and 95% intervals of at least one episode."""
    n = len(episodes)
    success = float(np.mean([episode.success for episode in episodes]))
    low, high = wilson_interval(success, n)
    returns = np.array([episode.total_reward for episode in episodes])
    lengths = np.array([episode.length for episode in episodes], float)
    return Evaluation(
        episodes=n,
        success=success,
        success_low=low,
        success_high=high,
        mean_return=float(returns.mean()),
        return_half_width=_half_width(returns),
        mean_length=float(lengths.mean()),
        length_half_width=_half_width(lengths),
    )


def wilson_interval(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval for a rate seen in n trials (Wilson, 1927)."""
    centre = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _half_width(values: np.ndarray) -> float:
    return Z_95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
