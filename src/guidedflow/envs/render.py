"""Films of episodes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_gif(path: Path, frames: Sequence[np.ndarray], frames_per_second: float) -> None:
    """Write uint8 frames (H, W, 3) as a looping GIF."""
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / frames_per_second), loop=0)
