"""What a run says of itself while it goes on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Phase = Literal["starting", "compiling", "training", "evaluating", "saving", "stopping", "finished"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is."""

    step: int
    steps: int
    phase: Phase
    elapsed: float = 0.0
    seconds_left: float | None = None
    updates_per_second: float = 0.0
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    episodes_done: int = 0
    episodes_total: int = 0
    agents: Any = None
