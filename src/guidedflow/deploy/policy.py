"""A trained policy as a function: an observation in, an action out."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guidedflow.errors import SettingsError
from guidedflow.graphs.folder import ExportedPolicy, is_exported
from guidedflow.graphs.hub import local
from guidedflow.graphs.session import check_installed
from guidedflow.seeding import derived_seed
from guidedflow.types import VECTOR, DictShape, Spec, Variant, batch_size

if TYPE_CHECKING:  # An exported policy acts without JAX.
    from guidedflow.agents import Agent

BatchAct = Callable[[Any], np.ndarray]
"""act(observations) -> actions: of a batch, as the environment takes them, noise fresh at every call."""


class Policy:
    """A trained policy, ready to act: ``policy(observation) -> action``.

    Args:
        agent: whose policy; or a function of a batch of observations to the environment's actions.
        name: of the policy.
        spec: of the data that it learned from.
        seed: of its noise.
        title: where it comes from, in a few words.
    """

    def __init__(self, agent: "Agent | BatchAct", name: str, spec: Spec, seed: int = 0, title: str = ""):
        self.spec = spec
        """Shapes of observations and actions, and what the numbers stand for."""
        self.name = name
        self._title = title
        self._act = _acting(agent, name, spec, seed) if hasattr(agent, "policies") else agent

    def __call__(self, observation: Any) -> np.ndarray:
        """The action for one observation, or the actions for a batch of them; noise is fresh at every call.

        Args:
            observation: of the shape that the policy was trained on, or a batch of such; or, if its data had
                dictionaries, one of those, whose entries have their own shapes, or all have a batch axis in front.

        Returns:
            (d,) or (B, d), in the range that the data's actions had before they were converted, else in [-1, 1].

        Raises:
            SettingsError: the observation has another shape than the policy was trained on, or is not finite.
        """
        if isinstance(observation, Mapping):
            if not self.spec.observation_keys:
                raise SettingsError(f"observation: expected shape {self.spec.observation_shape}, found a dictionary")
            observation = self.spec.from_environment(observation, "observation")
        batch, is_batch = self._batch(observation)
        actions = self._act(batch)
        return actions if is_batch else actions[0]

    def _batch(self, observation: Any) -> tuple[Any, bool]:
        """An observation as a batch of one, or a batch of them as it is, and which of the two it was."""
        shape = self.spec.observation_shape
        if isinstance(shape, DictShape):
            if not isinstance(observation, dict):
                entries = ", ".join(self.spec.inputs)
                raise SettingsError(f"observation: expected a dictionary with {entries}, found an array")
            _check_finite(observation.get(VECTOR, 0.0))
            (name, one), *_ = shape.entries
            is_batch = observation[name].ndim > len(one)
            return observation if is_batch else {name: entry[None] for name, entry in observation.items()}, is_batch
        try:
            given = np.asarray(observation)
            observations = given.astype(self.spec.observation_dtype)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"observation: expected numbers of one shape, found: {error}") from error
        if self.spec.observation_dtype == np.uint8 and given.dtype != np.uint8:
            raise SettingsError(f"observation: expected a picture of uint8, found {given.dtype}")
        _check_finite(observations)
        is_batch = observations.ndim == len(shape) + 1
        if observations.shape[int(is_batch) :] != shape:
            raise SettingsError(f"observation: expected shape {shape}, or a batch of it, found {observations.shape}")
        return (observations if is_batch else observations[None]), is_batch

    def __repr__(self) -> str:
        shape, size = self.spec.observation_shape, self.spec.action_size
        seen = f"{shape}" if isinstance(shape, DictShape) else f"{shape} {self.spec.observation_dtype}"
        return f"Policy({self.name}{f' of {self._title}' if self._title else ''}: {seen} -> ({size},))"


def load_policy(
    run: Path | str,
    policy: str | None = None,
    *,
    seed: int | None = None,
    variant: Variant | Mapping[str, float] | None = None,
    checkpoint: str | int = "latest",
    agent: "str | type[Agent] | None" = None,
) -> Policy:
    """A policy of a run, of which only the networks that it needs are read; or one that was exported.

    Args:
        run: the run's folder, or one that ``export`` made, which may be on the Hugging Face Hub, ``hf://user/name``;
            these need no JAX, but onnxruntime.
        policy: ``actor`` or ``vabc`` for GFP, for instance; None: the algorithm's main policy.
        seed: which of the run's seeds; None: the first.
        variant: which variant of a sweep, ``{"alpha": 0.3}``; None: the only one.
        checkpoint: ``latest``, ``best``, a step, or ``assessed``: the policy that ``assess`` ranked first, its seed
            and its variant, of those that the other arguments leave.
        agent: the class of an algorithm of your own, if the run's is not registered.

    Raises:
        RunError: no such run or checkpoint, or a damaged one.
        DataError: a file of an exported policy is missing or cannot be read.
        SettingsError: no such policy, seed or variant; or a sweep, of which a variant has to be named.
    """
    run = local(run)
    if is_exported(run):
        check_installed("onnxruntime")
        found = ExportedPolicy.read(run)
        found.check(policy=policy, seed=seed, variant=variant, step=None if checkpoint == "latest" else checkpoint)
        return Policy(_acting_exported(found), found.policy, found.spec, title=found.title)

    from guidedflow.deploy.restored import restore

    restored = restore(run, policy, seed=seed, variant=variant, checkpoint=checkpoint, agent=agent)
    return Policy(restored.agent, restored.policy, restored.run.spec, restored.seed, restored.title)


def _check_finite(numbers: Any) -> None:
    if not np.isfinite(numbers).all():
        raise SettingsError("observation: expected finite numbers, found NaN or infinity")


def _acting(agent: Any, policy: str, spec: Spec, seed: int) -> BatchAct:
    import jax

    from guidedflow.agents.agent import acting

    act, calls = acting(agent, policy), itertools.count()
    key = jax.random.key(derived_seed(seed, "act"))
    return lambda observations: spec.to_environment(act(observations, key, next(calls)))


def _acting_exported(exported: ExportedPolicy) -> BatchAct:
    graph, rng = exported.graph(), np.random.default_rng(derived_seed(exported.seed, "act"))
    return lambda observations: graph(
        observations, rng.standard_normal(graph.noise_shape(batch_size(observations)), np.float32)
    )
