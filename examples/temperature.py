"""What GFP's temperature eta does, on a bandit with six modes of different value (the paper's figure).

    python examples/temperature.py [PICTURE [STEPS [PRECISION]]]

One state, two-dimensional actions. The data covers six modes evenly: three are almost equally good, three are worse.
Plain cloning covers all of them. With eta = 1e-1 VaBC leans away from the worst, with 1e-3 it stays with the good ones
and keeps several, with 1e-5 it turns to the best; the actor follows. FQL's flow is a plain clone, and its actor leaves
the worst modes, not always for another one: between modes its critic is free to be wrong.
Takes about three minutes on two cores.
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
NETWORK = {"hidden": (64, 64, 64), "learning_rate": 2e-3}
EULER_STEPS = 30
"""Of the flows: with the usual 10, more of the actions end between two modes."""


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
    agent = gf.make_agent(name, dataset.spec, flow_steps=EULER_STEPS, **NETWORK, **settings)
    return gf.fit(agent, dataset, steps=steps, precision=precision, learning_rate_decay=0.5)[0]


def draw(agent: Agent, policy: str, count: int = 2_000) -> np.ndarray:
    """``count`` actions (count, 2) of a policy."""
    act = jax.jit(agent.policies()[policy])
    return np.asarray(act(np.zeros((count, 1), np.float32), jax.random.key(0)))


def mass(actions: np.ndarray) -> np.ndarray:
    """The fraction of actions nearest to each mode (MODES,)."""
    return np.bincount(nearest(actions), minlength=MODES) / len(actions)


def nearest(actions: np.ndarray) -> np.ndarray:
    """The number of each action's nearest mode (len(actions),)."""
    return np.linalg.norm(actions[:, None] - CENTRES, axis=2).argmin(1)


def share_at_modes(actions: np.ndarray) -> float:
    """The fraction of actions within three standard deviations of a mode, 0.989 of the data's."""
    return float((np.linalg.norm(actions - CENTRES[nearest(actions)], axis=1) < 3 * SPREAD).mean())


def main(path: str = "temperature.png", steps: str = "8000", precision: str = "default") -> None:
    """Train, print the mass per mode, and draw the figure."""
    dataset, how = bandit(), dict[str, Any](steps=int(steps), precision=precision)
    cloning = train("bc", dataset, **how)
    fql = train("fql", dataset, **how, alpha=0.1)
    guided = {eta: train("gfp", dataset, **how, alpha=1.0, eta=eta) for eta in ETAS}
    flows = {"BC flow": draw(cloning, "flow"), "FQL flow": draw(fql, "flow")}
    flows |= {f"VaBC, eta {eta:g}": draw(agent, "vabc") for eta, agent in guided.items()}
    actors = {"FQL actor": draw(fql, "actor")}
    actors |= {f"actor, eta {eta:g}": draw(agent, "actor") for eta, agent in guided.items()}
    drawn = {"data": np.asarray(dataset.actions), **flows, **actors}
    print("mass per mode, from the least to the most valuable one, and the share within 3 standard deviations of one")
    for name, actions in drawn.items():
        fractions = (*mass(actions), share_at_modes(actions))
        print(f"{name:20}", " ".join(f"{fraction:6.1%}" for fraction in fractions))
    picture(path, drawn, guided[1e-3])


def picture(path: str, drawn: Mapping[str, np.ndarray], agent: Any) -> None:
    """Data, critic and flows in the first row, each flow's actor below it; colours are values everywhere."""
    from matplotlib.figure import Figure

    places = ("data", "", *[name for name in drawn if "actor" not in name][1:])
    figure = Figure(figsize=(17, 5.6), layout="constrained")
    axes = figure.subplots(2, len(places))
    scale = {"vmin": REWARDS.min(), "vmax": REWARDS.max(), "cmap": "viridis"}
    for column, name in enumerate(places):
        actor = name.replace("VaBC", "actor").replace("flow", "actor")
        for axis, shown in zip(axes[:, column], (name, actor if actor != name else ""), strict=True):
            axis.axis(shown in drawn)
            if shown in drawn:
                scatter(axis, shown, drawn[shown], scale)
    points = axes[0, 0].collections[0]
    axes[0, 1].axis(True)
    critic(axes[0, 1], agent, scale)
    figure.colorbar(points, ax=axes[1, :3], orientation="horizontal", label="value (reward)", shrink=0.8, aspect=30)
    figure.savefig(path, dpi=90)


def scatter(axis: Any, name: str, actions: np.ndarray, scale: Mapping[str, Any]) -> None:
    """Actions in the colour of their nearest mode's reward."""
    shown = actions[:2_000]
    axis.scatter(*shown.T, s=2, c=REWARDS[nearest(shown)], **scale)
    dress(axis, f"{name}\n{share_at_modes(actions):.0%} at a mode")


def critic(axis: Any, agent: Any, scale: Mapping[str, Any]) -> None:
    """The values of all actions."""
    grid = np.linspace(-1, 1, 100, dtype=np.float32)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    values = agent.networks.critic(np.zeros((len(points), 1), np.float32), points).mean(0)
    axis.imshow(np.asarray(values).reshape(100, 100), extent=(-1, 1, -1, 1), origin="lower", **scale)
    dress(axis, "critic\nof GFP, eta 0.001")


def dress(axis: Any, title: str) -> None:
    """A title above, and each mode's reward on the outside of it."""
    axis.set_title(title, fontsize=10)
    axis.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xticks=[], yticks=[])
    for centre, reward in zip(CENTRES, REWARDS, strict=True):
        axis.annotate(f"{reward:g}", centre * 1.52, fontsize=7, ha="center", va="center", color="0.3")


if __name__ == "__main__":
    main(*sys.argv[1:])
