"""D4RL's published data files."""

from collections.abc import Sequence
from pathlib import Path

from guidedflow.data.download import fetch as fetch_file
from guidedflow.data.download import verify_hdf5

BASES: tuple[str, ...] = ("http://rail.eecs.berkeley.edu/datasets/offline_rl/",)
_MAZES = {"umaze": "u-maze", "medium": "big-maze", "large": "hardest-maze"}
# Whether starts and goals vary in a recording of each kind; plain umaze is one of its own.
_VARIED = {"umaze": (False, False), "play": (True, False), "diverse": (True, True)}


def fetch(dataset: str, directory: Path, *, bases: Sequence[str] = BASES, show: bool = False) -> Path:
    """Fetch a data set, ``door-human-v1`` for instance, and return its path.

    Raises:
        DataError, OSError: as in `guidedflow.data.download.download`.
    """
    urls = [base + name_on_server(dataset) for base in bases]
    return fetch_file(urls, directory / f"{dataset}.hdf5", verify=verify_hdf5, show=show)


def name_on_server(dataset: str) -> str:
    """The file's path below a base."""
    if not dataset.startswith("antmaze-"):
        return f"hand_dapg_v1/{dataset}.hdf5"
    _, maze, *kind = dataset.removesuffix("-v2").split("-")
    start, goal = _VARIED[kind[0] if kind else maze]
    return f"ant_maze_v2/Ant_maze_{_MAZES[maze]}_noisy_multistart_{start}_multigoal_{goal}_sparse_fixed.hdf5"
