"""The learning curves of one run as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.files import whole_file
from guidedflow.types import variant_text

NOT_DRAWN = ("step", "variant", "seed", "updates_per_second", "data_wait")
COLUMNS = 4


def draw_curves(
    path: Path, metrics: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]], *, title: str
) -> None:
    """Draw evaluations (first panel) and every metric over the gradient steps, that of held-out data dashed.

    A line is a variant's mean over seeds. A band spans the seeds; with one seed the evaluations' band is the 95%
    interval of that evaluation. Evaluations made after the training are not drawn.
    """
    from matplotlib.figure import Figure  # No pyplot: no screen and no global state needed.

    trained = [name for name in (metrics[0] if metrics else {}) if not name.startswith("validation/")]
    names = [name for name in trained if name not in NOT_DRAWN]
    evaluations = [row for row in evaluations if row["source"] == "training"]
    panels = max(1, int(bool(evaluations)) + len(names))
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    width, height = 3.6 * columns, 2.8 * rows + 0.8
    figure = Figure(figsize=(width, height))
    # By hand: a layout engine draws every panel twice more, which takes longer than all else here.
    figure.subplots_adjust(
        0.65 / width, 0.55 / height, 1 - 0.15 / width, 1 - 0.95 / height, wspace=0.75 / 2.8, hspace=0.85 / 1.95
    )
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]
    if evaluations:
        _draw_evaluations(axes[0], evaluations)
    for axis, name in zip(axes[int(bool(evaluations)) :], names, strict=False):
        _draw_metric(axis, name, metrics)
    seeds = len({row["seed"] for row in (*metrics, *evaluations)})
    band = f"bands: lowest to highest of {seeds} seeds" if seeds > 1 else "band of an evaluation: its 95% interval"
    figure.suptitle(f"{title}\nlines: means; {band}", fontsize=11)
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=100)


def _draw_metric(axis: Any, name: str, metrics: Sequence[Mapping[str, Any]]) -> None:
    variants = dict.fromkeys(row["variant"] for row in metrics)
    has_legend = len(variants) > 1
    for variant in variants:
        mine = [row for row in metrics if row["variant"] == variant]
        steps, values = _by_step([(row["step"], row[name]) for row in mine if name in row])
        (line,) = axis.plot(steps, [np.mean(v) for v in values], label=variant_text(variant))
        axis.fill_between(steps, [min(v) for v in values], [max(v) for v in values], alpha=0.2)
        held_out = [(row["step"], row[f"validation/{name}"]) for row in mine if f"validation/{name}" in row]
        if held_out:
            steps, values = _by_step(held_out)
            label = f"{variant_text(variant)} held out".strip()
            axis.plot(steps, [np.mean(v) for v in values], "--", color=line.get_color(), linewidth=1, label=label)
            has_legend = True
    axis.set(title=name.replace("_", " "), xlabel="gradient steps")
    if has_legend:
        axis.legend(fontsize=7)


def _draw_evaluations(axis: Any, evaluations: Sequence[Mapping[str, Any]]) -> None:
    rates = not any(np.isnan(row["success"]) for row in evaluations)
    field, title = ("success", "success rate") if rates else ("mean_return", "mean return")
    for variant, policy in dict.fromkeys((row["variant"], row["policy"]) for row in evaluations):
        rows = [row for row in evaluations if (row["variant"], row["policy"]) == (variant, policy)]
        steps, values = _by_step([(row["step"], row[field]) for row in rows])
        one_seed = len(rows) == len(steps)
        bands = [_interval(row, rates) for row in rows] if one_seed else [(min(v), max(v)) for v in values]
        low, high = zip(*bands, strict=True)
        axis.plot(steps, [np.mean(v) for v in values], marker="o", label=f"{policy} {variant_text(variant)}".strip())
        axis.fill_between(steps, low, high, alpha=0.2)
    axis.set(title=title, xlabel="gradient steps", ylim=(0, 1.02) if rates else None)
    axis.legend(fontsize=8)


def _interval(row: Mapping[str, Any], rates: bool) -> tuple[float, float]:
    if rates:
        return row["success_low"], row["success_high"]
    half = row["return_half_width"]
    return row["mean_return"] - half, row["mean_return"] + half


def _by_step(pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[list[float]]]:
    groups: dict[int, list[float]] = {}
    for step, value in pairs:
        groups.setdefault(step, []).append(value)
    return list(groups), list(groups.values())
