"""A run that has been trained, as ``train`` and ``resume`` return it."""

import dataclasses
import html
from pathlib import Path
from typing import Any

from guidedflow.runs.config import RunConfig
from guidedflow.runs.folder import RunFolder, plain_rows
from guidedflow.runs.summary import over_seeds


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has been trained, or was stopped by a callback."""

    path: Path
    results: list[dict[str, Any]]
    """The last evaluation: one row a policy and agent, with the fields of evaluations.csv."""
    is_finished: bool = True
    """Whether it came to its last step."""

    @property
    def config(self) -> RunConfig:
        """Everything that decided what it computed."""
        return RunFolder(self.path).config()

    @property
    def over_seeds(self) -> list[dict[str, Any]]:
        """Means over seeds, best variant first; see ``guidedflow.runs.summary.over_seeds``."""
        return over_seeds(self.results)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds of it."""
        config = self.config
        return {
            "task": config.task,
            "env": config.env,
            "agent": config.agent,
            "steps": config.steps,
            "results": plain_rows(self.results),
            "over_seeds": plain_rows(self.over_seeds),
        }

    def __repr__(self) -> str:
        means = [f"{row['policy']} {row['score']:.1f}" for row in self.over_seeds if row["seeds"]]
        scores = f", score {', '.join(means)}" if means else ""
        return f"Run({self.config.title}, {self.config.steps:,} steps{scores}, {str(self.path)!r})"

    def _repr_html_(self) -> str:
        """The table of results, for notebooks."""
        heading = f"<p><b>{html.escape(self.config.title)}</b><br><code>{html.escape(str(self.path))}</code></p>"
        names = ("variant", "policy", "seed", "episodes", "success", "mean_return", "score")
        rows = [{**row, "seed": f"mean of {row['seeds']}"} for row in plain_rows(self.over_seeds)]
        lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"]
        for row in [*plain_rows(self.results), *rows]:
            cells = (f"{row[n]:.3g}" if isinstance(row[n], float) else html.escape(str(row[n])) for n in names)
            lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        return f"{heading}<table>{''.join(lines)}</table>"
