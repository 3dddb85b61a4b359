"""Downloads from a server that misbehaves: the right file, or one line and no file."""

import contextlib
import io
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.common import Verdict, Worker, digest, own_arrays

ENDLESS_BYTES = 2**26
"""What is written of a body without an end before the disk counts as full."""
SLOW_SECONDS = 1.5


class Handler(BaseHTTPRequestHandler):
    """Answers each request as the server's next behaviour does; the last one stays."""

    server: "Server"

    def do_GET(self) -> None:
        """See ``BaseHTTPRequestHandler``."""
        queue = self.server.behaviours
        name = queue.pop(0) if len(queue) > 1 else queue[0]
        if self.path == "/elsewhere":
            name = "a page"
        with contextlib.suppress(OSError):  # The other end has had enough.
            BEHAVIOURS[name](self, self.server.content)
        self.close_connection = True

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Send headers and a body; ``length``: what is said of it, nothing if it is negative."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is None or length >= 0:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def offset(self) -> int:
        """Where the range that was asked for begins."""
        asked = self.headers["Range"]
        return int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """On a free port of this machine."""

    daemon_threads = True

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.behaviours: list[str] = ["whole"]
        threading.Thread(target=self.serve_forever, daemon=True).start()


def part(handler: Handler, content: bytes, **headers: str) -> None:
    """What a good server answers to a range."""
    at, size = handler.offset(), len(content)
    if not handler.headers["Range"]:
        handler.answer(200, content, **headers)
    elif at >= size:
        handler.answer(416, b"", Content_Range=f"bytes */{size}", **headers)
    else:
        handler.answer(206, content[at:], Content_Range=f"bytes {at}-{size - 1}/{size}", **headers)


def shifted(handler: Handler, content: bytes) -> None:
    """A range that begins elsewhere than the one that was asked for, and says so."""
    at, size = handler.offset() // 2, len(content)
    handler.answer(206, content[at:], Content_Range=f"bytes {at}-{size - 1}/{size}")


def without_end(handler: Handler, content: bytes) -> None:
    """A body that goes on until the other end hangs up."""
    handler.answer(200, content, -1)
    while True:
        handler.wfile.write(bytes(2**20))


def slowly(handler: Handler, content: bytes) -> None:
    """The whole file, with a pause in its middle as long as the client waits."""
    handler.answer(200, content[: len(content) // 2], len(content))
    time.sleep(SLOW_SECONDS)
    handler.wfile.write(content[len(content) // 2 :])


def chunks(handler: Handler, content: bytes) -> None:
    """Chunked transfer that breaks off between two chunks."""
    handler.protocol_version = "HTTP/1.1"
    handler.answer(200, b"", -1, Transfer_Encoding="chunked")
    half = content[: len(content) // 2]
    handler.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n")


def no_http(handler: Handler, content: bytes) -> None:
    """Something else than an answer."""
    handler.wfile.write(b"\x00\x01 good day\r\n\r\n")


def flipped(content: bytes) -> bytes:
    at = len(content) // 3
    return content[:at] + bytes([content[at] ^ 8]) + content[at + 1 :]


BEHAVIOURS: dict[str, Callable[[Handler, bytes], None]] = {
    "whole": part,
    "whole, with an ETag": lambda handler, content: part(handler, content, ETag='"1"'),
    "another ETag": lambda handler, content: part(handler, flipped(content), ETag='"2"'),
    "cut": lambda handler, content: handler.answer(200, content[: len(content) // 2], len(content)),
    "cut, of unknown length": lambda handler, content: handler.answer(200, content[: len(content) // 2], -1),
    "nothing": lambda handler, content: handler.answer(200, b"", len(content)),
    "nothing, of length 0": lambda handler, content: handler.answer(200, b""),
    "too short a length": lambda handler, content: handler.answer(200, content, len(content) - 100),
    "too long a length": lambda handler, content: handler.answer(200, content, len(content) + 100),
    "a senseless length": lambda handler, content: handler.answer(200, content, -1, Content_Length="many"),
    "ranges ignored": lambda handler, content: handler.answer(200, content),
    "another range": shifted,
    "a range without saying which": lambda handler, content: handler.answer(206, content[handler.offset() :]),
    "416 always": lambda handler, content: handler.answer(416, b"", Content_Range=f"bytes */{handler.offset()}"),
    "published anew": lambda handler, content: handler.answer(200, whole_npz(39)),
    "one bit flipped": lambda handler, content: part(handler, flipped(content)),
    "a page": lambda handler, content: handler.answer(200, b"<!DOCTYPE html><p>moved</p>", Content_Type="text/html"),
    "a page that calls itself data": lambda handler, content: handler.answer(200, b"\n<html></html>"),
    "other data": lambda handler, content: handler.answer(200, content[::-1]),
    "500": lambda handler, content: handler.answer(500, b"no\nthanks"),
    "503": lambda handler, content: handler.answer(503, b""),
    "404": lambda handler, content: handler.answer(404, b""),
    "a redirect to itself": lambda handler, content: handler.answer(302, b"", Location=handler.path),
    "a redirect to a page": lambda handler, content: handler.answer(302, b"", Location="/elsewhere"),
    "a redirect to a file": lambda handler, content: handler.answer(302, b"", Location="file:///etc/passwd"),
    "no end": without_end,
    "slow": slowly,
    "chunks that break off": chunks,
    "no HTTP": no_http,
    "a broken connection": lambda handler, content: handler.connection.close(),
}


def whole_npz(repeats: int) -> bytes:
    """A data file with nothing wrong."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.repeat(array, repeats, axis=0) for name, array in own_arrays().items()})
    return buffer.getvalue()


class Servers:
    """First every behaviour alone, then drawn sequences of up to four; after each the server is a good one."""

    total = 150
    quick = 12

    def __init__(self, folder: Path):
        self._folder = folder
        self._content = whole_npz(40)
        self._server = Server(self._content)
        self._worker = Worker()

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Download; what has the file's name afterwards must be the file."""
        names = [name for name in BEHAVIOURS if name != "published anew"]
        drawn = [names[i] for i in rng.integers(len(names), size=rng.integers(1, 5))]
        queue = [names[number]] if number < len(names) else drawn
        path, told = self._folder / f"case-{number}" / "data.npz", []
        url = f"http://127.0.0.1:{self._server.server_port}/data.npz"
        problem = None
        for behaviours in (queue, ["whole"]):
            self._server.behaviours = list(behaviours)
            answer = self._worker.call(fetched, url, path)
            told.append(f"{answer.kind} {answer.value[:120]}")
            if answer.kind != "value":
                problem = problem or answer.refusal(str(path))
            if path.exists() and path.read_bytes() != self._content:
                problem = problem or "a file that is not the published one"
        if answer.kind != "value":
            problem = problem or "no file from a good server afterwards"
        path.unlink(missing_ok=True)
        self._server.behaviours = ["published anew"]
        answer = self._worker.call(fetched, url, path)
        problem = problem or answer.refusal(str(path)) or ("another file took its name" if path.exists() else None)
        return Verdict("dirty" if problem else "clean", f"{', '.join(queue)}: {problem or '; then '.join(told)}")

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()
        self._server.shutdown()
        self._server.server_close()


def fetched(url: str, path: Path, pauses: Sequence[float] = (0.0, 0.0)) -> Any:
    """Download, on a disk that has room for ``ENDLESS_BYTES``; gives the file's digest."""
    import resource

    from guidedflow.data.download import download, verify_npz

    resource.setrlimit(resource.RLIMIT_FSIZE, (ENDLESS_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    download([url], path, verify=verify_npz, timeout=1.0, pauses=pauses)
    return digest(path.read_bytes())
