"""Minari: local data sets made by its own package, its environments, and its scores."""

import gc
import json
import shutil
import warnings

import gymnasium
import h5py
import numpy as np
import pytest
from conftest import make_env

import guidedflow as gf
from guidedflow.cli import main
from guidedflow.data.formats import minari as reader
from guidedflow.data.inspect import inspect
from guidedflow.errors import DataError, SettingsError
from guidedflow.suites import find_task, tasks
from guidedflow.suites import minari as suite

TASK = "mujoco/hopper/simple-v0"


@pytest.fixture
def hopper(tmp_path, monkeypatch):
    """Three episodes of random actions under the name of a published set, as its metadata says."""
    return make(tmp_path, monkeypatch, ref_min_score=-20.272305, ref_max_score=3234.3)


def make(folder, monkeypatch, **metadata):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import minari

        env = minari.DataCollector(gymnasium.make("Hopper-v5", max_episode_steps=15))
        env.action_space.seed(0)
        for seed in range(3):
            env.reset(seed=seed)
            over = False
            while not over:
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                over = terminated or truncated
        made = env.create_dataset(TASK, algorithm_name="random actions, for tests only", **metadata)
        env.close()
        del env
        gc.collect()  # The collector leaves a temporary folder to be warned of.
    return folder, made


def test_episodes_become_transitions(hopper):
    folder, made = hopper
    dataset = gf.load_dataset(TASK, folder)
    episodes = list(made.iterate_episodes())
    steps = [len(episode.rewards) for episode in episodes]
    assert dataset.size == sum(steps)
    batch = dataset.rows(dataset.transitions)
    for name in ("observations", "actions", "rewards"):
        stored = np.concatenate([getattr(episode, name)[:n] for episode, n in zip(episodes, steps, strict=True)])
        np.testing.assert_allclose(getattr(batch, name), stored, rtol=1e-6)
    following = np.concatenate([episode.observations[1:] for episode in episodes])
    np.testing.assert_allclose(batch.next_observations, following, rtol=1e-6)
    terminated = np.concatenate([episode.terminations for episode in episodes])
    np.testing.assert_array_equal(batch.masks, 1.0 - terminated)
    ends = np.cumsum(steps) - 1
    assert np.flatnonzero(~np.asarray(batch.next_action_valid)).tolist() == ends.tolist()


@pytest.mark.slow
def test_a_minari_task_is_trained_on_and_scored(hopper, tmp_path):
    settings = {"hidden": (12,), "flow_steps": 1, "steps": 20, "log_every": 10, "save_every": 20, "batch_size": 16}
    run = gf.train(TASK, run_dir=tmp_path / "run", eval_episodes=2, **settings)  # Found by MINARI_DATASETS_PATH.
    for row in run.summary["results"]:
        assert abs(row["score"] - 100 * (row["mean_return"] + 20.272305) / (3234.3 + 20.272305)) < 1e-9
        assert np.isnan(row["success"])
    assert json.loads((run.path / "summary.json").read_text())["results"][0]["success"] is None
    assert gf.resume(run.path).path == run.path


def test_reference_scores_that_disagree_are_warned_of(tmp_path, monkeypatch):
    make(tmp_path, monkeypatch, ref_min_score=0.0, ref_max_score=1.0)
    with pytest.warns(UserWarning, match=r"its reference scores 0.0 and 1.0 are not the published -20.27"):
        gf.load_dataset(TASK, tmp_path)


def test_reference_scores_that_agree_or_are_missing_are_not(hopper, tmp_path, monkeypatch):
    gf.load_dataset(TASK, hopper[0])  # Warnings are errors here.
    make(tmp_path / "other", monkeypatch)
    gf.load_dataset(TASK, tmp_path / "other")


def test_data_sets_that_are_damaged(hopper):
    folder, _ = hopper
    with pytest.raises(DataError, match=r"walker2d/simple-v0: expected in .*data fetch mujoco/walker2d/simple-v0"):
        gf.load_dataset("mujoco/walker2d/simple-v0", folder)
    path = folder / TASK
    assert inspect(path).episodes == 3
    file = path / "data" / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"hopper/simple-v0: expected a whole Minari data set, found"):
        gf.load_dataset(TASK, folder)
    file.write_bytes(content)
    (path / "data" / "metadata.json").write_text("{")
    with pytest.raises(DataError, match=r"hopper/simple-v0: expected a whole Minari data set, found"):
        gf.load_dataset(TASK, folder)
    with pytest.raises(DataError, match=r"expected a Minari data set, found no folder data in it"):
        reader.read(folder)


def well_formed(steps=15):
    """The arrays of a stored episode."""
    return {
        "observations": np.zeros((steps + 1, 11)),
        "actions": np.zeros((steps, 3), np.float32),
        "rewards": np.zeros(steps),
        "terminations": np.zeros(steps, bool),
        "truncations": np.arange(steps) == steps - 1,
    }


def replace_episode(path, number, arrays):
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_{number}"]
        for name, array in arrays.items():
            file[f"episode_{number}/{name}"] = array
        steps = sum(len(file[f"{name}/rewards"]) for name in file if "rewards" in file[name])
    edit_metadata(path, total_steps=steps)


def edit_metadata(path, **changes):
    file = path / "data" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rewards", None, r"expected a whole Minari data set, found: .*rewards"),
        ("observations", lambda a: a[:-1], r"episode 1: expected T \+ 1 observations, .* for T > 0 rewards, found 15,"),
        ("actions", lambda a: a[1:], r"episode 1: .* found 16, 14, 15 and 15"),
        ("terminations", lambda a: a[1:], r"episode 1: .* found 16, 15, 14 and 15"),
        (
            "terminations",
            lambda a: np.arange(15) == 3,
            r"episode 1: expected a terminal .* alone, found one in step 3 of",
        ),
        ("observations", lambda a: a[:, :5], r"episode 1: observations: expected 11 numbers a step .*, found 5"),
        ("actions", lambda a: a[:, 0], r"expected one vector a step, found shape \(15,\)"),
        ("actions", lambda a: a + 5, r"actions: expected values in \[-1, 1\]"),
        ("rewards", lambda a: a + np.nan, r"rewards: expected finite numbers"),
    ],
)
def test_episodes_that_are_malformed_are_one_line(hopper, name, value, message):
    path, arrays = hopper[0] / TASK, well_formed()
    replace_episode(path, 1, arrays)
    assert reader.load(path).episodes == 3
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value(arrays[name])
    replace_episode(path, 1, arrays)
    with pytest.raises(DataError, match=message) as caught:
        reader.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_episodes_that_are_out_of_order_or_of_another_environment_are_one_line(hopper):
    folder, _ = hopper
    with h5py.File(folder / TASK / "data" / "main_data.hdf5", "a") as file:
        file.move("episode_1", "episode_5")
    with pytest.raises(DataError, match=r"expected a whole Minari data set, found: .*episode_1"):
        gf.load_dataset(TASK, folder)
    other = folder / "mujoco" / "walker2d" / "simple-v0"
    gf.generate("mujoco/walker2d/simple-v0", stand_in="random", data_dir=folder, episodes=1)
    shutil.rmtree(folder / TASK)
    other.rename(folder / TASK)
    wrong = pytest.warns(UserWarning, match="its reference scores")  # Those of the walker.
    with wrong, pytest.raises(DataError, match=r"simple-v0: observations: expected \(11,\) a row, .*found \(17,\)"):
        gf.load_dataset(TASK, folder)


@pytest.mark.slow
def test_a_stand_in_says_what_it_is_wherever_it_is_used(tmp_path, caplog):
    for actions in ("random", "sine"):
        said = f"{actions} actions, made for tests; not the published data"
        (folder,) = gf.generate(TASK, stand_in=actions, data_dir=tmp_path / actions, episodes=4, seed=3)
        assert said in inspect(folder).made_by
    settings = {"hidden": (12,), "flow_steps": 1, "steps": 10, "log_every": 10, "save_every": 10, "batch_size": 16}
    settings |= {"data_dir": tmp_path / "sine", "run_dir": tmp_path / "run", "eval_episodes": 0}
    with caplog.at_level("INFO", logger="guidedflow"):
        run = gf.train(TASK, **settings)
    assert f"{folder}: {said}" in caplog.text
    made = json.loads((run.path / "config.json").read_text())["data"]["made_by"]
    assert (made["stand_in"], made["algorithm"], made["seed"]) == ("sine", said, "3")


def test_a_stand_ins_episode_depends_on_its_seed_and_number_alone(tmp_path):
    def made(folder, actions, episodes, seed):
        (path,) = gf.generate(TASK, stand_in=actions, data_dir=tmp_path / folder, episodes=episodes, seed=seed)
        return reader.read(path)

    for actions in ("random", "sine"):
        more, fewer = made(f"{actions}4", actions, 4, 0), made(f"{actions}2", actions, 2, 0)
        first = len(fewer["rewards"])
        for name, array in fewer.items():
            np.testing.assert_array_equal(array, more[name][:first])
        other = made(f"{actions}-seed1", actions, 2, 1)
        assert not np.array_equal(other["actions"][:5], fewer["actions"][:5])
        ends = np.flatnonzero(more["final_observation"])
        starts = more["actions"][[0, *(ends[:-1] + 1)]]
        assert len(np.unique(starts, axis=0)) == 4
    # A sine moves by at most 2 pi 0.1 a step, a random action by up to 2.
    steps = [np.abs(np.diff(reader.read(tmp_path / f"{a}4" / TASK)["actions"][:6], axis=0)) for a in ("sine", "random")]
    assert steps[0].max() < 2 * np.pi * 0.1
    assert steps[1].max() > 1


def test_stand_ins_are_for_minaris_mujoco_tasks_alone(tmp_path, capsys):
    with pytest.raises(SettingsError, match=r"task: expected a task of mujoco/, .* found D4RL/pen/expert-v2"):
        gf.generate("D4RL/pen/expert-v2", stand_in="random", data_dir=tmp_path)
    with pytest.raises(SettingsError, match=r"stand_in: expected none to make cube-single-noisy, .* found random"):
        gf.generate("cube-single-noisy", stand_in="random", data_dir=tmp_path)
    with pytest.raises(SettingsError, match="stand_in: expected one of random, sine, found 'cosine'"):
        gf.generate(TASK, stand_in="cosine", data_dir=tmp_path)
    for name in ("episodes", "seed"):
        with pytest.raises(SettingsError, match=f"{name}: expected at least [01], found -1"):
            gf.generate(TASK, stand_in="sine", data_dir=tmp_path, **{name: -1})
    assert list(tmp_path.iterdir()) == []
    options = ["--data-dir", str(tmp_path), "--episodes", "2", "--seed", "1"]
    for code in (0, 2):  # The second call finds it there.
        with pytest.raises(SystemExit) as stop:
            main(["data", "generate", TASK, "--stand-in", "sine", *options])
        assert stop.value.code == code
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / TASK}\n"
    assert "expected a new folder, found one that exists" in printed.err
    with pytest.raises(SystemExit):
        main(["data", "generate", TASK, "--stand-in", "sine", "--policy", "a.npz", *options])
    assert "policy: expected none to make mujoco/hopper/simple-v0" in capsys.readouterr().err


def test_a_data_set_that_cannot_be_written_leaves_nothing_under_its_name(tmp_path, monkeypatch):
    def full_disk(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(suite.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        gf.generate(TASK, stand_in="random", data_dir=tmp_path, episodes=1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.rglob("*")] == [".partial"]
    gf.generate(TASK, stand_in="random", data_dir=tmp_path, episodes=1)


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    import minari

    def fail(dataset):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(minari, "download_dataset", fail)
    with pytest.raises(SystemExit) as stop:
        main(["data", "fetch", TASK, "--data-dir", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "hopper/simple-v0: not downloaded: no route to host" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("task", [task for task in tasks() if task.suite.name == "minari" and "human" not in task.id])
def test_environments_are_the_packages_own(task):
    env = make_env(task)
    assert env.spec.max_episode_steps == (200 if task.category == "minari/adroit" else 1000)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    *_, info = env.step(env.action_space.sample())
    assert observation.shape == env.observation_space.shape
    assert ("success" in info) == (task.category == "minari/adroit")
    lowest, highest = task.suite.reference_returns(task)
    assert (task.suite.score(task, 0.0, lowest), task.suite.score(task, 0.0, highest)) == (0.0, 100.0)
    assert find_task(task.id) == task


@pytest.mark.slow
@pytest.mark.parametrize("absent", [["observation_space"], ["action_space"], ["observation_space", "action_space"]])
def test_no_data_set_runs_code(hopper, tmp_path, capsys, absent):
    folder, _ = hopper
    path, ran = folder / TASK / "data" / "metadata.json", tmp_path / "ran"
    metadata = json.loads(path.read_text())
    spec = {"entry_point": "os:system", "kwargs": {"command": f"touch {ran}"}, "additional_wrappers": []}
    metadata["env_spec"] = json.dumps(json.loads(metadata["env_spec"]) | spec)
    for name in absent:
        del metadata[name]
    path.write_text(json.dumps(metadata))
    at = ["--data-dir", str(folder)]
    for command in (
        ["data", "convert", str(folder / TASK), str(tmp_path / "made.npz")],
        ["data", "inspect", TASK, *at],
        ["data", "fetch", TASK, *at],
        ["train", TASK, "--run-dir", str(tmp_path / "run"), *at],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        said = capsys.readouterr().err
        assert stopped.value.code == 2, command
        assert f"found no {absent[0]}" in said, said
        assert said.count("\n") == 1, said
    assert not ran.exists()
    assert not (tmp_path / "run").exists()
