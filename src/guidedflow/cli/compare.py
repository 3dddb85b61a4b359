"""``guidedflow compare``: two runs of a task."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from guidedflow.cli.show import Flag, optional, print_fitting, print_json


@dataclasses.dataclass(frozen=True)
class Compare:
    """Show what differs between two runs, in settings and in scores."""

    run_a: Annotated[Positional[Path], optional("RUN_A")]
    """A run's folder."""
    run_b: Annotated[Positional[Path], optional("RUN_B")]
    """Another's, of the same task."""
    json: Flag = False
    """Print JSON instead of tables."""

    def __call__(self) -> int:
        """Print the differences and the scores side by side."""
        import guidedflow as gf
        from guidedflow.results.compare import as_terminal
        from guidedflow.training.display import make_console

        comparison = gf.compare(self.run_a, self.run_b)
        if self.json:
            rows = {name: [row._asdict() for row in getattr(comparison, name)] for name in ("differences", "results")}
            print_json({**rows, "notes": comparison.notes})
        else:
            print_fitting(make_console(), as_terminal(comparison, (str(self.run_a), str(self.run_b))))
        return 0
