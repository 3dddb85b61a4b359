"""Recordings of robots: LeRobot's and robomimic's data, as their own tools wrote them and as nobody should."""

import importlib.util
import json
import logging
import shutil
from functools import partial
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from conftest import SHARED, guidedflow, train_until_killed, trained_agents

import guidedflow as gf
from guidedflow.cli.inspect import Inspect
from guidedflow.cli.show import Reward
from guidedflow.data import formats, pictures
from guidedflow.data.formats import lerobot
from guidedflow.data.inspect import inspect
from guidedflow.data.opening import parquet, regular
from guidedflow.data.rewards import REWARDS
from guidedflow.errors import DataError, GuidedflowError, SettingsError

pytest.importorskip("pyarrow")
pytest.importorskip("av")

import pyarrow as pa
from robots import (
    EPISODES,
    TABLE,
    TEXTS,
    VIDEO,
    fixed,
    read_table,
    steps,
    write_lerobot,
    write_robomimic,
    write_table,
    write_video,
)

THEIRS = SHARED / "data/formats" if SHARED else Path("none")
needs_theirs = pytest.mark.skipif(not THEIRS.is_dir(), reason="the data sets that LeRobot and robomimic wrote")
STATE = "observation.state"
CODES = {"front": 0, "wrist": 1, "agentview": 2}


def code(picture: np.ndarray) -> tuple[int, int]:
    """The number of a picture's episode times 16 with the camera's, and of its frame: blocks at its bottom."""
    rows = picture[-16:, :64].astype(float).reshape(2, 8, 8, 8, 3).mean(axis=(1, 3, 4))
    upper, lower = (rows > 128) @ (1 << np.arange(7, -1, -1))
    return int(upper), int(lower)


def read(path, **options):
    return formats.find_format(path).read(path, **options)


def refused(path: Path, match: str, tmp_path: Path, **options) -> None:
    """Whoever reads it gets the same line, and nothing is written."""
    known = formats.find_format(path)
    output = tmp_path / "made/converted.npz"
    convert = partial(gf.convert, output=output, action_range="measured")
    readers = [known.load, lambda path, **options: convert(path, **options)]
    for reader in readers:
        with pytest.raises((DataError, SettingsError), match=match) as caught:
            reader(path, **options)
        assert "\n" not in str(caught.value)
    assert not output.parent.exists()


# ------------------------------------------------------------------------------------- what their own tools wrote


@needs_theirs
def test_lerobots_own_data_set_is_what_went_into_it():
    truth = np.load(THEIRS / "lerobot_truth.npz")
    found = read(THEIRS / "lerobot_video", reward="none")
    for name, wanted in (("state", "state"), ("environment_state", "environment_state")):
        np.testing.assert_array_equal(found[f"observations/{name}"], truth[wanted])
    np.testing.assert_array_equal(found["actions"], truth["action"])
    np.testing.assert_array_equal(found["success"], truth["success"].reshape(-1))
    np.testing.assert_array_equal(np.flatnonzero(found["timeouts"]), np.cumsum(truth["lengths"]) - 1)
    assert not found["terminals"].any()
    assert "rewards" not in found
    for camera in ("front", "wrist"):
        decoded, original = found[f"observations/{camera}"], truth[camera]
        assert decoded.dtype == np.uint8
        assert np.abs(decoded.astype(int) - original).mean(axis=(1, 2, 3)).max() < 5
        numbers = zip(truth["episode_index"] * 16 + CODES[camera], truth["frame_index"], strict=True)
        assert [code(picture) for picture in decoded] == [tuple(map(int, pair)) for pair in numbers]


@needs_theirs
@pytest.mark.parametrize("reward", [None, "recorded", "success", "step-cost"])
def test_an_episode_of_lerobot_ends_at_its_first_success(reward):
    truth = np.load(THEIRS / "lerobot_truth.npz")
    episode, frame = truth["episode_index"], truth["frame_index"]
    kept = ~((episode == 1) & (frame > 22))
    found = read(THEIRS / "lerobot_video", reward=reward)
    np.testing.assert_array_equal(found["actions"], truth["action"][kept])
    ends = [(11, 0), (22, 1), (39, 2), (32, 4)]
    terminal = np.array([pair in ends for pair in zip(frame[kept], episode[kept], strict=True)])
    np.testing.assert_array_equal(found["terminals"], terminal)
    cut = np.array([pair in [(16, 3), (27, 5)] for pair in zip(frame[kept], episode[kept], strict=True)])
    np.testing.assert_array_equal(found["timeouts"], cut)
    wanted = (
        truth["reward"].reshape(-1)[kept]
        if reward in (None, "recorded")
        else terminal.astype(int) - (reward == "step-cost")
    )
    np.testing.assert_array_equal(found["rewards"], wanted.astype(np.float32))


@needs_theirs
def test_one_task_of_lerobots_data_set(caplog):
    caplog.set_level(logging.INFO, "guidedflow")
    truth, path = np.load(THEIRS / "lerobot_truth.npz"), THEIRS / "lerobot_video"
    found = read(path, reward="none", instruction="push the blue block to the left")
    of_task = np.isin(truth["episode_index"], (2, 3, 5))
    np.testing.assert_array_equal(found["actions"], truth["action"][of_task])
    assert {code(picture)[0] for picture in found["observations/wrist"]} == {33, 49, 81}
    assert not caplog.records
    list(lerobot.recordings(path))
    assert (
        "2 tasks are taken together, of which instruction chooses one: 'push the blue block to the left', 'reach"
        in caplog.text
    )
    with pytest.raises(SettingsError, match=r"instruction: expected one of 'push the blue .*found 'dance'"):
        read(path, instruction="dance")


@needs_theirs
def test_robomimics_own_file_is_what_went_into_it():
    truth = np.load(THEIRS / "robomimic_truth.npz")
    path = THEIRS / "robomimic_image.hdf5"
    found = read(path, reward="none")
    assert not found["final_observation"].any()  # The file has no next_obs.
    for name, wanted in (("actions", "actions"), ("observations/robot0_eef_pos", "eef_pos"), ("success", "success")):
        np.testing.assert_array_equal(found[name], truth[wanted])
    np.testing.assert_array_equal(found["observations/agentview_image"], truth["agentview_image"])
    assert [f"demo_{code(picture)[0] >> 4}" for picture in found["observations/agentview_image"]] == [*truth["demo"]]
    assert [*truth["demo"][found["timeouts"]]] == ["demo_0", "demo_1", "demo_2", "demo_9", "demo_10"]
    kept = read(path)
    assert np.flatnonzero(kept["terminals"]).tolist() == [13, 40, 49, 111]
    np.testing.assert_array_equal(read(path, reward="success")["rewards"], kept["terminals"])
    assert {name: part.tolist() for name, part in formats.splits(path).items()} == {"train": [0, 1, 3, 4], "valid": [2]}


# ------------------------------------------------------------------------------------------- data sets of this test


@pytest.mark.parametrize("camera", ["video", "image"])
def test_cameras_of_lerobot(camera, tmp_path):
    truth = write_lerobot(tmp_path / "own", camera=camera)
    found = read(tmp_path / "own", reward="none")
    np.testing.assert_array_equal(found["observations/state"], truth["state"])
    difference = np.abs(found["observations/front"].astype(int) - truth["front"])
    assert difference.max() <= (2 if camera == "video" else 0)
    np.testing.assert_array_equal(np.flatnonzero(found["timeouts"]), [4, 8, 14])


def test_tasks_that_change_within_an_episode_make_episodes(tmp_path):
    truth = write_lerobot(tmp_path / "own", camera="image", task=[0, 1, 1, 0, 0, *[0] * 4, *[1] * 6])
    found = read(tmp_path / "own", reward="none", instruction=TEXTS[0])
    rows = [0, 3, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal(found["actions"], truth["action"][rows])
    np.testing.assert_array_equal(found["observations/front"], truth["front"][rows])
    np.testing.assert_array_equal(np.flatnonzero(found["timeouts"]), [0, 2, 6])
    parts = formats.splits(tmp_path / "own", instruction=TEXTS[0])
    assert {name: part.tolist() for name, part in parts.items()} == {"train": [0, 1, 2], "valid": []}


def test_the_text_of_a_task_is_the_other_column(tmp_path):
    """Its name is pandas' for an index in LeRobot 0.4, and task later."""
    write_lerobot(tmp_path / "own", camera=None, task=[0] * 9 + [1] * 6)
    write_table(tmp_path / "own/meta/tasks.parquet", {"task": [TEXTS[1], TEXTS[0]], "task_index": [1, 0]})
    assert len(read(tmp_path / "own", reward="none", instruction=TEXTS[1])["actions"]) == 6


def test_what_is_neither_vectors_nor_uint8_pictures_is_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO, "guidedflow")
    write_lerobot(tmp_path / "own", camera="image")
    depth = {"dtype": "video", "shape": [16, 24, 1], "info": {"is_depth_map": True}}
    text = {"dtype": "language", "shape": None, "names": None}
    left_out = {"observation.images.depth": depth, "observation.said": text, "observation.distance": DISTANCES}
    features(**left_out, language_events=text)(tmp_path / "own")
    (recording,) = lerobot.recordings(tmp_path / "own")
    assert {name for name in recording.fields if "/" in name} == {"observations/state", "observations/front"}
    assert f"neither vectors nor uint8 pictures: {', '.join(left_out)}" in caplog.text


def test_numbers_of_three_axes_are_pictures_if_they_are_bytes(tmp_path):
    write_lerobot(tmp_path / "own", camera=None)
    pictures_of_numbers = np.random.default_rng(0).integers(256, size=(15, 8, 6, 1), dtype=np.uint8)
    for file, rows in ((TABLE, slice(0, 9)), (TABLE.replace("file-000", "file-001"), slice(9, 15))):
        kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
        columns = read_table(tmp_path / "own" / file)
        columns["observation.touch"] = pa.array(pictures_of_numbers[rows].tolist(), kind)
        write_table(tmp_path / "own" / file, columns)
    features(**{"observation.touch": DISTANCES | {"dtype": "uint8"}})(tmp_path / "own")
    seen = gf.load_dataset(tmp_path / "own", reward="none").observations
    np.testing.assert_array_equal(seen["touch"], pictures_of_numbers)


def test_whole_numbers_of_any_type_are_read(tmp_path):
    write_lerobot(tmp_path / "own")
    wanted = read(tmp_path / "own")
    for file, name in (
        (EPISODES, "length"),
        (EPISODES, "episode_index"),
        (TABLE, "episode_index"),
        (TABLE, "frame_index"),
    ):
        column(file, name, lambda values: values.cast(pa.uint64()))(tmp_path / "own")
    found = read(tmp_path / "own")
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_columns_of_every_shape(tmp_path):
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(5, 2, 3)).astype(np.float32)
    kind = pa.list_(pa.list_(pa.float32(), 3))
    columns = {"grid": pa.array(grid.tolist(), kind), "number": grid[:, 0, 0], "flag": grid[:, 0, 0] > 0}
    write_table(tmp_path / "a.parquet", {**columns, "fixed": fixed(grid[:, 0]), "lists": pa.array(grid[:, 0].tolist())})
    with parquet.opened(tmp_path / "a.parquet", tmp_path) as table:
        np.testing.assert_array_equal(table.numbers("grid", (2, 3)), grid)
        np.testing.assert_array_equal(table.numbers("number", (1,)), grid[:, 0, :1])
        np.testing.assert_array_equal(table.numbers("number"), grid[:, 0, 0])
        np.testing.assert_array_equal(table.numbers("flag"), grid[:, 0, 0] > 0)
        for name in ("fixed", "lists"):
            np.testing.assert_array_equal(table.numbers(name, (3,)), grid[:, 0])
        for name, shape in (("grid", (2,)), ("grid", (3, 2)), ("number", (2,)), ("fixed", ()), ("fixed", (3, 1))):
            with pytest.raises(DataError, match=rf"a.parquet: {name}: expected rows of shape"):
                table.numbers(name, shape)


@pytest.mark.parametrize(
    ("outcomes", "has_rewards", "terminals"),
    [
        (("reward", "success", "done"), True, [3, 13]),
        (("reward", "done"), True, [4, 8, 14]),
        (("success",), True, [3, 13]),
        (("reward",), True, []),
        (("done",), False, []),
        ((), False, []),
    ],
)
def test_what_was_recorded_decides_where_episodes_end(outcomes, has_rewards, terminals, tmp_path, caplog):
    caplog.set_level(logging.INFO, "guidedflow")
    truth = write_lerobot(tmp_path / "own", camera=None, outcomes=outcomes)
    (recording,) = lerobot.recordings(tmp_path / "own")
    found = recording.fields
    assert ("rewards" in found) == has_rewards
    assert np.count_nonzero(found["timeouts"] | found["terminals"]) == 3
    np.testing.assert_array_equal(found["actions"][found["terminals"]], truth["action"][terminals])
    assert ("next.done ends an episode" in caplog.text) == (outcomes == ("reward", "done"))


def test_a_reward_that_was_not_recorded_is_refused(tmp_path):
    write_lerobot(tmp_path / "own", camera=None, outcomes=("reward",))
    with pytest.raises(SettingsError, match=r"reward: expected one of recorded, none for .*own, .* found 'success'"):
        read(tmp_path / "own", reward="success")
    with pytest.raises(
        SettingsError, match=r"reward: expected one of recorded, success, step-cost, none, found 'many'"
    ):
        read(tmp_path / "own", reward="many")
    write_robomimic(tmp_path / "a.hdf5")
    with pytest.raises(SettingsError, match=r"reward: expected one of recorded, .* found 'many'"):
        read(tmp_path / "a.hdf5", reward="many")
    assert Reward.__args__ == REWARDS


@pytest.mark.parametrize("has_next", [True, False])
def test_robomimics_last_next_obs_are_final_observations(has_next, tmp_path):
    truth = write_robomimic(tmp_path / "a.hdf5", has_next=has_next)
    found = read(tmp_path / "a.hdf5")
    steps_taken = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]  # The first and the third one end at their successes.
    final = found["final_observation"]
    np.testing.assert_array_equal(found["actions"][~final], truth["action"][steps_taken])
    np.testing.assert_array_equal(found["observations/state"][~final], truth["state"][steps_taken])
    np.testing.assert_array_equal(found["observations/image"][~final], truth["front"][steps_taken])
    assert np.flatnonzero(final).tolist() == ([8] if has_next else [])
    np.testing.assert_array_equal(found["observations/state"][final], truth["next_state"][[8] * has_next])
    assert np.flatnonzero(found["terminals"]).tolist() == ([3, 13] if has_next else [3, 12])
    assert {name: part.tolist() for name, part in formats.splits(tmp_path / "a.hdf5").items()} == {
        "train": [0, 2],
        "valid": [1],
    }


@pytest.mark.parametrize(("mode", "wanted"), [(0, [3, 13]), (1, []), (2, [3, 13])])
def test_robomimics_success_is_told_by_dones_where_rewards_are_shaped(mode, wanted, tmp_path):
    write_robomimic(tmp_path / "a.hdf5", shaped=True)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        for demonstration in file["data"].values():
            if mode == 1:
                demonstration["dones"][:] = 0
            if mode:
                demonstration["dones"][-1] = 1
    found = read(tmp_path / "a.hdf5", reward="step-cost")
    assert np.flatnonzero((found["rewards"] == 0) & ~found["final_observation"]).tolist() == wanted
    assert np.flatnonzero(read(tmp_path / "a.hdf5")["terminals"]).tolist() == wanted


@pytest.mark.parametrize("shaped", [True, False])
def test_robomimics_rewards_tell_themselves_whether_they_are_shaped_if_env_args_does_not(shaped, tmp_path):
    write_robomimic(tmp_path / "a.hdf5", shaped=shaped)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["data"].attrs["env_args"]
        if not shaped:
            for demonstration in file["data"].values():
                demonstration["dones"][:] = 0
    assert np.flatnonzero(read(tmp_path / "a.hdf5")["terminals"]).tolist() == [3, 13]


def test_options_of_robots_are_refused_for_other_data(tmp_path, own_file):
    write_robomimic(tmp_path / "a.hdf5")
    with pytest.raises(
        SettingsError, match=r"instruction: expected none for .*a.hdf5, for only data of lerobot has it"
    ):
        gf.load_dataset(tmp_path / "a.hdf5", instruction="lift")
    for read_it in (gf.load_dataset, inspect, lambda path, **options: gf.train(path, **options)):
        with pytest.raises(SettingsError, match=r"reward: expected none for .*own.npz, for only data of robomimic and"):
            read_it(own_file, reward="success")
    with pytest.raises(SettingsError, match=r"reward: expected none for cube.*, which is no file or folder of data"):
        gf.load_dataset("cube-single-noisy-singletask-task1-v0", reward="success")
    with pytest.raises(SettingsError, match="reward: expected none for arrays"):
        gf.convert({}, tmp_path / "b.npz", reward="success")


@pytest.mark.parametrize("package", ["pyarrow", "av"])
def test_what_has_to_be_installed(package, tmp_path, monkeypatch):
    write_lerobot(tmp_path / "own")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    refused(tmp_path / "own", rf"expected the package {package}, .* pip install 'guidedflow\[robots\]'", tmp_path)


# --------------------------------------------------------------------------------------------------- bad data sets


def edited(path: Path, **changes) -> None:
    file = path / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def column(file: str, name: str, change):
    """A column of a table, changed."""

    def damage(path: Path) -> None:
        columns = read_table(path / file)
        columns[name] = change(columns[name].combine_chunks())
        write_table(path / file, columns)

    return damage


def cut(file: str, share: float):
    def damage(path: Path) -> None:
        content = (path / file).read_bytes()
        (path / file).write_bytes(content[: int(len(content) * share)])

    return damage


def replaced(values, row, value):
    found = values.to_pylist()
    found[row] = value
    return pa.array(found)


def one_frame_less(path: Path) -> None:
    write_video(path / VIDEO, steps((5, 4))["front"][:-1])


def other_size(path: Path) -> None:
    write_video(path / VIDEO.replace("file-000", "file-001"), np.zeros((6, 32, 24, 3), np.uint8))


def faster(path: Path) -> None:
    write_video(path / VIDEO, steps((5, 4))["front"], fps=15)


def without_episode(path: Path) -> None:
    columns = read_table(path / EPISODES)
    write_table(path / EPISODES, {name: values.take(pa.array([0, 2])) for name, values in columns.items()})


def unfinished(path: Path) -> None:
    columns = read_table(path / EPISODES)
    write_table(path / EPISODES, {name: values[:2] for name, values in columns.items()})


def without_frame(path: Path) -> None:
    columns = read_table(path / TABLE)
    keep = pa.array([i for i in range(9) if i != 3])
    write_table(path / TABLE, {name: values.take(keep) for name, values in columns.items()})


def removed(file: str):
    return lambda path: (path / file).unlink()


def outside(template: str):
    return lambda path: edited(path, data_path=template)


def linked(file: str):
    def damage(path: Path) -> None:
        shutil.move(path / file, path.parent / "elsewhere")
        (path / file).symlink_to(path.parent / "elsewhere")

    return damage


def features(**changes):
    def damage(path: Path) -> None:
        known = json.loads((path / "meta/info.json").read_text())["features"]
        edited(path, features={name: value for name, value in (known | changes).items() if value})

    return damage


def repeated(path: Path) -> None:
    """Ten million frames in a table of some kilobytes."""
    write_table(path / TABLE, {STATE: np.zeros(10**7, np.int64)})
    assert (path / TABLE).stat().st_size < 10**5


def many_columns(path: Path) -> None:
    write_table(path / TABLE, {f"\n{i}": [0] for i in range(30)})


def other_tasks(path: Path) -> None:
    write_table(path / "meta/tasks.parquet", {f"\n{i}": [0] for i in range(30)})


SHORT = {"dtype": "float32", "shape": [2]}
DISTANCES = {"dtype": "float32", "shape": [8, 6, 1]}
BAD = {
    "truncated table": (cut(TABLE, 0.6), r"file-000.parquet: expected a whole Parquet file"),
    "truncated episodes": (cut(EPISODES, 0.9), r"episodes/.*parquet: expected a whole Parquet file"),
    "truncated video": (cut(VIDEO, 0.5), r"front/chunk-000/file-000.mp4: expected (a whole mp4 file|frame \d)"),
    "missing table": (removed(TABLE), r"data/.*file-000.parquet: expected a data file, found nothing there"),
    "missing video": (removed(VIDEO), r"videos/.*mp4: expected a data file, found nothing there"),
    "missing episodes": (removed(EPISODES), r"meta/episodes: expected chunk-000/file-000.parquet, found none"),
    "missing info": (removed("meta/info.json"), r"info.json: expected a data file, found nothing there"),
    "missing tasks": (removed("meta/tasks.parquet"), r"tasks.parquet: expected a data file, found nothing there"),
    "no table": (lambda path: (path / TABLE).write_text("a,b"), r"file-000.parquet: expected a whole Parquet file"),
    "no json": (lambda path: (path / "meta/info.json").write_text("{"), r"info.json: expected JSON, found"),
    "json of others": (lambda path: (path / "meta/info.json").write_text("[]"), r"codebase_version: expected v3.0"),
    "older version": (
        lambda path: edited(path, codebase_version="v2.1"),
        r"expected v3.0, found 'v2.1'; convert older",
    ),
    "fps of none": (lambda path: edited(path, fps="10"), r"fps: expected frames a second, found '10'"),
    "wrong fps": (lambda path: edited(path, fps=30), r"timestamp: expected 0.0333333 s for frame 1 of .* found 0.1 s"),
    "faster video": (faster, r"file-000.mp4: expected 10 frames a second, found a frame at 0.0666"),
    "shorter video": (one_frame_less, r"file-000.mp4: expected frame 8, shown at 0.8 s, found none"),
    "pictures of two sizes": (other_size, r"front: expected pictures of shape \(16, 24, 3\) .* found one of \(32, 24"),
    "no episode 1": (
        without_episode,
        r"episodes: expected episodes numbered from 0 without a gap, found 2 in the place",
    ),
    "unfinished": (unfinished, r"total_episodes: expected the 2 of meta/episodes, found 3; the data set is not whole"),
    "no frame 3": (without_frame, r"file-000.parquet: expected frames 0 to 4 of episode 0, .* found 4 frames"),
    "a frame twice": (
        column(TABLE, "frame_index", lambda values: replaced(values, 3, 2)),
        r"file-000.parquet: expected frames 0 to 4 of episode 0, as meta/episodes says, found 5 others",
    ),
    "an unknown episode": (
        column(TABLE, "episode_index", lambda values: replaced(values, 8, 7)),
        r"episode_index: expected the episodes that meta/episodes has there, found 7 in row 8",
    ),
    "an unknown task": (
        column(TABLE, "task_index", lambda values: replaced(values, 8, 7)),
        r"task_index: expected one of meta/tasks.parquet, found 7",
    ),
    "mixed shapes": (
        column(TABLE, STATE, lambda values: replaced(values, 4, [1.0])),
        r"observation.state: expected rows of shape \(3,\), found 1 values in row 4",
    ),
    "another shape": (features(**{STATE: SHORT}), r"observation.state: expected rows of shape \(2,\), found 3 values"),
    "no numbers": (
        column(TABLE, "timestamp", lambda values: pa.array(map(str, values.to_pylist()))),
        r"timestamp: expected numbers, found type string",
    ),
    "a missing number": (
        column(TABLE, "timestamp", lambda values: replaced(values, 2, None)),
        r"timestamp: expected a value in every row, found none in 1 of them",
    ),
    "no time": (
        column(TABLE, "timestamp", lambda values: replaced(values, 2, float("nan"))),
        r"timestamp: expected 0.2 s for frame 2 of episode 0, .* found nan s",
    ),
    "no state": (
        column(TABLE, STATE, lambda values: replaced(values, 2, [0, 0, np.nan])),
        r"finite numbers .* in row 2",
    ),
    "no action": (column(TABLE, "action", lambda values: replaced(values, 2, [0, np.inf])), r"actions: .* found inf"),
    "no reward": (column(TABLE, "next.reward", lambda values: replaced(values, 2, np.nan)), r"rewards: .* in row 2"),
    "no success": (
        column(TABLE, "next.success", lambda values: replaced(values.cast(pa.float32()), 2, np.nan)),
        r"own: next.success: expected 0 or 1, found nan \(1 rows\)",
    ),
    "done twice over": (
        column(TABLE, "next.done", lambda values: replaced(values.cast(pa.int64()), 2, 2)),
        r"own: next.done: expected 0 or 1, found 2 \(1 rows\)",
    ),
    "no actions": (features(action=None), r"features: expected numbers for action, found none"),
    "actions that are pictures": (
        features(action={"dtype": "image", "shape": [16, 24, 3]}),
        r"features: expected numbers for action, found none",
    ),
    "actions of no shape": (
        features(action={"dtype": "float32", "shape": []}),
        r"action: expected a shape of one number, found \[\]",
    ),
    "a half of an episode": (
        column(TABLE, "episode_index", lambda values: values.cast(pa.float64())),
        r"file-000.parquet: episode_index: expected whole numbers, found float64",
    ),
    "many columns": (many_columns, r"expected a column of that name, found '\\n0', .*, '\\n9' and 20 more$"),
    "many columns of tasks": (other_tasks, r"column of texts, found '\\n0', .*, '\\n9' and 20 more$"),
    "no observations": (
        features(**{STATE: None, "observation.images.front": None}),
        r"features: expected an observation, found none",
    ),
    "features of none": (
        lambda path: edited(path, features=3),
        r"features: expected JSON's object, found 3",
    ),
    "a feature of none": (features(action={"dtype": 3}), r"action: expected dtype and shape"),
    "a billion frames": (
        lambda path: edited(path, total_frames=10**9),
        r"total_frames: expected the 15 of meta/episodes",
    ),
    "a billion frames of an episode": (
        column(EPISODES, "length", lambda values: replaced(values, 0, 10**9 - 1)),
        r"total_frames: expected the 1,000,000,009 of meta/episodes",
    ),
    "a hundred frames a byte": (
        repeated,
        r"observation.state: expected a column of a size that [\d,]+ bytes of a file can hold, found 240,000,000",
    ),
    "a name of none": (
        features(**{"observation.\n": {"dtype": "float32", "shape": [1]}}),
        r"features: expected names that can be printed, found 'observation.\\n'",
    ),
    "a name above": (
        features(
            **{"observation.images.front": None, "observation.images/../../../x": {"dtype": "video", "shape": [1]}}
        ),
        r"meta/episodes.*videos/observation.images/../../../x/chunk_index: expected a column of that name",
    ),
    "a negative file": (
        column(EPISODES, "data/file_index", lambda values: replaced(values, 0, -1)),
        r"data/file_index: expected numbers from 0 to 1e9",
    ),
    "a time of none": (
        column(EPISODES, "videos/observation.images.front/from_timestamp", lambda values: replaced(values, 0, np.nan)),
        r"from_timestamp: expected numbers from 0 to 1e9",
    ),
    "a table above": (outside("../../x"), r"info.json: expected the name of a file in the folder, found '../../x'"),
    "a table elsewhere": (outside("/etc/passwd"), r"info.json: expected the name of a file in the folder"),
    "an attribute": (outside("data/{chunk_index.real}"), r"info.json: expected the name of a file in the folder"),
    "a wide number": (outside("{chunk_index:099999999d}"), r"info.json: expected the name of a file in the folder"),
    "a linked table": (
        linked(TABLE),
        r"file-000.parquet: expected a file in .*own, found a link out of it; .* \(cp -rL\), or download it with",
    ),
    "a linked video": (linked(VIDEO), r"file-000.mp4: expected a file in .*own, found a link out of it"),
    "linked metadata": (linked("meta/info.json"), r"info.json: expected a file in .*own, found a link out of it"),
    "a playlist": (
        lambda path: (path / VIDEO).write_text(f"#EXTM3U\n#EXTINF:1,\n{path / VIDEO.replace('000.mp4', '001.mp4')}\n"),
        r"file-000.mp4: expected a whole mp4 file",
    ),
    "a split of none": (
        lambda path: edited(path, splits=["train"]),
        r"splits: expected JSON's object, found",
    ),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_bad_data_set_of_lerobot_is_one_line(damage, tmp_path):
    write_lerobot(tmp_path / "own")
    change, match = BAD[damage]
    change(tmp_path / "own")
    refused(tmp_path / "own", match, tmp_path)


def one_demonstration(change):
    def damage(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file["data/demo_2"])

    return damage


def every_demonstration(path: Path, change) -> None:
    with h5py.File(path, "a") as file:
        for demonstration in file["data"].values():
            change(demonstration)


def shortened(name: str):
    def change(group) -> None:
        values = group[name][:-1]
        del group[name]
        group[name] = values

    return change


def reshaped(group) -> None:
    values = group["obs/state"][:, :2]
    del group["obs/state"]
    group["obs/state"] = values


def raw(group) -> None:
    del group["obs"], group["next_obs"]


def elsewhere(group) -> None:
    del group["obs/state"]
    group["obs/state"] = h5py.ExternalLink("other.hdf5", "/state")


def not_a_number(group) -> None:
    group["obs/state"][1, 2] = np.nan


def done_twice_over(group) -> None:
    group["dones"][1] = 2


def retyped(name: str):
    def change(group) -> None:
        values = group[name][:].astype(np.uint16)
        del group[name]
        group[name] = values + 256

    return change


BAD_FILES = {
    "raw": (
        one_demonstration(raw),
        r"data/demo_2: expected actions and observations \(obs\), found .*states; robomimic's",
    ),
    "mixed shapes": (
        one_demonstration(reshaped),
        r"demo_2/obs/state: expected numbers of shape \(3,\) a row, as in demo_0",
    ),
    "fewer rewards": (
        one_demonstration(shortened("rewards")),
        r"demo_2/rewards: expected 4 rows as in actions, found \(3,\)",
    ),
    "done twice over": (one_demonstration(done_twice_over), r"a.hdf5: dones: expected 0 or 1, found 2 \(1 rows\)"),
    "pictures of larger numbers": (
        one_demonstration(retyped("obs/image")),
        r"demo_2/obs/image: expected numbers .* as in demo_0 \(uint8\), found \(16, 24, 3\) \(uint16\)",
    ),
    "next pictures of larger numbers": (
        lambda path: every_demonstration(path, retyped("next_obs/image")),
        r"demo_0/next_obs/image: expected numbers .* as in obs \(uint8\), found \(16, 24, 3\) \(uint16\)",
    ),
    "fewer pictures": (one_demonstration(shortened("obs/image")), r"demo_2/obs/image: expected 4 rows as in actions"),
    "no actions": (
        one_demonstration(lambda group: group.pop("actions")),
        r"demo_2/actions: expected rows, as in demo_0",
    ),
    "no key": (one_demonstration(lambda group: group["obs"].pop("state")), r"demo_2/obs/state: expected rows, as in"),
    "a link": (
        one_demonstration(elsewhere),
        r"obs/state: expected an array or a group in this file, found a link into",
    ),
    "no number": (one_demonstration(not_a_number), r"observations/state: expected finite numbers .* found nan in row"),
}


@pytest.mark.parametrize("damage", BAD_FILES)
def test_a_bad_file_of_robomimic_is_one_line(damage, tmp_path):
    write_robomimic(tmp_path / "a.hdf5")
    change, match = BAD_FILES[damage]
    change(tmp_path / "a.hdf5")
    refused(tmp_path / "a.hdf5", match, tmp_path)


def test_parts_that_the_data_names_wrongly_are_refused(tmp_path):
    write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["mask/none"] = np.array([], "S8")
    assert formats.splits(tmp_path / "a.hdf5")["none"].tolist() == []
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["mask/test"] = np.array([b"demo_7"])
    with pytest.raises(DataError, match=r"mask/test: expected demonstrations of data, found 'demo_7'"):
        formats.splits(tmp_path / "a.hdf5")
    write_lerobot(tmp_path / "own")
    edited(tmp_path / "own", splits={"train": "0:x"})
    with pytest.raises(DataError, match=r"splits: expected episodes as 0:3, found '0:x'"):
        formats.splits(tmp_path / "own")
    edited(tmp_path / "own", splits={"train": "x" * 10_000})
    with pytest.raises(DataError, match=r"splits: expected episodes as 0:3, found 'x{100}'$"):
        formats.splits(tmp_path / "own")


def test_a_folder_of_files_of_robomimic_is_not_one_of_episodes(tmp_path):
    (tmp_path / "folder").mkdir()
    write_robomimic(tmp_path / "folder/a.hdf5")
    with pytest.raises(DataError, match=r"a.hdf5: expected one episode, found demonstrations of robomimic"):
        gf.convert(tmp_path / "folder", tmp_path / "b.npz")


def test_a_folder_of_other_things_is_told_what_was_looked_for(tmp_path):
    write_lerobot(tmp_path / "above/own", camera=None)
    wanted = r"above: expected .*LeRobot data set \(with the folders meta and data in it\) or .* found a folder"
    with pytest.raises(DataError, match=wanted):
        gf.load_dataset(tmp_path / "above")
    with pytest.raises(DataError, match=wanted):
        gf.train(str(tmp_path / "above"))
    with pytest.raises(DataError, match=wanted):
        Inspect(str(tmp_path / "above"))()


def test_pictures_that_do_not_fit_are_referred_to_convert(tmp_path, monkeypatch):
    truth = write_lerobot(tmp_path / "own", camera="image")
    monkeypatch.setattr(pictures, "available_memory", lambda: 10_000)
    with pytest.raises(DataError, match=r"own: expected pictures that fit into .*`guidedflow data convert`"):
        gf.load_dataset(tmp_path / "own")
    converted = gf.convert(tmp_path / "own", tmp_path / "own.npz", action_range="measured", reward="none")
    dataset = gf.load_dataset(converted)
    assert isinstance(dataset.observations["front"], np.memmap)
    np.testing.assert_array_equal(dataset.observations["front"], truth["front"])


def test_pictures_of_robomimic_that_do_not_fit_are_referred_to_convert(tmp_path, monkeypatch):
    truth = write_robomimic(tmp_path / "a.hdf5", has_next=False)
    monkeypatch.setattr(pictures, "available_memory", lambda: 10_000)
    monkeypatch.setattr(regular, "memory", lambda: 10_000)
    with pytest.raises(DataError, match=r"a.hdf5: expected pictures that fit into .*`guidedflow data convert`"):
        gf.load_dataset(tmp_path / "a.hdf5")
    converted = gf.convert(tmp_path / "a.hdf5", tmp_path / "own.npz", reward="none")
    monkeypatch.undo()
    dataset = gf.load_dataset(converted)
    assert isinstance(dataset.observations["image"], np.memmap)
    np.testing.assert_array_equal(dataset.observations["image"], truth["front"])


@pytest.mark.parametrize("kind", ["video", "image", "robomimic"])
def test_what_is_converted_is_what_would_be_trained_on(kind, tmp_path):
    is_lerobot = kind != "robomimic"
    path = tmp_path / ("own" if is_lerobot else "a.hdf5")
    write_lerobot(path, camera=kind) if is_lerobot else write_robomimic(path)
    options = {"action_range": "measured"} if is_lerobot else {}
    converted = gf.load_dataset(gf.convert(path, tmp_path / "own.npz", reward="success", **options))
    direct = gf.load_dataset(path, reward="success")
    assert converted.spec == direct.spec
    for mine, theirs in zip(jax.tree.leaves(converted), jax.tree.leaves(direct), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    picture = "front" if is_lerobot else "image"
    alone = gf.load_dataset(gf.convert(path, tmp_path / "vectors.npz", observation_keys=["state"], **options))
    assert alone.spec.observation_keys == (("state", (3,)),)
    assert picture in direct.observations


def line_of(path: Path) -> str | None:
    """What reading it is refused with; None if it is not."""
    try:
        formats.load(path)
    except GuidedflowError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", ["video", "image", "robomimic"])
def test_damage_of_any_kind_is_one_line_or_goes_unnoticed(kind, tmp_path):
    """These formats have no checksums: other values may come out, but never another error or none at all."""
    path = tmp_path / ("own" if kind != "robomimic" else "a.hdf5")
    write_robomimic(path) if kind == "robomimic" else write_lerobot(path, camera=kind)
    rng, errors = np.random.default_rng(0), 0
    for file in sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
        content = file.read_bytes()
        flipped = [bytearray(content) for _ in range(20)]
        for changed in flipped:
            changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
        for damaged in [*(content[: len(content) * quarter // 4] for quarter in range(4)), *flipped]:
            file.write_bytes(damaged)
            problem = line_of(path)
            errors += problem is not None
            assert problem is None or (str(path) in problem and "\n" not in problem)
        file.write_bytes(content)
    assert errors >= 4


@pytest.mark.slow
def test_whatever_stands_in_info_json_is_read_or_one_line(tmp_path):
    write_lerobot(tmp_path / "own")
    file = tmp_path / "own/meta/info.json"
    content = json.loads(file.read_text())
    holders = [content, content["features"], *content["features"].values(), content["splits"]]
    errors = 0
    for holder in holders:
        for name, value in list(holder.items()):
            for other in (None, True, -1, 1e300, 10**40, "\n{", [], {}, [None], {"a": 1}):
                holder[name] = other
                file.write_text(json.dumps(content))
                problem = line_of(tmp_path / "own")
                errors += problem is not None
                assert problem is None or (str(tmp_path) in problem and "\n" not in problem)
            holder[name] = value
    assert errors > 300


@pytest.mark.slow
def test_training_goes_on_with_the_rewards_and_the_task_that_it_began_with(tmp_path):
    path = tmp_path / "own"
    write_lerobot(path, (8, 9, 8), task=[0] * 17 + [1] * 8, camera=None)
    settings = {"preset": "quick", "hidden": (8,), "batch_size": 8, "log_every": 10, "save_every": 20, "steps": 40}
    options = {"reward": "step-cost", "instruction": TEXTS[0]}
    whole = gf.train(path, agent="iql", run_dir=tmp_path / "whole", progress=False, **settings, **options)
    train_until_killed(30, str(path), agent="iql", run_dir=tmp_path / "cut", progress=False, **settings, **options)
    saved = json.loads((tmp_path / "cut/config.json").read_text())
    assert (saved["data"]["reading"], saved["data"]["episodes"]) == (options, 2)
    with pytest.raises(SettingsError, match="found others: reward step-cost -> success"):
        gf.resume(tmp_path / "cut", reward="success")
    gf.resume(tmp_path / "cut", progress=False, **options)
    for mine, theirs in zip(
        *(jax.tree.leaves(trained_agents(run)) for run in (whole.path, tmp_path / "cut")), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    policy = gf.load_policy(whole.path)
    assert (policy.spec.action_range.low <= policy({"state": np.zeros(3)})).all()


@pytest.mark.slow
def test_the_commands_take_robots_recordings(tmp_path):
    write_lerobot(tmp_path / "own")
    shown = guidedflow("data", "inspect", tmp_path / "own", "--reward", "step-cost", "--json")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert (found["episodes"], found["success_share"], found["episode_returns"]["highest"]) == (3, 2 / 3, -3.0)
    assert shown.stderr.count("stand for the lowest to the highest") == 1
    write_robomimic(tmp_path / "a.hdf5")
    converted = guidedflow("data", "convert", tmp_path / "a.hdf5", tmp_path / "a.npz", "--reward", "success")
    assert (converted.returncode, converted.stderr) == (0, ""), converted.stderr
    write_lerobot(tmp_path / "vectors", camera=None)
    small = ["--preset", "quick", "--hidden", "8", "--batch-size", "8", "--steps", "20", "--log-every", "10"]
    bc = ["train", tmp_path / "vectors", "--agent", "bc", "--reward", "none"]
    trained = guidedflow(*bc, *small, "--run-dir", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    refused = guidedflow("train", "--resume", tmp_path / "run", "--reward", "success")
    assert (refused.returncode, "reward none -> success" in refused.stderr) == (2, True), refused.stderr
    (tmp_path / "own" / VIDEO).unlink()
    bad = guidedflow("train", tmp_path / "own", "--agent", "bc", *small, "--run-dir", tmp_path / "bad")
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1), bad.stderr
    assert not (tmp_path / "bad").exists()
