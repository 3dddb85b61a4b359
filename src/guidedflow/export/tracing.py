"""A policy as JAX traces it: where its noise is drawn, and what its best-of-N ranks."""

from typing import Any, NamedTuple

import jax
import jax.extend.core
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped

from guidedflow.agents import Agent
from guidedflow.errors import SettingsError

DRAW = "_normal"
"""What ``jax.random.normal`` is called in a traced program."""


class Sampled(NamedTuple):
    """What a policy did at a batch of observations."""

    actions: np.ndarray
    """(B, d), in [-1, 1]."""
    noise: np.ndarray | None
    """What it drew; None if it draws nothing."""
    ranked: np.ndarray | None
    """(N, B): the values by which it chose one of N actions; None if it does not choose."""


def draws_noise(equation: Any) -> bool:
    """Whether an equation of a traced program is a call of ``jax.random.normal``."""
    return equation.primitive.name in ("jit", "pjit") and equation.params["name"] == DRAW


def sampler(agent: Agent, policy: str, observations: Shaped[np.ndarray, " B *obs"]) -> Any:
    """``sample(observations, key) -> Sampled``: the policy, with the noise that it draws from the key.

    Args:
        agent: whose policy.
        policy: its name.
        observations: of the shape that it will be called with.

    Raises:
        SettingsError: the policy draws noise more than once.
    """
    closed = jax.make_jaxpr(agent.policies()[policy])(observations, jax.random.key(0))
    drawn = [equation.outvars[0] for equation in closed.eqns if draws_noise(equation)]
    ranked = [equation.invars[0] for equation in closed.eqns if equation.primitive.name == "argmax"]
    if len(drawn) > 1:
        raise SettingsError(f"policy {policy}: expected one call of jax.random.normal, found {len(drawn)}")
    outputs = [*closed.jaxpr.outvars, *drawn, *ranked[:1]]
    debug_info = closed.jaxpr.debug_info._replace(result_paths=tuple(map(str, range(len(outputs)))))
    traced = closed.jaxpr.replace(outvars=outputs, debug_info=debug_info)
    program = jax.jit(jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(traced, closed.consts)))

    def sample(observations: Shaped[Array, " B *obs"], key: PRNGKeyArray) -> Sampled:
        actions, *more = map(np.asarray, program(observations, key))
        return Sampled(actions, more.pop(0) if drawn else None, more[0] if ranked else None)

    return sample
