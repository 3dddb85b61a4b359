"""What the areas share: verdicts, the data and the training of every case, commands and calls within limits."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from guidedflow.errors import GuidedflowError

Outcome = Literal["clean", "unprotected", "dirty"]
HANG_SECONDS = 120.0
"""After which a command, or a call, is taken to hang."""
CALL_BYTES = 4_000_000_000
"""Address space that a call may use beyond that of its process before."""
TRAINING = (
    *("--agent", "fql", "--preset", "quick", "--hidden", "8", "--flow-steps", "1", "--batch-size", "8"),
    *("--steps", "40", "--log-every", "10", "--save-every", "20", "--eval-every", "20", "--eval-episodes", "1"),
    *("--workers", "1"),
)


class Verdict(NamedTuple):
    """What came of a case."""

    outcome: Outcome
    """``unprotected``: content changed without an error, in a file that has no checksums by its format."""
    what: str
    """The fault, and what was found."""


class Area(Protocol):
    """A kind of fault. A case is decided by its number and generator alone, so that it can be repeated."""

    total: int
    """Cases of the whole campaign."""
    quick: int
    """Cases of the quick one."""

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Make the fault of a number, and judge what comes of it."""

    def close(self) -> None:
        """Let go of processes and mounts."""


class Done(NamedTuple):
    """How a command ended."""

    code: int | None
    """None: it hung and was killed."""
    error: str
    """Its standard error."""

    def refusal(self) -> str | None:
        """What is wrong with it as the refusal of a fault; None: nothing, it is one line and exit code 2."""
        lines = self.error.splitlines()
        # Progress and notices come before; the last line is the error.
        told = [line for line in lines if line.startswith("guidedflow: error: ")]
        if self.code is None:
            return "it hung"
        if "Traceback" in self.error:
            return f"exit code {self.code}, a traceback: {lines[-1][:200]}"
        if self.code != 2 or len(told) != 1 or lines[-1] != told[0]:
            return f"exit code {self.code}, standard error ends in {' | '.join(lines[-3:])[:300]!r}"
        return None

    def failure(self) -> str | None:
        """What is wrong with it as a success."""
        if self.code == 0 and "Traceback" not in self.error:
            return None
        return f"exit code {self.code}, standard error ends in {' | '.join(self.error.splitlines()[-3:])[:300]!r}"


def command(*words: Any, fault: dict[str, Any] | None = None, folder: Path) -> Done:
    """Run ``guidedflow`` in a process group of its own, and wait for its end.

    Args:
        words: of the command line.
        fault: see ``benchmarks.faults.child``.
        folder: where it runs and where its standard error is kept.
    """
    program = [sys.executable, "-m", "benchmarks.faults.child", json.dumps(fault or {}), *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with (folder / "stderr").open("w+b") as error:
        process = subprocess.Popen(
            program, stdout=subprocess.DEVNULL, stderr=error, cwd=folder, env=environment, start_new_session=True
        )
        try:
            code: int | None = process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        error.seek(0)
        return Done(code, error.read().decode(errors="replace"))


class Answer(NamedTuple):
    """What a call gave."""

    kind: Literal["value", "error", "other", "hang", "died"]
    """``error``: one of the library's, or what the command line tells in one line; ``other``: any other exception."""
    value: Any
    """The value, or the error's words."""

    def refusal(self, name: str) -> str | None:
        """What is wrong with it as a refusal that names a file; None: nothing."""
        if self.kind != "error":
            return f"{self.kind}: {self.value}"[:300]
        if "\n" in self.value or name not in self.value:
            return f"expected one line that names {name}, found {self.value[:300]!r}"
        return None


class Worker:
    """A process for calls, one at a time and each within limits; a new one takes over where one hung or died."""

    def __init__(self) -> None:
        self._start()

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float = HANG_SECONDS) -> Answer:
        """Call a function at the top of a module."""
        try:
            self._connection.send((function, arguments))
            if not self._connection.poll(seconds):
                self.close()
                self._start()
                return Answer("hang", f"no answer within {seconds:.0f} s")
            return self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._start()
            return Answer("died", f"exit code {code}")

    def value(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a call returns that must not fail."""
        answer = self.call(function, *arguments)
        if answer.kind != "value":
            raise RuntimeError(f"{function.__name__}: {answer.kind}: {answer.value}")
        return answer.value

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()


def _serve(connection: Connection) -> None:
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    import jax

    jax.devices()  # The address space that it takes is not a call's.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + CALL_BYTES
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        with _at_most(resource.RLIMIT_AS, limit):
            answer = _answer(function, arguments)
        connection.send(answer)


def _answer(function: Callable[..., Any], arguments: Sequence[Any]) -> Answer:
    try:
        return Answer("value", function(*arguments))
    except GuidedflowError as error:
        return Answer("error", str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # As the command line tells it.
            return Answer("error", f"{error.filename}: {error.strerror}")
        return Answer("other", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])


@contextlib.contextmanager
def _at_most(kind: int, limit: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


# --------------------------------------------------------------------------------------------------- data and runs


def own_arrays() -> dict[str, np.ndarray]:
    """Eight episodes such as Pendulum-v1 gives, of random numbers."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((400, 3), np.float32),
        "actions": rng.uniform(-2, 2, (400, 1)).astype(np.float32),
        "rewards": rng.standard_normal(400, np.float32),
        "terminals": np.zeros(400, bool),
        "timeouts": np.arange(1, 401) % 50 == 0,
    }


def write_log(path: Path) -> Path:
    """Data for Pendulum-v1, made once."""
    import guidedflow as gf

    if not path.exists():
        gf.convert(own_arrays(), path, action_range=(-2.0, 2.0))
    return path


def train_words(log: Path, run: Path, *options: str) -> tuple[str, ...]:
    """The command line of a training that takes about four seconds."""
    return ("train", "--env", "Pendulum-v1", "--dataset", str(log), "--run-dir", str(run), *TRAINING, *options)


def run_content(run: Path) -> dict[str, str]:
    """Digests of everything that a run learned and recorded, but for wall-clock times."""
    import jax

    from guidedflow.runs.folder import RunFolder
    from guidedflow.training.restore import SavedRun

    agents, step = SavedRun(run).agents("latest")
    evaluations = run / "evaluations.csv"  # Without an environment there is none.
    timed = ("updates_per_second", "data_wait")
    metrics = [[(k, v) for k, v in row.items() if k not in timed] for row in RunFolder(run).metrics()]
    return {
        "agents": digest(step, *map(np.asarray, jax.tree.leaves(agents))),
        "metrics.jsonl": digest(metrics),
        "evaluations.csv": digest(evaluations.read_bytes() if evaluations.exists() else b""),
    }


def digest(*values: Any) -> str:
    """SHA-256 of arrays, bytes, and whatever ``repr`` tells apart."""
    found = hashlib.sha256()
    for value in values:
        array = isinstance(value, np.ndarray) and value.dtype != object
        found.update(repr((value.dtype, value.shape)).encode() + value.tobytes() if array else repr(value).encode())
    return found.hexdigest()


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder: mode, and content or where a link leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            found[str(path.relative_to(folder))] = mode, os.readlink(path)
        else:
            content = digest(path.read_bytes()) if path.is_file() else ""
            found[str(path.relative_to(folder))] = mode, content
    return found


# ------------------------------------------------------------------------------------------------------- small disks


@contextlib.contextmanager
def mounted(place: Path, size: int) -> Iterator[bool]:
    """A file system of ``size`` bytes in memory; gives whether there is one: that takes root."""
    place.mkdir()
    is_there = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    try:
        yield is_there
    finally:
        if is_there:
            subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


def remount(place: Path, *options: str) -> None:
    """Change a mounted file system: ``size=N`` or ``ro``."""
    if not _mount("-o", ",".join(("remount", *options)), place):
        raise RuntimeError(f"{place}: expected a file system that can be mounted anew")


def _mount(*words: Any) -> bool:
    try:
        return not subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode
    except FileNotFoundError:  # No such program here.
        return False
