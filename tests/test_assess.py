"""Policies ranked without an environment: fitted Q evaluation against known values, and the files and commands."""

import dataclasses
import json
import logging
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bridge import SPEC, as_double, assert_reached_by, critics, double_precision, oracle_batch, perturbed, random_batch
from conftest import TASK, guidedflow, own_arrays
from oracles import fqe as oracle

import guidedflow as gf
from guidedflow.agents import fqe
from guidedflow.agents.agent import Agent, hyperparameters
from guidedflow.nn.critic import critic_loss
from guidedflow.runs.folder import RunFolder, plain_rows
from guidedflow.training.assess import Setup, _in_range, _is_possible, _with_interval, assess_policy, ranked
from guidedflow.types import ActionRange, Spec

SMALL = {"hidden": (12,), "batch_size": 16, "log_every": 10, "steps": 40, "save_every": 20, "progress": False}


@hyperparameters
class ConstantConfig:
    """The action, whatever the observation."""

    action: float = 0.0


class Constant(Agent):
    """A policy of which everything is known."""

    config_class: ClassVar[type] = ConstantConfig
    policy_names: ClassVar[tuple[str, ...]] = ("constant",)

    config: ConstantConfig

    @classmethod
    def build(cls, config, spec, key):
        return cls(config)

    def update(self, batch, key):
        return self, {}

    def policies(self):
        return {"constant": lambda s, key: jnp.broadcast_to(self.config.action, (len(s), 1))}


class Echo(Constant):
    """A policy whose action is the first number that it sees."""

    policy_names: ClassVar[tuple[str, ...]] = ("echo",)

    def policies(self):
        return {"echo": lambda s, key: s[:, :1]}


def constants(*actions):
    """Agents that take these actions, stacked."""
    return Constant(ConstantConfig(jnp.array(actions, jnp.float32)))


def setup(steps=1, discount=0.9, hidden=(12,)):
    return Setup(steps, discount, hidden=hidden)


def test_target_and_loss_are_those_of_the_equations():
    batch, data = random_batch(4), oracle_batch(random_batch(4))
    a_next = np.random.default_rng(3).uniform(-1, 1, (32, SPEC.action_size))
    with double_precision():
        one = fqe.FQEConfig(
            Constant(ConstantConfig(jnp.float32(0.0))), "constant", *map(jnp.float32, (0.9, 0.01, 1e-3)), (16, 12)
        )
        fitted = as_double(perturbed(fqe.FQE.build(one, SPEC, jax.random.key(0)), 1))
        y = fqe.critic_target(fitted.target_critic, as_double(batch), as_double(a_next), 0.9)
        gradient, metrics = jax.device_get(jax.grad(critic_loss, has_aux=True)(fitted.critic, as_double(batch), y))
    expected = oracle.critic_target(critics(fitted.target_critic), data, a_next, discount=0.9)
    np.testing.assert_allclose(y, expected, rtol=1e-9)
    members = critics(fitted.critic)
    np.testing.assert_allclose(metrics["critic_loss"], oracle.critic_loss(members, data, expected), rtol=1e-9)
    for i, member in enumerate(fitted.critic.members):

        def loss(changed, i=i):
            return oracle.critic_loss([*members[:i], changed, *members[i + 1 :]], data, expected)

        assert_reached_by(loss, member, gradient.members[i])


def test_an_update_moves_the_target_and_leaves_the_policy_as_it_is():
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch(0, spec=Spec((4,), np.dtype("f4"), 1)))
    one = fqe.FQEConfig(
        Constant(ConstantConfig(jnp.float32(0.3))), "constant", *map(jnp.float32, (0.9, 0.1, 1e-3)), (8,)
    )
    fitted = fqe.FQE.build(one, Spec((4,), np.dtype("f4"), 1), jax.random.key(0))
    first, _ = fitted.update(batch, jax.random.key(1))
    second, _ = first.update(batch, jax.random.key(2))
    assert second.config.agent.config.action == fitted.config.agent.config.action
    before, moved = (jax.tree.leaves(agent.critic) for agent in (fitted, first))
    for start, towards, target in zip(before, moved, jax.tree.leaves(second.target_critic), strict=True):
        np.testing.assert_allclose(target, 0.9 * start + 0.1 * towards, rtol=1e-5, atol=1e-7)


def test_the_target_takes_the_policys_action_at_the_next_observation():
    spec = Spec((4,), np.dtype("f4"), 1)
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch(0, spec=spec))
    one = fqe.FQEConfig(Echo(ConstantConfig(jnp.float32(0.0))), "echo", *map(jnp.float32, (0.9, 0.1, 1e-3)), (8,))
    fitted = perturbed(fqe.FQE.build(one, spec, jax.random.key(0)), 1)
    y = fqe.critic_target(fitted.target_critic, batch, batch.next_observations[:, :1], fitted.config.discount)
    expected = critic_loss(fitted.critic, batch, y)[1]["critic_loss"]
    found = fitted.update(batch, jax.random.key(1))[1]["critic_loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_interval_is_a_95_percent_bootstraps():
    values = np.random.default_rng(1).normal(size=400)
    half = 1.96 * values.std() / 20
    wanted = (values.mean(), values.mean() - half, values.mean() + half)
    assert _with_interval(values) == pytest.approx(wanted, abs=0.02)
    assert np.isnan(_with_interval(np.array([1.0, np.inf]))).all()
    assert np.isnan(_with_interval(np.array([2.0]))[1:]).all()


def test_values_that_no_policy_could_have_are_of_a_critic_that_diverged():
    data = corridor()  # Each step costs 1: values are between -10 and 0.
    assert _is_possible(np.array([-10.0, -9.0]), data, 0.9)
    assert not _is_possible(np.array([-12.0]), data, 0.9)
    assert not _is_possible(np.array([2.0]), data, 0.9)


def test_data_of_another_range_of_actions_is_seen_in_the_runs():
    data = dataclasses.replace(corridor(), action_range=ActionRange((-2.0,), (2.0,)))
    found = _in_range(data, ActionRange((-4.0,), (4.0,)))
    np.testing.assert_allclose(found.actions, np.asarray(data.actions) / 2, atol=1e-5)
    assert found.spec.action_range == ActionRange((-4.0,), (4.0,))


def corridor(episodes=60, seed=0):
    """Five places in a row, the last one terminal: each step costs 1, and an action above 0 leads one place on."""
    rng = np.random.default_rng(seed)
    rows = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    for _ in range(episodes):
        place = 0
        for step in range(20):
            action = rng.choice([-1.0, 1.0])
            following = place + (action > 0)
            over = following == 4
            for name, value in zip(rows, (np.eye(5)[place], [action], -1.0, over, step == 19), strict=True):
                rows[name].append(value)
            if over:
                break
            place = following
    return gf.Dataset.from_arrays(**{name: np.array(values) for name, values in rows.items()})


@pytest.mark.slow
def test_values_of_a_small_mdp_are_the_known_ones():
    """The data goes on half of the time, so that neither policy's value is that of the data (about -5.2)."""
    on, stay = assess_policy(constants(1.0, -1.0), "constant", 2, corridor(), setup(4000, 0.9, (32, 32)))
    assert on["value"] == pytest.approx(-(1 - 0.9**4) / (1 - 0.9), abs=0.15)
    assert stay["value"] == pytest.approx(-1 / (1 - 0.9), abs=0.5)
    assert on["value_low"] <= on["value"] <= on["value_high"]
    assert (on["starts"], on["at_limits"]) == (60, 1.0)


def test_actions_are_compared_with_the_datas():
    data = corridor()
    far, near = assess_policy(constants(1.0, 0.5), "constant", 2, data, setup())
    taken = np.asarray(data.actions)[data.transitions, 0]
    for row, action, share in ((far, 1.0, 1.0), (near, 0.5, 0.0)):
        error = np.mean((taken - action) ** 2)
        assert row["action_error"] == pytest.approx(error, rel=1e-4)
        assert row["least_action_error"] == pytest.approx(error, rel=1e-4)
        assert row["at_limits"] == share


def test_ranking():
    def row(value, error=0.0):
        return {"value": value, "action_error": error}

    nan = float("nan")
    assert [r["value"] for r in ranked([row(-2.0), row(nan), row(3.0), row(1.0)])][:3] == [3.0, 1.0, -2.0]
    assert [r["action_error"] for r in ranked([row(nan, 0.4), row(nan, 0.1)])] == [0.1, 0.4]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A run of two variants and two seeds without an environment, of which a third was held out."""
    folder = tmp_path_factory.mktemp("swept")
    np.savez(folder / "own.npz", **own_arrays())
    return gf.train(
        folder / "own.npz",
        run_dir=folder / "run",
        sweep={"alpha": (0.1, 10)},
        seeds=(0, 1),
        flow_steps=2,
        validation=0.3,
        **SMALL,
    ).path


@pytest.mark.slow
def test_a_sweep_without_an_environment_ends_with_a_ranking(swept):
    rows = RunFolder(swept).assessment()
    assert len(rows) == 16  # Two variants, two seeds, two checkpoints, and two policies of gfp.
    assert {row["step"] for row in rows} == {20, 40}
    assert [row["value"] for row in rows] == sorted((row["value"] for row in rows), reverse=True)
    assert {(row["fqe_steps"], row["starts"]) for row in rows} == {(40, 2)}
    assert all(row["value_low"] <= row["value"] <= row["value_high"] for row in rows)
    assert all(row["least_action_error"] < row["action_error"] for row in rows)


@pytest.mark.slow
def test_the_best_is_loaded_exported_and_can_be_narrowed_down(swept, tmp_path):
    rows = RunFolder(swept).assessment()
    seen = np.ones(4)

    def action(row):
        named = {name: row[name] for name in ("policy", "variant", "seed")}
        return gf.load_policy(swept, checkpoint=row["step"], **named)(seen)

    np.testing.assert_array_equal(gf.load_policy(swept, checkpoint="assessed")(seen), action(rows[0]))
    second = next(row for row in rows if row["variant"] != rows[0]["variant"] and row["seed"] == 1)
    found = gf.load_policy(swept, checkpoint="assessed", variant=second["variant"], seed=1)
    np.testing.assert_array_equal(found(seen), action(second))
    gf.export(swept, tmp_path / "out", checkpoint="assessed", noise="zero")
    described = json.loads((tmp_path / "out" / "policy.json").read_text())
    assert all(described[name] == rows[0][name] for name in ("step", "seed", "policy"))


@pytest.mark.slow
def test_a_benchmarks_run_is_assessed_on_its_file_and_the_best_is_evaluated(cube_data, tmp_path):
    settings = {**SMALL, "agent": "rebrac", "seeds": (0, 1), "validation": "own", "eval_episodes": 0}
    run = gf.train(TASK, data_dir=cube_data, run_dir=tmp_path / "run", **settings)
    held_out = gf.assess(run.path, progress=False)
    file = cube_data / "cube-single-noisy-v0-val.npz"
    assert gf.assess(run.path, dataset=file, progress=False) == held_out
    assert {row["data"] for row in held_out} == {str(file)}
    (row,) = gf.evaluate(run.path, checkpoint="assessed", episodes=1, workers=1, progress=False)
    assert all(row[name] == held_out[0][name] for name in ("step", "variant", "seed", "policy"))


@pytest.mark.slow
def test_one_policy_alone_is_assessed_as_beside_the_others(swept):
    before = RunFolder(swept).assessment()
    (alone,) = gf.assess(swept, policy="vabc", variant={"alpha": 10}, seed=1, checkpoint=40, progress=False)
    same = [row for row in before if all(row[name] == alone[name] for name in ("step", "variant", "seed", "policy"))]
    assert alone["value"] == pytest.approx(same[0]["value"], rel=1e-3, abs=1e-4)
    assert RunFolder(swept).assessment() == [alone]
    assert len(gf.assess(swept, progress=False)) == 16


@pytest.mark.slow
def test_the_command_prints_json_and_writes_the_same(swept):
    done = guidedflow("assess", swept, "--steps", "10", "--checkpoint", "latest", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == plain_rows(RunFolder(swept).assessment())
    assert "assessed on 2 held-out episodes" in done.stderr
    done = guidedflow("assess", swept, "--steps", "10", "--dataset", swept.parent / "own.npz")
    assert "value" in done.stdout
    assert "mean of 2" in done.stdout
    assert RunFolder(swept).assessment()[0]["starts"] == 6


@pytest.mark.slow
def test_a_run_that_held_nothing_out_says_so_and_rewards_may_be_missing(tmp_path, caplog):
    arrays = own_arrays()
    del arrays["rewards"]
    dataset = gf.Dataset.from_arrays(**arrays)
    run = gf.train(dataset=dataset, run_dir=tmp_path / "run", agent="bc", **SMALL)
    with pytest.raises(gf.RunError, match=r"expected an assessment of such a policy .* `guidedflow assess "):
        gf.load_policy(run.path, checkpoint="assessed")
    with caplog.at_level(logging.WARNING, "guidedflow"):
        rows = gf.assess(run.path, dataset=dataset, progress=False)
    assert "held nothing out" in caplog.text
    assert np.isnan([row["value"] for row in rows]).all()
    errors = [row["action_error"] for row in rows]
    assert errors == sorted(errors)
    assert gf.load_policy(run.path, checkpoint="assessed")(np.ones(4)).shape == (2,)
    with pytest.raises(gf.DataError, match="expected the data of the run"):
        gf.assess(run.path, dataset=gf.Dataset.from_arrays(**own_arrays(seed=1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, found 0"),
        ({"discount": 1.0}, r"discount: expected a value in \(0, 1\), found 1.0"),
        ({"policy": "flow"}, "policy: expected one of actor, vabc of .*, found 'flow'"),
        ({"checkpoint": 7}, r"checkpoint: expected latest, best or a step of .* \(20, 40\), found 7"),
        ({"dataset": "none.npz"}, "none.npz: .*"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(swept, arguments, message):
    before = (swept / "assessment.csv").read_bytes()
    with pytest.raises(gf.GuidedflowError, match=message) as error:
        gf.assess(swept, **arguments)
    assert "\n" not in str(error.value)
    assert (swept / "assessment.csv").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_assessment_is_one_line(swept, tmp_path):
    import shutil

    shutil.copytree(swept, tmp_path / "run")
    (tmp_path / "run" / "assessment.csv").write_text("step,value\n1,2\n")
    with pytest.raises(gf.RunError, match=r"assessment.csv: line 1: expected step,variant,.*, found another"):
        gf.load_policy(tmp_path / "run", checkpoint="assessed")
