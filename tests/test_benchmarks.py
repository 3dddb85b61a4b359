"""Each benchmark runs with its smallest options, and prints what it promises."""

import importlib
import json
import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

import guidedflow as gf
from benchmarks import assess, common, endtoend, gpu, learn, signals
from benchmarks.common import OutOfMemory, apart, run
from benchmarks.faults.__main__ import AREAS, Arguments, campaign
from benchmarks.faults.common import Done, Verdict, Worker
from benchmarks.floor import gflop, matrix_products
from benchmarks.update import Setup
from guidedflow.errors import SettingsError
from guidedflow.files import read_text
from guidedflow.suites.ogbench.recipes import recipe

TINY = ["--hidden", "8"]
SHORT = [*TINY, "--batch-size", "4", "--rows", "2000", "--chunk", "2", "--repeats", "2"]
SHORT_ON_GPU = [*TINY, "--batch-size", "4", "--chunk", "2", "--repeats", "2"]
SETUPS = tuple(Setup(hidden=(8,), batch_size=4, chunk=2, repeats=2, seeds=seeds) for seeds in (1, 2))
TINY_GROUP = gpu.Group("bc", "float32", SETUPS, count=False, beside=True)


@pytest.fixture
def rows(monkeypatch, capsys):
    """Run a benchmark in this process, which has JAX already, and return its results."""
    monkeypatch.chdir(ROOT)  # From where the processes that it starts find it.

    def call(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words, "--json"])
        importlib.import_module(f"benchmarks.{name}").main()
        return results(capsys.readouterr().out)

    return call


def results(printed):
    found = json.loads(printed)
    assert found["machine"]["cores"] > 0
    assert "json" not in found["settings"]
    return found["results"]


def assert_positive(row, *fields):
    for field in fields:
        value = row[field]
        if isinstance(value, dict):
            assert 0 < value["lowest"] <= value["median"] <= value["highest"], field
        else:
            assert value > 0, field


@pytest.mark.slow
def test_update_gives_rates_against_the_machines_own(rows):
    (row,) = rows("update", "--agents", "bc", "--seeds", "2", *SHORT)
    assert_positive(row, "updates_per_second", "gflop_per_update", "gflops", "gemm_gflops", "fraction_of_floor")
    assert_positive(row, "compile_seconds")
    assert row["seed_updates_per_second"]["median"] == pytest.approx(2 * row["updates_per_second"]["median"])


@pytest.mark.slow
def test_update_shows_where_the_time_of_gfps_update_goes(rows):
    *parts, whole, total = rows("update", "--profile", *SHORT)
    assert [row["part"] for row in (whole, total)] == ["whole update", "sum of the parts"]
    assert whole["share_of_update"] == 1
    # Nothing that multiplies was forgotten, and nothing is counted twice.
    assert total["gflop"] == pytest.approx(sum(row["gflop"] for row in parts)) == pytest.approx(whole["gflop"])
    for row in (*parts, whole, total):
        assert_positive(row, "milliseconds", "share_of_update")


def test_products_are_counted_in_loops_and_half_in_conditions():
    weight = jnp.ones((3, 5))

    def program(x, flag):
        _, looped = jax.lax.scan(lambda carry, row: (carry, row[None] @ weight), 0, x)
        return looped, jax.lax.cond(flag, lambda: x @ weight, lambda: jnp.zeros((4, 5)))

    products = matrix_products(jax.make_jaxpr(program)(jnp.ones((4, 3)), True).jaxpr)
    assert products == {(1, 1, 5, 3): 4, (1, 4, 5, 3): 0.5}
    assert gflop(products) == pytest.approx(2e-9 * (4 * 15 + 0.5 * 60))


@pytest.mark.slow
def test_data_is_made_loaded_and_sampled(rows):
    (loaded,) = rows("data", "load", "--rows", "300", "--repeats", "1")
    assert loaded["transitions"] == 299
    assert_positive(loaded, "seconds", "file_bytes", "kept_bytes", "ratio")
    (made,) = rows("data", "generate", "--families", "cube-single-noisy", "--episodes", "2", "--steps", "20",
                   "--workers", "1", "--repeats", "1")  # fmt: skip
    assert made["episodes"] == 3
    assert_positive(made, "seconds", "episodes_per_second")
    pixels = ["--frames", "40", "--batch-size", "2", "--batches", "2", "--repeats", "1"]
    (read,) = rows("data", "pixels", *pixels)
    assert_positive(read, "open_seconds", "batches_per_second")
    small = ["--agent", "bc", "--frames", "60", "--size", "8", "--hidden", "8", "--batch-size", "2"]
    (trained,) = rows("data", "cameras", *small, "--steps", "4", "--log-every", "2")
    assert_positive(trained, "updates_per_second")
    assert 0 <= trained["data_wait"]["median"] <= 1
    drawn = rows("data", "sample", "--rows", "2000", "--batches", "5", "--repeats", "1")
    assert [row["path"] for row in drawn] == ["compiled", "streamed"]
    for row in drawn:
        assert_positive(row, "batches_per_second")


@pytest.mark.slow
def test_evaluation_says_how_much_of_its_time_is_the_policys(rows):
    options = ["--agent", "bc", *TINY, "--episodes", "1", "--workers", "1", "--repeats", "1"]
    (row,) = rows("evaluate", *options)
    rates = "episodes_per_second", "steps_per_second"
    assert_positive(row, *rates, "seconds", "environments_seconds", "start_seconds", "compile_seconds")
    assert 0 < row["policy_share"]["median"] < 1
    assert row["steps_per_second"]["median"] == pytest.approx(200 * row["episodes_per_second"]["median"])


@pytest.mark.slow
def test_signals_say_how_soon_a_training_ends_and_that_it_goes_on(rows):
    (row,) = rows("signals", "--agents", "bc", *TINY, "--no-pictures", "--rows", "2000", "--settle", "0.1")
    assert (row["data"], row["agent"], row["exit_codes"], row["resumed"]) == ("vectors", "bc", [143], "yes")
    assert_positive(row, "updates_per_second", "said_seconds", "ended_seconds")


@pytest.mark.slow
def test_a_training_that_makes_no_updates_has_its_words_in_the_row(rows, monkeypatch):
    monkeypatch.setattr(signals, "STEPS", 15)  # No multiple of the steps between rows of metrics.
    (row,) = rows("signals", "--agents", "bc", *TINY, "--no-pictures", "--rows", "2000")
    assert row["ended_seconds"] is None
    assert "steps: expected a multiple of log_every = 10" in row["error"]


@pytest.mark.parametrize(
    ("steps", "goes_on"),
    [
        ([(None, 10), (10, 20)], True),
        ([(None, 10), (10, 20), (20, 30)], True),
        ([(None, 10), (5, 20)], False),
        ([(None, 10), (None, 20)], False),
        ([(None, None), (None, 20)], False),
    ],
)
def test_a_continuation_that_begins_elsewhere_is_noticed(steps, goes_on):
    found = [signals.Interruption(began, saved, 0.1, 0.2, 143, 1.0) for began, saved in steps]
    assert signals.went_on(found) == goes_on


@pytest.mark.slow
def test_scaling_goes_on_where_memory_runs_out():
    command = [sys.executable, "-m", "benchmarks.scaling", "--agent", "bc", *SHORT, "--json"]
    command += ["--axes", "rows", "--values", "2000000000", "2000"]  # 224 GB, of the 34 that it may have, and 224 kB.
    limited = ["sh", "-c", 'ulimit -v 34000000 && exec "$@"', "sh", *command]
    completed = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=True)
    too_large, small = results(completed.stdout)
    assert too_large["error"].startswith("out of memory")
    assert too_large["seed_updates_per_second"] is None
    assert small["error"] is None
    assert_positive(small, "seed_updates_per_second", "fraction_of_floor", "compile_seconds", "host_peak_bytes")


@pytest.mark.slow
def test_gpu_gives_every_row_its_rates_alone_and_the_first_agents_beside_acting(rows):
    found = rows("gpu", "--agents", "bc", "iql", "--seeds", "2", "1", "--precisions", "float32", *SHORT_ON_GPU)
    assert [(row["agent"], row["seeds"], row["note"]) for row in found] == [
        ("bc", 1, ""), ("bc", 2, ""), ("iql", 1, ""), ("iql", 2, "")
    ]  # fmt: skip
    for row in found:
        assert_positive(row, "updates_per_second", "seed_updates_per_second", "compile_seconds")
        assert row["seed_updates_per_second"]["median"] == pytest.approx(
            row["seeds"] * row["updates_per_second"]["median"]
        )
        if row["agent"] == "bc":
            assert_positive(row, "seed_updates_per_second_beside_acting", "acting_calls_per_second")
        else:
            assert row["acting_calls_per_second"] is None


@pytest.mark.slow
def test_gpu_counts_operations(rows):
    few, many = rows("gpu", "--count", "--agents", "bc", "--seeds", "2", "8", "--precisions", "mixed", *SHORT_ON_GPU)
    for row in (few, many):
        assert_positive(row, "operations_per_update", "accessed_bytes")
    assert many["accessed_bytes"] > few["accessed_bytes"]


@pytest.mark.slow
def test_gpu_leaves_out_what_there_is_no_time_for_and_begins_with_the_first_agent(rows):
    found = rows("gpu", "--agents", "gfp", "fql", "bc", "--seeds", "1", "--precisions", "float32", "mixed",
                 "--minutes", "1e-9")  # fmt: skip
    assert [(row["agent"], row["precision"]) for row in found] == [
        ("gfp", "float32"), ("gfp", "mixed"),
        ("fql", "float32"), ("bc", "float32"), ("fql", "mixed"), ("bc", "mixed"),
    ]  # fmt: skip
    assert {row["note"] for row in found} == {"left out: not compiled in time"}


@pytest.mark.slow
def test_gpu_tells_of_a_process_that_ended(monkeypatch):
    monkeypatch.setattr(gpu, "work", end)
    [(device, rows)] = gpu.measured([TINY_GROUP], time.monotonic() + 60)
    assert device == ""
    assert [(row["seeds"], row["note"]) for row in rows] == [
        (seeds, "its process ended with exit code 3") for seeds in (1, 2)
    ]


POLICIES = {"gfp": ("actor", "vabc"), "fql": ("actor", "flow")}


def end(group, parent):
    """In place of a group's work: what a crash looks like from outside."""
    sys.exit(3)


def rows_of(group):
    """The rows of a group that is measured in this process."""
    here, there = Pipe()
    here.send("measure")
    gpu.work(group, there)
    assert here.recv() == "compiled"
    return here.recv()[1]


@pytest.mark.parametrize(
    ("problem", "note"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"), "out of memory: RESOURCE_EXHAUSTED: 9 GB"),
        (MemoryError(), "out of memory: MemoryError"),
        (ValueError("no such precision here"), "no such precision here"),
    ],
)
def test_gpu_tells_in_a_row_what_its_device_cannot_do_and_goes_on(problem, note, monkeypatch):
    def rates(group, setup, compiled):
        if setup.seeds == 1:
            raise problem
        return {"compile_seconds": compiled}

    monkeypatch.setattr(gpu, "compiled", lambda group, setup: 1.0)
    monkeypatch.setattr(gpu, "rates", rates)
    refused, made = rows_of(TINY_GROUP)
    assert (refused["note"], refused["compile_seconds"]) == (note, None)
    assert (made["note"], made["compile_seconds"]) == ("", 1.0)


@pytest.mark.slow
def test_gpu_needs_jax_and_what_agents_are_made_of_only():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in sys.argv[1:]: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from multiprocessing import Pipe\n"
        "from benchmarks import common, gpu\n"
        "from benchmarks.update import Setup\n"
        "here, there = Pipe()\n"
        "here.send('measure')\n"
        f"gpu.work(gpu.{TINY_GROUP!r}, there)\n"
        "here.recv()\n"
        "common.report({'json': False}, here.recv()[1], markdown=True)\n"
    )
    absent = ["mujoco", "gymnasium", "gymnasium_robotics", "ogbench", "dm_control", "h5py", "minari", "orbax", "PIL",
              "matplotlib", "plotly", "rich", "tyro", "tensorboardX"]  # fmt: skip
    completed = subprocess.run([sys.executable, "-c", code, *absent], cwd=ROOT, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    title, _, *table = [line for line in completed.stdout.splitlines() if line.startswith("|")]
    assert title.startswith("| agent | precision | seeds | updates/second |")
    assert len(table) == 2
    assert all(row.startswith("| bc | float32 |") and row.endswith("|  |") for row in table)


@pytest.mark.slow
def test_the_phases_of_make_train_add_up(rows):
    options = ["--agent", "bc", "--episodes", "1", "--steps", "20", "--log-every", "10", "--eval-episodes", "1",
               "--starts", "1"]  # fmt: skip
    seconds = {row["phase"]: row["seconds"] for row in rows("endtoend", *TINY, *options)}
    assert_positive(seconds, *seconds)
    median = {phase: found["median"] for phase, found in seconds.items()}
    phases = ("data", "start", "compile", "updates", "evaluation", "rest")
    assert sum(median[phase] for phase in phases) == pytest.approx(median["total"])
    assert median["first update cold"] == pytest.approx(median["start"] + median["compile"])
    assert {"help", "first update warm"} < set(median)


def test_a_training_is_split_by_its_reports():
    reports = [
        (12.0, "compiling", 0, 0.0),
        (17.0, "training", 1, 0.0),  # Compiled, and one update made.
        (17.5, "training", 5, 8.0),
        (19.5, "training", 9, 8.0),  # Something else, a checkpoint for instance, took the rest of these two seconds.
        (20.0, "evaluating", 9, 8.0),
        (22.0, "evaluating", 9, 8.0),
        (23.0, "training", 9, 8.0),
        (24.0, "training", 13, 4.0),
        (25.0, "finished", 13, 4.0),
    ]
    found = endtoend.split(10.0, 16.0, reports)
    update = 1 / 8
    expected = {"start": 2.0, "compile": 5 - update, "updates": update + 0.5 + 0.5 + 1, "evaluation": 3.0}
    assert found == pytest.approx(expected | {"rest": 16 - sum(expected.values())})


def test_why_a_process_failed_is_told(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert apart(len, [1, 2]) == 2
    with pytest.raises(OutOfMemory):
        apart(bytearray, 2**62)
    with pytest.raises(RuntimeError, match="TypeError"):
        apart(len, 1)
    with pytest.raises(SettingsError, match=r"found 'nothing', which no scripted oracle makes$"):
        apart(recipe, "nothing")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("data", "generate", "--families", "nothing"), "expected data that can be made here, found 'nothing'"),
        (("data", "sample", "--rows", "0"), "rows: expected a value in [1, 2147483647], found 0"),
        (("endtoend", "--task", "door-expert-v1"), "found 'door-expert-v1', which no scripted oracle makes"),
        (("evaluate", "--agent", "bc", "--policy", "actor"), "policy: expected one of flow, found actor"),
        (("scaling", "--values", "1", "2"), "values: expected one axis with them"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(words, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*words])
    with pytest.raises(SystemExit) as stop:
        run(importlib.import_module(f"benchmarks.{words[0]}").main)
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("benchmarks: error: ")
    assert told in line


def test_a_floor_is_where_one_mean_in_forty_falls_below():
    measured = (94, 88, 86, 90, 94, 90, 94, 88, 88, 90)
    rng = np.random.default_rng(0)
    centre, width = np.mean(measured), np.std(measured, ddof=1)
    # Draws of what was measured and of what is measured next, both from one normal distribution.
    before, after = rng.normal(centre, width, (20_000, 10)), rng.normal(centre, width, (20_000, 2)).mean(1)
    below = np.mean([mean < learn.floor(tuple(row), 2) for row, mean in zip(before, after, strict=True)])
    assert below == pytest.approx(0.025, abs=0.005)
    assert learn.floor((100, 98, 100, 100, 100), 2) == pytest.approx(97.5, abs=0.2)
    assert learn.floor((100, 100), 2) == 98


@pytest.mark.parametrize(("success", "code"), [(0.98, 0), (0.5, 1)])
def test_what_no_longer_learns_fails(success, code, rows, monkeypatch):
    class Trained:
        def __init__(self, task, *, agent, seeds, **_):
            self.results = [
                {"policy": policy, "seed": seed, "success": success} for policy in POLICIES[agent] for seed in seeds
            ]

    monkeypatch.setattr(learn, "generate", lambda *_, **__: ())
    monkeypatch.setattr(learn.gf, "train", Trained)
    if code:
        with pytest.raises(SystemExit) as ended:
            rows("learn")
        assert ended.value.code == code
    else:
        found = rows("learn")
        assert [(row["agent"], row["policy"], row["verdict"]) for row in found] == [
            ("gfp", "actor", "reached"), ("gfp", "vabc", "reached"), ("fql", "actor", "reached")
        ]  # fmt: skip


def test_campaign_counts_all_work_and_loses_less_with_checkpoints(rows):
    together, alone = rows("campaign", "--losses-per-node-day", "12", "--simulations", "2")
    assert (together["processes"], alone["processes"]) == (864, 6 * (139 * 8 + 5 * 4))
    assert_positive(together, "gpu_hours", "makespan_hours", "lost_percent", "losses")
    assert together["lost_percent"]["highest"] < alone["lost_percent"]["lowest"]
    undisturbed, _ = rows("campaign", "--losses-per-node-day", "0", "--simulations", "1")
    assert undisturbed["lost_percent"]["highest"] == 0
    assert undisturbed["makespan_hours"]["median"] * 16 >= undisturbed["gpu_hours"]
    assert undisturbed["makespan_hours"]["median"] * 16 < 1.02 * undisturbed["gpu_hours"]


@pytest.mark.slow
@pytest.mark.whole
def test_overhead_measures_jobs_by_hand_and_by_an_engine(rows):
    by_hand, local = rows("overhead", "--engines", "local", "--jobs", "1", "--steps", "250")
    assert_positive(by_hand, "job_seconds")
    assert_positive(local, "job_seconds", "start_seconds")
    assert local["added_seconds"]["median"] == local["job_seconds"]["median"] - by_hand["job_seconds"]["median"]


@pytest.mark.slow
def test_many_jobs_are_checked_listed_and_looked_at(rows):
    found = rows("manyjobs", "--most", "3", "--repeats", "1")
    assert [(row["command"], row["jobs"]) for row in found] == [("list", 864), ("status", 864), ("page", 864)]
    for row in found:
        assert_positive(row, "seconds")


@pytest.mark.slow
def test_no_fault_is_dirty_and_every_area_has_cases():
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--json"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = results(completed.stdout)
    assert [row["area"] for row in found] == list(AREAS)
    for row in found:
        assert row["cases"] == row["clean"] + row["unprotected"] > 0, completed.stderr
    assert completed.returncode == 0


def test_a_dirty_case_is_told_with_the_command_that_repeats_it(monkeypatch, capsys, tmp_path):
    class Area:
        total = quick = 3

        def __init__(self, folder):
            assert folder == tmp_path

        def case(self, number, rng):
            return Verdict("dirty" if number == 1 else "clean", f"draws {rng.integers(100)}")

        def close(self):
            pass

    monkeypatch.setitem(AREAS, "full disk", Area)
    row, is_whole = campaign("full disk", tmp_path, Arguments(seed=7))
    assert is_whole
    assert (row["cases"], row["clean"], row["unprotected"], row["dirty"]) == (3, 2, 0, 1)
    first, again = capsys.readouterr().err.splitlines()
    assert again.strip() == "python -m benchmarks.faults --areas 'full disk' --seed 7 --only 1"
    assert campaign("full disk", tmp_path, Arguments(seed=7, only=1))[0]["cases"] == 1
    assert capsys.readouterr().err.splitlines()[0] == first


def test_an_interrupted_campaign_counts_what_it_did(monkeypatch, tmp_path):
    class Area:
        total = quick = 3
        is_closed = False

        def __init__(self, folder):
            pass

        def case(self, number, rng):
            if number == 2:
                raise KeyboardInterrupt
            return Verdict("clean", "nothing")

        def close(self):
            Area.is_closed = True

    monkeypatch.setitem(AREAS, "links", Area)
    row, is_whole = campaign("links", tmp_path, Arguments())
    assert (row["cases"], row["clean"], is_whole, Area.is_closed) == (2, 2, False, True)


REFUSAL = "guidedflow: error: own.npz: expected a file, found none\n"


@pytest.mark.parametrize(
    ("done", "problem"),
    [
        (Done(2, REFUSAL), None),
        (Done(2, "step 10/40\n" + REFUSAL), None),
        (Done(None, ""), "it hung"),
        (Done(1, REFUSAL), "exit code 1"),
        (Done(2, REFUSAL + REFUSAL), "exit code 2"),
        (Done(2, REFUSAL + "and more\n"), "exit code 2"),
        (Done(2, ""), "exit code 2"),
        (Done(2, "Traceback (most recent call last):\n" + REFUSAL), "a traceback"),
    ],
)
def test_what_is_a_refusal_in_one_line(done, problem):
    found = done.refusal()
    assert found is None if problem is None else problem in found


@pytest.mark.slow
def test_a_call_that_hangs_or_dies_costs_no_more_than_itself():
    worker = Worker()
    try:
        assert worker.call(int, "12") == ("value", 12)
        assert worker.call(int, "x").kind == "other"
        assert worker.call(read_text, ROOT).refusal(str(ROOT)) is None
        assert worker.call(time.sleep, 60, seconds=0.5).kind == "hang"
        assert worker.call(os._exit, 3) == ("died", "exit code 3")
        assert worker.call(bytes, 10**10).value.startswith("MemoryError")
        assert worker.call(int, "12") == ("value", 12)
    finally:
        worker.close()


def test_a_child_is_killed_at_the_operation_that_was_asked_for(tmp_path):
    fault = {"kill_at": "os.mkdir .*/b", "number": 2}
    program = f"import os\nfrom benchmarks.faults import child\nchild._arm({fault})\n"
    program += f"\nfor name in ('a', 'b1', 'b2', 'b3'): os.mkdir({str(tmp_path)!r} + '/' + name)"
    completed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, start_new_session=True, check=False)
    assert completed.returncode == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b1"]


@pytest.mark.slow
@pytest.mark.whole
def test_latency_times_exported_policies_beside_jax(rows):
    (row,) = rows("latency", "--agents", "bc", "--calls", "100", *TINY)
    assert row["policy"] == "flow"
    for form in ("ONNX", "JAX"):
        assert 0 < row[f"{form}_p50_ms"] <= row[f"{form}_p99_ms"]
        assert_positive(row, f"{form}_CPU_p99_ms", f"{form}_start_s")
    assert_positive(row, "export_s", "file_bytes")
    assert float(row["largest_difference"]) <= 1e-5


@pytest.mark.slow
def test_serve_times_what_clients_wait_for(rows, tmp_path):
    from benchmarks import latency

    run_folder = latency.train("bc", latency.Arguments(hidden=(8,)), tmp_path)
    (row,) = rows("serve", str(run_folder), "--clients", "2", "--seconds", "1")
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert 0 <= row["late"] <= 1
    assert 0 < row["answers_per_second"] <= 110


@pytest.mark.slow
def test_assess_compares_values_with_evaluations(rows, cube_data, tmp_path):
    settings = {"agent": "rebrac", "preset": "quick", "hidden": (8,), "batch_size": 8, "log_every": 10, "steps": 20}
    settings |= {"eval_every": 10, "save_every": 10, "eval_episodes": 1, "workers": 1, "progress": False}
    run = gf.train(common.TASK, data_dir=cube_data, run_dir=tmp_path / "run", **settings)
    found = rows("assess", str(run.path), "--steps", "2")
    assert [(row["data"], row["step"]) for row in found] == [
        (part, step) for part in ("training", "validation") for step in (10, 20)
    ]
    returns = {row["step"]: row["mean_return"] for row in gf.RunFolder(run.path).evaluations()}
    assert all(row["mean_return"] == returns[row["step"]] for row in found)
    assert not (run.path / "assessment.csv").exists()


def test_correlations_are_of_ranks():
    ordered = [
        {"success": i / 10, "mean_return": -i, "value": i**3, "action_error": i, "least_action_error": 5 - i}
        for i in range(5)
    ]
    found = assess.correlated(ordered)
    assert found["value with success"] == pytest.approx(1)
    assert found["value with mean_return"] == pytest.approx(-1)
    assert found["action_error with success"] == pytest.approx(-1)
    assert found["least_action_error with success"] == pytest.approx(1)
