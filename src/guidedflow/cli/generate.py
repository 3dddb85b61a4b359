"""``guidedflow data generate``: data that is made on this machine."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional

from guidedflow.cli.show import NEW_DATA_DIR, WORKERS, CountBar, optional


@dataclasses.dataclass(frozen=True)
class Generate:
    """Make an OGBench data set with scripted oracles, or other data with a policy."""

    interrupted: ClassVar[str] = "interrupted; the same command goes on with the episodes that are finished"

    dataset: Annotated[Positional[str], optional("DATASET")]
    """A family of manipulation data: cube-{single,double,triple}, scene, puzzle-{3x3,4x4}, each -play or -noisy, and
    all but cube-triple as visual-...-play.
    With --policy an Adroit task, expert or human: door-expert-v1 or D4RL/pen/expert-v2 for instance.
    With --stand-in a MuJoCo task of Minari: mujoco/hopper/medium-v0 for instance."""
    policy: Annotated[Path | None, optional("FILE")] = None
    """npz file of an expert's weights or of human demonstrations, from which Adroit's data is made."""
    stand_in: Annotated[Literal["random", "sine"] | None, optional("{random,sine}")] = None
    """Make data of random actions, or of sines, in place of the published data: for tests alone, and it says so."""
    episodes: Annotated[int | None, optional("INT", "as published; 100 with --policy or --stand-in")] = None
    """Training episodes of 1001 steps; a tenth as many are made for validation. Adroit's have 100 or 200 steps,
    stand-ins' 1000 at most."""
    workers: Annotated[int | None, WORKERS] = None
    """Processes; changes no result."""
    seed: int = 0
    """The same seed makes the same data."""
    data_dir: Annotated[Path | None, NEW_DATA_DIR] = None
    """Where to put the files."""

    def __call__(self) -> int:
        """Print the paths of what was made."""
        import guidedflow as gf

        asked: dict[str, Any] = {"policy": self.policy, "stand_in": self.stand_in}
        with CountBar("episodes") as bar:
            paths = gf.generate(
                self.dataset,
                data_dir=self.data_dir,
                episodes=self.episodes,
                workers=self.workers,
                seed=self.seed,
                on_progress=bar,
                **{name: value for name, value in asked.items() if value is not None},
            )
        print(*paths, sep="\n")
        return 0
