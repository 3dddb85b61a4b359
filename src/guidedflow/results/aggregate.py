"""Statistics of every method over a suite's tasks: what the published comparison asks beside the table."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from guidedflow.results.columns import Method, Records, Scored
from guidedflow.results.figures import Score
from guidedflow.results.statistics import (
    Estimate,
    Sample,
    estimate,
    interquartile_mean,
    mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from guidedflow.results.table import Table, comparable_or_all

THRESHOLDS = np.linspace(0.0, 1.0, 51)


class MethodStatistics(NamedTuple):
    """One method on the tasks of a suite. Scores of 100 count as 1."""

    suite: str
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

    suite: str
    a: Method
    b: Method
    tasks: int
    probability: Estimate


class Statistics(NamedTuple):
    """Of all methods of a report."""

    methods: tuple[MethodStatistics, ...]
    improvements: tuple[Improvement, ...]

    @property
    def suites(self) -> tuple[str, ...]:
        """Those that have any."""
        return tuple(dict.fromkeys(one.suite for one in self.methods))


def summarize(table: Table, records: Records) -> Statistics:
    """The statistics of the table's methods, each over its own tasks; pairs over those that both have."""
    methods, improvements = [], []
    for suite in dict.fromkeys(row.suite for row in table.rows):
        samples: dict[Method, dict[str, Sample]] = {}
        mine = [one for one in records.scored if one.run.subject.suite == suite and one.run.subject.in_percent]
        for method in table.methods:
            used = comparable_or_all([one for one in mine if one.method == method])
            if used:
                samples[method] = by_task = _by_task(used)
                methods.append(_method_statistics(suite, method, used, list(by_task.values())))
        for a, b in combinations(samples, 2):
            shared = [task for task in samples[a] if task in samples[b]]
            if shared:
                pair = [[samples[method][task] for task in shared] for method in (a, b)]
                improvements.append(Improvement(suite, a, b, len(shared), probability_of_improvement(*pair)))
    return Statistics(tuple(methods), tuple(improvements))


def _method_statistics(
    suite: str, method: Method, used: Sequence[Scored], samples: Sequence[Sample]
) -> MethodStatistics:
    return MethodStatistics(
        suite,
        method,
        tasks=len(samples),
        runs=len(used),
        comparable=not used[0].verdict.reasons,
        mean=estimate(mean, samples),
        interquartile_mean=estimate(interquartile_mean, samples),
        optimality_gap=estimate(optimality_gap, samples),
        profile=performance_profile(samples, THRESHOLDS),
    )


def _by_task(scored: Sequence[Scored]) -> dict[str, Sample]:
    found: dict[str, list[Score]] = {}
    for one in scored:
        found.setdefault(one.run.subject.id, []).append(one.verdict.score)
    return {task: Sample.of(scores) for task, scores in found.items()}


def as_markdown(statistics: Statistics, shared: str) -> str:
    """Two tables as Markdown; above them a line on what all methods share, if there is one."""
    text = f"{shared}\n\n" if shared else ""
    text += "| suite | method | tasks | runs | mean | interquartile mean | optimality gap |\n" + "|---" * 7 + "|\n"
    for one in statistics.methods:
        name = one.method.label + ("" if one.comparable else ", not comparable with the published")
        shown = " | ".join(show(found) for found in (one.mean, one.interquartile_mean, one.optimality_gap))
        text += f"| {one.suite} | {name} | {one.tasks} | {one.runs} | {shown} |\n"
    if statistics.improvements:
        text += "\n| suite | a | b | tasks | P(a > b) |\n" + "|---" * 5 + "|\n"
    for pair in statistics.improvements:
        labels = f"{pair.a.label} | {pair.b.label}"
        text += f"| {pair.suite} | {labels} | {pair.tasks} | {show(pair.probability)} |\n"
    return f"{text}\n{LEGEND}\n"


LEGEND = (
    "Scores are divided by 100. Brackets: 95% interval of a bootstrap that draws runs within each task (2000 times), "
    "widened where the runs agree better than their episodes can show; none where a task has a single run. Methods "
    "that cover other tasks cannot be ranked by these figures."
)


def show(found: Estimate) -> str:
    """A statistic with its interval, where it has one."""
    interval = "" if math.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{interval}"
