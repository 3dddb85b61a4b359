"""The statistics against rliable's numbers, and the published table against its own per-seed scores."""

import math

import numpy as np
import pytest

from guidedflow.results import published
from guidedflow.results.statistics import (
    Figure,
    difference_half_width,
    estimate,
    interquartile_mean,
    optimality_gap,
    over_tasks_and_seeds,
    performance_profile,
    probability_of_improvement,
)
from guidedflow.suites import tasks

# Eight runs of twelve tasks, as rliable takes them: (runs, tasks).
RUN, TASK = np.mgrid[:8, :12]
A = ((37 * RUN + 17 * TASK + 11 * RUN * TASK) % 100) / 100
B = ((29 * RUN + 13 * TASK + 7 * RUN * TASK + 3) % 90) / 100


# rliable 1.2.0 with arch 7.2.0 on the matrices above:
#   library.get_interval_estimates({"a": A, "b": B}, lambda x: np.array([metrics.aggregate_iqm(x),
#       metrics.aggregate_optimality_gap(x), metrics.aggregate_mean(x)]), reps=20000)
#   library.get_interval_estimates({"ab": (A, B)}, metrics.probability_of_improvement, reps=20000)
#   library.create_performance_profile({"a": A, "b": B}, np.array([0.2, 0.4, 0.6, 0.8]), reps=20000)
@pytest.mark.parametrize(
    ("statistic", "scores", "expected"),
    [
        (interquartile_mean, A, (0.44437, 0.37167, 0.51854)),
        (interquartile_mean, B, (0.44500, 0.37354, 0.51417)),
        (optimality_gap, A, (0.54833, 0.49542, 0.60052)),
        (optimality_gap, B, (0.55500, 0.50490, 0.60584)),
    ],
)
def test_statistics_and_their_intervals_are_those_of_rliable(statistic, scores, expected):
    found = estimate(statistic, list(scores.T), repetitions=20_000)
    assert found.value == pytest.approx(expected[0], abs=1e-5)
    assert (found.low, found.high) == pytest.approx(expected[1:], abs=0.004)


def test_the_probability_of_improvement_is_that_of_rliable():
    found = probability_of_improvement(list(A.T), list(B.T), repetitions=20_000)
    assert found.value == pytest.approx(0.49935, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((0.41667, 0.58138), abs=0.004)


def test_the_performance_profile_is_that_of_rliable():
    share, low, high = performance_profile(list(A.T), np.array([0.2, 0.4, 0.6, 0.8]), repetitions=20_000)
    assert share == pytest.approx([0.71875, 0.54167, 0.36458, 0.14583], abs=1e-5)
    assert low == pytest.approx([0.63542, 0.44792, 0.27083, 0.08333], abs=0.011)
    assert high == pytest.approx([0.79167, 0.63542, 0.45833, 0.21875], abs=0.011)


def test_a_task_with_one_run_leaves_no_interval():
    scores = [np.array([0.1, 0.4]), np.array([0.7])]
    assert math.isnan(estimate(interquartile_mean, scores).low)
    assert math.isnan(probability_of_improvement(scores, scores).high)
    assert np.isnan(performance_profile(scores, np.array([0.5]))[1]).all()


def test_the_bootstrap_is_a_function_of_its_seed():
    first, again, other = (estimate(interquartile_mean, list(A.T), seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_a_figure_has_no_deviation_with_one_seed_and_none_over_seeds_that_a_task_lacks():
    one = over_tasks_and_seeds({"x": {0: 10.0}, "y": {0: 20.0}})
    assert one.mean == 15.0
    assert math.isnan(one.deviation)
    assert math.isnan(one.half_width)
    uneven = over_tasks_and_seeds({"x": {0: 10.0, 1: 20.0, 2: 90.0}, "y": {0: 0.0, 1: 10.0}})
    assert uneven == Figure(mean=22.5, deviation=5.0, seeds=2)


def test_the_interval_of_a_difference_is_welchs():
    a, b = np.array([1.0, 2.0, 4.0]), np.array([3.0, 3.5, 7.0, 9.0])
    figures = [over_tasks_and_seeds({"x": dict(enumerate(scores))}) for scores in (a, b)]
    # scipy.stats.ttest_ind([1, 2, 4], [3, 3.5, 7, 9], equal_var=False).confidence_interval(0.95)
    #     = ConfidenceInterval(low=-7.706995, high=1.123662)
    difference, half = figures[0].mean - figures[1].mean, difference_half_width(*figures)
    assert (difference - half, difference + half) == pytest.approx((-7.706995, 1.123662), abs=1e-5)


# The paper prints 63.0; its own categories give (6 * 83.1 + 12 * 52.8) / 18 = 62.9, and so do the scores.
MISPRINTED_MEAN = {("gfp", "average/d4rl"): 62.92}
# Of these two the printed deviation is not that of the published scores (10.3 and 12.0), their mean is.
MISPRINTED = {("fql", "minari/hopper"), ("gfp-vabc", "minari/hopper")}


def test_the_published_table_follows_from_the_published_scores():
    found = published()
    members: dict[str, list[str]] = {}
    for task in tasks():
        members.setdefault(task.category, []).append(task.id)
        members.setdefault(f"average/{task.benchmark}", []).append(task.id)
    recomputed = set()
    for (method, row), printed in found.table.items():
        # The paper's average of VaBC is over what it was measured on: all but pixels.
        ids = [t for t in members[row] if not (method == "gfp-vabc" and t.startswith("visual-"))]
        if any((method, task) not in found.scores for task in ids):
            continue
        figure = over_tasks_and_seeds({task: found.scores[method, task] for task in ids})
        expected = MISPRINTED_MEAN.get((method, row), printed.mean)
        assert figure.mean == pytest.approx(expected, abs=0.06), (method, row)
        if not math.isnan(printed.deviation) and (method, row) not in MISPRINTED:
            assert figure.deviation == pytest.approx(printed.deviation, abs=0.06), (method, row)
        recomputed.add((method, row))
    categories = {row for _, row in recomputed if not row.startswith("average/")}
    assert len(categories) == 27
    assert {row for method, row in recomputed if method == "gfp"} == set(members)
    assert {row for _, row in recomputed} - categories == {"average/ogbench", "average/d4rl", "average/minari"}


def test_published_figures_of_some_tasks_need_scores_of_each():
    category, size = "ogbench/cube-single-play", 5
    ids = [task.id for task in tasks() if task.category == category]
    assert published().figure("gfp", category, ids[:1], size).mean == pytest.approx(
        np.mean(list(published().scores["gfp", ids[0]].values()))
    )
    assert published().figure("iql", category, ids, size).mean == 83.0
    assert published().figure("iql", category, ids[:1], size) is None


def test_every_published_file_names_its_source():
    assert {"published_scores.csv", "published_table.csv"} <= set(published().sources)
