"""The README.md of an exported policy: a model card."""

from collections.abc import Mapping
from typing import Any


def model_card(described: Mapping[str, Any]) -> str:
    """The card of what policy.json says: scores with intervals, inputs and outputs, data, settings, versions."""
    run = described["run"]
    where = run["task"] or run["env"] or run["data"]["source"]
    return "\n".join(
        [
            "---",
            "library_name: guidedflow",
            "pipeline_tag: robotics",
            f"tags: [offline-reinforcement-learning, onnx, {run['agent'].rpartition(':')[2].lower()}]",
            "---",
            "",
            f"# {described['policy']} of {run['agent']} on {where}",
            "",
            f"Step {described['step']:,}, training seed {described['seed']}"
            + (f", {described['variant']}" if described["variant"] else "")
            + (", deterministic." if described["deterministic"] else "."),
            "",
            "## Acting",
            "",
            "`python act.py` prints a first action; it needs numpy and onnxruntime alone. With guidedflow:",
            '`gf.load_policy("THIS FOLDER")(observation)`.',
            "",
            *_table(("", "name", "type", "shape"), _ports(described)),
            "",
            f"Actions lie between {_numbers(described['action']['low'])} and {_numbers(described['action']['high'])}. "
            f"At {described['check']['observations']:,} random observations the graph's actions differed from JAX's by "
            f"at most {described['check']['largest_difference']:.1e} of that range.",
            "",
            "## Scores",
            "",
            *_scores(described["scores"]),
            "",
            "## Training",
            "",
            *_training(described),
            "",
        ]
    )


def _ports(described: Mapping[str, Any]) -> list[tuple[str, ...]]:
    noise = [("standard normal noise", described["noise"])] if described["noise"] else []
    ports = [*(("observation", one) for one in described["observation"]), *noise, ("action", described["action"])]
    return [(kind, f"`{one['name']}`", one["dtype"], _numbers(one["shape"])) for kind, one in ports]


def _scores(rows: list[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["It has not been evaluated."]
    return _table(
        ("episodes", "success rate [95% interval]", "mean return [95% interval]", "evaluated by"),
        [
            (
                str(row["episodes"]),
                _interval(row["success"], row["success_low"], row["success_high"], 100, "%"),
                _interval(
                    row["mean_return"],
                    row["mean_return"] - row["return_half_width"],
                    row["mean_return"] + row["return_half_width"],
                ),
                row["source"],
            )
            for row in rows
        ],
    )


def _training(described: Mapping[str, Any]) -> list[str]:
    run, data = described["run"], described["run"]["data"]
    settings = {**run["settings"], **run["config"]}
    return [
        f"Data: {data['source']}, {data['transitions']:,} transitions in {data['episodes']:,} episodes "
        f"(fingerprint `{data['fingerprint']}`).",
        "",
        *_table(("setting", "value"), [(name, f"`{value}`") for name, value in settings.items()]),
        "",
        "Trained with " + _versions(run["versions"]) + "; exported with " + _versions(described["exported_with"]) + ".",
    ]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _interval(value: float, low: float, high: float, scale: float = 1, unit: str = "") -> str:
    if value != value:
        return "-"
    return f"{value * scale:.1f}{unit} [{low * scale:.1f}{unit}, {high * scale:.1f}{unit}]"


def _numbers(values: Any) -> str:
    return f"({', '.join(f'{one:g}' if isinstance(one, float) else str(one) for one in values)})"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]
