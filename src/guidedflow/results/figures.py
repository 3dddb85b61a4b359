"""Scores, their means over tasks and seeds, and how sure either is.

An interval of a mean over seeds is Student's t over the seeds, but never narrower than what the episodes alone leave
open: two seeds that both saw 0 successes in 50 episodes do not show that there are none. With one seed there is no
interval, for that seed says nothing about others.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
UNLIMITED = (-math.inf, math.inf)
PERCENT = (0.0, 100.0)


class Score(NamedTuple):
    """A score, and its 95% interval over the episodes it was measured in; equal bounds where those are not known."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Score":
        """A score of which nothing but its value is known."""
        return cls(value, value, value)


class Figure(NamedTuple):
    """A mean over tasks and seeds.

    ``deviation`` is the population standard deviation over seeds of the mean over tasks, which is what the published
    table prints; NaN where it is not known or there is one seed.
    """

    mean: float
    deviation: float
    seeds: int
    low: float = math.nan
    """Of the mean's 95% interval over episodes alone; NaN where they are not known."""
    high: float = math.nan
    limits: tuple[float, float] = UNLIMITED
    """What a score can be."""

    @property
    def standard_error(self) -> float:
        """Of the mean over seeds, from the unbiased variance; NaN with one seed."""
        return self.deviation / math.sqrt(self.seeds - 1) if self.seeds > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the mean: over seeds, at least over episodes; NaN with one seed."""
        half = student_half_width(self.standard_error, self.seeds - 1.0)
        return _wider(self.mean, half, self.over_episodes, self.limits)

    @property
    def over_episodes(self) -> tuple[float, float]:
        """How far the interval over episodes reaches below and above the mean; 0 where it is not known."""
        return (0.0, 0.0) if math.isnan(self.low) else (self.mean - self.low, self.high - self.mean)


def student_half_width(error: float, freedom: float) -> float:
    """Half of Student's 95% interval, from a standard error; NaN where that is."""
    return math.nan if math.isnan(error) else float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error


def mean_score(scores: Iterable[Score]) -> Score:
    """The mean of independent scores.

    Distances from values to bounds add up in squares (Newcombe, 1998; "MOVER" in Zou and Donner, 2008), on each side
    by themselves. So the mean of Wilson's intervals is never without width, and never leaves [0, 100].
    """
    found = list(scores)
    value = math.fsum(score.value for score in found) / len(found)
    below = math.hypot(*(score.value - score.low for score in found)) / len(found)
    above = math.hypot(*(score.high - score.value for score in found)) / len(found)
    return Score(value, value - below, value + above)


def over_tasks_and_seeds(scores: Mapping[str, Mapping[int, Score]], limits: tuple[float, float] = UNLIMITED) -> Figure:
    """The figure of scores by task and seed.

    Every task counts alike. The deviation is over the seeds that all tasks have, so there is none with fewer than two.
    """
    mean = mean_score(mean_score(by_seed.values()) for by_seed in scores.values())
    common = sorted(set.intersection(*(set(by_seed) for by_seed in scores.values())))
    by_seed = [np.mean([found[seed].value for found in scores.values()]) for seed in common]
    deviation = float(np.std(by_seed)) if len(common) > 1 else math.nan
    return Figure(mean.value, deviation, len(common), mean.low, mean.high, limits)


def difference_interval(a: Figure, b: Figure) -> tuple[float, float]:
    """The 95% interval of ``a - b``: Welch's (1947) over seeds, at least that over episodes; NaN where one has none."""
    variances = [figure.standard_error**2 for figure in (a, b)]
    total = sum(variances)
    half = total  # NaN or 0.
    if total > 0.0:
        freedom = total**2 / sum(v**2 / (f.seeds - 1) for v, f in zip(variances, (a, b), strict=True))
        half = student_half_width(math.sqrt(total), freedom)
    (a_below, a_above), (b_below, b_above) = a.over_episodes, b.over_episodes
    return _wider(a.mean - b.mean, half, (math.hypot(a_below, b_above), math.hypot(a_above, b_below)))


def paired_interval(a: Sequence[Score], b: Sequence[Score]) -> tuple[float, float]:
    """The 95% interval of the mean of ``b - a`` over seeds: Student's t, at least that over episodes; NaN with one."""
    differences = np.array([y.value - x.value for x, y in zip(a, b, strict=True)])
    n = len(differences)
    half = student_half_width(float(differences.std(ddof=1)) / math.sqrt(n), n - 1.0) if n > 1 else math.nan
    x, y = mean_score(a), mean_score(b)
    episodes = math.hypot(y.value - y.low, x.high - x.value), math.hypot(y.high - y.value, x.value - x.low)
    return _wider(float(differences.mean()), half, episodes)


def _wider(
    mean: float, half: float, episodes: tuple[float, float], limits: tuple[float, float] = UNLIMITED
) -> tuple[float, float]:
    if math.isnan(half):
        return math.nan, math.nan
    below, above = episodes
    return max(limits[0], mean - max(half, below)), min(limits[1], mean + max(half, above))
