"""Acts with the policy in this folder; needs numpy and onnxruntime alone. ``python act.py`` prints a first action."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Policy:
    """``Policy()(observation)``: an array, or a dictionary of arrays named as in policy.json, to an action (d,)."""

    def __init__(self, folder: Path | str = Path(__file__).parent, seed: int = 0):
        self.schema = json.loads((Path(folder) / "policy.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # A small network computes for less time than threads take to meet.
        self.session = onnxruntime.InferenceSession(Path(folder) / "policy.onnx", options)
        self.rng = np.random.default_rng(seed)

    def __call__(self, observation: Any) -> np.ndarray:
        """The action for one observation, with fresh noise if the policy takes noise."""
        entries = observation if isinstance(observation, dict) else {"observation": observation}
        inputs = {
            entry["name"]: np.asarray(entries[entry["name"]], entry["dtype"])[None]
            for entry in self.schema["observation"]
        }
        noise = self.schema["noise"]
        if noise is not None:
            shape = [1 if size == "batch" else size for size in noise["shape"]]
            inputs[noise["name"]] = self.rng.standard_normal(shape, np.float32)
        return self.session.run(None, inputs)[0][0]


if __name__ == "__main__":
    policy = Policy()
    zeros = {entry["name"]: np.zeros(entry["shape"][1:], entry["dtype"]) for entry in policy.schema["observation"]}
    print(policy(zeros))
