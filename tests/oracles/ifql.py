"""IFQL: 'V and Q as in IQL; flow policy by plain flow matching; acting: ... the one with the largest
min_i Q_i'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import networks as nn
from .bc import flow_loss, flow_policy
from .iql import critic_loss, critic_target, expectile, value_loss, value_target
from .networks import Mlp

__all__ = [
    "candidate_values",
    "candidates",
    "critic_loss",
    "critic_target",
    "expectile",
    "flow_loss",
    "flow_policy",
    "select",
    "value_loss",
    "value_target",
]


def candidates(flow: Mlp, s: np.ndarray, z: np.ndarray, steps: int) -> np.ndarray:
    """'draw 32 actions through the flow': z (N, B, d), s (B, n) -> actions (N, B, d), each clipped."""
    return np.stack([flow_policy(flow, s, noise, steps) for noise in z])


def candidate_values(critics: Sequence[Mlp], s: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """min_i Q_i(s, a_n) of the online critics (no bar on the page), (N, B)."""
    return np.stack([nn.q_value(critics, s, a, "min") for a in actions])


def select(flow: Mlp, critics: Sequence[Mlp], s: np.ndarray, z: np.ndarray, steps: int) -> np.ndarray:
    """'take the one with the largest min_i Q_i': (B, d); the first of equals."""
    actions = candidates(flow, s, z, steps)
    best = candidate_values(critics, s, actions).argmax(axis=0)
    return actions[best, np.arange(actions.shape[1])]
