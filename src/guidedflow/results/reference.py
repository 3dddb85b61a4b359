"""The published scores and the published table, from the CSV files beside this one."""

import csv
import functools
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from guidedflow.results.figures import Figure, Score, over_tasks_and_seeds

SOURCES = {
    "published_scores.csv": "per-seed scores, release of the GFP authors (MIT); seeds are anonymous indices",
    "published_table.csv": "the table of the GFP paper (Nguimatsia Tiofack et al., ICLR 2026), and its seeds",
    "published_methods.csv": "which policy of which version of an algorithm each method of the two files is",
    "suites/published/hyperparameters.csv": "tuned settings: the releases of the GFP and the FQL authors (both MIT)",
}


class Published(NamedTuple):
    """The published numbers. Methods: gfp, gfp-vabc, gfp-advantage, gfp-advantage-vabc, fql, fql-bc, rebrac, iql."""

    scores: Mapping[tuple[str, str], Mapping[int, float]]
    """By method and task: each seed's score."""
    methods: Mapping[tuple[str, str], str]
    """The method by an algorithm's ``published_name`` and its policy, in the order of the paper's columns."""
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
        found = {
            task: {seed: Score.exact(score) for seed, score in self.scores[method, task].items()}
            for task in tasks
            if (method, task) in self.scores
        }
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
        table[row["method"], row["category"]] = Figure(float(row["mean"]), deviation, int(row["seeds"]))
    methods = {(row["version"], row["policy"]): row["method"] for row in _read("published_methods.csv")}
    return Published(scores, methods, table, SOURCES)


def _read(name: str) -> list[dict[str, str]]:
    text = importlib.resources.files("guidedflow.results").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
