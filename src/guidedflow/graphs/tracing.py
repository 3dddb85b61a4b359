"""A policy's program with its noise as an argument, and the program that draws this noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from guidedflow.agents import Agent
from guidedflow.errors import SettingsError

DRAW = "_normal"
"""What ``jax.random.normal`` is called in a traced program."""


class Traced(NamedTuple):
    """A policy at batches of one size, compiled by JAX."""

    act: Callable[..., tuple[Float[Array, "B act"], Float[Array, "N B"] | None]]
    """act(observations, noise) -> actions in [-1, 1], and the values by which one of N was chosen, if it chooses."""
    draw: Callable[[PyTree[Shaped[np.ndarray, "B ..."]], PRNGKeyArray], Array] | None
    """draw(observations, key) -> the noise of this key; None if it draws nothing."""
    noise_shape: tuple[int, ...]


def draws_noise(equation: Any) -> bool:
    """Whether an equation of a traced program is a call of ``jax.random.normal``."""
    return equation.primitive.name in ("jit", "pjit") and equation.params["name"] == DRAW


def is_key(variable: Any) -> bool:
    """Whether a variable of a traced program is a random key."""
    return jax.dtypes.issubdtype(variable.aval.dtype, jax.dtypes.prng_key)


def trace(agent: Agent, policy: str, observations: PyTree[Shaped[np.ndarray, "B ..."]]) -> Traced:
    """A policy as functions of observations of this shape.

    Raises:
        SettingsError: the policy draws noise otherwise than by one call of ``jax.random.normal``.
    """
    closed = jax.make_jaxpr(agent.policies()[policy])(observations, jax.random.key(0))
    drawn = [equation.outvars[0] for equation in closed.eqns if draws_noise(equation)]
    random = [equation for equation in closed.eqns if any(map(is_key, [*equation.invars, *equation.outvars]))]
    if len(drawn) > 1 or any(not draws_noise(one) and not all(map(is_key, one.outvars)) for one in random):
        raise SettingsError(
            f"policy {policy}: expected noise drawn by one call of jax.random.normal, found another program; draw all "
            "of it at once, outside of functions that are compiled on their own"
        )
    ranked = [
        equation.invars[0]
        for equation in closed.eqns
        if equation.primitive.name == "argmax" and len(equation.invars[0].aval.shape) == 2
    ]
    (*seen, _), outputs = closed.jaxpr.invars, [*closed.jaxpr.outvars, *ranked[:1]]
    apart = set(map(id, random))
    rest = [equation for equation in closed.eqns if id(equation) not in apart]
    program = _program(closed, [*seen, *drawn], outputs, rest)
    draw = _program(closed, closed.jaxpr.invars, drawn, random) if drawn else None

    def act(observations: Any, noise: Array | None) -> Any:
        actions, *values = program(*jax.tree.leaves(observations), *([noise] if drawn else []))
        return actions, values[0] if values else None

    return Traced(
        act,
        (lambda observations, key: draw(*jax.tree.leaves(observations), key)[0]) if draw else None,
        drawn[0].aval.shape if drawn else (),
    )


def _program(closed: Any, inputs: list[Any], outputs: list[Any], equations: list[Any]) -> Callable[..., Any]:
    """Some equations of a traced program, as a compiled function."""
    debug_info = closed.jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    jaxpr = closed.jaxpr.replace(invars=inputs, outvars=outputs, eqns=equations, debug_info=debug_info)
    return jax.jit(jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(jaxpr, closed.consts)))
