"""Where data lies on this machine, and how a file gets there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def default_directory() -> Path:
    """Where data is kept: ``$GUIDEDFLOW_DATA``, else ``~/.guidedflow/data``."""
    return Path(os.environ.get("GUIDEDFLOW_DATA") or "~/.guidedflow/data").expanduser()


def folders(benchmark: str, data_dir: Path | None = None) -> list[Path]:
    """Where a benchmark's data is looked for, in this order: in ``data_dir`` alone if it is given.

    Else Minari's where its package keeps them; the other benchmarks' in guidedflow's folder, then in ogbench's own.
    """
    if data_dir is not None:
        return [data_dir]
    if benchmark == "minari":
        return [Path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets").expanduser()]
    return [default_directory(), Path("~/.ogbench/data").expanduser()]


@contextlib.contextmanager
def whole_file(path: Path, folder: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes its name when it is whole and on the disk; till then it lies in ``folder``."""
    temporary = folder / f"{path.name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # A write that fails, unlike an open, does not say which file it was.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
