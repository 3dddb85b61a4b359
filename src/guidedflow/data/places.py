"""Where data lies on this machine."""

import os
from pathlib import Path


def default_directory() -> Path:
    """Where data is kept: ``$GUIDEDFLOW_DATA``, else ``~/.guidedflow/data``."""
    return Path(os.environ.get("GUIDEDFLOW_DATA") or "~/.guidedflow/data").expanduser()


def folders(benchmark: str, data_dir: Path | None = None) -> list[Path]:
    """Where a benchmark's data is looked for, in this order: in ``data_dir`` alone if it is given.

    Else Minari's where its package keeps them; the other benchmarks' in guidedflow's folder, then in ogbench's own.
    """
    if data_dir is not None:
        return [data_dir]
    if benchmark == "minari":
        return [Path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets").expanduser()]
    return [default_directory(), Path("~/.ogbench/data").expanduser()]
