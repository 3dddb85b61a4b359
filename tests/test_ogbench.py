"""OGBench's files: what is refused, in one line, before or after the task's rewards are computed."""

import numpy as np
import pytest
from conftest import TASK, make_env

import guidedflow as gf
from guidedflow.data.formats import npz
from guidedflow.data.inspect import inspect
from guidedflow.errors import DataError
from guidedflow.suites import find_task
from guidedflow.suites.ogbench import rewards

NAME = "cube-single-noisy-v0.npz"


def spoil(cube_data, folder, drop=(), **changes):
    arrays = dict(np.load(cube_data / NAME)) | changes
    path = folder / NAME
    np.savez(path, **{name: array for name, array in arrays.items() if name not in drop})
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"drop": ("terminals",)},
            r"expected the fields observations, actions, terminals, found actions, metadata, obs",
        ),
        ({"drop": ("qpos",)}, r"expected qpos, from which the task's rewards are computed"),
        ({"terminals": np.zeros(319)}, r"terminals: expected 320 rows as in observations, found 319"),
        ({"qpos": np.zeros((1, 21))}, r"qpos: expected 320 rows as in observations, found 1"),
        ({"terminals": np.zeros(320)}, r"expected terminals or timeouts at the last row of each episode, found none"),
        (
            {"terminals": np.arange(320) >= 79},
            r"terminals: expected episodes of at least 2 rows, found one that ends in row 80, .* \(240 such",
        ),
        ({"terminals": np.arange(320) / 320}, r"terminals: expected 0 or 1, found 0.003125 in row 1"),
        (
            {"qpos": np.zeros((320, 40))},
            r"qpos: expected \(21,\) a row, as cube-single-singletask-task1-v0 has, found \(40,\)",
        ),
        ({"button_states": np.zeros((320, 2))}, r"button_states: expected \(0,\) a row, .* found \(2,\)"),
        ({"observations": np.zeros((320, 40))}, r"observations: expected \(28,\) a row, as .* has, found \(40,\)"),
    ],
)
def test_a_malformed_file_is_one_line(cube_data, tmp_path, options, message):
    path = spoil(cube_data, tmp_path, **options)
    with pytest.raises(DataError, match=message) as caught:
        gf.load_dataset(TASK, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_last_episode_that_was_cut_is_kept(cube_data, tmp_path):
    whole = gf.load_dataset(TASK, cube_data)
    ends = np.load(cube_data / NAME)["terminals"].copy()
    ends[-1] = False
    spoil(cube_data, tmp_path, terminals=ends)
    assert gf.load_dataset(TASK, tmp_path).fingerprint() == whole.fingerprint()


def test_inspecting_tells_what_loading_would(cube_data, tmp_path):
    path = spoil(cube_data, tmp_path, terminals=np.zeros(320))
    assert inspect(path, None).problems == [
        f"{path}: expected terminals or timeouts at the last row of each episode, found none in 320 rows"
    ]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="expected a whole npz archive of arrays"):
        npz.read(path)


@pytest.mark.parametrize(
    "task", ["antmaze-large-navigate-singletask-task3-v0", "antsoccer-arena-navigate-singletask-v0"]
)
def test_mazes_are_labelled_alike_in_parts_and_at_once(task, monkeypatch):
    known = find_task(task)
    env = make_env(known)
    env.reset(seed=0)
    inner = env.unwrapped
    qpos = np.zeros((40, inner.model.nq), np.float32)
    at = slice(15, 17) if "soccer" in task else slice(0, 2)
    qpos[:, at] = inner.cur_goal_xy + np.linspace(0, 2, 40)[:, None]
    monkeypatch.setattr(rewards, "LABELLED_AT_ONCE", 15)
    labels = rewards.label_states(known, {"qpos": qpos})
    near = np.linalg.norm(qpos[:, at] - inner.cur_goal_xy, axis=1) <= inner._goal_tol
    assert 0 < near.sum() < 40
    np.testing.assert_array_equal(labels.rewards, near - 1.0)
    np.testing.assert_array_equal(labels.masks, 1.0 - near)
