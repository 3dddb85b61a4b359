"""OGBench's environments, with resets that their seed decides."""

import dataclasses
import functools
from typing import Any

import gymnasium

from guidedflow.envs import wrappers


def make(environment: str, frame_stack: int = 1, **options: Any) -> gymnasium.Env:
    """The environment of an id; options are passed on to it."""
    spec = specification(environment)
    if is_manipulation(spec):
        spec = dataclasses.replace(spec, entry_point=_with_seeded_action_space(str(spec.entry_point)))
    return wrappers.make(spec, frame_stack, **options)


def specification(environment: str) -> Any:
    """What ogbench registers under an id."""
    import ogbench  # noqa: F401  (registers its environments)

    return gymnasium.spec(environment)


def is_manipulation(spec: Any) -> bool:
    """Whether it is one of cubes, scene and puzzles; the others are mazes."""
    return isinstance(spec.entry_point, str) and "manipspace" in spec.entry_point


@functools.cache
def _with_seeded_action_space(entry_point: str) -> Any:
    # ogbench's manipulation environments make a new, unseeded action space at every access, and sample two actions
    # from it while resetting, which leaves traces in the simulator's state.
    base: Any = gymnasium.envs.registration.load_env_creator(entry_point)

    class WithSeededActionSpace(base):
        @functools.cached_property
        def action_space(self) -> gymnasium.Space[Any]:
            return super().action_space

    return WithSeededActionSpace
