"""A study's plan: a TOML file that names tasks, agents, seeds and settings, and the jobs that it stands for."""

import contextlib
import dataclasses
import difflib
import fnmatch
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from guidedflow.errors import SettingsError
from guidedflow.settings import Count, CountOrZero, NonNegative, Positive, build
from guidedflow.suites import find_task, tasks
from guidedflow.suites.suite import Task

TOP = ("runs", "data_dir", "retries", "resources", "data", "slurm", "jobs")
BLOCK = ("tasks", "agents", "seeds", "preset", "settings", "sweep", "resources", "label")
RECIPE = ("episodes", "seed", "policy", "stand_in")
FETCH = "fetch"


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a job needs of a machine while it runs."""

    cpus: Count = 2
    """Its threads, and the processes that run its environments, are at most so many."""
    gpus: NonNegative = 0.0
    """Of 0.25, four jobs share a GPU, each with a quarter of its memory; 0: it trains on the CPU."""
    memory_gb: Positive | None = None
    """Main memory; None: nobody asks."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: a task, an algorithm and its settings, with all seeds."""

    name: str
    """``task/agent``, or ``task/agent-label``: where its run lies below the study's folder of runs."""
    runs: str
    """That folder, absolute."""
    task: str
    """A task's id, or the absolute path of data of the user's own."""
    dataset: str
    """Name of the task's data; empty for data of the user's own."""
    agent: str
    preset: Literal["quick", "published"]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    sweep: Mapping[str, tuple[float, ...]]
    data_dir: str | None
    recipe: Mapping[str, Any] | str | None
    """How the data is made where it is missing: ``fetch``, options of ``guidedflow data generate``, or not at all."""
    resources: Resources

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return Path(self.runs) / self.name

    def beside(self, suffix: str) -> Path:
        """The job's own file, ``.log``, ``.json`` or ``.lock``, outside of the run's folder."""
        return Path(self.runs) / "jobs" / f"{self.name}{suffix}"

    def given(self) -> dict[str, Any]:
        """What its run must have been asked for."""
        sweep = {name: tuple(map(float, values)) for name, values in self.sweep.items()}
        own = {"task": self.task, "agent": self.agent, "preset": self.preset, "seeds": self.seeds, "sweep": sweep}
        return {**self.settings, **own}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Job":
        """A job of what ``dataclasses.asdict`` and JSON made of one."""
        return cls(**{**saved, "seeds": tuple(saved["seeds"]), "resources": Resources(**saved["resources"])})


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study as its plan says it."""

    source: str
    """The file, for messages."""
    runs: Path
    jobs: tuple[Job, ...]
    retries: int
    """How often a job that failed is tried again in one call."""
    slurm: Mapping[str, Any]
    """Options of ``sbatch``, as submitit names them without ``slurm_``."""


class Mistakes:
    """What is wrong with a plan, gathered so that all of it is said at once."""

    def __init__(self, source: str):
        self.source = source
        self._found: dict[str, None] = {}

    def add(self, message: str) -> None:
        """One mistake; the same one of many jobs counts once."""
        self._found[message] = None

    @contextlib.contextmanager
    def gathered(self, where: str = "") -> Iterator[None]:
        """Gather a SettingsError, which ends what is done within."""
        try:
            yield
        except SettingsError as error:
            self.add(f"{where}{error}")

    def check(self) -> None:
        """Raise SettingsError if there was any."""
        found = list(self._found)
        if len(found) == 1:
            raise SettingsError(f"{self.source}: {found[0]}")
        if found:
            numbered = "; ".join(f"({i}) {message}" for i, message in enumerate(found, 1))
            raise SettingsError(f"{self.source}: {len(found)} mistakes: {numbered}")


def read_plan(plan: Path | str | Mapping[str, Any], *, is_checked: bool = True) -> Plan:
    """The jobs of a plan.

    Args:
        plan: a TOML file, or what one holds (docs/studies.md); paths in it are relative to the file's folder.
        is_checked: whether agents, settings and data are checked as well, for which JAX is imported.

    Raises:
        SettingsError: the file is missing or no TOML; or naming every mistake in it.
    """
    if isinstance(plan, Mapping):
        source, folder, found = "study", Path.cwd(), dict(plan)
    else:
        path = Path(plan)
        source, folder, found = str(plan), path.absolute().parent, _read_toml(path)
    mistakes = Mistakes(source)
    made = _Reader(folder, found, mistakes).plan(source)
    if is_checked and made is not None:
        from guidedflow.studies.check import check_jobs

        check_jobs(made, mistakes)
    mistakes.check()
    assert made is not None
    return made


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path}: expected a study's plan, found nothing; write one with `guidedflow study init laptop`"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise SettingsError(f"{path}: expected a study's plan in TOML, found: {error}") from error


class _Reader:
    """Turns a plan's tables into jobs."""

    def __init__(self, folder: Path, found: Mapping[str, Any], mistakes: Mistakes):
        self._folder, self._found, self._mistakes = folder, found, mistakes
        self._recipes = self._table("data")
        self._used: set[str] = set()

    def plan(self, source: str) -> Plan | None:
        """The plan; None if there is a mistake that leaves nothing to go on with."""
        self._check_names(self._found, TOP, "")
        blocks = self._found.get("jobs")
        if not (isinstance(blocks, list) and blocks and all(isinstance(block, Mapping) for block in blocks)):
            self._mistakes.add(f"jobs: expected at least one table [[jobs]], found {blocks!r}")
            return None
        self._check_recipes()
        runs = self._path("runs")
        if runs is None:
            self._mistakes.add("runs: expected the folder of the study's runs, found none")
            runs = self._folder
        retries = 2
        with self._mistakes.gathered():
            retries = build(_Top, {"retries": self._found.get("retries", 2)}).retries
        jobs = [job for number, block in enumerate(blocks, 1) for job in self._block(block, f"jobs {number}: ", runs)]
        for name, count in Counter(job.name for job in jobs if job.task).items():
            if count > 1:
                self._mistakes.add(f"{name}: expected once, found {count} times; give one of their [[jobs]] a label")
        for pattern in set(self._recipes) - self._used:
            self._mistakes.add(
                f"data: expected data of one of the tasks, found {pattern!r}, which no task is learned from"
            )
        return Plan(source, runs, tuple(jobs), retries, self._table("slurm"))

    def _block(self, block: Mapping[str, Any], where: str, runs: Path) -> list[Job]:
        self._check_names(block, BLOCK, where)
        label, sweep, settings = block.get("label", ""), block.get("sweep", {}), block.get("settings", {})
        lists = {name: self._list(block, name, where) for name in ("tasks", "agents", "seeds")}
        resources = Resources()
        with self._mistakes.gathered(f"{where}resources: "):
            resources = build(Resources, {**self._table("resources"), **block.get("resources", {})})
        for name, value in (("settings", settings), ("sweep", sweep)):
            if not isinstance(value, Mapping):
                self._mistakes.add(f"{where}{name}: expected a table, found {value!r}")
        data_dir = self._path("data_dir")
        jobs = []
        # Without a known task the plan is refused; an empty one lets agents and settings be checked all the same.
        for task in self._tasks(lists["tasks"], where) or [""]:
            if isinstance(task, Task):
                identity, dataset, place = task.id, task.dataset, task.id.replace("/", "-")
            else:
                identity, dataset, place = task, "", Path(task).stem
            for agent in map(str, lists["agents"]):
                short = agent.rpartition(":")[2] + (f"-{label}" if label else "")
                job = Job(
                    name=f"{place}/{short}",
                    runs=str(runs),
                    task=identity,
                    dataset=dataset,
                    agent=agent,
                    preset=block.get("preset", "published"),
                    seeds=tuple(lists["seeds"]),
                    settings=settings,
                    sweep=sweep,
                    data_dir=None if data_dir is None else str(data_dir),
                    recipe=self._recipe(dataset),
                    resources=resources,
                )
                jobs.append(job)
        return jobs

    def _tasks(self, patterns: Sequence[Any], where: str) -> list[Task | str]:
        """Tasks by id, category or pattern, each once; paths of the user's own data as they are."""
        found: dict[str, Task | str] = {}
        for pattern in map(str, patterns):
            matched = [task for task in tasks() if pattern == task.category or fnmatch.fnmatchcase(task.id, pattern)]
            own = (self._folder / pattern).absolute()
            if not matched and own.exists():
                found[str(own)] = str(own)
            elif not matched and any(mark in pattern for mark in "*?["):
                self._mistakes.add(f"{where}tasks: expected a pattern of ids, found {pattern!r}, which fits no task")
            else:
                with self._mistakes.gathered(where):
                    found |= {task.id: task for task in matched or [find_task(pattern)]}
        return list(found.values())

    def _recipe(self, dataset: str) -> Mapping[str, Any] | str | None:
        """The first recipe whose pattern fits."""
        for pattern, recipe in self._recipes.items():
            if fnmatch.fnmatchcase(dataset, pattern):
                self._used.add(pattern)
                if isinstance(recipe, Mapping) and "policy" in recipe:
                    return {**recipe, "policy": str((self._folder / str(recipe["policy"])).absolute())}
                return recipe
        return None

    def _check_recipes(self) -> None:
        for pattern, recipe in self._recipes.items():
            if isinstance(recipe, Mapping):
                self._check_names(recipe, RECIPE, f"data: {pattern}: ")
            elif recipe != FETCH:
                self._mistakes.add(
                    f'data: {pattern}: expected "{FETCH}" or a table of {", ".join(RECIPE)}, found {recipe!r}'
                )

    def _list(self, block: Mapping[str, Any], name: str, where: str) -> list[Any]:
        value = block.get(name, [0] if name == "seeds" else [])
        if not isinstance(value, list | tuple | range) or not value:
            self._mistakes.add(f"{where}{name}: expected a list with at least one entry, found {value!r}")
            return []
        return list(value)

    def _table(self, name: str) -> Mapping[str, Any]:
        value = self._found.get(name, {})
        if isinstance(value, Mapping):
            return value
        self._mistakes.add(f"{name}: expected a table, found {value!r}")
        return {}

    def _path(self, name: str) -> Path | None:
        value = self._found.get(name)
        return None if value is None else (self._folder / Path(str(value)).expanduser()).absolute()

    def _check_names(self, found: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for name in found:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                self._mistakes.add(f"{where}expected {', '.join(known)}, found {name!r}{hint}")


@dataclasses.dataclass(frozen=True)
class _Top:
    retries: CountOrZero
