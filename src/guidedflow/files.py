"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def whole_file(path: Path, folder: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write to that takes its name when it is whole and on the disk, in place of one that had it before.

    Args:
        path: its name.
        folder: where it lies till then, on the same file system; None: beside its place.

    Raises:
        OSError: naming ``path``; nothing was changed then.
    """
    temporary = (folder or path.parent) / f"{path.name}.{os.getpid()}.tmp"
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
