"""Runs and files after a mishap: what can be saved is saved, and what cannot is said in one line, nothing lost."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import TASK, guidedflow, own_arrays

import guidedflow as gf
from guidedflow.data.formats import npz
from guidedflow.errors import GuidedflowError, WorkerDied
from guidedflow.files import as_json
from guidedflow.runs.folder import RunFolder
from guidedflow.runs.summary import over_seeds
from guidedflow.training import trainer as loop

SMALL = {"hidden": (12,), "batch_size": 16, "log_every": 10, "flow_steps": 1, "steps": 60, "save_every": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on arrays of its own, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "own.npz", **own_arrays())
    gf.train(folder / "own.npz", run_dir=folder / "run", **SMALL)
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a run that was cut off after its last checkpoint."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    return tmp_path / "run"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def edit(run, change):
    config = json.loads((run / "config.json").read_text())
    change(config)
    (run / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").write_text("{}"), r"config.json: .* no 'data'"),
        (lambda run: (run / "config.json").write_text("[]"), r"config.json: expected a JSON object, found list"),
        (lambda run: (run / "config.json").write_bytes(b"\xff\xfe"), r"config.json: expected UTF-8 text"),
        (lambda run: edit(run, lambda c: c.pop("data")), r"config.json: .* no 'data'"),
        (lambda run: edit(run, lambda c: c["config"].update(nonsense=1)), r"config.json: .*nonsense"),
        (lambda run: edit(run, lambda c: c["settings"].update(batch_size=0)), r"config.json: .*batch_size"),
        (lambda run: edit(run, lambda c: c["settings"].update(log_every=7)), r"config.json: .*multiple of log_every"),
        (lambda run: edit(run, lambda c: c["settings"].update(steps=40)), r"steps: expected at least 60"),
        (lambda run: edit(run, lambda c: c["settings"].update(seeds="ab")), r"config.json: .*seeds"),
        (lambda run: (run / "metrics.jsonl").write_text('{"step": 10}\n'), r"metrics.jsonl: line 1: .*step and seed"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b"\x80\n"), r"metrics.jsonl: expected UTF-8"),
        (lambda run: (run / "evaluations.csv").write_text("step,seed\nx,y\n"), r"evaluations.csv: line 1"),
        (lambda run: (run / "evaluations.csv").write_text(""), r"evaluations.csv: line 1"),
        (lambda run: shutil.rmtree(run / "checkpoints"), r"checkpoints: .*recorded step 60, found none"),
    ],
)
def test_a_damaged_run_is_refused_and_left_as_it_is(run, damage, message):
    damage(run)
    before = content(run)
    with pytest.raises(GuidedflowError, match=message) as error:
        gf.resume(run)
    assert "\n" not in str(error.value)
    assert {path: text for path, text in content(run).items() if path in before} == before


def test_a_last_line_that_was_cut_short_is_left_out_and_trained_again(finished, run):
    shutil.rmtree(run / "checkpoints" / "60")
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text[:-20])
    assert [row["step"] for row in RunFolder(run).metrics()] == [10, 20, 30, 40, 50]
    gf.resume(run)
    again, before = (
        [{k: v for k, v in row.items() if k != "updates_per_second"} for row in RunFolder(folder).metrics()]
        for folder in (run, finished)
    )
    assert again == before


def test_a_damaged_checkpoint_names_the_whole_one(run):
    for path in (run / "checkpoints" / "60").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(GuidedflowError, match=r"checkpoints/60: expected a whole checkpoint.*\(there is: 40\)"):
        gf.resume(run)
    (run / "checkpoints" / "60").rename(run / "moved")
    shutil.rmtree(run / "moved")
    assert gf.resume(run).summary["steps"] == 60


def test_policies_of_a_damaged_run(run):
    edit(run, lambda config: config["spec"].update(observation_dtype="nonsense"))
    with pytest.raises(GuidedflowError, match=r"config.json: expected the settings of a run, found"):
        gf.load_policy(run)


@pytest.mark.slow
def test_what_was_learned_before_a_failing_evaluation_is_kept(walking, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise WorkerDied("a helper process ended unexpectedly, exit code -9")

    monkeypatch.setattr(loop.Evaluator, "__call__", fail)
    with pytest.raises(
        GuidedflowError, match=r"memory left\? The run is saved; continue it with `guidedflow train --resume"
    ):
        gf.train(run_dir=tmp_path / "run", eval_every=40, eval_episodes=1, **walking, **SMALL)
    monkeypatch.undo()
    assert (tmp_path / "run" / "checkpoints" / "40").is_dir()
    resumed = gf.resume(tmp_path / "run", env=walking["env"])
    assert [row["step"] for row in RunFolder(resumed.path).evaluations()] == [40, 40, 60, 60]


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_the_training(tmp_path):
    np.savez(tmp_path / "own.npz", **own_arrays())
    command = f"{sys.executable} -m guidedflow train own.npz --run-dir run --preset quick --hidden 12 --flow-steps 1 "
    command += "--steps 200 --log-every 10 --save-every 100 | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()


def start(signal_number, *arguments, **options):
    """Start the command with a signal's default action: whoever runs the tests may ignore it, which is inherited."""
    program = f"import os, signal, sys; signal.signal({int(signal_number)}, signal.SIG_DFL); os.execv(sys.argv[1], "
    command = [sys.executable, "-c", program + "sys.argv[1:])", sys.executable, "-m", "guidedflow", *arguments]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting workers", "making episodes"])
def test_ctrl_c_while_starting_is_one_line(moment, tmp_path):
    process = start(signal.SIGINT, "data", "generate", "cube-single-noisy", "--data-dir", tmp_path)
    deadline = time.monotonic() + 60
    while not _has_come(moment, tmp_path):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.splitlines()[-1].startswith("interrupted; ")
    assert "Traceback" not in error


def _has_come(moment, folder):
    return any(folder.rglob("train-0*" if moment == "making episodes" else "*"))


def test_mistakes_from_python_are_told_before_anything_is_written(own_dataset, cube_data, tmp_path):
    pictures = gf.Dataset.from_arrays(**{**own_arrays(), "observations": np.zeros((120, 8, 8, 3))})
    target = tmp_path / "run"
    for arguments, message in [
        ({"dataset": own_arrays()}, "dataset: expected a Dataset or a path, found dict"),
        ({"dataset": pictures}, "observations: expected a vector a step"),
        ({"dataset": own_dataset, "task": TASK}, r"dataset: observations: expected .*\(28,\)"),
        ({"dataset": own_dataset, "hidden": 8}, "hidden: expected a sequence, found 8"),
        ({"dataset": own_dataset, "seeds": 3}, "seeds: expected a sequence, found 3"),
        ({"dataset": own_dataset, "seeds": (-1,)}, r"seeds: expected a value in \[0, 4294967295\], found -1"),
        ({"dataset": own_dataset, "workers": "2"}, "workers: expected at least 1, found '2'"),
        ({"dataset": own_dataset, "agent": ["gfp"]}, "agent: expected one of"),
        ({"dataset": own_dataset, "batch_size": 10**12}, r"batch_size: expected a value in \[1, 1048576\]"),
        ({"dataset": own_dataset, "wandb": "yes"}, "wandb: expected online or offline, found 'yes'"),
        (
            {"task": "visual-scene-play-singletask-task1-v0", "eval_episodes": 0},
            "visual-scene-play-v0.npz: expected in",
        ),
    ]:
        with pytest.raises(GuidedflowError, match=message):
            gf.train(run_dir=target, **arguments)
        assert not target.exists()
    with pytest.raises(GuidedflowError, match="steps: expected a setting among"):
        gf.make_agent("gfp", own_dataset.spec, steps=5)
    agent = gf.make_agent("gfp", own_dataset.spec, hidden=np.array([12]), flow_steps=np.int64(1), alpha=np.float32(2))
    with pytest.raises(TypeError) as failed:
        gf.fit(agent, gf.Dataset.from_arrays(**{**own_arrays(), "observations": np.zeros((120, 9))}), steps=1)
    assert "was the agent made for other data?" in "".join(failed.value.__notes__)
    for steps in (0, -1, 2.0):
        with pytest.raises(GuidedflowError, match="steps: expected"):
            gf.fit(agent, own_dataset, steps=steps)
    policy = gf.Policy(agent, "actor", own_dataset.spec)
    with pytest.raises(GuidedflowError, match="observation: expected finite numbers"):
        policy(np.full(4, np.nan))


def test_a_run_is_continued_with_data_that_was_moved(finished, run, tmp_path):
    shutil.copy(finished.parent / "own.npz", tmp_path / "own.npz")
    edit(run, lambda config: config["data"].update(source=str(tmp_path / "gone" / "own.npz")))
    with pytest.raises(GuidedflowError, match=r"gone/own.npz: expected a data file, found nothing there"):
        gf.resume(run)
    assert gf.resume(run, data_dir=tmp_path).summary["steps"] == 60
    done = guidedflow("train", "--resume", run, "--run-dir", tmp_path / "other")
    assert done.returncode == 2
    assert "--run-dir: expected none beside --resume" in done.stderr


def test_foreign_archives(tmp_path, own_file):
    import zipfile

    path = tmp_path / "foreign.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(GuidedflowError, match=r"foreign.npz: expected an npz archive of arrays, found 'notes.txt'"):
        npz.read(path)
    content = bytearray(own_file.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1  # The first member says that it is encrypted.
    path.write_bytes(content)
    with pytest.raises(GuidedflowError, match=r"foreign.npz: expected a whole npz archive"):
        npz.read(path)
    path.write_text("observations,actions\n1,2\n")
    with pytest.raises(GuidedflowError, match=r"expected a whole npz archive of arrays, found a file that is none$"):
        npz.read(path)
    np.savez(path, **own_arrays(), metadata="mine, not JSON")
    assert npz.metadata(path) is None
    assert gf.train(path, run_dir=tmp_path / "run", **SMALL).path.is_dir()


def test_nan_in_the_simulators_states(cube_data, tmp_path):
    arrays = dict(np.load(cube_data / "cube-single-noisy-v0.npz"))
    arrays["qpos"][7, 2] = np.nan
    np.savez(tmp_path / "cube-single-noisy-v0.npz", **arrays)
    with pytest.raises(
        GuidedflowError, match=r"cube-single-noisy-v0.npz: qpos: expected finite numbers.*found nan in row 7"
    ):
        gf.load_dataset(TASK, tmp_path)


def test_one_seed_has_no_interval_and_json_has_no_nan(tmp_path):
    row = {"variant": (), "policy": "actor", "success": 0.5, "episodes": 4, "mean_return": 1.0, "score": 50.0}
    merged = over_seeds([row])
    assert np.isnan(merged[0]["success_low"])
    assert np.isnan(merged[0]["success_high"])
    assert json.loads(as_json(merged))[0]["success_low"] is None


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--episodes", "0"], ["--videos", "-1"], ["--checkpoint", "²"]])
def test_evaluating_with_impossible_numbers(arguments, finished, cube_data, tmp_path, capsys):
    from guidedflow.cli import main

    gf.train(TASK, data_dir=cube_data, run_dir=tmp_path / "run", eval_episodes=0, **SMALL)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(tmp_path / "run"), *arguments])
    assert stop.value.code == 2
    assert arguments[0].strip("-") in capsys.readouterr().err


@pytest.mark.slow
def test_the_terminal_closing_saves(tmp_path):
    np.savez(tmp_path / "own.npz", **own_arrays())
    command = ["train", "own.npz", "--run-dir", "run", "--flow-steps", 1, "--hidden", 12, "--log-every", 50]
    process = start(signal.SIGHUP, *command, cwd=tmp_path)
    while not (tmp_path / "run" / "metrics.jsonl").exists() or not (tmp_path / "run" / "metrics.jsonl").stat().st_size:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP
    saved = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").glob("[0-9]*"))
    assert 0 <= saved - RunFolder(tmp_path / "run").metrics()[-1]["step"] < 50
    # What was learned goes on where it was saved, and the row that was cut in two becomes whole.
    run = gf.resume(tmp_path / "run", callbacks=[lambda progress: progress.step < saved + 100])
    assert not run.is_finished
    steps = [row["step"] for row in RunFolder(run.path).metrics()]
    assert steps == list(range(50, steps[-1] + 1, 50))
    assert steps[-1] >= saved + 50
