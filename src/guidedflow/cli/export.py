"""``guidedflow export``: a policy of a run as a folder for a robot."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional

from guidedflow.cli.parse import Assignments, single_variant
from guidedflow.cli.show import Flag, optional, print_json


@dataclasses.dataclass(frozen=True)
class Export:
    """Export a policy as an ONNX graph, with a program that acts by it and needs numpy and onnxruntime alone."""

    interrupted: ClassVar[str] = "interrupted; no policy was exported"

    run: Annotated[Positional[Path], optional("RUN")]
    """The run's folder."""
    out: Annotated[Positional[Path], optional("OUT")]
    """The new folder: policy.onnx, policy.json, act.py and README.md."""
    policy: Annotated[str | None, optional("NAME", "the main one")] = None
    """Which policy: actor or vabc of gfp, for instance."""
    variant: Assignments = dataclasses.field(default_factory=dict)
    """Of a sweep, this variant: alpha=0.3 for instance."""
    seed: Annotated[int | None, optional("INT", "the first")] = None
    """Of several training seeds, this one."""
    checkpoint: str = "latest"
    """latest, best, a step, or assessed: what `guidedflow assess` ranked first."""
    noise: Literal["normal", "zero"] = "normal"
    """normal: drawn anew at every call, as in training; zero: the same action for the same observation."""
    agent: Annotated[str | None, optional("MODULE:CLASS")] = None
    """The class of the run's algorithm, if it is one of your own."""
    json: Flag = False
    """Print JSON instead of a line."""

    def __call__(self) -> int:
        """Print the folder, and how far the graph's actions are from JAX's."""
        import guidedflow as gf

        found = gf.export(
            self.run,
            self.out,
            self.policy,
            seed=self.seed,
            variant=single_variant(self.variant),
            checkpoint=self.checkpoint,
            noise=self.noise,
            agent=self.agent,
        )
        if self.json:
            print_json({**found._asdict(), "path": str(found.path)})
            return 0
        print(f"exported: {found.policy}, step {found.step}: {found.path}")
        print(f"1,000 random observations: actions differ by at most {found.largest_difference:.1e} of their range")
        if found.ties:
            print(f"{found.ties} of them have two best actions, valued the same but for rounding")
        return 0
