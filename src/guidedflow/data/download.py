"""Published data files over HTTP: resumed when broken, verified before they take their final name."""

import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import rich.progress as bars
from filelock import Timeout

from guidedflow.data.opening import archive
from guidedflow.data.opening.regular import regular
from guidedflow.errors import DataError
from guidedflow.files import write_text
from guidedflow.locks import held

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes on disk so far and the file's size in bytes (None where the server does not say)."""

_CHUNK = 2**18
_LOG = logging.getLogger(__name__)


class _Unusable(Exception):
    """This URL does not give the file: the next one's turn."""


class _Broken(_Unusable):
    """The transfer stopped part-way: resuming it may help."""


class _Unreachable(_Broken):
    """No answer at all: worth another try only if the server has answered before."""


@dataclass(frozen=True)
class _Source:
    """What a part was begun from, kept beside it as JSON, so that two files are never spliced into one."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None

    @classmethod
    def announced(cls, url: str, headers: Message) -> "_Source":
        """The source that an answer's headers describe."""
        # "bytes 5-9/10" states the whole file's size last; a plain length is the whole file's already.
        stated = headers["Content-Range"] or headers["Content-Length"] or ""
        total = stated.split("/")[-1]
        return cls(url, headers["ETag"], headers["Last-Modified"], int(total) if total.isdecimal() else None)

    @classmethod
    def load(cls, part: Path) -> "_Source | None":
        """The source of `part`, or None where part or record is missing or unreadable."""
        try:
            return cls(**json.loads(_beside(part, ".json").read_text())) if part.exists() else None
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def range_headers(self, offset: int) -> dict[str, str]:
        """Ask for the bytes from `offset` on, or for the whole file if it is no longer the same one."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        validator = strong or self.last_modified
        return {"Range": f"bytes={offset}-"} | ({"If-Range": validator} if validator else {})

    def agrees(self, other: "_Source") -> bool:
        """Whether nothing that both state differs: a 206 may leave out what the 200 said."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


def download(
    urls: Sequence[str],
    destination: Path,
    *,
    verify: Callable[[Path], None],
    on_progress: OnProgress | None = None,
    timeout: float = 30.0,
    pauses: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
) -> Path:
    """Fetch a file from the first URL that gives it, and return `destination`; one that is there is only verified.

    Bytes go to `<destination>.part`, which takes the final name only once `verify` has accepted it. A part
    that broke off is kept, and the next call resumes it from the URL that it was begun with; one that fails
    its check is removed. Of several processes with one destination, one downloads and the others wait.

    The first download's SHA-256 is kept in `<destination>.sha256`, as `sha256sum` writes and checks it. It is
    compared whenever the file is there already or is downloaded again.

    Args:
        urls: where the same file is published, in order of preference.
        destination: the final path; missing folders are made.
        verify: raises `DataError` for a file that is not what it should be.
        on_progress: called with the bytes received; an exception that it raises stops the download.
        timeout: seconds without a byte after which a connection counts as broken.
        pauses: seconds before each further try of a URL whose transfer broke; as many tries as pauses.

    Raises:
        DataError: no URL gave the file, one line with each URL and its reason; or the one that is there is damaged,
            or no longer the one that was downloaded.
        OSError: the file cannot be written (disk full, no permission); it names the path, the part is kept.
    """
    if destination.exists():
        return _there(destination, verify)
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(destination, ".part")
    with locked(destination):
        if destination.exists():
            return _there(destination, verify)
        recorded = _recorded(destination)
        begun = _Source.load(part)
        failures = []
        for url in sorted(urls, key=lambda url: begun is None or url != begun.url):
            try:
                _fetch(url, part, on_progress or (lambda received, total: None), timeout, pauses)
                checksum = _check(part, verify, recorded)
            except _Unusable as error:
                failures.append(f"{url}: {error}")
                continue
            if recorded is None:
                write_text(_beside(destination, ".sha256"), f"{checksum}  {destination.name}\n")
            os.replace(part, destination)
            _beside(part, ".json").unlink(missing_ok=True)
            return destination
        # A server's own words may span lines.
        reasons = " ".join("; ".join(failures).split())
        advice = "run it again to resume" if part.exists() else "try later, or put the file there yourself"
        raise DataError(f"{destination}: not downloaded: {reasons}; {advice}")


def fetch(urls: Sequence[str], path: Path, *, verify: Callable[[Path], None], show: bool = False) -> Path:
    """`download`, with a progress bar on the terminal if `show` is given and the file is not there yet."""
    with progress_bar(path.name) if show and not path.exists() else nullcontext() as bar:
        return download(urls, path, verify=verify, on_progress=bar)


@contextmanager
def progress_bar(label: str) -> Iterator[OnProgress]:
    """A terminal bar with bytes, speed and time left, to be given to `download` as `on_progress`."""
    numbers = bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn()
    with bars.Progress("{task.description}", bars.BarColumn(), *numbers) as bar:
        task = bar.add_task(label, total=None)
        yield lambda received, total: bar.update(task, completed=received, total=total)


def verify_npz(path: Path) -> None:
    """Check that an npz file is whole (each member's CRC) and holds steps, without loading it.

    Raises:
        DataError: the zip is damaged, or lacks observations, actions and terminals of one length.
    """
    names = ("observations", "actions", "terminals")
    expected = f"{path}: expected {', '.join(names)} of one length"
    with archive.opened(path) as opened:
        if not set(names) <= set(opened.names):
            found = ", ".join(f"{name}.npy" for name in opened.names)
            raise DataError(f"{expected}, found only {found or 'an empty zip'}")
        members = {name: opened.member(name) for name in opened.names}
        for member in members.values():
            opened.compare(member)
    _check_lengths(members, names, expected)


def verify_hdf5(path: Path) -> None:
    """Check that an HDF5 file is whole and holds steps, by reading all of it.

    Raises:
        DataError: it is truncated or no HDF5, or lacks observations, actions, rewards and flags of one length.
    """
    from guidedflow.data.opening import hierarchy

    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    with hierarchy.opened(path) as file:
        arrays = file.read(names)
    if not set(names) <= set(arrays):
        raise DataError(f"{path}: expected {', '.join(names)}, found {', '.join(arrays) or 'none of them'}")
    _check_lengths(arrays, names, f"{path}: expected fields of one length")


def _check_lengths(arrays: Mapping[str, Any], names: Sequence[str], expected: str) -> None:
    shapes = [arrays[name].shape for name in names]
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        found = [str(shape[0]) if shape else "shape ()" for shape in shapes]
        raise DataError(f"{expected}, found {', '.join(found)}")


def _fetch(url: str, part: Path, on_progress: OnProgress, timeout: float, pauses: Sequence[float]) -> None:
    """Bring `part` to its full size from one URL, resuming a broken transfer after each pause."""
    waits = iter(pauses)
    answered = False
    while True:
        try:
            return _receive(url, part, on_progress, timeout)
        except _Broken as error:
            # A server that is down costs one timeout before the next one's turn, not five.
            answered = answered or not isinstance(error, _Unreachable)
            wait = next(waits, None)
            if wait is None or not answered:
                raise
            time.sleep(wait)


def _receive(url: str, part: Path, on_progress: OnProgress, timeout: float) -> None:
    """One request: append the missing bytes to `part`, or write it anew where it cannot be resumed."""
    begun = _Source.load(part)
    offset = part.stat().st_size if begun and begun.url == url else 0
    with _open(url, begun.range_headers(offset) if begun and offset else {}, timeout) as response:
        source = _Source.announced(url, response.headers)
        given = response.headers["Content-Range"] or ""
        if response.status == 416 and given == f"bytes */{offset}":
            return  # An earlier call was stopped between the last byte and the check.
        resuming = response.status in (206, 416)
        if resuming and not (begun and begun.agrees(source) and given.startswith(f"bytes {offset}-")):
            _discard(part)
            raise _Broken("the file changed between two requests")
        # Judged before an older part is touched: a login page must not cost the gigabyte already here.
        chunk = _read(response)
        is_page = response.headers.get_content_type() == "text/html"
        if is_page or (not resuming and chunk.lstrip().startswith(b"<")):
            raise _Unusable(f"a web page ({response.url}) came instead of the file")
        if not chunk:
            raise _Broken("stopped before the first byte")
        total = source.total
        with _naming(part), open(part, "ab" if resuming else "wb", buffering=0) as file:
            if not resuming:
                # After the truncation: a crash in between must not pair the new record with the old bytes.
                _beside(part, ".json").write_text(json.dumps(asdict(source)))
                offset = 0
            on_progress(offset, total)
            while chunk:
                _write_all(file, chunk)
                offset += len(chunk)
                on_progress(offset, total)
                chunk = _read(response)
            os.fsync(file.fileno())
    if total is not None and offset != total:
        raise _Broken(f"stopped after {offset} of {total} bytes")


def _open(url: str, ranges: dict[str, str], timeout: float) -> HTTPResponse | HTTPError:
    """Send the request; an answer of 200 or 206, or of 416 (nothing after those bytes) to a range."""
    try:
        return urlopen(Request(url, headers={"User-Agent": "guidedflow"} | ranges), timeout=timeout)
    except HTTPError as error:
        if error.code == 416 and ranges:
            return error
        error.close()
        raise _Unusable(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _Unreachable(f"no answer ({getattr(error, 'reason', error)})") from error


def _read(response: HTTPResponse | HTTPError) -> bytes:
    """The next bytes, or none at the end."""
    try:
        # Not read(): that waits for a full chunk, and a stall would lose what had come of it.
        return response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _Broken(f"the transfer stopped ({error})") from error


def _write_all(file: FileIO, chunk: bytes) -> None:
    """Write without a buffer, where a full disk cannot surface later, on closing."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _there(destination: Path, verify: Callable[[Path], None]) -> Path:
    """A file that is there already is not touched, even if it is no good: it may be the user's own."""
    try:
        verify(destination)
        recorded = _recorded(destination)
        if recorded is not None:
            _compare(destination, recorded)
    except DataError as error:
        raise DataError(f"{error}; move it away to download it anew") from error
    return destination


def _check(part: Path, verify: Callable[[Path], None], recorded: str | None) -> str:
    """Verify a complete part, and give its SHA-256; one that fails is of no use for resuming."""
    try:
        verify(part)
        return _compare(part, recorded)
    except DataError as error:
        _discard(part)
        raise _Unusable(str(error).removeprefix(f"{part}: ")) from error


def _recorded(destination: Path) -> str | None:
    """The SHA-256 of the first download of a file, if one is recorded."""
    record = _beside(destination, ".sha256")
    if not record.exists():
        return None
    text = regular(record).read_text(encoding="utf-8", errors="replace")
    found = re.match(r"[0-9a-f]{64}(?=\s)", text)
    if found is None:
        raise DataError(f"{record}: expected the SHA-256 of {destination.name}, found {text[:80]!r}; remove it")
    return found[0]


def _compare(path: Path, recorded: str | None) -> str:
    """The SHA-256 of a file, which must be the recorded one if there is one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if recorded not in (None, found):
        raise DataError(
            f"{path}: expected the file that was downloaded first, of SHA-256 {recorded}, found one of {found}; if it "
            "was published anew, remove the .sha256 beside it"
        )
    return found


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Failed writes do not say where; add it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from error


@contextmanager
def locked(destination: Path) -> Iterator[None]:
    """Hold the one right to make `destination`, waiting while another process or thread has it."""
    lock = _beside(destination, ".lock")
    for path in (lock, *(_beside(destination, suffix) for suffix in (".part", ".part.json"))):
        # A link would be written through, or what it leads to be deleted; a pipe would be waited for.
        try:
            mode = path.lstat().st_mode  # Asked once: whoever holds the lock may remove it in between.
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            found = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
            raise DataError(f"{path}: expected a file or none, found {found}; remove it")
    with ExitStack() as stack:
        try:
            stack.enter_context(held(lock))
        except Timeout:
            _LOG.warning("%s: waiting for another process that is downloading it", destination)
            stack.enter_context(held(lock, waits=True))
        # Removed while it is held: whoever waits for it finds it gone, and locks a new one.
        stack.callback(lock.unlink, missing_ok=True)
        yield


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _beside(part, ".json").unlink(missing_ok=True)
