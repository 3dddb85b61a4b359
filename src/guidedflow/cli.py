"""The command line: parse, call, print. Everything it does can be done from Python with ``guidedflow.api``."""

import dataclasses
import difflib
import errno
import functools
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from guidedflow.errors import UserError
from guidedflow.processes import HelperDied

# Heavy libraries are imported by the commands that use them: `guidedflow --help` must not wait for JAX.

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG, errno.EPERM)

USAGE = """\
usage: guidedflow COMMAND [options]        (guidedflow COMMAND --help tells more)

{commands}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 if it worked, 2 for the user's mistakes, 128 + n when stopped by signal n."""
    try:
        sys.exit(_dispatch(list(sys.argv[1:] if argv is None else argv)))
    except UserError as error:
        sys.exit(_fail(str(error)))
    except HelperDied as error:
        sys.exit(_fail(f"{error}; is there memory left? what was finished is kept"))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Or Python complains while it exits.
        sys.exit(141)
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        sys.exit(_fail(f"{error.filename or 'output'}: cannot be written: {error.strerror}"))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _fail(message: str) -> int:
    sys.stderr.write(f"guidedflow: error: {' '.join(message.split())}\n")
    return 2


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        listed = "\n".join(f"  {name:{width}}  {summary}" for name, (summary, _) in COMMANDS.items())
        print(USAGE.format(commands=listed))
        return 0
    if argv[0] == "--version":
        import importlib.metadata

        print(f"guidedflow {importlib.metadata.version('guidedflow')}")
        return 0
    words = 2 if argv[0] == "data" else 1
    name = " ".join(argv[:words])
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.3) or list(COMMANDS)
        raise UserError(
            f"expected one of the commands {', '.join(COMMANDS)}, found {name!r}; did you mean {near[0]!r}?"
        )
    return COMMANDS[name][1](name, argv[words:]) or 0


def _parse(cls: Any, command: str, argv: Sequence[str], *, default: Any = None) -> Any:
    """Parse with tyro, its boxed complaints turned into one line."""
    complaint = io.StringIO()
    extra = {} if default is None else {"default": default}
    try:
        with redirect_stderr(complaint):
            summary = COMMANDS[command][0]
            return tyro.cli(cls, prog=f"guidedflow {command}", args=list(argv), description=summary, **extra)
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [" ".join(line.split()) for line in complaint.getvalue().splitlines()]
        paragraphs = " ".join(line for line in lines if line).split("---")
        said = [part.strip("- ") for part in paragraphs if part.strip("- ")]
        raise UserError(f"{': '.join(said[:2])}; see guidedflow {command} --help") from None


# ---------------------------------------------------------------------------------------------------------- train


@dataclasses.dataclass(frozen=True)
class _Train:
    task: Positional[str | None] = None
    """A task's id, or an npz file with arrays of your own."""
    agent: str = "gfp"
    """The algorithm; it decides which of its own options there are below."""
    preset: Literal["quick", "published"] = "published"
    """published: the papers' settings for the task; quick: a small network and 25,000 steps. Options win over both."""
    run_dir: Path | None = None
    """The run's new folder. Default: runs/TASK/AGENT-PRESET-TIME."""
    resume: Path | None = None
    """Continue this run instead."""
    data_dir: Path | None = None
    """Folder of the data files. Default: $GUIDEDFLOW_DATA or ~/.guidedflow/data, then ~/.ogbench/data."""
    workers: int | None = None
    """Processes that run the environments; changes no result. Default: one a core."""
    wandb: Literal["online", "offline"] | None = None
    """Also log to Weights & Biases."""


def _train(command: str, argv: list[str]) -> int:
    from guidedflow import api
    from guidedflow.training.loop import Stopped

    arguments, explicit = _parse_train(command, argv)
    console = _console()
    try:
        with _ProgressLine(console) as line:
            common: dict[str, Any] = {"workers": arguments.workers, "wandb": arguments.wandb}
            common |= {"on_progress": line, "on_notice": _notice}
            if arguments.resume is not None:
                run = api.resume(arguments.resume, **common, **explicit)
            elif arguments.task is not None:
                explicit = {name: value for name, value in explicit.items() if not hasattr(arguments, name)}
                chosen = {name: getattr(arguments, name) for name in ("agent", "preset", "run_dir", "data_dir")}
                run = api.train(arguments.task, **chosen, **common, **explicit)
            else:
                raise UserError("task: expected a task's id or an npz file, found none; see guidedflow tasks")
    except Stopped as stopped:
        console.print(f"{stopped}; continue with: guidedflow train --resume {stopped.path}", soft_wrap=True)
        return 128 + stopped.signal_number
    _print_results(console, run.summary["results"], run.summary["over_seeds"])
    console.print(f"run: {run.path}   curves: {run.path / 'curves.png'}", soft_wrap=True)
    return 0


def _parse_train(command: str, argv: list[str]) -> tuple[_Train, dict[str, Any]]:
    """The arguments, and by name the settings that stand on the command line itself."""
    from guidedflow.training.settings import TrainSettings, resolve

    agent = _peek(argv, "agent") or "gfp"
    preset: Any = _peek(argv, "preset") or "published"
    # The defaults that --help shows are the preset's, without a task's tuned row.
    resolved = resolve(agent, preset, None, {})
    groups = [
        ("run", OmitArgPrefixes[_Train]),
        ("settings", OmitArgPrefixes[TrainSettings]),
        (agent, OmitArgPrefixes[type(resolved.config)]),  # type: ignore[misc]
    ]
    arguments = dataclasses.make_dataclass("Arguments", groups, frozen=True)
    parsed = _parse(arguments, command, argv, default=arguments(_Train(), resolved.train, resolved.config))
    words = {word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    words |= {name.removeprefix("no_") for name in words}
    values = {**vars(parsed.settings), **vars(getattr(parsed, agent))}
    explicit = {name: value for name, value in values.items() if name in words}
    if parsed.run.task is not None:
        explicit["task"] = parsed.run.task
    explicit |= {name: getattr(parsed.run, name) for name in ("agent", "preset") if name in words}
    return parsed.run, explicit


def _peek(argv: Sequence[str], option: str) -> str | None:
    for word, following in zip(argv, [*argv, None][1:], strict=True):
        if word == f"--{option}":
            return following
        if word.startswith(f"--{option}="):
            return word.partition("=")[2]
    return None


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(highlight=False, stderr=stderr)


class _ProgressLine:
    """Steps a second, time left, losses and the last success rates; a line an evaluation where there is no terminal."""

    def __init__(self, console: Any):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console
        self._bar = Progress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}  {task.fields[success]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: Any = None

    def __enter__(self) -> "_ProgressLine":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: Any) -> None:
        rates: dict[str, list[float]] = {}
        for row in progress.evaluations:
            rates.setdefault(row["policy"], []).append(row["success"])
        success = " ".join(f"{policy} {sum(found) / len(found):.0%}" for policy, found in rates.items())
        if self._task is None:
            self._task = self._bar.add_task(
                "", total=progress.steps, completed=progress.step, rate=0.0, losses="", success=""
            )
        losses = " ".join(
            f"{n.removesuffix('_loss')} {v:.3g}" for n, v in progress.metrics.items() if n.endswith("_loss")
        )
        shown = {"losses": losses, "rate": progress.updates_per_second} if losses else {}
        self._bar.update(self._task, completed=progress.step, success=success, **shown)
        if not losses and not self._console.is_terminal:
            self._console.print(f"step {progress.step:,}/{progress.steps:,}: success {success}", soft_wrap=True)


def _print_results(console: Any, rows: Sequence[dict[str, Any]], merged: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    if not rows:
        return
    table = Table("policy", "seed", "success rate [95% interval]", "mean return", "episodes")

    def rate(row: dict[str, Any]) -> str:
        if row["success"] != row["success"]:
            return "the environment reports none"
        return f"{row['success']:6.1%}  [{row['success_low']:.1%}, {row['success_high']:.1%}]"

    for row in rows:
        table.add_row(row["policy"], str(row["seed"]), rate(row), f"{row['mean_return']:.1f}", str(row["episodes"]))
    if merged and merged[0]["seeds"] > 1:
        table.add_section()
        for row in merged:
            seeds = f"mean of {row['seeds']}"
            table.add_row(row["policy"], seeds, rate(row), f"{row['mean_return']:.1f}", str(row["episodes"]))
    console.print(table)


# ------------------------------------------------------------------------------------------------ the other commands


@dataclasses.dataclass(frozen=True)
class _Evaluate:
    run: Positional[Path]
    """The run's folder."""
    episodes: int | None = None
    """Episodes for each policy and seed. Default: as in training."""
    checkpoint: str = "latest"
    """latest, best, or a step."""
    videos: int = 0
    """Episodes of each policy and seed to write as GIF into RUN/videos."""
    workers: int | None = None
    """Processes that run the environments; changes no result. Default: one a core."""
    json: bool = False
    """Print JSON instead of a table."""


def _evaluate(command: str, argv: list[str]) -> int:
    arguments = _parse(_Evaluate, command, argv)
    from guidedflow import api

    rows = api.evaluate(
        arguments.run,
        episodes=arguments.episodes,
        checkpoint=arguments.checkpoint,
        videos=arguments.videos,
        workers=arguments.workers,
        on_notice=_notice,
    )
    if arguments.json:
        _print_json(rows)
    else:
        _print_results(_console(), rows, api.over_seeds(rows))
    return 0


@dataclasses.dataclass(frozen=True)
class _Generate:
    family: Positional[str]
    """A family of manipulation data: cube-{single,double,triple}, scene, puzzle-{3x3,4x4}, each -play or -noisy."""
    episodes: int | None = None
    """Training episodes of 1001 steps; a tenth as many are made for validation. Default: as published."""
    workers: int | None = None
    """Processes; changes no result. Default: one a core."""
    seed: int = 0
    """The same seed makes the same data."""
    data_dir: Path | None = None
    """Where to put the files. Default: $GUIDEDFLOW_DATA or ~/.guidedflow/data."""


def _generate(command: str, argv: list[str]) -> int:
    arguments = _parse(_Generate, command, argv)
    from guidedflow.data.generate import generate
    from guidedflow.data.ogbench import default_directory
    from guidedflow.processes import available_cores

    with _EpisodeBar() as progress:
        train, val = generate(
            arguments.family,
            directory=arguments.data_dir or default_directory(),
            episodes=arguments.episodes,
            workers=available_cores() if arguments.workers is None else arguments.workers,
            seed=arguments.seed,
            progress=progress,
        )
    print(f"{train}\n{val}")
    return 0


class _EpisodeBar:
    """Episodes made and time left; a line every tenth where there is no terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = _console(stderr=True)
        columns = (TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task: Any = None

    def __enter__(self) -> "_EpisodeBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        if self._task is None:  # Only now: what an interrupted call left was not made in no time.
            self._task = self._bar.add_task("", completed=done, total=total)
        self._bar.update(self._task, completed=done)
        if not self._console.is_terminal and done % max(1, total // 10) == 0:
            self._console.print(f"episodes: {done}/{total}")


@dataclasses.dataclass(frozen=True)
class _Fetch:
    task: Positional[str]
    """A task's id."""
    data_dir: Path | None = None
    """Where to put the files. Default: $GUIDEDFLOW_DATA or ~/.guidedflow/data."""


def _fetch(command: str, argv: list[str]) -> int:
    arguments = _parse(_Fetch, command, argv)
    from guidedflow.data.download import fetch_ogbench
    from guidedflow.data.generate import FAMILIES
    from guidedflow.data.ogbench import default_directory
    from guidedflow.tasks import find_task

    task = find_task(arguments.task)
    if task.benchmark != "ogbench":
        raise UserError(f"task: expected an OGBench task, found {task.id}; {task.benchmark} is not supported yet")
    try:
        train, val = fetch_ogbench(task.dataset, arguments.data_dir or default_directory(), show=True)
    except UserError as error:
        also = f"; or make data like it: guidedflow data generate {task.dataset}" if task.dataset in FAMILIES else ""
        raise UserError(f"{error}{also}") from error
    print(f"{train}\n{val}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Inspect:
    what: Positional[str]
    """A task's id, or an npz file."""
    data_dir: Path | None = None
    """Folder of the data files; default: $GUIDEDFLOW_DATA or ~/.guidedflow/data, then ~/.ogbench/data."""
    json: bool = False
    """Print JSON instead of a table."""


def _inspect(command: str, argv: list[str]) -> int:
    arguments = _parse(_Inspect, command, argv)
    from guidedflow import api
    from guidedflow.data.inspect import inspect
    from guidedflow.tasks import find_task

    if arguments.what.endswith(".npz"):
        report = inspect(Path(arguments.what))
    else:
        task = find_task(arguments.what)
        report = inspect(api.dataset_path(task, arguments.data_dir), functools.partial(api.label_states, task))
    if arguments.json:
        fields = [field._asdict() for field in report.fields]
        _print_json({**report._asdict(), "path": str(report.path), "fields": fields})
    else:
        _print_report(_console(), report)
    return 2 if report.problems else 0


def _print_report(console: Any, report: Any) -> None:
    from rich.table import Table

    table = Table("field", "shape", "type", "lowest", "highest", title=str(report.path))
    for field in report.fields:
        low, high = ("" if value is None else f"{value:.4g}" for value in (field.low, field.high))
        table.add_row(field.name, str(field.shape), field.dtype, low, high)
    console.print(table)
    console.print(f"made by: {report.made_by}", soft_wrap=True)
    if report.transitions is not None:
        shortest, longest = report.episode_lengths
        console.print(
            f"{report.transitions:,} transitions in {report.episodes:,} episodes of {shortest} to {longest} steps"
        )
        console.print(
            f"mean reward {report.mean_reward:.4g}, fraction of terminal states {report.success_fraction:.3%}"
        )
    for problem in report.problems:
        console.print(f"problem: {problem}", style="red", soft_wrap=True)
    if not report.problems:
        console.print("no problems found")


@dataclasses.dataclass(frozen=True)
class _Tasks:
    match: Positional[str] = ""
    """Only tasks whose id contains this."""
    json: bool = False
    """Print JSON instead of a table."""


def _tasks(command: str, argv: list[str]) -> int:
    arguments = _parse(_Tasks, command, argv)
    from guidedflow.tasks import tasks

    chosen = [task for task in tasks() if arguments.match in task.id]
    if arguments.json:
        _print_json([{**task._asdict(), "dataset": task.dataset} for task in chosen])
    else:
        for task in chosen:
            print(f"{task.id:50} {task.category}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Agents:
    pass


def _agents(command: str, argv: list[str]) -> int:
    _parse(_Agents, command, argv)
    from guidedflow.agents import AGENTS

    for name, agent in AGENTS.items():
        print(f"{name:8} policies: {', '.join(agent.policy_names):16} {agent.paper}")
    return 0


def _notice(text: str) -> None:
    sys.stderr.write(f"guidedflow: note: {text}\n")


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2))


COMMANDS: dict[str, tuple[str, Callable[[str, list[str]], int]]] = {
    "train": ("train an agent on a task, or on your own arrays", _train),
    "evaluate": ("evaluate the policies of a run", _evaluate),
    "data generate": ("make an OGBench data set with scripted oracles", _generate),
    "data fetch": ("download a task's published data set", _fetch),
    "data inspect": ("show what is in a data file and what is wrong with it", _inspect),
    "tasks": ("list the tasks", _tasks),
    "agents": ("list the algorithms", _agents),
}
