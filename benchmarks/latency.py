"""How long a trained policy takes to act on one core, exported and in JAX, and how exactly the two agree.

    python -m benchmarks.latency

Of every policy of every agent, for one observation at a time: a run of one step is exported, and each figure is taken
in a process of its own, actions on one core. ``start`` is from starting Python to the first action; ``export`` has the
import of its libraries in it. ``CPU`` is the processor's time, to which other programs on the machine add nothing.
"""

import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np

import guidedflow
from benchmarks.common import apart, elapsed, parse, report, run, say
from guidedflow.agents import AGENTS, find_agent
from guidedflow.settings import Count, Range, Sizes

WARM_UP = 100
START = """
import sys, numpy as np, guidedflow as gf
policy = gf.load_policy(sys.argv[1], sys.argv[2])
policy(np.zeros(policy.spec.observation_shape))
"""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the first and all further actions of exported policies."""

    agents: tuple[str, ...] = tuple(AGENTS)
    """Algorithms."""
    hidden: Sizes = (512, 512, 512, 512)
    """Hidden layer sizes."""
    observation_size: Count = 28
    """Numbers in an observation."""
    action_size: Count = 5
    """Numbers in an action."""
    calls: Annotated[int, Range(100, 10**7)] = 5000
    """Actions that are timed."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for agent in arguments.agents:
            path = train(agent, arguments, Path(folder))
            for policy in find_agent(agent).policy_names:
                say(f"{agent}, {policy}")
                rows.append(measure(agent, policy, path, arguments.calls))
    settings = {name: value for name, value in vars(arguments).items() if name != "agents"}
    report(settings, rows, markdown=True)


def train(agent: str, arguments: Arguments, folder: Path) -> Path:
    """A run of one step."""
    rng, n = np.random.default_rng(0), 100
    dataset = guidedflow.Dataset.from_arrays(
        observations=rng.normal(size=(n, arguments.observation_size)),
        actions=rng.uniform(-1, 1, (n, arguments.action_size)),
        rewards=rng.normal(size=n),
        terminals=np.zeros(n, bool),
        timeouts=np.arange(1, n + 1) % 10 == 0,
    )
    settings = {"steps": 1, "log_every": 1, "eval_every": 1, "save_every": 1, "hidden": arguments.hidden}
    options = {"dataset": dataset, "agent": agent, "run_dir": folder / agent, "progress": False}
    return guidedflow.train(**options, **settings).path


def measure(agent: str, policy: str, path: Path, calls: int) -> dict[str, object]:
    """One row."""
    out = path.parent / f"{agent}-{policy}"
    made = apart(export, str(path), str(out), policy)
    onnx, jax = (apart(act, str(where), policy, calls) for where in (out, path))
    return {
        "agent": agent,
        "policy": policy,
        **{f"{form}_ms": value for form, value in zip(("ONNX_p50", "ONNX_p99", "ONNX_CPU_p99"), onnx, strict=True)},
        **{f"{form}_ms": value for form, value in zip(("JAX_p50", "JAX_p99", "JAX_CPU_p99"), jax, strict=True)},
        "ONNX_start_s": start(out, policy),
        "JAX_start_s": start(path, policy),
        "export_s": made[0],
        "file_bytes": (out / "policy.onnx").stat().st_size,
        "largest_difference": f"{made[1]:.1e}",
    }


def export(path: str, out: str, policy: str) -> tuple[float, float]:
    """Seconds, and the largest difference that the export found."""
    began = time.perf_counter()
    found = guidedflow.export(path, out, policy)
    return time.perf_counter() - began, found.largest_difference


def start(path: Path, policy: str) -> float:
    """Seconds from starting Python to the first action."""
    command = [sys.executable, "-c", START, str(path), policy]
    return elapsed(lambda: subprocess.run(command, check=True))


def act(path: str, policy: str, calls: int) -> tuple[float, float, float]:
    """Milliseconds of an action: median, 99th percentile, and that of the time that the processor spent on it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    loaded = guidedflow.load_policy(path, policy)
    observations = np.random.default_rng(0).normal(size=(WARM_UP + calls, *loaded.spec.observation_shape))
    seconds, spent = [], []
    for observation in observations:
        before = time.process_time()
        seconds.append(elapsed(functools.partial(loaded, observation)))
        spent.append(time.process_time() - before)
    p50, p99 = np.percentile(seconds[WARM_UP:], (50, 99)) * 1e3
    return float(p50), float(p99), float(np.percentile(spent[WARM_UP:], 99) * 1e3)


if __name__ == "__main__":
    run(main)
