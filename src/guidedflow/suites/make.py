"""From a task to its environment."""

import dataclasses
import functools
import types
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np

from guidedflow.errors import UserError
from guidedflow.seeding import numpy_seeded
from guidedflow.suites import Task

SuccessTiming = Literal["post", "pre"]
ARM_JOINTS = 14
"""Of the arm and its gripper; in qpos the cubes, buttons, drawer and window come after them."""


def make_env(task: Task, *, success_timing: SuccessTiming = "post", **options: Any) -> gymnasium.Env:
    """The task's environment, with resets that depend on nothing but their seed.

    Args:
        task: any task; one with pixels needs an OpenGL backend (``opengl.gl_backend``).
        success_timing: OGBench alone: whether reward and success speak of the state after the step (``post``, as the
            published numbers do) or before it (``pre``, the default of ogbench >= 1.2).
        options: passed on to the environment.
    """
    with warnings.catch_warnings():
        # Of GLFW, about a screen that is not needed, and of gymnasium, about ogbench's float64 bounds.
        warnings.simplefilter("ignore")
        register(task)
        spec = gymnasium.spec(task.environment)
        if isinstance(spec.entry_point, str) and "manipspace" in spec.entry_point:
            spec = dataclasses.replace(spec, entry_point=_with_seeded_action_space(spec.entry_point))
        if task.benchmark == "ogbench":
            options["success_timing"] = success_timing
        if task.category == "minari/adroit":
            options = {"max_episode_steps": 200, **options}
        env = gymnasium.make(spec, disable_env_checker=True, **options)
        env.reset()  # Builds the model: its warnings end here.
    halve_margins(env)
    env = SeededReset(env)
    return StackedFrames(env, task.frame_stack) if task.frame_stack > 1 else env


def register(task: Task) -> None:
    """Make the task's environment known to gymnasium."""
    if task.benchmark == "ogbench":
        import ogbench  # noqa: F401  (registers its environments)
    elif task.is_antmaze:
        from guidedflow.suites.d4rl import antmaze

        antmaze.register()
    elif "droit" in task.environment:  # gymnasium-robotics' own for Minari, with D4RL's rules for D4RL.
        from guidedflow.suites.d4rl import adroit

        adroit.register()


def halve_margins(env: gymnasium.Env) -> None:
    """On MuJoCo 3.5 or newer, undo that it adds two geoms' contact margins where older releases took the larger one.

    With margins halved, equal ones add up to what they were. Models without margins are not touched. Warns once.
    """
    import mujoco

    if tuple(int(part) for part in mujoco.__version__.split(".")[:2]) < (3, 5):
        return
    model = getattr(env.unwrapped, "model", None)
    if isinstance(model, mujoco.MjModel) and model.geom_margin.any():
        model.geom_margin[:] *= 0.5
        warnings.warn(
            f"MuJoCo {mujoco.__version__} adds contact margins: they were halved, to be close to the physics of the "
            "published numbers; mujoco<3.5 has those exactly",
            stacklevel=2,
        )


class Labels(NamedTuple):
    """What a task says of N simulator states."""

    rewards: np.ndarray
    masks: np.ndarray


def label(task: Task, states: dict[str, np.ndarray]) -> Labels:
    """Reward (N,) and mask (N,) of each state s, by OGBench's own rule.

    Args:
        task: an OGBench task.
        states: ``qpos`` (N, nq) and, for scenes and puzzles, ``button_states`` (N, buttons).

    Raises:
        UserError: the states are another environment's.
    """
    from ogbench.relabel_utils import relabel_dataset

    env, sizes = _asked(task)
    for name, wanted in sizes.items():
        found = states[name].shape[1:] if name in states else (0,)
        if found != (wanted,):
            raise UserError(f"{name}: expected ({wanted},) a row, as {task.environment} has, found {found}")
    labelled: dict[str, Any] = dict(states)
    relabel_dataset(task.environment, env, labelled)
    return Labels(labelled["rewards"], labelled["masks"])


def serve_labels(ask: Callable[[Labels | None], dict[str, np.ndarray]], task: Task) -> None:
    """``label`` in a helper process, which is asked for some rows after the other."""
    labels = None
    while True:
        labels = label(task, ask(labels))


@functools.lru_cache(maxsize=1)
def _asked(task: Task) -> tuple[Any, dict[str, int]]:
    """What OGBench's relabelling asks for a task's goal, and the sizes of its states."""
    register(task)
    spec = gymnasium.spec(task.environment)
    if isinstance(spec.entry_point, str) and "manipspace" in spec.entry_point:
        goal = _goal(spec)
        return goal, {"qpos": goal.qpos_size, "button_states": goal._num_buttons}
    env: Any = make_env(task)
    return env, {"qpos": env.unwrapped.model.nq, "button_states": 0}


def _goal(spec: Any) -> Any:
    """What it asks a manipulation environment for, and the size of its qpos.

    Not the environment itself: to build its model takes 500 MB and some seconds. A test compares the two.
    """
    world: Any = gymnasium.envs.registration.load_env_creator(spec.entry_point)
    bare = object.__new__(world)
    bare._env_type, bare._reward_task_id = spec.kwargs["env_type"], spec.kwargs["reward_task_id"]
    is_puzzle, is_scene = "puzzle" in spec.entry_point, "scene" in spec.entry_point
    if is_puzzle:
        bare._num_rows, bare._num_cols = map(int, bare._env_type.split("x"))
    bare.set_tasks()
    info = bare.task_infos[bare._reward_task_id - 1]
    sliding: tuple[float, ...] = ()
    if is_scene:
        goal = info["goal"]
        cubes, buttons, sliding = goal["block_xyzs"], goal["button_states"], (goal["drawer_pos"], goal["window_pos"])
    elif is_puzzle:
        cubes, buttons = [], info["goal_button_states"]
    else:
        cubes, buttons = info["goal_xyzs"], []
    env = types.SimpleNamespace(
        reset=lambda: None,
        qpos_size=ARM_JOINTS + 7 * len(cubes) + len(buttons) + len(sliding),
        _reward_task_id=bare._reward_task_id,
        _num_cubes=len(cubes),
        _data=types.SimpleNamespace(mocap_pos=np.array(cubes)),
        _num_buttons=len(buttons),
        _target_button_states=np.array(buttons),
    )
    if is_scene:
        env._target_drawer_pos, env._target_window_pos = sliding
    env.unwrapped = env
    return env


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
    """Observations of the last ``count`` frames along the last axis, oldest first; an episode's first one repeats."""

    def __init__(self, env: gymnasium.Env, count: int):
        super().__init__(env)
        self._frames: deque[Any] = deque(maxlen=count)
        frame = env.observation_space
        assert isinstance(frame, gymnasium.spaces.Box)
        low, high = (np.concatenate([bound] * count, axis=-1) for bound in (frame.low, frame.high))
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=frame.dtype.type)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset, and fill the stack with the first frame."""
        frame, info = self.env.reset(seed=seed, options=options)
        self._frames.extend([frame] * (self._frames.maxlen or 1))
        return self._stack(), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and push the new frame."""
        frame, *rest = self.env.step(action)
        self._frames.append(frame)
        return (self._stack(), *rest)  # type: ignore[return-value]

    def _stack(self) -> np.ndarray:
        return np.concatenate(self._frames, axis=-1)


@functools.cache
def _with_seeded_action_space(entry_point: str) -> Any:
    # ogbench's manipulation environments make a new, unseeded action space at every access, and sample two actions
    # from it while resetting, which leaves traces in the simulator's state.
    base: Any = gymnasium.envs.registration.load_env_creator(entry_point)

    class WithSeededActionSpace(base):
        @functools.cached_property
        def action_space(self) -> gymnasium.Space[np.ndarray]:
            return super().action_space

    return WithSeededActionSpace
