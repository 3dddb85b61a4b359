"""``guidedflow assess``: the policies of a run ranked without an environment."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from guidedflow.cli.parse import Assignments, single_variant
from guidedflow.cli.show import DATA_DIR, Flag, optional, print_fitting, print_json


@dataclasses.dataclass(frozen=True)
class Assess:
    """Rank the policies of a run on recorded data, without an environment, and write RUN/assessment.csv."""

    interrupted: ClassVar[str] = "interrupted; nothing was written"

    run: Annotated[Positional[Path], optional("RUN")]
    """The run's folder."""
    dataset: Annotated[Path | None, optional("PATH", "what the run held out, else what it learned from")] = None
    """Assess on this file or folder of data of your own, or on a file such as the task's."""
    data_dir: Annotated[Path | None, DATA_DIR] = None
    """Folder of the data files."""
    agent: Annotated[str | None, optional("MODULE:CLASS")] = None
    """The class of the run's algorithm, if it is one of your own."""
    checkpoint: str = "all"
    """all, latest, best, or a step."""
    policy: Annotated[str | None, optional("NAME", "all")] = None
    """This policy alone: actor or vabc of gfp, for instance."""
    variant: Assignments = dataclasses.field(default_factory=dict)
    """Of a sweep, this variant alone: alpha=0.3 for instance."""
    seed: Annotated[int | None, optional("INT", "all")] = None
    """This training seed alone."""
    steps: Annotated[int | None, optional("INT", "the run's, at most 20,000")] = None
    """Updates of each policy's critic."""
    discount: Annotated[float | None, optional("FLOAT", "the run's")] = None
    """Discount of the values."""
    json: Flag = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        """Print the ranking, the best policy first."""
        import guidedflow as gf
        from guidedflow.runs.folder import plain_rows
        from guidedflow.training.display import assessment_table, make_console

        rows = gf.assess(
            self.run,
            dataset=self.dataset,
            data_dir=self.data_dir,
            agent=self.agent,
            checkpoint=self.checkpoint,
            policy=self.policy,
            variant=single_variant(self.variant),
            seed=self.seed,
            steps=self.steps,
            discount=self.discount,
        )
        if self.json:
            print_json(plain_rows(rows))
        else:
            print_fitting(make_console(), assessment_table(rows))
        return 0
