"""Wrappers of environments: seeded resets and stacked frames."""

import warnings
from collections import deque
from typing import Any

import gymnasium
import numpy as np

from guidedflow.seeding import numpy_seeded
from guidedflow.types import is_picture, named


def make(environment: Any, frame_stack: int = 1, **options: Any) -> gymnasium.Env:
    """A benchmark's environment from its gymnasium id or specification, wrapped as published numbers ask for.

    Args:
        environment: a registered id, or a ``gymnasium.envs.registration.EnvSpec``.
        frame_stack: how many of the last frames make an observation.
        options: passed on to the environment.
    """
    with warnings.catch_warnings():
        # Of GLFW, about a screen that is not needed, and of gymnasium, about ogbench's float64 bounds.
        warnings.simplefilter("ignore")
        env = gymnasium.make(environment, disable_env_checker=True, **options)
        env.reset()  # Builds the model: its warnings end here.
    return seeded(env, frame_stack)


def seeded(env: gymnasium.Env, frame_stack: int = 1) -> gymnasium.Env:
    """The environment with resets that depend on their seed alone, and stacked frames if there is more than one."""
    env = SeededReset(env)
    return StackedFrames(env, frame_stack) if frame_stack > 1 else env


class SeededReset(gymnasium.Wrapper):
    """Makes ``reset(seed=...)`` decide everything: OGBench's mazes draw start positions from NumPy's global state."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; with a seed, the episode's start is a function of it alone."""
        if seed is None:
            return super().reset(options=options)
        self.env.action_space.seed(seed)
        with numpy_seeded(seed):
            return super().reset(seed=seed, options=options)


class StackedFrames(gymnasium.Wrapper):
    """Observations of the last ``count`` frames along the last axis, oldest first; an episode's first one repeats.

    Of dictionaries the pictures are stacked, all else is the last frame's; nested entries are named by their path.
    """

    def __init__(self, env: gymnasium.Env, count: int):
        super().__init__(env)
        self._frames: deque[Any] = deque(maxlen=count)
        frame = env.observation_space
        self._pictures: list[str] = []
        if isinstance(frame, gymnasium.spaces.Dict):
            spaces = named(frame.spaces)
            self._pictures = [name for name, space in spaces.items() if is_picture(space.shape or (), space.dtype)]
            stacked = {name: _stacked(spaces[name], count) for name in self._pictures}
            self.observation_space = gymnasium.spaces.Dict(spaces | stacked)
        else:
            self.observation_space = _stacked(frame, count)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, and fill the stack with the first frame."""
        frame, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([frame] * (self._frames.maxlen or 1))
        return self._stack(), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and push the new frame."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(frame)
        return self._stack(), reward, terminated, truncated, info

    def _stack(self) -> Any:
        if not self._pictures:
            return np.concatenate(self._frames, axis=-1)
        frames = [named(frame) for frame in self._frames]
        stacked = {name: np.concatenate([frame[name] for frame in frames], axis=-1) for name in self._pictures}
        return frames[-1] | stacked


def _stacked(frame: gymnasium.Space, count: int) -> gymnasium.spaces.Box:
    assert isinstance(frame, gymnasium.spaces.Box)
    low, high = (np.concatenate([bound] * count, axis=-1) for bound in (frame.low, frame.high))
    return gymnasium.spaces.Box(low, high, dtype=frame.dtype.type)
