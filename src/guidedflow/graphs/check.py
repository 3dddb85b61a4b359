"""Whether a graph does what its policy does."""

from typing import Any, NamedTuple

import numpy as np
import onnx

from guidedflow.agents import Agent
from guidedflow.errors import RunError
from guidedflow.graphs.graph import PolicyGraph
from guidedflow.graphs.session import GraphSession, NoiseLaw
from guidedflow.graphs.tracing import trace
from guidedflow.nn.products import computed_in
from guidedflow.types import Spec

OBSERVATIONS = 1000
BATCH = 100
TOLERANCE = 1e-5
"""Of actions, in parts of their range; of the values of a best-of-N, in parts of the largest one."""


class Difference(NamedTuple):
    """How far the actions of a graph are from those of its policy in JAX, at the same observations and noise."""

    largest: float
    """In parts of the action's range."""
    ties: int
    """Observations at which a best-of-N took another of two actions whose values are the same but for rounding."""


def check_graph(built: PolicyGraph, agent: Agent, policy: str, spec: Spec, noise: NoiseLaw) -> Difference:
    """Compare a policy's graph with the policy, at ``OBSERVATIONS`` random ones.

    Vectors are standard normal, after normalisation if there is one, pictures uniform.

    Raises:
        RunError: an action differs by more than ``TOLERANCE``, or is not finite.
    """
    model = onnx.ModelProto()
    model.CopyFrom(built.model)
    if built.ranked is not None:
        model.graph.output.append(onnx.helper.make_tensor_value_info(built.ranked, onnx.TensorProto.FLOAT, None))
    graph = GraphSession(model.SerializeToString(), spec, built.noise, f"policy {policy}", threads=0)
    rng, largest, ties = np.random.default_rng(0), 0.0, 0
    with computed_in("float32"):
        traced = trace(agent, policy, _observations(spec, rng))
        for _ in range(OBSERVATIONS // BATCH):
            observations = _observations(spec, rng)
            z = rng.standard_normal(traced.noise_shape, np.float32) * (noise == "normal")
            actions, values = traced.act(observations, z)
            found, *ranked = graph.outputs(observations, z)
            apart = _apart(spec.to_environment(np.asarray(actions)), found, spec)
            if values is not None and ranked:
                of_two = tied(np.asarray(values), ranked[0])
                ties, apart = ties + int(of_two.sum()), apart[~of_two]
            largest = max(largest, float(apart.max(initial=0.0)))
    if not largest <= TOLERANCE:
        raise RunError(
            f"policy {policy}: expected a graph whose actions differ by at most {TOLERANCE:g} of their range, found "
            f"{largest:g}; are its networks finite?"
        )
    return Difference(largest, ties)


def _observations(spec: Spec, rng: np.random.Generator) -> Any:
    def one(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if dtype == np.uint8:
            return rng.integers(0, 256, (BATCH, *shape), np.uint8)
        mean, deviation = spec.normalization or (0.0, 1.0)
        return (mean + rng.standard_normal((BATCH, *shape)) * deviation).astype(dtype)

    return spec.observation(one)


def _apart(actions: np.ndarray, found: np.ndarray, spec: Spec) -> np.ndarray:
    """(B,): the largest difference of each action, in parts of the range; infinite where one is not finite."""
    low, high = spec.action_range or (-1.0, 1.0)
    size = np.subtract(high, low)
    apart = (np.abs(actions.astype(np.float64) - found) / np.where(size > 0, size, 1.0)).max(-1)
    return np.where(np.isfinite(apart), apart, np.inf)


def tied(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(B,): whether two programs choose differently among (N, B) values, between two that are the same to rounding."""
    one, other = values.argmax(0), found.argmax(0)
    rows = np.arange(values.shape[1])
    close = np.abs(values[one, rows] - values[other, rows]) <= TOLERANCE * np.abs(values).max(0)
    return (one != other) & close
