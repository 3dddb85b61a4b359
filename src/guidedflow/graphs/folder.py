"""The folder of an exported policy: what its policy.json says, and its graph. JAX is not needed to act with it."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guidedflow.data.opening.regular import check_memory, read_json, regular
from guidedflow.errors import RunError, SettingsError
from guidedflow.graphs.session import GraphSession, NoiseShape
from guidedflow.runs.config import RunConfig
from guidedflow.types import Spec, Variant, parse_variant, variant_text

SCHEMA = "policy.json"
GRAPH = "policy.onnx"
PROGRAM = "act.py"
CARD = "README.md"
FORMAT = 1
BATCH = "batch"
MOST_AXES = 8
MOST_NOISE = 2**20
"""Numbers drawn for one action."""


@dataclasses.dataclass(frozen=True)
class ExportedPolicy:
    """What policy.json says of a policy."""

    path: Path
    policy: str
    seed: int
    variant: Variant
    step: int
    noise: tuple[str, NoiseShape] | None
    """Name and shape of the standard normal noise that its graph takes; None if it takes none."""
    config: RunConfig
    """Of the run that it comes from."""
    sha256: Mapping[str, str]

    @property
    def spec(self) -> Spec:
        """Shapes of observations and actions, and what the numbers stand for."""
        return self.config.spec

    @property
    def title(self) -> str:
        """The policy in a few words."""
        return f"{self.config.title}, step {self.step}"

    @classmethod
    def read(cls, path: Path) -> "ExportedPolicy":
        """The policy of a folder.

        Raises:
            DataError: its policy.json is no file, or no JSON.
            RunError: it is no exported policy's.
        """
        file = path / SCHEMA
        saved = read_json(file, path)
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            found = saved.get("format") if isinstance(saved, dict) else type(saved).__name__
            raise RunError(f"{file}: expected an exported policy of format {FORMAT}, found {found!r}")
        try:
            noise = saved["noise"]
            return cls(
                path=path,
                policy=str(saved["policy"]),
                seed=_count(saved["seed"]),
                variant=parse_variant(saved["variant"]),
                step=_count(saved["step"]),
                noise=None if noise is None else (str(noise["name"]), _noise_shape(noise["shape"])),
                config=RunConfig.from_json(saved["run"], file),
                sha256={str(name): str(digest) for name, digest in saved["sha256"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else error
            raise RunError(f"{file}: expected an exported policy, found: {found}") from error

    def check(self, **asked: Any) -> None:
        """Raise SettingsError where another policy, seed, variant or step is asked for; None asks for nothing."""
        there = {"policy": self.policy, "seed": self.seed, "variant": dict(self.variant), "step": self.step}
        for name, value in asked.items():
            if value is not None and (dict(value) if name == "variant" else value) != there[name]:
                expected = variant_text(self.variant) or "none" if name == "variant" else there[name]
                raise SettingsError(f"{name}: expected {expected}, which {self.path} holds, found {value!r}")

    def graph(self) -> GraphSession:
        """Its graph, ready to act.

        Raises:
            DataError: there is none.
            RunError: it is not the one that was exported.
        """
        file = regular(self.path / GRAPH, self.path)
        check_memory(file.stat().st_size, str(file))
        model = file.read_bytes()
        if sha256(model) != self.sha256.get(GRAPH):
            raise RunError(f"{file}: expected the graph that was exported, found another content; copy it again")
        return GraphSession(model, self.spec, self.noise, str(file))


def is_exported(path: Path) -> bool:
    """Whether a folder is an exported policy's."""
    return (path / SCHEMA).exists()


def describe(
    policy: str, seed: int, variant: Variant, step: int, action: str, noise: Any, config: RunConfig
) -> dict[str, Any]:
    """What policy.json says of a policy, as ``ExportedPolicy.read`` reads it, without checksums."""
    spec = config.spec
    low, high = spec.action_range or ((-1.0,) * spec.action_size, (1.0,) * spec.action_size)
    return {
        "format": FORMAT,
        "policy": policy,
        "seed": seed,
        "variant": variant_text(variant),
        "step": step,
        "observation": [
            {"name": name, "dtype": str(dtype), "shape": [BATCH, *shape]}
            for name, (shape, dtype) in spec.inputs.items()
        ],
        "noise": None
        if noise is None
        else {"name": noise[0], "dtype": "float32", "shape": list(noise[1]), "law": "standard normal"},
        "action": {
            "name": action,
            "dtype": "float32",
            "shape": [BATCH, spec.action_size],
            "low": list(low),
            "high": list(high),
        },
        "run": config.to_json(),
    }


def sha256(content: bytes) -> str:
    """A checksum, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"expected a count, found {value!r}")
    return value


def _noise_shape(sizes: Any) -> NoiseShape:
    fixed = math.prod(_count(size) for size in sizes if size != BATCH)
    if len(sizes) > MOST_AXES or fixed > MOST_NOISE:
        raise ValueError(f"expected at most {MOST_NOISE:,} numbers of noise, found shape {sizes}")
    return tuple(sizes)
