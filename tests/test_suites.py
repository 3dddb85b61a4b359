"""What every suite promises, whatever it is. Nothing here knows a suite by name, save the 144 tasks at the end."""

import csv
import functools
import inspect
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import guidedflow, install_plugin, make_env, worked_example

import guidedflow as gf
from guidedflow.envs.vector import Reset, VectorEnv
from guidedflow.errors import DataError, SettingsError
from guidedflow.suites import SUITES, Suite, Task, find_data_task, find_task, generate, suites, tasks
from guidedflow.types import Spec

FACTS = Path(__file__).parent / "facts"
METHODS = ("gfp", "gfp-advantage", "fql", "rebrac", "iql")
CODE, NAME, TARGET = worked_example("A new benchmark")


@pytest.fixture
def plugin(tmp_path, monkeypatch) -> Path:
    """The worked example of CONTRIBUTING.md, installed as a package of its own."""
    folder = tmp_path / "site"
    install_plugin(folder, monkeypatch, "guidedflow.suites", NAME, f"{NAME}:{TARGET.partition(':')[2]}", CODE)
    return folder


@pytest.fixture(params=[*SUITES, NAME])
def suite(request) -> Suite:
    if request.param == NAME:
        request.getfixturevalue("plugin")
    return suites()[request.param]


@pytest.fixture
def task(suite) -> Task:
    """One that needs no OpenGL."""
    return next(task for task in suite.tasks() if not task.needs_opengl)


def test_tasks_are_well_formed(suite):
    found = suite.tasks()
    ids = [task.id for task in found]
    assert len(found) == len(set(ids)) >= 2
    assert SUITES[suite.name] is type(suite)
    for task in found:
        assert task.suite is suite
        assert suite.find(task.id) is not None
        assert suite.find(task.id) == find_task(task.id) == task
        assert task.category.startswith(f"{suite.name}/")
        assert task.dataset
        assert task.environment
        assert task.action_size > 0
        assert len(task.observation_shape) in (1, 3)
        assert min(task.observation_shape) > 0
        assert task.observation_shape[-1] % task.frame_stack == 0
        assert task.is_visual == (len(task.observation_shape) == 3)
    assert suite.find("no-such-task-v0") is None
    assert {find_data_task(task.dataset).dataset for task in found} == {task.dataset for task in found}


def test_tasks_travel_to_workers_without_their_siblings(suite, task):
    packed = pickle.dumps(task)
    assert len(packed) < 1000
    copy = pickle.loads(packed)
    assert copy == task
    assert type(copy.suite) is type(suite)


def test_an_environment_is_that_of_the_task_and_its_resets_depend_on_the_seed_alone(task):
    env, other = make_env(task), make_env(task)
    other.reset(seed=5)
    other.step(other.action_space.sample())
    first = env.reset(seed=3)[0]
    np.testing.assert_array_equal(first, other.reset(seed=3)[0])
    assert not np.array_equal(first, env.reset(seed=4)[0])
    assert first.shape == task.observation_shape
    assert env.action_space.shape == (task.action_size,)
    env.reset(seed=3)
    other.reset(seed=3)
    for action in np.random.default_rng(0).uniform(-1, 1, (3, task.action_size)).astype(np.float32):
        seen, reward, terminated, truncated, info = env.step(action)
        again = other.step(action)
        np.testing.assert_array_equal(seen, again[0])
        assert (reward, terminated, truncated) == again[1:4]
    assert task.scored_by == "return" or "success" in info


def test_environments_are_made_and_stepped_in_workers(task):
    with VectorEnv(functools.partial(task.suite.make_env, task), slots=2, workers=2) as vector:
        vector.exchange([Reset(0), Reset(1)])
        outcomes = vector.exchange([np.zeros(task.action_size, np.float32)] * 2)
    for outcome in outcomes:
        assert outcome.observation.shape == task.observation_shape
        assert np.isfinite(outcome.reward)
        assert np.isfinite(outcome.success) or task.scored_by == "return"


def test_scores_rise_with_what_they_are_made_of(suite):
    for task in suite.tasks():
        if task.scored_by == "success":
            assert [suite.score(task, rate, np.nan) for rate in (0.0, 0.5, 1.0)] == [0.0, 50.0, 100.0]
        else:
            scores = [suite.score(task, np.nan, total) for total in (-100.0, 0.0, 1000.0)]
            assert np.isfinite(scores).all()
            assert scores == sorted(scores)


def test_the_published_protocol_can_be_followed(suite):
    for task in suite.tasks():
        found = suite.protocol(task)
        if found is None:
            continue
        assert found.score_steps
        assert list(found.score_steps) == sorted(set(found.score_steps))
        assert 0 < found.score_steps[0] <= found.score_steps[-1] == found.steps
        assert found.episodes > 0
        assert found.seeds > 0
        assert found.tolerance >= 0
        assert found.success_timing in (None, "post", "pre")
        assert found.tolerance == 0 or task.scored_by == "success"


@pytest.mark.slow
def test_published_settings_are_settings(suite):
    from guidedflow.agents import find_agent
    from guidedflow.training.settings import TrainSettings

    known = {name for name in vars(TrainSettings) if not name.startswith("_")}
    for task in suite.tasks():
        assert suite.published_settings("no-such-method", task) is None
        for method in METHODS:
            found = suite.published_settings(method, task)
            if found is not None:
                assert found
                assert set(found) <= known | set(find_agent(method.split("-")[0]).config_class.__dataclass_fields__)


def test_missing_data_is_one_line_with_the_commands_that_get_it(suite, tmp_path):
    empty = tmp_path / "an empty folder"
    for task in suite.tasks():
        assert not suite.has_data(task, empty)
        with pytest.raises(DataError) as caught:
            suite.find_data(task, empty)
        message = str(caught.value)
        assert message.startswith(f"{suite.file(task)}: expected in {empty}, found nothing; ")
        assert "\n" not in message
        commands = re.findall(r"`guidedflow data (\w+) (\S+)(.*?)`", message)
        assert len(commands) == len(suite.commands(task))
        for verb, name, rest in commands:
            assert f"--data-dir '{empty}'" in rest
            assert name in suite.makes() if verb == "generate" else find_data_task(name) == task
    path = empty / suite.file(task)
    path.parent.mkdir(parents=True)
    path.touch()
    assert suite.has_data(task, empty)
    assert suite.find_data(task, empty) == path


def test_without_a_folder_it_is_looked_for_in_the_suites_own(suite, task, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDEDFLOW_DATA", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert suite.folders()[0] == tmp_path
    assert suite.folders(tmp_path / "other") == [tmp_path / "other"]
    assert not suite.has_data(task) or suite.find_data(task).exists()


def test_data_of_another_environment_is_one_line(suite, task):
    right = Spec(task.observation_shape, np.dtype("float32"), task.action_size)
    suite.check(task, right, "data")
    shape = (*task.observation_shape[:-1], task.observation_shape[-1] + 1)
    for wrong, name in (
        (right._replace(observation_shape=shape), "observations"),
        (right._replace(action_size=99), "actions"),
    ):
        with pytest.raises(DataError, match=f"^data: {name}: expected .* a row, as {task.id} has, found ") as caught:
            suite.check(task, wrong, "data")
        assert "\n" not in str(caught.value)


def test_rewards_of_data_and_of_the_environment_go_through_one_function(suite):
    said = np.array([-1.5, 0.0, 1.0], np.float32)
    for task in suite.tasks():
        learned = suite.training_reward(task, said)
        assert learned.dtype == np.float32
        np.testing.assert_array_equal(learned, [suite.training_reward(task, float(reward)) for reward in said])


def test_what_can_be_made_has_names_of_its_own_and_everything_else_is_refused(suite, task, tmp_path):
    assert len(set(suite.makes())) == len(suite.makes())
    others = {name for other in suites().values() if other is not suite for name in other.makes()}
    assert not others & set(suite.makes())
    nobodys = next((task.dataset for task in suite.tasks() if task.dataset not in suite.makes()), None)
    if nobodys is not None:
        with pytest.raises(SettingsError, match=re.escape(nobodys)):
            generate(nobodys, data_dir=tmp_path)
    for name in suite.makes()[:1]:
        with pytest.raises(SettingsError, match=r"^nonsense: expected none to make .*, found 3$"):
            generate(name, data_dir=tmp_path, nonsense=3)
    assert list(tmp_path.glob("*.npz")) == []


def test_data_that_nobody_makes_is_told_with_the_nearest_names():
    with pytest.raises(SettingsError, match=r"found 'cube-singel-noisy'; nearest: cube-single-noisy"):
        generate("cube-singel-noisy")


def recorded(task: Task, path: Path, episodes: int = 40) -> None:
    """Data of a controller with noise, in the task's own environment."""
    env, rng = make_env(task), np.random.default_rng(0)
    rows = []
    side = np.array([1.0 if "right" in task.id else -1.0, 0.0])
    for episode in range(episodes):
        seen, over = env.reset(seed=episode)[0], False
        while not over:
            action = np.clip(5 * (side - seen) + rng.normal(0, 0.7, 2), -1, 1).astype(np.float32)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((seen, action, reward, terminated, truncated))
            seen, over = following, terminated or truncated
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    np.savez(path, **dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True)))


@pytest.mark.slow
def test_the_worked_example_is_one_file_and_one_line_and_trains(plugin, tmp_path):
    assert [path.name for path in plugin.glob("*.py")] == [f"{NAME}.py"]
    registry = inspect.getsource(__import__("guidedflow.suites", fromlist=["_"]))
    assert re.findall(r'"(\w+)": "guidedflow\.suites\.\1:\w+",', registry) == list(SUITES)[: len(SUITES) - 1]
    assert TARGET.startswith(f"guidedflow.suites.{NAME}:")
    task = find_task("push-left-v0")
    assert task in tasks()
    recorded(task, tmp_path / "push-left.npz")
    assert task.suite.has_data(task, tmp_path)
    settings = {"hidden": (32, 32), "flow_steps": 2, "alpha": 3.0, "batch_size": 64, "learning_rate": 3e-3}
    settings |= {"steps": 400, "log_every": 100, "eval_every": 400, "save_every": 400, "eval_episodes": 8}
    run = gf.train(task.id, data_dir=tmp_path, run_dir=tmp_path / "run", progress=False, **settings)
    results = run.summary["results"]
    assert [row["score"] for row in results] == [100 * row["success"] for row in results]
    assert max(row["success"] for row in results) > 0.5
    path = os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")])
    listed = guidedflow("tasks", "push", "--data-dir", tmp_path, env={**os.environ, "PYTHONPATH": path})
    assert listed.returncode == 0, listed.stderr
    here = {line.split()[0]: "here" in line for line in listed.stdout.splitlines() if line.startswith("push-")}
    assert here == {"push-left-v0": True, "push-right-v0": False}


def rows(name: str) -> list[dict[str, str]]:
    with (FACTS / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_144_tasks_are_those_of_the_published_comparison():
    found = [
        {
            "task": task.id,
            "benchmark": task.suite.name,
            "category": task.category,
            "observation": "x".join(map(str, task.observation_shape)),
            "action": str(task.action_size),
        }
        for task in tasks()
    ]
    assert found == rows("tasks.csv")
    assert len(found) == 144


def test_reference_returns_are_the_published_ones():
    expected = {
        (row["benchmark"], row["name"]): (float(row["lowest"]), float(row["highest"]))
        for row in rows("reference_scores.csv")
    }
    found = {}
    for task in tasks():
        if task.scored_by == "return":
            body = task.id.split("/")[1] if "/" in task.id else task.id.split("-")[0]
            found[task.suite.name, body] = task.suite.reference_returns(task)
            lowest, highest = found[task.suite.name, body]
            assert task.suite.score(task, 0.0, lowest) == 0.0
            assert task.suite.score(task, 0.0, highest) == pytest.approx(100.0, rel=1e-12)
    assert found == expected


def test_the_published_protocols():
    """docs/reproduction.md and the GFP paper: steps, evaluations, episodes and seeds of each benchmark."""
    found = {(task.suite.name, task.is_visual): task.suite.protocol(task) for task in tasks()}
    assert {name: tuple(protocol) for name, protocol in found.items()} == {
        ("ogbench", False): (1_000_000, (800_000, 900_000, 1_000_000), 100, 8, "post", 2.5),
        ("ogbench", True): (500_000, (300_000, 400_000, 500_000), 100, 4, "post", 0.0),
        ("d4rl", False): (500_000, (500_000,), 100, 8, None, 0.0),
        ("minari", False): (1_000_000, (1_000_000,), 100, 8, None, 0.0),
    }


def test_settings_tuned_for_the_advantage_are_rows_of_their_own():
    task = find_task("cube-double-noisy-singletask-task1-v0")
    softmax, advantage = (task.suite.published_settings(method, task) for method in ("gfp", "gfp-advantage"))
    assert (softmax["eta"], advantage["eta"]) == (1e-4, 0.1)
    assert task.suite.published_settings("gfp-advantage", find_task("cube-single-noisy-singletask-task1-v0")) is None
    tuned = {method: sum(bool(task.suite.published_settings(method, task)) for task in tasks()) for method in METHODS}
    assert tuned["gfp"] == tuned["fql"] == 144
    assert tuned["gfp-advantage"] > 0


def test_an_id_without_a_number_means_ogbenchs_default_task():
    names = {"cube-single-play": 2, "puzzle-3x3-play": 4, "antsoccer-arena-stitch": 4, "antmaze-large-explore": 1}
    for name, number in names.items():
        assert find_task(f"{name}-singletask-v0").id == f"{name}-singletask-task{number}-v0"
    assert find_task("visual-scene-play-singletask-v0").id == "visual-scene-play-singletask-task1-v0"
    with pytest.raises(SettingsError, match=r"nearest: .*cube-single-play"):
        find_task("cube-singel-play-singletask-v0")


def test_every_environment_of_ogbench_is_registered():
    import gymnasium
    import ogbench  # noqa: F401

    assert all(task.environment in gymnasium.registry for task in tasks() if task.suite.name == "ogbench")
