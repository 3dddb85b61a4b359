"""Finds run folders."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from guidedflow.errors import RunError
from guidedflow.runs.config import FILE


def find_runs(patterns: Iterable[str | Path]) -> list[Path]:
    """The run folders that are named, matched, or lie below what is.

    Raises:
        RunError: one of them leads to no run.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        place = Path(os.path.expanduser(str(pattern)))
        named = [place] if place.exists() else [Path(name) for name in sorted(glob.glob(str(place), recursive=True))]
        below = [path for start in named for path in _below(start)]
        if not below:
            raise RunError(f"{pattern}: expected folders of runs, found none with a {FILE} there or below")
        found |= {path.resolve(): path for path in below}
    if not found:
        raise RunError("runs: expected at least one folder of a run, found none")
    return list(found.values())


def _below(place: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(place):
        folders.sort()
        if FILE in files:
            found.append(Path(parent))
            folders.clear()  # A run holds no other runs.
    return found
