"""What GFP's temperature eta does, on a bandit with six modes of different value (the paper's figure).

    python examples/temperature.py [PICTURE [STEPS [PRECISION]]]

One state, two-dimensional actions. The data covers six modes evenly: three are almost equally good, three are worse.
Plain cloning covers all of them. With eta = 1e-1 VaBC leans away from the worst, with 1e-3 it stays with the good ones
and keeps several, with 1e-5 it turns to the best; the actor follows. FQL's flow is a plain clone, and its actor moves
to the best mode that it can reach from there. Takes about two minutes on two cores.
"""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import guidedflow as gf
from guidedflow.agents import Agent

MODES = 6
ANGLES = 2 * np.pi * np.arange(MODES) / MODES
CENTRES = 0.7 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
REWARDS = 10.0 - np.array([2.0, 0.6, 0.2, 0.02, 0.006, 0.0])
"""What a mode lacks of the best one is 20% to 0.06% of |Q|: some of it far above eta = 1e-3, some just below."""
SPREAD = 0.06
ETAS = (1e-1, 1e-3, 1e-5)
NETWORK = {"hidden": (64, 64, 64), "learning_rate": 1e-3}


def bandit(rows: int = 6_000, seed: int = 0) -> gf.Dataset:
    """Actions around all modes alike, each with its mode's reward; every step ends its episode."""
    rng = np.random.default_rng(seed)
    mode = rng.integers(MODES, size=rows)
    return gf.Dataset.from_arrays(
        observations=np.zeros((rows, 1)),
        actions=np.clip(CENTRES[mode] + SPREAD * rng.normal(size=(rows, 2)), -1, 1),
        rewards=REWARDS[mode],
        terminals=np.ones(rows, bool),
    )


def train(name: str, dataset: gf.Dataset, steps: int, precision: Any, **settings: Any) -> Agent:
    """A trained agent of the small network."""
    agent = gf.make_agent(name, dataset.spec, **{**NETWORK, **settings})
    return gf.fit(agent, dataset, steps=steps, precision=precision)[0]


def draw(agent: Agent, policy: str, count: int = 2_000) -> np.ndarray:
    """``count`` actions (count, 2) of a policy."""
    act = jax.jit(agent.policies()[policy])
    return np.asarray(act(np.zeros((count, 1), np.float32), jax.random.key(0)))


def mass(actions: np.ndarray) -> np.ndarray:
    """The fraction of actions nearest to each mode (MODES,)."""
    nearest = np.linalg.norm(actions[:, None] - CENTRES, axis=2).argmin(1)
    return np.bincount(nearest, minlength=MODES) / len(actions)


def main(path: str = "temperature.png", steps: str = "5000", precision: str = "default") -> None:
    """Train, print the mass per mode, and draw the figure."""
    dataset, how = bandit(), dict[str, Any](steps=int(steps), precision=precision)
    cloning = train("bc", dataset, **how)
    fql = train("fql", dataset, **how, alpha=0.1)
    guided = {eta: train("gfp", dataset, **how, alpha=1.0, eta=eta) for eta in ETAS}
    flows = {"BC flow": draw(cloning, "flow"), "FQL flow": draw(fql, "flow")}
    flows |= {f"VaBC, eta {eta:g}": draw(agent, "vabc") for eta, agent in guided.items()}
    actors = {"FQL actor": draw(fql, "actor")}
    actors |= {f"actor, eta {eta:g}": draw(agent, "actor") for eta, agent in guided.items()}
    print("mass per mode, from the least to the most valuable one")
    for name, actions in {"data": np.asarray(dataset.actions), **flows, **actors}.items():
        print(f"{name:20}", " ".join(f"{fraction:6.1%}" for fraction in mass(actions)))
    picture(path, np.asarray(dataset.actions), guided[1e-3], flows, actors)


def picture(
    path: str, data: np.ndarray, agent: Any, flows: Mapping[str, np.ndarray], actors: Mapping[str, np.ndarray]
) -> None:
    """Data, critic and flows in the first row, the actors below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 5.2), layout="constrained")
    axes = figure.subplots(2, 7)
    axes[0, 0].set_title("data")
    axes[0, 0].scatter(*data[:2_000].T, s=1)
    axes[0, 1].set_title("critic (GFP, eta 0.001)")
    grid = np.linspace(-1, 1, 100, dtype=np.float32)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    values = agent.networks.critic(np.zeros((len(points), 1), np.float32), points).mean(0)
    axes[0, 1].imshow(np.asarray(values).reshape(100, 100), extent=(-1, 1, -1, 1), origin="lower")
    for axis, (name, actions) in zip(axes[0, 2:], flows.items(), strict=True):
        axis.set_title(name)
        axis.scatter(*actions.T, s=1)
    for axis, (name, actions) in zip(axes[1, 3:], actors.items(), strict=True):
        axis.set_title(name)
        axis.scatter(*actions.T, s=1, color="tab:orange")
    for axis in axes.flat:
        axis.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=[], yticks=[])
        axis.axis(axis.has_data())
        for centre, reward in zip(CENTRES, REWARDS, strict=True) if axis.has_data() else ():
            axis.annotate(f"{reward:g}", centre, fontsize=7, alpha=0.6)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
