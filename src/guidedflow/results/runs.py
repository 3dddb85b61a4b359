"""Reads run folders into plain records, and says what is wrong with them or worth knowing."""

import glob
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from typing import Protocol as Interface

from guidedflow.errors import UserError
from guidedflow.results.protocol import CHECKED, Verdict, brief, deviations, in_words, judge, protocol
from guidedflow.suites import Task, find_task, published_settings

# metrics.jsonl of a full run has 4000 rows a seed; of files larger than this many bytes, so many places are read.
READ_WHOLE = 20_000
PLACES = 100
GUIDANCE = ("guidance", "guidance_above_half")
METRICS = "metrics.jsonl"
IN_MEMORY = "arrays in memory"
# Names of policies in the published files.
PUBLISHED_AS = {
    ("iql", "actor"): "iql",
    ("rebrac", "actor"): "rebrac",
    ("fql", "actor"): "fql",
    ("fql", "flow"): "fql-bc",
    ("gfp", "actor"): "gfp",
    ("gfp", "vabc"): "gfp-vabc",
}
ADVANTAGE = {"gfp": "gfp-advantage", "gfp-vabc": "gfp-advantage-vabc"}


class Folder(Interface):
    """A run's folder as ``guidedflow.runs.folder.RunFolder`` reads it."""

    path: Path

    def config(self) -> dict[str, Any]:
        """config.json."""

    def evaluations(self) -> list[dict[str, Any]]:
        """The rows of evaluations.csv."""

    def is_finished(self) -> bool:
        """Whether the run has come to its end."""


class Run(NamedTuple):
    """What a run's folder says."""

    path: Path
    task: Task
    agent: str
    preset: str
    settings: Mapping[str, Any]
    """The run's own and the algorithm's, by name."""
    changed: Mapping[str, tuple[Any, Any]]
    """Settings that differ from the published ones: found and published. Swept ones are not among them."""
    tuned: Mapping[str, Any]
    """The published settings."""
    chosen: Mapping[str, str]
    """Settings that the user (``given``) or a preset chose, and which of them."""
    data: str | None
    """What it was trained on, if that was not the published data."""
    versions: Mapping[str, str]
    device: str
    finished: bool
    guidance: Sequence[Mapping[str, Any]]
    """Rows with step, variant, seed and ``GUIDANCE``; empty where the algorithm has none."""
    videos: tuple[Path, ...]


class Method(NamedTuple):
    """A column: one policy of an algorithm with one choice of settings."""

    agent: str
    policy: str
    changes: str
    """In what it differs from the published settings; empty if in nothing."""
    published: str | None
    """The published method that it is."""

    @property
    def label(self) -> str:
        """A name for people."""
        return f"{self.agent} {self.policy}" + (f" ({self.changes})" if self.changes else "")


class Scored(NamedTuple):
    """One policy of one agent of a run: a curve and its score."""

    method: Method
    run: Run
    variant: str
    seed: int
    curve: tuple[tuple[int, float], ...]
    """Step and score of every evaluation."""
    verdict: Verdict
    deviations: tuple[str, ...]
    """Everything in which it differs from the published protocol and settings, in words."""


class Runs(NamedTuple):
    """All runs of a report."""

    runs: tuple[Run, ...]
    scored: tuple[Scored, ...]
    notes: tuple[str, ...]
    """What a reader has to know of the runs as a whole."""


Tuned = Callable[[str, Task, Mapping[str, Any]], Mapping[str, Any]]
"""The published settings of an algorithm for a task, given the run's own settings."""


def find_runs(patterns: Iterable[str | Path]) -> list[Path]:
    """The run folders that are named, matched, or lie below what is.

    Raises:
        UserError: one of them leads to no run.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        named = [Path(name) for name in sorted(glob.glob(os.path.expanduser(str(pattern)), recursive=True))]
        below = [path for place in named or [Path(pattern)] for path in _below(place)]
        if not below:
            raise UserError(f"{pattern}: expected folders of runs, found none with a config.json there or below")
        found |= {path.resolve(): path for path in below}
    if not found:
        raise UserError("runs: expected at least one folder of a run, found none")
    return list(found.values())


def _below(place: Path) -> list[Path]:
    if (place / "config.json").is_file():
        return [place]
    found = []
    for parent, folders, files in os.walk(place):
        folders.sort()
        if "config.json" in files:
            found.append(Path(parent))
            folders.clear()  # A run holds no other runs.
    return found


def read_runs(folders: Iterable[Folder], tuned: Tuned) -> Runs:
    """Read runs, give each score its column, and check that no seed counts twice.

    Raises:
        UserError: a damaged file, or a seed of a column and task that two runs have.
    """
    notes, runs, rows = [], [], []
    for folder in folders:
        saved = folder.config()
        if saved.get("task") is None:
            notes.append(f"{folder.path}: trained on data without a task, so it has no score; left out")
            continue
        run, found = _read(folder, saved, tuned), folder.evaluations()
        if not found:
            notes.append(f"{folder.path}: no evaluation yet; left out of the tables")
        if _is_cut(folder.path / METRICS):
            notes.append(f"{folder.path / METRICS}: ends in a half-written line, which is left out")
        runs.append(run)
        rows.append(found)
    if not runs:
        raise UserError(f"runs: expected at least one run of a task, found none; {notes[0]}")
    chosen: dict[str, set[str]] = {}
    for run in runs:
        chosen.setdefault(run.agent, set()).update(set(run.chosen) & set(run.changed))
    scored = [one for run, found in zip(runs, rows, strict=True) for one in _score(run, found, chosen[run.agent])]
    _check_seeds(scored)
    return Runs(tuple(runs), tuple(scored), (*notes, *_versions(runs)))


def _read(folder: Folder, saved: Mapping[str, Any], tuned: Tuned) -> Run:
    guidance = _guidance(folder.path / METRICS)
    try:
        task, agent = find_task(saved["task"]), str(saved["agent"])
        settings = {**saved["settings"], **saved["config"]}
        settings |= {"steps": int(settings["steps"]), "success_timing": str(settings["success_timing"])}
        sources = {name: str(source) for name, source in saved["sources"].items()}
        swept = saved.get("sweep") or {}
        made, source = saved["data"]["made_by"], str(saved["data"]["source"])
        data = None
        if made is not None:
            data = f"locally generated, {int(saved['data']['transitions']):,} transitions"
        elif source == IN_MEMORY:
            data = IN_MEMORY
        elif saved["data"].get("is_own"):
            data = "a file of the user's own"
        published = tuned(agent, task, settings)
        changed = deviations(settings, published)
        return Run(
            path=folder.path,
            task=task,
            agent=agent,
            preset=str(saved["preset"]),
            settings=settings,
            changed={name: pair for name, pair in changed.items() if name not in swept},
            tuned=published,
            chosen={name: source for name, source in sources.items() if source not in ("default", "authors' tuning")},
            data=data,
            versions={name: str(version) for name, version in saved["versions"].items()},
            device=str(saved["device"]),
            finished=folder.is_finished(),
            guidance=guidance,
            videos=tuple(sorted((folder.path / "videos").glob("*.gif"))),
        )
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{folder.path / 'config.json'}: expected the settings of a run, found: {what}") from error


def _score(run: Run, rows: Sequence[Mapping[str, Any]], chosen: set[str]) -> list[Scored]:
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        groups.setdefault((row["variant"], row["seed"], row["policy"]), []).append(row)
    found = []
    for (variant, seed, policy), mine in groups.items():
        verdict = judge(run.task, run.settings, mine, run.data)
        curve = tuple((row["step"], row["score"]) for row in mine)
        method = _method(run, policy, variant, chosen)
        found.append(Scored(method, run, variant, seed, curve, verdict, (*verdict.reasons, *_words(run, variant))))
    return found


def settings_of(run: Run, variant: str) -> dict[str, Any]:
    """The settings of one variant of a run."""
    pairs = (pair.partition("=") for pair in variant.split())
    return {**run.settings, **{name: float(value) for name, _, value in pairs}}


def _words(run: Run, variant: str) -> list[str]:
    changed = deviations(settings_of(run, variant), run.tuned)
    words = [in_words(name, *pair) for name, pair in changed.items() if name not in CHECKED]
    if published_settings(run.agent, run.task.dataset) is None:
        words.append(f"other settings: nobody published those of {run.agent} for {run.task.dataset}; these are its own")
    steps, expected = run.settings["steps"], protocol(run.task).steps
    if steps > expected:
        words.append(f"more steps: trained to {steps:,}, scored by the evaluations up to {expected:,}")
    if run.settings.get("online_steps"):
        words.append(f"goes online afterwards for {run.settings['online_steps']:,} steps, which the score leaves out")
    return words


def _method(run: Run, policy: str, variant: str, chosen: set[str]) -> Method:
    swept = {pair.partition("=")[0] for pair in variant.split()}
    changes = [run.preset] if run.preset != "published" else []
    # What the quick preset sets is told by its name; what was set by hand is told one by one.
    if run.settings.get("guidance") == "advantage":
        chosen = chosen | {"guidance"}  # It has been published with settings of its own, so it is no deviation.
    mine = sorted(name for name in chosen - swept if run.chosen.get(name) == "given")
    changes += [f"{name}={brief(run.settings[name])}" for name in mine]
    changes += variant.split() + (["other data"] if run.data is not None else [])
    published = PUBLISHED_AS.get((run.agent, policy))
    if published and run.settings.get("guidance") == "advantage":
        published = ADVANTAGE.get(published)
    return Method(run.agent, policy, ", ".join(changes), published)


def _check_seeds(scored: Sequence[Scored]) -> None:
    seen: dict[tuple[Method, str, int], Path] = {}
    for one in scored:
        key = one.method, one.run.task.id, one.seed
        if key in seen:
            where = f"{seen[key]} and {one.run.path}"
            what = f"{one.method.label} on {one.run.task.id}"
            raise UserError(f"{where}: expected each seed of {what} once, found seed {one.seed} in both; leave one out")
        seen[key] = one.run.path


def _versions(runs: Sequence[Run]) -> list[str]:
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.versions):
        counts = Counter(run.versions.get(name, "unknown") for run in runs)
        if len(counts) > 1:
            listed = ", ".join(
                f"{version} ({n} {'run' if n == 1 else 'runs'})" for version, n in sorted(counts.items())
            )
            notes.append(f"the runs were made with different versions of {name}: {listed}")
    return notes


# ---------------------------------------------------------------------------------------------------------- metrics


def _is_cut(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _guidance(path: Path) -> list[dict[str, Any]]:
    """Guidance over training; of a long metrics.jsonl, rows of every member at evenly spaced places.

    Raises:
        UserError: a damaged line among those read.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        if b'"guidance"' not in file.readline():
            return []
        size = path.stat().st_size
        if size <= READ_WHOLE:
            file.seek(0)
            lines = list(file)
        else:
            lines = _sample(path, file, size)
    # A line that a kill cut short has no line break, and is no row yet.
    return [_guidance_row(path, line) for line in lines if line.endswith(b"\n")]


def _sample(path: Path, file: BinaryIO, size: int) -> list[bytes]:
    """Lines at ``PLACES`` places. The members' rows take turns: as many lines as there are members have each once."""
    file.seek(0)
    lines = [file.readline()]
    step = _guidance_row(path, lines[0])["step"]
    lines += itertools.takewhile(lambda line: _guidance_row(path, line)["step"] == step, file)
    members = len(lines)
    for place in range(1, PLACES):
        file.seek(size * place // PLACES)
        file.readline()  # The rest of the line that the place lies in.
        lines += itertools.islice(file, members)
    return lines


def _guidance_row(path: Path, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        return {
            "step": int(row["step"]),
            "variant": str(row.get("variant", "")),
            "seed": int(row["seed"]),
            **{name: float(row[name]) for name in GUIDANCE},
        }
    except (ValueError, TypeError, KeyError) as error:
        wanted = f"expected a JSON object with step, seed, {' and '.join(GUIDANCE)}"
        raise UserError(f"{path}: {wanted}, found {line[:60]!r}") from error
