"""The statistics of few runs (Agarwal et al., NeurIPS 2021), and the intervals of means over seeds.

Scores here are lists with one array a task, one value a run (seed); tasks may have different numbers of runs. 1 is the
score that a task's reference reaches, so a published score is divided by 100 first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float, Int

Scores = Sequence[Float[np.ndarray, " runs"]]
CONFIDENCE = 0.95
REPETITIONS = 2000


class Figure(NamedTuple):
    """A mean over tasks and seeds.

    ``deviation`` is the population standard deviation over seeds of the mean over tasks, which is what the published
    table prints; NaN where it is not known or there is one seed.
    """

    mean: float
    deviation: float
    seeds: int

    @property
    def half_width(self) -> float:
        """Half of the 95% interval of the mean (Student's t over seeds); NaN with one seed."""
        if self.seeds < 2:
            return math.nan
        return float(scipy.special.stdtrit(self.seeds - 1, (1 + CONFIDENCE) / 2)) * self.standard_error

    @property
    def standard_error(self) -> float:
        """Of the mean, from the unbiased variance; NaN with one seed."""
        return self.deviation / math.sqrt(self.seeds - 1) if self.seeds > 1 else math.nan


def over_tasks_and_seeds(scores: Mapping[str, Mapping[int, float]]) -> Figure:
    """The figure of scores by task and seed.

    Every task counts alike. The deviation is over the seeds that all tasks have, so there is none with fewer than two.
    """
    mean = float(np.mean([np.mean(list(by_seed.values())) for by_seed in scores.values()]))
    common = sorted(set.intersection(*(set(by_seed) for by_seed in scores.values())))
    by_seed = [np.mean([found[seed] for found in scores.values()]) for seed in common]
    return Figure(mean, float(np.std(by_seed)) if len(common) > 1 else math.nan, len(common))


def difference_half_width(a: Figure, b: Figure) -> float:
    """Half of the 95% interval of the difference of two means (Welch, 1947); NaN where one has no interval."""
    variances = [figure.standard_error**2 for figure in (a, b)]
    total = sum(variances)
    if math.isnan(total) or total == 0.0:
        return total
    freedom = total**2 / sum(v**2 / (f.seeds - 1) for v, f in zip(variances, (a, b), strict=True))
    return float(scipy.special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(total)


class Estimate(NamedTuple):
    """A statistic with its stratified bootstrap interval; NaN bounds where a task has a single run."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Float[np.ndarray, "*batch runs"]) -> Float[np.ndarray, "*batch"]:
    """The mean of the middle half of all runs."""
    return scipy.stats.trim_mean(scores, 0.25, axis=-1)


def optimality_gap(scores: Float[np.ndarray, "*batch runs"], target: float = 1.0) -> Float[np.ndarray, "*batch"]:
    """How far the runs stay below the target on average; what lies above it counts as the target."""
    return target - np.minimum(scores, target).mean(axis=-1)


def estimate(
    statistic: Callable[[Float[np.ndarray, "*batch runs"]], Float[np.ndarray, "*batch"]],
    scores: Scores,
    *,
    seed: int = 0,
    repetitions: int = REPETITIONS,
) -> Estimate:
    """A statistic of all runs, with the 95% percentile interval of a bootstrap that draws runs within each task."""
    value = float(statistic(np.concatenate(scores)))
    if min(map(len, scores)) < 2:
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, *_interval(statistic(_resample(scores, seed, repetitions))))


def probability_of_improvement(a: Scores, b: Scores, *, seed: int = 0, repetitions: int = REPETITIONS) -> Estimate:
    """The chance that a run of ``a`` beats one of ``b`` on a task drawn at random; a tie counts half.

    Args:
        a: scores of one agent.
        b: scores of the other on the same tasks in the same order.
        seed: of the bootstrap.
        repetitions: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    value, drawn = 0.0, np.zeros(repetitions)
    for mine, theirs in zip(a, b, strict=True):
        wins = (mine[:, None] > theirs) + 0.5 * (mine[:, None] == theirs)
        value += wins.mean() / len(a)
        # How often each run is drawn, as a fraction.
        counts = [rng.multinomial(len(x), np.full(len(x), 1 / len(x)), repetitions) / len(x) for x in (mine, theirs)]
        drawn += np.einsum("ri,ij,rj->r", counts[0], wins, counts[1], optimize=True) / len(a)
    if min(map(len, [*a, *b])) < 2:
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, *_interval(drawn))


def performance_profile(
    scores: Scores, thresholds: Float[np.ndarray, " points"], *, seed: int = 0, repetitions: int = REPETITIONS
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """The fraction of runs that score above each threshold, and the bounds of its 95% interval, if there is one."""
    # How many thresholds lie below each run is all that counts.
    passed = [np.searchsorted(thresholds, runs, side="left") for runs in scores]
    share = _share_above(np.concatenate(passed)[None], len(thresholds))[0]
    if min(map(len, scores)) < 2:
        nothing = np.full(len(thresholds), math.nan)
        return share, nothing, nothing
    low, high = _interval(_share_above(_resample(passed, seed, repetitions), len(thresholds)))
    return share, low, high


def _share_above(passed: Int[np.ndarray, "repetitions runs"], count: int) -> Float[np.ndarray, "repetitions points"]:
    """The share of runs that passed more than 0, 1, 2, ... of ``count`` ascending thresholds."""
    rows = np.arange(len(passed))[:, None] * (count + 1)
    numbers = np.bincount((passed + rows).ravel(), minlength=len(passed) * (count + 1)).reshape(-1, count + 1)
    return 1.0 - numbers.cumsum(axis=1)[:, :-1] / passed.shape[1]


def _resample(scores: Sequence[np.ndarray], seed: int, repetitions: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([x[rng.integers(len(x), size=(repetitions, len(x)))] for x in scores], axis=1)


def _interval(drawn: np.ndarray) -> np.ndarray:
    return np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
