"""How the episodes of each family of data are made: the published recipes (docs/tasks.md, "OGBench")."""

import difflib
from dataclasses import dataclass, replace
from typing import Literal

from guidedflow.errors import SettingsError

_WORLDS = ("cube-single", "cube-double", "cube-triple", "scene", "puzzle-3x3", "puzzle-4x4")


@dataclass(frozen=True)
class Recipe:
    """How the episodes of one family are made; the defaults are common to all families."""

    env_id: str
    oracle: Literal["plan", "markov"]
    p_random_action: float  # probability that an action is replaced by a uniform one
    action_noise: float  # upper end of an episode's standard deviation of position noise
    p_stack: tuple[float, float]  # range of an episode's probability of stacking a cube on another
    closed_gripper: bool  # the button oracles keep the gripper shut
    cube_in_view: bool  # an episode whose cube leaves the visible range is drawn again
    cube_max_step: int  # steps after which the Markov cube oracle gives a target up
    episodes: int = 1000
    plan_noise: float = 0.1
    plan_smoothing: float = 0.5
    markov_min_norm: float = 0.4

    @property
    def is_visual(self) -> bool:
        """Whether observations are pictures."""
        return self.env_id.startswith("visual-")


def _published(world: str, style: str) -> Recipe:
    noisy, puzzle = style == "noisy", world.startswith("puzzle")
    p_stack = {"cube-single": (0.0, 0.0), "cube-double": (0.0, 0.25), "cube-triple": (0.05, 0.35)}
    return Recipe(
        env_id=f"{world}-v0",
        oracle="markov" if noisy else "plan",
        p_random_action=(0.2 if puzzle else 0.1) if noisy else 0.0,
        action_noise=0.1 if noisy else 0.0,
        p_stack=p_stack.get(world, (0.5, 0.5)),
        closed_gripper=puzzle,
        cube_in_view=world == "scene",
        cube_max_step=100 if world == "scene" else 200,
        episodes=3000 if world == "cube-triple" else 1000,
    )


_RECIPES = {f"{world}-{style}": _published(world, style) for world in _WORLDS for style in ("play", "noisy")}
_RECIPES |= {
    f"visual-{world}-play": replace(_RECIPES[f"{world}-play"], env_id=f"visual-{world}-v0")
    for world in _WORLDS
    if world != "cube-triple"
}
FAMILIES: tuple[str, ...] = tuple(_RECIPES)


def recipe(family: str) -> Recipe:
    """The published recipe of a family.

    Raises:
        SettingsError: there is none; the message names the nearest.
    """
    if family not in _RECIPES:
        near = difflib.get_close_matches(str(family), FAMILIES, n=3) or FAMILIES
        raise SettingsError(f"expected one of {', '.join(near)}, found {family!r}, which no scripted oracle makes")
    return _RECIPES[family]
