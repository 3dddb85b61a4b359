"""GFP: critic Q, one-step actor mu_theta, value-aware flow policy mu_omega ('VaBC')."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import networks as nn
from .networks import Batch, Mlp

# ---- policies (step 4) ---------------------------------------------------------------------------


def actor_policy(actor: Mlp, s: np.ndarray, z: np.ndarray) -> np.ndarray:
    """`actor`: clip(mu_theta(s, z)). The page does not say that the acting policy clips; Q sees clipped
    actions.
    """
    return nn.clip(nn.one_step_actor(actor, s, z))


def vabc_policy(flow: Mlp, s: np.ndarray, z: np.ndarray, steps: int) -> np.ndarray:
    """`vabc`: mu_omega(s, z), Euler in M = `steps` steps, clipped once at the end."""
    return nn.integrate(nn.velocity_embedded, flow, s, z, steps)


# ---- step 1: critic ------------------------------------------------------------------------------


def next_values(
    actor: Mlp,
    flow: Mlp,
    target_critics: Sequence[Mlp],
    batch: Batch,
    z: np.ndarray,
    *,
    steps: int,
    q_agg: str,
    vabc_target_at: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Qbar(s', a_theta) and Qbar(s', a_omega): a_theta = clip(mu_theta(s', z)), a_omega = mu_omega(s',
    z), same z.

    `vabc_target_at` = current: a_omega = mu_omega(s, z) (same z), still evaluated at s'.
    """
    flow_at = {"next": batch.next_observations, "current": batch.observations}[vabc_target_at]
    a_theta = actor_policy(actor, batch.next_observations, z)
    a_omega = vabc_policy(flow, flow_at, z, steps)
    return (
        nn.q_value(target_critics, batch.next_observations, a_theta, q_agg),
        nn.q_value(target_critics, batch.next_observations, a_omega, q_agg),
    )


def critic_target(
    actor: Mlp,
    flow: Mlp,
    target_critics: Sequence[Mlp],
    batch: Batch,
    z: np.ndarray,
    *,
    discount: float,
    steps: int,
    q_agg: str,
    target_agg: str,
    vabc_target_at: str,
) -> np.ndarray:
    """'y = r + discount * m * next value', the next value combined by `target_agg` in {actor, vabc, mean,
    min, max}.

    Read literally: first members by `q_agg` within each action, then the two actions by `target_agg`.
    """
    value_actor, value_vabc = next_values(
        actor, flow, target_critics, batch, z, steps=steps, q_agg=q_agg, vabc_target_at=vabc_target_at
    )
    return nn.bellman(batch, nn.combine(value_actor, value_vabc, target_agg), discount)


def critic_loss(critics: Sequence[Mlp], target_y: np.ndarray, batch: Batch) -> float:
    """'L_C = mean over members and batch of (Q_i(s, a) - sg(y))^2'."""
    return nn.critic_mean_squared_error(critics, target_y, batch)


# ---- step 2: actor -------------------------------------------------------------------------------


def actor_distill_target(flow: Mlp, batch: Batch, z: np.ndarray, steps: int) -> np.ndarray:
    """'target = sg(mu_omega(s, z)), the same z' as a_theta; clipped, as mu_omega is."""
    return vabc_policy(flow, batch.observations, z, steps)


def distill(actor: Mlp, flow_target: np.ndarray, z: np.ndarray, batch: Batch) -> float:
    """'mean over batch and dimensions of (a_theta - target)^2, before clipping' (of a_theta)."""
    a_theta = nn.one_step_actor(actor, batch.observations, z)
    return float(((a_theta - flow_target) ** 2).mean())


def actor_q(actor: Mlp, critics: Sequence[Mlp], z: np.ndarray, batch: Batch, *, q_agg: str) -> np.ndarray:
    """'q = Q(s, clip(a_theta))': the online critics, members by `q_agg`; (B,)."""
    return nn.q_value(critics, batch.observations, actor_policy(actor, batch.observations, z), q_agg)


def lambda_coefficient(actor: Mlp, critics: Sequence[Mlp], z: np.ndarray, batch: Batch, *, q_agg: str) -> float:
    """'lambda = sg(1 / mean |q|)', the mean over the batch, q aggregated by `q_agg` before the absolute
    value.
    """
    return nn.inverse_mean_absolute(actor_q(actor, critics, z, batch, q_agg=q_agg))


def actor_loss(
    actor: Mlp,
    critics: Sequence[Mlp],
    flow_target: np.ndarray,
    lam: float,
    z: np.ndarray,
    batch: Batch,
    *,
    alpha: float,
    q_agg: str,
    normalize_q: bool,
) -> float:
    """'L_A = -(lambda if `normalize_q` else 1) * mean(q) + alpha * distill'."""
    q = actor_q(actor, critics, z, batch, q_agg=q_agg)
    coefficient = lam if normalize_q else 1.0
    return float(-coefficient * q.mean() + alpha * distill(actor, flow_target, z, batch))


# ---- step 3: VaBC --------------------------------------------------------------------------------


def reference_value(
    target_critics: Sequence[Mlp],
    batch: Batch,
    a_ref_actor: np.ndarray,
    a_ref_vabc: np.ndarray,
    *,
    guidance_agg: str,
    q_agg: str,
) -> np.ndarray:
    """Qbar(s, a_ref): 'sg(clip(a_theta)) of step 2 (`guidance_agg` = actor), or the VaBC action, or the
    min / mean / max of the two values'.

    The page does not say which noise draws 'the VaBC action': it is taken as the sample of step 2,
    mu_omega(s, z).
    """
    return nn.combine(
        nn.q_value(target_critics, batch.observations, a_ref_actor, q_agg),
        nn.q_value(target_critics, batch.observations, a_ref_vabc, q_agg),
        guidance_agg,
    )


def guidance(
    target_critics: Sequence[Mlp],
    batch: Batch,
    a_ref_actor: np.ndarray,
    a_ref_vabc: np.ndarray,
    lam: float,
    *,
    eta: float,
    guidance: str,
    guidance_agg: str,
    q_agg: str,
) -> np.ndarray:
    """g, (B,), everything under sg. softmax: 'softmax over the pair (lambda/eta) * [Qbar(s, a), Qbar(s,
    a_ref)], the first entry', a sigmoid of the difference; advantage: 'g = exp((lambda/eta) * (Qbar(s, a)
    - Qbar(s, a_ref)))'.

    eta = 0 means g = 1, in both variants. lambda is that of step 2 whether or not `normalize_q`. The page
    puts no ceiling on the advantage form, so it may overflow to inf for small eta.
    """
    if guidance not in ("softmax", "advantage"):
        raise ValueError(guidance)
    q_data = nn.q_value(target_critics, batch.observations, batch.actions, q_agg)
    q_reference = reference_value(
        target_critics, batch, a_ref_actor, a_ref_vabc, guidance_agg=guidance_agg, q_agg=q_agg
    )
    if eta == 0:
        return np.ones_like(q_data)
    difference = (lam / eta) * (q_data - q_reference)
    if guidance == "advantage":
        return np.exp(difference)
    decay = np.exp(-np.abs(difference))  # in (0, 1]: no overflow on either side
    return np.where(difference >= 0, 1.0, decay) / (1.0 + decay)


def vabc_loss(flow: Mlp, g: np.ndarray, batch: Batch, eps: np.ndarray, t: np.ndarray) -> float:
    """'mean over batch of sg(g) * (mean over dimensions of (v_omega(t, s, x_t) - (a - eps))^2)'."""
    error = nn.flow_squared_error(nn.velocity_embedded, flow, batch.observations, batch.actions, eps, t)
    return float((g * error).mean())


# ---- one step ------------------------------------------------------------------------------------


class StepValues(NamedTuple):
    """Every quantity of one step, all at the same parameters."""

    target_y: np.ndarray
    critic_loss: float
    flow_target: np.ndarray
    a_ref_actor: np.ndarray
    q: np.ndarray
    lam: float
    distill: float
    actor_loss: float
    g: np.ndarray
    vabc_loss: float


def step_values(
    critics: Sequence[Mlp],
    target_critics: Sequence[Mlp],
    actor: Mlp,
    flow: Mlp,
    batch: Batch,
    *,
    z_critic: np.ndarray,
    z_actor: np.ndarray,
    eps: np.ndarray,
    t: np.ndarray,
    discount: float,
    steps: int,
    alpha: float,
    eta: float,
    q_agg: str = "mean",
    target_agg: str = "mean",
    vabc_target_at: str = "next",
    guidance_agg: str = "actor",
    guidance_form: str = "softmax",
    normalize_q: bool = True,
) -> StepValues:
    """Steps 1 to 3 together: 'All losses of one step are computed at the same parameters'."""
    target_y = critic_target(
        actor,
        flow,
        target_critics,
        batch,
        z_critic,
        discount=discount,
        steps=steps,
        q_agg=q_agg,
        target_agg=target_agg,
        vabc_target_at=vabc_target_at,
    )
    flow_target = actor_distill_target(flow, batch, z_actor, steps)
    a_ref_actor = actor_policy(actor, batch.observations, z_actor)
    lam = lambda_coefficient(actor, critics, z_actor, batch, q_agg=q_agg)
    g = guidance(
        target_critics,
        batch,
        a_ref_actor,
        flow_target,
        lam,
        eta=eta,
        guidance=guidance_form,
        guidance_agg=guidance_agg,
        q_agg=q_agg,
    )
    return StepValues(
        target_y=target_y,
        critic_loss=critic_loss(critics, target_y, batch),
        flow_target=flow_target,
        a_ref_actor=a_ref_actor,
        q=actor_q(actor, critics, z_actor, batch, q_agg=q_agg),
        lam=lam,
        distill=distill(actor, flow_target, z_actor, batch),
        actor_loss=actor_loss(
            actor,
            critics,
            flow_target,
            lam,
            z_actor,
            batch,
            alpha=alpha,
            q_agg=q_agg,
            normalize_q=normalize_q,
        ),
        g=g,
        vabc_loss=vabc_loss(flow, g, batch, eps, t),
    )
