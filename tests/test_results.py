"""From run folders to the table: what is comparable, what is refused, what is said."""

import csv
import io
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import rich.console
import scipy.stats
from conftest import guidedflow

import guidedflow as gf
from benchmarks import reproduction
from benchmarks.synthetic import write_run
from guidedflow.errors import UserError
from guidedflow.results import published
from guidedflow.results.protocol import judge, protocol
from guidedflow.results.runs import find_runs
from guidedflow.results.table import as_csv, as_latex, as_markdown, as_terminal
from guidedflow.suites import find_task, tasks

CUBES = [task for task in tasks() if task.category == "ogbench/cube-single-play"]
CATEGORY = CUBES[0].category
LOCAL = {"generator": "guidedflow"}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They have tests of their own."""
    monkeypatch.setattr("guidedflow.results.report.draw_all", lambda *_: iter(()))


def cell_of(report, label, row=CATEGORY):
    (found,) = [cell for (where, method), cell in report.table.cells.items() if (where, method.label) == (row, label)]
    return found


def rows_of(task, steps=None, episodes=100, score=50.0):
    marks = protocol(task).marks if steps is None else steps
    return [{"step": step, "episodes": episodes, "score": score + i} for i, step in enumerate(marks)]


SETTINGS = {"steps": 1_000_000, "success_timing": "post"}


def test_an_ogbench_score_is_the_mean_of_the_last_three_marks():
    rows = rows_of(CUBES[0], range(100_000, 1_000_001, 100_000))
    assert judge(CUBES[0], SETTINGS, rows, None) == (58.0, 1_000_000, ())


def test_other_benchmarks_are_scored_by_their_last_evaluation():
    door = find_task("door-human-v1")
    rows = rows_of(door, (400_000, 500_000))
    assert judge(door, SETTINGS | {"steps": 500_000}, rows, None) == (51.0, 500_000, ())


@pytest.mark.parametrize(
    ("settings", "rows", "data", "reason"),
    [
        ({"steps": 25_000}, rows_of(CUBES[0], (25_000,)), None, "fewer steps: 25,000 instead of 1,000,000"),
        ({}, rows_of(CUBES[0], (100_000,)), None, "unfinished: evaluated up to step 100,000 of 1,000,000"),
        ({}, rows_of(CUBES[0], (800_000, 1_000_000)), None, "other evaluations: none at 900,000 steps"),
        ({}, rows_of(CUBES[0], episodes=50), None, "fewer episodes: 50 an evaluation instead of 100"),
        ({}, rows_of(CUBES[0]), "arrays in memory", "other data: arrays in memory"),
        ({"success_timing": "pre"}, rows_of(CUBES[0]), None, "other success timing: of the state before a step"),
        ({}, [], None, "no evaluation yet"),
    ],
)
def test_what_strays_from_the_protocol_is_not_comparable(settings, rows, data, reason):
    verdict = judge(CUBES[0], SETTINGS | settings, rows, data)
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


def test_two_points_are_agreement_on_ogbench_only(tmp_path):
    for task, category in ((CUBES[0], CATEGORY), (find_task("pen-human-v1"), "d4rl/adroit")):
        theirs = published().scores["gfp", task.id]
        run = write_run(tmp_path / task.id, task, seeds=(0,))
        text = (run / "evaluations.csv").read_text()
        wanted = sum(theirs.values()) / len(theirs) - 1.5
        (run / "evaluations.csv").write_text(re.sub(r"[\d.]+$", f"{wanted}", text, flags=re.M))
        cell = cell_of(gf.report(run, tmp_path / "out"), "gfp actor", category)
        assert cell.verdict == ("within 2 points" if category == CATEGORY else "no interval")


def test_not_comparable_scores_are_shown_with_their_reasons(tmp_path):
    write_run(tmp_path / "run", CUBES[0], preset="quick", data_made_by=LOCAL, seeds=(0, 1))
    report = gf.report(tmp_path / "run", tmp_path / "out")
    cell = cell_of(report, "gfp actor (quick, other data)")
    assert cell.verdict == "not comparable"
    assert cell.difference is None
    said = (tmp_path / "out" / "table.md").read_text()
    for reason in ("fewer steps: 25,000", "fewer episodes: 50", "other data: locally generated, 1,000,000 transitions"):
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


def test_the_other_guidance_is_compared_with_its_own_published_figures(tmp_path):
    double = next(task for task in tasks() if task.dataset == "cube-double-play")
    write_run(tmp_path / "a", double)
    write_run(tmp_path / "b", double, guidance="advantage")
    report = gf.report(tmp_path, tmp_path / "out")
    cell = cell_of(report, "gfp actor (guidance=advantage)", "ogbench/cube-double-play")
    scores = published().scores["gfp-advantage", double.id].values()
    assert cell.published.mean == pytest.approx(sum(scores) / len(scores))
    assert cell_of(report, "gfp actor", "ogbench/cube-double-play").published.mean != cell.published.mean


def test_settings_that_nobody_published_are_told(tmp_path):
    write_run(tmp_path / "iql", CUBES[0], "iql")
    (one,) = cell_of(gf.report(tmp_path, tmp_path / "out"), "iql actor").used
    assert "other settings: nobody published those of iql for cube-single-play; these are its own" in one.deviations


def test_every_variant_of_a_sweep_is_a_column(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0])
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "sweep": {"alpha": [1.0, 3.0]}}))
    lines = (run / "evaluations.csv").read_text().splitlines()
    varied = [line.replace(",,", f",alpha={value},", 1) for value in (1, 3) for line in lines[1:]]
    (run / "evaluations.csv").write_text("\n".join([lines[0], *varied]) + "\n")
    report = gf.report(run, tmp_path / "out")
    assert {m.label for m in report.table.methods if m.policy == "vabc"} == {"gfp vabc (alpha=1)", "gfp vabc (alpha=3)"}
    assert "other setting: alpha = 1 instead of 10" in cell_of(report, "gfp vabc (alpha=1)").used[0].deviations


def test_a_single_seed_has_no_interval_and_that_is_said(tmp_path):
    write_run(tmp_path / "run", CUBES[0])
    report = gf.report(tmp_path / "run", tmp_path / "out")
    cell = cell_of(report, "gfp actor")
    assert math.isnan(cell.figure.half_width)
    assert "a single seed, so no interval" in cell.notes
    assert " ± " not in as_markdown(report.table).splitlines()[2].split("|")[2]
    assert math.isnan(report.statistics.aggregates[0].interquartile_mean.low)


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
    assert head == "| category | bc flow: ours | brac actor: ours |"
    assert line.count("|") == head.count("|")


def test_renderings_hold_the_same_numbers_and_escape_their_marks(tmp_path):
    write_run(tmp_path / "a_b", CUBES[0], seeds=(0, 1))
    report = gf.report(tmp_path / "a_b", tmp_path / "out")
    table = report.table._replace(notes=("50% of <b>a_b</b> & c|d",))
    (line, *_) = csv.DictReader(as_csv(table).splitlines())
    assert float(line["mean"]) == cell_of(report, "gfp actor").figure.mean
    latex = as_latex(table)
    assert r"50\% of \textless{}b\textgreater{}a\_b" in latex
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 1
    columns = latex.split(r"\begin{tabular}{l")[1].index("}") + 1
    assert all(row.count(" & ") == columns - 1 for row in re.findall(r"^(?:category|ogbench).*\\\\$", latex, re.M))
    assert r"\<b\>a\_b\</b\> & c\|d" in as_markdown(table)


# ------------------------------------------------------------------------------------------------------- bad input


def test_no_runs_is_an_error_of_one_line(tmp_path):
    for command in (["report", tmp_path], ["report", f"{tmp_path}/*"], ["report"]):
        done = guidedflow(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_the_same_seed_twice_is_refused_and_named(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0, 1))
    write_run(tmp_path / "b", CUBES[0], seeds=(1, 2))
    with pytest.raises(UserError, match=r"a and .*b: expected each seed of gfp actor on .* once, found seed 1 in both"):
        gf.report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_folder_named_twice_is_one_run(tmp_path):
    write_run(tmp_path / "a", CUBES[0])
    assert len(find_runs([tmp_path, f"{tmp_path}/a*", tmp_path / "a"])) == 1


def test_runs_of_different_versions_are_told_apart(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, CUBES[0], seeds=(ord(name),))
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    config["versions"]["guidedflow"] = "0.0.1"
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
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
    with pytest.raises(UserError, match=r"^\S*metrics\.jsonl: expected a JSON object with step, seed"):
        gf.report(run, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", "{}"), ("config.json", "{"), ("evaluations.csv", "a\n1\n")]
)
def test_a_damaged_run_is_named(tmp_path, name, content):
    run = write_run(tmp_path / "run", CUBES[0])
    if name == "config.json" and content == "{}":
        content = json.dumps({"task": CUBES[0].id})
    (run / name).write_text(content)
    with pytest.raises(UserError, match=name):
        gf.report(run, tmp_path / "out")


def test_of_long_metrics_a_sample_has_every_seed_from_the_first_step_to_the_last(tmp_path):
    run = write_run(tmp_path / "run", CUBES[0], seeds=(0, 1, 2))
    (scored, *_) = cell_of(gf.report(run, tmp_path / "out"), "gfp actor").used
    rows = scored.run.guidance
    assert len((run / "metrics.jsonl").read_text().splitlines()) > 1000 > len(rows)
    assert [sum(row["seed"] == seed for row in rows) for seed in (0, 1, 2)] == [100, 100, 100]
    steps = [row["step"] for row in rows]
    assert sorted(steps) == steps
    assert steps[-1] > 980_000


def test_long_labels_leave_room_for_the_numbers_on_a_terminal(tmp_path):
    write_run(tmp_path / "run", CUBES[0], preset="quick", seeds=(0, 1), alpha=3.0, flow_steps=2, data_made_by=LOCAL)
    report = gf.report(tmp_path / "run", tmp_path / "out")
    console = rich.console.Console(width=80, file=io.StringIO(), markup=False)
    console.print(as_terminal(report.table))
    shown = console.file.getvalue()
    assert "not comparable" in shown
    assert f"{cell_of(report, report.table.methods[0].label).figure.mean:.1f} ± " in shown


def test_a_run_without_evaluations_or_task_is_left_out_and_said(tmp_path):
    write_run(tmp_path / "good", CUBES[0])
    run = write_run(tmp_path / "new", CUBES[1])
    (run / "evaluations.csv").unlink()
    own = write_run(tmp_path / "own", CUBES[2])
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "task": None}))
    notes = gf.report(tmp_path, tmp_path / "out").table.notes
    assert any("new: no evaluation yet" in note for note in notes)
    assert any("own: trained on data without a task" in note for note in notes)
    shutil.rmtree(tmp_path / "good")
    with pytest.raises(UserError, match="expected at least one evaluation, found none"):
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
    interval = result.difference - result.half_width, result.difference + result.half_width
    assert interval == pytest.approx(tuple(test.confidence_interval(0.95)))


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
    write_run(tmp_path / "c", CUBES[0], seeds=(1,))
    with pytest.raises(UserError, match="expected two runs of one task"):
        gf.compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="expected a policy and a seed"):
        gf.compare(tmp_path / "a", tmp_path / "c")


def test_compare_from_the_command_line(tmp_path):
    write_run(tmp_path / "a", CUBES[0], seeds=(0, 1))
    write_run(tmp_path / "b", CUBES[0], seeds=(0, 1), preset="quick")
    found = json.loads(guidedflow("compare", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert {"name": "preset", "a": "published", "b": "quick"} in found["differences"]
    # The quick run ends before the other's first evaluation.
    assert found["results"][0]["steps"] == [1_000_000, 25_000]
    assert "no step was evaluated in both" in found["notes"][0]


def test_the_reproduction_page_is_what_its_script_writes(capsys):
    reproduction.main()
    page = (Path(__file__).parents[1] / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page, "python -m benchmarks.reproduction > docs/reproduction.md"
    rows = [line for line in page.splitlines() if line.startswith(("| ogbench/", "| d4rl/", "| minari/"))]
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} == {task.category for task in tasks()}
