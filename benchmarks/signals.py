"""How a training answers SIGTERM, as a cluster or a container sends it: how soon, and whether anything is lost.

    python -m benchmarks.signals
    python -m benchmarks.signals --agents gfp bc --no-pictures

Starts ``guidedflow train`` with every agent on vectors, and with GFP on pictures that stay in their file. Once updates
are being made, SIGTERM is sent; then the run is continued, and interrupted again.

| column | |
|---|---|
| updates per second | of the training just before the signal; empty where it had made one update only |
| said seconds | from the signal until the training says that it is stopping |
| ended seconds | from the signal until its process has ended |
| exit codes | 143 says that SIGTERM ended it; -9 that it did not within ten minutes |
| resumed | whether each continuation went on from the step at which the run had been saved |
| error | why there are no figures |
"""

import contextlib
import dataclasses
import itertools
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from benchmarks.common import parse, report, run, say, spread
from benchmarks.data import write_frames
from guidedflow.agents import AGENTS, find_agent
from guidedflow.runs.folder import RunFolder
from guidedflow.settings import Count, Positive, Range, Sizes

STEPS = 1_000_000_000
"""More than any training makes here."""
START_SECONDS = 1800.0
"""For how long a training may take until it makes updates: where an accelerator is wanted, a CPU takes minutes."""
STOP_SECONDS = 600.0
"""After which a training that was sent a signal is killed."""
MEASURED = ("updates_per_second", "said_seconds", "ended_seconds", "exit_codes", "resumed")
STOPPING = re.compile("stopping: the run is being saved")
SAVED = re.compile(r"stopped by SIGTERM, saved at step (\d+)")
CONTINUED = re.compile(r"^step ([\d,]+)/.*: continuing from here")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure how a training answers SIGTERM."""

    agents: tuple[str, ...] = tuple(AGENTS)
    """Names of the agents that learn from vectors."""
    pictures: bool = True
    """Let GFP learn from pictures, too."""
    hidden: Sizes = (256, 256, 256)
    """Hidden layer sizes."""
    batch_size: Count = 256
    """Transitions an update."""
    rows: Count = 20_000
    """Steps in the vectors, which are random numbers."""
    frames: Count = 5_000
    """Pictures of 64 x 64 x 3, random as well; three make an observation."""
    interruptions: Annotated[int, Range(2, 1000)] = 2
    """Signals sent to each run, which is continued after each but the last."""
    settle: Positive = 8.0
    """Seconds of updates before a signal: the trainer needs some until its calls are as long as it wants them."""
    json: bool = False
    """Print JSON instead of a table."""


class Interruption(NamedTuple):
    """What came of one signal. None: nothing was said of it."""

    began_at: int | None
    """The step that the training said it continues from."""
    saved_at: int | None
    said: float | None
    ended: float
    exit_code: int
    updates_per_second: float
    """0: not known yet."""


class Training:
    """A ``guidedflow train`` of its own process, and when it printed what."""

    def __init__(self, *words: Any):
        command = [sys.executable, "-m", "guidedflow", "train", *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append((time.monotonic(), line.rstrip()))

    def find(self, pattern: re.Pattern[str]) -> tuple[float, re.Match[str]] | None:
        """The first line that a pattern is found in, and when it was printed."""
        matches = ((when, pattern.search(line)) for when, line in self.lines)
        return next(((when, match) for when, match in matches if match), None)

    def step(self, pattern: re.Pattern[str]) -> int | None:
        """The number in the line of a pattern."""
        found = self.find(pattern)
        return None if found is None else int(found[1][1].replace(",", ""))

    def wait_for_updates(self, last_step: Callable[[], int]) -> None:
        """Return when ``last_step`` has grown: the first update has been compiled, the next ones run.

        Raises:
            RuntimeError: the process ended before, or it takes too long.
        """
        began, first = time.monotonic(), last_step()
        while last_step() == first:
            if self.process.poll() is not None or time.monotonic() - began > START_SECONDS:
                self.kill()
                said = "\n".join(line for _, line in self.lines)
                raise RuntimeError(f"expected a training that makes updates, found one that does not; it said: {said}")
            time.sleep(0.1)

    def terminate(self) -> tuple[float, float]:
        """Send SIGTERM and wait for the end; when was it sent, and when did the process end?"""
        sent = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        ended = time.monotonic()
        self.kill()
        return sent, ended

    def kill(self) -> None:
        """End the process, if it has not ended, and read what is left."""
        self.process.kill()
        self.process.wait()
        self._reader.join()


def main() -> None:
    arguments = parse(Arguments)
    for agent in arguments.agents:
        find_agent(agent)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        vectors, pictures = Path(folder) / "vectors.npz", Path(folder) / "pictures.npz"
        write_vectors(vectors, arguments.rows)
        if arguments.pictures:
            write_frames(pictures, arguments.frames)
        runs = [(vectors, agent) for agent in arguments.agents] + [(pictures, "gfp")] * arguments.pictures
        for data, agent in runs:
            say(f"{data.stem} {agent}")
            try:
                found, error = measure(agent, data, Path(folder) / f"{data.stem}-{agent}", arguments), None
            except RuntimeError as problem:
                found, error = {}, str(problem)
            figures = {name: found.get(name) for name in MEASURED}
            rows.append({"data": data.stem, "agent": agent, **figures, "error": error})
    report(vars(arguments), rows)


def write_vectors(path: Path, rows: int) -> None:
    """Episodes of a thousand steps, as ``benchmarks.update`` trains on."""
    rng = np.random.default_rng(0)
    np.savez(
        path,
        observations=rng.standard_normal((rows, 28), np.float32),
        actions=2 * rng.random((rows, 5), np.float32) - 1,
        rewards=-np.ones(rows, np.float32),
        terminals=np.zeros(rows, bool),
        timeouts=np.arange(1, rows + 1) % 1000 == 0,
    )


def measure(agent: str, data: Path, folder: Path, arguments: Arguments) -> dict[str, Any]:
    """The figures of one row."""
    words: list[Any] = [data, "--agent", agent, "--preset", "quick", "--run-dir", folder, "--steps", STEPS]
    words += ["--hidden", *arguments.hidden, "--batch-size", arguments.batch_size]
    # Metrics tell that updates are made; where an update takes long, each one has to.
    words += ["--log-every", 1 if data.stem == "pictures" else 10]
    found = [interrupt(words, folder, arguments.settle)]
    for _ in range(arguments.interruptions - 1):
        found.append(interrupt(["--resume", folder], folder, arguments.settle))
    rates = [one.updates_per_second for one in found]
    said = [one.said for one in found if one.said is not None]
    return {
        "updates_per_second": spread(rates) if all(rates) else None,
        "said_seconds": spread(said) if len(said) == len(found) else None,
        "ended_seconds": spread(one.ended for one in found),
        "exit_codes": sorted({one.exit_code for one in found}),
        "resumed": "yes" if went_on(found) else "no",
    }


def went_on(found: Sequence[Interruption]) -> bool:
    """Whether each continuation began where the run had been saved."""
    pairs = itertools.pairwise(found)
    return all(before.saved_at is not None and before.saved_at == after.began_at for before, after in pairs)


def interrupt(words: Sequence[Any], folder: Path, settle: float) -> Interruption:
    """Start or continue a run, and send it a signal once it makes updates."""

    def last_step() -> int:
        rows = RunFolder(folder).metrics()
        return rows[-1]["step"] if rows else 0

    training = Training(*words)
    training.wait_for_updates(last_step)
    time.sleep(settle)
    sent, ended = training.terminate()
    said = training.find(STOPPING)
    return Interruption(
        began_at=training.step(CONTINUED),
        saved_at=training.step(SAVED),
        said=None if said is None else said[0] - sent,
        ended=ended - sent,
        exit_code=training.process.returncode,
        updates_per_second=RunFolder(folder).metrics()[-1]["updates_per_second"],
    )


if __name__ == "__main__":
    run(main)
