"""From the package's networks to the oracles' plain NumPy ones."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from oracles import networks as oracle

from guidedflow.nn.mlp import MLP
from guidedflow.types import Batch, Spec

SPEC = Spec((6,), np.dtype("float32"), 3)


def to_oracle(network: MLP) -> oracle.Mlp:
    norms = [(n.scale, n.offset) for n in network.norms] if network.norms else [(None, None)] * len(network.weights)
    norms += [(None, None)] * (len(network.weights) - len(norms))
    as_double = lambda x: None if x is None else np.asarray(x, np.float64)  # noqa: E731
    return oracle.Mlp(
        [
            oracle.Layer(*map(as_double, (weight, bias, *norm)))
            for weight, bias, norm in zip(network.weights, network.biases, norms, strict=True)
        ]
    )


def fresh(agent_class, config, spec: Spec = SPEC, seed: int = 0):
    """An agent with its initial parameters."""
    return agent_class.build(jax.tree.map(jnp.float32, config), spec, jax.random.key(seed))


def critics(critic) -> list[oracle.Mlp]:
    return [to_oracle(member) for member in critic.members]


def random_batch(seed: int, size: int = 32, spec: Spec = SPEC) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        observations=rng.normal(size=(size, *spec.observation_shape)),
        actions=rng.uniform(-1, 1, (size, spec.action_size)),
        rewards=rng.normal(size=size),
        next_observations=rng.normal(size=(size, *spec.observation_shape)),
        masks=(rng.random(size) < 0.8).astype(float),
        next_actions=rng.uniform(-1, 1, (size, spec.action_size)),
        next_action_valid=rng.random(size) < 0.8,
    )


def oracle_batch(batch: Batch) -> oracle.Batch:
    return oracle.Batch(*map(np.asarray, batch))


@contextmanager
def double_precision():
    """Compute in float64, so that a disagreement is one of mathematics and not of rounding."""
    with jax.enable_x64(True):
        yield


def as_double(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if np.asarray(x).dtype.kind == "f" else x, tree)


def perturbed(tree, seed: int, scale: float = 0.3):
    """Every float moved a little at random, so that biases, norms and targets are not at their initial values."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    moved = [x + scale * rng.standard_normal(x.shape) for x in leaves]
    return jax.tree.unflatten(structure, [jnp.asarray(x, leaf.dtype) for x, leaf in zip(moved, leaves, strict=True)])


def assert_reached_by(loss, network: MLP, gradient: MLP, seed: int = 0) -> None:
    """The gradient of a network is that of ``loss``, a function of this network's parameters and of nothing else.

    Compared along a random direction with a central difference of the oracle's loss, everything else held fixed.
    """
    parameters = to_oracle(network)
    direction = oracle.random_like(parameters, np.random.default_rng(seed))
    slope = oracle.finite_difference(loss, parameters, direction)
    np.testing.assert_allclose(oracle.dot(to_oracle(gradient), direction), slope, rtol=1e-5)
