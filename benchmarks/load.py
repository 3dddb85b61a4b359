"""How long a million transitions take to load, rewards included, and how much memory at most.

    python -m benchmarks.load --json

Writes a file in OGBench's format (one generated episode of cube-single-noisy over and over, each row moved a bit) into
a temporary folder, and loads it in a fresh process while the page cache is warm. Memory is that process and its helpers
(private and shared pages as in benchmarks.memory), less what it held before loading; Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.memory import descendants, proportional_set_size

FAMILY = "cube-single-noisy"
TASK = f"{FAMILY}-singletask-task1-v0"
EPISODE = 1001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_001_000, help="steps in the file")
    parser.add_argument("--repeats", type=int, default=3, help="loads, each in a process of its own")
    parser.add_argument(
        "--compressed", action="store_true", help="as `guidedflow data generate` writes, not as published"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load(arguments.load)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file_bytes = write(Path(folder) / f"{FAMILY}-v0.npz", arguments.rows, arguments.compressed)
        command = [sys.executable, "-m", "benchmarks.load", "--load", folder]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            for _ in range(arguments.repeats)
        ]
    best = min(runs, key=lambda run: run["seconds"])
    row = {**best, "file_bytes": file_bytes, "seconds_of_all": [run["seconds"] for run in runs]}
    row["peak_bytes"] = max(run["peak_bytes"] for run in runs)
    row["ratio"] = row["peak_bytes"] / row["kept_bytes"]
    if arguments.json:
        print(json.dumps(row, indent=2))
        return
    print(
        f"{row['transitions']:,} transitions in {row['seconds']:.1f} s; {row['peak_bytes'] / 1e6:.0f} MB at most for "
        f"{row['kept_bytes'] / 1e6:.0f} MB kept: {row['ratio']:.2f} times"
    )


def write(path: Path, rows: int, compressed: bool) -> int:
    """The file's size in bytes."""
    from guidedflow.data.generate import episode_record

    episode = episode_record(FAMILY, 0, 0, steps=EPISODE)
    rng = np.random.default_rng(0)
    copies = -(-rows // EPISODE)
    arrays = {name: np.concatenate([array] * copies)[:rows] for name, array in episode.items()}
    for name in ("observations", "qpos", "qvel"):
        arrays[name] += rng.normal(0.0, 1e-4, (rows, 1)).astype(np.float32)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    path.read_bytes()
    return path.stat().st_size


def load(folder: Path) -> dict[str, float]:
    import jax

    import guidedflow

    guidedflow.load_dataset  # noqa: B018  (imports what loading needs)
    baseline = held()
    watch = Watch()
    start = time.perf_counter()
    dataset = guidedflow.load_dataset(TASK, folder)
    seconds = time.perf_counter() - start
    peak = watch.stop()
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(dataset))
    found = {"seconds": seconds, "peak_bytes": peak - baseline, "kept_bytes": kept, "after_bytes": held() - baseline}
    return {"transitions": dataset.size, **found}


def held() -> int:
    return sum(map(proportional_set_size, descendants(os.getpid())))


class Watch:
    """The most that this process and its helpers hold while it runs, looked at twenty times a second."""

    def __init__(self) -> None:
        self._peak, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.is_set():
            self._peak = max(self._peak, held())
            self._over.wait(0.05)

    def stop(self) -> int:
        """The peak in bytes."""
        self._over.set()
        self._thread.join()
        return max(self._peak, held())


if __name__ == "__main__":
    main()
