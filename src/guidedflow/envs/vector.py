"""Many environments in a few worker processes, stepped in lockstep.

The number of environments (slots) is fixed by the caller and the number of workers only divides them, so whoever acts
on all slots at once sees the same numbers for any number of workers.
"""

import contextlib
import ctypes
import gc
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from guidedflow.errors import DataError, SettingsError
from guidedflow.processes import HelperProcess

if TYPE_CHECKING:
    import gymnasium

    from guidedflow.types import Spec

SUCCESS = ("success", "is_success")
"""Where an environment's info says whether its goal is reached."""


class Reset(NamedTuple):
    """Start the episode of a seed, with a picture of every state if it is to be filmed."""

    seed: int
    film: bool = False


Command = Reset | np.ndarray | None
"""What a slot does next: start an episode, step with an action, or nothing."""


class Outcome(NamedTuple):
    """What a slot saw after its command. ``success`` is NaN where the environment does not speak of success."""

    observation: np.ndarray | dict[str, np.ndarray]
    """float32, or uint8 if the environment's is; dictionaries as networks see them."""
    reward: float
    terminated: bool
    truncated: bool
    success: float
    frame: np.ndarray | None


class VectorEnv:
    """``slots`` environments of one kind in ``workers`` processes.

    Args:
        make_env: makes one; it is called in the workers, with nothing. A function of a script or a notebook will do.
        slots: how many.
        workers: among how many processes they are divided; never more than slots.
        gl_backend: OpenGL backend (``egl`` or ``osmesa``) for filming and for pixel tasks; None: nothing is drawn.
        spec: of the data, which says what networks see of dictionary observations; None: they are no dictionaries.
    """

    def __init__(
        self,
        make_env: "Callable[[], gymnasium.Env]",
        *,
        slots: int,
        workers: int,
        gl_backend: str | None = None,
        spec: "Spec | None" = None,
    ):
        import cloudpickle

        self.slots = slots
        workers = min(workers, slots)
        self._owners = np.arange(slots) % workers
        made, shares = cloudpickle.dumps(make_env), np.bincount(self._owners).tolist()
        dictionaries = spec if spec is not None and spec.observation_keys else None
        self._workers = [HelperProcess(_serve, made, share, dictionaries, gl_backend=gl_backend) for share in shares]
        self._are_made = False  # Making them takes seconds, in which the caller has other things to do.

    def wait_until_ready(self) -> None:
        """Wait until every environment is made.

        Raises:
            Exception: what an environment raised while it was made.
            WorkerDied: its process ended.
        """
        if not self._are_made:
            for worker in self._workers:
                worker.receive()
            self._are_made = True

    def exchange(self, commands: Sequence[Command]) -> list[Outcome | None]:
        """Give every slot its command and wait for what all of them saw; None for slots that did nothing.

        Raises:
            Exception: what an environment itself raised, with the worker's traceback as its cause. All that is left to
                do then is ``close``.
            WorkerDied: a worker's process ended.
        """
        self.wait_until_ready()
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


def _serve(ask: Callable[[Any], Any], made: bytes, slots: int, spec: "Spec | None") -> None:
    make_env = pickle.loads(made)
    envs = []
    for _ in range(slots):
        envs.append(_Slot(make_env(), spec))
        _return_memory()
    outcomes: list[Outcome | None] = []
    while True:
        commands = ask(outcomes)
        outcomes = [env.follow(command) for env, command in zip(envs, commands, strict=True)]


def _return_memory() -> None:
    """Give back what compiling a model needed: MuJoCo's cache of meshes, and what the C library holds on to."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is None:
        return
    with contextlib.suppress(AttributeError):  # Older releases of MuJoCo have no cache, other C libraries no trim.
        mujoco.mj_clearCache(mujoco.mj_getCache())
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class _Slot:
    def __init__(self, env: "gymnasium.Env", spec: "Spec | None"):
        self._env = env
        self._spec = spec
        self._film = False

    def follow(self, command: Command) -> Outcome | None:
        if command is None:
            return None
        if isinstance(command, Reset):
            self._film = command.film
            seen, _ = self._env.reset(seed=command.seed)
            reward, terminated, truncated, success = 0.0, False, False, float("nan")
        else:
            seen, gained, terminated, truncated, info = self._env.step(command)
            reward = float(gained)
            success = next((float(info[name]) for name in SUCCESS if name in info), float("nan"))
        frame = self._picture() if self._film else None
        return Outcome(self._seen(seen), reward, bool(terminated), bool(truncated), success, frame)

    def _seen(self, seen: Any) -> np.ndarray | dict[str, np.ndarray]:
        if isinstance(seen, Mapping):
            if self._spec is None:
                raise DataError(f"observation: expected an array, found a dictionary of {', '.join(map(str, seen))}")
            return self._spec.from_environment(seen, "observation")
        array = np.asarray(seen)
        return array if array.dtype == np.uint8 else array.astype(np.float32)

    def _picture(self) -> np.ndarray:
        frame = np.asarray(self._env.render())
        if frame.ndim != 3 or frame.dtype != np.uint8:
            mode = self._env.render_mode
            raise SettingsError(
                f"videos: expected the environment to draw pictures (height, width, 3), found {frame.dtype} of shape "
                f"{frame.shape}; make it with render_mode='rgb_array' (its render_mode is {mode!r})"
            )
        return frame
