"""The learning curves of one run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NOT_LOSSES = ("step", "variant", "seed", "updates_per_second")


def draw_curves(path: Path, metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Draw evaluations (left) and every metric (right) over the gradient steps; a line is a variant's mean over seeds.

    The band around an evaluation spans the seeds; with one seed it is that evaluation's own 95% interval.
    """
    from matplotlib.figure import Figure  # No pyplot: no screen and no global state needed.

    names = [name for name in (metrics[0] if metrics else {}) if name not in NOT_LOSSES]
    panels = int(bool(evaluations)) + len(names)
    columns = 4
    figure = Figure(figsize=(4 * columns, 3 * max(1, -(-panels // columns))), layout="constrained")
    axes = iter(figure.subplots(-(-max(panels, 1) // columns), columns, squeeze=False).flat)
    if evaluations:
        _draw_evaluations(next(axes), evaluations)
    for name in names:
        axis = next(axes)
        for variant in dict.fromkeys(row.get("variant", "") for row in metrics):
            mine = [(row["step"], row[name]) for row in metrics if row.get("variant", "") == variant]
            steps, values = _by_step(mine)
            axis.plot(steps, [np.mean(v) for v in values], label=variant)
            axis.fill_between(steps, [min(v) for v in values], [max(v) for v in values], alpha=0.2)
        axis.set(title=name, xlabel="gradient steps")
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(path, dpi=100)


def _draw_evaluations(axis: Any, evaluations: Sequence[Mapping[str, Any]]) -> None:
    rates = not any(np.isnan(row["success"]) for row in evaluations)
    field, title = ("success", "success rate") if rates else ("mean_return", "mean return")
    for variant, policy in dict.fromkeys((row["variant"], row["policy"]) for row in evaluations):
        rows = [row for row in evaluations if (row["variant"], row["policy"]) == (variant, policy)]
        steps, values = _by_step([(row["step"], row[field]) for row in rows])
        low, high = [min(v) for v in values], [max(v) for v in values]
        if rates and len(rows) == len(steps):
            low, high = [row["success_low"] for row in rows], [row["success_high"] for row in rows]
        axis.plot(steps, [np.mean(v) for v in values], marker="o", label=f"{variant} {policy}".strip())
        axis.fill_between(steps, low, high, alpha=0.2)
    axis.set(title=title, xlabel="gradient steps", ylim=(0, 1.02) if rates else None)
    axis.legend()


def _by_step(pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[list[float]]]:
    groups: dict[int, list[float]] = {}
    for step, value in pairs:
        groups.setdefault(step, []).append(value)
    return list(groups), list(groups.values())
