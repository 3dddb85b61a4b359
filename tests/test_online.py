"""Offline to online: what is gathered, what is drawn from it, and that a kill loses none of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TASK, train_until_killed

import guidedflow as gf
from guidedflow.data.dataset import Dataset
from guidedflow.errors import GuidedflowError
from guidedflow.training.online import Buffer, Row, sample
from guidedflow.training.restore import SavedRun
from guidedflow.types import Spec

SMALL = {"hidden": (12,), "batch_size": 16, "log_every": 10, "steps": 20, "save_every": 20, "eval_episodes": 0}


def filled(rows: int, capacity: int = 10) -> Buffer:
    """Row i observes 100 + i and does i / 100; an episode lasts three rows."""
    buffer = jax.tree.map(lambda leaf: leaf[0], Buffer.empty(Spec((1,), np.dtype("float32"), 1), capacity, 1))
    for i in range(rows):
        observation, action = np.array([100.0 + i]), np.array([i / 100])
        buffer = buffer.with_row(Row(observation, action, float(i), observation + 1, float(i % 3 != 2), i // 3 * 3))
    return buffer


def dataset() -> Dataset:
    rows = np.arange(8.0)
    return Dataset.from_arrays(rows[:, None], rows[:, None] / 10, rows, rows == 7).to_device()


def test_a_buffer_gives_back_what_was_put_in():
    batch = filled(5).rows(jnp.arange(5))
    assert batch.observations[:, 0].tolist() == [100, 101, 102, 103, 104]
    assert batch.next_observations[:, 0].tolist() == [101, 102, 103, 104, 105]
    assert batch.masks.tolist() == [1, 1, 0, 1, 1]
    # No next action is known at an episode's last row and at the newest one.
    assert batch.next_action_valid.tolist() == [True, True, False, True, False]
    np.testing.assert_allclose(batch.next_actions[batch.next_action_valid, 0], [0.01, 0.02, 0.04])


@pytest.mark.parametrize("balanced", [True, False])
def test_batches_hold_both_kinds_of_rows(balanced):
    draw = jax.jit(lambda key: sample(dataset(), filled(4), key, 12, balanced))
    drawn = np.concatenate([draw(jax.random.key(i)).observations[:, 0] for i in range(200)]).reshape(200, 12)
    online = drawn >= 100
    assert set(drawn.ravel().tolist()) == {*range(8), 100, 101, 102, 103}
    if balanced:
        assert (online == (np.arange(12) >= 6)).all()
    else:
        assert abs(online.mean() - 4 / 12) < 0.03  # One pool of eight rows and four.


@pytest.mark.slow
def test_an_online_run_that_was_cut_off_ends_bit_identical(cube_data, tmp_path):
    settings = {**SMALL, "online_steps": 40, "online_eta": 0.25, "flow_steps": 2, "seeds": (0, 1)}
    settings["data_dir"] = cube_data
    whole = gf.train(TASK, run_dir=tmp_path / "whole", **settings)

    train_until_killed(50, TASK, run_dir=tmp_path / "cut", **settings)
    cut = gf.resume(tmp_path / "cut")
    found = []
    for run in (whole, cut):
        saved = SavedRun(run.path)
        agents, step = saved.agents("latest")
        with saved.checkpoints() as checkpoints:
            buffers = checkpoints.restore(step, "buffers", Buffer.empty(saved.spec, 40, 2))
        found.append((agents, buffers))
    for x, y in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(x, y)
    agents, buffers = found[0]
    assert (step, buffers.size.tolist()) == (60, [40, 40])
    # Episodes begin anew where checkpoints lie, and in between each row starts where the last one ended.
    assert buffers.episodes.tolist() == [[20] * 20 + [40] * 20] * 2
    observations, following = np.asarray(buffers.observations), np.asarray(buffers.next_observations)
    for start in (0, 20):
        np.testing.assert_array_equal(following[:, start : start + 19], observations[:, start + 1 : start + 20])
    assert not np.array_equal(observations[0], observations[1])
    assert (np.abs(buffers.actions) <= 1).all()
    assert np.asarray(buffers.actions).std(axis=1).min() > 0.01
    assert set(np.asarray(buffers.rewards).ravel().tolist()) <= {-1.0, 0.0}
    np.testing.assert_allclose(agents.config.eta, 0.25)
    assert whole.summary["steps"] == 60


def test_who_cannot_go_online_says_so(cube_data, own_dataset, tmp_path):
    with pytest.raises(
        GuidedflowError, match=r"online_steps: expected 0 for bc, .*; gfp, fql, rebrac, iql, ifql go online"
    ):
        gf.train(TASK, agent="bc", data_dir=cube_data, run_dir=tmp_path / "run", online_steps=10, **SMALL)
    with pytest.raises(GuidedflowError, match="online_steps: expected a task or an environment to act in"):
        gf.train(dataset=own_dataset, run_dir=tmp_path / "run", online_steps=10, **SMALL)
    assert not (tmp_path / "run").exists()
