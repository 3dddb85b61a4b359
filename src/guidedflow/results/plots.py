"""The pictures of a report, as SVG and PNG."""

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from guidedflow.results.aggregate import BENCHMARKS, THRESHOLDS, Statistics
from guidedflow.results.runs import GUIDANCE, Method, Scored
from guidedflow.results.statistics import over_tasks_and_seeds
from guidedflow.results.table import Table

COLUMNS = 4
FORMATS = ("svg", "png")


class Curve(NamedTuple):
    """Mean score over tasks and seeds at each step, and half of its 95% interval over seeds (NaN with one seed)."""

    steps: tuple[int, ...]
    means: tuple[float, ...]
    half_widths: tuple[float, ...]


class Guidance(NamedTuple):
    """GFP's guidance over training, averaged over the runs with the same eta."""

    eta: float
    steps: tuple[int, ...]
    means: tuple[float, ...]
    above_half: tuple[float, ...]


def learning_curve(scored: Sequence[Scored]) -> Curve:
    """Of one method's runs; at the steps at which all of its tasks have at least one evaluation."""
    at: dict[int, dict[str, dict[int, float]]] = {}
    tasks = {one.run.task.id for one in scored}
    for one in scored:
        for step, score in one.curve:
            at.setdefault(step, {}).setdefault(one.run.task.id, {})[one.seed] = score
    steps = sorted(step for step, found in at.items() if len(found) == len(tasks))
    figures = [over_tasks_and_seeds(at[step]) for step in steps]
    return Curve(tuple(steps), tuple(f.mean for f in figures), tuple(f.half_width for f in figures))


def guidance_curves(scored: Sequence[Scored], points: int = 60) -> list[Guidance]:
    """One curve for each eta, weakest filter last."""
    groups: dict[float, list[Mapping[str, Any]]] = {}
    for run in {one.run.path: one.run for one in scored}.values():
        for row in run.guidance:
            swept = dict(pair.split("=") for pair in row["variant"].split())
            groups.setdefault(float(swept.get("eta", run.settings["eta"])), []).append(row)
    curves = []
    for eta, rows in sorted(groups.items()):
        table = np.array([[row["step"], *(row[name] for name in GUIDANCE)] for row in rows])
        # Runs are written at steps of their own, so what lies close together is averaged.
        edges = np.linspace(0, table[:, 0].max(), points + 1)
        bins = np.digitize(table[:, 0], edges[1:-1], right=True)
        means = np.array([table[bins == i].mean(axis=0) for i in np.unique(bins)])
        steps, mean, above = means.T.tolist()
        curves.append(Guidance(eta, tuple(round(step) for step in steps), tuple(mean), tuple(above)))
    return curves


def draw_all(
    table: Table, scored: Sequence[Scored], statistics: Statistics, curves: Sequence[Guidance]
) -> Iterator[tuple[str, bytes]]:
    """Every picture as a file's name and content, each in ``FORMATS``."""
    from matplotlib import rc_context

    colours = {method: f"C{i % 10}" for i, method in enumerate(table.methods)}
    drawings: dict[str, Callable[[], Any]] = {}
    for row in table.rows:
        mine = [one for one in scored if one.run.task.category == row]
        if mine:
            drawings[f"curves-{row.replace('/', '-')}"] = functools.partial(_curves, row, mine, colours)
    drawings["performance-profile"] = functools.partial(_profiles, statistics, colours)
    drawings["categories"] = functools.partial(_bars, table, colours)
    if curves:
        drawings["guidance"] = functools.partial(_guidance, curves)
    # Text stays text in SVG, and the same runs give the same file.
    with rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "guidedflow",
            "font.size": 9,
            "axes.grid": True,
            "axes.axisbelow": True,
        }
    ):
        for name, draw in drawings.items():
            figure = draw()
            for kind in FORMATS:
                content = io.BytesIO()
                figure.savefig(content, format=kind, dpi=100, metadata={"Date": None} if kind == "svg" else None)
                yield f"{name}.{kind}", content.getvalue()


def _panels(
    count: int, width: float = 3.0, height: float = 2.2, *, share: bool = False, left: float = 0.6, bottom: float = 1.0
) -> tuple[Any, list[Any]]:
    """A figure with ``count`` axes of this size in inches, and room below them for a legend."""
    from matplotlib.figure import Figure  # No pyplot: no screen and no global state needed.

    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    wide, high = width * columns + 0.2, height * rows + bottom
    figure = Figure(figsize=(wide, high))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flatten().tolist()
    # Measuring every label, as Matplotlib's layouts do, takes as long as drawing them.
    inside = {"wspace": 0.25 if share else 0.35, "hspace": 0.35 if share else 0.5}
    figure.subplots_adjust(left=left / wide, right=1 - 0.2 / wide, top=1 - 0.35 / high, bottom=bottom / high, **inside)
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis in axes[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)  # Of shared axes, those with nothing below them.
    return figure, axes[:count]


def _finish(figure: Any, entries: Mapping[str, Any]) -> Any:
    columns = max(1, int(figure.get_figwidth() / 2.2))
    figure.legend(list(entries.values()), list(entries), loc="lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def _curves(row: str, scored: Sequence[Scored], colours: Mapping[Method, str]) -> Any:
    """The category's mean first, then each task."""
    by_task: dict[str, list[Scored]] = {}
    for one in scored:
        by_task.setdefault(one.run.task.id, []).append(one)
    titled = {row: scored, **by_task} if len(by_task) > 1 else by_task
    by_success = scored[0].run.task.scored_by == "success"
    figure, axes = _panels(len(titled), share=by_success)
    entries: dict[str, Any] = {}
    for axis, (title, mine) in zip(axes, titled.items(), strict=True):
        there = {one.method for one in mine}
        for method in filter(there.__contains__, colours):
            curve = learning_curve([one for one in mine if one.method == method])
            means, half = np.array(curve.means), np.array(curve.half_widths)
            (entries[method.label],) = axis.plot(curve.steps, means, color=colours[method], marker=".")
            axis.fill_between(curve.steps, means - half, means + half, color=colours[method], alpha=0.2, linewidth=0)
        axis.set_title(title, fontsize=7)
        # Intervals of two seeds reach far beyond the scores that there can be.
        axis.set(ylim=(-3, 103) if by_success else None)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
    axes[0].set_ylabel("score")
    axes[-1].set_xlabel("gradient steps")
    return _finish(figure, entries)


def _profiles(statistics: Statistics, colours: Mapping[Method, str]) -> Any:
    there = [name for name in BENCHMARKS if any(one.benchmark == name for one in statistics.aggregates)]
    figure, axes = _panels(len(there), width=4.0, height=3.0)
    entries: dict[str, Any] = {}
    for axis, benchmark in zip(axes, there, strict=True):
        for one in statistics.aggregates:
            if one.benchmark == benchmark:
                share, low, high = one.profile
                (entries[one.method.label],) = axis.plot(100 * THRESHOLDS, share, color=colours[one.method])
                axis.fill_between(100 * THRESHOLDS, low, high, color=colours[one.method], alpha=0.2, linewidth=0)
        axis.set(title=benchmark, xlabel="score", ylabel="share of runs above it", ylim=(0, 1.02))
    return _finish(figure, entries)


def _bars(table: Table, colours: Mapping[Method, str]) -> Any:
    """Ours as bars, the published figures as marks; hollow bars may not be compared with them."""
    width = max(5.0, 0.12 * len(table.rows) * (len(table.methods) + 2) + 2.0)
    figure, axes = _panels(1, width=width, height=3.0, left=1.4, bottom=2.6)
    (axis,) = axes
    entries: dict[str, Any] = {}
    width = 0.8 / len(table.methods)
    for i, method in enumerate(table.methods):
        cells = [(at, table.cells[row, method]) for at, row in enumerate(table.rows) if (row, method) in table.cells]
        for at, cell in cells:
            place = at - 0.4 + (i + 0.5) * width
            half = cell.figure.half_width
            (bar,) = axis.bar(
                place,
                cell.figure.mean,
                width * 0.9,
                color="none" if cell.reasons else colours[method],
                edgecolor=colours[method],
                yerr=None if np.isnan(half) else half,
                error_kw={"elinewidth": 0.8},
            )
            if not cell.reasons or method.label not in entries:
                entries[method.label] = bar
            if cell.published is not None:
                entries["published"] = axis.scatter(
                    place, cell.published.mean, marker="D", s=12, color="black", zorder=3
                )
    axis.set_xticks(range(len(table.rows)), table.rows, rotation=60, ha="right", fontsize=7)
    axis.set(ylabel="score; hollow: not comparable", xlim=(-0.6, len(table.rows) - 0.4))
    return _finish(figure, entries)


def _guidance(curves: Sequence[Guidance]) -> Any:
    from matplotlib import colormaps

    figure, axes = _panels(2, width=4.0, height=3.0)
    entries: dict[str, Any] = {}
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(curves)))
    for curve, colour in zip(curves, colours, strict=True):
        (entries[f"eta = {curve.eta:g}"],) = axes[0].plot(curve.steps, curve.means, color=colour)
        axes[1].plot(curve.steps, curve.above_half, color=colour)
    axes[0].set(title="mean guidance g", xlabel="gradient steps", ylim=(0, None))
    axes[1].set(title="share of the batch with g > 0.5", xlabel="gradient steps", ylim=(0, 1.02))
    return _finish(figure, entries)
