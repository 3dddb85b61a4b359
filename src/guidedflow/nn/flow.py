"""Flow policies: the path, the velocity field and the integrator (Lipman et al., 2023; Park et al., 2025)."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.nn.encoder import Encoder, Observations, make_encoder
from guidedflow.nn.mlp import MLP
from guidedflow.nn.products import dense
from guidedflow.types import DictShape

TimeInput = Literal["raw", "sinusoidal"]
EMBEDDING_SIZE = 64

Velocity = Callable[[Float[Array, "*batch 1"], Float[Array, "*batch act"]], Float[Array, "*batch act"]]
"""v(t, x) with the observation held fixed."""


class Noise(NamedTuple):
    """Every random number of an update of FQL or GFP."""

    z_next: Float[Array, "B act"]
    """Of the actions at s', in the critic's target."""
    z: Float[Array, "B act"]
    """Of the actions at s, the same for actor and flow."""
    eps: Float[Array, "B act"]
    """Where the probability path starts."""
    t: Float[Array, "B 1"]
    """Flow time, uniform on [0, 1]."""

    @classmethod
    def draw(cls, key: PRNGKeyArray, actions: Float[Array, "B act"]) -> Self:
        """Fresh noise for a batch of these actions."""
        *normal_keys, t_key = jax.random.split(key, 4)
        z_next, z, eps = (jax.random.normal(k, actions.shape) for k in normal_keys)
        return cls(z_next, z, eps, t=jax.random.uniform(t_key, (actions.shape[0], 1)))


def straight_path(
    noise: Float[Array, "*batch act"], actions: Float[Array, "*batch act"], t: Float[Array, "*batch 1"]
) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
    """The point x_t = (1 - t) eps + t a on the line from noise to action, and the velocity a - eps along it."""
    return (1.0 - t) * noise + t * actions, actions - noise


def embed_time(t: Float[Array, "*batch 1"]) -> Float[Array, "*batch 64"]:
    """Sines, then cosines, of t times exp(-k ln(10^4) / 31), k = 0..31."""
    half = EMBEDDING_SIZE // 2
    angles = t * jnp.exp(-math.log(1e4) / (half - 1) * jnp.arange(half))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class VelocityField(eqx.Module):
    """v_omega(t, s, x): an MLP on the concatenation of s, x and t (raw, or through a sinusoidal embedding)."""

    encoder: Encoder
    net: MLP
    time: TimeInput = eqx.field(static=True)

    def __init__(
        self,
        observation_shape: tuple[int, ...] | DictShape,
        action_size: int,
        hidden: Sequence[int],
        *,
        time: TimeInput,
        key: PRNGKeyArray,
    ):
        time_size = EMBEDDING_SIZE if time == "sinusoidal" else 1
        self.encoder = make_encoder(observation_shape, key=key)
        self.net = MLP(self.encoder.size + action_size + time_size, hidden, action_size, key=key)
        self.time = time

    def noise(self, observations: Observations, key: PRNGKeyArray) -> Float[Array, "B act"]:
        """Noise z for a batch of observations: where a flow to their actions starts."""
        batch = jax.tree.leaves(observations)[0].shape[0]
        return jax.random.normal(key, (batch, self.net.biases[-1].shape[0]))

    def at(self, observations: Observations) -> Velocity:
        """The velocity at fixed observations; they and their share of the first layer are computed once, for all t.

        x may be (*N, B, act): several points for each observation.
        """
        size = self.encoder.size
        weight = self.net.weights[0]
        share = dense(self.encoder(observations), weight[:size]) + self.net.biases[0]

        def velocity(t: Float[Array, "*batch 1"], x: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
            features = embed_time(t) if self.time == "sinusoidal" else t
            features = jnp.broadcast_to(features, (*x.shape[:-1], features.shape[-1]))
            return self.net.after_first(share + dense(jnp.concatenate([x, features], axis=-1), weight[size:]))

        return velocity


def integrate(velocity: Velocity, noise: Float[Array, "*batch act"], steps: int) -> Float[Array, "*batch act"]:
    """mu_omega: ``steps`` Euler steps from noise at t = 0 to an action at t = 1, clipped once, at the end."""

    def step(k: Array, x: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        t = jnp.full((*x.shape[:-1], 1), k / steps, x.dtype)
        return x + velocity(t, x) / steps

    # An accelerator spends a tenth of an update on starting the turns of this loop (docs/benchmarks.md, "On a GPU").
    unroll = 1 if jax.default_backend() == "cpu" else steps
    return jnp.clip(jax.lax.fori_loop(0, steps, step, noise, unroll=unroll), -1.0, 1.0)


def matching_error(
    field: VelocityField,
    observations: Observations,
    actions: Float[Array, "B act"],
    noise: Float[Array, "B act"],
    t: Float[Array, "B 1"],
) -> Float[Array, " B"]:
    """Flow matching: mean over dimensions of (v_omega(t, s, x_t) - (a - eps))^2, for each row."""
    x, velocity = straight_path(noise, actions, t)
    return jnp.square(field.at(observations)(t, x) - velocity).mean(-1)
