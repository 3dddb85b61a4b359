"""IFQL, the flow version of IDQL (Hansen-Estruch et al., 2023, arXiv 2304.10573). Symbols as in docs/algorithms.md.

Values as in IQL; a flow policy clones the data; acting draws several actions from it and takes the best valued.
"""

from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.agents.agent import CriticAgent, CriticConfig, Metrics, PolicyFn, adam_init, hyperparameters
from guidedflow.nn.critic import Critic, ValueFunction, implicit_q_losses
from guidedflow.nn.encoder import Observations
from guidedflow.nn.flow import VelocityField, integrate, matching_error
from guidedflow.settings import Count, InnerFraction, Sizes
from guidedflow.types import Batch, Spec


@hyperparameters
class IFQLConfig(CriticConfig):
    """Settings of IFQL."""

    tuned_with: ClassVar[dict[str, object]] = {}

    expectile: InnerFraction = 0.9
    """tau_e: expectile of the value regression."""
    candidates: Count = 32
    """Actions drawn from the flow at every step, of which the best valued is taken."""
    flow_steps: Count = 10
    """M: Euler steps of the flow policy."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes of every network."""


class Networks(NamedTuple):
    """What is learned by gradient; one Adam step moves all of it."""

    critic: Critic
    value: ValueFunction
    flow: VelocityField


def total_loss(
    networks: Networks,
    target_critic: Critic,
    batch: Batch,
    eps: Float[Array, "B act"],
    t: Float[Array, "B 1"],
    config: IFQLConfig,
) -> tuple[Float[Array, ""], Metrics]:
    """IQL's L_V + L_Q, and flow matching, at the same parameters; each reaches its own network only."""
    l_implicit, metrics = implicit_q_losses(
        networks.critic, networks.value, target_critic, batch, config.discount, config.expectile
    )
    l_flow = matching_error(networks.flow, batch.observations, batch.actions, eps, t).mean()
    return l_implicit + l_flow, {**metrics, "flow_loss": l_flow}


def best_of(
    flow: VelocityField,
    critic: Critic,
    observations: Observations,
    noise: Float[Array, "N B act"],
    flow_steps: int,
) -> Float[Array, "B act"]:
    """Of N actions mu_omega(s, z), the one with the largest min_i Q_i."""
    actions = integrate(flow.at(observations), noise, flow_steps)
    best = critic(observations, actions).min(0).argmax(0)
    # A sum over one term: ONNX has the operations of a choice by index in this form.
    is_best = jnp.arange(len(noise))[:, None, None] == best[:, None]
    return jnp.where(is_best, actions, 0.0).sum(0)


class IFQL(CriticAgent):
    """IFQL. Policy: ``flow``, the best valued of several of its actions."""

    config_class: ClassVar[type] = IFQLConfig
    policy_names: ClassVar[tuple[str, ...]] = ("flow",)
    paper: ClassVar[str] = "IDQL (Hansen-Estruch et al., 2023, arXiv 2304.10573) with a flow, as in Flow Q-Learning"
    goes_online: ClassVar[bool] = True

    config: IFQLConfig
    networks: Networks

    @classmethod
    def build(cls, config: IFQLConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """Three networks of ``config.hidden``; the flow sees the raw time."""
        shape, d = spec.observation_shape, spec.action_size
        critic_key, value_key, flow_key = jax.random.split(key, 3)
        critic = Critic(shape, d, config.hidden, key=critic_key)
        value = ValueFunction(shape, config.hidden, key=value_key)
        networks = Networks(critic, value, VelocityField(shape, d, config.hidden, time="raw", key=flow_key))
        return cls(config, networks, critic, adam_init(networks))

    def draw_noise(self, batch: Batch, key: PRNGKeyArray) -> tuple[Float[Array, "B act"], Float[Array, "B 1"]]:
        """eps and t of flow matching."""
        eps_key, t_key = jax.random.split(key)
        eps = jax.random.normal(eps_key, batch.actions.shape)
        return eps, jax.random.uniform(t_key, (*batch.rewards.shape, 1))

    def loss(
        self, networks: Networks, batch: Batch, noise: tuple[Float[Array, "B act"], Float[Array, "B 1"]]
    ) -> tuple[Float[Array, ""], Metrics]:
        """``total_loss`` at this agent's target and settings."""
        return total_loss(networks, self.target_critic, batch, *noise, self.config)

    def policies(self) -> dict[str, PolicyFn]:
        """``flow``: the best valued of ``candidates`` actions mu_omega(s, z), fresh noise at every call."""
        critic, _, flow = self.networks

        def act(s: Observations, key: PRNGKeyArray) -> Float[Array, "B act"]:
            noise = jax.vmap(lambda k: flow.noise(s, k))(jax.random.split(key, self.config.candidates))
            return best_of(flow, critic, s, noise, self.config.flow_steps)

        return {"flow": act}
