"""``train`` and ``resume``: from what a user asks for to a run in its folder."""

import dataclasses
import datetime
import html
import logging
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from guidedflow.agents import AGENTS, Agent, agent_name, find_agent
from guidedflow.data import formats
from guidedflow.data.dataset import Dataset, check_needs
from guidedflow.errors import DataError, SettingsError, WorkerDied
from guidedflow.notices import show_notices
from guidedflow.opengl import needed_backend
from guidedflow.runs.config import IN_MEMORY, DataRecord, Extension, RunConfig, versions
from guidedflow.runs.folder import RunFolder, plain_rows
from guidedflow.runs.loggers import Logger, TensorBoard, WeightsAndBiases
from guidedflow.runs.summary import over_seeds
from guidedflow.settings import build
from guidedflow.suites import find_task
from guidedflow.suites.gym import environment_task
from guidedflow.suites.suite import Task
from guidedflow.training.display import ProgressBar, make_console, results_table
from guidedflow.training.evaluate import checked_workers
from guidedflow.training.members import device_names
from guidedflow.training.progress import Callbacks
from guidedflow.training.restore import SavedRun
from guidedflow.training.settings import (
    Member,
    Preset,
    Resolved,
    Sweep,
    TrainSettings,
    check_settings,
    members,
    plain_sweep,
    resolve,
    to_json,
)
from guidedflow.training.stream import stays_on_disk
from guidedflow.training.trainer import Trainer

logger = logging.getLogger("guidedflow")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has been trained, or was stopped by a callback."""

    path: Path
    results: list[dict[str, Any]]
    """The last evaluation: one row a policy and agent, with the fields of evaluations.csv."""
    is_finished: bool = True
    """Whether it came to its last step."""

    @property
    def config(self) -> RunConfig:
        """Everything that decided what it computed."""
        return RunFolder(self.path).config()

    @property
    def over_seeds(self) -> list[dict[str, Any]]:
        """Means over seeds, best variant first; see ``guidedflow.runs.summary.over_seeds``."""
        return over_seeds(self.results)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds of it."""
        config = self.config
        return {
            "task": config.task,
            "env": config.env,
            "agent": config.agent,
            "steps": config.steps,
            "results": plain_rows(self.results),
            "over_seeds": plain_rows(self.over_seeds),
        }

    def __repr__(self) -> str:
        means = [f"{row['policy']} {row['score']:.1f}" for row in self.over_seeds if row["seeds"]]
        scores = f", score {', '.join(means)}" if means else ""
        return f"Run({self.config.title}, {self.config.steps:,} steps{scores}, {str(self.path)!r})"

    def _repr_html_(self) -> str:
        """The table of results, for notebooks."""
        heading = f"<p><b>{html.escape(self.config.title)}</b><br><code>{html.escape(str(self.path))}</code></p>"
        names = ("variant", "policy", "seed", "episodes", "success", "mean_return", "score")
        rows = [{**row, "seed": f"mean of {row['seeds']}"} for row in plain_rows(self.over_seeds)]
        lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"]
        for row in [*plain_rows(self.results), *rows]:
            cells = (f"{row[n]:.3g}" if isinstance(row[n], float) else html.escape(str(row[n])) for n in names)
            lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        return f"{heading}<table>{''.join(lines)}</table>"


def train(
    task: str | Path | None = None,
    *,
    env: Any = None,
    dataset: Dataset | Path | str | None = None,
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
        agent: the algorithm, by name, or a class derived from ``guidedflow.agents.Agent``.
        preset: ``published`` (the papers' tuned settings) or ``quick`` (a small network, 25k steps).
        sweep: values of float settings by name, ``{"alpha": (0.3, 1, 3)}``; every combination trains with every seed,
            all at once, and the results are ranked.
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
    show_notices()
    algorithm = find_agent(agent)
    known, dataset = _task_and_data(task, env, dataset)
    resolved = resolve(algorithm, preset, known, settings)
    swept = plain_sweep(sweep)
    trained = members(resolved.config, resolved.train.seeds, swept)
    _check_task(algorithm, known, resolved.train)
    workers = checked_workers(workers, resolved.train)
    loggers = [TensorBoard(), *([WeightsAndBiases(wandb)] if wandb is not None else []), *loggers]
    if run_dir is not None:
        RunFolder(Path(run_dir)).check_new()
    data, record = _load(known, dataset, data_dir)
    algorithm.check_spec(data.spec)
    check_needs(algorithm, data)
    config = _config(algorithm, preset, resolved, swept, data, record, known, is_own_env=env is not None)
    folder = RunFolder.create(_new_folder(config) if run_dir is None else Path(run_dir), config)
    _notify(algorithm, known, resolved, data, record, is_sweep=len(trained) > len(resolved.train.seeds))
    logger.info("run: %s", folder.path)
    return _train(
        folder, algorithm, trained, resolved.train, data, known, workers, eval_async, loggers, callbacks, progress
    )


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
    show_notices()
    saved = SavedRun(Path(run_dir), agent)
    _check_same(saved, settings)
    task = saved.task(env)
    train_settings, config = _extended(saved, extend_to)
    workers = checked_workers(workers, train_settings)
    loggers = [TensorBoard(), *([WeightsAndBiases(wandb)] if wandb is not None else []), *loggers]
    data, record = _load_again(saved, task, dataset, data_dir)
    if not data.matches(saved.config.data.fingerprint):
        raise DataError(
            f"{record.source}: expected the data of the run ({saved.config.data.fingerprint}), found other data "
            f"({record.fingerprint})"
        )
    with saved.folder.lock():
        if config is not saved.config:
            config.write(saved.folder.path)
            saved.folder.reopen()
    return _train(
        saved.folder,
        saved.agent,
        saved.members,
        train_settings,
        data,
        task,
        workers,
        eval_async,
        loggers,
        callbacks,
        progress,
    )


# -------------------------------------------------------------------------------------------------- what is asked for


def _task_and_data(
    task: str | Path | None, env: Any, dataset: Dataset | Path | str | None
) -> tuple[Task | None, Dataset | Path | str | None]:
    """The task, or the environment as one, and the data if it is not the task's own."""
    if env is not None:
        if task is not None:
            raise SettingsError(f"env: expected none beside the task {task}, which has its own environment")
        if dataset is None:
            raise SettingsError("dataset: expected data to learn from beside an environment of your own, found none")
        return environment_task(env, spec=dataset.spec if isinstance(dataset, Dataset) else None), dataset
    if task is None:
        if dataset is None:
            raise SettingsError("train: expected a task or a dataset, found neither")
        return None, dataset
    if _is_path(task):
        if dataset is not None:
            raise SettingsError(f"dataset: expected none beside {task}, which is data already; name a task with it")
        return None, Path(task)
    return find_task(str(task)), dataset


def _is_path(task: str | Path) -> bool:
    """Whether what stands in a task's place is data of the user's own."""
    return isinstance(task, Path) or formats.is_data(task) or Path(task).suffix in formats.SUFFIXES


def _check_task(agent: type[Agent], task: Task | None, settings: TrainSettings) -> None:
    """That the agent can go online in the task, and that the task's pictures can be drawn."""
    if settings.online_steps:
        if not agent.goes_online:
            able = ", ".join(name for name, found in AGENTS.items() if found.goes_online)
            raise SettingsError(
                f"online_steps: expected 0 for {agent_name(agent)}, which learns offline only; {able} go online"
            )
        if task is None:
            raise SettingsError(
                "online_steps: expected a task or an environment to act in, found data alone; name one with env"
            )
        if task.is_visual:
            raise SettingsError(f"online_steps: expected 0 for {task.id}: pictures are learned from offline only")
    if task is not None and task.needs_opengl and settings.eval_episodes:
        needed_backend(f"{task.id} (or train with eval_episodes 0)")


def _load(
    task: Task | None, dataset: Dataset | Path | str | None, data_dir: Path | str | None, path: Path | None = None
) -> tuple[Dataset, DataRecord]:
    """The data to learn from, checked against the task; ``path`` says where a task's lies, if that is known."""
    source, made_by = IN_MEMORY, None
    if dataset is None:
        assert task is not None
        path = path or task.suite.find_data(task, None if data_dir is None else Path(data_dir)).absolute()
        source, made_by, data = str(path), formats.metadata(path), task.suite.load(task, path)
    elif isinstance(dataset, str | Path):
        path = Path(dataset).absolute()
        source, data, made_by = str(path), formats.load(path), formats.metadata(path)
    elif isinstance(dataset, Dataset):
        data = dataset
    else:
        made = "make one with Dataset.from_arrays"
        raise SettingsError(f"dataset: expected a Dataset or a path, found {type(dataset).__name__}; {made}")
    if task is not None:
        task.suite.check(task, data.spec, "dataset" if source == IN_MEMORY else source)
    record = DataRecord(
        source=source,
        is_own=dataset is not None,
        fingerprint=data.fingerprint(),
        transitions=data.size,
        episodes=data.episodes,
        made_by=made_by,
    )
    return data, record


def _load_again(
    saved: SavedRun, task: Task | None, dataset: Dataset | Path | str | None, data_dir: Path | str | None
) -> tuple[Dataset, DataRecord]:
    """The data of a run that is continued: what is given, else where it lay."""
    before = saved.config.data
    if dataset is None and before.is_own:
        if before.source == IN_MEMORY:
            raise DataError(
                f"{saved.folder.path}: expected the data that the run was started with, which lay in memory; give it "
                f"again, from Python: guidedflow.resume({str(saved.folder.path)!r}, dataset=...)"
            )
        source = Path(before.source)
        dataset = source if data_dir is None else Path(data_dir) / source.name
    if dataset is None and data_dir is None and Path(before.source).exists():
        return _load(task, None, None, path=Path(before.source))
    return _load(task, dataset, data_dir)


def _config(
    agent: type[Agent],
    preset: str,
    resolved: Resolved,
    sweep: Mapping[str, tuple[float, ...]],
    data: Dataset,
    record: DataRecord,
    task: Task | None,
    *,
    is_own_env: bool,
) -> RunConfig:
    counts = [len(values) for values in sweep.values()]
    member_count = len(resolved.train.seeds)
    for count in counts:
        member_count *= count
    return RunConfig(
        agent=agent_name(agent),
        preset=preset,
        settings=to_json(resolved.train),
        config=to_json(resolved.config),
        sources=resolved.sources,
        sweep=sweep,
        spec=data.spec,
        data=record,
        versions=versions(),
        device=device_names(member_count),
        created=_now(),
        task=None if task is None or is_own_env else task.id,
        env=task.environment if task is not None and is_own_env else None,
        run_id=secrets.token_hex(8),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _new_folder(config: RunConfig) -> Path:
    """A name that no other start gets, not even one of the same second on another machine."""
    own = Path(config.data.source).stem if config.data.source != IN_MEMORY else "own-data"
    name = (config.task or config.env or own).replace("/", "-").replace(":", "-")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    agent = config.agent.rpartition(":")[2]
    return Path("runs") / name / f"{agent}-{config.preset}-{stamp}-{secrets.token_hex(2)}"


def _notify(
    agent: type[Agent], task: Task | None, resolved: Resolved, data: Dataset, record: DataRecord, *, is_sweep: bool
) -> None:
    """What a user should know before the training starts."""
    if record.made_by is not None and "stand_in" in record.made_by:
        logger.warning("%s: %s", record.source, record.made_by.get("algorithm", "not the published data"))
    if task is not None and not record.is_own and not resolved.tuned:
        logger.info("nobody published settings of %s for %s; its defaults are used", agent_name(agent), task.dataset)
    if is_sweep and (task is None or not resolved.train.eval_episodes):
        logger.warning("without evaluations nothing ranks the variants: their losses are in metrics.jsonl")
    batch_size = resolved.train.batch_size
    if batch_size > data.size:
        logger.warning(
            "batch_size %d is larger than the data (%d transitions): every batch repeats some", batch_size, data.size
        )
    if stays_on_disk(data):
        size = data.observations.nbytes
        amount = f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
        logger.info("%s of observations stay on the disk; batches are read ahead of the updates", amount)


# ----------------------------------------------------------------------------------------------------- resuming


def _check_same(saved: SavedRun, given: Mapping[str, Any]) -> None:
    """Settings given with ``resume`` are those of the run."""
    config = saved.config
    before: dict[str, Any] = {**config.settings, **config.config}
    before |= {"task": config.task, "agent": config.agent, "preset": config.preset, "sweep": dict(config.sweep)}
    wanted: dict[str, Any] = {n: list(value) if isinstance(value, tuple) else value for n, value in given.items()}
    if "sweep" in wanted:
        wanted["sweep"] = plain_sweep(wanted["sweep"])
    if wanted.get("task") is not None:
        if config.task is None:
            before["task"], wanted["task"] = config.data.source, str(Path(wanted["task"]).absolute())
        else:
            wanted["task"] = find_task(str(wanted["task"])).id
    differences = [
        f"{name} {before.get(name)} -> {value}" for name, value in wanted.items() if before.get(name) != value
    ]
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
    extension = Extension(before, steps, _now())
    config = dataclasses.replace(
        saved.config, settings=to_json(settings), extensions=(*saved.config.extensions, extension)
    )
    return settings, config


# -------------------------------------------------------------------------------------------------------- training


def _train(
    folder: RunFolder,
    agent: type[Agent],
    trained: Sequence[Member],
    settings: TrainSettings,
    data: Dataset,
    task: Task | None,
    workers: int,
    eval_async: bool,
    loggers: Sequence[Logger],
    callbacks: Sequence[Any],
    progress: bool,
) -> Run:
    watching = Callbacks([*([ProgressBar()] if progress else []), *callbacks])
    with folder.lock():
        trainer = Trainer(
            folder,
            agent,
            trained,
            settings,
            data,
            task,
            workers=workers,
            eval_async=eval_async,
            loggers=loggers,
            callbacks=watching,
        )
        try:
            rows = trainer.run()
        except WorkerDied as error:
            again = f"guidedflow train --resume {shlex.quote(str(folder.path))}"
            raise WorkerDied(f"{error}; is there memory left? The run is saved; continue it with `{again}`") from error
        run = Run(folder.path, rows, is_finished=not trainer.stopped)
        folder.draw_curves()
        if run.is_finished:
            folder.write_summary(run.summary)
        else:
            logger.info("stopped by a callback at step %d; it can be continued", trainer.step)
    if progress and rows:
        make_console().print(results_table(rows, run.over_seeds))
    return run
