"""Reading pictures that stay on the disk: ``python -m benchmarks.pixels [--frames N] [--directory D] [--json]``.

Writes a file of 64 x 64 x 3 frames (12.3 GB for a million, uncompressed, as ``guidedflow data generate`` does), and in
a process of its own opens it and reads batches of 256 transitions with stacks of three frames, as training does. The
file was just written, so it is in the page cache as far as there is memory. Memory is what the process holds for
itself (RssAnon): pages of the mapped file belong to the page cache, which gives them back when asked.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from guidedflow.data import npz
from guidedflow.processes import call

BATCH = 256
STACK = 3


def write(path: Path, frames: int, episode: int = 1000) -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(frames)
    block = rng.integers(0, 256, (episode, 64, 64, 3), np.uint8)
    arrays = {
        "observations": ((frames, 64, 64, 3), np.uint8, (np.roll(block, k) for k in range(frames // episode))),
        "actions": ((frames, 5), np.float32, iter([rng.uniform(-1, 1, (frames, 5))])),
        "rewards": ((frames,), np.float32, iter([rng.normal(size=frames)])),
        "terminals": ((frames,), np.bool_, iter([rows % episode == episode - 1])),
        "frame_stack": ((), np.int64, iter([np.array(STACK)])),
    }
    with path.open("wb") as file:
        npz.write(file, arrays)


def measure(path: Path, batches: int, repeats: int) -> dict[str, object]:
    import jax

    from guidedflow.data import arrays
    from guidedflow.training.stream import Stream

    jax.numpy.zeros(3).block_until_ready()  # The backend is started before anything is measured.
    before = anonymous_bytes()
    began = time.perf_counter()
    dataset = arrays.load(path)
    opened = time.perf_counter() - began
    keys = jax.random.split(jax.random.key(0), 1)
    options = {"batch_size": BATCH, "crop_probability": 0.5, "length": batches, "stop": batches * repeats}
    rates, most = [], 0
    with Stream(dataset, keys, **options) as stream:
        for number in range(repeats + 1):  # The first one compiles.
            began = time.perf_counter()
            for step in range(number * batches, (number + 1) * batches, stream.piece):
                jax.block_until_ready(stream.read(step))
                most = max(most, anonymous_bytes())
            rates.append(batches / (time.perf_counter() - began))
    return {"open_s": opened, "batches_per_s": rates[1:], "growth_bytes": most - before}


def anonymous_bytes() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where there is room; default: the system's temporary folder")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        path = Path(folder) / "frames.npz"
        write(path, arguments.frames)
        from benchmarks import pixels  # By its name, so that the helper process finds it.

        found = call(pixels.measure, path, arguments.batches, arguments.repeats)
    if arguments.json:
        print(json.dumps({"frames": arguments.frames, **found}))
        return
    rates = found["batches_per_s"]
    print(f"{arguments.frames:,} frames: opened in {found['open_s']:.2f} s")
    print(
        f"batches of {BATCH} with {STACK}-frame stacks: {statistics.median(rates):.0f}/s "
        f"[{min(rates):.0f}, {max(rates):.0f}]"
    )
    print(f"memory growth: {found['growth_bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
