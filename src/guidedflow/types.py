"""What every room shares: what an environment looks like to a network, and what a network learns from."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from guidedflow.errors import DataError

if TYPE_CHECKING:  # An exported policy acts without JAX.
    from jaxtyping import Array

ObservationKeys = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of each entry of a dictionary observation, in the order in which they make one vector."""


Variant = tuple[tuple[str, float], ...]
"""Which values of swept settings an agent has, ``(("alpha", 0.3),)`` for instance; () without a sweep."""


def variant_text(variant: Variant) -> str:
    """A variant as files and tables show it: ``alpha=0.3 eta=1``; empty without a sweep."""
    return " ".join(f"{name}={float(value)!r}".removesuffix(".0") for name, value in variant)


def parse_variant(text: str) -> Variant:
    """The inverse of ``variant_text``.

    Raises:
        ValueError: it is none.
    """
    pairs = [pair.partition("=") for pair in text.split()]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError(f"expected a variant such as alpha=0.3, found {text!r}")
    return tuple((name, float(value)) for name, _, value in pairs)


class ActionRange(NamedTuple):
    """The lowest and highest action of an environment, a number a dimension; networks know [-1, 1] alone.

    Where both are the same number the dimension is constant: it is 0 to a network, and whatever a network says there
    comes back as that number.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def to_unit(self, actions: Float[np.ndarray, "*B act"]) -> Float[np.ndarray, "*B act"]:
        """An environment's actions in [-1, 1], as float64; those beyond the range lie beyond [-1, 1]."""
        centre, half = self._centre_and_half()
        return (actions - centre) / np.where(half > 0, half, 1.0)

    def from_unit(self, actions: Float[np.ndarray, "*B act"]) -> Float[np.ndarray, "*B act"]:
        """The inverse of ``to_unit``, as float32; never beyond the range."""
        centre, half = self._centre_and_half()
        return np.clip(centre + half * actions, self.low, self.high).astype(np.float32)

    def _centre_and_half(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        return (low + high) / 2, (high - low) / 2


class Spec(NamedTuple):
    """Shapes of one observation and one action, without the batch axis, and what they stand for in the environment."""

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype
    action_size: int
    observation_keys: ObservationKeys = ()
    """The dictionary that the observation was flattened from; (): it never was one."""
    action_range: ActionRange | None = None
    """What [-1, 1] stands for; None: itself."""

    def to_environment(self, actions: Float[np.ndarray, "*B act"]) -> Float[np.ndarray, "*B act"]:
        """A network's actions as the environment takes them."""
        return actions if self.action_range is None else self.action_range.from_unit(actions)

    def to_json(self) -> dict[str, Any]:
        """As plain values, which files hold."""
        return {
            "observation_shape": list(self.observation_shape),
            "observation_dtype": str(self.observation_dtype),
            "action_size": self.action_size,
            "observation_keys": {name: list(shape) for name, shape in self.observation_keys},
            "action_range": None if self.action_range is None else [list(bound) for bound in self.action_range],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Spec":
        """The inverse of ``to_json``; what older files lack has its default.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        keys = tuple((name, tuple(map(int, shape))) for name, shape in saved.get("observation_keys", {}).items())
        shape, size = tuple(map(int, saved["observation_shape"])), int(saved["action_size"])
        if keys and shape != (sum(math.prod(shape) for _, shape in keys),):
            raise ValueError(f"observation_keys {keys} beside observation_shape {shape}")
        bounds = saved.get("action_range")
        if bounds is not None:
            low, high = (tuple(map(float, bound)) for bound in bounds)
            ordered = len(low) == len(high) == size and all(a <= b for a, b in zip(low, high, strict=True))
            if not ordered or not np.isfinite([low, high]).all():
                raise ValueError(f"action_range {bounds} beside action_size {size}")
            bounds = ActionRange(low, high)
        return cls(shape, np.dtype(saved["observation_dtype"]), size, keys, bounds)


def named(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Mappings within mappings as one, in which an entry's name is its path: ``{"goal": {"x": 1}}`` has ``goal/x``."""
    found: dict[str, Any] = {}
    for name, value in entries.items():
        found |= named(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def is_picture(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether observations of this shape and dtype are pictures: bytes of (height, width, channels)."""
    return len(shape) == 3 and np.dtype(dtype) == np.uint8


def flattened(
    entries: Mapping[str, Any], keys: ObservationKeys, source: str
) -> Float[np.ndarray, " d"] | Float[np.ndarray, "B d"]:
    """A dictionary observation, or a batch of them, as one float32 vector each: the keys' entries, end to end.

    Args:
        entries: a number or an array a key, all with or all without a batch axis; what ``keys`` does not name is
            left out.
        keys: which entries, of which shapes, in which order.
        source: what error messages call the observation.

    Raises:
        DataError: an entry is missing, has another shape, is no numbers, or holds pictures.
    """
    there, parts = named(entries), list[np.ndarray]()
    missing = [name for name, _ in keys if name not in there]
    if missing:
        raise DataError(f"{source}: expected an entry {missing[0]!r}, found {', '.join(there) or 'none'}")
    for name, shape in keys:
        try:
            found = np.asarray(there[name])
            array = found.astype(np.float32, copy=False)
        except (TypeError, ValueError) as error:
            raise DataError(f"{source}/{name}: expected numbers, found: {error}") from error
        if is_picture(shape, found.dtype):
            raise DataError(
                f"{source}/{name}: expected vectors, found pictures (uint8 of shape {shape}), which cannot be part of "
                f"one vector; leave {name} out of the observation keys, or take the pictures alone, as observations"
            )
        batch = array.shape[: max(0, array.ndim - len(shape))]
        if array.shape != (*batch, *shape) or len(batch) > 1:
            raise DataError(f"{source}/{name}: expected shape {shape}, or a batch of it, found {array.shape}")
        if parts and batch != parts[0].shape[:-1]:
            rows = [f"{axes[0]} rows" if axes else "no batch" for axes in (parts[0].shape[:-1], batch)]
            raise DataError(f"{source}/{name}: expected {rows[0]} as in {keys[0][0]}, found {rows[1]}")
        parts.append(array.reshape(*batch, math.prod(shape)))
    return np.concatenate(parts, axis=-1)


class Batch(NamedTuple):
    """B transitions (s, a, r, m, s', a+), in the symbols of docs/algorithms.md.

    ``masks`` is 0 where s' (or s, for goal-reaching rewards) is a true terminal state, else 1.
    ``next_actions`` is the action that the data takes at s'; where ``next_action_valid`` is false there is none and
    the row holds an unrelated action.
    """

    observations: "Shaped[Array, ' B *obs']"
    actions: "Float[Array, 'B act']"
    rewards: "Float[Array, ' B']"
    next_observations: "Shaped[Array, ' B *obs']"
    masks: "Float[Array, ' B']"
    next_actions: "Float[Array, 'B act']"
    next_action_valid: "Bool[Array, ' B']"
