"""ReBRAC (Tarasov et al., NeurIPS 2023, arXiv 2305.09836). Symbols as in docs/algorithms.md.

TD3 with a behaviour penalty on both the actor and the critic, a deterministic actor, and delayed actor and targets.
"""

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

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
from guidedflow.nn.encoder import Observations
from guidedflow.settings import Count, NonNegative, Sizes
from guidedflow.types import Batch, Spec


@hyperparameters
class ReBRACConfig(CriticConfig):
    """Settings of ReBRAC."""

    tuned_with: ClassVar[dict[str, object]] = {"actor_momentum": True, "actor_moves_first": False}

    alpha: NonNegative = 0.1
    """alpha: weight of the actor's behaviour penalty."""
    alpha_critic: NonNegative = 0.01
    """alpha_critic: weight of the behaviour penalty in the critic's target."""
    target_noise: NonNegative = 0.2
    """Standard deviation of the noise that smooths the target action."""
    target_noise_clip: NonNegative = 0.5
    """Where that noise is cut off."""
    actor_period: Count = 2
    """The actor and all targets are updated once in so many steps."""
    actor_moves_first: bool = False
    """Whether that is the first of so many steps (1, 3, ... of two) or the last (2, 4, ...)."""
    actor_momentum: bool = False
    """Whether Adam's momentum moves the actor on the steps between (the published numbers' code: one Adam for all)."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes of both networks."""
    q_agg: Aggregate = "min"
    """How the ensemble's two values become one."""
    normalize_q: bool = True
    """Whether the actor's Q term is divided by mean |Q| (lambda)."""


def smoothed(
    actions: Float[Array, "B act"], noise: Float[Array, "B act"], config: ReBRACConfig
) -> Float[Array, "B act"]:
    """clip(a + clip(noise)), with noise ~ N(0, I) scaled and clipped as the settings say."""
    smoothing = jnp.clip(config.target_noise * noise, -config.target_noise_clip, config.target_noise_clip)
    return jnp.clip(actions + smoothing, -1.0, 1.0)


def critic_target(
    target_actor: MeanActor, target_critic: Critic, batch: Batch, noise: Float[Array, "B act"], config: ReBRACConfig
) -> Float[Array, " B"]:
    """y = r + discount m (Qbar(s', a') - alpha_critic |a' - a+|^2), a' = clip(mu_bar(s') + clip(noise)).

    The penalty is 0 where the trajectory ends at s' and there is no a+.
    """
    a_next = smoothed(target_actor(batch.next_observations), noise, config)
    penalty = jnp.square(a_next - jnp.where(batch.next_action_valid[:, None], batch.next_actions, a_next)).sum(-1)
    q_next = aggregate(target_critic(batch.next_observations, a_next), config.q_agg)
    return frozen(batch.rewards + config.discount * batch.masks * (q_next - config.alpha_critic * penalty))


def actor_loss(
    actor: MeanActor, critic: Critic, batch: Batch, config: ReBRACConfig
) -> tuple[Float[Array, ""], Metrics]:
    """L_A = -lambda mean Q(s, mu(s)) + alpha mean |mu(s) - a|^2, the norm summed over dimensions; critic frozen."""
    actions = actor(batch.observations)
    q = aggregate(frozen(critic)(batch.observations, actions), config.q_agg)
    lam = frozen(1.0 / jnp.abs(q).mean()) if config.normalize_q else 1.0
    cloning = jnp.square(actions - batch.actions).sum(-1).mean()
    loss = -lam * q.mean() + config.alpha * cloning
    return loss, {"actor_loss": loss, "cloning": cloning, "q_actor": q.mean()}


class ReBRAC(Agent):
    """ReBRAC. Policy: ``actor``, deterministic."""

    config_class: ClassVar[type] = ReBRACConfig
    policy_names: ClassVar[tuple[str, ...]] = ("actor",)
    paper: ClassVar[str] = "ReBRAC (Tarasov et al., NeurIPS 2023, arXiv 2305.09836)"
    needs: ClassVar[str] = "rewards, next actions"
    goes_online: ClassVar[bool] = True

    config: ReBRACConfig
    critic: Critic
    actor: MeanActor
    target_critic: Critic
    target_actor: MeanActor
    critic_optimizer: optax.ScaleByAdamState
    actor_optimizer: optax.ScaleByAdamState
    steps: Int[Array, ""]
    actor_metrics: Metrics
    """Those of the actor's last update, shown again on the steps between."""

    @classmethod
    def build(cls, config: ReBRACConfig, spec: Spec, key: PRNGKeyArray) -> Self:
        """Two networks of ``config.hidden``; each target starts equal to its network."""
        shape, d = spec.observation_shape, spec.action_size
        critic_key, actor_key = jax.random.split(key)
        critic = Critic(shape, d, config.hidden, key=critic_key)
        actor = MeanActor(shape, d, config.hidden, squash=True, key=actor_key)
        none_yet = {name: jnp.zeros(()) for name in ("actor_loss", "cloning", "q_actor")}
        optimizers = adam_init(critic), adam_init(actor)
        return cls(config, critic, actor, critic, actor, *optimizers, jnp.int32(0), none_yet)

    def update(self, batch: Batch, key: PRNGKeyArray) -> tuple[Self, Metrics]:
        """``step`` with fresh noise for the target's smoothing."""
        return self.step(batch, jax.random.normal(key, batch.actions.shape))

    def step(self, batch: Batch, noise: Float[Array, "B act"]) -> tuple[Self, Metrics]:
        """One Adam step on the critic; once in ``actor_period`` steps also on the actor, and the targets move.

        The actor's loss is taken at the parameters from before the step, the critic's included, and the targets move
        towards those. On the steps between the actor stays where it is or, with ``actor_momentum``, takes an Adam step
        with zero gradients.
        """
        config, steps = self.config, self.steps + 1
        y = critic_target(self.target_actor, self.target_critic, batch, noise, config)
        gradients, metrics = jax.grad(critic_loss, has_aux=True)(self.critic, batch, y)
        critic, critic_optimizer = adam_step(self.critic, gradients, self.critic_optimizer, config.learning_rate)

        Moved = tuple[MeanActor, optax.ScaleByAdamState, Critic, MeanActor, Metrics]

        def move(_round: Array, state: Moved) -> Moved:
            actor, optimizer, target_critic, target_actor, _ = state
            gradients, metrics = jax.grad(actor_loss, has_aux=True)(actor, self.critic, batch, config)
            target_critic = optax.incremental_update(self.critic, target_critic, config.tau)
            target_actor = optax.incremental_update(actor, target_actor, config.tau)
            actor, optimizer = adam_step(actor, gradients, optimizer, config.learning_rate)
            return actor, optimizer, target_critic, target_actor, metrics

        def drift(
            _round: Array, state: tuple[MeanActor, optax.ScaleByAdamState]
        ) -> tuple[MeanActor, optax.ScaleByAdamState]:
            actor, optimizer = state
            return adam_step(actor, jax.tree.map(jnp.zeros_like, actor), optimizer, config.learning_rate)

        # Loops of one round or none: unlike a condition they leave what does not change where it is, without a copy.
        moves = jnp.where((steps - config.actor_moves_first) % config.actor_period == 0, 1, 0)
        before = self.actor, self.actor_optimizer, self.target_critic, self.target_actor, self.actor_metrics
        moved: Moved = jax.lax.fori_loop(0, moves, move, before)
        actor, actor_optimizer, target_critic, target_actor, actor_metrics = moved
        if config.actor_momentum:
            actor, actor_optimizer = jax.lax.fori_loop(moves, 1, drift, (actor, actor_optimizer))
        optimizers = critic_optimizer, actor_optimizer
        targets = target_critic, target_actor
        return type(self)(config, critic, actor, *targets, *optimizers, steps, actor_metrics), {
            **metrics,
            **actor_metrics,
        }

    def validate(self, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """See ``Agent``. Between the actor's updates ``update`` would repeat the metrics of a batch of before."""
        noise = jax.random.normal(key, batch.actions.shape)
        y = critic_target(self.target_actor, self.target_critic, batch, noise, self.config)
        critic_metrics = critic_loss(self.critic, batch, y)[1]
        return {**critic_metrics, **actor_loss(self.actor, self.critic, batch, self.config)[1]}

    def policies(self) -> dict[str, PolicyFn]:
        """``actor``: mu(s), which a tanh keeps inside [-1, 1]."""
        return {"actor": lambda s, key: self.actor(s)}

    def exploration(self) -> PolicyFn:
        """mu(s) with the noise of the target's smoothing, clipped to [-1, 1]."""

        def act(s: Observations, key: PRNGKeyArray) -> Float[Array, "B act"]:
            actions = self.actor(s)
            return smoothed(actions, jax.random.normal(key, actions.shape), self.config)

        return act
