"""Offline to online: after the data, one environment step and one update in turn (docs/algorithms.md)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree, Shaped

from guidedflow.agents import Agent
from guidedflow.data.augment import random_crops
from guidedflow.data.dataset import Dataset
from guidedflow.envs.vector import Reset, VectorEnv
from guidedflow.seeding import derived_seed
from guidedflow.training.episodes import put
from guidedflow.training.members import on_all_devices, on_own_devices, over_members
from guidedflow.training.settings import Member, TrainSettings
from guidedflow.types import Batch, Spec


class Buffer(NamedTuple):
    """What one member saw online, in order; rows from ``size`` on are empty. Stacks along a leading axis of members."""

    observations: PyTree[Shaped[Array, "N ..."]]
    actions: Float[Array, "N act"]
    rewards: Float[Array, " N"]
    next_observations: PyTree[Shaped[Array, "N ..."]]
    masks: Float[Array, " N"]
    episodes: Int[Array, " N"]
    """The step at which a row's episode began."""
    size: Int[Array, ""]

    @classmethod
    def empty(cls, spec: Spec, capacity: int, members: int) -> Self:
        """A stack of empty buffers."""

        def zeros(*shape: int, dtype: Any = jnp.float32) -> Array:
            return jnp.zeros((members, capacity, *shape), dtype)

        return cls(
            observations=spec.observation(lambda shape, dtype: zeros(*shape, dtype=dtype)),
            actions=zeros(spec.action_size),
            rewards=zeros(),
            next_observations=spec.observation(lambda shape, dtype: zeros(*shape, dtype=dtype)),
            masks=zeros(),
            episodes=zeros(dtype=jnp.int32),
            size=jnp.zeros(members, jnp.int32),
        )

    def with_row(self, row: "Row") -> Self:
        """One row more."""

        def added(kept: Array, new: Any) -> Array:
            return kept.at[self.size].set(new)

        fields = {name: jax.tree.map(added, getattr(self, name), value) for name, value in row._asdict().items()}
        return self._replace(**fields, size=self.size + 1)

    def rows(self, rows: Int[Array, " B"]) -> Batch:
        """The transitions in the given rows."""
        following = jnp.minimum(rows + 1, self.size - 1)
        return Batch(
            observations=jax.tree.map(lambda entry: entry[rows], self.observations),
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            next_observations=jax.tree.map(lambda entry: entry[rows], self.next_observations),
            masks=self.masks[rows],
            next_actions=self.actions[following],
            next_action_valid=(following > rows) & (self.episodes[following] == self.episodes[rows]),
        )


class Row(NamedTuple):
    """A transition as an environment gave it; the fields are those of ``Buffer``, and stack as it does."""

    observations: Any
    actions: Any
    rewards: Any
    next_observations: Any
    masks: Any
    episodes: Any


def sample(dataset: Dataset, buffer: Buffer, key: PRNGKeyArray, batch_size: int, balanced: bool) -> Batch:
    """B transitions of the data and of a buffer with at least one row.

    Either both are one pool, drawn from uniformly, or (``balanced``) the first half comes from the data.
    """
    data_key, online_key, pool_key = jax.random.split(key, 3)
    data_rows = dataset.transitions[jax.random.randint(data_key, (batch_size,), 0, dataset.size)]
    online_rows = jax.random.randint(online_key, (batch_size,), 0, buffer.size)
    if balanced:
        from_data = jnp.arange(batch_size) < batch_size // 2
    else:
        from_data = jax.random.randint(pool_key, (batch_size,), 0, dataset.size + buffer.size) < dataset.size
    data, online = dataset.rows(data_rows), buffer.rows(online_rows)

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(from_data.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, data, online)


@jax.jit
def explore(
    agents: Agent,
    observations: PyTree[Shaped[Array, "members ..."]],
    keys: Key[Array, " members"],
    step: Int[Array, ""],
) -> Float[Array, "members act"]:
    """One action for each member."""

    def act(agent: Agent, observation: PyTree[Array], key: Key[Array, ""], step: Array) -> Array:
        batch = jax.tree.map(lambda entry: entry[None], observation)
        return agent.exploration()(batch, _keys(key, step)[0])[0]

    return over_members(act, agents, observations, keys, shared=(step,))


@functools.partial(
    jax.jit, static_argnames=("batch_size", "balanced", "crop_probability"), donate_argnames=("agents", "buffers")
)
def store_and_update(
    agents: Agent,
    buffers: Buffer,
    rows: Row,
    dataset: Dataset,
    keys: Key[Array, " members"],
    step: Int[Array, ""],
    *,
    batch_size: int,
    balanced: bool,
    crop_probability: float,
) -> tuple[Agent, Buffer, dict[str, Float[Array, " members"]]]:
    """Put each member's newest row into its buffer and update it once."""

    def one(
        agent: Agent, buffer: Buffer, row: Row, key: Key[Array, ""], dataset: Dataset, step: Int[Array, ""]
    ) -> tuple[Agent, Buffer, dict[str, Array]]:
        _, batch_key, update_key = _keys(key, step)
        buffer = buffer.with_row(row)
        batch = sample(dataset, buffer, batch_key, batch_size, balanced)
        batch = random_crops(batch, jax.random.fold_in(batch_key, 1), crop_probability)
        agent, metrics = agent.update(batch, update_key)
        return agent, buffer, metrics

    return over_members(one, agents, buffers, rows, keys, shared=(dataset, step))


def _keys(key: Key[Array, ""], step: Int[Array, ""]) -> Key[Array, "3"]:
    """Of an action, a batch and an update."""
    return jax.random.split(jax.random.fold_in(key, step), 3)


class OnlineSource:
    """One environment and one buffer a member: an environment step and an update in turn. See ``Source``.

    Episodes begin anew at every multiple of ``save_every``, where checkpoints are written, because an environment
    cannot be saved. So a run that was killed and continued is the one that was not.

    Args:
        env: a slot for each member.
        dataset: the data of the offline steps.
        keys: one a member.
        members: the agents.
        settings: the run's.
        training_reward: turns an environment's reward into the one that is learned from, as the data's were.
    """

    def __init__(
        self,
        env: VectorEnv,
        dataset: Dataset,
        keys: Key[Array, " members"],
        members: Sequence[Member],
        settings: TrainSettings,
        training_reward: Callable[[float], float],
    ):
        self.buffers = on_own_devices(Buffer.empty(dataset.spec, settings.online_steps, len(members)))
        self._env = env
        self._spec = dataset.spec
        self._dataset = on_all_devices(dataset.to_device(), len(members))
        self._keys = keys
        self._members = members
        self._settings = settings
        self._training_reward = training_reward
        self._observations = self._spec.observation(lambda shape, dtype: np.zeros((len(members), *shape), dtype))
        self._episodes = np.full(len(members), -1)  # The step at which each began; -1: none is under way.

    def updates(
        self, agents: Agent, step: int, count: int
    ) -> tuple[Agent, dict[str, Float[np.ndarray, "members count"]]]:
        """See ``Source``."""
        collected = []
        for now in range(step, step + count):
            if now % self._settings.save_every == 0:
                self._episodes[:] = -1
            self._begin_episodes(now)
            actions = np.asarray(explore(agents, self._observations, self._keys, jnp.int32(now)))
            agents, self.buffers, metrics = store_and_update(
                agents,
                self.buffers,
                self._act(actions),
                self._dataset,
                self._keys,
                jnp.int32(now),
                batch_size=self._settings.batch_size,
                balanced=self._settings.balanced_sampling,
                crop_probability=self._settings.crop_probability,
            )
            collected.append(metrics)
        return agents, {name: np.stack([m[name] for m in collected], axis=1) for name in collected[0]}

    def _begin_episodes(self, step: int) -> None:
        begun = self._episodes < 0
        if not begun.any():
            return
        seeds = [derived_seed(member.seed, "online", step) for member in self._members]
        outcomes = self._env.exchange([Reset(seed) if new else None for seed, new in zip(seeds, begun, strict=True)])
        # The last update may still be reading them: no copy was made.
        self._observations = jax.tree.map(np.copy, self._observations)
        for i, outcome in enumerate(outcomes):
            if outcome is not None:
                put(self._observations, i, outcome.observation)
        self._episodes[begun] = step

    def _act(self, actions: np.ndarray) -> Row:
        before, episodes = jax.tree.map(np.copy, self._observations), self._episodes.copy()
        outcomes = self._env.exchange(list(self._spec.to_environment(actions)))
        seen = [outcome for outcome in outcomes if outcome is not None]
        self._observations = jax.tree.map(lambda *rows: np.stack(rows), *(outcome.observation for outcome in seen))
        over = np.array([outcome.terminated or outcome.truncated for outcome in seen])
        self._episodes[over] = -1
        return Row(
            observations=before,
            actions=actions,
            rewards=np.array([self._training_reward(outcome.reward) for outcome in seen], np.float32),
            next_observations=self._observations,
            masks=np.array([not outcome.terminated for outcome in seen], np.float32),
            episodes=episodes.astype(np.int32),
        )
