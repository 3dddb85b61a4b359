"""The report as one HTML file that needs no network: page.html, the data, and plotly.js inlined."""

import base64
import importlib.resources
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guidedflow.results.aggregate import LEGEND as STATISTICS_LEGEND
from guidedflow.results.aggregate import THRESHOLDS, Aggregate, Statistics
from guidedflow.results.aggregate import show as show_estimate
from guidedflow.results.plots import Guidance, learning_curve
from guidedflow.results.runs import Method, Run, Scored
from guidedflow.results.table import LEGEND, Cell, Table, show

# Videos are embedded until they weigh this much, in bytes; plotly.js weighs 5 MB, the page shall stay below 15.
VIDEOS_AT_MOST = 4_000_000


def draw_page(table: Table, scored: Sequence[Scored], statistics: Statistics, curves: Sequence[Guidance]) -> str:
    """The page's HTML."""
    template = importlib.resources.files("guidedflow.results").joinpath("page.html").read_text(encoding="utf-8")
    plotly = importlib.resources.files("plotly.package_data").joinpath("plotly.min.js").read_text(encoding="utf-8")
    data = json.dumps(_data(table, scored, statistics, curves), allow_nan=False, separators=(",", ":"))
    # Neither may end the script element that holds it.
    filling = {"DATA": data.replace("<", "\\u003c"), "PLOTLY": plotly.replace("</script", "<\\/script")}
    return re.sub(r"\{\{(DATA|PLOTLY)\}\}", lambda match: filling[match[1]], template)


class _Pool:
    """Values that many runs share, each once; a run names its place."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        key = json.dumps(value)
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


def _data(table: Table, scored: Sequence[Scored], statistics: Statistics, curves: Sequence[Guidance]) -> dict[str, Any]:
    pool = _Pool()
    methods = {method: place for place, method in enumerate(table.methods)}
    runs = {run.path: (place, run) for place, run in enumerate({one.run.path: one.run for one in scored}.values())}
    videos, left_out = _videos(scored)
    notes = list(table.notes)
    if left_out:
        notes.append(f"{left_out} videos are left out of this page, which would grow too large; they lie in the runs")
    return {
        "legend": LEGEND,
        "statisticsLegend": STATISTICS_LEGEND,
        "notes": notes,
        "methods": [method.label for method in table.methods],
        "rows": list(table.rows),
        "cells": [_cell(cell, methods[cell.method]) for cell in table.cells.values()],
        "runs": [_run(run, pool) for _, run in runs.values()],
        "scored": [
            {
                "method": methods[one.method],
                "run": runs[one.run.path][0],
                "variant": one.variant,
                "seed": one.seed,
                "steps": pool.place([step for step, _ in one.curve]),
                "scores": [_number(score) for _, score in one.curve],
                "score": _number(one.verdict.score),
                "step": one.verdict.step,
                "comparable": not one.verdict.reasons,
                "deviations": pool.place(one.deviations),
                **({"video": videos[i]} if i in videos else {}),
            }
            for i, one in enumerate(scored)
        ],
        "aggregates": [_aggregate(one, methods) for one in statistics.aggregates],
        "improvements": [
            [one.benchmark, one.a.label, one.b.label, one.tasks, show_estimate(one.probability)]
            for one in statistics.improvements
        ],
        "thresholds": [round(100 * x, 6) for x in THRESHOLDS],
        "guidance": [curve._asdict() for curve in curves],
        "pool": pool.values,
    }


def _number(value: float | None) -> float | None:
    """Rounded to what a reader can use; what is no number becomes null."""
    return None if value is None or math.isnan(value) else round(value, 3)


def _numbers(values: Any) -> list[float | None]:
    return [_number(float(value)) for value in values]


def _cell(cell: Cell, method: int) -> dict[str, Any]:
    of_method = cell.used[0].method
    curve = learning_curve([one for one in cell.used if one.method == of_method])
    return {
        "row": cell.row,
        "method": method,
        "ours": show(cell.figure),
        "mean": _number(cell.figure.mean),
        "half": _number(cell.figure.half_width),
        "published": show(cell.published) if cell.published else None,
        "publishedMean": _number(cell.published.mean) if cell.published else None,
        "difference": _number(cell.difference),
        "differenceHalf": _number(cell.difference_half_width),
        "verdict": cell.verdict,
        "part": f"{len(cell.tasks)} of {cell.row_size} tasks" if len(cell.tasks) < cell.row_size else "",
        "bold": cell.bold,
        "publishedBold": cell.published_bold,
        "reasons": list(cell.reasons),
        "notes": list(cell.notes),
        "curve": {"steps": curve.steps, "means": _numbers(curve.means), "half": _numbers(curve.half_widths)},
    }


def _run(run: Run, pool: _Pool) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "task": run.task.id,
        "category": run.task.category,
        "benchmark": run.task.benchmark,
        "preset": run.preset,
        "finished": run.finished,
        "settings": pool.place({name: str(value) for name, value in sorted(run.settings.items())}),
        "versions": pool.place({**run.versions, "device": run.device}),
    }


def _aggregate(one: Aggregate, methods: dict[Method, int]) -> dict[str, Any]:
    share, low, high = map(_numbers, one.profile)
    return {
        "benchmark": one.benchmark,
        "method": methods[one.method],
        "tasks": one.tasks,
        "runs": one.runs,
        "comparable": one.comparable,
        "shown": [show_estimate(found) for found in (one.mean, one.interquartile_mean, one.optimality_gap)],
        "iqm": _numbers(one.interquartile_mean),
        "share": share,
        "low": low,
        "high": high,
    }


def _videos(scored: Sequence[Scored]) -> tuple[dict[int, str], int]:
    """By place in ``scored`` the first video of an agent as a data URL, and how many found no room."""
    found: dict[int, str] = {}
    left_out = weight = 0
    for i, one in enumerate(scored):
        path = _video(one)
        if path is None:
            continue
        content = path.read_bytes()
        if weight + len(content) > VIDEOS_AT_MOST:
            left_out += 1
            continue
        weight += len(content)
        found[i] = f"data:image/gif;base64,{base64.b64encode(content).decode()}"
    return found, left_out


def _video(one: Scored) -> Path | None:
    clip = "-".join(f"{one.variant} seed{one.seed} {one.method.policy}".split())
    wanted = re.compile(rf"step\d+-{re.escape(clip)}-episode\d+\.gif")
    return next((path for path in one.run.videos if wanted.fullmatch(path.name)), None)
