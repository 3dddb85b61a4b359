"""A small environment for what stands around an evaluation: the benchmarks' take longer to make than it to run."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

STEPS = 6


class Walk(gymnasium.Env):
    """A point in the plane that is to go to another one; it sees both."""

    observation_space = Box(-np.inf, np.inf, (4,))
    action_space = Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seen, self._steps = self.np_random.normal(size=4).astype(np.float32), 0
        return self._seen.copy(), {}

    def step(self, action):
        self._seen[:2] += action
        self._steps += 1
        away = float(np.linalg.norm(self._seen[:2] - self._seen[2:]))
        return self._seen.copy(), -away, False, self._steps == STEPS, {"success": away < 1.0}
