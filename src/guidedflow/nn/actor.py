"""Actors: networks that answer an observation with an action in one pass."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.nn.encoder import Encoder, Observations, make_encoder
from guidedflow.nn.mlp import MLP
from guidedflow.types import DictShape


class NoiseActor(eqx.Module):
    """The one-step actor mu_theta(s, z) of FQL and GFP: noise z in, action out, unclipped."""

    encoder: Encoder
    net: MLP

    def __init__(
        self,
        observation_shape: tuple[int, ...] | DictShape,
        action_size: int,
        hidden: Sequence[int],
        *,
        key: PRNGKeyArray,
    ):
        self.encoder = make_encoder(observation_shape, key=key)
        self.net = MLP(self.encoder.size + action_size, hidden, action_size, key=key)

    def __call__(self, observations: Observations, noise: Float[Array, "B act"]) -> Float[Array, "B act"]:
        """The action for each row of noise, before clipping to [-1, 1]."""
        return self.net(jnp.concatenate([self.encoder(observations), noise], axis=-1))


class MeanActor(eqx.Module):
    """An action for each observation, without noise: the mean of IQL's Gaussian, or through a tanh ReBRAC's actor.

    The last layer starts a hundred times smaller than the others, so that the first actions are near zero.
    """

    encoder: Encoder
    net: MLP
    squash: bool = eqx.field(static=True)

    def __init__(
        self,
        observation_shape: tuple[int, ...] | DictShape,
        action_size: int,
        hidden: Sequence[int],
        *,
        squash: bool,
        key: PRNGKeyArray,
    ):
        self.encoder = make_encoder(observation_shape, key=key)
        self.net = MLP(self.encoder.size, hidden, action_size, key=key, final_scale=0.01)
        self.squash = squash

    def __call__(self, observations: Observations) -> Float[Array, "B act"]:
        """The action for each row; inside (-1, 1) if squashed, else anywhere."""
        actions = self.net(self.encoder(observations))
        return jnp.tanh(actions) if self.squash else actions
