"""npz archives: a layout without gaps, arrays of the size that they declare, checksums that are compared."""

import itertools
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from guidedflow.data.opening.regular import check_memory, regular
from guidedflow.errors import DataError

MOST_UNPACKED = 1032
"""How many bytes deflate makes of one at most."""
_PIECE = 2**18
_LOCAL_HEADER = struct.Struct("<4s2xHH4xIIIHH")
_UNREADABLE = 0x1 | 0x20 | 0x40
"""Flags of members that are encrypted or patches."""
_STREAMED = 0x8
"""Flag of members whose size was not known when they were begun: it follows them."""
_AFTER_STREAMED = (12, 16, 20, 24)
_UTF8 = 0x800
_IN_EXTRA = 0xFFFFFFFF
"""In the place of a size: it is written behind the name, as the list's is."""


class Member(NamedTuple):
    """An array of an archive, as its headers describe it."""

    name: str
    info: zipfile.ZipInfo
    start: int
    """Byte of the file at which its member's content starts, an npy file of its own."""
    header_size: int
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_stored(self) -> bool:
        """Whether its bytes are in the file as they are."""
        return self.info.compress_type == zipfile.ZIP_STORED


class Archive:
    """The arrays of an npz archive that ``opened`` has checked the layout of."""

    def __init__(self, path: Path, file: IO[bytes], archive: zipfile.ZipFile):
        self._path, self._zip = path, archive
        self._starts = _starts(file, archive)
        self._taken = 0
        self.names = [name.removesuffix(".npy") for name in self._starts]
        """As ``numpy.load`` names them."""

    def member(self, name: str) -> Member:
        """What its headers say of an array.

        Raises:
            DataError: it is none, its header is damaged, or it has another size than that declares.
        """
        full = f"{name}.npy"
        if full not in self._starts:
            raise DataError(f"{self._path}: expected an npz archive of arrays, found {name!r}, which is none")
        info = self._zip.getinfo(full)
        with _reading(self._path, full):
            if info.file_size > MOST_UNPACKED * (info.compress_size + 1):
                raise ValueError(f"{info.file_size} bytes packed into {info.compress_size}")
            with self._zip.open(info) as source:
                shape, is_fortran, dtype = _header(source)
                member = Member(name, info, self._starts[full], source.tell(), shape, is_fortran, dtype)
            if member.header_size + member.nbytes != info.file_size:
                raise ValueError(
                    f"a header that declares {member.nbytes} bytes before {info.file_size - member.header_size}"
                )
        return member

    def read(self, name: str) -> np.ndarray:
        """An array, its checksum compared.

        Raises:
            DataError: as ``member``, it is damaged, or does not fit into memory with those that were read before.
        """
        member = self.member(name)
        self._taken += member.nbytes
        check_memory(self._taken, f"{self._path}: {name}")
        with _reading(self._path, member.info.filename):
            flat = np.empty(math.prod(member.shape), member.dtype)
            into = flat.view(np.uint8) if member.nbytes else np.empty(0, np.uint8)
            pieces, at = self.content(member), 0
            for piece in itertools.chain([next(pieces)[member.header_size :]], pieces):  # A header is in the first one.
                into[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                at += len(piece)
            return flat.reshape(member.shape[::-1]).T if member.is_fortran else flat.reshape(member.shape)

    def content(self, member: Member) -> Iterator[bytes]:
        """All of a member, piece by piece; its checksum is compared behind the last one.

        Raises:
            DataError: it is damaged.
        """
        size = 0
        with _reading(self._path, member.info.filename), self._zip.open(member.info) as source:
            while piece := source.read(_PIECE):  # To the end, and beyond: zipfile compares nothing before.
                size += len(piece)
                yield piece
            if size != member.info.file_size:
                raise EOFError(f"{size} bytes instead of {member.info.file_size}")

    def compare(self, member: Member) -> None:
        """Compare an array's checksum without keeping it.

        Raises:
            DataError: it is damaged.
        """
        for _ in self.content(member):
            pass

    def map(self, member: Member, copy: Path | None = None) -> np.memmap:
        """An array that stays in the file if it is stored there, else in a copy of its content."""
        offset = member.header_size + (0 if copy else member.start)
        with _reading(self._path, member.info.filename):
            order = "F" if member.is_fortran else "C"
            return np.memmap(copy or self._path, member.dtype, "r", offset, member.shape, order)  # type: ignore[call-overload]


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """An npz archive to read from, without executing anything that it may hold.

    Raises:
        DataError: it is missing, no file, no npz archive or a damaged one.
    """
    with regular(path).open("rb") as file:
        with _reading(path):
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path}: expected a whole npz archive of arrays, found a file that is none")
            file.seek(0)
            archive = zipfile.ZipFile(file)
        with archive:
            with _reading(path):
                whole = Archive(path, file, archive)
            yield whole


def crc32(path: Path) -> int:
    """The checksum that a zip archive would have of a file."""
    found = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found = zlib.crc32(piece, found)
    return found


def _starts(file: IO[bytes], archive: zipfile.ZipFile) -> dict[str, int]:
    """Where each member's content starts.

    Members must follow each other from the file's first byte to the list at its end, and each must begin with what the
    list says of it. So neither an array that the list leaves out nor one that it renames goes unnoticed.
    """
    starts: dict[str, int] = {}
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    following = [*(info.header_offset for info in infos), archive.start_dir]
    if following[0] != 0:
        raise ValueError("something before its first array")
    for info, after in zip(infos, following[1:], strict=True):
        name = info.orig_filename
        if not name.isprintable() or name in starts:
            problem = "twice" if name in starts else "which cannot be printed"
            raise ValueError(f"the name {name[:100]!r}, {problem}")
        starts[name] = _content_start(file, info)
        there = after - starts[name]
        allowed = _AFTER_STREAMED if info.flag_bits & _STREAMED else (0,)
        if there - info.compress_size not in allowed:
            raise ValueError(f"{name}: {there} bytes where the archive's list says {info.compress_size}")
    return starts


def _content_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    signature, flags, method, crc, packed, size, name_size, extra_size = _LOCAL_HEADER.unpack(
        file.read(_LOCAL_HEADER.size)
    )
    name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    agrees = signature == b"PK\x03\x04" and file.read(name_size) == name
    agrees = agrees and (flags, method) == (info.flag_bits, info.compress_type)
    if not flags & _STREAMED:
        agrees = agrees and crc == info.CRC
        agrees = agrees and packed in (info.compress_size, _IN_EXTRA) and size in (info.file_size, _IN_EXTRA)
    if not agrees:
        raise ValueError(f"{info.orig_filename}: something else in its place than the archive's list says")
    if flags & _UNREADABLE or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.orig_filename}: encrypted, or packed in a way that NumPy never does")
    return info.header_offset + _LOCAL_HEADER.size + name_size + extra_size


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """An npy file's header: NumPy's own reader, what it raises and what it lets through turned into ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of a damaged header's odd Python, which is an error below.
        try:
            version = np.lib.format.read_magic(file)
            old = version == (1, 0)
            read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(file)
        except Exception as error:  # Whatever Python's tokenizer and parser make of damaged text.
            raise ValueError(f"a header that cannot be read ({' '.join(str(error).split())[:200]})") from error
    if dtype.hasobject:
        raise ValueError("Python objects (type object), which are never read")
    if any(type(length) is not int or not 0 <= length < 2**63 for length in shape) or len(shape) > 32:
        raise ValueError(f"a header with the shape {str(shape)[:200]}")
    if not dtype.itemsize and math.prod(shape) > 1:
        raise ValueError("values of no bytes each")
    return shape, is_fortran, dtype


@contextmanager
def _reading(path: Path, member: str = "") -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        ValueError,
        EOFError,
        OSError,
        KeyError,
        RuntimeError,
        MemoryError,
        OverflowError,
    ) as error:
        # RuntimeError: encrypted; its kin NotImplementedError: an unknown compression.
        reason = " ".join(str(error).split()) or type(error).__name__
        where = f"{member}: " if member and not reason.startswith(member) else ""
        raise DataError(f"{path}: expected a whole npz archive of arrays, found: {where}{reason}") from error
