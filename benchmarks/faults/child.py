"""``guidedflow`` with a fault to come: ``python -m benchmarks.faults.child FAULT WORDS``; the library has no hooks.

FAULT is JSON:

| field | |
|---|---|
| ``kill_at`` | a pattern of file operations ("os.rename OLD NEW", "open PATH") before which the processes are killed |
| ``number`` | at which of them, the first being 1 |
| ``kill_in_evaluation`` | at which evaluation |
| ``kill_after`` | seconds from the start, or from the moment that the others find |
| ``count_to`` | a file that gets, at the end, how many operations there were of each pattern in ``counted``, as JSON |
| ``no_flock`` | locks fail as on a file system without |
| ``limits`` | of resources, by the names of Python's ``resource`` |
"""

import atexit
import errno
import functools
import json
import os
import re
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def main() -> None:
    fault, words = json.loads(sys.argv[1]), sys.argv[2:]
    for name, limit in fault.get("limits", {}).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    if fault.get("no_flock"):
        _take_locks_away()
    _arm(fault)
    from guidedflow.cli import main

    main(words)


def _arm(fault: dict[str, Any]) -> None:
    delay, number = fault.get("kill_after", 0.0), fault.get("number", 1)
    if "kill_at" in fault:
        sys.addaudithook(_at(fault["kill_at"], lambda count: _kill(delay) if count == number else None))
    elif "kill_in_evaluation" in fault:
        _patch_evaluation(fault["kill_in_evaluation"], delay)
    elif "kill_after" in fault:
        _kill(delay)
    if "count_to" in fault:
        counts: dict[str, int] = {}
        for name, pattern in fault["counted"].items():
            sys.addaudithook(_at(pattern, functools.partial(counts.__setitem__, name)))
        atexit.register(lambda: Path(fault["count_to"]).write_text(json.dumps(counts)))


def _at(pattern: str, act: Any) -> Any:
    """An audit hook that calls ``act`` with how many matching operations have come."""
    matches, count = re.compile(pattern).search, 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        if (is_write or event in CHANGES) and matches(" ".join([event, *map(str, arguments[:2])])):
            count += 1
            act(count)

    return hook


def _kill(delay: float) -> None:
    def now() -> None:
        time.sleep(delay)
        os.killpg(0, signal.SIGKILL)

    if delay:
        threading.Thread(target=now, daemon=True).start()
    else:
        now()


def _patch_evaluation(number: int, delay: float) -> None:
    from guidedflow.training.evaluate import Evaluator

    evaluate, count = Evaluator.__call__, 0

    def evaluate_and_be_killed(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            _kill(delay)
        return evaluate(self, *arguments, **options)

    Evaluator.__call__ = evaluate_and_be_killed  # type: ignore[method-assign]


def _take_locks_away() -> None:
    import fcntl

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    fcntl.flock = fcntl.lockf = fail


if __name__ == "__main__":
    main()
