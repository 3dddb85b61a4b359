"""``guidedflow data inspect``: what is in a data file."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from guidedflow.cli.show import DATA_DIR, INSTRUCTION, REWARD, Flag, Reward, optional, print_fitting, print_json
from guidedflow.errors import SettingsError


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show what is in a data file and what is wrong with it."""

    what: Annotated[Positional[str], optional("TASK_OR_PATH")]
    """A task's id, the name of its data, an npz or HDF5 file, or a LeRobot or Minari data set's folder."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    reward: Annotated[Reward | None, REWARD] = None
    """Rewards of LeRobot's and robomimic's data; success: 1 where a step succeeds, else 0; step-cost: 0, else -1."""
    instruction: Annotated[str | None, INSTRUCTION] = None
    """Of LeRobot's data: the text of the only task to look at."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        """Print a table and what was found amiss, which makes the exit status 2."""
        from guidedflow.data import formats
        from guidedflow.data.inspect import inspect
        from guidedflow.suites import find_data_task

        options: dict[str, Any] = {"reward": self.reward, "instruction": self.instruction}
        if formats.is_data(self.what):
            found = inspect(self.what, **options)
        else:
            try:
                task = find_data_task(self.what)
            except SettingsError:
                if Path(self.what).exists():
                    formats.find_format(self.what)  # Which says what was looked for.
                raise
            path = task.suite.find_data(task, self.data_dir)
            load, is_success = functools.partial(task.suite.load, task), task.scored_by == "success"
            found = inspect(path, load, ends_at_success=is_success, **options)
        if self.json:
            fields = [field._asdict() for field in found.fields]
            returns = None if found.episode_returns is None else found.episode_returns._asdict()
            print_json({**found._asdict(), "path": str(found.path), "fields": fields, "episode_returns": returns})
        else:
            _print(found)
        return 2 if found.problems else 0


def _print(found: Any) -> None:
    from rich.table import Table

    from guidedflow.training.display import make_console

    console = make_console()
    table = Table("field", "shape", "type", "lowest", "highest", title=str(found.path))
    for field in found.fields:
        low, high = ("" if value is None else f"{value:.4g}" for value in (field.low, field.high))
        table.add_row(field.name, str(field.shape), field.dtype, low, high)
    print_fitting(console, table)
    for line in _lines(found):
        console.print(line, soft_wrap=True)
    for problem in found.problems:
        make_console(stderr=True).print(f"problem: {problem}", style="red", soft_wrap=True)
    if not found.problems:
        console.print("no problems found")


def _lines(found: Any) -> Iterator[str]:
    """What is known of the data beside its fields."""
    yield f"made by: {found.made_by}"
    if found.checksums is not None:
        yield f"checksums: {found.checksums}"
    spec = found.spec or {"observation_shape": [], "observation_keys": {}, "action_range": None}
    if spec["observation_keys"]:
        keys = ", ".join(f"{name} {tuple(shape)}" for name, shape in spec["observation_keys"].items())
        together = "a dictionary of" if isinstance(spec["observation_shape"], dict) else "end to end"
        yield f"an observation is, {together}: {keys}"
    if spec["action_range"]:
        low, high = (" ".join(f"{number:g}" for number in bound) for bound in spec["action_range"])
        yield f"actions of [-1, 1] stand for {low} to {high}"
    if found.transitions is not None:
        shortest, longest = found.episode_lengths
        episodes = f"{found.episodes:,} episodes of {shortest} to {longest} steps"
        yield f"{found.transitions:,} transitions in {episodes}; {found.terminal_episodes:.1%} end in a terminal state"
    if found.episode_returns is not None:
        lowest, mean, highest = (f"{value:.4g}" for value in found.episode_returns)
        yield f"returns of episodes {lowest} to {highest}, mean {mean}; mean reward {found.mean_reward:.4g}"
    if found.success_share is not None:
        yield f"{found.success_share:.1%} of the episodes succeed"
