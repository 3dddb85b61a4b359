"""Pictures: which OpenGL backend works here, and frames to a file. Nothing else in the package needs OpenGL."""

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

BACKENDS = ("egl", "osmesa")
NO_BACKEND = (
    "no OpenGL backend: neither EGL nor OSMesa works here, so no video was made (Debian: apt-get install libegl1 "
    "libgl1-mesa-dri, or libosmesa6)"
)


@functools.cache
def gl_backend() -> str | None:
    """The first of EGL and OSMesa in which MuJoCo can make a context without a screen; None if neither works."""
    for backend in BACKENDS:
        environment = {**os.environ, "MUJOCO_GL": backend}
        environment.pop("PYOPENGL_PLATFORM", None)
        # In a process of its own: a driver that is not there may abort instead of raising.
        probe = [sys.executable, "-c", "import mujoco; mujoco.GLContext(8, 8).make_current()"]
        if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 0:
            return backend
    return None


def write_gif(path: Path, frames: Sequence[np.ndarray], frames_per_second: float) -> None:
    """Write uint8 frames (H, W, 3) as a looping GIF."""
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / frames_per_second), loop=0)
