"""Studies on a Ray cluster of two nodes, both on this machine: whatever is killed, each job is trained once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import guidedflow
from studies import JOBS, Trainers, assert_same_runs, small_jobs, wait_for

ray = pytest.importorskip("ray")
import jsonschema  # Both come with Ray.
import yaml

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own.
]


@pytest.fixture
def start(monkeypatch):
    """Starts clusters of two nodes of one core each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    clusters = []

    def start():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        clusters.append(cluster)
        return cluster

    yield start
    for cluster in clusters:
        cluster.shutdown()


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_launchers_file_in_the_documentation_is_what_ray_expects():
    page = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load(text), schema)


@pytest.mark.slow
@pytest.mark.whole
def test_a_killed_worker_node_driver_and_head_change_nothing(undisturbed, start):
    plan = small_jobs(undisturbed.parent, "ray")
    cluster = start()

    def drive():
        command = [sys.executable, "-m", "guidedflow", "study", "run", str(plan), "--engine", "ray"]
        log = (undisturbed.parent / "driver.log").open("ab")
        with log:
            return subprocess.Popen([*command, "--address", cluster.address], stdout=log, stderr=log)

    with Trainers(undisturbed.parent / "ray") as trainers:

        def running() -> list[int]:
            return [process for processes in trainers.holders().values() for process in processes]

        driver = drive()
        wait_for(lambda: len(running()) == 2)
        os.kill(parent(running()[0]), signal.SIGKILL)  # Ray's worker.
        time.sleep(3)
        wait_for(lambda: len(running()) == 2)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        time.sleep(3)
        cluster.add_node(num_cpus=1)
        wait_for(lambda: len(running()) == 2)
        driver.kill()
        driver.wait()
        driver = drive()
        wait_for(running)
        cluster.head_node.kill_gcs_server()
        cluster.head_node.kill_raylet()
        assert driver.wait(timeout=120) != 0
        cluster.shutdown()
        cluster = start()
        done = guidedflow("study", "run", plan, "--engine", "ray", "--address", cluster.address, timeout=600)
    assert done.returncode == 0, done.stderr
    assert_same_runs(plan, undisturbed)
    assert len(trainers.most) == JOBS
    assert set(trainers.most.values()) == {1}
