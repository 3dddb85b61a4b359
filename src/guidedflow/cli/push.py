"""``guidedflow push``: an exported policy to the Hugging Face Hub."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from guidedflow.cli.show import Flag, optional


@dataclasses.dataclass(frozen=True)
class Push:
    """Upload an exported policy and its model card to the Hugging Face Hub, as the user of HF_TOKEN."""

    interrupted: ClassVar[str] = "interrupted; the hub has the policy whole, or as it was"

    folder: Annotated[Positional[Path], optional("FOLDER")]
    """What `guidedflow export` made."""
    name: Annotated[Positional[str], optional("USER/NAME")]
    """Its name on the hub."""
    private: Flag = False
    """Make a new one visible to its owner alone."""

    def __call__(self) -> int:
        """Print the address."""
        import guidedflow as gf

        print(f"pushed: {gf.push(self.folder, self.name, private=self.private)}")
        return 0
