"""Writes a policy of a run as a folder that needs neither this package nor JAX."""

import dataclasses
import importlib.metadata
import importlib.resources
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from guidedflow.deploy.card import model_card
from guidedflow.deploy.restored import Restored, restore
from guidedflow.errors import RunError, SettingsError
from guidedflow.files import as_json
from guidedflow.graphs import folder as files
from guidedflow.graphs.session import NoiseLaw, check_installed
from guidedflow.runs.config import RunConfig
from guidedflow.types import Variant

if TYPE_CHECKING:
    from guidedflow.agents import Agent

VERSIONED = ("guidedflow", "jax", "onnx", "onnxruntime", "numpy")


class Exported(NamedTuple):
    """A policy that was exported."""

    path: Path
    policy: str
    step: int
    largest_difference: float
    """Of an action from JAX's at the same observation and noise, in parts of the action's range."""
    ties: int
    """Of 1,000 observations, those where a best-of-N took another of two actions valued the same but for rounding."""


def export(
    run: Path | str,
    out: Path | str,
    policy: str | None = None,
    *,
    seed: int | None = None,
    variant: Variant | Mapping[str, float] | None = None,
    checkpoint: str | int = "latest",
    noise: NoiseLaw = "normal",
    agent: "str | type[Agent] | None" = None,
) -> Exported:
    """Export a policy of a run: an ONNX graph, what it takes and gives, and a program that acts with it.

    The graph is compared with the policy at 1,000 random observations first, of which every action has to be the same
    to 1e-5 of the action's range.

    Args:
        run: the run's folder.
        out: the new folder, or an empty one.
        policy: ``actor`` or ``vabc`` for GFP, for instance; None: the algorithm's main policy.
        seed: which of the run's seeds; None: the first.
        variant: which variant of a sweep, ``{"alpha": 0.3}``; None: the only one.
        checkpoint: ``latest``, ``best``, a step, or ``assessed``: the policy that ``assess`` ranked first, its seed
            and its variant, of those that the other arguments leave.
        noise: ``normal``: drawn at every call; ``zero``: the policy is deterministic.
        agent: the class of an algorithm of your own, if the run's is not registered.

    Raises:
        RunError: no such run or checkpoint, or a damaged one; the folder is there; the graph acts otherwise.
        SettingsError: no such policy, seed or variant; onnx or onnxruntime is not installed; or an algorithm of your
            own whose program has no translation.
    """
    check_installed("onnx", "onnxruntime")
    if noise not in get_args(NoiseLaw):
        raise SettingsError(f"noise: expected one of {', '.join(get_args(NoiseLaw))}, found {noise!r}")
    out = Path(out).absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RunError(f"{out}: expected a new folder for the policy, found something there; choose another")
    restored = restore(Path(run), policy, seed=seed, variant=variant, checkpoint=checkpoint, agent=agent)
    from guidedflow.graphs.check import OBSERVATIONS, check_graph
    from guidedflow.graphs.graph import policy_graph

    graph = policy_graph(restored.agent, restored.policy, restored.run.spec, noise=noise)
    difference = check_graph(graph, restored.agent, restored.policy, restored.run.spec, noise)
    description = _description(restored, graph.action, graph.noise) | {
        "deterministic": graph.noise is None,
        "check": {"observations": OBSERVATIONS, "largest_difference": difference.largest, "ties": difference.ties},
    }
    _write(out, graph.model.SerializeToString(), description)
    return Exported(out, restored.policy, restored.step, difference.largest, difference.ties)


def _description(restored: Restored, action: str, noise: Any) -> dict[str, Any]:
    """What policy.json says of a policy, without checksums."""
    config = _portable(restored.run.config)
    described = files.describe(restored.policy, restored.seed, restored.variant, restored.step, action, noise, config)
    versions = {name: importlib.metadata.version(name) for name in VERSIONED}
    return described | {"scores": _scores(restored), "exported_with": versions}


def _portable(config: RunConfig) -> RunConfig:
    """The config without paths of the machine that it was trained on."""
    held_out = config.data.held_out
    if held_out is not None:
        held_out = dataclasses.replace(held_out, source=Path(held_out.source).name)
    data = dataclasses.replace(config.data, source=Path(config.data.source).name, made_by=None, held_out=held_out)
    return dataclasses.replace(config, data=data)


def _scores(restored: Restored) -> list[dict[str, Any]]:
    """The rows of evaluations.csv about this very policy."""
    this = (restored.policy, restored.seed, restored.variant, restored.step)
    return [
        {name: value for name, value in row.items() if name != "variant"}
        for row in restored.run.folder.evaluations()
        if (row["policy"], row["seed"], row["variant"], row["step"]) == this
    ]


def _write(out: Path, model: bytes, description: Mapping[str, Any]) -> None:
    """Make the folder, whole or not at all."""
    program = importlib.resources.files("guidedflow.graphs").joinpath(files.PROGRAM).read_bytes()
    contents = {files.GRAPH: model, files.PROGRAM: program}
    checksums = {name: files.sha256(content) for name, content in contents.items()}
    described = {**description, "sha256": checksums}
    contents |= {files.SCHEMA: as_json(described).encode() + b"\n", files.CARD: model_card(described).encode()}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{out.name}.", suffix=".tmp", dir=out.parent) as folder:
            whole = Path(folder) / out.name
            whole.mkdir()
            for name, content in contents.items():
                (whole / name).write_bytes(content)
            whole.replace(out)
    except OSError as error:
        raise RunError(f"{out}: expected a folder that can be written, found: {error.strerror}") from error
