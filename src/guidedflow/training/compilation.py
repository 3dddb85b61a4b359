"""Compiled programs are kept on the disk, so that the second run of a kind does not compile again."""

import contextlib
import os
from pathlib import Path

import jax

LEAST_SECONDS = 0.3
"""What compiles faster than this is not kept: reading it back would take as long."""


def cache_directory() -> Path:
    """Where they are kept unless JAX was told another place: ``$XDG_CACHE_HOME/guidedflow/jax``, or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "guidedflow" / "jax"


def keep_compiled_programs() -> None:
    """Turn JAX's persistent compilation cache on, unless its user has decided about it or there is no place for it.

    JAX's own settings decide first: ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    folder = cache_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)


def forget(name: str) -> None:
    """Remove the kept programs of a name, one of which is damaged: JAX would never write over it."""
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is not None:
        for entry in Path(folder).glob(f"{name}-*"):
            with contextlib.suppress(OSError):
                entry.unlink()
