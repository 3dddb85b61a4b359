"""Many environments in workers, what helper processes pass on, how many there should be, and films."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import gymnasium
import numpy as np
import pytest
from conftest import TASK, make_env
from PIL import Image

from guidedflow import processes
from guidedflow.envs.render import SMALLEST_WIDTH, GifWriter, captioned
from guidedflow.envs.vector import Reset, VectorEnv
from guidedflow.errors import DataError, SettingsError, WorkerDied
from guidedflow.processes import RemoteTraceback, cpu_quota
from guidedflow.suites import find_task
from guidedflow.types import Spec

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # As a script's or a notebook's own definitions are.


class OwnError(Exception):
    """Of a user, in a module that workers cannot import."""


class TwoArguments(Exception):
    """Can be pickled, but not made anew from what was pickled."""

    def __init__(self, a, b=2):
        super().__init__(f"{a} and {b}", b, b)


class Counter(gymnasium.Env):
    """Counts its steps, and fails or succeeds when it is told to."""

    observation_space = gymnasium.spaces.Dict(
        {
            "count": gymnasium.spaces.Box(0, 100, (1,), np.float32),
            "arm": gymnasium.spaces.Dict({"angles": gymnasium.spaces.Box(-1, 1, (2,), np.float64)}),
        }
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, error=None, success=None, render_mode=None):
        self.error, self.success, self.render_mode = error, success, render_mode

    def seen(self):
        return {"count": [self.count], "arm": {"angles": np.array([0.5, -0.5])}}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.seen(), {}

    def step(self, action):
        if self.error is not None:
            raise self.error("of the user")
        self.count += 1
        return self.seen(), 1, self.count == 3, False, {self.success: np.bool_(True)} if self.success else {}

    def render(self):
        return np.full((8, 8, 3), self.count, np.uint8) if self.render_mode == "rgb_array" else None


KEYS = (("arm/angles", (2,)), ("count", (1,)))


def counters(slots=1, workers=1, keys=KEYS, **options) -> VectorEnv:
    spec = Spec((3,), np.dtype("float32"), 1, keys)
    return VectorEnv(functools.partial(Counter, **options), slots=slots, workers=workers, spec=spec)


@pytest.mark.slow
def test_workers_see_what_one_environment_sees_without_opengl():
    task = find_task(TASK)
    env = make_env(task)
    observation, _ = env.reset(seed=7)
    action = np.full(5, 0.3, np.float32)
    with VectorEnv(functools.partial(task.suite.make_env, task), slots=3, workers=2) as vector:
        vector.wait_until_ready()
        outcomes = vector.exchange([None, Reset(7), None])
        assert outcomes[0] is None
        np.testing.assert_array_equal(outcomes[1].observation, observation.astype(np.float32))
        outcomes = vector.exchange([None, action, None])
        np.testing.assert_array_equal(outcomes[1].observation, env.step(action)[0].astype(np.float32))
        assert outcomes[1].reward == -1.0


def test_dictionaries_become_vectors_in_the_order_of_their_keys():
    with counters() as vector:
        vector.exchange([Reset(0)])
        (outcome,) = vector.exchange([np.zeros(1, np.float32)])
    assert outcome.observation.tolist() == [0.5, -0.5, 1.0]
    assert outcome.observation.dtype == np.float32
    with counters(keys=()) as vector, pytest.raises(DataError, match="expected an array, found a dictionary of count"):
        vector.exchange([Reset(0)])


@pytest.mark.parametrize(("name", "expected"), [("success", 1.0), ("is_success", 1.0), (None, np.nan)])
def test_success_has_either_of_its_two_names_or_none(name, expected):
    with counters(success=name) as vector:
        vector.exchange([Reset(0)])
        assert np.array_equal(vector.exchange([np.zeros(1)])[0].success, expected, equal_nan=True)


@pytest.mark.parametrize("error", [ValueError, OwnError, KeyError])
def test_an_environments_exception_comes_out_as_itself(error):
    with counters(slots=2, workers=2, error=error) as vector:
        vector.exchange([Reset(0), Reset(1)])
        with pytest.raises(error, match="of the user") as caught:
            vector.exchange([np.zeros(1), None])
    assert type(caught.value) is error
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in step" in str(caught.value.__cause__)


def test_an_exception_that_cannot_travel_is_told_with_its_traceback():
    with counters(error=TwoArguments) as vector:
        vector.exchange([Reset(0)])
        with pytest.raises(RuntimeError, match=r"a helper process failed:(.|\n)*TwoArguments: \('of the user and 2"):
            vector.exchange([np.zeros(1)])


def test_an_exception_while_it_is_made_comes_out_of_waiting():
    def fail():
        raise OwnError("no such robot")

    with VectorEnv(fail, slots=1, workers=1) as vector, pytest.raises(OwnError, match="no such robot"):
        vector.wait_until_ready()


def test_an_end_of_file_in_an_environment_is_no_end_of_the_conversation():
    with counters(error=EOFError) as vector:
        vector.exchange([Reset(0)])
        with pytest.raises(EOFError, match="of the user"):
            vector.exchange([np.zeros(1)])


def test_a_killed_worker_says_so():
    vector = counters()
    os.kill(vector._workers[0]._process.pid, 9)
    with pytest.raises(WorkerDied, match="ended unexpectedly, exit code -9"):
        vector.exchange([Reset(1)])
    vector.close()


def test_workers_of_a_benchmark_do_without_jax():
    task = find_task("antmaze-umaze-v2")
    program = "import pickle, sys; pickle.load(sys.stdin.buffer)(); sys.exit('jax' in sys.modules)"
    packed = cloudpickle.dumps(functools.partial(task.suite.make_env, task))
    done = subprocess.run([sys.executable, "-c", program], input=packed, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_script_without_a_main_guard_brings_its_own_environment(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import gymnasium\n"
        "from guidedflow.envs.vector import Reset, VectorEnv\n"
        "class Mine(gymnasium.Wrapper):\n"
        "    def step(self, action): raise RuntimeError('mine')\n"
        "env = VectorEnv(lambda: Mine(gymnasium.make('Pendulum-v1')), slots=2, workers=2)\n"
        "print(env.exchange([Reset(0), Reset(0)])[1].observation.shape)\n"
        "env.close()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("(3,)\n", "")


def container(root: Path, cgroup: str, **files: str) -> Path:
    """A file system with the control groups that Linux would show there."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("max", "cpu.max")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"max": "max 100000\n"}, np.inf),
        ("0::/jobs/mine\n", {"jobs__max": "400000 100000", "jobs__mine__max": "max 100000"}, 4.0),
        ("0::/not/visible/here\n", {"max": "200000 100000"}, 2.0),
        ("3:cpu,cpuacct:/\n0::/\n", {"cpu__cpu.cfs_quota_us": "50000", "cpu__cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpuset:/\n1:cpu:/\n", {"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}, np.inf),
        ("", {}, np.inf),
    ],
)
def test_a_containers_quota_is_found(tmp_path, cgroup, files, expected):
    assert cpu_quota(container(tmp_path, cgroup, **files)) == expected


def test_as_many_processes_as_there_are_cores_and_the_container_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quota, told, expected in (
        (np.inf, "", 8),
        (2.5, "", 3),
        (0.3, "", 1),
        (64, "", 8),
        (64, "2", 2),
        (64, "12", 8),
        (64, "all", 8),
        (64, "0", 1),
    ):
        monkeypatch.setattr(processes, "cpu_quota", lambda quota=quota: quota)
        monkeypatch.setenv("NPROC", told)
        assert processes.available_cores() == expected


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as clip:
        found = []
        for number in range(clip.n_frames):
            clip.seek(number)
            found.append(np.asarray(clip.convert("RGB")))
        return found


def test_a_film_holds_every_frame_and_stores_what_changed(tmp_path):
    rng = np.random.default_rng(0)
    background = rng.integers(0, 8, (60, 80, 3), dtype=np.uint8) * 32
    given = []
    for i in range(12):
        picture = background.copy()
        picture[10:20, 5 * i : 5 * i + 10] = (250, 20, 20)
        given.append(picture)
    given.append(given[-1])  # Nothing moved.
    with GifWriter(tmp_path / "a.gif", 20) as film:
        for picture in given:
            film.append(picture)
    stored = frames(tmp_path / "a.gif")
    assert len(stored) == len(given)
    for i, (picture, found) in enumerate(zip(given, stored, strict=True)):
        differs = np.abs(picture.astype(int) - found)
        assert differs.mean() < 12  # 256 colours are fewer than there were.
        place = 5 * min(i, 11)
        assert differs[10:20, place : place + 10].max() < 20
    with Image.open(tmp_path / "a.gif") as clip:
        assert (clip.info["duration"], clip.info["loop"], clip.size) == (50, 0, (80, 60))
    with GifWriter(tmp_path / "first.gif", 20) as film:
        film.append(given[0])
    size, first = ((tmp_path / name).stat().st_size for name in ("a.gif", "first.gif"))
    assert size < 4 * first  # A frame that is stored as a whole costs as much as the first.


def fail_after(film: GifWriter, picture: np.ndarray) -> None:
    film.append(picture)
    raise OwnError


def test_a_film_is_written_as_it_grows_and_there_when_it_is_whole(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    film = GifWriter(tmp_path / "a.gif", 10)
    assert list(tmp_path.iterdir()) == []
    sizes = []
    for picture in pictures:
        film.append(picture)
        film._open[1].flush()
        (growing,) = tmp_path.iterdir()
        sizes.append(growing.stat().st_size)
    assert growing.name != "a.gif"
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    film.discard()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OwnError), GifWriter(tmp_path / "b.gif", 10) as film:
        fail_after(film, pictures[0])
    assert list(tmp_path.iterdir()) == []


def test_a_caption_is_written_below_the_picture_which_is_enlarged_if_it_is_small():
    picture = np.full((64, 64, 3), 90, np.uint8)
    one, two = captioned(picture, ["actor step 100", "return -3.0  success no"]), captioned(picture, ["", ""])
    assert one.shape == two.shape
    assert one.shape[1] == SMALLEST_WIDTH
    scale = SMALLEST_WIDTH // 64
    np.testing.assert_array_equal(one[: 64 * scale], 90)
    assert (one[64 * scale :] > 128).sum() > 200
    assert (two[64 * scale :] == 0).all()
    assert captioned(np.zeros((200, 300, 3), np.uint8), ["x"]).shape[1] == 300


def test_an_environment_that_draws_nothing_cannot_be_filmed():
    with counters(render_mode="rgb_array") as vector:
        assert vector.exchange([Reset(0, film=True)])[0].frame.shape == (8, 8, 3)
        assert vector.exchange([Reset(0)])[0].frame is None  # Only what is filmed is drawn.
    with counters() as vector, pytest.raises(SettingsError, match=r"videos: expected .* render_mode='rgb_array'"):
        vector.exchange([Reset(0, film=True)])
