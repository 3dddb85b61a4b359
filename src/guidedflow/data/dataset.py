"""The container of training data: flat arrays, a row per recorded step, and a sampler that compiles into the update."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from guidedflow.errors import DataError, SettingsError
from guidedflow.types import (
    VECTOR,
    ActionRange,
    Batch,
    DictShape,
    Normalization,
    ObservationKeys,
    Spec,
    flattened,
    is_picture,
    named,
)

Rows = Array | np.ndarray
"""Arrays of the host or of the device: a data set starts as the former and is trained on as the latter."""

ACTION_TOLERANCE = 1e-4
"""How far beyond [-1, 1] an action may lie and still count as rounding; it is clipped."""
ACTION_BOUND = 1.0 - 1e-5
"""To what actions are clipped, as in the code behind the published numbers: a tanh reaches it."""

ENTRY = "observations/"
"""What the names of the entries of dictionary observations begin with, in files and messages."""
MOST_FRAMES = 64
FINGERPRINTED_ROWS = 4096
LEAST_DEVIATION = 1e-6
"""Of what is divided by it: a constant column of float32 has less."""


class Window(NamedTuple):
    """B transitions as they lie in the data, each frame once: what crosses from the disk to the device."""

    frames: PyTree[Shaped[Rows, "B ..."]]
    """The first ``stack`` of a row are s, the last ``stack`` are s'; of a dictionary's entries, each array's."""
    actions: Float[Rows, "B act"]
    rewards: Float[Rows, " B"]
    masks: Float[Rows, " B"]
    next_actions: Float[Rows, "B act"]
    next_action_valid: Bool[Rows, " B"]

    def batch(self) -> Batch:
        """The batch, its frames stacked along their last axis, oldest first."""
        fields = self._asdict()
        frames = fields.pop("frames")
        seen = jax.tree.map(lambda entry: _stacked(entry[:, :-1]), frames)
        following = jax.tree.map(lambda entry: _stacked(entry[:, 1:]), frames)
        return Batch(observations=seen, next_observations=following, **fields)


def _stacked(frames: Shaped[Rows, "B stack *axes channels"]) -> Shaped[Array, "B *axes all_channels"]:
    moved = jnp.moveaxis(frames, 1, -2)
    return moved.reshape(*moved.shape[:-2], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """Where data comes from. Two are always equal: what differs in it alone shares its compiled programs."""

    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return self.name


class Dataset(eqx.Module):
    """N recorded steps in recording order, of which ``len(dataset)`` can be sampled as transitions.

    Made by ``Dataset.from_arrays``, ``guidedflow.load_dataset`` or a suite. It is a frozen pytree; ``sample`` is pure
    and compiles into a training step.

    The next observation and next action of a row are the following row's, so nothing is stored twice. A row that only
    serves as another's next observation is not among ``transitions``; neither is an episode's last row, unless it ends
    in a terminal state, where no next observation is needed because its mask is 0.
    """

    observations: PyTree[Shaped[Rows, "N ..."]]
    """An array; or, of dictionaries with pictures, a dictionary: pictures by name, and all else as ``VECTOR``."""
    actions: Float[Rows, "N act"]
    rewards: Float[Rows, " N"]
    masks: Float[Rows, " N"]
    episode_starts: Int[Rows, " N"]
    """Row at which each row's episode starts; stacked frames do not reach before it."""
    episode_ends: Int[Rows, " N"]
    """Last row of each row's episode; next observations do not reach past it."""
    transitions: Int[Rows, " M"]
    """The rows that can be sampled."""
    is_transition: Bool[Rows, " N"]
    frame_stack: int = eqx.field(static=True, default=1)
    """Recorded frames that make one observation: the row's own and those before it; of a vector beside pictures, the
    row's own alone."""
    observation_keys: ObservationKeys = eqx.field(static=True, default=())
    """As in ``Spec``, of one frame."""
    action_range: ActionRange | None = eqx.field(static=True, default=None)
    """As in ``Spec``; the actions here are in [-1, 1] already."""
    normalization: Normalization | None = eqx.field(static=True, default=None)
    """As in ``Spec``; the observations here are not normalised."""
    has_rewards: bool = eqx.field(static=True, default=True)
    """False: nobody recorded rewards, and those above are all 0."""
    source: Origin = eqx.field(static=True, default=Origin("arrays"))
    """Where the data comes from, a file's name for instance."""

    @classmethod
    def from_arrays(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any = None,
        terminals: Any = None,
        timeouts: Any = None,
        final_observation: Any = None,
        *,
        frame_stack: int = 1,
        source: str = "arrays",
    ) -> "Dataset":
        """A data set from N consecutive steps of whole episodes.

        Args:
            observations: (N, n) numbers, or pictures (N, height, width, channels); uint8 stays uint8, everything else
                becomes float32. Or a dictionary of such: pictures, which are uint8, stay apart, and its other
                entries, (N, ...) numbers, make one vector in their order.
            actions: (N, d), in [-1, 1].
            rewards: (N,). None: nobody recorded any, and only agents that need none can learn from the data.
            terminals: (N,) bool; the step led to a true terminal state: no value is bootstrapped from beyond it.
                Needed; all False if there were no such states.
            timeouts: (N,) bool; the recording stops after this step for another reason. Such a row has no next
                observation, so it is not sampled itself, unless a row of ``final_observation`` follows. None: every
                episode ends by a terminal. The last row ends its episode in any case.
            final_observation: (N,) bool; the row is no step but the observation that its episode's last step led to,
                and its action, reward and terminal mean nothing. None: there are no such rows.
            frame_stack: of how many frames, a row's own and those before it, an observation is made; in a dictionary
                each picture.
            source: what error messages call the data, a file's name for instance.

        Raises:
            DataError: a field has the wrong shape or length, holds NaN or infinity, an action leaves [-1, 1], or no
                row ends an episode.
        """
        if terminals is None:
            raise DataError(f"{source}: terminals: expected 0 or 1 a row, found none; give zeros if no step led to one")
        fields = {**_observation_fields(observations, source), "actions": actions, "terminals": terminals}
        optional = {"rewards": rewards, "timeouts": timeouts, "final_observation": final_observation}
        checked = check_fields(fields | {name: v for name, v in optional.items() if v is not None}, source)
        terminal, nowhere = checked["terminals"], np.zeros(len(checked["terminals"]), bool)
        final = checked.get("final_observation", nowhere)
        end = terminal | checked.get("timeouts", nowhere)
        end[:-1] &= ~final[1:]  # The final observation's row ends the episode instead.
        end |= final
        terminal = terminal & ~final
        end = close_last(end, source)
        seen, keys = _combined(checked, source)
        return cls.from_rows(
            seen,
            checked["actions"],
            checked.get("rewards"),
            masks=1.0 - terminal.astype(np.float32),
            ends=end,
            keep_last=terminal,
            frame_stack=frame_stack,
            observation_keys=keys,
            source=source,
        )

    @classmethod
    def from_rows(
        cls,
        observations: PyTree[np.ndarray],
        actions: np.ndarray,
        rewards: np.ndarray | None,
        *,
        masks: np.ndarray,
        ends: np.ndarray,
        keep_last: np.ndarray,
        frame_stack: int = 1,
        observation_keys: ObservationKeys = (),
        source: str,
    ) -> "Dataset":
        """A data set from checked arrays; ``ends`` marks each episode's last row, ``keep_last`` those worth sampling.

        Raises:
            DataError: no row is a transition.
            SettingsError: ``frame_stack`` is no number of frames.
        """
        _check_frame_stack(frame_stack, source, bool(observation_keys) and not isinstance(observations, dict))
        rows = np.arange(len(ends), dtype=np.int32)
        last = np.flatnonzero(ends).astype(np.int32)
        episode = np.searchsorted(last, rows)
        first = np.concatenate([[0], last[:-1] + 1]).astype(np.int32) if len(last) else last
        is_transition = ~ends | (ends & keep_last)
        if not is_transition.any():
            found = f"{len(last)} episodes of one step" if len(rows) else "no rows"
            raise DataError(f"{source}: expected at least one transition (s, a, s'), found {found}")
        return cls(
            observations=observations,
            actions=actions,
            rewards=np.zeros(len(ends), np.float32) if rewards is None else rewards,
            masks=masks.astype(np.float32),
            episode_starts=first[episode],
            episode_ends=last[episode],
            transitions=rows[is_transition],
            is_transition=is_transition,
            frame_stack=frame_stack,
            observation_keys=observation_keys,
            has_rewards=rewards is not None,
            source=Origin(source),
        )

    def with_frame_stack(self, frame_stack: int) -> "Dataset":
        """The same data seen in stacks of so many frames.

        Raises:
            SettingsError: it is no number of frames.
        """
        is_vector = bool(self.observation_keys) and not isinstance(self.observations, dict)
        _check_frame_stack(frame_stack, str(self.source), is_vector)
        stacked = dataclasses.replace(self, frame_stack=frame_stack, normalization=None)
        return stacked if self.normalization is None else stacked.normalized()

    def normalized(self) -> "Dataset":
        """The same data, of whose vectors networks subtract the mean, and divide the rest by the deviation.

        Both are of the rows that can be sampled; a deviation below 1e-6 counts as 1.

        Raises:
            DataError: there are no vectors.
        """
        seen = self.observations
        vectors = seen.get(VECTOR) if isinstance(seen, dict) else seen
        if vectors is None or vectors.ndim != 2:
            raise DataError(
                f"{self.source}: observations: expected vectors to normalise, found pictures alone; leave "
                "normalize_observations out"
            )
        rows = np.asarray(vectors)[np.asarray(self.transitions)]
        mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
        deviation[deviation < LEAST_DEVIATION] = 1.0
        stack = 1 if isinstance(seen, dict) else self.frame_stack
        found = (tuple(part.astype(np.float32).tolist()) * stack for part in (mean, deviation))
        return dataclasses.replace(self, normalization=Normalization(*found))

    @property
    def spec(self) -> Spec:
        """Shapes of one observation and one action."""
        size = self.actions.shape[1]
        if not isinstance(self.observations, dict):
            shape, dtype = self._stacked_shape(self.observations.shape[1:]), np.dtype(self.observations.dtype)
            return Spec(shape, dtype, size, self.observation_keys, self.action_range, self.normalization)
        pictures = self.observations.keys() - {VECTOR}
        keys = tuple(
            (name, self._stacked_shape(shape) if name in pictures else shape) for name, shape in self.observation_keys
        )
        entries = [entry for entry in keys if entry[0] in pictures]
        if VECTOR in self.observations:
            entries.append((VECTOR, self.observations[VECTOR].shape[1:]))
        return Spec(DictShape(tuple(entries)), np.dtype(np.uint8), size, keys, self.action_range, self.normalization)

    def _stacked_shape(self, frame: tuple[int, ...]) -> tuple[int, ...]:
        return (*frame[:-1], frame[-1] * self.frame_stack)

    @property
    def size(self) -> int:
        """How many transitions can be sampled."""
        return self.transitions.shape[0]

    def __len__(self) -> int:
        return self.size

    @property
    def episodes(self) -> int:
        """How many episodes the transitions belong to."""
        return int(np.unique(np.asarray(self.episode_ends)[np.asarray(self.transitions)]).size)

    def of_episodes(self, numbers: Int[np.ndarray, " n"] | Sequence[int]) -> "Dataset":
        """The same arrays, of which only the transitions of some episodes can be sampled.

        Args:
            numbers: of the episodes, in recording order from 0 on.

        Raises:
            DataError: there is no episode of such a number, or none of them has a transition.
        """
        last = np.unique(np.asarray(self.episode_ends))
        chosen = np.asarray(numbers, int)
        outside = chosen[(chosen < 0) | (chosen >= len(last))]
        if len(outside):
            raise DataError(f"{self.source}: expected episodes from 0 to {len(last) - 1}, found number {outside[0]}")
        transitions = np.asarray(self.transitions)
        kept = transitions[np.isin(np.asarray(self.episode_ends)[transitions], last[chosen])]
        if not len(kept):
            raise DataError(
                f"{self.source}: expected a transition (s, a, s') in {len(chosen)} of its episodes, found none"
            )
        return dataclasses.replace(self, transitions=kept)

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """B transitions, drawn uniformly with replacement. Pure, and made to be compiled into a training step."""
        return self.rows(self.transitions[sample_indices(key, self.size, batch_size)])

    def rows(self, rows: Int[Rows, " B"] | Sequence[int]) -> Batch:
        """The transitions that start at the given rows."""
        return self.window(rows).batch()

    def window(self, rows: Int[Rows, " B"] | Sequence[int]) -> Window:
        """The transitions that start at the given rows, gathered where the rows are: on the device or on the host."""
        xp: Any = jnp if isinstance(rows, Array) else np
        at = xp.asarray(rows)
        following = xp.minimum(at + 1, self.episode_ends[at])
        stack = at[:, None] + xp.arange(1 - self.frame_stack, 1)
        stack = xp.maximum(stack, self.episode_starts[at][:, None])
        frames = xp.concatenate([stack, following[:, None]], axis=1)
        seen = self.observations
        if isinstance(seen, dict):
            gathered = {name: entry[frames if name != VECTOR else frames[:, -2:]] for name, entry in seen.items()}
        else:
            gathered = seen[frames]
        return Window(
            frames=gathered,
            actions=self.actions[at],
            rewards=self.rewards[at],
            masks=self.masks[at],
            next_actions=self.actions[following],
            next_action_valid=(following > at) & self.is_transition[following],
        )

    def to_device(self) -> "Dataset":
        """The same data on the accelerator, where the compiled loop samples it."""
        return jax.tree.map(jnp.asarray, self)

    @property
    def bytes_on_disk(self) -> int:
        """Of observations that are a map of a file: they are read where and when they are needed."""
        return sum(a.nbytes for a in jax.tree.leaves(self.observations) if isinstance(a, np.memmap))

    @property
    def is_on_disk(self) -> bool:
        """Whether any observations are a map of a file."""
        return self.bytes_on_disk > 0

    def fingerprint(self) -> str:
        """SHA-256 over every array, shortened: two runs with the same one trained on the same data.

        Of observations on the disk, which would take long to read, over some thousand rows spread evenly.
        """
        return self._digest(self.frame_stack)

    def matches(self, fingerprint: str) -> bool:
        """Whether a fingerprint is of this data, be it of an older version of guidedflow.

        Those left out how many frames are stacked, and clipped actions to 1 where now it is ``ACTION_BOUND``.
        """
        if fingerprint in (self.fingerprint(), self._digest(1)):
            return True
        bound = np.float32(ACTION_BOUND)
        actions = np.asarray(self.actions)
        clipped = dataclasses.replace(self, actions=np.where(np.abs(actions) == bound, np.sign(actions), actions))
        return fingerprint == clipped._digest(1)

    def _digest(self, frame_stack: int) -> str:
        digest = hashlib.sha256()
        meaning = (self.observation_keys, self.action_range)
        if any(meaning):  # Nothing is added where there is none: older runs' fingerprints stay valid.
            digest.update(repr(meaning).encode())
        if frame_stack != 1:
            digest.update(f"frame_stack {frame_stack}".encode())
        for leaf in jax.tree.leaves(self):
            if isinstance(leaf, np.memmap):
                digest.update(repr(leaf.shape).encode())
                leaf = leaf[:: max(1, len(leaf) // FINGERPRINTED_ROWS)]
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        shape = self.spec.observation_shape
        shown = f"of {shape}" if isinstance(shape, DictShape) else " x ".join(map(str, shape))
        if isinstance(self.episode_ends, jax.core.Tracer):  # Within a transformation of JAX there is nothing to count.
            return f"Dataset({self.size:,} transitions)"
        return (
            f"Dataset({self.size:,} transitions in {self.episodes:,} episodes from {self.source}: observations "
            f"{self.spec.observation_dtype} {shown}, actions {self.spec.action_size}"
            f"{'' if self.has_rewards else ', no rewards'})"
        )


def sample_indices(key: PRNGKeyArray, size: int, batch_size: int) -> Int[Array, " B"]:
    """Which of ``size`` transitions a batch is made of: uniform, with replacement."""
    return jax.random.randint(key, (batch_size,), 0, size)


def check_fields(fields: Mapping[str, Any], source: str, *, unit_actions: bool = True) -> dict[str, np.ndarray]:
    """Fields as arrays of one length N, of the right kind and free of NaN; entries of observations are
    ``observations/NAME``.

    Observations become float32 (uint8 stays), actions and rewards float32, every other field bool. Actions must be in
    [-1, 1] and are clipped to ``ACTION_BOUND``; without ``unit_actions`` they keep whatever range they have.

    Raises:
        DataError: naming the source, the field, the first bad row, what was expected and what was found.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in fields.items():
        array = numbers(value, name, source)
        if name != "actions" and not is_observation(name) and array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        wanted = {"observations": "(N, ...)", "actions": "(N, action size)"}.get(name, "(N,)")
        fits = {"observations": array.ndim >= 2, "actions": array.ndim == 2}.get(name, array.ndim == 1)
        if name.startswith(ENTRY):
            wanted, fits = "(N, ...)", array.ndim >= 1
        if not fits or 0 in array.shape[1:]:
            raise DataError(f"{source}: {name}: expected shape {wanted}, found {array.shape}")
        arrays[name] = array
    first = next(name for name in arrays if is_observation(name))
    length = len(arrays[first])
    for name, array in arrays.items():
        if len(array) != length:
            raise DataError(f"{source}: {name}: expected {length} rows as in {first}, found {len(array)}")
        check_finite(array, name, source)
        arrays[name] = _cast(array, name, source, unit_actions)
    return arrays


def is_observation(name: str) -> bool:
    """Whether a field holds observations, or an entry of them."""
    return name == "observations" or name.startswith(ENTRY)


def _observation_fields(observations: Any, source: str) -> dict[str, Any]:
    if not isinstance(observations, Mapping):
        return {"observations": observations}
    entries = named(observations)
    if not entries:
        raise DataError(f"{source}: observations: expected at least one entry, found an empty dictionary")
    return {ENTRY + name: value for name, value in entries.items()}


def _combined(fields: Mapping[str, np.ndarray], source: str) -> tuple[Any, ObservationKeys]:
    """Checked observations as a data set has them; of dictionaries the names and shapes of their entries, too.

    Entries make one float32 vector (N, n) if none is a picture; else a dictionary of the pictures and of ``VECTOR``.
    """
    if "observations" in fields:
        return fields["observations"], ()
    entries = {name.removeprefix(ENTRY): array for name, array in fields.items() if is_observation(name)}
    keys = tuple((name, array.shape[1:]) for name, array in entries.items())
    pictures = {name: array for name, array in entries.items() if is_picture(array.shape[1:], array.dtype)}
    if VECTOR in pictures:
        raise DataError(f"{source}: {ENTRY}{VECTOR}: expected pictures of another name, for it is the vector's")
    rest = tuple((name, shape) for name, shape in keys if name not in pictures)
    if not pictures:
        return flattened(entries, rest, source), keys
    return pictures | ({VECTOR: flattened(entries, rest, source)} if rest else {}), keys


def check_needs(agent: type, dataset: Dataset) -> None:
    """Raise DataError if an agent's class needs rewards, as its ``needs`` says, and the data has none."""
    needs = [need.strip() for need in getattr(agent, "needs", "rewards").split(",")]
    if "rewards" in needs and not dataset.has_rewards:
        raise DataError(
            f"{dataset.source}: rewards: expected one a row, for {agent.__name__} learns from rewards, found none; add "
            "them, or train an agent that needs none (bc)"
        )


def close_last(ends: np.ndarray, source: str) -> np.ndarray:
    """Which rows end an episode, the last one too: a recording may have been cut there.

    Raises:
        DataError: no row does. It would be one episode across all resets, whose transitions nobody recorded.
    """
    if len(ends) and not ends.any():
        raise DataError(
            f"{source}: expected terminals or timeouts at the last row of each episode, found none in {len(ends)} rows"
        )
    closed = ends.copy()
    closed[-1:] = True
    return closed


def numbers(value: Any, name: str, source: str) -> np.ndarray:
    """A field as an array of numbers; DataError if it is none."""
    try:
        array = value if isinstance(value, np.memmap) else np.asarray(value)
    except ValueError as error:  # Rows of different lengths.
        raise DataError(f"{source}: {name}: expected numbers in rows of one length, found others") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{source}: {name}: expected numbers, found dtype {array.dtype}")
    return array


def check_finite(array: np.ndarray, name: str, source: str) -> None:
    """Raise DataError, with the first bad row, unless every number is finite and stays so as a float32."""
    if array.dtype.kind != "f" or not len(array):
        return
    greatest = np.finfo(np.float32).max
    # Minimum and maximum need no mask of the array's size; NaN passes through both.
    if -greatest <= array.min() and array.max() <= greatest:
        return
    rows = np.flatnonzero(~(np.abs(array.reshape(len(array), -1)) <= greatest).all(axis=1))
    bad = array[rows[0]].ravel()
    value = bad[~(np.abs(bad) <= greatest)][0]
    raise DataError(
        f"{source}: {name}: expected finite numbers of float32's range, found {value:g} in row {rows[0]} "
        f"({len(rows)} rows)"
    )


def _check_frame_stack(frame_stack: Any, source: str, is_vector_of_entries: bool) -> None:
    if not isinstance(frame_stack, int) or not 1 <= frame_stack <= MOST_FRAMES:
        raise SettingsError(f"{source}: frame_stack: expected 1 to {MOST_FRAMES}, found {frame_stack!r}")
    if is_vector_of_entries and frame_stack != 1:
        raise SettingsError(
            f"{source}: frame_stack: expected 1 for dictionary observations without pictures, found {frame_stack}"
        )


def _cast(array: np.ndarray, name: str, source: str, unit_actions: bool) -> np.ndarray:
    if is_observation(name):
        return array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)
    if name == "rewards":
        return array.astype(np.float32, copy=False)
    if name == "actions":
        array = array.astype(np.float32, copy=False)  # First: the absolute value of an int8's -128 is negative.
        if not unit_actions:
            return array
        outside = np.flatnonzero((np.abs(array) > 1.0 + ACTION_TOLERANCE).any(axis=1))
        if len(outside):
            worst = float(np.abs(array).max())
            raise DataError(
                f"{source}: actions: expected values in [-1, 1], found {worst:g} at most, first in row {outside[0]} "
                f"({len(outside)} rows); rescale them, as guidedflow data convert does with an action range"
            )
        return np.clip(array, -ACTION_BOUND, ACTION_BOUND)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        row = np.flatnonzero(~np.isin(array, (0, 1)))[0]
        raise DataError(f"{source}: {name}: expected 0 or 1, found {array[row]:g} in row {row}")
    return array.astype(bool)
