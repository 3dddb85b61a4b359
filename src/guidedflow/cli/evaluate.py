"""``guidedflow evaluate``: the policies of a run once more, or some of them."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from guidedflow.cli.parse import Assignments, single_variant
from guidedflow.cli.show import WORKERS, Flag, optional, print_json


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate the policies of a run, and record what was found in the run's evaluations.csv."""

    interrupted: ClassVar[str] = "interrupted; nothing was recorded"

    run: Annotated[Positional[Path], optional("RUN")]
    """The run's folder, or an exported policy's, or hf://USER/NAME."""
    env: Annotated[str | None, optional("ENV", "the run's task")] = None
    """Evaluate in this environment of your own: a gymnasium id, or module:function that makes one."""
    agent: Annotated[str | None, optional("MODULE:CLASS")] = None
    """The class of the run's algorithm, if it is one of your own."""
    episodes: Annotated[int | None, optional("INT", "as in training")] = None
    """Episodes for each policy and seed."""
    checkpoint: str = "latest"
    """latest, best, a step, or assessed: what `guidedflow assess` ranked first."""
    policy: Annotated[str | None, optional("NAME", "all")] = None
    """This policy alone: actor or vabc of gfp, for instance."""
    variant: Assignments = dataclasses.field(default_factory=dict)
    """Of a sweep, this variant alone: alpha=0.3 for instance."""
    seed: Annotated[int | None, optional("INT", "all")] = None
    """This training seed alone."""
    env_seed: Annotated[int | None, optional("INT", "as in training")] = None
    """Start the episodes from states drawn with this seed."""
    videos: int = 0
    """Episodes of each policy and seed to film, as GIF in RUN/videos. Without a GPU a picture takes a second."""
    workers: Annotated[int | None, WORKERS] = None
    """Processes that run the environments; changes no result."""
    onnx: Flag = False
    """Act through the ONNX graphs that `guidedflow export` writes, in the same episodes; not recorded."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        """Print a table of the results, or JSON, and the paths of the videos."""
        import guidedflow as gf
        from guidedflow.runs.folder import RunFolder, plain_rows
        from guidedflow.runs.summary import over_seeds
        from guidedflow.training.display import make_console, results_table

        videos = RunFolder(self.run).videos
        before = {path: path.stat().st_mtime_ns for path in videos()}
        rows = gf.evaluate(
            self.run,
            env=self.env,
            agent=self.agent,
            episodes=self.episodes,
            checkpoint=self.checkpoint,
            policy=self.policy,
            variant=single_variant(self.variant),
            seed=self.seed,
            env_seed=self.env_seed,
            videos=self.videos,
            workers=self.workers,
            onnx=self.onnx,
        )
        if self.json:
            print_json(plain_rows(rows))
            return 0
        console = make_console()
        console.print(results_table(rows, over_seeds(rows)))
        for path in videos():
            if path.stat().st_mtime_ns != before.get(path):
                console.print(f"video: {path}", soft_wrap=True)
        return 0
