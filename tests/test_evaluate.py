"""Environments and evaluation."""

import functools
import itertools
import math
import os

import gymnasium
import numpy as np
import pytest
from scipy.stats import binomtest

import guidedflow as gf
from guidedflow import opengl
from guidedflow.envs.vector import Outcome, Reset, VectorEnv
from guidedflow.opengl import gl_backend
from guidedflow.runs.summary import over_seeds, success_interval, wilson_interval
from guidedflow.suites import find_task, tasks
from guidedflow.training.episodes import EpisodeResult, run_episodes, summarize
from guidedflow.types import Spec

TASK = find_task("cube-single-noisy-singletask-task1-v0")


def make_env(task, **options):
    return task.suite.make_env(task, **options)


def vector_env(slots, workers, *, gl_backend=None, **options):
    make = functools.partial(TASK.suite.make_env, TASK, **options)
    return VectorEnv(make, slots=slots, workers=workers, gl_backend=gl_backend)


class ScriptedEnv:
    """Slots whose episode from seed s lasts as long as ``lengths`` says and succeeds if that is short."""

    def __init__(self, slots, lengths):
        self.slots, self.lengths = slots, lengths
        self.started, self.clock = [], [None] * slots

    def exchange(self, commands):
        outcomes = []
        for slot, command in enumerate(commands):
            if command is None:
                outcomes.append(None)
                continue
            if isinstance(command, Reset):
                self.started.append(command.seed)
                self.clock[slot] = [0, self.lengths[len(self.started) - 1]]
            else:
                self.clock[slot][0] += 1
            step, length = self.clock[slot]
            outcomes.append(Outcome(np.zeros(1, np.float32), -1.0, step == length, False, float(length < 5), None))
        return outcomes


@pytest.mark.parametrize(("slots", "episodes"), [(1, 5), (3, 7), (4, 4), (5, 20)])
def test_each_slot_runs_its_share_and_no_more(slots, episodes):
    lengths = list(itertools.islice(itertools.cycle([2, 9, 9]), episodes))
    env = ScriptedEnv(slots, lengths)
    found = run_episodes(
        lambda s, key, call: np.zeros((slots, 1)), env, Spec((1,), np.dtype("float32"), 1), episodes=episodes, seed=0
    )
    assert [episode.number for episode in found] == list(range(episodes))
    assert len(env.started) == len(set(env.started)) == episodes
    assert sorted(episode.length for episode in found) == sorted(lengths)
    assert all(episode.total_reward == -episode.length for episode in found)
    assert np.mean([episode.success for episode in found]) == np.mean(np.array(lengths) < 5)


def test_intervals():
    for successes, n in [(0, 10), (7, 10), (50, 50), (1, 3)]:
        wanted = binomtest(successes, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson_interval(successes / n, n), (wanted.low, wanted.high), atol=1e-12)
    rows = [EpisodeResult(i, float(i), 10 + i, float(i % 2)) for i in range(4)]
    summary = summarize(rows)
    assert (summary.episodes, summary.success, summary.mean_return, summary.mean_length) == (4, 0.5, 1.5, 11.5)
    assert summary.return_half_width == pytest.approx(1.96 * np.std([0, 1, 2, 3], ddof=1) / 2, rel=1e-3)
    assert math.isnan(summarize(rows[:1]).return_half_width)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "cube-double-play-singletask-task3-v0",
        "scene-noisy-singletask-v0",
        "puzzle-3x3-play-singletask-task5-v0",
        "antmaze-large-stitch-singletask-task1-v0",
        "antsoccer-arena-navigate-singletask-v0",
        "humanoidmaze-medium-navigate-singletask-v0",
    ],
)
def test_a_seed_decides_an_episode_whatever_came_before(name):
    env, other = make_env(find_task(name)), make_env(find_task(name))
    for _ in range(2):
        other.reset(seed=5)
        other.step(other.action_space.sample())
    first, second = env.reset(seed=3)[0], other.reset(seed=3)[0]
    np.testing.assert_array_equal(first, second)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, *env.action_space.shape)):
        a, b = env.step(action.astype(np.float32)), other.step(action.astype(np.float32))
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:4] == b[1:4]
    assert not np.array_equal(env.reset(seed=4)[0], first)


def test_every_ogbench_task_has_its_environment_and_a_default():
    import ogbench  # noqa: F401

    for task in tasks():
        if task.suite.name == "ogbench":
            assert task.environment in gymnasium.registry
    defaults = {name: find_task(f"{name}-singletask-v0").id[-8:-3] for name in ("cube-single-play", "puzzle-3x3-play")}
    assert defaults == {"cube-single-play": "task2", "puzzle-3x3-play": "task4"}


def test_success_timing_post_is_the_default_and_speaks_of_the_state_after_the_step():
    solved = {}
    for timing, options in {
        "default": {},
        "post": {"success_timing": "post"},
        "pre": {"success_timing": "pre"},
    }.items():
        env = make_env(TASK, **options)
        env.reset(seed=0)
        data = env.unwrapped._data
        data.joint("object_joint_0").qpos[:3] = data.mocap_pos[0]  # The first step ends in a solved state.
        solved[timing] = bool(env.step(np.zeros(5, np.float32))[4]["success"])
    assert solved == {"default": True, "post": True, "pre": False}


@pytest.mark.slow
def test_workers_see_what_one_environment_sees_without_opengl():
    env = make_env(TASK)
    observation, _ = env.reset(seed=7)
    action = np.full(5, 0.3, np.float32)
    with vector_env(3, 2) as vector:
        outcomes = vector.exchange([None, Reset(7), None])
        assert outcomes[0] is None
        np.testing.assert_array_equal(outcomes[1].observation, observation.astype(np.float32))
        outcomes = vector.exchange([None, action, None])
        np.testing.assert_array_equal(outcomes[1].observation, env.step(action)[0].astype(np.float32))
        assert outcomes[1].reward == -1.0


def test_a_failing_environment_says_so():
    with vector_env(1, 1) as vector:
        vector.exchange([Reset(1)])
        with pytest.raises(ValueError, match="shape") as failed:
            vector.exchange([np.zeros(3, np.float32)])
    assert "Traceback" in str(failed.value.__cause__)  # Of the worker.


def test_a_killed_worker_says_so():
    def suicide():
        os.kill(os.getpid(), 9)

    with VectorEnv(suicide, slots=1, workers=1) as vector, pytest.raises(gf.WorkerDied, match="exit code -9"):
        vector.exchange([Reset(1)])


@pytest.mark.slow
@pytest.mark.skipif(gl_backend() is None, reason="videos need EGL (libegl1, libgl1-mesa-dri) or OSMesa (libosmesa6)")
def test_videos_are_written(tmp_path):
    from PIL import Image

    def act(observations, key, call):
        return np.ones((1, 5), np.float32)  # Moves, so that no two frames are alike.

    with vector_env(1, 1, gl_backend=gl_backend(), max_episode_steps=5) as vector:
        run_episodes(
            act, vector, Spec((28,), np.dtype("float32"), 5), episodes=2, seed=0, videos=1, video_stem=tmp_path / "clip"
        )
        outcome = vector.exchange([Reset(3)])[0]
        assert outcome is not None
        assert outcome.frame is None  # Only what is filmed is drawn.
    assert [path.name for path in tmp_path.iterdir()] == ["clip-episode0.gif"]
    with Image.open(tmp_path / "clip-episode0.gif") as clip:
        assert clip.width == 200
        assert clip.height > 200  # Below the picture stand policy, step, return and success.
        assert clip.n_frames == 6


def row(seed, success, episodes=50, **more):
    plain = {"variant": (), "policy": "actor", "seed": seed, "episodes": episodes, "success": success}
    return {**plain, "mean_return": 0.0, "score": 100 * success, **more}


def test_no_success_has_no_interval():
    assert all(map(math.isnan, wilson_interval(math.nan, 50)))
    found = summarize([EpisodeResult(i, 1.0, 5, math.nan) for i in range(3)])
    assert all(map(math.isnan, (found.success, found.success_low, found.success_high)))
    (merged,) = over_seeds([row(0, math.nan), row(1, math.nan)])
    assert all(map(math.isnan, (merged["success"], merged["success_low"], merged["success_high"])))


def test_an_interval_over_seeds_is_never_narrower_than_their_episodes_allow():
    low, high = success_interval([0.0, 0.0], 100)
    assert low == 0.0
    assert high == pytest.approx(wilson_interval(0.0, 100)[1])
    (merged,) = over_seeds([row(0, 1.0), row(1, 1.0)])
    assert (merged["success_low"], merged["success_high"]) == pytest.approx(wilson_interval(1.0, 100))
    wide = success_interval([0.2, 0.8], 100)  # Where the seeds differ, that decides.
    assert wide == (0.0, 1.0)
    assert all(map(math.isnan, success_interval([0.5], 50)))


def test_without_opengl_a_clear_line_and_no_video(monkeypatch):
    monkeypatch.setattr(opengl, "BACKENDS", ("nonsense",))
    gl_backend.cache_clear()
    assert gl_backend() is None
    gl_backend.cache_clear()
    assert "\n" not in opengl.NO_BACKEND
    assert "apt-get install" in opengl.NO_BACKEND
