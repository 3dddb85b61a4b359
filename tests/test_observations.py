"""Dictionary observations of pictures and vectors, from their arrays and files to a policy on a robot."""

import json
import subprocess
import sys

import cloudpickle
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import guidedflow, train_until_killed, trained_agents
from gymnasium.spaces import Box, Dict

import guidedflow as gf
from guidedflow.agents import AGENTS
from guidedflow.data import formats
from guidedflow.data.augment import random_crops
from guidedflow.data.dataset import Dataset
from guidedflow.data.inspect import inspect
from guidedflow.deploy.serve import answers_together
from guidedflow.envs.wrappers import StackedFrames
from guidedflow.errors import DataError, GuidedflowError, SettingsError
from guidedflow.nn.encoder import Flat, Impala, make_encoder, normalized
from guidedflow.suites.gym import environment_task
from guidedflow.training import stream
from guidedflow.training.members import member_keys
from guidedflow.training.settings import Member, TrainSettings
from guidedflow.types import DictShape, Normalization, Spec

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # As a script's own definitions are.

pytestmark = pytest.mark.usefixtures("small_pictures")  # test_pixels.py has the whole network.
ROWS, EPISODE = 40, 10
SMALL = {"hidden": (8,), "flow_steps": 2, "batch_size": 8, "log_every": 5, "save_every": 5, "progress": False}
SPEC = DictShape((("eyes/top", (9, 8, 3)), ("wrist.rgb", (12, 10, 1)), ("vector", (4,))))


def entries(rows: int = ROWS) -> dict[str, np.ndarray]:
    """Two cameras of different sizes, a vector and a number."""
    rng = np.random.default_rng(0)
    return {
        "joints": rng.normal(3.0, [2.0, 0.1, 5.0], (rows, 3)),
        "eyes/top": rng.integers(0, 256, (rows, 9, 8, 3), np.uint8),
        "wrist.rgb": rng.integers(0, 256, (rows, 12, 10, 1), np.uint8),
        "grip": np.ones(rows),
    }


def fields() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    last = np.arange(1, ROWS + 1) % EPISODE == 0
    return {
        "actions": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "terminals": last,
    }


def recorded(**options) -> Dataset:
    return Dataset.from_arrays(entries(), **fields(), **options)


def written(path, **more):
    np.savez(path, **{f"observations/{name}": array for name, array in entries().items()}, **fields(), **more)
    return path


def small(agent: str) -> dict:
    return {k: v for k, v in SMALL.items() if k in TrainSettings.__dataclass_fields__ or k == "progress"} | {
        k: v for k, v in SMALL.items() if k in AGENTS[agent].config_class.__dataclass_fields__
    }


# --------------------------------------------------------------------------------------------------- data and files


def test_pictures_stay_apart_and_all_else_is_one_vector():
    dataset = recorded()
    seen = entries()
    assert dataset.spec == Spec(
        SPEC,
        np.dtype("uint8"),
        2,
        (("joints", (3,)), ("eyes/top", (9, 8, 3)), ("wrist.rgb", (12, 10, 1)), ("grip", ())),
    )
    assert Spec.from_json(json.loads(json.dumps(dataset.spec.to_json()))) == dataset.spec
    assert "eyes/top (9, 8, 3), wrist.rgb (12, 10, 1), vector (4,)" in repr(dataset)
    vector = np.column_stack([seen["joints"], seen["grip"]]).astype(np.float32)
    for rows in (dataset.transitions, jnp.asarray(dataset.transitions)):
        batch = (dataset if rows is dataset.transitions else dataset.to_device()).rows(rows)
        following = np.minimum(np.arange(ROWS) + 1, np.repeat(np.arange(9, ROWS, 10), 10))
        for name, array in (("eyes/top", seen["eyes/top"]), ("wrist.rgb", seen["wrist.rgb"]), ("vector", vector)):
            np.testing.assert_array_equal(batch.observations[name], array)
            np.testing.assert_array_equal(batch.next_observations[name], array[following])
            assert batch.observations[name].dtype == array.dtype


def test_pictures_are_stacked_and_vectors_are_the_current_one():
    dataset = recorded(frame_stack=3)
    assert dict(dataset.spec.observation_shape.entries) == {
        "eyes/top": (9, 8, 9), "wrist.rgb": (12, 10, 3), "vector": (4,)
    }  # fmt: skip
    assert dataset.spec == recorded().with_frame_stack(3).spec
    batch, seen = dataset.rows([0, 12]), entries()
    wrist = np.concatenate(
        [seen["wrist.rgb"][[0, 10]], seen["wrist.rgb"][[0, 11]], seen["wrist.rgb"][[0, 12]]], axis=-1
    )
    np.testing.assert_array_equal(batch.observations["wrist.rgb"], wrist)
    np.testing.assert_array_equal(batch.observations["vector"][:, :3], seen["joints"][[0, 12]].astype(np.float32))
    np.testing.assert_array_equal(batch.next_observations["vector"][:, :3], seen["joints"][[1, 13]].astype(np.float32))


def test_a_dictionary_of_vectors_is_one_vector_as_before():
    parts = {"a": {"b": np.arange(80.0).reshape(40, 2)}, "c": np.arange(40)}
    dataset = Dataset.from_arrays(parts, **fields())
    np.testing.assert_array_equal(dataset.observations, np.column_stack([parts["a"]["b"], parts["c"]]).astype("f4"))
    assert dataset.spec == Spec((3,), np.dtype("float32"), 2, (("a/b", (2,)), ("c", ())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vector": np.zeros((ROWS, 4, 4, 3), np.uint8)}, "observations/vector: expected pictures of another name"),
        ({"joints": np.full((ROWS, 3), np.nan)}, "observations/joints: expected finite numbers .* found nan in row 0"),
        ({"joints": np.zeros((7, 3))}, "observations/eyes/top: expected 7 rows as in observations/joints, found 40"),
        ({"grip": np.array(["open"] * ROWS)}, "observations/grip: expected numbers, found dtype"),
        ({"grip": np.zeros((ROWS, 0))}, r"observations/grip: expected shape \(N, ...\), found \(40, 0\)"),
    ],
)
def test_entries_that_are_wrong_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        Dataset.from_arrays(entries() | changes, **fields())


@pytest.mark.parametrize("empty", [{}, {"arm": {}}])
def test_an_empty_dictionary_is_refused(empty):
    with pytest.raises(DataError, match="observations: expected at least one entry, found an empty dictionary"):
        Dataset.from_arrays(empty, **fields())


def test_a_file_of_entries_is_mapped_as_far_as_it_holds_pictures(tmp_path):
    dataset, held = formats.load(written(tmp_path / "raw.npz", frame_stack=2)), recorded(frame_stack=2)
    assert {name: isinstance(array, np.memmap) for name, array in dataset.observations.items()} == {
        "eyes/top": True, "wrist.rgb": True, "vector": False
    }  # fmt: skip
    assert dataset.is_on_disk
    assert dataset.bytes_on_disk == ROWS * (9 * 8 * 3 + 12 * 10)
    assert not held.is_on_disk
    assert dataset.spec == held.spec
    for name, array in held.observations.items():
        np.testing.assert_array_equal(dataset.observations[name], array)


def test_converted_entries_are_those_that_were_named_in_their_order(tmp_path):
    keys = ["grip", "wrist.rgb", "joints"]
    path = gf.convert(written(tmp_path / "raw.npz"), tmp_path / "own.npz", observation_keys=keys, frame_stack=2)
    dataset = gf.load_dataset(path)
    assert dataset.spec.observation_keys == (("grip", ()), ("wrist.rgb", (12, 10, 2)), ("joints", (3,)))
    assert [*dataset.observations] == ["wrist.rgb", "vector"]
    np.testing.assert_array_equal(dataset.observations["vector"][:, 0], np.ones(ROWS))
    assert json.loads(json.dumps(inspect(path).spec)) == dataset.spec.to_json()
    with np.load(path) as archive:
        members = dict(archive)
    metadata = json.loads(str(members["metadata"]))
    del members["observations/grip"]
    np.savez(path, **members)
    with pytest.raises(DataError, match=r"own.npz: observations/grip: expected an entry, as its metadata says"):
        formats.load(path)
    metadata["spec"]["observation_shape"]["vector"] = [5]
    np.savez(path, **{**members, "metadata": np.array(json.dumps(metadata))})
    with pytest.raises(DataError, match=r"own.npz: metadata: expected the spec of the arrays, found: observation_keys"):
        formats.load(path)


def test_the_fingerprint_sees_every_entry_and_its_name(tmp_path):
    found = {recorded().fingerprint(), recorded(frame_stack=2).fingerprint()}
    for name in entries():
        changed = entries()
        changed[name] = changed[name].copy()
        changed[name].flat[7] += 1
        found.add(Dataset.from_arrays(changed, **fields()).fingerprint())
    renamed = {name.replace("wrist", "elbow"): array for name, array in entries().items()}
    found.add(Dataset.from_arrays(renamed, **fields()).fingerprint())
    assert len(found) == 7
    assert recorded().matches(recorded().fingerprint())


# ----------------------------------------------------------------------------------------------------- networks


def test_features_lie_end_to_end():
    encoder = make_encoder(SPEC, key=jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, recorded().rows([0, 5, 7]).observations)
    features = encoder(batch)
    assert features.shape == (3, encoder.size) == (3, 512 + 512 + 4)
    top, wrist, flat = encoder.encoders
    assert (type(top), type(wrist), type(flat)) == (Impala, Impala, Flat)
    for start, part in ((0, top(batch["eyes/top"])), (512, wrist(batch["wrist.rgb"])), (1024, batch["vector"])):
        np.testing.assert_array_equal(features[:, start : start + part.shape[1]], part)
    kernels = [np.asarray(one.stages[0].block[0].kernel) for one in (top, wrist)]
    assert not np.array_equal(*kernels)


def test_all_pictures_of_a_row_are_shifted_alike():
    """Each pixel of both cameras is its place, so that a shift can be read from the middle."""
    places = [np.stack(np.mgrid[:height, :width], -1).astype(np.uint8) for height, width in ((17, 16), (20, 30))]
    seen = {name: jnp.repeat(picture[None], 30, axis=0) for name, picture in zip("ab", places, strict=True)}
    batch = recorded().rows(np.arange(30))
    seen["vector"] = jnp.ones((30, 4))
    found = random_crops(batch._replace(observations=seen, next_observations=seen), jax.random.key(0), 1.0)
    shifts = np.asarray(found.observations["a"])[:, 8, 8].astype(int) - 8
    assert len(np.unique(shifts, axis=0)) > 10
    np.testing.assert_array_equal(np.asarray(found.observations["b"])[:, 10, 10].astype(int) - 10, shifts)
    for name in ("a", "b", "vector"):
        np.testing.assert_array_equal(found.observations[name], found.next_observations[name])
    assert (found.observations["vector"] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_learns_from_two_cameras_and_a_vector(name):
    dataset = recorded(frame_stack=2)
    agent = gf.make_agent(name, dataset.spec, **{k: v for k, v in small(name).items() if k in ("hidden", "flow_steps")})
    before = [np.array(leaf) for leaf in jax.tree.leaves(encoders(agent))]
    trained, update = agent, jax.jit(lambda agent, batch, key: agent.update(batch, key))
    for step in range(2):  # ReBRAC's actor moves in every second one.
        trained, metrics = update(trained, dataset.rows(dataset.transitions[:8]), jax.random.key(step))
    assert all(np.isfinite(values).all() for values in metrics.values())
    after = jax.tree.leaves(encoders(trained))
    assert len(before) == len(after) > 0
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    seen = jax.tree.map(jnp.asarray, dataset.rows(np.arange(10)).observations)
    for act in (*trained.policies().values(), trained.exploration()):
        actions = act(seen, jax.random.key(0))
        assert actions.shape == (10, 2)
        for entry, array in seen.items():  # Each entry is looked at.
            other = act({**seen, entry: array[::-1]}, jax.random.key(0))
            assert not np.array_equal(actions, other), entry


def encoders(agent):
    networks = [getattr(agent, name) for name in ("networks", "critic", "actor", "flow") if hasattr(agent, name)]
    nodes = jax.tree.leaves(networks, is_leaf=lambda node: isinstance(node, Impala))
    return [node for node in nodes if isinstance(node, Impala)]


# ---------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_the_disk_gives_the_bits_that_memory_gives(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_STEPS", 2)
    mapped, held = formats.load(written(tmp_path / "raw.npz", frame_stack=2)), recorded(frame_stack=2)
    assert stream.stays_on_disk(mapped)
    assert not stream.stays_on_disk(held)
    keys = member_keys([Member((), 0, None)], "train")
    with stream.DiskSource(mapped, keys, TrainSettings(batch_size=8), stop=4) as source:
        windows = source.read(2)
    for step in (2, 3):
        window = jax.tree.map(lambda leaf, step=step: leaf[0, step - 2], windows)
        wanted = held.to_device().sample(jax.random.split(jax.random.fold_in(keys[0], step), 3)[0], 8)
        for x, y in zip(jax.tree.leaves(window.batch()), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_array_equal(x, y)
    losses = [gf.fit(gf.make_agent("bc", d.spec, hidden=(8,)), d, steps=6, batch_size=8)[1] for d in (mapped, held)]
    np.testing.assert_allclose(losses[0]["flow_loss"], losses[1]["flow_loss"], rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["bc", "gfp"])
def test_a_run_resumes_to_the_bit(agent, tmp_path):
    path = written(tmp_path / "raw.npz", frame_stack=2)
    settings = {"agent": agent, "steps": 15, "normalize_observations": True, "seeds": (0, 1), **small(agent)}
    whole = gf.train(path, run_dir=tmp_path / "whole", **settings)
    train_until_killed(10, path, run_dir=tmp_path / "cut", **settings)
    gf.resume(tmp_path / "cut", progress=False)
    for x, y in zip(*(map(jax.tree.leaves, map(trained_agents, (whole.path, tmp_path / "cut")))), strict=True):
        np.testing.assert_array_equal(x, y)


class Table(gymnasium.Env):
    """Episodes of six steps, seen by two cameras of different sizes and by joints."""

    action_space = Box(-1, 1, (2,))

    def __init__(self, render_mode=None, **changes):
        self.render_mode = render_mode
        spaces = {
            "joints": Box(-9, 9, (3,)),
            "eyes": Dict({"top": Box(0, 255, (9, 8, 3), np.uint8)}),
            "wrist.rgb": Box(0, 255, (12, 10, 1), np.uint8),
            "grip": Box(0, 1, ()),
            "unused": Box(0, 1, (50,)),
        }
        self.observation_space = Dict(spaces | changes)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(action[0]), False, self.steps == 6, {}


@pytest.mark.slow
def test_a_run_is_evaluated_goes_online_and_resumes_to_the_bit(tmp_path):
    path = written(tmp_path / "raw.npz", frame_stack=2)
    settings = {"agent": "rebrac", "steps": 10, "online_steps": 10, "eval_every": 10, "eval_episodes": 2, "env": Table}
    settings |= {"dataset": path, "eval_slots": 2, "crop_probability": 1.0, **small("rebrac")}
    whole = gf.train(run_dir=tmp_path / "whole", **settings)
    assert {row["mean_length"] for row in whole.results} == {6}
    train_until_killed(16, run_dir=tmp_path / "cut", **settings)
    cut = gf.resume(tmp_path / "cut", env=Table, progress=False)
    for x, y in zip(*(map(jax.tree.leaves, map(trained_agents, (whole.path, cut.path)))), strict=True):
        np.testing.assert_array_equal(x, y)
    assert [row["mean_return"] for row in whole.results] == [row["mean_return"] for row in cut.results]
    again = gf.evaluate(whole.path, env=Table, progress=False)
    assert [row["mean_return"] for row in again] == [row["mean_return"] for row in whole.results]
    graph = gf.evaluate(whole.path, env=Table, progress=False, onnx=True)
    np.testing.assert_allclose([row["mean_return"] for row in graph], [row["mean_return"] for row in again], rtol=1e-4)


def test_frames_of_an_environments_pictures_are_stacked_as_the_datas_are():
    env = StackedFrames(Table(), 3)
    first, _ = env.reset(seed=0)
    assert first["eyes/top"].shape == (9, 8, 9) == env.observation_space["eyes/top"].shape
    assert first["wrist.rgb"].shape == (12, 10, 3)
    assert first["joints"].shape == (3,)
    second, *_ = env.step(np.zeros(2))
    np.testing.assert_array_equal(second["eyes/top"][..., :6], first["eyes/top"][..., 3:])
    assert not np.array_equal(second["eyes/top"][..., 6:], first["eyes/top"][..., 6:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wrist.rgb": Box(0, 255, (8, 8, 1), np.uint8)}, r"observations/wrist.rgb: expected \(8, 8, 2\), as .* found"),
        ({"wrist.rgb": Box(0, 1, (12, 10, 1))}, "observations/wrist.rgb: expected float32, as .* found uint8"),
        ({"joints": Box(0, 1, (2,))}, r"observations/joints: expected \(2,\), as .* found \(3,\)"),
        ({"eyes": Box(0, 1, (2,))}, "observations/eyes/top: expected one of the entries of .* found no such"),
    ],
)
def test_an_environments_entries_are_held_against_the_datas(changes, message):
    spec = recorded(frame_stack=2).spec

    def make():
        return Table(**changes)

    task = environment_task(make, spec=spec)
    with pytest.raises(DataError, match=rf"^log.npz: {message}"):
        task.suite.check(task, spec, "log.npz")


def test_an_environment_that_fits_is_seen_through_stacked_frames():
    spec = recorded(frame_stack=2).spec
    task = environment_task(Table, spec=spec)
    assert (task.frame_stack, task.is_visual, task.observation_shape) == (2, True, spec.observation_shape)
    task.suite.check(task, spec, "log.npz")


# ------------------------------------------------------------------------------------------------ normalisation


def test_vectors_are_normalised_by_the_rows_that_can_be_sampled():
    dataset = recorded().normalized()
    joints = entries()["joints"].astype(np.float32)
    mean, deviation = dataset.spec.normalization
    np.testing.assert_allclose(mean, [*joints.mean(0), 1.0], rtol=1e-6)
    np.testing.assert_allclose(deviation, [*joints.std(0), 1.0], rtol=1e-5)  # A constant is divided by 1.
    assert Spec.from_json(json.loads(json.dumps(dataset.spec.to_json()))) == dataset.spec
    assert dataset.fingerprint() == recorded().fingerprint()
    plain = Dataset.from_arrays(entries()["joints"], **fields()).normalized()
    assert plain.spec.normalization == Normalization(mean[:3], deviation[:3])
    twice = plain.with_frame_stack(2).spec.normalization
    assert twice == Normalization(mean[:3] * 2, deviation[:3] * 2)
    some = {**fields(), "terminals": np.arange(ROWS) == 9, "timeouts": np.arange(ROWS) > 9}
    joints = Dataset.from_arrays(entries()["joints"], **some).normalized().spec.normalization.mean
    np.testing.assert_allclose(joints, entries()["joints"][:10].mean(0), rtol=1e-6)
    with pytest.raises(DataError, match="observations: expected vectors to normalise, found pictures alone"):
        Dataset.from_arrays({"a": entries()["eyes/top"]}, **fields()).normalized()


def test_networks_subtract_and_divide():
    spec = recorded().normalized().spec
    encoder = normalized(make_encoder(spec.observation_shape, key=jax.random.key(0)), spec.normalization)
    batch = jax.tree.map(jnp.asarray, recorded().rows(np.arange(ROWS)).observations)
    found = np.asarray(encoder(batch))[:, -4:]
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(0), [1, 1, 1, 0], atol=1e-3)
    with pytest.raises(SettingsError, match="normalize_observations: expected networks with encoders"):
        normalized({"weights": jnp.zeros(3)}, spec.normalization)


@pytest.mark.parametrize("saved", [[[0.0], [1.0]], [[0.0] * 4, [0.0] * 4], [[0.0] * 4, [np.inf] * 4], [[0.0] * 4]])
def test_a_damaged_normalisation_is_refused(saved):
    with pytest.raises(ValueError, match=r"normalization|unpack"):
        Spec.from_json(recorded().spec.to_json() | {"normalization": saved})


@pytest.mark.slow
def test_a_normalised_policy_takes_raw_observations_wherever_it_is_loaded(tmp_path):
    joints = entries()["joints"]
    shifted = {"observations": joints * [1.0, 1000.0, 1.0] + [0.0, 5e4, 0.0], **fields()}
    settings = {"agent": "rebrac", "steps": 10, "normalize_observations": True, **small("rebrac")}
    found = []
    for name, arrays in (("raw", {"observations": joints, **fields()}), ("shifted", shifted)):
        run = gf.train(dataset=Dataset.from_arrays(**arrays), run_dir=tmp_path / name, **settings)
        policy = gf.load_policy(run.path)
        assert policy.spec.normalization is not None
        found.append(policy(np.float32(arrays["observations"])))
        gf.export(run.path, tmp_path / f"{name}-out")
        exported = gf.load_policy(tmp_path / f"{name}-out")
        np.testing.assert_allclose(exported(np.float32(arrays["observations"])), found[-1], atol=1e-5)
    np.testing.assert_allclose(*found, atol=2e-3)  # Whatever the units of a column are.


# ---------------------------------------------------------------------------------------------------- deployment


@pytest.fixture(scope="module")
def exported(tmp_path_factory, small_pictures):
    """A run on a file of entries, and its exported policy."""
    folder = tmp_path_factory.mktemp("table")
    settings = {"agent": "gfp", "steps": 10, "normalize_observations": True, **small("gfp")}
    run = gf.train(written(folder / "raw.npz", frame_stack=2), run_dir=folder / "run", **settings)
    return gf.export(run.path, folder / "out", noise="zero").path


def observation(row: int = 0) -> dict[str, np.ndarray]:
    """As a robot gives it: pictures stacked, names nested."""
    seen = {name: array[row] for name, array in entries().items()}
    top, wrist = (np.concatenate([seen[name]] * 2, axis=-1) for name in ("eyes/top", "wrist.rgb"))
    return {"joints": seen["joints"], "grip": 1.0, "eyes": {"top": top}, "wrist.rgb": wrist, "unused": None}


@pytest.mark.slow
def test_a_policy_acts_alike_in_jax_as_a_graph_and_in_its_program(exported):
    schema = {
        one["name"]: (one["dtype"], one["shape"])
        for one in json.loads((exported / "policy.json").read_text())["observation"]
    }
    assert schema == {
        "joints": ("float32", ["batch", 3]),
        "eyes/top": ("uint8", ["batch", 9, 8, 6]),
        "wrist.rgb": ("uint8", ["batch", 12, 10, 2]),
        "grip": ("float32", ["batch"]),
    }
    policy = gf.load_policy(exported)
    assert policy.spec == gf.load_policy(exported.parent / "run").spec
    action = policy(observation())
    assert action.shape == (2,)
    two = [observation(0), observation(3)]
    batch = {name: np.stack([one[name] for one in two]) for name in ("joints", "grip", "wrist.rgb")}
    both = policy({**batch, "eyes/top": np.stack([one["eyes"]["top"] for one in two])})
    np.testing.assert_allclose(both[0], action, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(both[0], both[1])
    flat = {**observation(), "eyes/top": observation()["eyes"]["top"]}
    np.savez(exported / "seen.npz", **{name: flat[name] for name in schema})
    program = "import numpy as np; from act import Policy; print(*Policy()(dict(np.load('seen.npz'))))"
    shown = subprocess.run([sys.executable, "-c", program], cwd=exported, capture_output=True, text=True, check=True)
    np.testing.assert_allclose([float(number) for number in shown.stdout.split()], action, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agents_graph_acts_as_its_policy(agent):
    from guidedflow.graphs.check import TOLERANCE, check_graph
    from guidedflow.graphs.graph import policy_graph

    spec = recorded().normalized().spec
    made = gf.make_agent(agent, spec, **{k: v for k, v in small(agent).items() if k in ("hidden", "flow_steps")})
    for policy in made.policy_names:
        built = policy_graph(made, policy, spec)
        assert check_graph(built, made, policy, spec, "normal").largest <= TOLERANCE


@pytest.mark.slow
def test_clients_are_answered(exported):
    policy = gf.load_policy(exported)
    flat = {"joints": observation()["joints"], "grip": np.ones(()), "wrist.rgb": observation()["wrist.rgb"]}
    flat["eyes/top"] = observation()["eyes"]["top"]
    first, second = answers_together(policy, [flat, {**flat, "eyes/top": flat["eyes/top"] / 255}])
    assert isinstance(first, bytes)
    assert (
        "observation/eyes/top: expected a picture, uint8 of shape (9, 8, 6), or a batch of such, found float64"
        in second
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grip": "open"}, "observation/grip: expected numbers"),
        ({"joints": [np.nan, 0, 0]}, "observation: expected finite numbers"),
        ({"joints": np.zeros((4, 3))}, "observation/grip: expected 4 rows as in joints, found no batch"),
        (
            {"wrist.rgb": np.zeros((12, 10, 1), np.uint8)},
            r"wrist.rgb: expected a picture, uint8 of shape \(12, 10, 2\)",
        ),
        (
            {"wrist.rgb": np.zeros((5, 12, 10, 2), np.uint8)},
            "wrist.rgb: expected no batch as in eyes/top, found 5 rows",
        ),
    ],
)
def test_a_policy_refuses_other_entries(change, message, exported):
    with pytest.raises(GuidedflowError, match=message):
        gf.load_policy(exported)(observation() | change)


@pytest.mark.slow
def test_a_policy_of_dictionaries_takes_no_array(exported):
    with pytest.raises(
        SettingsError, match=r"observation: expected a dictionary with joints, eyes/top, .* found an array"
    ):
        gf.load_policy(exported)(np.zeros(4))
    without = observation()
    del without["wrist.rgb"]
    with pytest.raises(DataError, match=r"observation: expected an entry 'wrist.rgb', found joints"):
        gf.load_policy(exported)(without)


@pytest.mark.slow
def test_the_command_line_converts_inspects_and_trains(tmp_path):
    raw, own = written(tmp_path / "raw.npz"), tmp_path / "own.npz"
    made = guidedflow("data", "convert", raw, own, "--observation-keys", "joints", "eyes/top", "--frame-stack", "2")
    assert made.returncode == 0, made.stderr
    shown = guidedflow("data", "inspect", own)
    assert "an observation is, a dictionary of: joints (3,), eyes/top (9, 8, 6)" in shown.stdout
    small = ["--preset", "quick", "--hidden", "8", "--batch-size", "8", "--steps", "250", "--normalize-observations"]
    trained = guidedflow("train", own, "--agent", "bc", *small, "--run-dir", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["spec"]["observation_shape"] == {"eyes/top": [9, 8, 6], "vector": [3]}
    assert len(config["spec"]["normalization"][0]) == 3


def test_a_damaged_configs_entries_are_one_line(tmp_path):
    saved = recorded().spec.to_json()
    for shape in ({"vector": [4]}, {"eyes/top": [9, 8, 3]}, {**saved["observation_shape"], "more": [1]}, {}):
        with pytest.raises(ValueError, match="observation_keys"):
            Spec.from_json(saved | {"observation_shape": shape})


@pytest.mark.slow
def test_policies_are_ranked_without_an_environment(tmp_path):
    run = gf.train(
        dataset=recorded(), agent="bc", steps=10, normalize_observations=True, run_dir=tmp_path / "run", **small("bc")
    )
    rows = gf.assess(run.path, dataset=recorded(), steps=4, progress=False)
    assert [row["step"] for row in sorted(rows, key=lambda row: row["step"])] == [5, 10]
    assert all(np.isfinite([row["value"], row["action_error"]]).all() for row in rows)
