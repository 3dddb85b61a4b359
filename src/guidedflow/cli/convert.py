"""``guidedflow data convert``: data of the user's own as one file to train on."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional

from guidedflow.cli.show import INSTRUCTION, REWARD, Reward, optional
from guidedflow.errors import SettingsError


@dataclasses.dataclass(frozen=True)
class Convert:
    """Make data of your own into a file to train on."""

    interrupted: ClassVar[str] = "interrupted; no file was made"

    source: Annotated[Positional[Path], optional("SOURCE")]
    """An npz file of arrays, an HDF5 file as D4RL's or robomimic's, a LeRobot or Minari data set's folder, or a folder
    of episodes, each an npz or HDF5 file."""
    output: Annotated[Positional[Path], optional("OUTPUT")]
    """The new npz file, for guidedflow train."""
    observation_keys: Annotated[tuple[str, ...], optional("NAME ...")] = ()
    """The entries of dictionary observations, in order; those that are no pictures make one vector."""
    action_range: Annotated[Literal["measured"] | None, optional("measured", "they are in [-1, 1]")] = None
    """measured: store as [-1, 1] what lies between each dimension's lowest and highest action of the data."""
    action_low: Annotated[tuple[float, ...], optional("X ...")] = ()
    """Store as [-1, 1] what lies between these and --action-high: one number, or one a dimension."""
    action_high: Annotated[tuple[float, ...], optional("X ...")] = ()
    """See --action-low."""
    frame_stack: int = 1
    """Of how many pictures, a step's own and those before it, an observation is made; in dictionaries each picture."""
    reward: Annotated[Reward | None, REWARD] = None
    """Rewards of LeRobot's and robomimic's data; success: 1 where a step succeeds, else 0; step-cost: 0, else -1."""
    instruction: Annotated[str | None, INSTRUCTION] = None
    """Of LeRobot's data: the text of the only task to keep."""

    def __call__(self) -> int:
        """Print the path of the file that was made."""
        import guidedflow as gf

        low, high = self.action_low, self.action_high
        if bool(low) != bool(high) or (low and self.action_range):
            raise SettingsError("--action-range: expected measured, or --action-low and --action-high, or none of them")
        declared: Any = tuple(bound[0] if len(bound) == 1 else bound for bound in (low, high)) if low else None
        keys = [name for word in self.observation_keys for name in word.split(",")]
        path = gf.convert(
            self.source,
            self.output,
            observation_keys=keys or None,
            action_range=self.action_range or declared,
            frame_stack=self.frame_stack,
            reward=self.reward,
            instruction=self.instruction,
        )
        print(path)
        return 0
