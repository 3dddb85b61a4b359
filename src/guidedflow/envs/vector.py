"""Many environments in a few worker processes, stepped in lockstep.

The number of environments (slots) is fixed by the caller and the number of workers only divides them, so whoever acts
on all slots at once sees the same numbers for any number of workers.
"""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

import gymnasium
import numpy as np

from guidedflow.envs.make import make_env
from guidedflow.tasks import Task

Command = int | np.ndarray | None
"""What a slot does next: reset with a seed, step with an action, or nothing."""


class Outcome(NamedTuple):
    """What a slot saw after its command. ``success`` is NaN where the environment does not speak of success."""

    observation: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    success: float
    frame: np.ndarray | None


class VectorEnv:
    """``slots`` environments of one task in ``workers`` processes.

    Args:
        task: the task whose environments are made.
        slots: how many.
        workers: among how many processes they are divided; never more than slots.
        gl_backend: OpenGL backend for rendering (``egl`` or ``osmesa``); None renders nothing and needs no OpenGL.
        options: passed on to ``make_env``.
    """

    def __init__(self, task: Task, *, slots: int, workers: int, gl_backend: str | None = None, **options: Any):
        self.slots = slots
        self._owners = np.arange(slots) % min(workers, slots)
        self._workers = [
            _Worker((task, int((self._owners == i).sum()), gl_backend is not None, options), gl_backend)
            for i in range(min(workers, slots))
        ]

    def exchange(self, commands: Sequence[Command]) -> list[Outcome | None]:
        """Give every slot its command and wait for what all of them saw; None for slots that did nothing.

        Raises:
            RuntimeError: an environment raised, or its process died; the message holds the worker's own words.
        """
        for i, worker in enumerate(self._workers):
            worker.send([command for command, owner in zip(commands, self._owners, strict=True) if owner == i])
        answers = [iter(worker.receive()) for worker in self._workers]
        return [next(answers[owner]) for owner in self._owners]

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def available_cores() -> int:
    """How many processes can run at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """The parent's end of one worker process.

    A process of its own rather than multiprocessing's: that one imports the user's script a second time, which a
    script or notebook without a main guard does not survive.
    """

    def __init__(self, job: tuple[Any, ...], gl_backend: str | None):
        ours, theirs = socket.socketpair()
        with theirs:
            # Not with -m: this module would then be imported twice, and its classes be strangers to each other.
            program = f"from guidedflow.envs.vector import _serve; _serve({theirs.fileno()})"
            command = [sys.executable, "-c", program]
            environment = {**os.environ, "MUJOCO_GL": gl_backend or "disabled", "OMP_NUM_THREADS": "1"}
            environment.pop("PYOPENGL_PLATFORM", None)  # It would contradict the backend chosen here.
            # Its own session: Ctrl-C reaches the parent alone, which decides what becomes of its workers.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True
            )
        self._connection = Connection(ours.detach())
        self._connection.send(job)

    def send(self, commands: list[Command]) -> None:
        try:
            self._connection.send(commands)
        except OSError:
            pass  # The worker is gone; what it said last is still there to be received.

    def receive(self) -> list[Outcome | None]:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise RuntimeError(f"an environment's process ended unexpectedly, exit code {code}") from None
        if isinstance(answer, str):
            raise RuntimeError(f"an environment failed:\n{answer}")
        return answer

    def close(self) -> None:
        self._connection.close()  # The worker's loop ends when nobody is left to talk to.
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _serve(file_descriptor: int) -> None:
    connection = Connection(file_descriptor)
    task, slots, render, options = connection.recv()
    try:
        envs = [make_env(task, **options) for _ in range(slots)]
        while True:
            commands = connection.recv()
            connection.send([_obey(env, command, render) for env, command in zip(envs, commands, strict=True)])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        connection.send(traceback.format_exc())


def _obey(env: gymnasium.Env, command: Command, render: bool) -> Outcome | None:
    if command is None:
        return None
    if isinstance(command, int):
        observation, _ = env.reset(seed=command)
        reward, terminated, truncated, success = 0.0, False, False, float("nan")
    else:
        observation, gained, terminated, truncated, info = env.step(command)
        reward, success = float(gained), float(info.get("success", "nan"))
    frame = np.asarray(env.render()) if render else None
    if observation.dtype != np.uint8:
        observation = observation.astype(np.float32)
    return Outcome(observation, reward, bool(terminated), bool(truncated), success, frame)

