"""An environment of one's own: learn the pendulum's swing-up from what a noisy controller did.

    python examples/pendulum.py [FOLDER]

Logs 150 episodes of gymnasium's Pendulum-v1 under a controller with much noise, makes a file of them, and trains GFP
with nothing but that file and the environment's id.
"""

import sys
from pathlib import Path

import gymnasium
import numpy as np

import guidedflow as gf

ENV = "Pendulum-v1"
EPISODES = 150


def controller(observation: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A torque in [-2, 2]: pump energy into the pendulum while it hangs, hold it while it stands; and add noise."""
    cosine, sine, velocity = observation
    if cosine > 0.8:
        torque = -8.0 * np.arctan2(sine, cosine) - 2.0 * velocity
    else:
        energy = velocity**2 / 6 + 5.0 * (cosine - 1.0)
        torque = 2.0 * np.clip(-0.7 * velocity * energy, -1.0, 1.0)
    return np.clip([torque + noise * rng.standard_normal()], -2.0, 2.0).astype(np.float32)


def collect(episodes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Episodes of the noisy controller, as the arrays that ``gf.convert`` takes."""
    env, rng = gymnasium.make(ENV), np.random.default_rng(seed)
    steps: dict[str, list] = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        noise, over = rng.uniform(1.0, 6.0), False
        while not over:
            action = controller(observation, noise, rng)
            following, reward, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            for name, value in zip(steps, (observation, action, reward, terminated, truncated), strict=True):
                steps[name].append(value)
            observation = following
    return {name: np.array(values) for name, values in steps.items()}


def main(folder: Path = Path("pendulum"), steps: int = 6_000, episodes: int = EPISODES) -> tuple[float, gf.Run]:
    """Collect, convert, train and compare; returns the data's mean return and the run."""
    data = collect(episodes)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.npz"
    if not log.exists():
        gf.convert(data, log, action_range=(-2.0, 2.0))  # Networks know [-1, 1]; policies give torques again.
    run = gf.train(
        env=ENV,
        dataset=log,
        preset="quick",
        steps=steps,
        eval_every=steps // 2,
        save_every=steps // 2,
        eval_episodes=20,
        hidden=(128, 128),
        flow_steps=5,
        learning_rate=3e-4,
        alpha=3.0,
        discount=0.98,
        log_every=min(250, steps // 2),
    )
    data_return = float(data["rewards"].sum() / episodes)
    print(f"mean return of the data {data_return:.0f}, of the policies:")
    for row in run.results:
        print(f"  {row['policy']} {row['mean_return']:.0f}")
    return data_return, run


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
