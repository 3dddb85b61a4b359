"""npz archives: their arrays in memory, and their pictures as a map of the file."""

import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats.format import Recording, current_names, dataset_of
from guidedflow.data.opening import archive
from guidedflow.data.opening.regular import MOST_JSON, parse
from guidedflow.errors import DataError
from guidedflow.files import whole_file

SUFFIXES: tuple[str, ...] = (".npz",)
OPTIONS: tuple[str, ...] = ()
PICTURE_AXES = 4
"""Arrays of uint8 with so many axes, (N, height, width, channels), are mapped instead of read."""
MOST_COMPARED = 2**30
"""Bytes of a mapped array up to which its checksum is compared whenever it is mapped, which takes under a second."""
_LOG = logging.getLogger("guidedflow")


def recognises(path: Path) -> bool:
    """Whether it is a file's name that ends in .npz."""
    return path.suffix in SUFFIXES and not path.is_dir()


def read(
    path: Path, wanted: Callable[[str], bool] = lambda name: True, *, most_compared: float = MOST_COMPARED
) -> dict[str, np.ndarray]:
    """The arrays of an npz file whose names are wanted, without executing anything that it may hold.

    Pictures come as a ``numpy.memmap``: of the file itself if they are not compressed in it, else of a copy that is
    unpacked once, into a folder ``.unpacked`` beside the file. The checksum of every other array is compared.

    Args:
        path: the file.
        wanted: says of an array's name whether it is read.
        most_compared: how many bytes pictures may have for their checksums to be compared as well.

    Raises:
        DataError: the file is missing, truncated, no npz, or holds Python objects; or an array is damaged.
        OSError: there is no room to unpack.
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    with archive.opened(path) as opened:
        for name in filter(wanted, opened.names):
            member = opened.member(name)
            if len(member.shape) != PICTURE_AXES or member.dtype != np.uint8:
                arrays[name] = opened.read(name)
                continue
            is_compared = member.nbytes <= most_compared
            if member.is_stored:
                arrays[name] = opened.map(member)
                if is_compared:
                    opened.compare(member)
            else:
                arrays[name] = opened.map(member, _unpacked(path, opened, member, is_compared))
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
        DataError: as ``read``, or it is longer or deeper than any that this package makes.
    """
    with archive.opened(Path(path)) as opened:
        if "metadata" not in opened.names:
            return None
        member = opened.member("metadata")
        if member.shape != () or member.dtype.kind != "U":
            return None
        if member.nbytes > 4 * MOST_JSON:
            raise DataError(f"{path}: metadata: expected at most {4 * MOST_JSON:,} bytes, found {member.nbytes:,}")
        text = opened.read("metadata")
    try:
        found = parse(text.item(), f"{path}: metadata")
    except DataError:
        raise
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("generator") == "guidedflow" else None


def recordings(path: Path) -> Iterator[Recording]:
    """All of the file, as one recording of whole episodes; every checksum is compared."""
    yield Recording(str(path), dict(read(path, most_compared=np.inf)), is_episode=False)


def about(path: Path) -> dict[str, Any]:
    """None: a file of arrays says neither how fast steps are nor what the task is."""
    return {}


def splits(path: Path) -> dict[str, np.ndarray]:
    """None: a file of arrays sets no episodes apart."""
    return {}


def checksums(path: Path) -> str:
    """Compare all, and say in words what they cover: every array has one.

    Raises:
        DataError: one is wrong; the message names its array.
    """
    with archive.opened(Path(path)) as opened:
        for name in opened.names:
            opened.compare(opened.member(name))
    return "each array has one (CRC-32), and all agree"


def write(
    file: IO[bytes],
    arrays: Mapping[str, tuple[tuple[int, ...], Any, Iterator[np.ndarray]]],
    *,
    is_compressed: bool = True,
) -> None:
    """Write an npz archive piece by piece; pictures are stored as they are, so that they can be mapped.

    Args:
        file: open for writing.
        arrays: by name: the whole array's shape, its dtype, and its pieces along the first axis.
        is_compressed: whether all others are compressed.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, (shape, dtype, pieces) in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            is_stored = not is_compressed or len(shape) == PICTURE_AXES
            info.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                header = {
                    "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_1_0(member, header)
                for piece in pieces:
                    member.write(piece.astype(dtype, copy=False).tobytes())


def _unpacked(path: Path, opened: archive.Archive, member: archive.Member, is_compared: bool) -> Path:
    """The copy of a compressed member, made anew if it is not what the archive holds."""
    stat = path.stat()
    folder = path.parent / ".unpacked"
    if folder.is_symlink():
        raise DataError(f"{folder}: expected a folder to unpack pictures into, found a link; remove it")
    name = quote(member.info.filename, safe="")
    copy = folder / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}-{name}"
    if _is_copy(copy, member.info, is_compared):
        return copy
    _LOG.info("%s: its pictures are compressed; they are unpacked once, into %s", path, folder)
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.name.startswith(f"{path.stem}-") and old.name.endswith(f"-{name}"):
            old.unlink()
    with whole_file(copy) as target:
        target.writelines(opened.content(member))
    return copy


def _is_copy(copy: Path, info: zipfile.ZipInfo, is_compared: bool) -> bool:
    if copy.is_symlink() or not copy.is_file() or copy.stat().st_size != info.file_size:
        return False
    return not is_compared or archive.crc32(copy) == info.CRC
