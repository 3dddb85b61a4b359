"""Pictures: their encoder, stacks, crops, files too big for memory, and the tasks that are learned from them."""

import functools
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import guidedflow as gf
from guidedflow import opengl
from guidedflow.agents import AGENTS
from guidedflow.data import formats
from guidedflow.data.augment import PADDING, crop, random_crops
from guidedflow.data.dataset import Dataset
from guidedflow.data.formats import npz
from guidedflow.data.inspect import inspect
from guidedflow.envs.vector import Reset, VectorEnv
from guidedflow.errors import GuidedflowError
from guidedflow.nn.encoder import FEATURES, Flat, Impala, make_encoder
from guidedflow.nn.pooling import max_pool
from guidedflow.opengl import gl_backend
from guidedflow.suites import find_task
from guidedflow.suites.ogbench.rewards import label
from guidedflow.training import stream
from guidedflow.training.settings import TrainSettings

TASK = "visual-cube-single-play-singletask-task1-v0"
FAMILY = "visual-cube-single-play"
TINY = {"hidden": (8,), "flow_steps": 2}

needs_opengl = pytest.mark.skipif(gl_backend() is None, reason=opengl.NO_BACKEND)


def pictures(rows: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), np.uint8)


def fields(rows: int = 60, height: int = 9, width: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "observations": pictures(rows, height, width, 3),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": np.arange(rows) % 20 == 19,
    }


# --------------------------------------------------------------------------------------------------------- encoder


def naive_conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
    for i in range(3):
        for j in range(3):
            out += padded[:, i : i + height, j : j + width] @ kernel[i, j]
    return out


def naive_pool(x: np.ndarray) -> np.ndarray:
    """3 x 3 windows, stride 2, padded as little as makes the size ceil(size / 2), the odd pixel at the end."""
    count, height, width, channels = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    above, left = ((max(0, 2 * (n - 1) + 3 - size)) // 2 for n, size in ((rows, height), (columns, width)))
    out = np.empty((count, rows, columns, channels))
    for i in range(rows):
        for j in range(columns):
            top, side = 2 * i - above, 2 * j - left
            window = x[:, max(0, top) : top + 3, max(0, side) : side + 3]
            out[:, i, j] = window.max(axis=(1, 2))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(16, 16, 3), (9, 13, 6)])
def test_the_encoder_is_the_small_impala_network(shape):
    net = Impala(shape, key=jax.random.key(0))
    observations = pictures(2, *shape)
    x = observations / 255.0
    for stage in net.stages:
        x = naive_pool(naive_conv(x, np.asarray(stage.first.kernel), np.asarray(stage.first.bias)))
        inner, outer = stage.block
        y = naive_conv(np.maximum(x, 0), np.asarray(inner.kernel), np.asarray(inner.bias))
        x = x + naive_conv(np.maximum(y, 0), np.asarray(outer.kernel), np.asarray(outer.bias))
    assert [stage.first.kernel.shape[-1] for stage in net.stages] == [16, 32, 32]
    flat = np.maximum(x, 0).reshape(2, -1) @ np.asarray(net.dense.weights[0])
    expected = 0.5 * flat * (1 + np.tanh(np.sqrt(2 / np.pi) * (flat + 0.044715 * flat**3)))
    found = np.asarray(net(jnp.asarray(observations)))
    assert found.shape == (2, FEATURES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_of_equal_largest_values_the_first_takes_the_gradient(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, (2, *size, 3)), jnp.float32)  # Full of equal neighbours.

    def as_jax_does(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    (pooled, back), (expected, expected_back) = (jax.vjp(function, x) for function in (max_pool, as_jax_does))
    gradient = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_allclose(back(gradient)[0], expected_back(gradient)[0], atol=1e-6)


def test_vectors_pass_unchanged_and_disturb_no_key():
    encoder = make_encoder((5,), key=jax.random.key(0))
    assert isinstance(encoder, Flat)
    assert jax.tree.leaves(encoder) == []
    assert (encoder(jnp.arange(5.0)) == jnp.arange(5.0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_learns_from_pictures(name):
    dataset = Dataset.from_arrays(**fields(), frame_stack=2)
    assert dataset.spec.observation_shape == (9, 8, 6)
    kept = {k: v for k, v in TINY.items() if k in AGENTS[name].config_class.__dataclass_fields__}
    agent = gf.make_agent(name, dataset.spec, **kept)
    before = [np.array(leaf) for leaf in jax.tree.leaves(encoders(agent))]
    trained, update = agent, jax.jit(lambda agent, batch, key: agent.update(batch, key))
    for step in range(2):  # ReBRAC's actor moves in every second one.
        trained, metrics = update(trained, dataset.rows(dataset.transitions[:8]), jax.random.key(step))
    assert all(np.isfinite(values).all() for values in metrics.values())
    after = jax.tree.leaves(encoders(trained))
    assert len(before) == len(after) > 0
    moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert all(moved)
    for act in trained.policies().values():
        actions = act(jnp.asarray(pictures(3, 9, 8, 6)), jax.random.key(0))
        assert actions.shape == (3, 2)
        assert (np.abs(actions) <= 1).all()


def encoders(agent):
    found = []
    jax.tree.map(
        lambda node: found.append(node) if isinstance(node, Impala) else None,
        [getattr(agent, name) for name in ("networks", "critic", "actor", "flow") if hasattr(agent, name)],
        is_leaf=lambda node: isinstance(node, Impala),
    )
    return found


def test_shapes_that_are_neither_vectors_nor_pictures_are_refused():
    shape = {**fields(), "observations": pictures(60, 9, 8, 3).astype(np.float32)}
    with pytest.raises(GuidedflowError, match=r"or a picture, uint8 of shape .* found float32 of shape \(N, 9, 8, 3\)"):
        gf.make_agent("bc", Dataset.from_arrays(**shape).spec)


@pytest.mark.slow
def test_a_policy_takes_pictures_of_uint8_only():
    spec = Dataset.from_arrays(**fields()).spec
    policy = gf.Policy(gf.make_agent("bc", spec, **TINY), "flow", spec)
    assert policy(pictures(1, 9, 8, 3)[0]).shape == (2,)
    with pytest.raises(GuidedflowError, match="observation: expected a picture of uint8, found float64"):
        policy(np.zeros((9, 8, 3)))


# ------------------------------------------------------------------------------------------------ stacks and crops


def test_stacks_never_reach_before_their_episode():
    rows = np.arange(7, dtype=np.uint8)
    dataset = Dataset.from_arrays(
        observations=np.broadcast_to(rows[:, None, None, None], (7, 2, 2, 1)),
        actions=np.zeros((7, 1)),
        rewards=np.zeros(7),
        terminals=rows == 3,
        frame_stack=3,
    )
    for batch in (dataset.rows(dataset.transitions), dataset.to_device().rows(jnp.asarray(dataset.transitions))):
        assert np.asarray(batch.observations)[:, 0, 0].tolist() == [
            [0, 0, 0],
            [0, 0, 1],
            [0, 1, 2],
            [1, 2, 3],
            [4, 4, 4],
            [4, 4, 5],
        ]
        followed = np.asarray(batch.next_observations)[:, 1, 1].tolist()
        assert followed[:3] == [[0, 0, 1], [0, 1, 2], [1, 2, 3]]
        assert followed[4:] == [[4, 4, 5], [4, 5, 6]]
        assert batch.observations.dtype == batch.next_observations.dtype == np.uint8
    with pytest.raises(GuidedflowError, match="frame_stack: expected 1 to 64, found 0"):
        Dataset.from_arrays(**fields(), frame_stack=0)


def test_crops_are_windows_of_edge_padded_pictures():
    images = pictures(6, 5, 4, 2)
    shifts = np.array([[0, 0], [6, 6], [3, 3], [2, 5], [6, 0], [1, 3]])
    found = np.asarray(crop(jnp.asarray(images), jnp.asarray(shifts)))
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="edge")
    for picture, image, (down, right) in zip(found, padded, shifts, strict=True):
        np.testing.assert_array_equal(picture, image[down : down + 5, right : right + 4])
    np.testing.assert_array_equal(found[2], images[2])  # The middle: nothing is shifted.


@pytest.mark.slow
def test_half_of_the_batches_are_cropped_alike_in_s_and_its_successor():
    dataset = Dataset.from_arrays(**fields())
    batch = dataset.rows(dataset.transitions[:8])._replace(next_observations=None)
    batch = batch._replace(next_observations=batch.observations)
    changed = 0
    for number in range(60):
        found = random_crops(batch, jax.random.key(number), 0.5)
        np.testing.assert_array_equal(found.observations, found.next_observations)
        changed += not np.array_equal(found.observations, batch.observations)
        assert found.actions is batch.actions or np.array_equal(found.actions, batch.actions)
    assert 20 <= changed <= 40
    for probability, same in ((0.0, True), (1.0, False)):
        found = random_crops(batch, jax.random.key(0), probability)
        assert np.array_equal(found.observations, batch.observations) == same
    vectors = batch._replace(observations=jnp.zeros((8, 3)), next_observations=jnp.zeros((8, 3)))
    assert random_crops(vectors, jax.random.key(0), 1.0) is vectors


# -------------------------------------------------------------------------------------------- files and the stream


@pytest.fixture(params=["stored", "compressed"])
def file(request, tmp_path):
    path = tmp_path / "mine.npz"
    {"stored": np.savez, "compressed": np.savez_compressed}[request.param](path, **fields(), frame_stack=3)
    return path


def test_pictures_in_a_file_are_mapped_not_read(file, caplog):
    caplog.set_level("INFO", "guidedflow")
    found = npz.read(file)
    assert isinstance(found["observations"], np.memmap)
    assert not isinstance(found["actions"], np.memmap)
    for name, array in fields().items():
        np.testing.assert_array_equal(found[name], array)
    with zipfile.ZipFile(file) as archive:
        compressed = archive.getinfo("observations.npy").compress_type != zipfile.ZIP_STORED
    assert len(caplog.records) == compressed
    assert len(list(file.parent.glob(".unpacked/*"))) == compressed
    npz.read(file)
    assert len(caplog.records) == compressed  # Unpacked once.


def test_a_file_that_changed_is_unpacked_anew(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, observations=pictures(4, 2, 2, 1))
    npz.read(path)
    np.savez_compressed(path, observations=pictures(9, 2, 2, 1, seed=1))
    assert npz.read(path)["observations"].shape == (9, 2, 2, 1)
    assert len(list(tmp_path.glob(".unpacked/*"))) == 1


def test_a_damaged_compressed_picture_is_one_line_and_leaves_nothing(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, observations=pictures(400, 8, 8, 3))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(GuidedflowError, match=r"mine.npz: expected a whole npz archive of arrays, found:"):
        npz.read(path)
    assert list(tmp_path.glob(".unpacked/*")) == []


def test_converted_pictures_are_mapped_and_stacked(tmp_path):
    dataset = formats.load(gf.convert(fields(), tmp_path / "mine.npz", frame_stack=3))
    assert dataset.is_on_disk
    assert dataset.spec.observation_shape == (9, 8, 9)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["stored"], indirect=True)
def test_what_is_read_from_the_disk_trains_as_what_is_in_memory(file, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_BYTES", 3 * 16 * 4 * 9 * 8 * 3 + 3 * 16 * 40)  # Three batches a piece at most.
    mapped = formats.load(file)
    assert stream.stays_on_disk(mapped)
    held = Dataset.from_arrays(**fields(), frame_stack=3)
    assert not stream.stays_on_disk(held)
    found = []
    for dataset in (held, mapped):
        agent = gf.make_agent("bc", dataset.spec, **TINY)
        found.append(gf.fit(agent, dataset, steps=6, batch_size=16)[1])
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_chunks_may_be_asked_for_in_any_order_and_the_wait_is_measured():
    dataset = Dataset.from_arrays(**fields())
    keys = jax.random.split(jax.random.key(0), 2)
    agents = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), gf.make_agent("bc", dataset.spec, **TINY))
    copy = jax.tree.map(jnp.copy, agents)
    settings = TrainSettings(batch_size=8)
    with stream.DiskSource(dataset, keys, settings, stop=12) as first:
        _, early = first.updates(agents, 0, 4)
        _, late = first.updates(jax.tree.map(jnp.copy, copy), 8, 4)
        assert 0 <= first.wait_share <= 1
    assert early["flow_loss"].shape == (2, 4)
    with stream.DiskSource(dataset, keys, settings, stop=12) as second:
        _, again = second.updates(copy, 8, 4)
    np.testing.assert_array_equal(late["flow_loss"], again["flow_loss"])


@pytest.mark.slow
def test_a_run_on_mapped_pictures_resumes_to_the_bit(tmp_path, caplog):
    caplog.set_level("INFO", "guidedflow")
    path = tmp_path / "mine.npz"
    np.savez(path, **fields(), frame_stack=3)
    settings = {"agent": "bc", "log_every": 5, "save_every": 5, "batch_size": 8, **TINY}
    whole = gf.train(path, steps=15, run_dir=tmp_path / "whole", **settings)
    assert "observations stay on the disk" in caplog.text

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 10:
            raise Killed

    with pytest.raises(Killed):
        gf.train(path, steps=15, run_dir=tmp_path / "cut", callbacks=[kill], **settings)
    cut = gf.resume(tmp_path / "cut")
    for run in (whole, cut):
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 3
        assert "data_wait" in lines[-1]
    observation = pictures(1, 9, 8, 9)[0]
    np.testing.assert_array_equal(gf.load_policy(whole.path)(observation), gf.load_policy(cut.path)(observation))


def test_the_fingerprint_of_mapped_data_sees_rows_and_shapes(tmp_path):
    found = set()
    for change in ("none", "pixel", "length"):
        made = fields()
        if change == "pixel":
            made["observations"][7] ^= 1
        if change == "length":
            made = {name: array[:-1] for name, array in made.items()}
        path = tmp_path / f"{change}.npz"
        np.savez(path, **made)
        found.add(formats.load(path).fingerprint())
    found.add(formats.load(path, frame_stack=3).fingerprint())
    assert len(found) == 4


# ------------------------------------------------------------------------------------------------------ the tasks


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visual")
    gf.generate(FAMILY, data_dir=folder, episodes=2, val_episodes=1, workers=2, steps=6)
    return folder


@pytest.mark.slow
@needs_opengl
def test_generated_pictures_are_the_environments_own(made):
    arrays = npz.read(made / f"{FAMILY}-v0.npz")
    assert arrays["observations"].shape == (12, 64, 64, 3)
    assert isinstance(arrays["observations"], np.memmap)  # Stored as they are.
    assert np.flatnonzero(arrays["terminals"]).tolist() == [5, 11]
    assert len(np.unique(arrays["observations"].reshape(12, -1), axis=0)) > 6
    report = inspect(made / f"{FAMILY}-v0.npz")
    assert report.problems == []


@pytest.mark.slow
@needs_opengl
@pytest.mark.parametrize("world", ["cube-double", "scene", "puzzle-3x3", "puzzle-4x4"])
def test_the_other_visual_families_are_made_in_ogbenchs_format(world, tmp_path):
    import ogbench

    train, val = gf.generate(f"visual-{world}-play", data_dir=tmp_path, episodes=1, workers=2, steps=3)
    assert npz.read(val)["observations"].shape == (3, 64, 64, 3)
    loaded, _ = ogbench.make_env_and_datasets(f"visual-{world}-play-v0", dataset_path=str(train), dataset_only=True)
    np.testing.assert_array_equal(loaded["observations"], npz.read(train)["observations"][:-1])
    dataset = gf.load_dataset(f"visual-{world}-play-singletask-task1-v0", tmp_path)
    assert (dataset.size, dataset.is_on_disk, dataset.spec.observation_shape) == (2, True, (64, 64, 9))


@pytest.mark.slow
@needs_opengl
def test_a_visual_task_is_loaded_trained_on_and_continued(made, tmp_path):
    dataset = gf.load_dataset(TASK, made)
    assert dataset.spec.observation_shape == find_task(TASK).observation_shape == (64, 64, 9)
    assert dataset.size == 10
    states = {"qpos": npz.read(made / f"{FAMILY}-v0.npz")["qpos"]}
    np.testing.assert_array_equal(dataset.rewards, label(find_task(TASK), states).rewards)
    settings = {"steps": 2, "log_every": 1, "save_every": 1, "eval_episodes": 0, "batch_size": 2, **TINY}
    run = gf.train(TASK, agent="bc", data_dir=made, run_dir=tmp_path / "run", **settings)
    assert gf.resume(run.path).summary["steps"] == 2
    policy = gf.load_policy(run.path)
    assert policy(np.asarray(dataset.rows(dataset.transitions[:1]).observations)[0]).shape == (5,)


@pytest.mark.slow
@needs_opengl
def test_a_visual_environment_stacks_its_frames():
    task = find_task(TASK)
    make_env = functools.partial(task.suite.make_env, task, max_episode_steps=3)
    with VectorEnv(make_env, slots=1, workers=1, gl_backend=gl_backend()) as vector:
        first = vector.exchange([Reset(0)])[0].observation
        again = vector.exchange([Reset(0)])[0].observation
        second = vector.exchange([np.ones(5, np.float32)])[0].observation
        third = vector.exchange([np.ones(5, np.float32)])[0].observation
    assert first.shape == task.observation_shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[..., :3], first[..., 6:])
    np.testing.assert_array_equal(second[..., :6], first[..., 3:])
    np.testing.assert_array_equal(third[..., :6], second[..., 3:])
    assert not np.array_equal(third[..., 6:], third[..., 3:6])


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(opengl, "BACKENDS", ("nonsense",))
    gl_backend.cache_clear()
    try:
        with pytest.raises(
            GuidedflowError, match=r"visual-cube-single-play: expected an OpenGL backend .*apt-get install"
        ):
            gf.generate(FAMILY, data_dir=tmp_path / "data", episodes=1)
        with pytest.raises(GuidedflowError, match=r"train with eval_episodes 0\): expected an OpenGL backend"):
            gf.train(TASK, data_dir=tmp_path, run_dir=tmp_path / "run")
        with pytest.raises(GuidedflowError, match="task1-v0: expected an OpenGL backend"):
            gf.train(TASK, data_dir=tmp_path, run_dir=tmp_path / "run", eval_episodes=0, online_steps=250)
        assert not (tmp_path / "run").exists()
    finally:
        gl_backend.cache_clear()
