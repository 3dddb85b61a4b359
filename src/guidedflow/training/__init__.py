"""The loop, the evaluation, the checkpoints and the record of a run. Knows agents by their contract, not by name."""
