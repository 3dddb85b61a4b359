"""OGBench's environments, with resets that their seed decides and less Python around MuJoCo's steps."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any, cast
from unittest import mock

import gymnasium
import numpy as np

from guidedflow.envs import wrappers

Quaternion = tuple[float, float, float, float]


def make(environment: str, frame_stack: int = 1, **options: Any) -> gymnasium.Env:
    """The environment of an id; options are passed on to it."""
    return wrappers.make(quickened(specification(environment)), frame_stack, **options)


def specification(environment: str) -> Any:
    """What ogbench registers under an id."""
    import ogbench  # noqa: F401  (registers its environments)

    return gymnasium.spec(environment)


def is_manipulation(spec: Any) -> bool:
    """Whether it is one of cubes, scene and puzzles; the others are mazes."""
    return isinstance(spec.entry_point, str) and "manipspace" in spec.entry_point


def quickened(spec: Any) -> Any:
    """The specification, of a class that does the same in less time where it is one of manipulation."""
    return dataclasses.replace(spec, entry_point=_quick(spec.entry_point)) if is_manipulation(spec) else spec


@functools.cache
def _quick(entry_point: str) -> Any:
    base: Any = gymnasium.envs.registration.load_env_creator(entry_point)
    ours = _QuickPuzzle if "puzzle" in entry_point else _Quick
    return type(ours.__name__, (ours, base), {"_base": base})


_World: Any = object
"""What a class of ours is put before; ogbench is imported only where an environment is made."""


class _Quick(_World):
    """Put before a class of ogbench's: the same numbers to the last bit, for which every sum keeps ogbench's order."""

    _base: Any
    """The class of ogbench's."""
    _ik: Any
    _in_step = False
    _only_buttons = False
    _described: dict[str, Any] | None = None

    def __init__(self, *args: Any, **options: Any):
        with _without_arm_meshes():
            super().__init__(*args, **options)
        self._ik = _InverseKinematics(self._ik)
        self._down = _numbers(self._effector_down_rotation)
        self._down_inverse = _numbers(self._effector_down_rotation.inverse())

    # ogbench makes a new, unseeded action space at every access, and samples actions from it while resetting,
    # which leaves traces in the simulator's state.
    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:
        return super().action_space

    def build_mjcf_model(self) -> Any:
        with _without_arm_meshes():
            return super().build_mjcf_model()

    def post_compilation(self) -> None:
        super().post_compilation()
        buttons = [self._model.joint(f"buttonbox_joint_{i}") for i in range(getattr(self, "_num_buttons", 0))]
        self._button_qpos = np.array([joint.qposadr[0] for joint in buttons], int)
        self._button_qvel = np.array([joint.dofadr[0] for joint in buttons], int)
        self._pinch_position = self._data.site_xpos[self._pinch_site_id]
        self._pinch_matrix = self._data.site_xmat[self._pinch_site_id]
        self._attach_turn = _numbers(self._T_pa.rotation())
        self._attach_offset = (0.0, *self._T_pa.translation().tolist())

    def step(self, action: Any) -> Any:
        self._in_step = True
        try:
            return super().step(action)
        finally:
            self._in_step, self._described = False, None

    def pre_step(self) -> None:
        self._only_buttons = True
        super().pre_step()
        self._only_buttons = False

    def compute_ob_info(self) -> dict[str, Any]:
        if self._only_buttons:  # All that is read of the state before a step.
            before = self._data.qpos[self._button_qpos]
            return {f"privileged/button_{i}_pos": before[i : i + 1] for i in range(len(before))}
        info = super().compute_ob_info()
        if self._in_step:
            self._described = info
        return info

    def get_step_info(self) -> dict[str, Any]:
        # A step asks for it right after its observation (a picture needs none).
        return super().get_step_info() if self._described is None else self._described

    def set_control(self, action: Any) -> None:
        change = self.unnormalize_action(action)
        effector_yaw = _yaw(_rotation(self._pinch_matrix))
        turned = _product(_product(_about_z(change[3]), _about_z(effector_yaw)), self._down_inverse)
        turn = _product(_about_z(_yaw(turned)), self._down)
        position = np.maximum(self._pinch_position + change[:3], self._workspace_bounds[0])
        position = np.minimum(position, self._workspace_bounds[1])
        w, x, y, z = turn
        offset = _product(_product(turn, self._attach_offset), (w, -x, -y, -z))
        self._data.ctrl[self._arm_actuator_ids] = self._ik.solve(
            pos=np.array(offset[1:]) + position,
            quat=np.array(_product(turn, self._attach_turn)),
            curr_qpos=self._data.qpos[self._arm_joint_ids],
        )
        opening = min(max(self._data.qpos[self._gripper_opening_joint_id] / 0.8, 0.0), 1.0) + change[4]
        self._data.ctrl[self._gripper_actuator_ids] = 255.0 * min(max(opening, 0.0), 1.0)


class _QuickPuzzle(_Quick):
    """Likewise, for a puzzle."""

    def compute_observation(self) -> np.ndarray:
        arm = super(self._base, self).compute_observation()  # Without ogbench's own of the buttons.
        if self._ob_type == "pixels":
            return arm
        states = np.eye(self._num_button_states)[self._cur_button_states]
        positions = self._data.qpos[self._button_qpos] * 120.0
        buttons = np.column_stack((states, positions, self._data.qvel[self._button_qvel]))
        return np.concatenate((arm, buttons.ravel()))


class _InverseKinematics:
    """What ogbench's controller solves for its one site, without its way for several."""

    def __init__(self, controller: Any):
        import mujoco

        self._mujoco = mujoco
        self._model, self._data = controller._model, controller._data
        self._site = int(controller._site_ids[0])
        self._position, self._matrix = self._data.site_xpos[self._site], self._data.site_xmat[self._site]
        self._damping, self._largest = controller._damping, controller._max_angle_change
        self._error, self._jacobian = np.empty(6), np.empty((6, self._model.nv))
        self._found, self._missing = np.empty(4), np.empty(4)

    def solve(self, pos: np.ndarray, quat: np.ndarray, curr_qpos: np.ndarray) -> np.ndarray:
        mujoco, model, data, qpos = self._mujoco, self._model, self._data, self._data.qpos
        shift, turn = self._error[:3], self._error[3:]
        qpos[:] = curr_qpos
        for _ in range(20):
            mujoco.mj_kinematics(model, data)
            np.subtract(pos, self._position, out=shift)
            mujoco.mju_mat2Quat(self._found, self._matrix)
            mujoco.mju_negQuat(self._found, self._found)
            mujoco.mju_mulQuat(self._missing, quat, self._found)
            mujoco.mju_quat2Vel(turn, self._missing, 1.0)
            if np.sqrt(shift.dot(shift)) <= 1e-4 and np.sqrt(turn.dot(turn)) <= 1e-4:
                break
            mujoco.mj_comPos(model, data)  # mj_jacSite reads it.
            mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
            across = self._jacobian.T
            update = across @ np.linalg.solve(self._jacobian @ across + self._damping, self._error)
            largest = np.abs(update).max()
            if largest > self._largest:
                update *= self._largest / largest
            mujoco.mj_integratePos(model, qpos, update, 1.0)
        return qpos.copy()


@contextlib.contextmanager
def _without_arm_meshes() -> Iterator[None]:
    """Where MuJoCo cannot draw, read the arm without its meshes, whose compilation takes most of a start and of memory.

    They have no mass and touch nothing: its links have inertias and capsules of their own.
    """
    if os.environ.get("MUJOCO_GL") != "disabled":
        yield
        return
    from dm_control import mjcf

    read = mjcf.from_path

    def read_without(path: Any, *args: Any, **options: Any) -> Any:
        model = read(path, *args, **options)
        if os.path.basename(path) == "ur5e.xml":
            for geom in model.find_all("geom"):
                if geom.mesh is not None and geom.dclass is not None and geom.dclass.dclass == "visual":
                    geom.mesh.remove()
                    geom.remove()
        return model

    with mock.patch.object(mjcf, "from_path", read_without):
        yield


def _numbers(rotation: Any) -> Quaternion:
    return cast(Quaternion, tuple(rotation.wxyz.tolist()))


def _rotation(matrix: np.ndarray) -> Quaternion:
    import mujoco

    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, matrix)
    return cast(Quaternion, tuple(quaternion.tolist()))


def _about_z(angle: float) -> Quaternion:
    """Of a turn; NumPy's sine and cosine may differ from the math module's in the last bit."""
    square = float(angle) * float(angle)
    if square < 1e-10:
        real = 1.0 - square / 8.0 + square * square / 384.0
        imaginary = 0.5 - square / 48.0 + square * square / 3840.0
    else:
        size = float(np.sqrt(square))
        real, imaginary = float(np.cos(0.5 * size)), float(np.sin(0.5 * size)) / size
    return real, imaginary * 0.0, imaginary * 0.0, imaginary * float(angle)


def _yaw(turn: Quaternion) -> float:
    w, x, y, z = turn
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2)))


def _product(first: Quaternion, second: Quaternion) -> Quaternion:
    w0, x0, y0, z0 = first
    w1, x1, y1, z1 = second
    return (
        -x0 * x1 - y0 * y1 - z0 * z1 + w0 * w1,
        x0 * w1 + y0 * z1 - z0 * y1 + w0 * x1,
        -x0 * z1 + y0 * w1 + z0 * x1 + w0 * y1,
        x0 * y1 - y0 * x1 + z0 * w1 + w0 * z1,
    )
