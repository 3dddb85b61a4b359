"""Several devices: the members are spread over them, and each learns to the bit what it learns on one.

JAX reads the number of devices once a process, so runs on several are made by processes of their own. The networks are
tiny for another reason, too: XLA has a thread for every simulated device, and how it sums up a large product depends on
the number of threads.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import own_arrays, train_until_killed, trained_agents

import guidedflow as gf
from guidedflow.agents import AGENTS
from guidedflow.agents.rebrac import ReBRACConfig
from guidedflow.envs.vector import Outcome, Reset, VectorEnv
from guidedflow.runs.folder import RunFolder
from guidedflow.training import sources, stream
from guidedflow.training.members import device_names, devices_of, init_agents, member_keys, select
from guidedflow.training.online import OnlineSource
from guidedflow.training.settings import Member, TrainSettings

COMMON = {"hidden": (8,), "batch_size": 16, "log_every": 10, "save_every": 10, "steps": 20}
GFP = {**COMMON, "agent": "gfp", "flow_steps": 2}
RUNS = {
    "gfp": {**GFP, "seeds": (0, 1, 2, 3)},
    "rebrac": {**COMMON, "agent": "rebrac", "seeds": (0, 1, 2, 3)},
    "six": {**COMMON, "agent": "bc", "flow_steps": 2, "seeds": range(6)},
    "sweep": {**GFP, "seeds": (0, 1), "sweep": {"alpha": (0.3, 3.0)}},
    "stream": {**COMMON, "agent": "bc", "flow_steps": 2, "seeds": (0, 1, 2, 3)},
}


def dataset() -> gf.Dataset:
    return gf.Dataset.from_arrays(**own_arrays())


def mapped_dataset(path: Path) -> gf.Dataset:
    """The same with observations that stay on the disk."""
    fields = own_arrays()
    np.save(path, fields["observations"].astype(np.float32))
    return gf.Dataset.from_arrays(**{**fields, "observations": np.load(path, mmap_mode="r")})


def data_of(name: str, folder: Path) -> gf.Dataset:
    return mapped_dataset(folder / "observations.npy") if name == "stream" else dataset()


def trained(run: Path) -> list[np.ndarray]:
    agents = trained_agents(run)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(agents)]


def assert_identical(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


class Clock(VectorEnv):
    """Environments that show how long they have run; an episode takes three steps."""

    def __init__(self, slots: int):
        self.time = np.zeros(slots)

    def exchange(self, commands):
        outcomes = []
        for slot, command in enumerate(commands):
            self.time[slot] = 0 if isinstance(command, Reset) else self.time[slot] + (command is not None)
            seen = np.full(4, self.time[slot], np.float32)
            outcomes.append(None if command is None else Outcome(seen, -1.0, self.time[slot] == 3, False, 0.0, None))
        return outcomes


def go_online() -> tuple[OnlineSource, list[np.ndarray]]:
    """Six online steps of four members."""
    members = [Member((), seed, ReBRACConfig(hidden=(8,))) for seed in range(4)]
    data = dataset()
    settings = TrainSettings(steps=10, log_every=10, save_every=10, online_steps=10, batch_size=8)
    online = OnlineSource(Clock(4), data, member_keys(members, "train"), members, settings, float)
    agents, _ = online.updates(init_agents(AGENTS["rebrac"], members, data.spec), 10, 6)
    return online, [np.asarray(leaf) for leaf in jax.tree.leaves((agents, online.buffers))]


def devices_under(tree: object) -> int:
    """How many devices hold a part of each array, and none of them the whole."""
    (count,) = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(tree)}
    assert count == 1 or not any(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree))
    return count


def on_four(folder: Path) -> None:
    """Every run, on four devices; what is only to be seen from inside is checked here."""
    warnings.simplefilter("error")  # A donated array that could not be used again, for instance.
    assert len(jax.devices()) == 4
    used = []
    for module, name in ((sources, "run_steps"), (stream, "run_piece")):
        compiled = getattr(module, name)

        def watched(agents, second, *more, compiled=compiled, **options):
            data, windows = (second, None) if isinstance(second, gf.Dataset) else (None, second)
            used.append(devices_under(agents))
            assert windows is None or devices_under(windows) == used[-1]
            assert data is None or {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(data)} == {used[-1]}
            found, metrics = compiled(agents, second, *more, **options)
            assert devices_under(found) == used[-1]
            if len(used) == 1:  # After it, a checkpoint that is being written holds on to the arrays.
                assert all(leaf.is_deleted() for leaf in jax.tree.leaves(agents))
            return found, metrics

        setattr(module, name, watched)
    devices = {}
    for name, settings in RUNS.items():
        gf.train(dataset=data_of(name, folder), run_dir=folder / name, **settings)
        (devices[name],) = set(used)
        used.clear()
    train_until_killed(10, dataset=dataset(), run_dir=folder / "cut", **RUNS["rebrac"])
    online, values = go_online()
    devices["online"] = devices_under(online.buffers)
    np.savez(folder / "online.npz", *values)
    (folder / "devices.json").write_text(json.dumps(devices))

    assert [len(devices_of(count)) for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)] == [1, 2, 3, 4, 1, 3, 1, 4, 3, 3]
    agents = init_agents(
        AGENTS["rebrac"], [Member((), seed, ReBRACConfig(hidden=(8,))) for seed in range(4)], dataset().spec
    )
    one = select(agents, 2)
    assert devices_under(one) == 1
    assert_identical(jax.tree.leaves(one), [np.asarray(leaf)[2] for leaf in jax.tree.leaves(agents)])


def on_one(folder: Path) -> None:
    """The same runs on one device."""
    assert len(jax.devices()) == 1
    for name, settings in RUNS.items():
        gf.train(dataset=data_of(name, folder), run_dir=folder / name, **settings)
    train_until_killed(10, dataset=dataset(), run_dir=folder / "cut", **RUNS["rebrac"])
    np.savez(folder / "online.npz", *go_online()[1])


def resume_all(folder: Path) -> None:
    """Continue every run in a folder whose name is the number of devices."""
    warnings.simplefilter("error")
    assert len(jax.devices()) == int(folder.name)
    for run in folder.iterdir():
        gf.resume(run, dataset=dataset())


def start(devices: int, call: str, path: Path) -> None:
    """Call a function of this module in a process that sees so many devices."""
    # The older emitters divide even small sums among the threads, of which there is one a device.
    flags = f"--xla_cpu_use_fusion_emitters=true --xla_force_host_platform_device_count={devices}"
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    code = f"import sys, pathlib, test_devices; test_devices.{call}(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).parent,
        env={**environment, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Path:
    """The folder of the runs made on four devices."""
    folder = tmp_path_factory.mktemp("four")
    start(4, "on_four", folder)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The folder of the runs made on one device."""
    folder = tmp_path_factory.mktemp("one")
    start(1, "on_one", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_members_on_several_devices_learn_what_they_learn_on_one(name, one, four):
    assert_identical(trained(one / name), trained(four / name))
    used = 3 if name == "six" else 4
    assert json.loads((four / "devices.json").read_text())[name] == used
    assert RunFolder(four / name).config().device.startswith(f"{used} devices: ")
    assert RunFolder(one / name).config().device == device_names(len(RUNS[name]["seeds"])) == str(jax.devices()[0])


@pytest.mark.slow
def test_online_each_members_buffer_is_on_its_device(one, four):
    assert json.loads((four / "devices.json").read_text())["online"] == 4
    with np.load(one / "online.npz") as alone, np.load(four / "online.npz") as saved:
        assert_identical(list(alone.values()), list(saved.values()))


@pytest.mark.slow
def test_a_run_is_continued_on_another_number_of_devices(one, four, tmp_path):
    shutil.copytree(four / "cut", tmp_path / "1" / "from four")
    shutil.copytree(four / "cut", tmp_path / "2" / "from four")
    shutil.copytree(one / "cut", tmp_path / "2" / "from one")
    start(1, "resume_all", tmp_path / "1")
    start(2, "resume_all", tmp_path / "2")
    for run in ("1/from four", "2/from four", "2/from one"):
        assert_identical(trained(tmp_path / run), trained(four / "rebrac"))
