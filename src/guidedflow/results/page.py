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
from guidedflow.results.aggregate import THRESHOLDS, MethodStatistics, Statistics
from guidedflow.results.aggregate import show as show_estimate
from guidedflow.results.columns import Method, Records, Scored, learning_curve
from guidedflow.results.guidance import GuidanceCurve
from guidedflow.results.plots import COLOURS
from guidedflow.results.records import RunRecord
from guidedflow.results.rendering import LEGEND, in_all, show
from guidedflow.results.table import Cell, Table
from guidedflow.types import variant_text

# Videos are embedded until they weigh this much, in bytes; plotly.js weighs 5 MB, the page shall stay below 15.
VIDEOS_AT_MOST = 4_000_000


def draw_page(table: Table, records: Records, statistics: Statistics, curves: Sequence[GuidanceCurve]) -> str:
    """The page's HTML."""
    template = importlib.resources.files("guidedflow.results").joinpath("page.html").read_text(encoding="utf-8")
    plotly = importlib.resources.files("plotly.package_data").joinpath("plotly.min.js").read_text(encoding="utf-8")
    data = json.dumps(_data(table, records, statistics, curves), allow_nan=False, separators=(",", ":"))
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


def _data(table: Table, records: Records, statistics: Statistics, curves: Sequence[GuidanceCurve]) -> dict[str, Any]:
    pool = _Pool()
    methods = {method: place for place, method in enumerate(table.methods)}
    runs = {one.run.path: one.run for one in records.scored}
    places = {path: place for place, path in enumerate(runs)}
    videos, left_out = _videos(records.scored)
    notes = list(table.notes)
    if left_out:
        notes.append(f"{left_out} videos are left out of this page, which would grow too large; they lie in the runs")
    scored = [_scored(one, methods[one.method], places[one.run.path], pool) for one in records.scored]
    for i, video in videos.items():
        scored[i]["video"] = video
    return {
        "legend": LEGEND,
        "statisticsLegend": STATISTICS_LEGEND,
        "colours": COLOURS,
        "shared": in_all(table),
        "notes": notes,
        "methods": [method.label for method in table.methods],
        "rows": [row._asdict() for row in table.rows],
        "cells": [_cell(cell, methods[cell.method]) for cell in table.cells.values()],
        "runs": [_run(run, pool) for run in runs.values()],
        "scored": scored,
        "aggregates": [_statistics(one, methods) for one in statistics.methods],
        "improvements": [
            [one.suite, one.a.label, one.b.label, one.tasks, show_estimate(one.probability)]
            for one in statistics.improvements
        ],
        "thresholds": [round(100 * x, 6) for x in THRESHOLDS],
        "guidance": [curve._asdict() for curve in curves],
        "pool": pool.values,
    }


def _number(value: float | None) -> float | None:
    """Rounded to what a reader can use; what is no number becomes null."""
    return None if value is None or not math.isfinite(value) else round(value, 3)


def _numbers(values: Any) -> list[float | None]:
    return [_number(float(value)) for value in values]


def _scored(one: Scored, method: int, run: int, pool: _Pool) -> dict[str, Any]:
    return {
        "method": method,
        "run": run,
        "variant": variant_text(one.variant),
        "seed": one.seed,
        "steps": pool.place([evaluation.step for evaluation in one.evaluations]),
        "scores": [_number(evaluation.score.value) for evaluation in one.evaluations],
        "score": _number(one.verdict.score.value),
        "step": one.verdict.step,
        "comparable": not one.verdict.reasons,
        "deviations": pool.place(one.deviations),
    }


def _cell(cell: Cell, method: int) -> dict[str, Any]:
    curve, other = learning_curve(cell.used), cell.published
    low, high = map(_number, cell.figure.interval)
    return {
        "row": cell.row.name,
        "method": method,
        "ours": show(cell.figure),
        "mean": _number(cell.figure.mean),
        "low": low,
        "high": high,
        "published": show(other) if other else None,
        "publishedMean": _number(other.mean) if other else None,
        "difference": _number(cell.difference),
        "differenceInterval": _numbers(cell.difference_interval),
        "verdict": cell.verdict,
        "part": f"{len(cell.tasks)} of {cell.row.size} tasks" if len(cell.tasks) < cell.row.size else "",
        "bold": cell.bold,
        "publishedBold": cell.published_bold,
        "reasons": list(cell.reasons),
        "notes": list(cell.notes),
        "curve": {
            "steps": curve.steps,
            "means": _numbers(curve.means),
            "low": _numbers(curve.low),
            "high": _numbers(curve.high),
        },
    }


def _run(run: RunRecord, pool: _Pool) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "task": run.subject.id,
        "category": run.subject.category,
        "suite": run.subject.suite,
        "finished": run.is_finished,
        "settings": pool.place({name: str(value) for name, value in sorted(run.settings.items())}),
        "versions": pool.place({**run.versions, "device": run.device}),
    }


def _statistics(one: MethodStatistics, methods: dict[Method, int]) -> dict[str, Any]:
    share, low, high = map(_numbers, one.profile)
    return {
        "suite": one.suite,
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
    clip = "-".join(f"{variant_text(one.variant)} seed{one.seed} {one.method.policy}".split())
    wanted = re.compile(rf"step\d+-{re.escape(clip)}-episode\d+\.gif")
    return next((path for path in one.run.videos if wanted.fullmatch(path.name)), None)
