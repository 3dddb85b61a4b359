"""The published scores and the published table, from the CSV files beside this one."""

import csv
import functools
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from guidedflow.results.statistics import Figure, over_tasks_and_seeds

SOURCES = {
    "published_scores.csv": "per-seed scores, release of the GFP authors (MIT); seeds are anonymous indices",
    "published_table.csv": "the table of the GFP paper (Nguimatsia Tiofack et al., ICLR 2026)",
    "tasks/published_hyperparameters.csv": "tuned settings: the releases of the GFP and the FQL authors (both MIT)",
}
# Of figures without per-seed scores: what the papers say, 8 seeds, and 4 where pixels are seen.
SEEDS, PIXEL_SEEDS = 8, 4


class Published(NamedTuple):
    """The published numbers. Methods: gfp, gfp-vabc, gfp-advantage, gfp-advantage-vabc, fql, fql-bc, rebrac, iql."""

    scores: Mapping[tuple[str, str], Mapping[int, float]]
    """By method and task: each seed's score."""
    table: Mapping[tuple[str, str], Figure]
    """By method and row (a category, or ``average/`` and a benchmark): what the paper prints."""
    sources: Mapping[str, str]
    """By file: what is in it and where it comes from."""

    def figure(self, method: str, row: str, tasks: Sequence[str], row_size: int) -> Figure | None:
        """The published figure of some tasks of a row; None if there is none.

        Per-seed scores are used where every task has them; else what the table prints, if the tasks are the whole row.

        Args:
            method: a published method.
            row: a category, or ``average/`` and a benchmark.
            tasks: ids of the row's tasks that are asked about.
            row_size: how many tasks the row has.
        """
        found = {task: self.scores[method, task] for task in tasks if (method, task) in self.scores}
        if tasks and len(found) == len(tasks):
            return over_tasks_and_seeds(found)
        return self.table.get((method, row)) if len(tasks) == row_size else None


@functools.cache
def published() -> Published:
    """The published per-seed scores, the published table and their sources."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for row in _read("published_scores.csv"):
        scores.setdefault((row["method"], row["task"]), {})[int(row["seed"])] = float(row["score"])
    table = {}
    for row in _read("published_table.csv"):
        deviation = float(row["std"]) if row["std"] else math.nan
        seeds = PIXEL_SEEDS if row["category"].startswith("ogbench/visual") else SEEDS
        table[row["method"], row["category"]] = Figure(float(row["mean"]), deviation, seeds)
    return Published(scores, table, SOURCES)


def _read(name: str) -> list[dict[str, str]]:
    text = importlib.resources.files("guidedflow.results").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
