"""Serves a policy over a websocket, in the protocol of openpi (Physical Intelligence), which its client speaks.

On connecting a client is sent a dictionary of facts. Each of its messages is an observation, a dictionary; each answer
has ``actions`` of shape (1, d), or is text where something was wrong. All are msgpack with arrays as openpi packs them.
"""

import asyncio
import hmac
import http
import importlib.util
import ipaddress
import logging
import math
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guidedflow.deploy.export import export
from guidedflow.deploy.policy import Policy, load_policy
from guidedflow.errors import DataError, GuidedflowError, RunError, SettingsError
from guidedflow.graphs.folder import is_exported
from guidedflow.graphs.hub import local
from guidedflow.types import Spec, Variant, named

if TYPE_CHECKING:
    from guidedflow.agents import Agent

logger = logging.getLogger("guidedflow")

MOST_BYTES = 2**24
"""Of one message."""
CLOSE_SECONDS = 2


def serve(
    run: Path | str,
    policy: str | None = None,
    *,
    seed: int | None = None,
    variant: Variant | Mapping[str, float] | None = None,
    checkpoint: str | int = "latest",
    agent: "str | type[Agent] | None" = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a policy until SIGINT or SIGTERM, to clients of openpi's protocol; ``/healthz`` answers 200.

    Args:
        run: the run's folder, of which a policy is exported for the time being; or one that ``export`` made.
        policy: as in ``load_policy``, like ``seed``, ``variant``, ``checkpoint`` and ``agent``.
        seed: see there.
        variant: see there.
        checkpoint: see there.
        agent: see there.
        host: the address to listen at.
        port: its port; 0: a free one.
        token: what clients have to give as ``api_key``; needed unless ``host`` is this machine's loopback.
        on_ready: called with the address once clients can connect.

    Raises:
        RunError: no such run, or the address is taken.
        SettingsError: no such policy, no token where one is needed, or websockets or msgpack is not installed.
    """
    for package in ("websockets", "msgpack"):
        if importlib.util.find_spec(package) is None:
            raise SettingsError(f"serve: expected the package {package}, found none; pip install 'guidedflow[serve]'")
    if not 0 <= port < 2**16:
        raise SettingsError(f"port: expected one of 0 to 65535, found {port}")
    if not token and not _is_loopback(host):
        raise SettingsError(f"token: expected one, for {host} can be reached from other machines, found none")
    options: dict[str, Any] = {"seed": seed, "variant": variant, "checkpoint": checkpoint}
    run = local(run)
    if is_exported(run):
        loaded = load_policy(run, policy, **options)
    else:  # JAX would compile a program for every number of observations that come together.
        with tempfile.TemporaryDirectory() as folder:
            loaded = load_policy(export(run, Path(folder) / "policy", policy, agent=agent, **options).path)
    try:
        asyncio.run(_listen(loaded, host, port, token, on_ready))
    except OSError as error:
        raise RunError(f"{host}:{port}: expected an address to listen at, found: {error.strerror}") from error


async def _listen(policy: Policy, host: str, port: int, token: str | None, on_ready: Callable[[str], None]) -> None:
    from websockets.asyncio.server import serve as listen

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    options: dict[str, Any] = {"compression": None, "max_size": MOST_BYTES, "close_timeout": CLOSE_SECONDS}

    def admit(connection: Any, request: Any) -> Any:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "ok\n")
        given = request.headers.get("Authorization", "").encode()
        if token and not hmac.compare_digest(given, f"Api-Key {token}".encode()):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "expected the token as api_key\n")
        return None

    answers = _Answers(policy)

    async def attend(connection: Any) -> None:
        await connection.send(_pack(_facts(policy)))
        async for message in connection:
            await connection.send(await answers(message))

    async with listen(attend, host, port, process_request=admit, logger=_quiet(), **options) as server:
        address, number = server.sockets[0].getsockname()[:2]
        on_ready(f"ws://[{address}]:{number}" if ":" in address else f"ws://{address}:{number}")
        await stopped.wait()


class _Answers:
    """Answers messages; those that came while the policy acted are acted on as one batch."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._waiting: list[tuple[dict[str, np.ndarray], asyncio.Future[bytes | str]]] = []

    async def __call__(self, message: bytes | str) -> bytes | str:
        """The packed action, or what is wrong with the message."""
        try:
            observation = _observation(_unpack(message), self._policy.spec)
        except (GuidedflowError, ValueError) as error:
            return str(error)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._act)
        self._waiting.append((observation, loop.create_future()))
        return await self._waiting[-1][1]

    def _act(self) -> None:
        waiting, self._waiting = self._waiting, []
        answers = answers_together(self._policy, [observation for observation, _ in waiting])
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():  # Its client may have left.
                future.set_result(answer)


def answers_together(policy: Policy, observations: Sequence[dict[str, np.ndarray]]) -> list[bytes | str]:
    """The packed action for each observation, or what is wrong with it."""
    try:
        began = time.perf_counter()
        batch = {name: np.stack([one[name] for one in observations]) for name in observations[0]}
        actions = policy(batch if policy.spec.observation_keys else batch["observation"])
        timing = {"infer_ms": (time.perf_counter() - began) * 1e3}
        return [_pack({"actions": action[None], "server_timing": timing}) for action in actions]
    except Exception as error:
        if len(observations) > 1:  # One of them is to blame; the others are answered.
            return [answer for one in observations for answer in answers_together(policy, [one])]
        if isinstance(error, GuidedflowError):
            return [str(error)]
        logger.warning("an observation could not be answered: %r", error)
        return ["the policy failed at this observation; the server's log says why"]


def _observation(message: Any, spec: Spec) -> dict[str, np.ndarray]:
    """The entries that the policy takes.

    Raises:
        DataError: one is missing, or has another shape.
        ValueError: one has no shape.
    """
    if not isinstance(message, dict):
        raise DataError(f"observation: expected a dictionary, found {type(message).__name__}")
    there, entries = named(message), {}
    for name, (shape, _) in spec.inputs.items():
        if name not in there:
            raise DataError(f"observation: expected an entry {name!r}, found {', '.join(map(str, there)) or 'none'}")
        entries[name] = np.asarray(there[name])
        if entries[name].shape != shape:
            raise DataError(f"{name}: expected shape {shape}, found {entries[name].shape}")
    return entries


def _facts(policy: Policy) -> dict[str, Any]:
    inputs = policy.spec.inputs
    dtypes = {name: str(dtype) for name, (_, dtype) in inputs.items()}
    return {
        "policy": policy.name,
        "observation": {name: list(shape) for name, (shape, _) in inputs.items()},
        "dtype": dtypes if policy.spec.pictures else str(policy.spec.observation_dtype),
        "action_size": policy.spec.action_size,
    }


def _pack(message: Mapping[str, Any]) -> bytes:
    import msgpack

    def pack(value: Any) -> Any:
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}

    return msgpack.packb(message, default=pack)


def _unpack(message: bytes | str) -> Any:
    """A message of a client.

    Raises:
        DataError: it is no msgpack, or has arrays of other things than numbers.
    """
    import msgpack

    if isinstance(message, str):
        raise DataError("message: expected msgpack, found text")
    try:
        return msgpack.unpackb(message, object_hook=_array)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"message: expected msgpack of arrays, found: {' '.join(str(error).split())}") from error


def _array(entries: dict[Any, Any]) -> Any:
    """An array or a number, where a dictionary stands for one."""
    if not {b"__ndarray__", b"__npgeneric__"} & entries.keys():
        return entries
    dtype = np.dtype(entries[b"dtype"])
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of {dtype}")
    if b"__npgeneric__" in entries:
        return dtype.type(entries[b"data"])
    shape, data = tuple(entries[b"shape"]), entries[b"data"]
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {shape} and {dtype}")
    return np.frombuffer(data, dtype).reshape(shape)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _quiet() -> logging.Logger:
    """Where websockets tells of clients that broke off: nobody has to read that."""
    quiet = logging.getLogger("guidedflow.serve.websockets")
    quiet.setLevel(logging.CRITICAL)
    return quiet
