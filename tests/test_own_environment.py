"""An environment of the user's own: by id or function, vectors or dictionaries, offline and online, resumed."""

import functools
import inspect
import os
import sys

import gymnasium
import jax
import numpy as np
import pytest
from conftest import guidedflow, train_until_killed, trained_agents
from gymnasium.spaces import Box, Dict

import guidedflow as gf
from guidedflow.suites.gym import environment_task

SMALL = {"agent": "rebrac", "hidden": (12,), "batch_size": 16, "steps": 20, "log_every": 10, "save_every": 10}
SMALL |= {"eval_every": 20, "eval_episodes": 2, "eval_slots": 2, "progress": False}


class Line(gymnasium.Env):
    """A point on a line that is to be pushed to 0; physical actions in [-2, 2], dictionary observations."""

    def __init__(self, flag: str | None = "success", fails_at: int | None = None):
        self.observation_space = Dict({"place": Box(-5, 5, (1,)), "goal": Dict({"at": Box(-5, 5, (2,))})})
        self.action_space = Box(-2.0, 2.0, (1,))
        self._flag, self._fails_at = flag, fails_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._place, self._steps = self.np_random.uniform(-1, 1), 0
        return self._seen(), {}

    def step(self, action):
        assert abs(action[0]) <= 2.0
        self._steps += 1
        if self._steps == self._fails_at:
            raise ZeroDivisionError("the user's own mistake")
        self._place += 0.1 * float(action[0])
        info = {} if self._flag is None else {self._flag: abs(self._place) < 0.2}
        return self._seen(), -abs(self._place), False, self._steps == 5, info

    def _seen(self):
        return {"place": np.float32([self._place]), "goal": {"at": np.zeros(2, np.float32)}}


def on_the_moon():
    return gymnasium.make("Pendulum-v1", g=1.6)


def line_data(path):
    rng = np.random.default_rng(0)
    n = 60
    place = rng.uniform(-1, 1, (n, 1))
    last = np.arange(1, n + 1) % 5 == 0
    arrays = {
        "observations": {"place": place, "goal": {"at": np.zeros((n, 2))}},
        "actions": rng.uniform(-2, 2, (n, 1)),
        "rewards": -np.abs(place[:, 0]),
        "terminals": np.zeros(n),
        "timeouts": last,
    }
    return gf.convert(arrays, path, observation_keys=["place", "goal/at"], action_range=(-2.0, 2.0))


def pendulum_data(path):
    env, rng = gymnasium.make("Pendulum-v1", max_episode_steps=20), np.random.default_rng(0)
    rows = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            following, reward, _, over, _ = env.step(action)
            for name, value in zip(rows, (observation, action, reward, False, over), strict=True):
                rows[name].append(value)
            observation = following
    return gf.convert({name: np.array(values) for name, values in rows.items()}, path, action_range=(-2.0, 2.0))


@pytest.mark.slow
def test_a_gymnasium_id_is_trained_evaluated_resumed_and_extended(tmp_path):
    data = pendulum_data(tmp_path / "log.npz")
    run = gf.train(env="Pendulum-v1", dataset=data, run_dir=tmp_path / "run", seeds=(0, 1), **SMALL)
    config = run.config
    assert (config.task, config.env, config.title) == (None, "Pendulum-v1", "rebrac on Pendulum-v1")
    assert [row["seed"] for row in run.results] == [0, 1]
    for row in run.results:
        assert row["score"] == row["mean_return"] < 0
        assert row["mean_length"] == 200
        assert np.isnan(row["success"])
        assert np.isnan(row["success_high"])
    again = gf.evaluate(run.path, progress=False)
    assert [row["mean_return"] for row in again] == [row["mean_return"] for row in run.results]
    longer = gf.resume(run.path, extend_to=40, progress=False)
    assert {row["step"] for row in longer.results} == {40}
    assert longer.config.extensions[0].from_steps == 20
    other = gf.evaluate(run.path, env=f"{__name__}:on_the_moon", seed=0, progress=False)
    assert other[0]["mean_return"] != longer.results[0]["mean_return"]
    assert len(gf.RunFolder(run.path).evaluations()) == 6  # Not those of another environment.


@pytest.mark.slow
def test_a_function_with_dictionaries_and_physical_actions_is_trained_and_given_again(tmp_path):
    data = line_data(tmp_path / "line.npz")
    run = gf.train(env=Line, dataset=data, run_dir=tmp_path / "run", **SMALL)
    assert run.config.env == f"{__name__}:Line"
    assert all(0 <= row["success"] <= 1 for row in run.results)
    with pytest.raises(gf.RunError, match=r"its environment is .*:Line; give it again: env= \(--env "):
        gf.resume(run.path, progress=False)
    with pytest.raises(gf.RunError, match="give it again"):
        gf.evaluate(run.path, progress=False)
    found = gf.evaluate(run.path, env=functools.partial(Line, "is_success"), progress=False)
    assert [row["success"] for row in found] == [row["success"] for row in run.results]
    assert len(gf.RunFolder(run.path).evaluations()) == len(run.results)
    assert environment_task(functools.partial(Line, "is_success")).id == f"{__name__}:Line(...)"
    silent = gf.evaluate(run.path, env=lambda: Line(None), progress=False)
    assert np.isnan(silent[0]["success"])
    policy = gf.load_policy(run.path)
    assert policy({"place": np.zeros(1), "goal": {"at": np.zeros(2)}}).shape == (1,)


@pytest.mark.slow
def test_offline_to_online_in_an_environment_of_ones_own_survives_a_kill(tmp_path):
    data = line_data(tmp_path / "line.npz")
    settings = {**SMALL, "online_steps": 20, "env": Line, "dataset": data}
    whole = gf.train(run_dir=tmp_path / "whole", **settings)
    train_until_killed(35, run_dir=tmp_path / "cut", **settings)
    cut = gf.resume(tmp_path / "cut", env=Line, progress=False)
    for x, y in zip(trained_leaves(whole), trained_leaves(cut), strict=True):
        np.testing.assert_array_equal(x, y)
    assert whole.results == cut.results


def trained_leaves(run):
    return jax.tree.leaves(trained_agents(run.path))


def test_spaces_that_do_not_fit_are_one_line_before_anything_is_written(tmp_path):
    data, plain = line_data(tmp_path / "line.npz"), tmp_path / "plain.npz"
    np.savez(
        plain, observations=np.zeros((20, 3)), actions=np.zeros((20, 1)), rewards=np.zeros(20),
        terminals=np.arange(20) == 19,
    )  # fmt: skip
    for arguments, message in [
        ({"env": "Pendulum-v1", "dataset": data}, "observations: expected arrays of shape"),
        (
            {"env": "Pendulum-v1", "dataset": plain},
            r"actions: expected data that says .*--action-low -2",
        ),
        ({"env": "MountainCarContinuous-v0", "dataset": plain}, r"observations: expected \(2,\)"),
        ({"env": "CartPole-v1", "dataset": plain}, "expected a vector of continuous actions"),
        ({"env": "Nonsense-v3", "dataset": plain}, "env: expected a gymnasium id"),
        ({"env": "Pendulum-v1"}, "dataset: expected data to learn from beside an environment"),
        ({"env": "Pendulum-v1", "task": "door-human-v1"}, "env: expected none beside the task"),
        ({"env": Line(), "dataset": data}, "env: expected a gymnasium id or a function"),
    ]:
        with pytest.raises(gf.GuidedflowError, match=message) as error:
            gf.train(run_dir=tmp_path / "run", **{**SMALL, **arguments})
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_environments_own_exception_is_shown_as_it_is_and_the_run_is_saved(tmp_path):
    data = line_data(tmp_path / "line.npz")
    with pytest.raises(ZeroDivisionError, match="the user's own mistake"):
        gf.train(env=functools.partial(Line, fails_at=3), dataset=data, run_dir=tmp_path / "run", **SMALL)
    assert gf.RunFolder(tmp_path / "run").metrics()[-1]["step"] == 20
    run = gf.resume(tmp_path / "run", env=Line, progress=False)
    assert [row["step"] for row in run.results] == [20]


@pytest.mark.slow
def test_the_command_line_takes_them_too(tmp_path):
    line_data(tmp_path / "line.npz")
    imports = "import gymnasium\nimport numpy as np\nfrom gymnasium.spaces import Box, Dict\n\n"
    (tmp_path / "mine.py").write_text(imports + inspect.getsource(Line))
    options = ["--agent", "rebrac", "--hidden", "12", "--batch-size", "16", "--steps", "20", "--log-every", "10"]
    options += ["--save-every", "20", "--eval-every", "20", "--eval-episodes", "2"]
    command = ["train", "--env", "mine:Line", "--dataset", "line.npz", "--run-dir", "run", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = guidedflow(*command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "actor" in done.stdout
    done = guidedflow("train", "--resume", "run", "--extend-to", "40", cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "--env mine:Line" in done.stderr
    again = ["train", "--resume", "run", "--extend-to", "40", "--env", "mine:Line"]
    assert guidedflow(*again, cwd=tmp_path, env=environment).returncode == 0
    done = guidedflow("evaluate", "run", "--env", "mine:Line", "--json", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert '"policy": "actor"' in done.stdout


class Camera(gymnasium.Env):
    """A picture of a bright column, and one action."""

    observation_space = Box(0, 255, (8, 8, 1), np.uint8)
    action_space = Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros((8, 8, 1), np.uint8), {}

    def step(self, action):
        self._steps += 1
        return np.full((8, 8, 1), 10 * self._steps, np.uint8), 1.0, False, self._steps == 3, {}


@pytest.mark.slow
@pytest.mark.usefixtures("small_pictures")
def test_stacked_pictures_of_a_file_are_stacked_in_the_environment_too(tmp_path):
    frames = np.arange(12 * 64, dtype=np.uint8).reshape(12, 8, 8, 1)
    ends = np.arange(12) % 4 == 3
    np.savez(
        tmp_path / "log.npz",
        observations=frames,
        actions=np.zeros((12, 1)),
        rewards=np.ones(12),
        terminals=np.zeros(12),
        timeouts=ends,
        frame_stack=2,
    )
    run = gf.train(env=Camera, dataset=tmp_path / "log.npz", run_dir=tmp_path / "run", **SMALL)
    assert run.config.spec.observation_shape == (8, 8, 2)
    assert [row["mean_return"] for row in run.results] == [3.0]
