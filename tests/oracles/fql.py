"""FQL: critic, plain flow policy, one-step actor distilled from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import networks as nn
from .bc import flow_loss, flow_policy
from .networks import Batch, Mlp

__all__ = [
    "actor_distill_target",
    "actor_loss",
    "actor_policy",
    "actor_q",
    "critic_loss",
    "critic_target",
    "distill",
    "flow_loss",
    "flow_policy",
    "lambda_coefficient",
]


def actor_policy(actor: Mlp, s: np.ndarray, z: np.ndarray) -> np.ndarray:
    """`actor`: clip(mu_theta(s, z)), as in GFP."""
    return nn.clip(nn.one_step_actor(actor, s, z))


def critic_target(
    actor: Mlp,
    target_critics: Sequence[Mlp],
    batch: Batch,
    z: np.ndarray,
    *,
    discount: float,
    q_agg: str,
) -> np.ndarray:
    """'Critic target uses the one-step actor at s'': y = r + discount * m * Qbar(s', clip(mu_theta(s',
    z))).
    """
    a_theta = actor_policy(actor, batch.next_observations, z)
    return nn.bellman(batch, nn.q_value(target_critics, batch.next_observations, a_theta, q_agg), discount)


def critic_loss(critics: Sequence[Mlp], target_y: np.ndarray, batch: Batch) -> float:
    """L_C as in GFP (not restated on the page): mean over members and batch of (Q_i(s, a) - sg(y))^2."""
    return nn.critic_mean_squared_error(critics, target_y, batch)


def actor_distill_target(flow: Mlp, batch: Batch, z: np.ndarray, steps: int) -> np.ndarray:
    """sg(mu_omega(s, z)), the z of a_theta, clipped; raw time."""
    return flow_policy(flow, batch.observations, z, steps)


def distill(actor: Mlp, flow_target: np.ndarray, z: np.ndarray, batch: Batch) -> float:
    """As in GFP: mean over batch and dimensions of (a_theta - target)^2, a_theta before clipping."""
    a_theta = nn.one_step_actor(actor, batch.observations, z)
    return float(((a_theta - flow_target) ** 2).mean())


def actor_q(actor: Mlp, critics: Sequence[Mlp], z: np.ndarray, batch: Batch) -> np.ndarray:
    """'The actor's Q is always the members' mean': mean_i Q_i(s, clip(a_theta)), (B,)."""
    return nn.q_value(critics, batch.observations, actor_policy(actor, batch.observations, z), "mean")


def lambda_coefficient(actor: Mlp, critics: Sequence[Mlp], z: np.ndarray, batch: Batch) -> float:
    """lambda = sg(1 / mean |q|), q the members' mean (so the absolute value is taken after the mean over
    members).
    """
    return nn.inverse_mean_absolute(actor_q(actor, critics, z, batch))


def actor_loss(
    actor: Mlp,
    critics: Sequence[Mlp],
    flow_target: np.ndarray,
    lam: float,
    z: np.ndarray,
    batch: Batch,
    *,
    alpha: float,
    normalize_q: bool,
) -> float:
    """'-(1, or lambda with `normalize_q`) * mean over members and batch of Q_i(s, clip(a_theta)) + alpha
    * distill'.
    """
    q = actor_q(actor, critics, z, batch)
    coefficient = lam if normalize_q else 1.0
    return float(-coefficient * q.mean() + alpha * distill(actor, flow_target, z, batch))
