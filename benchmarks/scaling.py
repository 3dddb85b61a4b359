"""How the rate of training scales: with the seeds that train at once, the data, the networks, the batch.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --axes seeds --values 1 2 4 8

Every value is measured as ``benchmarks.update`` does, in a process of its own. ``host_peak_bytes`` is the most that
the process ever held (Linux), JAX's own 200 MB or so among it; ``device_peak_bytes`` the most on an accelerator. Where
memory runs out, the row says so and the next value follows.
"""

import dataclasses
from typing import Any, Literal

from benchmarks.common import OutOfMemory, apart, parse, report, run, say
from benchmarks.update import Setup
from guidedflow.errors import SettingsError
from guidedflow.settings import Count, Sizes

Axis = Literal["seeds", "rows", "width", "batch_size"]
VALUES: dict[Axis, tuple[int, ...]] = {
    "seeds": (1, 2, 4, 8, 16, 32),
    "rows": (10_000, 100_000, 1_000_000),
    "width": (64, 128, 256, 512, 1024),
    "batch_size": (64, 256, 1024, 4096),
}
MEASURED = (
    "seed_updates_per_second",
    "updates_per_second",
    "gflops",
    "fraction_of_floor",
    "compile_seconds",
    "host_peak_bytes",
    "device_peak_bytes",
)


@dataclasses.dataclass(frozen=True)
class Arguments(Setup):
    """Measure how update rates scale; what is not varied is as the options say."""

    hidden: Sizes = (256, 256, 256)
    chunk: Count = 10
    repeats: Count = 5
    agent: str = "gfp"
    """Name of the agent."""
    axes: tuple[Axis, ...] = tuple(VALUES)
    """What is varied: seeds, rows of data, width of every hidden layer, transitions a batch."""
    values: tuple[Count, ...] | None = None
    """Values of the one axis; None: a range for each."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    if arguments.values is not None and len(arguments.axes) != 1:
        raise SettingsError(f"values: expected one axis with them, found {' '.join(arguments.axes)}")
    setup = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Setup)}
    rows, devices = [], set[str]()
    for axis in arguments.axes:
        for value in arguments.values or VALUES[axis]:
            say(f"{axis} {value:,}")
            varied = {"hidden": [value] * len(arguments.hidden)} if axis == "width" else {axis: value}
            try:
                found, error = apart(measure, arguments.agent, {**setup, **varied}), None
            except OutOfMemory as problem:
                found, error = {}, f"out of memory: {problem}"
            rows.append({"axis": axis, "value": value, **{name: found.get(name) for name in MEASURED}, "error": error})
            devices |= {found["device"]} if found else set()
    report({"device": " ".join(devices), "agent": arguments.agent, **setup, "json": arguments.json}, rows)


def measure(agent: str, setup: dict[str, Any]) -> dict[str, Any]:
    import jax

    from benchmarks import update
    from benchmarks.memory import own

    (found,) = update.measure(agent, Setup(**{**setup, "hidden": tuple(setup["hidden"])}), ["default"])
    device = jax.devices()[0]
    on_device = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {**found, "host_peak_bytes": own("VmHWM"), "device_peak_bytes": on_device, "device": device.device_kind}


if __name__ == "__main__":
    run(main)
