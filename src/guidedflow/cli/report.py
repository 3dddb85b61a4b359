"""``guidedflow report``: runs beside the published numbers."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from guidedflow.cli.show import CountBar, optional, print_fitting


@dataclasses.dataclass(frozen=True)
class Report:
    """Set runs beside the published numbers: tables, statistics, plots, a page."""

    interrupted: ClassVar[str] = "interrupted; no report was written"

    runs: Annotated[Positional[tuple[str, ...]], optional("RUN ...")]
    """Folders of runs, folders above them, or quoted patterns; any mix of tasks, agents and seeds, finished or not."""
    out: Path = Path("report")
    """The report's folder: index.html, table.md, table.tex, table.csv, statistics.md and plots/. It is replaced."""
    per_task: Annotated[tuple[str, ...], optional("SETTING ...", "none")] = ()
    """Settings that were chosen for each task, such as alpha: their values do not split a column."""

    def __call__(self) -> int:
        """Print the table and the page's path."""
        import guidedflow as gf
        from guidedflow.results.rendering import as_terminal
        from guidedflow.training.display import make_console

        with CountBar("runs and pictures") as bar:
            report = gf.report(self.runs, self.out, per_task=self.per_task, on_progress=bar)
        console = make_console()
        print_fitting(console, as_terminal(report.table))
        console.print(f"report: {report.path / 'index.html'}", soft_wrap=True)
        return 0
