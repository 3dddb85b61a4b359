"""Runs the graph of a policy."""

import importlib.util
from typing import Any, Literal

import numpy as np

from guidedflow.errors import RunError, SettingsError
from guidedflow.types import VECTOR, Spec

Size = int | str
NoiseShape = tuple[Size, ...]
NoiseLaw = Literal["normal", "zero"]


def check_installed(*packages: str) -> None:
    """Raise SettingsError unless these packages of the extra ``export`` are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise SettingsError(f"export: expected the package {package}, found none; pip install 'guidedflow[export]'")


class GraphSession:
    """A policy's graph in onnxruntime, on the CPU.

    Args:
        model: the graph, serialised.
        spec: of the data that the policy learned from.
        noise: name and shape of its noise; None if it takes none.
        source: what error messages call it.
        threads: how many compute; 0: one a core. A single observation's small products are slower on several.

    Raises:
        RunError: it is no such graph.
    """

    def __init__(self, model: bytes, spec: Spec, noise: tuple[str, NoiseShape] | None, source: str, threads: int = 1):
        import onnxruntime

        self.spec = spec
        self.noise = noise
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # What is wrong with a graph is raised, too.
        _refuse_other_files(model, source)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no class in common but this.
            raise RunError(f"{source}: expected an ONNX graph, found: {' '.join(str(error).split())}") from error
        self._check(source)

    def __call__(self, observations: Any, noise: np.ndarray | None) -> np.ndarray:
        """The environment's actions (B, d) for a batch as networks see it and noise of the shape that it takes."""
        return self.outputs(observations, noise)[0]

    def outputs(self, observations: Any, noise: np.ndarray | None) -> list[np.ndarray]:
        """All that the graph gives, the actions first."""
        inputs = self._entries(observations)
        if self.noise is not None:
            inputs[self.noise[0]] = noise
        return self._session.run(None, inputs)

    def noise_shape(self, batch: int) -> tuple[int, ...]:
        """The shape of the noise of a batch; () if it takes none."""
        return tuple(batch if isinstance(size, str) else size for size in self.noise[1]) if self.noise else ()

    def _entries(self, observations: Any) -> dict[str, Any]:
        if not self.spec.observation_keys:
            return {"observation": observations}
        vector = observations.get(VECTOR) if self.spec.pictures else observations
        entries, start = {name: observations[name] for name in self.spec.pictures}, 0
        for name, shape in self.spec.observation_keys:
            if name in entries:
                continue
            size = int(np.prod(shape))
            entries[name] = vector[:, start : start + size].reshape(-1, *shape)
            start += size
        return entries

    def _check(self, source: str) -> None:
        """Raise RunError unless inputs and outputs are those of the spec."""
        wanted = {*self.spec.inputs, *([self.noise[0]] if self.noise else [])}
        found = {one.name for one in self._session.get_inputs()}
        shape = self._session.get_outputs()[0].shape
        if wanted != found or len(shape) != 2 or shape[1] != self.spec.action_size:
            raise RunError(
                f"{source}: expected a graph from {', '.join(sorted(wanted))} to actions of {self.spec.action_size}, "
                f"found one from {', '.join(sorted(found))} to shape {shape}"
            )


def _refuse_other_files(model: bytes, source: str) -> None:
    """Raise RunError where weights lie in another file, which a stranger's graph could name."""
    if b"location" not in model:  # A quarter of a second for onnx's import, which nothing else needs here.
        return
    check_installed("onnx")
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    try:
        tensors = [*_get_all_tensors(onnx.load_model_from_string(model))]
    except DecodeError as error:
        raise RunError(f"{source}: expected an ONNX graph, found: {error}") from error
    if any(map(uses_external_data, tensors)):
        raise RunError(f"{source}: expected weights in the graph itself, found some in another file")
