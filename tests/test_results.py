"""From run folders to the table: what is comparable, what is refused, what is said."""

import csv
import io
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import rich.console
import scipy.stats
from conftest import guidedflow

import guidedflow as gf
from benchmarks import laptop, reproduction
from benchmarks.synthetic import write_run
from guidedflow.cli import main
from guidedflow.errors import RunError, SettingsError
from guidedflow.results import published
from guidedflow.results.compare import as_terminal as compare_on_a_terminal
from guidedflow.results.figures import Score
from guidedflow.results.protocol import Evaluation, judge
from guidedflow.results.rendering import as_csv, as_latex, as_markdown, as_terminal
from guidedflow.runs.config import RunConfig
from guidedflow.runs.find import find_runs
from guidedflow.runs.folder import RunFolder
from guidedflow.runs.summary import wilson_interval
from guidedflow.studies.templates import CHOSEN, SWEPT
from guidedflow.suites import find_task, tasks

CUBES = [task for task in tasks() if task.category == "ogbench/cube-single-play"]
CATEGORY = CUBES[0].category
LOCAL = {"generator": "guidedflow"}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They have tests of their own."""
    monkeypatch.setattr("guidedflow.results.plots.drawings", lambda *_: {})


def cell_of(report, label, row=CATEGORY):
    (found,) = [cell for (where, method), cell in report.table.cells.items() if (where, method.label) == (row, label)]
    return found


def protocol(task):
    return task.suite.protocol(task)


def rows_of(task, steps=None, episodes=100, score=50.0):
    steps = protocol(task).score_steps if steps is None else steps
    return [Evaluation(step, episodes, Score.exact(score + i)) for i, step in enumerate(steps)]


def edit_config(run, **values):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **values}))


def evaluated(run, *, step=1_000_000, seed=0, policy="actor", success=0.5, episodes=100, source="evaluate", **more):
    """Add an evaluation to a run's record."""
    low, high = wilson_interval(success, episodes)
    row = {"step": step, "variant": (), "seed": seed, "policy": policy, "episodes": episodes, "success": success}
    row |= {"success_low": low, "success_high": high, "mean_return": 100 * success, "return_half_width": 1.0}
    row |= {"mean_length": 10.0, "length_half_width": 1.0, "score": 100 * success, "source": source, "env_seed": 1}
    RunFolder(run).log_evaluations([{**row, **more}])


SETTINGS = {"steps": 1_000_000, "success_timing": "post"}


def test_an_ogbench_score_is_the_mean_of_its_last_three_evaluations():
    rows = rows_of(CUBES[0], range(100_000, 1_000_001, 100_000))
    verdict = judge(protocol(CUBES[0]), SETTINGS, rows, None)
    assert (verdict.score.value, verdict.step, verdict.reasons) == (58.0, 1_000_000, ())


def test_other_benchmarks_are_scored_by_their_last_evaluation():
    door = find_task("door-human-v1")
    verdict = judge(protocol(door), SETTINGS | {"steps": 500_000}, rows_of(door, (400_000, 500_000)), None)
    assert (verdict.score.value, verdict.step, verdict.reasons) == (51.0, 500_000, ())


def test_without_published_scores_the_last_evaluation_counts_and_nothing_forbids_it():
    verdict = judge(None, {"steps": 500}, rows_of(CUBES[0], (250, 500), episodes=5), "arrays in memory")
    assert (verdict.score.value, verdict.step, verdict.reasons) == (51.0, 500, ())


@pytest.mark.parametrize(
    ("settings", "rows", "data", "reason"),
    [
        ({"steps": 25_000}, rows_of(CUBES[0], (25_000,)), None, "fewer steps: 25,000 instead of 1,000,000"),
        ({}, rows_of(CUBES[0], (100_000,)), None, "unfinished: evaluated up to step 100,000 of 1,000,000"),
        ({}, rows_of(CUBES[0], (800_000, 1_000_000)), None, "other evaluations: none at 900,000 steps"),
        ({}, rows_of(CUBES[0], episodes=50), None, "fewer episodes: 50 an evaluation instead of 100"),
        ({}, rows_of(CUBES[0]), "arrays in memory", "other data: arrays in memory"),
        ({"success_timing": "pre"}, rows_of(CUBES[0]), None, "other success timing: of the state before a step"),
    ],
)
def test_what_strays_from_the_protocol_is_not_comparable(settings, rows, data, reason):
    verdict = judge(protocol(CUBES[0]), SETTINGS | settings, rows, data)
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith(reason)


def test_a_whole_category_stands_beside_the_published_figure(tmp_path):
    for task in CUBES:
        write_run(tmp_path / "runs" / task.id, task, seeds=(0, 1, 2), score=98.0)
    report = gf.report(tmp_path / "runs", tmp_path / "out")
    cell = cell_of(report, "gfp actor")
    assert cell.reasons == ()
    assert cell.published.mean == pytest.approx(98.8, abs=0.06)
    assert cell.difference == pytest.approx(cell.figure.mean - cell.published.mean)
    assert cell.notes == ("3 seeds instead of 8",)
    assert {method.label for method in report.table.methods} == {"gfp actor", "gfp vabc"}
    assert cell_of(report, "gfp vabc").verdict == "outside"


def test_one_task_is_compared_with_the_published_scores_of_that_task(tmp_path):
    write_run(tmp_path / "run", CUBES[0], seeds=(0, 1))
    cell = cell_of(gf.report(tmp_path / "run", tmp_path / "out"), "gfp actor")
    scores = published().scores["gfp", CUBES[0].id].values()
    assert cell.published.mean == pytest.approx(sum(scores) / len(scores))
    assert "1 of 5 tasks" in cell.notes


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        (CUBES[0].id, f"within {protocol(CUBES[0]).tolerance:g} points"),
        ("visual-cube-single-play-singletask-task1-v0", "no interval"),
        ("pen-human-v1", "no interval"),
    ],
)
def test_what_counts_as_agreement_is_told_by_the_suite(tmp_path, name, verdict):
    """OGBench's evaluation counted short episodes too often, but not where pictures are seen (finding f)."""
    task = find_task(name)
    theirs = published().scores["gfp", task.id].values()
    run = write_run(tmp_path / "run", task)
    rows = list(csv.DictReader((run / "evaluations.csv").read_text().splitlines()))
    wanted = sum(theirs) / len(theirs) - 1.5
    (run / "evaluations.csv").unlink()
    RunFolder(run).log_evaluations([{**row, "variant": (), "score": wanted} for row in rows])
    assert cell_of(gf.report(run, tmp_path / "out"), "gfp actor", task.category).verdict == verdict


def test_not_comparable_scores_are_shown_with_their_reasons(tmp_path):
    write_run(tmp_path / "run", CUBES[0], preset="quick", data_made_by=LOCAL, seeds=(0, 1))
    report = gf.report(tmp_path / "run", tmp_path / "out")
    cell = cell_of(report, "gfp actor")
    assert cell.verdict == "not comparable"
    assert cell.difference is None
    said = (tmp_path / "out" / "table.md").read_text()
    for reason in ("fewer steps: 20,000", "fewer episodes: 50", "other data: locally generated, 1,000,000 transitions"):
        assert reason in said
    (one, *_) = cell.used
    assert "other network: hidden layers 256x256x256 instead of 512x512x512x512" in one.deviations


def test_comparable_scores_are_not_mixed_with_others(tmp_path):
    write_run(tmp_path / "whole", CUBES[0], seeds=(0, 1))
    write_run(tmp_path / "stopped", CUBES[0], seeds=(2,), until=300_000)
    cell = cell_of(gf.report(tmp_path, tmp_path / "out"), "gfp actor")
    assert {one.seed for one in cell.used} == {0, 1}
    assert cell.reasons == ()
    assert any("1 of 3 scores left out" in note and "unfinished" in note for note in cell.notes)


def test_other_settings_get_a_column_of_their_own_and_tuned_ones_do_not(tmp_path):
    double = next(task for task in tasks() if task.dataset == "cube-double-play")
    write_run(tmp_path / "a", CUBES[0])
    write_run(tmp_path / "b", CUBES[0], alpha=7.0)
    write_run(tmp_path / "c", double)  # Tuned to another alpha.
    labels = [method.label for method in gf.report(tmp_path, tmp_path / "out").table.methods]
    assert labels == ["gfp actor", "gfp actor (alpha=7)", "gfp vabc", "gfp vabc (alpha=7)"]


def test_a_setting_that_was_chosen_for_each_task_does_not_split_a_column(tmp_path):
    for task, alpha in zip(CUBES[:2], (1.0, 7.0), strict=True):
        write_run(tmp_path / "runs" / task.id, task, alpha=alpha)
    report = gf.report(tmp_path / "runs", tmp_path / "out", per_task=["alpha"])
    assert [method.label for method in report.table.methods] == ["gfp actor", "gfp vabc"]
    cell = cell_of(report, "gfp actor")
    assert [one.deviations for one in cell.used] == [(f"other setting: alpha = {n} instead of 10",) for n in (1, 7)]
    write_run(tmp_path / "runs" / "tuned", CUBES[2])
    gf.report(tmp_path / "runs", tmp_path / "out", per_task="alpha")
    each = [f"gfp on {task.id} {alpha}" for task, alpha in zip(CUBES, (1, 7, 10), strict=False)]
    assert f"alpha was chosen for each task: {', '.join(each)}\n" in (tmp_path / "out" / "table.md").read_text()
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--per-task", "alpha"])
    assert stop.value.code == 0
    assert f"gfp on {CUBES[1].id} 7" in (tmp_path / "out" / "table.md").read_text()
    for name in ("eta", "seeds", "guidance"):
        with pytest.raises(SettingsError, match=rf"per_task: expected .* \(alpha\), found '{name}'"):
            gf.report(tmp_path / "runs", tmp_path / "out", per_task=[name])
    write_run(tmp_path / "runs" / "again", CUBES[0], seeds=(9,), alpha=3.0)
    with pytest.raises(SettingsError, match=r"expected one alpha of gfp actor on .*, found 3 and 1; leave one out"):
        gf.report(tmp_path / "runs", tmp_path / "out", per_task=["alpha"])


def test_the_other_guidance_is_compared_with_its_own_published_figures(tmp_path):
    double = next(task for task in tasks() if task.dataset == "cube-double-play")
    write_run(tmp_path / "a", double)
    write_run(tmp_path / "b", double, guidance="advantage")
    report = gf.report(tmp_path, tmp_path / "out")
    cell = cell_of(report, "gfp actor (guidance=advantage)", "ogbench/cube-double-play")
    scores = published().scores["gfp-advantage", double.id].values()
    assert cell.published.mean == pytest.approx(sum(scores) / len(scores))
    assert cell_of(report, "gfp actor", "ogbench/cube-double-play").published.mean != cell.published.mean


def test_report_and_training_take_the_same_published_row(tmp_path):
    """Of the same version of the algorithm (finding d)."""
    double = next(task for task in tasks() if task.dataset == "cube-double-noisy")
    run = write_run(tmp_path / "run", double, guidance="advantage")
    assert json.loads((run / "config.json").read_text())["config"]["eta"] == 0.1
    (one,) = cell_of(gf.report(run, tmp_path / "out"), "gfp actor", double.category).used
    assert one.run.changed == {}
    assert one.deviations == ()


def test_what_all_columns_share_is_told_once(tmp_path):
    settings = {"preset": "quick", "hidden": (64, 64), "steps": 500, "eval_every": 250, "save_every": 250}
    for agent in ("gfp", "fql"):
        write_run(tmp_path / "runs" / agent, CUBES[0], agent, seeds=(0, 1), data_made_by=LOCAL, **settings)
    write_run(tmp_path / "runs" / "alpha", CUBES[0], seeds=(0, 1), data_made_by=LOCAL, alpha=3.0, **settings)
    report = gf.report(tmp_path / "runs", tmp_path / "out")
    assert report.table.shared == ("quick", "hidden=64x64", "steps=500", "other data")
    labels = {method.label for method in report.table.methods}
    assert labels == {"gfp actor", "gfp vabc", "gfp actor (alpha=3)", "gfp vabc (alpha=3)", "fql actor", "fql flow"}
    for name in ("table.md", "table.tex", "statistics.md", "index.html"):
        assert (tmp_path / "out" / name).read_text().count("hidden=64x64") == 1, name
    write_run(tmp_path / "runs" / "published", CUBES[0], seeds=(0, 1))
    apart = gf.report(tmp_path / "runs", tmp_path / "out").table
    assert apart.shared == ()
    assert "gfp actor (quick, alpha=3, hidden=64x64, steps=500, other data)" in {m.label for m in apart.methods}


def test_every_task_has_a_row_beside_the_published_figure_of_that_task(tmp_path):
    for task in CUBES[:2]:
        write_run(tmp_path / "runs" / task.id, task, seeds=(0, 1))
    report = gf.report(tmp_path / "runs", tmp_path / "out")
    cell = cell_of(report, "gfp actor", CUBES[1].id)
    assert cell.tasks == (CUBES[1].id,)
    scores = published().scores["gfp", CUBES[1].id].values()
    assert cell.published.mean == pytest.approx(sum(scores) / len(scores))
    _, _, of_tasks = (tmp_path / "out" / "table.md").read_text().partition("## Tasks")
    assert all(f"| {task.id} |" in of_tasks for task in CUBES[:2])
    kinds = [row["kind"] for row in csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines())]
    assert set(kinds) == {"category", "task"}


def test_settings_that_nobody_published_are_told(tmp_path):
    write_run(tmp_path / "iql", CUBES[0], "iql", expectile=0.6)
    (one,) = cell_of(gf.report(tmp_path, tmp_path / "out"), "iql actor").used
    assert "other settings: nobody published those of iql for this task; these are its own" in one.deviations


def test_every_variant_of_a_sweep_is_a_column(tmp_path):
    write_run(tmp_path / "run", CUBES[0], sweep={"alpha": (1.0, 3.0)})
    report = gf.report(tmp_path / "run", tmp_path / "out")
    assert {m.label for m in report.table.methods if m.policy == "vabc"} == {"gfp vabc (alpha=1)", "gfp vabc (alpha=3)"}
    assert "other setting: alpha = 1 instead of 10" in cell_of(report, "gfp vabc (alpha=1)").used[0].deviations


def test_runs_in_an_environment_of_ones_own_are_shown_without_published_figures(tmp_path):
    for name, settings in (("a", {}), ("b", {"alpha": 7.0})):
        write_run(tmp_path / name, None, env="Pendulum-v1", seeds=(0, 1), steps=500_000, **settings)
    report = gf.report(tmp_path, tmp_path / "out")
    cell = cell_of(report, "gfp actor (alpha=7)", "environments/Pendulum-v1")
    assert (cell.published, cell.reasons, cell.verdict) == (None, (), "")
    assert cell.figure.limits == (-math.inf, math.inf)
    assert cell.tasks == ("Pendulum-v1 from own.npz",)
    assert report.statistics.methods == ()
    assert "published" not in shown_on_a_terminal(as_terminal(report.table)).splitlines()[2]


def test_an_algorithm_of_ones_own_is_read_without_importing_it(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        run = write_run(tmp_path / name, CUBES[0])
        config = json.loads((run / "config.json").read_text())
        sources = {**config["sources"], "temperature": "given"}
        own = {**config["config"], "temperature": value}
        edit_config(run, agent="antigravity:Mine", config=own, sources=sources)
    report = gf.report(tmp_path, tmp_path / "out")
    labels = {method.label for method in report.table.methods if method.policy == "actor"}
    assert labels == {"antigravity:Mine actor (temperature=1)", "antigravity:Mine actor (temperature=2)"}
    assert {method.published for method in report.table.methods} == {None}
    assert "antigravity" not in sys.modules


# --------------------------------------------------------------------------------------------- evaluated once more


def test_an_evaluation_of_more_episodes_takes_the_place_of_the_training_s(tmp_path):
    """So that a run that was trained with few episodes can still be compared (finding 20)."""
    run = write_run(tmp_path / "run", CUBES[0], eval_episodes=50, seeds=(0,))
    few = cell_of(gf.report(run, tmp_path / "out"), "gfp actor")
    assert few.reasons == ("fewer episodes: 50 an evaluation instead of 100",)
    for step in protocol(CUBES[0]).score_steps:
        evaluated(run, step=step, success=0.25, episodes=200)
    cell = cell_of(gf.report(run, tmp_path / "out"), "gfp actor")
    assert cell.reasons == ()
    assert cell.figure.mean == 25.0
    assert [one.episodes for one in cell.used[0].evaluations] == [50] * 7 + [200] * 3
    assert gf.compare(run, run).results[0].a == 25.0


def test_an_evaluation_of_no_more_episodes_changes_nothing(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0])
    before = cell_of(gf.report(run, tmp_path / "out"), "gfp actor").figure
    for episodes in (100, 50):
        evaluated(run, success=1.0, episodes=episodes)
    assert cell_of(gf.report(run, tmp_path / "out"), "gfp actor").figure == before


# ------------------------------------------------------------------------------------------------------- intervals


def test_two_seeds_without_success_leave_an_interval(tmp_path):
    """Not 0.000 [0.000, 0.000] (finding 8)."""
    run = write_run(tmp_path / "run", CUBES[0], seeds=(0, 1), score=0.0, noise=0.0)
    report = gf.report(run, tmp_path / "out")
    cell = cell_of(report, "gfp actor")
    assert cell.figure[:2] == (0.0, 0.0)
    low, high = cell.figure.interval
    assert low == 0.0
    assert 0.5 < high < 2.0  # Two seeds of three evaluations of 100 episodes.
    mean = report.statistics.methods[0].mean
    assert (mean.value, mean.low) == (0.0, 0.0)
    assert 0.005 < mean.high < 0.02
    assert "0.000 [0.000, 0.000]" not in (tmp_path / "out" / "statistics.md").read_text()
    (result, _) = gf.compare(run, run).results
    assert result.low < 0 < result.high


def test_where_returns_are_scored_the_success_rate_s_interval_does_not_matter(tmp_path):
    """The environment speaks of no success, so its interval is none (finding 3)."""
    hopper = find_task("mujoco/hopper/medium-v0")
    run = write_run(tmp_path / "run", hopper, seeds=(0, 1))
    rows = RunFolder(run).evaluations()
    (run / "evaluations.csv").unlink()
    nothing = dict.fromkeys(("success", "success_low", "success_high"), math.nan)
    RunFolder(run).log_evaluations([{**row, **nothing, "env_seed": ""} for row in rows])
    (one, _) = cell_of(gf.report(run, tmp_path / "out"), "gfp actor", hopper.category).used
    assert one.verdict.score.high - one.verdict.score.value == pytest.approx(2.0)


def test_a_single_seed_has_no_interval_and_that_is_said(tmp_path):
    write_run(tmp_path / "run", CUBES[0])
    report = gf.report(tmp_path / "run", tmp_path / "out")
    cell = cell_of(report, "gfp actor")
    assert all(map(math.isnan, cell.figure.interval))
    assert "a single seed, so no interval" in cell.notes
    assert " ± " not in as_markdown(report.table).splitlines()[2].split("|")[2]
    assert math.isnan(report.statistics.methods[0].interquartile_mean.low)


def test_the_best_and_what_is_near_it_are_bold(tmp_path):
    for agent, score in (("gfp", 90.0), ("fql", 88.0), ("iql", 60.0)):
        write_run(tmp_path / "runs" / agent, CUBES[0], agent, score=score)
    text = as_markdown(gf.report(tmp_path / "runs", tmp_path / "out").table).splitlines()[2]
    bold = re.findall(r"\*\*([\d.]+)", text)
    assert any(abs(float(value) - 90) < 9 for value in bold)
    assert not any(50 < float(value) < 70 for value in bold)


def test_a_method_that_was_never_published_has_one_column(tmp_path):
    for agent in ("brac", "bc"):
        write_run(tmp_path / agent, CUBES[0], agent)
    head, _, line = as_markdown(gf.report(tmp_path, tmp_path / "out").table).splitlines()[:3]
    assert head == "| category | bc flow | brac actor |"
    assert line.count("|") == head.count("|")


def test_renderings_hold_the_same_numbers_and_escape_their_marks(tmp_path):
    write_run(tmp_path / "a_b", CUBES[0], seeds=(0, 1))
    report = gf.report(tmp_path / "a_b", tmp_path / "out")
    table = report.table._replace(notes=("50% of <b>a_b</b> & c|d",))
    (line, *_) = csv.DictReader(as_csv(table).splitlines())
    figure = cell_of(report, "gfp actor").figure
    assert (float(line["mean"]), (float(line["low"]), float(line["high"]))) == (figure.mean, figure.interval)
    latex = as_latex(table)
    assert r"50\% of \textless{}b\textgreater{}a\_b" in latex
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 2
    columns = latex.split(r"\begin{tabular}{l")[1].index("}") + 1
    assert all(row.count(" & ") == columns - 1 for row in re.findall(r"^(?:category|ogbench|cube).*\\\\$", latex, re.M))
    assert r"\<b\>a\_b\</b\> & c\|d" in as_markdown(table)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.slow
def test_no_runs_is_an_error_of_one_line(tmp_path):
    for command in (["report", tmp_path], ["report", f"{tmp_path}/*"], ["report"]):
        done = guidedflow(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_the_same_seed_twice_is_refused_and_named(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0, 1))
    write_run(tmp_path / "b", CUBES[0], seeds=(1, 2))
    with pytest.raises(
        SettingsError, match=r"a and .*b: expected each seed of gfp actor on .* once, found seed 1 in both"
    ):
        gf.report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_different_versions_are_told_apart(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, CUBES[0], seeds=(ord(name),))
    edit_config(tmp_path / "b", versions={"guidedflow": "0.0.1", "jax": "0.7.2", "mujoco": "3.4.0"})
    report = gf.report(tmp_path, tmp_path / "out")
    (note,) = report.table.notes
    assert re.fullmatch(r".*different versions of guidedflow: 0\.0\.1 \(1 run\), .* \(1 run\)", note)


def test_half_written_metrics_are_read_up_to_there_and_damaged_ones_are_named(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0])
    metrics = run / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole[:-20])
    report = gf.report(run, tmp_path / "out")
    assert any("half-written" in note for note in report.table.notes)
    metrics.write_text(whole.splitlines()[0] + "\n{broken\n")
    report = gf.report(run, tmp_path / "out")
    assert any("metrics.jsonl: expected JSON objects with step and seed" in note for note in report.table.notes)
    assert cell_of(report, "gfp actor").used[0].run.guidance == []


@pytest.mark.parametrize(
    "row",
    [
        {"guidance": 0.5},
        {"guidance": "strong", "guidance_above_half": 1},
        {"guidance": 0.5, "guidance_above_half": math.nan},
    ],
)
def test_a_metric_of_that_name_is_not_taken_for_gfp_s_guidance(tmp_path, row):
    """A contributor's algorithm may call a metric what it likes (finding 12)."""
    for name in ("gfp", "fql"):
        run = write_run(tmp_path / "runs" / name, CUBES[0], name)
        (run / "metrics.jsonl").write_text(json.dumps({"step": 250, "seed": 0, **row}) + "\n")
    report = gf.report(tmp_path / "runs", tmp_path / "out")
    assert cell_of(report, "gfp actor").used[0].run.guidance == []
    assert report.table.notes == ()


DAMAGED = [
    ("config.json", "{"),
    ("config.json", json.dumps({"task": CUBES[0].id})),
    ("evaluations.csv", "a\n1\n"),
    ("evaluations.csv", {"success": 7.0}),
    ("evaluations.csv", {"episodes": -3}),
]


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_a_damaged_run_is_named_and_the_others_are_reported(tmp_path, name, content):
    write_run(tmp_path / "runs" / "whole", CUBES[0], seeds=(0, 1))
    run = write_run(tmp_path / "runs" / "damaged", CUBES[0], seeds=(2,))
    if isinstance(content, dict):
        rows = [{**row, **content, "env_seed": ""} for row in RunFolder(run).evaluations()]
        (run / name).unlink()
        RunFolder(run).log_evaluations(rows)
    else:
        (run / name).write_text(content)
    report = gf.report(tmp_path / "runs", tmp_path / "out")
    (note,) = report.table.notes
    assert note.startswith(str(run / name))
    assert note.endswith("the run is left out")
    assert cell_of(report, "gfp actor").figure.seeds == 2
    with pytest.raises(RunError, match=f"found none; .*{name}"):
        gf.report(run, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_same_evaluation_twice_is_a_damaged_record(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0])
    evaluated(run, success=1.0, source="training")
    with pytest.raises(RunError, match="expected each evaluation of the training once, found two of actor, seed 0"):
        gf.report(run, tmp_path / "out")
    with pytest.raises(RunError, match="expected each evaluation of the training once"):
        gf.compare(run, run)


def test_a_task_that_is_not_known_here_is_no_reason_to_stop(tmp_path):
    write_run(tmp_path / "known", CUBES[0])
    edit_config(write_run(tmp_path / "other", CUBES[0], seeds=(1,)), task="a-task-of-another-package")
    report = gf.report(tmp_path, tmp_path / "out")
    assert any("a-task-of-another-package" in note for note in report.table.notes)


def test_scores_that_are_no_numbers_are_left_out_and_the_page_is_still_drawn(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0], until=900_000)
    evaluated(run, score=math.inf)
    edit_config(run, config={**json.loads((run / "config.json").read_text())["config"], "eta": math.nan})
    report = gf.report(run, tmp_path / "out")
    assert any("evaluations.csv: left out 1 row without a finite score" in note for note in report.table.notes)
    assert (tmp_path / "out" / "index.html").is_file()


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    for name in "ab":
        edit_config(write_run(tmp_path / f"{name}\x1b]2J", CUBES[0]), preset=f"{name}\x1b[2J")
    report = gf.report(tmp_path, tmp_path / "out")
    shown = shown_on_a_terminal(as_terminal(report.table))
    names = [str(path) for path in sorted(tmp_path.glob("*2J"))]
    shown += shown_on_a_terminal(compare_on_a_terminal(gf.compare(*names), tuple(names)))
    assert "2J" in shown
    assert "\x1b" not in shown


# ------------------------------------------------------------------------------------------------ the folder itself


def test_a_new_report_takes_the_place_of_the_whole_old_one(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", CUBES[0])
    out = gf.report(run, tmp_path / "out").path
    (out / "plots" / "curves-of-an-earlier-task.png").write_bytes(b"")
    gf.report(run, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "index.html",
        "plots",
        "statistics.md",
        "table.csv",
        "table.md",
        "table.tex",
    ]
    assert list((out / "plots").iterdir()) == []

    def fail(*_):
        raise OSError(28, "No space left on device", "index.html")

    before = (out / "table.md").read_bytes()
    edit_config(run, agent="fql")
    monkeypatch.setattr("guidedflow.results.report.draw_page", fail)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        gf.report(run, out)
    assert (out / "table.md").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0])
    with pytest.raises(SettingsError, match=r"expected a new folder or an earlier report, found config\.json and"):
        gf.report(run, run)
    out = gf.report(run, tmp_path / "out").path
    (out / "plots" / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match=r"found plots/notes\.txt in it"):
        gf.report(run, out)
    assert (out / "plots" / "notes.txt").read_text() == "mine"
    with pytest.raises(SettingsError, match="found a file"):
        gf.report(run, out / "table.md")


def test_progress_counts_runs_and_pictures(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "runs" / str(seed), CUBES[0], seeds=(seed,))
    seen = []
    gf.report(tmp_path / "runs", tmp_path / "out", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_of_long_metrics_a_sample_has_every_seed_from_the_first_step_to_the_last(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0], seeds=(0, 1, 2))
    (scored, *_) = cell_of(gf.report(run, tmp_path / "out"), "gfp actor").used
    rows = scored.run.guidance
    assert len((run / "metrics.jsonl").read_text().splitlines()) > 1000 > len(rows)
    assert [sum(row.seed == seed for row in rows) for seed in (0, 1, 2)] == [100, 100, 100]
    steps = [row.step for row in rows]
    assert sorted(steps) == steps
    assert steps[-1] > 980_000


def shown_on_a_terminal(drawn, width=80):
    console = rich.console.Console(width=width, file=io.StringIO(), markup=False)
    console.print(drawn)
    return console.file.getvalue()


def test_long_labels_leave_room_for_the_numbers_on_a_terminal(tmp_path):
    quick = {"preset": "quick", "seeds": (0, 1), "data_made_by": LOCAL}
    write_run(tmp_path / "runs" / "a", CUBES[0], alpha=3.0, flow_steps=2, **quick)
    write_run(tmp_path / "runs" / "b", CUBES[0], "fql", hidden=(64, 64), **quick)
    report = gf.report(tmp_path / "runs", tmp_path / "out")
    assert any(len(method.label) > 30 for method in report.table.methods)
    shown = shown_on_a_terminal(as_terminal(report.table))
    assert "not comparable" in shown
    assert CATEGORY in shown
    assert f"{cell_of(report, report.table.methods[0].label).figure.mean:.1f} ± " in shown


def test_a_run_without_evaluations_or_environment_is_left_out_and_said(tmp_path):
    write_run(tmp_path / "good", CUBES[0])
    (write_run(tmp_path / "new", CUBES[1]) / "evaluations.csv").unlink()
    edit_config(write_run(tmp_path / "own", CUBES[2]), task=None)
    notes = gf.report(tmp_path, tmp_path / "out").table.notes
    assert any("new: no evaluation yet" in note for note in notes)
    assert any("own: trained without an environment" in note for note in notes)
    shutil.rmtree(tmp_path / "good")
    with pytest.raises(RunError, match="expected at least one evaluation of a task or environment, found none"):
        gf.report([tmp_path / "new", tmp_path / "own"], tmp_path / "out")


# ------------------------------------------------------------------------------------------------------- compare


def test_compare_tells_settings_and_pairs_scores_by_seed(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0, 1, 2, 3), score=50.0)
    write_run(tmp_path / "b", CUBES[0], seeds=(1, 2, 3, 4), score=70.0, alpha=3.0)
    found = gf.compare(tmp_path / "a", tmp_path / "b")
    assert ("alpha", "10", "3") in found.differences
    assert {result.policy for result in found.results} == {"actor", "vabc"}
    result = found.results[0]
    assert (result.steps, result.seeds) == ((1_000_000, 1_000_000), (1, 2, 3))
    scores = []
    for name in "ab":
        rows = csv.DictReader((tmp_path / name / "evaluations.csv").read_text().splitlines())
        last = {int(r["seed"]): float(r["score"]) for r in rows if (r["step"], r["policy"]) == ("1000000", "actor")}
        scores.append([last[seed] for seed in (1, 2, 3)])
    test = scipy.stats.ttest_rel(scores[1], scores[0])
    assert result.p_value == pytest.approx(test.pvalue)
    low, high = test.confidence_interval(0.95)
    assert result.low <= low + 1e-9
    assert result.high >= high - 1e-9
    # The seeds differ less than their 100 episodes leave open: that interval is Newcombe's, without the pairs.
    ends = [[wilson_interval(score / 100, 100) for score in found] for found in scores]
    reach = [
        sum((100 * bound[k] - score) ** 2 for bound, score in zip(e, f, strict=True))
        for k in (0, 1)
        for e, f in zip(ends, scores, strict=True)
    ]
    episodes = math.sqrt(reach[1] + reach[2]) / 3, math.sqrt(reach[3] + reach[0]) / 3
    assert result.low == pytest.approx(min(low, result.difference - episodes[0]))
    assert result.high == pytest.approx(max(high, result.difference + episodes[1]))


def test_compare_of_a_single_seed_says_that_there_is_no_test(tmp_path):
    for name in "ab":
        write_run(tmp_path / name, CUBES[0])
    found = gf.compare(tmp_path / "a", tmp_path / "b")
    assert not found.differences
    assert math.isnan(found.results[0].p_value)
    assert any("single shared seed" in note for note in found.notes)


def test_compare_refuses_what_cannot_be_compared(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0,))
    write_run(tmp_path / "b", CUBES[1], seeds=(0,))
    with pytest.raises(RunError, match="expected two runs of one task or environment, found"):
        gf.compare(tmp_path / "a", tmp_path / "b")


def test_compare_shows_settings_where_no_score_can_be_paired(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0,))
    write_run(tmp_path / "b", CUBES[0], seeds=(1,), alpha=3.0)
    found = gf.compare(tmp_path / "a", tmp_path / "b")
    assert ("alpha", "10", "3") in found.differences
    assert found.results == ()
    assert found.notes == ("no policy, seed and swept value that both runs have, so there is no result to compare",)


def test_compare_shows_lists_as_lists_and_networks_as_sizes(tmp_path):
    """Seeds 0 and 1 are no 0x1 (finding 23)."""
    write_run(tmp_path / "a", CUBES[0], seeds=(0, 1))
    write_run(tmp_path / "b", CUBES[0], seeds=(0, 1, 2), hidden=(64, 64))
    found = gf.compare(tmp_path / "a", tmp_path / "b").differences
    assert ("seeds", "0 1", "0 1 2") in found
    assert ("hidden", "512x512x512x512", "64x64") in found


def test_compare_pairs_the_variants_of_two_sweeps(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0, 1), sweep={"alpha": (1.0, 3.0)})
    write_run(tmp_path / "b", CUBES[0], seeds=(0, 1), sweep={"alpha": (3.0, 10.0)})
    found = gf.compare(tmp_path / "a", tmp_path / "b")
    alpha = (("alpha", 3.0),)
    assert {result.variants for result in found.results} == {(alpha, alpha)}
    assert "only one of the runs has alpha=1, alpha=10" in found.notes
    assert ("sweep.alpha", "1 3", "3 10") in found.differences
    assert "alpha=3 actor" in shown_on_a_terminal(compare_on_a_terminal(found, ("a", "b")))


def test_compare_from_the_command_line(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0, 1))
    write_run(tmp_path / "b", CUBES[0], seeds=(0, 1), preset="quick")
    found = json.loads(guidedflow("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert {"name": "preset", "a": "published", "b": "quick"} in found["differences"]
    # The quick run ends before the other's first evaluation.
    assert found["results"][0]["steps"] == [1_000_000, 20_000]
    assert "no step was evaluated in both" in found["notes"][0]


def test_the_laptops_page_is_what_its_script_writes(capsys):
    laptop.Page()()
    page = (laptop.RESULTS / "README.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page, "python -m benchmarks.laptop page > docs/results-laptop/README.md"


def test_the_laptops_records_are_collected_and_chosen_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for study in laptop.STUDIES:
        shutil.copytree(laptop.RESULTS / study, Path("runs", study))
        for path in find_runs([Path("runs", study)]):
            job = Path("runs", study, "jobs", path.relative_to(Path("runs", study)))
            job.parent.mkdir(parents=True, exist_ok=True)
            job.with_suffix(".log").touch()
            os.utime(job.with_suffix(".log"), (1060.0, 1060.0))
            attempts = [{"began": 1000.0, "ended": None}, {"began": 2000.0, "ended": 2120.0}]  # The first was killed.
            job.with_suffix(".json").write_text(json.dumps({"attempts": attempts}))
    unfinished = find_runs([Path("runs", "laptop-sweep")])[0]
    (unfinished / "summary.json").unlink()
    laptop.Collect(Path("runs"), Path("out"))()
    counts = [len(find_runs([Path("out", study)])) for study in laptop.STUDIES]
    assert [int(count) for count in re.findall(r": (\d+) finished", capsys.readouterr().out)] == counts
    assert counts[0] == len(find_runs([laptop.RESULTS / "laptop-sweep"])) - 1
    for path in find_runs([Path("out")]):
        for file in path.iterdir():
            assert file.read_text() == (laptop.RESULTS / path.relative_to("out") / file.name).read_text()
    assert set(laptop.minutes_of(Path("out", "laptop")).values()) == {3.0}
    laptop.Choose(Path("runs", "laptop-sweep"), json=True)()
    rows = json.loads(capsys.readouterr().out)["results"]
    assert len(rows) == counts[0]
    assert all(row["best"] in SWEPT[row["agent"]] for row in rows)


def test_the_laptops_plan_has_what_its_sweep_chose_and_its_records_are_of_that_plan():
    sweep, study = (laptop.RESULTS / name for name in laptop.STUDIES)
    for path in find_runs([sweep]):
        config, chosen = RunConfig.read(path), laptop.choice(path)
        assert config.sweep == {"alpha": SWEPT[config.agent]}
        assert CHOSEN[chosen.data][config.agent] == chosen.best
    for path in find_runs([study]):
        config = RunConfig.read(path)
        alpha = CHOSEN[find_task(config.task).dataset].get(config.agent)
        assert (config.config.get("alpha"), config.settings["seeds"]) == (alpha, [0, 1, 2])
        assert not config.data.source.startswith("/")


def test_the_reproduction_page_is_what_its_script_writes(capsys):
    reproduction.main()
    page = (Path(__file__).parents[1] / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page, "python -m benchmarks.reproduction > docs/reproduction.md"
    rows = [line for line in page.splitlines() if line.startswith(("| ogbench/", "| d4rl/", "| minari/"))]
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} == {task.category for task in tasks()}
