"""Data sets of many episodes in OGBench's file format: helper processes make one file an episode, joined at the end."""

import contextlib
import hashlib
import json
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from guidedflow.data.opening import archive
from guidedflow.data.opening.regular import parse
from guidedflow.errors import DataError, SettingsError
from guidedflow.files import whole_file
from guidedflow.locks import held
from guidedflow.opengl import needed_backend
from guidedflow.processes import HelperProcess, answered, available_cores
from guidedflow.suites.ogbench.oracles import Collector
from guidedflow.suites.ogbench.recipes import recipe

OnProgress = Callable[[int, int], None]

logger = logging.getLogger(__name__)

PROCEDURE = 2
"""Of how episodes are made: raised when the same seed gives other ones, so that a call that continues mixes no two."""


def generate(
    family: str,
    *,
    directory: Path,
    episodes: int | None = None,
    val_episodes: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    steps: int = 1001,
    progress: OnProgress = lambda done, total: None,
) -> tuple[Path, Path]:
    """Make a family's training and validation files. A call that was interrupted is continued by the next one.

    Args:
        family: a name of ``FAMILIES``.
        directory: where the files go; those that hold what is asked for are kept.
        episodes: of the training file; None: the published number.
        val_episodes: of the validation file; None: a tenth of it.
        workers: processes; None: one a core. Changes no byte.
        seed: an episode depends on it, its split and its number alone.
        steps: rows of an episode.
        progress: called first with what an interrupted call left, then after each episode, with all of them.

    Returns:
        The paths of both files.

    Raises:
        SettingsError: a wrong argument, a folder that cannot be written to, another process that makes the same, or
            pictures without an OpenGL backend to draw them.
        DataError: a file is there that holds another thing.
        WorkerDied: a worker ended.
        OSError: a file cannot be written.
    """
    episodes = recipe(family).episodes if episodes is None else episodes
    val_episodes = max(1, episodes // 10) if val_episodes is None else val_episodes
    workers = available_cores() if workers is None else workers
    _check_least(
        episodes=(episodes, 1), val_episodes=(val_episodes, 1), workers=(workers, 1), seed=(seed, 0), steps=(steps, 2)
    )
    directory = Path(directory).resolve()
    train, val = directory / f"{family}-v0.npz", directory / f"{family}-v0-val.npz"
    settings: dict[str, Any] = {"family": family, "seed": seed, "steps": steps}
    files = {
        train: settings | {"split": "train", "episodes": episodes},
        val: settings | {"split": "val", "episodes": val_episodes},
    }
    if not _missing(files):
        logger.info("%s and %s are already there", train, val)
        return train, val

    _make_files(files, directory, settings, workers, progress)
    return train, val


def _check_least(**numbers: tuple[Any, int]) -> None:
    for name, (found, least) in numbers.items():
        if not isinstance(found, int) or found < least:
            raise SettingsError(f"{name}: expected at least {least}, found {found!r}")


def _make_files(
    files: dict[Path, dict[str, Any]], directory: Path, settings: dict[str, Any], workers: int, progress: OnProgress
) -> None:
    """Those that are missing, of parts that an interrupted call may have left."""
    family = settings["family"]
    backend = needed_backend(family) if recipe(family).is_visual else None
    versions = {name: version(name) for name in ("guidedflow", "ogbench", "mujoco", "numpy")}
    # Parts of another recipe or other physics must not be mixed in.
    digest = hashlib.sha256(f"{recipe(family)} {versions} {PROCEDURE}".encode()).hexdigest()[:8]
    parts = directory / ".partial" / f"{family}-seed{settings['seed']}-steps{settings['steps']}-{digest}"
    with _only_maker(directory, family, parts):
        needed = {
            path: [parts / f"{wanted['split']}-{index}.npz" for index in range(wanted["episodes"])]
            for path, wanted in _missing(files).items()
        }
        _make([part for group in needed.values() for part in group], settings, workers, backend, progress)
        for path, group in needed.items():
            _join(group, {"generator": "guidedflow", "versions": versions, **files[path]}, path)
        # A worker of a killed call may still be at its last episode: what it leaves is of no use.
        shutil.rmtree(parts, ignore_errors=True)


def _missing(files: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    for path, wanted in files.items():
        if not path.exists():
            continue
        expected = ", ".join(f"{name} {value}" for name, value in wanted.items())
        try:
            with archive.opened(path) as opened:
                metadata = parse(opened.read("metadata").item(), str(path))
            found = ", ".join(f"{name} {metadata[name]}" for name in wanted)
        except (DataError, KeyError, TypeError, ValueError):
            found = "a folder" if path.is_dir() else "a damaged file, or one that guidedflow did not make"
        if found != expected:
            remedy = "name another --data-dir or remove the file"
            raise DataError(f"{path}: expected {expected}; found {found}; {remedy}")
    return {path: wanted for path, wanted in files.items() if not path.exists()}


@contextlib.contextmanager
def _only_maker(directory: Path, family: str, parts: Path) -> Iterator[None]:
    # One lock for all settings of a family, for its two files must come from the same call. The system drops
    # the lock with the process, however that ends.
    stack = contextlib.ExitStack()
    try:
        parts.mkdir(parents=True, exist_ok=True)
        stack.enter_context(held(parts.parent / f"{family}.lock"))
    except filelock.Timeout as error:
        remedy = "wait for it or name another --data-dir"
        raise SettingsError(f"{directory}: another process is making {family} here; {remedy}") from error
    except (OSError, NotImplementedError) as error:
        with contextlib.suppress(OSError):
            parts.rmdir()
        raise SettingsError(
            f"data_dir: expected a folder to write and lock files in, found {directory}: {error}"
        ) from error
    with stack:
        yield


def _is_complete(part: Path, steps: int) -> bool:
    try:
        with archive.opened(part) as opened:
            return all(len(opened.read(name)) == steps for name in opened.names)
    except (DataError, TypeError):
        return False


def _make(
    wanted: list[Path], settings: dict[str, Any], workers: int, gl_backend: str | None, progress: OnProgress
) -> None:
    parts = wanted[0].parent
    todo = deque(part for part in wanted if not _is_complete(part, settings["steps"]))
    for part in todo:  # one that exists counts as finished below
        part.unlink(missing_ok=True)
    done = len(wanted) - len(todo)
    progress(done, len(wanted))
    with contextlib.ExitStack() as stack:
        crew = [HelperProcess(_work, settings, parts, gl_backend=gl_backend) for _ in range(min(workers, len(todo)))]
        for helper in crew:
            stack.callback(helper.close)
        while done < len(wanted):
            for helper in answered(crew):
                made = helper.receive()
                if made is not None:
                    done += 1
                    progress(done, len(wanted))
                if todo:
                    helper.send(todo.popleft().stem)


def _work(ask: Callable[[str | None], str], settings: dict[str, Any], parts: Path) -> None:
    collector = Collector(settings["family"], settings["steps"])
    made = None
    while True:
        wanted = ask(made)
        split, index = wanted.split("-")
        episode: dict[str, Any] = collector.episode(
            settings["seed"], int(index), "train" if split == "train" else "val"
        )
        with whole_file(parts / f"{wanted}.npz", parts) as file:
            np.savez(file, **episode)
        made = wanted


def _join(parts: list[Path], metadata: dict[str, Any], path: Path) -> None:
    def episodes(name: str) -> Iterator[np.ndarray]:
        for part in parts:
            with archive.opened(part) as opened:
                yield opened.read(name)

    said = np.array(json.dumps(metadata))
    arrays: dict[str, Any] = {"metadata": ((), said.dtype, iter([said]))}
    with archive.opened(parts[0]) as first:
        for name in first.names:
            (rows, *row), dtype = first.member(name).shape, first.member(name).dtype
            arrays[name] = ((rows * len(parts), *row), dtype, episodes(name))
    from guidedflow.data.formats import npz  # With JAX, which the workers do without.

    with whole_file(path, parts[0].parent) as file:
        npz.write(file, arrays)
