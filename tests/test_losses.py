"""The other algorithms against NumPy float64 code written from docs/algorithms.md without sight of the package."""

import dataclasses

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
    oracle_batch,
    perturbed,
    random_batch,
    to_oracle,
)
from oracles import bc as bc_oracle
from oracles import fql as fql_oracle
from oracles import ifql as ifql_oracle
from oracles import iql as iql_oracle
from oracles import networks as oracle_nn
from oracles import rebrac as rebrac_oracle

from guidedflow.agents import AGENTS, bc, brac, fql, ifql, iql, rebrac
from guidedflow.nn.flow import Noise

BATCH = random_batch(4)
DATA = oracle_batch(BATCH)
Z_NEXT, Z, EPS = np.random.default_rng(3).normal(size=(3, 32, SPEC.action_size))
T = np.random.default_rng(4).uniform(size=(32, 1))


def build(name, **settings):
    """An agent in double precision whose parameters and targets are all moved away from their initial values."""
    config = AGENTS[name].config_class(hidden=(16, 12), **settings)
    agent = AGENTS[name].build(jax.tree.map(jnp.float32, config), SPEC, jax.random.key(0))
    return config, as_double(perturbed(agent, 1)), as_double(BATCH)


def gradients_and_metrics(loss, networks, *arguments):
    return jax.device_get(jax.grad(loss, has_aux=True)(networks, *arguments))


@pytest.mark.slow
@pytest.mark.parametrize("q_agg", ["mean", "min"])
@pytest.mark.parametrize("normalize_q", [True, False])
def test_fql(q_agg, normalize_q):
    with double_precision():
        config, agent, batch = build("fql", q_agg=q_agg, normalize_q=normalize_q, alpha=1.3, discount=0.9, flow_steps=4)
        networks, noise = agent.networks, as_double(Noise(Z_NEXT, Z, EPS, T))
        y = fql.critic_target(networks.actor, agent.target_critic, batch, noise.z_next, config)
        gradients, metrics = gradients_and_metrics(fql.total_loss, networks, agent.target_critic, batch, noise, config)
    members, actor, flow = critics(networks.critic), to_oracle(networks.actor.net), to_oracle(networks.flow.net)
    target = fql_oracle.critic_target(actor, critics(agent.target_critic), DATA, Z_NEXT, discount=0.9, q_agg=q_agg)
    np.testing.assert_allclose(y, target, rtol=1e-9)
    a_omega = fql_oracle.actor_distill_target(flow, DATA, Z, 4)
    lam = fql_oracle.lambda_coefficient(actor, members, Z, DATA)

    def actor_loss(net):
        return fql_oracle.actor_loss(net, members, a_omega, lam, Z, DATA, alpha=1.3, normalize_q=normalize_q)

    found = [metrics[name] for name in ("critic_loss", "actor_loss", "flow_loss")]
    wanted = [
        fql_oracle.critic_loss(members, target, DATA),
        actor_loss(actor),
        fql_oracle.flow_loss(flow, DATA, EPS, T),
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert_reached_by(
        lambda net: fql_oracle.critic_loss([members[0], net], target, DATA),
        networks.critic.members[1],
        gradients.critic.members[1],
    )
    assert_reached_by(actor_loss, networks.actor.net, gradients.actor.net)
    assert_reached_by(lambda net: fql_oracle.flow_loss(net, DATA, EPS, T), networks.flow.net, gradients.flow.net)


def test_bc():
    with double_precision():
        _, agent, batch = build("bc")
        gradients, metrics = gradients_and_metrics(bc.flow_loss, agent.flow, batch, *as_double((EPS, T)))
    flow = to_oracle(agent.flow.net)
    np.testing.assert_allclose(metrics["flow_loss"], bc_oracle.flow_loss(flow, DATA, EPS, T), rtol=1e-9)
    assert_reached_by(lambda net: bc_oracle.flow_loss(net, DATA, EPS, T), agent.flow.net, gradients.net)


@pytest.mark.parametrize("q_agg", ["mean", "min"])
@pytest.mark.parametrize("normalize_q", [True, False])
def test_rebrac(q_agg, normalize_q):
    assert not BATCH.next_action_valid.all()
    with double_precision():
        settings = {"q_agg": q_agg, "normalize_q": normalize_q, "alpha": 0.7, "alpha_critic": 0.3, "discount": 0.9}
        config, agent, batch = build("rebrac", **settings)
        y = rebrac.critic_target(agent.target_actor, agent.target_critic, batch, *as_double((Z_NEXT,)), config)
        critic_gradients, critic_metrics = gradients_and_metrics(rebrac.critic_loss, agent.critic, batch, y)
        actor_gradients, actor_metrics = gradients_and_metrics(
            rebrac.actor_loss, agent.actor, agent.critic, batch, config
        )
    members, actor = critics(agent.critic), to_oracle(agent.actor.net)
    a_next = rebrac_oracle.smoothed_target_action(to_oracle(agent.target_actor.net), DATA, Z_NEXT)
    target = rebrac_oracle.critic_target(
        critics(agent.target_critic), a_next, DATA, discount=0.9, alpha_critic=0.3, q_agg=q_agg
    )
    np.testing.assert_allclose(y, target, rtol=1e-9)
    lam = rebrac_oracle.lambda_coefficient(actor, members, DATA, q_agg=q_agg)

    def actor_loss(net):
        return rebrac_oracle.actor_loss(net, members, lam, DATA, alpha=0.7, q_agg=q_agg, normalize_q=normalize_q)

    np.testing.assert_allclose(critic_metrics["critic_loss"], rebrac_oracle.critic_loss(members, target, DATA))
    np.testing.assert_allclose(actor_metrics["actor_loss"], actor_loss(actor), rtol=1e-9)
    assert_reached_by(
        lambda net: rebrac_oracle.critic_loss([net, members[1]], target, DATA),
        agent.critic.members[0],
        critic_gradients.members[0],
    )
    assert_reached_by(actor_loss, agent.actor.net, actor_gradients.net)


NETWORK_FIELDS = ("networks", "targets", "critic", "actor", "target_critic", "target_actor")


def ready_to_learn(name, **settings):
    """An agent in double precision as it starts, but with networks and targets moved away from each other."""
    agent = AGENTS[name].build(
        jax.tree.map(jnp.float32, AGENTS[name].config_class(hidden=(16, 12), **settings)), SPEC, jax.random.key(0)
    )
    fields = [field for field in NETWORK_FIELDS if hasattr(agent, field)]
    return as_double(
        dataclasses.replace(agent, **{field: perturbed(getattr(agent, field), i) for i, field in enumerate(fields)})
    )


def with_targets(agent) -> tuple[list[oracle_nn.Mlp], list[oracle_nn.Mlp]]:
    """The networks that have a target, and their targets in the same order."""
    if isinstance(agent, rebrac.ReBRAC):
        both = [agent.critic, agent.actor], [agent.target_critic, agent.target_actor]
    elif isinstance(agent, brac.BRAC):
        both = [*agent.networks], [*agent.targets]
    else:
        both = [agent.networks.critic], [agent.target_critic]
    networks, targets = (
        [to_oracle(mlp) for network in side for mlp in getattr(network, "members", None) or [network.net]]
        for side in both
    )
    return networks, targets


def distance(left: oracle_nn.Mlp, right: oracle_nn.Mlp) -> float:
    """The largest difference of two networks' parameters."""
    difference = oracle_nn.map_leaves(lambda x, y: np.abs(x - y).max(), left, right)
    return max(float(leaf) for layer in difference.layers for leaf in layer if leaf is not None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfp", "fql", "iql", "ifql", "brac", "rebrac"])
def test_targets_follow_the_parameters_from_before_the_step(name):
    with double_precision():
        agent = ready_to_learn(name, **({"actor_period": 1} if name == "rebrac" else {}))
        networks, targets = with_targets(agent)
        new_networks, new_targets = with_targets(
            jax.jit(type(agent).update)(agent, as_double(BATCH), jax.random.key(1))[0]
        )
    tau = float(np.float32(0.005))
    for network, target, new_network, new_target in zip(networks, targets, new_networks, new_targets, strict=True):
        assert distance(network, target) > 0.1
        assert distance(new_target, oracle_nn.ema(target, network, tau)) < 1e-12
        assert distance(new_target, oracle_nn.ema(target, new_network, tau)) > 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_rebrac_updates_actor_and_targets_once_a_period_and_adam_moves_the_actor_between_if_asked(momentum, first):
    with double_precision():
        settings = {"actor_period": 3, "actor_moves_first": first, "actor_momentum": momentum}
        agent, batch = ready_to_learn("rebrac", **settings), as_double(BATCH)
        actor_loss = lambda actor, agent: rebrac.actor_loss(actor, agent.critic, batch, agent.config)[0]  # noqa: E731
        update, actor_gradient = jax.jit(type(agent).update), jax.jit(jax.grad(actor_loss))
        actor, zeros = to_oracle(agent.actor.net), oracle_nn.map_leaves(np.zeros_like, to_oracle(agent.actor.net))
        m, v, count = zeros, zeros, 0
        for step in range(1, 8):
            moves = step % 3 == (1 if first else 0)
            gradient = to_oracle(actor_gradient(agent.actor, agent).net) if moves else zeros
            if moves or momentum:
                actor, m, v, count = oracle_nn.adam_step(actor, gradient, m, v, count, float(np.float32(3e-4)))
            following, _ = update(agent, batch, jax.random.key(step))
            assert distance(to_oracle(following.actor.net), actor) < 1e-12
            assert int(following.actor_optimizer.count) == count
            assert distance(to_oracle(following.critic.members[0]), to_oracle(agent.critic.members[0])) > 1e-5
            for name in ("target_critic", "target_actor", "actor_metrics"):
                leaves = (jax.tree.leaves(getattr(of, name)) for of in (agent, following))
                assert all(bool((old == new).all()) for old, new in zip(*leaves, strict=True)) != moves, (step, name)
            agent = following


@pytest.mark.parametrize("normalize_q", [True, False])
def test_brac(normalize_q):
    with double_precision():
        config, agent, batch = build("brac", normalize_q=normalize_q, alpha=0.7, discount=0.9)
        y = brac.critic_target(agent.targets, batch, config)
        gradients, metrics = gradients_and_metrics(brac.total_loss, agent.networks, agent.targets, batch, config)
    members, actor = critics(agent.networks.critic), to_oracle(agent.networks.actor.net)
    target = rebrac_oracle.brac_critic_target(
        to_oracle(agent.targets.actor.net), critics(agent.targets.critic), DATA, discount=0.9, q_agg="mean"
    )
    np.testing.assert_allclose(y, target, rtol=1e-9)
    lam = rebrac_oracle.lambda_coefficient(actor, members, DATA, q_agg="mean") if normalize_q else 1.0

    def actor_loss(net):
        return rebrac_oracle.brac_actor_loss(net, members, DATA, alpha=0.7, q_agg="mean", lam=lam)

    found = [metrics["critic_loss"], metrics["actor_loss"]]
    np.testing.assert_allclose(found, [rebrac_oracle.critic_loss(members, target, DATA), actor_loss(actor)], rtol=1e-9)
    assert_reached_by(actor_loss, agent.networks.actor.net, gradients.actor.net)
    assert_reached_by(
        lambda net: rebrac_oracle.critic_loss([net, members[1]], target, DATA),
        agent.networks.critic.members[0],
        gradients.critic.members[0],
    )


@pytest.mark.parametrize(("objective", "normalize_q"), [("awr", True), ("ddpgbc", True), ("ddpgbc", False)])
def test_iql(objective, normalize_q):
    with double_precision():
        settings = {"actor_objective": objective, "normalize_q": normalize_q, "alpha": 1.5, "expectile": 0.8}
        config, agent, batch = build("iql", discount=0.9, **settings)
        networks = agent.networks
        gradients, metrics = gradients_and_metrics(iql.total_loss, networks, agent.target_critic, batch, config)
    members, value, actor = critics(networks.critic), to_oracle(networks.value.net), to_oracle(networks.actor.net)
    q_target = iql_oracle.value_target(critics(agent.target_critic), DATA)
    y = iql_oracle.critic_target(value, DATA, discount=0.9)
    if objective == "awr":
        weight = iql_oracle.awr_weight(members, value, DATA, alpha=1.5)
        actor_loss = lambda net: iql_oracle.awr_actor_loss(net, weight, DATA)  # noqa: E731
    else:
        lam = iql_oracle.ddpg_bc_lambda(actor, members, DATA)
        actor_loss = lambda net: iql_oracle.ddpg_bc_actor_loss(  # noqa: E731
            net, members, lam, DATA, alpha=1.5, normalize_q=normalize_q
        )
    found = [metrics[name] for name in ("value_loss", "critic_loss", "actor_loss")]
    wanted = [
        iql_oracle.value_loss(value, q_target, DATA, tau_e=0.8),
        iql_oracle.critic_loss(members, y, DATA),
        actor_loss(actor),
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    assert_reached_by(
        lambda net: iql_oracle.value_loss(net, q_target, DATA, tau_e=0.8), networks.value.net, gradients.value.net
    )
    assert_reached_by(
        lambda net: iql_oracle.critic_loss([net, members[1]], y, DATA),
        networks.critic.members[0],
        gradients.critic.members[0],
    )
    assert_reached_by(actor_loss, networks.actor.net, gradients.actor.net)


def test_ifql():
    with double_precision():
        config, agent, batch = build("ifql", expectile=0.8, discount=0.9)
        networks = agent.networks
        gradients, metrics = gradients_and_metrics(
            ifql.total_loss, networks, agent.target_critic, batch, *as_double((EPS, T)), config
        )
        noise = np.random.default_rng(9).normal(size=(8, 32, SPEC.action_size))
        chosen = ifql.best_of(networks.flow, networks.critic, batch.observations, as_double(noise), 5)
    members, value, flow = critics(networks.critic), to_oracle(networks.value.net), to_oracle(networks.flow.net)
    q_target = ifql_oracle.value_target(critics(agent.target_critic), DATA)
    y = ifql_oracle.critic_target(value, DATA, discount=0.9)
    found = [metrics[name] for name in ("value_loss", "critic_loss", "flow_loss")]
    wanted = [
        ifql_oracle.value_loss(value, q_target, DATA, tau_e=0.8),
        ifql_oracle.critic_loss(members, y, DATA),
        bc_oracle.flow_loss(flow, DATA, EPS, T),
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    np.testing.assert_allclose(chosen, ifql_oracle.select(flow, members, DATA.observations, noise, 5), rtol=1e-9)
    assert_reached_by(lambda net: bc_oracle.flow_loss(net, DATA, EPS, T), networks.flow.net, gradients.flow.net)
    assert_reached_by(
        lambda net: ifql_oracle.value_loss(net, q_target, DATA, tau_e=0.8), networks.value.net, gradients.value.net
    )


def test_the_gaussian_of_iql_starts_near_zero_and_acts_with_its_mode():
    agent = AGENTS["iql"].build(jax.tree.map(jnp.float32, iql.IQLConfig(hidden=(16, 12))), SPEC, jax.random.key(0))
    actions = agent.policies()["actor"](jnp.asarray(BATCH.observations, jnp.float32), jax.random.key(0))
    bound = oracle_nn.initial_bound(12, SPEC.action_size, 0.01)
    assert np.abs(np.asarray(agent.networks.actor.net.weights[-1])).max() <= bound
    mode = iql_oracle.mode(to_oracle(agent.networks.actor.net), BATCH.observations)
    np.testing.assert_allclose(actions, mode, rtol=1e-4, atol=1e-6)
