"""BC: 'Flow behaviour cloning: the flow policy of FQL alone.'"""

from __future__ import annotations

import numpy as np

from . import networks as nn
from .networks import Batch, Mlp


def flow_policy(flow: Mlp, s: np.ndarray, z: np.ndarray, steps: int) -> np.ndarray:
    """`flow`: mu_omega(s, z) with raw time, clipped once at the end."""
    return nn.integrate(nn.velocity_raw, flow, s, z, steps)


def flow_loss(flow: Mlp, batch: Batch, eps: np.ndarray, t: np.ndarray) -> float:
    """'plain flow matching, g = 1, raw time t': mean over batch and dimensions of (v - (a - eps))^2."""
    error = nn.flow_squared_error(nn.velocity_raw, flow, batch.observations, batch.actions, eps, t)
    return float(error.mean())
