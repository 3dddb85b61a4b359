"""OGBench's published data files."""

from collections.abc import Sequence
from pathlib import Path

from guidedflow.data.download import fetch as fetch_file
from guidedflow.data.download import verify_npz

# The authors' server, then the mirror. The mirror has its files at the top level under the same names:
# public scripts fetch "<dataset>-v0.npz" from it, and report cube-double-play byte-identical on the two.
BASES: tuple[str, ...] = (
    "https://rail.eecs.berkeley.edu/datasets/ogbench/",
    "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main/",
)


def fetch(dataset: str, directory: Path, *, bases: Sequence[str] = BASES, show: bool = False) -> tuple[Path, Path]:
    """Fetch those of a data set's two files that are not there yet: training and validation.

    Args:
        dataset: its name without version, "cube-single-noisy" for instance.
        directory: where the files go.
        bases: base URLs, each ending in a slash, in order of preference.
        show: draw a progress bar for each file on the terminal.

    Returns:
        The paths of `<dataset>-v0.npz` and `<dataset>-v0-val.npz`.

    Raises:
        DataError, OSError: as in `guidedflow.data.download.download`.
    """
    train, val = (
        fetch_file([base + name for base in bases], directory / name, verify=verify_npz, show=show)
        for name in (f"{dataset}-v0.npz", f"{dataset}-v0-val.npz")
    )
    return train, val
