"""Guided Flow Policy (Nguimatsia Tiofack et al., ICLR 2026, arXiv 2512.03973). Symbols as in docs/algorithms.md.

A critic Q, a one-step actor mu_theta, and a flow policy mu_omega trained by value-aware behaviour cloning (VaBC).
The flow keeps the actor near the data's good actions; the actor tells the flow which of the data's actions are good.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.agents.agent import CriticAgent, CriticConfig, Metrics, PolicyFn, adam_init, frozen, hyperparameters
from guidedflow.nn.actor import NoiseActor
from guidedflow.nn.critic import Aggregate, Critic, aggregate, critic_loss
from guidedflow.nn.flow import Noise, VelocityField, integrate, matching_error
from guidedflow.settings import Count, NonNegative, Sizes
from guidedflow.types import Batch, Spec

Reference = Literal["actor", "vabc", "mean", "min", "max"]


@hyperparameters
class GFPConfig(CriticConfig):
    """Settings of GFP."""

    tuned_with: ClassVar[dict[str, object]] = {"vabc_target_at": "current"}

    alpha: NonNegative = 3.0
    """alpha: weight of the distillation term in the actor's loss."""
    eta: NonNegative = 1e-3
    """eta: temperature of the guidance; smaller filters the data's actions harder, 0 means none (plain cloning)."""
    flow_steps: Count = 10
    """M: Euler steps of the flow policy."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes of every network."""
    q_agg: Aggregate = "mean"
    """How the ensemble's two values become one: Q, Qbar."""
    target_agg: Reference = "actor"
    """Whose action values the next state: Qbar(s', a_theta), Qbar(s', a_omega), or a combination of both."""
    vabc_target_at: Literal["next", "current"] = "next"
    """Where a_omega of the target is drawn: at s' (the paper's equation), or at s (the published numbers' code)."""
    guidance: Literal["softmax", "advantage"] = "softmax"
    """g: softmax over the two values, or the exponential of their difference."""
    guidance_agg: Reference = "actor"
    """What the data's action is compared with: Qbar(s, a_theta), Qbar(s, a_omega), or a combination of both."""
    normalize_q: bool = True
    """Whether the actor's Q term is divided by mean |Q| (lambda)."""
    online_eta: NonNegative | None = None
    """eta from the first online step on; none keeps it."""


class Networks(NamedTuple):
    """What is learned by gradient; one Adam step moves all of it."""

    critic: Critic
    actor: NoiseActor
    flow: VelocityField


def combine(actor: Float[Array, " B"], vabc: Float[Array, " B"], how: Reference) -> Float[Array, " B"]:
    """One value from the values of the actor's action and of the flow's."""
    return {
        "actor": lambda: actor,
        "vabc": lambda: vabc,
        "mean": lambda: (actor + vabc) / 2,
        "min": lambda: jnp.minimum(actor, vabc),
        "max": lambda: jnp.maximum(actor, vabc),
    }[how]()


def critic_target(
    networks: Networks, target_critic: Critic, batch: Batch, z: Float[Array, "B act"], config: GFPConfig
) -> Float[Array, " B"]:
    """y = r + discount m [next value]; ``target_agg`` = mean is the paper's conservative target y^VaBC."""
    s_next = batch.next_observations
    s_vabc = s_next if config.vabc_target_at == "next" else batch.observations
    a_theta = jnp.clip(networks.actor(s_next, z), -1.0, 1.0)
    q_theta = q_omega = jnp.zeros_like(batch.rewards)
    if config.target_agg != "vabc":
        q_theta = aggregate(target_critic(s_next, a_theta), config.q_agg)
    if config.target_agg != "actor":
        a_omega = integrate(networks.flow.at(s_vabc), z, config.flow_steps)
        q_omega = aggregate(target_critic(s_next, a_omega), config.q_agg)
    return frozen(batch.rewards + config.discount * batch.masks * combine(q_theta, q_omega, config.target_agg))


def actor_loss(
    a_theta: Float[Array, "B act"],
    a_omega: Float[Array, "B act"],
    critic: Critic,
    batch: Batch,
    config: GFPConfig,
) -> tuple[Float[Array, ""], Float[Array, ""], Metrics]:
    """L_A = -lambda mean Q(s, clip a_theta) + alpha |a_theta - a_omega|^2, and lambda = 1 / mean |Q|."""
    distill = jnp.square(a_theta - a_omega).mean()
    q = aggregate(critic(batch.observations, jnp.clip(a_theta, -1.0, 1.0)), config.q_agg)
    lam = frozen(1.0 / jnp.abs(q).mean())
    loss = -(lam if config.normalize_q else 1.0) * q.mean() + config.alpha * distill
    return loss, lam, {"actor_loss": loss, "distill": distill, "q_actor": q.mean(), "lambda": lam}


def guidance(
    q_data: Float[Array, " B"], q_reference: Float[Array, " B"], lam: Float[Array, ""], config: GFPConfig
) -> Float[Array, " B"]:
    """g = softmax((lambda / eta) [Qbar(s, a), Qbar(s, a_ref)])_1, as a sigmoid of the difference; 1 where eta is 0."""
    on = config.eta > 0
    difference = lam / jnp.where(on, config.eta, 1.0) * (q_data - q_reference)
    g = jax.nn.sigmoid(difference) if config.guidance == "softmax" else jnp.exp(difference)
    return frozen(jnp.where(on, g, 1.0))


def vabc_loss(
    flow: VelocityField, batch: Batch, g: Float[Array, " B"], noise: Noise
) -> tuple[Float[Array, ""], Metrics]:
    """L_VaBC = mean over batch of g (mean over dimensions of (v_omega(t, s, x_t) - (a - eps))^2)."""
    loss = (g * matching_error(flow, batch.observations, batch.actions, noise.eps, noise.t)).mean()
    return loss, {"vabc_loss": loss, "guidance": g.mean(), "guidance_above_half": (g > 0.5).mean()}


def total_loss(
    networks: Networks, target_critic: Critic, batch: Batch, noise: Noise, config: GFPConfig
) -> tuple[Float[Array, ""], Metrics]:
    """L_C + L_A + L_VaBC at the same parameters; each loss reaches its own network only."""
    critic, actor, flow = networks
    y = critic_target(frozen(networks), target_critic, batch, noise.z_next, config)
    l_critic, critic_metrics = critic_loss(critic, batch, y)

    a_theta = actor(batch.observations, noise.z)
    a_omega = integrate(frozen(flow).at(batch.observations), noise.z, config.flow_steps)
    l_actor, lam, actor_metrics = actor_loss(a_theta, a_omega, frozen(critic), batch, config)

    a_actor = frozen(jnp.clip(a_theta, -1.0, 1.0))
    compared = {"actor": [a_actor], "vabc": [a_omega]}.get(config.guidance_agg, [a_actor, a_omega])
    q = aggregate(target_critic(batch.observations, jnp.stack([batch.actions, *compared])), config.q_agg)
    g = guidance(q[0], combine(q[1], q[-1], config.guidance_agg), lam, config)
    l_vabc, vabc_metrics = vabc_loss(flow, batch, g, noise)
    return l_critic + l_actor + l_vabc, {**critic_metrics, **actor_metrics, **vabc_metrics}


class GFP(CriticAgent):
    """Guided Flow Policy. Policies: ``actor`` (one network pass) and ``vabc`` (M passes)."""

    config_class: ClassVar[type] = GFPConfig
    policy_names: ClassVar[tuple[str, ...]] = ("actor", "vabc")
    paper: ClassVar[str] = "Guided Flow Policy (Nguimatsia Tiofack et al., ICLR 2026, arXiv 2512.03973)"
    goes_online: ClassVar[bool] = True
    published_choices: ClassVar[tuple[str, ...]] = ("guidance",)

    config: GFPConfig
    networks: Networks

    @classmethod
    def build(cls, config: GFPConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """Three networks of ``config.hidden``; the target critic starts equal to the critic."""
        shape, action_size = spec.observation_shape, spec.action_size
        critic_key, actor_key, flow_key = jax.random.split(key, 3)
        critic = Critic(shape, action_size, config.hidden, key=critic_key)
        networks = Networks(
            critic=critic,
            actor=NoiseActor(shape, action_size, config.hidden, key=actor_key),
            flow=VelocityField(shape, action_size, config.hidden, time="sinusoidal", key=flow_key),
        )
        return cls(config, networks, critic, adam_init(networks))

    @classmethod
    def published_name(cls, settings: Mapping[str, Any]) -> str:
        """``gfp``; its other guidance was tuned on its own, as ``gfp-advantage``."""
        return "gfp-advantage" if settings.get("guidance") == "advantage" else "gfp"

    def draw_noise(self, batch: Batch, key: PRNGKeyArray) -> Noise:
        """Noise for the actions at s and s' and for flow matching."""
        return Noise.draw(key, batch.actions)

    def loss(self, networks: Networks, batch: Batch, noise: Noise) -> tuple[Float[Array, ""], Metrics]:
        """``total_loss`` at this agent's target and settings."""
        return total_loss(networks, self.target_critic, batch, noise, self.config)

    def policies(self) -> dict[str, PolicyFn]:
        """``actor``: clip(mu_theta(s, z)); ``vabc``: mu_omega(s, z); fresh noise z at every call."""
        actor, flow, steps = self.networks.actor, self.networks.flow, self.config.flow_steps
        return {
            "actor": lambda s, key: jnp.clip(actor(s, flow.noise(s, key)), -1.0, 1.0),
            "vabc": lambda s, key: integrate(flow.at(s), flow.noise(s, key), steps),
        }

    def for_online(self) -> Self:
        """With ``online_eta`` for eta, if there is one."""
        if self.config.online_eta is None:
            return self
        eta = jnp.full_like(self.config.eta, self.config.online_eta)
        return eqx.tree_at(lambda agent: agent.config.eta, self, eta)
