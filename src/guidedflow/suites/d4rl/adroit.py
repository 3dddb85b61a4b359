"""D4RL's Adroit tasks on gymnasium-robotics' environments (docs/tasks.md, "Adroit")."""

import contextlib
import importlib.metadata
import io
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from guidedflow.errors import SettingsError

TESTED_VERSION = "1.4.2"
DROPPED_BELOW = 0.075
"""Height in metres under which D4RL calls the pen dropped."""

# The vector from palm to object, as a part of the observation.
REACH: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "door": lambda o: o[35:38],
    "hammer": lambda o: o[33:36] - o[36:39],
    "relocate": lambda o: o[30:33],
}
TIME_LIMITS = {"pen": 100, "door": 200, "hammer": 200, "relocate": 200}


class D4RLAdroit(gymnasium.Wrapper):
    """Rewards and ends as D4RL had them.

    gymnasium-robotics 1.2.1 to 1.4.2 reward the distance between palm and object with +0.1 where D4RL punishes it with
    -0.1, and never end an episode in which the pen was dropped.

    Raises:
        SettingsError: another release of gymnasium-robotics, in which the sign may be right already.
    """

    def __init__(self, hand: str, **options: Any):
        found = importlib.metadata.version("gymnasium-robotics")
        if found != TESTED_VERSION:
            raise SettingsError(
                f"gymnasium-robotics: expected {TESTED_VERSION}, whose rewards are known, found {found}"
            )
        import gymnasium_robotics.envs.adroit_hand as hands

        environment: Any = getattr(hands, f"AdroitHand{hand.capitalize()}Env")
        super().__init__(environment(reward_type="dense", **options))
        self._hand = hand

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; ``success`` in the info says whether the goal is reached now."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._hand == "pen":
            inner: Any = self.unwrapped
            terminated = bool(inner.data.xpos[inner.obj_body_id][2] < DROPPED_BELOW)
        else:
            reward = float(reward) - 0.2 * float(np.linalg.norm(REACH[self._hand](observation)))
        return observation, float(reward), terminated, truncated, info


def register() -> None:
    """Make ``guidedflow/Adroit{Pen,Door,Hammer,Relocate}-v1`` and gymnasium-robotics' own known to gymnasium."""
    # Importing it prints a line about its rewards: D4RL's are put right above, and Minari's were recorded with them.
    with contextlib.redirect_stderr(io.StringIO()):
        import gymnasium_robotics
    gymnasium.register_envs(gymnasium_robotics)
    for hand, limit in TIME_LIMITS.items():
        name = f"guidedflow/Adroit{hand.capitalize()}-v1"
        if name not in gymnasium.registry:
            gymnasium.register(name, f"{__name__}:D4RLAdroit", max_episode_steps=limit, kwargs={"hand": hand})
