"""Variants of the settings train as one batch, and each learns what it would alone."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import guidedflow, trained_agents

import guidedflow as gf
from guidedflow.errors import GuidedflowError
from guidedflow.runs.folder import RunFolder, plain_rows
from guidedflow.runs.summary import over_seeds
from guidedflow.training.members import select
from guidedflow.training.settings import members

SMALL = {"hidden": (12,), "batch_size": 16, "log_every": 10, "flow_steps": 2, "steps": 40, "save_every": 40}


def parameters(run, index):
    agents = trained_agents(run.path)
    return jax.tree.leaves(select(agents, index))


@pytest.mark.slow
def test_every_variant_learns_what_it_learns_alone(own_dataset, tmp_path):
    swept = gf.train(
        dataset=own_dataset, run_dir=tmp_path / "sweep", sweep={"alpha": (0.3, 30)}, seeds=(0, 1), eta=0.5, **SMALL
    )
    alone = gf.train(dataset=own_dataset, run_dir=tmp_path / "alone", alpha=30.0, seeds=(1,), eta=0.5, **SMALL)
    for x, y in zip(parameters(swept, 3), parameters(alone, 0), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    assert not all(np.allclose(x, y) for x, y in zip(parameters(swept, 1), parameters(swept, 3), strict=True))
    rows = RunFolder(swept.path).metrics()
    assert [(row["variant"], row["seed"]) for row in rows[:4]] == [
        ((("alpha", 0.3),), 0),
        ((("alpha", 0.3),), 1),
        ((("alpha", 30.0),), 0),
        ((("alpha", 30.0),), 1),
    ]
    policy = gf.load_policy(swept.path, variant={"alpha": 30}, seed=1)
    np.testing.assert_allclose(policy(np.ones(4)), gf.load_policy(alone.path, seed=1)(np.ones(4)), rtol=1e-3, atol=1e-4)
    with pytest.raises(gf.SettingsError, match=r"variant: expected one of .* \(alpha=0.3, alpha=30\), found"):
        gf.load_policy(swept.path, variant={"alpha": 7})
    with pytest.raises(gf.SettingsError, match=r"variant: expected one of the sweep .* found none; name one"):
        gf.load_policy(swept.path)
    with pytest.raises(gf.SettingsError, match=r"own settings, found others: sweep \{'alpha': \(0.3, 30.0\)\} -> "):
        gf.resume(swept.path, dataset=own_dataset, sweep={"alpha": [1.0]})


@pytest.mark.slow
def test_a_swept_run_is_continued_evaluated_and_ranked(walking, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    env = walking["env"]
    command = ["train", "--env", env, "--dataset", walking["dataset"], "--agent", "rebrac", "--preset", "quick"]
    command += ["--sweep", "alpha=1,10", "alpha_critic=0,0.1", "--run-dir", tmp_path / "run", "--hidden", "12"]
    command += ["--batch-size", "16", "--steps", "40", "--log-every", "20", "--save-every", "40"]
    command += ["--eval-every", "40", "--eval-episodes", "2"]
    done = guidedflow(*command)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    variants = {f"alpha={alpha} alpha_critic={critic}" for alpha in (1, 10) for critic in (0, 0.1)}
    assert {row["variant"] for row in summary["results"]} == variants
    assert len(summary["over_seeds"]) == 4
    scores = [row["score"] for row in summary["over_seeds"]]
    assert scores == sorted(scores, reverse=True)
    assert "variant" in done.stdout
    assert guidedflow("train", "--resume", tmp_path / "run", "--env", env).returncode == 0
    again = [{**row, "source": "training"} for row in gf.evaluate(tmp_path / "run", env=env)]
    assert plain_rows(again) == json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    one = gf.evaluate(tmp_path / "run", env=env, variant={"alpha": 10, "alpha_critic": 0.1}, env_seed=5)
    assert [row["variant"] for row in one] == [(("alpha", 10.0), ("alpha_critic", 0.1))]
    assert RunFolder(tmp_path / "run").evaluations()[-1] == one[0]
    assert (one[0]["env_seed"], one[0]["source"]) == (5, "evaluate")


def test_the_ranking_is_by_the_main_policys_mean_over_seeds():
    def row(variant, policy, success):
        return {
            "variant": variant,
            "policy": policy,
            "success": success,
            "episodes": 1,
            "mean_return": 0,
            "score": success,
        }

    rows = [row("a", "actor", 0.2), row("a", "vabc", 1.0), row("b", "actor", 0.4), row("b", "vabc", 0.0)]
    rows += [row("a", "actor", 0.1), row("a", "vabc", 1.0), row("b", "actor", 0.0), row("b", "vabc", 0.0)]
    assert [(r["variant"], r["policy"]) for r in over_seeds(rows)] == [
        ("b", "actor"),
        ("b", "vabc"),
        ("a", "actor"),
        ("a", "vabc"),
    ]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"flow_steps": (1, 2)}, "sweep: expected one of discount, tau, learning_rate, alpha, eta, .*found flow_steps"),
        ({"alhpa": (1, 2)}, "sweep: expected one of discount"),
        ({"alpha": (1, 1)}, "sweep: expected values of alpha, each once, found 1, 1"),
        ({"alpha": (1, 1 + 1e-9)}, "sweep: expected values of alpha, each once, found 1, 1.000000001"),
        ({"alpha": ()}, "sweep: expected values of alpha, each once, found none"),
        ({"discount": (0.9, 2)}, r"discount: expected a value in \(0, 1\), found 2"),
    ],
)
def test_impossible_sweeps(sweep, message):
    with pytest.raises(GuidedflowError, match=message):
        members(gf.AGENTS["gfp"].config_class(), (0,), sweep)


def test_a_sweep_that_is_no_list_of_numbers(own_file, tmp_path):
    for values in (3, "much"):
        with pytest.raises(GuidedflowError, match="sweep: expected a sequence of numbers for alpha, found"):
            gf.train(own_file, sweep={"alpha": values}, run_dir=tmp_path / "run")
    done = guidedflow("train", own_file, "--sweep", "alpha=much", "--run-dir", tmp_path / "run")
    assert done.returncode == 2
    assert "--sweep: expected NAME=NUMBER,NUMBER,..., found 'alpha=much'" in done.stderr
    assert not (tmp_path / "run").exists()
