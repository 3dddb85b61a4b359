"""A campaign of faults: what a kill, a full disk, a damaged file, a link or a server does to data and runs.

    python -m benchmarks.faults
    python -m benchmarks.faults --quick
    python -m benchmarks.faults --areas kills --only 17

Every case makes one fault and judges what comes of it; docs/reliability.md has the promises. A case is decided by its
area, its number and the seed (but for how fast the machine is). The exit code is 1 if any was dirty; such a case is
printed with the command that repeats it. Ctrl-C ends the campaign with the table of the cases until then.

| column | |
|---|---|
| clean | the promise held: the same content or end as without the fault, or one line that says what is wrong |
| unprotected | other content without an error, of files that have no checksums (HDF5 and Minari of others, records) |
| dirty | anything else: other content, a traceback, a hang, something outside read or written |
"""

import dataclasses
import os
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from benchmarks.common import parse, report, run, say
from benchmarks.faults.common import Area
from benchmarks.faults.disk import FullDisks
from benchmarks.faults.kills import Kills
from benchmarks.faults.limits import Limits
from benchmarks.faults.links import Links
from benchmarks.faults.mutations import Mutations
from benchmarks.faults.server import Servers
from guidedflow.settings import Range

AreaName = Literal["kills", "full disk", "mutations", "links", "limits", "server"]
AREAS: dict[AreaName, Callable[[Path], Area]] = {
    "kills": Kills,
    "full disk": FullDisks,
    "mutations": Mutations,
    "links": Links,
    "limits": Limits,
    "server": Servers,
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Make faults, and judge what comes of them."""

    areas: tuple[AreaName, ...] = tuple(AREAS)
    """Kinds of fault."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """What is drawn at random follows from it."""
    quick: bool = False
    """A few cases of every area: a minute instead of half an hour."""
    only: int | None = None
    """The number of the one case to repeat."""
    json: bool = False
    """Print JSON instead of a table."""


def main() -> None:
    arguments = parse(Arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="guidedflow-faults-", ignore_cleanup_errors=True) as folder:
        # Hundreds of processes run the same few small programs: compiling them would take most of the time.
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for number, name in enumerate(arguments.areas):
            place = Path(folder) / str(number)
            place.mkdir()
            row, is_whole = campaign(name, place, arguments)
            rows.append(row)
            if not is_whole:
                break
    report({"seed": arguments.seed, "quick": arguments.quick, "json": arguments.json}, rows, markdown=True)
    sys.exit(1 if any(row["dirty"] for row in rows) else 0 if is_whole else 130)


def campaign(name: AreaName, folder: Path, arguments: Arguments) -> tuple[dict[str, object], bool]:
    """An area's cases: the row that counts their outcomes, and whether nobody interrupted them."""
    began, counts, is_whole = time.monotonic(), Counter[str](), True
    area = AREAS[name](folder)
    numbers = range(area.quick if arguments.quick else area.total) if arguments.only is None else [arguments.only]
    try:
        for number in numbers:
            rng = np.random.default_rng([arguments.seed, zlib.crc32(name.encode()), number])
            verdict = area.case(number, rng)
            counts[verdict.outcome] += 1
            if verdict.outcome == "dirty" or arguments.only is not None:
                say(f"{name} {number}: {verdict.outcome}: {verdict.what}")
            if verdict.outcome == "dirty":
                say(f"    python -m benchmarks.faults --areas '{name}' --seed {arguments.seed} --only {number}")
    except KeyboardInterrupt:
        is_whole = False
    finally:
        area.close()
    outcomes = {outcome: counts[outcome] for outcome in ("clean", "unprotected", "dirty")}
    row = {"area": name, "cases": counts.total(), **outcomes, "seconds": round(time.monotonic() - began)}
    return row, is_whole


if __name__ == "__main__":
    run(main)
