"""config.json: what a run was asked for, as plain names and numbers. Nothing else reads or writes that file."""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from guidedflow.errors import RunError
from guidedflow.files import as_json, read_json, write_text
from guidedflow.types import Spec

FILE = "config.json"
VERSIONED = ("guidedflow", "jax", "equinox", "optax", "orbax-checkpoint", "numpy", "mujoco", "gymnasium", "ogbench")
RENAMED = {"matmul_precision": "precision"}
"""Settings of runs made by older versions."""
DEEPEST = 20
IN_MEMORY = "arrays in memory"
"""Where data lay that was no file."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Data that a run's losses are measured on and nothing is learned from."""

    source: str
    """The file or folder that holds it, absolute; ``IN_MEMORY`` for arrays."""
    fingerprint: str
    transitions: int
    episodes: int
    seed: int | None
    """Of the draw of the episodes; None where the data itself says which they are."""


@dataclasses.dataclass(frozen=True)
class DataRecord:
    """What a run was trained on, without what it held out."""

    source: str
    """The file or folder, absolute; ``IN_MEMORY`` for arrays."""
    is_own: bool
    """Whether the user named it, in place of a task's own."""
    fingerprint: str
    transitions: int
    episodes: int
    made_by: Mapping[str, Any] | None
    """What data made or converted by this package says of itself; None for any other."""
    reading: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What was asked for of a robot's recordings: reward, instruction."""
    held_out: HeldOut | None = None


@dataclasses.dataclass(frozen=True)
class Extension:
    """A run that was trained for longer than first asked."""

    from_steps: int
    to_steps: int
    time: str
    """UTC, ISO 8601."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes."""

    agent: str
    """The algorithm's name, or ``module:Class`` of the user's own."""
    preset: str
    settings: Mapping[str, Any]
    """Fields of ``TrainSettings``."""
    config: Mapping[str, Any]
    """Fields of the algorithm's settings."""
    sources: Mapping[str, str]
    """Where each of those values came from."""
    sweep: Mapping[str, tuple[float, ...]]
    """Swept settings and their values; every combination was trained."""
    spec: Spec
    data: DataRecord
    versions: Mapping[str, str]
    device: str
    created: str
    task: str | None = None
    """Id of the benchmark's task; None for data or an environment of the user's own."""
    env: str | None = None
    """Of an environment of the user's own: its gymnasium id, or ``module:function``."""
    extensions: tuple[Extension, ...] = ()
    run_id: str = ""
    """A name that no other run has, for services that keep runs apart by one; empty in runs of older versions."""

    @property
    def steps(self) -> int:
        """All gradient steps, those after going online included."""
        return int(self.settings["steps"]) + int(self.settings["online_steps"])

    @property
    def title(self) -> str:
        """The run in a few words, for headings."""
        return f"{self.agent} on {self.task or self.env or Path(self.data.source).name}"

    def differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """Which of these the run has otherwise, each as ``name found -> wanted``.

        Args:
            wanted: values by the names of settings, or of task (its id, or the path of data without one), agent,
                preset, sweep, reward and instruction.
        """
        found: dict[str, Any] = {**self.settings, **self.config, "agent": self.agent, "preset": self.preset}
        found |= {
            "sweep": dict(self.sweep),
            **self.data.reading,
            "task": self.data.source if self.task is None else self.task,
        }
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
        return [f"{name} {found.get(name)} -> {value}" for name, value in plain.items() if found.get(name) != value]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The config of a run's folder.

        Raises:
            RunError: it is no run's folder, or its config.json is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            raise RunError(f"{folder}: expected the folder of a run, found no {FILE} in it")
        saved = read_json(path)
        return cls.from_json(saved, path)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], path: Path) -> Self:
        """The config that the file ``path`` holds as ``saved``.

        Raises:
            RunError: it is none.
        """
        try:
            _check_depth(saved)
            return cls._from_json(saved)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else error
            raise RunError(f"{path}: expected the settings of a run, found: {found}") from error

    def write(self, folder: Path) -> None:
        """Write config.json, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_text(folder / FILE, as_json(self.to_json()) + "\n")

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        records = {"data": dataclasses.asdict(self.data), "extensions": list(map(dataclasses.asdict, self.extensions))}
        return json.loads(as_json({**fields, **records, "spec": self.spec.to_json()}))

    @classmethod
    def _from_json(cls, saved: Mapping[str, Any]) -> Self:
        data = saved["data"]
        _check_types(saved, {"agent": str, "preset": str, "settings": dict, "config": dict, "sources": dict})
        _check_types(saved["settings"], {"steps": int, "online_steps": int, "seeds": list})
        _check_types(data, {"source": str, "fingerprint": str, "transitions": int, "episodes": int})
        if data.get("held_out"):
            _check_types(data["held_out"], {"source": str, "fingerprint": str, "transitions": int, "episodes": int})
        return cls(
            agent=saved["agent"],
            preset=saved["preset"],
            settings=_renamed(saved["settings"]),
            config=saved["config"],
            sources=_renamed({name: str(source) for name, source in saved["sources"].items()}),
            sweep={name: tuple(map(float, values)) for name, values in (saved.get("sweep") or {}).items()},
            spec=Spec.from_json(saved["spec"]),
            data=DataRecord(
                source=data["source"],
                is_own=bool(data.get("is_own")),
                fingerprint=data["fingerprint"],
                transitions=data["transitions"],
                episodes=data["episodes"],
                made_by=data.get("made_by"),
                reading={str(name): str(value) for name, value in data.get("reading", {}).items()},
                held_out=HeldOut(**data["held_out"]) if data.get("held_out") else None,
            ),
            versions={name: str(version) for name, version in saved["versions"].items()},
            device=str(saved["device"]),
            created=str(saved.get("created", "")),
            task=None if saved["task"] is None else str(saved["task"]),
            env=saved.get("env"),
            extensions=tuple(Extension(**extension) for extension in saved.get("extensions", ())),
            run_id=str(saved.get("run_id", "")),
        )


def _check_depth(value: Any, depth: int = 0) -> None:
    """Raise ValueError where a value is nested so deeply that it could not be written again."""
    if depth > DEEPEST:
        raise ValueError(f"values nested deeper than {DEEPEST} levels")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, depth + 1)


def _check_types(saved: Any, wanted: Mapping[str, type]) -> None:
    for name, kind in wanted.items():
        value = saved[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name}: expected {kind.__name__}, found {value!r}")


def _renamed(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, or what is told of them, under today's names."""
    values = {"bfloat16": "mixed"} if "matmul_precision" in saved else {}
    return {
        RENAMED.get(name, name): values.get(value, value) if name in RENAMED else value for name, value in saved.items()
    }


def versions() -> dict[str, str]:
    """Versions of everything that decides what a run computes."""
    found = {name: importlib.metadata.version(name) for name in VERSIONED}
    return {"python": platform.python_version(), **found}
