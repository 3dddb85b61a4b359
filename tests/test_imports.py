"""The import table of docs/architecture.md."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "guidedflow"
SHARED = {"errors", "files", "locks", "notices", "opengl", "plugins", "processes", "seeding", "settings", "types"}
MAY_IMPORT = {
    "nn": set(),
    "data": set(),
    "envs": set(),
    "agents": {"nn"},
    "suites": {"data", "envs"},
    "runs": set(),
    "graphs": {"nn", "agents", "data", "runs"},
    "training": {"nn", "agents", "data", "envs", "suites", "runs", "graphs"},
    "deploy": {"agents", "runs", "training", "graphs"},
    "results": {"agents", "runs", "suites", "training"},
    "studies": {"agents", "data", "runs", "suites", "training", "results"},
    "cli": {"agents", "data", "envs", "suites", "runs", "training", "deploy", "results", "studies"},
    "__main__": {"cli"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guidedflow"):
            parts = (node.module or "").split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("guidedflow.")}
    return rooms


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(path):
    here = room(path)
    if here in SHARED or here == "__init__":
        allowed = SHARED if here in SHARED else set(MAY_IMPORT) | SHARED
    else:
        allowed = MAY_IMPORT[here] | SHARED | {here}
    assert imported(path) <= allowed


@pytest.mark.parametrize("module", ["guidedflow", "guidedflow.cli", "guidedflow.envs.vector", "guidedflow.suites"])
def test_jax_is_not_imported_by_what_must_start_fast(module):
    program = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_the_trainer_needs_no_mujoco_and_making_data_no_jax():
    program = "import sys, guidedflow.training.train; sys.exit('mujoco' in sys.modules)"
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    assert subprocess.run([sys.executable, "-c", program], check=False, env=environment).returncode == 0
    program = (
        "import sys, guidedflow.suites.ogbench.oracles as g; g.Collector('scene-noisy'); sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_public_name_exists():
    import guidedflow

    assert guidedflow.__all__
    for name in guidedflow.__all__:
        assert getattr(guidedflow, name).__doc__ or isinstance(getattr(guidedflow, name), dict)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = guidedflow.nonsense
