"""Where data lies on this machine."""

import os
from pathlib import Path


def default_directory() -> Path:
    """Where data is kept: ``$GUIDEDFLOW_DATA``, else ``~/.guidedflow/data``."""
    return Path(os.environ.get("GUIDEDFLOW_DATA") or "~/.guidedflow/data").expanduser()
