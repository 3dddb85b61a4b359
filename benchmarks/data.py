"""How fast data is made, loaded and sampled.

    python -m benchmarks.data load      a million transitions from a file, rewards included: seconds, most memory
    python -m benchmarks.data pixels    pictures that stay in their file: batches a second, growth of memory
    python -m benchmarks.data cameras   updates a second on two cameras and a vector, and their wait for data
    python -m benchmarks.data generate  episodes a second of the scripted oracles
    python -m benchmarks.data sample    batches a second: drawn by a compiled program, and streamed from the host

``load`` writes a file in OGBench's format (one generated episode of cube-single-noisy over and over, each row moved a
bit) and loads it in fresh processes while the page cache is warm. Memory is such a process and its helpers (private and
shared pages as in benchmarks.memory), less what it held before loading; Linux only.

``pixels`` writes a file of 64 x 64 x 3 frames (12.3 GB for a million, uncompressed, as ``guidedflow data generate``
does), and in a process of its own opens it and reads batches with stacks of three frames, as training does. The file
was just written, so it is in the page cache as far as there is memory. Memory is what the process holds for itself
(RssAnon; Linux only): pages of the mapped file belong to the page cache, which gives them back when asked.

``cameras`` trains on a file of two cameras of 64 x 64 x 3 and a vector, as ``guidedflow train FILE --preset quick``
does. Its numbers are those of the run's metrics.jsonl without the first row, in which the program is compiled.

``generate`` counts seconds from the call to the files; the rate leaves out the workers' start and first episodes.

``sample`` draws from the same random vectors both ways: ``compiled`` is ``Dataset.sample`` in the training step's own
way, ``streamed`` is what the trainer reads ahead of the updates where data stays on the disk (here it is in memory).
Streams feed an agent that learns nothing, so that nothing but reading takes time.
"""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

import guidedflow
from benchmarks.common import TASK, apart, elapsed, parse, report, run, say, spread
from benchmarks.memory import Watch, held, own
from guidedflow.data.formats import npz
from guidedflow.errors import SettingsError
from guidedflow.processes import available_cores
from guidedflow.settings import Count, Sizes
from guidedflow.suites import find_task, generate
from guidedflow.suites.ogbench.oracles import episode_record

FAMILY = find_task(TASK).dataset
EPISODE = 1001
STACK = 3


@dataclasses.dataclass(frozen=True)
class Load:
    """Load a large file with a task's rewards."""

    rows: Count = 1_001_000
    """Steps in the file."""
    repeats: Count = 3
    """Loads, each in a process of its own."""
    compressed: bool = False
    """Write the file compressed; the published ones are not."""
    json: bool = False
    """Print JSON instead of a table."""

    def measure(self) -> list[dict[str, Any]]:
        """One row."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / f"{FAMILY}-v0.npz")
            file_bytes = apart(write_steps, path, self.rows, self.compressed, environment={"MUJOCO_GL": "disabled"})
            runs = [apart(load, folder) for _ in range(self.repeats)]
        peak, kept = max(run["peak_bytes"] for run in runs), runs[0]["kept_bytes"]
        return [
            {
                "transitions": runs[0]["transitions"],
                "file_bytes": file_bytes,
                "seconds": spread(run["seconds"] for run in runs),
                "peak_bytes": peak,
                "kept_bytes": kept,
                "ratio": peak / kept,
            }
        ]


def write_steps(path: str, rows: int, compressed: bool) -> int:
    """The file's size in bytes."""
    episode = episode_record(FAMILY, 0, 0, steps=min(rows, EPISODE))
    rng = np.random.default_rng(0)
    copies = -(-rows // EPISODE)
    arrays: dict[str, Any] = {name: np.concatenate([array] * copies)[:rows] for name, array in episode.items()}
    for name in ("observations", "qpos", "qvel"):
        arrays[name] += rng.normal(0.0, 1e-4, (rows, 1)).astype(np.float32)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return len(Path(path).read_bytes())  # Which brings it into the page cache.


def load(folder: str) -> dict[str, float]:
    import jax

    guidedflow.load_dataset  # noqa: B018  (imports what loading needs)
    baseline = held(os.getpid())
    watch = Watch()
    began = time.perf_counter()
    dataset = guidedflow.load_dataset(TASK, folder)
    seconds = time.perf_counter() - began
    peak = watch.stop()
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(dataset))
    return {"transitions": dataset.size, "seconds": seconds, "peak_bytes": peak - baseline, "kept_bytes": kept}


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Read batches of pictures from a mapped file."""

    frames: Count = 1_000_000
    """Pictures in the file, in episodes of a thousand."""
    directory: Path | None = None
    """Where there is room for them; None: the system's temporary folder."""
    batch_size: Count = 256
    """Transitions a batch."""
    batches: Count = 200
    """Batches a measurement."""
    repeats: Count = 5
    """Measurements."""
    json: bool = False
    """Print JSON instead of a table."""

    def measure(self) -> list[dict[str, Any]]:
        """One row."""
        with tempfile.TemporaryDirectory(dir=self.directory) as folder:
            path = Path(folder) / "frames.npz"
            write_frames(path, self.frames)
            found = apart(read_frames, str(path), self.batch_size, self.batches, self.repeats)
        return [{**found, "batches_per_second": spread(found["batches_per_second"])}]


def write_frames(path: Path, frames: int) -> None:
    episode = min(frames, 1000)
    frames -= frames % episode
    rng, rows = np.random.default_rng(0), np.arange(frames)
    block = rng.integers(0, 256, (episode, 64, 64, 3), np.uint8)
    arrays: dict[str, Any] = {
        "observations": ((frames, 64, 64, 3), np.uint8, (np.roll(block, k) for k in range(frames // episode))),
        "actions": ((frames, 5), np.float32, iter([rng.uniform(-1, 1, (frames, 5))])),
        "rewards": ((frames,), np.float32, iter([rng.normal(size=frames)])),
        "terminals": ((frames,), np.bool_, iter([rows % episode == episode - 1])),
        "frame_stack": ((), np.int64, iter([np.array(STACK)])),
    }
    with path.open("wb") as file:
        npz.write(file, arrays)


def read_frames(path: str, batch_size: int, batches: int, repeats: int) -> dict[str, Any]:
    import jax

    from guidedflow.data import formats

    jax.numpy.zeros(3).block_until_ready()  # The backend is started before anything is measured.
    before = own("RssAnon")
    began = time.perf_counter()
    dataset = formats.load(Path(path))
    opened = time.perf_counter() - began
    most = before

    def look() -> None:
        nonlocal most
        most = max(most, own("RssAnon"))

    rates = streamed(dataset, batch_size, batches, repeats, look)
    return {"open_seconds": opened, "batches_per_second": rates, "growth_bytes": most - before}


def streamed(
    dataset: Any, batch_size: int, batches: int, repeats: int, look: Callable[[], None] = lambda: None
) -> list[float]:
    """Batches a second that the trainer's source of data on the disk hands on."""
    import jax

    from guidedflow.training.settings import TrainSettings
    from guidedflow.training.stream import DiskSource

    keys = jax.random.split(jax.random.key(0), 1)
    agents, rates = idle_agent(), []
    with DiskSource(dataset, keys, TrainSettings(batch_size=batch_size), stop=batches * (repeats + 1)) as source:
        for number in range(repeats + 1):  # The first one compiles.
            began, end = time.perf_counter(), (number + 1) * batches
            for step in range(number * batches, end, source.piece):
                agents, _ = source.updates(agents, step, min(source.piece, end - step))
                look()
            rates.append(batches / (time.perf_counter() - began))
    return rates[1:]


@dataclasses.dataclass(frozen=True)
class Cameras:
    """Train on pictures and vectors that stay in their file."""

    agent: str = "gfp"
    """Name of the agent."""
    frames: Count = 20_000
    """Steps in the file, in episodes of a thousand."""
    size: Count = 64
    """Height and width of both cameras' pictures."""
    batch_size: Count = 64
    """Transitions an update."""
    hidden: Sizes = (256, 256, 256)
    """Hidden layer sizes, those of the quick preset."""
    steps: Count = 50
    """Updates, in rows of metrics of ``log_every``."""
    log_every: Count = 10
    """Updates a measurement."""
    json: bool = False
    """Print JSON instead of a table."""

    def measure(self) -> list[dict[str, Any]]:
        """One row."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cameras.npz"
            write_cameras(path, self.frames, self.size)
            settings = {"batch_size": self.batch_size, "hidden": self.hidden, "steps": self.steps}
            settings |= {"log_every": self.log_every, "save_every": self.steps, "eval_every": self.steps}
            guidedflow.train(
                path, agent=self.agent, preset="quick", run_dir=Path(folder) / "run", progress=False, **settings
            )
            rows = guidedflow.RunFolder(Path(folder) / "run").metrics()[1:]
        return [
            {
                "agent": self.agent,
                "updates_per_second": spread(row["updates_per_second"] for row in rows),
                "data_wait": spread(row["data_wait"] for row in rows),
            }
        ]


def write_cameras(path: Path, frames: int, size: int) -> None:
    rng, rows = np.random.default_rng(0), np.arange(frames)
    block = rng.integers(0, 256, (1000, size, size, 3), np.uint8)

    def pictures(shift: int) -> tuple[tuple[int, ...], Any, Any]:
        starts = range(0, frames, 1000)
        return (frames, size, size, 3), np.uint8, (np.roll(block, start + shift)[: frames - start] for start in starts)

    arrays: dict[str, Any] = {
        "observations/front": pictures(0),
        "observations/wrist": pictures(1),
        "observations/joints": ((frames, 7), np.float32, iter([rng.normal(size=(frames, 7))])),
        "actions": ((frames, 7), np.float32, iter([rng.uniform(-1, 1, (frames, 7))])),
        "rewards": ((frames,), np.float32, iter([rng.normal(size=frames)])),
        "terminals": ((frames,), np.bool_, iter([(rows % 1000 == 999) | (rows == frames - 1)])),
    }
    with path.open("wb") as file:
        npz.write(file, arrays)


def idle_agent() -> Any:
    """An agent whose update only looks at the batch's rewards."""
    from guidedflow.agents.agent import Agent, Metrics, PolicyFn

    class Idle(Agent):
        config_class: ClassVar[type] = type(None)
        policy_names: ClassVar[tuple[str, ...]] = ()
        paper: ClassVar[str] = "none"
        config: None = None

        @classmethod
        def build(cls, config: Any, spec: Any, key: Any) -> Self:
            return cls()

        def update(self, batch: Any, key: Any) -> tuple[Self, Metrics]:
            return self, {"reward": batch.rewards.mean()}

        def policies(self) -> dict[str, PolicyFn]:
            return {}

    return Idle()


@dataclasses.dataclass(frozen=True)
class Generate:
    """Make episodes with scripted oracles."""

    families: tuple[str, ...] = (FAMILY, "scene-play")
    """As ``guidedflow data generate`` takes them."""
    episodes: Count = 9
    """Training episodes; one is made for validation besides."""
    steps: Count = EPISODE
    """Steps an episode."""
    workers: Count | None = None
    """Processes; None: one a core."""
    repeats: Count = 3
    """Measurements of each family."""
    json: bool = False
    """Print JSON instead of a table."""

    def measure(self) -> list[dict[str, Any]]:
        """One row a family."""
        workers = self.workers or available_cores()
        if self.episodes < workers:
            raise SettingsError(f"episodes: expected at least as many as workers, {workers}, found {self.episodes}")
        rows = []
        for family in self.families:
            say(family)
            runs = [self._once(family, workers) for _ in range(self.repeats)]
            seconds, rates = zip(*runs, strict=True)
            row = {"family": family, "workers": workers, "episodes": self.episodes + 1, "seconds": spread(seconds)}
            rows.append({**row, "episodes_per_second": spread(rates)})
        return rows

    def _once(self, family: str, workers: int) -> tuple[float, float]:
        """Seconds of the whole call, and the rate once each worker may have made an episode."""
        done: list[float] = []
        sizes = {"episodes": self.episodes, "val_episodes": 1, "steps": self.steps, "workers": workers}

        def note(count: int, total: int) -> None:
            done.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            seconds = elapsed(lambda: generate(family, data_dir=folder, on_progress=note, **sizes))
        first = done[workers]  # The first call is made before any episode.
        return seconds, (self.episodes + 1 - workers) / (done[-1] - first)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw batches of vectors."""

    rows: Count = 1_000_000
    """Steps in the data, which are random numbers."""
    observation_size: Count = 28
    """n."""
    action_size: Count = 5
    """d."""
    batch_size: Count = 256
    """Transitions a batch."""
    batches: Count = 1000
    """Batches a measurement."""
    repeats: Count = 5
    """Measurements."""
    json: bool = False
    """Print JSON instead of a table."""

    def measure(self) -> list[dict[str, Any]]:
        """A row for each way of sampling."""
        import jax

        from benchmarks.update import Setup, random_data

        setup = Setup(rows=self.rows, observation_size=self.observation_size, action_size=self.action_size)
        dataset = random_data(setup)
        keys = jax.random.split(jax.random.key(0), self.batches)

        @jax.jit
        def draw(dataset: Any, keys: Any) -> Any:
            return jax.lax.map(lambda key: dataset.sample(key, self.batch_size), keys)

        def compiled() -> float:
            return self.batches / elapsed(lambda: jax.block_until_ready(draw(dataset, keys)))

        compiled()  # It compiles.
        rates = {
            "compiled": [compiled() for _ in range(self.repeats)],
            "streamed": streamed(jax.tree.map(np.asarray, dataset), self.batch_size, self.batches, self.repeats),
        }
        return [{"path": path, "batches_per_second": spread(found)} for path, found in rates.items()]


def main() -> None:
    program = parse(Load | Pixels | Cameras | Generate | Sample)
    report({"measured": type(program).__name__.lower(), **vars(program)}, program.measure())


if __name__ == "__main__":
    run(main)
