"""What is done to a batch of pictures before it is learned from (docs/algorithms.md, "Pixels")."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from guidedflow.types import Batch

PADDING = 3
"""Pixels by which edges are repeated before the crop."""


def random_crops(batch: Batch, key: PRNGKeyArray, probability: Float[Array, ""] | float) -> Batch:
    """With a probability, each row's pictures shifted at random, all of s and s' alike; vectors stay as they are."""
    if not any(map(_is_picture, jax.tree.leaves(batch.observations))):
        return batch
    coin_key, shift_key = jax.random.split(key)
    shifts = jax.random.randint(shift_key, (len(batch.actions), 2), 0, 2 * PADDING + 1)

    def shifted(observations: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda entry: crop(entry, shifts) if _is_picture(entry) else entry, observations)

    def cropped() -> Batch:
        return batch._replace(
            observations=shifted(batch.observations), next_observations=shifted(batch.next_observations)
        )

    return jax.lax.cond(jax.random.uniform(coin_key) < probability, cropped, lambda: batch)


def _is_picture(entry: Array) -> bool:
    return entry.ndim == 4


def crop(pictures: UInt8[Array, "B height width channels"], shifts: Array) -> UInt8[Array, "B height width channels"]:
    """Pictures of the same size out of padded ones, starting at rows ``shifts[:, 0]`` and columns ``shifts[:, 1]``.

    Args:
        pictures: of any size.
        shifts: (B, 2), 0 to 2 ``PADDING``; ``PADDING`` shifts nothing.
    """
    edges = (PADDING, PADDING)
    padded = jnp.pad(pictures, ((0, 0), edges, edges, (0, 0)), mode="edge")

    def one(picture: Array, shift: Array) -> Array:
        return jax.lax.dynamic_slice(picture, (*shift, 0), pictures.shape[1:])

    return jax.vmap(one)(padded, shifts)
