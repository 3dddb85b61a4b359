"""The command line: parse, call, print. Everything it does can be done from Python with ``guidedflow.api``."""

import dataclasses
import difflib
import errno
import functools
import io
import math
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from guidedflow.errors import UserError
from guidedflow.processes import HelperDied

# Heavy libraries are imported by the commands that use them: `guidedflow --help` must not wait for JAX.

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MARKUP = re.compile(r"\x1b\[[0-9;]*m")
BOX = re.compile(r"[\u2500-\u257f]")

USAGE = """\
usage: guidedflow COMMAND [options]        (guidedflow COMMAND --help tells more)

{commands}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 if it worked, 2 for the user's mistakes, 128 + n when stopped by signal n."""
    warnings.showwarning = _show_warning
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        sys.exit(_dispatch(list(sys.argv[1:] if argv is None else argv)))
    except UserError as error:
        sys.exit(_fail(str(error)))
    except HelperDied as error:
        sys.exit(_fail(f"{error}; is there memory left?"))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Or Python complains while it exits.
        sys.exit(141)
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise  # Not about a file: a defect of ours, whose traceback is wanted.
        sys.exit(_fail(f"{error.filename or 'output'}: cannot be read or written: {error.strerror}"))
    except KeyboardInterrupt:
        _interrupt()


def _interrupt(*_: object) -> None:
    # At once, wherever it comes: an exception in the middle of a library's import ends in a page of tracebacks.
    # Training answers the signal itself; everything else has nothing to lose.
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # A progress bar hides the cursor.
    os.write(2, b"interrupted; the same command again goes on with what is finished\n")
    os._exit(130)


def _fail(message: str) -> int:
    sys.stderr.write(f"guidedflow: error: {' '.join(message.split())}\n")
    return 2


def _dispatch(argv: list[str]) -> int:
    if argv in (["data"], ["data", "-h"], ["data", "--help"]) or not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        below = argv[0] if argv[:1] == ["data"] else ""
        chosen = {name: summary for name, (summary, _) in COMMANDS.items() if name.startswith(below)}
        listed = "\n".join(f"  {name:{width}}  {summary}" for name, summary in chosen.items())
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
        # Tyro draws a box: its title, then paragraphs between rules, the first of which may repeat the title.
        text = BOX.sub("|", MARKUP.sub("", complaint.getvalue()).replace("\u2500", "-"))
        lines = [line.strip("|+ ").removeprefix("- ") for line in re.sub(r"-{3,}", "\n---\n", text).splitlines()]
        parts = [" ".join(part.split()) for part in "\n".join(line or "---" for line in lines).split("---")]
        title, *said = [part for part in parts if part]
        message = (
            " ".join(said[:1]) if said and said[0].lower().startswith(title.lower()) else ": ".join([title, *said[:1]])
        )
        near = next((re.findall(r"--[\w-]+", part) for part in said if part.startswith("Perhaps you meant")), [])
        hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        raise UserError(f"{message}{hint}; see guidedflow {command} --help") from None


# ---------------------------------------------------------------------------------------------------------- train


def _optional(kind: str, default: str) -> Any:
    return tyro.conf.arg(metavar=kind, help_behavior_hint=f"(default: {default})")


DATA_DIR = _optional("PATH", "$GUIDEDFLOW_DATA or ~/.guidedflow/data, then ~/.ogbench/data")
NEW_DATA_DIR = _optional("PATH", "$GUIDEDFLOW_DATA or ~/.guidedflow/data")
WORKERS = _optional("INT", "one a core")
STAND_IN = tyro.conf.arg(metavar="{random,sine}", help_behavior_hint="")
WANDB = tyro.conf.arg(metavar="{online,offline}", help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class _Train:
    task: Annotated[Positional[str | None], tyro.conf.arg(metavar="TASK", help_behavior_hint="")] = None
    """A task's id, or an npz or HDF5 file with arrays of your own. Write it before options that take several values."""
    agent: str = "gfp"
    """The algorithm; it decides which of its own options there are below."""
    preset: Literal["quick", "published"] = "published"
    """published: the papers' settings for the task; quick: a small network and 25,000 steps. Options win over both."""
    sweep: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=V1,V2,...", help_behavior_hint="")] = ()
    """Train every value of a float setting (alpha=0.3,1,3) with every seed, all at once, and rank them."""
    dataset: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Learn from this npz or HDF5 file in place of the task's data, and evaluate on the task."""
    run_dir: Annotated[Path | None, _optional("PATH", "runs/TASK/AGENT-PRESET-TIME")] = None
    """The run's new folder."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """Continue this run instead."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    workers: Annotated[int | None, WORKERS] = None
    """Processes that run the environments; changes no result."""
    eval_async: bool = False
    """Evaluate beside the training, where a GPU leaves cores free; changes no result."""
    wandb: Annotated[Literal["online", "offline"] | None, WANDB] = None
    """Also log to Weights & Biases."""


def _train(command: str, argv: list[str]) -> int:
    from guidedflow import api
    from guidedflow.training.trainer import Stopped

    arguments, explicit = _parse_train(command, argv)
    console = _console()
    try:
        with _ProgressLine(console) as line:
            common: dict[str, Any] = {name: getattr(arguments, name) for name in ("workers", "eval_async", "wandb")}
            common |= {"on_progress": line, "on_notice": _notice}
            common |= {"data_dir": arguments.data_dir, "dataset": arguments.dataset}
            if arguments.resume is not None:
                if arguments.run_dir is not None:
                    raise UserError("--run-dir: expected none beside --resume, which names the run's folder itself")
                run = api.resume(arguments.resume, **common, **explicit)
            elif arguments.task is not None:
                explicit = {name: value for name, value in explicit.items() if not hasattr(arguments, name)}
                chosen = {name: getattr(arguments, name) for name in ("agent", "preset", "run_dir")}
                chosen["sweep"] = _sweep(arguments.sweep)
                run = api.train(arguments.task, **chosen, **common, **explicit)
            else:
                raise UserError("task: expected a task's id, an npz or an HDF5 file, found none; see guidedflow tasks")
    except Stopped as stopped:
        console.print(
            f"{stopped}; continue with: guidedflow train --resume {shlex.quote(str(stopped.path))}", soft_wrap=True
        )
        return 128 + stopped.signal_number
    _print_results(console, run.summary["results"], run.summary["over_seeds"])
    if arguments.sweep and not run.summary["results"]:
        _notice("without an environment the variants cannot be ranked; their losses are in metrics.jsonl")
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
    if parsed.run.sweep:
        explicit["sweep"] = _sweep(parsed.run.sweep)
    return parsed.run, explicit


def _sweep(arguments: Sequence[str]) -> dict[str, list[float]]:
    found = {}
    for argument in arguments:
        name, _, values = argument.partition("=")
        try:
            found[name.replace("-", "_")] = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise UserError(f"--sweep: expected NAME=V1,V2,... with numbers, found {argument!r}") from error
    return found


def _peek(argv: Sequence[str], option: str) -> str | None:
    for word, following in zip(argv, [*argv, None][1:], strict=True):
        if word == f"--{option}":
            return following
        if word.startswith(f"--{option}="):
            return word.partition("=")[2]
    return None


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    class Lasting(Console):
        def on_broken_pipe(self) -> None:
            """Whoever read along has gone: be quiet, and finish the work."""
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return Lasting(highlight=False, stderr=stderr, markup=False)


class _ProgressLine:
    """Steps a second, time left, losses and the last success rates; now and then a line where there is no terminal."""

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
        self._told = 0

    def __enter__(self) -> "_ProgressLine":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: Any) -> None:
        # Where the environment does not speak of success, the score says how it goes.
        spoken = not any(math.isnan(row["success"]) for row in progress.evaluations)
        measure, shown = ("success", ".0%") if spoken else ("score", ".1f")
        found: dict[str, list[float]] = {}
        for row in progress.evaluations:
            found.setdefault(row["policy"], []).append(row[measure])
        means = " ".join(f"{policy} {sum(values) / len(values):{shown}}" for policy, values in found.items())
        success = f"{measure} {means}" if means else ""
        losses = " ".join(
            f"{n.removesuffix('_loss')} {v:.3g}" for n, v in progress.metrics.items() if n.endswith("_loss")
        )
        if self._console.is_terminal:
            self._draw(progress, losses or progress.phase, success)
            return
        place = f"step {progress.step:,}/{progress.steps:,}"
        if progress.phase == "compiling" and progress.step:
            self._console.print(f"{place}: continuing from here", soft_wrap=True)
        elif success and progress.phase == "training" and not losses:
            self._console.print(f"{place}: {success}", soft_wrap=True)
        elif losses and not success and progress.step - self._told >= progress.steps / 10:
            self._told = progress.step
            self._console.print(f"{place}: {progress.updates_per_second:,.0f}/s {losses}", soft_wrap=True)

    def _draw(self, progress: Any, now: str, success: str) -> None:
        if self._task is None:
            self._task = self._bar.add_task(
                "", total=progress.steps, completed=progress.step, rate=0.0, losses="", success=""
            )
        rate = {"rate": progress.updates_per_second} if progress.metrics else {}
        self._bar.update(self._task, completed=progress.step, success=success, losses=now, **rate)


def _print_results(console: Any, rows: Sequence[dict[str, Any]], merged: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    if not rows:
        return
    swept = len({row["variant"] for row in rows}) > 1
    # Where the published score is not the success rate, it has a column of its own.
    scored = any(not math.isclose(row["score"], 100 * row["success"]) for row in rows)
    table = Table(
        *(["variant"] if swept else []),
        "policy",
        "seed",
        *(["score"] if scored else []),
        "success rate [95% interval]",
        "mean return",
        "episodes",
    )

    def add(row: dict[str, Any], seed: str) -> None:
        rate = "the environment reports none" if math.isnan(row["success"]) else f"{row['success']:6.1%}"
        if not math.isnan(row["success_low"]):
            rate += f"  [{row['success_low']:.1%}, {row['success_high']:.1%}]"
        variant, score = [row["variant"]] if swept else [], [f"{row['score']:.1f}"] if scored else []
        numbers = f"{row['mean_return']:.1f}", str(row["episodes"])
        table.add_row(*variant, row["policy"], seed, *score, rate, *numbers)

    seeds = merged[0]["seeds"]
    if not swept:
        for row in rows:
            add(row, str(row["seed"]))
        table.add_section()
    if swept or seeds > 1:  # Of a sweep the ranking alone, best first; each seed's figures are in summary.json.
        for row in merged:
            add(row, f"mean of {seeds}" if seeds > 1 else str(rows[0]["seed"]))
    console.print(table)


# ------------------------------------------------------------------------------------------------ the other commands


@dataclasses.dataclass(frozen=True)
class _Evaluate:
    run: Positional[Path]
    """The run's folder."""
    episodes: Annotated[int | None, _optional("INT", "as in training")] = None
    """Episodes for each policy and seed."""
    checkpoint: str = "latest"
    """latest, best, or a step."""
    videos: int = 0
    """Episodes of each policy and seed to film, as GIF in RUN/videos. Without a GPU a picture takes a second."""
    workers: Annotated[int | None, WORKERS] = None
    """Processes that run the environments; changes no result."""
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
class _Report:
    runs: Positional[tuple[str, ...]]
    """Folders of runs, folders above them, or quoted patterns; any mix of tasks, agents and seeds, finished or not."""
    out: Path = Path("report")
    """The report's folder: index.html, table.md, table.tex, table.csv, statistics.md and plots/. It is replaced."""


def _report(command: str, argv: list[str]) -> int:
    arguments = _parse(_Report, command, argv)
    from guidedflow import api
    from guidedflow.results.table import as_terminal

    report = api.report(arguments.runs, arguments.out)
    console = _console()
    console.print(as_terminal(report.table))
    console.print(f"report: {report.path / 'index.html'}", soft_wrap=True)
    return 0


@dataclasses.dataclass(frozen=True)
class _Compare:
    run_a: Positional[Path]
    """A run's folder."""
    run_b: Positional[Path]
    """Another's, of the same task."""
    json: bool = False
    """Print JSON instead of tables."""


def _compare(command: str, argv: list[str]) -> int:
    arguments = _parse(_Compare, command, argv)
    from guidedflow import api
    from guidedflow.results.compare import as_terminal

    comparison = api.compare(arguments.run_a, arguments.run_b)
    if arguments.json:
        rows = {name: [row._asdict() for row in getattr(comparison, name)] for name in ("differences", "results")}
        _print_json({**rows, "notes": comparison.notes})
    else:
        _console().print(as_terminal(comparison, (str(arguments.run_a), str(arguments.run_b))))
    return 0


@dataclasses.dataclass(frozen=True)
class _Generate:
    family: Positional[str]
    """A family of manipulation data: cube-{single,double,triple}, scene, puzzle-{3x3,4x4}, each -play or -noisy, and
    all but cube-triple as visual-...-play.
    With --policy an Adroit task, expert or human: door-expert-v1 or D4RL/pen/expert-v2 for instance.
    With --stand-in a MuJoCo task of Minari: mujoco/hopper/medium-v0 for instance."""
    policy: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """npz file of an expert's weights or of human demonstrations, from which Adroit's data is made."""
    stand_in: Annotated[Literal["random", "sine"] | None, STAND_IN] = None
    """Make data of random actions, or of sines, in place of the published data: for tests alone, and it says so."""
    episodes: Annotated[int | None, _optional("INT", "as published; 100 with --policy or --stand-in")] = None
    """Training episodes of 1001 steps; a tenth as many are made for validation. Adroit's have 100 or 200 steps,
    stand-ins' 1000 at most."""
    workers: Annotated[int | None, WORKERS] = None
    """Processes; changes no result."""
    seed: int = 0
    """The same seed makes the same data."""
    data_dir: Annotated[Path | None, NEW_DATA_DIR] = None
    """Where to put the files."""


def _generate(command: str, argv: list[str]) -> int:
    arguments = _parse(_Generate, command, argv)
    if arguments.policy is not None or arguments.stand_in is not None:
        if arguments.policy is not None and arguments.stand_in is not None:
            raise UserError("--stand-in: expected none beside --policy, which makes Adroit's data")
        from guidedflow import api

        common: dict[str, Any] = {"data_dir": arguments.data_dir, "seed": arguments.seed}
        common["episodes"] = 100 if arguments.episodes is None else arguments.episodes
        with _EpisodeBar() as progress:
            if arguments.policy is not None:
                path = api.generate_adroit(arguments.family, arguments.policy, progress=progress, **common)
            else:
                path = api.generate_stand_in(arguments.family, arguments.stand_in, progress=progress, **common)
        print(path)
        return 0
    from guidedflow.data.places import default_directory
    from guidedflow.processes import available_cores
    from guidedflow.suites.ogbench.oracles import generate

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
    """A task's id, or the name of its data."""
    data_dir: Annotated[Path | None, NEW_DATA_DIR] = None
    """Where to put the files."""


def _fetch(command: str, argv: list[str]) -> int:
    arguments = _parse(_Fetch, command, argv)
    from guidedflow.data.download import fetch_d4rl, fetch_ogbench
    from guidedflow.data.places import default_directory
    from guidedflow.suites.ogbench.oracles import FAMILIES

    task = _task_of(arguments.task)
    directory = arguments.data_dir or default_directory()
    if task.benchmark == "minari":
        from guidedflow.data.formats import minari

        print(minari.fetch(task.dataset, arguments.data_dir))
        return 0
    if task.benchmark == "d4rl":
        print(fetch_d4rl(task.dataset, directory, show=True))
        return 0
    try:
        train, val = fetch_ogbench(task.dataset, directory, show=True)
    except UserError as error:
        also = f"; or make data like it: guidedflow data generate {task.dataset}" if task.dataset in FAMILIES else ""
        raise UserError(f"{error}{also}") from error
    print(f"{train}\n{val}")
    return 0


def _task_of(name: str) -> Any:
    """The task of that id, or the first one that is learned from the data of that name."""
    from guidedflow.suites import find_task, tasks

    return next((task for task in tasks() if task.dataset == name), None) or find_task(name)


@dataclasses.dataclass(frozen=True)
class _Convert:
    source: Annotated[Positional[Path], tyro.conf.arg(metavar="SOURCE", help_behavior_hint="")]
    """An npz file of arrays, an HDF5 file as D4RL's, a Minari data set's folder, or a folder of episodes, each an npz
    or HDF5 file. Write it and OUTPUT before options that take several values."""
    output: Annotated[Positional[Path], tyro.conf.arg(metavar="OUTPUT", help_behavior_hint="")]
    """The new npz file, for guidedflow train."""
    observation_keys: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = ()
    """The order in which the entries of dictionary observations make one vector."""
    action_range: Annotated[Literal["measured"] | None, _optional("measured", "they are in [-1, 1]")] = None
    """measured: store as [-1, 1] what lies between each dimension's lowest and highest action of the data."""
    action_low: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X ...", help_behavior_hint="")] = ()
    """Store as [-1, 1] what lies between these and --action-high: one number, or one a dimension."""
    action_high: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X ...", help_behavior_hint="")] = ()
    """See --action-low."""
    frame_stack: int = 1
    """Of how many pictures, a step's own and those before it, an observation is made."""


def _convert(command: str, argv: list[str]) -> int:
    arguments = _parse(_Convert, command, argv)
    low, high = arguments.action_low, arguments.action_high
    if bool(low) != bool(high) or (low and arguments.action_range):
        raise UserError("--action-range: expected measured, or --action-low and --action-high, or none of them")
    from guidedflow.data.convert import convert

    declared = tuple(bound[0] if len(bound) == 1 else bound for bound in (low, high)) if low else None
    print(
        convert(
            arguments.source,
            arguments.output,
            observation_keys=arguments.observation_keys or None,
            action_range=arguments.action_range or declared,
            frame_stack=arguments.frame_stack,
        )
    )
    return 0


@dataclasses.dataclass(frozen=True)
class _Inspect:
    what: Positional[str]
    """A task's id, the name of its data, or an npz or HDF5 file."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    json: bool = False
    """Print JSON instead of a table."""


def _inspect(command: str, argv: list[str]) -> int:
    arguments = _parse(_Inspect, command, argv)
    from guidedflow import api
    from guidedflow.data.formats import is_data
    from guidedflow.data.inspect import inspect

    if is_data(arguments.what):
        report = inspect(arguments.what)
    else:
        task = _task_of(arguments.what)
        path = api.dataset_path(task, arguments.data_dir)
        by_success = task.scored_by == "success"
        report = inspect(path, functools.partial(api.load_task_data, task), ends_at_success=by_success)
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
    if report.spec is not None and report.spec["observation_keys"]:
        keys = ", ".join(f"{name} {tuple(shape)}" for name, shape in report.spec["observation_keys"].items())
        console.print(f"an observation is, end to end: {keys}", soft_wrap=True)
    if report.spec is not None and report.spec["action_range"]:
        low, high = (" ".join(f"{number:g}" for number in bound) for bound in report.spec["action_range"])
        console.print(f"actions of [-1, 1] stand for {low} to {high}", soft_wrap=True)
    if report.transitions is not None:
        shortest, longest = report.episode_lengths
        console.print(
            f"{report.transitions:,} transitions in {report.episodes:,} episodes of {shortest} to {longest} steps"
        )
        if report.episode_returns is None:
            console.print("no rewards")
        else:
            lowest, mean, highest = (f"{number:.4g}" for number in report.episode_returns)
            console.print(
                f"mean reward {report.mean_reward:.4g}; returns of episodes {lowest} to {highest}, mean {mean}"
            )
        console.print(
            f"terminal states: {report.terminal_share:.3%} of transitions, {report.terminal_episodes:.1%} of episodes"
        )
        if report.success_share is not None:
            console.print(f"success: {report.success_share:.1%} of episodes")
    for problem in report.problems:
        _console(stderr=True).print(f"problem: {problem}", style="red", soft_wrap=True)
    if not report.problems:
        console.print("no problems found")


@dataclasses.dataclass(frozen=True)
class _Tasks:
    match: Positional[str] = ""
    """Only tasks in whose id, category or data this is found."""
    here: bool = False
    """Only tasks whose data is here."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    json: bool = False
    """Print JSON instead of a table."""


def _tasks(command: str, argv: list[str]) -> int:
    arguments = _parse(_Tasks, command, argv)
    from guidedflow.data.places import folders
    from guidedflow.suites import tasks

    rows = []
    for task in tasks():
        here = any((folder / task.file).exists() for folder in folders(task.benchmark, arguments.data_dir))
        searched = f"{task.id} {task.category} {task.dataset}"
        if arguments.match in searched and (here or not arguments.here):
            rows.append((task, here))
    if not rows:
        raise UserError(f"match: expected a part of a task's id, found {arguments.match!r}, which is in none")
    if arguments.json:
        more = ("dataset", "environment", "scored_by", "is_visual")
        _print_json([task._asdict() | {name: getattr(task, name) for name in more} | {"here": h} for task, h in rows])
        return 0
    print(f"{'task':50} {'observation':11} {'action':6} {'score':7} {'data':7} {'environment':42} category")
    for task, here in rows:
        shape = "x".join(map(str, task.observation_shape))
        data = "here" if here else "-"
        print(
            f"{task.id:50} {shape:>11} {task.action_size:6} {task.scored_by:7} {data:7} {task.environment:42} "
            f"{task.category}"
        )
    return 0


@dataclasses.dataclass(frozen=True)
class _Agents:
    pass


def _agents(command: str, argv: list[str]) -> int:
    _parse(_Agents, command, argv)
    from guidedflow.agents import AGENTS

    print(f"{'agent':8} {'policies':13} {'learns from':23} {'online':7} paper")
    for name, agent in AGENTS.items():
        policies, online = ", ".join(agent.policy_names), "yes" if agent.goes_online else "no"
        print(f"{name:8} {policies:13} {agent.needs:23} {online:7} {agent.paper}")
    return 0


def _notice(text: str) -> None:
    sys.stderr.write(f"guidedflow: note: {text}\n")


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Ours in a line of its own; of the libraries' ones a user can do nothing about."""
    if "guidedflow" in Path(filename).parts:
        _notice(str(message))


def _print_json(value: Any) -> None:
    from guidedflow.runs.folder import as_json

    print(as_json(value))


COMMANDS: dict[str, tuple[str, Callable[[str, list[str]], int]]] = {
    "train": ("train an agent on a task, or on your own arrays", _train),
    "evaluate": ("evaluate the policies of a run", _evaluate),
    "report": ("set runs beside the published numbers: tables, statistics, plots, a page", _report),
    "compare": ("show what differs between two runs, in settings and in scores", _compare),
    "data generate": (
        "make an OGBench data set with scripted oracles, or other data with a policy",
        _generate,
    ),
    "data fetch": ("download a task's published data set", _fetch),
    "data convert": ("make data of your own into a file to train on", _convert),
    "data inspect": ("show what is in a data file and what is wrong with it", _inspect),
    "tasks": ("list the tasks", _tasks),
    "agents": ("list the algorithms", _agents),
}
