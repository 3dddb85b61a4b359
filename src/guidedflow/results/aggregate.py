"""Statistics of every method over a benchmark's tasks: what the published comparison asks beside the table."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from guidedflow.results.runs import Method, Scored
from guidedflow.results.statistics import (
    Estimate,
    estimate,
    interquartile_mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from guidedflow.results.table import Table, comparable_or_all

BENCHMARKS = ("ogbench", "d4rl", "minari")
THRESHOLDS = np.linspace(0.0, 1.0, 51)


class Aggregate(NamedTuple):
    """One method on the tasks of a benchmark. Scores of 100 count as 1."""

    benchmark: str
    method: Method
    tasks: int
    runs: int
    comparable: bool
    mean: Estimate
    interquartile_mean: Estimate
    optimality_gap: Estimate
    profile: tuple[np.ndarray, np.ndarray, np.ndarray]
    """The share of runs above each of ``THRESHOLDS``, and its interval's bounds."""


class Improvement(NamedTuple):
    """The chance that a run of ``a`` beats one of ``b``, on the tasks that both have."""

    benchmark: str
    a: Method
    b: Method
    tasks: int
    probability: Estimate


class Statistics(NamedTuple):
    """Of all methods of a report."""

    aggregates: tuple[Aggregate, ...]
    improvements: tuple[Improvement, ...]


def summarize(table: Table, scored: Sequence[Scored]) -> Statistics:
    """The statistics of the table's methods, each over its own tasks; pairs over those that both have."""
    aggregates, improvements = [], []
    for benchmark in BENCHMARKS:
        found: dict[Method, dict[str, np.ndarray]] = {}
        for method in table.methods:
            mine = [one for one in scored if one.method == method and one.run.task.benchmark == benchmark]
            if not mine:
                continue
            used = comparable_or_all(mine)
            found[method] = by_task = _by_task(used)
            scores = list(by_task.values())
            aggregates.append(
                Aggregate(
                    benchmark,
                    method,
                    tasks=len(scores),
                    runs=len(used),
                    comparable=not used[0].verdict.reasons,
                    mean=estimate(lambda runs: runs.mean(axis=-1), scores),
                    interquartile_mean=estimate(interquartile_mean, scores),
                    optimality_gap=estimate(optimality_gap, scores),
                    profile=performance_profile(scores, THRESHOLDS),
                )
            )
        for a, b in combinations(found, 2):
            shared = [task for task in found[a] if task in found[b]]
            if shared:
                pair = [[found[method][task] for task in shared] for method in (a, b)]
                improvements.append(Improvement(benchmark, a, b, len(shared), probability_of_improvement(*pair)))
    return Statistics(tuple(aggregates), tuple(improvements))


def _by_task(scored: Sequence[Scored]) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    for one in scored:
        assert one.verdict.score is not None
        found.setdefault(one.run.task.id, []).append(one.verdict.score / 100.0)
    return {task: np.array(scores) for task, scores in found.items()}


def as_markdown(statistics: Statistics) -> str:
    """Two tables as Markdown."""
    text = "| benchmark | method | tasks | runs | mean | interquartile mean | optimality gap |\n" + "|---" * 7 + "|\n"
    for one in statistics.aggregates:
        name = one.method.label + ("" if one.comparable else ", not comparable with the published")
        shown = " | ".join(show(found) for found in (one.mean, one.interquartile_mean, one.optimality_gap))
        text += f"| {one.benchmark} | {name} | {one.tasks} | {one.runs} | {shown} |\n"
    if statistics.improvements:
        text += "\n| benchmark | a | b | tasks | P(a > b) |\n" + "|---" * 5 + "|\n"
    for pair in statistics.improvements:
        labels = f"{pair.a.label} | {pair.b.label}"
        text += f"| {pair.benchmark} | {labels} | {pair.tasks} | {show(pair.probability)} |\n"
    return f"{text}\n{LEGEND}\n"


LEGEND = (
    "Scores are divided by 100. Brackets: 95% interval of a bootstrap that draws runs within each task (2000 times); "
    "none where a task has a single run. Methods that cover other tasks cannot be ranked by these figures."
)


def show(found: Estimate) -> str:
    """A statistic with its interval, where it has one."""
    interval = "" if np.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{interval}"
