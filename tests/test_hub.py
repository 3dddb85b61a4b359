"""Policies on the hub, which a local server stands in for: what huggingface_hub asks of it, and no more."""

import base64
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from conftest import guidedflow, own_arrays
from test_export import SMALL

import guidedflow as gf

NAME = "someone/arm-policy"
TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if name in self.server.repositories:
                return self.answer(409, {"error": "You already created this model repo", "url": self.url(name)})
            self.server.repositories[name], self.server.private[name] = {}, asked.get("visibility") == "private"
            return self.answer(200, {"url": self.url(name), "name": name})
        if path == f"/api/models/{NAME}/preupload/main":
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": [file | {"shouldIgnore": False} for file in files]})
        if path == f"/api/models/{NAME}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "header":
                    self.server.commits.append(line["value"]["summary"])
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[NAME][line["value"]["path"]] = content
            url = self.url(f"{NAME}/commit/{self.commit()}")
            return self.answer(200, {"success": True, "commitOid": self.commit(), "commitUrl": url})
        return self.answer(200, {})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        files = self.server.repositories.get(NAME)
        if files is None or NAME not in path:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if path.startswith(f"/api/models/{NAME}/tree/"):
            return self.answer(200, [{"type": "file", "path": name, **self.facts(name)} for name in files])
        if path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": name} for name in files]
            return self.answer(200, {"id": NAME, "sha": self.commit(), "siblings": siblings})
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name not in files:
            return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        return self.answer(200, files[name], ETag=f'"{self.facts(name)["oid"]}"', X_Repo_Commit=self.commit())

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def facts(self, name):
        content = self.server.repositories[NAME][name]
        return {"size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def commit(self):
        return hashlib.sha1(repr(sorted(self.server.repositories[NAME].items())).encode()).hexdigest()

    def answer(self, status, body, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/octet-stream" if body is content else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ask(hub, tmp_path):
    """The command, as a user who is logged in at that hub."""
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": TOKEN}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def call(*words, **more):
        return guidedflow(*words, env=environment | more, cwd=tmp_path)

    return call


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    run = gf.train(dataset=gf.Dataset.from_arrays(**own_arrays()), agent="iql", run_dir=folder / "run", **SMALL)
    return gf.export(run.path, folder / "out").path


@pytest.mark.slow
def test_a_policy_goes_to_the_hub_and_comes_back_the_same(exported, hub, ask, tmp_path):
    (exported / "notes.txt").write_text("mine")
    done = ask("push", exported, NAME, "--private")
    (exported / "notes.txt").unlink()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"pushed: http://127.0.0.1:{hub.server_port}/{NAME}\n"
    assert hub.private == {NAME: True}
    assert hub.commits == ["actor of iql on arrays in memory, step 20"]
    files = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert hub.repositories[NAME] == files
    assert ask("push", exported, NAME).returncode == 0  # Again, where there is one.

    done = ask("pull", NAME, tmp_path / "pulled")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()} == files
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("pulled")) == ["pulled"]
    np.testing.assert_array_equal(gf.load_policy(tmp_path / "pulled")(np.ones(4)), gf.load_policy(exported)(np.ones(4)))
    done = ask("evaluate", f"hf://{NAME}")  # It is found; its run had no environment.
    assert "policies/someone--arm-policy: expected a run with an environment to evaluate in" in done.stderr


@pytest.mark.slow
def test_what_the_hub_refuses_or_holds_is_told_in_one_line(exported, hub, ask, tmp_path):
    done = ask("pull", NAME, tmp_path / "pulled")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"hf://{NAME}: expected a policy on the hub, found: " in done.stderr
    done = ask("push", exported, NAME, HF_TOKEN="hf_wrong")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{NAME}: expected a hub that takes the policy, found: " in done.stderr
    assert "401" in done.stderr
    assert hub.repositories == {}
    files = {path.name: path.read_bytes() for path in exported.iterdir()}
    hub.repositories[NAME] = files | {"policy.onnx": files["policy.onnx"][:-1] + b"x"}
    done = ask("pull", NAME, tmp_path / "pulled")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "expected the graph that was exported, found another content" in done.stderr
    done = ask("push", tmp_path, NAME)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = ask("pull", NAME, tmp_path / "pulled", HF_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert [path for path in tmp_path.iterdir() if path.name.startswith("pulled")] == []
