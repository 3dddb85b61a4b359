import gc
import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes longer than running what is compiled here. constraints.txt's jaxlib knows the flags that shorten it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
FAST_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if FAST_TO_COMPILE not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_TO_COMPILE}"
# Networks as small as these take more processor time on several threads than on one.
os.environ["NPROC"] = "1"
# Many tests, and the processes that they start, compile the same small programs.
if "PYTEST_XDIST_WORKER" not in os.environ:  # A worker inherits its parent's.
    _cache = tempfile.TemporaryDirectory(prefix="guidedflow-tests-jax-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest
from jaxtyping import install_import_hook

SHAPE_CHECKED = ["agents", "nn", "types", "data.dataset", "data.augment", "results.statistics"]
SHAPE_CHECKED += [f"training.{name}" for name in ("metrics", "online", "sources", "stream")]
install_import_hook([f"guidedflow.{name}" for name in SHAPE_CHECKED], "shape_checks.checked")

from guidedflow.data.dataset import Dataset
from guidedflow.runs import curves as guidedflow_curves
from guidedflow.suites import generate

DRAW_CURVES = guidedflow_curves.draw_curves
TASK = "cube-single-noisy-singletask-task1-v0"
# Recordings and policies that do not ship with the package; beside the repository on the machines that test it.
SHARED = next((path for path in [Path(__file__).parents[2] / "shared"] if path.is_dir()), None)
TINY = ["--preset", "quick", "--hidden", "16", "16", "--flow-steps", "2", "--batch-size", "16"]


@pytest.fixture(scope="session")
def cube_data(tmp_path_factory) -> Path:
    """A folder with a small real data set of cube-single-noisy."""
    folder = tmp_path_factory.mktemp("data")
    generate("cube-single-noisy", data_dir=folder, episodes=4, val_episodes=1, workers=2, steps=80)
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: many tests wait for processes of their own, or for a time to pass."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else None


@pytest.fixture(autouse=True, scope="module")
def few_compiled_programs():
    """JAX keeps every program that it compiled, several gigabytes of them in the end."""
    yield
    if psutil.Process().memory_info().rss > 2**31:
        jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def no_curves():
    """A small training is over sooner than its curves are drawn; the fixture ``curves`` lets them be drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidedflow_curves, "draw_curves", lambda path, *_, **__: path.touch())
        yield


@pytest.fixture
def curves(monkeypatch):
    monkeypatch.setattr(guidedflow_curves, "draw_curves", DRAW_CURVES)


@pytest.fixture(scope="module")
def small_pictures():
    """Pictures go through one small stage instead of three, whose compilation would take most of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guidedflow.nn.encoder.CHANNELS", (4,))
        yield


def pytest_collection_finish():
    """What was imported stays, and need not be looked through again and again."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    if not os.environ.get("GUIDEDFLOW_WHOLE_TESTS"):
        for item in items:
            if item.get_closest_marker("whole"):
                item.add_marker(pytest.mark.skip(reason="takes long: GUIDEDFLOW_WHOLE_TESTS=1"))


def install_plugin(folder: Path, monkeypatch, group: str, name: str, target: str, code: str) -> None:
    """Put a package of one module into a folder from which Python imports, with the entry point ``target``."""
    module = target.partition(":")[0]
    (folder / f"{module}-1.0.dist-info").mkdir(parents=True)
    (folder / f"{module}-1.0.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n"
    )
    (folder / f"{module}-1.0.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))


def worked_example(heading: str) -> tuple[str, str, str]:
    """Of a section of CONTRIBUTING.md: the code, and the name and target of its line in the registry."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    ((name, target),) = re.findall(r'`"(\w+)": "([\w.:]+)",`', section)
    return code, name, target


def make_env(task, **options):
    """A task's environment, in this process."""
    return task.suite.make_env(task, **options)


def own_arrays(episodes: int = 6, length: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays such as a user brings: some episodes end by a terminal, some by a timeout."""
    rng = np.random.default_rng(seed)
    n = episodes * length
    last = np.arange(1, n + 1) % length == 0
    by_terminal = np.repeat(np.arange(episodes) % 2 == 0, length)
    return {
        "observations": rng.normal(size=(n, 4)),
        "actions": rng.uniform(-1, 1, (n, 2)),
        "rewards": rng.normal(size=n),
        "terminals": last & by_terminal,
        "timeouts": last & ~by_terminal,
    }


@pytest.fixture
def own_dataset() -> Dataset:
    return Dataset.from_arrays(**own_arrays())


@pytest.fixture
def own_file(tmp_path) -> Path:
    path = tmp_path / "own.npz"
    np.savez(path, **own_arrays())
    return path


@pytest.fixture
def walking(own_file) -> dict[str, object]:
    """Arguments of ``train``: data of no meaning, and a small environment to evaluate in."""
    return {"env": "walk:Walk", "dataset": own_file}


def optimized() -> dict[str, str]:
    """An environment in which programs are compiled for speed, as in a user's hands."""
    unoptimized = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    return {name: value for name, value in os.environ.items() if name not in unoptimized}


WITH_SMALL_PICTURES = """
import guidedflow.cli, guidedflow.nn.encoder
guidedflow.nn.encoder.CHANNELS = (4,)
guidedflow.cli.main()
"""
"""What the fixture ``small_pictures`` does, for a process."""


def guidedflow(*arguments, timeout: float = 300, small: bool = False, **options) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, or with small networks for pictures."""
    program = ["-c", WITH_SMALL_PICTURES] if small else ["-m", "guidedflow"]
    command = [sys.executable, *program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)


def train_until_killed(step: int, *task: str, **arguments) -> None:
    """Train, and stop right after a step as a kill would: nothing is saved on the way out."""
    import guidedflow as gf

    class Killed(BaseException):  # No Exception: after one, the run would be saved first.
        pass

    def kill(progress):
        if progress.step >= step:
            raise Killed

    with pytest.raises(Killed):
        gf.train(*task, callbacks=[kill], **arguments)


def trained_agents(run: Path | str, checkpoint: str | int = "latest"):
    """The agents of a run's checkpoint, stacked."""
    from guidedflow.training.restore import SavedRun

    return SavedRun(Path(run)).agents(checkpoint)[0]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Small jobs of a study, each trained in this process, which nobody disturbed."""
    from studies import read_plan, small_jobs

    import guidedflow as gf

    plan = small_jobs(tmp_path_factory.mktemp("studies"), "undisturbed")
    for job in read_plan(plan).jobs:
        options = {"agent": job.agent, "preset": job.preset, "seeds": job.seeds, **job.settings}
        gf.train(job.task, run_dir=job.run_dir, progress=False, **options)
    return plan
