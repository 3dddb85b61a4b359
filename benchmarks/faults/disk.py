"""Commands on a disk that is full: one line, nothing half-written, and everything goes on once there is room."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.common import (
    Done,
    Verdict,
    Worker,
    command,
    digest,
    mounted,
    own_arrays,
    remount,
    run_content,
    train_words,
    tree,
    write_log,
)

COMMANDS = ("train", "data convert", "train", "train", "report", "train", "train", "data generate", "train", "train")
ROOM = 2**28


class FullDisks:
    """By turns a small file system in memory, where one can be mounted, and a limit on the size of every file."""

    total = 30
    quick = 1

    def __init__(self, folder: Path):
        self._folder = folder
        self._log = write_log(folder / "log.npz")
        self._worker = Worker()
        self._source = folder / "source.npz"
        np.savez(self._source, **own_arrays())
        self._undisturbed = folder / "undisturbed"
        self._undisturbed.mkdir()
        self._contents: dict[str, Any] = {}

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Run a command without room, then again with room, and compare with the command on an empty disk."""
        name = COMMANDS[number % len(COMMANDS)]
        self._content(name)  # Without a fault, before there is one.
        with mounted(self._folder / f"disk-{number}", ROOM) as is_mounted:
            place = self._folder / f"disk-{number}"
            by_limit = not is_mounted or bool(number // len(COMMANDS) % 2)
            size = int(rng.uniform(0, 1) * self._size(name, largest=by_limit))
            size = size if by_limit else max(4096, size // 4096 * 4096)
            if not by_limit:
                remount(place, f"size={size}")
            fault = {"limits": {"FSIZE": size}} if by_limit else {}
            done = command(*self._words(name, place), fault=fault, folder=self._folder)
            left = self._half_written(name, place)
            if not by_limit:
                remount(place, f"size={ROOM}")
            problem = left or self._judge(name, place, done)
            if not is_mounted:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
        how = f"files of at most {size:,} bytes" if by_limit else f"a disk of {size:,} bytes"
        found = problem or ("no fault came" if done.code == 0 else done.error.splitlines()[-1])
        return Verdict("dirty" if problem else "clean", f"{name}, {how}: {found}")

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()

    def _judge(self, name: str, place: Path, done: Done) -> str | None:
        """What is wrong with how a command ended, and how it goes on with room."""
        problem = done.refusal() if done.code else None
        if problem:
            return problem
        words = self._words(name, place)
        if name == "train" and (place / "run" / "config.json").exists():
            words = ("train", "--resume", place / "run")
        elif done.code == 0:
            words = ()
        again = command(*words, folder=self._folder) if words else done
        if again.failure():
            return f"with room again: {again.failure()}"
        found = self._worker.call(content, name, place)
        same = found.kind == "value" and found.value == self._content(name)
        return None if same else f"with room again: expected the undisturbed content, found another ({found.kind})"

    def _content(self, name: str) -> Any:
        """What the command makes where nothing disturbs it."""
        if name not in self._contents:
            place = self._undisturbed / name.replace(" ", "-")
            place.mkdir()
            done = command(*self._words(name, place), folder=self._folder)
            if done.failure():
                raise RuntimeError(f"expected a command that ends well, found {done.failure()}")
            self._contents[name] = self._worker.value(content, name, place)
        return self._contents[name]

    def _size(self, name: str, *, largest: bool) -> int:
        """Of everything that the command makes, or of the largest file."""
        place = self._undisturbed / name.replace(" ", "-")
        sizes = [path.stat().st_size for path in place.rglob("*") if path.is_file()]
        return max(sizes) if largest else sum(-(-size // 4096) * 4096 for size in sizes)

    def _words(self, name: str, place: Path) -> tuple[Any, ...]:
        if name == "train":
            return train_words(self._log, place / "run")
        if name == "report":
            self._content("train")
            return ("report", self._undisturbed / "train", "--out", place / "report")
        if name == "data convert":
            return ("data", "convert", self._source, place / "made.npz", "--action-low", "-2", "--action-high", "2")
        stand_in = ("--stand-in", "random", "--episodes", "4", "--workers", "1")
        return ("data", "generate", "mujoco/hopper/medium-v0", *stand_in, "--data-dir", place)

    def _half_written(self, name: str, place: Path) -> str | None:
        """Of what is there whole or not at all: what is there, and not as it should be."""
        final = {"report": "report", "data convert": "made.npz", "data generate": "mujoco/hopper/medium-v0"}.get(name)
        if final is None or not (place / final).exists():
            return None
        found = self._worker.call(content, name, place)
        if found.kind == "value" and found.value == self._content(name):
            return None
        return f"{final} is there, half-written"


def content(name: str, place: Path) -> Any:
    """What a command made, but for times."""
    from guidedflow.data import formats
    from guidedflow.results.report import FILES

    if name == "train":
        return run_content(place / "run")
    if name == "report":
        return {file: digest((place / "report" / file).read_bytes()) for file in FILES}, len(tree(place / "report"))
    path = place / ("made.npz" if name == "data convert" else "mujoco/hopper/medium-v0")
    return formats.load(path).fingerprint()
