"""From an observation to the features that a network's MLP sees: vectors as they are, pictures through IMPALA's net."""

import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped, UInt8

from guidedflow.errors import SettingsError
from guidedflow.nn.mlp import MLP, gelu_tanh
from guidedflow.nn.pooling import max_pool
from guidedflow.nn.products import convolve
from guidedflow.types import DictShape, Normalization

CHANNELS = (16, 32, 32)
FEATURES = 512
_T = TypeVar("_T")

Observations = PyTree[Shaped[Array, "B ..."]]
"""A batch of B: an array, or a dictionary of arrays as in ``Spec.observation_shape``."""


class Flat(eqx.Module):
    """Vectors, unchanged or normalised."""

    size: int = eqx.field(static=True)
    normalization: Normalization | None = eqx.field(static=True, default=None)

    def __call__(self, observations: Float[Array, "*batch obs"]) -> Float[Array, "*batch obs"]:
        """The observations themselves, or (s - mean) / deviation."""
        if self.normalization is None:
            return observations
        mean, deviation = (jnp.array(numbers, jnp.float32) for numbers in self.normalization)
        return (observations - mean) / deviation


class Conv(eqx.Module):
    """A 3 x 3 convolution with stride 1 that keeps height and width; initialised as ``MLP``'s layers are."""

    kernel: Float[Array, "3 3 in out"]
    bias: Float[Array, " out"]

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        initialize = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        self.kernel = initialize(key, (3, 3, inputs, outputs))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "B height width in"]) -> Float[Array, "B height width out"]:
        """The convolution, zeros beyond the edges."""
        return convolve(x, self.kernel) + self.bias


class Stage(eqx.Module):
    """Convolution, 3 x 3 max-pool with stride 2, and one residual block of two convolutions."""

    first: Conv
    block: tuple[Conv, Conv]

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.first = Conv(inputs, outputs, key=keys[0])
        self.block = (Conv(outputs, outputs, key=keys[1]), Conv(outputs, outputs, key=keys[2]))

    def __call__(self, x: Float[Array, "B height width in"]) -> Float[Array, "B half_height half_width out"]:
        """Half as high and wide, rounded up."""
        x = max_pool(self.first(x))
        inner, outer = self.block
        return x + outer(jax.nn.relu(inner(jax.nn.relu(x))))


class Impala(eqx.Module):
    """The small IMPALA network (Espeholt et al., 2018, arXiv 1802.01561): three stages, then 512 features by GELU."""

    stages: tuple[Stage, ...]
    dense: MLP
    size: int = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int, int], *, key: PRNGKeyArray):
        height, width, channels = shape
        *stage_keys, dense_key = jax.random.split(key, len(CHANNELS) + 1)
        sizes = zip((channels, *CHANNELS[:-1]), CHANNELS, stage_keys, strict=True)
        self.stages = tuple(Stage(inputs, outputs, key=k) for inputs, outputs, k in sizes)
        shrunk = 2 ** len(CHANNELS)
        flat = math.ceil(height / shrunk) * math.ceil(width / shrunk) * CHANNELS[-1]
        self.dense = MLP(flat, (), FEATURES, key=dense_key)
        self.size = FEATURES

    def __call__(self, observations: UInt8[Array, "B height width channels"]) -> Float[Array, "B 512"]:
        """Features of pictures, whose values 0 to 255 become 0 to 1."""
        x = observations.astype(jnp.float32) / 255.0
        for stage in self.stages:
            x = stage(x)
        return gelu_tanh(self.dense(jax.nn.relu(x).reshape(x.shape[0], -1)))


class Several(eqx.Module):
    """The features of every entry of a dictionary end to end, each through an encoder of its own."""

    names: tuple[str, ...] = eqx.field(static=True)
    encoders: tuple["Encoder", ...]
    size: int = eqx.field(static=True)

    def __call__(self, observations: dict[str, Any]) -> Float[Array, "B features"]:
        """The features, in the order of ``names``."""
        pairs = zip(self.names, self.encoders, strict=True)
        return jnp.concatenate([encoder(observations[name]) for name, encoder in pairs], axis=-1)


Encoder = Flat | Impala | Several


def make_encoder(shape: tuple[int, ...] | DictShape, *, key: PRNGKeyArray) -> Encoder:
    """The encoder for observations of this shape: (n,) is a vector, (height, width, channels) a picture.

    Args:
        shape: of one observation, as in ``Spec``.
        key: the network's own; what is drawn here does not disturb what the network draws from it.
    """
    if isinstance(shape, DictShape):
        names, shapes = zip(*shape.entries, strict=True)
        encoders = tuple(make_encoder(one, key=jax.random.fold_in(key, i)) for i, one in enumerate(shapes))
        return Several(names, encoders, sum(encoder.size for encoder in encoders))
    if len(shape) == 1:
        return Flat(shape[0])
    height, width, channels = shape
    return Impala((height, width, channels), key=jax.random.fold_in(key, 1))


def normalized(networks: _T, normalization: Normalization) -> _T:
    """A pytree of networks, their targets and Adam's state, in which every ``Flat`` normalises.

    Raises:
        SettingsError: there is none.
    """

    def is_flat(node: Any) -> bool:
        return isinstance(node, Flat)

    if not any(map(is_flat, jax.tree.leaves(networks, is_leaf=is_flat))):
        raise SettingsError("normalize_observations: expected networks with encoders of guidedflow.nn, found none")
    return jax.tree.map(
        lambda node: Flat(node.size, normalization) if is_flat(node) else node, networks, is_leaf=is_flat
    )


def broadcast_rows(features: Float[Array, "..."], like: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """Features of (B, f) beside rows of (*N, B, d): each is seen N times, but was encoded once."""
    return jnp.broadcast_to(features, (*like.shape[:-1], features.shape[-1]))
