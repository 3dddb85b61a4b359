"""Many environments in a few worker processes, stepped in lockstep.

The number of environments (slots) is fixed by the caller and the number of workers only divides them, so whoever acts
on all slots at once sees the same numbers for any number of workers.
"""

import contextlib
import ctypes
import gc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import gymnasium
import numpy as np

from guidedflow.processes import HelperProcess
from guidedflow.suites import Task
from guidedflow.suites.make import make_env


class Reset(NamedTuple):
    """Start the episode of a seed, with a picture of every state if it is to be filmed."""

    seed: int
    film: bool = False


Command = Reset | np.ndarray | None
"""What a slot does next: start an episode, step with an action, or nothing."""


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
        gl_backend: OpenGL backend (``egl`` or ``osmesa``) for filming and for pixel tasks; None: nothing is drawn.
        options: passed on to ``make_env``.
    """

    def __init__(self, task: Task, *, slots: int, workers: int, gl_backend: str | None = None, **options: Any):
        self.slots = slots
        workers = min(workers, slots)
        self._owners = np.arange(slots) % workers
        shares = np.bincount(self._owners).tolist()
        self._workers = [HelperProcess(_serve, task, share, options, gl_backend=gl_backend) for share in shares]
        self._are_made = False  # Making them takes seconds, in which the caller has other things to do.

    def exchange(self, commands: Sequence[Command]) -> list[Outcome | None]:
        """Give every slot its command and wait for what all of them saw; None for slots that did nothing.

        Raises:
            RuntimeError: an environment raised, or its process died; the message holds its own words.
        """
        if not self._are_made:
            for worker in self._workers:
                worker.receive()
            self._are_made = True
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


def _serve(ask: Callable[[Any], Any], task: Task, slots: int, options: dict[str, Any]) -> None:
    envs = []
    for _ in range(slots):
        envs.append(_Slot(make_env(task, **options)))
        _return_memory()
    outcomes: list[Outcome | None] = []
    while True:
        commands = ask(outcomes)
        outcomes = [env.obey(command) for env, command in zip(envs, commands, strict=True)]


def _return_memory() -> None:
    """Give back what compiling a model needed: MuJoCo's cache of meshes, and what the C library holds on to."""
    import mujoco  # Not above: the trainer imports this module, and needs no MuJoCo.

    with contextlib.suppress(AttributeError):  # Older releases of MuJoCo have no cache, other C libraries no trim.
        mujoco.mj_clearCache(mujoco.mj_getCache())
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class _Slot:
    def __init__(self, env: gymnasium.Env):
        self._env = env
        self._film = False

    def obey(self, command: Command) -> Outcome | None:
        if command is None:
            return None
        if isinstance(command, Reset):
            self._film = command.film
            observation, _ = self._env.reset(seed=command.seed)
            reward, terminated, truncated, success = 0.0, False, False, float("nan")
        else:
            observation, gained, terminated, truncated, info = self._env.step(command)
            reward, success = float(gained), float(info.get("success", "nan"))
        frame = np.asarray(self._env.render()) if self._film else None
        if observation.dtype != np.uint8:
            observation = observation.astype(np.float32)
        return Outcome(observation, reward, bool(terminated), bool(truncated), success, frame)
