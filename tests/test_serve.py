"""A served policy, as its clients see it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import msgpack
import numpy as np
import pytest
import websockets
from conftest import guidedflow, own_arrays
from test_export import SMALL
from websockets.sync.client import connect

import guidedflow as gf
from guidedflow.deploy.serve import answers_together

TOKEN = "a long secret"
OBSERVATION = np.float32([0.1, -0.2, 0.3, 0.4])
pytestmark = pytest.mark.slow  # Each starts or asks a process of its own.


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    run = gf.train(dataset=gf.Dataset.from_arrays(**own_arrays()), agent="gfp", run_dir=folder / "run", **SMALL)
    return gf.export(run.path, folder / "out", noise="zero").path


@contextlib.contextmanager
def serving(path, *options, token=None):
    """The process that serves, and its address."""
    environment = {**os.environ, **({"GUIDEDFLOW_TOKEN": token} if token else {})}
    command = [sys.executable, "-m", "guidedflow", "serve", str(path), "--port", "0", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving at ws://"), process.stderr.read()
            yield process, line.removeprefix("serving at ").strip()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address(exported):
    with serving(exported) as (_, address):
        yield address


def packed(array):
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def ask(client, message):
    client.send(message if isinstance(message, str | bytes) else msgpack.packb(message))
    return client.recv(timeout=20)


def actions(answer):
    found = msgpack.unpackb(answer)["actions"]
    return np.frombuffer(found[b"data"], found[b"dtype"]).reshape(found[b"shape"])


def test_an_answer_is_the_policys_action(address, exported):
    with connect(address, compression=None) as client:
        facts = msgpack.unpackb(client.recv())
        assert facts == {
            "policy": "actor",
            "observation": {"observation": [4]},
            "dtype": "float32",
            "action_size": 2,
        }
        found = actions(ask(client, {"observation": packed(OBSERVATION), "prompt": "fold the towel"}))
        assert found.shape == (1, 2)
        np.testing.assert_allclose(found[0], gf.load_policy(exported)(OBSERVATION), rtol=1e-6)
        assert (actions(ask(client, {"observation": OBSERVATION.tolist()})) == found).all()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("text", "message: expected msgpack, found text"),
        (b"\xc1", "message: expected msgpack of arrays"),
        (b"", "message: expected msgpack of arrays"),
        (b"\x91" * 5000, "message: expected msgpack of arrays"),
        ([1, 2], "observation: expected a dictionary, found list"),
        ({}, "observation: expected an entry 'observation', found none"),
        ({"observation": packed(OBSERVATION[:3])}, "observation: expected shape (4,), found (3,)"),
        ({"observation": packed(np.zeros((3, 4), np.float32))}, "observation: expected shape (4,), found (3, 4)"),
        ({"observation": packed(OBSERVATION) | {b"shape": [2**40]}}, "16 bytes for an array of shape"),
        ({"observation": packed(OBSERVATION) | {b"shape": [-1]}}, "16 bytes for an array of shape"),
        ({"observation": packed(OBSERVATION) | {b"dtype": "O"}}, "an array of object"),
        ({"observation": packed(OBSERVATION) | {b"dtype": "nonsense"}}, "message: expected msgpack of arrays"),
        ({"observation": {b"__ndarray__": True}}, "message: expected msgpack of arrays"),
        ({"observation": packed(OBSERVATION * np.nan)}, "observation: expected finite numbers"),
        ({"observation": [[1], [1, 2]]}, "inhomogeneous"),
        ({"observation": None}, "observation: expected"),
        ({"observation": ["a", "b", "c", "d"]}, "observation: expected numbers"),
    ],
)
def test_malformed_messages_are_answered_and_the_server_lives(message, told, address):
    with connect(address, compression=None) as client:
        client.recv()
        answer = ask(client, message)
        assert isinstance(answer, str)
        assert told in answer
        assert "\n" not in answer
        assert actions(ask(client, {"observation": packed(OBSERVATION)})).shape == (1, 2)


def test_a_run_is_served_too(exported):
    options = ("--checkpoint", "best", "--policy", "vabc")
    with serving(exported.parent / "run", *options) as (_, address), connect(address, compression=None) as client:
        assert msgpack.unpackb(client.recv())["policy"] == "vabc"
        assert actions(ask(client, {"observation": packed(OBSERVATION)})).shape == (1, 2)


def test_of_a_batch_only_those_who_are_wrong_are_told(exported):
    policy = gf.load_policy(exported)
    right, wrong = {"observation": OBSERVATION}, {"observation": OBSERVATION * np.nan}
    first, second, third = answers_together(policy, [right, wrong, {"observation": -OBSERVATION}])
    assert "expected finite numbers" in second
    np.testing.assert_allclose(actions(first)[0], policy(OBSERVATION), rtol=1e-6)
    np.testing.assert_allclose(actions(third)[0], policy(-OBSERVATION), rtol=1e-6)


def test_many_clients_are_answered_each_with_its_own_action(address, exported):
    async def one(number):
        async with websockets.connect(address, compression=None) as client:
            await client.recv()
            found = []
            for _ in range(5):
                await client.send(msgpack.packb({"observation": packed(OBSERVATION * number)}))
                found.append(actions(await client.recv())[0])
            return found

    async def all_of_them():
        return await asyncio.gather(*map(one, range(20)))

    policy = gf.load_policy(exported)
    for number, found in enumerate(asyncio.run(all_of_them())):
        np.testing.assert_allclose(found, [policy(OBSERVATION * np.float32(number))] * 5, atol=1e-6)


def test_what_is_too_large_ends_that_connection_alone(address):
    with connect(address, compression=None) as client:
        client.recv()
        with pytest.raises(websockets.ConnectionClosedError):
            ask(client, b"\0" * (2**24 + 1))
    with connect(address, compression=None) as client:
        client.recv()
        assert actions(ask(client, {"observation": packed(OBSERVATION)})).shape == (1, 2)


def test_its_health_is_asked_for_over_http(address):
    assert urllib.request.urlopen(address.replace("ws:", "http:") + "/healthz", timeout=10).read() == b"ok\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_though_clients_are_there(number, exported):
    with serving(exported) as (process, address), connect(address, compression=None) as client:
        client.recv()
        began = time.monotonic()
        process.send_signal(number)
        with pytest.raises(websockets.ConnectionClosed):
            client.recv(timeout=20)
        assert process.wait(20) == 0
        assert time.monotonic() - began < 10
        assert process.stderr.read() == ""


def test_other_machines_need_a_token(exported):
    done = guidedflow("serve", exported, "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "token: expected one, for 0.0.0.0 can be reached from other machines" in done.stderr
    with serving(exported, "--host", "0.0.0.0", token=TOKEN) as (_, address):
        address = address.replace("0.0.0.0", "127.0.0.1")
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "Api-Key é"}):
            with pytest.raises(websockets.InvalidStatus, match="401"):
                connect(address, compression=None, additional_headers=headers)
        with connect(address, compression=None, additional_headers={"Authorization": f"Api-Key {TOKEN}"}) as client:
            client.recv()
            assert actions(ask(client, {"observation": packed(OBSERVATION)})).shape == (1, 2)


def test_a_port_that_is_taken_is_told_in_one_line(exported):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = guidedflow("serve", exported, "--port", port)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"127.0.0.1:{port}: expected an address to listen at, found" in done.stderr
    assert guidedflow("serve", exported, "--port", 70000).returncode == 2


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager")  # Said of the client.
def test_openpis_own_client_is_answered(address, exported):
    client = pytest.importorskip(
        "openpi_client.websocket_client_policy",
        reason="pip install --no-deps openpi-client (it asks for numpy 1, and works with 2)",
    )
    from openpi_client.action_chunk_broker import ActionChunkBroker

    policy = client.WebsocketClientPolicy(host=address)
    assert policy.get_server_metadata()["policy"] == "actor"
    wanted = gf.load_policy(exported)(OBSERVATION)
    np.testing.assert_allclose(policy.infer({"observation": OBSERVATION})["actions"][0], wanted, rtol=1e-6)
    broker = ActionChunkBroker(policy, action_horizon=1)
    np.testing.assert_allclose(broker.infer({"observation": OBSERVATION})["actions"], wanted, rtol=1e-6)
    with pytest.raises(RuntimeError, match=r"expected shape \(4,\)"):
        policy.infer({"observation": OBSERVATION[:2]})
