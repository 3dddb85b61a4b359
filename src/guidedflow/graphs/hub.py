"""Exported policies on the Hugging Face Hub."""

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

from guidedflow.errors import RunError, SettingsError
from guidedflow.graphs.folder import CARD, GRAPH, PROGRAM, SCHEMA, ExportedPolicy

PREFIX = "hf:/"
"""What a name on the hub begins with, ``hf://user/name``; a Path has one slash of it."""
FILES = [CARD, GRAPH, PROGRAM, SCHEMA]


def push(folder: Path | str, name: str, *, private: bool = False) -> str:
    """Upload an exported policy, with its model card, and return its address.

    Args:
        folder: that ``export`` made.
        name: on the hub, ``user/name``; it is made if it is not there, and gets a new revision if it is.
        private: whether others see a new one.

    Raises:
        RunError: the folder is no exported policy's, or the hub refuses it or cannot be reached.
        DataError: a file of the folder cannot be read.
        SettingsError: huggingface_hub is not installed.
    """
    hub, folder, name = _hub(), Path(folder), name.removeprefix("hf://")
    exported = ExportedPolicy.read(folder)
    exported.graph()
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        message = f"{exported.policy} of {exported.title}"
        hub.upload_folder(repo_id=name, folder_path=folder, allow_patterns=FILES, commit_message=message)
    except Exception as error:  # The errors of huggingface_hub and of its HTTP client have no other class in common.
        raise RunError(f"{name}: expected a hub that takes the policy, found: {_first_line(error)}") from error
    return f"{hub.endpoint}/{name}"


def pull(name: str, out: Path | str, *, revision: str | None = None) -> Path:
    """Download an exported policy into a new folder. Nothing of it is run; its graph is checked.

    Args:
        name: on the hub, ``user/name``.
        out: the new folder.
        revision: a branch, tag or commit; None: the newest.

    Raises:
        RunError: there is no such policy, the hub cannot be reached, or the folder is there.
        DataError: a file of it is missing or cannot be read.
        SettingsError: huggingface_hub is not installed.
    """
    hub, out, name = _hub(), Path(out).absolute(), name.removeprefix("hf://")
    if out.exists():
        raise RunError(f"{out}: expected a new folder for the policy, found something there; choose another")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", suffix=".tmp", dir=out.parent) as folder:
        downloaded = _download(hub, name, Path(folder) / "downloaded", revision)
        ExportedPolicy.read(downloaded).graph()
        whole = Path(folder) / "whole"
        whole.mkdir()
        for file in FILES:  # The client's own records are left behind.
            if (downloaded / file).is_file():
                (downloaded / file).replace(whole / file)
        whole.replace(out)
    return out


def local(run: Path | str) -> Path:
    """A run's or policy's folder; one on the hub, ``hf://user/name``, is downloaded first if it has changed.

    Raises:
        RunError: there is no such policy, or the hub cannot be reached.
    """
    if not str(run).startswith(PREFIX):
        return Path(run)
    name = str(run).removeprefix(PREFIX).strip("/")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "guidedflow" / "policies"
    return _download(_hub(), name, cache / name.replace("/", "--"), None)


def _hub() -> Any:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise SettingsError("hub: expected the package huggingface_hub, found none; pip install 'guidedflow[hub]'")
    import huggingface_hub

    return huggingface_hub.HfApi(library_name="guidedflow")


def _download(hub: Any, name: str, folder: Path, revision: str | None) -> Path:
    try:
        hub.snapshot_download(name, local_dir=folder, allow_patterns=FILES, revision=revision)
    except Exception as error:  # As above.
        raise RunError(f"hf://{name}: expected a policy on the hub, found: {_first_line(error)}") from error
    return folder


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
