"""What holds for every data file before it is opened, and for the JSON that one may hold."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from guidedflow.errors import DataError

MOST_JSON = 2**24
"""Characters of a JSON text."""
MOST_LEVELS = 32
"""How deep values of a JSON text may lie in each other."""


def regular(path: Path, within: Path | None = None) -> Path:
    """A path that is a file, not a folder, pipe, device or socket, of which some would be waited for without an end.

    A symbolic link is followed: its user named it. In a folder that the user named it must not lead out of that folder.

    Args:
        path: what is to be opened.
        within: the folder that the user named, if it is not the file that was.

    Raises:
        DataError: it is none.
    """
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    try:
        mode = os.stat(path).st_mode
        outside = within is not None and not path.resolve().is_relative_to(within.resolve())
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected a data file, found nothing there") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: expected a data file, found one that cannot be read: {error}") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: expected a data file, found {kinds.get(stat.S_IFMT(mode), 'a device')}")
    if outside:
        raise DataError(
            f"{path}: expected a file in {within}, found a link out of it; copy the folder with its links followed "
            "(cp -rL), or download it with a local_dir"
        )
    return path


def memory() -> int:
    """Bytes of memory that this machine has; where it does not say, as many as can be counted."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**63 - 1


def check_memory(size: int, what: str) -> None:
    """Raise DataError if arrays of so many bytes do not fit into the machine's memory; ``what`` begins the message."""
    if size > memory():
        raise DataError(
            f"{what}: expected arrays that fit into this machine's memory of {memory() / 1e9:.1f} GB, found "
            f"{size / 1e9:.1f} GB"
        )


def parse(text: str, what: str) -> Any:
    """A JSON text of others.

    Raises:
        ValueError: it is no JSON.
        DataError: it is longer than ``MOST_JSON``, deeper than ``MOST_LEVELS``, or holds what is no text; ``what``
            begins the message.
    """
    if len(text) > MOST_JSON:
        raise DataError(f"{what}: expected at most {MOST_JSON:,} characters of JSON, found {len(text):,}")
    too_deep = f"{what}: expected JSON of at most {MOST_LEVELS} levels, found more"
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise DataError(too_deep) from error
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > MOST_LEVELS:
            raise DataError(too_deep)
        level = [inner for item in level for inner in children(item)]
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # A half of a surrogate pair could be neither printed nor recorded.
        raise DataError(f"{what}: expected JSON of text, found a character that is none") from error
    return found


def children(value: Any) -> list[Any]:
    """What lies directly in a value of JSON."""
    return [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def read_json(path: Path, within: Path | None = None) -> Any:
    """What a JSON file of others holds.

    Raises:
        DataError: it is no file, no UTF-8 or no JSON, or as in ``parse``.
    """
    try:
        with regular(path, within).open("rb") as file:
            content = file.read(4 * MOST_JSON + 1)
        return parse(content.decode(), str(path))
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected JSON, found: {' '.join(str(error).split())}") from error
