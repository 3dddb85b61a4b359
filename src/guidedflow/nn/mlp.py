"""The multilayer perceptron under every network of this package (docs/algorithms.md, "Symbols")."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from guidedflow.nn.products import dense

LAYER_NORM_EPSILON = 1e-6


@jax.jit
def gelu_tanh(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    """GELU in its tanh form (Hendrycks and Gimpel, 2016), under a name that an exported graph finds it by."""
    return jax.nn.gelu(x, approximate=True)


class LayerNorm(eqx.Module):
    """Normalisation over the last axis, with a learned scale and offset."""

    scale: Float[Array, " width"]
    offset: Float[Array, " width"]

    def __init__(self, width: int):
        self.scale = jnp.ones(width)
        self.offset = jnp.zeros(width)

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Normalise x; mean and variance are taken in one pass over it."""
        mean = x.mean(-1, keepdims=True)
        variance = jnp.maximum(jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean), 0.0)
        return (x - mean) * (jax.lax.rsqrt(variance + LAYER_NORM_EPSILON) * self.scale) + self.offset


class MLP(eqx.Module):
    """Dense layers with GELU (tanh form) between them and, optionally, LayerNorm after each hidden activation.

    Weights are drawn uniformly with variance ``final_scale`` (last layer) or 1 over the mean of fan-in and fan-out;
    biases start at zero.
    """

    weights: tuple[Float[Array, "_in _out"], ...]
    biases: tuple[Float[Array, " _out"], ...]
    norms: tuple[LayerNorm, ...] | None

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        key: PRNGKeyArray,
        layer_norm: bool = False,
        final_scale: float = 1.0,
    ):
        sizes = [inputs, *hidden, outputs]
        scales = [1.0] * len(hidden) + [final_scale]
        keys = jax.random.split(key, len(scales))
        self.weights = tuple(
            jax.nn.initializers.variance_scaling(scale, "fan_avg", "uniform")(k, (size_in, size_out))
            for k, scale, size_in, size_out in zip(keys, scales, sizes[:-1], sizes[1:], strict=True)
        )
        self.biases = tuple(jnp.zeros(size) for size in sizes[1:])
        self.norms = tuple(LayerNorm(size) for size in hidden) if layer_norm else None

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """The network's output for rows x."""
        return self.after_first(dense(x, self.weights[0]) + self.biases[0])

    def after_first(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch out"]:
        """The network's output from its first layer's pre-activations, for callers that assemble those themselves."""
        for i, (weight, bias) in enumerate(zip(self.weights[1:], self.biases[1:], strict=True)):
            x = gelu_tanh(x)
            if self.norms is not None:
                x = self.norms[i](x)
            x = dense(x, weight) + bias
        return x
