"""D4RL: Adroit and AntMaze."""
