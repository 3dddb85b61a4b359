"""The worked example of CONTRIBUTING.md is an algorithm: one file and one line in the registry."""

import jax
import numpy as np
import pytest
from conftest import install_plugin, own_arrays, train_until_killed, trained_agents, worked_example

import guidedflow as gf

SMALL = {"agent": "regression", "hidden": (16,), "batch_size": 32, "log_every": 10, "steps": 60, "save_every": 20}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    code, name, target = worked_example("A new algorithm")
    module, _, attribute = target.partition(":")
    assert module == f"guidedflow.agents.{name}"
    install_plugin(tmp_path / "site", monkeypatch, "guidedflow.agents", name, f"{name}:{attribute}", code)


def test_the_worked_example_trains_is_killed_and_goes_on(registered, tmp_path):
    fields = own_arrays(episodes=60)
    fields["actions"] = np.tanh(fields["observations"][:, :2])
    dataset = gf.Dataset.from_arrays(**fields)
    whole = gf.train(dataset=dataset, run_dir=tmp_path / "whole", **SMALL)

    train_until_killed(50, dataset=dataset, run_dir=tmp_path / "cut", **SMALL)
    cut = gf.resume(tmp_path / "cut", dataset=dataset)
    both = [jax.tree.leaves(trained_agents(run.path)) for run in (whole, cut)]
    for x, y in zip(*both, strict=True):
        np.testing.assert_array_equal(x, y)
    agent = gf.make_agent("regression", dataset.spec, hidden=(16,), learning_rate=1e-2)
    agent, metrics = gf.fit(agent, dataset, steps=600)
    assert metrics["cloning_loss"][-20:].mean() < 0.05 * metrics["cloning_loss"][:20].mean()
    policy = gf.Policy(agent, "actor", dataset.spec)
    np.testing.assert_allclose(policy(np.zeros(4)), 0.0, atol=0.2)
