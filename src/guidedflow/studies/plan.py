"""A study's plan: a TOML file that names tasks, agents, seeds and settings, and the jobs that it stands for."""

import contextlib
import dataclasses
import difflib
import fnmatch
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from guidedflow.errors import GuidedflowError, SettingsError
from guidedflow.settings import Count, CountOrZero, NonNegative, Positive, build
from guidedflow.suites import find_task, tasks
from guidedflow.suites.suite import Task

TOP = ("runs", "data_dir", "retries", "resources", "data", "slurm", "jobs")
TABLES = ("settings", "sweep", "resources")
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
class Block:
    """A table ``[[jobs]]``, without the tables in it."""

    tasks: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    preset: Literal["quick", "published"] = "published"
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How data is made: options of ``guidedflow data generate``."""

    episodes: Count | None = None
    seed: CountOrZero = 0
    policy: str | None = None
    stand_in: str | None = None


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

    def file(self, suffix: str) -> Path:
        """The job's own file, ``.log``, ``.json`` or ``.lock``, outside of the run's folder."""
        return Path(self.runs) / "jobs" / f"{self.name}{suffix}"

    def given(self) -> dict[str, Any]:
        """What its run must have been asked for."""
        own = {name: getattr(self, name) for name in ("task", "agent", "preset", "seeds", "sweep")}
        return {**self.settings, **own}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Job":
        """A job of what ``dataclasses.asdict`` and JSON made of one."""
        sweep = {name: tuple(values) for name, values in saved["sweep"].items()}
        resources = Resources(**saved["resources"])
        return cls(**{**saved, "seeds": tuple(saved["seeds"]), "sweep": sweep, "resources": resources})


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
        """Gather an error, which ends what is done within."""
        try:
            yield
        except GuidedflowError as error:
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
        self._recipes = dict(self._table(found, "data"))
        self._used: set[str] = set()

    def plan(self, source: str) -> Plan | None:
        """The plan; None if there is a mistake that leaves nothing to go on with."""
        self._check_names(self._found, TOP)
        blocks = self._found.get("jobs")
        if not (isinstance(blocks, list) and blocks and all(isinstance(block, Mapping) for block in blocks)):
            self._mistakes.add(f"jobs: expected at least one table [[jobs]], found {blocks!r}")
            return None
        for pattern in list(self._recipes):
            self._check_recipe(pattern)
        runs = self._path("runs")
        if "runs" not in self._found:
            self._mistakes.add("runs: expected the folder of the study's runs, found none")
        retries = 0
        with self._mistakes.gathered():
            retries = build(_Top, {"retries": self._found.get("retries", 2)}).retries
        place = str(runs or self._folder)
        jobs = [job for number, block in enumerate(blocks, 1) for job in self._block(block, f"jobs {number}: ", place)]
        for name, count in Counter(job.name for job in jobs if job.task).items():
            if count > 1:
                self._mistakes.add(f"{name}: expected once, found {count} times; give one of their [[jobs]] a label")
        for pattern in set(self._recipes) - self._used:
            self._mistakes.add(f"data: expected data of one of the plan's tasks, found {pattern!r}, which fits none")
        return Plan(source, Path(place), tuple(jobs), retries, self._table(self._found, "slurm"))

    def _block(self, found: Mapping[str, Any], where: str, runs: str) -> list[Job]:
        """The jobs of a table ``[[jobs]]``."""
        plain = [field.name for field in dataclasses.fields(Block)]
        self._check_names(found, (*plain, *TABLES), where)
        block = Block()
        with self._mistakes.gathered(where):
            block = build(Block, {name: value for name, value in found.items() if name in plain})
            if not re.fullmatch(r"[\w.-]*", block.label):
                raise SettingsError(f"label: expected letters, digits, dots and dashes, found {block.label!r}")
        settings, sweep = self._table(found, "settings", where), self._sweep(found, where)
        resources = self._resources(found, where)
        data_dir = self._path("data_dir")
        jobs = []
        # Without a known task the plan is refused; an empty one lets agents and settings be checked all the same.
        for task in self._tasks(block.tasks, where) or [""]:
            if isinstance(task, Task):
                identity, dataset, place = task.id, task.dataset, task.id.replace("/", "-")
            else:
                identity, dataset, place = task, "", Path(task).stem
            for agent in block.agents:
                short = agent.rpartition(":")[2] + (f"-{block.label}" if block.label else "")
                job = Job(
                    name=f"{place}/{short}",
                    runs=runs,
                    task=identity,
                    dataset=dataset,
                    agent=agent,
                    preset=block.preset,
                    seeds=block.seeds,
                    settings=settings,
                    sweep=sweep,
                    data_dir=None if data_dir is None else str(data_dir),
                    recipe=self._recipe(dataset),
                    resources=resources,
                )
                jobs.append(job)
        return jobs

    def _tasks(self, patterns: Sequence[str], where: str) -> list[Task | str]:
        """Tasks by id, category or pattern, each once; paths of the user's own data as they are."""
        found: dict[str, Task | str] = {}
        for pattern in patterns:
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

    def _sweep(self, found: Mapping[str, Any], where: str) -> dict[str, tuple[float, ...]]:
        sweep = {}
        for name, values in self._table(found, "sweep", where).items():
            if isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values):
                sweep[name] = tuple(map(float, values))
            else:
                self._mistakes.add(f"{where}sweep: expected a list of numbers for {name}, found {values!r}")
        return sweep

    def _resources(self, found: Mapping[str, Any], where: str) -> Resources:
        wanted = {**self._table(self._found, "resources"), **self._table(found, "resources", where)}
        with self._mistakes.gathered(f"{where}resources: "):
            resources = build(Resources, wanted)
            if resources.gpus > 1 and resources.gpus % 1:
                raise SettingsError(f"gpus: expected a share of one or a whole number, found {resources.gpus:g}")
            return resources
        return Resources()

    def _check_recipe(self, pattern: str) -> None:
        """Check a recipe, and make its path absolute."""
        recipe, where = self._recipes[pattern], f"data: {pattern}: "
        if isinstance(recipe, Mapping):
            self._recipes[pattern] = FETCH  # Unless what follows finds no mistake.
            with self._mistakes.gathered(where):
                policy = build(Recipe, recipe).policy
                self._recipes[pattern] = {**recipe, **({"policy": str(self._absolute(policy))} if policy else {})}
        elif recipe != FETCH:
            options = ", ".join(field.name for field in dataclasses.fields(Recipe))
            self._mistakes.add(f'{where}expected "{FETCH}" or a table of {options}, found {recipe!r}')

    def _recipe(self, dataset: str) -> Mapping[str, Any] | str | None:
        """The first recipe whose pattern fits."""
        for pattern, recipe in self._recipes.items():
            if dataset and fnmatch.fnmatchcase(dataset, pattern):
                self._used.add(pattern)
                return recipe
        return None

    def _table(self, found: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
        value = found.get(name, {})
        if isinstance(value, Mapping):
            return value
        self._mistakes.add(f"{where}{name}: expected a table, found {value!r}")
        return {}

    def _path(self, name: str) -> Path | None:
        value = self._found.get(name)
        if value is None:
            return None
        if isinstance(value, str | Path) and str(value) and "\0" not in str(value):
            return self._absolute(value)
        self._mistakes.add(f"{name}: expected a path, found {value!r}")
        return None

    def _absolute(self, path: Path | str) -> Path:
        return (self._folder / Path(path).expanduser()).absolute()

    def _check_names(self, found: Mapping[str, Any], known: Sequence[str], where: str = "") -> None:
        for name in map(str, found):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                self._mistakes.add(f"{where}expected {', '.join(known)}, found {name!r}{hint}")


@dataclasses.dataclass(frozen=True)
class _Top:
    retries: CountOrZero
