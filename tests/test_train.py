"""What ``train`` and ``resume`` promise beside learning: callbacks, loggers, plugins, records, longer runs."""

import errno
import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TASK, guidedflow, own_arrays, train_until_killed, trained_agents

import guidedflow as gf
from guidedflow.agents.agent import hyperparameters
from guidedflow.agents.bc import BC
from guidedflow.runs.loggers import TensorBoard, WeightsAndBiases
from guidedflow.settings import Count
from guidedflow.training import trainer
from guidedflow.training.evaluate import Evaluator
from guidedflow.training.metrics import MetricRows
from guidedflow.training.progress import Clock
from guidedflow.training.settings import Member, resolve

SMALL = {"agent": "bc", "hidden": (8,), "flow_steps": 1, "batch_size": 16, "log_every": 10, "save_every": 20}
SMALL |= {"steps": 60, "progress": False}
EVALUATED = {**SMALL, "agent": "rebrac", "eval_every": 20, "eval_episodes": 2, "eval_slots": 2}
del EVALUATED["flow_steps"]


def leaves(run):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trained_agents(run))]


def assert_same(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# ------------------------------------------------------------------------------------------- callbacks and loggers


@pytest.mark.slow
def test_callbacks_see_steps_agents_metrics_and_evaluations(walking, tmp_path):
    class Watch:
        def __init__(self):
            self.steps, self.evaluated, self.ended, self.losses = [], [], None, []

        def on_progress(self, progress):
            self.steps.append(progress.step)
            if progress.metrics:
                self.losses.append(progress.metrics["critic_loss"])
                assert jax.tree.leaves(progress.agents)[0].shape[0] == 2  # Two seeds.

        def on_evaluation(self, progress):
            self.evaluated += [(row["step"], row["seed"]) for row in progress.evaluations]

        def on_end(self, progress):
            self.ended = progress.step

    watch, seen = Watch(), []
    callbacks = [watch, lambda progress: seen.append(progress.phase)]
    gf.train(run_dir=tmp_path / "run", seeds=(0, 1), callbacks=callbacks, **walking, **EVALUATED)
    assert watch.steps == sorted(watch.steps)
    assert watch.evaluated == [(step, seed) for step in (20, 40, 60) for seed in (0, 1)]
    assert watch.ended == 60
    assert all(map(math.isfinite, watch.losses))
    assert {"compiling", "training", "evaluating", "finished"} <= set(seen)


def test_a_callback_stops_a_run_which_goes_on_as_if_it_had_not_been(own_dataset, tmp_path):
    whole = gf.train(dataset=own_dataset, run_dir=tmp_path / "whole", **SMALL)
    stopped = gf.train(
        dataset=own_dataset, run_dir=tmp_path / "run", callbacks=[lambda progress: progress.step < 25], **SMALL
    )
    assert not stopped.is_finished
    assert not gf.RunFolder(stopped.path).is_finished()
    assert gf.resume(stopped.path, dataset=own_dataset, progress=False).is_finished
    assert_same(whole.path, stopped.path)
    rows = [gf.RunFolder(run.path).metrics() for run in (whole, stopped)]
    strip = lambda rows: [{k: v for k, v in row.items() if k != "updates_per_second"} for row in rows]  # noqa: E731
    assert strip(rows[0]) == strip(rows[1])


def test_a_callbacks_own_exception_is_shown_as_it_is(own_dataset, tmp_path):
    def fail(progress):
        if progress.step >= 20:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        gf.train(dataset=own_dataset, run_dir=tmp_path / "run", callbacks=[fail], **SMALL)
    assert gf.resume(tmp_path / "run", dataset=own_dataset, progress=False).is_finished


class Remember:
    def __init__(self):
        self.calls = []

    def start(self, path, config, step):
        self.calls.append(("start", path.name, config["agent"], step))

    def log(self, step, label, values):
        self.calls.append(("log", step, label, sorted(values)))

    def close(self):
        self.calls.append(("close",))


def test_a_logger_of_ones_own_gets_the_numbers(own_dataset, tmp_path):
    mine = Remember()
    gf.train(dataset=own_dataset, run_dir=tmp_path / "run", loggers=[mine], **SMALL)
    assert mine.calls[0] == ("start", "run", "bc", 0)
    assert mine.calls[-1] == ("close",)
    assert [call[1] for call in mine.calls[1:-1]] == [10, 20, 30, 40, 50, 60]
    assert "updates_per_second" in mine.calls[1][3]
    longer = Remember()
    gf.resume(tmp_path / "run", dataset=own_dataset, extend_to=80, loggers=[longer], progress=False)
    assert longer.calls[0] == ("start", "run", "bc", 60)
    assert [call[1] for call in longer.calls[1:-1]] == [70, 80]


def tensorboard_events(folder):
    """What the newest event file of a run holds."""
    from tensorboardX.proto.event_pb2 import Event

    content = max((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns).read_bytes()
    events = []
    while content:  # Length, its checksum, the event, its checksum.
        (size,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return events


def test_tensorboard_forgets_what_a_resumed_run_logs_again(tmp_path):
    for step in (0, 40):
        board = TensorBoard()
        board.start(tmp_path, {}, step)
        board.log(step + 1, "seed0", {"loss": 0.5})
        board.close()
        first, *rest, last = tensorboard_events(tmp_path)
        assert first.file_version == "brain.Event:2"
        assert [(event.step, event.session_log.status) for event in rest] == [(41, 1)] * (step == 40)
        assert (last.step, last.summary.value[0].tag, last.summary.value[0].simple_value) == (
            step + 1,
            "seed0/loss",
            0.5,
        )


@pytest.mark.slow
def test_weights_and_biases_knows_runs_by_an_id_of_their_own_and_their_steps(own_dataset, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    made, logged = [], []

    class Stub:
        def log(self, values, step):
            logged.append((step, sorted(values)))

        def finish(self):
            logged.append("finished")

    monkeypatch.setattr(wandb, "init", lambda **options: made.append(options) or Stub())
    for name in ("a", "b"):
        run = gf.train(dataset=own_dataset, run_dir=tmp_path / name / "run", wandb="offline", **SMALL)
        gf.resume(run.path, dataset=own_dataset, extend_to=80, wandb="offline", progress=False)
    ids = [options["id"] for options in made]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert ids[0] != ids[2]
    assert logged[0][0] == 10
    assert all(name.startswith("seed0/") for name in logged[0][1])
    assert logged.count("finished") == 4
    with pytest.raises(gf.SettingsError, match="wandb: expected online or offline"):
        WeightsAndBiases("maybe")


@pytest.mark.slow
@pytest.mark.parametrize("fails_in", ["init", "log", "finish"])
def test_weights_and_biases_on_a_full_disk_is_a_notice(fails_in, own_dataset, tmp_path, monkeypatch, caplog):
    wandb = pytest.importorskip("wandb")

    class Stub:
        def log(self, values, step):
            self.fail("log")

        def finish(self):
            self.fail("finish")

        def fail(self, name):
            if name == fails_in:
                raise wandb.Error("no\nroom")

    def init(**_):
        if fails_in == "init":
            raise OSError(errno.ENOSPC, "no room")
        return Stub()

    monkeypatch.setattr(wandb, "init", init)
    with caplog.at_level("WARNING", "guidedflow"):
        run = gf.train(dataset=own_dataset, run_dir=tmp_path / "run", wandb="offline", **SMALL)
    assert run.is_finished
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith("no room); this run logs no more to it")


def test_what_a_logger_of_the_users_own_raises_stays_and_the_run_is_saved(own_dataset, tmp_path):
    class Mine:
        def start(self, path, config, step):
            pass

        def log(self, step, label, values):
            if step == 20:
                raise OSError(errno.ENOSPC, "mine")

        def close(self):
            pass

    with pytest.raises(OSError, match="mine"):
        gf.train(dataset=own_dataset, run_dir=tmp_path / "run", loggers=[Mine()], **SMALL)
    assert gf.resume(tmp_path / "run", dataset=own_dataset, progress=False).is_finished


# ------------------------------------------------------------------------------------------------ other algorithms


@hyperparameters
class OddConfig:
    """Settings with a name that the training has already."""

    tuned_with: ClassVar[dict[str, object]] = {}
    batch_size: Count = 64
    """Shadows the training's."""


class Odd(BC):
    """An algorithm whose settings cannot be told from the training's."""

    config_class: ClassVar[type] = OddConfig


@hyperparameters
class RatelessConfig:
    """No learning rate among the settings."""

    tuned_with: ClassVar[dict[str, object]] = {}


class Rateless(BC):
    """An algorithm that chooses its learning rate itself."""

    config_class: ClassVar[type] = RatelessConfig


class Own(BC):
    """A user's own algorithm."""


class Failing(BC):
    """A user's own algorithm with a mistake."""

    def update(self, batch, key):
        raise TypeError("my own mistake")


def test_a_class_is_trained_and_has_to_be_given_again(own_dataset, tmp_path):
    run = gf.train(dataset=own_dataset, run_dir=tmp_path / "run", **{**SMALL, "agent": Own})
    assert run.config.agent == f"{__name__}:Own"
    for call in (gf.load_policy, gf.resume):
        with pytest.raises(gf.SettingsError, match=r"its algorithm is .*:Own, which no package registers"):
            call(run.path)
    assert gf.load_policy(run.path, agent=Own)(np.zeros(4)).shape == (2,)
    longer = gf.resume(run.path, agent=Own, dataset=own_dataset, extend_to=80, progress=False)
    assert longer.is_finished
    with pytest.raises(gf.SettingsError, match=r"expected the settings of the run, found others: agent .*:Own -> bc"):
        gf.resume(run.path, agent="bc", dataset=own_dataset)


def test_an_algorithms_own_exception_is_shown_as_it_is(own_dataset, tmp_path):
    with pytest.raises(TypeError, match="my own mistake"):
        gf.train(dataset=own_dataset, run_dir=tmp_path / "run", **{**SMALL, "agent": Failing})
    agent = gf.make_agent(Failing, own_dataset.spec, hidden=(8,), flow_steps=1)
    with pytest.raises(TypeError, match="my own mistake"):
        gf.fit(agent, own_dataset, steps=1)


def test_a_learning_rate_that_is_not_there_cannot_decay():
    with pytest.raises(gf.SettingsError, match=r"learning_rate_decay: expected 0 for Rateless, .* found 0.5"):
        resolve(Rateless, "quick", None, {"learning_rate_decay": 0.5})
    assert resolve(Rateless, "quick", None, {}).train.learning_rate_decay == 0.0


def test_no_setting_of_an_algorithm_shadows_one_of_the_training():
    with pytest.raises(gf.SettingsError, match="OddConfig: expected settings that the training does not have"):
        resolve(Odd, "quick", None, {"batch_size": 64})


PLUGIN = '''
from typing import ClassVar

import numpy as np
from guidedflow.agents.bc import BC
from guidedflow.suites.suite import Suite, Task


class Cloner(BC):
    """Behaviour cloning under another name."""

    paper: ClassVar[str] = "a plugin's"
'''


@pytest.mark.slow
def test_an_installed_plugin_is_trained_from_the_command_line(own_file, tmp_path):
    wheel = tmp_path / "toy_plugin-1.0-py3-none-any.whl"
    about = "toy_plugin-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy_plugin.py", PLUGIN)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/entry_points.txt", "[guidedflow.agents]\ncloner = toy_plugin:Cloner\n")
        archive.writestr(f"{about}/RECORD", "")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, wheel]
    subprocess.run(list(map(str, install)), check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    options = ["--hidden", "8", "--flow-steps", "1", "--steps", "20", "--log-every", "10", "--save-every", "20"]
    run = ["train", own_file, "--agent", "cloner", "--batch-size", "16", "--run-dir", tmp_path / "run", *options]
    done = guidedflow(*run, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["agent"] == "cloner"
    assert "cloner" in guidedflow("agents", env=environment).stdout
    done = guidedflow("train", "--resume", tmp_path / "run", "--extend-to", "40", env=environment)
    assert done.returncode == 0, done.stderr
    gone = guidedflow("train", "--resume", tmp_path / "run")
    assert gone.returncode == 2
    assert "agent: expected one of gfp" in gone.stderr


# ------------------------------------------------------------------------------------------------------- the record


def test_a_longer_run_is_the_run_of_that_length(own_dataset, tmp_path):
    whole = gf.train(dataset=own_dataset, run_dir=tmp_path / "whole", **{**SMALL, "steps": 100})
    short = gf.train(dataset=own_dataset, run_dir=tmp_path / "short", **SMALL)
    for steps, message in ((40, "extend_to: expected more than the 60 steps"), (65, "steps: expected a multiple of")):
        with pytest.raises(gf.SettingsError, match=message):
            gf.resume(short.path, dataset=own_dataset, extend_to=steps)
    with pytest.raises(gf.SettingsError, match=r"own settings, found others: steps 60 -> 100; .*--extend-to"):
        gf.resume(short.path, dataset=own_dataset, steps=100)
    longer = gf.resume(short.path, dataset=own_dataset, extend_to=100, progress=False)
    assert_same(whole.path, longer.path)
    (extension,) = longer.config.extensions
    assert (extension.from_steps, extension.to_steps, longer.config.steps) == (60, 100, 100)


@pytest.mark.slow
def test_the_best_checkpoint_survives_a_stop_during_its_evaluation(walking, tmp_path, monkeypatch):
    scores = {20: 0.9, 40: 0.1, 60: 0.2, 80: 0.3, 100: 0.4}
    evaluate = Evaluator.__call__

    def scored(self, agents, step, **options):
        rows = evaluate(self, agents, step, **options)
        return [{**row, "success": scores[step], "score": 100 * scores[step]} for row in rows]

    def stopped(self, agents, step, **options):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal should have ended the evaluation")

    settings = {**EVALUATED, **walking, "steps": 100, "run_dir": tmp_path / "run"}
    monkeypatch.setattr(Evaluator, "__call__", stopped)
    with pytest.raises(gf.Interrupted) as stop:
        gf.train(**settings)
    assert stop.value.step == 20
    monkeypatch.setattr(Evaluator, "__call__", scored)
    run = gf.resume(tmp_path / "run", env=walking["env"], progress=False)
    kept = sorted(int(path.name) for path in gf.RunFolder(run.path).checkpoints.glob("[0-9]*"))
    assert kept == [20, 80, 100]
    assert "step 20" in repr(gf.load_policy(run.path, checkpoint="best"))
    assert [row["step"] for row in gf.RunFolder(run.path).evaluations()] == [20, 40, 60, 80, 100]


@pytest.mark.slow
def test_an_evaluation_that_a_kill_cut_short_is_made_up_for(walking, tmp_path, monkeypatch):
    settings = {**EVALUATED, **walking, "save_every": 10, "eval_async": True}
    whole = gf.train(run_dir=tmp_path / "whole", **settings)
    evaluate = Evaluator.__call__

    def late(self, agents, step, **options):
        if step == 20:
            time.sleep(2)
        return evaluate(self, agents, step, **options)

    monkeypatch.setattr(Evaluator, "__call__", late)
    train_until_killed(35, run_dir=tmp_path / "cut", **{k: v for k, v in settings.items() if k != "progress"})
    monkeypatch.undo()
    cut = gf.resume(tmp_path / "cut", env=walking["env"], progress=False)
    rows = [gf.RunFolder(run.path).evaluations() for run in (whole, cut)]
    assert rows[0] == rows[1]
    assert_same(whole.path, cut.path)


def test_two_starts_in_one_second_have_folders_of_their_own(own_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [gf.train(dataset=own_dataset, **{**SMALL, "steps": 20}) for _ in range(2)]
    assert runs[0].path != runs[1].path
    assert all(run.path.parent == tmp_path / "runs" / "own-data" for run in runs)


def test_a_folder_that_is_there_is_said_before_the_data_is_read(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(gf.RunError, match="expected a new folder for the run"):
        gf.train(tmp_path / "missing.npz", run_dir=tmp_path / "run")


@pytest.mark.slow
def test_mapped_vectors_go_online(tmp_path):
    arrays = own_arrays()
    np.save(tmp_path / "observations.npy", arrays["observations"].astype(np.float32))
    arrays["observations"] = np.load(tmp_path / "observations.npy", mmap_mode="r")
    arrays["actions"] = arrays["actions"][:, :1]
    dataset = gf.Dataset.from_arrays(**arrays)
    assert dataset.is_on_disk
    settings = {**EVALUATED, "eval_episodes": 0, "online_steps": 20, "env": "test_train:four_numbers"}
    run = gf.train(dataset=dataset, run_dir=tmp_path / "run", **settings)
    assert gf.RunFolder(run.path).metrics()[-1]["step"] == 80


def four_numbers():
    import gymnasium

    class Four(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9, 9, (4,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(4, np.float32), {}

        def step(self, action):
            return np.zeros(4, np.float32), 0.0, False, True, {}

    return Four()


@pytest.mark.slow
def test_fit_goes_on_where_it_ended(own_dataset):
    fresh = gf.make_agent("gfp", own_dataset.spec, hidden=(8,), flow_steps=1)
    whole, series = gf.fit(fresh, own_dataset, steps=20, batch_size=16)
    half, first = gf.fit(fresh, own_dataset, steps=10, batch_size=16)
    done, second = gf.fit(half, own_dataset, steps=10, batch_size=16)
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(done), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(series["critic_loss"], np.concatenate([first["critic_loss"], second["critic_loss"]]))
    _, repeated = gf.fit(half, own_dataset, steps=10, batch_size=16, first_step=0)
    assert not np.array_equal(repeated["critic_loss"], second["critic_loss"])


def test_rows_of_metrics_do_not_depend_on_how_a_run_was_cut():
    values = np.random.default_rng(0).normal(size=(1, 37)).astype(np.float32)
    rows, cut = MetricRows([Member((), 0, None)], 10), MetricRows([Member((), 0, None)], 10)
    whole = rows.add(37, {"loss": values}, {})
    parts = []
    for start, end in ((0, 4), (4, 25), (25, 37)):
        parts += cut.add(end, {"loss": values[:, start:end]}, {})
    assert [group[0]["step"] for group in whole] == [10, 20, 30]
    assert whole == parts
    np.testing.assert_array_equal(rows.unlogged["loss"], values[:, 30:])


def test_a_call_of_the_source_takes_about_as_long_as_is_meant(own_dataset, tmp_path):
    settings = resolve(BC, "quick", None, {}).train
    one = trainer.Trainer(gf.RunFolder(tmp_path), BC, [], settings, own_dataset, None, workers=1)
    one._choose_count(1, 9.0)  # The first call compiled, which says nothing.
    assert one._count == 1
    for count, seconds, wanted in ((1, 0.1, 4), (4, 0.4, 16), (16, 1.6, 20), (20, 40.0, 1), (1, 1e-5, 4)):
        one._choose_count(count, seconds)
        assert one._count == wanted
    for _ in range(10):
        one._choose_count(one._count, one._count * 1e-6)
    assert one._count == trainer.MOST_STEPS


def test_time_left_counts_the_evaluations_to_come():
    clock = Clock()
    assert clock.left(100, 1) is None
    clock.updates_per_second = 50.0
    assert clock.left(100, 0) == 2.0
    assert clock.left(100, 2) is None  # Nobody knows yet how long one takes.
    clock.evaluating(7.0, 1)
    assert clock.left(100, 2) == 16.0


@pytest.mark.slow
def test_a_policy_is_read_without_what_it_does_not_need(own_dataset, tmp_path, monkeypatch):
    from guidedflow.training.checkpoint import Checkpoints

    run = gf.train(dataset=own_dataset, run_dir=tmp_path / "run", seeds=(0, 1), **{**SMALL, "agent": "gfp"})
    read = []
    restore = Checkpoints.restore

    def counted(self, step, name, like):
        found = restore(self, step, name, like)
        read.append(sum(leaf.nbytes for leaf in jax.tree.leaves(found) if isinstance(leaf, jax.Array)))
        return found

    monkeypatch.setattr(Checkpoints, "restore", counted)
    policy = gf.load_policy(run.path, "actor", seed=1)
    agents = trained_agents(run.path)
    actor = sum(leaf.nbytes for leaf in jax.tree.leaves(agents.networks.actor))
    assert read[0] <= 1.1 * actor < sum(leaf.nbytes for leaf in jax.tree.leaves(agents)) / 5
    assert policy(np.zeros(4)).shape == (2,)
    assert repr(policy).startswith("Policy(actor of gfp on ")


@pytest.mark.slow
def test_runs_and_data_tell_what_they_are(own_dataset, cube_data, tmp_path, capsys):
    run = gf.train(TASK, data_dir=cube_data, run_dir=tmp_path / "run", **{**EVALUATED, "progress": True})
    assert "policy" in capsys.readouterr().out
    assert repr(run).startswith(f"Run(rebrac on {TASK}, 60 steps, score actor ")
    assert "<table>" in run._repr_html_()
    assert len(own_dataset) == own_dataset.size
    assert "transitions" in repr(own_dataset)


@pytest.mark.slow
def test_a_script_is_shown_notices_progress_and_results(own_file, tmp_path):
    program = f"""
import guidedflow as gf
run = gf.train({str(own_file)!r}, agent="bc", hidden=(8,), flow_steps=1, batch_size=256, log_every=10, save_every=20,
               steps=20, run_dir="run")
print(run)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "guidedflow: note: batch_size 256 is larger than the data" in done.stderr
    assert f"guidedflow: note: run: {tmp_path / 'run'}\n" in done.stderr
    assert "step 20/20" in done.stderr
    assert f"Run(bc on own.npz, 20 steps, {str(tmp_path / 'run')!r})" in done.stdout


def test_errors_can_be_told_apart():
    assert issubclass(gf.SettingsError, ValueError)
    assert issubclass(gf.DataError, ValueError)
    assert issubclass(gf.RunError, RuntimeError)
    assert issubclass(gf.Diverged, gf.RunError)
    for kind in (gf.SettingsError, gf.DataError, gf.RunError, gf.Interrupted):
        assert issubclass(kind, gf.GuidedflowError)


@pytest.mark.slow
def test_the_curves_name_the_run_and_have_no_empty_panels(own_dataset, tmp_path, curves):
    from unittest import mock

    from matplotlib.figure import Figure

    drawn = []
    with mock.patch.object(Figure, "savefig", lambda self, *_, **__: drawn.append(self)):
        gf.train(dataset=own_dataset, run_dir=tmp_path / "run", seeds=(0, 1), **SMALL)
    (figure,) = drawn
    assert "bc on arrays in memory" in figure.get_suptitle()
    assert "lowest to highest of 2 seeds" in figure.get_suptitle()
    assert all(axis.has_data() for axis in figure.axes)
    assert not any("_" in axis.get_title() for axis in figure.axes)


def test_data_without_rewards_trains_who_needs_none(tmp_path):
    arrays = own_arrays()
    del arrays["rewards"]
    np.savez(tmp_path / "log.npz", **arrays)
    assert gf.train(tmp_path / "log.npz", run_dir=tmp_path / "run", **SMALL).is_finished
    with pytest.raises(gf.DataError, match="rewards"):
        gf.train(tmp_path / "log.npz", run_dir=tmp_path / "other", **{**SMALL, "agent": "gfp"})
    assert not (tmp_path / "other").exists()


def test_rewards_online_are_those_of_the_data():
    for name, raw, learned in (
        ("antmaze-umaze-v2", 1.0, 0.0),
        ("antmaze-umaze-v2", 0.0, -1.0),
        ("pen-human-v1", 3.0, 3.0),
    ):
        task = gf.find_task(name)
        assert task.suite.training_reward(task, raw) == learned
        np.testing.assert_array_equal(task.suite.training_reward(task, jnp.full(2, raw)), [learned] * 2)
