"""Any environment of the user's own: a gymnasium id, or a function that makes an environment."""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import math
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from guidedflow.errors import DataError, SettingsError
from guidedflow.opengl import gl_backend
from guidedflow.processes import HelperProcess
from guidedflow.suites.suite import SuccessTiming, Suite, Task

if TYPE_CHECKING:
    import gymnasium

    from guidedflow.types import DictShape, Spec

Maker = Callable[..., "gymnasium.Env"]
"""A function without required arguments that makes an environment; a class of environments is one."""

BARE_ID = re.compile(r"(?:[\w-]+/)?[\w.-]+")
BOUND_TOLERANCE = 1e-4
"""How far a bound of actions may differ, relative to it and absolutely, and count as rounding."""


class Space(NamedTuple):
    """Of one observation, or of one entry of it."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.shape} of {self.dtype}"


@dataclasses.dataclass(frozen=True)
class Spaces:
    """What an environment shows and takes, as plain values."""

    observation: Space | Mapping[str, Space]
    """A mapping: the observation is a dictionary; an entry of a dictionary in it is named by its path, ``a/b``."""
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]


def is_safe_name(name: str) -> bool:
    """Whether a name is a bare gymnasium id, ``Pendulum-v1`` or ``ALE/Pong-v5``: making it imports no named module."""
    return BARE_ID.fullmatch(name) is not None


def environment_task(env: "str | Maker", *, spec: "Spec | None" = None) -> Task:
    """A task made of an environment alone; its score is the mean return.

    The environment is made once in a process of its own, to look at its spaces: what it needs, MuJoCo for instance,
    is not loaded here.

    Args:
        env: a gymnasium id (``Pendulum-v1``, or ``module:Id-v0``, which imports the module first); or a function that
            makes an environment, or its name as text, ``module:function``.
        spec: of the data that is to be trained on, if it is known: where its pictures are of several frames, so are
            the task's.

    Raises:
        SettingsError: there is no such environment, or its spaces are not of a kind that can be learned.
        Exception: whatever the environment itself raises while it is made.
    """
    is_made = hasattr(env, "action_space") and not isinstance(env, type)
    if not isinstance(env, str) and (not callable(env) or is_made):
        raise SettingsError(
            f"env: expected a gymnasium id or a function that makes an environment, found {type(env).__name__}; "
            "several are made, in processes of their own, so an environment itself does not do"
        )
    folder = os.getcwd()
    spaces = _look(env, folder)
    suite = Environment(env, spaces, folder)
    seen, stack = spaces.observation, 1
    shape: tuple[int, ...] | DictShape
    if isinstance(seen, Mapping) and spec is not None and spec.pictures:
        shape, picture = spec.observation_shape, spec.pictures[0]
        if picture in seen and len(seen[picture].shape) == 3:
            stack = max(1, spec.inputs[picture][0][-1] // seen[picture].shape[-1])
    elif isinstance(seen, Mapping):
        keys = spec.observation_keys if spec is not None and spec.observation_keys else None
        chosen = [name for name, _ in keys] if keys else list(seen)
        shape = (sum(math.prod(seen[name].shape) for name in chosen if name in seen),)
    else:
        shape = seen.shape
        wanted = spec.observation_shape if spec is not None else ()
        if isinstance(wanted, tuple) and len(shape) == len(wanted) == 3:
            stack = max(1, wanted[-1] // shape[-1])
            shape = (*shape[:-1], shape[-1] * stack)
    name = env if isinstance(env, str) else _name(env)
    return Task(
        id=name,
        suite=suite,
        category="own environment",
        dataset=name,
        environment=name,
        observation_shape=shape,
        action_size=len(spaces.action_low),
        scored_by="return",
        frame_stack=stack,
    )


class Environment(Suite):
    """One environment of the user's own, as a benchmark of one task without data of its own."""

    name: ClassVar[str] = "gym"

    def __init__(self, env: "str | Maker", spaces: Spaces, folder: str):
        self._env = env
        self._folder = folder
        self.spaces = spaces

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (_packed(self._env), self.spaces, self._folder)

    def tasks(self) -> tuple[Task, ...]:
        """None that could be listed: ``environment_task`` makes the one there is."""
        return ()

    def make_env(self, task: Task, *, success_timing: SuccessTiming = "post", **options: Any) -> "gymnasium.Env":
        """The environment, seeded alone by its reset's seed.

        Options go to gymnasium, or to the user's function as far as it takes them.
        """
        from guidedflow.envs.wrappers import seeded

        return seeded(_make(self._env, self._folder, options), task.frame_stack)

    def find_data(self, task: Task, data_dir: Path | None = None) -> Path:
        """None: an environment brings no data.

        Raises:
            DataError: always.
        """
        raise DataError(f"{task.id}: expected data beside an environment of your own, found none; name it with dataset")

    def has_data(self, task: Task, data_dir: Path | None = None) -> bool:
        """False: an environment brings no data."""
        return False

    def check(self, task: Task, spec: "Spec", source: str) -> None:
        """Compare the environment's spaces with data: shapes, dtypes, entries of dictionaries, range of actions.

        Raises:
            DataError: they differ; in one line, with what to do.
        """
        problem = self._observation_problem(task, spec) or self._action_problem(task, spec)
        if problem is not None:
            raise DataError(f"{source}: {problem}")

    def _observation_problem(self, task: Task, spec: "Spec") -> str | None:
        from guidedflow.types import is_picture

        seen, keys = self.spaces.observation, spec.observation_keys
        if isinstance(seen, Mapping):
            there = ", ".join(f"{name} {space.shape}" for name, space in seen.items())
            if not keys:
                return (
                    f"observations: expected a dictionary's entries, as {task.id} has ({there}), found an array of "
                    f"shape {spec.observation_shape}; make the data from dictionaries with guidedflow data convert, or "
                    "wrap the environment in gymnasium.wrappers.FlattenObservation"
                )
            for name, (shape, dtype) in spec.inputs.items():
                if name not in seen:
                    return f"observations/{name}: expected one of the entries of {task.id} ({there}), found no such"
                found = seen[name].shape
                if name in spec.pictures and len(found) == 3:
                    found = (*found[:-1], found[-1] * task.frame_stack)
                if found != shape:
                    return f"observations/{name}: expected {found}, as {task.id} has, found {shape}"
                if is_picture(found, seen[name].dtype) != (name in spec.pictures):
                    return f"observations/{name}: expected {seen[name].dtype}, as {task.id} has, found {dtype}"
            return None
        if keys:
            names = ", ".join(name for name, _ in keys)
            return (
                f"observations: expected arrays of shape {seen.shape}, as {task.id} has, found a dictionary's entries "
                f"{names}; give an environment that shows the dictionary"
            )
        if spec.observation_shape != task.observation_shape:
            return (
                f"observations: expected {task.observation_shape} a row, as {task.id} has, found "
                f"{spec.observation_shape}"
            )
        pixels = [str(dtype) == "uint8" for dtype in (spec.observation_dtype, seen.dtype)]
        if pixels[0] > pixels[1] or (len(seen.shape) == 3 and pixels[0] != pixels[1]):
            return f"observations: expected {seen.dtype}, as {task.id} has, found {spec.observation_dtype}"
        return None

    def _action_problem(self, task: Task, spec: "Spec") -> str | None:
        low, high = self.spaces.action_low, self.spaces.action_high
        if spec.action_size != len(low):
            return f"actions: expected ({len(low)},) a row, as {task.id} has, found ({spec.action_size},)"
        wanted = f"--action-low {_numbers(low)} --action-high {_numbers(high)}"
        if spec.action_range is None:
            is_unit = all(
                (_close(a, -1.0) and _close(b, 1.0)) or (math.isinf(a) and math.isinf(b))
                for a, b in zip(low, high, strict=True)
            )
            if not is_unit:
                return (
                    f"actions: expected data that says what its [-1, 1] stands for, because {task.id} takes "
                    f"{_numbers(low)} to {_numbers(high)}; convert the environment's own actions with guidedflow data "
                    f"convert {wanted}, or wrap it in gymnasium.wrappers.RescaleAction(env, -1, 1)"
                )
            return None
        for i, (bounds, a, b) in enumerate(zip(zip(*spec.action_range, strict=True), low, high, strict=True)):
            below, above = bounds[0] < a and not _close(bounds[0], a), bounds[1] > b and not _close(bounds[1], b)
            if below or above:
                return (
                    f"actions: expected a range within {a:g} to {b:g} in dimension {i}, as {task.id} has, found "
                    f"{bounds[0]:g} to {bounds[1]:g}; convert the data again with guidedflow data convert {wanted}"
                )
        return None


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=BOUND_TOLERANCE, abs_tol=BOUND_TOLERANCE)


def _numbers(values: tuple[float, ...]) -> str:
    """Numbers as the command line takes them: one, if all are the same."""
    return " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _name(env: Maker) -> str:
    if isinstance(env, functools.partial):
        return f"{_name(env.func)}(...)"  # Without them it would be the name of another environment.
    return f"{getattr(env, '__module__', '?')}:{getattr(env, '__qualname__', type(env).__name__)}"


def _packed(env: "str | Maker") -> bytes:
    """For another process: a function by its name, or, where no other process could import it, as it is."""
    import cloudpickle

    try:
        return cloudpickle.dumps(env)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise SettingsError(f"env: expected a function that worker processes can be given, found: {error}") from error


def _restored(packed: bytes, spaces: Spaces, folder: str) -> Environment:
    return Environment(pickle.loads(packed), spaces, folder)


def _make(env: "str | Maker", folder: str, options: Mapping[str, Any]) -> "gymnasium.Env":
    """The environment; files that it names relative to where the user is are found."""
    import gymnasium

    with contextlib.chdir(folder):
        make = _function(env) if isinstance(env, str) else env
        if make is None:
            try:
                return gymnasium.make(str(env), disable_env_checker=True, **options)
            except gymnasium.error.UnregisteredEnv as error:
                found = " ".join(str(error).split())
                raise SettingsError(
                    f"env: expected a gymnasium id, or module:function, found {env!r}: {found}"
                ) from error
        made = make(**_taken(make, options))
    if not isinstance(made, gymnasium.Env):
        raise SettingsError(f"env: expected {_name(make)} to make a gymnasium.Env, found {type(made).__name__}")
    return made


def _function(name: str) -> Maker | None:
    """The function that ``module:function`` names; None for a gymnasium id, ``module:Id-v0`` included."""
    module, colon, path = name.partition(":")
    if not colon:
        return None
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # The user's module is there, and one that it imports is not.
        raise SettingsError(f"env: expected a module that can be imported before the colon, found {name!r}") from error
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if callable(found) else None


def _taken(make: Maker, options: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(make).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in options.items() if takes_all or name in parameters}


def _look(env: "str | Maker", folder: str) -> Spaces:
    packed = _packed(env)
    try:
        return _looked(packed, folder, os.environ.get("MUJOCO_GL"))
    except SettingsError:
        raise
    except Exception:
        backend = gl_backend()  # Some environments draw while they are made; to look for a backend takes a second.
        if backend is None:
            raise
        return _looked(packed, folder, backend)


def _looked(packed: bytes, folder: str, backend: str | None) -> Spaces:
    helper = HelperProcess(_serve_spaces, packed, folder, gl_backend=backend)
    try:
        return helper.receive()
    finally:
        helper.close()


def _serve_spaces(ask: Callable[[Spaces], None], packed: bytes, folder: str) -> None:
    env = _make(pickle.loads(packed), folder, {})
    try:
        spaces = _spaces(env)
    finally:
        env.close()
    ask(spaces)


def _spaces(env: "gymnasium.Env") -> Spaces:
    from gymnasium.spaces import Box

    seen, acted = env.observation_space, env.action_space
    if not isinstance(acted, Box) or len(acted.shape) != 1 or acted.dtype.kind != "f":
        raise SettingsError(f"env: expected a vector of continuous actions (a Box of floats), found {acted}")
    return Spaces(_observation(seen), tuple(map(float, acted.low)), tuple(map(float, acted.high)))


def _observation(space: Any) -> Space | dict[str, Space]:
    from gymnasium.spaces import Box, Dict

    if isinstance(space, Dict):
        return _entries(space)
    if isinstance(space, Box) and len(space.shape) in (1, 3):
        return Space(space.shape, str(space.dtype))
    raise SettingsError(
        f"env: expected observations that are vectors, pictures or a dictionary, found {space}; "
        "gymnasium.wrappers.FlattenObservation makes them vectors"
    )


def _entries(space: Any, prefix: str = "") -> dict[str, Space]:
    """Those that are arrays of numbers; others cannot be named in data either."""
    found: dict[str, Space] = {}
    for name, entry in space.spaces.items():
        if hasattr(entry, "spaces") and isinstance(entry.spaces, Mapping):
            found |= _entries(entry, f"{prefix}{name}/")
        elif entry.shape is not None and entry.dtype is not None:
            found[f"{prefix}{name}"] = Space(tuple(entry.shape), str(entry.dtype))
    return found
