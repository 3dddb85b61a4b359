"""Flow Q-Learning (Park et al., ICML 2025, arXiv 2502.02538). Symbols as in docs/algorithms.md.

A flow policy clones the data; a one-step actor is distilled from it and climbs the critic at the same time.
"""

from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.agents.agent import CriticAgent, CriticConfig, Metrics, PolicyFn, adam_init, frozen, hyperparameters
from guidedflow.nn.actor import NoiseActor
from guidedflow.nn.critic import Aggregate, Critic, aggregate, critic_loss
from guidedflow.nn.flow import Noise, VelocityField, integrate, matching_error
from guidedflow.settings import Count, NonNegative, Sizes
from guidedflow.types import Batch, Spec


@hyperparameters
class FQLConfig(CriticConfig):
    """Settings of FQL."""

    tuned_with: ClassVar[dict[str, object]] = {"normalize_q": False}

    alpha: NonNegative = 3.0
    """alpha: weight of the distillation term; the published values (3 to 30000) are for an unnormalised Q."""
    flow_steps: Count = 10
    """M: Euler steps of the flow policy."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes of every network."""
    q_agg: Aggregate = "mean"
    """How the ensemble's two values become one in the target; the actor climbs their mean."""
    normalize_q: bool = True
    """Whether the actor's Q term is divided by mean |Q| (lambda)."""


class Networks(NamedTuple):
    """What is learned by gradient; one Adam step moves all of it."""

    critic: Critic
    actor: NoiseActor
    flow: VelocityField


def critic_target(
    actor: NoiseActor, target_critic: Critic, batch: Batch, z: Float[Array, "B act"], config: FQLConfig
) -> Float[Array, " B"]:
    """y = r + discount m Qbar(s', clip mu_theta(s', z))."""
    a_next = jnp.clip(actor(batch.next_observations, z), -1.0, 1.0)
    q_next = aggregate(target_critic(batch.next_observations, a_next), config.q_agg)
    return frozen(batch.rewards + config.discount * batch.masks * q_next)


def actor_loss(
    actor: NoiseActor, critic: Critic, flow: VelocityField, batch: Batch, z: Float[Array, "B act"], config: FQLConfig
) -> tuple[Float[Array, ""], Metrics]:
    """L_A = -(1 or lambda) mean_i Q_i(s, clip a_theta) + alpha |a_theta - mu_omega(s, z)|^2; critic and flow frozen."""
    a_theta = actor(batch.observations, z)
    a_omega = frozen(integrate(flow.at(batch.observations), z, config.flow_steps))
    distill = jnp.square(a_theta - a_omega).mean()
    q = frozen(critic)(batch.observations, jnp.clip(a_theta, -1.0, 1.0)).mean(0)
    lam = frozen(1.0 / jnp.abs(q).mean()) if config.normalize_q else 1.0
    loss = -lam * q.mean() + config.alpha * distill
    return loss, {"actor_loss": loss, "distill": distill, "q_actor": q.mean()}


def total_loss(
    networks: Networks, target_critic: Critic, batch: Batch, noise: Noise, config: FQLConfig
) -> tuple[Float[Array, ""], Metrics]:
    """L_C + L_A + the flow-matching loss at the same parameters; each reaches its own network only."""
    critic, actor, flow = networks
    y = critic_target(actor, target_critic, batch, noise.z_next, config)
    l_critic, critic_metrics = critic_loss(critic, batch, y)
    l_actor, actor_metrics = actor_loss(actor, critic, flow, batch, noise.z, config)
    l_flow = matching_error(flow, batch.observations, batch.actions, noise.eps, noise.t).mean()
    return l_critic + l_actor + l_flow, {**critic_metrics, **actor_metrics, "flow_loss": l_flow}


class FQL(CriticAgent):
    """Flow Q-Learning. Policies: ``actor`` (one network pass) and ``flow`` (M passes, plain cloning)."""

    config_class: ClassVar[type] = FQLConfig
    policy_names: ClassVar[tuple[str, ...]] = ("actor", "flow")
    paper: ClassVar[str] = "Flow Q-Learning (Park et al., ICML 2025, arXiv 2502.02538)"
    goes_online: ClassVar[bool] = True

    config: FQLConfig
    networks: Networks

    @classmethod
    def build(cls, config: FQLConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """Three networks of ``config.hidden``; the flow sees the raw time."""
        shape, d = spec.observation_shape, spec.action_size
        keys = jax.random.split(key, 3)
        networks = Networks(
            Critic(shape, d, config.hidden, key=keys[0]),
            NoiseActor(shape, d, config.hidden, key=keys[1]),
            VelocityField(shape, d, config.hidden, time="raw", key=keys[2]),
        )
        return cls(config, networks, networks.critic, adam_init(networks))

    def draw_noise(self, batch: Batch, key: PRNGKeyArray) -> Noise:
        """Noise for the actions at s and s' and for flow matching."""
        return Noise.draw(key, batch.actions)

    def loss(self, networks: Networks, batch: Batch, noise: Noise) -> tuple[Float[Array, ""], Metrics]:
        """``total_loss`` at this agent's target and settings."""
        return total_loss(networks, self.target_critic, batch, noise, self.config)

    def policies(self) -> dict[str, PolicyFn]:
        """``actor``: clip(mu_theta(s, z)); ``flow``: mu_omega(s, z); fresh noise z at every call."""
        actor, flow, steps = self.networks.actor, self.networks.flow, self.config.flow_steps
        return {
            "actor": lambda s, key: jnp.clip(actor(s, flow.noise(s, key)), -1.0, 1.0),
            "flow": lambda s, key: integrate(flow.at(s), flow.noise(s, key), steps),
        }
