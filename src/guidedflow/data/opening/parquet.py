"""Parquet files: columns of numbers, texts and pictures, of sizes that they can have. It needs pyarrow."""

import io
import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.data.opening.regular import check_memory, regular
from guidedflow.errors import DataError, GuidedflowError

MOST_UNPACKED = 1100
"""How many bytes of a column one byte of the file may stand for."""
ALWAYS_ALLOWED = 2**26
"""Bytes that a column may have, whatever the file holds of it: numbers that are all the same need next to nothing."""
MOST_TEXTS = 100_000
MOST_CHARACTERS = 10_000
"""Of one text."""
MOST_LISTED = 10
"""Names of columns in a message."""
_PIECE = 64
"""Rows that are in memory at once where they are texts or pictures, whose size no header tells."""
_PICTURE_FORMATS = ("PNG", "JPEG")


class Table:
    """What is in a Parquet file that ``opened`` has opened."""

    def __init__(self, path: Path, file: Any):
        self._path, self._file = path, file
        self._size = path.stat().st_size
        self.rows: int = file.metadata.num_rows
        self.names: list[str] = file.schema_arrow.names

    def listed_names(self) -> str:
        """The columns' names for a message: the first ``MOST_LISTED``, without characters that cannot be printed."""
        more = f" and {len(self.names) - MOST_LISTED:,} more" if len(self.names) > MOST_LISTED else ""
        return (", ".join(ascii(name[:100]) for name in self.names[:MOST_LISTED]) or "none") + more

    def numbers(self, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """A column, a row of the array for each of its rows.

        Args:
            name: the column's.
            shape: of each row; a column of plain numbers may stand for rows of shape (1,).

        Returns:
            (N, *shape) of the column's own type of numbers.

        Raises:
            DataError: there is no such column, it is of other shapes or no numbers, a number is missing, or it is
                larger than it can be.
        """
        import pyarrow
        import pyarrow.compute

        self._check_name(name)
        # The rows are all that can be asked for: what a damaged column says of itself ends the process in pyarrow.
        size = 8 * self.rows * math.prod(shape)
        if size > max(ALWAYS_ALLOWED, MOST_UNPACKED * self._size):
            raise self._error(name, f"a column of a size that {self._size:,} bytes of a file can hold", f"{size:,}")
        check_memory(size, f"{self._path}: {name}")
        column = self._file.read(columns=[name]).column(name).combine_chunks()
        if isinstance(column, pyarrow.ChunkedArray):  # Of no chunks, in older versions.
            column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
        levels = 0
        while True:
            if isinstance(column, pyarrow.ExtensionArray):
                column = column.storage
            if column.null_count:
                raise self._error(name, "a value in every row", f"none in {column.null_count} of them")
            if not _is_list(column.type):
                break
            sizes = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
            wanted = shape[levels] if levels < len(shape) else "one number"
            if (sizes != wanted).any():
                row = int(np.flatnonzero(sizes != wanted)[0])
                raise self._error(name, f"rows of shape {shape}", f"{sizes[row]} values in row {row}")
            column, levels = column.flatten(), levels + 1
        if not (pyarrow.types.is_boolean(column.type) or _is_number(column.type)):
            raise self._error(name, "numbers", f"type {column.type}")
        if levels != len(shape) and not (levels == 0 and shape == (1,)):
            raise self._error(name, f"rows of shape {shape}", f"lists in {levels} levels")
        return column.to_numpy(zero_copy_only=False).reshape(self.rows, *shape)

    def texts(self, name: str) -> list[str]:
        """A column of texts.

        Raises:
            DataError: there is no such column, it is of another kind, or of too many or too long ones.
        """
        self._check_name(name)
        if self.rows > MOST_TEXTS:
            raise self._error(name, f"at most {MOST_TEXTS:,} rows", f"{self.rows:,}")
        found: list[str] = []
        for row, text in enumerate(self._values(name)):
            if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
                there = f"{len(text):,} characters" if isinstance(text, str) else type(text).__name__
                raise self._error(name, f"texts of at most {MOST_CHARACTERS:,} characters", f"{there} in row {row}")
            found.append(text)
        return found

    def pictures(self, name: str, rows: Iterable[int]) -> Iterator[np.ndarray]:
        """Rows of a column of whole PNG or JPEG files, decoded one after the other, each (height, width, 3) of uint8.

        Raises:
            DataError: there is no such column, or a row holds no picture.
        """
        from PIL import Image

        self._check_name(name)
        values: Iterator[Any] = iter(())
        following = self.rows
        for row in rows:
            if row < following:
                values, following = self._values(name), 0
            content = next(itertools.islice(values, row - following, None), None)
            following = row + 1
            if not isinstance(content, bytes):
                raise self._error(name, "a picture (PNG or JPEG) in every row", f"none in row {row}")
            try:
                with Image.open(io.BytesIO(content), formats=_PICTURE_FORMATS) as picture:
                    yield np.asarray(picture.convert("RGB"))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise self._error(name, "a picture (PNG or JPEG) in every row", f"row {row}: {error}") from error

    def _values(self, name: str) -> Iterator[Any]:
        for batch in self._file.iter_batches(_PIECE, columns=[name]):
            for value in batch.column(name).to_pylist():
                # The path beside the bytes names a file that the data set does not have.
                yield value.get("bytes") if isinstance(value, dict) else value

    def _check_name(self, name: str) -> None:
        if name not in self.names:
            raise self._error(name, "a column of that name", self.listed_names())

    def _error(self, name: str, expected: str, found: str) -> DataError:
        return DataError(f"{self._path}: {name}: expected {expected}, found {found}")


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_floating(kind)


@contextmanager
def opened(path: Path, within: Path) -> Iterator[Table]:
    """A Parquet file of a folder to read from.

    Args:
        path: the file.
        within: as in ``regular``.

    Raises:
        DataError: it is missing, no file, no Parquet file or a damaged one.
    """
    import pyarrow
    import pyarrow.parquet

    regular(path, within)
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield Table(path, file)
    except GuidedflowError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: expected a whole Parquet file, found one that cannot be read: {reason}") from error
