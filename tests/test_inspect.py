"""What an inspection finds in data that was made to have it, its page in a real browser, and the memory it takes."""

import base64
import io
import json
import re
import tracemalloc
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
from conftest import SHARED, guidedflow, own_arrays
from PIL import Image

import guidedflow as gf
from benchmarks import browser
from guidedflow.data import findings
from guidedflow.data.dataset import Dataset
from guidedflow.data.findings import columns
from guidedflow.errors import SettingsError

EPISODES, LENGTH = 10, 20
ROWS = EPISODES * LENGTH


def smooth_arrays(seed=0):
    """Episodes of a point that wanders, in which there is nothing to be found."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(-0.1, 0.1, (EPISODES, LENGTH, 3))
    return {
        "observations": (rng.normal(size=(EPISODES, 1, 3)) + steps.cumsum(axis=1)).reshape(ROWS, 3),
        "actions": rng.uniform(-0.95, 0.95, (ROWS, 2)),
        "rewards": rng.normal(size=ROWS),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": np.arange(1, ROWS + 1) % LENGTH == 0,
    }


@pytest.fixture
def look(tmp_path):
    def look(html=None, **changes):
        path = tmp_path / "own.npz"
        np.savez(path, **{**smooth_arrays(), **changes})
        return gf.inspect(path, html=html)

    return look


def test_nothing_is_found_where_there_is_nothing(look):
    found = look()
    assert (found.problems, found.findings, found.gaps, found.duplicates) == ([], [], [], [])


def test_columns_are_described(look):
    arrays = smooth_arrays()
    found = look()
    for described, values in ((found.actions, arrays["actions"]), (found.observations, arrays["observations"])):
        values = values.astype(np.float32).astype(np.float64)
        for name, expected in (
            ("low", values.min(axis=0)),
            ("high", values.max(axis=0)),
            ("mean", values.mean(axis=0)),
            ("deviation", values.std(axis=0)),
        ):
            np.testing.assert_allclose([getattr(column, name) for column in described], expected, rtol=1e-9)
        for i, column in enumerate(described):
            assert column.histogram == tuple(np.histogram(values[:, i], bins=len(column.histogram))[0])
    assert [column.name for column in found.observations] == [f"observations[{i}]" for i in range(3)]


def test_what_is_looked_at_in_pieces_is_as_in_one(monkeypatch):
    values, rows = np.random.default_rng(0).normal(size=(100, 3)), np.arange(100) % 10 != 9
    whole = columns(values, "abc", rows)
    monkeypatch.setattr(findings, "PIECE", 21)
    for one, other in zip(whole, columns(values, "abc", rows), strict=True):
        assert (one.name, one.histogram, one.at_low) == (other.name, other.histogram, other.at_low)
        np.testing.assert_allclose(one[1:5], other[1:5], rtol=1e-12)


def test_returns_and_success_are_told_by_episode(look):
    rewards = np.repeat([3.0, 1, 5, 2, 4, 9, 6, 8, 0, 7], LENGTH) / LENGTH
    success = np.isin(np.arange(ROWS), (5, 41, 42))
    found = look(rewards=rewards, success=success)
    np.testing.assert_allclose(found.returns, [3, 1, 5, 2, 4, 9, 6, 8, 0, 7], atol=1e-5)
    np.testing.assert_allclose(
        found.episode_returns.quantiles, np.quantile(np.arange(10), (0.05, 0.25, 0.5, 0.75, 0.95))
    )
    assert (found.episode_returns.best, found.episode_returns.worst) == ((5, 7, 9), (8, 1, 3))
    assert np.flatnonzero(found.successes).tolist() == [0, 2]
    assert found.lengths == [LENGTH] * EPISODES


def test_failures_that_are_rewarded_more_are_found(look):
    success, episode = np.arange(ROWS) % (2 * LENGTH) == 3, np.arange(ROWS) // LENGTH
    said = "episodes that fail have the higher returns, 20 on average, than those that succeed, 10"
    rewards = np.where(episode % 2 == 0, 0.5, 1.0)
    assert look(rewards=rewards, success=success).findings == [f"{said}: their rewards may teach to fail"]
    assert look(rewards=-rewards, success=success).findings == []


def test_a_saturated_action_is_found_in_the_units_of_the_environment(tmp_path):
    arrays = smooth_arrays()
    arrays["actions"] = 5 + 2 * arrays["actions"]
    arrays["actions"][:124, 1] = np.where(np.arange(124) < 60, 3, 7)
    found = gf.inspect(gf.convert(arrays, tmp_path / "a.npz", action_range=(3, 7)))
    assert found.findings == ["actions[1] is at its lowest or highest value in 62% of the steps (3 in 30%, 7 in 32%)"]
    assert found.actions[1][1:3] == (3, 7)


def test_a_log_in_physical_units_is_looked_at_before_it_is_converted(look):
    arrays = smooth_arrays()
    found = look(actions=arrays["actions"] * [1, 30])
    assert len(found.problems) == 1
    assert "actions: expected values in [-1, 1], found 28.4" in found.problems[0]
    np.testing.assert_allclose(found.actions[1].low, 30 * arrays["actions"][:, 1].min(), rtol=1e-5)
    assert found.episodes == EPISODES


@pytest.mark.parametrize("actions", [np.full((ROWS, 2), 1e300), np.full((ROWS, 2), np.inf), np.zeros(ROWS) + 7, "none"])
def test_what_is_no_action_in_any_unit_is_one_problem(actions, look):
    found = look(actions=np.asarray(actions))
    assert (len(found.problems), found.episodes, found.findings) == (1, None, [])


def test_an_action_that_knows_two_values_alone_is_not_saturated(look):
    actions = smooth_arrays()["actions"]
    actions[:, 1] = np.where(actions[:, 1] > 0.3, 1, -1)
    found = look(actions=actions)
    assert found.findings == []
    assert found.actions[1].at_low + found.actions[1].at_high == 1


def test_rows_that_are_no_steps_do_not_count_as_actions(look):
    arrays = smooth_arrays()
    final = arrays.pop("timeouts")
    found = look(
        final_observation=final, timeouts=final, actions=np.where(final[:, None], 0, 0.5 + arrays["actions"] / 4)
    )
    assert min(column.low for column in found.actions) > 0.2
    assert sum(found.actions[0].histogram) == ROWS - EPISODES


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda a: a["observations"].__setitem__((slice(None), 2), 0.25), "observations[2] is constant: 0.25"),
        (lambda a: a["actions"].__setitem__((slice(None), 0), 0.5), "actions[0] is constant: 0.5"),
        (
            lambda a: a["observations"].__setitem__((slice(None), 1), np.arange(ROWS) == 77),
            "observations[1] is 0 in 99.50% of the steps",
        ),
        (
            lambda a: a["actions"].__imul__([1, 0.05]),
            "actions[1] lies between -0.0475 and 0.0471, a small part of its range; see --action-range measured",
        ),
        (lambda a: a["rewards"].__setitem__(slice(None), -1), "all rewards are -1: nothing can be learned from them"),
        (lambda a: a["timeouts"].__setitem__(60, True), "episode 3 is shorter than 10% of the usual 20 steps"),
    ],
)
def test_each_kind_of_finding(change, line, look):
    arrays = smooth_arrays()
    change(arrays)
    assert line in look(**arrays).findings


@pytest.mark.parametrize(("factor", "size"), [(5000.0, "too large"), (1e-4, "too small")])
def test_badly_scaled_columns_are_found(factor, size, look):
    observations = smooth_arrays()["observations"]
    observations[:, 1] *= factor
    (line,) = look(observations=observations).findings
    assert re.fullmatch(r"observations\[1\] is badly scaled: .* to .*, deviation .* \(the median column's .*\)", line)
    wide = np.concatenate([observations] * 4 + [np.delete(observations, 1, axis=1)] * 4, axis=1)
    (line,) = look(observations=wide).findings
    assert line.startswith(
        f"observations[1], observations[4], observations[7] and observations[10] are badly scaled, {size}"
    )


def test_a_late_step_is_found_by_its_timestamps(look):
    times = np.tile(np.arange(LENGTH) * 0.05, EPISODES)
    times[4 * LENGTH + 18 : 5 * LENGTH] += 3.15
    found = look(timestamps=times[:, None].astype(np.float32))
    ((field, usual, largest, total, places),) = found.gaps
    assert (field, total, places) == ("timestamps", 1, ((4, 17),))
    np.testing.assert_allclose((usual, largest), (0.05, 3.2), rtol=1e-4)
    assert found.findings == [
        "timestamps: a step usually lasts 0.05, but 3.2 after step 17 of episode 4 (1 such place)"
    ]


def test_a_time_that_does_not_go_on_is_found(look):
    times = np.arange(ROWS)
    times[21] = times[20]
    assert look(timestamp=times).findings == [
        "timestamp: the time does not go on after step 0 of episode 1 (1 such place)"
    ]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_time_that_is_no_number_is_a_time_that_does_not_go_on(wrong, look):
    times = np.arange(ROWS, dtype=float)
    times[21] = wrong
    assert look(timestamps=times).findings == [
        "timestamps: the time does not go on after step 0 of episode 1 (2 such places)"
    ]


def test_timestamps_of_hdf5_are_read_too(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in {**smooth_arrays(), "timestamps": np.arange(ROWS) + 9 * (np.arange(ROWS) >= 50)}.items():
            file[name] = array
    assert [gaps.places for gaps in gf.inspect(tmp_path / "a.h5").gaps] == [((2, 9),)]


@pytest.mark.parametrize("times", [np.zeros(3), np.array(["noon"] * ROWS), 1.0])
def test_timestamps_that_are_none_are_passed_over(times, look):
    assert look(timestamps=times).findings == []


def test_a_reset_that_no_flag_marks_is_found(look):
    arrays = smooth_arrays()
    arrays["timeouts"][8 * LENGTH - 1] = False
    found = look(**arrays)
    assert (found.episodes, found.gaps[0].places) == (EPISODES - 1, ((7, LENGTH - 1),))
    said = r"the observation jumps after step 19 of episode 7, by \d+ times what 90% of the steps change it \(1 such"
    assert re.match(said, found.findings[0])


@pytest.mark.skipif(SHARED is None, reason="the human demonstrations of a door that is opened")
def test_of_real_demonstrations_every_reset_is_a_jump_and_nothing_else(tmp_path):
    with np.load(SHARED / "data" / "door_human.npz") as file:
        arrays = {name: file[name] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    np.savez(tmp_path / "a.npz", **arrays)
    assert gf.inspect(tmp_path / "a.npz").gaps == []
    resets = np.flatnonzero(arrays["timeouts"])[:-1]
    arrays["timeouts"][resets] = False
    np.savez(tmp_path / "a.npz", **arrays)
    (found,) = gf.inspect(tmp_path / "a.npz").gaps
    assert (found.total, {step for _, step in found.places} <= set(resets)) == (len(resets), True)


def test_a_switch_is_no_jump(look):
    observations = smooth_arrays()["observations"]
    observations[:, 1] = np.arange(ROWS) % 70 < 35
    assert look(observations=observations).gaps == []


def test_episodes_that_are_there_twice_are_found(look):
    arrays = smooth_arrays()
    for episode in (6, 8):
        for name in ("observations", "actions"):
            arrays[name][episode * LENGTH : (episode + 1) * LENGTH] = arrays[name][2 * LENGTH : 3 * LENGTH]
    found = look(**arrays)
    assert found.duplicates == [(2, 6, 8)]
    assert found.findings == ["episodes 2, 6 and 8 are the same; 2 of 10 episodes repeat another one"]


def picture_arrays():
    """Colourful frames of which every fourth stays, and one that is black."""
    frames = np.random.default_rng(0).integers(0, 256, (ROWS, 6, 8, 3), np.uint8)
    frames[1::4] = frames[::4]
    frames[50] = 0
    return {**smooth_arrays(), "observations": frames}


def test_cameras_that_stand_still_or_see_nothing_are_found(look):
    found = look(**picture_arrays())
    (seen,) = found.pictures
    assert (seen.name, seen.shape, seen.compared) == ("observations", (6, 8, 3), ROWS - EPISODES)
    assert seen.repeated == pytest.approx(50 / 190)
    assert found.findings == [
        "observations: 26% of 190 frames looked at are the same as the next: a slow camera, or one that stood still",
        "observations: 0.5% of 190 frames looked at have one colour only",
    ]


def camera_arrays():
    """A dictionary of two cameras of different sizes, joints and a gripper."""
    arrays, frames = smooth_arrays(), np.random.default_rng(1)
    return {
        **{name: array for name, array in arrays.items() if name != "observations"},
        "observations/joints": arrays["observations"],
        "observations/front": frames.integers(0, 256, (ROWS, 6, 8, 3), np.uint8),
        "observations/gripper": np.ones(ROWS),
        "observations/wrist": frames.integers(0, 256, (ROWS, 4, 4, 3), np.uint8),
    }


def test_entries_of_a_dictionary_are_told_by_their_names(tmp_path):
    np.savez(tmp_path / "a.npz", **camera_arrays())
    found = gf.inspect(tmp_path / "a.npz", html=tmp_path / "a.html")
    assert [column.name for column in found.observations] == ["joints[0]", "joints[1]", "joints[2]", "gripper"]
    assert {seen.name: seen.shape for seen in found.pictures} == {"front": (6, 8, 3), "wrist": (4, 4, 3)}
    assert found.findings == ["gripper is constant: 1"]
    shapes = [frame.shape for frame in Images((tmp_path / "a.html").read_text()).found[1:]]
    assert shapes == 4 * ([(6, 8, 3)] * 3 + [(4, 4, 3)] * 3)


def test_a_lerobot_set_tells_its_speed_its_tasks_and_its_parts(tmp_path):
    robots = pytest.importorskip("robots", reason="needs pyarrow and av")
    robots.write_lerobot(tmp_path / "arm", (5, 4, 6), task=[0] * 5 + [1] * 4 + [0] * 6)
    found = gf.inspect(tmp_path / "arm")
    assert (found.fps, found.instructions) == (robots.FPS, {robots.TEXTS[0]: 2, robots.TEXTS[1]: 1})
    assert found.splits == {"train": 2, "valid": 1}
    assert found.successes == [True, False, True]
    assert [seen.name for seen in found.pictures] == ["front"]
    lines = guidedflow("data", "inspect", tmp_path / "arm").stdout.splitlines()
    assert "10 steps a second" in lines
    assert "episodes of each task: 'reach the cube' 2, 'push the block' 1" in lines
    assert "episodes set apart: train 2, valid 1" in lines


@pytest.mark.parametrize(("given", "fps"), [(20, 20.0), ("fast", None), (0, None)])
def test_a_robomimic_file_tells_its_speed(given, fps, tmp_path):
    robots = pytest.importorskip("robots", reason="needs pyarrow and av")
    robots.write_robomimic(tmp_path / "arm.hdf5")
    with h5py.File(tmp_path / "arm.hdf5", "a") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": given}})
    found = gf.inspect(tmp_path / "arm.hdf5")
    assert (found.problems, found.fps, found.splits) == ([], fps, {"train": 2, "valid": 1})


# ------------------------------------------------------------------------------------------------------------- page


class Images(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            content = dict(attributes)["src"].removeprefix("data:image/png;base64,")
            self.found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))))


def test_the_page_shows_first_middle_and_last_frames(look, tmp_path):
    arrays = picture_arrays()
    look(html=tmp_path / "page.html", **arrays)
    page = (tmp_path / "page.html").read_text()
    _, *frames = Images(page).found
    returns = arrays["rewards"].reshape(EPISODES, LENGTH).sum(axis=1)
    shown = sorted([*dict.fromkeys([int(returns.argmax()), int(returns.argmin()), 0, 3, 6])][:4])
    assert re.findall(r'scope="row">episode (\d+)', page) == [str(episode) for episode in shown]
    rows = [episode * LENGTH + step for episode in shown for step in (0, 9, 19)]
    np.testing.assert_array_equal(frames, arrays["observations"][rows])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_any_channels_are_shown_small(channels, look, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (ROWS, 250, 500, channels), np.uint8)
    look(html=tmp_path / "page.html", observations=frames)
    assert {frame.shape[:2] for frame in Images((tmp_path / "page.html").read_text()).found[1:]} == {(120, 240)}


@pytest.fixture(scope="module")
def started():
    if not browser.is_there():
        pytest.skip(browser.MISSING)
    with browser.chromium() as found:
        yield found


@pytest.mark.slow
def test_the_page_asks_for_nothing_and_is_not_wider_than_the_window(started, tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    path = tmp_path / f"{hostile}.npz"
    np.savez(path, **picture_arrays(), **{hostile: np.zeros(3)})
    gf.inspect(path, html=tmp_path / "page.html")
    page, complaints = started.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("data:") else complaints.append(request.url))
    page.goto((tmp_path / "page.html").as_uri())
    assert complaints == [(tmp_path / "page.html").as_uri()]
    assert page.locator("h1").inner_text() == path.name
    assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    assert page.locator("img").count() == 1 + 4 * 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.close()


def test_a_page_of_data_that_does_not_load_says_why(look, tmp_path):
    arrays = smooth_arrays()
    arrays["rewards"][3] = np.nan
    found = look(html=tmp_path / "page.html", **arrays)
    page = (tmp_path / "page.html").read_text()
    assert "problem: " in page
    assert "found nan in row 3" in page
    assert len(found.problems) == 1


def test_a_page_needs_a_name_of_a_page(own_file):
    before = own_file.read_bytes()
    with pytest.raises(SettingsError, match=r"own\.npz: expected the name of a page that ends in \.html"):
        gf.inspect(own_file, html=own_file)
    assert own_file.read_bytes() == before


# ---------------------------------------------------------------------------------------------------------- command


def test_the_command_tells_findings_first_and_fits_on_a_screen(tmp_path):
    arrays = smooth_arrays()
    arrays["actions"] = np.tile(arrays["actions"], 15)
    arrays["observations"][:, 2] = 0
    np.savez(tmp_path / "own.npz", **arrays)
    done = guidedflow("data", "inspect", "own.npz", "--html", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "worth a look: observations[2] is constant: 0"
    assert lines[-2:] == ["no problems found", "page.html"]
    assert len(lines) < 45
    assert (tmp_path / "page.html").exists()
    done = guidedflow("data", "inspect", tmp_path / "own.npz", "--json")
    found = json.loads(done.stdout)
    assert found["findings"] == ["observations[2] is constant: 0"]
    assert found["observations"][2]["low"] == 0
    assert len(found["returns"]) == EPISODES


@pytest.mark.parametrize(
    ("page", "said"),
    [("page.txt", "page.txt: expected"), ("no/folder/page.html", "page.html: cannot be read or written")],
)
def test_a_page_that_cannot_be_written_is_one_line(page, said, own_file):
    done = guidedflow("data", "inspect", own_file, "--html", page, cwd=own_file.parent)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


# ----------------------------------------------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_mapped_pictures(tmp_path):
    n, frames = 800, (800, 256, 256, 3)
    arrays = own_arrays(8, n // 8)
    arrays["observations"] = np.random.default_rng(0).integers(0, 256, frames, np.uint8)
    np.savez(tmp_path / "a.npz", **arrays)
    size = arrays.pop("observations").nbytes
    tracemalloc.start()
    try:
        found = gf.inspect(tmp_path / "a.npz", html=tmp_path / "page.html")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.pictures[0].compared == n - 8
    assert peak < size / 4


def test_memory_does_not_grow_with_vectors(monkeypatch):
    monkeypatch.setattr(findings, "PIECE", 2**16)
    n, size = 1_000_000, 10
    values = np.random.default_rng(0).random((n, size), np.float32)
    ends = np.arange(1, n + 1) % 1000 == 0
    data = Dataset.from_arrays(values, values[:, :1], terminals=np.zeros(n, bool), timeouts=ends)
    tracemalloc.start()
    try:
        described = columns(values, "abcdefghij", ~ends)
        findings.jumps(values, data)
        findings.duplicates({"observations": values}, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(described[0].histogram) == n - n // 1000
    assert peak < values.nbytes
