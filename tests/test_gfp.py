"""GFP against NumPy float64 code that was written from docs/algorithms.md without sight of the package."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bridge import (
    SPEC,
    as_double,
    assert_reached_by,
    critics,
    double_precision,
    fresh,
    oracle_batch,
    perturbed,
    random_batch,
    to_oracle,
)
from oracles import gfp as oracle
from oracles import networks as oracle_nn

from guidedflow.agents import gfp
from guidedflow.agents.gfp import GFP, GFPConfig
from guidedflow.nn.flow import Noise

REFERENCES = ("actor", "vabc", "mean", "min", "max")
TARGETS = list(itertools.product(("mean", "min"), REFERENCES, ("next", "current")))
GUIDANCES = list(itertools.product(("softmax", "advantage"), REFERENCES, (0.0, 0.7)))
OPTIONS = [
    {
        **dict(zip(("q_agg", "target_agg", "vabc_target_at"), TARGETS[i % len(TARGETS)], strict=True)),
        **dict(zip(("guidance", "guidance_agg", "eta"), GUIDANCES[(3 * i) % len(GUIDANCES)], strict=True)),
        "normalize_q": i % 3 != 0,
    }
    for i in range(len(TARGETS))
]


def test_the_options_below_cover_every_target_and_every_guidance():
    assert {(o["q_agg"], o["target_agg"], o["vabc_target_at"]) for o in OPTIONS} == set(TARGETS)
    assert {(o["guidance"], o["guidance_agg"], o["eta"]) for o in OPTIONS} == set(GUIDANCES)
    assert {o["normalize_q"] for o in OPTIONS} == {True, False}


def setup(options, seed=0):
    config = GFPConfig(hidden=(16, 12), flow_steps=4, alpha=1.7, discount=0.93, **options)
    agent = fresh(GFP, config, seed=seed)
    networks, target = perturbed(agent.networks, 1), perturbed(agent.target_critic, 2)
    rng = np.random.default_rng(3)
    batch = random_batch(4)
    z_next, z, eps = rng.normal(size=(3, 32, SPEC.action_size))
    noise = Noise(z_next, z, eps, rng.uniform(size=(32, 1)))
    return config, networks, target, batch, noise


def oracle_values(config, networks, target, batch, noise):
    return oracle.step_values(
        critics(networks.critic),
        critics(target),
        to_oracle(networks.actor.net),
        to_oracle(networks.flow.net),
        oracle_batch(batch),
        z_critic=noise.z_next,
        z_actor=noise.z,
        eps=noise.eps,
        t=noise.t,
        discount=config.discount,
        steps=config.flow_steps,
        alpha=config.alpha,
        eta=config.eta,
        q_agg=config.q_agg,
        target_agg=config.target_agg,
        vabc_target_at=config.vabc_target_at,
        guidance_agg=config.guidance_agg,
        guidance_form=config.guidance,
        normalize_q=config.normalize_q,
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_losses_and_gradients_match_the_oracle(options):
    config, networks, target, batch, noise = setup(options)
    expected = oracle_values(config, networks, target, batch, noise)
    with double_precision():
        networks, target, batch_, noise_ = as_double((networks, target, batch, noise))
        gradients, metrics = jax.grad(gfp.total_loss, has_aux=True)(networks, target, batch_, noise_, config)
        y = gfp.critic_target(networks, target, batch_, noise_.z_next, config)
        gradients, metrics, y = jax.device_get((gradients, metrics, y))
    np.testing.assert_allclose(y, expected.target_y, rtol=1e-9)
    found = [metrics[name] for name in ("critic_loss", "actor_loss", "distill", "lambda", "vabc_loss", "guidance")]
    wanted = [
        expected.critic_loss,
        expected.actor_loss,
        expected.distill,
        expected.lam,
        expected.vabc_loss,
        np.mean(expected.g),
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)

    # The gradient that reaches each network is that of its own loss, everything stop-gradiented held fixed.
    data, members = oracle_batch(batch), critics(networks.critic)
    assert_reached_by(
        lambda net: oracle.critic_loss([net, members[1]], expected.target_y, data),
        networks.critic.members[0],
        gradients.critic.members[0],
    )
    coefficients = {"alpha": config.alpha, "q_agg": config.q_agg, "normalize_q": config.normalize_q}
    assert_reached_by(
        lambda net: oracle.actor_loss(net, members, expected.flow_target, expected.lam, noise.z, data, **coefficients),
        networks.actor.net,
        gradients.actor.net,
    )
    assert_reached_by(
        lambda net: oracle.vabc_loss(net, expected.g, data, noise.eps, noise.t), networks.flow.net, gradients.flow.net
    )


@pytest.mark.slow
def test_single_precision_agrees_to_1e_5():
    config, networks, target, batch, noise = setup({"target_agg": "mean", "eta": 0.5})
    expected = oracle_values(config, networks, target, batch, noise)
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (batch, noise))
    _, metrics = gfp.total_loss(networks, target, *single, config)
    for name, value in {"critic_loss": expected.critic_loss, "vabc_loss": expected.vabc_loss}.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)


@pytest.mark.slow
def test_update_is_one_adam_step_of_every_network():
    config, *_ = setup({})
    agent = fresh(GFP, config)
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch(0))
    updated, _ = jax.jit(GFP.update)(agent, batch, jax.random.key(1))
    for before, after in zip(jax.tree.leaves(agent.networks), jax.tree.leaves(updated.networks), strict=True):
        # Adam's first step is the learning rate times the gradient's sign, wherever there is a gradient.
        step = np.abs(np.asarray(after - before))
        assert step.max() == pytest.approx(3e-4, rel=0.02)
    assert int(updated.optimizer.count) == 1


def test_update_is_pure_and_repeats_itself():
    agent = fresh(GFP, setup({})[0])
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_batch(0))
    update = jax.jit(GFP.update)
    first, second = (update(agent, batch, jax.random.key(1))[0] for _ in range(2))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first, second)))
    other, _ = update(agent, batch, jax.random.key(2))
    assert not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first, other)))


@pytest.mark.slow
def test_several_adam_steps_match_the_oracle():
    with double_precision():
        agent = as_double(fresh(GFP, setup({"target_agg": "mean"})[0]))
        batch = as_double(random_batch(0))
        network = to_oracle(agent.networks.actor.net)
        m = v = oracle_nn.map_leaves(np.zeros_like, network)
        for count in range(3):
            noise = Noise.draw(jax.random.key(count), batch.actions)
            gradients, _ = jax.grad(gfp.total_loss, has_aux=True)(
                agent.networks, agent.target_critic, batch, noise, agent.config
            )
            gradient = to_oracle(gradients.actor.net)
            network, m, v, _ = oracle_nn.adam_step(network, gradient, m, v, count, 3e-4)
            agent, _ = agent.update(batch, jax.random.key(count))
            for layer, wanted in zip(to_oracle(agent.networks.actor.net).layers, network.layers, strict=True):
                np.testing.assert_allclose(layer.weight, wanted.weight, rtol=1e-5)
                np.testing.assert_allclose(layer.bias, wanted.bias, rtol=1e-5, atol=1e-9)


def test_guidance_is_stable_at_tiny_eta_and_absent_at_zero():
    q_data, q_reference = jnp.array([1.0, -1.0, 0.0]), jnp.zeros(3)
    sharp = gfp.guidance(q_data, q_reference, jnp.float32(1.0), GFPConfig(eta=1e-8))
    np.testing.assert_allclose(sharp, [1.0, 0.0, 0.5])
    off = gfp.guidance(q_data, q_reference, jnp.float32(1.0), GFPConfig(eta=0.0))
    np.testing.assert_allclose(off, 1.0)


def test_policies_stay_in_the_action_box_and_the_flow_is_the_oracles():
    agent = fresh(GFP, GFPConfig(hidden=(16, 12), flow_steps=7))
    agent = dataclasses.replace(agent, networks=perturbed(agent.networks, 0, 0.5))
    s = jnp.asarray(np.random.default_rng(0).normal(size=(20, 6)), jnp.float32)
    key = jax.random.key(3)
    z = np.asarray(jax.random.normal(key, (20, 3)))
    policies = agent.policies()
    assert tuple(policies) == GFP.policy_names
    actor, flow = to_oracle(agent.networks.actor.net), to_oracle(agent.networks.flow.net)
    np.testing.assert_allclose(policies["actor"](s, key), oracle.actor_policy(actor, s, z), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(policies["vabc"](s, key), oracle.vabc_policy(flow, s, z, 7), rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(policies["vabc"](s, key))).max() == 1.0
