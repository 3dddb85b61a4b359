"""What the programs share: their options, medians with spread, processes of their own, tables or JSON, the machine."""

import importlib.metadata
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from guidedflow import errors
from guidedflow.errors import GuidedflowError
from guidedflow.processes import available_cores
from guidedflow.settings import check

TASK = "cube-single-noisy-singletask-task1-v0"
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "MemoryError", "bad_alloc")

_T = TypeVar("_T")


class OutOfMemory(RuntimeError):
    """A process of its own needed more memory than there is."""


def run(main: Callable[[], None]) -> None:
    """A program, with the user's mistakes in one line and exit code 2."""
    try:
        main()
    except GuidedflowError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        sys.exit(2)


def parse(options: Any) -> Any:
    """The command line as a dataclass, or as one of several; each field within the range of its annotation."""
    import tyro  # What is measured in a process of its own needs no command line.

    arguments = tyro.cli(options)
    check(arguments)
    return arguments


def elapsed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def spread(values: Iterable[float]) -> dict[str, float]:
    """The median of repeated measurements, and their extremes."""
    values = list(values)
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def apart(function: Callable[..., _T], *arguments: Any, environment: Mapping[str, str] | None = None) -> _T:
    """What a function returns in a fresh process.

    Args:
        function: at the top of a module; returns what JSON can hold.
        arguments: likewise.
        environment: variables that differ from this process's.

    Raises:
        OutOfMemory: the process did not have enough.
        GuidedflowError: the function raised it.
        RuntimeError: it failed for another reason; the message ends with its own last words.
    """
    # A program that is run is called __main__, which no other process could import.
    module = getattr(sys.modules[function.__module__].__spec__, "name", function.__module__)
    program = (
        f"import json, sys; from {module} import {function.__name__} as function; "
        "print(json.dumps(function(*json.loads(sys.argv[1]))))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if process.returncode:
        killed = process.returncode == -signal.SIGKILL  # As the system does when memory runs out.
        words = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        if killed or any(word in process.stderr for word in OUT_OF_MEMORY):
            raise OutOfMemory(words)
        mistake = re.fullmatch(r"guidedflow\.errors\.(\w+): (.*)", words)
        if mistake:
            raise getattr(errors, mistake[1])(mistake[2])
        raise RuntimeError(f"{module}.{function.__name__}: {words}")
    return json.loads(process.stdout.splitlines()[-1])


def say(text: str) -> None:
    """Tell whoever waits what is being measured."""
    print(text, file=sys.stderr)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": available_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("guidedflow", "jax", "mujoco")},
    }


def _version(package: str) -> str | None:
    """None where it is not installed: an accelerator's machine may have JAX alone."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report(settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], markdown: bool = False) -> None:
    """Print the results, one a row; what ``spread`` made reads "median [lowest, highest]".

    Args:
        settings: what all rows have in common; its ``json`` says whether JSON is printed or a table.
        rows: of the same fields.
        markdown: how the table is written.
    """
    settings = dict(settings)
    if settings.pop("json"):
        print(json.dumps({"machine": machine(), "settings": settings, "results": rows}, indent=2, default=str))
        return
    facts = [
        ", ".join(f"{_title(name)} {_text(name, value)}" for name, value in found.items() if value is not None)
        for found in (machine(), settings)
    ]
    titles = {_title(name): isinstance(value, str) for name, value in rows[0].items()}
    cells = [[_text(name, value) for name, value in row.items()] for row in rows]
    show = _print_markdown if markdown else _print_table
    show(facts, titles, cells)


def _print_markdown(facts: Sequence[str], titles: Mapping[str, bool], cells: Sequence[Sequence[str]]) -> None:
    print(*facts, sep="\n\n", end="\n\n")
    rules = ["---" if is_word else "---:" for is_word in titles.values()]
    for row in (list(titles), rules, *cells):
        print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")


def _print_table(facts: Sequence[str], titles: Mapping[str, bool], cells: Sequence[Sequence[str]]) -> None:
    import rich.console
    import rich.table

    console = rich.console.Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for line in facts:
        console.print(line)
    table = rich.table.Table(box=None)
    for title, is_word in titles.items():
        table.add_column(title, justify="left" if is_word else "right")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _title(name: str) -> str:
    return name.removesuffix("_bytes").replace("_per_", "/").replace("_", " ")


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        middle, low, high = (_text(name, number) for number in value.values())
        return f"{middle} [{low}, {high}]"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.0f} MB"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
