"""Helper processes that need neither JAX nor a main guard in the user's script.

Not multiprocessing's: that imports the user's script a second time, which a script or a notebook without
``if __name__ == "__main__"`` does not survive.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from guidedflow.errors import UserError


def available_cores() -> int:
    """How many processes can run at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class HelperDied(RuntimeError):
    """A helper process ended without a word: killed, for instance because memory ran out."""


class HelperProcess:
    """A process that runs ``serve(ask, *arguments)``, where ``ask(answer)`` gives an answer and waits for a question.

    Args:
        serve: a function at the top of an importable module; ``ask`` raises EOFError when nobody asks any more.
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
            UserError, OSError: the helper raised it.
            HelperDied: it is gone.
            RuntimeError: it raised something else; the message holds its own words.
        """
        try:
            answer, error = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise HelperDied(f"a helper process ended unexpectedly, exit code {code}") from None
        if isinstance(error, Exception):
            raise error
        if error is not None:
            raise RuntimeError(f"a helper process failed:\n{error}")
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


def _main(file_descriptor: int) -> None:
    connection = Connection(file_descriptor)

    def ask(answer: Any) -> Any:
        connection.send((answer, None))
        return connection.recv()

    try:
        serve, arguments = connection.recv()
        serve(ask, *arguments)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # Nobody is left to talk to.
    except (UserError, OSError) as error:
        connection.send((None, error))
    except Exception:
        connection.send((None, traceback.format_exc()))
    # Not by returning: OpenGL contexts that are torn down with the interpreter write tracebacks.
    connection.close()
    os._exit(0)
