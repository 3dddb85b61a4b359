"""Critics, an ensemble of Q(s, a), and the value function V(s)."""

from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.nn.encoder import Encoder, Observations, broadcast_rows, make_encoder
from guidedflow.nn.mlp import MLP
from guidedflow.types import Batch, DictShape

Aggregate = Literal["mean", "min"]
ENSEMBLE_SIZE = 2


class Critic(eqx.Module):
    """Q_i(s, a), i = 1, 2: MLPs with LayerNorm on the concatenation of s and a; of pictures they share the encoder."""

    encoder: Encoder
    members: tuple[MLP, ...]

    def __init__(
        self,
        observation_shape: tuple[int, ...] | DictShape,
        action_size: int,
        hidden: Sequence[int],
        *,
        key: PRNGKeyArray,
    ):
        self.encoder = make_encoder(observation_shape, key=key)
        self.members = tuple(
            MLP(self.encoder.size + action_size, hidden, 1, key=k, layer_norm=True)
            for k in jax.random.split(key, ENSEMBLE_SIZE)
        )

    def __call__(self, observations: Observations, actions: Float[Array, "*N B act"]) -> Float[Array, " members *N B"]:
        """The value that each member gives each pair; there may be several actions for each observation."""
        features = broadcast_rows(self.encoder(observations), actions)
        pairs = jnp.concatenate([features, actions], axis=-1)
        return jnp.stack([member(pairs).squeeze(-1) for member in self.members])


class ValueFunction(eqx.Module):
    """V(s): an MLP with LayerNorm."""

    encoder: Encoder
    net: MLP

    def __init__(self, observation_shape: tuple[int, ...] | DictShape, hidden: Sequence[int], *, key: PRNGKeyArray):
        self.encoder = make_encoder(observation_shape, key=key)
        self.net = MLP(self.encoder.size, hidden, 1, key=key, layer_norm=True)

    def __call__(self, observations: Observations) -> Float[Array, " B"]:
        """The value of each row."""
        return self.net(self.encoder(observations))[..., 0]


def expectile_error(u: Float[Array, "*batch"], expectile: Float[Array, ""] | float) -> Float[Array, "*batch"]:
    """|tau_e - 1(u < 0)| u^2: the loss whose minimiser is the tau_e-expectile (Kostrikov et al., 2022, eq. 5)."""
    return jnp.where(u >= 0, expectile, 1.0 - expectile) * jnp.square(u)


def critic_loss(
    critic: Critic, batch: Batch, y: Float[Array, " B"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """L_C = mean over members and batch of (Q_i(s, a) - y)^2."""
    q = critic(batch.observations, batch.actions)
    loss = jnp.square(q - y).mean()
    return loss, {"critic_loss": loss, "q_data": q.mean()}


def implicit_q_losses(
    critic: Critic,
    value: ValueFunction,
    target_critic: Critic,
    batch: Batch,
    discount: Float[Array, ""] | float,
    expectile: Float[Array, ""] | float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """L_V + L_Q of implicit Q-learning (Kostrikov et al., 2022, eq. 5 and 6), which IQL and IFQL share.

    L_V = mean of the expectile error of min_i Qbar_i(s, a) - V(s); L_Q = mean over the batch of the sum over members of
    (Q_i(s, a) - r - discount m V(s'))^2. Each reaches its own network only.
    """
    q_target = jax.lax.stop_gradient(target_critic(batch.observations, batch.actions).min(0))
    l_value = expectile_error(q_target - value(batch.observations), expectile).mean()
    y = jax.lax.stop_gradient(batch.rewards + discount * batch.masks * value(batch.next_observations))
    q = critic(batch.observations, batch.actions)
    l_critic = jnp.square(q - y).sum(0).mean()
    return l_value + l_critic, {"value_loss": l_value, "critic_loss": l_critic, "q_data": q.mean()}


def aggregate(values: Float[Array, " members *batch"], how: Aggregate) -> Float[Array, "*batch"]:
    """One value from the ensemble's: the members' mean or their minimum (``q_agg``)."""
    return values.mean(0) if how == "mean" else values.min(0)
