"""What every room shares: what an environment looks like to a network, and what a network learns from."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Shaped

from guidedflow.errors import DataError

if TYPE_CHECKING:  # An exported policy acts without JAX.
    from jaxtyping import Array, PyTree

ObservationKeys = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of each entry of a dictionary observation, in order; those that are no pictures make one vector."""

VECTOR = "vector"
"""What the vector is called beside pictures."""

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class DictShape:
    """Of an observation that is a dictionary to networks, too: pictures by name, and ``VECTOR`` if there is one."""

    entries: ObservationKeys

    def __str__(self) -> str:
        return ", ".join(f"{name} {shape}" for name, shape in self.entries)


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

    @classmethod
    def measured(cls, actions: Shaped[np.ndarray, "N act"]) -> "ActionRange":
        """From the lowest to the highest of each dimension."""
        return cls(tuple(actions.min(axis=0).tolist()), tuple(actions.max(axis=0).tolist()))

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


class Normalization(NamedTuple):
    """What networks subtract from each number of a vector, and what they divide it by then."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Spec(NamedTuple):
    """Shapes of one observation and one action, without the batch axis, and what they stand for in the environment."""

    observation_shape: tuple[int, ...] | DictShape
    """Of what a network sees, frames stacked."""
    observation_dtype: np.dtype
    """uint8 of pictures, also where a vector, which is float32, lies beside them."""
    action_size: int
    observation_keys: ObservationKeys = ()
    """The entries of a dictionary observation, frames stacked; (): it never was a dictionary."""
    action_range: ActionRange | None = None
    """What [-1, 1] stands for; None: itself."""
    normalization: Normalization | None = None
    """Of the vector; None: networks see it as it is."""

    def to_environment(self, actions: Float[np.ndarray, "*B act"]) -> Float[np.ndarray, "*B act"]:
        """A network's actions as the environment takes them."""
        return actions if self.action_range is None else self.action_range.from_unit(actions)

    def from_environment(self, entries: Mapping[str, Any], source: str) -> Any:
        """A dictionary observation, or a batch of them, as a network sees it: one vector, or a dictionary of arrays.

        Args:
            entries: a number or an array for each of ``observation_keys``, all with or all without a batch axis;
                others are left out.
            source: what error messages call the observation.

        Raises:
            DataError: an entry is missing, has another shape, is no numbers, or is a picture where none was, or none
                where one was.
        """
        if not isinstance(self.observation_shape, DictShape):
            return flattened(entries, self.observation_keys, source)
        shapes, there = dict(self.observation_shape.entries), named(entries)
        _check_there(there, self.observation_keys, source)
        rest = tuple((name, shape) for name, shape in self.observation_keys if name not in self.pictures)
        found = {name: np.asarray(there[name]) for name in self.pictures}
        if rest:
            found[VECTOR] = flattened(there, rest, source)
        for name in self.pictures:
            array, shape = found[name], shapes[name]
            if array.dtype != np.uint8 or array.shape[-3:] != shape or array.ndim > 4:
                raise DataError(
                    f"{source}/{name}: expected a picture, uint8 of shape {shape}, or a batch of such, found "
                    f"{array.dtype} of shape {array.shape}"
                )
        first, batches = self.pictures[0], {name: a.shape[: a.ndim - len(shapes[name])] for name, a in found.items()}
        for name, batch in batches.items():
            _check_rows(f"{source}/{rest[0][0] if name == VECTOR else name}", batch, first, batches[first])
        return found

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of the pictures in a dictionary observation; (): it has none, or is no dictionary to networks."""
        shape = self.observation_shape
        return tuple(name for name, _ in shape.entries if name != VECTOR) if isinstance(shape, DictShape) else ()

    @property
    def inputs(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of what a policy takes, by name: entries of a dictionary, or ``observation``."""
        if not isinstance(self.observation_shape, DictShape):
            keys = self.observation_keys or (("observation", self.observation_shape),)
            return {name: (shape, self.observation_dtype) for name, shape in keys}
        return {
            name: (shape, np.dtype(np.uint8 if name in self.pictures else np.float32))
            for name, shape in self.observation_keys
        }

    def observation(self, make: Callable[[tuple[int, ...], np.dtype], _T]) -> _T | dict[str, _T]:
        """``make(shape, dtype)`` of what a network sees, or of each entry where that is a dictionary."""
        if not isinstance(self.observation_shape, DictShape):
            return make(self.observation_shape, self.observation_dtype)
        dtypes = {VECTOR: np.dtype(np.float32)}
        return {
            name: make(shape, dtypes.get(name, self.observation_dtype))
            for name, shape in self.observation_shape.entries
        }

    def to_json(self) -> dict[str, Any]:
        """As plain values, which files hold."""
        shape = self.observation_shape
        return {
            "observation_shape": _as_json(shape.entries) if isinstance(shape, DictShape) else list(shape),
            "observation_dtype": str(self.observation_dtype),
            "action_size": self.action_size,
            "observation_keys": _as_json(self.observation_keys),
            "action_range": None if self.action_range is None else [list(bound) for bound in self.action_range],
            "normalization": None if self.normalization is None else [list(part) for part in self.normalization],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Spec":
        """The inverse of ``to_json``; what older files lack has its default.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        keys, shape = _from_json(saved.get("observation_keys", {})), saved["observation_shape"]
        known = DictShape(_from_json(shape)) if isinstance(shape, Mapping) else tuple(map(int, shape))
        if isinstance(known, DictShape):
            pictures = tuple(entry for entry in known.entries if entry[0] != VECTOR)
            rest = sum(math.prod(shape) for name, shape in keys if name not in dict(pictures))
            wanted = (*(entry for entry in keys if entry in pictures), *([(VECTOR, (rest,))] if rest else []))
            fits = bool(pictures) and known.entries == wanted
        else:
            fits = not keys or known == (sum(math.prod(shape) for _, shape in keys),)
        if not fits:
            raise ValueError(f"observation_keys {keys} beside observation_shape {known}")
        size, bounds = int(saved["action_size"]), saved.get("action_range")
        if bounds is not None:
            low, high = (tuple(map(float, bound)) for bound in bounds)
            ordered = len(low) == len(high) == size and all(a <= b for a, b in zip(low, high, strict=True))
            if not ordered or not np.isfinite([low, high]).all():
                raise ValueError(f"action_range {bounds} beside action_size {size}")
            bounds = ActionRange(low, high)
        normalization = saved.get("normalization")
        if normalization is not None:
            mean, deviation = (tuple(map(float, part)) for part in normalization)
            vector = dict(known.entries).get(VECTOR, ()) if isinstance(known, DictShape) else known
            fits = (len(mean),) == (len(deviation),) == vector and min(deviation) > 0
            if not fits or not np.isfinite([mean, deviation]).all():
                raise ValueError(f"normalization {normalization} of a vector of shape {vector}")
            normalization = Normalization(mean, deviation)
        return cls(known, np.dtype(saved["observation_dtype"]), size, keys, bounds, normalization)


def _as_json(keys: ObservationKeys) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in keys}


def _from_json(saved: Mapping[str, Any]) -> ObservationKeys:
    return tuple((name, tuple(map(int, shape))) for name, shape in saved.items())


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
    _check_there(there, keys, source)
    for name, shape in keys:
        try:
            found = np.asarray(there[name])
            array = found.astype(np.float32, copy=False)
        except (TypeError, ValueError) as error:
            raise DataError(f"{source}/{name}: expected numbers, found: {error}") from error
        if is_picture(shape, found.dtype):
            raise DataError(
                f"{source}/{name}: expected vectors, found pictures (uint8 of shape {shape}), which cannot be part of "
                f"one vector; leave {name} out, or give pictures everywhere"
            )
        batch = array.shape[: max(0, array.ndim - len(shape))]
        if array.shape != (*batch, *shape) or len(batch) > 1:
            raise DataError(f"{source}/{name}: expected shape {shape}, or a batch of it, found {array.shape}")
        if parts:
            _check_rows(f"{source}/{name}", batch, keys[0][0], parts[0].shape[:-1])
        parts.append(array.reshape(*batch, math.prod(shape)))
    return np.concatenate(parts, axis=-1)


def _check_there(there: Mapping[str, Any], keys: ObservationKeys, source: str) -> None:
    missing = [name for name, _ in keys if name not in there]
    if missing:
        raise DataError(f"{source}: expected an entry {missing[0]!r}, found {', '.join(there) or 'none'}")


def _check_rows(name: str, batch: tuple[int, ...], first: str, wanted: tuple[int, ...]) -> None:
    if batch != wanted:
        rows = [f"{axes[0]} rows" if axes else "no batch" for axes in (wanted, batch)]
        raise DataError(f"{name}: expected {rows[0]} as in {first}, found {rows[1]}")


def batch_size(observations: Any) -> int:
    """How many observations a batch holds, be it an array or a dictionary of arrays."""
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)


class Batch(NamedTuple):
    """B transitions (s, a, r, m, s', a+), in the symbols of docs/algorithms.md.

    Observations are an array, or a dictionary of arrays as in ``Spec.observation_shape``.

    ``masks`` is 0 where s' (or s, for goal-reaching rewards) is a true terminal state, else 1.
    ``next_actions`` is the action that the data takes at s'; where ``next_action_valid`` is false there is none and
    the row holds an unrelated action.
    """

    observations: "PyTree[Shaped[Array, ' B ...']]"
    actions: "Float[Array, 'B act']"
    rewards: "Float[Array, ' B']"
    next_observations: "PyTree[Shaped[Array, ' B ...']]"
    masks: "Float[Array, ' B']"
    next_actions: "Float[Array, 'B act']"
    next_action_valid: "Bool[Array, ' B']"
