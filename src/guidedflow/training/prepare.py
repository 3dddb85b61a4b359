"""What comes before the training: the task, its data, and the run's config, each checked before anything is written."""

import datetime
import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from guidedflow.agents import AGENTS, Agent, agent_name
from guidedflow.data import formats
from guidedflow.data.dataset import Dataset
from guidedflow.errors import DataError, SettingsError
from guidedflow.opengl import needed_backend
from guidedflow.processes import available_memory
from guidedflow.runs.config import IN_MEMORY, DataRecord, RunConfig, versions
from guidedflow.suites import find_task
from guidedflow.suites.gym import environment_task
from guidedflow.suites.suite import Task
from guidedflow.training.members import device_names, devices_of, init_agents
from guidedflow.training.online import Buffer
from guidedflow.training.restore import SavedRun
from guidedflow.training.settings import Member, Resolved, TrainSettings, to_json
from guidedflow.types import Spec

logger = logging.getLogger("guidedflow")


def own_environment(
    env: Any, task: str | Path | None, dataset: Dataset | Path | str | None, reading: Mapping[str, str]
) -> tuple[Task, Dataset, DataRecord]:
    """An environment of the user's own as a task, and the data to learn from, checked against each other."""
    if task is not None:
        raise SettingsError(f"env: expected none beside the task {task}, which has its own environment")
    if dataset is None:
        raise SettingsError("dataset: expected data to learn from beside an environment of your own, found none")
    data, record = load_data(None, dataset, None, reading=reading)
    known = environment_task(env, spec=data.spec)
    known.suite.check(known, data.spec, "dataset" if record.source == IN_MEMORY else record.source)
    return known, data, record


def find_task_and_data(
    task: str | Path | None, dataset: Dataset | Path | str | None
) -> tuple[Task | None, Dataset | Path | str | None]:
    """The task, and the data if it is not the task's own."""
    if task is None:
        if dataset is None:
            raise SettingsError("train: expected a task or a dataset, found neither")
        return None, dataset
    if isinstance(task, str) and Path(task).suffix not in formats.SUFFIXES:
        try:
            return find_task(task), dataset
        except SettingsError:
            if not Path(task).exists():
                raise
    if dataset is not None:
        raise SettingsError(f"dataset: expected none beside {task}, which is data already; name a task with it")
    return None, Path(task)


def check_task(agent: type[Agent], task: Task | None, settings: TrainSettings) -> None:
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
    if task is not None and task.needs_opengl and (settings.eval_episodes or settings.online_steps):
        needed_backend(task.id if settings.online_steps else f"{task.id} (or train with eval_episodes 0)")


def check_memory(agent: type[Agent], trained: Sequence[Member], settings: TrainSettings, spec: Spec) -> None:
    """Raise SettingsError where what is trained cannot be held; libraries find out later, and say it in pages."""
    try:
        agents, buffers = jax.eval_shape(
            lambda: (
                init_agents(agent, trained, spec),
                Buffer.empty(spec, settings.online_steps, len(trained)) if settings.online_steps else (),
            )
        )
    except (OverflowError, TypeError) as error:
        raise SettingsError(f"memory: expected arrays that can be addressed, found: {error}; lower hidden") from error
    # While agents are made and while they are updated there are two of each network.
    sizes = {"hidden, seeds or sweep": 2 * _bytes(agents), "online_steps": _bytes(buffers)}
    used = devices_of(len(trained))
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in used]
    there = available_memory() if None in limits else float(sum(limits))  # type: ignore[arg-type]
    if sum(sizes.values()) > there:
        larger = max(sizes, key=sizes.__getitem__)
        raise SettingsError(
            f"memory: expected what fits into {there / 1e9:.1f} GB, found {2 * _bytes(agents) / 1e9:.1f} GB of "
            f"networks and {_bytes(buffers) / 1e9:.1f} GB of steps gathered online; lower {larger}, or end other "
            "processes"
        )


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def load_data(
    task: Task | None,
    dataset: Dataset | Path | str | None,
    data_dir: Path | str | None,
    path: Path | None = None,
    reading: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Dataset, DataRecord]:
    """The data to learn from, checked against the task.

    Args:
        task: what is learned, if it is a task.
        dataset: data of the user's own; None: the task's.
        data_dir: where the task's data lies; None: where its suite keeps it.
        path: of the task's data, if it is known.
        reading: options of reading data of the user's own, as ``formats.load`` takes them.
    """
    if reading and not isinstance(dataset, str | Path):
        name, value = next(iter(reading.items()))
        raise SettingsError(f"{name}: expected none without a file or folder of data of your own, found {value!r}")
    if dataset is None:
        assert task is not None
        path = path or task.suite.find_data(task, None if data_dir is None else Path(data_dir)).absolute()
        data = task.suite.load(task, path)
    elif isinstance(dataset, str | Path):
        path = Path(dataset).absolute()
        data = formats.load(path, None, **reading)
    elif isinstance(dataset, Dataset):
        data = dataset
    else:
        made = "make one with Dataset.from_arrays"
        raise SettingsError(f"dataset: expected a Dataset or a path, found {type(dataset).__name__}; {made}")
    if task is not None:
        task.suite.check(task, data.spec, "dataset" if path is None else str(path))
    record = DataRecord(
        source=IN_MEMORY if path is None else str(path),
        is_own=dataset is not None,
        fingerprint=data.fingerprint(),
        transitions=data.size,
        episodes=data.episodes,
        made_by=None if path is None else formats.metadata(path),
        reading=dict(reading),
    )
    return data, record


def load_data_again(
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
        return load_data(task, None, None, path=Path(before.source))
    return load_data(task, dataset, data_dir, reading=before.reading)


def make_config(
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
    """What config.json will hold."""
    member_count = len(resolved.train.seeds) * math.prod(map(len, sweep.values()))
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
        created=now(),
        task=None if task is None or is_own_env else task.id,
        env=task.environment if task is not None and is_own_env else None,
        run_id=secrets.token_hex(8),
    )


def now() -> str:
    """The time in UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def new_folder(config: RunConfig) -> Path:
    """A name that no other start gets, not even one of the same second on another machine."""
    own = Path(config.data.source).stem if config.data.source != IN_MEMORY else "own-data"
    name = (config.task or config.env or own).replace("/", "-").replace(":", "-").removesuffix("(...)")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    agent = config.agent.rpartition(":")[2]
    return Path("runs") / name / f"{agent}-{config.preset}-{stamp}-{secrets.token_hex(2)}"


def say_before_training(
    agent: type[Agent], task: Task | None, resolved: Resolved, data: Dataset, record: DataRecord, *, is_sweep: bool
) -> None:
    """What a user should know before the training starts."""
    if record.made_by is not None and "stand_in" in record.made_by:
        logger.warning("%s: %s", record.source, record.made_by.get("algorithm", "not the published data"))
    if task is not None and not record.is_own and not resolved.tuned:
        logger.info("nobody published settings of %s for %s; its defaults are used", agent_name(agent), task.dataset)
    if is_sweep and (task is None or not resolved.train.eval_episodes):
        logger.info("without evaluations the variants are ranked by fitted Q evaluation on the data, in the end")
    batch_size = resolved.train.batch_size
    if batch_size > data.size:
        logger.warning(
            "batch_size %d is larger than the data (%d transitions): every batch repeats some", batch_size, data.size
        )
