"""Every task's environment is made, reset, stepped and scored; the quick ones do what OGBench's do."""

import dataclasses
import functools
import math
import time
from collections import Counter
from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
from conftest import make_env

from guidedflow.envs import wrappers
from guidedflow.opengl import NO_BACKEND, gl_backend
from guidedflow.processes import HelperProcess, available_cores
from guidedflow.suites import Task, tasks
from guidedflow.suites.ogbench import environments


def probe(ask, mine):
    """What goes wrong with each task, for whoever asks, in this process of its own."""
    ask([problem for together in mine for problem in problems(together)])


def problems(together: Sequence[Task]) -> list[str]:
    """Of tasks whose environments are made of the same arguments."""
    task = together[0]
    env = make_env(task)
    try:
        first, _ = env.reset(seed=0)
        again, _ = env.reset(seed=0)
        env.action_space.seed(0)
        following, reward, *_, info = env.step(env.action_space.sample())
    finally:
        env.close()
    speaks = "success" in info
    success = float(info["success"]) if speaks else math.nan
    of_all = {
        "same start from the same seed": np.array_equal(first, again),
        "finite reward": math.isfinite(reward),
        "time limit": env.spec is not None and bool(env.spec.max_episode_steps),
    }
    found = []
    for task in together:
        expected = of_all | {
            "observation's shape": first.shape == following.shape == task.observation_shape,
            "action's shape": env.action_space.shape == (task.action_size,),
            "picture of uint8": not task.is_visual or first.dtype == np.uint8,
            "success in the info": speaks or task.scored_by == "return",
            "score": math.isfinite(task.suite.score(task, success, -10.0)),
        }
        found += [f"{task.id}: {name}" for name, holds in expected.items() if not holds]
    return found


@pytest.mark.slow
def test_all_144_tasks_are_made_stepped_and_scored():
    found = tasks()
    assert Counter(task.suite.name for task in found) == {"ogbench": 105, "d4rl": 18, "minari": 21}
    backend = gl_backend()
    if backend is None:
        found = tuple(task for task in found if not task.is_visual)
    worlds: dict[tuple, list[Task]] = {}
    for task in found:
        worlds.setdefault((task.suite.name, task.environment, task.frame_stack), []).append(task)
    began = time.monotonic()
    cores = available_cores()
    helpers = [HelperProcess(probe, [*worlds.values()][i::cores], gl_backend=backend) for i in range(cores)]
    try:
        assert [problem for helper in helpers for problem in helper.receive()] == []
    finally:
        for helper in helpers:
            helper.close()
    assert time.monotonic() - began < 600  # The target is 240 s with both cores free.
    if backend is None:
        pytest.skip(f"139 of 144; for the 5 with pixels: {NO_BACKEND}")


def ogbenchs_own(environment: str, **options) -> gymnasium.Env:
    spec = environments.specification(environment)
    world = gymnasium.envs.registration.load_env_creator(spec.entry_point)

    class WithSeededActionSpace(world):
        @functools.cached_property
        def action_space(self):
            return super().action_space

    return wrappers.make(dataclasses.replace(spec, entry_point=WithSeededActionSpace), **options)


def assert_same_bits(ours, theirs, where) -> None:
    """Types, too; of a dictionary the order of its keys."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for name, value in ours.items():
            assert_same_bits(value, theirs[name], (*where, name))
    elif isinstance(ours, np.ndarray):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), where
    else:
        assert ours == theirs, where


def assert_all_same_bits(answers, where):
    """What the last of them is."""
    *ours, theirs = answers
    for answer in ours:
        assert_same_bits(dict(enumerate(answer)), dict(enumerate(theirs)), where)
    return theirs


def assert_same_episodes(envs, steps: int) -> set[float]:
    """The rewards of all, which are compared with the last.

    The arm stays low and presses buttons; now and then a cube is put on its target.
    """
    rng = np.random.default_rng(0)
    rewards = set()
    ended, episode = True, 0
    for step in range(steps):
        if ended:
            assert_all_same_bits([env.reset(seed=episode) for env in envs], ("reset", episode))
            episode += 1
        action = rng.uniform(-1, 1, 5).astype(np.float32)
        if step % 3:
            action[:3] *= (0.1, 0.1, -0.8 * np.sign(action[2]))
        for inner in (env.unwrapped for env in envs):
            if step % 97 == 96 and hasattr(inner, "_num_cubes"):
                cube = inner._num_cubes - 1 if inner._mode == "task" else inner._target_block
                target = inner.data.mocap_pos[inner._cube_target_mocap_ids[cube]]
                inner.data.joint(f"object_joint_{cube}").qpos[:3] = target
        _, reward, terminated, truncated, _ = assert_all_same_bits([env.step(action) for env in envs], ("step", step))
        rewards.add(reward)
        ended = terminated or truncated
    assert episode > 2
    return rewards


def drawn_and_undrawn(make, monkeypatch) -> list[gymnasium.Env]:
    """What a process makes that draws, and one that cannot."""
    made = []
    for backend in ("egl", "disabled"):
        monkeypatch.setenv("MUJOCO_GL", backend)
        made.append(make())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("world", ["cube-single", "cube-double", "cube-triple", "scene", "puzzle-3x3", "puzzle-4x4"])
def test_the_quick_manipulation_environments_do_what_ogbenchs_do_to_the_last_bit(world, monkeypatch):
    task = f"{world}-singletask-task1-v0"
    ours = drawn_and_undrawn(lambda: environments.make(task, max_episode_steps=250), monkeypatch)
    rewards = assert_same_episodes([*ours, ogbenchs_own(task, max_episode_steps=250)], 2000)
    assert len(rewards) > 1


def test_the_arms_meshes_are_left_out_where_nothing_can_be_drawn(monkeypatch):
    task = "cube-single-singletask-task1-v0"
    drawn, undrawn = (env.unwrapped._model for env in drawn_and_undrawn(lambda: environments.make(task), monkeypatch))
    assert drawn.nmesh == ogbenchs_own(task).unwrapped._model.nmesh > undrawn.nmesh
    assert (drawn.body_mass == undrawn.body_mass).all()
    assert (drawn.body_inertia == undrawn.body_inertia).all()
    touching = [np.count_nonzero(model.geom_contype | model.geom_conaffinity) for model in (drawn, undrawn)]
    assert touching[0] == touching[1]


@pytest.mark.slow
@pytest.mark.parametrize("world", ["cube-double", "scene", "puzzle-3x3"])
def test_they_tell_the_oracles_the_same(world, monkeypatch):
    spec = environments.specification(f"{world}-v0")
    options = {"mode": "data_collection", "terminate_at_goal": False, "max_episode_steps": 50}

    def make(spec):
        return gymnasium.make(spec, disable_env_checker=True, **options)

    ours = drawn_and_undrawn(lambda: make(environments.quickened(spec)), monkeypatch)
    assert_same_episodes([*ours, make(spec)], 200)


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_a_step_after_a_state_was_set_tells_of_the_new_state():
    env = environments.make("scene-v0", mode="data_collection")
    env.reset(seed=0)
    env.step(np.zeros(5, np.float32))
    inner = env.unwrapped
    qpos, target = inner.data.qpos.copy(), 1 - inner._cur_button_states
    qpos[14] += 0.1
    inner.set_state(qpos, inner.data.qvel, target)
    told = inner.get_step_info()
    assert told["privileged/block_0_pos"][0] == qpos[14]
    np.testing.assert_array_equal(told["button_states"], target)
    following, *_, info = env.step(np.zeros(5, np.float32))
    np.testing.assert_array_equal(info["prev_qpos"], qpos)
    np.testing.assert_array_equal(info["prev_button_states"], target)
    np.testing.assert_array_equal(following, inner.compute_observation())
