"""D4RL's AntMaze-v2: its mazes around the ant of OGBench, which is D4RL's own (docs/tasks.md, "AntMaze")."""

import importlib.resources
import os
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import Box

SCALE = 4.0
"""Length of a maze cell in metres."""
GOAL_RADIUS = 0.5
FRAME_SKIP = 5


class Maze(NamedTuple):
    """Walls ``#`` and the start ``R``, whose cell is the origin; the goal's cell; and the time limit in steps."""

    rows: tuple[str, ...]
    goal: tuple[float, float]
    """Lower corner in metres of where the goal is drawn."""
    limit: int


MAZES = {
    "umaze": Maze(
        (
            "#####",
            "#R  #",
            "### #",
            "#G  #",
            "#####",
        ),
        (0.0, 8.0),
        700,
    ),
    "medium": Maze(
        (
            "########",
            "#R ##  #",
            "#  #   #",
            "##   ###",
            "#  #   #",
            "# #  # #",
            "#   # G#",
            "########",
        ),
        (20.0, 20.0),
        1000,
    ),
    "large": Maze(
        (
            "############",
            "#R   #     #",
            "# ## # # # #",
            "#      #   #",
            "# #### ### #",
            "#  # #     #",
            "## # # # ###",
            "#  #   # G #",
            "############",
        ),
        (32.0, 24.0),
        1000,
    ),
}


class AntMaze(MujocoEnv):
    """An ant that has to walk to a goal it does not observe.

    Observation (29,): position and orientation of torso and joints, then their velocities. Action (8,): torques in
    [-1, 1]. Reward 1 within ``GOAL_RADIUS`` of the goal after the step, which ends the episode; else 0.

    Args:
        maze: a key of ``MAZES``.
        options: passed on to ``MujocoEnv``.
    """

    metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, maze: str, **options: Any):
        self._maze = MAZES[maze]
        self._goal = np.zeros(2)
        path = _write_model(self._maze)
        try:
            space = Box(-np.inf, np.inf, (29,), np.float64)
            super().__init__(str(path), frame_skip=FRAME_SKIP, observation_space=space, **options)
        finally:
            path.unlink()
        self.action_space = Box(-1.0, 1.0, (8,), np.float32)

    @property
    def goal(self) -> np.ndarray:
        """Where the torso has to get to, (x, y) in metres."""
        return self._goal.copy()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; falling over does not end an episode."""
        self.do_simulation(np.asarray(action, np.float64), self.frame_skip)
        reached = bool(np.linalg.norm(self.data.qpos[:2] - self._goal) <= GOAL_RADIUS)
        if self.render_mode == "human":
            self.render()
        return self._observation(), float(reached), reached, False, {"success": float(reached)}

    def reset_model(self) -> np.ndarray:
        """Near the origin, with a goal drawn anew."""
        noise = self.np_random.uniform(0.0, 1.0, 2) + self.np_random.uniform(0.0, 0.5, 2)
        self._goal = np.maximum(0.0, np.array(self._maze.goal) + noise)
        qpos = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
        qvel = self.init_qvel + 0.1 * self.np_random.standard_normal(self.model.nv)
        self.set_state(qpos, qvel)
        return self._observation()

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.data.qpos[:15], self.data.qvel[:14]])


def _write_model(maze: Maze) -> Path:
    """The ant's model with the maze's walls, as a file that the caller removes."""
    source = importlib.resources.files("ogbench.locomaze").joinpath("assets", "ant.xml")
    tree = ElementTree.ElementTree(ElementTree.fromstring(source.read_text(encoding="utf-8")))
    world = tree.find("worldbody")
    assert world is not None
    half = f"{SCALE / 2} {SCALE / 2} {SCALE / 4}"
    for i, row in enumerate(maze.rows):
        for j, cell in enumerate(row):
            if cell == "#":
                position = f"{(j - 1) * SCALE} {(i - 1) * SCALE} {SCALE / 4}"
                wall = {"name": f"wall_{i}_{j}", "type": "box", "pos": position, "size": half, "material": "wall"}
                ElementTree.SubElement(world, "geom", wall | {"contype": "1", "conaffinity": "1"})
    descriptor, path = tempfile.mkstemp(suffix=".xml", prefix="antmaze-")
    with os.fdopen(descriptor, "wb") as file:
        tree.write(file)
    return Path(path)


def register() -> None:
    """Make ``guidedflow/AntMaze{Umaze,Medium,Large}-v2`` known to gymnasium."""
    for name, maze in MAZES.items():
        known = f"guidedflow/AntMaze{name.capitalize()}-v2"
        if known not in gymnasium.registry:
            gymnasium.register(known, f"{__name__}:AntMaze", max_episode_steps=maze.limit, kwargs={"maze": name})
