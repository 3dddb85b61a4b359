"""Which OpenGL backend works here. Pictures need one: pixel tasks and videos; nothing else in the package does."""

import functools
import os
import subprocess
import sys

from guidedflow.errors import SettingsError

BACKENDS = ("egl", "osmesa")
NO_BACKEND = (
    "no OpenGL backend: neither EGL nor OSMesa works here (Debian: apt-get install libegl1 libgl1-mesa-dri, or "
    "libosmesa6)"
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


def needed_backend(what: str) -> str:
    """The backend, for something that cannot do without.

    Raises:
        SettingsError: there is none; the message names ``what`` needs it, and what to install.
    """
    found = gl_backend()
    if found is None:
        raise SettingsError(f"{what}: expected an OpenGL backend to draw its pictures, found {NO_BACKEND}")
    return found
