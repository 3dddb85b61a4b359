"""What a user calls: data, agents, runs and policies by name. The command line is a thin skin over this module."""

import contextlib
import dataclasses
import datetime
import functools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import scipy.special

from guidedflow.agents import AGENTS, Agent, find_agent
from guidedflow.agents.agent import acting
from guidedflow.data.dataset import Dataset
from guidedflow.data.formats import arrays, minari, npz
from guidedflow.data.formats import hdf5 as d4rl
from guidedflow.data.inspect import made_by
from guidedflow.data.places import folders
from guidedflow.errors import UserError, WorkerDied
from guidedflow.opengl import NO_BACKEND, gl_backend, needed_backend
from guidedflow.processes import HelperProcess, available_cores
from guidedflow.results.compare import Comparison
from guidedflow.results.compare import compare as compare_runs
from guidedflow.results.report import Report, write_report
from guidedflow.results.runs import IN_MEMORY, find_runs, read_runs
from guidedflow.runs.folder import RunFolder, TensorBoard, Tracker, WeightsAndBiases, versions, write_json
from guidedflow.seeding import derived_seed
from guidedflow.settings import build, check
from guidedflow.suites import Task, find_task, published_settings
from guidedflow.suites import experts as expert
from guidedflow.suites.make import Labels, make_env, register, serve_labels
from guidedflow.suites.ogbench import files as ogbench
from guidedflow.suites.ogbench.oracles import FAMILIES
from guidedflow.training import trainer as loop
from guidedflow.training.checkpoint import Checkpoints
from guidedflow.training.members import device_names, init_agents, select
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
from guidedflow.types import Spec, flattened

LABELLED_AT_ONCE = 100_000
"""Rows of simulator states that a helper holds while it computes rewards."""


class Run(NamedTuple):
    """A finished run."""

    path: Path
    summary: dict[str, Any]
    """What summary.json holds; ``results`` has one row a policy and seed."""


def load_dataset(task: str | Path, data_dir: Path | str | None = None) -> Dataset:
    """The data of a task, with that task's rewards, or data of your own.

    Args:
        task: an id as ``guidedflow tasks`` lists it; or the path of an npz or HDF5 file, as ``convert`` makes it.
        data_dir: the folder with the files; None looks into ``$GUIDEDFLOW_DATA``, else ``~/.guidedflow/data``, and
            then into OGBench's own ``~/.ogbench/data``.

    Raises:
        UserError: unknown task; no data, and how to get it; or a damaged file.
    """
    if str(task).endswith(arrays.SUFFIXES):
        return arrays.load(Path(task))
    known = find_task(str(task))
    return load_task_data(known, dataset_path(known, data_dir))


def dataset_path(task: Task, data_dir: Path | str | None = None) -> Path:
    """The file with a task's data.

    Raises:
        UserError: there is none; the message names the commands that would get it.
    """
    searched = folders(task.benchmark, None if data_dir is None else Path(data_dir))
    path = next((folder / task.file for folder in searched if (folder / task.file).exists()), None)
    if path is None:
        ways = [f"guidedflow data fetch {task.id}"]
        if task.dataset in FAMILIES:
            ways.insert(0, f"guidedflow data generate {task.dataset}")
        where = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir is not None else ""
        looked = " or ".join(str(folder) for folder in searched)
        commands = " or ".join(f"`{way}{where}`" for way in ways)
        raise UserError(f"{task.file}: expected in {looked}, found nothing; get it with {commands}")
    return path


def generate_adroit(
    task: str,
    source: Path | str,
    *,
    data_dir: Path | str | None = None,
    episodes: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make an Adroit data set in its benchmark's own format, from a policy or from demonstrations.

    Args:
        task: an expert task (``door-expert-v1``, ``D4RL/pen/expert-v2``), whose environment the policy is rolled in; or
            a human one, for which ``source`` holds the demonstrations.
        source: an npz file with the fields of ``guidedflow.suites.experts.Expert``, or D4RL's fields.
        data_dir: where the data goes; None: where ``load_dataset`` looks first.
        episodes: how many to roll.
        seed: of the episodes' starts and the policy's noise.
        progress: called with the episodes done and all of them.

    Returns:
        The file, or Minari's folder.

    Raises:
        UserError: a task of another kind, a malformed source, or the data exists already.
    """
    known = find_task(task)
    kind = known.id.replace("/", "-").split("-")[-2]
    if not known.category.endswith("/adroit") or kind not in ("expert", "human"):
        raise UserError(f"task: expected an expert or human task of Adroit, found {known.id}")
    _check_rolled(episodes, seed)
    content, name = npz.read(Path(source)), str(source)
    given = Path(data_dir) if data_dir is not None else None
    metadata = _made_here(f"{kind} of {Path(source).name}", seed)
    path = folders("d4rl", given)[0] / known.file
    if kind == "human" and known.benchmark == "d4rl":
        return d4rl.write(path, content, metadata)  # D4RL's own fields already.
    if kind == "human":
        made = expert.demonstrations(content, name)
    else:
        made = expert.record(known, content, episodes=episodes, seed=seed, source=name, progress=progress)
    if known.benchmark == "d4rl":
        return d4rl.write(path, d4rl.flat(made), metadata)
    register(known)  # Minari stores the environment's specification; demonstrations were not rolled in it.
    return minari.write(
        known.dataset,
        given,
        made,
        environment=known.environment,
        reference=known.reference_returns,
        metadata=metadata,
    )


def generate_stand_in(
    task: str,
    actions: Literal["random", "sine"],
    *,
    data_dir: Path | str | None = None,
    episodes: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Make data under the name of one of Minari's MuJoCo sets, which nobody can make offline. It is for tests alone.

    Its metadata says that it is not the published data; training on it, its run and ``data inspect`` repeat that.

    Args:
        task: a task of ``mujoco/``, ``mujoco/hopper/medium-v0`` for instance.
        actions: ``random`` (uniform at every step) or ``sine`` (of the step, with frequencies and phases of their own
            in every episode).
        data_dir: where the data goes; None: where ``load_dataset`` looks first.
        episodes: how many, of at most 1000 steps.
        seed: of the starts and the actions; an episode depends on it and its number alone.
        progress: called with the episodes done and all of them.

    Returns:
        Minari's folder.

    Raises:
        UserError: a task of another kind, other actions, or the data exists already.
    """
    known = find_task(task)
    if known.benchmark != "minari" or not known.id.startswith("mujoco/"):
        raise UserError(f"task: expected a task of mujoco/, for which stand-ins are made, found {known.id}")
    if actions not in expert.STAND_INS:
        raise UserError(f"stand-in: expected one of {', '.join(expert.STAND_INS)}, found {actions!r}")
    _check_rolled(episodes, seed)
    given = Path(data_dir) if data_dir is not None else None
    metadata = _made_here(f"{actions} actions, made for tests; not the published data", seed)
    begin = functools.partial(expert.STAND_INS[actions], size=known.action_size)
    made = expert.roll(make_env(known), begin, episodes=episodes, seed=seed, progress=progress)
    return minari.write(
        known.dataset,
        given,
        made,
        environment=known.environment,
        reference=known.reference_returns,
        metadata={**metadata, "stand_in": actions},
    )


def make_agent(name: str, spec: Spec, *, seed: int = 0, **settings: Any) -> Agent:
    """A fresh agent.

    Args:
        name: as ``--agent`` takes it.
        spec: a data set's ``spec``.
        seed: of the networks' initialisation.
        settings: fields of the algorithm's settings that differ from their defaults.

    Raises:
        UserError: unknown agent or setting, or a value outside its range.
    """
    config: Any = build(find_agent(name).config_class, settings)
    build(TrainSettings, {"seeds": (seed,)})
    return select(init_agents(name, [Member("", seed, config)], spec), 0)


def train(
    task: str | Path | None = None,
    *,
    dataset: Dataset | Path | str | None = None,
    agent: str = "gfp",
    preset: Preset = "published",
    sweep: Sweep | None = None,
    run_dir: Path | str | None = None,
    data_dir: Path | str | None = None,
    workers: int | None = None,
    eval_async: bool = False,
    wandb: Literal["online", "offline"] | None = None,
    on_progress: Callable[[loop.Progress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Run:
    """Train in a new run folder, and evaluate there.

    Args:
        task: what to learn and evaluate on; or the path of an npz or HDF5 file with arrays of your own (no evaluation);
            or None with ``dataset``.
        dataset: data of your own, or a file of it; with a task, it replaces the task's.
        agent: the algorithm.
        preset: ``published`` (the papers' tuned settings) or ``quick`` (a small network, 25k steps).
        sweep: values of float settings by name, ``{"alpha": (0.3, 1, 3)}``; every combination trains with every seed,
            all at once, and the summary ranks them.
        run_dir: the new folder; None: ``runs/<task>/<agent>-<preset>-<time>``.
        data_dir: see ``load_dataset``.
        workers: processes that run the environments; None: one a core.
        eval_async: evaluate beside the training instead of in between: faster where the training leaves cores free,
            on a GPU for instance; the numbers are the same.
        wandb: ``online`` or ``offline`` also logs to Weights & Biases.
        on_progress: called after every chunk of steps.
        on_notice: told, in one line each, what a user should know before the training starts.
        settings: fields of ``TrainSettings`` or of the algorithm's settings; they win over the preset.

    Raises:
        UserError: any of the above is not possible; nothing has been written then.
        Stopped: SIGINT or SIGTERM came; the run is saved and can be continued.
    """
    known_task, data_source = None, IN_MEMORY
    if task is not None and str(task).endswith(arrays.SUFFIXES):
        if dataset is not None:
            raise UserError(f"dataset: expected none beside {task}, which is the data already; name a task with it")
        dataset = Path(task)
    elif task is not None:
        known_task = find_task(str(task))
    resolved = resolve(agent, preset, known_task, settings)
    sweep = plain_sweep(sweep)
    trained = members(resolved.config, resolved.train.seeds, sweep)
    if resolved.train.online_steps:
        _check_online(agent, known_task)
    if known_task is not None and known_task.is_visual and resolved.train.eval_episodes:
        needed_backend(f"{known_task.id} (or train with eval_episodes 0)")
    workers = _workers(workers)
    if wandb is not None:
        WeightsAndBiases.check(wandb)
    is_own = dataset is not None
    if isinstance(dataset, str | Path):
        data_source, dataset = str(Path(dataset).absolute()), arrays.load(Path(dataset))
    if dataset is not None:
        _check_dataset(dataset, known_task)
    elif known_task is not None:
        data_source = str(dataset_path(known_task, data_dir).absolute())
        dataset = load_task_data(known_task, Path(data_source), on_notice)
    else:
        raise UserError("train: expected a task or a dataset, found neither")
    AGENTS[agent].check_spec(dataset.spec)
    name = known_task.id if known_task else "own-data" if data_source == IN_MEMORY else Path(data_source).stem
    made = made_by(Path(data_source)) if data_source != IN_MEMORY else None
    folder = RunFolder.create(
        Path(run_dir) if run_dir is not None else _new_run_dir(name, agent, preset),
        {
            **_run_config(known_task, preset, resolved, dataset, data_source, is_own, made, len(trained)),
            "sweep": sweep,
        },
    )
    if made is not None and "stand_in" in made:
        on_notice(f"{data_source}: {made['algorithm']}")
    if known_task is not None and not resolved.tuned:
        on_notice(f"nobody published settings of {agent} for {known_task.dataset}; its defaults are used")
    batch_size = resolved.train.batch_size
    if batch_size > dataset.size:
        on_notice(
            f"batch_size {batch_size} is larger than the data ({dataset.size} transitions): every batch repeats some"
        )
    if stays_on_disk(dataset):
        size = dataset.observations.nbytes / 1e9
        on_notice(f"the {size:.1f} GB of observations stay on the disk; batches are read ahead of the updates")
    on_notice(f"run: {folder.path}")
    return _train_in(
        folder,
        resolved.agent,
        trained,
        resolved.train,
        dataset,
        known_task,
        workers,
        eval_async,
        wandb,
        on_progress,
    )


def resume(
    run_dir: Path | str,
    *,
    dataset: Dataset | Path | str | None = None,
    data_dir: Path | str | None = None,
    workers: int | None = None,
    eval_async: bool = False,
    wandb: Literal["online", "offline"] | None = None,
    on_progress: Callable[[loop.Progress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> Run:
    """Continue a run from its newest checkpoint with the settings it was started with.

    Args:
        run_dir: the run's folder.
        dataset: needed again if the run was started with one in memory; or where its file lies now.
        data_dir: where a task's data lies now, if it was moved.
        workers: as in ``train``.
        eval_async: as in ``train``.
        wandb: as in ``train``.
        on_progress: as in ``train``.
        on_notice: as in ``train``.
        settings: settings that must be those of the run.

    Raises:
        UserError: no run there, other settings or other data; the message lists the differences.
        Stopped: as ``train``.
    """
    folder = RunFolder(Path(run_dir))
    saved = folder.config()
    agent, trained, train_settings, task = _read_config(folder, saved)
    before = {
        **saved["settings"],
        **saved["config"],
        **{name: saved.get(name) for name in ("task", "agent", "preset", "sweep")},
    }
    given: dict[str, Any] = {n: list(value) if isinstance(value, tuple) else value for n, value in settings.items()}
    if "sweep" in given:
        given["sweep"] = plain_sweep(given["sweep"])
    if task is None and "task" in given:  # The file's path, as it was given to ``train``.
        before["task"], given["task"] = _source(folder, saved), str(Path(given["task"]).absolute())
    differences = [
        f"{name} {before.get(name)} -> {value}" for name, value in given.items() if before.get(name) != value
    ]
    if differences:
        raise UserError(f"{run_dir}: a run is continued with its own settings, found others: {', '.join(differences)}")
    workers = _workers(workers)
    if wandb is not None:
        WeightsAndBiases.check(wandb)
    source = _source(folder, saved)
    if isinstance(dataset, str | Path):
        dataset = arrays.load(Path(dataset))
    if dataset is not None:
        _check_dataset(dataset, task)
    elif source == IN_MEMORY:
        again = f"guidedflow.resume({str(run_dir)!r}, dataset=...)"
        raise UserError(f"{run_dir}: the run was trained on arrays in memory; continue it from Python: {again}")
    elif task is not None and not saved["data"].get("is_own"):
        dataset = load_task_data(task, Path(source) if data_dir is None else dataset_path(task, data_dir))
    else:
        dataset = arrays.load(Path(source) if data_dir is None else Path(data_dir) / Path(source).name)
    if dataset.fingerprint() != saved["data"]["fingerprint"]:
        raise UserError(f"{source}: expected the data that {run_dir} was started on, found other data")
    on_notice(f"run: {folder.path}")
    return _train_in(folder, agent, trained, train_settings, dataset, task, workers, eval_async, wandb, on_progress)


class Policy:
    """A trained policy, ready to act: ``policy(observation) -> action``."""

    def __init__(self, agent: Agent, name: str, spec: Spec, seed: int = 0):
        self.spec = spec
        self._act = acting(agent, name)
        self._key = jax.random.key(derived_seed(seed, "act"))
        self._calls = 0

    def __call__(self, observation: Any) -> np.ndarray:
        """The action for one observation, or the actions for a batch of them; noise is fresh at every call.

        Args:
            observation: of the shape that the policy was trained on, or a batch of such; or, if its data had
                dictionaries, one of those, whose entries have their own shapes, or all have a batch axis in front.

        Returns:
            (d,) or (B, d), in the range that the data's actions had before they were converted, else in [-1, 1].

        Raises:
            UserError: the observation has another shape than the policy was trained on, or is not finite.
        """
        if isinstance(observation, Mapping):
            if not self.spec.observation_keys:
                raise UserError(f"observation: expected shape {self.spec.observation_shape}, found a dictionary")
            observation = flattened(observation, self.spec.observation_keys, "observation")
        try:
            observations = np.asarray(observation)
            if self.spec.observation_dtype == np.uint8 and observations.dtype != np.uint8:
                raise UserError(f"observation: expected a picture of uint8, found {observations.dtype}")
            observations = observations.astype(self.spec.observation_dtype)
        except (TypeError, ValueError) as error:
            raise UserError(f"observation: expected numbers of one shape, found: {error}") from error
        if not np.isfinite(observations).all():
            raise UserError("observation: expected finite numbers, found NaN or infinity")
        shape = self.spec.observation_shape
        batched = observations.ndim == len(shape) + 1
        if observations.shape[int(batched) :] != shape:
            raise UserError(f"observation: expected shape {shape}, or a batch of it, found {observations.shape}")
        actions = self._act(observations if batched else observations[None], self._key, self._calls)
        self._calls += 1
        actions = self.spec.to_environment(actions)
        return actions if batched else actions[0]


def load_policy(
    run_dir: Path | str,
    name: str | None = None,
    *,
    variant: str | None = None,
    seed: int | None = None,
    checkpoint: str | int = "latest",
) -> Policy:
    """A policy of a run.

    Args:
        run_dir: the run's folder.
        name: the policy; None: the algorithm's main one.
        variant: of a sweep, ``alpha=0.3`` for instance; None: the run's first.
        seed: the training seed; None: the run's first.
        checkpoint: ``latest``, ``best`` or a step.

    Raises:
        UserError: no such run, variant, policy, seed or checkpoint; the message lists what there is.
    """
    agents, trained, spec, _ = _load_agents(RunFolder(Path(run_dir)), checkpoint)
    name = name or agents.policy_names[0]
    variant = trained[0].variant if variant is None else variant
    seed = trained[0].seed if seed is None else seed
    variants, seeds = ([*dict.fromkeys(member[i] for member in trained)] for i in (0, 1))
    asked = (("policy", name, agents.policy_names), ("variant", variant, variants), ("seed", seed, seeds))
    for what, value, there in asked:
        if value not in there:
            raise UserError(f"{what}: expected one of {', '.join(map(str, there))} of {run_dir}, found {value!r}")
    index = [member[:2] for member in trained].index((variant, seed))
    return Policy(select(agents, index), name, spec, seed)


def evaluate(
    run_dir: Path | str,
    *,
    episodes: int | None = None,
    checkpoint: str | int = "latest",
    videos: int = 0,
    workers: int | None = None,
    on_notice: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Evaluate every policy and seed of a run on its task.

    Args:
        run_dir: the run's folder.
        episodes: how many for each; None: as many as in training. The same number at the same checkpoint repeats
            the evaluation made in training.
        checkpoint: ``latest``, ``best`` or a step.
        videos: how many episodes of each to write as GIF into the run's folder ``videos``.
        workers: processes that run the environments; None: one a core.
        on_notice: told, in one line, when no video can be made.

    Returns:
        One row a policy and seed, as in evaluations.csv.

    Raises:
        UserError: no such run or checkpoint, or the run has no task.
    """
    run = RunFolder(Path(run_dir))
    _, _, settings, task = _read_config(run, run.config())
    if task is None:
        raise UserError(f"{run_dir}: the run was trained on data of its own, without an environment to evaluate in")
    for name, value, least in (("episodes", episodes, 1), ("videos", videos, 0)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise UserError(f"{name}: expected at least {least}, found {value!r}")
    workers = _workers(workers)
    if episodes is not None or not settings.eval_episodes:
        settings = dataclasses.replace(settings, eval_episodes=episodes or TrainSettings.eval_episodes)
        check(settings)
    agents, trained, spec, step = _load_agents(run, checkpoint)
    backend = gl_backend() if videos else None  # The evaluator finds out what a pixel task needs.
    if videos and backend is None:
        on_notice(f"no video is made: {NO_BACKEND}")
        videos = 0
    folder = run.path / "videos" if videos else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    with loop.Evaluator(task, spec, trained, settings, workers, backend) as evaluator:
        return evaluator(agents, step, videos=videos, folder=folder)


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a variant and policy, best variant first: means over seeds, and a 95% interval of the success rate.

    The interval is Student's t over seeds; one seed gives none (NaN). Variants are ranked by their main policy's mean
    score.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["variant"], row["policy"]), []).append(row)
    merged = []
    for (variant, policy), mine in groups.items():
        success = np.array([row["success"] for row in mine])
        n = len(mine)
        half = scipy.special.stdtrit(n - 1, 0.975) * success.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
        merged.append(
            {
                "variant": variant,
                "policy": policy,
                "seeds": n,
                "episodes": sum(row["episodes"] for row in mine),
                "success": float(success.mean()),
                "success_low": float(np.maximum(0.0, success.mean() - half)),  # NaN stays NaN.
                "success_high": float(np.minimum(1.0, success.mean() + half)),
                "mean_return": float(np.mean([row["mean_return"] for row in mine])),
                "score": float(np.mean([row["score"] for row in mine])),
            }
        )
    main = {row["variant"]: row for row in reversed(merged)}  # The first policy is the main one.
    return sorted(merged, key=lambda row: main[row["variant"]]["score"], reverse=True)


def report(
    runs: Sequence[Path | str] | Path | str,
    out: Path | str = "report",
    *,
    on_file: Callable[[Path], None] = lambda _: None,
) -> Report:
    """Set runs beside the published numbers: tables, statistics, pictures, and a page that needs no network.

    Args:
        runs: folders of runs, folders above them, or patterns; any mix of tasks, agents and seeds, finished or not.
        out: the report's folder; an earlier report there is replaced.
        on_file: called with each file that was written.

    Raises:
        UserError: no run there, a damaged one, the same seed twice, or the folder cannot be written.
    """
    patterns = [runs] if isinstance(runs, Path | str) else list(runs)
    folders = [RunFolder(path) for path in find_runs(patterns)]
    return write_report(read_runs(folders, _published_settings), Path(out), on_file)


def compare(run_a: Path | str, run_b: Path | str) -> Comparison:
    """What differs between two runs of a task, in settings and in scores (paired by seed).

    Raises:
        UserError: no such run, a damaged one, or nothing that both have.
    """
    return compare_runs(RunFolder(Path(run_a)), RunFolder(Path(run_b)))


def _published_settings(agent: str, task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that ``--preset published`` gives the task; GFP's other guidance has been tuned on its own."""
    explicit = {}
    if settings.get("guidance") == "advantage":
        row = published_settings(f"{agent}-advantage", task.dataset)
        explicit = {"guidance": "advantage", **row} if row else {}
    resolved = resolve(agent, "published", task, explicit)
    return {**to_json(resolved.train), **to_json(resolved.config)}


def _check_online(agent: str, task: Task | None) -> None:
    if not AGENTS[agent].goes_online:
        able = ", ".join(name for name, found in AGENTS.items() if found.goes_online)
        raise UserError(f"online_steps: expected 0 for {agent}, which learns offline only; {able} go online")
    if task is None:
        raise UserError("online_steps: expected a task, whose environment is there to act in, found data of your own")
    if task.is_visual:
        raise UserError(f"online_steps: expected 0 for {task.id}: pictures are learned from offline only")


def _check_rolled(episodes: int, seed: int) -> None:
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise UserError(f"{name}: expected at least {least}, found {value!r}")


def _made_here(algorithm: str, seed: int) -> dict[str, str]:
    """What a data set made here says of itself."""
    used = {package: version for package, version in versions().items() if package in ("guidedflow", "mujoco")}
    return {"generator": "guidedflow", "algorithm": algorithm, "seed": str(seed), **used}


def _workers(workers: int | None) -> int:
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise UserError(f"workers: expected at least 1, found {workers!r}")
    return workers or available_cores()


def _train_in(
    folder: RunFolder,
    agent: str,
    trained: Sequence[Member],
    settings: TrainSettings,
    dataset: Dataset,
    task: Task | None,
    workers: int,
    eval_async: bool,
    wandb: Literal["online", "offline"] | None,
    on_progress: Callable[[loop.Progress], None],
) -> Run:
    precision = None if settings.matmul_precision == "default" else settings.matmul_precision
    with folder.lock(), jax.default_matmul_precision(precision), _trackers(folder, wandb) as trackers:
        try:
            rows = loop.train(
                folder,
                agent,
                trained,
                settings,
                dataset,
                task,
                workers=workers,
                eval_async=eval_async,
                trackers=trackers,
                on_progress=on_progress,
            )
        except WorkerDied as error:
            again = f"guidedflow train --resume {shlex.quote(str(folder.path))}"
            raise UserError(f"{error}; is there memory left? The run is saved; continue it with `{again}`") from error
        folder.draw_curves()
        summary = {
            "task": task.id if task else None,
            "agent": agent,
            "steps": settings.steps + settings.online_steps,
            "results": rows,
            "over_seeds": over_seeds(rows),
        }
        write_json(folder.path / "summary.json", summary)
    return Run(folder.path, summary)


@contextlib.contextmanager
def _trackers(folder: RunFolder, wandb: Literal["online", "offline"] | None) -> Iterator[list[Tracker]]:
    trackers: list[Tracker] = [TensorBoard(folder.path)]
    try:
        if wandb is not None:
            trackers.append(WeightsAndBiases(folder.path, folder.config(), wandb))
        yield trackers
    finally:
        for tracker in trackers:
            tracker.close()


def _run_config(
    task: Task | None,
    preset: str,
    resolved: Resolved,
    dataset: Dataset,
    source: str,
    is_own: bool,
    made: dict[str, Any] | None,
    member_count: int,
) -> dict[str, Any]:
    return {
        "task": task.id if task else None,
        "agent": resolved.agent,
        "preset": preset,
        "settings": to_json(resolved.train),
        "config": to_json(resolved.config),
        "sources": resolved.sources,
        "spec": dataset.spec.to_json(),
        "data": {
            "source": source,
            "is_own": is_own,
            "fingerprint": dataset.fingerprint(),
            "transitions": dataset.size,
            "episodes": dataset.episodes,
            "made_by": made,
        },
        "versions": versions(),
        "device": device_names(member_count),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@contextlib.contextmanager
def _reading(folder: RunFolder) -> Iterator[None]:
    """Whatever is amiss in a run's config.json is told in one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{folder.path / 'config.json'}: expected the settings of a run, found: {what}") from error


def _read_config(folder: RunFolder, saved: dict[str, Any]) -> tuple[str, list[Member], TrainSettings, Task | None]:
    with _reading(folder):
        agent = saved["agent"]
        config: Any = build(find_agent(agent).config_class, saved["config"])
        settings = build(TrainSettings, saved["settings"])
        check_settings(settings)
        trained = members(config, settings.seeds, saved["sweep"])
        return agent, trained, settings, find_task(saved["task"]) if saved["task"] else None


def _source(folder: RunFolder, saved: dict[str, Any]) -> str:
    with _reading(folder):
        return str(saved["data"]["source"])


def _load_agents(folder: RunFolder, checkpoint: str | int) -> tuple[Agent, list[Member], Spec, int]:
    saved = folder.config()
    agent, trained, _, _ = _read_config(folder, saved)
    with _reading(folder):
        spec = Spec.from_json(saved["spec"])
        AGENTS[agent].check_spec(spec)
    if not folder.checkpoints.is_dir():
        raise UserError(f"{folder.path}: expected a checkpoint, found none yet")
    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        there = checkpoints.steps()
        named = {"latest": checkpoints.latest(), "best": checkpoints.best()}
        step = named.get(str(checkpoint), next((step for step in there if str(step) == str(checkpoint)), None))
        if step is None:
            listed = ", ".join(map(str, there)) or "none"
            raise UserError(
                f"checkpoint: expected latest, best or a step of {folder.path} ({listed}), found {checkpoint!r}"
            )
        like = jax.eval_shape(lambda: init_agents(agent, trained, spec))
        return checkpoints.restore(step, "agents", like), trained, spec, step


def _check_dataset(dataset: Any, task: Task | None, source: str = "dataset") -> None:
    """What the user hands in is a data set, and of the task's sizes."""
    if not isinstance(dataset, Dataset):
        made = "make one with Dataset.from_arrays"
        raise UserError(f"{source}: expected a Dataset, found {type(dataset).__name__}; {made}")
    if task is None:
        return
    shapes = {
        "observations": (dataset.spec.observation_shape, task.observation_shape),
        "actions": ((dataset.spec.action_size,), (task.action_size,)),
    }
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            raise UserError(f"{source}: {name}: expected {wanted} a row, as {task.id} has, found {found}")


def label_states(task: Task, states: dict[str, np.ndarray]) -> Labels:
    """Rewards and masks of simulator states, computed in a process of its own: MuJoCo does not live in this one."""
    helper = HelperProcess(serve_labels, task)
    try:
        helper.receive()
        found = []
        for start in range(0, max(len(states["qpos"]), 1), LABELLED_AT_ONCE):  # Once at least, to check the sizes.
            helper.send({name: array[start : start + LABELLED_AT_ONCE] for name, array in states.items()})
            found.append(helper.receive())
    finally:
        helper.close()
    return Labels(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def load_task_data(task: Task, path: Path, on_notice: Callable[[str], None] = lambda _: None) -> Dataset:
    """A task's data from a file in its benchmark's format, with that task's rewards."""
    if task.benchmark == "ogbench":
        dataset = ogbench.load(path, functools.partial(label_states, task), task.frame_stack, on_notice)
    elif task.benchmark == "d4rl":
        dataset = d4rl.load(path, is_antmaze=task.is_antmaze)
    else:
        dataset = minari.load(path, task.reference_returns)
    _check_dataset(dataset, task, str(path))
    return dataset


def _new_run_dir(name: str, agent: str, preset: str) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / name.replace("/", "-") / f"{agent}-{preset}-{stamp}"
