"""Peak memory of a command and all the processes that it starts.

    python -m benchmarks.memory make train

Every two seconds the proportional set sizes (Pss of /proc/PID/smaps_rollup: shared pages are divided among those who
share them) of the command's descendants are added up; Linux only.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path


def descendants(root: int) -> list[int]:
    """The process and everything below it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # It ended in between.
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def proportional_set_size(pid: int) -> int:
    """In bytes; 0 if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def held(root: int) -> int:
    """What the process and everything below it hold, in bytes."""
    return sum(map(proportional_set_size, descendants(root)))


def own(field: str) -> int:
    """A field of this process's /proc/self/status in bytes: ``VmHWM`` is the most that it ever held."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(line.split()[1])


class Watch:
    """The most that this process and its helpers hold while it runs, looked at twenty times a second."""

    def __init__(self) -> None:
        self._peak, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.is_set():
            self._peak = max(self._peak, held(os.getpid()))
            self._over.wait(0.05)

    def stop(self) -> int:
        """The peak in bytes."""
        self._over.set()
        self._thread.join()
        return max(self._peak, held(os.getpid()))


def main() -> None:
    process, peak = subprocess.Popen(sys.argv[1:]), 0
    while process.poll() is None:
        peak = max(peak, held(process.pid))
        time.sleep(2)
    print(f"peak memory: {peak / 1e9:.2f} GB")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
