"""Fitted Q evaluation, from docs/algorithms.md ("Fitted Q evaluation")."""

from collections.abc import Sequence

import numpy as np

from oracles import networks as nn


def critic_target(targets: Sequence[nn.Mlp], batch: nn.Batch, a_next: np.ndarray, *, discount: float) -> np.ndarray:
    """y = r + discount m mean_i Qbar_i(s', a'), (B,)."""
    return batch.rewards + discount * batch.masks * nn.ensemble(targets, batch.next_observations, a_next).mean(axis=0)


def critic_loss(critics: Sequence[nn.Mlp], batch: nn.Batch, y: np.ndarray) -> float:
    """L_C = mean over members and batch of (Q_i(s, a) - y)^2."""
    return float(np.mean([(nn.critic(one, batch.observations, batch.actions) - y) ** 2 for one in critics]))
