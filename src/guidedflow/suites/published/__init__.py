"""What the papers' authors tuned: one row of hyperparameters.csv a method and data set."""

import csv
import functools
import importlib.resources

_KINDS = {"steps": int, "batch_size": int, "flow_steps": int, "q_agg": str, "target_agg": str, "guidance_agg": str}
"""Of the settings that are no floats."""
_ABOUT = ("method", "benchmark", "dataset", "source")
"""Columns that are no settings."""


def settings(method: str, dataset: str) -> dict[str, float | int | str] | None:
    """The settings that a method's authors tuned for a data set, by exact match; None if there are none.

    Args:
        method: gfp, gfp-advantage (GFP guided by the advantage, tuned on its own), fql, rebrac or iql.
        dataset: a task's ``dataset``.

    Returns:
        Those of steps, batch_size, discount, flow_steps, q_agg, target_agg, guidance_agg, alpha, eta, alpha_critic and
        expectile that the file has.
    """
    row = _rows().get((method, dataset))
    if row is None:
        return None
    return {name: _KINDS.get(name, float)(value) for name, value in row.items() if value and name not in _ABOUT}


@functools.cache
def _rows() -> dict[tuple[str, str], dict[str, str]]:
    text = importlib.resources.files(__name__).joinpath("hyperparameters.csv").read_text(encoding="utf-8")
    return {(row["method"], row["dataset"]): row for row in csv.DictReader(text.splitlines())}
