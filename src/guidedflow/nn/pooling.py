"""Max-pooling whose gradient a CPU computes quickly."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

WINDOW, STRIDE = 3, 2


@jax.custom_vjp
def max_pool(x: Float[Array, "B height width c"]) -> Float[Array, "B half_height half_width c"]:
    """The largest of each 3 x 3 window, with stride 2 and edges as ``SAME``; height and width are halved, rounded up.

    Of equal ones the first takes the gradient, as in JAX's own rule, for which XLA's CPU backend searches every window
    anew, element by element.
    """
    window, strides = (1, WINDOW, WINDOW, 1), (1, STRIDE, STRIDE, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "SAME")


def _forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    pooled = max_pool(x)
    return pooled, (x, pooled)


def _backward(inputs: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, pooled = inputs
    edges = [_edges(size) for size in x.shape[1:3]]
    padded = jnp.pad(x, ((0, 0), *edges, (0, 0)), constant_values=-jnp.inf)
    places = [(i, j) for i in range(WINDOW) for j in range(WINDOW)]
    reach = [STRIDE * (size - 1) + 1 for size in pooled.shape[1:3]]
    first = jnp.full(pooled.shape, len(places), jnp.int8)
    for number, (i, j) in reversed([*enumerate(places)]):
        seen = padded[:, i : i + reach[0] : STRIDE, j : j + reach[1] : STRIDE]
        first = jnp.where(seen == pooled, jnp.int8(number), first)
    spread = jnp.zeros_like(padded)
    for number, (i, j) in enumerate(places):
        around = [
            (low, size - low - length, STRIDE - 1)
            for low, size, length in zip((i, j), padded.shape[1:3], reach, strict=True)
        ]
        share = jnp.where(first == number, gradient, 0.0)
        spread += jax.lax.pad(share, jnp.zeros((), share.dtype), ((0, 0, 0), *around, (0, 0, 0)))
    (top, _), (left, _) = edges
    return (spread[:, top : top + x.shape[1], left : left + x.shape[2]],)


def _edges(size: int) -> tuple[int, int]:
    """How much ``SAME`` pads before and behind."""
    total = max((-(-size // STRIDE) - 1) * STRIDE + WINDOW - size, 0)
    return total // 2, total - total // 2


max_pool.defvjp(_forward, _backward)
