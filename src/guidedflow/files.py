"""Files that are there whole or not at all."""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from guidedflow.errors import RunError


@contextlib.contextmanager
def whole_file(path: Path, folder: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write to that takes its name when it is whole and on the disk, in place of one that had it before.

    What a process that was killed had written of the same file is removed.

    Args:
        path: its name.
        folder: where it lies till then, on the same file system; None: beside its place.

    Raises:
        OSError: naming ``path``; nothing was changed then.
    """
    temporary = (folder or path.parent) / f"{path.name}.{os.getpid()}.tmp"
    _remove_left(temporary.parent, path.name)
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # A write that fails, unlike an open, does not say which file it was.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_left(folder: Path, name: str) -> None:
    """Remove the temporary files of ``name`` whose processes have ended."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            process = entry.name.removeprefix(f"{name}.").removesuffix(".tmp")
            if entry.name == f"{name}.{process}.tmp" and process.isdecimal() and not _is_alive(int(process)):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # Another user's.
        return True
    return True


def make_sure_of_room(folder: Path, size: int) -> None:
    """Raise the OSError that writing a file of ``size`` bytes would end in, naming ``folder``.

    For libraries that do not survive it: HDF5 ends the process.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was before."""
    with whole_file(path) as file:
        file.write(text.encode())


def read_text(path: Path) -> str:
    """A text file of this package's own.

    Raises:
        RunError: it is no UTF-8, or a pipe, which would be waited for.
    """
    if path.exists() and not path.is_file():
        raise RunError(f"{path}: expected a file, found something else")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RunError: it is none.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too.
        raise RunError(f"{path}: expected JSON, found: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def as_json(value: Any) -> str:
    """A value as JSON text; what is not a number (NaN: nothing was measured) becomes null, as the format asks."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(value), indent=2, allow_nan=False)
