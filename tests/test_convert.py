"""The user's own data: every kind of source becomes a file that trains, and policies act in the data's own range."""

import dataclasses
import gc
import json
import os
import warnings

import gymnasium
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TASK, own_arrays

import guidedflow as gf
from guidedflow.agents.rebrac import ReBRACConfig
from guidedflow.cli import main
from guidedflow.data.formats import minari as minari_reader
from guidedflow.data.inspect import inspect
from guidedflow.envs.vector import Outcome, Reset, VectorEnv
from guidedflow.errors import DataError, SettingsError
from guidedflow.training.episodes import run_episodes
from guidedflow.training.members import init_agents, member_keys, select
from guidedflow.training.online import OnlineSource
from guidedflow.training.restore import SavedRun
from guidedflow.training.settings import Member, TrainSettings
from guidedflow.types import ActionRange, Spec, flattened

SMALL = {"hidden": (8,), "flow_steps": 1}
RUN = {"agent": "rebrac", "hidden": (8,), "steps": 10, "log_every": 10, "save_every": 10, "batch_size": 8}
RANGE = ActionRange((-2.0, 0.0, 3.0), (2.0, 10.0, 3.0))


def episode(rows: int = 5, extra: int = 1, start: float = 0.0) -> dict[str, np.ndarray]:
    """Row i observes start + i, at each of three entries of its own shape, and does (start + i) / 100."""
    observed = start + np.arange(rows + extra, dtype=np.float32)
    return {
        "observations": observed[:, None] + [0.0, 0.5],
        "actions": (start + np.arange(rows))[:, None] / 100 * [1.0, -1.0],
        "rewards": np.arange(rows, dtype=np.float64),
    }


def write_hdf5(path, content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    return path


def dictionary(fields):
    """The same observations as a dictionary whose alphabetical order is not the original one."""
    observations = fields["observations"]
    nested = {"z": observations[:, :1], "a": {"b": observations[:, 1:].reshape(len(observations), -1, 1)}}
    return {**fields, "observations": nested}


def slashed(fields):
    """A dictionary's entries as the members of an npz or HDF5 file."""
    nested = fields["observations"]
    rest = {name: value for name, value in fields.items() if name != "observations"}
    return {"observations/z": nested["z"], "observations/a/b": nested["a"]["b"], **rest}


def assert_same(dataset, other):
    for mine, theirs in zip(jax.tree.leaves(dataset), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def source(kind, folder):
    """The arrays of conftest as each kind of flat source, with dictionary observations."""
    fields = dictionary(own_arrays())
    if kind == "mapping":
        return fields
    if kind == "npz":
        np.savez(folder / "raw.npz", **slashed(fields))
        return folder / "raw.npz"
    flags = {name: fields[name].astype(np.float32)[:, None] for name in ("terminals", "timeouts")}
    return write_hdf5(folder / f"raw.{kind}", {**slashed(fields), **flags, "infos/qpos": np.zeros(3)})


@pytest.mark.parametrize("kind", ["mapping", "npz", "hdf5", "h5"])
def test_flat_arrays_with_dictionaries_become_what_from_arrays_makes_of_the_vectors(kind, tmp_path):
    path = gf.convert(source(kind, tmp_path), tmp_path / "new" / "own.npz", observation_keys=["z", "a/b"])
    dataset = gf.load_dataset(path)
    assert_same(dataset, gf.Dataset.from_arrays(**own_arrays()))
    assert dataset.spec.observation_keys == (("z", (1,)), ("a/b", (3, 1)))
    assert dataset.spec.action_range is None
    _, metrics = gf.fit(gf.make_agent("bc", dataset.spec, **SMALL), dataset, steps=3, batch_size=8)
    assert all(values.shape == (3,) for values in metrics.values())
    assert [found.name for found in (tmp_path / "new").iterdir()] == ["own.npz"]


def test_the_declared_order_is_the_vectors_order_and_leaves_out_the_rest(tmp_path):
    fields = dictionary(own_arrays())
    plain = own_arrays()["observations"].astype(np.float32)
    swapped = gf.load_dataset(gf.convert(fields, tmp_path / "swapped.npz", observation_keys=["a/b", "z"]))
    np.testing.assert_array_equal(swapped.observations, plain[:, [1, 2, 3, 0]])
    one = gf.load_dataset(gf.convert(fields, tmp_path / "one.npz", observation_keys=["z"]))
    np.testing.assert_array_equal(one.observations, plain[:, :1])


def camera_and_proprio():
    fields = own_arrays()
    image = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), np.uint8)
    return {**fields, "observations": {"proprio": fields["observations"], "image": image, "goal": np.zeros((120, 2))}}


@pytest.mark.parametrize("kind", ["mapping", "npz", "h5"])
def test_pictures_stay_beside_vectors(kind, tmp_path):
    fields = camera_and_proprio()
    wanted = fields["observations"]
    entries = {f"observations/{name}": array for name, array in fields.pop("observations").items()}
    given = {**fields, **entries}
    if kind == "npz":
        np.savez(tmp_path / "raw.npz", **given)
    if kind == "h5":
        write_hdf5(tmp_path / "raw.h5", given)
    if kind != "mapping":
        given = tmp_path / f"raw.{kind}"
        assert inspect(given).problems == []
    keys = ["proprio", "image", "goal"]
    dataset = gf.load_dataset(gf.convert(given, tmp_path / "own.npz", observation_keys=keys, frame_stack=2))
    assert dataset.is_on_disk
    np.testing.assert_array_equal(dataset.observations["image"], wanted["image"])
    vector = np.concatenate([wanted["proprio"], wanted["goal"]], axis=1).astype(np.float32)
    np.testing.assert_array_equal(dataset.observations["vector"], vector)
    assert dataset.spec.observation_keys == (("proprio", (4,)), ("image", (8, 8, 6)), ("goal", (2,)))
    assert inspect(tmp_path / "own.npz").problems == []
    only = gf.load_dataset(gf.convert(given, tmp_path / "vectors.npz", observation_keys=["goal", "proprio"]))
    np.testing.assert_array_equal(only.observations, vector[:, [4, 5, 0, 1, 2, 3]])
    with pytest.raises(SettingsError, match="frame_stack: expected 1 for dictionary observations, found 2"):
        gf.convert(given, tmp_path / "other.npz", observation_keys=["goal"], frame_stack=2)


def test_episodes_with_pictures_keep_their_final_observation_and_must_agree(tmp_path):
    folder, rng = tmp_path / "episodes", np.random.default_rng(0)
    folder.mkdir()

    def write(name, steps, **changes):
        entries = {
            "observations/camera": rng.integers(0, 256, (steps + 1, 6, 5, 3), np.uint8),
            "observations/joints": rng.normal(size=(steps + 1, 2)),
            **changes,
        }
        np.savez(folder / f"{name}.npz", **entries, actions=np.zeros((steps, 1)))
        return entries

    first, second = write("1", 3), write("2", 4)
    keys = ["camera", "joints"]
    dataset = gf.load_dataset(gf.convert(folder, tmp_path / "own.npz", observation_keys=keys))
    batch = dataset.rows(dataset.transitions)
    for entry, seen in (("camera", "camera"), ("joints", "vector")):
        stored = [
            np.asarray(episode[f"observations/{entry}"], batch.observations[seen].dtype) for episode in (first, second)
        ]
        np.testing.assert_array_equal(batch.observations[seen], np.concatenate([array[:-1] for array in stored]))
        np.testing.assert_array_equal(batch.next_observations[seen], np.concatenate([array[1:] for array in stored]))
    for changes, message in (
        (
            {"observations/camera": rng.integers(0, 256, (5, 4, 4, 3), np.uint8)},
            r"2.npz: observations/camera: expected uint8 of shape .* as in .*1.npz, found uint8 of \(4, 4, 3\)",
        ),
        ({"observations/joints": np.zeros((3, 2))}, r"2.npz: observations/joints: expected 4 rows as in actions, or 5"),
        ({"observations/joints": np.full((5, 2), np.nan)}, "2.npz: observations/joints: expected finite numbers"),
    ):
        write("2", 4, **changes)
        with pytest.raises(DataError, match=message):
            gf.convert(folder, tmp_path / "other.npz", observation_keys=keys)
    assert not (tmp_path / "other.npz").exists()


def test_a_picture_in_an_environments_dictionary_is_refused_and_bytes_of_other_shapes_are_not():
    keys = (("image", (4, 4, 3)), ("place", (2,)))
    seen = {"image": np.zeros((4, 4, 3), np.uint8), "place": np.zeros(2)}
    with pytest.raises(DataError, match=r"observation/image: expected vectors, found pictures"):
        flattened(seen, keys, "observation")
    assert flattened({**seen, "image": seen["image"] / 255}, keys, "observation").shape == (50,)
    assert flattened({"board": np.ones((2, 2), np.uint8)}, (("board", (2, 2)),), "it").tolist() == [1, 1, 1, 1]


def test_rewards_are_optional_but_all_recordings_must_agree(tmp_path):
    fields = dictionary(own_arrays())
    del fields["rewards"]
    dataset = gf.load_dataset(gf.convert(fields, tmp_path / "own.npz", observation_keys=["z"]))
    assert (len(dataset), dataset.has_rewards) == (117, False)
    (tmp_path / "episodes").mkdir()
    demonstrations = {name: array for name, array in episode().items() if name != "rewards"}
    np.savez(tmp_path / "episodes" / "1.npz", **demonstrations)
    np.savez(tmp_path / "episodes" / "2.npz", **demonstrations)
    dataset = gf.load_dataset(gf.convert(tmp_path / "episodes", tmp_path / "both.npz"))
    assert (len(dataset), dataset.has_rewards) == (10, False)
    np.savez(tmp_path / "episodes" / "2.npz", **episode())
    with pytest.raises(DataError, match=r"1.npz: rewards: expected one a step, as in .*2.npz, found none"):
        gf.convert(tmp_path / "episodes", tmp_path / "other.npz")


def test_timeouts_are_optional_and_pictures_pass_through(tmp_path):
    fields = own_arrays()
    fields["terminals"] = fields["terminals"] | fields.pop("timeouts")
    fields["observations"] = np.random.default_rng(0).integers(0, 255, (120, 4, 4, 3), np.uint8)
    path = write_hdf5(tmp_path / "raw.hdf5", fields)
    dataset = gf.load_dataset(gf.convert(path, tmp_path / "own.npz"))
    assert dataset.observations.dtype == np.uint8
    np.testing.assert_array_equal(dataset.observations, fields["observations"])
    assert dataset.size == 120


@pytest.mark.slow
def test_a_folder_of_episodes(tmp_path):
    """c terminated by terminals, a by a scalar without its final observation, b was cut off, d too and lacks it."""
    folder = tmp_path / "episodes"
    folder.mkdir()
    np.savez(folder / "c.npz", **episode(3, start=20), terminals=[0, 0, 1])
    np.savez(folder / "a.npz", **episode(3, extra=0), terminated=True)
    write_hdf5(folder / "b.hdf5", episode(4, start=10))
    write_hdf5(folder / "d.h5", {**episode(3, extra=0, start=30), "terminated": 0.0})
    (folder / "notes.txt").write_text("no episode")
    path = gf.convert(folder, tmp_path / "own.npz")
    dataset = gf.load_dataset(path)
    batch = dataset.rows(dataset.transitions)
    assert batch.observations[:, 0].tolist() == [0, 1, 2, 10, 11, 12, 13, 20, 21, 22, 30, 31]
    assert batch.next_observations[:, 0].tolist() == [1, 2, 2, 11, 12, 13, 14, 21, 22, 23, 31, 32]
    assert batch.masks.tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1]
    assert batch.next_action_valid.tolist() == [
        *[True, True, False],
        *[True, True, True, False],
        *[True, True, False],
        *[True, False],
    ]
    report = inspect(path)
    assert (report.transitions, report.episodes, report.episode_lengths) == (12, 4, (3, 4))
    assert report.made_by.startswith("guidedflow data convert (")
    np.testing.assert_allclose(batch.actions[:, 1], -batch.observations[:, 0] / 100)
    gf.fit(gf.make_agent("rebrac", dataset.spec, hidden=(8,)), dataset, steps=2, batch_size=4)


def test_a_measured_range_ignores_the_rows_of_final_observations(tmp_path):
    folder = tmp_path / "episodes"
    folder.mkdir()
    for i in (1, 2):
        np.savez(folder / f"{i}.npz", **{**episode(), "actions": np.array([[1, 7], [3, 7], [2, 7], [1, 7], [i, 7]])})
    dataset = gf.load_dataset(gf.convert(folder, tmp_path / "own.npz", action_range="measured"))
    assert dataset.spec.action_range == ActionRange((1.0, 7.0), (3.0, 7.0))
    actions = dataset.actions[dataset.transitions]
    np.testing.assert_allclose(actions[:, 0], [-1, 1, 0, -1, -1, -1, 1, 0, -1, 0], atol=2e-5)
    assert (actions[:, 1] == 0).all()  # A constant dimension, which comes back as its constant.
    assert dataset.spec.to_environment(np.array([[0.5, -0.3]])).tolist() == [[2.5, 7.0]]


class DictEnv(gymnasium.Env):
    """Seven steps, the fourth of which is the end where the first action is low."""

    observation_space = gymnasium.spaces.Dict(
        {
            "place": gymnasium.spaces.Box(-9, 9, (2,), np.float64),
            "clock": gymnasium.spaces.Dict({"time": gymnasium.spaces.Box(0, 99, (1,), np.float32)}),
        }
    )
    action_space = gymnasium.spaces.Box(np.float32(-0.4), np.float32(0.4), (3,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def observe(self):
        place = self.np_random.normal(size=2)
        return {"place": place, "clock": {"time": np.array([self.time], np.float32)}}

    def step(self, action):
        self.time += 1
        return self.observe(), float(action[0]), self.time == 4 and action[0] < 0, self.time == 7, {}


@pytest.fixture
def minari_set(tmp_path, monkeypatch):
    """A folder of a Minari data set with dictionaries and actions in [-0.4, 0.4]."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    (tmp_path / "minari").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import minari

        env = minari.DataCollector(DictEnv())
        env.action_space.seed(1)
        for seed in range(4):
            env.reset(seed=seed)
            over = False
            while not over:
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                over = terminated or truncated
        env.create_dataset("own/dict-v0")
        env.close()
        del env
        gc.collect()  # The collector leaves a temporary folder to be warned of.
    return tmp_path / "minari" / "own" / "dict-v0"


def test_a_minari_set(minari_set, tmp_path):
    keys = ["place", "clock/time"]
    dataset = gf.load_dataset(
        gf.convert(minari_set, tmp_path / "own.npz", observation_keys=keys, action_range=(-0.4, 0.4))
    )
    episodes = list(minari_reader.stored_episodes(minari_set))
    assert dataset.spec.observation_keys == (("place", (2,)), ("clock/time", (1,)))
    batch = dataset.rows(dataset.transitions)
    for name, part in (("observations", slice(None, -1)), ("next_observations", slice(1, None))):
        stored = [
            np.concatenate([e.observations["place"], e.observations["clock"]["time"]], axis=1)[part] for e in episodes
        ]
        np.testing.assert_allclose(getattr(batch, name), np.concatenate(stored), rtol=1e-6)
    np.testing.assert_allclose(batch.actions * 0.4, np.concatenate([e.actions for e in episodes]), atol=1e-7)
    np.testing.assert_array_equal(batch.masks, 1.0 - np.concatenate([e.terminations for e in episodes]))
    assert 0 < batch.masks.mean() < 1
    gf.fit(gf.make_agent("bc", dataset.spec, **SMALL), dataset, steps=2, batch_size=4)


def test_mapping_actions_forth_and_back():
    rng = np.random.default_rng(0)
    low = rng.normal(size=6) * 10 ** rng.uniform(-3, 3, 6)
    bounds = ActionRange(tuple(low), tuple(low + rng.uniform(0.01, 100, 6)))
    unit = rng.uniform(-1, 1, (1000, 6)).astype(np.float32)
    actions = bounds.from_unit(unit)
    assert actions.dtype == np.float32
    assert (actions >= np.float32(bounds.low)).all()
    assert (actions <= np.float32(bounds.high)).all()
    width = np.array(bounds.high) - np.array(bounds.low)
    np.testing.assert_allclose(bounds.from_unit(bounds.to_unit(actions)), actions, atol=1e-5 * width.max())
    np.testing.assert_allclose(bounds.to_unit(np.array([bounds.low, bounds.high])), [[-1] * 6, [1] * 6], atol=1e-12)
    np.testing.assert_array_equal(bounds.from_unit(np.array([1.0] * 6)), np.float32(bounds.high))
    assert Spec((4,), np.dtype("float32"), 6).to_environment(unit) is unit
    assert RANGE.from_unit(np.array([0.5, -1.0, 0.9])).tolist() == [1.0, 0.0, 3.0]


def ranged_file(folder, **options):
    rng = np.random.default_rng(0)
    fields = dictionary(own_arrays())
    fields["actions"] = rng.uniform([-2, 0], [2, 10], (120, 2))
    options = {"observation_keys": ["a/b", "z"], "action_range": ([-2, 0], (2, 10)), **options}
    return gf.convert(fields, folder / "own.npz", **options)


@pytest.mark.slow
def test_a_policy_takes_dictionaries_and_acts_in_the_datas_range(tmp_path):
    dataset = gf.load_dataset(ranged_file(tmp_path))
    np.testing.assert_allclose(np.abs(dataset.actions).max(axis=0), 1, atol=0.1)
    run = gf.train(tmp_path / "own.npz", run_dir=tmp_path / "run", **RUN)
    policy = gf.load_policy(run.path)
    assert policy.spec == dataset.spec
    batch = {"a": {"b": np.arange(12.0).reshape(4, 3, 1)}, "z": np.ones((4, 1)), "unused": None}
    vectors = np.concatenate([np.arange(12.0).reshape(4, 3), np.ones((4, 1))], axis=1)
    agent = select(SavedRun(run.path).agents("latest")[0], 0)
    raw = np.asarray(agent.policies()["actor"](jnp.asarray(vectors, jnp.float32), jax.random.key(0)))
    wanted = raw * [2, 5] + [0, 5]
    np.testing.assert_allclose(policy(batch), wanted, rtol=1e-5)
    np.testing.assert_allclose(policy(vectors), wanted, rtol=1e-5)
    single = policy({"z": [1.0], "a/b": np.arange(3.0)[:, None]})
    assert single.shape == (2,)
    np.testing.assert_allclose(single, wanted[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"z": [1.0]}, r"observation: expected an entry 'a/b', found z"),
        ({"z": [1.0], "a/b": np.zeros(3)}, r"observation/a/b: expected shape \(3, 1\), or a batch of it, found \(3,\)"),
        ({"z": [1.0], "a/b": np.zeros((2, 3, 1))}, r"observation/z: expected 2 rows as in a/b, found no batch"),
        ({"z": ["x"], "a/b": np.zeros((3, 1))}, r"observation/z: expected numbers, found: .*'x'"),
    ],
)
def test_a_policy_refuses_other_dictionaries(observation, message, tmp_path):
    spec = gf.load_dataset(ranged_file(tmp_path)).spec
    policy = gf.Policy(gf.make_agent("rebrac", spec, hidden=(8,)), "actor", spec)
    with pytest.raises(DataError, match=message):
        policy(observation)
    plain = gf.Policy(gf.make_agent("rebrac", spec, hidden=(8,)), "actor", Spec(*spec[:3]))
    with pytest.raises(SettingsError, match=r"observation: expected shape \(4,\), found a dictionary"):
        plain(observation)


class Recorder(VectorEnv):
    """Slots that note what they are told to do, in episodes of three steps."""

    def __init__(self, slots):
        self.slots, self.taken, self.clock = slots, [], [0] * slots

    def exchange(self, commands):
        outcomes = []
        for slot, command in enumerate(commands):
            if command is None:
                outcomes.append(None)
                continue
            self.clock[slot] = 0 if isinstance(command, Reset) else self.clock[slot] + 1
            if not isinstance(command, Reset):
                self.taken.append(command)
            outcomes.append(Outcome(np.zeros(4, np.float32), 0.0, self.clock[slot] == 3, False, 0.0, None))
        return outcomes


@pytest.mark.slow
def test_evaluation_and_interaction_take_actions_of_the_environments_range():
    spec = Spec((4,), np.dtype("float32"), 3, (), RANGE)
    env = Recorder(2)
    run_episodes(lambda s, key, call: np.full((2, 3), 0.5, np.float32), env, spec, episodes=2, seed=0)
    assert [action.tolist() for action in env.taken] == [[1.0, 7.5, 3.0]] * 6

    fields = {**own_arrays(), "actions": np.zeros((120, 3))}
    dataset = gf.Dataset.from_arrays(**fields).to_device()
    members = [Member((), 0, ReBRACConfig(hidden=(8,)))]
    settings = TrainSettings(steps=10, log_every=10, save_every=10, online_steps=10, batch_size=8)
    env = Recorder(1)
    keys = member_keys(members, "train")
    online = OnlineSource(env, dataclasses.replace(dataset, action_range=RANGE), keys, members, settings, float)
    online.updates(init_agents(gf.AGENTS["rebrac"], members, spec), 10, 4)
    stored = np.asarray(online.buffers.actions)[0, :4]
    assert np.abs(stored).max() <= 1
    np.testing.assert_allclose(np.stack(env.taken), RANGE.from_unit(stored), rtol=1e-6)
    assert not np.allclose(env.taken, stored)


@pytest.mark.slow
def test_a_task_is_trained_and_evaluated_on_converted_data(cube_data, tmp_path):
    task = gf.load_dataset(TASK, cube_data)
    ends = np.arange(len(task.actions)) == task.episode_ends
    path = gf.convert(
        {
            "observations": task.observations,
            "actions": np.asarray(task.actions) * 0.5 + 0.25,
            "rewards": task.rewards,
            "terminals": ends & False,
            "timeouts": ends,
        },
        tmp_path / "own.npz",
        action_range=(-0.25, 0.75),
    )
    dataset = gf.load_dataset(path)
    np.testing.assert_allclose(dataset.actions, task.actions, atol=1e-6)
    run = gf.train(TASK, dataset=path, run_dir=tmp_path / "run", eval_episodes=1, **RUN)
    (again,), (row,) = gf.evaluate(run.path), run.summary["results"]
    assert {name: again[name] for name in ("success", "mean_return", "seed")} == {
        name: row[name] for name in ("success", "mean_return", "seed")
    }
    config = json.loads((run.path / "config.json").read_text())
    assert (config["task"], config["data"]["source"], config["data"]["is_own"]) == (TASK, str(path), True)
    assert gf.resume(run.path).path == run.path  # It finds the file again, not the task's data.
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / path.name)
    assert gf.resume(run.path, dataset=moved).path == run.path
    saved = config["spec"]
    assert saved["action_range"] == [[-0.25] * 5, [0.75] * 5]
    assert Spec.from_json(saved) == dataset.spec


def test_the_range_belongs_to_the_fingerprint_and_data_without_one_keeps_its_own(tmp_path, own_dataset):
    path = gf.convert(own_arrays(), tmp_path / "plain.npz")
    assert gf.load_dataset(path).fingerprint() == own_dataset.fingerprint()
    ranged = {**own_arrays(), "actions": 2 * own_arrays()["actions"]}
    first = gf.load_dataset(gf.convert(ranged, tmp_path / "a.npz", action_range=(-2, 2)))
    ranged["actions"] = 2 * ranged["actions"]
    second = gf.load_dataset(gf.convert(ranged, tmp_path / "b.npz", action_range=(-4, 4)))
    np.testing.assert_array_equal(first.actions, second.actions)
    assert first.fingerprint() != second.fingerprint()


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["data", *map(str, arguments)])
        return stop.value.code, *capsys.readouterr()

    fields = own_arrays()
    np.savez("raw.npz", **slashed(dictionary({**fields, "actions": fields["actions"] * 3})))
    options = ["--observation-keys", "z", "a/b", "--action-low", "-3", "-4", "--action-high", "5"]
    assert run("convert", "raw.npz", "own.npz", *options)[:2] == (0, "own.npz\n")
    code, out, _ = run("inspect", "own.npz")
    text = " ".join(out.split())
    assert code == 0
    assert "an observation is, end to end: z (1,), a/b (3, 1)" in text
    assert "actions of [-1, 1] stand for -3 -4 to 5 5" in text
    assert "117 transitions in 6 episodes of 20 to 20 steps" in text
    assert json.loads(run("inspect", "own.npz", "--json")[1])["spec"]["action_range"] == [[-3, -4], [5, 5]]
    measured = ["--observation-keys", "z", "a/b", "--action-range", "measured"]
    assert run("convert", "raw.npz", "measured.npz", *measured)[0] == 0
    for options in (["--action-low", "3"], ["--action-range", "measured", "--action-low", "1", "--action-high", "2"]):
        code, _, err = run("convert", "raw.npz", "other.npz", *options)
        assert code == 2
        assert err.startswith("guidedflow: error: --action-range: expected measured, or --action-low and")
    code, _, err = run("convert", "raw.npz", "own.npz")
    assert (code, err.count("\n")) == (2, 1)
    assert "own.npz: expected a new file" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["measured.npz", "own.npz", "raw.npz"]


def changed(**changes):
    return {**own_arrays(), **changes}


def with_row(array, row, value):
    array = np.array(array)
    array[row] = value
    return array


FLAT = own_arrays()
NAMED = dictionary(FLAT)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({"pictures": 3}, {}, r"arrays: expected the fields observations, actions, terminals, found pictures"),
        ({}, {}, r"arrays: expected the fields .*, found none"),
        ({**FLAT, "rewards": None}, {}, r"arrays: rewards: expected numbers, found dtype object"),
        (3, {}, r"source: expected arrays by name or a path, found int"),
        (changed(rewards=with_row(FLAT["rewards"], 7, np.nan)), {}, r"arrays: rewards: .*found nan in row 7"),
        (changed(terminals=with_row(FLAT["rewards"] * 0, 8, 2)), {}, r"arrays: terminals: .*found 2 in row 8"),
        (
            changed(actions=FLAT["actions"][:-1]),
            {},
            r"arrays: actions: expected 120 rows as in observations, found 119",
        ),
        (changed(actions=FLAT["actions"].astype(str)), {}, r"arrays: actions: expected numbers, found dtype <U"),
        (changed(actions=2 * FLAT["actions"]), {}, r"actions: expected values in \[-1, 1\].*in row .*an action range"),
        (
            changed(actions=with_row(FLAT["actions"], 9, [0, 3])),
            {"action_range": ([-1, -2], [1, 2.5])},
            r"arrays: actions: expected values from -2 to 2.5 in column 1, as declared, found 3 in row 9 \(1 rows\)",
        ),
        (
            changed(actions=with_row(FLAT["actions"], 9, np.inf)),
            {"action_range": "measured"},
            r"arrays: actions: expected finite numbers .*found inf in row 9",
        ),
        ({name: array[:0] for name, array in FLAT.items()}, {}, r"arrays: actions: expected at least one step, found"),
        (
            {name: array[:0] for name, array in FLAT.items()},
            {"action_range": "measured"},
            r"arrays: actions: expected at least one step, found none",
        ),
        (changed(timeouts=np.ones(120), terminals=np.zeros(120)), {}, r"arrays: expected at least one transition"),
        (
            FLAT,
            {"action_range": "mesured"},
            r"action_range: expected measured or a pair \(low, high\), found 'mesured'",
        ),
        (FLAT, {"action_range": 3}, r"action_range: expected a pair \(low, high\) of numbers, or of 2 .*, found 3"),
        (FLAT, {"action_range": ([1, 2, 3], 4)}, r"action_range: expected a pair .* of 2 numbers each, found"),
        (FLAT, {"action_range": (1, 1)}, r"action_range: expected low < high, .*, found 1 and 1 in column 0"),
        (FLAT, {"action_range": (0, [1, np.inf])}, r"action_range: expected low < high, .*found 0 and inf in column 1"),
        (NAMED, {}, r"arrays: observations: expected the order .*--observation-keys\), found none; there are: z, a/b"),
        (
            NAMED,
            {"observation_keys": ["z", "y"]},
            r"observation_keys: expected entries of arrays \(z, a/b\), found 'y'",
        ),
        (NAMED, {"observation_keys": ["z", "z"]}, r"observation_keys: expected each name once, found 'z' again"),
        (NAMED, {"observation_keys": "z"}, r"observation_keys: expected names in order, found 'z'"),
        (NAMED, {"observation_keys": 3}, r"observation_keys: expected names in order, found 3"),
        (FLAT, {"observation_keys": ["z"]}, r"observation_keys: expected none, for observations of arrays are one"),
        (
            changed(observations={"z": np.zeros(120), "y": with_row(np.zeros((120, 2)), 11, np.nan)}),
            {"observation_keys": ["z", "y"]},
            r"arrays: observations/y: expected finite numbers .*found nan in row 11",
        ),
        (
            changed(observations={"z": np.zeros(120), "y": np.zeros((119, 2))}),
            {"observation_keys": ["z", "y"]},
            r"arrays: observations/y: expected 120 rows as in z, found 119 rows",
        ),
        (
            changed(observations={"z": np.zeros((120, 0))}),
            {"observation_keys": ["z"]},
            r"arrays: observations/z: expected shape \(N, ...\), found \(120, 0\)",
        ),
        (
            changed(observations={"z": np.array(["a"] * 120)}),
            {"observation_keys": ["z"]},
            r"arrays: observations/z: expected numbers, found dtype <U1",
        ),
    ],
)
def test_malformed_arrays_are_one_line(fields, options, message, tmp_path):
    is_option = message.startswith(("action_range", "observation_keys", "source"))
    with pytest.raises(SettingsError if is_option else DataError, match=message) as error:
        gf.convert(fields, tmp_path / "own.npz", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.zeros(4)}, r"2.npz: rewards: expected 5 rows as in actions, found 4"),
        (
            {"observations": np.zeros((7, 2))},
            r"2.npz: observations: expected 5 rows as in actions, or 6 with .*found 7",
        ),
        ({"terminals": np.zeros(6)}, r"2.npz: terminals: expected 5 rows as in actions, found 6"),
        ({"terminated": 1, "terminals": np.zeros(5)}, r"2.npz: terminated: .* no terminals beside it, found terminals"),
        ({"terminated": 0.5}, r"2.npz: terminated: expected a single 0 or 1 and .*, found \[0.5\]"),
        ({"actions": np.zeros((0, 2))}, r"2.npz: actions: expected at least one step, found none"),
        ({"actions": np.full((5, 2), [0, np.nan])}, r"2.npz: actions: .*found nan in row 0 \(5 rows\)"),
        (
            {"actions": np.zeros((5, 3))},
            r"2.npz: actions: expected float32 of shape \(2,\) a row, as in .*1.npz, found",
        ),
        (
            {"observations": np.zeros((6, 2), np.uint8)},
            r"2.npz: observations: expected float32 of shape \(2,\) a row, as in .*1.npz, found uint8 of \(2,\)",
        ),
        ({"rewards": None}, r"2.npz: rewards: expected one a step, as in .*1.npz, found none"),
        ({"actions": None}, r"2.npz: expected the fields observations, actions, found observations, rewards"),
    ],
)
def test_malformed_episodes_are_named(change, message, tmp_path):
    np.savez(tmp_path / "1.npz", **episode())
    fields = {**episode(), **change}
    np.savez(tmp_path / "2.npz", **{name: value for name, value in fields.items() if value is not None})
    with pytest.raises(DataError, match=message):
        gf.convert(tmp_path, tmp_path / "own.npz")
    assert not (tmp_path / "own.npz").exists()


def test_entries_of_another_shape_in_a_later_episode(tmp_path):
    for name, width in (("1", 3), ("2", 4)):
        fields = {**episode(), "observations/x": np.zeros((6, width))}
        del fields["observations"]
        np.savez(tmp_path / f"{name}.npz", **fields)
    message = r"2.npz: observations/x: expected shape \(3,\), or a batch of it, found \(6, 4\)"
    with pytest.raises(DataError, match=message):
        gf.convert(tmp_path, tmp_path / "own.npz", observation_keys=["x"])


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: .*own\.npz"):
        gf.convert(own_arrays(), tmp_path / "a/new/folder/own.npz")
    assert list(tmp_path.iterdir()) == []


def test_sources_that_are_none(tmp_path, minari_set):
    new = tmp_path / "own.npz"
    with pytest.raises(DataError, match=r"nowhere.npz: expected a data file, found nothing there"):
        gf.convert(tmp_path / "nowhere.npz", new)
    with pytest.raises(
        DataError, match=r"nowhere: expected a file that ends in .npz, .hdf5, .h5, or .*found nothing there"
    ):
        gf.convert(tmp_path / "nowhere", new)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"empty: expected episodes \(.npz, .hdf5, .h5 files\), a LeRobot .* or a Minari"
    ):
        gf.convert(tmp_path / "empty", new)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"data.csv: expected a file that ends in .npz, .*found another file"):
        gf.convert(tmp_path / "data.csv", new)
    write_hdf5(tmp_path / "short.hdf5", {"observations": np.zeros((3, 1)), "dones": np.zeros(3)})
    with pytest.raises(DataError, match=r"short.hdf5: expected the fields .*terminals, found dones, observations"):
        gf.convert(tmp_path / "short.hdf5", new)
    with pytest.raises(DataError, match=r"dict-v0: episode 0: observations: expected the order"):
        gf.convert(minari_set, new)
    gf.convert(own_arrays(), new)
    with pytest.raises(DataError, match=r"own.npz: expected data as it was recorded, found what guidedflow data conv"):
        gf.convert(new, tmp_path / "again.npz")
    with pytest.raises(SettingsError, match=r"output: expected a file's name, found NoneType"):
        gf.convert(own_arrays(), None)
    with pytest.raises(SettingsError, match=r"own.txt: expected a new file's name that ends in .npz"):
        gf.convert(own_arrays(), tmp_path / "own.txt")
    with pytest.raises(SettingsError, match=r"own.npz: expected a new file, found one that exists"):
        gf.convert(own_arrays(), new)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action_range", [[-1, -1, -1], [1, 1, 1]]),
        ("action_range", [[2, 2], [1, 3]]),
        ("action_range", [[0, 0], [1, float("inf")]]),
        ("observation_keys", {"z": [3]}),
        ("observation_shape", [9]),
        ("action_size", None),
    ],
)
def test_a_file_whose_metadata_is_anothers_is_refused(field, value, tmp_path):
    path = gf.convert(own_arrays(), tmp_path / "own.npz")
    with np.load(path) as archive:
        members = dict(archive)
    metadata = json.loads(str(members["metadata"]))
    metadata["spec"][field] = value
    np.savez(path, **{**members, "metadata": np.array(json.dumps(metadata))})
    with pytest.raises(DataError, match=r"own.npz: metadata: expected the spec of the arrays, "):
        gf.load_dataset(path)
    assert len(inspect(path).problems) == 1


def test_flattening_keeps_single_numbers_and_empty_batches():
    keys = (("a", ()), ("b", (2, 1)))
    assert flattened({"a": 1, "b": [[2], [3]]}, keys, "it").tolist() == [1, 2, 3]
    assert flattened({"a": [], "b": np.zeros((0, 2, 1))}, keys, "it").shape == (0, 3)
