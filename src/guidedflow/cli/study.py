"""``guidedflow study``: many runs from one plan."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional

from guidedflow.cli.show import CountBar, Flag, optional, print_columns, print_fitting

PLAN = optional("PLAN")
WATCH_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class StudyInit:
    """Write a plan to begin with."""

    template: Annotated[
        Positional[Literal["laptop", "laptop-sweep", "published"]], optional("{laptop,laptop-sweep,published}")
    ]
    """laptop: four manipulation tasks by five algorithms, quick preset, data made here; laptop-sweep: the runs by which
    its values of alpha were chosen; published: the whole table."""
    out: Annotated[Path | None, optional("FILE", "the plan's name and .toml")] = None
    """The new file."""
    policy: Annotated[Path | None, optional("FILE")] = None
    """npz file of the weights of Adroit's pen expert: adds pen-expert-v1 to the laptop's plans."""

    def __call__(self) -> int:
        """Print the file's path and what to do with it."""
        from guidedflow.studies.templates import write_plan

        path = write_plan(self.template, self.out or Path(f"{self.template}.toml"), self.policy)
        print(f"plan: {path}   carry it out: guidedflow study run {path}")
        return 0


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """Carry out all runs of a plan; the same command continues after any failure."""

    interrupted: ClassVar[str] = "interrupted; the runs are being saved, and the same command goes on with them"

    plan: Annotated[Positional[Path], PLAN]
    """The plan, a TOML file: which tasks, agents, seeds and settings (docs/studies.md)."""
    engine: Literal["local", "ray", "slurm"] = "local"
    """local: on this machine; ray: on a Ray cluster (needs the extra cluster); slurm: by Slurm (the extra slurm)."""
    address: Annotated[str | None, optional("ADDRESS", "as $RAY_ADDRESS, else this machine")] = None
    """With --engine ray: the cluster's."""
    list: Flag = False
    """Check the plan and list its jobs; start none."""

    def __call__(self) -> int:
        """Print a line whenever a job ends, and what all came to."""
        import guidedflow as gf
        from guidedflow.studies.plan import read_plan
        from guidedflow.studies.status import summary
        from guidedflow.training.display import make_console

        console = make_console()
        if self.list:
            jobs = read_plan(self.plan).jobs
            print_columns([{"job": job.name, "seeds": " ".join(map(str, job.seeds))} for job in jobs])
            console.print(f"{len(jobs)} jobs")
            return 0
        study = gf.study(
            self.plan,
            engine=self.engine,
            address=self.address,
            on_event=lambda job, text: console.print(f"{time.strftime('%H:%M:%S')} {job.name}: {text}", soft_wrap=True),
        )
        console.print(f"{summary(study.states)}   report: guidedflow study report {self.plan}", soft_wrap=True)
        return 0


@dataclasses.dataclass(frozen=True)
class StudyStatus:
    """Show where each run of a plan stands."""

    plan: Annotated[Positional[Path], PLAN]
    """The plan."""
    watch: Flag = False
    """Show it again every few seconds, until nothing runs or waits any more."""
    html: Annotated[Path | None, optional("FILE")] = None
    """Write a page as well, which --watch keeps up to date."""

    def __call__(self) -> int:
        """Print a row a task, the totals, and why jobs failed."""
        from guidedflow.studies.jobs import state_of
        from guidedflow.studies.plan import read_plan
        from guidedflow.studies.status import problems, rows, summary
        from guidedflow.training.display import make_console

        jobs = read_plan(self.plan, is_checked=False).jobs
        console = make_console()
        while True:
            states = [state_of(job) for job in jobs]
            if self.html is not None:
                from guidedflow.studies.page import write_page

                write_page(self.html, str(self.plan), states)
            if self.watch:
                console.clear()
            print_columns(rows(states))
            for line in [*problems(states), summary(states)]:
                console.print(line, soft_wrap=True)
            if not self.watch or not any(state.status in ("running", "waiting") for state in states):
                return 0
            time.sleep(WATCH_SECONDS)


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """Set a study's runs beside the published numbers, once all are done."""

    interrupted: ClassVar[str] = "interrupted; no report was written"

    plan: Annotated[Positional[Path], PLAN]
    """The plan."""
    out: Path = Path("report")
    """The report's folder, as of `guidedflow report`. It is replaced."""
    partial: Flag = False
    """Report what is done so far, and name what is missing."""
    per_task: Annotated[tuple[str, ...], optional("SETTING ...", "none")] = ()
    """As of `guidedflow report`."""
    latex: Annotated[Path | None, optional("FILE")] = None
    """Write the table as a LaTeX document of its own as well."""

    def __call__(self) -> int:
        """Print the table, what is missing, and the page's path."""
        from guidedflow.results.rendering import as_terminal
        from guidedflow.studies.report import report
        from guidedflow.training.display import make_console

        with CountBar("runs and pictures") as bar:
            made = report(
                self.plan,
                self.out,
                is_partial=self.partial,
                per_task=self.per_task,
                latex=self.latex,
                on_progress=bar,
            )
        console = make_console()
        print_fitting(console, as_terminal(made.table))
        console.print(f"report: {made.path / 'index.html'}", soft_wrap=True)
        return 0
