"""The training of one run: updates, evaluations and checkpoints in turn, until its last step or a signal."""

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from guidedflow.agents import Agent
from guidedflow.data.dataset import Dataset
from guidedflow.envs.vector import VectorEnv
from guidedflow.errors import Interrupted, RunError
from guidedflow.nn.products import computed_in
from guidedflow.runs.folder import RunFolder
from guidedflow.runs.loggers import Logger, started
from guidedflow.runs.summary import main_scores
from guidedflow.suites.suite import Task
from guidedflow.training.checkpoint import Checkpoints
from guidedflow.training.evaluate import Evaluator
from guidedflow.training.members import init_agents, member_keys
from guidedflow.training.metrics import MetricRows, check_finite
from guidedflow.training.online import OnlineSource
from guidedflow.training.progress import Callbacks, Clock, Phase, Progress
from guidedflow.training.settings import Member, TrainSettings
from guidedflow.training.signals import Signals, StopRequest, caught_signals
from guidedflow.training.sources import MOST_STEPS, DeviceSource, Source
from guidedflow.training.stream import DiskSource, stays_on_disk
from guidedflow.training.validation import Validation

logger = logging.getLogger("guidedflow")

CALL_SECONDS = 2.0
"""How long one call of a source is to take: as long as a signal waits."""
GROWTH = 4
"""How many times as many steps a call makes as the one before, while their speed is being found out."""

Row = dict[str, Any]


class _Pending(NamedTuple):
    """An evaluation that runs beside the training."""

    step: int
    rows: Future[list[Row]]


class Trainer:
    """Trains from the folder's newest checkpoint, or from the start, and records everything on the way.

    Args:
        folder: of the run.
        agent: the algorithm.
        members: the agents to train at once.
        settings: the run's settings.
        dataset: what to learn from.
        held_out: what to measure the losses on as well; None: nothing.
        task: what to evaluate on, and to interact with online; None: neither is done.
        workers: processes for the environments; changes nothing that is learned or measured.
        eval_async: evaluate a copy of the agents while their training goes on; changes no number either.
        loggers: where else the numbers go.
        callbacks: see ``Callbacks``.
    """

    def __init__(
        self,
        folder: RunFolder,
        agent: type[Agent],
        members: Sequence[Member],
        settings: TrainSettings,
        dataset: Dataset,
        task: Task | None,
        *,
        held_out: Dataset | None = None,
        workers: int,
        eval_async: bool = False,
        loggers: Sequence[Logger] = (),
        callbacks: Callbacks | None = None,
    ):
        self.folder = folder
        self.members = members
        self.settings = settings
        self.total = settings.steps + settings.online_steps
        self.step = 0
        self.evaluations: list[Row] = []
        """The rows of the last evaluation."""
        self.stopped = False
        """Whether a callback stopped the training."""
        self._agent = agent
        self._dataset = dataset
        self._held_out = held_out
        self._validation: Validation | None = None
        self._task = task
        self._workers = workers
        self._eval_async = eval_async
        self._loggers = loggers
        self._callbacks = callbacks or Callbacks([])
        self._clock = Clock()
        self._pending: _Pending | None = None
        self._is_compiled = False
        self._count = 1
        self._began = time.monotonic()
        self._evaluator: Evaluator | None = None
        self._source: Source | None = None
        self._agents: Any = None
        self._evaluated: list[Row] = []

    def run(self) -> list[Row]:
        """Train to the last step.

        Returns:
            The rows of the last evaluation.

        Raises:
            Interrupted: a signal came; the run is saved.
            Diverged: a metric is not finite any more.
            RunError: a checkpoint cannot be written or read, the records are damaged, or a worker died.
            Exception: what the user's own agent, environment or callback raised; the run is saved.
        """
        with ExitStack() as stack:
            self._open(stack)
            try:
                self._announce("compiling")
                self._evaluate_missed()
                while True:
                    self._evaluate_and_save()
                    if self.step >= self.total:
                        break
                    self.train_some()
                    self._signals.check()
                    if self._callbacks.stop:
                        raise StopRequest(None)
                self._checkpoints.wait()
                self._announce("finished")
            except StopRequest as request:
                self._stop(request)
            except Exception:
                self._keep_what_was_learned()
                raise
            finally:
                self._callbacks("on_end", self._progress("finished"))
        return self.evaluations

    # ---------------------------------------------------------------------------------------------------- opening

    def _open(self, stack: ExitStack) -> None:
        self._signals: Signals = stack.enter_context(caught_signals(lambda: self._announce("stopping")))
        self._checkpoints = stack.enter_context(
            Checkpoints(self.folder.checkpoints, scores=self._scores, needed=self._is_pending)
        )
        self._keys = member_keys(self.members, "train")
        if self._held_out is not None:
            keys = member_keys(self.members, "validation")
            self._validation = Validation(self._held_out, keys, self.settings.batch_size)
        self._agents = init_agents(self._agent, self.members, self._dataset.spec)
        self.step = first_step(self.folder, self._checkpoints, self.settings)
        if self.step:
            self._agents = self._checkpoints.restore(self.step, "agents", self._agents)
        unlogged = self.folder.take_unlogged(self.step)
        self._metric_rows = MetricRows(self.members, self.settings.log_every, unlogged)
        self.folder.rewind(self.step)
        self._evaluated = self.folder.evaluations()
        self.evaluations = self._training_rows(self.step)
        stack.enter_context(started(self._loggers, self.folder.path, self.folder.config().to_json(), self.step))
        if self._task is not None and self.settings.eval_episodes:
            evaluator = Evaluator(self._task, self._dataset.spec, self.members, self.settings, self._workers)
            self._evaluator = stack.enter_context(evaluator)
        # Not waited for: a call that compiles cannot be ended, an evaluation ends when its environments are closed.
        self._device = ThreadPoolExecutor(1, thread_name_prefix="guidedflow-device")
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="guidedflow-evaluation")
        for executor in (self._device, self._beside):
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        self._stack = stack

    def _open_source(self) -> Source:
        """The source of the updates that come next: of those after the offline ones it is the environment."""
        if self.step < self.settings.steps:
            if stays_on_disk(self._dataset):
                size = self._dataset.bytes_on_disk
                amount = f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
                logger.info("%s of observations stay on the disk; batches are read ahead of the updates", amount)
                source = DiskSource(self._dataset, self._keys, self.settings, stop=self.settings.steps)
                return self._stack.enter_context(source)
            return DeviceSource(self._dataset, self._keys, self.settings)
        assert self._task is not None
        suite, task = self._task.suite, self._task
        gl_backend = task.gl_backend()
        drawn = {} if gl_backend is None else {"render_mode": "rgb_array"}  # As the environments of evaluations are.
        env = VectorEnv(
            functools.partial(suite.make_env, task, success_timing=self.settings.success_timing, **drawn),
            slots=len(self.members),
            workers=self._workers,
            gl_backend=gl_backend,
            spec=self._dataset.spec,
        )
        reward = functools.partial(suite.training_reward, task)
        env = self._stack.enter_context(env)
        online = OnlineSource(env, self._dataset, self._keys, self.members, self.settings, reward)
        if self.step > self.settings.steps:
            online.buffers = self._checkpoints.restore(self.step, "buffers", online.buffers)
        self._agents = self._agents.for_online()
        return online

    # --------------------------------------------------------------------------------------------------- training

    def train_some(self) -> None:
        """Updates for about ``CALL_SECONDS``, at most up to where something else is due."""
        if self._source is None or (self.step >= self.settings.steps and not isinstance(self._source, OnlineSource)):
            self._source, self._is_compiled, self._count = self._open_source(), False, 1
        count = min(self._count, self._next_stop() - self.step)
        call = self._device.submit(self._updates, self._source, count)
        if self._is_compiled:
            agents, series, validated, seconds = call.result()
        else:  # Compiling takes seconds, in which nothing is learned that could be lost.
            with self._signals.at_once():
                agents, series, validated, seconds = call.result()
        check_finite(series, self.step, self.members, self._last_good())
        self._agents, self.step = agents, self.step + count
        self._choose_count(count, seconds)
        self._record(series, validated)

    def _updates(
        self, source: Source, count: int
    ) -> tuple[Agent, dict[str, np.ndarray], dict[str, Float[np.ndarray, " members"]], float]:
        """Updates, their metrics, those of held-out data where a row of metrics ends, and the updates' seconds."""
        end = self.step + count
        with computed_in(self.settings.precision):
            began = time.perf_counter()
            agents, series = source.updates(self._agents, self.step, count)
            seconds = time.perf_counter() - began
            # The first call compiles it, whether it is due or not: a later one would keep a signal waiting.
            is_wanted = self._validation and (end % self.settings.log_every == 0 or not self._is_compiled)
            validated = self._validation(agents, end) if self._validation and is_wanted else {}
        return agents, series, validated, seconds

    def _next_stop(self) -> int:
        """The next step at which something else than updates is due."""
        ends = [end for end in (self.settings.steps, self.total) if end > self.step]
        intervals = [self.settings.save_every]
        intervals += [self.settings.eval_every] if self._evaluator else []
        intervals += [self.settings.log_every] if self._validation else []
        return min([*ends, *(self.step - self.step % interval + interval for interval in intervals)])

    def _choose_count(self, count: int, seconds: float) -> None:
        """How many steps the next call makes; any number learns the same, so that only time decides."""
        if not self._is_compiled:
            self._is_compiled = True
            return
        rate = count / seconds
        self._clock.updates_per_second = rate
        self._count = max(1, min(int(rate * CALL_SECONDS), GROWTH * self._count, MOST_STEPS))

    def _record(self, series: Mapping[str, np.ndarray], validated: Mapping[str, np.ndarray]) -> None:
        extra: dict[str, Any] = {"updates_per_second": self._clock.updates_per_second, **validated}
        if isinstance(self._source, DiskSource):
            extra["data_wait"] = self._source.wait_share
        for rows in self._metric_rows.add(self.step, series, extra):
            self.folder.log_metrics(rows)
            for row, member in zip(rows, self.members, strict=True):
                values = {name: row[name] for name in (*series, *extra)}
                self._log(row["step"], member, values)
        measured = {**series, **(validated if self.step % self.settings.log_every == 0 else {})}
        self._announce("training", {name: float(values.mean()) for name, values in measured.items()})

    def _log(self, step: int, member: Member, values: Mapping[str, float]) -> None:
        measured = {name: value for name, value in values.items() if np.isfinite(value)}
        for logger in self._loggers:
            logger.log(step, member.label, measured)

    # ------------------------------------------------------------------------------------------------- evaluations

    def _evaluate_and_save(self) -> None:
        evaluates, saves = self._is_evaluation_due(self.step), self._is_due(self.step, self.settings.save_every)
        pending = self._pending
        if pending is not None and (pending.rows.done() or evaluates or self.step >= self.settings.steps):
            self._finish_pending(pending)
        if evaluates and self._eval_async and saves and self.step < self.settings.steps:
            self._begin_pending()
        elif evaluates:
            self.evaluate(self.step, self._agents)
        if saves:
            self.save()

    def _is_due(self, step: int, interval: int) -> bool:
        return step > 0 and (step % interval == 0 or step in (self.settings.steps, self.total))

    def _is_evaluation_due(self, step: int) -> bool:
        due = self._evaluator is not None and self._is_due(step, self.settings.eval_every)
        return due and not self._training_rows(step)

    def _training_rows(self, step: int) -> list[Row]:
        return [row for row in self._evaluated if row["step"] == step and row["source"] == "training"]

    def evaluate(self, step: int, agents: Agent) -> None:
        """Evaluate agents of a step, and record it."""
        assert self._evaluator is not None
        began = time.monotonic()

        def on_episode(done: int, total: int) -> None:
            self._clock.evaluating(time.monotonic() - began, done / total)
            self._announce("evaluating", episodes=(done, total))

        with self._signals.at_once():
            rows = self._evaluator(agents, step, on_episode=on_episode)
        self._clock.evaluating(time.monotonic() - began, 1)
        self._record_evaluation(rows)

    def _evaluate_missed(self) -> None:
        """Make up for evaluations beside the training that a kill cut short, as far as their checkpoints are there."""
        for step in self._checkpoints.steps():
            if step < self.step and self._is_evaluation_due(step):
                self.evaluate(step, self._checkpoints.restore(step, "agents", self._agents))

    def _begin_pending(self) -> None:
        assert self._evaluator is not None
        agents = jax.tree.map(jnp.copy, self._agents)
        self._pending = _Pending(self.step, self._beside.submit(self._evaluator, agents, self.step))

    def _finish_pending(self, pending: _Pending) -> None:
        with self._signals.at_once():
            rows = pending.rows.result()
        self._record_evaluation(rows)
        self._pending = None

    def _is_pending(self, step: int) -> bool:
        return self._pending is not None and self._pending.step == step

    def _record_evaluation(self, rows: list[Row]) -> None:
        self.folder.log_evaluations(rows)
        self._evaluated += rows
        self.evaluations = rows
        for row in rows:
            values = {f"{row['policy']}/{name}": row[name] for name in ("success", "mean_return", "mean_length")}
            self._log(row["step"], Member(row["variant"], row["seed"], None), values)
        self._callbacks("on_evaluation", self._progress("training"))

    def _scores(self) -> dict[int, float]:
        return main_scores(self._evaluated)

    # ----------------------------------------------------------------------------------------- saving and stopping

    def save(self) -> None:
        """Write a checkpoint of this step, in the background, unless it has one."""
        if not self.step:
            return
        items: dict[str, Any] = {"agents": self._agents}
        if isinstance(self._source, OnlineSource):
            items["buffers"] = self._source.buffers
        self._checkpoints.save(self.step, items)

    def _stop(self, request: StopRequest) -> None:
        """Save at this step, whatever it is, so that nothing that was learned is lost."""
        self._announce("stopping")
        if not self._is_lost():
            self.save()
            self._checkpoints.wait()
            if self._metric_rows.unlogged:
                self.folder.save_unlogged(self.step, self._metric_rows.unlogged)
        if request.signal_number is not None:
            raise Interrupted(self.folder.path, self.step, request.signal_number) from None
        self.stopped = True

    def _keep_what_was_learned(self) -> None:
        if not self._is_lost():
            with suppress(RunError):
                self.save()
                self._checkpoints.wait()
                if self._metric_rows.unlogged:
                    self.folder.save_unlogged(self.step, self._metric_rows.unlogged)

    def _is_lost(self) -> bool:
        """Whether the agents went with a call that did not come back."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self._agents))

    def _last_good(self) -> str:
        latest = self._checkpoints.latest()
        return "none was written" if latest is None else str(self._checkpoints.directory / str(latest))

    # --------------------------------------------------------------------------------------------------- watching

    def _announce(
        self, phase: Phase, metrics: Mapping[str, float] | None = None, episodes: tuple[int, int] = (0, 0)
    ) -> None:
        self._callbacks("on_progress", self._progress(phase, metrics or {}, episodes))

    def _progress(
        self, phase: Phase, metrics: Mapping[str, float] | None = None, episodes: tuple[int, int] = (0, 0)
    ) -> Progress:
        return Progress(
            step=self.step,
            steps=self.total,
            phase=phase,
            elapsed=time.monotonic() - self._began,
            seconds_left=self._clock.left(self.total - self.step, self._evaluations_left(phase)),
            updates_per_second=self._clock.updates_per_second,
            metrics=metrics or {},
            evaluations=self.evaluations,
            episodes_done=episodes[0],
            episodes_total=episodes[1],
            agents=self._agents,
        )

    def _evaluations_left(self, phase: Phase) -> int:
        """How many are to come, the one that runs left out."""
        if self._evaluator is None:
            return 0
        every = self.settings.eval_every
        steps = {*range(self.step - self.step % every, self.total, every), self.settings.steps, self.total}
        is_now_due = phase != "evaluating" and self._is_evaluation_due(self.step)
        return sum(1 for step in steps if step > self.step) + is_now_due


def first_step(folder: RunFolder, checkpoints: Checkpoints, settings: TrainSettings) -> int:
    """The step to go on from: that of the newest checkpoint.

    Raises:
        RunError: checkpoints that the records speak of are gone, or the run is beyond its last step.
    """
    step, total = checkpoints.latest() or 0, settings.steps + settings.online_steps
    recorded = max((row["step"] for row in folder.metrics()), default=0)
    # A kill costs what came after the last checkpoint, never all of them.
    if (not step and recorded > 2 * settings.save_every) or (recorded > step and folder.is_finished()):
        raise RunError(
            f"{checkpoints.directory}: expected the checkpoints of a run that recorded step {recorded}, found "
            f"{f'none after step {step}' if step else 'none'}; put them back, or start anew in another folder"
        )
    if step > total:
        raise RunError(f"{folder.path}: steps: expected at least {step}, where the run is, found {total}")
    return step
