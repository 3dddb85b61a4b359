"""From each step's metrics to the rows that are recorded."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from guidedflow.errors import Diverged
from guidedflow.training.settings import Member
from guidedflow.types import variant_text

Series = Mapping[str, Float[np.ndarray, "members steps"]]


class MetricRows:
    """Collects metrics and gives a row a member, with their means, at every multiple of ``log_every``.

    Args:
        members: whose metrics they are.
        log_every: steps of one row.
        unlogged: metrics since the last row, of a run that is continued.
    """

    def __init__(self, members: Sequence[Member], log_every: int, unlogged: Series | None = None):
        self._members = members
        self._log_every = log_every
        self.unlogged: dict[str, np.ndarray] = dict(unlogged or {})
        """Metrics of the steps since the last row."""

    def add(
        self, end: int, series: Series, extra: Mapping[str, float | Float[np.ndarray, " members"]]
    ) -> list[list[dict[str, Any]]]:
        """Rows that are complete now, in groups of one step.

        Args:
            end: the step that the series leads to.
            series: every metric of the steps before it.
            extra: numbers to be written beside: one for all members, or one each.
        """
        if self.unlogged:
            series = {name: np.concatenate([self.unlogged[name], new], axis=1) for name, new in series.items()}
        start = end - next(iter(series.values())).shape[1]
        groups = []
        beside = {name: np.broadcast_to(value, len(self._members)) for name, value in extra.items()}
        for step in range(start - start % self._log_every + self._log_every, end + 1, self._log_every):
            means = {
                name: values[:, max(0, step - self._log_every - start) : step - start].mean(axis=1)
                for name, values in series.items()
            }
            groups.append(
                [
                    {
                        "step": step,
                        "variant": member.variant,
                        "seed": member.seed,
                        **{name: float(mean[i]) for name, mean in means.items()},
                        **{name: float(values[i]) for name, values in beside.items()},
                    }
                    for i, member in enumerate(self._members)
                ]
            )
        rest = end % self._log_every
        self.unlogged = {name: values[:, values.shape[1] - rest :] for name, values in series.items()} if rest else {}
        return groups


def check_finite(series: Series, start: int, members: Sequence[Member], last_good: str) -> None:
    """Check that no metric has become infinite or NaN.

    Args:
        series: every metric of the steps from ``start`` on.
        start: the first one's number.
        members: whose metrics they are.
        last_good: what the message says of where to go on from.

    Raises:
        Diverged: naming step, member and metrics.
    """
    bad = ~np.isfinite(np.stack(list(series.values())))  # (metrics, members, steps)
    if not bad.any():
        return
    step = int(np.flatnonzero(bad.any(axis=(0, 1)))[0])
    index = int(np.flatnonzero(bad[:, :, step].any(axis=0))[0])
    names = [name for name, row in zip(series, bad[:, index, step], strict=True) if row]
    who = f"{variant_text(members[index].variant)} seed {members[index].seed}".strip()
    raise Diverged(
        f"step {start + step + 1}, {who}: expected finite losses, found {', '.join(names)} non-finite"
        f"; last good checkpoint: {last_good}"
    )
