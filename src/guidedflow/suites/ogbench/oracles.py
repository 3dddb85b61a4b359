"""Episodes by OGBench's scripted oracles.

Cubes, scene and puzzles, each as `play` (plan oracles, temporally correlated noise) and `noisy` (Markov
oracles, Gaussian and random actions), or seen in pictures (`visual-`, play only), after the recipe of
Park et al., "OGBench: Benchmarking Offline Goal-Conditioned RL" (ICLR 2025). Deviations from it:
- an episode is a pure function of its seed, split and index, so that neither the number of workers nor an
  interruption changes a byte;
- an action is rounded to float32 before it is taken, so that the stored actions are those that were taken.
"""

import itertools
from typing import Any, Literal, final

import numpy as np

from guidedflow.seeding import numpy_seeded
from guidedflow.suites.ogbench.recipes import Recipe, recipe

Split = Literal["train", "val"]

_SPLITS: tuple[Split, ...] = ("train", "val")
_DTYPES = {
    "observations": np.float32,
    "actions": np.float32,
    "terminals": np.bool_,
    "qpos": np.float32,
    "qvel": np.float32,
    "button_states": np.int64,
}
# Noise of position (x, y, z), yaw and gripper, relative to the position's.
_NOISE_SHAPE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])


def cube_stays_in_view(positions: np.ndarray) -> bool:
    """Whether a scene's cube can be seen throughout: on the table before the camera, or inside the drawer.

    `positions` (rows, 3) are the cube's, in metres.
    """
    _, y, z = positions.T
    in_drawer = (z >= 0.06) & (z <= 0.08)
    hidden = (y >= 0.29) | ((y <= -0.3) & ~in_drawer)
    return not hidden.any()


@final
class Collector:
    """One environment with its oracles, from which any episode of a family can be made, in any order."""

    def __init__(self, family: str, steps: int = 1001):
        # Imported here: the command line reads this module's names without waiting for MuJoCo.
        import gymnasium

        from guidedflow.suites.ogbench.environments import quickened, specification

        self._recipe = recipe(family)
        # Without its checker, which warns of the data type of OGBench's action bounds.
        self._env: Any = gymnasium.make(
            quickened(specification(self._recipe.env_id)),
            max_episode_steps=steps,
            disable_env_checker=True,
            terminate_at_goal=False,
            mode="data_collection",
        )
        # The reset that compiles the model runs a forward pass before the arm's gains are set. It is done
        # here, so that the first episode starts the way all later ones do.
        self._env.reset(seed=0)
        self._oracles = _oracles(self._env, self._recipe)

    def episode(self, seed: int, index: int, split: Split = "train") -> dict[str, np.ndarray]:
        """Make an episode, a row a step; qpos, qvel and button states are those before the row's action.

        Returns observations (rows, n) float32 or, of a visual family, (rows, 64, 64, 3) uint8; actions in [-1, 1],
        qpos and qvel (rows, n) float32, terminals (rows,) bool and, where the environment has buttons, button_states
        (rows, n) int64. numpy's global state is kept.
        """
        for attempt in itertools.count():
            branch = (_SPLITS.index(split), index, attempt)
            record = self._attempt(np.random.SeedSequence(seed, spawn_key=branch))
            if not self._recipe.cube_in_view:
                break
            start = self._env.unwrapped.model.joint("object_joint_0").qposadr[0]
            if cube_stays_in_view(record["qpos"][:, start : start + 3]):
                break
        return record

    def _attempt(self, sequence: np.random.SeedSequence) -> dict[str, np.ndarray]:
        env_seed, oracle_seed, own_seed = sequence.spawn(3)
        rng = np.random.default_rng(own_seed)
        p_stack = rng.uniform(*self._recipe.p_stack)
        noise = rng.uniform(0, self._recipe.action_noise) * _NOISE_SHAPE
        rows = []
        ended = False
        with numpy_seeded(oracle_seed):
            observation, info = self._env.reset(seed=int(env_seed.generate_state(1)[0]))
            oracle = self._oracles[info["privileged/target_task"]]
            oracle.reset(observation, info)
            while not ended:
                if rng.random() < self._recipe.p_random_action:
                    action = rng.uniform(-1, 1, size=5)
                else:
                    action = oracle.select_action(observation, info) + noise * rng.standard_normal(5)
                action = np.clip(action, -1, 1).astype(np.float32)
                following, _, terminated, truncated, info = self._env.step(action)
                ended = terminated or truncated
                state = [info[f"prev_{name}"] for name in ("qpos", "qvel", "button_states") if name in info]
                rows.append((observation, action, ended, *state))
                observation = following
                if oracle.done:
                    # As in OGBench's script, `info` stays as it was: the next action, too, goes by the target before.
                    _, told = self._env.unwrapped.set_new_target(p_stack=p_stack)
                    oracle = self._oracles[told["privileged/target_task"]]
                    oracle.reset(observation, told)
        # Without buttons there is a column less than there are names.
        columns = zip(_DTYPES.items(), zip(*rows, strict=True), strict=False)
        record: dict[str, Any] = {name: np.asarray(column, dtype) for (name, dtype), column in columns}
        if self._recipe.is_visual:
            record["observations"] = record["observations"].astype(np.uint8)
        return record


def _oracles(env: Any, recipe: Recipe) -> dict[str, Any]:
    if recipe.oracle == "plan":
        from ogbench.manipspace.oracles.plan import button_plan, cube_plan, drawer_plan, window_plan

        plan = {"env": env, "noise": recipe.plan_noise, "noise_smoothing": recipe.plan_smoothing}
        return {
            "cube": cube_plan.CubePlanOracle(**plan),
            "button": button_plan.ButtonPlanOracle(gripper_always_closed=recipe.closed_gripper, **plan),
            "drawer": drawer_plan.DrawerPlanOracle(**plan),
            "window": window_plan.WindowPlanOracle(**plan),
        }
    from ogbench.manipspace.oracles.markov import button_markov, cube_markov, drawer_markov, window_markov

    markov = {"env": env, "min_norm": recipe.markov_min_norm}
    return {
        # The published max_step of scene, 100, has never taken effect: the oracle's reset sets 200.
        "cube": cube_markov.CubeMarkovOracle(max_step=recipe.cube_max_step, **markov),
        "button": button_markov.ButtonMarkovOracle(gripper_always_closed=recipe.closed_gripper, **markov),
        "drawer": drawer_markov.DrawerMarkovOracle(**markov),
        "window": window_markov.WindowMarkovOracle(**markov),
    }


def episode_record(
    family: str, seed: int, index: int, *, split: Split = "train", steps: int = 1001
) -> dict[str, np.ndarray]:
    """Make one episode in an environment of its own; `Collector.episode` says what is in it."""
    return Collector(family, steps).episode(seed, index, split)
