"""Pictures that are decoded when they are needed: of videos, which are far smaller than what they show."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.errors import DataError
from guidedflow.processes import available_memory


class StoredPictures:
    """Pictures (N, height, width, channels) of uint8, read in their order, some at a time.

    Args:
        shape: of all of them.
        read: begins to read: pieces (k, height, width, channels) along the first axis.
        source: what error messages call them.
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[[], Iterable[np.ndarray]], source: str):
        self.shape = shape
        self._read = read
        self._source = source

    @property
    def nbytes(self) -> int:
        """Of all of them, decoded."""
        return math.prod(self.shape)

    def pieces(self) -> Iterator[np.ndarray]:
        """All of them, some at a time.

        Raises:
            DataError: they are damaged, or not all of one size.
        """
        for piece in self._read():
            if piece.shape[1:] != self.shape[1:]:
                raise DataError(
                    f"{self._source}: expected pictures of shape {self.shape[1:]} as the first one's, found one of "
                    f"{piece.shape[1:]}"
                )
            yield piece

    def array(self) -> np.ndarray:
        """All of them in memory.

        Raises:
            DataError: as ``pieces``.
        """
        array, row = np.empty(self.shape, np.uint8), 0
        for piece in self.pieces():
            array[row : row + len(piece)] = piece
            row += len(piece)
        return array


def in_memory(fields: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """The same fields with their pictures decoded.

    Raises:
        DataError: they do not fit into the memory that is left, or as ``StoredPictures.pieces``.
    """
    size = sum(value.nbytes for value in fields.values() if isinstance(value, StoredPictures))
    left = available_memory()
    if size > left:
        raise DataError(
            f"{path}: expected pictures that fit into the {left / 1e9:.1f} GB of memory that are left, found "
            f"{size / 1e9:.1f} GB; make a file that is read from the disk of them with `guidedflow data convert`"
        )
    return {name: value.array() if isinstance(value, StoredPictures) else value for name, value in fields.items()}
