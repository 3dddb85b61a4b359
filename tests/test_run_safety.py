"""A run's folder may come from a stranger, its disk may fill, its files may rot: what is promised then.

See docs/reliability-runs.md.
"""

import errno
import fcntl
import io
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import guidedflow, own_arrays, trained_agents
from orbax.checkpoint import CheckpointManager

import guidedflow as gf
from guidedflow.agents import find_agent
from guidedflow.data.download import locked
from guidedflow.data.formats import hdf5
from guidedflow.errors import DataError, RunError, SettingsError
from guidedflow.processes import available_memory
from guidedflow.runs.folder import RunFolder
from guidedflow.runs.loggers import TensorBoard
from guidedflow.training.prepare import check_memory
from guidedflow.training.settings import TrainSettings, members

SMALL = {"hidden": (12,), "batch_size": 16, "log_every": 10, "flow_steps": 1, "steps": 40, "save_every": 20}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on arrays of its own, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "own.npz", **own_arrays())
    gf.train(folder / "own.npz", run_dir=folder / "run", progress=False, **SMALL)
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------------ links


@pytest.mark.parametrize(
    "name", ["lock", "curves.png", "tensorboard", "checkpoints", "metrics.jsonl", "videos/a.gif", "x.1.tmp", "wandb"]
)
def test_a_run_with_a_link_is_not_written_to(name, run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    link = run / name
    if link.is_dir():
        shutil.rmtree(link)
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside if link.suffix == "" and name != "lock" else outside / "mine")
    with pytest.raises(RunError, match=r"expected plain files and folders .* found a symbolic link") as error:
        gf.resume(run, extend_to=60, progress=False)
    assert str(link) in one_line(error)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"mine": "mine"}


def test_links_of_weights_and_biases_and_links_to_a_run_are_fine(run, tmp_path):
    (run / "wandb" / "offline-run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("offline-run-1")
    (tmp_path / "linked").symlink_to(run)
    with RunFolder(tmp_path / "linked").lock():
        assert (run / "lock").is_file()
    assert (run / "wandb" / "latest-run").is_symlink()


def test_a_pipe_in_place_of_a_record_is_no_endless_wait(run):
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(RunError, match=r"metrics.jsonl: expected a file"):
        RunFolder(run).metrics()


def test_the_page_shows_no_film_that_is_a_link(run, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (run / "videos").mkdir()
    (run / "videos" / "step40-seed0-actor-episode0.gif").symlink_to(tmp_path / "secret")
    (run / "videos" / "step40-seed0-actor-episode1.gif").write_bytes(b"GIF89a")
    assert [path.name[-5:] for path in RunFolder(run).videos()] == ["1.gif"]
    (run / "videos").rename(tmp_path / "elsewhere")
    (run / "videos").symlink_to(tmp_path / "elsewhere")
    assert RunFolder(run).videos() == []


@pytest.mark.parametrize("suffix", [".lock", ".part", ".part.json"])
def test_a_download_waits_for_no_pipe(suffix, tmp_path):
    os.mkfifo(tmp_path / f"data.npz{suffix}")
    with pytest.raises(DataError, match="expected a file or none, found something else"), locked(tmp_path / "data.npz"):
        pass


@pytest.mark.parametrize("suffix", [".lock", ".part", ".part.json"])
def test_a_download_follows_no_link(suffix, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f"data.npz{suffix}").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="found a symbolic link"), locked(tmp_path / "data.npz"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


# ------------------------------------------------------------------------------------------------ locks, stale files


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_without_locks_work_goes_on_with_a_notice(number, run, tmp_path, monkeypatch, caplog):
    def no_lock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(fcntl, "lockf", no_lock)
    with caplog.at_level("WARNING", "guidedflow"):
        for _ in range(2):
            with RunFolder(run).lock():
                pass
        with locked(tmp_path / "data.npz"):
            pass
    told = [record.getMessage() for record in caplog.records if "no locks" in record.getMessage()]
    assert [said.startswith(str(folder)) for said, folder in zip(told, (run, tmp_path), strict=True)] == [True, True]


def test_what_a_killed_run_had_begun_to_write_is_removed(run):
    (run / "videos").mkdir()
    begun = ["metrics.jsonl.123.tmp", "checkpoints/40/checksums.json.123.tmp"]
    for name in (*begun, "videos/old.gif.123.tmp", "videos/new.gif.123.tmp"):
        (run / name).write_text("half")
    os.utime(run / "videos" / "old.gif.123.tmp", (0, time.time() - 7200))
    with RunFolder(run).lock():
        assert [path.name for path in run.rglob("*.tmp")] == ["new.gif.123.tmp"]


def test_a_run_that_was_killed_before_it_had_a_config_is_started_anew(own_dataset, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()
    (tmp_path / "run" / "config.json.999999999.tmp").write_text("{")
    made = gf.train(dataset=own_dataset, run_dir=tmp_path / "run", progress=False, **SMALL)
    assert made.is_finished
    assert not list(made.path.glob("*.tmp"))


# ------------------------------------------------------------------------------------------------------- a full disk


def test_a_disk_that_is_full_ends_the_logging_to_tensorboard_alone(own_dataset, tmp_path, monkeypatch, caplog):
    start = TensorBoard.start

    def start_on_a_full_disk(self, *arguments):
        start(self, *arguments)
        self._file.close()
        self._file = io.FileIO("/dev/full", "w")

    monkeypatch.setattr(TensorBoard, "start", start_on_a_full_disk)
    settings = {**SMALL, "log_every": 1}
    with caplog.at_level("WARNING", "guidedflow"):
        made = gf.train(dataset=own_dataset, run_dir=tmp_path / "run", progress=False, **settings)
    assert made.is_finished
    told = [record.getMessage() for record in caplog.records]
    assert [said.endswith("cannot be written (No space left on device); this run logs no more to it") for said in told]
    assert len(told) == 1
    assert len(RunFolder(made.path).metrics()) == 40


def test_a_checkpoint_that_cannot_be_finished_does_not_hide_why_the_training_ended(own_dataset, tmp_path, monkeypatch):
    finish = CheckpointManager.close

    def close(self):
        finish(self)
        raise ValueError("RESOURCE_EXHAUSTED: no room")

    def fail(progress):
        if progress.step >= 20:
            raise OSError(errno.ENOSPC, "why it ended")

    monkeypatch.setattr(CheckpointManager, "close", close)
    with pytest.raises(OSError, match="why it ended"):
        gf.train(dataset=own_dataset, run_dir=tmp_path / "run", progress=False, callbacks=[fail], **SMALL)


# -------------------------------------------------------------------------------------------------------- checkpoints


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(run):
    files = [path for path in (run / "checkpoints" / "40").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        for place in {0, len(content) // 2, len(content) - 1}:
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(RunError, match=r"checkpoints/40: expected a whole checkpoint") as error:
                gf.load_policy(run)
            assert one_line(error).endswith("(there is: 20)")
        path.write_bytes(content)
    (run / "summary.json").unlink()
    files[0].unlink()
    for use in (gf.resume, gf.load_policy, trained_agents):
        with pytest.raises(RunError, match=r"checkpoints/40: .* is damaged or missing"):
            use(run)


def test_what_describes_a_checkpoint_is_of_another_type(run):
    path = run / "checkpoints" / "40" / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_timestamp_nsecs": "x"}))
    with pytest.raises(RunError, match=r"checkpoints/40: expected a whole checkpoint .* _CHECKPOINT_METADATA is dam"):
        gf.load_policy(run)
    (path.parent / "checksums.json").unlink()
    with pytest.raises(RunError, match=r"checkpoints: expected checkpoints of a run, found: "):
        gf.load_policy(run)


@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000])
def test_checksums_that_are_none(text, run):
    (run / "checkpoints" / "40" / "checksums.json").write_text(text)
    with pytest.raises(RunError, match=r"checkpoints/40: expected a whole checkpoint"):
        gf.load_policy(run)


@pytest.mark.parametrize("name", ["checksums.json", "_CHECKPOINT_METADATA", "agents/manifest.ocdbt", "agents/d"])
def test_no_pipe_or_device_in_a_checkpoint_is_read(name, run):
    path = run / "checkpoints" / "40" / name
    path.rename(run / "moved")
    os.mkfifo(path)
    with pytest.raises(RunError, match=f"{name}: expected files and folders in a checkpoint") as error:
        gf.load_policy(run)
    one_line(error)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(RunError, match=f"{name}: expected files and folders in a checkpoint"):
        trained_agents(run)
    path.unlink()
    path.symlink_to(run / "moved")
    if path.is_file():  # A store may keep files by links.
        gf.load_policy(run)


def test_checkpoints_without_checksums_still_load(run):
    for path in run.rglob("checksums.json"):
        path.unlink()
    gf.load_policy(run)
    assert gf.resume(run, extend_to=60, progress=False).is_finished
    assert [path.parent.name for path in run.rglob("checksums.json")] == ["60"]


# ----------------------------------------------------------------------------------------------- paths, broken records


@pytest.mark.parametrize("name", ["a[b]", "a*", "what?", "**", "back\\slash"])
def test_paths_that_orbax_takes_for_patterns_are_refused_at_once(name, run, own_dataset, tmp_path):
    with pytest.raises(RunError, match="expected a path without any of") as error:
        gf.train(dataset=own_dataset, run_dir=tmp_path / name / "run", **SMALL)
    one_line(error)
    assert not (tmp_path / name).exists()
    run.rename(tmp_path / name)
    with pytest.raises(RunError, match="expected a path without any of"):
        gf.load_policy(tmp_path / name)


def test_a_run_stays_where_it_is_when_the_directory_changes(own_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    made = gf.train(
        dataset=own_dataset, run_dir="run", progress=False, callbacks=[lambda _: os.chdir(tmp_path / "other")], **SMALL
    )
    assert made.path == tmp_path / "run"
    assert made.is_finished
    assert list((tmp_path / "other").iterdir()) == []


DEEP = '{"a":' * 900 + "1" + "}" * 900
HUGE = "9" * 4000


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda text: DEEP),
        ("config.json", lambda text: text.replace('"versions": {', f'"versions": {{"x": {DEEP},')),
        ("config.json", lambda text: "[" * 100_000),
        ("config.json", lambda text: text.replace('"action_size": 2', '"action_size": Infinity')),
        ("config.json", lambda text: text.replace('"action_size": 2', f'"action_size": {"9" * 5000}')),
        ("config.json", lambda text: text.replace('"batch_size": 16', f'"batch_size": {HUGE}')),
        ("config.json", lambda text: text.replace('"discount": 0.99', f'"tau": {HUGE}, "discount": {HUGE}')),
        ("metrics.jsonl", lambda text: text.replace('"step": 20', '"step": Infinity')),
        ("metrics.jsonl", lambda text: text.replace('"step": 20', f'"step": {HUGE}')),
        ("metrics.jsonl", lambda text: text.replace('"step": 20', f'"x": {DEEP}, "step": 20')),
        ("metrics.jsonl", lambda text: text.replace('"step": 20', f'"x": {HUGE}, "step": 20')),
        ("metrics.jsonl", lambda text: text.replace('"step": 20', '"x": "text", "step": 20')),
        ("metrics.jsonl", lambda text: text.replace('"step": 20', '"variant": "alpha=x", "step": 20')),
        ("evaluations.csv", lambda text: f"{text.splitlines()[0]}\n1," + "x" * 200_000 + "\n"),
        ("evaluations.csv", lambda text: text.replace("20,,0", "20,alpha=x,0", 1)),
        ("evaluations.csv", lambda text: text.replace("20,,0", f"{HUGE},,0", 1)),
    ],
)
def test_broken_records_are_one_line_that_names_the_file(name, change, run):
    evaluations = {"episodes": 4, "success": 0.5, "success_low": 0.1, "success_high": 0.9, "mean_return": 1.0}
    evaluations |= {"return_half_width": 0.1, "mean_length": 5, "length_half_width": 1, "score": 50, "env_seed": None}
    row = {"step": 20, "variant": (), "seed": 0, "policy": "actor", "source": "training"} | evaluations
    RunFolder(run).log_evaluations([row])
    assert RunFolder(run).evaluations()[0] == row
    text = (run / name).read_text()
    changed = change(text)
    assert bool(changed != text)  # Not compared by pytest, which takes minutes to show the difference.
    (run / name).write_text(changed)
    (run / "summary.json").unlink()
    with pytest.raises(RunError, match=f"run/{name}: ") as error:
        gf.resume(run, progress=False)
    assert "\x1b" not in one_line(error)
    assert name == "config.json" or ": line 2" in str(error.value) or "line 2: " in str(error.value)


def test_numbers_that_float32_makes_the_end_of_their_range_are_refused(own_dataset):
    for name, value in [("discount", 0.9999999999), ("tau", 0.99999999999), ("tau", 1e-60), ("alpha", 1e300)]:
        with pytest.raises(SettingsError, match=f"{name}: expected a value .*, in float32"):
            gf.make_agent("gfp", own_dataset.spec, **{name: value})


def test_nothing_that_a_file_says_gives_orders_to_the_terminal(capsys):
    from guidedflow.cli.app import _fail

    assert _fail("a\x1b]0;title\x07b\x9bc\nd") == 2
    assert capsys.readouterr().err == "guidedflow: error: a?]0;title?b?c d\n"


# ------------------------------------------------------------------------------------------------------------- limits


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_made(own_dataset, tmp_path):
    with pytest.raises(SettingsError, match=r"memory: expected what fits into .* GB of networks .*; lower hidden"):
        gf.train(dataset=own_dataset, run_dir=tmp_path / "run", hidden=(65536, 65536))
    assert not (tmp_path / "run").exists()
    agent = find_agent("gfp")
    trained = members(agent.config_class(), (0,), {})
    with pytest.raises(SettingsError, match=r"memory: .* GB of steps gathered online; lower online_steps"):
        check_memory(agent, trained, TrainSettings(online_steps=1_000_000_000), own_dataset.spec)


def test_memory_is_judged_when_a_run_is_continued_too(run, monkeypatch):
    monkeypatch.setattr("guidedflow.training.prepare.available_memory", lambda: 1000.0)
    before = tree(run)
    for options in ({}, {"extend_to": 60}):
        with pytest.raises(SettingsError, match=r"memory: .* GB of networks .*, or end other processes$") as error:
            gf.resume(run, progress=False, **options)
        one_line(error)
        assert tree(run) == before


def test_memory_that_is_left(tmp_path):
    assert available_memory(tmp_path) == math.inf
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4 kB\nSwapFree: 1 kB\n")
    assert available_memory(tmp_path) == 5 * 1024
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("100\n")
    for limit, expected in [("max\n", 5 * 1024), ("1100\n", 1000)]:
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(limit)
        assert available_memory(tmp_path) == expected


def limited(limit, *arguments, cwd):
    command = f"ulimit {limit}; exec {sys.executable} -m guidedflow {' '.join(map(str, arguments))}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["-n 16", "-v 500000"])
def test_limits_of_the_shell_in_which_libraries_hang_are_one_line(limit, tmp_path):
    done = limited(limit, "tasks", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"guidedflow: error: ulimit {limit[:2]}: expected at least ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [2, 20, 60])
def test_files_that_cannot_grow_end_the_training_in_one_line(kilobytes, own_file, tmp_path):
    options = ("--hidden 64 --flow-steps 1 --preset quick --steps 100 --log-every 1 --save-every 50",)
    done = limited(f"-f {kilobytes}", "train", own_file, "--run-dir", "run", *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("guidedflow: error: ")
    assert "File too large" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 60])
def test_data_that_cannot_be_written_is_one_line_and_leaves_nothing(kilobytes, tmp_path):
    words = "data generate mujoco/hopper/medium-v0 --stand-in random --episodes 4 --workers 1 --data-dir data"
    done = limited(f"-f {kilobytes}", words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("guidedflow: error: ")
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_hdf5_that_cannot_be_written_is_an_error(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    arrays = {**own_arrays(), "observations": np.zeros((120, 4), np.float32)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            hdf5.write(tmp_path / "own.hdf5", arrays, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.filename == str(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_truncated_checkpoint_without_checksums_is_one_line(run):
    for path in (run / "checkpoints" / "40").rglob("*"):
        if path.name == "checksums.json":
            path.unlink()
        elif path.is_file():
            path.write_bytes(path.read_bytes()[:-5])
    (run / "summary.json").unlink()
    done = guidedflow("train", "--resume", run)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "checkpoints/40: expected a whole checkpoint" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_compiled_program_that_was_cut_short_is_written_anew(own_file, tmp_path):
    cache = tmp_path / "programs"
    changes = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    words = ("train", own_file, "--agent", "bc", "--preset", "quick", "--hidden", "8", "--batch-size", "8")
    words += ("--steps", "10", "--log-every", "10", "--flow-steps", "1", "--run-dir")
    assert guidedflow(*words, tmp_path / "first", env=os.environ | changes).returncode == 0
    entries = {path: path.stat().st_size for path in cache.glob("*run_steps*-cache")}
    assert entries
    for path, size in entries.items():
        os.truncate(path, size // 2)
    again = guidedflow(*words, tmp_path / "second", env=os.environ | changes)
    assert again.returncode == 0, again.stderr
    assert "cache" not in again.stderr
    for path, size in entries.items():
        assert abs(path.stat().st_size - size) < size // 10  # The compile time is in it.
