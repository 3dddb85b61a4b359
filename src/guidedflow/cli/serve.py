"""``guidedflow serve``: a policy over a websocket."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from guidedflow.cli.parse import Assignments, single_variant
from guidedflow.cli.show import optional

TOKEN = "GUIDEDFLOW_TOKEN"


@dataclasses.dataclass(frozen=True)
class Serve:
    """Serve a policy over a websocket, to clients of openpi's protocol, until Ctrl-C.

    Where --host is not this machine alone, clients need the token that the environment variable GUIDEDFLOW_TOKEN has.
    """

    interrupted: ClassVar[str] = "interrupted; nothing was served yet"

    run: Annotated[Positional[Path], optional("RUN")]
    """The run's folder, or an exported policy's, or hf://USER/NAME."""
    host: str = "127.0.0.1"
    """The address to listen at; 0.0.0.0: all of this machine's."""
    port: int = 8000
    """The port; 0: a free one."""
    policy: Annotated[str | None, optional("NAME", "the main one")] = None
    """Which policy: actor or vabc of gfp, for instance."""
    variant: Assignments = dataclasses.field(default_factory=dict)
    """Of a sweep, this variant: alpha=0.3 for instance."""
    seed: Annotated[int | None, optional("INT", "the first")] = None
    """Of several training seeds, this one."""
    checkpoint: str = "latest"
    """latest, best, a step, or assessed: what `guidedflow assess` ranked first."""
    agent: Annotated[str | None, optional("MODULE:CLASS")] = None
    """The class of the run's algorithm, if it is one of your own."""

    def __call__(self) -> int:
        """Print the address once clients can connect."""
        import guidedflow as gf

        gf.serve(
            self.run,
            self.policy,
            seed=self.seed,
            variant=single_variant(self.variant),
            checkpoint=self.checkpoint,
            agent=self.agent,
            host=self.host,
            port=self.port,
            token=os.environ.get(TOKEN),
            on_ready=lambda address: print(f"serving at {address}", flush=True),
        )
        return 0
