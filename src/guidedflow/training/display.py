"""What a user sees of a run: a progress bar, or lines where there is no terminal, and a table of results."""

import importlib.util
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import rich.progress_bar
from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from guidedflow.training.progress import Progress
from guidedflow.types import variant_text

Row = Mapping[str, Any]
_Form = Literal["long", "short", "bare"]

LINE_EVERY = 300.0
"""Seconds between lines where there is no terminal, if no tenth of the steps ends before."""
_SHORTEST_BAR, _LONGEST_BAR = 6, 40


class _LastingConsole(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read along has gone: be quiet, and let the work go on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if self.stderr else sys.stdout).fileno())


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is, and survives that its reader leaves."""
    return _LastingConsole(highlight=False, stderr=stderr, markup=False, soft_wrap=False)


def duration(seconds: float) -> str:
    """Seconds as ``0:07``, ``1:02:03`` or ``2d 03:04:05``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def evaluation_line(rows: Sequence[Row]) -> str:
    """The rows of one evaluation in short: each policy's mean over the seeds; of a sweep, those of its best variant."""
    name, show = _measure(rows)
    groups: dict[Any, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["variant"], {}).setdefault(row["policy"], []).append(row)
    main = rows[0]["policy"]
    best = max(groups, key=lambda variant: sum(row["score"] for row in groups[variant][main]))
    means = ", ".join(f"{policy} {show(mine)}" for policy, mine in groups[best].items())
    return f"{name} {means}" + (f" (best of {len(groups)}: {variant_text(best)})" if len(groups) > 1 else "")


def _measure(rows: Sequence[Row]) -> tuple[str, Any]:
    """What the rows' score is made of, and how a mean of it is shown."""

    def mean(mine: Sequence[Row], key: str) -> float:
        return sum(row[key] for row in mine) / len(mine)

    if all(math.isclose(row["score"], 100 * row["success"], abs_tol=1e-9) for row in rows):
        return "success", lambda mine: f"{mean(mine, 'success'):.0%}"
    if all(math.isclose(row["score"], row["mean_return"]) for row in rows):
        return "return", lambda mine: f"{mean(mine, 'mean_return'):.1f}"
    return "score", lambda mine: f"{mean(mine, 'score'):.1f}"


# ------------------------------------------------------------------------------------------------------ progress


class ProgressBar:
    """Steps, time left, losses and evaluations: as a bar in a terminal or a notebook, else a line now and then.

    A callback of ``train``, ``resume`` and ``evaluate``, which use it unless they are called with ``progress=False``.
    It writes to standard error.
    """

    def __init__(self, console: Console | None = None):
        self._console = make_console(stderr=True) if console is None else console
        # Rich draws in a notebook by means of ipywidgets.
        drawn = self._console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        self._live: Live | None = None
        self._draws = drawn or self._console.is_terminal
        self._picture = _Picture()
        self._before: Progress | None = None
        self._printed: Progress | None = None

    def on_progress(self, progress: Progress) -> None:
        """Show where the run is."""
        if not self._draws:
            self._print_line(progress)
            return
        self._picture.show(progress)
        if self._live is None:
            self._live = Live(self._picture, console=self._console, transient=True, refresh_per_second=2)
            self._live.start()
        if progress.phase == "stopping":
            self._live.refresh()

    def on_evaluation(self, progress: Progress) -> None:
        """Print the means of an evaluation, which stay readable above the bar."""
        if progress.evaluations:
            step = progress.evaluations[0]["step"]
            place = _place(step, progress) if self._draws else _place(step, progress, timed=True)
            self._console.print(f"{place}: {evaluation_line(progress.evaluations)}", soft_wrap=not self._draws)

    def on_end(self, progress: Progress) -> None:
        """Remove the bar; the run has ended, or was stopped."""
        if self._live is not None:
            self._picture.show(progress)  # A notebook keeps what was drawn last.
            self._live.stop()
            self._live = None

    def _print_line(self, progress: Progress) -> None:
        is_new = self._before is None or self._before.phase != progress.phase
        self._before, self._printed = progress, self._printed or progress
        if progress.phase == "stopping" and is_new:
            text = _detail(progress)
        elif progress.phase == "compiling" and is_new and progress.step:
            text = "continuing from here"
        elif progress.phase in ("training", "evaluating") and _is_line_due(self._printed, progress):
            rate = f"{progress.updates_per_second:,.0f} updates/s  " if progress.phase == "training" else ""
            text = rate + _detail(progress)
        else:
            return
        self._printed = progress
        self._console.print(f"{_place(progress.step, progress, timed=True)}: {text.rstrip()}", soft_wrap=True)


def _is_line_due(printed: Progress, progress: Progress) -> bool:
    is_tenth = progress.step - printed.step >= progress.steps / 10
    return is_tenth or progress.elapsed - printed.elapsed >= LINE_EVERY


class _Picture:
    """The bar and what the run does, on as many columns as there are."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._shown = 0.0
        self._rate = 0.0

    def show(self, progress: Progress) -> None:
        """Take what is drawn from now on."""
        self._progress, self._shown = progress, time.monotonic()
        if progress.updates_per_second:
            self._rate = progress.updates_per_second

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._progress is None:
            return
        since = time.monotonic() - self._shown
        line = _bar_line(self._progress, self._rate, since, options.max_width)
        yield Group(line, Text(_detail(self._progress), no_wrap=True, overflow="ellipsis", style="dim"))


def _bar_line(progress: Progress, rate: float, since: float, width: int) -> Table:
    """How far the run is, a bar, and the time left; the rate and the time elapsed where there is room for them."""
    done, total, unit = progress.step, progress.steps, "steps"
    if progress.phase == "evaluating" and done == total and progress.episodes_total:  # No steps are to come.
        done, total, unit = progress.episodes_done, progress.episodes_total, "episodes"
    count = f"{done:,}/{total:,}"
    left = _left(progress, since)
    room = width - len(count) - len(left) - 2 - _SHORTEST_BAR
    if room < 0:
        count = f"{done / max(total, 1):.0%}"
    extras = {"unit": unit, "rate": f"{rate:,.0f}/s" if rate else "", "elapsed": ""}
    extras["elapsed"] = f"{duration(progress.elapsed + since)} elapsed"
    for name, text in extras.items():
        room -= len(text) + 1 if text else 0
        if room < 0:
            extras[name] = ""
            room += len(text) + 1
    if extras["unit"]:
        count += f" {unit}"
    bar = rich.progress_bar.ProgressBar(max(total, 1), done, width=min(_LONGEST_BAR, _SHORTEST_BAR + max(0, room)))
    cells: list[RenderableType] = [count, bar, *(text for text in (extras["rate"], extras["elapsed"], left) if text)]
    line = Table.grid(padding=(0, 1, 0, 0))
    for _ in cells:
        line.add_column(no_wrap=True)
    line.add_row(*cells)
    return line


def _detail(progress: Progress) -> str:
    """What the run does right now."""
    if progress.phase == "training":
        return "  ".join(
            f"{name.removesuffix('_loss')} {value:.3g}"
            for name, value in progress.metrics.items()
            if name.endswith("_loss") and "/" not in name
        )
    if progress.phase == "evaluating" and progress.episodes_total:
        return f"evaluating: {progress.episodes_done:,}/{progress.episodes_total:,} episodes"
    return "stopping: the run is being saved" if progress.phase == "stopping" else progress.phase


def _left(progress: Progress, since: float = 0.0) -> str:
    """The time left; more than that of the steps while nobody knows how long an evaluation takes."""
    if progress.seconds_left is not None:
        return f"{duration(progress.seconds_left - since)} left"
    if progress.updates_per_second:
        return f">{duration((progress.steps - progress.step) / progress.updates_per_second - since)} left"
    return ""


def _place(step: int, progress: Progress, *, timed: bool = False) -> str:
    place = f"step {step:,}/{progress.steps:,}"
    if timed:
        left = _left(progress)
        place = f"{place}, {duration(progress.elapsed)} elapsed{f', {left}' if left else ''}"
    return place


# ------------------------------------------------------------------------------------------------------- results


def results_table(rows: Sequence[Row], summary_rows: Sequence[Row]) -> ConsoleRenderable:
    """What an evaluation found: a row a policy and seed, then their means; of a sweep, the ranking of its variants.

    Where the terminal is narrow, the least important columns are left out.

    Args:
        rows: of one evaluation, as in evaluations.csv.
        summary_rows: their means over the seeds, best variant first (``runs.summary.over_seeds``).
    """
    return _Results(rows, summary_rows)


def assessment_table(rows: Sequence[Row]) -> Table:
    """The ranking of an assessment, and the means over several seeds.

    Args:
        rows: of assessment.csv, the best first.
    """
    variants, seeds = ({row[name] for row in rows} for name in ("variant", "seed"))
    is_drawn = any(row["least_action_error"] < row["action_error"] for row in rows)
    columns = {"variant": len(variants) > 1, "policy": True, "step": True, "seed": True, "value [95% interval]": True}
    columns |= {"action error": True, "of the nearest of 8": is_drawn, "at limits": True}
    shown = [name for name, is_shown in columns.items() if is_shown]
    table = Table(*shown)
    for part in (rows, _means_over_seeds(rows) if len(seeds) > 1 else ()):
        for row in part:
            low, high = row["value_low"], row["value_high"]
            interval = "" if math.isnan(low) else f"  [{low:.2f}, {high:.2f}]"
            cells = {
                "variant": variant_text(row["variant"]),
                "policy": row["policy"],
                "step": f"{row['step']:,}",
                "seed": str(row["seed"]),
                "value [95% interval]": "-" if math.isnan(row["value"]) else f"{row['value']:.2f}{interval}",
                "action error": f"{row['action_error']:.3g}",
                "of the nearest of 8": f"{row['least_action_error']:.3g}",
                "at limits": f"{row['at_limits']:.1%}",
            }
            table.add_row(*(cells[name] for name in shown))
        table.add_section()
    by = "action error" if math.isnan(rows[0]["value"]) else "value"
    table.caption = f"best first, by the {by} on {rows[0]['data']}"
    return table


def _means_over_seeds(rows: Sequence[Row]) -> list[Row]:
    """A row a variant, policy and step, the best first, without intervals."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["policy"], row["step"]), []).append(row)
    means = []
    for mine in groups.values():
        measured = ("value", "action_error", "least_action_error", "at_limits")
        numbers = {name: sum(row[name] for row in mine) / len(mine) for name in measured}
        means.append({**mine[0], **numbers, "seed": f"mean of {len(mine)}", "value_low": math.nan})
    is_valued = not math.isnan(rows[0]["value"])
    return sorted(means, key=lambda row: -row["value"] if is_valued else row["action_error"])


class _Results:
    def __init__(self, rows: Sequence[Row], summary_rows: Sequence[Row]):
        is_sweep = len({row["variant"] for row in rows}) > 1
        seeds = max((row["seeds"] for row in summary_rows), default=1)
        self._has_success = any(not math.isnan(row["success"]) for row in rows)
        # Each seed's figures of a sweep are in evaluations.csv: the table is the ranking.
        self._parts = [] if is_sweep else [[(row, str(row["seed"])) for row in rows]]
        if is_sweep or seeds > 1:
            name = f"mean of {seeds}" if seeds > 1 else str(rows[0]["seed"])
            self._parts.append([(row, name) for row in summary_rows])
        columns = {"variant": is_sweep, "policy": True, "seed": True, "score": _measure(rows)[0] == "score"}
        columns |= {"success": self._has_success, "mean return": True, "episodes": True}
        self._columns = [name for name, is_shown in columns.items() if is_shown]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.fitting(options.max_width)

    def fitting(self, width: int) -> Table:
        """The table with as much as fits on so many columns of a terminal."""
        left_out: tuple[str, ...] = ()
        for name in ("", "episodes", "mean return", "seed"):
            left_out += (name,) if name != "mean return" or self._has_success else ()
            shown = [column for column in self._columns if column not in left_out]
            forms: tuple[_Form, ...] = ("long", "short", "bare") if name == "mean return" else ("long", "short")
            for form in forms:
                table = _table(self._parts, shown, form)
                if Console(width=1000).measure(table).maximum <= width:
                    return table
        return _table(self._parts, shown, "bare")


def _table(parts: Sequence[Sequence[tuple[Row, str]]], columns: Sequence[str], form: _Form) -> Table:
    titles = {"long": "success rate [95% interval]", "short": "success [95%]", "bare": "success"}
    names = [titles[form] if name == "success" else name for name in columns]
    table = Table(*names) if form == "long" else Table(*names, box=SIMPLE, padding=0)
    for part in parts:
        for row, seed in part:
            cells = {
                "variant": variant_text(row["variant"]),
                "policy": row["policy"],
                "seed": seed,
                "score": f"{row['score']:.1f}",
                "success": _success(row, form),
                "mean return": f"{row['mean_return']:.1f}",
                "episodes": str(row["episodes"]),
            }
            table.add_row(*(cells[name] for name in columns))
        table.add_section()
    if "variant" in columns:
        ranking = [row for row, _ in parts[-1]]
        table.caption = f"best first, by the {_measure(ranking)[0]} of {ranking[0]['policy']}"
    return table


def _success(row: Row, form: _Form) -> str:
    low, high = row["success_low"], row["success_high"]
    if math.isnan(row["success"]):
        return "-"
    if form == "long":
        return f"{row['success']:6.1%}" + ("" if math.isnan(low) else f"  [{low:.1%}, {high:.1%}]")
    is_known = form == "short" and not math.isnan(low)
    return f"{row['success']:4.0%}" + (f" [{100 * low:.0f}, {100 * high:.0f}]" if is_known else "")
