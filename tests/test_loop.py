"""Training: seeds, chunks, kills, signals and divergence leave no trace in what is learned."""

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TASK, TINY, guidedflow, own_arrays, train_until_killed, trained_agents

import guidedflow as gf
from guidedflow.agents import AGENTS
from guidedflow.errors import GuidedflowError
from guidedflow.runs.folder import RunFolder
from guidedflow.suites import find_task
from guidedflow.training.checkpoint import Checkpoints
from guidedflow.training.evaluate import Evaluator
from guidedflow.training.fit import fit
from guidedflow.training.members import init_agents, member_keys, select
from guidedflow.training.settings import Member, TrainSettings, resolve
from guidedflow.training.sources import DeviceSource

SMALL = {"hidden": (12,), "batch_size": 16, "log_every": 10}


def small(name):
    known = {field.name for field in dataclasses.fields(AGENTS[name].config_class)}
    return {**SMALL, **({"flow_steps": 2} if "flow_steps" in known else {})}


def parameters(run: Path):
    agents = trained_agents(run)
    return jax.device_get(agents)


def assert_identical(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_seed_learns_the_same_beside_others(own_dataset, tmp_path):
    settings = {**small("gfp"), "steps": 40, "save_every": 40}
    runs = [
        gf.train(dataset=own_dataset, run_dir=tmp_path / str(len(seeds)), seeds=seeds, **settings)
        for seeds in ((3,), (1, 3, 2))
    ]
    alone, beside = (parameters(run.path) for run in runs)
    for x, y in zip(jax.tree.leaves(select(alone, 0)), jax.tree.leaves(select(beside, 1)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    assert not np.allclose(*(jax.tree.leaves(select(beside, i).networks)[0] for i in (0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(AGENTS))
def test_a_run_continued_from_a_checkpoint_ends_bit_identical(name, own_dataset, tmp_path, caplog):
    settings = {**small(name), "agent": name, "steps": 60, "save_every": 20, "seeds": (0, 1)}
    whole = gf.train(dataset=own_dataset, run_dir=tmp_path / "whole", **settings)

    train_until_killed(50, dataset=own_dataset, run_dir=tmp_path / "cut", **settings)
    jax.config.update("jax_log_compiles", True)  # Everywhere: the updates are made by a thread of their own.
    try:
        cut = gf.resume(tmp_path / "cut", dataset=own_dataset)
    finally:
        jax.config.update("jax_log_compiles", False)
    assert not [line for line in caplog.messages if "XLA compilation of jit(run_steps)" in line]
    assert_identical(parameters(whole.path), parameters(cut.path))
    strip = lambda rows: [{k: v for k, v in row.items() if k != "updates_per_second"} for row in rows]  # noqa: E731
    assert strip(RunFolder(whole.path).metrics()) == strip(RunFolder(cut.path).metrics())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(AGENTS))
def test_calls_of_any_number_of_steps_learn_the_same_bits(name, own_dataset):
    config = AGENTS[name].config_class(**{k: v for k, v in small(name).items() if k in ("hidden", "flow_steps")})
    members = [Member((), seed, config) for seed in (0, 1)]
    settings = TrainSettings(batch_size=8)
    source = DeviceSource(own_dataset, member_keys(members, "train"), settings)
    whole, series = source.updates(init_agents(AGENTS[name], members, own_dataset.spec), 0, 12)
    agents, pieces = init_agents(AGENTS[name], members, own_dataset.spec), []
    for start, count in ((0, 1), (1, 4), (5, 7)):
        agents, piece = source.updates(agents, start, count)
        pieces.append(piece)
    assert_identical(whole, agents)
    for metric, values in series.items():
        np.testing.assert_array_equal(values, np.concatenate([piece[metric] for piece in pieces], axis=1))


def test_a_learning_rate_decays_over_the_last_steps(own_dataset):
    def after(step: int, decay: float, rate: float):
        """A member of rate ``rate`` after one update, the one of number ``step`` of ten."""
        members = [Member((), 0, AGENTS["bc"].config_class(hidden=(12,), learning_rate=rate))]
        settings = TrainSettings(batch_size=8, steps=10, learning_rate_decay=decay, save_every=10, log_every=10)
        source = DeviceSource(own_dataset, member_keys(members, "train"), settings)
        agents, _ = source.updates(init_agents(AGENTS["bc"], members, own_dataset.spec), step, 1)
        assert agents.config.learning_rate == jnp.float32(rate)
        return agents.flow

    for step, decay, share in (
        (4, 0.5, 1.0),
        (5, 0.5, 1.0),
        (6, 0.5, 0.8),
        (9, 0.5, 0.2),
        (5, 1.0, 0.5),
        (9, 0.0, 1.0),
    ):
        for x, y in zip(
            *(jax.tree.leaves(f) for f in (after(step, decay, 0.1), after(step, 0.0, 0.1 * share))), strict=True
        ):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


def test_in_memory_it_decays_over_the_steps_of_the_call(own_dataset):
    agent, _ = fit(gf.make_agent("bc", own_dataset.spec, hidden=(12,)), own_dataset, steps=3, batch_size=8)

    def after(steps: int, decay: float):
        fitted, _ = fit(agent, own_dataset, steps=steps, batch_size=8, learning_rate_decay=decay)
        return jax.tree.leaves(fitted.flow)

    full, falling, half = after(1, 0.0), after(1, 1.0), after(2, 1.0)
    for x, y in zip(full, falling, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not all(np.array_equal(x, y) for x, y in zip(half, after(2, 0.0), strict=True))


@pytest.mark.slow
def test_a_loss_goes_down(own_dataset):
    agent = gf.make_agent("gfp", own_dataset.spec, hidden=(32, 32), flow_steps=2)
    trained, metrics = fit(agent, own_dataset, steps=300, batch_size=64)
    assert metrics["vabc_loss"].shape == (300,)
    assert metrics["distill"][-20:].mean() < 0.5 * metrics["distill"][:20].mean()
    assert metrics["critic_loss"][-20:].mean() < metrics["critic_loss"][:20].mean()
    assert not np.allclose(trained.networks.actor.net.weights[0], agent.networks.actor.net.weights[0])


@pytest.mark.slow
def test_a_diverging_run_names_step_seed_and_checkpoint(tmp_path):
    fields = own_arrays()
    fields["rewards"] = fields["rewards"] * 1e30
    dataset = gf.Dataset.from_arrays(**fields)
    with pytest.raises(
        GuidedflowError, match=r"^step \d+, seed 0: expected finite losses, .*critic_loss.*none was written"
    ):
        gf.train(dataset=dataset, run_dir=tmp_path / "run", steps=100, save_every=50, **SMALL)
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


@pytest.mark.slow
def test_an_evaluation_changes_nothing_that_is_learned_and_workers_nothing_at_all(walking, tmp_path):
    settings = {"hidden": (12,), "batch_size": 16, "log_every": 10, "agent": "rebrac", **walking}
    settings |= {"steps": 40, "save_every": 40, "eval_every": 20, "eval_slots": 2}
    runs = {
        label: gf.train(run_dir=tmp_path / label, **settings, **changes)
        for label, changes in {
            "none": {"eval_episodes": 0},
            "one worker": {"eval_episodes": 3, "workers": 1},
            "two workers": {"eval_episodes": 3, "workers": 2},
        }.items()
    }
    trained = [parameters(run.path) for run in runs.values()]
    assert_identical(trained[0], trained[1])
    assert_identical(trained[0], trained[2])
    assert runs["none"].summary["results"] == []
    one, two = (RunFolder(runs[label].path).evaluations() for label in ("one worker", "two workers"))
    assert one == two
    assert [(row["step"], row["policy"], row["episodes"]) for row in one] == [(20, "actor", 3), (40, "actor", 3)]
    # The command that evaluates a checkpoint repeats what training measured there.
    again = gf.evaluate(runs["one worker"].path, env=walking["env"], workers=2)
    assert again == [{**row, "source": "evaluate"} for row in one[1:]]
    assert RunFolder(runs["one worker"].path).evaluations() == [*one, *again]


@pytest.mark.slow
def test_an_evaluation_beside_the_training_changes_nothing_and_survives_a_failure(walking, tmp_path, monkeypatch):
    settings = {"hidden": (12,), "batch_size": 16, "log_every": 10, "agent": "rebrac", **walking}
    settings |= {"steps": 60, "save_every": 20, "eval_every": 20, "eval_slots": 2, "eval_episodes": 2}
    between = gf.train(run_dir=tmp_path / "between", **settings)

    went_on, evaluated_at = threading.Event(), []
    evaluate = Evaluator.__call__

    def evaluate_late(self, agents, step, **options):
        if step == 20:
            assert went_on.wait(60)  # Until the training has gone beyond the step that is evaluated.
        return evaluate(self, agents, step, **options)

    class Watch:
        def on_progress(self, progress):
            if progress.metrics and progress.step > 20:
                went_on.set()

        def on_evaluation(self, progress):
            evaluated_at.append((progress.evaluations[0]["step"], progress.step))

    monkeypatch.setattr(Evaluator, "__call__", evaluate_late)
    beside = gf.train(run_dir=tmp_path / "beside", eval_async=True, callbacks=[Watch()], **settings)
    assert evaluated_at[0][0] == 20
    assert evaluated_at[0][1] > 20
    went_on.clear()

    def fail(progress):
        if progress.metrics and progress.step > 20:
            raise RuntimeError("as the disk was full")

    monkeypatch.undo()
    monkeypatch.setattr(Evaluator, "__call__", lambda *_, **__: time.sleep(0.5))  # Nothing comes of it in time.
    with pytest.raises(RuntimeError, match="disk was full"):
        gf.train(run_dir=tmp_path / "failed", eval_async=True, callbacks=[fail], **settings)
    monkeypatch.undo()
    failed = gf.resume(tmp_path / "failed", env=walking["env"], eval_async=True)
    for run in (beside, failed):
        assert_identical(parameters(between.path), parameters(run.path))
        assert RunFolder(run.path).evaluations() == RunFolder(between.path).evaluations()
        checkpoints = [{path.name for path in (one.path / "checkpoints").glob("[0-9]*")} for one in (run, between)]
        assert checkpoints[0] == checkpoints[1]


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(own_file, run, *more):
    command = [sys.executable, "-m", "guidedflow", "train", own_file, *TINY, "--run-dir", run, "--log-every", "50"]
    command += ["--steps", "3000", "--save-every", "100", "--seeds", "0", "1", *more]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that ``start`` begins, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    np.savez(folder / "own.npz", **own_arrays())
    process = start(folder / "own.npz", folder / "run")
    assert process.wait(120) == 0
    process.communicate()
    return folder / "run"


def records(run):
    return [{k: v for k, v in row.items() if k != "updates_per_second"} for row in RunFolder(run).metrics()]


@pytest.mark.slow
def test_after_sigkill_at_any_moment_the_resumed_run_is_bit_identical(whole, own_file, tmp_path):
    killed = start(own_file, tmp_path / "killed")
    wait_for(lambda: list((tmp_path / "killed" / "checkpoints").glob("[0-9]*")), killed)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "summary.json").exists()
    done = guidedflow("train", "--resume", tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert_identical(parameters(whole), parameters(tmp_path / "killed"))
    assert records(whole) == records(tmp_path / "killed")
    steps = [row["step"] for row in RunFolder(whole).metrics() if row["seed"] == 0]
    assert steps == list(range(50, 3001, 50))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_at_once_and_the_resumed_run_is_bit_identical(number, whole, own_file, tmp_path):
    run = tmp_path / "run"
    process = start(own_file, run)
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size, process)
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10  # 3 s where nothing else keeps the cores busy: benchmarks/signals.py.
    assert process.returncode == 128 + number
    assert "Traceback" not in out + err
    assert f"stopped by {signal.Signals(number).name}" in out
    assert f"--resume {run}" in out.replace("\n", "")
    saved = max(int(path.name) for path in (run / "checkpoints").glob("[0-9]*"))
    assert 0 <= saved - RunFolder(run).metrics()[-1]["step"] < 50
    assert guidedflow("train", "--resume", run).returncode == 0
    assert_identical(parameters(whole), parameters(run))
    assert records(whole) == records(run)
    assert not (run / "unlogged.npz").exists()


def test_the_last_two_checkpoints_and_the_best_are_kept(tmp_path):
    scores = {}
    with Checkpoints(tmp_path / "checkpoints", scores=lambda: scores) as checkpoints:
        for step, score in {10: 1.0, 20: 7.0, 30: 3.0, 40: None, 50: 2.0, 60: None}.items():
            if score is not None:
                scores[step] = score
            checkpoints.save(step, {"state": {"x": jnp.full(3, float(step))}})
        checkpoints.wait()
        assert checkpoints.steps() == [20, 50, 60]
        assert (checkpoints.best(), checkpoints.latest()) == (20, 60)
        restored = checkpoints.restore(20, "state", {"x": jnp.zeros(3)})
        np.testing.assert_array_equal(restored["x"], 20.0)


@pytest.mark.slow
def test_tensorboard_and_wandb_offline_get_the_numbers(own_dataset, tmp_path):
    pytest.importorskip("wandb")
    run = gf.train(dataset=own_dataset, run_dir=tmp_path / "run", steps=20, save_every=20, wandb="offline", **SMALL)
    events = list((run.path / "tensorboard").iterdir())
    assert len(events) == 1
    assert b"seed0/critic_loss" in events[0].read_bytes()
    assert list(run.path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_the_folder_says_where_each_setting_came_from(own_dataset, cube_data, tmp_path, curves):
    run = gf.train(
        TASK,
        preset="quick",
        data_dir=cube_data,
        run_dir=tmp_path / "run",
        eta=0.5,
        eval_episodes=0,
        **{**SMALL, "steps": 10, "save_every": 10},
    )
    saved = json.loads((run.path / "config.json").read_text())
    assert saved["config"]["eta"] == 0.5
    assert saved["config"]["alpha"] == 10.0
    sources = {
        name: saved["sources"][name] for name in ("eta", "alpha", "eval_every", "discount", "target_agg", "precision")
    }
    assert sources == {
        "eta": "given",
        "alpha": "authors' tuning",
        "eval_every": "preset quick",
        "discount": "authors' tuning",
        "target_agg": "preset quick",
        "precision": "preset quick",
    }
    assert saved["data"]["made_by"]["generator"] == "guidedflow"
    assert saved["versions"]["mujoco"].startswith("3.")
    assert (run.path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tuned_settings_come_with_the_conventions_that_they_were_tuned_for():
    fql = resolve(AGENTS["fql"], "quick", find_task("cube-single-noisy-singletask-task1-v0"), {})
    assert (fql.config.alpha, fql.config.normalize_q, fql.config.hidden) == (30.0, False, (256, 256, 256))
    task = dataclasses.replace(find_task("cube-single-noisy-singletask-task1-v0"), dataset="other")
    untuned = resolve(AGENTS["fql"], "published", task, {})
    assert (untuned.tuned, untuned.config.normalize_q) == (False, True)
    iql = resolve(AGENTS["iql"], "published", find_task("cube-triple-play-singletask-task1-v0"), {"expectile": 0.7})
    assert (iql.config.alpha, iql.config.expectile, iql.config.hidden) == (1.0, 0.7, (256,) * 4)
    assert iql.sources["expectile"] == "given"


def test_published_settings_are_the_authors_row():
    resolved = resolve(AGENTS["gfp"], "published", find_task("cube-triple-noisy-singletask-task1-v0"), {})
    assert (resolved.train.steps, resolved.train.batch_size) == (1_000_000, 1024)
    config = resolved.config
    assert (config.alpha, config.eta, config.discount, config.flow_steps) == (0.1, 1e-5, 0.99, 10)
    assert (config.q_agg, config.target_agg, config.guidance_agg) == ("mean", "mean", "actor")
    assert config.vabc_target_at == "current"
    assert config.hidden == (512,) * 4
