"""The training loop: data on the device, sampling and many updates in one compiled call, any algorithm, many seeds."""

import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from guidedflow.agents import Agent
from guidedflow.agents.agent import acting
from guidedflow.data.augment import random_crops
from guidedflow.data.dataset import Dataset
from guidedflow.envs.vector import VectorEnv
from guidedflow.errors import UserError
from guidedflow.opengl import needed_backend
from guidedflow.runs.folder import RunFolder, Tracker
from guidedflow.seeding import derived_seed
from guidedflow.settings import build
from guidedflow.suites import Task
from guidedflow.training.checkpoint import Checkpoints
from guidedflow.training.evaluate import evaluate, summarize
from guidedflow.training.members import init_agents, member_keys, on_all_devices, over_members, select
from guidedflow.training.online import Interaction
from guidedflow.training.settings import Member, TrainSettings
from guidedflow.training.stream import Stream, stays_on_disk, step_keys
from guidedflow.types import Spec


class Stopped(Exception):
    """A signal asked the run to stop; it was saved at ``step`` in ``path``."""

    def __init__(self, path: Path, step: int, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}, saved at step {step}")
        self.path = path
        self.step = step
        self.signal_number = signal_number


class _Pending(NamedTuple):
    """An evaluation that runs beside the training."""

    step: int
    agents: Agent
    rows: Future[list[dict[str, Any]]]


class Progress(NamedTuple):
    """What a progress line can show."""

    step: int
    steps: int
    phase: Literal["compiling", "training", "evaluating"]
    """What happens next. The first chunk of a process compiles."""
    evaluations: Sequence[Mapping[str, Any]] = ()
    """The rows of the last evaluation."""
    updates_per_second: float = 0.0
    metrics: Mapping[str, float] = {}
    """Means over the last chunk and the seeds; empty where no chunk was just trained."""


@functools.partial(jax.jit, static_argnames=("batch_size", "crop_probability", "length"), donate_argnames="agents")
def run_chunk(
    agents: Agent,
    dataset: Dataset,
    keys: Key[Array, " members"],
    start: Int[Array, ""],
    *,
    batch_size: int,
    length: int,
    crop_probability: float = TrainSettings.crop_probability,
) -> tuple[Agent, dict[str, Float[Array, "members length"]]]:
    """``length`` updates of every agent from step ``start`` on, compiled as one program.

    A step's batch and noise are functions of its seed's key and its number, so where a run was cut into chunks or
    resumed leaves no trace.
    """

    def train_one(
        agent: Agent, key: Key[Array, ""], dataset: Dataset, start: Int[Array, ""]
    ) -> tuple[Agent, dict[str, Array]]:
        def one_step(agent: Agent, step: Int[Array, ""]) -> tuple[Agent, dict[str, Array]]:
            batch_key, update_key, crop_key = step_keys(key, step)
            batch = random_crops(dataset.sample(batch_key, batch_size), crop_key, crop_probability)
            return agent.update(batch, update_key)

        return jax.lax.scan(one_step, agent, start + jnp.arange(length))

    return over_members(train_one, agents, keys, shared=(dataset, start))


def fit(
    agent: Agent, dataset: Dataset, *, steps: int, batch_size: int = 256, seed: int = 0
) -> tuple[Agent, dict[str, np.ndarray]]:
    """Train one agent in memory: no folder, no evaluation.

    Returns:
        The trained agent, and each metric's value at every step, shape (steps,).

    Raises:
        UserError: a loss turned non-finite, the agent was made for another ``spec``, or a number is out of its range.
    """
    build(TrainSettings, {"steps": steps, "batch_size": batch_size, "seeds": (seed,)})
    member = Member("", seed, agent.config)
    try:
        jax.eval_shape(lambda: agent.update(dataset.rows(dataset.transitions[:2]), jax.random.key(0)))
    except TypeError as error:
        raise UserError(f"agent: expected one made for the data's spec {dataset.spec}, found another") from error
    agents = jax.tree.map(lambda leaf: jnp.array(leaf)[None], agent)
    keys, crops = member_keys([member], "train"), TrainSettings.crop_probability
    if stays_on_disk(dataset):
        with Stream(dataset, keys, batch_size=batch_size, crop_probability=crops, length=steps, stop=steps) as stream:
            agents, metrics = stream.run_chunk(agents, 0)
    else:
        data = dataset.to_device()
        agents, metrics = run_chunk(
            agents, data, keys, jnp.int32(0), batch_size=batch_size, crop_probability=crops, length=steps
        )
    found = {name: np.asarray(values) for name, values in metrics.items()}
    _check_finite(found, 0, [member], "none was written")
    return select(agents, 0), {name: values[0] for name, values in found.items()}


def train(
    folder: RunFolder,
    agent: str,
    members: Sequence[Member],
    settings: TrainSettings,
    dataset: Dataset,
    task: Task | None,
    *,
    workers: int,
    eval_async: bool = False,
    trackers: Sequence[Tracker] = (),
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Train from the folder's newest checkpoint, or from the start, to the last step; record everything on the way.

    Args:
        folder: of the run.
        agent: name in ``AGENTS``.
        members: the agents to train at once.
        settings: the run's settings.
        dataset: what to learn from.
        task: what to evaluate on, and to interact with online; None never does either.
        workers: processes for the environments; changes nothing that is learned or measured.
        eval_async: evaluate a copy of the agents while their training goes on; changes no number either.
        trackers: where else the numbers go.
        on_progress: called after every chunk and every evaluation.

    Returns:
        The rows of the last evaluation.

    Raises:
        Stopped: SIGTERM or SIGINT came; the run is saved.
        UserError: a loss turned non-finite, a checkpoint cannot be written or read, or the records are damaged.
        WorkerDied, RuntimeError: the environments failed; the run is saved.
    """
    total = settings.steps + settings.online_steps
    keys = member_keys(members, "train")
    agents = init_agents(agent, members, dataset.spec)
    with ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder.checkpoints))
        step = _first_step(folder, checkpoints, settings)
        if step:
            agents = checkpoints.restore(step, "agents", agents)
        evaluations = [row for row in folder.evaluations() if row["step"] == step]
        folder.rewind(step)
        stream = device_data = None
        if stays_on_disk(dataset):
            stream = Stream(
                dataset,
                keys,
                batch_size=settings.batch_size,
                crop_probability=settings.crop_probability,
                length=settings.log_every,
                stop=settings.steps,
            )
            stack.enter_context(stream)
        else:
            device_data = on_all_devices(dataset.to_device(), len(members))
        evaluator = None
        if task is not None and settings.eval_episodes:
            evaluator = stack.enter_context(Evaluator(task, dataset.spec, members, settings, workers))
        interaction = None
        pending: _Pending | None = None
        beside = ThreadPoolExecutor(1, thread_name_prefix="guidedflow-evaluation")
        # Not waited for: what it does ends when its environments are closed.
        stack.callback(beside.shutdown, wait=False, cancel_futures=True)
        stop = stack.enter_context(catch_signals())

        def record(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            folder.log_evaluations(rows)
            for row in rows:
                values = {f"{row['policy']}/{name}": row[name] for name in ("success", "mean_return", "mean_length")}
                _track(trackers, row["step"], Member(row["variant"], row["seed"], None), values)
            on_progress(Progress(step, total, "training", rows))
            return rows

        def settle() -> list[dict[str, Any]]:
            """Wait for the evaluation that runs beside the training; its agents' checkpoint has waited for it, too."""
            assert pending is not None
            with stop.at_once():
                rows = pending.rows.result()
            checkpoints.save(pending.step, {"agents": pending.agents}, _score(rows, pending.step))
            return record(rows)

        def go_online() -> Interaction:
            assert task is not None
            env = VectorEnv(task, slots=len(members), workers=workers, success_timing=settings.success_timing)
            found = Interaction(stack.enter_context(env), dataset.spec, members, settings)
            if step > settings.steps:
                found.buffers = checkpoints.restore(step, "buffers", found.buffers)
            return found

        def train_chunk() -> tuple[Agent, dict[str, np.ndarray]]:
            if interaction is not None:
                return interaction.run_chunk(agents, device_data, keys, step, settings.log_every)
            if stream is not None:
                return stream.run_chunk(agents, step)
            trained, stacked = run_chunk(
                agents,
                device_data,
                keys,
                jnp.int32(step),
                batch_size=settings.batch_size,
                crop_probability=settings.crop_probability,
                length=settings.log_every,
            )
            return trained, {name: np.asarray(values) for name, values in stacked.items()}

        def save() -> None:
            if step and checkpoints.latest() != step:
                items = {"agents": agents} | ({"buffers": interaction.buffers} if interaction is not None else {})
                checkpoints.save(step, items, _score(evaluations, step))

        def due(interval: int) -> bool:
            return step > 0 and (step % interval == 0 or step in (settings.steps, total))

        try:
            on_progress(Progress(step, total, "compiling", evaluations))
            while True:
                evaluates = evaluator and due(settings.eval_every) and not any(r["step"] == step for r in evaluations)
                saves = due(settings.save_every)
                if pending and (pending.rows.done() or evaluates or saves or step >= settings.steps):
                    evaluations, pending = settle(), None
                if evaluator and evaluates:
                    on_progress(Progress(step, total, "evaluating", evaluations))
                    if eval_async and saves and step < settings.steps:
                        snapshot = jax.tree.map(jnp.copy, agents)
                        pending = _Pending(step, snapshot, beside.submit(evaluator, snapshot, step))
                    else:
                        with stop.at_once():
                            rows = evaluator(agents, step)
                        evaluations = record(rows)
                if saves and not pending:
                    save()
                if step >= total:
                    break
                if step >= settings.steps and interaction is None:
                    interaction = go_online()
                    agents = agents.for_online()
                began = time.perf_counter()
                trained, metrics = train_chunk()
                rate = settings.log_every / (time.perf_counter() - began)
                _check_finite(metrics, step, members, _last_good(checkpoints))
                agents, step = trained, step + settings.log_every
                means = {name: values.mean(axis=1) for name, values in metrics.items()}
                for i, member in enumerate(members):
                    values = {name: float(mean[i]) for name, mean in means.items()} | {"updates_per_second": rate}
                    if stream is not None:
                        values["data_wait"] = stream.wait_share
                    variant = {"variant": member.variant} if member.variant else {}
                    folder.log_metrics([{"step": step, **variant, "seed": member.seed, **values}])
                    _track(trackers, step, member, values)
                averages = {name: float(mean.mean()) for name, mean in means.items()}
                on_progress(Progress(step, total, "training", evaluations, rate, averages))
                stop.check()
        except _StopRequest as request:
            if pending:  # Its evaluation would be lost with a later checkpoint; from its own it is made again.
                agents, step = pending.agents, pending.step
            save()
            checkpoints.wait()
            raise Stopped(folder.path, step, request.signal_number) from None
        except Exception:
            # Whatever failed, what was learned is kept, unless it went with the update that failed.
            if pending:
                agents, step = pending.agents, pending.step
            if not any(leaf.is_deleted() for leaf in jax.tree.leaves(agents)):
                with suppress(UserError):
                    save()
                    checkpoints.wait()
            raise
        checkpoints.wait()
    return evaluations


def _first_step(folder: RunFolder, checkpoints: Checkpoints, settings: TrainSettings) -> int:
    step, total = checkpoints.latest() or 0, settings.steps + settings.online_steps
    recorded = max((row["step"] for row in folder.metrics()), default=0)
    # A kill costs at most the checkpoint that was being written and the steps up to the one after it.
    if recorded > step + 2 * settings.save_every or (recorded > step and folder.is_finished()):
        raise UserError(
            f"{checkpoints.directory}: expected the checkpoints of a run that recorded step {recorded}, found "
            f"{f'none after step {step}' if step else 'none'}; put them back, or start anew in another folder"
        )
    if step > total:
        raise UserError(f"{folder.path}: steps: expected at least {step}, where the run is, found {total}")
    return step


class Evaluator:
    """Evaluates every policy of every agent in a stack on one task."""

    def __init__(
        self,
        task: Task,
        spec: Spec,
        members: Sequence[Member],
        settings: TrainSettings,
        workers: int,
        gl_backend: str | None = None,
    ):
        self._task = task
        self._spec = spec
        self._members = members
        self._settings = settings
        if task.is_visual:
            gl_backend = needed_backend(task.id)
        slots = min(settings.eval_slots, settings.eval_episodes)
        self._env = VectorEnv(
            task, slots=slots, workers=workers, gl_backend=gl_backend, success_timing=settings.success_timing
        )

    def __call__(
        self, agents: Agent, step: int, *, videos: int = 0, folder: Path | None = None
    ) -> list[dict[str, Any]]:
        """Rows of ``EVALUATION_FIELDS``, one a policy and member. A seed's policies start from the same states."""
        rows = []
        for i, member in enumerate(self._members):
            one = select(agents, i)
            for policy in agents.policy_names:
                clip = f"step{step} {member.variant} seed{member.seed} {policy}"
                episodes = evaluate(
                    acting(one, policy),
                    self._env,
                    self._spec,
                    episodes=self._settings.eval_episodes,
                    seed=derived_seed(member.seed, "evaluation", step),
                    videos=videos,
                    video_stem=None if folder is None else folder / "-".join(clip.split()),
                )
                found = summarize(episodes)._asdict()
                name = {"step": step, "variant": member.variant, "seed": member.seed, "policy": policy}
                rows.append({**name, **found, "score": self._task.score(found["success"], found["mean_return"])})
        return rows

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *_: object) -> None:
        self._env.close()


def _track(trackers: Sequence[Tracker], step: int, member: Member, values: Mapping[str, float]) -> None:
    for tracker in trackers:
        tracker.log(step, member.label, values)


def _score(evaluations: Sequence[Mapping[str, Any]], step: int) -> float | None:
    """Mean over members of the main policy's score at this step; None if it was not evaluated here."""
    scores = [row["score"] for row in evaluations if row["step"] == step and row["policy"] == evaluations[0]["policy"]]
    return float(np.mean(scores)) if scores else None


def _last_good(checkpoints: Checkpoints) -> str:
    latest = checkpoints.latest()
    return "none was written" if latest is None else str(checkpoints.directory / str(latest))


def _check_finite(metrics: Mapping[str, np.ndarray], start: int, members: Sequence[Member], last_good: str) -> None:
    bad = ~np.isfinite(np.stack(list(metrics.values())))  # (metrics, members, length)
    if bad.any():
        step = int(np.flatnonzero(bad.any(axis=(0, 1)))[0])
        index = int(np.flatnonzero(bad[:, :, step].any(axis=0))[0])
        names = [name for name, row in zip(metrics, bad[:, index, step], strict=True) if row]
        who = f"{members[index].variant} seed {members[index].seed}".strip()
        raise UserError(
            f"step {start + step + 1}, {who}: expected finite losses, found {', '.join(names)} non-finite"
            f"; last good checkpoint: {last_good}"
        )


class _StopRequest(BaseException):
    def __init__(self, signal_number: int):
        self.signal_number = signal_number


class _Stop:
    """Remembers a signal until the loop can answer it, except where it may be answered at once."""

    def __init__(self) -> None:
        self._signal_number: int | None = None
        self._at_once = False

    def handle(self, signal_number: int, _: object) -> None:
        if self._signal_number is not None and signal_number == signal.SIGINT:
            raise KeyboardInterrupt  # The second Ctrl-C does not wait.
        self._signal_number = signal_number
        if self._at_once:
            self.check()

    def check(self) -> None:
        if self._signal_number is not None:
            raise _StopRequest(self._signal_number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False


@contextmanager
def catch_signals() -> Iterator[_Stop]:
    """Turn SIGINT, SIGTERM and a closed terminal into a request that the loop answers between two chunks."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Only the main thread can have signal handlers.
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # As nohup leaves it.
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, stop.handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
