"""Helper processes that need neither JAX nor a main guard in the user's script.

Not multiprocessing's: that imports the user's script a second time, which a script or a notebook without
``if __name__ == "__main__"`` does not survive.
"""

import contextlib
import math
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from guidedflow.errors import SettingsError, WorkerDied

LEAST_FILES = 128
LEAST_ADDRESSES = 2_000_000_000


def available_cores() -> int:
    """How many processes can run at once here: the CPUs that this process may use, less what its container forbids.

    The environment variable ``NPROC``, by which XLA's threads are limited, limits this, too.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("NPROC", "")
    limit = int(told) if told.isdecimal() else math.inf
    return max(1, math.ceil(min(cores, cpu_quota(), limit)))


def available_memory(root: Path = Path("/")) -> float:
    """Bytes that can still be had here, swap included; infinity where that is not told.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    found = [math.inf]
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes = {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        found.append(sizes["MemAvailable"] + sizes["SwapFree"])
    old = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
    for names in (("memory.max", "memory.current"), old):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number.
            limit, used = (int((root / "sys/fs/cgroup" / name).read_text()) for name in names)
            found.append(limit - used)
    return min(found)


def check_limits() -> None:
    """Raise SettingsError where a shell's limits are so low that libraries abort, or wait for ever, without a word."""
    try:
        import resource
    except ImportError:  # There are none on Windows.
        return
    for number, option, what, least in [
        (resource.RLIMIT_NOFILE, "-n", "open files", LEAST_FILES),
        (resource.RLIMIT_AS, "-v", "bytes of address space", LEAST_ADDRESSES),
    ]:
        allowed = resource.getrlimit(number)[0]
        if allowed != resource.RLIM_INFINITY and allowed < least:
            raise SettingsError(f"ulimit {option}: expected at least {least:,} {what}, found {allowed:,}; raise it")


def cpu_quota(root: Path = Path("/")) -> float:
    """How many CPUs' time Linux gives this process's control groups, which is how containers are limited; or infinity.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    quotas = [math.inf]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number != "0" and "cpu" not in controllers.split(","):
                continue
            is_v2 = number == "0"
            top = root / "sys/fs/cgroup" if is_v2 else root / "sys/fs/cgroup/cpu"
            files = ["cpu.max"] if is_v2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            # Inside a container the path may be the host's, which is not there: its top level always is.
            folder = top / path.lstrip("/")
            quotas += [_quota(level, files) for level in (folder, *folder.parents) if level.is_relative_to(top)]
    return min(quotas)


def _quota(folder: Path, files: Sequence[str]) -> float:
    try:
        quota, period = " ".join((folder / name).read_text() for name in files).split()
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number, -1 no quota.
        return math.inf


class RemoteTraceback(Exception):
    """Where in a helper process an exception was raised; shown as the cause of what ``receive`` raises."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Failure(NamedTuple):
    """What was raised in a helper, as it travels."""

    packed: bytes | None
    """The exception, pickled; None: it cannot be."""
    text: str
    """Its traceback."""

    @classmethod
    def of(cls, error: Exception) -> "_Failure":
        """To be made while the exception is handled."""
        import cloudpickle  # An exception's class may be one of a script's.

        text = traceback.format_exc()
        try:
            packed = cloudpickle.dumps(error)
            pickle.loads(packed)
        except Exception:  # Whatever pickling an object of others may raise.
            return cls(None, text)
        return cls(packed, text)

    def restored(self) -> Exception:
        """The exception, to be raised here."""
        try:
            error = None if self.packed is None else pickle.loads(self.packed)
        except Exception:  # As above: its class may not be found here.
            error = None
        if not isinstance(error, Exception):
            return RuntimeError(f"a helper process failed:\n{self.text}")
        error.__cause__ = RemoteTraceback(self.text)
        return error


class HelperProcess:
    """A process that runs ``serve(ask, *arguments)``, where ``ask(answer)`` gives an answer and waits for a question.

    Args:
        serve: a function at the top of an importable module; ``ask`` raises ``NobodyAsks`` when the other end is gone.
        arguments: its other arguments.
        gl_backend: the OpenGL backend that MuJoCo uses in it; None: none, and none is needed.
    """

    def __init__(self, serve: Callable[..., Any], *arguments: Any, gl_backend: str | None = None):
        ours, theirs = socket.socketpair()
        with theirs:
            program = f"from guidedflow.processes import _main; _main({theirs.fileno()})"
            environment = {**os.environ, "MUJOCO_GL": gl_backend or "disabled", "OMP_NUM_THREADS": "1"}
            environment.pop("PYOPENGL_PLATFORM", None)  # It would contradict the backend chosen here.
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program],
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd=tempfile.gettempdir(),  # MuJoCo leaves its log where it runs.
                start_new_session=True,  # Ctrl-C reaches the parent alone, which decides what becomes of its helpers.
            )
        self._connection = Connection(ours.detach())
        self.send((serve, arguments))

    def send(self, question: Any) -> None:
        """Put a question; does not wait."""
        with contextlib.suppress(OSError):  # If the helper is gone, what it said last can still be received.
            self._connection.send(question)

    def receive(self) -> Any:
        """Wait for an answer.

        Raises:
            Exception: whatever the helper raised, with its traceback there as the cause; RuntimeError with that
                traceback in place of an exception that cannot travel between processes.
            WorkerDied: the helper is gone.
        """
        try:
            answer, failure = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise WorkerDied(f"a helper process ended unexpectedly, exit code {code}") from None
        if failure is not None:
            raise failure.restored()
        return answer

    def close(self) -> None:
        """End the process: it returns when nobody is left to talk to."""
        self._connection.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def answered(helpers: Sequence[HelperProcess]) -> list[HelperProcess]:
    """Wait until some of the helpers have an answer to be received, and return those."""
    ready = wait([helper._connection for helper in helpers])
    return [helper for helper in helpers if helper._connection in ready]


class NobodyAsks(Exception):
    """In a helper: the process that started it has closed the connection, or ended."""


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise NobodyAsks from error


def _main(file_descriptor: int) -> None:
    connection = Connection(file_descriptor)

    def ask(answer: Any) -> Any:
        with _talking():
            connection.send((answer, None))
            return connection.recv()

    try:
        with _talking():
            serve, arguments = connection.recv()
        serve(ask, *arguments)
    except NobodyAsks:
        pass
    except Exception as error:
        connection.send((None, _Failure.of(error)))
    # Not by returning: OpenGL contexts that are torn down with the interpreter write tracebacks.
    connection.close()
    os._exit(0)
