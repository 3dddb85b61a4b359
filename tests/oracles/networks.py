"""Networks, flows, optimiser and finite differences that the oracles share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

LAYER_NORM_EPSILON = 1e-6


class Layer(NamedTuple):
    """y = x @ weight + bias; scale and offset belong to the LayerNorm after the activation, None without
    one.
    """

    weight: np.ndarray  # (in, out)
    bias: np.ndarray  # (out,)
    scale: np.ndarray | None = None  # (out,)
    offset: np.ndarray | None = None  # (out,)


class Mlp(NamedTuple):
    layers: list[Layer]


class Batch(NamedTuple):
    """(s, a, r, s', m, a+, whether a+ exists)."""

    observations: np.ndarray  # (B, n)
    actions: np.ndarray  # (B, d)
    rewards: np.ndarray  # (B,)
    next_observations: np.ndarray  # (B, n)
    masks: np.ndarray  # (B,)
    next_actions: np.ndarray  # (B, d)
    next_action_valid: np.ndarray  # (B,)


# ---- forward passes ------------------------------------------------------------------------------


def gelu(x: np.ndarray) -> np.ndarray:
    """'GELU (tanh form)': x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """'LayerNorm (epsilon 1e-6, with scale and bias)': over the last axis, the variance biased (divided
    by n).
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + LAYER_NORM_EPSILON) * scale + offset


def mlp(network: Mlp, x: np.ndarray) -> np.ndarray:
    """Hidden layer: affine, GELU, then LayerNorm 'after each hidden activation'; the last layer is affine."""
    x = np.asarray(x, dtype=np.float64)
    for layer in network.layers[:-1]:
        x = gelu(x @ layer.weight + layer.bias)
        if layer.scale is not None:
            x = layer_norm(x, layer.scale, layer.offset)
    last = network.layers[-1]
    return x @ last.weight + last.bias


def concatenate(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts], axis=-1)


def clip(a: np.ndarray) -> np.ndarray:
    """clip(.) of the page: to [-1, 1]."""
    return np.clip(a, -1.0, 1.0)


def critic(network: Mlp, s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Q_i(s, a), (B,)."""
    return mlp(network, concatenate(s, a))[..., 0]


def ensemble(critics: Sequence[Mlp], s: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Q_i(s, a) of every member, (2, B)."""
    return np.stack([critic(member, s, a) for member in critics])


def aggregate(values: np.ndarray, q_agg: str) -> np.ndarray:
    """'ensemble aggregate by `q_agg` (mean or min over members)': (2, B) -> (B,)."""
    if q_agg == "mean":
        return values.sum(axis=0) / len(values)
    if q_agg == "min":
        return values.min(axis=0)
    raise ValueError(q_agg)


def q_value(critics: Sequence[Mlp], s: np.ndarray, a: np.ndarray, q_agg: str) -> np.ndarray:
    """Q(s, a), or Qbar(s, a) where `critics` are the targets, (B,)."""
    return aggregate(ensemble(critics, s, a), q_agg)


def combine(value_actor: np.ndarray, value_vabc: np.ndarray, how: str) -> np.ndarray:
    """{actor, vabc, mean, min, max} of two values, elementwise."""
    table = {
        "actor": value_actor,
        "vabc": value_vabc,
        "mean": 0.5 * (value_actor + value_vabc),
        "min": np.minimum(value_actor, value_vabc),
        "max": np.maximum(value_actor, value_vabc),
    }
    return table[how]


def state_value(network: Mlp, s: np.ndarray) -> np.ndarray:
    """V(s), (B,)."""
    return mlp(network, s)[..., 0]


def one_step_actor(network: Mlp, s: np.ndarray, z: np.ndarray) -> np.ndarray:
    """mu_theta(s, z), before any clipping, (B, d)."""
    return mlp(network, concatenate(s, z))


def inverse_mean_absolute(q: np.ndarray) -> float:
    """lambda = 'sg(1 / mean |q|)'; no epsilon on the page, none here."""
    return float(1.0 / np.abs(q).mean())


# ---- flows ---------------------------------------------------------------------------------------

Velocity = Callable[[Mlp, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def sinusoidal_embedding(t: np.ndarray) -> np.ndarray:
    """'frequencies exp(-k ln(10^4)/31), k = 0..31, sines then cosines': t (B, 1) -> (B, 64). t is not
    rescaled.
    """
    frequencies = np.array([10_000.0 ** (-k / 31.0) for k in range(32)])
    angles = np.asarray(t, dtype=np.float64) * frequencies
    return concatenate(np.sin(angles), np.cos(angles))


def velocity_embedded(flow: Mlp, t: np.ndarray, s: np.ndarray, x: np.ndarray) -> np.ndarray:
    """v_omega(t, s, x) of GFP: input [s, x, embedding(t)]."""
    return mlp(flow, concatenate(s, x, sinusoidal_embedding(t)))


def velocity_raw(flow: Mlp, t: np.ndarray, s: np.ndarray, x: np.ndarray) -> np.ndarray:
    """v_omega(t, s, x) of FQL, IFQL, BC: input [s, x, t] ('raw time t as an input (no embedding)')."""
    return mlp(flow, concatenate(s, x, t))


def integrate(velocity: Velocity, flow: Mlp, s: np.ndarray, z: np.ndarray, steps: int) -> np.ndarray:
    """'x <- z; for k = 0..M-1: x <- x + v_omega(k/M, s, x)/M; then clip to [-1, 1] once, at the end'."""
    x = np.array(z, dtype=np.float64)
    for k in range(steps):
        t = np.full((*x.shape[:-1], 1), k / steps)
        x = x + velocity(flow, t, s, x) / steps
    return clip(x)


def flow_squared_error(
    velocity: Velocity, flow: Mlp, s: np.ndarray, a: np.ndarray, eps: np.ndarray, t: np.ndarray
) -> np.ndarray:
    """Per sample: 'mean over dimensions of (v_omega(t, s, x_t) - (a - eps))^2', x_t = (1-t) eps + t a;
    (B,).
    """
    x_t = (1.0 - t) * eps + t * a
    return ((velocity(flow, t, s, x_t) - (a - eps)) ** 2).mean(axis=-1)


# ---- losses that several algorithms share --------------------------------------------------------


def critic_mean_squared_error(critics: Sequence[Mlp], target_y: np.ndarray, batch: Batch) -> float:
    """'mean over members and batch of (Q_i(s, a) - sg(y))^2'."""
    q = ensemble(critics, batch.observations, batch.actions)
    return float(((q - target_y[None, :]) ** 2).mean())


def bellman(batch: Batch, next_value: np.ndarray, discount: float) -> np.ndarray:
    """'y = r + discount * m * next value', (B,)."""
    return batch.rewards + discount * batch.masks * next_value


# ---- parameters as vectors -----------------------------------------------------------------------


def map_leaves(function: Callable[..., np.ndarray], *networks: Mlp) -> Mlp:
    """`function` of the corresponding arrays of the networks; None stays None."""
    return Mlp(
        [
            Layer(*(None if leaves[0] is None else function(*leaves) for leaves in zip(*layers, strict=True)))
            for layers in zip(*(network.layers for network in networks), strict=True)
        ]
    )


def dot(left: Mlp, right: Mlp) -> float:
    """Inner product of two networks' parameters, as in <gradient, direction>."""
    total = 0.0
    for a, b in zip(left.layers, right.layers, strict=True):
        for x, y in zip(a, b, strict=True):
            if x is not None:
                total += float(np.sum(np.asarray(x, dtype=np.float64) * np.asarray(y, dtype=np.float64)))
    return total


def random_like(network: Mlp, rng: np.random.Generator) -> Mlp:
    """Standard normal entries in the shapes of `network` (not normalised)."""
    return map_leaves(lambda x: rng.standard_normal(np.shape(x)), network)


def initial_bound(fan_in: int, fan_out: int, scale: float = 1.0) -> float:
    """'uniform variance scaling (scale 1, fan_avg)': U(-b, b) of variance scale / fan_avg, b = sqrt(3
    scale / fan_avg).
    """
    return float(np.sqrt(3.0 * scale / (0.5 * (fan_in + fan_out))))


def random_mlp(sizes: Sequence[int], rng: np.random.Generator, *, norm: bool) -> Mlp:
    """A network of layer sizes (in, hidden..., out) with every parameter random (biases and norms too,
    for tests).
    """
    layers = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        bound = initial_bound(n_in, n_out)
        weight, bias = rng.uniform(-bound, bound, (n_in, n_out)), 0.1 * rng.standard_normal(n_out)
        if norm and index < len(sizes) - 2:
            scale, offset = 1.0 + 0.1 * rng.standard_normal(n_out), 0.1 * rng.standard_normal(n_out)
            layers.append(Layer(weight, bias, scale, offset))
        else:
            layers.append(Layer(weight, bias))
    return Mlp(layers)


def finite_difference(f: Callable[[Mlp], float], network: Mlp, direction: Mlp, h: float = 1e-6) -> float:
    """(f(p + h u) - f(p - h u)) / (2h): the derivative of f at p = `network` along u = `direction`."""
    forward = f(map_leaves(lambda p, u: p + h * u, network, direction))
    backward = f(map_leaves(lambda p, u: p - h * u, network, direction))
    return (forward - backward) / (2.0 * h)


def ema(target: Mlp, online: Mlp, tau: float) -> Mlp:
    """'EMA with rate tau': (1 - tau) target + tau online, the online parameters being those from before the step."""
    return map_leaves(lambda old, new: (1.0 - tau) * old + tau * new, target, online)


def adam_step(
    params: Mlp,
    grads: Mlp,
    m: Mlp,
    v: Mlp,
    count: int,
    lr: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Mlp, Mlp, Mlp, int]:
    """Adam; `count` is the number of steps taken before this one (0 at first). Returns (params, m, v,
    count + 1).

    The page says 'Adam, lr 3e-4' only: Kingma and Ba's defaults, eps outside the square root, both
    moments corrected for bias.
    """
    count = count + 1
    m = map_leaves(lambda old, g: b1 * old + (1.0 - b1) * g, m, grads)
    v = map_leaves(lambda old, g: b2 * old + (1.0 - b2) * g * g, v, grads)
    m_scale, v_scale = 1.0 / (1.0 - b1**count), 1.0 / (1.0 - b2**count)
    params = map_leaves(
        lambda p, first, second: p - lr * (first * m_scale) / (np.sqrt(second * v_scale) + eps), params, m, v
    )
    return params, m, v, count
