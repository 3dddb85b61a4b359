"""The contract that every algorithm keeps, and the plumbing that they share."""

import abc
import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from guidedflow.errors import DataError
from guidedflow.nn.critic import Critic
from guidedflow.nn.encoder import Observations
from guidedflow.settings import InnerFraction, Positive
from guidedflow.types import Batch, DictShape, Spec, is_picture

Metrics = dict[str, Float[Array, ""]]
PolicyFn = Callable[[Observations, PRNGKeyArray], Float[Array, "B act"]]
"""act(observations, key) -> actions in [-1, 1]. One observation is a batch of one."""
Act = Callable[[PyTree[Shaped[np.ndarray, "B ..."]], PRNGKeyArray, int], Float[np.ndarray, "B act"]]
"""act(observations, key, call): a policy on the host, with the noise that ``key`` has for the call of that number."""

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def hyperparameters(cls: type[_T]) -> type[_T]:
    """Make ``cls`` a frozen settings dataclass whose floats are array leaves and whose other fields are static.

    An agent that carries its settings this way can be vmapped over them: a sweep over alpha is a leading axis, as
    seeds are, and a changed alpha compiles nothing anew.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    leaves = [name for name in names if hints[name] is float]
    static = [name for name in names if name not in leaves]
    jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=static)
    return cls


@hyperparameters
class CriticConfig:
    """Settings of every agent that learns a critic by temporal differences."""

    discount: InnerFraction = 0.99
    """gamma: discount of the Bellman backup."""
    tau: InnerFraction = 0.005
    """tau: rate at which targets follow their networks."""
    learning_rate: Positive = 3e-4
    """Adam's step size, for all networks."""


class Agent(eqx.Module):
    """A frozen pytree of networks, targets and optimiser state. Everything in it is an array or static, so it vmaps."""

    config_class: ClassVar[type]
    """The algorithm's settings, decorated with ``hyperparameters``. Its ``tuned_with`` holds what the code behind the
    published numbers did differently from this class's defaults: a tuned row makes sense together with it only."""
    policy_names: ClassVar[tuple[str, ...]]
    """What ``policies`` returns, the main policy first."""
    paper: ClassVar[str]
    needs: ClassVar[str] = "rewards"
    """What the data must hold besides observations and actions."""
    goes_online: ClassVar[bool] = False
    """Whether the papers train it on from interaction, after the data."""

    published_choices: ClassVar[tuple[str, ...]] = ()
    """Settings that choose between several published versions of the algorithm."""

    config: eqx.AbstractVar[Any]

    @classmethod
    def published_name(cls, settings: Mapping[str, Any]) -> str:
        """The name under which the authors published the version that these settings choose."""
        return cls.__name__.lower()

    @classmethod
    def check_spec(cls, spec: Spec) -> None:
        """Raise DataError unless networks can be made for these shapes."""
        shape = spec.observation_shape
        if isinstance(shape, DictShape) or len(shape) == 1 or is_picture(shape, spec.observation_dtype):
            return
        raise DataError(
            "observations: expected a vector a step, shape (N, d), or a picture, uint8 of shape (N, height, width, "
            f"channels), found {spec.observation_dtype} of shape (N, {', '.join(map(str, shape))})"
        )

    @classmethod
    @abc.abstractmethod
    def build(cls, config: Any, spec: Spec, key: PRNGKeyArray) -> Self:
        """A fresh agent for observations and actions of the given shapes; the settings are checked, floats arrays."""

    @abc.abstractmethod
    def update(self, batch: Batch, key: PRNGKeyArray) -> tuple[Self, Metrics]:
        """One gradient step on one batch. Pure: the same agent, batch and key give the same result."""

    def validate(self, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """The metrics of a batch that is not learned from, under the names that ``update`` gives them."""
        return self.update(batch, key)[1]

    @abc.abstractmethod
    def policies(self) -> dict[str, PolicyFn]:
        """The ways of acting that this agent offers."""

    def exploration(self) -> PolicyFn:
        """How it acts while it gathers data online: as its main policy, unless that draws nothing at random."""
        return self.policies()[self.policy_names[0]]

    def for_online(self) -> Self:
        """The agent as it goes online: with the settings that are others there, if any."""
        return self


class CriticAgent(Agent):
    """An agent that takes one Adam step on the sum of its losses, and lets a target follow its critic."""

    config: Any
    networks: Any
    """A named tuple with a field ``critic``."""
    target_critic: Critic
    optimizer: optax.ScaleByAdamState

    @abc.abstractmethod
    def draw_noise(self, batch: Batch, key: PRNGKeyArray) -> Any:
        """Every random number of one update; None if it needs none."""

    @abc.abstractmethod
    def loss(self, networks: Any, batch: Batch, noise: Any) -> tuple[Float[Array, ""], Metrics]:
        """The sum of the losses, each of which reaches its own network only."""

    def update(self, batch: Batch, key: PRNGKeyArray) -> tuple[Self, Metrics]:
        """``step`` with fresh noise."""
        return self.step(batch, self.draw_noise(batch, key))

    def step(self, batch: Batch, noise: Any) -> tuple[Self, Metrics]:
        """One Adam step on all networks; the target critic moves by tau towards the critic from before that step."""
        gradients, metrics = jax.grad(self.loss, has_aux=True)(self.networks, batch, noise)
        networks, optimizer = adam_step(self.networks, gradients, self.optimizer, self.config.learning_rate)
        target_critic = optax.incremental_update(self.networks.critic, self.target_critic, self.config.tau)
        return type(self)(self.config, networks, target_critic, optimizer), metrics


def acting(agent: Agent, policy: str) -> Act:
    """A policy of one agent, compiled and quick to call."""
    # Flattened once: JAX takes longer to flatten an agent's modules at every call than a small network to act.
    leaves, structure = jax.tree.flatten(agent)
    program = _program(structure, policy)
    return lambda observations, key, call: np.asarray(program(leaves, observations, key, np.uint32(call)))


@functools.lru_cache(maxsize=64)
def _program(structure: Any, policy: str) -> Callable[..., Array]:
    def act(leaves: list[Array], observations: Observations, key: PRNGKeyArray, call: Array) -> Array:
        agent: Agent = jax.tree.unflatten(structure, leaves)
        return agent.policies()[policy](observations, jax.random.fold_in(key, call))

    return jax.jit(act)


def frozen(tree: _T) -> _T:
    """The tree with no gradient flowing through it: sg(.) of docs/algorithms.md."""
    return jax.lax.stop_gradient(tree)


def adam_init(networks: PyTree) -> optax.ScaleByAdamState:
    """Adam's state for every network at once."""
    return optax.scale_by_adam().init(networks)


def adam_step(
    networks: _T, gradients: _T, state: optax.ScaleByAdamState, learning_rate: Float[Array, ""] | float
) -> tuple[_T, optax.ScaleByAdamState]:
    """One Adam step; the learning rate is an argument, so that it can be an array leaf of the settings."""
    directions, state = optax.scale_by_adam().update(gradients, state)
    return jax.tree.map(lambda p, d: p - learning_rate * d, networks, directions), state
