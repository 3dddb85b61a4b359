"""Where batches come from: a data set on the device, one on the disk, or an environment.

A source makes a number of updates in one call. A step's batch and noise are functions of its seed's key and its
number, and every call of a source runs the same compiled program however many steps it makes: so where a run was cut
into calls, stopped or continued leaves no trace in what is learned.
"""

import functools
from typing import NamedTuple, Protocol, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from guidedflow.agents import Agent
from guidedflow.agents.agent import Metrics
from guidedflow.data.augment import random_crops
from guidedflow.data.dataset import Dataset
from guidedflow.training.members import on_all_devices, over_members
from guidedflow.training.settings import TrainSettings
from guidedflow.types import Batch

MOST_STEPS = 2048
"""Of one call: what its buffers of metrics have room for."""


class Source(Protocol):
    """Makes updates, with batches of its own."""

    def updates(
        self, agents: Agent, step: int, count: int
    ) -> tuple[Agent, dict[str, Float[np.ndarray, "members count"]]]:
        """``count`` updates of every agent, at most ``MOST_STEPS``, from step number ``step`` on.

        Returns:
            The agents, and each metric of every agent and step. The memory of the agents that were given is taken over.
        """


class Decay(NamedTuple):
    """Between two steps the learning rate falls linearly, to 0 at the second; if they are one, it stays as it is."""

    first: Int[Array, ""]
    last: Int[Array, ""]

    @classmethod
    def of(cls, settings: TrainSettings) -> Self:
        """The one that a run's settings ask for."""
        return cls(jnp.int32(round((1 - settings.learning_rate_decay) * settings.steps)), jnp.int32(settings.steps))

    def update(self, agent: Agent, batch: Batch, key: Key[Array, ""], step: Int[Array, ""]) -> tuple[Agent, Metrics]:
        """``agent.update`` with the learning rate of a step; of an agent without one in its settings, as it is."""
        if not hasattr(agent.config, "learning_rate"):
            return agent.update(batch, key)
        length = self.last - self.first
        share = jnp.clip((self.last - step) / jnp.maximum(length, 1), 0.0, 1.0)
        rate = agent.config.learning_rate
        updated, metrics = _with_rate(agent, rate * jnp.where(length > 0, share, 1.0)).update(batch, key)
        return _with_rate(updated, rate), metrics


def _with_rate(agent: Agent, rate: Float[Array, ""]) -> Agent:
    return eqx.tree_at(lambda agent: agent.config.learning_rate, agent, rate)


class DeviceSource:
    """Draws batches from a data set that lies on the device, in a compiled loop."""

    def __init__(self, dataset: Dataset, keys: Key[Array, " members"], settings: TrainSettings):
        self._dataset = on_all_devices(dataset.to_device(), len(keys))
        self._keys = keys
        self._settings = settings

    def updates(
        self, agents: Agent, step: int, count: int
    ) -> tuple[Agent, dict[str, Float[np.ndarray, "members count"]]]:
        """See ``Source``."""
        agents, metrics = run_steps(
            agents,
            self._dataset,
            self._keys,
            jnp.int32(step),
            jnp.int32(count),
            Decay.of(self._settings),
            batch_size=self._settings.batch_size,
            crop_probability=self._settings.crop_probability,
        )
        return agents, {name: np.asarray(values)[:, :count] for name, values in metrics.items()}


def step_keys(key: Key[Array, ""], step: Int[Array, ""]) -> Key[Array, "3"]:
    """Of a step's batch, its update and its crops: functions of its seed's key and its number alone."""
    return jax.random.split(jax.random.fold_in(key, step), 3)


@functools.partial(jax.jit, static_argnames=("batch_size", "crop_probability"), donate_argnames="agents")
def run_steps(
    agents: Agent,
    dataset: Dataset,
    keys: Key[Array, " members"],
    start: Int[Array, ""],
    count: Int[Array, ""],
    decay: Decay,
    *,
    batch_size: int,
    crop_probability: float = TrainSettings.crop_probability,
) -> tuple[Agent, dict[str, Float[Array, "members steps"]]]:
    """``count`` updates of every agent from step ``start`` on; the number is no part of the compiled program."""

    def train_one(
        agent: Agent, key: Key[Array, ""], dataset: Dataset, start: Int[Array, ""], count: Int[Array, ""], decay: Decay
    ) -> tuple[Agent, dict[str, Array]]:
        def one_step(agent: Agent, i: Int[Array, ""]) -> tuple[Agent, dict[str, Array]]:
            batch_key, update_key, crop_key = step_keys(key, start + i)
            batch = random_crops(dataset.sample(batch_key, batch_size), crop_key, crop_probability)
            return decay.update(agent, batch, update_key, start + i)

        return counted_scan(one_step, agent, count)

    return over_members(train_one, agents, keys, shared=(dataset, start, count, decay))


def counted_scan(one_step, agent: Agent, count: Int[Array, ""]) -> tuple[Agent, dict[str, Array]]:  # type: ignore[no-untyped-def]
    """As ``jax.lax.scan`` over 0, 1, ... ``count`` - 1, with ``count`` known only when it runs.

    A scan's length is a part of its program, and XLA compiles short loops otherwise than long ones.

    Returns:
        The agent, and each metric in a buffer of ``MOST_STEPS``, of which the first ``count`` are filled.
    """
    _, shapes = jax.eval_shape(one_step, agent, count)
    empty = jax.tree.map(lambda metric: jnp.zeros((MOST_STEPS, *metric.shape), metric.dtype), shapes)

    def body(i: Array, state: tuple[Agent, dict[str, Array]]) -> tuple[Agent, dict[str, Array]]:
        agent, kept = state
        agent, metrics = one_step(agent, i)
        return agent, jax.tree.map(lambda buffer, metric: buffer.at[i].set(metric), kept, metrics)

    return jax.lax.fori_loop(0, count, body, (agent, empty))
