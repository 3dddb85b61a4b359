"""Films of episodes, written while they are made."""

import io
import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from guidedflow.files import whole_file

SMALLEST_WIDTH = 192
"""Of a film in pixels: smaller pictures are enlarged, so that a caption can be read."""
LINE_HEIGHT = 13


class GifWriter:
    """A looping GIF that grows by a frame at a time; it takes its name when it is closed.

    Only one frame is held in memory, and of each only what differs from the one before is stored.

    Args:
        path: the file.
        frames_per_second: at most 100.
    """

    def __init__(self, path: Path, frames_per_second: float):
        self.path = path
        self._delay = round(100 / frames_per_second)  # GIF counts in hundredths of a second.
        self._open: tuple[AbstractContextManager[IO[bytes]], IO[bytes]] | None = None
        self._last: np.ndarray | None = None

    def append(self, frame: np.ndarray, caption: Sequence[str] = ()) -> None:
        """Add a frame.

        Args:
            frame: uint8 (H, W, 3), of one size throughout.
            caption: lines to write below the picture; as many throughout.
        """
        frame = captioned(frame, caption) if caption else frame
        last, self._last = self._last, frame
        file = self._begin(frame) if self._open is None else self._open[1]
        left, top, right, bottom = _changed(last, frame)
        palette, image = _encoded(frame[top:bottom, left:right])
        bits = (len(palette) // 3).bit_length() - 1  # Of a colour's number: the palette has 2^bits colours.
        file.write(b"\x21\xf9\x04" + struct.pack("<BHB", 0b100, self._delay, 0) + b"\0")
        place = struct.pack("<HHHH", left, top, right - left, bottom - top)
        file.write(b"\x2c" + place + bytes([0x80 | (bits - 1)]) + palette + image)

    def _begin(self, frame: np.ndarray) -> IO[bytes]:
        target = whole_file(self.path)
        file = target.__enter__()
        self._open = target, file
        height, width = frame.shape[:2]
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0))
        file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # Repeats for ever.
        return file

    def close(self) -> None:
        """Finish the file; without any frame there is none."""
        if self._open is not None:
            target, file = self._open
            self._open = None
            file.write(b"\x3b")
            target.__exit__(None, None, None)

    def discard(self) -> None:
        """Leave no file: the episode did not come to its end."""
        if self._open is not None:
            target, _ = self._open
            self._open = None
            target.__exit__(_Discarded, _Discarded(), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


class _Discarded(Exception):
    """Makes ``whole_file`` remove what was written."""


def captioned(frame: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """A picture, enlarged by a whole factor if it is narrow, with lines of text below it: uint8 (H, W, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    factor = -(-SMALLEST_WIDTH // frame.shape[1])
    large = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = large.shape[:2]
    canvas = Image.new("RGB", (width, height + LINE_HEIGHT * len(lines) + 2))
    canvas.paste(Image.fromarray(large))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default()
    for i, line in enumerate(lines):
        draw.text((3, height + LINE_HEIGHT * i), line, fill="white", font=font)
    return np.asarray(canvas)


def _changed(last: np.ndarray | None, frame: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what differs; one pixel if nothing does."""
    height, width = frame.shape[:2]
    if last is None or last.shape != frame.shape:
        return 0, 0, width, height
    differs = (last != frame).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _encoded(picture: np.ndarray) -> tuple[bytes, bytes]:
    """Palette (2^n colours, n > 0) and compressed pixels, taken from the GIF of one frame that Pillow writes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE).save(buffer, "GIF", interlace=False)
    content = buffer.getvalue()
    colours = 2 << (content[10] & 7)
    palette, rest = content[13 : 13 + 3 * colours], content[13 + 3 * colours :]
    while rest[:1] == b"\x21":  # Extensions: chains of blocks that each begin with their length.
        end = 2
        while rest[end]:
            end += 1 + rest[end]
        rest = rest[end + 1 :]
    flags = rest[9]  # Of the image's descriptor; a palette of its own would follow it.
    start = 10
    if flags & 0x80:
        colours = 2 << (flags & 7)
        palette, start = rest[10 : 10 + 3 * colours], 10 + 3 * colours
    return palette, rest[start:].removesuffix(b"\x3b")
