"""Random numbers: one integer seed, and everything else derived from it by folding in names and counters."""

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np


def derived_seed(seed: int, *path: str | int) -> int:
    """A 32-bit seed for the thing that ``path`` names, independent of the seeds of all other things."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])


@contextlib.contextmanager
def numpy_seeded(seed: int | np.random.SeedSequence) -> Iterator[None]:
    """Seed NumPy's global generator for the duration of a block, then put its old state back.

    Only for calling code of others that draws from it.
    """
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    np.random.set_state(dict(np.random.MT19937(seed).state))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
