"""npz archives: their arrays in memory, and their pictures as a map of the file."""

import json
import logging
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats.format import Recording, current_names, dataset_of
from guidedflow.errors import DataError
from guidedflow.files import whole_file

SUFFIXES: tuple[str, ...] = (".npz",)
PICTURE_AXES = 4
"""Arrays of uint8 with so many axes, (N, height, width, channels), are mapped instead of read."""
_LOG = logging.getLogger("guidedflow")
_LOCAL_HEADER = struct.Struct("<26xHH")


def recognises(path: Path) -> bool:
    """Whether it is a file's name that ends in .npz."""
    return path.suffix in SUFFIXES and not path.is_dir()


def read(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """The arrays of an npz file whose names are wanted, without executing anything that it may hold.

    Pictures come as a ``numpy.memmap``: of the file itself if they are not compressed in it, else of a copy that is
    unpacked once, into a folder ``.unpacked`` beside the file.

    Args:
        path: the file.
        wanted: says of an array's name whether it is read.

    Raises:
        DataError: the file is missing, truncated, no npz, or holds Python objects.
        OSError: there is no room to unpack.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a data file, found {'a folder' if path.is_dir() else 'nothing there'}")
    with _reading(path), path.open("rb") as opened:  # Opened here: np.load leaves a file that it cannot read open.
        if not zipfile.is_zipfile(opened):
            raise DataError(f"{path}: expected a whole npz archive of arrays, found a file that is none")
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as archive:
            names = [name for name in archive.files if wanted(name)]
            pictures = [name for name in names if _is_picture(archive.zip, f"{name}.npy")]
            arrays = {name: archive[name] for name in names if name not in pictures}
            stored = [name for name in pictures if archive.zip.getinfo(f"{name}.npy").compress_type == 0]
            mapped = {name: _map_member(path, archive.zip, f"{name}.npy") for name in stored}
    for name in pictures:
        arrays[name] = mapped[name] if name in mapped else _unpacked(path, f"{name}.npy")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: expected an npz archive of arrays, found {name!r}, which is none")
    return current_names(arrays)


def load(path: Path, frame_stack: int | None = None) -> Dataset:
    """The data set in a file with the fields of ``Dataset.from_arrays``; others are not read.

    Raises:
        DataError: as ``read``, or a field is missing or malformed.
    """
    return dataset_of(read(path), path, metadata(path), frame_stack)


def metadata(path: Path) -> dict[str, Any] | None:
    """What a file made by ``guidedflow data generate`` or ``convert`` says of itself; None for any other.

    Raises:
        DataError: as ``read``.
    """
    text = read(path, lambda name: name == "metadata").get("metadata")
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == "guidedflow" else None


def recordings(path: Path) -> Iterator[Recording]:
    """All of the file, as one recording of whole episodes."""
    yield Recording(str(path), dict(read(path)), is_episode=False)


def write(file: IO[bytes], arrays: Mapping[str, tuple[tuple[int, ...], Any, Iterator[np.ndarray]]]) -> None:
    """Write an npz archive piece by piece; pictures are stored as they are, so that they can be mapped.

    Args:
        file: open for writing.
        arrays: by name: the whole array's shape, its dtype, and its pieces along the first axis.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, (shape, dtype, pieces) in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_STORED if len(shape) == PICTURE_AXES else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                header = {
                    "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_1_0(member, header)
                for piece in pieces:
                    member.write(piece.astype(dtype, copy=False).tobytes())


def _is_picture(archive: zipfile.ZipFile, member: str) -> bool:
    if member not in archive.namelist():
        return False
    with archive.open(member) as file:
        shape, _, dtype = _header(file)
    return len(shape) == PICTURE_AXES and dtype == np.uint8


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _map_member(path: Path, archive: zipfile.ZipFile, member: str) -> np.memmap:
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file)
        header_size = file.tell()
    start = archive.getinfo(member).header_offset
    with path.open("rb") as raw:
        raw.seek(start)
        # The central directory does not say how long the names before the data are.
        name_size, extra_size = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    offset = start + _LOCAL_HEADER.size + name_size + extra_size + header_size
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _unpacked(path: Path, member: str) -> np.memmap:
    stat = path.stat()
    folder = path.parent / ".unpacked"
    copy = folder / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}-{member}"
    if not copy.exists():
        _LOG.info("%s: its pictures are compressed; they are unpacked once, into %s", path, folder)
        folder.mkdir(exist_ok=True)
        for old in folder.glob(f"{path.stem}-*-{member}"):
            old.unlink()
        with whole_file(copy) as target:
            target.writelines(_chunks(path, member))
    return np.load(copy, mmap_mode="r")


def _chunks(path: Path, member: str) -> Iterator[bytes]:
    with _reading(path), zipfile.ZipFile(path) as archive, archive.open(member) as source:
        while chunk := source.read(2**22):
            yield chunk


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        EOFError,
        OSError,
        KeyError,
        RuntimeError,
        MemoryError,
    ) as error:
        # RuntimeError: encrypted; its kin NotImplementedError: an unknown compression.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: expected a whole npz archive of arrays, found: {reason}") from error
