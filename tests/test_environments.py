"""Every task's environment is made, reset, stepped and scored."""

import math
import time
from collections import Counter

import numpy as np
import pytest
from conftest import make_env

from guidedflow.opengl import NO_BACKEND, gl_backend
from guidedflow.processes import HelperProcess, available_cores
from guidedflow.suites import Task, tasks


def probe(ask, mine):
    """What goes wrong with each task, for whoever asks, in this process of its own."""
    ask([problem for task in mine for problem in problems(task)])


def problems(task: Task) -> list[str]:
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
    expected = {
        "observation's shape": first.shape == following.shape == task.observation_shape,
        "action's shape": env.action_space.shape == (task.action_size,),
        "same start from the same seed": np.array_equal(first, again),
        "finite reward": math.isfinite(reward),
        "picture of uint8": not task.is_visual or first.dtype == np.uint8,
        "success in the info": speaks or task.scored_by == "return",
        "score": math.isfinite(task.suite.score(task, success, -10.0)),
        "time limit": env.spec is not None and bool(env.spec.max_episode_steps),
    }
    return [f"{task.id}: {name}" for name, holds in expected.items() if not holds]


@pytest.mark.slow
def test_all_144_tasks_are_made_stepped_and_scored():
    found = tasks()
    assert Counter(task.suite.name for task in found) == {"ogbench": 105, "d4rl": 18, "minari": 21}
    backend = gl_backend()
    if backend is None:
        found = tuple(task for task in found if not task.is_visual)
    began = time.monotonic()
    cores = available_cores()
    helpers = [HelperProcess(probe, found[i::cores], gl_backend=backend) for i in range(cores)]
    try:
        assert [problem for helper in helpers for problem in helper.receive()] == []
    finally:
        for helper in helpers:
            helper.close()
    assert time.monotonic() - began < 600  # The target is 240 s with both cores free.
    if backend is None:
        pytest.skip(f"139 of 144; for the 5 with pixels: {NO_BACKEND}")
