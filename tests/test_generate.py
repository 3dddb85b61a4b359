"""Data sets from the scripted oracles: contents, determinism, resuming, refusals."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import filelock
import numpy as np
import ogbench
import pytest

from guidedflow.errors import DataError, SettingsError, WorkerDied
from guidedflow.suites.ogbench import oracles as module
from guidedflow.suites.ogbench.generation import generate
from guidedflow.suites.ogbench.oracles import Collector, cube_stays_in_view, episode_record
from guidedflow.suites.ogbench.recipes import FAMILIES, recipe

# OGBench states the bounds of its actions in float64, which gymnasium remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")

OBSERVATIONS = {
    "cube-single": 28,
    "cube-double": 37,
    "cube-triple": 46,
    "scene": 40,
    "puzzle-3x3": 55,
    "puzzle-4x4": 83,
}
PARTS = {"cube-single": 1, "cube-double": 2, "cube-triple": 3, "scene": 5, "puzzle-3x3": 9, "puzzle-4x4": 16}
BUTTONS = {"scene": 2, "puzzle-3x3": 9, "puzzle-4x4": 16}


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].tobytes() == right[name].tobytes(), name


def generate_until(done: int, strike: str, directory: Path, **options: object) -> subprocess.CompletedProcess:
    # A script without a `__main__` guard, on purpose.
    script = f"""
import os, signal
from pathlib import Path
from guidedflow.suites.ogbench.generation import generate
signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever started the tests may have it ignored.
strike = lambda done, total: done == {done} and {strike}
generate("cube-single-noisy", directory=Path({str(directory)!r}), progress=strike, **{options!r})
"""
    command = [sys.executable, "-c", script]
    environment = os.environ | {"MADE_IN": str(directory)}
    return subprocess.run(command, capture_output=True, text=True, start_new_session=True, env=environment)


def workers_in(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"MADE_IN={directory}".encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if not family.startswith("visual-")])
def test_family_in_ogbench_format(family: str, tmp_path: Path) -> None:
    steps = 40
    train, val = generate(family, directory=tmp_path, episodes=1, steps=steps)
    assert (train.name, val.name) == (f"{family}-v0.npz", f"{family}-v0-val.npz")

    world = family.rpartition("-")[0]
    for path in (train, val):
        arrays = load(path)
        assert arrays["observations"].shape == (steps, OBSERVATIONS[world])
        assert arrays["actions"].shape == (steps, 5)
        assert np.abs(arrays["actions"]).max() <= 1
        for name in ("observations", "actions", "qpos", "qvel"):
            assert arrays[name].dtype == np.float32
            assert np.isfinite(arrays[name]).all()
        assert arrays["terminals"].dtype == np.bool_
        assert arrays["terminals"].tolist() == [False] * (steps - 1) + [True]
        # The first six observations are the arm's joint angles: the row's state is that of its observation.
        np.testing.assert_array_equal(arrays["observations"][:, :6], arrays["qpos"][:, :6])
        if world in BUTTONS:
            assert arrays["button_states"].dtype == np.int64
            assert arrays["button_states"].shape == (steps, BUTTONS[world])
            assert set(np.unique(arrays["button_states"])) <= {0, 1}
        else:
            assert "button_states" not in arrays

    loaded, _ = ogbench.make_env_and_datasets(f"{family}-v0", dataset_path=str(train), dataset_only=True)
    assert loaded["next_observations"].shape == (steps - 1, OBSERVATIONS[world])

    if family.endswith("noisy"):
        # The worker made the validation episode after another one; this one comes from a new environment.
        made = load(val)
        del made["metadata"]
        assert_same(made, episode_record(family, seed=0, index=0, split="val", steps=steps))
    else:
        task = f"{family}-singletask-task1-v0"
        _, dataset, _ = ogbench.make_env_and_datasets(task, dataset_path=str(train))
        assert dataset["rewards"].shape == dataset["masks"].shape == (steps - 1,)
        assert -PARTS[world] <= dataset["rewards"].min() <= dataset["rewards"].max() <= 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["cube-triple-play", "scene-noisy", "puzzle-4x4-noisy"])
def test_used_environment_makes_the_same_episode(family: str) -> None:
    used = Collector(family, steps=150)
    for index in (5, 3):
        used.episode(0, index)
    assert_same(used.episode(0, 1), episode_record(family, 0, 1, steps=150))


def test_actions_replay_to_the_recorded_states() -> None:
    collector = Collector("scene-noisy", steps=120)
    record = collector.episode(1, 0)
    env = collector._env.unwrapped
    env.reset(seed=0)
    # Only float32 of the first state is stored; the arm and the drawer forgive that for some steps.
    env.set_state(record["qpos"][0], record["qvel"][0], record["button_states"][0])
    for row, action in enumerate(record["actions"][:20]):
        np.testing.assert_allclose(env.data.qpos, record["qpos"][row], atol=1e-3)
        env.step(action)


@pytest.mark.slow
def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    options = {"episodes": 5, "val_episodes": 2, "steps": 25, "seed": 7}
    one = generate("cube-single-noisy", directory=tmp_path / "1", workers=1, **options)
    two = generate("cube-single-noisy", directory=tmp_path / "2", workers=2, **options)
    for left, right in zip(one, two, strict=True):
        assert_same(load(left), load(right))
    arrays = load(one[0])
    assert arrays["terminals"].nonzero()[0].tolist() == [24, 49, 74, 99, 124]
    assert len({arrays["observations"][start].tobytes() for start in range(0, 125, 25)}) == 5
    stored = load(one[1])["metadata"]
    assert stored.shape == ()
    assert stored.dtype.kind == "U"
    assert json.loads(stored.item()) == {
        "generator": "guidedflow",
        "versions": {name: version(name) for name in ("guidedflow", "ogbench", "mujoco", "numpy")},
        "family": "cube-single-noisy",
        "seed": 7,
        "steps": 25,
        "split": "val",
        "episodes": 2,
    }
    more = generate("cube-single-noisy", directory=tmp_path / "3", **(options | {"episodes": 6}))
    np.testing.assert_array_equal(load(more[0])["qpos"][:125], arrays["qpos"])
    np.testing.assert_array_equal(load(more[1])["qpos"], load(one[1])["qpos"])


def test_episodes_depend_on_seed_and_split() -> None:
    collector = Collector("cube-single-play", steps=3)
    first = collector.episode(0, 0)["observations"]
    for other in (collector.episode(1, 0), collector.episode(0, 1), collector.episode(0, 0, "val")):
        assert not np.array_equal(first, other["observations"])


@pytest.mark.slow
def test_killed_in_the_middle_then_continued(tmp_path: Path) -> None:
    options = {"episodes": 12, "val_episodes": 1, "steps": 80, "workers": 2}
    result = generate_until(3, "os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "killed", **options)
    assert result.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while workers_in(tmp_path):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.05)
    partial = tmp_path / "killed" / ".partial"
    assert not list((tmp_path / "killed").glob("*.npz"))

    finished = {part: part.stat().st_mtime_ns for part in partial.glob("*/*.npz")}
    # A part that is there is used as it is: one with a mark shows up in the data set.
    marked = min(finished)
    arrays = load(marked)
    np.savez(marked, **(arrays | {"actions": np.full_like(arrays["actions"], 0.5)}))
    calls: list[tuple[int, int]] = []
    train, val = generate(
        "cube-single-noisy",
        directory=tmp_path / "killed",
        progress=lambda *call: calls.append(call),
        **options,
    )
    assert 3 <= len(finished) < 13
    assert calls == [(done, 13) for done in range(len(finished), 14)]
    assert not list(partial.glob("*/*"))

    whole = generate("cube-single-noisy", directory=tmp_path / "whole", **(options | {"workers": 1}))
    assert_same(load(val), load(whole[1]))
    made, expected = load(train), load(whole[0])
    start = 80 * int(marked.stem.split("-")[1])
    assert (made["actions"][start : start + 80] == 0.5).all()
    made["actions"][start : start + 80] = expected["actions"][start : start + 80]
    assert_same(made, expected)


@pytest.mark.slow
def test_interrupt_ends_the_workers_and_keeps_what_is_finished(tmp_path: Path) -> None:
    # As a terminal does it: the signal goes to the workers, too.
    result = generate_until(2, "os.killpg(0, signal.SIGINT)", tmp_path, episodes=500, steps=60, workers=2)
    assert result.returncode == -signal.SIGINT
    assert result.stderr.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert not workers_in(tmp_path)
    assert len(list(tmp_path.glob(".partial/*/train-*.npz"))) >= 2
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.slow
def test_broken_part_is_made_again(tmp_path: Path) -> None:
    def stop_before_joining(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    options = {"episodes": 4, "val_episodes": 1, "steps": 10}
    with pytest.raises(KeyboardInterrupt):
        generate("cube-single-play", directory=tmp_path, progress=stop_before_joining, **options)
    parts = sorted(tmp_path.glob(".partial/*/train-*.npz"))
    assert len(parts) == 4
    parts[0].write_bytes(parts[0].read_bytes()[:-200])
    parts[1].write_bytes(b"")
    content = bytearray(parts[2].read_bytes())
    content[len(content) // 2] ^= 0xFF
    parts[2].write_bytes(content)
    calls: list[tuple[int, int]] = []
    made = generate("cube-single-play", directory=tmp_path, progress=lambda *c: calls.append(c), **options)
    assert calls == [(2, 5), (3, 5), (4, 5), (5, 5)]
    train, val = (load(path)["observations"] for path in made)
    collector = Collector("cube-single-play", steps=10)
    expected = [collector.episode(0, index)["observations"] for index in range(4)]
    np.testing.assert_array_equal(train, np.concatenate(expected))
    np.testing.assert_array_equal(val, collector.episode(0, 0, "val")["observations"])


@pytest.mark.slow
def test_no_half_file_under_a_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: .*cube-single-play-v0\.npz"):
        generate("cube-single-play", directory=tmp_path, episodes=1, steps=3)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [".partial"]
    assert not list(tmp_path.glob(".partial/*/*.tmp"))


@pytest.mark.slow
def test_a_worker_that_fails_says_why_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*train-0\.npz'$"):
            generate("cube-single-play", directory=tmp_path, episodes=1, steps=200, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("**/*.npz*"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerDied, match=r"^a helper process ended unexpectedly, exit code 1$"):
        generate("cube-single-play", directory=tmp_path, episodes=1, steps=200)


@pytest.mark.slow
def test_second_call_keeps_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = generate("cube-single-play", directory=tmp_path, episodes=2, steps=3)
    times = [path.stat().st_mtime_ns for path in first]
    with caplog.at_level("INFO"):
        second = generate("cube-single-play", directory=tmp_path, episodes=2, steps=3, workers=2)
    assert second == first
    assert [path.stat().st_mtime_ns for path in second] == times
    assert "already there" in caplog.text

    # A kill may come between the two files, or a user remove one: only the other is made.
    content = load(first[1])
    first[1].unlink()
    generate("cube-single-play", directory=tmp_path, episodes=2, steps=3)
    assert_same(load(first[1]), content)
    assert first[0].stat().st_mtime_ns == times[0]

    with pytest.raises(DataError, match=r"expected .*seed 1,.*; found .*seed 0,.*--data-dir"):
        generate("cube-single-play", directory=tmp_path, episodes=2, steps=3, seed=1)
    with pytest.raises(DataError, match=r"expected .*episodes 3; found .*episodes 2;"):
        generate("cube-single-play", directory=tmp_path, episodes=3, steps=3)


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_files_of_others_are_left_alone(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "scene-play-v0-val.npz"
    if content is None:
        np.savez(path, observations=np.zeros((2, 40)))
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"scene-play-v0-val\.npz: .*found a damaged file, or one that"):
        generate("scene-play", directory=tmp_path, episodes=1, steps=3)
    assert path.read_bytes() == before


def test_two_makers_at_once(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    lock = filelock.FileLock(tmp_path / ".partial" / "scene-play.lock")
    with lock, pytest.raises(SettingsError, match="another process is making scene-play here"):
        generate("scene-play", directory=tmp_path, episodes=1, steps=3)


@pytest.mark.slow
def test_a_folder_in_which_nothing_can_be_locked_is_used_with_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(file: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    for path in generate("scene-play", directory=tmp_path, episodes=1, val_episodes=1, steps=3):
        assert path.is_file()
    assert "lock" in caplog.text


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"expected one of cube-single-noisy, .*, found 'cube-singel-noisy'"):
        generate("cube-singel-noisy", directory=tmp_path)
    with pytest.raises(SettingsError, match=r"expected one of cube-single-play, .*visual-puzzle-4x4-play, found 'zzz'"):
        recipe("zzz")
    for option, value in (("episodes", 0), ("val_episodes", 0), ("workers", 0), ("seed", -1), ("steps", 1)):
        with pytest.raises(SettingsError, match=rf"^{option}: expected .*, found {value}$"):
            generate("scene-play", directory=tmp_path, **{option: value})
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"^data_dir: expected a folder to write and lock files in, found .*/file"):
        generate("scene-play", directory=tmp_path / "file", episodes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_global_generator_is_untouched() -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    first = episode_record("cube-single-play", 0, 0, steps=5)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(left, right) for left, right in zip(before, after, strict=True))
    np.random.seed(4)  # noqa: NPY002
    assert_same(episode_record("cube-single-play", 0, 0, steps=5), first)


def test_recipes() -> None:
    assert len(FAMILIES) == 12 + 5
    visual = [family for family in FAMILIES if recipe(family).is_visual]
    assert [recipe(family.removeprefix("visual-")).oracle for family in visual] == ["plan"] * 5
    noisy = {family: recipe(family).p_random_action for family in FAMILIES if family.endswith("noisy")}
    assert noisy == {
        "cube-single-noisy": 0.1,
        "cube-double-noisy": 0.1,
        "cube-triple-noisy": 0.1,
        "scene-noisy": 0.1,
        "puzzle-3x3-noisy": 0.2,
        "puzzle-4x4-noisy": 0.2,
    }
    assert {family for family in FAMILIES if recipe(family).episodes == 3000} == {
        "cube-triple-play",
        "cube-triple-noisy",
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", ["puzzle-3x3-noisy", "cube-single-noisy"])
def test_share_of_random_actions(family: str) -> None:
    collector = Collector(family, steps=300)
    oracle = collector._oracles["button" if "puzzle" in family else "cube"]
    asked, select_action = [], oracle.select_action
    oracle.select_action = lambda *seen: asked.append(seen) or select_action(*seen)
    for index in range(3):
        collector.episode(0, index)
    share = 1 - len(asked) / 900
    assert abs(share - recipe(family).p_random_action) <= 4 * np.sqrt(share * (1 - share) / 900)


def test_oracle_and_noise_make_the_action() -> None:
    actions = {}
    for family in ("cube-single-play", "cube-single-noisy"):
        collector = Collector(family, steps=300)
        collector._oracles["cube"].select_action = lambda observation, info: np.zeros(5)
        actions[family] = collector.episode(0, 0)["actions"]
    assert not actions["cube-single-play"].any()
    spread = np.median(np.abs(actions["cube-single-noisy"]), axis=0)
    np.testing.assert_allclose(spread / spread[0], [1, 1, 1, 3, 10], rtol=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["puzzle-4x4-noisy", "cube-double-play"])
def test_after_a_new_target_the_next_action_still_goes_by_what_the_last_step_said(family: str) -> None:
    """OGBench's script tells a new target's info to the oracle's reset alone."""
    collector = Collector(family, steps=300)
    env = collector._env.unwrapped
    told: list[dict] = []
    asked: list[tuple[int, dict]] = []
    set_new_target = env.set_new_target

    def spy_on_targets(**options):
        if not options.get("return_info", True):  # Of the reset.
            return set_new_target(**options)
        told.append(set_new_target(**options)[1])
        return None, told[-1]

    def spy_on(oracle):
        select_action, reset = oracle.select_action, oracle.reset

        def select(observation, info):
            asked.append((len(told), info))
            return select_action(observation, info)

        def start(observation, info):
            assert not told or info is told[-1]
            return reset(observation, info)

        oracle.select_action, oracle.reset = select, start

    collector._env.reset(seed=0)
    env.set_new_target = spy_on_targets
    for oracle in collector._oracles.values():
        spy_on(oracle)
    collector.episode(0, 0)
    assert len(told) >= 2
    assert max(number for number, _ in asked) >= 1
    assert not any(info is new for _, info in asked for new in told)


def test_cube_stays_in_view() -> None:
    def trajectory(y: float, z: float) -> np.ndarray:
        return np.array([[0.4, 0.0, 0.02], [0.4, y, z], [0.4, 0.0, 0.02]], np.float32)

    assert cube_stays_in_view(trajectory(0.28, 0.02))
    assert not cube_stays_in_view(trajectory(0.30, 0.02))
    assert not cube_stays_in_view(trajectory(0.30, 0.07))
    assert cube_stays_in_view(trajectory(-0.29, 0.02))
    assert cube_stays_in_view(trajectory(-0.36, 0.066))
    assert not cube_stays_in_view(trajectory(-0.36, 0.05))
    assert not cube_stays_in_view(trajectory(-0.36, 0.09))


def test_scene_is_drawn_again_until_the_cube_stays_in_view(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector("scene-play", steps=5)
    first = collector.episode(0, 0)
    seen: list[np.ndarray] = []

    def hide_twice(positions: np.ndarray) -> bool:
        seen.append(positions)
        return len(seen) > 2

    monkeypatch.setattr(module, "cube_stays_in_view", hide_twice)
    again = collector.episode(0, 0)
    assert len(seen) == 3
    # The observation holds the cube's position relative to a point of the table, times ten.
    np.testing.assert_allclose(again["observations"][:, 19:22] / 10 + [0.425, 0, 0], seen[-1], atol=1e-6)
    assert not np.array_equal(first["observations"], again["observations"])
    seen.clear()
    assert_same(collector.episode(0, 0), again)


def test_workers_do_not_import_jax() -> None:
    script = """
import sys
import guidedflow.suites.ogbench.oracles as module
assert not {"jax", "mujoco", "ogbench", "gymnasium"} & set(sys.modules)
module.Collector("cube-single-play", 3)
assert "jax" not in sys.modules
"""
    environment = os.environ | {"MUJOCO_GL": "disabled"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
