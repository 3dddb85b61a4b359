"""The user's own data: one npz file of NumPy arrays, or an HDF5 file of the same fields, D4RL's."""

import dataclasses
from pathlib import Path

from guidedflow.data.dataset import Dataset
from guidedflow.data.formats import hdf5 as d4rl
from guidedflow.data.formats import npz
from guidedflow.errors import UserError
from guidedflow.suites.ogbench import files as ogbench
from guidedflow.types import Spec

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "finals")
SUFFIXES = (".npz", ".hdf5")


def load(path: Path) -> Dataset:
    """The data set in a file with the fields of ``Dataset.from_arrays``; an npz file needs those of ``REQUIRED`` only.

    The number ``frame_stack`` may be among them. What ``guidedflow data convert`` wrote also knows its observations'
    keys and its actions' range.

    Raises:
        UserError: a field is missing or malformed, or the file is neither.
    """
    if path.suffix == ".hdf5":
        return d4rl.load(path, is_antmaze=False)
    arrays = npz.read(path)
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "no arrays"
        wanted = f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
        raise UserError(f"{path}: expected the fields {wanted}, found {found}")
    fields = {name: arrays[name] for name in (*REQUIRED, *OPTIONAL) if name in arrays}
    frame_stack = arrays["frame_stack"].tolist() if "frame_stack" in arrays else 1
    dataset = Dataset.from_arrays(**fields, frame_stack=frame_stack, source=str(path))
    made = ogbench.metadata(path)
    if made is None or "spec" not in made:
        return dataset
    try:
        spec = Spec.from_json(made["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: metadata: expected the spec of the arrays, found: {error}") from error
    if spec[:3] != dataset.spec[:3]:
        raise UserError(f"{path}: metadata: expected the spec of the arrays, {dataset.spec[:3]}, found {spec[:3]}")
    return dataclasses.replace(dataset, observation_keys=spec.observation_keys, action_range=spec.action_range)
