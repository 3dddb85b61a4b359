"""What a user meets at the command line, above all their own mistakes: one line, exit code 2, nothing half-written."""

import errno
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TASK, guidedflow, own_arrays
from rich.console import Console, Group
from rich.table import Table

import guidedflow as gf
from guidedflow.cli import COMMANDS, main
from guidedflow.cli.app import parse
from guidedflow.cli.show import print_columns, print_fitting
from guidedflow.notices import show_notices
from guidedflow.processes import RemoteTraceback

QUICK = ["--preset", "quick", "--hidden", "16", "--flow-steps", "1", "--steps", "20", "--log-every", "10"]
QUICK += ["--save-every", "10", "--eval-every", "20", "--eval-episodes", "2"]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command in this process, in an empty folder; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


@pytest.fixture
def fails(run, tmp_path):
    """Run a command that must fail: one line of error that holds the given words, and no file left behind."""

    def call(*arguments, words):
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        code, _, err = run(*arguments)
        errors = [line for line in err.splitlines() if line.startswith("guidedflow: error: ")]
        assert code == 2, err
        assert len(errors) == 1
        assert "Traceback" not in err
        for word in words:
            assert word in errors[0]
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before

    return call


def test_help_lists_every_command(run):
    for words in ([], ["--help"], ["help"]):
        code, out, _ = run(*words)
        assert code == 0
        assert all(command.split()[0] in out for command in COMMANDS)
    for group in ("data", "study"):
        for words in ([group], [group, "help"], [group, "--help"]):
            code, out, _ = run(*words)
            assert code == 0
            assert all(command.split()[1] in out for command in COMMANDS if command.startswith(f"{group} "))


def test_help_does_not_wait_for_what_it_does_not_need():
    heavy = {"jax", "scipy", "gymnasium", "matplotlib", "mujoco", "ogbench", "minari", "h5py", "orbax", "PIL"}
    for words, allowed in (("--help", set()), ("evaluate --help", set()), ("train --help", {"jax"})):
        program = (
            "import sys\nfrom guidedflow.cli import main\ntry:\n    main(sys.argv[1:])\n"
            "except SystemExit:\n    print(*sys.modules, file=sys.stderr)"
        )
        command = [sys.executable, "-c", program, *words.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        loaded = {module.partition(".")[0] for module in done.stderr.split()}
        assert loaded & heavy <= allowed, words


def test_numbers_and_lists_as_people_write_them():
    words = ["train", "--seeds", "0", "1", "--hidden", "64,32", "--steps", "1e6", "TASK", "--batch_size=1_024"]
    command = parse([*words, "--sweep", "alpha=0.3,1", "eta=1e-3", "--online-eta", "none"])
    assert command.run.task == "TASK"
    assert command.run.sweep == {"alpha": (0.3, 1.0), "eta": (0.001,)}
    assert (command.settings.seeds, command.settings.steps, command.settings.batch_size) == ((0, 1), 1_000_000, 1024)
    assert (command.GFP.hidden, command.GFP.online_eta) == ((64, 32), None)
    assert type(command.settings.steps) is int
    assert parse(["train", "--hidden=8", "16", "TASK"]).GFP.hidden == (8, 16)
    bounds = parse(["data", "convert", "--action-low", "-1", "-2.5", "--action-high", "1", "2", "SOURCE", "OUTPUT"])
    assert (bounds.action_low, bounds.action_high) == ((-1.0, -2.5), (1.0, 2.0))
    keys = parse(["data", "convert", "--observation-keys", "a", "b", "SOURCE", "OUTPUT"])
    assert (keys.observation_keys, keys.output.name) == (("a", "b"), "OUTPUT")
    assert parse(["report", "a", "b", "--out", "c"]).runs == ("a", "b")


def test_wide_output_fits_a_narrow_terminal(monkeypatch):
    out = io.StringIO()
    console = Console(file=out, width=40, force_terminal=True, color_system=None)
    monkeypatch.setattr("guidedflow.training.display.make_console", lambda: console)
    rows = [{"task": f"task-{i}", "category": "c" * 20, "environment": "e" * 30} for i in range(3)]
    print_columns(rows, left_out=("environment", "category"))
    table = Table("policy", "step", "seeds", "B - A [95% interval]", title="scores")
    table.add_row("actor", "4,000", "0 1 2", "+12.3 [1.0, 23.6]")
    print_fitting(console, Group(table, "a note"))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= 40
    assert lines[:2] == ["task   category", f"task-0 {'c' * 20}"]
    assert any("actor" in line and "4,000" in line and "0 1 2" in line for line in lines)
    assert "a note" in lines


def test_train_help_gives_each_setting_its_symbol(run):
    code, out, _ = run("train", "--help")
    assert code == 0
    for option in ("--alpha", "--eta", "--flow-steps", "--target-agg", "--vabc-target-at", "--seeds", "--resume"):
        assert option in out
    text = " ".join(out.split())
    for symbol in ("alpha: weight of the distillation", "eta: temperature", "M: Euler steps", "gamma: discount"):
        assert symbol in text


def test_lists(run):
    code, out, _ = run("tasks", "--json")
    listed = json.loads(out)
    assert (code, len(listed), len({task["category"] for task in listed})) == (0, 144, 27)
    assert sum(task["is_visual"] for task in listed) == 5
    assert {task["scored_by"] for task in listed if task["benchmark"] == "ogbench"} == {"success"}
    code, out, _ = run("tasks", "d4rl/adroit", "--data-dir", ".")
    assert len(out.splitlines()) == 13
    assert run("tasks", "--here", "--data-dir", ".")[0] == 2
    code, out, _ = run("agents")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["gfp", "fql", "rebrac", "brac", "iql", "ifql", "bc"]
    assert "actor, vabc" in out
    assert re.search(r"rebrac +actor +rewards, next actions +yes +ReBRAC \(Tarasov et al., NeurIPS 2023", out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["'trian'", "'train'"]),
        (["data", "frobnicate"], ["data frobnicate", "data generate"]),
        (["train"], ["TASK", "guidedflow tasks"]),
        (["evaluate"], ["expected RUN, found none", "guidedflow evaluate --help"]),
        (["compare", "a"], ["expected RUN_B"]),
        (["agents", "gfp"], ["expected no more words, found 'gfp'"]),
        (["train", TASK, "--steps", "1.5"], ["--steps: expected a whole number", "1e3", "'1.5'"]),
        (["train", TASK, "--alpha", "nan"], ["--alpha: expected a finite number", "'nan'"]),
        (["train", TASK, "--alpha"], ["--alpha: expected a value, found none"]),
        (["train", TASK, "--seed", "3"], ["--seed: there is no such option; did you mean --seeds"]),
        (["train", TASK, "--sweep", "alpha"], ["--sweep: expected NAME=NUMBER,NUMBER,...", "'alpha'"]),
        (["train", TASK, "--sweep", "alpha=1", "--sweep", "tau=0.1"], ["--sweep: expected it once", "in one: --sweep"]),
        (["train", TASK, "--extend-to", "10"], ["--extend-to: expected --resume RUN"]),
        (["train", TASK, "--wandb", "maybe"], ["--wandb: expected one of", "offline", "'maybe'"]),
        (
            ["train", "--seeds", "0", "1", TASK, "--agent", "iql", "--eta", "3"],
            ["--eta: expected a setting of iql (", "--expectile", "found one of gfp"],
        ),
        (["evaluate", "r", "--variant", "alpha=1,2"], ["--variant: expected one value of alpha, found 2"]),
        (
            ["train", "cube-single-nosy-singletask-task1-v0"],
            ["cube-single-nosy", "cube-single-noisy-singletask-task1-v0"],
        ),
        (["train", TASK, "--alhpa", "3"], ["--alhpa"]),
        (["train", TASK, "--alpha", "much"], ["--alpha", "much"]),
        (["train", TASK, "--alpha", "-1"], ["alpha", ">= 0", "-1"]),
        (["train", TASK, "--discount", "1.5"], ["discount", "in (0, 1)", "1.5"]),
        (["train", TASK, "--agent", "sac"], ["agent", "gfp", "sac"]),
        (["train", TASK, "--preset", "fast"], ["preset", "quick", "published", "fast"]),
        (["train", TASK, "--steps", "1001"], ["steps", "multiple of log_every = 250", "1000 or 1250"]),
        (["train", TASK, "--seeds", "1", "1"], ["seeds", "1 1"]),
        (["train", TASK, "--workers", "0"], ["workers", "at least 1"]),
        (["train", TASK, "--data-dir", "nowhere"], ["nowhere", "data generate cube-single-noisy", "data fetch"]),
        (["train", "pen-human-v1"], ["pen-human-v1"]),
        (["train", "missing.npz"], ["missing.npz", "nothing there"]),
        (["train", TASK, "--dataset", "missing.npz"], ["missing.npz", "nothing there"]),
        (["train", "one.npz", "--dataset", "other.npz"], ["dataset", "expected none beside one.npz"]),
        (["train", "--resume", "nowhere"], ["nowhere", "config.json"]),
        (["evaluate", "nowhere"], ["nowhere", "config.json"]),
        (["data", "generate", "cube-sinlge-noisy"], ["cube-sinlge-noisy", "cube-single-noisy"]),
        (["data", "generate", "cube-single-noisy", "--episodes", "0"], ["episodes", "at least 1", "0"]),
        (["data", "inspect", "missing.npz"], ["missing.npz"]),
        (["data", "fetch", "door-human-v1"], ["door-human-v1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes(fails, arguments, words):
    fails(*arguments, words=words)


def spoiled(**changes):
    fields = own_arrays()
    for name, change in changes.items():
        fields[name] = change(fields[name])
    return fields


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (spoiled(rewards=lambda a: np.where(np.arange(120) == 5, np.nan, a)), ["rewards", "nan", "row 5"]),
        (spoiled(actions=lambda a: 2 * a), ["actions", "[-1, 1]"]),
        (spoiled(actions=lambda a: a[:7]), ["actions", "120 rows", "7"]),
        (spoiled(observations=lambda a: a.astype(object)), ["own.npz", "whole npz"]),
        ({"pictures": np.zeros(3)}, ["observations, actions", "pictures"]),
        ({name: array[:0] for name, array in own_arrays().items()}, ["transition", "no rows"]),
        (spoiled(timeouts=np.ones_like, terminals=np.zeros_like), ["transition", "120 episodes of one step"]),
    ],
    ids=["nan", "range", "lengths", "pickled", "foreign", "empty", "one-step"],
)
def test_broken_files(fails, tmp_path, fields, words):
    np.savez(tmp_path / "own.npz", **fields)
    fails("train", "own.npz", *QUICK, words=["own.npz", *words])


@pytest.mark.slow
def test_a_truncated_and_a_foreign_file(fails, tmp_path, own_file, cube_data):
    content = own_file.read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.npz").write_text("<html>not found</html>")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    for name in ("cut.npz", "text.npz", "single.npz"):
        fails("train", name, *QUICK, words=[name, "npz archive"])
    # A file of another environment under the task's name.
    folder = tmp_path / "data"
    folder.mkdir()
    scene = dict(np.load(cube_data / "cube-single-noisy-v0.npz"))
    scene["observations"] = scene["observations"][:, :20]
    np.savez(folder / "cube-single-noisy-v0.npz", **scene)
    fails("train", TASK, *QUICK, "--data-dir", folder, words=["observations", "(28,)", "(20,)"])
    np.savez(
        folder / "cube-single-noisy-v0.npz", **{name: scene[name] for name in ("observations", "actions", "terminals")}
    )
    fails("train", TASK, *QUICK, "--data-dir", folder, words=["qpos"])


@pytest.mark.slow
def test_a_run_folder_that_exists_and_a_resume_with_other_settings(run, fails, own_file):
    code, out, err = run("train", own_file, *QUICK, "--run-dir", "mine", "--batch-size", "500")
    assert code == 0, err
    assert "batch_size 500 is larger than the data (117 transitions)" in err
    assert "curves.png" in out
    fails("train", own_file, *QUICK, "--run-dir", "mine", words=["mine", "--resume mine"])
    fails("train", "--resume", "mine", "--alpha", "7", "--steps", "40", words=["alpha 3.0 -> 7.0", "steps 20 -> 40"])
    code, out, _ = run("train", "--resume", "mine", "--batch-size", "500")
    assert code == 0  # Finished already, and the same settings.
    np.savez(own_file, **own_arrays(seed=1))
    fails("train", "--resume", "mine", words=["own.npz", "other data"])


@pytest.mark.slow
def test_data_of_a_task_is_trained_on_evaluated_and_shown(run, cube_data):
    code, out, err = run("train", TASK, *QUICK, "--data-dir", cube_data, "--run-dir", "runs/r", "--seeds", "4", "7")
    assert code == 0, err
    assert "mean of 2" in out
    with open("runs/r/summary.json") as file:
        results = json.load(file)["results"]
    assert [(row["seed"], row["policy"]) for row in results] == [(4, "actor"), (4, "vabc"), (7, "actor"), (7, "vabc")]
    code, out, err = run("evaluate", "runs/r", "--json", "--checkpoint", "20")
    assert [row | {"source": "training"} for row in json.loads(out)] == results
    code, _, err = run("evaluate", "runs/r", "--checkpoint", "17")
    assert code == 2
    assert "(10, 20)" in err
    code, out, _ = run("data", "inspect", TASK, "--data-dir", cube_data)
    assert code == 0
    assert "no problems found" in out
    assert "316 transitions in 4 episodes of 80 to 80 steps" in out


def test_inspect_says_what_is_wrong(run, tmp_path):
    np.savez(tmp_path / "own.npz", **spoiled(rewards=lambda a: np.full_like(a, np.nan)))
    code, _, err = run("data", "inspect", "own.npz")
    assert code == 2
    assert "problem: own.npz: rewards: expected finite numbers" in " ".join(err.split())


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder(fails, tmp_path, own_file):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    fails("train", own_file, *QUICK, "--run-dir", locked / "run", words=["locked/run", "written"])


def test_a_run_folder_below_a_file(fails, own_file):
    fails("train", own_file, *QUICK, "--run-dir", own_file / "run", words=["own.npz/run", "Not a directory"])


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line(own_file, tmp_path):
    # No file may grow beyond 30 kB: writing a checkpoint fails as it does on a full disk.
    command = [sys.executable, "-m", "guidedflow", "train", own_file, *QUICK, "--hidden", "64", "64"]
    command = shlex.join(map(str, [*command, "--run-dir", tmp_path / "run"]))
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 30; trap '' XFSZ; exec {command}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("guidedflow: error: ")]
    assert len(errors) == 1
    assert os.strerror(errno.EFBIG) in errors[0]
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*[0-9]"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "generate", "cube-single-noisy"], "the same command goes on with the episodes that are finished"),
        (["data", "convert", "a", "b.npz"], "no file was made"),
        (["evaluate", "run"], "nothing was recorded"),
        (["train", "own.npz"], "before the training began; the same command begins it again"),
        (["train", "own.npz", "--run-dir", "there"], "continue with: guidedflow train --resume there"),
        (["train", "own.npz", "--run-dir=new"], "before the training began; the same command begins it again"),
        (["study", "run", "plan.toml"], "the same command goes on with them"),
        (["tasks"], "interrupted"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_ctrl_c_says_what_is_true_of_the_command(words, said, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "config.json").write_text("{}")
    program = (
        "import os, signal, sys, guidedflow.cli.app as app\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # Which a shell's background job ignores.
        "app.parse = lambda words: lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "app.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (130, 1)
    assert said in done.stderr


def test_an_ascii_terminal_gets_question_marks_in_place_of_what_it_lacks(tmp_path):
    np.savez(tmp_path / "own.npz", größe=np.zeros(3), **own_arrays())
    done = guidedflow("data", "inspect", tmp_path / "own.npz", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "gr??e" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_under_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "guidedflow", "tasks"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert os.strerror(errno.ENOSPC) in done.stderr


USERS_AGENT = """
from guidedflow.agents.bc import BC

class Broken(BC):
    def update(self, batch, key):
        open("settings-of-mine.yaml")
"""


@pytest.mark.slow
def test_an_exception_of_the_users_own_code_keeps_its_traceback(own_file, tmp_path):
    (tmp_path / "mine.py").write_text(USERS_AGENT)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = ["train", own_file, "--agent", "mine:Broken", "--steps", "10", "--log-every", "10", "--save-every", "10"]
    done = guidedflow(*command, "--eval-every", "10", cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert 'open("settings-of-mine.yaml")' in done.stderr
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'settings-of-mine.yaml'" in done.stderr
    assert "guidedflow: error" not in done.stderr


@pytest.mark.parametrize(
    ("error", "cause", "is_shown_whole"),
    [
        (OSError(errno.EACCES, "denied", "file"), OSError(), False),  # As files.whole_file raises it.
        (OSError(errno.EACCES, "denied", "file"), RemoteTraceback("of an environment"), True),
        (OSError(errno.ENOSPC, "full"), RemoteTraceback("of a worker"), False),
        (OSError(errno.ECONNRESET, "reset"), None, True),
    ],
)
def test_an_operating_systems_error_is_one_line_if_it_is_about_a_file_of_ours(
    error, cause, is_shown_whole, monkeypatch
):
    def fail():
        raise error from cause

    fail.__code__ = fail.__code__.replace(co_filename=json.__file__)  # As if it came from a library.
    monkeypatch.setattr("guidedflow.cli.app.parse", lambda words: fail)
    with pytest.raises(OSError if is_shown_whole else SystemExit):
        main(["tasks"])


@pytest.mark.slow
def test_a_sweep_without_an_environment_says_how_it_is_ranked(run, own_file):
    code, out, err = run("train", own_file, *QUICK, "--sweep", "alpha=1,3", "--run-dir", "swept")
    assert code == 0, err
    assert "the variants are ranked by fitted Q evaluation" in err
    assert out.index("alpha=") < out.index("best first, by the value on")


def test_the_paths_of_new_videos_are_printed(run, monkeypatch):
    folder = Path("mine/videos")
    folder.mkdir(parents=True)
    (folder / "earlier.gif").touch()

    def evaluate(path, **options):
        assert options["videos"] == 1
        (folder / "new.gif").touch()
        row = {"step": 20, "variant": (), "seed": 0, "policy": "actor", "episodes": 1, "success": 1.0, "score": 100.0}
        return [{**row, "success_low": 0.2, "success_high": 1.0, "mean_return": -3.0}]

    monkeypatch.setattr(gf, "evaluate", evaluate, raising=False)
    code, out, _ = run("evaluate", "mine", "--videos", "1")
    assert code == 0
    assert "video: mine/videos/new.gif" in out
    assert "earlier" not in out


@pytest.mark.slow
def test_python_shows_progress_notices_and_results_unless_asked_not_to(cube_data, own_dataset, tmp_path, capsys):
    program = (
        "import sys, guidedflow as gf\n"
        f"gf.train({TASK!r}, data_dir={str(cube_data)!r}, preset='quick', hidden=(8,), flow_steps=1, steps=20, "
        "log_every=10, save_every=10, eval_every=20, eval_episodes=1, run_dir='shown')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"guidedflow: note: run: {tmp_path / 'shown'}\n" in done.stderr
    assert re.search(r"step 20/20, 0:\d\d elapsed, >0:00 left: .* updates/s", done.stderr)  # An evaluation is to come.
    assert re.search(r"step 20/20, 0:\d\d elapsed, 0:00 left: success actor 0%", done.stderr)
    assert "success rate [95% interval]" in done.stdout
    show_notices(always=True)  # pytest has set up logging.
    small = {"hidden": (8,), "flow_steps": 1, "steps": 20, "log_every": 10, "save_every": 20, "eval_every": 20}
    gf.train(dataset=own_dataset, run_dir=tmp_path / "hidden", progress=False, **small)
    out, err = capsys.readouterr()
    assert f"guidedflow: note: run: {tmp_path / 'hidden'}\n" in err
    assert "step" not in out + err
