"""A policy's agent, restored from a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from guidedflow.agents import Agent
from guidedflow.errors import SettingsError
from guidedflow.training.members import select
from guidedflow.training.restore import SavedRun
from guidedflow.types import Spec, Variant, variant_text


class Restored(NamedTuple):
    """One policy of a run."""

    agent: Agent
    policy: str
    run: SavedRun
    variant: Variant
    seed: int
    step: int

    @property
    def title(self) -> str:
        """The policy's run in a few words."""
        return f"{self.run.config.title}, step {self.step}"


def restore(
    run: Path,
    policy: str | None,
    *,
    seed: int | None,
    variant: Variant | Mapping[str, float] | None,
    checkpoint: str | int,
    agent: str | type[Agent] | None,
) -> Restored:
    """A policy of a run, with those networks alone that it needs; arguments as ``load_policy``'s.

    Raises:
        RunError: no such run or checkpoint, or a damaged one.
        SettingsError: no such policy, seed or variant; or a sweep, of which a variant has to be named.
    """
    saved = SavedRun(run, agent)
    if checkpoint == "assessed":
        best = saved.assessed(policy, variant, seed)
        policy, variant, seed, checkpoint = (best[name] for name in ("policy", "variant", "seed", "step"))
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
    return Restored(select(filled, index), name, saved, chosen, seed, step)


def _needed(like: Agent, policy: str, spec: Spec) -> Agent:
    """The stacked shapes of an agent, with a placeholder for each array that the policy does not use."""
    single = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), like)
    leaves, structure = jax.tree.flatten(single)
    observations = spec.observation(lambda shape, dtype: jax.ShapeDtypeStruct((1, *shape), dtype))

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
