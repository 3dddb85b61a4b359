"""Behaviour-regularised actor-critic, as the Guided Flow Policy paper states it (docs/algorithms.md).

ReBRAC without its penalty on the critic, its smoothing, its delay and its normalisation.
"""

from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.agents.agent import (
    Agent,
    CriticConfig,
    Metrics,
    PolicyFn,
    adam_init,
    adam_step,
    frozen,
    hyperparameters,
)
from guidedflow.nn.actor import MeanActor
from guidedflow.nn.critic import Aggregate, Critic, aggregate, critic_loss
from guidedflow.settings import NonNegative, Sizes
from guidedflow.types import Batch, Spec


@hyperparameters
class BRACConfig(CriticConfig):
    """Settings of BRAC."""

    tuned_with: ClassVar[dict[str, object]] = {}

    alpha: NonNegative = 10.0
    """alpha: weight of the behaviour penalty."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes of both networks."""
    q_agg: Aggregate = "mean"
    """How the ensemble's two values become one."""
    normalize_q: bool = False
    """Whether the actor's Q term is divided by mean |Q| (lambda); the equation has no lambda."""


class Networks(NamedTuple):
    """What is learned by gradient; one Adam step moves all of it. The targets are another one of these."""

    critic: Critic
    actor: MeanActor


def critic_target(targets: Networks, batch: Batch, config: BRACConfig) -> Float[Array, " B"]:
    """y = r + discount m Qbar(s', mu_bar(s'))."""
    s_next = batch.next_observations
    q_next = aggregate(targets.critic(s_next, targets.actor(s_next)), config.q_agg)
    return frozen(batch.rewards + config.discount * batch.masks * q_next)


def total_loss(
    networks: Networks, targets: Networks, batch: Batch, config: BRACConfig
) -> tuple[Float[Array, ""], Metrics]:
    """L_C = mean (Q_i(s, a) - y)^2, plus L_A = -(1 or lambda) Q(s, mu(s)) + alpha |mu(s) - a|^2; L_A freezes Q."""
    l_critic, critic_metrics = critic_loss(networks.critic, batch, critic_target(targets, batch, config))
    actions = networks.actor(batch.observations)
    q = aggregate(frozen(networks.critic)(batch.observations, actions), config.q_agg)
    lam = frozen(1.0 / jnp.abs(q).mean()) if config.normalize_q else 1.0
    cloning = jnp.square(actions - batch.actions).sum(-1).mean()
    l_actor = -lam * q.mean() + config.alpha * cloning
    return l_critic + l_actor, {**critic_metrics, "actor_loss": l_actor, "cloning": cloning}


class BRAC(Agent):
    """BRAC. Policy: ``actor``, deterministic."""

    config_class: ClassVar[type] = BRACConfig
    policy_names: ClassVar[tuple[str, ...]] = ("actor",)
    paper: ClassVar[str] = "BRAC (Wu et al., 2019, arXiv 1911.11361), as stated by Guided Flow Policy"

    config: BRACConfig
    networks: Networks
    targets: Networks
    optimizer: optax.ScaleByAdamState

    @classmethod
    def build(cls, config: BRACConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """Two networks of ``config.hidden``; the targets start equal to them."""
        shape, d = spec.observation_shape, spec.action_size
        critic_key, actor_key = jax.random.split(key)
        actor = MeanActor(shape, d, config.hidden, squash=True, key=actor_key)
        networks = Networks(Critic(shape, d, config.hidden, key=critic_key), actor)
        return cls(config, networks, networks, adam_init(networks))

    def update(self, batch: Batch, key: PRNGKeyArray) -> tuple[Self, Metrics]:
        """One Adam step on both networks; both targets move by tau towards the networks from before that step."""
        gradients, metrics = jax.grad(total_loss, has_aux=True)(self.networks, self.targets, batch, self.config)
        networks, optimizer = adam_step(self.networks, gradients, self.optimizer, self.config.learning_rate)
        targets = optax.incremental_update(self.networks, self.targets, self.config.tau)
        return type(self)(self.config, networks, targets, optimizer), metrics

    def policies(self) -> dict[str, PolicyFn]:
        """``actor``: mu(s), which a tanh keeps inside [-1, 1]."""
        return {"actor": lambda s, key: self.networks.actor(s)}
