"""Actors: networks that answer an observation with an action in one pass."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.nn.mlp import MLP


class NoiseActor(eqx.Module):
    """The one-step actor mu_theta(s, z) of FQL and GFP: noise z in, action out, unclipped."""

    net: MLP

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int], *, key: PRNGKeyArray):
        self.net = MLP(observation_size + action_size, hidden, action_size, key=key)

    def __call__(
        self, observations: Float[Array, "*batch obs"], noise: Float[Array, "*batch act"]
    ) -> Float[Array, "*batch act"]:
        """The action for each row of noise, before clipping to [-1, 1]."""
        return self.net(jnp.concatenate([observations, noise], axis=-1))
