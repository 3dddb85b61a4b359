"""Rewards of recorded states: what a task of OGBench says of each, by OGBench's own rule."""

import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from guidedflow.errors import DataError
from guidedflow.processes import HelperProcess
from guidedflow.suites.ogbench.environments import is_manipulation, specification
from guidedflow.suites.suite import Task

ARM_JOINTS = 14
"""Of the arm and its gripper; in qpos the cubes, buttons, drawer and window come after them."""
LABELLED_AT_ONCE = 100_000
"""Rows of simulator states that a helper holds while it computes rewards."""


class Labels(NamedTuple):
    """What a task says of N simulator states."""

    rewards: np.ndarray
    masks: np.ndarray


def label_states(task: Task, states: dict[str, np.ndarray]) -> Labels:
    """``label`` in a process of its own: MuJoCo does not live in this one.

    Raises:
        DataError: as ``label``.
    """
    helper = HelperProcess(_serve, task)
    try:
        helper.receive()
        found = []
        for start in range(0, max(len(states["qpos"]), 1), LABELLED_AT_ONCE):  # Once at least, to check the sizes.
            helper.send({name: array[start : start + LABELLED_AT_ONCE] for name, array in states.items()})
            found.append(helper.receive())
    finally:
        helper.close()
    return Labels(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _serve(ask: Callable[[Labels | None], dict[str, np.ndarray]], task: Task) -> None:
    labels = None
    while True:
        labels = label(task, ask(labels))


def label(task: Task, states: dict[str, np.ndarray]) -> Labels:
    """Reward (N,) and mask (N,) of each state s.

    Args:
        task: an OGBench task.
        states: ``qpos`` (N, nq) and, for scenes and puzzles, ``button_states`` (N, buttons).

    Raises:
        DataError: the states are another environment's.
    """
    from ogbench.relabel_utils import relabel_dataset

    env, sizes = _asked(task)
    for name, wanted in sizes.items():
        found = states[name].shape[1:] if name in states else (0,)
        if found != (wanted,):
            raise DataError(f"{name}: expected ({wanted},) a row, as {task.environment} has, found {found}")
    labelled: dict[str, Any] = dict(states)
    relabel_dataset(task.environment, env, labelled)
    return Labels(labelled["rewards"], labelled["masks"])


@functools.lru_cache(maxsize=1)
def _asked(task: Task) -> tuple[Any, dict[str, int]]:
    """What OGBench's relabelling asks for a task's goal, and the sizes of its states."""
    spec = specification(task.environment)
    if is_manipulation(spec):
        goal = _goal(spec)
        return goal, {"qpos": goal.qpos_size, "button_states": goal._num_buttons}
    env: Any = task.suite.make_env(task)
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
