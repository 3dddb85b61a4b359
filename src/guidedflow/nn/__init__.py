"""What agents are built from: multilayer perceptrons, critics, actors and flows."""
