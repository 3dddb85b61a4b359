"""Evaluates the policies of agents in an environment: during training, and those of a run afterwards."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from guidedflow.agents import Agent
from guidedflow.agents.agent import Act, acting
from guidedflow.envs.vector import VectorEnv
from guidedflow.errors import RunError, SettingsError
from guidedflow.graphs.folder import ExportedPolicy, is_exported
from guidedflow.graphs.hub import local
from guidedflow.graphs.session import check_installed
from guidedflow.nn.products import acting_precision, computed_in
from guidedflow.notices import show_notices
from guidedflow.opengl import NO_BACKEND, gl_backend
from guidedflow.processes import available_cores
from guidedflow.runs.config import RunConfig
from guidedflow.seeding import derived_seed
from guidedflow.settings import build, check
from guidedflow.suites.suite import Task
from guidedflow.training.display import ProgressBar
from guidedflow.training.episodes import run_episodes, summarize
from guidedflow.training.members import select
from guidedflow.training.progress import Callbacks, Progress
from guidedflow.training.restore import SavedRun, run_task
from guidedflow.training.settings import Member, TrainSettings, check_settings
from guidedflow.types import Spec, Variant, variant_text

logger = logging.getLogger("guidedflow")

Row = dict[str, Any]


class Evaluator:
    """Evaluates policies of every agent in a stack on one task.

    Args:
        task: whose environments are made.
        spec: of the data that the agents learned from.
        members: the agents' seeds and variants.
        settings: how many episodes, in how many environments at once.
        workers: processes for the environments.
        gl_backend: what draws pictures, if any are wanted.
        onnx: whether the policies act through their ONNX graphs, with the noise that they draw in JAX.
    """

    def __init__(
        self,
        task: Task,
        spec: Spec,
        members: Sequence[Member],
        settings: TrainSettings,
        workers: int,
        gl_backend: str | None = None,
        onnx: bool = False,
    ):
        self._task = task
        self._spec = spec
        self._members = members
        self._settings = settings
        self._onnx = onnx
        # A graph's actions are the environment's already.
        self._acted = spec._replace(action_range=None) if onnx else spec
        if gl_backend is None:
            gl_backend = task.gl_backend()
        drawn = {} if gl_backend is None else {"render_mode": "rgb_array"}
        self._env = VectorEnv(
            functools.partial(task.suite.make_env, task, success_timing=settings.success_timing, **drawn),
            slots=min(settings.eval_slots, settings.eval_episodes),
            workers=workers,
            gl_backend=gl_backend,
            spec=spec,
        )

    def __call__(
        self,
        agents: Agent,
        step: int,
        *,
        only: Callable[[Member, str], bool] = lambda member, policy: True,
        env_seed: int | None = None,
        videos: int = 0,
        folder: Path | None = None,
        on_episode: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Row]:
        """Rows of ``EVALUATION_FIELDS``, one a policy and member. A seed's policies start from the same states.

        Args:
            agents: stacked as ``members``.
            step: how many updates they have had.
            only: which policies of which members.
            env_seed: of the episodes' starts and the policies' noise; None: each member's own seed and the step.
            videos: how many episodes of each to film into ``folder``.
            folder: where to.
            on_episode: called at the start and after each episode with those done and all of them.
        """
        wanted = [
            (i, member, policy)
            for i, member in enumerate(self._members)
            for policy in agents.policy_names
            if only(member, policy)
        ]
        acts = ((member, policy, self._act(select(agents, i), policy)) for i, member, policy in wanted)
        with computed_in(acting_precision(self._settings.precision)):
            return self.rows(
                acts, len(wanted), step, env_seed=env_seed, videos=videos, folder=folder, on_episode=on_episode
            )

    def _act(self, agent: Agent, policy: str) -> Act:
        if not self._onnx:
            return acting(agent, policy)
        from guidedflow.graphs.acting import acting_graph

        return acting_graph(agent, policy, self._spec)

    def rows(
        self,
        acts: Iterable[tuple[Member, str, Act]],
        count: int,
        step: int,
        *,
        env_seed: int | None = None,
        videos: int = 0,
        folder: Path | None = None,
        on_episode: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Row]:
        """As ``__call__``, of ``count`` policies, each with its member, its name and how it acts."""
        total, done = count * self._settings.eval_episodes, 0

        def add() -> None:
            nonlocal done
            done += 1
            on_episode(done, total)

        on_episode(done, total)
        if folder is not None:
            folder.mkdir(exist_ok=True)
        rows = []
        for member, policy, act in acts:
            clip = f"step{step} {variant_text(member.variant)} seed{member.seed} {policy}"
            episodes = run_episodes(
                act,
                self._env,
                self._acted,
                episodes=self._settings.eval_episodes,
                seed=derived_seed(member.seed, "evaluation", step) if env_seed is None else env_seed,
                videos=videos,
                video_stem=None if folder is None else folder / "-".join(clip.split()),
                on_episode=add,
            )
            found = summarize(episodes)._asdict()
            name = {"step": step, "variant": member.variant, "seed": member.seed, "policy": policy}
            score = self._task.suite.score(self._task, found["success"], found["mean_return"])
            rows.append({**name, **found, "score": score, "source": "training", "env_seed": env_seed})
        return rows

    def close(self) -> None:
        """End the workers."""
        self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def evaluate(
    run: Path | str,
    *,
    env: Any = None,
    agent: str | type[Agent] | None = None,
    episodes: int | None = None,
    checkpoint: str | int = "latest",
    policy: str | None = None,
    variant: Variant | dict[str, float] | None = None,
    seed: int | None = None,
    env_seed: int | None = None,
    videos: int = 0,
    workers: int | None = None,
    onnx: bool = False,
    record: bool = True,
    progress: bool = True,
) -> list[Row]:
    """Evaluate the policies of a run, and write what was found into the run's evaluations.csv; or an exported policy.

    Args:
        run: the run's folder, or one that ``export`` made, which may be on the Hugging Face Hub, ``hf://user/name``.
            These are evaluated as ``onnx`` says, and nothing is written into them.
        env: an environment of your own, by id or as a function that makes one; None: the run's.
        agent: the class of an algorithm of your own, if the run's is not registered.
        episodes: how many for each; None: as many as in training, whose evaluation is then repeated.
        checkpoint: ``latest``, ``best``, a step, or ``assessed``: the policy that ``assess`` ranked first, of those
            that the next three leave.
        policy: only this one.
        variant: only this one of a sweep, ``{"alpha": 0.3}``.
        seed: only the agent of this training seed.
        env_seed: of the episodes' starts and the policies' noise; None: those of the training's evaluations.
        videos: how many episodes of each to write as GIF into the run's folder ``videos``.
        workers: processes that run the environments; None: one a core.
        onnx: whether the policies act through the ONNX graphs that ``export`` writes, in the same episodes and with
            the same noise; not recorded.
        record: whether evaluations.csv gets the rows; never those of an ``env``, unless it is given as the text that
            the run was trained with.
        progress: whether a bar is shown.

    Returns:
        One row a policy and agent, with the fields of evaluations.csv.

    Raises:
        RunError: no such run or checkpoint, or a run without an environment.
        SettingsError: an argument is not possible.
    """
    show_notices()
    _check_numbers(episodes=(episodes, 1), videos=(videos, 0), env_seed=(env_seed, 0))
    asked = _Asked(env, episodes, checkpoint, policy, variant, seed, env_seed, videos, workers, onnx, progress)
    path = local(run).absolute()
    if onnx:
        check_installed("onnx", "onnxruntime")
    if is_exported(path):
        return _evaluate_exported(path, asked)
    saved = SavedRun(path, agent)
    rows = _evaluate_run(saved, asked)
    if record and env in (None, saved.config.env) and not onnx:
        with saved.folder.lock():
            saved.folder.log_evaluations(rows)
    return rows


class _Asked(NamedTuple):
    """What ``evaluate`` was asked for, by its arguments' names."""

    env: Any
    episodes: int | None
    checkpoint: str | int
    policy: str | None
    variant: Variant | dict[str, float] | None
    seed: int | None
    env_seed: int | None
    videos: int
    workers: int | None
    onnx: bool
    progress: bool


def _evaluate_run(saved: SavedRun, asked: _Asked) -> list[Row]:
    """Evaluate the policies of a run."""
    task = _task(saved.config, saved.folder.path, asked.env)
    settings = _settings(saved.settings, asked.episodes)
    workers = checked_workers(asked.workers, settings)
    if asked.checkpoint == "assessed":
        best = saved.assessed(asked.policy, asked.variant, asked.seed)
        named = {name: best[name] for name in ("policy", "variant", "seed")}
        asked = asked._replace(checkpoint=best["step"], **named)
    only = saved.filter(asked.policy, asked.variant, asked.seed)
    agents, step = saved.agents(asked.checkpoint)
    backend = _film_backend(asked.videos, saved)
    folder = saved.folder.path / "videos"
    films: dict[str, Any] = {"videos": asked.videos, "folder": folder} if backend is not None else {}
    with (
        _watched(step, asked.progress) as on_episode,
        Evaluator(task, saved.spec, saved.members, settings, workers, backend, asked.onnx) as evaluator,
    ):
        rows = evaluator(agents, step, only=only, env_seed=asked.env_seed, on_episode=on_episode, **films)
    return [{**row, "source": "evaluate"} for row in rows]


def _evaluate_exported(path: Path, asked: _Asked) -> list[Row]:
    """Evaluate an exported policy, in the episodes that its run's evaluation has."""
    check_installed("onnxruntime")
    from guidedflow.graphs.acting import acting_exported

    exported = ExportedPolicy.read(path)
    step = None if asked.checkpoint == "latest" else asked.checkpoint
    exported.check(policy=asked.policy, variant=asked.variant, seed=asked.seed, step=step)
    if asked.videos:
        raise SettingsError(f"videos: expected 0 for an exported policy, found {asked.videos}; film its run")
    task = _task(exported.config, exported.path, asked.env)
    try:
        settings = build(TrainSettings, exported.config.settings)
        check_settings(settings)
    except SettingsError as error:
        raise RunError(f"{exported.path}: expected the settings of a run, found: {error}") from error
    settings = _settings(settings, asked.episodes)
    member = Member(exported.variant, exported.seed, None)
    workers = checked_workers(asked.workers, settings)
    with (
        _watched(exported.step, asked.progress) as on_episode,
        Evaluator(task, exported.spec, [member], settings, workers, onnx=True) as evaluator,
    ):
        acts = [(member, exported.policy, acting_exported(exported))]
        rows = evaluator.rows(acts, 1, exported.step, env_seed=asked.env_seed, on_episode=on_episode)
    return [{**row, "source": "evaluate"} for row in rows]


def _task(config: RunConfig, where: Path, env: Any) -> Task:
    task = run_task(config, where, env)
    if task is None:
        raise RunError(
            f"{where}: expected a run with an environment to evaluate in, found none; name one: env= (--env)"
        )
    return task


def _check_numbers(**numbers: tuple[int | None, int]) -> None:
    """Raise SettingsError unless each number that is given is at least the one beside it."""
    for name, (value, least) in numbers.items():
        if value is not None and (not isinstance(value, int) or value < least):
            raise SettingsError(f"{name}: expected at least {least}, found {value!r}")


def _film_backend(videos: int, saved: SavedRun) -> str | None:
    """What draws films into a run's folder, if there are to be any; a pixel task's the evaluator itself finds.

    Raises:
        RunError: nothing can be written safely in the folder.
    """
    backend = gl_backend() if videos else None
    if videos and backend is None:
        logger.warning("no video is made: %s", NO_BACKEND)
    if backend is not None:
        saved.folder.check_own()
    return backend


def _settings(saved: TrainSettings, episodes: int | None) -> TrainSettings:
    """The run's settings with another number of episodes, if one is asked for or the run had none."""
    if episodes is None and saved.eval_episodes:
        return saved
    settings = dataclasses.replace(saved, eval_episodes=episodes or TrainSettings.eval_episodes)
    check(settings)
    return settings


@contextlib.contextmanager
def _watched(step: int, show: bool) -> Iterator[Callable[[int, int], None]]:
    """A function to be called after each episode, which draws the progress bar."""
    callbacks, began = Callbacks([ProgressBar()] if show else []), time.monotonic()

    def on_episode(done: int, total: int) -> None:
        elapsed = time.monotonic() - began
        left = elapsed / done * (total - done) if done else None
        here = Progress(step, step, "evaluating", elapsed, left, episodes_done=done, episodes_total=total)
        callbacks("on_progress", here)

    try:
        yield on_episode
    finally:
        callbacks("on_end", Progress(step, step, "finished", time.monotonic() - began))


def checked_workers(workers: int | None, settings: TrainSettings) -> int:
    """How many processes run the environments.

    Raises:
        SettingsError: less than one were asked for.
    """
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise SettingsError(f"workers: expected at least 1, found {workers!r}")
    if workers is not None and workers > settings.eval_slots and settings.eval_episodes:
        logger.warning(
            "workers: %d of %d are used, for evaluations step eval_slots = %d environments side by side",
            settings.eval_slots,
            workers,
            settings.eval_slots,
        )
    return workers or available_cores()
