"""Minari's downloads from a local server that speaks as the Hugging Face hub does, and misbehaves.

The minari package downloads through huggingface_hub, which takes the hub's address from a constant (``HF_ENDPOINT``).
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

import guidedflow as gf
from guidedflow.cli import main
from guidedflow.errors import DataError, SettingsError
from guidedflow.suites import minari as suite

TASK = "mujoco/hopper/simple-v0"
DATA = "hopper/simple-v0/data/main_data.hdf5"
METADATA = "hopper/simple-v0/data/metadata.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, bytes]:
    """The files of the hub's repository ``farama-minari/mujoco``, made by the minari package itself."""
    root = tmp_path_factory.mktemp("published")
    gf.generate(TASK, stand_in="random", data_dir=root, episodes=20)
    folder = root / "mujoco"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    namespace = json.dumps({"datasets": [TASK], "namespaces": ["mujoco/hopper"]}).encode()
    return {**files, "namespace_metadata.json": namespace, "hopper/namespace_metadata.json": b"{}"}


class Hub(ThreadingHTTPServer):
    """Serves one repository; ``instead`` may answer a request in another way."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.instead: dict[str, Callable[[Handler, bytes], None]] = {}
        self.requests: list[str] = []
        self.sending = threading.Event()
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.server.requests.append(f"{self.command} {path}")
        repository = "farama-minari/mujoco"
        if path == "/signin":
            return self.answer(200, PAGE, Content_Type="text/html")
        if path == "/api/datasets":
            wanted = parse_qs(url.query)
            found = wanted["author"] == ["farama-minari"] and "mujoco" in wanted.get("search", ["mujoco"])[0]
            body = json.dumps([{"id": repository}] if found else []).encode()
        elif path == f"/api/datasets/{repository}/revision/main":
            body = json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode()
        elif path.startswith(f"/api/datasets/{repository}/tree/"):
            body = json.dumps([self.entry(name) for name in self.server.files]).encode()
        else:
            name = path.partition("/resolve/")[2].partition("/")[2]
            if name not in self.server.files:
                return self.answer(404, b"Entry not found", X_Error_Code="EntryNotFound")
            body = self.server.files[name]
            if name in self.server.instead:
                return self.server.instead[name](self, body)
            return self.answer(200, body, ETag=f'"{self.entry(name)["oid"]}"', X_Repo_Commit=COMMIT)
        if "api" in self.server.instead:
            return self.server.instead["api"](self, body)
        return self.answer(200, body, Content_Type="application/json")

    def entry(self, name: str) -> dict[str, object]:
        content = self.server.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def answer(self, status: int, body: bytes, *, stop: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stop])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def data(change: Callable[[bytes], bytes] = lambda body: body, stop: int | None = None):
    """Answer with changed content under the right name, or stop after some bytes."""

    def answer(request: Handler, body: bytes) -> None:
        tag = f'"{hashlib.sha1(body).hexdigest()}"'
        request.answer(200, change(body), stop=stop, ETag=tag, X_Repo_Commit=COMMIT)

    return answer


def stalled(request: Handler, body: bytes) -> None:
    data(stop=len(body) // 2)(request, body)
    if request.command == "GET":
        request.server.sending.set()
        request.server.released.wait(3)


def status(code: int):
    return lambda request, body: request.answer(code, b"no")


def page(request: Handler, body: bytes) -> None:
    request.answer(200, PAGE, Content_Type="text/html", ETag='"page"')


def to_page(request: Handler, body: bytes) -> None:
    request.answer(302, b"", Location=f"{request.server.address}/signin", X_Repo_Commit=COMMIT)


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    with Hub(files) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            hub.shutdown()
            thread.join()


@pytest.fixture
def hub(published, tmp_path, monkeypatch) -> Iterator[Hub]:
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    class Impatient:
        """The client's module ``time``, without the 24 seconds of its pauses."""

        sleep = staticmethod(lambda seconds: None)

        def __getattr__(self, name: str) -> object:
            return getattr(time, name)

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MINARI_REMOTE", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", Impatient())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 2)
    with serving(published) as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        yield hub


def left(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def assert_fails(root: Path, reason: str) -> str:
    with pytest.raises(DataError, match=reason) as caught:
        suite.fetch(TASK, root)
    message = str(caught.value)
    assert message.startswith(f"{root / TASK}: not downloaded: ")
    assert "\n" not in message
    assert ".partial" not in message
    assert not (root / TASK).exists()
    assert left(root) == []
    return message


def test_a_data_set_is_downloaded_and_takes_its_name_whole(hub, published, tmp_path, capsys):
    root = tmp_path / "data"
    path = suite.fetch(TASK, root)
    assert path == root / TASK
    assert left(root) == [f"mujoco/{name}" for name in sorted(published) if name.startswith("hopper/simple-v0/")]
    assert gf.load_dataset(TASK, root).size > 100
    assert capsys.readouterr().out == ""
    asked = len(hub.requests)
    with pytest.raises(SystemExit) as stop:
        main(["data", "fetch", TASK, "--data-dir", str(root)])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert len(hub.requests) == asked  # What is there is read, and not asked for.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        ({"api": status(404)}, r"404 Not Found"),
        ({"api": status(500)}, r"500 Internal Server Error"),
        ({"api": page}, r"answer is no JSON; a web page perhaps"),
        ({"api": to_page}, r"answer is no JSON; a web page perhaps"),
        ({DATA: status(404)}, r"404 Not Found"),
        ({DATA: status(500)}, r"500 Internal Server Error"),
        ({DATA: page}, r"does not seem to be served by a Hugging Face Hub"),
        ({DATA: to_page}, r"does not seem to be served by a Hugging Face Hub"),
        (
            {DATA: data(lambda body: PAGE.ljust(len(body)))},
            r"what came: expected a whole Minari data set, found: .*file",
        ),
        (
            {DATA: data(lambda body: body[: len(body) // 2])},
            r"what came: expected a whole Minari data set, .*truncated",
        ),
        (
            {DATA: data(lambda body: body[: len(body) // 2].ljust(len(body)))},
            r"what came: expected a whole Minari data",
        ),
        ({DATA: data(stop=1000)}, r"closed connection without sending .*\(received 1000 bytes"),
        ({DATA: stalled}, r"timed out"),
        ({METADATA: page}, r"does not seem to be served by a Hugging Face Hub"),
        ({"namespace_metadata.json": page}, r"Couldn't find any version .*Skipping farama-minari/mujoco"),
    ],
)
def test_a_server_that_misbehaves_leaves_nothing_and_the_next_call_succeeds(hub, tmp_path, instead, reason):
    root = tmp_path / "data"
    hub.instead |= instead
    assert_fails(root, reason)
    hub.instead.clear()
    suite.fetch(TASK, root)
    assert gf.load_dataset(TASK, root).size > 100


def test_a_truncated_data_file_of_the_stated_size_fails_its_check(hub, tmp_path):
    hub.files[DATA] = hub.files[DATA][: len(hub.files[DATA]) // 2]  # Its size and checksum are those stated.
    assert_fails(tmp_path / "data", r"what came: expected a whole Minari data set, found: .*truncated")


def test_a_server_that_is_down_is_one_line(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    with Hub({}) as gone:
        monkeypatch.setattr(constants, "ENDPOINT", gone.address)
    assert_fails(tmp_path / "data", r"refused.*; try again later$")


def test_a_data_set_that_the_server_does_not_have_is_one_line(hub, tmp_path):
    hub.files["namespace_metadata.json"] = b"{}"
    assert_fails(tmp_path / "data", r"Couldn't find any version for dataset mujoco/hopper/simple")


def test_an_unknown_id_names_the_nearest(hub, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "fetch", "mujoco/hoper/simple-v0", "--data-dir", str(tmp_path)])
    assert stop.value.code == 2
    assert "found 'mujoco/hoper/simple-v0'; nearest: mujoco/hopper/simple-v0" in capsys.readouterr().err
    assert hub.requests == []


def test_a_damaged_data_set_that_is_there_is_neither_used_nor_touched(hub, published, tmp_path):
    path = tmp_path / TASK / "data"
    path.mkdir(parents=True)
    for name, content in (("metadata.json", published[METADATA]), ("main_data.hdf5", b"")):
        (path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"expected a whole Minari data set, found.*; move it away to download it anew"):
        suite.fetch(TASK, tmp_path)
    (path / "main_data.hdf5").unlink()
    with pytest.raises(DataError, match=r"hopper/simple-v0: expected .*; move it away to download it anew"):
        suite.fetch(TASK, tmp_path)
    assert (left(tmp_path), hub.requests) == ([f"{TASK}/data/metadata.json"], [])


def test_without_the_packages_extra_hf_the_line_says_how_to_get_it(hub, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "minari.storage.remotes.huggingface", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = assert_fails(tmp_path, r'pip install "minari\[hf\]"')
    assert "try again" not in message


@pytest.mark.parametrize("remote", ["farama-minari", "ftp://farama-minari", "hf://"])
def test_a_remote_of_another_kind_is_refused(hub, tmp_path, monkeypatch, remote):
    monkeypatch.setenv("MINARI_REMOTE", remote)
    with pytest.raises(SettingsError, match=r"^MINARI_REMOTE: expected hf://NAME or gcp://NAME, found '"):
        suite.fetch(TASK, tmp_path)


def test_a_download_that_is_killed_leaves_nothing_under_the_name_and_the_next_one_starts_anew(hub, tmp_path):
    root = tmp_path / "data"
    hub.instead[DATA] = stalled
    program = "import sys; from pathlib import Path; from guidedflow.suites.minari import fetch; "
    program += f"fetch({TASK!r}, Path(sys.argv[1]))"
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    with subprocess.Popen([sys.executable, "-c", program, str(root)], env=environment) as process:
        assert hub.sending.wait(30)
        process.send_signal(signal.SIGKILL)
    assert not (root / TASK).exists()
    assert left(root / ".partial") != []
    hub.instead.clear()
    suite.fetch(TASK, root)
    assert [name for name in left(root) if not name.startswith(TASK)] == []
    assert gf.load_dataset(TASK, root).size > 100


def test_ctrl_c_leaves_nothing(hub, tmp_path, monkeypatch):
    import minari

    def interrupted(dataset: str) -> None:
        folder = Path(os.environ["MINARI_DATASETS_PATH"]) / dataset / "data"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(minari, "download_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suite.fetch(TASK, tmp_path)
    assert left(tmp_path) == []


def test_two_at_once_download_once(hub, tmp_path):
    threads = [threading.Thread(target=suite.fetch, args=(TASK, tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(request.startswith("GET") and request.endswith(DATA) for request in hub.requests) == 1
    assert gf.load_dataset(TASK, tmp_path).size > 100
