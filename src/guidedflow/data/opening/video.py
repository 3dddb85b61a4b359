"""Videos: frames by their number. It needs av."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from guidedflow.data.opening.regular import check_memory, regular
from guidedflow.errors import DataError

TOLERANCE = 0.1
"""By what share of the time between two frames a frame's time may differ from its number's."""


class Frame(NamedTuple):
    """One frame of a video, not yet turned into colours."""

    number: int
    """Its time in seconds, times the frames a second."""
    frame: Any


def pictures(path: Path, within: Path, fps: float, numbers: Iterable[int]) -> Iterator[np.ndarray]:
    """Frames of an mp4 file by their numbers, each (height, width, 3) of uint8.

    One pass over the file if the numbers never fall; where they do, it is read from its start again.

    Args:
        path: the file.
        within: as in ``regular``.
        fps: frames a second.
        numbers: which frames; frame n is shown at n / fps seconds.

    Raises:
        DataError: the file is missing, no file, no mp4 file or a damaged one, is of another number of frames a second,
            or lacks a frame.
    """
    frames: Iterator[Frame] = iter(())
    last = Frame(-1, None)
    for number in numbers:
        if number < last.number or last.frame is None:
            frames, last = _frames(path, within, fps), Frame(-1, None)
        while last.number < number:
            following = next(frames, None)
            if following is None or following.number > number:
                found = "none" if following is None else f"frame {following.number} after {last.number}"
                raise DataError(
                    f"{path}: expected frame {number}, shown at {number / fps:g} s, found {found}; the video is not "
                    "whole, or not of this data"
                )
            last = following
        with _reading(path):
            picture = last.frame.to_ndarray(format="rgb24")
        yield picture


def _frames(path: Path, within: Path, fps: float) -> Iterator[Frame]:
    import av

    with regular(path, within).open("rb") as content:
        with _reading(path):
            # The format is named because others (playlists) open files and addresses that they name.
            container = av.open(content, "r", format="mp4")
        with container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None:
                raise DataError(f"{path}: expected an mp4 file with a video of a known codec, found none in it")
            check_memory(3 * stream.width * stream.height, str(path))
            stream.thread_type = "AUTO"
            decoded = container.decode(stream)
            while True:
                with _reading(path):
                    frame = next(decoded, None)
                if frame is None:
                    return
                if frame.time is None:
                    raise DataError(f"{path}: expected a time for every frame, found none")
                number = round(frame.time * fps)
                if abs(frame.time * fps - number) > TOLERANCE:
                    raise DataError(
                        f"{path}: expected {fps:g} frames a second, found a frame at {frame.time:g} s, between two of "
                        "them; fps in meta/info.json is not the video's"
                    )
                yield Frame(number, frame)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever av makes of a damaged file is a DataError."""
    import av

    try:
        yield
    except (av.FFmpegError, OSError, ValueError, RuntimeError, MemoryError, OverflowError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: expected a whole mp4 file, found one that cannot be read: {reason}") from error
