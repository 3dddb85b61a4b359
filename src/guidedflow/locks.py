"""Locks between processes. Where a file system has none, work goes on without, and says so."""

import contextlib
import errno
import functools
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock

logger = logging.getLogger("guidedflow")

NOT_THERE = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What asking for a lock ends in on a file system without: some network drives, FUSE, a server without its daemon."""


@contextlib.contextmanager
def held(path: Path, *, waits: bool = False) -> Iterator[bool]:
    """Hold a lock file; gives whether there is a lock at all.

    Args:
        path: the lock file.
        waits: whether to wait for whoever has it.

    Raises:
        filelock.Timeout: another process or thread has it, and this one does not wait.
        OSError: the file cannot be written.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=-1 if waits else 0)
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        _tell(path.parent)
    try:
        yield lock.is_locked
    finally:
        lock.release()


@functools.cache
def _tell(folder: Path) -> None:
    logger.warning("%s: its file system has no locks; let no other process write there meanwhile", folder)
