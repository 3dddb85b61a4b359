"""Agents that train at once: one pytree with a leading axis of members, each a variant of the settings with a seed."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from guidedflow.agents import AGENTS, Agent
from guidedflow.seeding import derived_seed
from guidedflow.settings import check
from guidedflow.training.compilation import keep_compiled_programs
from guidedflow.training.settings import Member
from guidedflow.types import Spec

_T = TypeVar("_T")


def init_agents(agent: str, members: Sequence[Member], spec: Spec) -> Agent:
    """One agent a member, stacked along a leading axis of every array.

    Raises:
        UserError: a setting is outside its range, or nothing can be learned from observations of these shapes.
    """
    keep_compiled_programs()
    AGENTS[agent].check_spec(spec)
    for member in members:
        check(member.config)
    configs = jax.tree.map(lambda *values: jnp.array(values, jnp.float32), *(member.config for member in members))
    keys = member_keys(members, "init")
    agents = jax.jit(jax.vmap(lambda config, key: AGENTS[agent].build(config, spec, key)))(configs, keys)
    # A target may start as the very array that it follows; the loop donates each array, so each must be its own.
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))(agents)


def member_keys(members: Sequence[Member], purpose: str) -> Key[Array, " members"]:
    """One key a member, a function of its seed: variants with the same seed see the same batches and noise."""
    return jnp.stack([jax.random.key(derived_seed(member.seed, purpose)) for member in members])


def select(stacked: _T, index: int) -> _T:
    """One member out of the stack."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def over_members(function: Callable[..., _T], *stacked: Any) -> _T:
    """``function`` of each member's arguments, in a compiled program.

    On CPU one after the other: a core has nothing to gain from wider products, and conditions stay conditions.
    On an accelerator side by side.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: function(*one), stacked)
    return jax.vmap(function)(*stacked)
