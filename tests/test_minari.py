"""Minari: local data sets made by its own package, its environments, and its scores."""

import gc
import json
import warnings

import gymnasium
import numpy as np
import pytest

import guidedflow as gf
from guidedflow.cli import main
from guidedflow.data import minari as reader
from guidedflow.data.inspect import inspect
from guidedflow.envs.make import make_env
from guidedflow.errors import UserError
from guidedflow.tasks import find_task, tasks

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
    with pytest.raises(UserError, match=r"walker2d/simple-v0: expected in .*data fetch mujoco/walker2d/simple-v0"):
        gf.load_dataset("mujoco/walker2d/simple-v0", folder)
    path = folder / TASK
    assert inspect(path).episodes == 3
    file = path / "data" / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"hopper/simple-v0: expected a whole Minari data set, found"):
        gf.load_dataset(TASK, folder)
    file.write_bytes(content)
    (path / "data" / "metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"hopper/simple-v0: expected a whole Minari data set, found"):
        gf.load_dataset(TASK, folder)
    with pytest.raises(UserError, match=r"expected a Minari data set, found no folder data in it"):
        reader.read(folder)


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


@pytest.mark.parametrize("task", [task for task in tasks() if task.benchmark == "minari" and "human" not in task.id])
def test_environments_are_the_packages_own(task):
    env = make_env(task)
    assert env.spec.max_episode_steps == (200 if task.category == "minari/adroit" else 1000)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    *_, info = env.step(env.action_space.sample())
    assert observation.shape == env.observation_space.shape
    assert ("success" in info) == (task.category == "minari/adroit")
    lowest, highest = task.reference_returns
    assert (task.score(0.0, lowest), task.score(0.0, highest)) == (0.0, 100.0)
    assert find_task(task.id) == task
