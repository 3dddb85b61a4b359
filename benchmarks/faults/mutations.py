"""Files with one change: a bit, their length, a part, a piece of JSON. The same content comes of it, or one line.

A change that no checksum can show is counted apart: HDF5 and Minari files of others, and records, have none.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.faults.common import Verdict, Worker, digest, own_arrays, run_content, write_log
from guidedflow.agents import AGENTS


class Target(NamedTuple):
    """What is changed, and what is then read."""

    kind: str
    root: Path
    """A file, or the folder of which one file is changed."""
    files: tuple[str, ...]
    """The paths in ``root`` that may be changed; empty: ``root`` itself."""
    is_protected: bool
    """Whether checksums cover all of its content."""
    read: Callable[[Path], Any]
    expected: Any


class Mutations:
    """The kinds of file in turn; which file of its kind, and how it is changed, is drawn."""

    total = 2000
    quick = 72

    def __init__(self, folder: Path):
        self._folder = folder
        self._worker = Worker()
        self._targets: list[Target] = []
        sources = self._worker.value(write_sources, folder)
        readers = {"checkpoint": read_run, "records": read_run, "report": read_report}
        for kind, name, files, is_protected in sources:
            root, read = folder / name, readers.get(kind, read_data)
            self._targets.append(Target(kind, root, tuple(files), is_protected, read, self._worker.value(read, root)))

    def case(self, number: int, rng: np.random.Generator) -> Verdict:
        """Change one thing in a copy, and read it."""
        target = self._targets[number % len(self._targets)]
        name = "" if not target.files else target.files[rng.integers(len(target.files))]
        root = self._folder / "changed" / target.root.name
        root.parent.mkdir()
        try:
            (shutil.copytree if target.root.is_dir() else shutil.copy)(target.root, root)
            path = root / name if name else root
            others = [root / other for other in target.files if other != name]
            how = change(path, others, rng)
            read = resume_run if target.read is read_run and rng.random() < 0.1 else target.read
            answer = self._worker.call(read, root)
        finally:
            shutil.rmtree(root.parent)
        what = f"{target.kind}{f', {name}' if name else ''}: {how}"
        if answer.kind != "value":
            problem = answer.refusal(str(path) if target.kind == "records" else str(root))
            return Verdict("dirty" if problem else "clean", f"{what}: {problem or answer.value}")
        if answer.value == target.expected:
            return Verdict("clean", f"{what}: the same content")
        return Verdict("dirty" if target.is_protected else "unprotected", f"{what}: other content")

    def close(self) -> None:
        """See ``Area``."""
        self._worker.close()


# ----------------------------------------------------------------------------------------------------------- sources


def write_sources(folder: Path) -> list[tuple[str, str, list[str], bool]]:
    """Write everything that is changed; each kind, its name, its files, and whether checksums cover it."""
    import h5py

    import guidedflow as gf
    from guidedflow.data.formats import hdf5
    from guidedflow.suites import minari
    from guidedflow.suites.experts import Recording

    fields = {name: array[:60] for name, array in own_arrays().items()}
    fields["actions"] = np.clip(fields["actions"], -1, 1)
    fields["timeouts"] = np.arange(1, 61) % 10 == 0
    np.savez(folder / "stored.npz", **fields)
    np.savez_compressed(folder / "compressed.npz", **fields)
    gf.convert(fields, folder / "converted.npz")
    hdf5.write(folder / "generated.hdf5", fields, {"generator": "guidedflow", "algorithm": "none"})
    with h5py.File(folder / "others.hdf5", "w") as file:
        for name, array in fields.items():
            file[name] = array
    rng = np.random.default_rng(1)
    episodes = [
        Recording(rng.standard_normal((9, 11)), rng.uniform(-1, 1, (8, 3)), rng.standard_normal(8), terminated=False)
        for _ in range(3)
    ]
    about = {"environment": "Hopper-v5", "reference": (0.0, 1.0), "metadata": {"algorithm": "none"}}
    minari.write("others-v0", folder, episodes, **about)  # type: ignore[arg-type]
    train(folder)
    checkpoint = sorted(path for path in (folder / "run/checkpoints/20").rglob("*") if path.is_file())
    saved = [str(path.relative_to(folder / "run")) for path in checkpoint]
    records = ["config.json", "metrics.jsonl", "evaluations.csv"]
    data = [(name, name, list[str](), name != "others.hdf5") for name in
            ("stored.npz", "compressed.npz", "converted.npz", "generated.hdf5", "others.hdf5")]  # fmt: skip
    return [
        *data,
        ("Minari", "others-v0", ["data/main_data.hdf5", "data/metadata.json"], False),
        ("checkpoint", "run", saved, True),
        ("records", "run", records, False),
        ("report", "run", records, False),
    ]


def train(folder: Path) -> None:
    """A run with one checkpoint, two seeds and evaluations, in the folder ``run``."""
    import guidedflow as gf

    sizes = {"hidden": (8,), "flow_steps": 1, "batch_size": 8, "steps": 20, "log_every": 10}
    intervals = {"save_every": 20, "eval_every": 20, "eval_episodes": 1, "workers": 1, "seeds": (0, 1)}
    log = write_log(folder / "log.npz")
    options: dict[str, Any] = {**sizes, **intervals, "progress": False}
    gf.train(env="Pendulum-v1", dataset=log, agent="fql", preset="quick", run_dir=folder / "run", **options)


# ----------------------------------------------------------------------------------------------------------- changes


def change(path: Path, others: list[Path], rng: np.random.Generator) -> str:
    """Change one thing in a file; in words."""
    content = path.read_bytes()
    kinds: dict[str, Callable[[bytes, np.random.Generator], tuple[bytes, str]]] = {
        "bit": flip_bit,
        "cut": cut,
        "bytes": overwrite,
        "parts": move_part,
    }
    weights = {"bit": 5, "cut": 2, "bytes": 2, "parts": 2, "deleted": 1, "swapped": 1 if others else 0}
    if path.suffix in (".json", ".jsonl", ".csv") or path.name.startswith("_"):
        kinds["json"], weights["json"] = change_text, 8
    names = list(weights)
    kind = names[rng.choice(len(names), p=np.array(list(weights.values())) / sum(weights.values()))]
    if kind == "deleted":
        path.unlink()
        return "deleted"
    if kind == "swapped":
        other = others[rng.integers(len(others))]
        path.write_bytes(other.read_bytes())
        return f"the content of {other.name} instead"
    changed, how = kinds[kind](content, rng)
    path.write_bytes(changed)
    return how


def flip_bit(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    if not content:
        return b"\0", "a byte more"
    at, bit = int(rng.integers(len(content))), int(rng.integers(8))
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :], f"bit {bit} of byte {at} flipped"


def cut(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    size = int(rng.integers(len(content) + 1))
    return content[:size], f"cut to {size} of {len(content)} bytes"


def overwrite(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    at, size = int(rng.integers(len(content) + 1)), int(rng.integers(1, 65))
    return content[:at] + rng.bytes(size) + content[at + size :], f"{size} random bytes from byte {at} on"


def move_part(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    low, high = sorted(rng.integers(len(content) + 1, size=2).tolist())
    if rng.random() < 0.5:
        return content[:high] + content[low:], f"bytes {low} to {high} twice"
    return content[high:] + content[low:high] + content[:low], f"the parts before {low} and after {high} swapped"


ODD: tuple[Any, ...] = (
    *(None, True, [], {}, "", "x" * 10_000, "\x1b]0;title\x07", -1, 0, 1e400, 10**400, float("nan"), 2**63),
    *([[[[[]]]]], {"a": {"a": {}}}, ["a", 1], 1e-320, "../../etc/passwd", "module:function", *AGENTS),
)


def change_text(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Change a value of JSON, or of a line; where there is none, a word."""
    text = content.decode(errors="replace")
    lines = text.splitlines(keepends=True)
    number = int(rng.integers(len(lines))) if lines else 0
    for document, before, after in (
        (text, "", ""),
        (lines[number] if lines else "", "".join(lines[:number]), "".join(lines[number + 1 :])),
    ):
        try:
            value = json.loads(document)
        except ValueError:
            continue
        changed, how = change_json(value, rng)
        end = "\n" if document.endswith("\n") else ""
        return (before + json.dumps(changed) + end + after).encode(), how
    words = text.split(",")
    at, odd = int(rng.integers(len(words))), str(ODD[rng.integers(len(ODD))])
    words[at] = odd
    return ",".join(words).encode(), f"{odd[:30]!r} as word {at}"


def change_json(value: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """Replace, remove, rename or add one thing, anywhere in a value."""
    places: list[tuple[Any, Any, str]] = []

    def walk(inner: Any, where: str) -> None:
        if isinstance(inner, dict | list):
            for key in inner if isinstance(inner, dict) else range(len(inner)):
                places.append((inner, key, f"{where}/{key}"))
                walk(inner[key], f"{where}/{key}")

    walk(value, "")
    odd = ODD[rng.integers(len(ODD))]
    if not places or rng.random() < 0.05:
        return odd, f"{str(odd)[:30]!r} as the whole"
    holder, key, where = places[rng.integers(len(places))]
    action = rng.choice(["replaced", "replaced", "removed", "added"])
    if action == "replaced":
        holder[key] = odd
        return value, f"{where} replaced by {str(odd)[:30]!r}"
    if action == "removed":
        del holder[key]
        return value, f"{where} removed"
    if isinstance(holder, dict):
        holder["another"] = odd
    else:
        holder.insert(key, odd)
    return value, f"{str(odd)[:30]!r} added beside {where}"


# ----------------------------------------------------------------------------------------------------------- reading


def read_data(path: Path) -> Any:
    """Everything that training would take from data, once inspected, too."""
    import jax

    from guidedflow.data import formats
    from guidedflow.data.inspect import inspect
    from guidedflow.errors import DataError

    dataset = formats.load(path)
    for problem in inspect(path).problems:
        raise DataError(problem)
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(dataset)]
    return digest(*arrays), dataset.spec


def read_run(path: Path) -> Any:
    """A run's config, records, agents and an action of its policy."""
    import guidedflow as gf
    from guidedflow.runs.folder import RunFolder

    config = RunFolder(path).config().to_json()
    action = gf.load_policy(path)(np.zeros(3, np.float32))
    return run_content(path), config, action.tolist()


def resume_run(path: Path) -> Any:
    """The same, of a run that was continued at its end."""
    import guidedflow as gf

    gf.resume(path, progress=False, workers=1)
    return read_run(path)


def read_report(path: Path) -> str:
    """The table of a report."""
    from guidedflow.results import rendering
    from guidedflow.results.columns import read_records
    from guidedflow.results.table import build_table
    from guidedflow.runs.folder import RunFolder

    return rendering.as_csv(build_table(read_records([RunFolder(path)])))
