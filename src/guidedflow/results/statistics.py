"""The statistics of few runs (Agarwal et al., NeurIPS 2021).

A ``Sample`` holds one task's runs (seeds); tasks may have different numbers of runs. 1 is the score that a task's
reference reaches, so a published score is divided by 100 first.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from guidedflow.results.figures import CONFIDENCE, Score
from guidedflow.runs.summary import Z_95, wilson_interval

REPETITIONS = 2000


class Sample(NamedTuple):
    """The scores of a task's runs, and the bounds of their 95% intervals over episodes."""

    values: Float[np.ndarray, " runs"]
    low: Float[np.ndarray, " runs"]
    high: Float[np.ndarray, " runs"]

    @classmethod
    def of(cls, scores: Sequence[Score]) -> "Sample":
        """Published-scale scores (0 to 100) as fractions."""
        return cls(*(np.array(scores, float).T / 100.0))

    @classmethod
    def exact(cls, values: Float[np.ndarray, " runs"]) -> "Sample":
        """Values of which nothing else is known."""
        return cls(values, values, values)


class Estimate(NamedTuple):
    """A statistic with its interval; NaN bounds where a task has a single run."""

    value: float
    low: float
    high: float


def mean(scores: Float[np.ndarray, "batch runs"]) -> Float[np.ndarray, " batch"]:
    """The mean of all runs."""
    return scores.mean(axis=1)


def interquartile_mean(scores: Float[np.ndarray, "batch runs"]) -> Float[np.ndarray, " batch"]:
    """The mean of the middle half of all runs."""
    cut = scores.shape[1] // 4
    return np.sort(scores, axis=1)[:, cut : scores.shape[1] - cut].mean(axis=1)


def optimality_gap(scores: Float[np.ndarray, "batch runs"], target: float = 1.0) -> Float[np.ndarray, " batch"]:
    """How far the runs stay below the target on average; what lies above it counts as the target."""
    return target - np.minimum(scores, target).mean(axis=1)


def estimate(
    statistic: Callable[[Float[np.ndarray, "batch runs"]], Float[np.ndarray, " batch"]],
    samples: Sequence[Sample],
    *,
    seed: int = 0,
    repetitions: int = REPETITIONS,
) -> Estimate:
    """A statistic of all runs, with its 95% percentile interval.

    A bootstrap draws runs within each task. Where the runs of a task agree, it draws nothing but their common score, so
    the interval is never narrower than what scores drawn from the runs' own intervals give (``_measured_again``).
    """
    value = float(statistic(np.concatenate([sample.values for sample in samples])[None])[0])
    if _has_single(samples):
        return Estimate(value, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    runs = _bounds(statistic(_resampled([sample.values for sample in samples], rng, repetitions)))
    episodes = _bounds(statistic(_measured_again(samples, rng, repetitions)))
    return Estimate(value, *map(float, _hull(runs, episodes)))


def probability_of_improvement(
    a: Sequence[Sample], b: Sequence[Sample], *, seed: int = 0, repetitions: int = REPETITIONS
) -> Estimate:
    """The chance that a run of ``a`` beats one of ``b`` on a task drawn at random; a tie counts half.

    The interval is a bootstrap's that draws runs within each task, but never narrower than Wilson's for as many trials
    as give a share of one half the variance of Mann and Whitney's U: 3 m n / (m + n + 1) of m and n runs.

    Args:
        a: scores of one agent.
        b: scores of the other on the same tasks in the same order.
        seed: of the bootstrap.
        repetitions: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    value, drawn, inverse_trials = 0.0, np.zeros(repetitions), 0.0
    for mine, theirs in zip(a, b, strict=True):
        x, y = mine.values, theirs.values
        wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        value += float(wins.mean()) / len(a)
        # How often each run is drawn, as a fraction.
        counts = [rng.multinomial(len(z), np.full(len(z), 1 / len(z)), repetitions) / len(z) for z in (x, y)]
        drawn += np.einsum("ri,ij,rj->r", counts[0], wins, counts[1], optimize=True) / len(a)
        inverse_trials += (len(x) + len(y) + 1) / (3 * len(x) * len(y))
    if _has_single([*a, *b]):
        return Estimate(value, math.nan, math.nan)
    pooled = np.array(wilson_interval(value, max(1, round(len(a) ** 2 / inverse_trials))))
    return Estimate(value, *map(float, _hull(_bounds(drawn), pooled)))


def performance_profile(
    samples: Sequence[Sample],
    thresholds: Float[np.ndarray, " points"],
    *,
    seed: int = 0,
    repetitions: int = REPETITIONS,
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """The fraction of runs that score above each threshold, and the bounds of its 95% interval, as in ``estimate``."""
    # How many thresholds lie below each run is all that counts.
    passed = [np.searchsorted(thresholds, sample.values, side="left") for sample in samples]
    share = _share_above(np.concatenate(passed)[None], len(thresholds))[0]
    if _has_single(samples):
        nothing = np.full(len(thresholds), math.nan)
        return share, nothing, nothing
    rng = np.random.default_rng(seed)
    runs = _bounds(_share_above(_resampled(passed, rng, repetitions), len(thresholds)))
    again = np.searchsorted(thresholds, _measured_again(samples, rng, repetitions), side="left")
    low, high = _hull(runs, _bounds(_share_above(again, len(thresholds))))
    return share, low, high


def _share_above(passed: Int[np.ndarray, "repetitions runs"], count: int) -> Float[np.ndarray, "repetitions points"]:
    """The share of runs that passed more than 0, 1, 2, ... of ``count`` ascending thresholds."""
    rows = np.arange(len(passed))[:, None] * (count + 1)
    numbers = np.bincount((passed + rows).ravel(), minlength=len(passed) * (count + 1)).reshape(-1, count + 1)
    return 1.0 - numbers.cumsum(axis=1)[:, :-1] / passed.shape[1]


def _has_single(samples: Sequence[Sample]) -> bool:
    return min(len(sample.values) for sample in samples) < 2


def _resampled(
    tasks: Sequence[np.ndarray], rng: np.random.Generator, repetitions: int
) -> Shaped[np.ndarray, "repetitions runs"]:
    """Runs drawn within each task, with replacement."""
    return np.concatenate([x[rng.integers(len(x), size=(repetitions, len(x)))] for x in tasks], axis=1)


def _measured_again(
    samples: Sequence[Sample], rng: np.random.Generator, repetitions: int
) -> Float[np.ndarray, "repetitions runs"]:
    """Every run's score as other episodes might have given it: normal, as wide on each side as its interval there."""
    values, low, high = (np.concatenate(column) for column in zip(*samples, strict=True))
    noise = rng.standard_normal((repetitions, len(values))) / Z_95
    return values + noise * np.where(noise > 0, high - values, values - low)


def _bounds(drawn: Float[np.ndarray, " repetitions *points"]) -> Float[np.ndarray, " 2 *points"]:
    return np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)


def _hull(a: Float[np.ndarray, " 2 *points"], b: Float[np.ndarray, " 2 *points"]) -> Float[np.ndarray, " 2 *points"]:
    return np.array([np.minimum(a[0], b[0]), np.maximum(a[1], b[1])])
