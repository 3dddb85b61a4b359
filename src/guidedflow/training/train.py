"""``train`` and ``resume``: from what a user asks for to a run in its folder."""

import dataclasses
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from guidedflow.agents import Agent, find_agent
from guidedflow.data.dataset import Dataset, check_needs
from guidedflow.errors import RunError, SettingsError, WorkerDied
from guidedflow.notices import show_notices
from guidedflow.processes import RemoteTraceback
from guidedflow.runs.config import Extension, RunConfig
from guidedflow.runs.folder import Row, RunFolder
from guidedflow.runs.loggers import Logger, TensorBoard, WeightsAndBiases
from guidedflow.settings import build
from guidedflow.suites import find_task
from guidedflow.suites.suite import Task
from guidedflow.training.assess import assess_trained
from guidedflow.training.display import ProgressBar, assessment_table, make_console, results_table
from guidedflow.training.evaluate import checked_workers
from guidedflow.training.prepare import (
    check_memory,
    check_task,
    find_task_and_data,
    load_data,
    load_data_again,
    make_config,
    new_folder,
    now,
    own_environment,
    say_before_training,
)
from guidedflow.training.progress import Callbacks
from guidedflow.training.restore import SavedRun
from guidedflow.training.run import Run
from guidedflow.training.settings import (
    Preset,
    Sweep,
    TrainSettings,
    check_settings,
    members,
    plain_sweep,
    resolve,
    to_json,
)
from guidedflow.training.trainer import Trainer
from guidedflow.training.validation import check_same, hold_out

logger = logging.getLogger("guidedflow")


def train(
    task: str | Path | None = None,
    *,
    env: Any = None,
    dataset: Dataset | Path | str | None = None,
    reward: str | None = None,
    instruction: str | None = None,
    agent: str | type[Agent] = "gfp",
    preset: Preset = "published",
    sweep: Sweep | None = None,
    run_dir: Path | str | None = None,
    data_dir: Path | str | None = None,
    workers: int | None = None,
    eval_async: bool = False,
    wandb: Literal["online", "offline"] | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Any] = (),
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Train in a new run folder, and evaluate there.

    Args:
        task: what to learn and evaluate on; or the path of data of your own (no evaluation); or None with ``dataset``.
        env: an environment of your own to evaluate in, and to interact with online, in place of a task's: a gymnasium
            id, or a function without arguments that makes one. It needs ``dataset``.
        dataset: data of your own, or a file of it; with a task, it replaces the task's.
        reward: which rewards of a robot's recordings are learned from; see ``load_dataset``.
        instruction: the only task of a robot's recordings that is learned; see ``load_dataset``.
        agent: the algorithm, by name, or a class derived from ``guidedflow.agents.Agent``.
        preset: ``published`` (the papers' tuned settings) or ``quick`` (a small network, 20k steps).
        sweep: values of float settings by name, ``{"alpha": (0.3, 1, 3)}``; every combination trains with every seed,
            all at once, and the results are ranked: by the evaluations, or without any as ``assess`` does.
        run_dir: the new folder; None: ``runs/<task>/<agent>-<preset>-<time>``.
        data_dir: see ``load_dataset``.
        workers: processes that run the environments; None: one a core.
        eval_async: evaluate beside the training instead of in between: faster where the training leaves cores free,
            on a GPU for instance; the numbers are the same.
        wandb: ``online`` or ``offline`` also logs to Weights & Biases.
        loggers: services of your own that get the numbers; see ``guidedflow.runs.loggers.Logger``.
        callbacks: see ``guidedflow.training.progress.Callbacks``; what returns False stops the run.
        progress: whether a progress bar and the table of results are shown.
        settings: fields of ``TrainSettings`` or of the algorithm's settings; they win over the preset.

    Raises:
        SettingsError, DataError: any of the above is not possible; nothing has been written then.
        RunError: the run's folder exists, or the run cannot go on.
        Interrupted: SIGINT or SIGTERM came; the run is saved and can be continued.
    """
    execution = Execution(workers, eval_async, wandb, loggers, callbacks, progress)
    swept = plain_sweep(sweep)
    reading = {n: value for n, value in (("reward", reward), ("instruction", instruction)) if value is not None}
    return _start(task, env, dataset, reading, find_agent(agent), preset, swept, run_dir, data_dir, settings, execution)


def resume(
    run_dir: Path | str,
    *,
    extend_to: int | None = None,
    env: Any = None,
    agent: str | type[Agent] | None = None,
    dataset: Dataset | Path | str | None = None,
    data_dir: Path | str | None = None,
    workers: int | None = None,
    eval_async: bool = False,
    wandb: Literal["online", "offline"] | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Any] = (),
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Continue a run from its newest checkpoint with the settings it was started with.

    Args:
        run_dir: the run's folder.
        extend_to: gradient steps to train to, more than the run was started with; config.json records it.
        env: needed again if the run was started with a function, or an id that a module of your own registers.
        agent: needed again if it was a class that no entry point names.
        dataset: needed again if the run was started with one in memory; or where its file lies now.
        data_dir: where a task's data lies now, if it was moved.
        workers: as in ``train``.
        eval_async: as in ``train``.
        wandb: as in ``train``.
        loggers: as in ``train``.
        callbacks: as in ``train``.
        progress: as in ``train``.
        settings: settings that must be those of the run.

    Raises:
        RunError: no run there, or it cannot go on.
        SettingsError, DataError: other settings or other data; the message lists the differences.
        Interrupted: as ``train``.
    """
    execution = Execution(workers, eval_async, wandb, loggers, callbacks, progress)
    saved = SavedRun(Path(run_dir).absolute(), agent)  # An environment of the user's own may change the directory.
    _check_same(saved, settings)
    return _continue(saved, extend_to, saved.task(env), dataset, data_dir, execution)


class Execution(NamedTuple):
    """How a run is carried out and watched. Nothing of it changes what is learned or measured."""

    workers: int | None
    eval_async: bool
    wandb: Literal["online", "offline"] | None
    loggers: Sequence[Logger]
    callbacks: Sequence[Any]
    progress: bool

    def options(self, settings: TrainSettings) -> dict[str, Any]:
        """The trainer's options.

        Raises:
            SettingsError: one of them is not possible.
        """
        wandb = [WeightsAndBiases(self.wandb)] if self.wandb is not None else []
        return {
            "workers": checked_workers(self.workers, settings),
            "eval_async": self.eval_async,
            "loggers": [TensorBoard(), *wandb, *self.loggers],
            "callbacks": Callbacks([*([ProgressBar()] if self.progress else []), *self.callbacks]),
        }


def _start(
    task: str | Path | None,
    env: Any,
    dataset: Dataset | Path | str | None,
    reading: Mapping[str, str],
    agent: type[Agent],
    preset: Preset,
    sweep: Mapping[str, tuple[float, ...]],
    run_dir: Path | str | None,
    data_dir: Path | str | None,
    settings: Mapping[str, Any],
    execution: Execution,
) -> Run:
    """Check everything that was asked for, then make the run's folder and train in it."""
    show_notices()
    place = None if run_dir is None else Path(run_dir).absolute()  # As in ``resume``.
    if run_dir is not None:
        RunFolder(Path(run_dir)).check_new()  # Which names it as it was given.
    if env is not None:
        known, data, record = own_environment(env, task, dataset, reading)
    else:
        known, dataset = find_task_and_data(task, dataset)  # type: ignore[assignment]
    resolved = resolve(agent, preset, known, settings)
    trained = members(resolved.config, resolved.train.seeds, sweep)
    check_task(agent, known, resolved.train)
    options = execution.options(resolved.train)
    if env is None:
        data, record = load_data(known, dataset, data_dir, reading=reading)
    data, held_out, record = hold_out(data, record, known, resolved.train)
    agent.check_spec(data.spec)
    check_needs(agent, data)
    if held_out is not None:
        check_needs(agent, held_out)
    check_memory(agent, trained, resolved.train, data.spec)
    config = make_config(agent, preset, resolved, sweep, data, record, known, is_own_env=env is not None)
    folder = RunFolder.create(place or new_folder(config).absolute(), config)
    say_before_training(agent, known, resolved, data, record, is_sweep=bool(sweep))
    logger.info("run: %s", folder.path)
    trainer = Trainer(folder, agent, trained, resolved.train, data, known, held_out=held_out, **options)
    rank_on = _ranking_data(config, known, resolved.train, data, held_out)
    return _run(trainer, agent, execution.progress, rank_on=rank_on)


def _continue(
    saved: SavedRun,
    extend_to: int | None,
    task: Task | None,
    dataset: Dataset | Path | str | None,
    data_dir: Path | str | None,
    execution: Execution,
) -> Run:
    """Check that the run can go on, then train in its folder."""
    show_notices()
    settings, config = _extended(saved, extend_to)
    options = execution.options(settings)
    data, record = load_data_again(saved, task, dataset, data_dir)
    data, held_out, record = hold_out(data, record, task, settings, saved.spec.normalization)
    check_same(saved, data, record)
    check_memory(saved.agent, saved.members, settings, saved.spec)
    if config is not saved.config:
        with saved.folder.lock():
            config.write(saved.folder.path)
            saved.folder.reopen()
    options["held_out"] = held_out
    trainer = Trainer(saved.folder, saved.agent, saved.members, settings, data, task, **options)
    rank_on = _ranking_data(config, task, settings, data, held_out)
    return _run(trainer, saved.agent, execution.progress, rank_on=rank_on)


def _ranking_data(
    config: RunConfig, task: Task | None, settings: TrainSettings, data: Dataset, held_out: Dataset | None
) -> Dataset | None:
    """What to rank the variants on in the end; None where evaluations do it, or there are none."""
    is_evaluated = task is not None and settings.eval_episodes > 0
    if is_evaluated or not config.sweep:
        return None
    return data if held_out is None else held_out


def _check_same(saved: SavedRun, given: Mapping[str, Any]) -> None:
    """Settings given with ``resume`` are those of the run."""
    config = saved.config
    wanted = dict(given)
    if "sweep" in wanted:
        wanted["sweep"] = plain_sweep(wanted["sweep"])
    if wanted.get("task") is not None:
        is_own = config.task is None
        wanted["task"] = str(Path(wanted["task"]).absolute()) if is_own else find_task(str(wanted["task"])).id
    elif "task" in wanted:
        del wanted["task"]
    differences = config.differences(wanted)
    if differences:
        raise SettingsError(
            f"{saved.folder.path}: expected the run's own settings, found others: {', '.join(differences)}; leave "
            "them out, or start a new run (a run can only be made longer: extend_to, --extend-to)"
        )


def _extended(saved: SavedRun, steps: int | None) -> tuple[TrainSettings, RunConfig]:
    """The settings and config of a run that is trained for longer."""
    if steps is None:
        return saved.settings, saved.config
    before = saved.settings.steps
    if saved.settings.online_steps:
        raise SettingsError(
            "extend_to: expected a run without online steps, whose buffers have a fixed size, found one"
        )
    if not isinstance(steps, int) or steps < before:
        raise SettingsError(f"extend_to: expected more than the {before} steps of {saved.folder.path}, found {steps!r}")
    if steps == before:
        return saved.settings, saved.config
    settings = build(TrainSettings, {**dataclasses.asdict(saved.settings), "steps": steps})
    check_settings(settings)
    extension = Extension(before, steps, now())
    config = dataclasses.replace(
        saved.config, settings=to_json(settings), extensions=(*saved.config.extensions, extension)
    )
    return settings, config


def _is_about_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def _ranked(saved: SavedRun, data: Dataset, show: bool) -> list[Row]:
    try:
        return assess_trained(saved, data, progress=show)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not _is_about_memory(error):
            raise
        place = shlex.quote(str(saved.folder.path))
        raise RunError(
            f"{saved.folder.path}: the run has finished, but no memory was left to rank its policies; rank some with "
            f"`guidedflow assess {place} --checkpoint latest --seed {saved.members[0].seed}`"
        ) from error


def _run(trainer: Trainer, agent: type[Agent], show: bool, *, rank_on: Dataset | None) -> Run:
    """Train, and leave the folder of a finished run, or of one that a callback stopped.

    Args:
        trainer: of the run.
        agent: its algorithm.
        show: whether a progress bar and tables are shown.
        rank_on: the data to rank the finished run's policies on, if nothing else does.
    """
    folder, ranking = trainer.folder, list[Row]()
    with folder.lock():
        try:
            rows = trainer.run()
        except WorkerDied as error:
            again = f"guidedflow train --resume {shlex.quote(str(folder.path))}"
            raise WorkerDied(f"{error}; is there memory left? The run is saved; continue it with `{again}`") from error
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if isinstance(error.__cause__, RemoteTraceback) or not _is_about_memory(error):
                raise
            raise RunError(
                f"{folder.path}: expected more memory, found none left; lower hidden, batch_size, seeds or sweep in a "
                "new run, or end other processes"
            ) from error
        run = Run(folder.path, rows, is_finished=not trainer.stopped)
        folder.draw_curves()
        if run.is_finished:
            folder.write_summary(run.summary)
            if rank_on is not None:
                ranking = _ranked(SavedRun(folder.path, agent), rank_on, show)
        else:
            logger.info("stopped by a callback at step %d; it can be continued", trainer.step)
    if show and rows:
        make_console().print(results_table(rows, run.over_seeds))
    if show and ranking:
        make_console().print(assessment_table(ranking))
    return run
