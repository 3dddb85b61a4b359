"""HDF5 files: arrays that lie in the file itself, of sizes that they can have, in groups that come to an end."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from guidedflow.data.opening.regular import MOST_JSON, check_memory, regular
from guidedflow.errors import DataError, GuidedflowError

MOST_LEVELS = 16
"""How deep groups may lie in each other."""
MOST_OBJECTS = 1_000_000
"""Arrays and groups that are looked at in a file."""
MOST_UNPACKED = 1100
"""How many bytes of an array one byte of the file may stand for; gzip reaches 1032."""
ALWAYS_ALLOWED = 2**26
"""Bytes that an array may have, whatever the file holds of it: flags that are all the same need next to nothing."""
_MOST_LINKS = 8
_CHECKED_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32}
"""Those that compare a checksum in reading: of gzip's, Adler-32."""


class Hierarchy:
    """What is in an HDF5 file that ``opened`` has opened."""

    def __init__(self, path: Path, file: h5py.File):
        self._path, self._file = path, file
        self._size = path.stat().st_size
        self._objects = 0
        self.names = [self._printable(name) for name in file]
        """Of the arrays and groups in its root."""

    def arrays(self, name: str, *, is_varying: bool = False) -> Iterator[tuple[str, h5py.Dataset]]:
        """The array of a name or, if that is a group's, all within it; none if there is none of the name.

        Args:
            name: of the root, or a path from it.
            is_varying: whether rows of texts and of varying lengths are let through, which are never read otherwise.

        Yields:
            The path of each, and what can be read of it.

        Raises:
            DataError: one lies outside the file, is larger than it can be, of Python objects or of no known type; or
                groups hold themselves, or too much.
        """
        item = self._find(name)
        if item is not None:
            yield from self._within(item, name, 1, is_varying, set())

    def within(self, name: str) -> list[str]:
        """What the arrays and groups in a group are called; none if there is no such group."""
        item = self._find(name)
        return [self._printable(inner) for inner in item] if isinstance(item, h5py.Group) else []

    def text(self, name: str, attribute: str) -> str | None:
        """An attribute of an array or group; None if it has none of that name that is one text.

        Raises:
            DataError: it is longer than ``MOST_JSON``.
        """
        item = self._find(name)
        if item is None or attribute not in item.attrs:
            return None
        if item.attrs.get_id(attribute).get_storage_size() > 4 * MOST_JSON:
            raise self._error(f"{name}: {attribute}", f"a text of at most {MOST_JSON:,} characters", "a longer one")
        value = item.attrs[attribute]
        return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None

    def _find(self, name: str) -> Any:
        item: Any = self._file
        for part in name.split("/"):
            item = self._item(item, part, _MOST_LINKS) if isinstance(item, h5py.Group) else None
        return item

    def _within(
        self, item: Any, name: str, level: int, is_varying: bool, groups: set[int]
    ) -> Iterator[tuple[str, h5py.Dataset]]:
        self._objects += 1
        if level > MOST_LEVELS or self._objects > MOST_OBJECTS:
            raise self._error(name, f"at most {MOST_LEVELS} levels and {MOST_OBJECTS:,} arrays and groups", "more")
        if isinstance(item, h5py.Dataset):
            self._check(item, name, is_varying)
            yield name, item
        elif isinstance(item, h5py.Group):
            address = h5py.h5o.get_info(item.id).addr
            if address in groups:
                raise self._error(name, "a group of its own", "one that is in another place as well")
            groups.add(address)
            for inner in item:
                found = self._item(item, self._printable(inner), _MOST_LINKS)
                if found is not None:
                    yield from self._within(found, f"{name}/{inner}", level + 1, is_varying, groups)

    def _item(self, group: h5py.Group, name: str, links: int) -> Any:
        """What is under one name; asked for by the link alone, since opening follows it wherever it leads."""
        key = name.encode()
        if not group.id.links.exists(key):
            return None
        kind = group.id.links.get_info(key).type
        if kind == h5py.h5l.TYPE_HARD:
            return group[name]
        where = f"{group.name}/{name}".strip("/")
        if kind != h5py.h5l.TYPE_SOFT:
            raise self._error(where, "an array or a group in this file", "a link into another one, which is never read")
        target = group.id.links.get_val(key).decode()
        item: Any = self._file if target.startswith("/") else group
        for part in filter(None, target.split("/")):
            if not links or not isinstance(item, h5py.Group):
                raise self._error(where, "a link to an array or a group", f"one to {target!r}")
            item = item if part == "." else self._item(item, part, links - 1)
        return item

    def _check(self, array: h5py.Dataset, name: str, is_varying: bool) -> None:
        made = array.id.get_create_plist()
        # Before its shape is asked for: of a virtual array, other files are opened to find it.
        if made.get_layout() == h5py.h5d.VIRTUAL:
            raise self._error(name, "an array", "a virtual one: it is in other files, which are never read")
        if made.get_external_count():
            raise self._error(name, "an array in this file", "one whose bytes are in another, which is never read")
        dtype, shape = array.dtype, array.shape
        if dtype.kind not in "biufcSU" and not (is_varying and _is_varying(dtype)):
            raise self._error(name, "numbers", f"type {dtype}")
        if shape is None:
            raise self._error(name, "an array", "none (a null dataspace)")
        declared, stored = math.prod(shape) * dtype.itemsize, array.id.get_storage_size()
        if stored > self._size or declared > max(ALWAYS_ALLOWED, MOST_UNPACKED * stored):
            raise self._error(
                name, f"an array of a size that {stored:,} bytes of a file can hold", f"{declared:,} bytes"
            )
        check_memory(declared, f"{self._path}: {name}")

    def _printable(self, name: str | bytes) -> str:
        if isinstance(name, bytes) or not name.isprintable():  # Bytes: no UTF-8.
            raise self._error(repr(name[:100]), "a name that can be printed", "this")
        return name

    def _error(self, name: str, expected: str, found: str) -> DataError:
        return DataError(f"{self._path}: {name}: expected {expected}, found {found}")

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays under these names; those of a group are named GROUP/NAME.

        Raises:
            DataError: as ``arrays``, or all together do not fit into memory.
        """
        there = dict(pair for name in names for pair in self.arrays(name))
        check_memory(sum(array.nbytes for array in there.values()), str(self._path))
        return {name: np.asarray(array[()]) for name, array in there.items()}


@contextmanager
def opened(path: Path, within: Path | None = None) -> Iterator[Hierarchy]:
    """An HDF5 file to read from.

    Args:
        path: the file.
        within: as in ``regular``.

    Raises:
        DataError: it is missing, no file, no HDF5 file or a damaged one.
    """
    regular(path, within)
    try:
        with h5py.File(path) as file:
            yield Hierarchy(path, file)
    except GuidedflowError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        # Whatever h5py makes of an error of the HDF5 library.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: expected a whole HDF5 file, found one that cannot be read: {reason}") from error


def _is_varying(dtype: np.dtype) -> bool:
    return h5py.check_vlen_dtype(dtype) is not None or h5py.check_string_dtype(dtype) is not None


def has_checksum(array: h5py.Dataset) -> bool:
    """Whether reading compares a checksum of an array."""
    made = array.id.get_create_plist()
    return any(made.get_filter(i)[0] in _CHECKED_FILTERS for i in range(made.get_nfilters()))


def described(covered: int, arrays: int) -> str:
    """In words, how many of a file's arrays have a checksum."""
    if covered == arrays and arrays:
        return "each array has one (of gzip or Fletcher-32), and all agree"
    there = "none of its arrays has one" if not covered else f"{covered} of {arrays} arrays have one (all agree)"
    return f"{there}: a value that changed on the disk goes unnoticed (files of guidedflow data convert have them)"
