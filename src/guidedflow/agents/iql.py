"""Implicit Q-Learning (Kostrikov et al., ICLR 2022, arXiv 2110.06169). Symbols as in docs/algorithms.md.

The value function is an upper expectile of Q over the data's actions, so no action outside the data is ever valued.
"""

import math
from typing import ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.agents.agent import CriticAgent, CriticConfig, Metrics, PolicyFn, adam_init, frozen, hyperparameters
from guidedflow.nn.actor import MeanActor
from guidedflow.nn.critic import Critic, ValueFunction, implicit_q_losses
from guidedflow.nn.encoder import Observations
from guidedflow.settings import InnerFraction, NonNegative, Sizes
from guidedflow.types import Batch, Spec

MAX_WEIGHT = 100.0


@hyperparameters
class IQLConfig(CriticConfig):
    """Settings of IQL."""

    tuned_with: ClassVar[dict[str, object]] = {}

    alpha: NonNegative = 10.0
    """alpha: inverse temperature of the advantage weights (awr), or weight of the cloning term (ddpgbc)."""
    expectile: InnerFraction = 0.9
    """tau_e: expectile of the value regression."""
    actor_objective: Literal["awr", "ddpgbc"] = "awr"
    """Advantage-weighted regression, or climbing Q with a cloning term (DDPG+BC)."""
    hidden: Sizes = (256, 256, 256, 256)
    """Hidden layer sizes of every network."""
    normalize_q: bool = True
    """ddpgbc only: whether the Q term is divided by mean |Q| (lambda)."""


class Networks(NamedTuple):
    """What is learned by gradient; one Adam step moves all of it."""

    critic: Critic
    value: ValueFunction
    actor: MeanActor


def log_likelihood(actor: MeanActor, batch: Batch) -> Float[Array, " B"]:
    """log pi(a|s) of a Gaussian with unit standard deviation."""
    error = batch.actions - actor(batch.observations)
    return -0.5 * (jnp.square(error) + math.log(2 * math.pi)).sum(-1)


def awr_loss(networks: Networks, batch: Batch, config: IQLConfig) -> tuple[Float[Array, ""], Metrics]:
    """-mean min(exp(alpha (min_i Q_i(s, a) - V(s))), 100) log pi(a|s); critic and value frozen."""
    critic, value, actor = networks
    advantage = critic(batch.observations, batch.actions).min(0) - value(batch.observations)
    weight = frozen(jnp.minimum(jnp.exp(config.alpha * advantage), MAX_WEIGHT))
    loss = -(weight * log_likelihood(actor, batch)).mean()
    return loss, {"actor_loss": loss, "advantage": advantage.mean(), "weight": weight.mean()}


def ddpgbc_loss(networks: Networks, batch: Batch, config: IQLConfig) -> tuple[Float[Array, ""], Metrics]:
    """-(1 or lambda) mean min_i Q_i(s, clip mu(s)) - alpha mean log pi(a|s); critic frozen."""
    critic, _, actor = networks
    actions = jnp.clip(actor(batch.observations), -1.0, 1.0)
    q = frozen(critic)(batch.observations, actions).min(0)
    lam = frozen(1.0 / jnp.abs(q).mean()) if config.normalize_q else 1.0
    cloning = -log_likelihood(actor, batch).mean()
    loss = -lam * q.mean() + config.alpha * cloning
    return loss, {"actor_loss": loss, "cloning": cloning, "q_actor": q.mean()}


def total_loss(
    networks: Networks, target_critic: Critic, batch: Batch, config: IQLConfig
) -> tuple[Float[Array, ""], Metrics]:
    """L_V + L_Q + the actor's loss at the same parameters; each reaches its own network only."""
    l_implicit, implicit_metrics = implicit_q_losses(
        networks.critic, networks.value, target_critic, batch, config.discount, config.expectile
    )
    actor_loss = awr_loss if config.actor_objective == "awr" else ddpgbc_loss
    l_actor, actor_metrics = actor_loss(networks, batch, config)
    return l_implicit + l_actor, {**implicit_metrics, **actor_metrics}


class IQL(CriticAgent):
    """Implicit Q-Learning. Policy: ``actor``, the Gaussian's mode."""

    config_class: ClassVar[type] = IQLConfig
    policy_names: ClassVar[tuple[str, ...]] = ("actor",)
    paper: ClassVar[str] = "Implicit Q-Learning (Kostrikov et al., ICLR 2022, arXiv 2110.06169)"
    goes_online: ClassVar[bool] = True

    config: IQLConfig
    networks: Networks

    @classmethod
    def build(cls, config: IQLConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """Three networks of ``config.hidden``; the target critic starts equal to the critic."""
        shape, d = spec.observation_shape, spec.action_size
        keys = jax.random.split(key, 3)
        networks = Networks(
            critic=Critic(shape, d, config.hidden, key=keys[0]),
            value=ValueFunction(shape, config.hidden, key=keys[1]),
            actor=MeanActor(shape, d, config.hidden, squash=False, key=keys[2]),
        )
        return cls(config, networks, networks.critic, adam_init(networks))

    def draw_noise(self, batch: Batch, key: PRNGKeyArray) -> None:
        """Nothing here is random."""

    def loss(self, networks: Networks, batch: Batch, noise: None) -> tuple[Float[Array, ""], Metrics]:
        """``total_loss`` at this agent's target and settings."""
        return total_loss(networks, self.target_critic, batch, self.config)

    def policies(self) -> dict[str, PolicyFn]:
        """``actor``: the mean, clipped to [-1, 1]."""
        return {"actor": lambda s, key: jnp.clip(self.networks.actor(s), -1.0, 1.0)}

    def exploration(self) -> PolicyFn:
        """A draw from the Gaussian, clipped to [-1, 1]."""
        actor = self.networks.actor

        def act(s: Observations, key: PRNGKeyArray) -> Float[Array, "B act"]:
            mean = actor(s)
            return jnp.clip(mean + jax.random.normal(key, mean.shape), -1.0, 1.0)

        return act
