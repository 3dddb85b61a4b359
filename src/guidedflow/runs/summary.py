"""Means over the seeds of a run's evaluations."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

Z_95 = 1.959963984540054


def wilson_interval(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval for a rate seen in n trials (Wilson, 1927); NaN where the rate is."""
    if math.isnan(rate):
        return math.nan, math.nan
    centre = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def success_interval(rates: Sequence[float], episodes: int) -> tuple[float, float]:
    """A 95% interval of the mean success rate over seeds.

    Student's t over the seeds' rates, but never narrower than Wilson's interval of all episodes taken together: two
    seeds that both saw 0 of 50 successes do not show that there are none. NaN with one seed, which says nothing about
    others, and where there is no success.

    Args:
        rates: one a seed.
        episodes: of all seeds together.
    """
    n = len(rates)
    mean = float(np.mean(rates))
    if n < 2 or math.isnan(mean):
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 0.975) * np.std(rates, ddof=1) / math.sqrt(n))
    low, high = wilson_interval(mean, episodes)
    return max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half))


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a variant and policy, best variant first, of the rows of one evaluation of a run.

    Keys: variant, policy, seeds, episodes, success, success_low, success_high (``success_interval``), mean_return,
    score. Variants are ranked by their main policy's mean score; the first policy of the rows is the main one.
    """
    groups: dict[tuple[Any, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["policy"]), []).append(row)
    merged = []
    for (variant, policy), mine in groups.items():
        rates, episodes = [row["success"] for row in mine], sum(row["episodes"] for row in mine)
        low, high = success_interval(rates, episodes)
        merged.append(
            {
                "variant": variant,
                "policy": policy,
                "seeds": len(mine),
                "episodes": episodes,
                "success": float(np.mean(rates)),
                "success_low": low,
                "success_high": high,
                "mean_return": float(np.mean([row["mean_return"] for row in mine])),
                "score": float(np.mean([row["score"] for row in mine])),
            }
        )
    main = {row["variant"]: row for row in reversed(merged)}
    return sorted(merged, key=lambda row: main[row["variant"]]["score"], reverse=True)


def main_scores(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """By step, the mean over agents of the main policy's score in the training's own evaluations.

    The first policy of a step's rows is the main one. Steps whose score is not finite are left out.
    """
    found: dict[int, list[float]] = {}
    main: dict[int, str] = {}
    for row in rows:
        if row["source"] == "training" and row["policy"] == main.setdefault(row["step"], row["policy"]):
            found.setdefault(row["step"], []).append(row["score"])
    return {step: float(np.mean(scores)) for step, scores in found.items() if np.isfinite(scores).all()}
