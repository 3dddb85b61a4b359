"""Reads the catalogue's CSV files. Their facts come from the releases named in docs/tasks.md."""

import csv
import difflib
import functools
import importlib.resources
import re
from typing import Literal, NamedTuple

from guidedflow.errors import UserError

SINGLETASK = re.compile(r"-singletask(-task\d)?")
# The task that OGBench means by an id without "-taskN" (docs/tasks.md).
DEFAULT_TASKS = {"antsoccer": 4, "cube": 2, "scene": 2, "puzzle": 4, "antmaze": 1, "humanoidmaze": 1}
MINARI_ENVIRONMENTS = {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}


class Task(NamedTuple):
    """One row of the published comparison."""

    id: str
    benchmark: str
    category: str
    observation_shape: tuple[int, ...]
    action_size: int

    @property
    def dataset(self) -> str:
        """The data that the task is learned from; OGBench's five tasks of a family share one data set."""
        if self.benchmark != "ogbench":
            return self.id
        return SINGLETASK.split(self.id)[0]

    @property
    def is_visual(self) -> bool:
        """Whether it is learned from pictures, of which ``observation_shape`` has ``frame_stack``."""
        return self.id.startswith("visual-")

    @property
    def frame_stack(self) -> int:
        """How many of the last frames make an observation."""
        return 3 if self.is_visual else 1

    @property
    def file(self) -> str:
        """The name of the data's file, or of Minari's folder."""
        return self.dataset + {"ogbench": "-v0.npz", "d4rl": ".hdf5", "minari": ""}[self.benchmark]

    @property
    def environment(self) -> str:
        """The environment's id. OGBench names it as the task, less the kind of data; D4RL's are this package's own."""
        if self.benchmark == "ogbench":
            return self.dataset.rpartition("-")[0] + self.id[len(self.dataset) :]
        if self.benchmark == "minari":
            return MINARI_ENVIRONMENTS.get(self._body, f"AdroitHand{self._body.capitalize()}-v1")
        if self.is_antmaze:
            return f"guidedflow/AntMaze{self.id.split('-')[1].capitalize()}-v2"
        return f"guidedflow/Adroit{self._body.capitalize()}-v1"

    @property
    def is_antmaze(self) -> bool:
        """Whether it is one of D4RL's AntMaze tasks, which have rules of their own."""
        return self.category == "d4rl/antmaze"

    @property
    def scored_by(self) -> Literal["success", "return"]:
        """Of what the published score is made: the success rate, or the return between two reference returns."""
        return "success" if self.benchmark == "ogbench" or self.is_antmaze else "return"

    def score(self, success: float, mean_return: float) -> float:
        """The published score: 100 times the success rate, or 100 (R - R_min) / (R_max - R_min)."""
        if self.scored_by == "success":
            return 100.0 * success
        lowest, highest = self.reference_returns
        return 100.0 * (mean_return - lowest) / (highest - lowest)

    @property
    def reference_returns(self) -> tuple[float, float]:
        """The returns that score 0 and 100, where returns are scored."""
        return _reference_scores()[self.benchmark, self._body]

    @property
    def _body(self) -> str:
        """What is controlled: door, antmaze, hopper for instance."""
        return self.id.split("/")[1] if "/" in self.id else self.id.split("-")[0]


def _read(name: str) -> list[dict[str, str]]:
    text = importlib.resources.files("guidedflow.suites").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@functools.cache
def _reference_scores() -> dict[tuple[str, str], tuple[float, float]]:
    rows = _read("reference_scores.csv")
    return {(row["benchmark"], row["name"]): (float(row["lowest"]), float(row["highest"])) for row in rows}


@functools.cache
def tasks() -> tuple[Task, ...]:
    """All 144 tasks, OGBench's first."""
    return tuple(
        Task(
            row["task"],
            row["benchmark"],
            row["category"],
            tuple(map(int, row["observation"].split("x"))),
            int(row["action"]),
        )
        for row in _read("tasks.csv")
    )


def find_task(name: str) -> Task:
    """The task of that id; an OGBench id without ``-taskN`` means its default task.

    Raises:
        UserError: no such task; the message names the nearest ones.
    """
    by_id = {task.id: task for task in tasks()}
    family = name.removeprefix("visual-").split("-")[0]
    if name.endswith("-singletask-v0") and family in DEFAULT_TASKS:
        number = 1 if name.startswith("visual-") else DEFAULT_TASKS[family]
        name = name.replace("-singletask-v0", f"-singletask-task{number}-v0")
    if name not in by_id:
        near = difflib.get_close_matches(name, by_id, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}" if near else "guidedflow tasks lists them"
        raise UserError(f"task: expected one of the {len(by_id)} known tasks, found {name!r}; {hint}")
    return by_id[name]


@functools.cache
def _published() -> dict[tuple[str, str], dict[str, str]]:
    return {(row["method"], row["dataset"]): row for row in _read("published/hyperparameters.csv")}


def published_settings(method: str, dataset: str) -> dict[str, float | int | str] | None:
    """The settings tuned by the papers' authors for a method on a data set, by exact match; None if there are none.

    Keys are those of the CSV that are filled in: steps, batch_size, discount, flow_steps, q_agg, target_agg,
    guidance_agg, alpha, eta, alpha_critic, expectile.
    """
    row = _published().get((method, dataset))
    if row is None:
        return None
    kinds = {
        "steps": int,
        "batch_size": int,
        "flow_steps": int,
        "q_agg": str,
        "target_agg": str,
        "guidance_agg": str,
    }
    return {
        name: kinds.get(name, float)(value)
        for name, value in row.items()
        if value and name not in ("method", "benchmark", "dataset", "source")
    }
