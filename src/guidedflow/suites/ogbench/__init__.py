"""OGBench: mazes, cubes, scenes and puzzles."""
