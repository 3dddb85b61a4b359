"""Acting through graphs with JAX's noise, so that an evaluation can be the same as the policy's own."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from guidedflow.agents import Agent
from guidedflow.agents.agent import Act
from guidedflow.graphs.folder import ExportedPolicy
from guidedflow.graphs.graph import policy_graph
from guidedflow.graphs.session import GraphSession
from guidedflow.graphs.tracing import trace
from guidedflow.types import Spec, batch_size


def acting_graph(agent: Agent, policy: str, spec: Spec) -> Act:
    """A policy through its graph: ``Act``, but to the environment's actions."""
    built = policy_graph(agent, policy, spec)
    session = GraphSession(built.model.SerializeToString(), spec, built.noise, f"policy {policy}")
    draws: dict[int, Any] = {}

    def act(observations: Any, key: PRNGKeyArray, call: int) -> np.ndarray:
        size = batch_size(observations)
        if size not in draws:
            draws[size] = trace(agent, policy, observations).draw
        draw = draws[size]
        noise = None if draw is None else np.asarray(draw(observations, jax.random.fold_in(key, call)))
        return session(observations, noise)

    return act


def acting_exported(exported: ExportedPolicy) -> Act:
    """An exported policy as ``acting_graph``; its noise is that of this package's algorithms for the same key."""
    session = exported.graph()

    @partial(jax.jit, static_argnums=1)
    def draw(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        if len(shape) <= 2:
            return jax.random.normal(key, shape)
        return jax.vmap(lambda one: jax.random.normal(one, shape[1:]))(jax.random.split(key, shape[0]))

    def act(observations: Any, key: PRNGKeyArray, call: int) -> np.ndarray:
        shape = session.noise_shape(batch_size(observations))
        noise = np.asarray(draw(jax.random.fold_in(key, call), shape)) if shape else None
        return session(observations, noise)

    return act
