"""Exported policies: their graphs beside JAX, the folder, the program that needs no JAX, and files of strangers."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from conftest import guidedflow, own_arrays
from onnx import helper, numpy_helper
from test_own_environment import Line, line_data

import guidedflow as gf
from guidedflow.agents import AGENTS, find_agent
from guidedflow.agents.agent import acting
from guidedflow.agents.rebrac import ReBRAC
from guidedflow.graphs.acting import acting_graph
from guidedflow.graphs.check import TOLERANCE, check_graph, tied
from guidedflow.graphs.folder import sha256
from guidedflow.graphs.graph import policy_graph
from guidedflow.graphs.session import GraphSession
from guidedflow.types import ActionRange, Spec

POLICIES = [(agent, policy) for agent in AGENTS for policy in find_agent(agent).policy_names]
RANGE = ActionRange((-2.0, 0.0, 5.0), (2.0, 10.0, 5.0))
SPECS = {
    "vector": Spec((4,), np.dtype("float32"), 3),
    "picture": Spec((9, 10, 6), np.dtype("uint8"), 3),
    "dictionary": Spec((4,), np.dtype("float32"), 3, (("action", (2, 1)), ("noise", ()), ("t1", (1,))), RANGE),
}
SMALL = {"hidden": (8,), "batch_size": 16, "steps": 20, "log_every": 10, "save_every": 10, "eval_every": 20}
SMALL |= {"eval_episodes": 4, "eval_slots": 2, "progress": False}
ONLY = """
import sys
class Only:
    def find_spec(self, name, *_):
        if name.partition('.')[0] not in sys.stdlib_module_names | {'numpy', 'onnxruntime', 'act'}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Only())
"""
WITHOUT_JAX = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition('.')[0] in ('jax', 'jaxlib', 'equinox', 'optax', 'orbax', 'onnx', 'rich', 'tyro'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


def make(agent, spec, **more):
    return gf.make_agent(agent, spec, hidden=(8, 8), **more)


def run_python(code, *arguments, cwd=None):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def line_run(tmp_path_factory):
    """A run on dictionaries and physical actions, in an environment."""
    folder = tmp_path_factory.mktemp("line")
    data = line_data(folder / "line.npz")
    return gf.train(env=Line, dataset=data, agent="gfp", run_dir=folder / "run", seeds=(0, 1), **SMALL).path


@pytest.fixture(scope="module")
def exported(line_run):
    """Its VaBC policy of seed 1, without noise."""
    return gf.export(line_run, line_run.parent / "out", "vabc", seed=1, noise="zero").path


# ------------------------------------------------------------------------------------------------------------- graphs


@pytest.mark.parametrize(
    "kind", ["vector", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dictionary", "picture"))]
)
@pytest.mark.parametrize(("agent", "policy"), POLICIES)
def test_every_policy_of_every_agent_acts_as_in_jax(agent, policy, kind):
    spec = SPECS[kind]
    made = make(agent, spec)
    for noise in ("normal", "zero"):
        built = policy_graph(made, policy, spec, noise=noise)
        onnx.checker.check_model(built.model, full_check=True)
        assert 0 <= check_graph(built, made, policy, spec, noise).largest <= TOLERANCE
        assert noise == "normal" or built.noise is None


@pytest.mark.parametrize(("agent", "policy"), POLICIES)
def test_with_the_same_key_a_graph_acts_as_the_policy_does(agent, policy):
    spec = SPECS["dictionary"]
    made = make(agent, spec)
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    jax_act, graph_act = acting(made, policy), acting_graph(made, policy, spec)
    for call in (0, 7):
        wanted = spec.to_environment(jax_act(observations, jax.random.key(3), call))
        np.testing.assert_allclose(graph_act(observations, jax.random.key(3), call), wanted, rtol=1e-5, atol=1e-5)
    assert (wanted[:, 2] == 5).all()


@pytest.mark.parametrize("name", ["weight", "NaN"])
def test_a_graph_that_acts_otherwise_is_refused(name):
    spec = SPECS["vector"]
    agent = make("gfp", spec)
    built = policy_graph(agent, "vabc", spec)
    changed = built.model.graph.initializer[-1]
    array = numpy_helper.to_array(changed) + (np.float32(1e-3) if name == "weight" else np.float32(np.nan))
    changed.CopyFrom(numpy_helper.from_array(array, changed.name))
    with pytest.raises(gf.RunError, match="expected a graph whose actions differ by at most 1e-05 of their range"):
        check_graph(built, agent, "vabc", spec, "normal")


def test_ties_are_choices_between_values_that_are_the_same_to_rounding():
    values = np.float32([[1, 1, 1], [1, 1 + 1e-6, 0]])
    other = np.float32([[1, 1, 0], [1, 1 - 1e-6, 1]])
    assert tied(values, other).tolist() == [False, True, False]


class Strange(ReBRAC):
    """Draws noise twice, or computes what ONNX has no translation of."""

    how: ClassVar[str] = ""

    def policies(self):
        def act(s, key):
            one, other = jax.random.split(key)
            if self.how == "twice":
                return jax.random.normal(one, (s.shape[0], 3)) + jax.random.normal(other, (s.shape[0], 3))
            if self.how == "uniform":
                return jax.random.uniform(one, (s.shape[0], 3))
            return jnp.sort(self.actor(s), axis=-1)

        return {"actor": act}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("twice", "found more than one call of jax.random.normal"),
        ("uniform", "found random numbers by random_bits; draw noise by jax.random.normal"),
        ("sort", "expected a program that ONNX can hold, found the operation sort"),
    ],
)
def test_programs_without_a_translation_are_refused_in_one_line(how, message, monkeypatch):
    monkeypatch.setattr(Strange, "how", how)
    spec = SPECS["vector"]
    with pytest.raises(gf.SettingsError, match=message):
        policy_graph(gf.make_agent(Strange, spec, hidden=(8,)), "actor", spec)


def test_a_graph_is_as_large_as_its_weights():
    spec = SPECS["vector"]
    for agent, policy, part in (("gfp", "actor", "actor"), ("gfp", "vabc", "flow")):
        made = gf.make_agent(agent, spec, hidden=(256, 256))
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(getattr(made.networks, part)))
        assert policy_graph(made, policy, spec).model.ByteSize() <= 1.1 * weights


# ----------------------------------------------------------------------------------------------------------- folders


@pytest.mark.slow
def test_the_folder_acts_with_numpy_and_onnxruntime_alone(exported):
    policy = gf.load_policy(exported)
    wanted = policy({"place": [0.5], "goal": {"at": [0.0, 0.0]}})
    code = f"{ONLY}from act import Policy; print(*Policy()({{'place': [0.5], 'goal/at': [0.0, 0.0]}}))"
    completed = run_python(code, cwd=exported)
    assert completed.returncode == 0, completed.stderr
    np.testing.assert_allclose(float(completed.stdout), wanted[0], rtol=1e-6)
    completed = run_python(f"{ONLY}import runpy; runpy.run_path('act.py', run_name='__main__')", cwd=exported)
    assert completed.returncode == 0, completed.stderr
    assert -2 <= float(completed.stdout.strip("[]\n ")) <= 2


def test_the_program_draws_the_policys_noise(line_run, tmp_path):
    path = gf.export(line_run, tmp_path / "out").path
    code = f"{ONLY}from act import Policy; p = Policy(); s = {{'place': [0.5], 'goal/at': [0, 0]}}; print(*p(s), *p(s))"
    first, second = map(float, run_python(code, cwd=path).stdout.split())
    assert first != second


def test_an_exported_policy_acts_as_its_run_and_takes_what_that_takes(line_run, exported):
    policy, run = gf.load_policy(exported), gf.load_policy(line_run, "vabc", seed=1)
    assert policy.spec == run.spec
    assert "vabc" in repr(policy)
    batch = {"place": np.linspace(-1, 1, 6)[:, None], "goal": {"at": np.zeros((6, 2))}, "unused": None}
    assert policy(batch).shape == (6, 1)
    assert (policy(batch) == policy(batch)).all()
    assert np.abs(policy(batch)).max() <= 2
    with pytest.raises(gf.DataError, match=r"observation: expected an entry 'goal/at', found place"):
        policy({"place": [0.0]})
    with pytest.raises(gf.SettingsError, match="expected finite numbers"):
        policy({"place": [np.nan], "goal": {"at": [0.0, 0.0]}})
    with pytest.raises(gf.SettingsError, match=r"policy: expected vabc, which .* holds, found 'actor'"):
        gf.load_policy(exported, "actor")
    with pytest.raises(gf.SettingsError, match="seed: expected 1"):
        gf.load_policy(exported, seed=0)


@pytest.mark.slow
def test_a_deterministic_policy_is_the_same_in_a_run_and_exported(tmp_path):
    run = gf.train(dataset=gf.Dataset.from_arrays(**own_arrays()), agent="iql", run_dir=tmp_path / "run", **SMALL)
    found = gf.export(run.path, tmp_path / "deep" / "out", checkpoint=10)
    assert (found.policy, found.step, found.ties) == ("actor", 10, 0)
    observations = np.random.default_rng(0).normal(size=(7, 4))
    wanted = gf.load_policy(run.path, checkpoint=10)(observations)
    np.testing.assert_allclose(gf.load_policy(found.path)(observations), wanted, atol=1e-6)
    saved = json.loads((found.path / "policy.json").read_text())
    assert saved["noise"] is None
    assert saved["run"]["data"]["source"] == "arrays in memory"
    assert str(tmp_path) not in "".join(path.read_text("latin-1") for path in found.path.iterdir())


def test_a_policy_is_loaded_without_jax(exported):
    code = f"""{WITHOUT_JAX}
import numpy as np, guidedflow as gf
policy = gf.load_policy(sys.argv[1])
print(policy({{'place': [0.5], 'goal': {{'at': [0.0, 0.0]}}}}).shape, 'jaxlib' in sys.modules)
"""
    completed = run_python(code, exported)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "(1,) False\n"


def test_the_card_tells_scores_data_settings_and_versions(line_run, exported):
    card = (exported / "README.md").read_text()
    (row,) = [r for r in gf.RunFolder(line_run).evaluations() if (r["policy"], r["seed"]) == ("vabc", 1)]
    assert f"{100 * row['success']:.1f}% [{100 * row['success_low']:.1f}%, {100 * row['success_high']:.1f}%]" in card
    assert f"{row['mean_return']:.1f} [" in card
    assert "line.npz, 48 transitions in 12 episodes" in card
    assert "| flow_steps | `10` |" in card
    assert f"onnx {onnx.__version__}" in card
    assert card.startswith("---\nlibrary_name: guidedflow\n")


# -------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["gfp", pytest.param("ifql", marks=pytest.mark.whole)])
def test_an_exported_graph_is_scored_as_its_run_is(agent, tmp_path):
    data = line_data(tmp_path / "line.npz")
    run = gf.train(env=Line, dataset=data, agent=agent, run_dir=tmp_path / "run", **SMALL)
    through = gf.evaluate(run.path, env=Line, onnx=True, progress=False)
    assert [row["policy"] for row in through] == [row["policy"] for row in run.results]
    out = gf.export(run.path, tmp_path / "out").path
    through += gf.evaluate(out, env=Line, progress=False)
    for row, wanted in zip(through, [*run.results, run.results[0]], strict=True):
        assert row["success"] == wanted["success"]
        np.testing.assert_allclose(row["mean_return"], wanted["mean_return"], rtol=1e-5)
    assert len(gf.RunFolder(run.path).evaluations()) == len(run.results)
    with pytest.raises(gf.RunError, match="give it again"):
        gf.evaluate(out, progress=False)
    with pytest.raises(gf.SettingsError, match="videos: expected 0"):
        gf.evaluate(out, env=Line, videos=1, progress=False)


# --------------------------------------------------------------------------------------------------- the command line


@pytest.mark.slow
def test_the_command_exports_and_says_how_exactly(line_run, tmp_path):
    out = tmp_path / "out"
    done = guidedflow("export", line_run, out, "--policy", "actor", "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert f"exported: actor, step 20: {out}" in done.stdout
    assert "actions differ by at most" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    done = guidedflow("export", line_run, out)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected a new folder for the policy, found something there; choose another" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "flow"}, "policy: expected one of actor, vabc"),
        ({"seed": 5}, "seed: expected one of 0, 1"),
        ({"checkpoint": 7}, "checkpoint: expected latest, best or a step"),
        ({"noise": "none"}, "noise: expected one of normal, zero, found 'none'"),
    ],
)
def test_what_is_not_there_is_not_exported(options, message, line_run, tmp_path):
    with pytest.raises(gf.GuidedflowError, match=message):
        gf.export(line_run, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_without_onnx_a_line_says_what_to_install(line_run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        gf.SettingsError, match=r"expected the package onnx\w*, found none; pip install 'guidedflow\[export"
    ):
        gf.export(line_run, tmp_path / "out")


# ---------------------------------------------------------------------------------------------------------- strangers


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copied")


def resign(folder):
    """Make the checksum that of the graph, as whoever changes both does."""
    saved = json.loads((folder / "policy.json").read_text())
    saved["sha256"]["policy.onnx"] = sha256((folder / "policy.onnx").read_bytes())
    (folder / "policy.json").write_text(json.dumps(saved))


def refused(folder, message):
    with pytest.raises((gf.RunError, gf.DataError), match=message) as failed:
        gf.load_policy(folder)
    assert "\n" not in str(failed.value)


def test_a_changed_graph_is_refused(copied):
    graph = copied / "policy.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(copied, r"policy\.onnx: expected the graph that was exported, found another content")
    graph.write_bytes(b"nonsense")
    resign(copied)
    refused(copied, r"policy\.onnx: expected an ONNX graph, found: ")
    graph.unlink()
    refused(copied, r"policy\.onnx: expected a data file, found nothing there")


def test_a_graph_of_other_shapes_is_refused(copied):
    spec = SPECS["vector"]
    (copied / "policy.onnx").write_bytes(policy_graph(make("iql", spec), "actor", spec).model.SerializeToString())
    resign(copied)
    refused(copied, r"expected a graph from goal/at, place to actions of 1, found one from observation")


def test_a_link_out_of_the_folder_is_not_followed(copied, tmp_path):
    (copied / "policy.onnx").rename(tmp_path / "elsewhere")
    (copied / "policy.onnx").symlink_to(tmp_path / "elsewhere")
    refused(copied, "found a link out of it")


def test_weights_in_another_file_are_not_read(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = onnx.load(copied / "policy.onnx")
    (tmp_path / "secret").write_bytes(np.zeros(1000, np.float32).tobytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    (copied / "policy.onnx").write_bytes(model.SerializeToString())
    resign(copied)
    refused(copied, "expected weights in the graph itself, found some in another file")


def test_an_entry_may_be_called_location():
    spec = Spec((2,), np.dtype("float32"), 1, (("location", (2,)),))
    built = policy_graph(make("iql", spec), "actor", spec)
    session = GraphSession(built.model.SerializeToString(), spec, built.noise, "here")
    assert session(np.zeros((3, 2), np.float32), None).shape == (3, 1)


def test_an_operator_of_a_stranger_is_refused(copied):
    model = onnx.load(copied / "policy.onnx")
    model.graph.node.append(helper.make_node("Shell", [], ["x"], domain="stranger"))
    model.opset_import.append(helper.make_opsetid("stranger", 1))
    (copied / "policy.onnx").write_bytes(model.SerializeToString())
    resign(copied)
    refused(copied, "expected an ONNX graph, found: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "expected an exported policy of format 1, found 2"),
        ({"seed": -1}, "expected a count, found -1"),
        ({"step": "x"}, "expected a count, found 'x'"),
        ({"noise": {"name": "noise", "shape": [2**30, "batch", 1]}}, "numbers of noise"),
        ({"noise": 3}, "expected an exported policy, found"),
        ({"run": {}}, "found: no 'data'"),
        ({"sha256": []}, "expected an exported policy, found"),
        ({"variant": "alpha"}, "expected a variant such as alpha=0.3"),
    ],
)
def test_a_damaged_description_is_refused(change, message, copied):
    file = copied / "policy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(copied, message)


def test_what_is_no_json_is_refused(copied):
    (copied / "policy.json").write_text("[" * 100_000)
    refused(copied, r"policy\.json: expected JSON")
    (copied / "policy.json").write_text("[]")
    refused(copied, "expected an exported policy of format 1, found 'list'")


# --------------------------------------------------------------------------------------------------------------- docs

DEPLOY = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")


def example(text):
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", DEPLOY, re.S) if text in block]
    return block


@pytest.fixture
def from_folder(exported, monkeypatch):
    """``act`` as a program in the exported folder imports it."""
    monkeypatch.syspath_prepend(str(exported))
    yield gf.load_policy(exported)
    sys.modules.pop("act", None)


def test_the_loop_of_the_docs_commands_the_arm_at_its_rate(from_folder):
    observation = {"place": np.float32([0.5]), "goal/at": np.zeros(2, np.float32)}
    commands = []
    arm = SimpleNamespace(is_on=lambda: len(commands) < 10, state=lambda: observation, command=commands.append)
    began = time.perf_counter()
    exec(example("arm.command"), {"arm": arm})
    assert time.perf_counter() - began >= 10 / 50
    np.testing.assert_allclose(commands, [from_folder(observation)] * 10)


def test_the_node_of_the_docs_acts_on_the_newest_state(monkeypatch):
    made, seen = [], []

    class Node:
        def __init__(self, name):
            made.append(self)

        def create_publisher(self, kind, topic, depth):
            return SimpleNamespace(publish=lambda message: self.published.append(message.data))

        def create_subscription(self, kind, topic, callback, depth):
            self.on_message = callback

        def create_timer(self, period, callback):
            self.period, self.on_timer = period, callback

    def spin(node):
        node.published = []
        node.on_timer()
        assert node.published == []  # Nothing has been seen yet.
        for place in (0.1, 0.5):
            node.on_message(SimpleNamespace(position=[place], velocity=[]))
        node.on_timer()

    message = SimpleNamespace
    modules = {
        "rclpy": SimpleNamespace(init=lambda: None, spin=spin),
        "rclpy.node": SimpleNamespace(Node=Node),
        "sensor_msgs": SimpleNamespace(),
        "sensor_msgs.msg": SimpleNamespace(JointState=message),
        "std_msgs": SimpleNamespace(),
        "std_msgs.msg": SimpleNamespace(Float64MultiArray=message),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def policy(state):
        seen.append(state)
        return np.float32([1.5])

    monkeypatch.setitem(sys.modules, "act", SimpleNamespace(Policy=lambda: policy))
    exec(example("rclpy"), {"__name__": "__main__"})
    (node,) = made
    assert node.period == 1 / 50
    assert seen == [[0.5]]
    assert node.published == [[1.5]]
