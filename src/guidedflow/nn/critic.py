"""Critics: an ensemble of Q(s, a)."""

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.nn.mlp import MLP

Aggregate = Literal["mean", "min"]
ENSEMBLE_SIZE = 2


class Critic(eqx.Module):
    """Q_i(s, a), i = 1, 2: independent MLPs with LayerNorm on the concatenation of s and a."""

    members: tuple[MLP, ...]

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int], *, key: PRNGKeyArray):
        self.members = tuple(
            MLP(observation_size + action_size, hidden, 1, key=k, layer_norm=True)
            for k in jax.random.split(key, ENSEMBLE_SIZE)
        )

    def __call__(
        self, observations: Float[Array, "*batch obs"], actions: Float[Array, "*batch act"]
    ) -> Float[Array, "members *batch"]:
        """The value that each member gives each pair."""
        pairs = jnp.concatenate([observations, actions], axis=-1)
        return jnp.stack([member(pairs)[..., 0] for member in self.members])


def aggregate(values: Float[Array, "members *batch"], how: Aggregate) -> Float[Array, "*batch"]:
    """One value from the ensemble's: the members' mean or their minimum (``q_agg``)."""
    return values.mean(0) if how == "mean" else values.min(0)
