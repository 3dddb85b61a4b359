"""Environments of the user's own: what they may be, and how they are held against data."""

import functools
import pickle
import sys
import textwrap
import threading
from pathlib import Path

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from guidedflow.envs.vector import Reset, VectorEnv
from guidedflow.errors import DataError, SettingsError
from guidedflow.opengl import gl_backend
from guidedflow.suites.gym import environment_task, is_safe_name
from guidedflow.types import ActionRange, Spec

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # As a script's or a notebook's own definitions are.
UNIT = Box(-1, 1, (2,), np.float32)
VECTOR = np.dtype("float32")


class Own(gymnasium.Env):
    """Of any spaces."""

    def __init__(self, observation_space=None, action_space=UNIT, render_mode=None):
        self.observation_space = observation_space or Box(-1, 1, (3,), np.float64)
        self.action_space, self.render_mode = action_space, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.seen(), {}

    def step(self, action):
        return self.seen(), 0.0, False, True, {}

    def seen(self):
        return self.observation_space.sample()


def task_of(*spaces, spec=None):
    return environment_task(functools.partial(Own, *spaces), spec=spec)


def spec(shape=(3,), size=2, *, dtype=VECTOR, keys=(), low=None, high=None):
    bounds = None if low is None else ActionRange(low, high)
    return Spec(shape, np.dtype(dtype), size, keys, bounds)


def problem(task, found: Spec) -> str:
    with pytest.raises(DataError) as caught:
        task.suite.check(task, found, "log.npz")
    message = str(caught.value)
    assert message.startswith("log.npz: ")
    assert "\n" not in message
    return message.removeprefix("log.npz: ")


def test_a_registered_id_becomes_a_task_scored_by_its_return():
    task = environment_task("Pendulum-v1")
    assert (task.id, task.environment, task.observation_shape, task.action_size) == (
        "Pendulum-v1",
        "Pendulum-v1",
        (3,),
        1,
    )
    suite = task.suite
    assert (task.scored_by, suite.score(task, float("nan"), -150.0)) == ("return", -150.0)
    assert suite.protocol(task) is None
    assert suite.published_settings("gfp", task) is None
    assert suite.training_reward(task, -2.5) == -2.5
    assert suite.make_env(task).spec.max_episode_steps == 200
    assert not suite.has_data(task)
    with pytest.raises(DataError, match=r"Pendulum-v1: expected data beside an environment of your own"):
        suite.find_data(task)


def test_actions_are_those_of_the_environment():
    task = environment_task("Pendulum-v1")
    task.suite.check(task, spec((3,), 1, low=(-2.0,), high=(2.0,)), "log.npz")
    task.suite.check(task, spec((3,), 1, low=(-1.0,), high=(0.5,)), "log.npz")  # What the data has of them.
    said = problem(task, spec((3,), 1))
    assert "takes -2 to 2; " in said
    assert "guidedflow data convert --action-low -2 --action-high 2," in said
    said = problem(task, spec((3,), 1, low=(-2.0,), high=(3.0,)))
    assert "expected a range within -2 to 2 in dimension 0, as Pendulum-v1 has, found -2 to 3" in said
    assert "actions: expected (1,) a row, as Pendulum-v1 has, found (2,)" in problem(task, spec())
    unit, free = task_of(None, UNIT), task_of(None, Box(-np.inf, np.inf, (2,), np.float32))
    for task in (unit, free):
        task.suite.check(task, spec(), "log.npz")
    uneven = task_of(None, Box(np.float32([-1, 0]), np.float32([1, 5]), dtype=np.float32))
    assert "--action-low -1 0 --action-high 1 5" in problem(uneven, spec())


def test_observations_are_those_of_the_environment():
    vector = task_of()
    assert "observations: expected (3,) a row, as" in problem(vector, spec((4,)))
    assert "found (4,)" in problem(vector, spec((4,)))
    assert "expected float64, as" in problem(vector, spec(dtype="uint8"))
    said = problem(vector, spec(keys=(("a", (1,)), ("b", (2,)))))
    assert "expected arrays of shape (3,)" in said
    assert "found a dictionary's entries a, b" in said


def test_dictionaries_are_compared_entry_by_entry():
    inner = Dict({"angles": Box(-1, 1, (2,)), "grip": Discrete(2)})
    task = task_of(Dict({"goal": Box(-1, 1, (3,)), "arm": inner, "camera": Box(0, 255, (8, 8, 3), np.uint8)}))
    keys = (("goal", (3,)), ("arm/grip", ()), ("arm/angles", (2,)))
    task.suite.check(task, spec((6,), keys=keys), "log.npz")
    said = problem(task, spec((6,)))
    assert "expected a dictionary's entries" in said
    for entry in ("goal (3,)", "arm/angles (2,)", "arm/grip ()", "camera (8, 8, 3)"):
        assert entry in said
    assert "FlattenObservation" in said
    assert "observations/goal: expected (3,), as" in problem(task, spec((2,), keys=(("goal", (2,)),)))
    assert "observations/target: expected one of the entries" in problem(task, spec((2,), keys=(("target", (2,)),)))
    with VectorEnv(
        functools.partial(task.suite.make_env, task), slots=1, workers=1, spec=spec((6,), keys=keys)
    ) as vector:
        assert vector.exchange([Reset(0)])[0].observation.shape == (6,)


def test_pictures_are_stacked_as_the_datas_are():
    camera = Box(0, 255, (8, 8, 3), np.uint8)
    stacked = spec((8, 8, 9), dtype="uint8")
    task = task_of(camera, spec=stacked)
    assert (task.observation_shape, task.frame_stack, task.is_visual, task.needs_opengl) == ((8, 8, 9), 3, True, False)
    task.suite.check(task, stacked, "log.npz")
    assert task.suite.make_env(task).reset(seed=0)[0].shape == (8, 8, 9)
    single = task_of(camera)
    assert single.frame_stack == 1
    assert "expected (8, 8, 3) a row, as" in problem(single, stacked)
    assert "expected uint8, as" in problem(single, spec((8, 8, 3)))


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ((None, Discrete(4)), r"expected a vector of continuous actions \(a Box of floats\), found Discrete\(4\)"),
        ((None, Box(0, 1, (2, 2))), r"expected a vector of continuous actions"),
        ((None, Box(0, 9, (2,), np.int64)), r"expected a vector of continuous actions"),
        ((Discrete(5),), r"expected observations that are vectors, pictures or a dictionary, found Discrete\(5\);"),
        ((Box(0, 1, (3, 4)),), r"expected observations that are .*; gymnasium.wrappers.FlattenObservation makes them"),
        ((Tuple([Box(0, 1, (3,))]),), r"expected observations that are"),
    ],
)
def test_what_cannot_be_learned_is_one_line(spaces, message):
    with pytest.raises(SettingsError, match=f"^env: {message}") as caught:
        task_of(*spaces)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Pendulun-v1", r"expected a gymnasium id, or module:function, found 'Pendulun-v1': .*Pendulum"),
        (
            "no_such_module:make",
            r"expected a module that can be imported before the colon, found 'no_such",
        ),
        (3, r"expected a gymnasium id or a function that makes an environment, found int"),
        (Own(), r"expected a gymnasium id or a function .*, found Own; several are made"),
        (lambda: 3, r"expected .*<lambda> to make a gymnasium.Env, found int"),
    ],
)
def test_what_is_no_environment_is_one_line(env, message):
    with pytest.raises(SettingsError, match=f"^env: {message}") as caught:
        environment_task(env)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_given_to_another_process_is_one_line():
    lock = threading.Lock()
    with pytest.raises(SettingsError, match=r"^env: expected a function that worker processes can be given, found: "):
        environment_task(lambda: lock)


def test_an_exception_while_it_is_made_is_shown_as_it_is():
    def fail():
        raise ZeroDivisionError("of the user")

    with pytest.raises(ZeroDivisionError, match="of the user"):
        environment_task(fail)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A module of the user's with an environment, which reads a file from where the user is."""
    code = """
        import gymnasium
        from pathlib import Path

        gymnasium.register("Ours-v3", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=7)

        def make(limit=5, **options):
            assert Path("robot.txt").read_text() == "pendulum"
            return gymnasium.make("Pendulum-v1", max_episode_steps=limit, **options)
    """
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "our_robots.py").write_text(textwrap.dedent(code))
    (tmp_path / "robot.txt").write_text("pendulum")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("env", "limit"), [("our_robots:make", 5), ("our_robots:Ours-v3", 7)])
def test_a_module_of_ones_own_is_imported_in_the_workers(package, env, limit):
    task = environment_task(env)
    assert task.environment == env
    with VectorEnv(functools.partial(task.suite.make_env, task), slots=2, workers=2) as vector:
        vector.exchange([Reset(0), Reset(1)])
        ends = [vector.exchange([np.zeros(1, np.float32)] * 2)[0].truncated for _ in range(limit)]
    assert ends == [False] * (limit - 1) + [True]
    assert "our_robots" not in sys.modules


def test_a_function_is_named_and_reaches_workers_by_that_name(package):
    import our_robots

    task = environment_task(our_robots.make)
    assert task.environment == "our_robots:make"
    assert b"our_robots" in pickle.dumps(task)
    assert pickle.loads(pickle.dumps(task)).suite.make_env(task).spec.max_episode_steps == 5
    # Options go to the function as far as it takes them.
    assert task.suite.make_env(task, render_mode="rgb_array").render_mode == "rgb_array"


def test_options_that_a_function_does_not_take_are_left_out():
    plain = environment_task(lambda: gymnasium.make("Pendulum-v1"))
    assert plain.suite.make_env(plain, render_mode="rgb_array").render_mode is None


def test_resets_depend_on_the_seed_alone():
    class Sloppy(Own):
        def seen(self):
            return np.random.normal(size=3)  # noqa: NPY002

    task = environment_task(Sloppy)
    env = task.suite.make_env(task)
    first = env.reset(seed=3)[0]
    np.testing.assert_array_equal(env.reset(seed=3)[0], first)
    assert not np.array_equal(env.reset(seed=4)[0], first)


@pytest.mark.skipif(gl_backend() is None, reason="needs EGL (libegl1, libgl1-mesa-dri) or OSMesa (libosmesa6)")
def test_an_environment_may_draw_while_it_is_made():
    def make():
        env = gymnasium.make("Hopper-v5", render_mode="rgb_array", width=16, height=16)
        return gymnasium.wrappers.AddRenderObservation(env)

    task = environment_task(make)
    assert task.observation_shape == (16, 16, 3)
    assert task.gl_backend() == gl_backend()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Pendulum-v1", True),
        ("ALE/Pong-v5", True),
        ("my.env_2-v0", True),
        ("os:system", False),
        ("module:Id-v0", False),
        ("a/b/c-v0", False),
        ("../x", False),
        ("", False),
        ("x\n", False),
        ("Pendulum-v1 ", False),
    ],
)
def test_only_bare_ids_are_safe_to_make(name, safe):
    assert is_safe_name(name) is safe
