"""The downloader against a local server that misbehaves in each of the ways that real ones do."""

import errno
import hashlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from rich.console import Console

from guidedflow.data import download as module
from guidedflow.data.download import download, progress_bar, verify_npz
from guidedflow.errors import DataError
from guidedflow.suites.d4rl import download as d4rl
from guidedflow.suites.ogbench import download as ogbench

NO_WAIT = (0.0, 0.0, 0.0)


def npz_bytes(steps: int = 10_000, **arrays: np.ndarray) -> bytes:
    generator = np.random.default_rng(0)
    buffer = io.BytesIO()
    data = {
        "observations": generator.normal(size=(steps, 8)),
        "actions": generator.normal(size=(steps, 2)),
        "terminals": np.zeros(steps),
    }
    np.savez(buffer, **(data | arrays))
    return buffer.getvalue()


GOOD = npz_bytes()
HALF = len(GOOD) // 2
PAGE = b"<!DOCTYPE html><title>moved</title>"


class Handler(BaseHTTPRequestHandler):
    """Each path has a queue of behaviours, one a request; the last one stays. Requests never overlap."""

    server: "Server"

    def do_GET(self) -> None:
        queue = self.server.behaviours.get(self.path, [missing])
        # Noted before the answer: a test may look as soon as it has the last byte.
        self.server.log.append((self.path, self.headers["Range"], 0))
        (queue.pop(0) if len(queue) > 1 else queue[0])(self)
        self.close_connection = True

    def answer(self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.server.log[-1] = (self.path, self.headers["Range"], len(body))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours: dict[str, list[Callable[[Handler], None]]] = {}
        self.log: list[tuple[str, str | None, int]] = []
        self.released = threading.Event()
        self.arrived = threading.Event()

    def serves(self, path: str, *behaviours: Callable[[Handler], None]) -> str:
        self.behaviours[path] = list(behaviours)
        return f"http://127.0.0.1:{self.server_port}{path}"


def missing(request: Handler) -> None:
    request.answer(404, PAGE, Content_Type="text/html")


def failing(request: Handler) -> None:
    request.answer(500, b"no")


def page(request: Handler) -> None:
    request.answer(200, PAGE, Content_Type="text/html; charset=utf-8")


def disguised_page(request: Handler) -> None:
    request.answer(200, b"\n" + PAGE, Content_Type="application/octet-stream")


def to_page(request: Handler) -> None:
    request.answer(302, Location="/page.html")


def whole(body: bytes, etag: str = '"1"') -> Callable[[Handler], None]:
    """A plain server that ignores Range."""
    return lambda request: request.answer(200, body, ETag=etag)


def chunked(request: Handler) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD))


def ranged(body: bytes, etag: str | None = '"1"', *, stop: int = 0, if_range: bool = True) -> Callable[[Handler], None]:
    """A server that resumes, sends at most `stop` bytes if given, and may ignore If-Range."""

    def behave(request: Handler) -> None:
        headers = {"ETag": etag} if etag else {}
        wanted = request.headers["Range"]
        condition = request.headers["If-Range"]
        # A weak tag never matches in If-Range (RFC 9110, 13.1.5).
        if condition and if_range and (condition != etag or condition.startswith("W/")):
            wanted = None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(body):
            request.answer(416, PAGE, Content_Type="text/html", Content_Range=f"bytes */{len(body)}")
            return
        rest = body[start:]
        if wanted:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        part = rest[:stop] if stop else rest
        request.answer(206 if wanted else 200, part, length=len(rest), **headers)

    return behave


def stalled(request: Handler) -> None:
    ranged(GOOD, stop=HALF)(request)
    request.server.released.wait(10)


def held(request: Handler) -> None:
    request.server.arrived.set()
    request.server.released.wait(10)
    ranged(GOOD)(request)


broken = ranged(GOOD, stop=HALF)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "cube-v0.npz"


def get(file: Path, *urls: str, **options: object) -> Path:
    settings = {"verify": verify_npz, "timeout": 5.0, "pauses": NO_WAIT} | options
    return download(urls, file, **settings)  # type: ignore[arg-type]


def assert_complete(file: Path) -> None:
    assert file.read_bytes() == GOOD
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, f"{file.name}.sha256"]
    assert record(file).read_text() == f"{hashlib.sha256(GOOD).hexdigest()}  {file.name}\n"


def record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def assert_fails(file: Path, *urls: str, **options: object) -> str:
    """The message of a download that must fail, with nothing under the final name."""
    with pytest.raises(DataError) as caught:
        get(file, *urls, **options)
    message = str(caught.value)
    assert not file.exists()
    assert not file.with_name(file.name + ".lock").exists()
    assert "\n" not in message
    assert message.startswith(f"{file}: not downloaded: ")
    assert all(url in message for url in urls)
    return message


def part_of(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def test_a_file_that_is_no_longer_the_one_that_was_downloaded(server: Server, file: Path) -> None:
    other = npz_bytes(9_000)
    url = server.serves("/a", whole(GOOD))
    get(file, url)
    file.write_bytes(other)
    with pytest.raises(
        DataError, match=r"cube-v0.npz: expected the file that was downloaded first, of SHA-256"
    ) as error:
        get(file, url)
    assert hashlib.sha256(other).hexdigest() in str(error.value)
    assert file.read_bytes() == other
    record(file).unlink()  # It is the user's own then.
    assert get(file, url).read_bytes() == other
    assert not record(file).exists()


def test_a_file_that_was_published_anew(server: Server, file: Path) -> None:
    url = server.serves("/a", whole(GOOD))
    get(file, url)
    file.unlink()
    server.serves("/a", whole(npz_bytes(9_000)))
    assert "cube-v0.npz: not downloaded: " in assert_fails(file, url)
    with pytest.raises(DataError, match=r"if it was published anew, remove the \.sha256 beside it"):
        get(file, url)
    assert not file.exists()
    record(file).unlink()
    assert get(file, url).read_bytes() == npz_bytes(9_000)


def test_a_record_that_is_none(server: Server, file: Path) -> None:
    file.parent.mkdir()
    for text in ("", "good", "f" * 64):
        record(file).write_text(text)
        with pytest.raises(DataError, match=r"cube-v0.npz.sha256: expected the SHA-256 of cube-v0.npz, found"):
            get(file, server.serves("/a", whole(GOOD)))
    record(file).unlink()
    os.mkfifo(record(file))
    with pytest.raises(DataError, match=r"cube-v0.npz.sha256: expected a data file, found a pipe"):
        get(file, server.serves("/a", whole(GOOD)))


@pytest.mark.parametrize("behaviour", [ranged(GOOD), whole(GOOD), chunked])
def test_a_good_server(server: Server, file: Path, behaviour: Callable[[Handler], None]) -> None:
    assert get(file, server.serves("/a", behaviour)) == file
    assert_complete(file)


def test_an_existing_file_costs_no_request(server: Server, file: Path) -> None:
    url = server.serves("/a", ranged(GOOD))
    get(file, url)
    get(file, url)
    assert len(server.log) == 1


def test_an_existing_file_that_is_damaged_is_neither_used_nor_touched(server: Server, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(GOOD[:HALF])
    with pytest.raises(DataError, match=r"expected a whole npz archive.*move it away to download it anew"):
        get(file, server.serves("/a", whole(GOOD)))
    assert (file.read_bytes(), server.log) == (GOOD[:HALF], [])


def test_a_broken_transfer_fetches_only_the_missing_bytes(server: Server, file: Path) -> None:
    get(file, server.serves("/a", broken, ranged(GOOD)))
    assert_complete(file)
    assert server.log == [("/a", None, HALF), ("/a", f"bytes={HALF}-", len(GOOD) - HALF)]


def test_a_later_call_resumes(server: Server, file: Path) -> None:
    url = server.serves("/a", broken, ranged(GOOD))
    assert "run it again to resume" in assert_fails(file, url, pauses=())
    get(file, url)
    assert_complete(file)
    assert server.log[1] == ("/a", f"bytes={HALF}-", len(GOOD) - HALF)


def test_a_server_without_ranges_is_asked_for_everything_again(server: Server, file: Path) -> None:
    get(file, server.serves("/a", broken, whole(GOOD)))
    assert_complete(file)
    assert server.log[1] == ("/a", f"bytes={HALF}-", len(GOOD))


def test_a_server_that_always_stops(server: Server, file: Path) -> None:
    stopping = ranged(GOOD, stop=1000)
    message = assert_fails(file, server.serves("/a", stopping))
    assert f"stopped after {1000 * (1 + len(NO_WAIT))} of {len(GOOD)} bytes" in message


def test_a_stall_ends_at_the_timeout_and_is_resumed(server: Server, file: Path) -> None:
    get(file, server.serves("/a", stalled, ranged(GOOD)), timeout=0.3)
    assert_complete(file)
    assert server.log[1] == ("/a", f"bytes={HALF}-", len(GOOD) - HALF)


def test_a_stall_that_stays(server: Server, file: Path) -> None:
    assert "timed out" in assert_fails(file, server.serves("/a", stalled), timeout=0.2, pauses=())
    assert part_of(file).stat().st_size == HALF


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (missing, "HTTP 404 Not Found"),
        (failing, "HTTP 500"),
        (page, "a web page"),
        (lambda request: request.answer(200, b"Moved.", Content_Type="text/html"), "a web page"),
        (disguised_page, "a web page"),
        (to_page, "page.html) came instead"),
        (lambda request: request.answer(302, Location="/a"), "HTTP 302"),
        (lambda request: request.answer(204), "before the first byte"),
        (lambda request: request.wfile.write(b"SSH-2.0\r\n\r\n"), "no answer"),
        (lambda request: None, "no answer"),
        (whole(GOOD[:HALF]), "whole npz archive"),
        (whole(GOOD[:HALF] + b"\0\0\0\0" + GOOD[HALF + 4 :]), "Bad CRC-32 for file 'observations.npy'"),
        (whole(npz_bytes(terminals=np.zeros(9))), "found 10000, 10000, 9"),
    ],
)
def test_a_server_of_no_use(server: Server, file: Path, behaviour: Callable[[Handler], None], reason: str) -> None:
    server.serves("/page.html", page)
    url = server.serves("/a", behaviour)
    message = assert_fails(file, url)
    assert reason in message
    assert "try later" in message
    assert not list(file.parent.iterdir())
    get(file, url, server.serves("/mirror", ranged(GOOD)))
    assert_complete(file)


def test_a_server_that_is_down_is_tried_once(server: Server, file: Path) -> None:
    with Server() as other:
        down = other.serves("/a", ranged(GOOD))
    message = assert_fails(file, down, server.serves("/gone", missing), pauses=(3600.0,))
    assert re.search(r"no answer \(.*refused\); .*HTTP 404 Not Found", message)


def test_reconnecting_after_a_break_is_tried_again(server: Server, file: Path) -> None:
    get(file, server.serves("/a", broken, lambda request: None, ranged(GOOD)))
    assert_complete(file)
    assert server.log[2] == ("/a", f"bytes={HALF}-", len(GOOD) - HALF)


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_is_begun_anew(server: Server, file: Path, if_range: bool) -> None:
    old = npz_bytes(steps=9_000)
    changed = ranged(GOOD, '"2"', if_range=if_range)
    get(file, server.serves("/a", ranged(old, '"1"', stop=HALF), changed))
    assert_complete(file)


def test_a_change_is_seen_by_its_size_alone(server: Server, file: Path) -> None:
    old = npz_bytes(steps=9_000)
    get(file, server.serves("/a", ranged(old, None, stop=HALF), ranged(GOOD, None)))
    assert_complete(file)


def test_a_file_that_shrank_below_its_part(server: Server, file: Path) -> None:
    old = npz_bytes(steps=30_000)
    shrunk = ranged(GOOD, if_range=False)
    get(file, server.serves("/a", ranged(old, stop=len(GOOD) + 5), shrunk))
    assert_complete(file)


def test_a_part_is_never_continued_from_another_url(server: Server, file: Path) -> None:
    get(file, server.serves("/a", broken, failing), server.serves("/mirror", ranged(GOOD)))
    assert_complete(file)
    assert server.log[-1] == ("/mirror", None, len(GOOD))
    assert len(server.log) == 3


def test_a_part_from_the_mirror_is_continued_there(server: Server, file: Path) -> None:
    urls = server.serves("/a", failing, ranged(GOOD)), server.serves("/mirror", broken, ranged(GOOD))
    assert_fails(file, *urls, pauses=())
    get(file, *urls)
    assert_complete(file)
    assert server.log[-1] == ("/mirror", f"bytes={HALF}-", len(GOOD) - HALF)


def test_a_web_page_does_not_cost_the_part(server: Server, file: Path) -> None:
    url = server.serves("/a", broken, page, ranged(GOOD))
    assert_fails(file, url)
    get(file, url)
    assert_complete(file)
    assert server.log[-1] == ("/a", f"bytes={HALF}-", len(GOOD) - HALF)


def test_a_weak_tag_is_no_condition(server: Server, file: Path) -> None:
    get(file, server.serves("/a", ranged(GOOD, 'W/"1"', stop=HALF), ranged(GOOD, 'W/"1"')))
    assert_complete(file)
    assert server.log[1] == ("/a", f"bytes={HALF}-", len(GOOD) - HALF)


def test_a_range_other_than_the_one_asked_for(server: Server, file: Path) -> None:
    def from_its_own_start(request: Handler) -> None:
        given = f"bytes 0-{len(GOOD) - 1}/{len(GOOD)}"
        request.answer(206, GOOD, ETag='"1"', Content_Range=given)

    get(file, server.serves("/a", broken, from_its_own_start, ranged(GOOD)))
    assert_complete(file)
    assert server.log[2] == ("/a", None, len(GOOD))


def test_a_record_without_its_part(server: Server, file: Path) -> None:
    url = server.serves("/a", broken, ranged(GOOD))
    assert_fails(file, url, pauses=())
    part_of(file).unlink()
    get(file, url)
    assert_complete(file)


@pytest.mark.parametrize("record", [None, "", "[]", "{}"])
def test_a_part_of_unknown_origin_is_not_continued(server: Server, file: Path, record: str | None) -> None:
    file.parent.mkdir()
    part_of(file).write_bytes(b"PK something else")
    if record is not None:
        part_of(file).with_suffix(".part.json").write_text(record)
    get(file, server.serves("/a", ranged(GOOD)))
    assert_complete(file)
    assert server.log == [("/a", None, len(GOOD))]


def test_ctrl_c_keeps_the_part(server: Server, file: Path) -> None:
    def interrupt(received: int, total: int | None) -> None:
        assert total == len(GOOD)
        if received:
            raise KeyboardInterrupt

    url = server.serves("/a", ranged(GOOD))
    with pytest.raises(KeyboardInterrupt):
        get(file, url, on_progress=interrupt)
    kept = part_of(file).stat().st_size
    assert not file.exists()
    assert 0 < kept < len(GOOD)
    get(file, url)
    assert_complete(file)
    assert server.log[-1] == ("/a", f"bytes={kept}-", len(GOOD) - kept)


def test_ctrl_c_during_the_check_costs_no_second_transfer(server: Server, file: Path) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    url = server.serves("/a", ranged(GOOD))
    with pytest.raises(KeyboardInterrupt):
        get(file, url, verify=interrupt)
    get(file, url)
    assert_complete(file)
    assert [request for request in server.log if request[2] == len(GOOD)] == server.log[:1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk(server: Server, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_write_all", full)
    with pytest.raises(OSError, match=re.escape(str(part_of(file)))) as caught:
        get(file, server.serves("/a", ranged(GOOD)), server.serves("/mirror", ranged(GOOD)))
    assert caught.value.errno == errno.ENOSPC
    assert not file.exists()


def test_a_write_that_stops_half_way_is_resumed(server: Server, file: Path) -> None:
    url = server.serves("/a", ranged(GOOD))
    enough = len(GOOD) - 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (enough, hard))
    try:
        with pytest.raises(OSError, match=re.escape(str(part_of(file)))):
            get(file, url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not file.exists()
    assert part_of(file).stat().st_size == enough
    get(file, url)
    assert_complete(file)
    assert server.log[-1] == ("/a", f"bytes={enough}-", 1000)


def test_two_processes_download_once(server: Server, file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from guidedflow.data.download import download, verify_npz;"
        "download([sys.argv[1]], Path(sys.argv[2]), verify=verify_npz)"
    )
    command = [sys.executable, "-c", program, server.serves("/a", held), str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        assert server.arrived.wait(10)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr
            line = second.stderr.readline()
            server.released.set()
            assert second.wait(10) == 0
        assert first.wait(10) == 0
    assert line == f"{file}: waiting for another process that is downloading it\n"
    assert_complete(file)
    assert len(server.log) == 1


def test_a_lock_that_its_holder_removed_is_no_lock(server: Server, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the download waits for a lock, another one takes its place: it waits for that as well."""
    waiting = threading.Event()
    monkeypatch.setattr(module._LOG, "warning", lambda *_: waiting.set())
    lock = file.with_name(file.name + ".lock")
    file.parent.mkdir()
    url = server.serves("/a", ranged(GOOD))
    thread = threading.Thread(target=get, args=(file, url))
    other = lock.with_name("other.lock")
    second = FileLock(other)
    with FileLock(lock):
        thread.start()
        assert waiting.wait(10)
        second.acquire()
        other.replace(lock)
    thread.join(0.5)
    assert thread.is_alive()
    assert not server.log
    second.release()
    thread.join()
    assert_complete(file)
    assert not lock.exists()


def test_many_threads_hand_the_lock_on(server: Server, file: Path) -> None:
    url = server.serves("/a", *[missing] * 5, ranged(GOOD))
    outcomes: list[object] = []

    def fetch() -> None:
        try:
            outcomes.append(get(file, url))
        except DataError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(file) == 3
    assert len(server.log) == 6
    assert_complete(file)


def test_the_record_survives_the_process(server: Server, file: Path) -> None:
    url = server.serves("/a", ranged(GOOD, '"v7"', stop=HALF))
    assert_fails(file, url, pauses=())
    record = json.loads(part_of(file).with_suffix(".part.json").read_text())
    assert record == {"url": url, "etag": '"v7"', "last_modified": None, "total": len(GOOD)}


def test_fetch_ogbench(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.serves("/mirror/cube-single-noisy-v0.npz", ranged(GOOD))
    server.serves("/mirror/cube-single-noisy-v0-val.npz", ranged(GOOD))
    bases = [f"http://127.0.0.1:{server.server_port}/{host}/" for host in ("authors", "mirror")]
    paths = ogbench.fetch("cube-single-noisy", tmp_path, bases=bases, show=True)
    assert paths == (tmp_path / "cube-single-noisy-v0.npz", tmp_path / "cube-single-noisy-v0-val.npz")
    assert all(path.read_bytes() == GOOD for path in paths)
    assert "cube-single-noisy-v0-val.npz" in capsys.readouterr().out
    ogbench.fetch("cube-single-noisy", tmp_path, bases=bases, show=True)
    assert capsys.readouterr().out == ""
    assert len(server.log) == 4


def test_fetch_d4rl(server: Server, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "good.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            file[name] = np.random.default_rng(0).normal(size=(1000, 9))
    good = (tmp_path / "good.hdf5").read_bytes()
    server.serves("/a/hand_dapg_v1/door-human-v1.hdf5", ranged(good))
    server.serves("/a/hand_dapg_v1/pen-human-v1.hdf5", whole(good[: len(good) // 2]))
    bases = [f"http://127.0.0.1:{server.server_port}/a/"]
    assert d4rl.fetch("door-human-v1", tmp_path, bases=bases).read_bytes() == good
    with pytest.raises(DataError, match=r"pen-human-v1.hdf5: not downloaded: .*expected a whole HDF5 file"):
        d4rl.fetch("pen-human-v1", tmp_path, bases=bases)
    made = ["door-human-v1.hdf5", "door-human-v1.hdf5.sha256", "good.hdf5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == made


def test_the_public_bases_join_with_a_file_name() -> None:
    assert all(base.startswith("https://") and base.endswith("/") for base in ogbench.BASES)


def test_the_bar_shows_bytes_and_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    console = Console(file=written, width=120, force_terminal=True)
    monkeypatch.setattr(module.bars, "get_console", lambda: console)
    with progress_bar("cube-v0.npz") as progress:
        progress(1_000_000, None)
        progress(0, 4_000_000)
        progress(4_000_000, 4_000_000)
    assert "cube-v0.npz" in written.getvalue()
    assert "4.0/4.0 MB" in written.getvalue()


def test_verify_npz_refuses(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    incomplete = io.BytesIO()
    np.savez(incomplete, observations=np.zeros(2), actions=np.zeros(2))
    cases = {
        "found a file that is none": b"not a zip",
        "found only observations.npy, actions.npy": incomplete.getvalue(),
        "type object": npz_bytes(2, observations=np.array([{}, None], dtype=object)),
        r"shape \(\)": npz_bytes(2, terminals=np.array(0.0)),
    }
    for reason, body in cases.items():
        path.write_bytes(body)
        with pytest.raises(DataError, match=reason) as caught:
            verify_npz(path)
        assert str(caught.value).startswith(f"{path}: expected ")
        assert "\n" not in str(caught.value)


def test_verify_npz_reads_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, observations=np.zeros((5, 2)), actions=np.zeros((5, 1)), terminals=np.zeros(5))
    verify_npz(path)
    body = bytearray(path.read_bytes())
    middle = body.index(b"PK", 2) - 8
    body[middle : middle + 4] = b"\xff" * 4
    path.write_bytes(body)
    with pytest.raises(DataError, match="expected a whole npz archive"):
        verify_npz(path)


def test_files_land_with_ordinary_permissions(server: Server, file: Path) -> None:
    get(file, server.serves("/a", ranged(GOOD)))
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
