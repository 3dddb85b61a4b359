"""A trained policy as a function: an observation in, an action out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from guidedflow.agents import Agent
from guidedflow.agents.agent import acting
from guidedflow.errors import SettingsError
from guidedflow.seeding import derived_seed
from guidedflow.training.members import select
from guidedflow.training.restore import SavedRun
from guidedflow.types import Spec, Variant, flattened, variant_text


class Policy:
    """A trained policy, ready to act: ``policy(observation) -> action``."""

    def __init__(self, agent: Agent, name: str, spec: Spec, seed: int = 0, title: str = ""):
        self.spec = spec
        """Shapes of observations and actions, and what the numbers stand for."""
        self.name = name
        self._title = title
        self._act = acting(agent, name)
        self._key = jax.random.key(derived_seed(seed, "act"))
        self._calls = 0

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
            observation = flattened(observation, self.spec.observation_keys, "observation")
        try:
            given = np.asarray(observation)
            observations = given.astype(self.spec.observation_dtype)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"observation: expected numbers of one shape, found: {error}") from error
        if self.spec.observation_dtype == np.uint8 and given.dtype != np.uint8:
            raise SettingsError(f"observation: expected a picture of uint8, found {given.dtype}")
        if not np.isfinite(observations).all():
            raise SettingsError("observation: expected finite numbers, found NaN or infinity")
        shape = self.spec.observation_shape
        batched = observations.ndim == len(shape) + 1
        if observations.shape[int(batched) :] != shape:
            raise SettingsError(f"observation: expected shape {shape}, or a batch of it, found {observations.shape}")
        actions = self._act(observations if batched else observations[None], self._key, self._calls)
        self._calls += 1
        actions = self.spec.to_environment(actions)
        return actions if batched else actions[0]

    def __repr__(self) -> str:
        seen, size = f"{self.spec.observation_shape} {self.spec.observation_dtype}", self.spec.action_size
        return f"Policy({self.name}{f' of {self._title}' if self._title else ''}: {seen} -> ({size},))"


def load_policy(
    run: Path | str,
    policy: str | None = None,
    *,
    seed: int | None = None,
    variant: Variant | Mapping[str, float] | None = None,
    checkpoint: str | int = "latest",
    agent: str | type[Agent] | None = None,
) -> Policy:
    """A policy of a run. Only the networks that it needs are read.

    Args:
        run: the run's folder.
        policy: ``actor`` or ``vabc`` for GFP, for instance; None: the algorithm's main policy.
        seed: which of the run's seeds; None: the first.
        variant: which variant of a sweep, ``{"alpha": 0.3}``; None: the only one.
        checkpoint: ``latest``, ``best`` or a step.
        agent: the class of an algorithm of your own, if the run's is not registered.

    Raises:
        RunError: no such run or checkpoint, or a damaged one.
        SettingsError: no such policy, seed or variant; or a sweep, of which a variant has to be named.
    """
    saved = SavedRun(Path(run), agent)
    there = list(dict.fromkeys(member.variant for member in saved.members))
    if variant is None and len(there) > 1:
        listed = ", ".join(map(variant_text, there))
        raise SettingsError(f"variant: expected one of the sweep of {run} ({listed}), found none; name one: variant=")
    chosen = there[0] if variant is None else saved.find_variant(variant)
    saved.filter(policy, chosen, seed)
    seed = saved.settings.seeds[0] if seed is None else seed
    name = saved.agent.policy_names[0] if policy is None else policy
    index = [(member.variant, member.seed) for member in saved.members].index((chosen, seed))
    with saved.checkpoints() as checkpoints:
        step = checkpoints.find(checkpoint)
        stacked = checkpoints.restore(step, "agents", _needed(saved.like(), name, saved.spec))
    filled = jax.tree.map(_filled, stacked, saved.like(), is_leaf=lambda leaf: leaf is ocp.PLACEHOLDER)
    return Policy(select(filled, index), name, saved.spec, seed, f"{saved.config.title}, step {step}")


def _needed(like: Agent, policy: str, spec: Spec) -> Agent:
    """The stacked shapes of an agent, with a placeholder for each array that the policy does not use."""
    single = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    leaves, structure = jax.tree.flatten(single)
    observations = jax.ShapeDtypeStruct((1, *spec.observation_shape), spec.observation_dtype)

    def act(leaves: list[Any], observations: Any, key: Any) -> Any:
        return jax.tree.unflatten(structure, leaves).policies()[policy](observations, key)

    program = jax.make_jaxpr(act)(leaves, observations, jax.random.key(0)).jaxpr
    used = {id(variable) for equation in program.eqns for variable in equation.invars}
    used |= {id(variable) for variable in program.outvars}
    kept = [id(variable) in used for variable in program.invars[: len(leaves)]]
    stacked, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, [s if k else ocp.PLACEHOLDER for s, k in zip(stacked, kept, strict=True)])


def _filled(leaf: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.zeros(like.shape, like.dtype) if leaf is ocp.PLACEHOLDER else leaf
