"""IQL: expectile value, critics on V, Gaussian actor by AWR or DDPG+BC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import networks as nn
from .networks import Batch, Mlp

MAX_WEIGHT = 100.0


def value_target(target_critics: Sequence[Mlp], batch: Batch) -> np.ndarray:
    """min_i Qbar_i(s, a), (B,)."""
    return nn.q_value(target_critics, batch.observations, batch.actions, "min")


def expectile(u: np.ndarray, tau_e: float) -> np.ndarray:
    """'weight (tau_e if u >= 0 else 1 - tau_e) * u^2', elementwise."""
    return np.where(u >= 0, tau_e, 1.0 - tau_e) * u**2


def value_loss(value: Mlp, q_target: np.ndarray, batch: Batch, *, tau_e: float) -> float:
    """Expectile regression, u = min_i Qbar_i(s, a) - V(s); the reduction (not stated) is the mean over
    the batch.
    """
    return float(expectile(q_target - nn.state_value(value, batch.observations), tau_e).mean())


def critic_target(value: Mlp, batch: Batch, *, discount: float) -> np.ndarray:
    """'r + discount * m * V(s')', V online (it has no target on the page)."""
    return nn.bellman(batch, nn.state_value(value, batch.next_observations), discount)


def critic_loss(critics: Sequence[Mlp], target_y: np.ndarray, batch: Batch) -> float:
    """'the sum of both squared errors', mean over the batch (so twice the members' mean)."""
    q = nn.ensemble(critics, batch.observations, batch.actions)
    return float(((q - target_y[None, :]) ** 2).sum(axis=0).mean())


def actor_mean(actor: Mlp, s: np.ndarray) -> np.ndarray:
    """Mean of the 'Gaussian actor, unit standard deviation, tanh-free', which is also its mode; not
    clipped.
    """
    return nn.mlp(actor, s)


def mode(actor: Mlp, s: np.ndarray) -> np.ndarray:
    """'Evaluation takes the mode'; clipped to [-1, 1], which the page does not say but actions require."""
    return nn.clip(actor_mean(actor, s))


def log_prob(actor: Mlp, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """log pi(a|s) = -||a - mean||^2 / 2 - (d/2) log(2 pi), constants included, (B,)."""
    squared = ((a - actor_mean(actor, s)) ** 2).sum(axis=-1)
    return -0.5 * squared - 0.5 * a.shape[-1] * np.log(2.0 * np.pi)


def awr_weight(critics: Sequence[Mlp], value: Mlp, batch: Batch, *, alpha: float) -> np.ndarray:
    """'min(exp(alpha * (min_i Q_i(s, a) - V(s))), 100)', the online critics (no bar on the page), under
    sg; (B,).
    """
    q = nn.q_value(critics, batch.observations, batch.actions, "min")
    exponent = alpha * (q - nn.state_value(value, batch.observations))
    return np.minimum(np.exp(np.minimum(exponent, 700.0)), MAX_WEIGHT)  # 700: exp without overflow


def awr_actor_loss(actor: Mlp, weight: np.ndarray, batch: Batch) -> float:
    """'weight ... on log pi(a|s)': -mean over batch of sg(weight) * log pi(a|s)."""
    return float(-(weight * log_prob(actor, batch.observations, batch.actions)).mean())


def ddpg_bc_q(actor: Mlp, critics: Sequence[Mlp], batch: Batch) -> np.ndarray:
    """q = min_i Q_i(s, clip(mode)), (B,); see `ddpg_bc_actor_loss`."""
    return nn.q_value(critics, batch.observations, mode(actor, batch.observations), "min")


def ddpg_bc_lambda(actor: Mlp, critics: Sequence[Mlp], batch: Batch) -> float:
    """lambda = sg(1 / mean |q|)."""
    return nn.inverse_mean_absolute(ddpg_bc_q(actor, critics, batch))


def ddpg_bc_actor_loss(
    actor: Mlp, critics: Sequence[Mlp], lam: float, batch: Batch, *, alpha: float, normalize_q: bool
) -> float:
    """L_A = -(lambda if `normalize_q` else 1) * mean min_i Q_i(s, clip(mode)) - alpha * mean log pi(a|s).

    The page leaves this open: it only names the 'Variant DDPG+BC'. This is OGBench's usual form, without
    the 1e-6 that may be found beside mean |q|.
    """
    q = ddpg_bc_q(actor, critics, batch)
    coefficient = lam if normalize_q else 1.0
    return float(-coefficient * q.mean() - alpha * log_prob(actor, batch.observations, batch.actions).mean())
