"""Held-out data: nothing is learned from it, and its losses stand beside the training's."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TASK, guidedflow, own_arrays, train_until_killed, trained_agents

import guidedflow as gf
from guidedflow.agents import AGENTS
from guidedflow.data.formats import npz
from guidedflow.runs.folder import RunFolder
from guidedflow.training.members import init_agents, member_keys, select
from guidedflow.training.settings import Member
from guidedflow.training.sources import step_keys
from guidedflow.training.validation import BATCHES, Validation

SMALL = {"hidden": (12,), "batch_size": 16, "log_every": 10, "steps": 40, "save_every": 20, "progress": False}


def records(run):
    timed = ("updates_per_second", "data_wait")
    return [{k: v for k, v in row.items() if k not in timed} for row in RunFolder(run).metrics()]


def leaves(run):
    return jax.tree.leaves(jax.device_get(trained_agents(run)))


def assert_identical(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def without_validation(rows):
    return [{name: value for name, value in row.items() if "/" not in name} for row in rows]


@pytest.mark.slow
def test_what_is_learned_is_learned_from_the_other_episodes_alone(own_dataset, tmp_path):
    run = gf.train(dataset=own_dataset, run_dir=tmp_path / "held", validation=0.3, seeds=(4, 1), flow_steps=2, **SMALL)
    record = run.config.data
    assert (record.episodes, record.held_out.episodes) == (4, 2)
    drawn = np.random.default_rng(record.held_out.seed).permutation(6)[2:]
    rows = np.isin(np.repeat(np.arange(6), 20), drawn)
    rest = gf.Dataset.from_arrays(**{name: array[rows] for name, array in own_arrays().items()})
    assert rest.size == record.transitions
    alone = gf.train(dataset=rest, run_dir=tmp_path / "alone", seeds=(4, 1), flow_steps=2, **SMALL)
    assert_identical(leaves(run.path), leaves(alone.path))
    assert without_validation(records(run.path)) == records(alone.path)
    validated = {name for row in records(run.path) for name in row if "/" in name}
    assert validated == {
        f"validation/{name}" for name in records(alone.path)[0] if name not in ("step", "seed", "variant")
    }
    assert b"seed4/validation/critic_loss" in next((run.path / "tensorboard").iterdir()).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(AGENTS))
def test_a_killed_run_measures_the_same_losses(name, own_dataset, tmp_path):
    settings = {**SMALL, "agent": name, "validation": 0.3, "seeds": (0, 1), "steps": 60}
    whole = gf.train(dataset=own_dataset, run_dir=tmp_path / "whole", **settings)
    train_until_killed(50, dataset=own_dataset, run_dir=tmp_path / "cut", **settings)
    cut = gf.resume(tmp_path / "cut", dataset=own_dataset, progress=False)
    assert records(whole.path) == records(cut.path)
    assert_identical(leaves(whole.path), leaves(cut.path))
    for row in records(whole.path):
        assert np.isfinite([value for key, value in row.items() if "/" in key]).all()


@pytest.mark.slow
def test_each_loss_is_the_mean_over_batches_of_held_out_transitions(own_dataset):
    held_out = own_dataset.of_episodes([1, 4])
    members = [Member((), seed, AGENTS["iql"].config_class(hidden=(12,))) for seed in (0, 7)]
    agents, keys = init_agents(AGENTS["iql"], members, own_dataset.spec), member_keys(members, "validation")
    found = Validation(held_out, keys, 8)(agents, 30)
    for i in (0, 1):
        losses = []
        for step in range(30, 30 + BATCHES):
            batch_key, update_key, _ = step_keys(keys[i], jnp.int32(step))
            batch = held_out.sample(batch_key, 8)
            rows = [np.flatnonzero((own_dataset.actions == action).all(axis=1))[0] // 20 for action in batch.actions]
            assert set(rows) <= {1, 4}
            losses.append(select(agents, i).validate(jax.tree.map(jnp.asarray, batch), update_key))
        for name in losses[0]:
            mean = np.mean([loss[name] for loss in losses])
            np.testing.assert_allclose(found[f"validation/{name}"][i], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_sweep_measures_each_variant(own_dataset, tmp_path):
    sweep = {"alpha": (0.1, 10.0)}
    run = gf.train(dataset=own_dataset, run_dir=tmp_path / "run", agent="rebrac", validation=0.5, sweep=sweep, **SMALL)
    last = [row for row in records(run.path) if row["step"] == 40]
    assert len({row["validation/actor_loss"] for row in last}) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("small_pictures")
def test_pictures_on_the_disk_are_measured_as_vectors_in_memory_are(tmp_path, monkeypatch):
    from guidedflow.training import assess, trainer

    rng, n = np.random.default_rng(0), 60
    np.savez(
        tmp_path / "pictures.npz",
        observations=rng.integers(0, 256, (n, 16, 16, 3), np.uint8),
        actions=rng.uniform(-1, 1, (n, 2)),
        rewards=rng.normal(size=n),
        terminals=np.zeros(n, bool),
        timeouts=np.arange(1, n + 1) % 10 == 0,
    )
    settings = {**SMALL, "agent": "iql", "validation": 0.3, "steps": 20, "crop_probability": 0.5}
    disk = gf.train(tmp_path / "pictures.npz", run_dir=tmp_path / "disk", **settings)
    values = [gf.assess(disk.path, steps=3, progress=False)[0]["value"]]
    monkeypatch.setattr(trainer, "stays_on_disk", lambda dataset: False)
    monkeypatch.setattr(assess, "stays_on_disk", lambda dataset: False)
    values.append(gf.assess(disk.path, steps=3, progress=False)[0]["value"])
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    device = gf.train(tmp_path / "pictures.npz", run_dir=tmp_path / "device", **settings)
    for ours, theirs in zip(records(disk.path), records(device.path), strict=True):
        assert "validation/critic_loss" in ours
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value == theirs[name] if name == "variant" else np.isclose(value, theirs[name], rtol=1e-4)


@pytest.mark.slow
def test_a_benchmarks_own_validation_file(cube_data, tmp_path):
    settings = {**SMALL, "agent": "bc", "steps": 20, "eval_episodes": 0, "data_dir": cube_data}
    run = gf.train(TASK, run_dir=tmp_path / "run", validation="own", **settings)
    data = json.loads((run.path / "config.json").read_text())["data"]
    assert data["held_out"]["source"] == str(cube_data / "cube-single-noisy-v0-val.npz")
    assert (data["episodes"], data["held_out"]["episodes"], data["held_out"]["seed"]) == (4, 1, None)
    plain = gf.train(TASK, run_dir=tmp_path / "plain", **settings)
    assert plain.config.data.fingerprint == data["fingerprint"]
    assert without_validation(records(run.path)) == records(plain.path)
    changed = tmp_path / "changed"
    changed.mkdir()
    for name in ("cube-single-noisy-v0.npz", "cube-single-noisy-v0-val.npz"):
        (changed / name).symlink_to(cube_data / "cube-single-noisy-v0.npz")
    with pytest.raises(gf.DataError, match=r"-val.npz: expected the data that the run held out \(\w+\), found other"):
        gf.resume(run.path, data_dir=changed, extend_to=40)
    (changed / "cube-single-noisy-v0-val.npz").unlink()
    with pytest.raises(gf.DataError, match=r"-val.npz: expected the validation data .* found nothing; get both with"):
        gf.train(TASK, validation="own", run_dir=tmp_path / "none", **{**settings, "data_dir": changed})
    assert not (tmp_path / "none").exists()


def test_a_formats_own_part(own_file, tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "splits", lambda path: {"valid": np.array([0, 3])}, raising=False)
    run = gf.train(own_file, run_dir=tmp_path / "run", agent="bc", validation="own", **SMALL)
    assert (run.config.data.episodes, run.config.data.held_out.episodes) == (4, 2)
    monkeypatch.setattr(npz, "splits", lambda path: {"train": np.array([0, 1]), "val": np.array([0])}, raising=False)
    run = gf.train(own_file, run_dir=tmp_path / "other", agent="bc", validation="own", **SMALL)
    assert (run.config.data.episodes, run.config.data.held_out.episodes) == (1, 1)
    monkeypatch.setattr(npz, "splits", lambda path: {"valid": np.array([6])}, raising=False)
    with pytest.raises(gf.DataError, match=r"own.npz: expected episodes from 0 to 5, found number 6"):
        gf.train(own_file, run_dir=tmp_path / "beyond", agent="bc", validation="own", **SMALL)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (1.0, r"validation: expected a value in \[0, 1\), found 1.0"),
        (-0.1, r"validation: expected a value in \[0, 1\), found -0.1"),
        ("half", "validation: expected a number or own, found 'half'"),
        (None, "validation: expected float, found None"),
        (
            "own",
            r"validation: expected a share of the episodes, such as 0.1, found own; .*own.npz names none to be .*",
        ),
    ],
)
def test_what_cannot_be_held_out_is_said_in_one_line(validation, message, own_file, tmp_path):
    with pytest.raises(gf.GuidedflowError, match=f"^{message}$"):
        gf.train(own_file, run_dir=tmp_path / "run", validation=validation, **SMALL)
    assert not (tmp_path / "run").exists()


def test_an_episode_of_one_cannot_be_divided(tmp_path):
    arrays = {name: array[:20] for name, array in own_arrays().items()}
    with pytest.raises(gf.DataError, match="arrays: expected at least 2 episodes, one of them to be held out, found 1"):
        gf.train(dataset=gf.Dataset.from_arrays(**arrays), run_dir=tmp_path / "run", validation=0.1, **SMALL)


@pytest.mark.slow
def test_the_option_is_a_number_or_own(own_file, tmp_path):
    command = ["train", own_file, "--agent", "bc", "--hidden", "12", "--steps", "10", "--log-every", "10"]
    command += ["--save-every", "10", "--batch-size", "8", "--run-dir", tmp_path / "run"]
    done = guidedflow(*command, "--validation", "0.2")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["validation"] == 0.2
    done = guidedflow(*command, "--validation", "much")
    assert done.returncode == 2
    assert re.search(r"--validation: expected a number or own, found 'much'", done.stderr)
