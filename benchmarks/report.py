"""Time, memory and size of a report over synthetic runs: 144 tasks x 5 agents x 8 seeds.

    python -m benchmarks.report [--tasks 144] [--seeds 8] [--keep FOLDER]

Each seed is a run folder of its own, with config.json as training writes it, the protocol's evaluations and, for GFP,
400 rows of metrics. With Chromium and playwright there, the page is opened as well, and a cell of it.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import browser
from benchmarks.synthetic import write_run
from guidedflow.processes import available_cores
from guidedflow.suites import tasks

AGENTS = ("gfp", "fql", "rebrac", "iql", "bc")


def measure_page(page: Path) -> None:
    """Open the page and a cell of it, and print how long each took."""
    with browser.chromium() as started:
        view = started.new_page()
        session = view.context.new_cdp_session(view)
        session.send("Performance.enable")
        began = time.perf_counter()
        view.goto(page.resolve().as_uri(), wait_until="commit")
        view.wait_for_selector("html[data-ready=yes]")
        view.locator("#search").fill("antmaze-large-stitch")
        view.wait_for_function("document.querySelectorAll('#overview tbody:first-of-type tr').length === 1")
        print(f"page: the filter has answered after {time.perf_counter() - began:.2f} s")
        view.wait_for_selector("html[data-charts=drawn]")
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        print(f"page: the table, the filter and all charts took {metrics['ThreadTime']:.2f} s of one core")
        began = time.perf_counter()
        view.locator("#overview tbody td button").first.click()
        view.wait_for_selector("#cell .main-svg")
        print(f"page: a cell's curves are drawn after {time.perf_counter() - began:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=144)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="leave runs and report in this new folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        chosen = tasks()[: arguments.tasks]
        for i, task in enumerate(chosen):
            for k, agent in enumerate(AGENTS):
                for seed in range(arguments.seeds):
                    name = f"{task.id.replace('/', '-')}-{agent}-{seed}"
                    score = 20.0 + (13 * i + 7 * k) % 70
                    write_run(folder / "runs" / name, task, agent, seeds=(seed,), score=score)
        command = [sys.executable, "-m", "guidedflow", "report", str(folder / "runs"), "--out", str(folder / "report")]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
        page = folder / "report" / "index.html"
        print(f"{len(list((folder / 'runs').iterdir()))} runs, {available_cores()} cores")
        print(f"report: {seconds:.1f} s, of which {processor:.1f} s on a core, peak memory {peak / 1e9:.2f} GB")
        print(f"page: {page.stat().st_size / 1e6:.1f} MB")
        if browser.is_there():
            measure_page(page)
        else:
            print(f"the page's times: {browser.MISSING}")


if __name__ == "__main__":
    main()
