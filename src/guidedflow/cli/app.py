"""Which commands there are, and how they end: 0 done, 2 the user's mistake, 128 + n signal n, 141 nobody reads on."""

import difflib
import errno
import gc
import io
import logging
import os
import re
import signal
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guidedflow.cli.agents import Agents
from guidedflow.cli.assess import Assess
from guidedflow.cli.compare import Compare
from guidedflow.cli.convert import Convert
from guidedflow.cli.evaluate import Evaluate
from guidedflow.cli.export import Export
from guidedflow.cli.fetch import Fetch
from guidedflow.cli.generate import Generate
from guidedflow.cli.inspect import Inspect
from guidedflow.cli.pull import Pull
from guidedflow.cli.push import Push
from guidedflow.cli.report import Report
from guidedflow.cli.serve import Serve
from guidedflow.cli.study import StudyInit, StudyReport, StudyRun, StudyStatus
from guidedflow.cli.tasks import Tasks
from guidedflow.cli.train import Train, with_settings
from guidedflow.errors import GuidedflowError, SettingsError
from guidedflow.notices import logger, plain, show_notices
from guidedflow.processes import RemoteTraceback, check_limits

# Heavy libraries are imported by the commands that use them: `guidedflow --help` must not wait for JAX.

COMMANDS: dict[str, Any] = {
    "train": Train,
    "evaluate": Evaluate,
    "assess": Assess,
    "export": Export,
    "serve": Serve,
    "push": Push,
    "pull": Pull,
    "report": Report,
    "compare": Compare,
    "data generate": Generate,
    "data fetch": Fetch,
    "data convert": Convert,
    "data inspect": Inspect,
    "study init": StudyInit,
    "study run": StudyRun,
    "study status": StudyStatus,
    "study report": StudyReport,
    "tasks": Tasks,
    "agents": Agents,
}
"""A dataclass each: its fields are the options, its instances are called."""

GROUPS = {
    "data": "Make, download, convert or inspect data.",
    "study": "Carry out many runs from one plan, on one machine or a cluster.",
}
DESCRIPTION = "Offline RL with flow policies. `guidedflow COMMAND --help` tells more of a command."
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PACKAGE = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # What a terminal's encoding lacks is shown as a question mark.
    warnings.showwarning = _show_warning
    sys.excepthook = _show_uncaught
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Orbax's tasks that nobody asks for after a failure.
    show_notices(always=True)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: _end_at_once(words))
    try:
        sys.exit(_run(words))
    except GuidedflowError as error:
        sys.exit(_fail(str(error)))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Or Python complains while it exits.
        sys.exit(141)
    except OSError as error:
        if error.errno not in _FULL and (error.filename is None or _is_foreign(error)):
            raise  # Not about a file, or not about one of ours: its traceback is wanted.
        sys.exit(_fail(f"{error.filename or 'output'}: cannot be read or written: {error.strerror}"))
    except KeyboardInterrupt:
        _end_at_once(words)


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        import importlib.metadata

        print(f"guidedflow {importlib.metadata.version('guidedflow')}")
        return 0
    if words in ([], ["help"], *([group, *more] for group in GROUPS for more in ([], ["help"]))):
        words = [*(word for word in words if word in GROUPS), "--help"]
    check_limits()
    gc.disable()  # What is imported stays: looking for garbage meanwhile is a quarter of the time that it takes.
    try:
        command = parse(words)
    finally:
        gc.enable()
    return command()


def parse(words: list[str]) -> Any:
    """One of ``COMMANDS`` with the values of the command line.

    Raises:
        SettingsError: no command of that name, or one of its options or values is not possible.
    """
    from tyro.extras import SubcommandApp

    from guidedflow.cli.parse import REGISTRY, check_once, join_lists, one_line_errors

    commands, name = dict(COMMANDS), _name(words)
    if name == "train":
        commands[name] = with_settings(words)
    if name is not None:
        check_once(words, commands[name])
        words = join_lists(words, commands[name])
    app, groups = SubcommandApp(), dict[str, SubcommandApp]()
    for full, command in commands.items():
        group, _, single = full.rpartition(" ")
        if group and group not in groups:
            groups[group] = app.command(SubcommandApp(), name=group, help=GROUPS[group])
        groups.get(group, app).command(command, name=single)
    with one_line_errors(name, commands[name] if name else None):
        return app.cli(prog="guidedflow", description=DESCRIPTION, args=words, registry=REGISTRY)


def _name(words: Sequence[str]) -> str | None:
    """The name of the command; None where help is asked for."""
    named = [word for word in words[:2] if not word.startswith("-")]
    name = " ".join(named[: _length(named)])
    if name in COMMANDS:
        return name
    if name in ("", *GROUPS):
        return None
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.3) or list(COMMANDS)
    raise SettingsError(
        f"expected one of the commands {', '.join(COMMANDS)}, found {name!r}; did you mean {near[0]!r}?"
    )


def _length(words: Sequence[str]) -> int:
    """Of how many words the command's name is."""
    return 2 if words and words[0] in GROUPS else 1


def _fail(message: str) -> int:
    sys.stderr.write(f"guidedflow: error: {plain(' '.join(message.split()))}\n")
    return 2


def _end_at_once(words: Sequence[str]) -> None:
    # Wherever it comes: an exception in the middle of a library's import ends in a page of tracebacks.
    # Training answers the signal itself; everything else has nothing to lose.
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # A progress bar hides the cursor.
    said = getattr(COMMANDS.get(" ".join(words[: _length(words)])), "interrupted", "interrupted")
    os.write(2, f"{said(words) if callable(said) else said}\n".encode())
    os._exit(130)


def _is_foreign(error: BaseException) -> bool:
    """Whether the code that failed, or asked a library for what failed, is neither this package nor a library."""
    libraries = [_PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))]
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    return isinstance(error.__cause__, RemoteTraceback) or any(
        file.exists() and not any(file.is_relative_to(folder) for folder in libraries) for file in files
    )


def _show_uncaught(kind: type[BaseException], error: BaseException, where: Any) -> None:
    # TensorStore's threads answer a call of Orbax that has failed long since; each would be a traceback.
    if not (kind is RuntimeError and str(error) == "Event loop is closed"):
        sys.__excepthook__(kind, error, where)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Ours as notices; of the libraries' ones a user can do nothing about."""
    damaged = re.match(r"Error reading persistent compilation cache entry for '([\w.-]+)'", str(message))
    if damaged is not None:
        from guidedflow.training.compilation import forget

        forget(damaged[1])
    if Path(filename).is_relative_to(_PACKAGE):
        logger.warning(str(message))
