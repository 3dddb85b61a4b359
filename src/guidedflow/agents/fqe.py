"""Fitted Q evaluation (Le et al., ICML 2019, arXiv 1903.08738). Symbols as in docs/algorithms.md.

A critic of a policy that stays as it is. No algorithm to train a policy with, so it is not among ``AGENTS``.
"""

from typing import ClassVar, Self

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.agents.agent import Agent, Metrics, PolicyFn, adam_init, adam_step, frozen
from guidedflow.nn.critic import Critic, critic_loss
from guidedflow.types import Batch, Spec


class FQEConfig(eqx.Module):
    """Whose value is learned, and how."""

    agent: Agent
    """Whose policy it is."""
    policy: str = eqx.field(static=True)
    """Its name."""
    discount: Float[Array, ""]
    """gamma: discount of the Bellman backup."""
    tau: Float[Array, ""]
    """tau: rate at which the target follows the critic."""
    learning_rate: Float[Array, ""]
    """Adam's step size."""
    hidden: tuple[int, ...] = eqx.field(static=True)
    """Hidden layer sizes."""


def critic_target(
    target_critic: Critic, batch: Batch, a_next: Float[Array, "B act"], discount: Float[Array, ""] | float
) -> Float[Array, " B"]:
    """y = r + discount m mean_i Qbar_i(s', a'), with a' ~ pi(s') of the policy that is evaluated."""
    q_next = target_critic(batch.next_observations, a_next).mean(0)
    return frozen(batch.rewards + discount * batch.masks * q_next)


class FQE(Agent):
    """Fitted Q evaluation. Policy: the one that is evaluated, as it was given."""

    config_class: ClassVar[type] = FQEConfig
    policy_names: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = "Fitted Q evaluation (Le et al., ICML 2019, arXiv 1903.08738)"

    config: FQEConfig
    critic: Critic
    target_critic: Critic
    optimizer: optax.ScaleByAdamState

    @classmethod
    def build(cls, config: FQEConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """A critic of ``config.hidden``; its target starts equal to it."""
        critic = Critic(spec.observation_shape, spec.action_size, config.hidden, key=key)
        return cls(config, critic, critic, adam_init(critic))

    def update(self, batch: Batch, key: PRNGKeyArray) -> tuple[Self, Metrics]:
        """One Adam step on L_C; the target moves by tau towards the critic from before that step."""
        config = self.config
        a_next = self.policies()[config.policy](batch.next_observations, key)
        y = critic_target(self.target_critic, batch, a_next, config.discount)
        gradients, metrics = jax.grad(critic_loss, has_aux=True)(self.critic, batch, y)
        critic, optimizer = adam_step(self.critic, gradients, self.optimizer, config.learning_rate)
        target_critic = optax.incremental_update(self.critic, self.target_critic, config.tau)
        return type(self)(config, critic, target_critic, optimizer), metrics

    def policies(self) -> dict[str, PolicyFn]:
        """Those of the agent that is evaluated."""
        return self.config.agent.policies()
