"""Studies: the plan, the engine on this machine, where jobs stand, reports, and what kills leave behind."""

import copy
import dataclasses
import functools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
from conftest import TASK, guidedflow, own_arrays
from studies import JOBS, KILLS, Trainers, assert_same_runs, small_jobs, wait_for

import guidedflow as gf
from guidedflow.cli import main
from guidedflow.errors import RunError, SettingsError
from guidedflow.studies.jobs import JobState, read_attempts, state_of
from guidedflow.studies.launch import Ending, run_job
from guidedflow.studies.local import LocalEngine
from guidedflow.studies.page import write_page
from guidedflow.studies.plan import Job, Resources, read_plan
from guidedflow.studies.report import report
from guidedflow.studies.status import problems, rows, seconds_left, summary
from guidedflow.studies.templates import write_plan

SMALL = {"hidden": [8], "steps": 40, "save_every": 20, "log_every": 10, "batch_size": 8}
CORES_1 = {"cpus": 1}


def small_plan(folder: Path, **changes) -> dict:
    """A plan of one job on data of its own."""
    np.savez(folder / "own.npz", **own_arrays())
    block = {"tasks": [str(folder / "own.npz")], "agents": ["bc"], "preset": "quick", "settings": SMALL}
    plan = {"runs": str(folder / "runs"), "resources": CORES_1, "jobs": [block]}
    block |= {name: changes.pop(name) for name in list(changes) if name in ("agents", "seeds", "settings", "sweep")}
    return plan | changes


# ---------------------------------------------------------------------------------------------------------- the plan


def test_a_plan_makes_a_job_of_each_task_and_agent(tmp_path):
    (tmp_path / "plan.toml").write_text(
        'runs = "runs"\ndata_dir = "data"\n[resources]\ncpus = 3\n[data]\n"cube-*" = { episodes = 3 }\n"*" = "fetch"\n'
        '[[jobs]]\ntasks = ["cube-single-noisy-singletask-task?-v0", "D4RL/door/expert-v2", "d4rl/antmaze"]\n'
        'agents = ["bc", "gfp"]\nseeds = [1, 2]\nresources = { gpus = 0.5 }\n'
    )
    plan = read_plan(tmp_path / "plan.toml")
    assert len(plan.jobs) == 2 * (5 + 1 + 6)
    jobs = {job.name: job for job in plan.jobs}
    cube = jobs["cube-single-noisy-singletask-task1-v0/bc"]
    assert (cube.seeds, cube.recipe, cube.preset) == ((1, 2), {"episodes": 3}, "published")
    assert (cube.resources.cpus, cube.resources.gpus) == (3, 0.5)
    assert cube.run_dir == tmp_path / "runs" / "cube-single-noisy-singletask-task1-v0" / "bc"
    assert jobs["D4RL-door-expert-v2/gfp"].recipe == "fetch"
    assert Job.from_json(json.loads(json.dumps(dataclasses.asdict(cube)))) == cube


def test_all_mistakes_of_a_plan_are_named_at_once(tmp_path):
    block = {"tasks": ["cube-single", "nonsense-*"], "agents": ["gpf"], "seeds": [0]}
    other = {"tasks": [TASK], "agents": ["gfp", "iql"], "settings": {"alhpa": 1, "gamma": 1}, "colour": 3}
    third = {"tasks": ["door-expert-v1"], "agents": ["bc"], "sweep": {"tau": [1]}, "resources": {"cpus": 0}}
    plan = {"runs": str(tmp_path), "retires": 1, "data": {TASK: "fetch"}, "jobs": [block, other, third]}
    plan |= {"data_dir": str(tmp_path)}
    with pytest.raises(SettingsError) as error:
        read_plan(plan)
    text = str(error.value)
    words = (
        "'cube-single'",
        "'nonsense-*'",
        "'gpf'",
        "alhpa",
        "gamma: ",
        "'colour'",
        "did you mean 'retries'",
        "tau",
        "cpus",
    )
    for word in words:
        assert word in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"jobs": []}, "jobs: expected at least one table"),
        ({"retries": -1}, "retries: expected a value in .*, found -1"),
        ({"seeds": []}, "jobs 1: seeds: expected at least one value, found none"),
        ({"seeds": [0, 0]}, "seeds: expected each one once"),
        ({"settings": {"steps": 25, "log_every": 10}}, "steps: expected a multiple of log_every"),
        ({"agents": ["bc", "bc"]}, r"own/bc: expected once, found 2 times; give one of their \[\[jobs\]\] a label"),
        ({"data": {"nothing": "fetch"}}, "data: expected data of one of the plan's tasks, found 'nothing'"),
        ({"data": {"x": "get"}}, 'expected "fetch" or a table'),
        ({"resources": {"gpus": 1.5}}, "jobs 1: resources: gpus: expected a share of one or a whole number, found 1.5"),
        ({"resources": {"cores": 1}}, "jobs 1: resources: cores: expected a setting among cpus, gpus, memory_gb"),
        ({"sweep": {"hidden": [1]}}, "sweep: expected one of"),
    ],
)
def test_a_mistake_in_a_plan_is_one_line_and_nothing_is_written(tmp_path, change, words):
    with pytest.raises(SettingsError, match=words):
        gf.study(small_plan(tmp_path, **change))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_no_odd_value_in_a_plan_is_a_traceback(tmp_path):
    odd = [
        1,
        -1,
        1.5,
        math.nan,
        "x",
        "",
        "../..",
        True,
        [],
        {},
        [1],
        ["a/b"],
        [[]],
        [{}],
        {"a": 1},
        {"a": [1]},
        "\0",
        [""],
    ]
    plan = small_plan(tmp_path, data_dir=".", retries=1, sweep={"learning_rate": [1e-3]}, slurm={"time": 1})
    plan["jobs"][0] |= {"label": "a", "resources": {"gpus": 0.5}}
    plan["jobs"][0]["tasks"].append(TASK)
    plan["data"] = {"cube-*": {"episodes": 1, "seed": 0, "policy": "x", "stand_in": "sine"}}

    def places(found, *above):
        for name, value in found.items() if isinstance(found, dict) else enumerate(found):
            yield *above, name
            if isinstance(value, dict | list):
                yield from places(value, *above, name)

    messages = []
    for *above, last in places(plan):
        for value in odd:
            changed = copy.deepcopy(plan)
            functools.reduce(lambda found, name: found[name], above, changed)[last] = value
            for is_checked in (False, True):
                try:
                    jobs = read_plan(changed, is_checked=is_checked).jobs
                except SettingsError as error:
                    messages.append(str(error))
                else:
                    assert all(state_of(job).status == "waiting" for job in jobs)
    assert len(messages) > 500
    assert not any("\n" in message for message in messages)


def test_data_has_to_be_here_or_be_made(tmp_path):
    plan = small_plan(tmp_path, data_dir=str(tmp_path))
    plan["jobs"][0] |= {"tasks": [TASK, "pen-expert-v1"], "settings": {}}
    with pytest.raises(SettingsError, match="expected cube-single-noisy here or in the table") as error:
        read_plan(plan)
    assert "guidedflow data fetch pen-expert-v1" in str(error.value)
    plan["data"] = {"cube-*": {"episodes": 2}, "pen-*": {"policy": "nowhere.npz"}}
    with pytest.raises(SettingsError, match="policy: expected a file, found none"):
        read_plan(plan)


def test_the_plans_to_begin_with(tmp_path):
    assert len(read_plan(write_plan("laptop", tmp_path / "a.toml")).jobs) == 20
    (tmp_path / "pen.npz").touch()
    whole = read_plan(write_plan("laptop", tmp_path / "b.toml", tmp_path / "pen.npz")).jobs
    sweep = read_plan(write_plan("laptop-sweep", tmp_path / "d.toml", tmp_path / "pen.npz")).jobs
    assert (len(whole), len(sweep)) == (25, 20)
    assert {(job.task, job.agent) for job in whole if job.agent != "bc"} == {(job.task, job.agent) for job in sweep}
    assert not {seed for job in whole for seed in job.seeds} & {seed for job in sweep for seed in job.seeds}
    tried = {(job.task, job.agent): job.sweep["alpha"] for job in sweep}
    for job in whole:
        assert "alpha" not in job.settings or job.settings["alpha"] in tried[job.task, job.agent]
    published = read_plan(write_plan("published", tmp_path / "c.toml"))
    assert len(published.jobs) == 864
    assert {len(job.seeds) for job in published.jobs if "visual" in job.task} == {4}
    assert {len(job.seeds) for job in published.jobs if "visual" not in job.task} == {8}
    with pytest.raises(SettingsError, match="expected a new file"):
        write_plan("laptop", tmp_path / "a.toml")


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        return stop.value.code, *capsys.readouterr()

    assert run("study", "run", "nothing.toml")[2].count("guidedflow study init laptop") == 1
    (tmp_path / "bad.toml").write_text("runs = ")
    code, _, err = run("study", "status", "bad.toml")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected a study's plan in TOML" in err
    assert run("study", "init", "laptop")[0] == 0
    code, out, _ = run("study", "run", "laptop.toml", "--list")
    assert (code, out.splitlines()[-1]) == (0, "20 jobs")
    code, out, _ = run("study", "status", "laptop.toml")
    assert (code, out.splitlines()[-1]) == (0, "20 jobs: 20 waiting")
    code, _, err = run("study", "report", "laptop.toml")
    assert code == 2
    assert "20 of 20 jobs are not done" in err
    assert "study run" in run("study")[1] or "run" in run("study")[1]


def test_the_plan_of_the_documentation(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
    text = next(block for block in re.findall(r"```toml\n(.*?)```", page, re.S) if "[[jobs]]" in block)
    (tmp_path / "plan.toml").write_text(text)
    np.savez(tmp_path / "own.npz", **own_arrays())
    jobs = read_plan(tmp_path / "plan.toml", is_checked=False).jobs
    assert len(jobs) == 2 * (1 + 5 + 12 + 1) + 1
    alphas = jobs[-1]
    assert (alphas.run_dir.name, alphas.resources) == ("gfp-alphas", Resources(2, 0.5, 16))
    assert alphas.recipe == {"episodes": 300}


# -------------------------------------------------------------------------------------------------------- carried out


@pytest.mark.slow
def test_a_study_is_carried_out_once_and_names_what_differs(tmp_path):
    events = []
    plan = small_plan(tmp_path, agents=["bc", "iql"], data_dir=str(tmp_path / "elsewhere"))
    done = gf.study(plan, on_event=lambda job, text: events.append((job.name, text)))
    assert [state.status for state in done.states] == ["done", "done"]
    assert sorted(name for name, _ in events) == ["own/bc", "own/iql"]
    assert done.states[0].step == done.states[0].steps == 40
    before = {path: path.read_bytes() for path in done.runs.rglob("*") if path.is_file()}
    gf.study(plan)
    assert {path: path.read_bytes() for path in done.runs.rglob("*") if path.is_file()} == before
    (done.states[0].job.run_dir / "summary.json").unlink()
    assert gf.study(plan).states[0].status == "done"  # On the data of before, wherever tasks' data lies.
    plan["jobs"][0]["settings"] = {**SMALL, "steps": 80}
    with pytest.raises(SettingsError, match="steps 40 -> 80"):
        gf.study(plan)
    states = [state_of(job) for job in read_plan(plan).jobs]
    assert [state.status for state in states] == ["differs", "differs"]
    assert "own/bc" in problems(states)[0]


@pytest.mark.slow
def test_a_job_that_fails_is_tried_again_and_then_named(tmp_path):
    plan = small_plan(tmp_path, retries=1, agents=["bc", "iql"])
    arrays = own_arrays()
    del arrays["rewards"]  # Which IQL needs.
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(RunError, match=r"1 of 2 jobs failed: own/iql: .*rewards") as error:
        gf.study(plan)
    assert "\n" not in str(error.value)
    bc, iql = (state_of(job) for job in read_plan(plan).jobs)
    assert (bc.status, iql.status) == ("done", "failed")
    assert "rewards" in iql.why
    assert len(read_attempts(iql.job)) == 2
    assert rows([bc, iql]) == [{"task": "own", "bc": "done", "iql": "failed"}]
    np.savez(tmp_path / "own.npz", **own_arrays())
    gf.study(plan)
    assert state_of(iql.job).status == "done"


def test_nobody_else_carries_out_the_study_meanwhile(tmp_path):
    plan = small_plan(tmp_path)
    (tmp_path / "runs" / "jobs").mkdir(parents=True)
    with (
        filelock.FileLock(tmp_path / "runs" / "jobs" / "study.lock"),
        pytest.raises(RunError, match="found another process"),
    ):
        gf.study(plan)


@pytest.mark.slow
def test_what_is_running_and_how_long_it_takes_is_read_from_the_folders(tmp_path):
    plan = small_plan(tmp_path, agents=["bc", "iql", "gfp"])
    jobs = read_plan(plan).jobs
    gf.study({**plan, "jobs": [{**plan["jobs"][0], "agents": ["bc", "iql"]}]})
    (jobs[1].run_dir / "summary.json").unlink()
    metrics = jobs[1].run_dir / "metrics.jsonl"
    metrics.write_text('{"step": 30, "seed": 0, "updates_per_second": 5.0}\n{"step": 40, "se')
    with filelock.FileLock(jobs[1].file(".lock")):
        states = [state_of(job) for job in jobs]
    assert [state.status for state in states] == ["done", "running", "waiting"]
    assert (states[1].step, states[1].steps, states[1].seconds_left) == (30, 40, 2.0)
    states = [state._replace(seconds=60.0) for state in states]
    assert seconds_left(states) == 2.0 + 60.0
    assert summary(states) == "3 jobs: 1 done, 1 running, 1 waiting, 5 updates/s, about 1:02 left"
    assert rows(states) == [{"task": "own", "bc": "done", "iql": "75% 0:02 left", "gfp": "waiting"}]
    assert state_of(jobs[1]).status == "waiting"
    (jobs[1].run_dir / "config.json").write_text("{}")
    assert state_of(jobs[1]).status == "failed"


@pytest.mark.slow
def test_data_is_made_once_where_it_is_missing(tmp_path):
    settings = {**SMALL, "eval_episodes": 0}
    plan = {
        "runs": str(tmp_path / "runs"),
        "data_dir": str(tmp_path / "data"),
        "data": {"mujoco/hopper/*": {"stand_in": "random", "episodes": 2}},
        "jobs": [{"tasks": ["mujoco/hopper/medium-v0"], "agents": ["bc", "iql"], "settings": settings}],
    }
    jobs = read_plan(plan).jobs
    with ThreadPoolExecutor() as pool:
        endings = list(pool.map(run_job, jobs))
    assert [ending.code for ending in endings] == [0, 0]
    assert [state_of(job).status for job in jobs] == ["done", "done"]
    assert sum(job.file(".log").read_text().count("episodes: 2/2") for job in jobs) == 1
    odd = dataclasses.replace(jobs[0], name="odd", data_dir=str(tmp_path / "new"), recipe={"policy": "x.npz"})
    assert run_job(odd).code == 2
    assert state_of(odd).status == "failed"
    assert "stand_in: expected random or sine" in state_of(odd).why


def test_as_many_jobs_at_once_as_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr("guidedflow.studies.local.available_cores", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    started: dict[str, dict] = {}
    release = threading.Semaphore(0)

    def wait(job, environment, on_start):
        started[job.name] = environment
        release.acquire()
        return Ending(0)

    monkeypatch.setattr("guidedflow.studies.local.run_job", wait)
    (job,) = read_plan(small_plan(tmp_path)).jobs
    halves = [dataclasses.replace(job, name=f"half{i}", resources=Resources(cpus=1, gpus=0.5)) for i in range(5)]
    engine = LocalEngine()
    with pytest.raises(SettingsError, match="gpus: expected at most 2, which this machine has, found 3"):
        engine.submit([dataclasses.replace(job, resources=Resources(gpus=3))])
    engine.submit([*halves, dataclasses.replace(job, name="whole", resources=Resources(cpus=1, gpus=1))])
    wait_for(lambda: len(started) == 4)
    assert sorted(found["CUDA_VISIBLE_DEVICES"] for found in started.values()) == ["4", "4", "7", "7"]
    for _ in range(6):
        release.release()
        engine.wait()
    assert started["whole"]["CUDA_VISIBLE_DEVICES"] in ("4", "7")
    assert started["half4"]["CUDA_VISIBLE_DEVICES"] in ("4", "7")


# ------------------------------------------------------------------------------------------------------------- reports


@pytest.mark.slow
def test_a_report_refuses_gaps_or_names_them(tmp_path, cube_data):
    plan = small_plan(tmp_path, agents=["bc", "iql"], seeds=[0, 1], data_dir=str(cube_data))
    plan["jobs"][0] |= {"tasks": [TASK], "settings": {**SMALL, "eval_every": 40, "eval_episodes": 1}}
    (bc, iql) = read_plan(plan).jobs
    with pytest.raises(RunError, match=rf"2 of 2 jobs are not done: {TASK}/bc \(waiting\), {TASK}/iql"):
        report(plan, tmp_path / "report", is_partial=True)
    assert run_job(bc).code == 0
    with pytest.raises(RunError, match=rf"1 of 2 jobs are not done: {TASK}/iql \(waiting\); .*--partial"):
        report(plan, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    made = report(plan, tmp_path / "report", is_partial=True, latex=tmp_path / "table.tex")
    assert made.table.notes[0] == f"1 of 2 jobs are not done: {TASK}/iql (waiting)"
    assert made.table.notes[0] in (tmp_path / "report" / "index.html").read_text()
    assert run_job(iql).code == 0
    notes = report(plan, tmp_path / "report", latex=tmp_path / "table.tex", per_task="steps").table.notes
    assert not any("not done" in note for note in notes)
    assert f"steps was chosen for each task: bc on {TASK} 40, iql on {TASK} 40" in notes
    check_latex(tmp_path / "table.tex", columns=3)


def check_latex(path: Path, columns: int) -> None:
    """That a document is whole: each environment ends, each row has its columns, nothing is left unescaped."""
    text = path.read_text()
    opened = []
    for mark, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if mark == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    table = text.split(r"\begin{longtable}")[1].split(r"\end{longtable}")[0]
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3  # Heads, the category, the task.
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {columns - 1}
    body = text.split(r"\begin{document}")[1]
    assert not re.search(r"(?<!\\)[_%#^~]", body)
    assert body.count("{") == body.count("}")
    engine = shutil.which("pdflatex") or shutil.which("tectonic")
    if engine:
        subprocess.run([engine, path.name], cwd=path.parent, check=True, stdin=subprocess.DEVNULL, timeout=120)


def test_the_page_shows_where_each_job_stands(tmp_path):
    jobs = read_plan(small_plan(tmp_path, agents=["bc", "iql", "gfp"])).jobs
    states = [
        JobState(jobs[0], "done", 40, 40),
        JobState(jobs[1], "failed", why="x < y & \x1b[2J"),
        JobState(jobs[2], "running", 10, 40, 10.0),
    ]
    write_page(tmp_path / "status.html", "a <plan>", states)
    page = (tmp_path / "status.html").read_text()
    assert "<h1>a &lt;plan&gt;</h1>" in page
    assert "own/iql: x &lt; y &amp; ?[2J" in page
    assert '<td class="running" title="10 of 40 steps">25% 0:03 left</td>' in page
    assert "3 jobs: 1 done, 1 running, 1 failed" in page
    ET.fromstring(re.sub(r"<meta[^>]*>|<!doctype html>", "", page))  # Every element is closed.


# --------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_kills_of_the_driver_and_of_runs_change_nothing(undisturbed):
    plan = small_jobs(undisturbed.parent, "killed")
    rng = random.Random(0)
    with Trainers(undisturbed.parent / "killed") as trainers:
        for number in range(KILLS):
            driver = subprocess.Popen(
                [sys.executable, "-m", "guidedflow", "study", "run", str(plan)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wait_for(trainers.holders)
            time.sleep(rng.uniform(0, 2))
            assert driver.poll() is None, "there is nothing left to kill"
            running = [process for processes in trainers.holders().values() for process in processes]
            if number % 2 and running:
                os.kill(rng.choice(running), signal.SIGKILL)
            driver.kill()
            driver.wait()
        done = guidedflow("study", "run", plan)
    assert done.returncode == 0, done.stderr
    assert_same_runs(plan, undisturbed)
    assert len(trainers.most) == JOBS
    assert set(trainers.most.values()) == {1}
