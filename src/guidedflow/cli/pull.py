"""``guidedflow pull``: an exported policy from the Hugging Face Hub."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from guidedflow.cli.show import optional


@dataclasses.dataclass(frozen=True)
class Pull:
    """Download an exported policy from the Hugging Face Hub."""

    interrupted: ClassVar[str] = "interrupted; no folder was made"

    name: Annotated[Positional[str], optional("USER/NAME")]
    """Its name on the hub."""
    out: Annotated[Positional[Path], optional("OUT")]
    """The new folder."""
    revision: Annotated[str | None, optional("NAME", "the newest")] = None
    """A branch, tag or commit."""

    def __call__(self) -> int:
        """Print the folder."""
        import guidedflow as gf

        print(f"pulled: {gf.pull(self.name, self.out, revision=self.revision)}")
        return 0
