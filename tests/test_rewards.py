"""The rewards of generated data are what the environment itself says of the stored states.

A row's reward is a function of its own state s. So the environment is set to s, and asked in both of its ways: of the
state before a step (``pre``) and of the state after it (``post``).
"""

import numpy as np
import pytest
from conftest import make_env

from guidedflow.suites import find_task, tasks
from guidedflow.suites.ogbench.oracles import Collector
from guidedflow.suites.ogbench.recipes import FAMILIES
from guidedflow.suites.ogbench.rewards import label

STATE = ("qpos", "qvel", "button_states")


class World:
    """Environments of one world, each of which is set to any of its tasks and to any state."""

    def __init__(self, name: str):
        self.name = name
        task = find_task(f"{name}-play-singletask-task1-v0")
        self.timed = {timing: make_env(task, success_timing=timing).unwrapped for timing in ("pre", "post")}
        self.env = self.timed["post"]
        self.action = np.zeros(5, np.float32)

    def begin(self, number: int) -> None:
        for env in self.timed.values():
            env._reward_task_id = number
            env.reset(seed=0)

    def said_before(self, state: dict[str, np.ndarray]) -> float:
        """The reward of a step from the state, where rewards speak of the state before the step."""
        env = self.timed["pre"]
        set_state(env, state)
        return env.step(self.action)[1]

    def said_after(self, state: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[tuple[float, bool, bool]]]:
        """A step from the state: where it leads to, and what each timing says of that: reward, success, terminated.

        Where rewards speak of the state before a step, that is said one step later.
        """
        said = []
        for timing, env in self.timed.items():
            set_state(env, state)
            steps = [env.step(self.action)]
            if timing == "pre":
                env._reset_next_step = False
                steps.append(env.step(self.action))
            else:
                following = current(env)
            _, reward, terminated, _, info = steps[-1]
            said.append((reward, bool(info["success"]), terminated))
        return following, said


def set_state(env, state: dict[str, np.ndarray]) -> None:
    env._reset_next_step = False  # The state before may have ended the episode.
    env._success = False
    env.set_state(*(state[name].astype(np.float64 if name[0] == "q" else int) for name in STATE if name in state))


def current(env) -> dict[str, np.ndarray]:
    found = {"qpos": env.data.qpos.copy(), "qvel": env.data.qvel.copy()}
    return found | ({"button_states": env._cur_button_states.copy()} if hasattr(env, "_cur_button_states") else {})


def solved(env, state: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The state with one part after the other (cubes, buttons, drawer, window) set to what the task asks for."""
    goals: list[tuple[str, slice, np.ndarray]] = []
    for i in range(getattr(env, "_num_cubes", 0)):
        start = env.model.joint(f"object_joint_{i}").qposadr[0]
        goals.append(("qpos", slice(start, start + 3), env.data.mocap_pos[env._cube_target_mocap_ids[i]]))
    for i, wanted in enumerate(getattr(env, "_target_button_states", [])):
        goals.append(("button_states", slice(i, i + 1), wanted))
    for part in ("drawer", "window") if hasattr(env, "_target_drawer_pos") else ():
        at = env.model.joint(f"{part}_slide").qposadr[0]
        goals.append(("qpos", slice(at, at + 1), getattr(env, f"_target_{part}_pos")))
    found = [state]
    for name, where, wanted in goals:
        changed = {key: array.copy() for key, array in found[-1].items()}
        changed[name][where] = wanted
        found.append(changed)
    return found


def stacked(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([state[name] for state in states]) for name in states[0] if name != "qvel"}


@pytest.fixture(
    scope="module",
    params=sorted({family.rpartition("-")[0] for family in FAMILIES if not family.startswith("visual-")}),
)
def world(request) -> World:
    return World(request.param)


@pytest.fixture(scope="module")
def stored(world) -> list[dict[str, np.ndarray]]:
    """Some states of an episode of each of the world's two families; play and noisy have the same tasks."""
    episodes = [Collector(f"{world.name}-{style}", steps=80).episode(0, 0) for style in ("play", "noisy")]
    rows = [{name: episode[name][i] for name in STATE if name in episode} for episode in episodes for i in range(80)]
    return rows[::8]


def test_play_and_noisy_have_the_same_tasks():
    for task in (task for task in tasks() if task.dataset in FAMILIES and not task.is_visual):
        assert task.environment == find_task(task.id.replace("-noisy-", "-play-")).environment


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 6))
def test_recomputed_rewards_are_the_environments_own(world, stored, number):
    world.begin(number)
    states = stored + solved(world.env, stored[0])
    parts = len(states) - len(stored) - 1
    before = [world.said_before(state) for state in states]
    following, after = zip(*(world.said_after(state) for state in states), strict=True)
    labels = label(find_task(f"{world.name}-play-singletask-task{number}-v0"), stacked([*states, *following]))
    rewards, masks = labels.rewards, labels.masks
    np.testing.assert_array_equal(rewards[: len(states)], before)
    np.testing.assert_array_equal(masks[: len(states)], np.asarray(before) != 0)
    for reward, mask, said in zip(rewards[len(states) :], masks[len(states) :], after, strict=True):
        assert said == [(reward, mask == 0, mask == 0)] * 2
    # Each part that is set to its goal counts, and all of them together are the success.
    gained = rewards[len(stored) : len(states)]
    assert gained[-1] == 0
    assert (np.diff(gained) >= 0).all()
    assert gained[0] >= -parts
    assert (rewards < 0).any()
    assert (masks == 0).any()
