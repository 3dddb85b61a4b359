"""The two records that every room shares: what a task looks like to a network, and what a network learns from."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Shaped


class Spec(NamedTuple):
    """Shapes of one observation and one action, without the batch axis."""

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    action_size: int


class Batch(NamedTuple):
    """B transitions (s, a, r, m, s', a+), in the symbols of docs/algorithms.md.

    ``masks`` is 0 where s' (or s, for goal-reaching rewards) is a true terminal state, else 1.
    ``next_actions`` is the action that the data takes at s'; where ``next_action_valid`` is false there is none and
    the row holds an unrelated action.
    """

    observations: Shaped[Array, "B *obs"]
    actions: Float[Array, "B act"]
    rewards: Float[Array, " B"]
    next_observations: Shaped[Array, "B *obs"]
    masks: Float[Array, " B"]
    next_actions: Float[Array, "B act"]
    next_action_valid: Bool[Array, " B"]
