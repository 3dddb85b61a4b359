"""ReBRAC, and BRAC ('the same agent with alpha_critic = 0, no smoothing, no delay').

Ambiguities of the page. BRAC is stated twice: 'L_A = -Q(s, a_theta) + ...', without lambda, and as ReBRAC
with three things switched off, lambda not among them; `normalize_q` selects. BRAC's a' is 'from the
policy at s'': as 'the same agent' it is the target actor's. 'Q' is aggregated by `q_agg` (the table of
symbols), in the target and in the actor loss; lambda is sg(1 / mean |q|) of that q. L_C's reduction is
not restated: mean over members and batch, as in GFP.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import networks as nn
from .networks import Batch, Mlp

NOISE_SCALE = 0.2
NOISE_CLIP = 0.5


def policy(actor: Mlp, s: np.ndarray) -> np.ndarray:
    """'deterministic tanh actor': mu(s) = tanh(mlp(s))."""
    return np.tanh(nn.mlp(actor, s))


def smoothed_target_action(
    target_actor: Mlp,
    batch: Batch,
    noise: np.ndarray,
    *,
    noise_scale: float = NOISE_SCALE,
    noise_clip: float = NOISE_CLIP,
) -> np.ndarray:
    """'clip(mu(s') + clip(0.2 N, +-0.5))', mu the target actor; `noise` is N(0, I). BRAC: noise = 0."""
    smoothing = np.clip(noise_scale * noise, -noise_clip, noise_clip)
    return nn.clip(policy(target_actor, batch.next_observations) + smoothing)


def critic_penalty(a_prime: np.ndarray, batch: Batch) -> np.ndarray:
    """'||a' - a+||^2, the norm summed over dimensions'; 0 where a+ does not exist. a' is the smoothed
    action. (B,).

    Where a+ does not exist its stored value is ignored, NaN included.
    """
    squared = ((a_prime - batch.next_actions) ** 2).sum(axis=-1)
    return np.where(np.asarray(batch.next_action_valid).astype(bool), squared, 0.0)


def critic_target(
    target_critics: Sequence[Mlp],
    a_prime: np.ndarray,
    batch: Batch,
    *,
    discount: float,
    alpha_critic: float,
    q_agg: str,
) -> np.ndarray:
    """'y = r + discount * m * (Qbar(s', a') - alpha_critic * ||a' - a+||^2)'. BRAC: alpha_critic = 0."""
    next_value = nn.q_value(target_critics, batch.next_observations, a_prime, q_agg)
    return nn.bellman(batch, next_value - alpha_critic * critic_penalty(a_prime, batch), discount)


def critic_loss(critics: Sequence[Mlp], target_y: np.ndarray, batch: Batch) -> float:
    """L_C as in GFP: mean over members and batch of (Q_i(s, a) - sg(y))^2."""
    return nn.critic_mean_squared_error(critics, target_y, batch)


def actor_q(actor: Mlp, critics: Sequence[Mlp], batch: Batch, *, q_agg: str) -> np.ndarray:
    """Q(s, mu(s)), online actor and critics; tanh needs no clip. (B,)."""
    return nn.q_value(critics, batch.observations, policy(actor, batch.observations), q_agg)


def lambda_coefficient(actor: Mlp, critics: Sequence[Mlp], batch: Batch, *, q_agg: str) -> float:
    """lambda = sg(1 / mean |Q|)."""
    return nn.inverse_mean_absolute(actor_q(actor, critics, batch, q_agg=q_agg))


def behaviour_cost(actor: Mlp, batch: Batch) -> float:
    """'mean ||mu(s) - a||^2 (sum over dimensions)': mean over the batch, sum over dimensions."""
    return float(((policy(actor, batch.observations) - batch.actions) ** 2).sum(axis=-1).mean())


def actor_loss(
    actor: Mlp,
    critics: Sequence[Mlp],
    lam: float,
    batch: Batch,
    *,
    alpha: float,
    q_agg: str,
    normalize_q: bool = True,
) -> float:
    """'-lambda * mean Q + alpha * mean ||mu(s) - a||^2'; `normalize_q` = False puts 1 for lambda (BRAC's
    first form).
    """
    q = actor_q(actor, critics, batch, q_agg=q_agg)
    coefficient = lam if normalize_q else 1.0
    return float(-coefficient * q.mean() + alpha * behaviour_cost(actor, batch))


def brac_critic_target(
    target_actor: Mlp, target_critics: Sequence[Mlp], batch: Batch, *, discount: float, q_agg: str
) -> np.ndarray:
    """'y = r + discount * m * Qbar(s', a'), a' from the policy at s'', a' = mu_target(s')."""
    a_prime = policy(target_actor, batch.next_observations)
    return nn.bellman(batch, nn.q_value(target_critics, batch.next_observations, a_prime, q_agg), discount)


def brac_actor_loss(
    actor: Mlp, critics: Sequence[Mlp], batch: Batch, *, alpha: float, q_agg: str, lam: float = 1.0
) -> float:
    """'L_A = -Q(s, a_theta) + alpha * ||a_theta - a||^2', mean over the batch, the norm summed over
    dimensions.

    `lam` other than 1 gives the reading in which `brac` is 'the same agent' as ReBRAC, lambda included.
    """
    a_theta = policy(actor, batch.observations)
    q = nn.q_value(critics, batch.observations, a_theta, q_agg)
    return float((-lam * q + alpha * ((a_theta - batch.actions) ** 2).sum(axis=-1)).mean())
