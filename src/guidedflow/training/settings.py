"""The settings of a run, the presets, and where each value came from."""

import dataclasses
import itertools
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from guidedflow.agents import Agent
from guidedflow.errors import SettingsError
from guidedflow.nn.products import Precision
from guidedflow.runs.folder import member_label
from guidedflow.settings import Count, CountOrZero, Fraction, Range, build, check
from guidedflow.suites.suite import Task
from guidedflow.types import Variant

Preset = Literal["quick", "published"]


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run, whatever the algorithm."""

    seeds: tuple[Annotated[int, Range(0, 2**32 - 1)], ...] = (0,)
    """Seeds that train at once, on one copy of the data."""
    steps: Count = 1_000_000
    """Gradient steps on the data."""
    online_steps: CountOrZero = 0
    """Steps after those, each one environment step and one gradient step (offline to online)."""
    balanced_sampling: bool = False
    """Online: half of each batch from the data and half from what was gathered, instead of both as one buffer."""
    batch_size: Annotated[int, Range(1, 2**20)] = 256
    """B: transitions a step."""
    crop_probability: Fraction = 0.5
    """Pixels: how often a batch's pictures are shifted at random by up to 3 pixels (random crops of padded ones)."""
    normalize_observations: bool = False
    """Vectors: networks subtract the data's mean and divide by its deviation; both are stored with the policy."""
    log_every: Count = 250
    """Steps between rows of metrics, each a mean over its steps. Divides the intervals below."""
    eval_every: Count = 100_000
    """Steps between evaluations; the last step is always evaluated."""
    eval_episodes: CountOrZero = 100
    """Episodes an evaluation, for each policy and seed; 0 evaluates never."""
    eval_slots: Count = 4
    """Environments stepped side by side; each runs its fixed share of the episodes."""
    save_every: Count = 50_000
    """Steps between checkpoints; the last two and the best are kept."""
    learning_rate_decay: Fraction = 0.0
    """Share of the steps on the data, the last ones, over which the learning rate falls linearly to 0; 0: it stays. In
    a run that is extended it rises again, and falls at the new end."""
    validation: Annotated[float, Range(0.0, 1.0, open_high=True)] | Literal["own"] = 0.0
    """Share of the episodes to hold out, drawn with the first seed: nothing is learned from them, and their losses
    stand beside the training's. own: what the data's makers held out, in a file of its own or in the data itself."""
    precision: Precision = "default"
    """Of the updates' matrix products and convolutions. default: float32, on accelerators rounded as JAX chooses, with
    which the published code ran; mixed: bfloat16 operands and float32 sums. Policies act without rounding of ours."""
    success_timing: Literal["post", "pre"] = "post"
    """Whether success and reward speak of the state after a step (the published protocol) or before it."""


Sweep = Mapping[str, Sequence[float]]
"""Values of one or more float settings of an algorithm, by name; with several names every combination is meant."""


class Member(NamedTuple):
    """One of the agents that train at once: a variant of the settings with a seed."""

    variant: Variant
    seed: int
    config: Any

    @property
    def label(self) -> str:
        """A name for curves."""
        return member_label(self.variant, self.seed)


def plain_sweep(sweep: Mapping[str, Any] | None) -> dict[str, tuple[float, ...]]:
    """A sweep as plain floats.

    Raises:
        SettingsError: it is no mapping, or a value is no number.
    """
    if sweep is not None and not isinstance(sweep, Mapping):
        raise SettingsError(f'sweep: expected values by setting, such as {{"alpha": (0.3, 1, 3)}}, found {sweep!r}')
    found = {}
    for name, values in (sweep or {}).items():
        try:
            found[name] = tuple(float(value) for value in values)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"sweep: expected a sequence of numbers for {name}, found {values!r}") from error
    return found


def members(config: Any, seeds: Sequence[int], sweep: Sweep) -> list[Member]:
    """Every variant with every seed, the seeds of one variant side by side.

    Raises:
        SettingsError: a swept setting is no float of the algorithm's, has a value out of its range, or has one twice.
    """
    hints = typing.get_type_hints(type(config))
    floats = [field.name for field in dataclasses.fields(config) if hints[field.name] is float]
    for name, values in sweep.items():
        if name not in floats:
            raise SettingsError(
                f"sweep: expected one of {', '.join(floats)}, whose values train as one batch, found {name}"
            )
        as_learned = {float(np.float32(value)) for value in values}
        if len(as_learned) < max(1, len(values)):
            found_values = ", ".join(map(str, values)) or "none"
            raise SettingsError(f"sweep: expected values of {name}, each once, found {found_values}")
    found = []
    for values in itertools.product(*sweep.values()):
        variant = tuple(zip(sweep, values, strict=True))
        varied = build(type(config), {**vars(config), **dict(variant)})
        found += [Member(variant, seed, varied) for seed in seeds]
    return found


class Resolved(NamedTuple):
    """Every setting of a run, the algorithm's own among them, and for each the name of where it came from."""

    train: TrainSettings
    config: Any
    sources: dict[str, str]
    tuned: bool
    """Whether the papers' authors tuned the algorithm for the task."""


QUICK: dict[str, Any] = {
    "hidden": (256, 256, 256),
    "steps": 20_000,
    "eval_every": 10_000,
    "eval_episodes": 50,
    "save_every": 5_000,
    # Few steps: targets that follow sooner, and larger steps that shrink in the end, without which a one-step actor
    # trails the flow that it is distilled from; half the flow integrations of the tuned target "mean"
    # (docs/benchmarks.md).
    "tau": 0.02,
    "learning_rate": 1e-3,
    "learning_rate_decay": 0.5,
    "target_agg": "actor",
    "precision": "mixed",
}


def resolve(agent: type[Agent], preset: Preset, task: Task | None, explicit: Mapping[str, Any]) -> Resolved:
    """Merge the sources of settings: defaults, then the tuned row, then the preset, then what was set explicitly.

    Args:
        agent: the algorithm.
        preset: ``published`` takes the row that the authors tuned for the task; ``quick`` takes its coefficients but
            a small network and few steps.
        task: None for data of the user's own, which nobody tuned.
        explicit: values by field name that win over everything.

    Raises:
        SettingsError: an unknown preset or field, a value outside its range, or an algorithm with a setting that has
            the name of one of ``TrainSettings``.
    """
    if preset not in ("quick", "published"):
        raise SettingsError(f"preset: expected quick or published, found {preset!r}")
    owners = _owners(agent)
    unknown = [name for name in explicit if name not in owners]
    if unknown:
        raise SettingsError(
            f"{unknown[0]}: expected a setting of {agent.__name__} or of the training, found none of that name; there "
            f"are {', '.join(sorted(owners))}"
        )
    row = task.suite.published_settings(agent.published_name(explicit), task) if task else None
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if row is not None:
        layers.append(("authors' tuning", {**agent.config_class.tuned_with, **row}))  # type: ignore[attr-defined]
    if preset == "quick":
        without_rate = {} if "learning_rate" in owners else {"learning_rate_decay": 0.0}
        layers.append(("preset quick", {**QUICK, **without_rate}))
    layers.append(("given", explicit))

    values: dict[str, Any] = {}
    sources = dict.fromkeys(owners, "default")
    for source, layer in layers:
        for name, value in layer.items():
            if name in owners:
                values[name], sources[name] = value, source
    settings = build(TrainSettings, {n: v for n, v in values.items() if owners[n] is TrainSettings})
    config: Any = build(agent.config_class, {n: v for n, v in values.items() if owners[n] is agent.config_class})
    check_settings(settings)
    check_decay(agent, settings.learning_rate_decay)
    return Resolved(settings, config, sources, tuned=row is not None)


def published_values(agent: type[Agent], task: Task | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of the published version of an algorithm that a run's settings choose, as plain values."""
    choices = {name: settings[name] for name in agent.published_choices if name in settings}
    resolved = resolve(agent, "published", task, choices)
    return {**to_json(resolved.train), **to_json(resolved.config)}


def _owners(agent: type[Agent]) -> dict[str, type]:
    """Which class each setting is a field of."""
    owners: dict[str, type] = {field.name: TrainSettings for field in dataclasses.fields(TrainSettings)}
    for field in dataclasses.fields(agent.config_class):
        if field.name in owners:
            raise SettingsError(
                f"{agent.config_class.__name__}: expected settings that the training does not have, found "
                f"{field.name}, which is one of TrainSettings; give it another name"
            )
        owners[field.name] = agent.config_class
    return owners


def check_settings(settings: TrainSettings) -> None:
    """Check that the intervals fit together and the seeds differ, and every range.

    Raises:
        SettingsError: naming the field, what was expected and what was found.
    """
    check(settings)
    for name in ("steps", "online_steps", "eval_every", "save_every"):
        value = getattr(settings, name)
        if value % settings.log_every:
            below = value // settings.log_every * settings.log_every
            near = " or ".join(str(v) for v in (below, below + settings.log_every) if v)
            raise SettingsError(
                f"{name}: expected a multiple of log_every = {settings.log_every}, such as {near}, found {value}"
            )
    if len(set(settings.seeds)) < len(settings.seeds):
        raise SettingsError(f"seeds: expected each one once, found {' '.join(map(str, settings.seeds))}")


def check_decay(agent: type[Agent], share: float) -> None:
    """Only an algorithm with a learning rate among its settings can have it decay.

    Raises:
        SettingsError: it has none.
    """
    if share and "learning_rate" not in {field.name for field in dataclasses.fields(agent.config_class)}:
        raise SettingsError(
            f"learning_rate_decay: expected 0 for {agent.__name__}, whose settings have no learning_rate, found {share}"
        )


def to_json(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON's types."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))
