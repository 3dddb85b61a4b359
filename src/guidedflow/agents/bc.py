"""Flow behaviour cloning: the flow policy of FQL alone. It is the floor that every result is read against."""

from typing import ClassVar, Self

import jax
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.agents.agent import Agent, Metrics, PolicyFn, adam_init, adam_step, hyperparameters
from guidedflow.nn.flow import VelocityField, integrate, matching_error
from guidedflow.settings import Count, Positive, Sizes
from guidedflow.types import Batch, Spec


@hyperparameters
class BCConfig:
    """Settings of flow behaviour cloning."""

    tuned_with: ClassVar[dict[str, object]] = {}

    learning_rate: Positive = 3e-4
    """Adam's step size."""
    flow_steps: Count = 10
    """M: Euler steps of the flow policy."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes."""


def flow_loss(
    flow: VelocityField, batch: Batch, eps: Float[Array, "B act"], t: Float[Array, "B 1"]
) -> tuple[Float[Array, ""], Metrics]:
    """L = mean over batch and dimensions of (v_omega(t, s, x_t) - (a - eps))^2."""
    loss = matching_error(flow, batch.observations, batch.actions, eps, t).mean()
    return loss, {"flow_loss": loss}


class BC(Agent):
    """Flow behaviour cloning. Policy: ``flow`` (M passes)."""

    config_class: ClassVar[type] = BCConfig
    policy_names: ClassVar[tuple[str, ...]] = ("flow",)
    paper: ClassVar[str] = "Flow matching (Lipman et al., ICLR 2023, arXiv 2210.02747) on the data's actions"
    needs: ClassVar[str] = "nothing more"

    config: BCConfig
    flow: VelocityField
    optimizer: optax.ScaleByAdamState

    @classmethod
    def build(cls, config: BCConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """One velocity field that sees the raw time."""
        flow = VelocityField(spec.observation_shape, spec.action_size, config.hidden, time="raw", key=key)
        return cls(config, flow, adam_init(flow))

    def update(self, batch: Batch, key: PRNGKeyArray) -> tuple[Self, Metrics]:
        """One Adam step on the flow-matching loss."""
        eps_key, t_key = jax.random.split(key)
        eps = jax.random.normal(eps_key, batch.actions.shape)
        t = jax.random.uniform(t_key, (*batch.rewards.shape, 1))
        gradients, metrics = jax.grad(flow_loss, has_aux=True)(self.flow, batch, eps, t)
        flow, optimizer = adam_step(self.flow, gradients, self.optimizer, self.config.learning_rate)
        return type(self)(self.config, flow, optimizer), metrics

    def policies(self) -> dict[str, PolicyFn]:
        """``flow``: mu_omega(s, z), fresh noise z at every call."""
        flow, steps = self.flow, self.config.flow_steps
        return {"flow": lambda s, key: integrate(flow.at(s), flow.noise(s, key), steps)}
