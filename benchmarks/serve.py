"""How long clients of a served policy wait for an action, when many robots ask at their own rate.

    python -m benchmarks.serve RUN
    python -m benchmarks.serve RUN --clients 10 --rate 100

RUN is a run's folder or an exported policy's. The server is one process, the clients another; both run on this machine
and share its cores. ``server_ms_per_answer`` is processor time, to which other programs add nothing. ``late`` is the
share of answers that came after the client's next action was due.
"""

import asyncio
import dataclasses
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from tyro.conf import Positional

from benchmarks.common import parse, report, run
from guidedflow.errors import RunError
from guidedflow.settings import Count


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure a served policy."""

    run: Positional[Path]
    """The run's folder, or an exported policy's."""
    clients: Count = 50
    """Robots."""
    rate: Count = 50
    """Actions a second that each asks for."""
    seconds: Count = 10
    """How long."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    command = [sys.executable, "-m", "guidedflow", "serve", str(arguments.run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith("serving at "):
                raise RunError(f"{arguments.run}: expected a policy that can be served, found another")
            before, began = processor_seconds(server.pid), time.perf_counter()
            waited = asyncio.run(ask_all(line.removeprefix("serving at ").strip(), arguments))
            spent, elapsed = processor_seconds(server.pid) - before, time.perf_counter() - began
        finally:
            server.terminate()
    p50, p99 = np.percentile(waited, (50, 99)) * 1e3
    row = {
        "answers_per_second": len(waited) / elapsed,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "server_ms_per_answer": spent / len(waited) * 1e3,
        "late": float(np.mean(np.array(waited) > 1 / arguments.rate)),
    }
    report(vars(arguments), [row], markdown=True)


def processor_seconds(process: int) -> float:
    """What a process has used so far; NaN where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask_all(address: str, arguments: Arguments) -> list[float]:
    """Seconds of all answers."""
    clients = [ask(address, arguments, number / arguments.clients) for number in range(arguments.clients)]
    return [waited for one in await asyncio.gather(*clients) for waited in one]


async def ask(address: str, arguments: Arguments, phase: float) -> list[float]:
    """Seconds that one client waited for each of its answers."""
    from websockets.asyncio.client import connect

    waited = []
    async with connect(address, compression=None) as client:
        message = msgpack.packb(zeros(msgpack.unpackb(await client.recv())))
        due = time.perf_counter() + 0.5 + phase / arguments.rate
        for _ in range(arguments.seconds * arguments.rate):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            await client.send(message)
            answer = await client.recv()
            waited.append(time.perf_counter() - began)
            if isinstance(answer, str):
                raise RunError(f"{arguments.run}: expected an action, found: {answer}")
            due = max(due + 1 / arguments.rate, time.perf_counter())
    return waited


def zeros(facts: dict[str, Any]) -> dict[str, Any]:
    """An observation of zeros, as openpi's client packs it."""
    dtype = np.dtype(facts["dtype"])
    return {
        name: {b"__ndarray__": True, b"data": np.zeros(shape, dtype).tobytes(), b"dtype": dtype.str, b"shape": shape}
        for name, shape in facts["observation"].items()
    }


if __name__ == "__main__":
    run(main)
