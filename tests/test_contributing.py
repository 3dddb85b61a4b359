"""The worked example of CONTRIBUTING.md is an algorithm: one file and one line in the registry."""

import os
import re

import jax
import numpy as np
import pytest
from conftest import guidedflow, install_plugin, own_arrays, train_until_killed, trained_agents, worked_example

import guidedflow as gf
from guidedflow.agents import AGENTS

SMALL = {"agent": "regression", "hidden": (16,), "batch_size": 32, "log_every": 10, "steps": 60, "save_every": 20}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """The folder of a package whose entry point names it."""
    code, name, target = worked_example("A new algorithm")
    module, _, attribute = target.partition(":")
    assert module == f"guidedflow.agents.{name}"
    install_plugin(tmp_path / "site", monkeypatch, "guidedflow.agents", name, f"{name}:{attribute}", code)
    return tmp_path / "site"


@pytest.mark.slow
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


@pytest.fixture
def command(tmp_path):
    """The command line, which finds modules in the given folder as well."""

    def call(folder, *words):
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        return guidedflow(*words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})

    return call


WORDS = ["--hidden", "8", "--batch-size", "4", "--steps", "20", "--log-every", "10"]


@pytest.mark.slow
def test_an_entry_point_makes_it_an_algorithm_of_the_command_line(registered, own_file, command):
    assert "regression" in AGENTS
    listed = command(registered, "agents")
    assert re.search(r"^regression\b", listed.stdout, re.M)
    trained = command(registered, "train", own_file, "--agent", "regression", "--run-dir", "mine", *WORDS)
    assert trained.returncode == 0, trained.stderr
    longer = command(registered, "train", "--resume", "mine", "--extend-to", "30")
    assert longer.returncode == 0, longer.stderr
    assert "step 20/30" in longer.stderr


@pytest.mark.slow
def test_without_one_its_class_is_named_each_time(own_file, command, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "regression.py").write_text(worked_example("A new algorithm")[0])
    named = ["--agent", "regression:Regression"]
    trained = command(tmp_path / "site", "train", own_file, *named, "--run-dir", "mine", *WORDS)
    assert trained.returncode == 0, trained.stderr
    forgotten = command(tmp_path / "site", "train", "--resume", "mine", "--extend-to", "30")
    assert forgotten.returncode == 2
    assert "give it again: agent= (--agent regression:Regression)" in forgotten.stderr
    longer = command(tmp_path / "site", "train", "--resume", "mine", "--extend-to", "30", *named)
    assert longer.returncode == 0, longer.stderr
