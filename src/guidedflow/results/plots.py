"""The pictures of a report, as SVG and PNG."""

import functools
import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from guidedflow.results.aggregate import THRESHOLDS, Statistics
from guidedflow.results.columns import Method, Records, Scored, learning_curve
from guidedflow.results.guidance import GuidanceCurve
from guidedflow.results.reference import published
from guidedflow.results.rendering import in_all
from guidedflow.results.table import Cell, Row, Table

FORMATS = ("svg", "png")
COLUMNS = 4
# Okabe and Ito's, which most eyes tell apart; what comes after them begins anew with another line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#222222", "#8b5a2b", "#7f7fff", "#808000")
LINES = ("-", "--", ":", "-.")
DPI = 100
# In inches.
EDGE, ROW_OF_TEXT, GAP = 0.15, 0.17, 0.1
CHARACTERS_AN_INCH = 14
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # Text stays text.
    "svg.hashsalt": "guidedflow",  # The same runs give the same file.
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e3e7ec",
}


class Sheet(NamedTuple):
    """A figure with panels, whose margins in inches leave room for what stands there."""

    figure: Any
    panels: list[Any]
    left: float
    bottom: float
    between: tuple[float, float]
    """Widths and heights between panels, in inches."""
    grid: tuple[int, int]
    """Rows and columns of panels."""
    size: tuple[float, float]
    """Width and height of a panel in inches."""


def drawings(
    table: Table, records: Records, statistics: Statistics, curves: Sequence[GuidanceCurve]
) -> dict[str, Callable[[], Any]]:
    """Every picture's name, and the function that draws it as a Matplotlib figure."""
    looks = {method: _Look.of(i) for i, method in enumerate(table.methods)}
    shared = in_all(table)
    found: dict[str, Callable[[], Any]] = {}
    for row in table.of_kind("category"):
        mine = list(filter(row.holds, records.scored))
        found[f"curves-{_file_name(row.name)}"] = functools.partial(_curves, row, mine, looks, shared)
    if statistics.methods:
        found["performance-profile"] = functools.partial(_profiles, statistics, looks, shared)
    found["categories"] = functools.partial(_bars, table, looks, shared)
    if curves:
        found["guidance"] = functools.partial(_guidance, curves)
    return found


def render(draw: Callable[[], Any]) -> Iterator[tuple[str, bytes]]:
    """A picture in each of ``FORMATS``: the format and the file's content."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = draw()
        for kind in FORMATS:
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
            yield kind, content.getvalue()


class _Look(NamedTuple):
    colour: str
    line: str

    @classmethod
    def of(cls, place: int) -> "_Look":
        return cls(COLOURS[place % len(COLOURS)], LINES[place // len(COLOURS) % len(LINES)])


def _file_name(row: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in row)


# ---------------------------------------------------------------------------------------------------------- layout


def _sheet(
    count: int,
    width: float = 2.6,
    height: float = 1.9,
    *,
    share: bool = False,
    left: float = 0.6,
    bottom: float = 0.5,
    between: tuple[float, float] = (0.3, 0.6),
) -> Sheet:
    """A sheet with ``count`` panels of this size in inches."""
    from matplotlib.figure import Figure  # No pyplot: no screen and no global state needed.

    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure()
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flatten().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis in axes[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)  # Of shared axes, those with nothing below them.
    return Sheet(figure, axes[:count], left, bottom, between, (rows, columns), (width, height))


def _finish(sheet: Sheet, entries: Mapping[str, Any], title: str) -> Any:
    """Give the figure its size: what the panels need, a title above them and a legend below.

    Only the legend is measured. Measuring every label, as Matplotlib's layouts do, takes as long as drawing them.
    """
    figure, (rows, columns), (across, down) = sheet.figure, sheet.grid, sheet.between
    wide = sheet.left + columns * sheet.size[0] + (columns - 1) * across + 2 * EDGE
    wide = max(wide, 4.5)
    lines = textwrap.wrap(title, max(20, int(CHARACTERS_AN_INCH * wide)))
    top = EDGE + ROW_OF_TEXT * len(lines) + 0.3
    panels = rows * sheet.size[1] + (rows - 1) * down
    figure.set_size_inches(wide, 10)  # The legend is measured in the width that it will have.
    legend, legend_height = _legend(figure, entries, wide - 2 * EDGE)
    bottom = EDGE + legend_height + (GAP if legend else 0.0) + sheet.bottom
    high = top + panels + bottom
    figure.set_size_inches(wide, high)
    if legend:
        legend.set_loc("lower left")
        legend.set_bbox_to_anchor((EDGE / wide, EDGE / high))
    figure.text(EDGE / wide, 1 - EDGE / high, "\n".join(lines), va="top", fontsize=8, color="#444444")
    figure.subplots_adjust(
        left=sheet.left / wide,
        right=1 - 2 * EDGE / wide,
        top=1 - top / high,
        bottom=bottom / high,
        wspace=across / sheet.size[0],
        hspace=down / sheet.size[1],
    )
    return figure


def _legend(figure: Any, entries: Mapping[str, Any], room: float) -> tuple[Any, float]:
    """A legend in as many columns as fit into ``room`` inches, and its height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if not entries:
        return None, 0.0
    figure.set_dpi(DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    labels = [textwrap.fill(label, max(20, int(CHARACTERS_AN_INCH * room) - 8)) for label in entries]
    for columns in range(len(entries), 0, -1):
        legend = figure.legend(
            list(entries.values()),
            labels,
            loc="lower left",
            ncols=columns,
            frameon=False,
            fontsize=8,
            borderpad=0,
            borderaxespad=0,
            columnspacing=1.5,
        )
        box = legend.get_window_extent(renderer)
        if box.width / DPI <= room or columns == 1:
            break
        legend.remove()
    return legend, box.height / DPI


# -------------------------------------------------------------------------------------------------------- pictures


def _curves(row: Row, scored: Sequence[Scored], looks: Mapping[Method, _Look], shared: str) -> Any:
    """The category's mean first, then each task; at the right edge what was published."""
    by_task: dict[str, list[Scored]] = {}
    for one in scored:
        by_task.setdefault(one.run.subject.id, []).append(one)
    titled = {"mean over tasks": scored, **by_task} if len(by_task) > 1 else by_task
    by_success = scored[0].run.subject.by_success
    sheet = _sheet(len(titled), share=by_success, between=(0.25 if by_success else 0.5, 0.6))
    entries: dict[str, Any] = {}
    is_marked = False
    for axis, (title, mine) in zip(sheet.panels, titled.items(), strict=True):
        place, size = (title, 1) if title in by_task else (row.name, row.size)
        for method in [method for method in looks if any(one.method == method for one in mine)]:
            drawn = [one for one in mine if one.method == method]
            entries[method.label] = _curve(axis, drawn, looks[method])
            is_marked |= _mark_published(axis, method, place, size, drawn, looks[method].colour)
        axis.set_title("\n".join(textwrap.wrap(title, 42)), fontsize=7)
        axis.xaxis.set_major_formatter(_steps)
        if by_success:
            axis.set_ylim(-3, 103)
    for axis in sheet.panels[:: sheet.grid[1]]:
        axis.set_ylabel("score")
    for axis in sheet.panels[-sheet.grid[1] :]:
        axis.set_xlabel("gradient steps")
    explained = "Lines: means over seeds; bands: 95% intervals"
    explained += "; diamonds: published, after all its steps" if is_marked else ""
    return _finish(sheet, entries, f"{row.name}. {explained}. {shared}".strip())


def _mark_published(axis: Any, method: Method, place: str, size: int, scored: Sequence[Scored], colour: str) -> bool:
    """A mark at the published figure of the tasks of these scores; whether there is one."""
    tasks = tuple(dict.fromkeys(one.run.subject.id for one in scored))
    figure = published().figure(method.published, place, tasks, size) if method.published else None
    if figure is None:
        return False
    style = {"color": colour, "marker": "D", "markersize": 4, "clip_on": False}
    axis.plot([1.0], [figure.mean], transform=axis.get_yaxis_transform(), **style)
    return True


def _curve(axis: Any, scored: Sequence[Scored], look: _Look) -> Any:
    curve = learning_curve(scored)
    (line,) = axis.plot(curve.steps, curve.means, color=look.colour, linestyle=look.line, marker=".", markersize=4)
    if len(curve.steps) == 1:  # A band of one step cannot be seen.
        axis.vlines(curve.steps, curve.low, curve.high, color=look.colour, alpha=0.4)
    axis.fill_between(curve.steps, curve.low, curve.high, color=look.colour, alpha=0.15, linewidth=0)
    return line


def _steps(value: float, _: Any) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _profiles(statistics: Statistics, looks: Mapping[Method, _Look], shared: str) -> Any:
    sheet = _sheet(len(statistics.suites), 3.6, 2.7, between=(0.6, 0.6))
    entries: dict[str, Any] = {}
    for axis, suite in zip(sheet.panels, statistics.suites, strict=True):
        for one in statistics.methods:
            if one.suite == suite:
                (share, low, high), look = one.profile, looks[one.method]
                (line,) = axis.plot(100 * THRESHOLDS, share, color=look.colour, linestyle=look.line)
                axis.fill_between(100 * THRESHOLDS, low, high, color=look.colour, alpha=0.15, linewidth=0)
                entries[one.method.label] = line
        axis.set(title=suite, xlabel="score", ylim=(0, 1.02))
    sheet.panels[0].set_ylabel("share of runs above it")
    return _finish(sheet, entries, f"Performance profiles with 95% intervals. {shared}".strip())


def _bars(table: Table, looks: Mapping[Method, _Look], shared: str) -> Any:
    """Ours as bars, the published figures as diamonds; hollow bars may not be compared with them."""
    from matplotlib.patches import Patch

    rows = table.of_kind("category", "average")
    thickness = 0.13
    places: list[float] = []
    entries: dict[str, Any] = {}
    top = 0.0
    height = sum(len(_cells_of(table, row.name)) * thickness + thickness for row in rows)
    longest = max(len(row.name) for row in rows)
    sheet = _sheet(1, 5.0, max(1.0, height), left=0.3 + longest * 0.075, bottom=0.45)
    (axis,) = sheet.panels
    for row in rows:
        cells = _cells_of(table, row.name)
        for i, cell in enumerate(cells):
            _bar(axis, top + i * thickness, thickness, cell, looks[cell.method])
        places.append(top + (len(cells) - 1) * thickness / 2)
        top += (len(cells) + 1) * thickness
    axis.set_yticks(places, [row.name for row in rows], fontsize=8)
    axis.set(xlabel="score", ylim=(top - thickness, -thickness))
    axis.grid(axis="y", visible=False)
    entries = {method.label: Patch(color=look.colour) for method, look in looks.items()}
    if any(cell.reasons for cell in table.cells.values()):
        entries["hollow: not comparable"] = Patch(facecolor="white", edgecolor="black")
    if any(cell.published for cell in table.cells.values()):
        entries["published"] = axis.scatter([], [], marker="D", s=12, color="black")
    return _finish(sheet, entries, f"Means over tasks and seeds with 95% intervals. {shared}".strip())


def _cells_of(table: Table, row: str) -> list[Cell]:
    return [table.cells[row, method] for method in table.methods if (row, method) in table.cells]


def _bar(axis: Any, place: float, thickness: float, cell: Cell, look: _Look) -> None:
    figure, (low, high) = cell.figure, cell.figure.interval
    fill = "none" if cell.reasons else look.colour
    axis.barh(place, figure.mean, thickness * 0.85, color=fill, edgecolor=look.colour, linewidth=0.8)
    if not math.isnan(low):
        axis.hlines(place, low, high, color="black", linewidth=0.8)
    if cell.published is not None:
        axis.scatter(cell.published.mean, place, marker="D", s=12, color="black", zorder=3)


def _guidance(curves: Sequence[GuidanceCurve]) -> Any:
    from matplotlib import colormaps

    sheet = _sheet(2, 3.6, 2.7, between=(0.5, 0.6))
    entries: dict[str, Any] = {}
    for curve, colour in zip(curves, colormaps["viridis"](np.linspace(0, 0.9, len(curves))), strict=True):
        (entries[f"eta = {curve.eta:g}"],) = sheet.panels[0].plot(curve.steps, curve.means, color=colour)
        sheet.panels[1].plot(curve.steps, curve.above_half, color=colour)
    for axis, title, top in zip(
        sheet.panels, ("mean guidance g", "share of the batch with g > 0.5"), (None, 1.02), strict=True
    ):
        axis.set(title=title, xlabel="gradient steps", ylim=(0, top))
        axis.xaxis.set_major_formatter(_steps)
    return _finish(sheet, entries, "GFP's guidance over training, means over runs with the same eta.")
