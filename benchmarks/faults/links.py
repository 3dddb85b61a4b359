"""Links, pipes and devices in place of files: nothing outside is read into or written, and nobody waits for ever."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.common import Verdict, Worker, tree
from benchmarks.faults.mutations import read_data, read_run, write_sources
from benchmarks.faults.server import Server, fetched

CALL_SECONDS = 30.0
KINDS = ("a link to a copy", "a link to another file", "a dangling link", "a link to a device", "a pipe", "a folder")


class Links:
    """Every file of a run, its checkpoint, a Minari set, an npz file and a download, times every kind and every use."""

    quick = 24

    def __init__(self, folder: Path):
        self._folder = folder
        self._worker = Worker()
        self._sources = folder / "sources"
        self._sources.mkdir()
        self._worker.value(write_sources, self._sources)
        self._server = Server((self._sources / "converted.npz").read_bytes())
        self._url = f"http://127.0.0.1:{self._server.server_port}/new.npz"
        run = sorted(path for path in (self._sources / "run").rglob("*") if path.name not in ("run", "curves.png"))
        places = [f"run/{path.relative_to(self._sources / 'run')}" for path in run]
        minari = ["others-v0", "others-v0/data", "others-v0/data/main_data.hdf5", "others-v0/data/metadata.json"]
        uses: dict[str, tuple[Callable[..., Any], list[str]]] = {
            "continue": (continued, [*places, "run/curves.png", "run/videos", "run/checkpoints/40"]),
            "load": (read_run, places),
            "load without checksums": (read_run, [place for place in places if "/checkpoints/20/" in place]),
            "read": (read_data, ["converted.npz", "others.hdf5", *minari]),
            "download": (fetched, [f"new.npz{suffix}" for suffix in ("", ".part", ".part.json", ".lock", ".sha256")]),
        }
        self._cases = [
            (use, call, place, kind) for use, (call, places) in uses.items() for place in places for kind in KINDS
        ]
        self._order = np.random.default_rng(0).permutation(len(self._cases))
        self.total = len(self._cases)
        named = ("converted.npz", "others.hdf5", "others-v0")
        self._expected = {name: self._worker.value(read_data, self._sources / name) for name in named}
        self._expected["run"] = self._worker.value(read_run, self._sources / "run")
        self._expected["new.npz"] = self._worker.value(fetched, self._url, folder / "new.npz")

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Put something in the place of a file, use what it belongs to, and look at what lies outside."""
        use, call, place, kind = self._cases[self._order[number]]
        inside, outside = self._folder / "case/inside", self._folder / "case/outside"
        name = place.split("/")[0] if use != "download" else "new.npz"
        inside.mkdir(parents=True)
        outside.mkdir()
        try:
            if use != "download":
                source = self._sources / name
                (shutil.copytree if source.is_dir() else shutil.copy)(source, inside / name)
            if use == "load without checksums":
                (inside / "run/checkpoints/20/checksums.json").unlink()
            put(kind, inside / place, outside)
            before = tree(outside)
            arguments = [self._url] if use == "download" else []
            answer = self._worker.call(call, *arguments, inside / name, seconds=CALL_SECONDS)
            problem = None if tree(outside) == before else "something outside was changed"
        finally:
            shutil.rmtree(inside.parent)
        if answer.kind != "value":
            problem = problem or answer.refusal(str(inside / name))
        elif use == "continue" and kind != "a folder":
            problem = problem or "the run was written to"
        elif use != "continue" and answer.value != self._expected[name]:
            is_record = place in ("run/metrics.jsonl", "run/evaluations.csv")
            return Verdict("unprotected" if is_record else "dirty", f"{use}, {kind} in place of {place}: other content")
        told = problem or ("the same content" if answer.kind == "value" else answer.value)
        return Verdict("dirty" if problem else "clean", f"{use}, {kind} in place of {place}: {told}")

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()
        self._server.shutdown()
        self._server.server_close()


def put(kind: str, path: Path, outside: Path) -> None:
    """Put a link, pipe or folder in the place of a file or folder, which moves outside."""
    copy = outside / "copy"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        shutil.move(path, copy)
    else:
        copy.write_text("mine")
    (outside / "another").write_text("mine, too")
    targets = {"a link to a copy": copy, "a link to another file": outside / "another"}
    targets |= {"a dangling link": outside / "nothing", "a link to a device": Path("/dev/zero")}
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


def continued(path: Path) -> None:
    """Train a run for longer."""
    import guidedflow as gf

    gf.resume(path, extend_to=40, progress=False, workers=1)
