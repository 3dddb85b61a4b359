"""``guidedflow train``: a task, an environment or data of the user's own; and the continuation of a run."""

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from guidedflow.cli.parse import Assignments, given_options, value_of
from guidedflow.cli.show import DATA_DIR, INSTRUCTION, REWARD, WORKERS, Flag, Reward, optional
from guidedflow.errors import Interrupted, RunError, SettingsError


@dataclasses.dataclass(frozen=True)
class Train:
    """Train an agent on a task, on an environment of your own, or on your own data."""

    task: Annotated[Positional[str | None], optional("TASK")] = None
    """A task's id; or data of your own: an npz or HDF5 file, one of robomimic, or a LeRobot or Minari set's folder."""
    env: Annotated[str | None, optional("ENV")] = None
    """Evaluate in this environment of your own: a gymnasium id, or module:function that makes one."""
    dataset: Annotated[Path | None, optional("PATH")] = None
    """Learn from this file or folder of data of your own, in place of the task's data."""
    reward: Annotated[Reward | None, REWARD] = None
    """Rewards of LeRobot's and robomimic's data; success: 1 where a step succeeds, else 0; step-cost: 0, else -1."""
    instruction: Annotated[str | None, INSTRUCTION] = None
    """Of LeRobot's data: the text of the only task to learn."""
    agent: str = "gfp"
    """The algorithm, by name or as module:Class; it decides which of its own options there are below."""
    preset: Literal["quick", "published"] = "published"
    """published: the papers' settings for the task; quick: a small network and 20,000 steps. Options win over both."""
    sweep: Assignments = dataclasses.field(default_factory=dict)
    """Train every value of a float setting (alpha=0.3,1,3) with every seed, all at once, and rank them."""
    run_dir: Annotated[Path | None, optional("PATH", "a new folder in runs/TASK")] = None
    """The run's new folder."""
    resume: Annotated[Path | None, optional("RUN")] = None
    """Continue this run instead."""
    extend_to: Annotated[int | None, optional("STEPS")] = None
    """With --resume: train for so many steps in all, more than the run was started with."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    workers: Annotated[int | None, WORKERS] = None
    """Processes that run the environments; changes no result."""
    eval_async: Flag = False
    """Evaluate beside the training, where a GPU leaves cores free; changes no result."""
    wandb: Annotated[Literal["online", "offline"] | None, optional("{online,offline}")] = None
    """Also log to Weights & Biases."""

    @staticmethod
    def interrupted(argv: Sequence[str]) -> str:
        """What to do after Ctrl-C outside of the training, which answers it itself."""
        folder = value_of(argv, "run_dir")
        if folder is not None and (Path(folder) / "config.json").exists():
            return f"interrupted; continue with: guidedflow train --resume {shlex.quote(folder)}"
        return "interrupted before the training began; the same command begins it again"


def with_settings(argv: Sequence[str]) -> type:
    """The command with the settings of a run and of the agent that the command line names.

    Raises:
        SettingsError: there is no such agent.
    """
    from guidedflow.agents import find_agent
    from guidedflow.training.settings import TrainSettings, resolve

    agent, preset = _agent(argv), value_of(argv, "preset")
    algorithm = find_agent(agent)
    # The defaults that --help shows are the preset's, without a task's tuned row.
    resolved = resolve(algorithm, "quick" if preset == "quick" else "published", None, {})
    groups: list[tuple[str, Any, Any]] = [
        ("run", Annotated[OmitArgPrefixes[Train], tyro.conf.arg(help="What to learn, and where.")], Train()),
        ("settings", OmitArgPrefixes[TrainSettings], resolved.train),
        (algorithm.__name__, OmitArgPrefixes[algorithm.config_class], resolved.config),  # type: ignore[misc, name-defined]
    ]

    def call(command: Any) -> int:
        values = {name: value for group in vars(command).values() for name, value in vars(group).items()}
        return _train(command.run, {name: values[name] for name in given_options(argv, values)})

    names = {"__doc__": Train.__doc__, "__call__": call, "interrupted": Train.interrupted, "explain": _explain(agent)}
    return dataclasses.make_dataclass("Train", groups, frozen=True, namespace=names)


def _agent(argv: Sequence[str]) -> str:
    """The agent whose settings are options."""
    named = value_of(argv, "agent")
    run = value_of(argv, "resume")
    if named is None and run is not None:
        from guidedflow.agents import AGENTS
        from guidedflow.runs.config import RunConfig

        with contextlib.suppress(RunError):  # Which is said once the command runs.
            saved = RunConfig.read(Path(run)).agent
            # A run's folder may come from anywhere: it does not decide which modules are imported.
            named = saved if saved in AGENTS else None
    return named or "gfp"


def _explain(agent: str) -> Any:
    """What to say of an option that is no setting of the agent, but one of others."""

    def explain(name: str) -> str | None:
        from guidedflow.agents import AGENTS, find_agent

        def settings(found: Any) -> list[str]:
            return [field.name for field in dataclasses.fields(found.config_class)]

        owners = [other for other, found in AGENTS.items() if name in settings(found)]
        if not owners:
            return None
        own = ", ".join(f"--{setting.replace('_', '-')}" for setting in settings(find_agent(agent)))
        return f"expected a setting of {agent} ({own}), found one of {', '.join(owners)}"

    return staticmethod(explain)


def _train(options: Train, given: dict[str, Any]) -> int:
    """Train or continue with the options that stand on the command line.

    Args:
        options: the command's own.
        given: every option that stands on the command line, settings among them.
    """
    import guidedflow as gf
    from guidedflow.training.display import make_console

    own = {field.name for field in dataclasses.fields(Train)}
    settings = {name: value for name, value in given.items() if name not in own}
    common: dict[str, Any] = {name: getattr(options, name) for name in ("env", "dataset", "data_dir", "workers")}
    common |= {"eval_async": options.eval_async, "wandb": options.wandb}
    console = make_console()
    try:
        if options.resume is not None:
            if options.run_dir is not None:
                raise SettingsError("--run-dir: expected none beside --resume, which names the run's folder itself")
            told = ("agent", "preset", "sweep", "reward", "instruction")
            same: dict[str, Any] = {name: given[name] for name in told if name in given}
            if options.task is not None:
                same["task"] = options.task
            run = gf.resume(options.resume, extend_to=options.extend_to, **same, **common, **settings)
        else:
            if options.extend_to is not None:
                raise SettingsError("--extend-to: expected --resume RUN, the run that is to be extended, found none")
            if options.task is None and options.dataset is None and options.env is None:
                raise SettingsError("expected TASK, which guidedflow tasks lists, or --dataset PATH, found none")
            names = ("agent", "preset", "run_dir", "reward", "instruction")
            chosen: dict[str, Any] = {name: getattr(options, name) for name in names}
            run = gf.train(options.task, sweep=options.sweep or None, **chosen, **common, **settings)
    except Interrupted as stop:
        again = f"guidedflow train --resume {shlex.quote(str(stop.path))}"
        console.print(f"{stop}; continue with: {again}", soft_wrap=True)
        return 128 + stop.signal_number
    console.print(f"run: {run.path}   curves: {run.path / 'curves.png'}", soft_wrap=True)
    return 0
